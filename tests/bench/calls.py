"""Single calls: `ifa.explain` in a loop, making a tap, perturbations by their forward passes."""

import statistics
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

import ifa
from tests.bench import peers
from tests.bench.measure import Work, exponents, interleaved, table
from tests.bench.networks import Case, resnet50


def in_a_loop(quick: bool) -> Iterator[str]:
    """`ifa.explain`, which remembers a network, beside one tap that is kept and beside others."""
    net = ifa.nets.digits_cnn().eval()
    digits = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    rows: list[list[object]] = []
    for case, images, often in (
        (resnet50(), resnet50().images(1), 1),
        (Case("digits CNN, 8 × 8", net, "conv3"), digits, 20),
    ):
        explain = partial(ifa.explain, case.net, layer=case.last, weight=ifa.weight.gradcam)
        tap = ifa.tap(case.net, case.last, images, step=_gradcam())
        works: dict[str, Callable[[], object]] = {
            "bare": partial(peers.bare(case), images),
            "bare, again": partial(peers.bare(case), images),
            "limit": partial(peers.limit(case, case.last), images),
            "a tap that is kept": partial(tap, images),
            "ifa.explain": partial(explain, images),
            "ifa.explain, size=None": partial(explain, images, size=None),
            "torch-cam": partial(peers.torchcam(case, case.last), images),
            "making a tap": partial(ifa.tap, case.net, case.last, images),
        }
        taken = interleaved(
            {name: _repeated(work, often) for name, work in works.items()}, 3 if quick else 20, 9
        )
        for name in works:
            ms = f"{1e3 * statistics.median(taken[name]) / often:.2f}"
            ratios = [taken.ratio(name, to) for to in ("bare", "limit", "torch-cam")]
            rows.append([case.title, name, ms, *ratios])
    head = ["network, batch 1", "work", "ms", "/ bare", "/ limit", "/ torch-cam"]
    yield "### Explaining in a loop\n\n" + table(head, rows)


def by_forwards(quick: bool) -> Iterator[str]:
    """Score-CAM, SS-CAM and IS-CAM by their passes, beside bare ones of as many images at once."""
    net = ifa.nets.digits_cnn().eval()
    rows: list[list[object]] = []
    for title, size, samples, options in (("8 × 8", 8, 16, {}), ("28 × 28", 28, 2, {"draws": 5})):
        images = torch.rand(samples, 1, size, size, generator=torch.Generator().manual_seed(1))
        built: dict[str, tuple[Callable[[Tensor], object], int]] = {}
        for name, draws in (("scorecam", 1), ("sscam", 35), ("iscam", 10)):
            given = options if draws > 1 else {}
            method = getattr(ifa.perturb, name)(net, "conv3", images, **given)
            built[name] = method, given.get("draws", draws)
        chunk = method._network.chunk  # pyright: ignore
        batch = torch.rand(chunk, 1, size, size)
        works: dict[str, Work] = {"bare": partial(_forward, net, batch)}
        works["bare, again"] = works["bare"]
        works |= {name: partial(method, images) for name, (method, _) in built.items()}
        taken = interleaved(works, 5 if quick else 30, 9)
        channels = 64
        for name in works:
            passes = samples * channels * built[name][1] if name in built else chunk
            ms = 1e3 * statistics.median(taken[name]) / passes
            ratio = taken.ratio(name, "bare", chunk / passes)
            rows.append([f"{title}, {samples} images", chunk, name, f"{1e3 * ms:.1f}", ratio])
    head = ["digits CNN", "at once", "work", "µs each pass", "/ bare"]
    yield "### Perturbations, each forward pass\n\n" + table(head, rows)


class Pooled(nn.Module):
    """A layer of many channels below a head that pools and is linear."""

    def __init__(self, channels: int, classes: int = 1000):
        super().__init__()
        self.layer = nn.Conv2d(3, channels, 1)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.layer(images))


def channels(quick: bool) -> Iterator[str]:
    """Ablation-CAM against the number of channels of a layer below a pooled linear head."""
    rows: list[list[object]] = []
    works: dict[int, Work] = {}
    image = torch.randn(1, 3, 7, 7, generator=torch.Generator().manual_seed(1))
    for count in (256, 1024, 4096):
        torch.manual_seed(0)
        net = Pooled(count).eval()
        works[count] = partial(ifa.perturb.ablationcam(net, "layer", image), image)
    taken = interleaved({str(count): work for count, work in works.items()}, 2 if quick else 20, 9)
    seconds = [statistics.median(taken[str(count)]) for count in works]
    for count, each, growth in zip(works, seconds, exponents(list(works), seconds), strict=True):
        rows.append([count, f"{1e3 * each:.1f}", growth])
    head = ["channels on 7 × 7, 1000 classes", "ms", "exponent"]
    yield "### Ablation-CAM over a pooled linear head\n\n" + table(head, rows)


def _gradcam() -> ifa.chains.Chain:
    return ifa.chain(ifa.weigh(ifa.weight.gradcam), ifa.combine)


def _repeated(work: Work, often: int) -> Work:
    return lambda: [work() for _ in range(often)] and None


def _forward(net: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return net(images)


def tables(quick: bool) -> Iterator[str]:
    """Yield the tables of this part."""
    yield from in_a_loop(quick)
    yield from by_forwards(quick)
    yield from channels(quick)
