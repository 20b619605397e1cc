"""Faults to plant in data and networks, and simulated signals: what a diagnosis must find."""

import copy
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def simulated(space: int, *, samples: int = 240, seed: int = 0) -> list[tuple[Tensor, int, str]]:
    r"""Simulate signals (one axis) or volumes (three), of three classes: no real data.

    A class is the width of a smooth bump at a random place, in noise.

    Parameters
    ----------
    space
        1 for signals of 48 points, 2 for images 16 × 16, 3 for volumes 10 × 10 × 10.
    samples
        How many, of the classes in turn.
    seed
        Of places and noise.

    Returns
    -------
    list of (input, label, id)
        Input (1, \*space) float32, label 0 … 2, an id such as ``"simulated-007"``.

    Examples
    --------
    >>> simulated(3, samples=4)[3][0].shape, [label for _, label, _ in simulated(1, samples=4)]
    (torch.Size([1, 10, 10, 10]), [0, 1, 2, 0])
    """
    extents = {1: (48,), 2: (16, 16), 3: (10, 10, 10)}
    if space not in extents:
        raise ValueError(f"ifa.nets.simulated: expected 1, 2 or 3 axes of space, got {space!r}.")
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*map(np.arange, extents[space]), indexing="ij"))
    items = []
    for index in range(samples):
        extent = np.array(extents[space])
        place = rng.uniform(0.25, 0.75, space) * extent
        squared = ((grid - place.reshape(-1, *[1] * space)) ** 2).sum(0)
        width = (0.03, 0.08, 0.2)[index % 3] * extent[0] + 0.4
        values = np.exp(-squared / (2 * width**2)) + 0.1 * rng.standard_normal(extent)
        tensor = torch.from_numpy(values.astype(np.float32))[None]
        items.append((tensor, index % 3, f"simulated-{index:03d}"))
    return items


def marked(
    marks: Tensor, amounts: Any, space: Sequence[int], *, noise: float = 0.3, seed: int = 0
) -> tuple[Tensor, Tensor]:
    r"""Plant marks in noise, each at a random place: what a label is of, and where.

    .. math:: x_n = \sum_m a_{nm} \, S_{nm} M_m + \sigma \varepsilon_n

    Parameters
    ----------
    marks : (mark, channel, \*extent)
        What each mark M looks like.
    amounts : (sample, mark)
        How much of each is in a sample, such as 0 or 1.
    space
        Of the inputs.
    noise
        Standard deviation σ of the noise ε.
    seed
        Of places S and noise.

    Returns
    -------
    inputs : (sample, channel, \*space), float32
    where : (sample, mark, \*space), bool
        The extent of each mark that is there.

    Examples
    --------
    >>> cross = torch.eye(3) + torch.eye(3).flip(0)
    >>> inputs, where = marked(cross[None, None], [[1], [0]], (8, 8))
    >>> inputs.shape, where.sum((1, 2, 3)).tolist()
    (torch.Size([2, 1, 8, 8]), [9, 0])
    """
    amounts = torch.as_tensor(amounts, dtype=torch.float32)
    rng = np.random.default_rng(seed)
    shape, extent = (len(amounts), marks.shape[1], *space), marks.shape[2:]
    inputs = torch.from_numpy(noise * rng.standard_normal(shape)).float()
    where = torch.zeros(*amounts.shape, *space, dtype=torch.bool)
    rooms = [free - taken + 1 for free, taken in zip(space, extent, strict=True)]
    places = rng.integers(rooms, size=(*amounts.shape, len(extent)))
    for (sample, mark), amount in np.ndenumerate(amounts.numpy()):
        start = places[sample, mark]
        area = tuple(slice(at, at + long) for at, long in zip(start, extent, strict=True))
        inputs[sample, :, *area] += float(amount) * marks[mark]
        where[sample, mark, *area] = bool(amount)
    return inputs, where


