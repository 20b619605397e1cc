"""Edges of a map, after a box blur: Sobel's in one to three axes, mirrored at the borders."""

from functools import partial

import torch
from torch import Tensor

from ifa.refine.windows import box_mean, mirrored
from ifa.stages import expect, wide
from ifa.types import Map, Step


def blurred(*, window: int = 5) -> Step:
    r"""Make a step that averages a map over boxes, mirrored at the borders.

    Parameters
    ----------
    window
        Extent in positions on every axis: odd.

    Returns
    -------
    callable
        `Map` -> `Map`, values (\*space). NaN spreads to its windows.

    Raises
    ------
    ValueError
        If the window is no odd number.

    Examples
    --------
    >>> import ifa, torch
    >>> ifa.refine.blurred(window=3)(ifa.Map(torch.tensor([0.0, 3.0, 0.0]), torch.tensor(0))).values
    tensor([1., 1., 1.])
    """
    if not isinstance(window, int) or window < 1 or window % 2 == 0:
        raise ValueError(
            f"ifa.refine.blurred: expected window to be an odd number of positions, got {window!r}."
        )
    return partial(_blurred, window=window)


def _blurred(values: Map, *, window: int) -> Map:
    given = _space("ifa.refine.blurred", values)
    return values._replace(values=box_mean(wide(given), [window] * given.ndim).to(given.dtype))


def edges(values: Map) -> Map:
    r"""Measure how steep a map is: Sobel's magnitude, in one to three axes.

    .. math:: e = \sqrt{\tfrac1n \textstyle\sum_a s_a^2}

    where :math:`s_a` is the difference of both neighbours on axis a, smoothed by (1, 2, 1)/4 on the
    n − 1 others, mirrored at the borders: a slope of one gives :math:`2/\sqrt n`. A map and its
    negative have the same edges.

    Parameters
    ----------
    values : Map
        Of one example, values (\*space).

    Returns
    -------
    Map
        Not negative, in the map's unit. NaN spreads to its neighbours.

    References
    ----------
    Sobel & Feldman 1968; with the scale of scikit-image's ``sobel``.

    Examples
    --------
    >>> import ifa, torch
    >>> ifa.refine.edges(ifa.Map(torch.tensor([0.0, 0.0, 1.0, 1.0]), torch.tensor(0))).values
    tensor([0., 1., 1., 0.])
    """
    given = _space("ifa.refine.edges", values)
    return values._replace(values=steepness(wide(given)).to(given.dtype))


def steepness(values: Tensor) -> Tensor:
    """Sobel's magnitude of (*space)."""
    axes = range(values.ndim)
    return torch.stack([_slope(values, axis) for axis in axes]).square().mean(0).sqrt()


def _slope(values: Tensor, along: int) -> Tensor:
    for axis, extent in enumerate(values.shape):
        padded = mirrored(values, axis, 1)
        before, here, after = (padded.narrow(axis, start, extent) for start in range(3))
        values = after - before if axis == along else (before + 2 * here + after) / 4
    return values


def _space(where: str, values: Map) -> Tensor:
    expect(where, values, Map, "Put ifa.combine before it.")
    if not 1 <= values.values.ndim <= 3:
        raise ValueError(
            f"{where}: expected a map (*space) of one to three axes, got "
            f"{tuple(values.values.shape)}. Lift it over blocks or samples with torch.func.vmap."
        )
    return values.values
