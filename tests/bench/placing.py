"""Where maps lie: units at their true centres against even tiling, on planted truth."""

from collections.abc import Iterator

import numpy as np
from torch import Tensor
from torch.func import vmap

import ifa
from ifa import evaluate, weight
from tests.bench.measure import table
from tests.bench.planted import TASKS, THRESHOLDS, Task, apart, learned, regions, with_interval

WEIGHTS = {"fullcam": weight.fullcam, "layercam": weight.layercam}


def tables(quick: bool) -> Iterator[str]:
    """Yield the tables of this part."""
    seeds = range(2 if quick else 5)
    for task in TASKS:
        head = ["network", "map", "figure", "even", "centers", "difference"]
        rows: list[list[object]] = []
        accuracies = []
        for kind in ("pooled", "strided"):
            found = [_seed(task, kind, seed, quick) for seed in seeds]
            accuracies += [accuracy for accuracy, _ in found]
            for method in WEIGHTS:
                for figure in found[0][1][method]["even"]:
                    pair = [
                        np.array([of[method][placing][figure] for _, of in found])
                        for placing in ("even", "centers")
                    ]
                    cells = [with_interval(values) for values in (*pair, pair[1] - pair[0])]
                    rows.append([kind, method, figure, *cells])
        yield (
            f"### {task.title}, accuracy {min(accuracies):.2f} to {max(accuracies):.2f}\n\n"
            f"{table(head, rows)}"
        )


def _seed(task: Task, kind: str, seed: int, quick: bool) -> tuple[float, dict]:
    """Measure maps of samples that a network has not seen, each placed both ways."""
    net, _, test, accuracy = learned(task, kind, seed, quick)
    size, layer = tuple(test.inputs.shape[2:]), task.layers(kind)[-1]
    steps = {
        "even": ifa.resize(size),
        "centers": ifa.place(ifa.positions(net, layer, test.inputs), size),
    }
    options = {"layer": layer, "size": None}
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, method in WEIGHTS.items():
        small = ifa.explain(net, test.inputs, test.labels, weight=method, **options)
        coarse = ifa.Map(small, test.labels)
        found[name] = {
            placing: _figures(ifa.batched(step)(coarse).values, test.boxes)
            for placing, step in steps.items()
        }
    return accuracy, found


def _figures(maps: Tensor, masks: Tensor) -> dict[str, float]:
    shares = vmap(lambda map, mask: evaluate.iou(map, mask, THRESHOLDS))(maps, masks).nanmean(0)
    best = int(shares.argmax())
    pairs = zip(regions(maps, float(THRESHOLDS[best])), masks.numpy(), strict=True)
    away = [apart(region, mask) for region, mask in pairs if region.any()]
    return {
        "box IoU, best threshold": float(shares[best]),
        "energy inside the box": float(vmap(evaluate.relevance_mass)(maps, masks).nanmean()),
        "pointing game": float(vmap(evaluate.pointing_game)(maps, masks).nanmean()),
        "boundary error, px": float(np.mean(away)),
        "error of the centroid, px": float(_centroids_apart(maps, masks).nanmean()),
    }


def _centroids_apart(maps: Tensor, masks: Tensor) -> Tensor:
    axes = [torch.arange(extent, dtype=torch.float32) for extent in maps.shape[1:]]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)
    one, other = (values.flatten(1).float() for values in (maps, masks))
    centers = [values @ grid.T / values.sum(1, keepdim=True) for values in (one, other)]
    return (centers[0] - centers[1]).norm(dim=1)
