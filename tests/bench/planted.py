"""Planted truth: a pattern that decides among others that do not, and networks that learn it."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import binary_erosion, distance_transform_edt
from torch import Tensor, nn

from ifa import nets

THRESHOLDS = torch.linspace(0.05, 0.95, 19)
STUDENT = {2: 12.706, 3: 4.303, 5: 2.776}  # two-sided 95 %, by how many seeds


class Data(NamedTuple):
    inputs: Tensor  # (sample, 1, *space)
    labels: Tensor
    boxes: Tensor  # (sample, *space), the box that holds what decides
    inks: Tensor  # (sample, *space), where in it the pattern is


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

    def layers(self, kind: str) -> list[str]:
        """Name the last layer of each stage of its network."""
        each = {"pooled": 4, "strided": 3}[kind]
        return [f"{each * stage + each - 1}" for stage in range(self.stages)]


class Learned(NamedTuple):
    net: nn.Module
    train: list[tuple[Tensor, int]]
    test: Data  # samples that it has not seen
    accuracy: float  # on these


def learned(task: Task, kind: str, seed: int, quick: bool) -> Learned:
    """Train a network on planted patterns."""
    train, test = (planted(task, task.samples, 2 * seed), planted(task, 60, 2 * seed + 1))
    items = list(zip(train.inputs, train.labels.tolist(), strict=True))
    epochs = max(task.epochs // (3 if quick else 1), 1)
    net = nets.train(lambda: network(task, kind), items, epochs=epochs, seed=seed, batch_size=32)
    with torch.no_grad():
        accuracy = float((net(test.inputs).argmax(1) == test.labels).float().mean())
    return Learned(net, items, test, accuracy)


def network(task: Task, kind: str) -> nn.Sequential:
    convolution, norm, pool, average = (
        getattr(nn, f"{name}{task.space}d")
        for name in ("Conv", "BatchNorm", "MaxPool", "AdaptiveAvgPool")
    )
    parts: list[nn.Module] = []
    channels = 1
    for stage in range(task.stages):
        wide, stride = 12 * 2**stage, 2 if kind == "strided" else 1
        parts += [convolution(channels, wide, 3, stride, padding=1), norm(wide), nn.ReLU()]
        parts += [pool(2)] if kind == "pooled" else []
        channels = wide
    head = nn.Sequential(average(1), nn.Flatten())
    return nn.Sequential(*parts, head, nn.Linear(channels, 10))


def planted(task: Task, samples: int, seed: int) -> Data:
    """Plant one pattern that decides, and two whose elements are shuffled, at random places."""
    rng = np.random.default_rng(seed)
    inputs = 0.1 * rng.standard_normal((samples, *[task.extent] * task.space))
    boxes, inks = np.zeros(inputs.shape, bool), np.zeros(inputs.shape, bool)
    labels = []
    for values, box, ink in zip(inputs, boxes, inks, strict=True):
        for shuffled in (True, True, False):
            pattern, label = task.patterns(rng)
            if shuffled:
                pattern = rng.permutation(pattern.ravel()).reshape(pattern.shape)
            corner = rng.integers(0, task.extent - task.box + 1, task.space)
            place = tuple(slice(start, start + task.box) for start in corner)
            values[place] = pattern  # over what was there
        box[place] = True
        ink[place] = pattern > pattern.max() / 2
        labels.append(label)
    tensor = torch.from_numpy(inputs.astype(np.float32))[:, None]
    return Data(tensor, torch.tensor(labels), torch.from_numpy(boxes), torch.from_numpy(inks))


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


def regions(maps: Tensor, threshold: float) -> np.ndarray:
    """Cut maps off at a share of their own maximum: (sample, *space), bool."""
    limits = threshold * maps.flatten(1).amax(1)
    return (maps >= limits.reshape(-1, *[1] * (maps.ndim - 1))).numpy()


def apart(region: np.ndarray, mask: np.ndarray) -> float:
    """Return the mean distance of two regions' borders, from each to the other."""
    borders = [area & ~binary_erosion(area) for area in (region, mask)]
    one, other = (distance_transform_edt(~border) for border in borders)
    return float((one[borders[1]].mean() + other[borders[0]].mean()) / 2)


def with_interval(values: np.ndarray) -> str:
    interval = STUDENT[len(values)] * values.std(ddof=1) / len(values) ** 0.5
    return f"{values.mean():.3f} ± {interval:.3f}"


DIGITS = [item for item in nets.digits("all") if item[1] < 4]
TASKS = [
    Task("Planted digits, 0 to 3, 40 × 40", 40, 16, 2, 3, 1200, 14, _digit),
    Task("Planted bumps, 160 points", 160, 32, 1, 3, 600, 12, _bump(1, 32)),
    Task("Planted bumps, 20 × 20 × 20", 20, 10, 3, 2, 240, 16, _bump(3, 10)),
]
