"""How cost grows, and what the wrapping of small networks costs."""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

import ifa
from tests.bench import peers
from tests.bench.measure import Work, exponents, interleaved, table
from tests.bench.networks import resnet18
from tests.bench.taps import GRADCAM, ours


def growth(quick: bool) -> Iterator[str]:
    """Time of a ResNet-18 against batch, layers and targets."""
    case, seconds = resnet18(), 0.5 if quick else 5.0
    bare, images = peers.bare(case), case.images(1)
    rows: list[list[object]] = []

    def add(works: Mapping[str, tuple[Work, Work]], sizes: Sequence[int]) -> None:
        """Measure works, each beside a bare pass."""
        taken = {name: interleaved({"bare": bare, name: work}, seconds, 1 if quick else 3)
                 for name, (bare, work) in works.items()}  # fmt: skip
        powers = exponents(sizes, [statistics.median(taken[name][name]) for name in works])
        for name, power in zip(works, powers, strict=True):
            found = taken[name]
            rows.append([name, found.milliseconds(name), found.ratio(name, "bare"), power])

    sizes = (1, 2) if quick else (1, 4, 16)
    tap, one = ours(case, case.last, images), partial(bare, images)
    batches = {size: case.images(size) for size in sizes}
    add({f"batch {size}, last stage": (partial(bare, some), partial(tap, some))
         for size, some in batches.items()}, sizes)  # fmt: skip
    encoder = case.last.removesuffix(".stages.3")
    layers = [f"{encoder}.stages.{stage}" for stage in range(4)]
    layers.insert(0, f"{encoder.removesuffix('.encoder')}.embedder")
    taps = [ifa.tap(case.net, layers[-count:], images) for count in range(1, 6)]
    add({f"last {count} layers of 5": (one, partial(each, images))
         for count, each in enumerate(taps, 1)}, range(1, 6))  # fmt: skip
    sizes = (1, 10, 100, 1000)[: 3 if quick else 4]
    add({f"{size} targets": (one, partial(tap, images, torch.arange(size)[:, None]))
         for size in sizes}, sizes)  # fmt: skip
    head = ["work", "ms", "/ bare", "exponent"]
    yield f"### Growth, {case.title}\n\n" + table(head, rows)


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


def _forward(net: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return net(images)


def _einsum(features: ifa.Features) -> torch.Tensor:
    weights = features.gradients.mean((2, 3))
    return torch.einsum("sc,sc...->s...", weights, features.activations)


def tables(quick: bool) -> Iterator[str]:
    """Yield the tables of this part."""
    yield from growth(quick)
    yield from overhead(quick)
