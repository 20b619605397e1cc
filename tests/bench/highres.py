"""High-resolution maps against planted truth: what is sharper, and what only looks so."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import vmap

import ifa
from ifa import attribute, dense, evaluate, refine, weight
from ifa.refine.footprints import Counting
from tests.bench.measure import table
from tests.bench.planted import (
    TASKS,
    THRESHOLDS,
    Data,
    Learned,
    Task,
    apart,
    learned,
    regions,
    with_interval,
)

Explain = Callable[[Tensor, Tensor], Tensor]
MOST = 640_000  # values that a decoder is trained on
FIGURES = [
    "ink energy",
    "box energy",
    "ink IoU, best",
    "ink IoU at .5",
    "box IoU, best",
    "boundary, px",
    "pointing, box",
    "time",
    "memory",
]


def tables(quick: bool) -> Iterator[str]:
    """Yield the table of each task."""
    seeds = range(2 if quick else 5)
    for task in TASKS:
        kinds = ("pooled", "strided")
        yield written(task, {kind: [found(task, kind, s, quick) for s in seeds] for kind in kinds})


Found = tuple[float, dict[str, list[float]]]  # accuracy, and the figures of each map


def written(task: Task, of: Mapping[str, list[Found]]) -> str:
    """Write the table of a task, of the seeds of each kind of network."""
    rows: list[list[object]] = []
    for kind, seeds in of.items():
        for method in seeds[0][1]:
            cells = np.array([figures[method] for _, figures in seeds]).T
            costs = [f"{cells[-2].mean():.1f}", f"{np.nanmean(cells[-1]):.1f}"]
            rows.append([kind, method, *map(with_interval, cells[:-2]), *costs])
    accuracies = [accuracy for seeds in of.values() for accuracy, _ in seeds]
    return (
        f"### {task.title}, accuracy {min(accuracies):.2f} to {max(accuracies):.2f}\n\n"
        f"{table(['network', 'map', *FIGURES], rows)}"
    )


def found(task: Task, kind: str, seed: int, quick: bool, only: Sequence[str] = ()) -> Found:
    """Measure the maps of one network; their memory, which is the same for all, of the first."""
    made = learned(task, kind, seed, quick)
    net, _, test, accuracy = made
    figures = {}
    plain = _seconds(lambda: net(test.inputs))
    forward = refine.memory(net, test.inputs).peak
    for name, explain in explains(made, task.layers(kind), seed).items():
        if only and name not in only:
            continue
        start = time.process_time()
        maps = explain(test.inputs, test.labels).detach().clamp(min=0)
        took = (time.process_time() - start) / plain
        memory = np.nan
        if seed == 0:
            with Counting() as counted:
                explain(test.inputs, test.labels)
            memory = counted.peak / forward
        figures[name] = [*_figures(maps, test), took, memory]
    return accuracy, figures


def explains(made: Learned, layers: list[str], seed: int) -> Mapping[str, Explain]:
    """List what is compared, under the names of the table."""
    net, last = made.net, layers[-1]
    at = partial(ifa.explain, net, layer=last, rectify=True)
    gradcam = partial(at, weight=weight.gradcam)
    several = partial(ifa.fine, net, layers=layers)
    smooth = attribute.smooth(attribute.gradient(net), draws=16, stdev=0.15, seed=0)
    detailed = attribute.collapse(attribute.times_input(smooth), how="sum")
    bilateral = partial(refine.bilateral, tone=0.3)
    low, tied, untied = _decoded(made, last, seed)
    return {
        "Grad-CAM, even": partial(gradcam, placing="even"),
        "Grad-CAM": gradcam,
        "fullcam": partial(at, weight=weight.fullcam),
        "LayerCAM": partial(at, weight=weight.layercam),
        "LayerCAM, all layers, mean": partial(several, how="mean"),
        "LayerCAM, all layers, product": partial(several, how="product"),
        "Grad-CAM, guided filter": _stepped(gradcam, partial(refine.guided, radius=4)),
        "Grad-CAM, joint bilateral": _stepped(gradcam, bilateral),
        "pipeline, edges of the input": _piped(gradcam, lambda inputs, target: inputs[:, 0]),
        "pipeline, edges of LayerCAM": _piped(gradcam, partial(several, how="mean")),
        "Grad-CAM, densify 4": _densified(net, last, 4),
        "Grad-CAM, densify 1": _densified(net, last, 1),
        "fullcam, densify 1, dense pool": _densified(net, last, 1, weight.fullcam, "dense"),
        "Grad-CAM, densify 1, joint bilateral": _stepped(_densified(net, last, 1), bilateral),
        "Grad-CAM, shifted by half a stride": dense.shifted(
            gradcam, shifts=_shifts(made, layers, 2)
        ),
        "Grad-CAM, shifted by quarters": dense.shifted(gradcam, shifts=_shifts(made, layers, 4)),
        "Grad-CAM, shift and stitch": _stitched(net, last, made.test.inputs[:2], 2 ** len(layers)),
        "CAMERAS": partial(at, weight=dense.scaled),
        "half, low map": low,
        "full, tied, high map": tied,
        "full, untied, high map": untied,
        "pipeline, half and full, untied": _piped(low, untied),
        "SmoothGrad × input": lambda inputs, target: detailed(inputs, target),
        "SmoothGrad × input × Grad-CAM": lambda inputs, target: (
            detailed(inputs, target).clamp(min=0) * gradcam(inputs, target)
        ),
        "the input itself": lambda inputs, target: inputs[:, 0],
    }


def _densified(
    net: nn.Module, layer: str, stride: int, kernel: Any = weight.gradcam, pool: Any = "exact"
) -> Explain:
    fine = dense.densify(net, stride=stride, pool=pool)
    return partial(ifa.explain, fine, layer=f"net.{layer}", weight=kernel)


def _stitched(net: nn.Module, layer: str, example: Tensor, stride: int) -> Explain:
    """Lay the maps of all shifts within the layer's total stride side by side."""
    own = partial(ifa.explain, net, layer=layer, weight=weight.gradcam, rectify=True, size=None)
    start, step = ifa.positions(net, layer, example)
    place = ifa.place(ifa.types.Positions(start, step / stride), example.shape[2:])
    maps = dense.stitched(own, stride=stride)
    return lambda inputs, target: ifa.batched(place)(ifa.Map(maps(inputs, target), target)).values


