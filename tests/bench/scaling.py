"""How cost grows, and what the wrapping of small networks costs."""

import statistics
from collections.abc import Callable, Iterator
from functools import partial

import torch

import ifa
from tests.bench import peers
from tests.bench.measure import Measured, interleaved, table
from tests.bench.networks import resnet18
from tests.bench.taps import GRADCAM, ours


def growth(quick: bool) -> Iterator[str]:
    """Time against batch, targets and layers."""
    case = resnet18()
    bare, rows = peers.bare(case), []
    stages = [case.last.replace("stages.3", f"stages.{stage}") for stage in range(4)]
    for batch in (1,) if quick else (1, 4, 16):
        images = case.images(batch)
        taps = {f"batch {batch}, last stage": ours(case, case.last, images)}
        if batch == 1:
            for count in (2, 4):
                both = ifa.tap(case.net, stages[-count:], images)
                taps[f"batch 1, last {count} stages together"] = both
        works = {"bare": lambda images=images: bare(images)}
        works |= {name: (lambda tap=tap, images=images: tap(images)) for name, tap in taps.items()}
        rows += _rows(interleaved(works, 2 if quick else 10), list(taps))
    images = case.images(1)
    tap = ours(case, case.last, images)
    works = {"bare": lambda: bare(images)}
    for count in (1, 10, 100, 1000)[: 3 if quick else 4]:
        target = torch.arange(count)[:, None]
        works[f"batch 1, last stage, {count} targets"] = lambda target=target: tap(images, target)
    rows += _rows(interleaved(works, 2 if quick else 10), list(works)[1:])
    for channels in (512,) if quick else (128, 256, 512):
        stage = stages[{128: 1, 256: 2, 512: 3}[channels]]
        found = ifa.perturb.ablationcam(case.net, stage, images)
        works = {"bare": lambda: bare(images), stage: lambda found=found: found(images)}
        name = f"Ablation-CAM, {stage.removeprefix('net.resnet.encoder.')}, {channels} channels"
        taken = interleaved(works, 2 if quick else 10, least=1 if quick else 3)
        rows.append([name, taken.milliseconds(stage), taken.ratio(stage, "bare")])
    yield f"### Growth, {case.title}\n\n" + table(["work", "ms", "/ bare"], rows)


def _rows(taken: Measured, names: list[str]) -> list[list[object]]:
    return [[name, taken.milliseconds(name), taken.ratio(name, "bare")] for name in names]


def overhead(quick: bool) -> Iterator[str]:
    """What tap, `vmap` and `chain` cost where the network itself costs nothing."""
    net = ifa.nets.digits_cnn().eval()
    rows: list[list[object]] = []
    many = 5 if quick else 20

    def often(work: Callable[[], object]) -> Callable[[], None]:
        return lambda: [work() for _ in range(many)] and None

    for batch in (1, 64):
        images = torch.rand(batch, 1, 8, 8)
        tap = ifa.tap(net, "conv3", images)
        both = ifa.tap(net, "conv3", images, step=GRADCAM)
        works = {
            "bare": often(partial(_forward, net, images)),
            "tap": often(partial(tap, images)),
            "tap, weigh, combine": often(partial(both, images)),
            "batched(weigh, combine) alone": often(partial(ifa.batched(GRADCAM), tap(images))),
            "the same in einsum": often(partial(_einsum, tap(images))),
        }
        taken = interleaved(works, 2 if quick else 8)
        for name in works:
            value = 1e3 * statistics.median(taken[name]) / many
            rows.append([batch, name, f"{value:.2f}", taken.ratio(name, "bare")])
    head = ["digits CNN, batch", "work", "ms", "/ bare"]
    yield "### Overhead on a small grid (8 × 8)\n\n" + table(head, rows)


def _forward(net: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return net(images)


def _einsum(features: ifa.Features) -> torch.Tensor:
    weights = features.gradients.mean((2, 3))
    return torch.einsum("sc,sc...->s...", weights, features.activations)


def tables(quick: bool) -> Iterator[str]:
    """Yield the tables of this part."""
    yield from growth(quick)
    yield from overhead(quick)
