"""Focal points: where regions are grown from, on the host."""

from collections.abc import Sequence
from math import prod
from typing import Literal

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from ifa.checks import check_choice, check_count
from ifa.refine.given import back, numbers, parts_of
from ifa.resizing import resized

Scope = Literal["global", "local"]
Areas = Literal["small", "large"]


def focal_points(
    values: Tensor,
    *,
    size: Sequence[int] | None = None,
    scope: Scope = "global",
    areas: Areas = "small",
    count: int | None = None,
    threshold: float | None = None,
) -> Tensor:
    r"""Find the positions of the input at which a map peaks.

    ``scope="global"``: the `count` largest values of the map, resized linearly; of equal ones the
    first. They cluster about one peak. ``scope="local"``: the regional maxima of the map as it is,
    plateaus that no neighbour exceeds, corners and borders counted, of at least the threshold; each
    enlarged to the size. Runs on the host, with `scipy.ndimage`, for one example; it can be neither
    differentiated nor lifted with `vmap`.

    Parameters
    ----------
    values : (\*grid)
        A map, of one to three axes, signed.
    size
        Extents of the input; the map's own if None.
    scope
        ``"global"`` or ``"local"``.
    areas
        What stands for an enlarged maximum: ``"small"``, its position that is nearest to its
        centroid; ``"large"``, all its positions.
    count
        How many, of ``"global"``; if None the square root of the mean extent: 15 of 224 × 224.
    threshold
        Least value of a maximum, of ``"local"``; if None half way between the least and the largest
        maximum.

    Returns
    -------
    (point, axis), int64
        Indices, in the order of the map's axes; by falling value if global, else in the order of
        positions.

    Raises
    ------
    TypeError, ValueError
        If the map is not finite and of one example, or an option is none of these.

    Examples
    --------
    >>> import ifa, torch
    >>> ifa.refine.focal_points(torch.tensor([[0.0, 2.0], [3.0, 1.0]]), count=2)
    tensor([[1, 0],
            [0, 1]])
    >>> low = torch.tensor([0.0, 2.0, 0.0, 3.0, 0.0])
    >>> ifa.refine.focal_points(low, size=(15,), scope="local").flatten()
    tensor([10])
    """
    where = "ifa.refine.focal_points"
    array = numbers(where, "values", values)
    check_choice(where, "scope", scope, ("global", "local"))
    check_choice(where, "areas", areas, ("small", "large"))
    extents = array.shape if size is None else tuple(int(extent) for extent in size)
    if len(extents) != array.ndim or min(extents) < 1:
        raise ValueError(
            f"{where}: expected size to be {array.ndim} positive extents, one for each axis of the "
            f"map {array.shape}, got {extents}."
        )
    if scope == "global":
        if count is not None:
            check_count(where, "count", count)
        return back(_largest(array, extents, count), values)
    return back(_local(array, extents, areas, threshold), values)


def _largest(array: np.ndarray, size: tuple[int, ...], count: int | None) -> np.ndarray:
    usual = max(1, round(prod(size) ** (1 / (2 * len(size)))))
    large = resized(torch.from_numpy(array), size).numpy().ravel()
    order = np.argsort(-large, kind="stable")[: usual if count is None else count]
    return np.stack(np.unravel_index(order, size), axis=-1)


def _local(
    array: np.ndarray, size: tuple[int, ...], areas: Areas, threshold: float | None
) -> np.ndarray:
    maxima = _regional(array)
    found = array[maxima]
    limit = (found.min() + found.max()) / 2 if threshold is None else float(threshold)
    kept = torch.from_numpy(maxima & (array >= limit)).double()
    large = resized(kept, size, "nearest").numpy() > 0
    return _centers(large) if areas == "small" else np.argwhere(large)


def _regional(array: np.ndarray) -> np.ndarray:
    """Find plateaus none of whose neighbours is larger."""
    full = np.ones((3,) * array.ndim)
    top = array == ndimage.maximum_filter(array, footprint=full, mode="nearest")
    # a plateau may go on where one of its positions has a larger neighbour
    others = np.where(top, -np.inf, array)
    ends = top & (ndimage.maximum_filter(others, footprint=full, mode="nearest") == array)
    parts = parts_of(top, diagonal=True)[0]
    return top & ~np.isin(parts, np.unique(parts[ends]))


def _centers(mask: np.ndarray) -> np.ndarray:
    """Find, of each part of a mask, the position that is nearest to its centroid."""
    parts, count = parts_of(mask, diagonal=True)
    members = (np.argwhere(parts == part) for part in range(1, count + 1))
    nearest = [one[np.square(one - one.mean(0)).sum(1).argmin()] for one in members]
    return np.array(sorted(map(tuple, nearest)), dtype=np.int64).reshape(-1, mask.ndim)
