"""Regions grown from seeds, on the host."""

import numpy as np
from torch import Tensor

from ifa.reduce import quantiles
from ifa.refine.given import back, numbers, parts_of


def grown(
    values: Tensor, seeds: Tensor, *, low: float | None = None, high: float | None = None
) -> Tensor:
    r"""Grow regions from seeds: all that a band of values joins to one of them.

    A seed whose own value is outside the band grows nothing. Positions are joined through their
    faces: 2 neighbours in one axis, 4 in two, 6 in three. Runs on the host, with `scipy.ndimage`,
    for one example; it can be neither differentiated nor lifted with `vmap`.

    Parameters
    ----------
    values : (\*space)
        A map, such as its edges.
    seeds : (point, axis) or (axis,)
        Indices, whole numbers; there may be none.
    low, high
        The band, both ends in it; by default the quartiles of all values.

    Returns
    -------
    (\*space), bool
        Empty without a seed in the band.

    Raises
    ------
    TypeError, ValueError
        If the map is not finite and of one example, or the seeds are not such indices within it.

    Examples
    --------
    >>> import ifa, torch
    >>> steep = torch.tensor([0.1, 0.5, 0.6, 0.9, 0.5])
    >>> ifa.refine.grown(steep, torch.tensor([1]), low=0.4, high=0.7)
    tensor([False,  True,  True, False, False])
    """
    where = "ifa.refine.grown"
    array = numbers(where, "values", values)
    points = checked_seeds(where, seeds, array.shape)
    quarters = quantiles(array.ravel(), (0.25, 0.75))
    # a bound of 0 is a bound
    low, high = (float(q if b is None else b) for q, b in zip(quarters, (low, high), strict=True))
    return back(joined(in_band(array, low, high), points), values)


def in_band(array: np.ndarray, low: float, high: float) -> np.ndarray:
    """Tell which positions lie in a band, its ends included."""
    return (array >= low) & (array <= high)


def joined(band: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Find the parts of a band that hold a point, (point, axis)."""
    parts = parts_of(band)[0]
    held = np.unique(parts[tuple(points.T)])
    return np.isin(parts, held[held > 0])


def checked_seeds(where: str, seeds: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    """Take indices (point, axis) within a map."""
    whole = isinstance(seeds, Tensor) and not seeds.is_floating_point() and seeds.ndim in (1, 2)
    points = seeds.detach().cpu().long().numpy() if whole else np.empty((0, 0), np.int64)
    if whole and points.size == 0:
        return points.reshape(0, len(shape))
    points = np.atleast_2d(points)
    if not whole or points.shape[1] != len(shape):
        given = f"{seeds.dtype} {tuple(seeds.shape)}" if isinstance(seeds, Tensor) else repr(seeds)
        raise ValueError(
            f"{where}: expected seeds as whole numbers (point, {len(shape)}), one index for each "
            f"axis of {shape}, got {given}. ifa.refine.focal_points gives such."
        )
    if ((points < 0) | (points >= shape)).any():
        raise ValueError(
            f"{where}: expected seeds within {shape}, got {points.max(0).tolist()} at most and "
            f"{points.min(0).tolist()} at least. Their order is that of the map's axes."
        )
    return points