def _shifts(made: Learned, layers: list[str], parts: int) -> list[tuple[int, ...]]:
    """Cut the total stride of the last of these layers into so many steps, along each axis."""
    step = max(2 ** len(layers) // parts, 1)
    along = [-step * part for part in range(parts)]
    return list(product(along, repeat=made.test.boxes.ndim - 1))


def _decoded(made: Learned, layer: str, seed: int) -> tuple[Explain, Explain, Explain]:
    """Train a half and both of its decoders; return the low map and the two high ones."""
    example, outputs = made.test.inputs[:2], 10
    half, params = refine.half(made.net, None, layer, example, outputs=outputs, seed=seed)
    some = made.train[: MOST // example[0].numel()]
    params = refine.trained(half, params, some, epochs=6, seed=seed).params

    placed = ifa.place(ifa.positions(half, "head.conv", example), example.shape[2:])

    def low(inputs: Tensor, target: Tensor) -> Tensor:
        return ifa.batched(placed)(refine.low(half, params, inputs, target)).values

    def high(tied: bool) -> Explain:
        full, whole = refine.full(half, params, example, tied=tied, seed=seed)
        whole = refine.trained(full, whole, some, epochs=6, seed=seed).params
        return lambda inputs, target: refine.high(full, whole, inputs, target).values

    return low, high(True), high(False)


def _stepped(explain: Explain, of: Callable[[Tensor], ifa.types.Step]) -> Explain:
    """Refine each map by its own image."""

    def explained(inputs: Tensor, target: Tensor) -> Tensor:
        maps = zip(inputs, explain(inputs, target), target, strict=True)
        return torch.stack([of(image)(ifa.Map(map, one)).values for image, map, one in maps])

    return explained


def _piped(low: Explain, high: Explain) -> Explain:
    """Refine each map by the edges of another, as high-res-mapping does."""

    def explained(inputs: Tensor, target: Tensor) -> Tensor:
        given = zip(inputs, low(inputs, target), high(inputs, target), strict=True)
        return torch.stack([refine.pipeline(*one).merged for one in given]).float()

    return explained


def _figures(maps: Tensor, data: Data) -> list[float]:
    def shares(masks: Tensor) -> Tensor:
        return vmap(lambda map, mask: evaluate.iou(map, mask, THRESHOLDS))(maps, masks).nanmean(0)

    mass = vmap(evaluate.relevance_mass)
    inks, boxes = shares(data.inks), shares(data.boxes)
    cut = regions(maps, float(THRESHOLDS[int(inks.argmax())]))
    pairs = zip(cut, data.inks.numpy(), strict=True)
    away = [apart(region, mask) for region, mask in pairs if region.any()]
    return [
        float(mass(maps, data.inks).nanmean()),
        float(mass(maps, data.boxes).nanmean()),
        float(inks.max()),
        float(inks[THRESHOLDS.sub(0.5).abs().argmin()]),
        float(boxes.max()),
        float(np.mean(away)),
        float(vmap(evaluate.pointing_game)(maps, data.boxes).nanmean()),
    ]


def _seconds(work: Callable[[], object]) -> float:
    work()
    start = time.process_time()
    work()
    return time.process_time() - start