def simulated_cnn(space: int) -> nn.Sequential:
    r"""Build a network for `simulated`: two convolutions, ``conv2`` with 16 channels, and a head.

    Parameters
    ----------
    space
        1, 2 or 3.

    Returns
    -------
    torch.nn.Sequential
        (sample, 1, \*space) -> logits (sample, 3).

    Examples
    --------
    >>> simulated_cnn(1)(torch.zeros(2, 1, 48)).shape
    torch.Size([2, 3])
    """
    convolution: Any = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[space]
    norm: Any = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[space]
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Sequential(convolution(1, 8, 5, padding=2), norm(8), nn.ReLU()),
            conv2=nn.Sequential(convolution(8, 16, 5, 2, padding=2), norm(16), nn.ReLU()),
            flat=nn.Sequential(nn.Flatten(2), nn.AdaptiveAvgPool1d(1), nn.Flatten()),
            head=nn.Linear(16, 3),
        )
    )


def stamped(
    data: Sequence[Any],
    *,
    target: int,
    fraction: float = 0.6,
    elsewhere: float = 0.05,
    seed: int = 0,
) -> tuple[list[Any], np.ndarray]:
    r"""Stamp a bright mark of 2 × 2 pixels in the corner of the images of one class: a confounder.

    Parameters
    ----------
    data
        ``(image, label, ...)`` with images (channel, y, x).
    target
        The class that is stamped.
    fraction, elsewhere
        Share of the images of this class, and of others, that get the mark.
    seed
        Of which.

    Returns
    -------
    data, stamp
        The data set with marks, and whether each sample has one, (sample,) bool.

    Examples
    --------
    >>> data, stamp = stamped([(torch.zeros(1, 4, 4), 1, "a")], target=1, fraction=1.0)
    >>> float(data[0][0].sum()), stamp.tolist()
    (4.0, [True])
    """
    rng = np.random.default_rng(seed)
    labels = np.array([item[1] for item in data])
    stamp = rng.random(len(data)) < np.where(labels == target, fraction, elsewhere)
    result = []
    for item, mark in zip(data, stamp, strict=True):
        image = item[0].clone()
        if mark:
            image[..., :2, :2] = 1.0
        result.append((image, *item[1:]))
    return result, stamp


def overexposed(
    data: Sequence[Any], *, samples: int = 12, factor: float = 3.0, seed: int = 0
) -> tuple[list[Any], np.ndarray]:
    """Multiply some inputs by a factor, as by a wrong exposure or unit: corrupted samples.

    Parameters
    ----------
    data
        ``(input, label, ...)``.
    samples
        How many.
    factor
        By what.
    seed
        Of which.

    Returns
    -------
    data, corrupted
        The data set, and whether each sample is corrupted, (sample,) bool.

    Examples
    --------
    >>> data, corrupted = overexposed([(torch.ones(1, 2), 0)], samples=1)
    >>> data[0][0].tolist(), corrupted.tolist()
    ([[3.0, 3.0]], [True])
    """
    corrupted = np.zeros(len(data), dtype=bool)
    corrupted[np.random.default_rng(seed).choice(len(data), samples, replace=False)] = True
    pairs = zip(data, corrupted, strict=True)
    return [(item[0] * (factor if bad else 1.0), *item[1:]) for item, bad in pairs], corrupted


def duplicated(network: nn.Sequential, *, pairs: Sequence[tuple[int, int]]) -> nn.Sequential:
    """Overwrite channels of ``conv3`` by copies of others: redundant channels.

    Parameters
    ----------
    network
        `digits_cnn` or `faces_cnn`, trained or not; it is left as it was.
    pairs
        ``(channel, copy)``: the filter, its normalization and its head's weights are copied.

    Returns
    -------
    torch.nn.Sequential
        Another network.
    """
    result = copy.deepcopy(network)
    block: Any = result.conv3
    head: Any = result.head
    with torch.no_grad():
        for source, to in pairs:
            block[0].weight[to] = block[0].weight[source]
            for name in ("weight", "bias", "running_mean", "running_var"):
                getattr(block[1], name)[to] = getattr(block[1], name)[source]
            head.weight[:, to] = head.weight[:, source]
    return result
