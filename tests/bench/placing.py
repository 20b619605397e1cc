"""Where maps lie: units at their true centres against even tiling, on planted truth."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import binary_erosion, distance_transform_edt
from torch import Tensor, nn
from torch.func import vmap

import ifa
from ifa import evaluate, nets, weight
from tests.bench.measure import table

THRESHOLDS = torch.linspace(0.05, 0.95, 19)
WEIGHTS = {"fullcam": weight.fullcam, "layercam": weight.layercam}
STUDENT = {2: 12.706, 5: 2.776}  # two-sided 95 %, by how many seeds


class Data(NamedTuple):
    inputs: Tensor  # (sample, 1, *space)
    labels: Tensor
    masks: Tensor  # (sample, *space), the box that holds what decides


class Task(NamedTuple):
    """What is planted on a canvas, and how it is learned."""

    title: str
    extent: int  # of the canvas
    box: int  # of what is planted
    space: int
    stages: int  # each halves the grid
    samples: int
    epochs: int
    patterns: Callable[[np.random.Generator], tuple[np.ndarray, int]]


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
                    cells = [_written(values) for values in (*pair, pair[1] - pair[0])]
                    rows.append([kind, method, figure, *cells])
        yield (
            f"### {task.title}, accuracy {min(accuracies):.2f} to {max(accuracies):.2f}\n\n"
            f"{table(head, rows)}"
        )


def _seed(task: Task, kind: str, seed: int, quick: bool) -> tuple[float, dict]:
    """Train a network, and measure maps of samples it has not seen, each placed both ways."""
    train, test = (_planted(task, task.samples, 2 * seed), _planted(task, 60, 2 * seed + 1))
    items = list(zip(train.inputs, train.labels.tolist(), strict=True))
    epochs = max(task.epochs // (3 if quick else 1), 1)
    net = nets.train(lambda: _network(task, kind), items, epochs=epochs, seed=seed, batch_size=32)
    with torch.no_grad():
        accuracy = float((net(test.inputs).argmax(1) == test.labels).float().mean())
    size = tuple(test.inputs.shape[2:])
    layer = f"{4 * task.stages - 1}" if kind == "pooled" else f"{3 * task.stages - 1}"
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
            placing: _figures(ifa.batched(step)(coarse).values, test.masks)
            for placing, step in steps.items()
        }
    return accuracy, found


def _network(task: Task, kind: str) -> nn.Sequential:
    convolution, norm, pool = (
        getattr(nn, f"{name}{task.space}d") for name in ("Conv", "BatchNorm", "MaxPool")
    )
    parts: list[nn.Module] = []
    channels = 1
    for stage in range(task.stages):
        wide, stride = 12 * 2**stage, 2 if kind == "strided" else 1
        parts += [convolution(channels, wide, 3, stride, padding=1), norm(wide), nn.ReLU()]
        parts += [pool(2)] if kind == "pooled" else []
        channels = wide
    head = nn.Sequential(nn.Flatten(2), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    return nn.Sequential(*parts, head, nn.Linear(channels, 10))


def _planted(task: Task, samples: int, seed: int) -> Data:
    """Plant one pattern that decides, and two whose elements are shuffled, at random places."""
    rng = np.random.default_rng(seed)
    inputs = 0.1 * rng.standard_normal((samples, *[task.extent] * task.space))
    masks = np.zeros(inputs.shape, bool)
    labels = []
    for values, mask in zip(inputs, masks, strict=True):
        for shuffled in (True, True, False):
            pattern, label = task.patterns(rng)
            if shuffled:
                pattern = rng.permutation(pattern.ravel()).reshape(pattern.shape)
            corner = rng.integers(0, task.extent - task.box + 1, task.space)
            place = tuple(slice(start, start + task.box) for start in corner)
            values[place] = pattern  # over what was there
        mask[place] = True
        labels.append(label)
    tensor = torch.from_numpy(inputs.astype(np.float32))[:, None]
    return Data(tensor, torch.tensor(labels), torch.from_numpy(masks))


def _digit(rng: np.random.Generator) -> tuple[np.ndarray, int]:
    image, label, _ = DIGITS[rng.integers(len(DIGITS))]
    return image[0].numpy().repeat(2, 0).repeat(2, 1), label


def _bump(space: int, extent: int) -> Callable[[np.random.Generator], tuple[np.ndarray, int]]:
    """Make a bump, a shell, or waves under a bump."""
    along = np.linspace(-1, 1, extent)
    grid = np.stack(np.meshgrid(*[along] * space, indexing="ij"))
    radius = np.sqrt((grid**2).sum(0))
    patterns = [
        np.exp(-3 * radius**2),
        np.exp(-(((radius - 0.65) / 0.2) ** 2)),
        np.exp(-2 * radius**2) * np.cos(3 * np.pi * grid[-1]),
    ]

    def drawn(rng: np.random.Generator) -> tuple[np.ndarray, int]:
        label = int(rng.integers(len(patterns)))
        return rng.uniform(0.8, 1.2) * patterns[label], label

    return drawn


def _figures(maps: Tensor, masks: Tensor) -> dict[str, float]:
    shares = vmap(lambda map, mask: evaluate.iou(map, mask, THRESHOLDS))(maps, masks).nanmean(0)
    best = int(shares.argmax())
    limits = THRESHOLDS[best] * maps.flatten(1).amax(1)
    regions = maps >= limits.reshape(-1, *[1] * (maps.ndim - 1))
    pairs = list(zip(regions.numpy(), masks.numpy(), strict=True))
    apart = [_apart(region, mask) for region, mask in pairs if region.any()]
    return {
        "box IoU, best threshold": float(shares[best]),
        "energy inside the box": float(vmap(evaluate.relevance_mass)(maps, masks).nanmean()),
        "pointing game": float(vmap(evaluate.pointing_game)(maps, masks).nanmean()),
        "boundary error, px": float(np.mean(apart)),
        "error of the centroid, px": float(_centroids_apart(maps, masks).nanmean()),
    }


def _apart(region: np.ndarray, mask: np.ndarray) -> float:
    """Return the mean distance of two regions' borders, from each to the other."""
    borders = [area & ~binary_erosion(area) for area in (region, mask)]
    one, other = (distance_transform_edt(~border) for border in borders)
    return float((one[borders[1]].mean() + other[borders[0]].mean()) / 2)


def _centroids_apart(maps: Tensor, masks: Tensor) -> Tensor:
    axes = [torch.arange(extent, dtype=torch.float32) for extent in maps.shape[1:]]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)
    one, other = (values.flatten(1).float() for values in (maps, masks))
    centers = [values @ grid.T / values.sum(1, keepdim=True) for values in (one, other)]
    return (centers[0] - centers[1]).norm(dim=1)


def _written(values: np.ndarray) -> str:
    interval = STUDENT[len(values)] * values.std(ddof=1) / len(values) ** 0.5
    return f"{values.mean():.3f} ± {interval:.3f}"


DIGITS = [item for item in nets.digits("all") if item[1] < 4]
TASKS = [
    Task("Planted digits, 0 to 3, 40 × 40", 40, 16, 2, 3, 1200, 14, _digit),
    Task("Planted bumps, 160 points", 160, 32, 1, 3, 600, 12, _bump(1, 32)),
    Task("Planted bumps, 20 × 20 × 20", 20, 10, 3, 2, 240, 16, _bump(3, 10)),
]
