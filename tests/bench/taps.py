"""Grad-CAM of one layer and one target; many targets from one forward pass."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

import ifa
from tests.bench import peers
from tests.bench.measure import difference, interleaved, peaks, table
from tests.bench.networks import Case, resnet18, resnet50, vit

GRADCAM = ifa.chain(ifa.weigh(ifa.weight.gradcam), ifa.combine)


def ours(case: Case, name: str, example: Tensor, **options: object) -> Callable[..., Tensor]:
    tap = ifa.tap(case.net, name, example, grid=case.grid, step=GRADCAM, **options)
    return lambda images, target=None: tap(images, target).values


def one_target(quick: bool) -> Iterator[str]:
    """Time of Grad-CAM, against the bare forward pass and against the limit."""
    rows: list[list[object]] = []
    for case in (resnet50(),) if quick else (resnet50(), vit()):
        for name in filter(None, (case.last, case.before)):
            for batch in (1,) if quick else (1, 16):
                rows += _one_target(case, name, batch, quick)
    head = ["network, layer, batch", "variant", "ms", "/ bare", "/ limit", "max difference"]
    yield "### Grad-CAM of one layer, one target\n\n" + table(head, rows)


def _one_target(case: Case, name: str, batch: int, quick: bool) -> list[list[object]]:
    images = case.images(batch)
    limit, bare = peers.limit(case, name), peers.bare(case)
    methods = {
        "limit": limit,
        "ifa": ours(case, name, images),
        "torch-cam": peers.torchcam(case, name),
        "pytorch-grad-cam, by definition": peers.pytorch_grad_cam(case, name),
    }
    if case.grid is None:
        methods["captum"] = peers.captum(case, name, bare(images).argmax(1))
    expected = limit(images)
    apart = {name: _apart(found(images), expected) for name, found in methods.items()}
    works = {"bare": lambda: bare(images), "bare, again": lambda: bare(images)}
    works |= {name: (lambda found=found: found(images)) for name, found in methods.items()}
    seconds = (2 if quick else 20) * (1 if batch == 1 else 4)
    taken = interleaved(works, seconds)
    place = f"{case.title}, {name.removeprefix('net.')}, {batch}"
    return [
        [
            place,
            work,
            taken.milliseconds(work),
            taken.ratio(work, "bare"),
            taken.ratio(work, "limit"),
            apart.get(work, ""),
        ]
        for work in works
    ]


def _apart(found: Tensor, expected: Tensor) -> str:
    # torch-cam rectifies
    return difference(found, expected.relu() if bool((found >= 0).all()) else expected)


def memory(quick: bool) -> Iterator[str]:
    """Peak memory of Grad-CAM, each in a process of its own."""
    names = ["bare", "limit", "ifa", "torch-cam", "captum", "pytorch-grad-cam, by definition"]
    found = peaks("taps", ["ifa", "torch-cam"] if quick else names)
    rows = [[name, f"{mib:.0f}", f"{mib / found['torch-cam']:.2f}"] for name, mib in found.items()]
    head = ["ResNet-50, last stage, batch 16", "peak above the network, MiB", "/ torch-cam"]
    yield "### Its peak memory\n\n" + table(head, rows)


def many_targets(quick: bool) -> Iterator[str]:
    """Many targets from one forward pass."""
    case = resnet18() if quick else resnet50()
    images = case.images(1)
    bare = peers.bare(case)
    rows: list[list[object]] = []
    for name, counts in [(case.last, (10, 100, 1000)), (case.before, (10, 100))]:
        maps = ours(case, str(name), images)
        works = {"bare": lambda: bare(images)}
        for count in counts[: 2 if quick else 3]:
            target = torch.arange(count)[:, None]
            works[f"ifa, {count}"] = lambda maps=maps, target=target: maps(images, target)
            if count <= 100:
                loop = peers.torchcam_targets(case, str(name), count)
                works[f"torch-cam, {count}"] = lambda loop=loop: loop(images)
        first = works["torch-cam, 10"]()
        apart = difference(
            works["ifa, 10"]().relu(), torch.stack(first).reshape(10, 1, *first[0].shape[-2:])
        )
        taken = interleaved(works, 3 if quick else 45)
        for work in works:
            count = work.rpartition(", ")[2]
            theirs = f"torch-cam, {count}"
            compared = taken.ratio(work, theirs) if theirs in works else ""
            rows.append(
                [
                    str(name).removeprefix("net."),
                    work,
                    taken.milliseconds(work),
                    taken.ratio(work, "bare"),
                    compared,
                    apart if work == "ifa, 10" else "",
                ]
            )
    head = [
        f"{case.title}, batch 1: layer",
        "variant, targets",
        "ms",
        "/ bare",
        "/ torch-cam",
        "max difference",
    ]
    yield "### Many targets from one forward pass\n\n" + table(head, rows)


def tables(quick: bool) -> Iterator[str]:
    yield from one_target(quick)
    yield from memory(quick)
    yield from many_targets(quick)
