"""Similarity of two maps: by ranks, by values, and by structure."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ifa.evaluate.coefficients import correlation, ranks


class Similarity(NamedTuple):
    """How alike two maps are; each in [-1, 1], float64."""

    pearson: Tensor
    spearman: Tensor
    ssim: Tensor  # of maps scaled to [0, 1] one by one


def similarity(map: Tensor, other: Tensor) -> Similarity:
    r"""Compare two maps by values, by ranks and by structure.

    Structural similarity is that of the maps scaled to [0, 1] one by one. Per example: lift it over
    a batch with `torch.func.vmap`.

    Parameters
    ----------
    map, other : (\*space)
        Two maps of one shape.

    Returns
    -------
    Similarity
        `pearson`, `spearman` and `ssim`. NaN where one of the two maps is constant or not finite.

    Raises
    ------
    ValueError
        If the shapes differ.

    References
    ----------
    Adebayo et al. 2018, "Sanity checks for saliency maps". arXiv:1810.03292

    Examples
    --------
    >>> import torch
    >>> found = similarity(torch.tensor([0.0, 1.0, 3.0]), torch.tensor([0.0, 2.0, 6.0]))
    >>> found.pearson, found.ssim
    (tensor(1., dtype=torch.float64), tensor(1., dtype=torch.float64))
    """
    alike = ssim(_unit_range(map), _unit_range(other))
    return Similarity(pearson(map, other), spearman(map, other), alike)


def pearson(map: Tensor, other: Tensor) -> Tensor:
    r"""Correlate two maps by their values.

    .. math:: r = \frac{\sum_p (h_p - \bar h)(g_p - \bar g)}
                       {\sqrt{\sum_p (h_p - \bar h)^2 \sum_p (g_p - \bar g)^2}}

    Per example: lift it over a batch with `torch.func.vmap`.

    Parameters
    ----------
    map, other : (\*space) or (block, \*space)
        Two maps of one shape, any number of axes.

    Returns
    -------
    ()
        In [−1, 1]. NaN where one of the two is constant or not finite.

    Raises
    ------
    ValueError
        If the shapes differ.

    References
    ----------
    Pearson 1895, "Notes on regression and inheritance in the case of two parents".
    doi:10.1098/rspl.1895.0041

    Examples
    --------
    >>> import torch
    >>> pearson(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([5.0, 7.0, 9.0]))
    tensor(1., dtype=torch.float64)
    """
    return correlation(*_both("pearson", map, other))


def spearman(map: Tensor, other: Tensor) -> Tensor:
    r"""Correlate two maps by the ranks of their values; ties share the mean of their places.

    .. math:: \rho = r(\operatorname{rank} h, \operatorname{rank} g)

    Per example: lift it over a batch with `torch.func.vmap`.

    Parameters
    ----------
    map, other : (\*space) or (block, \*space)
        Two maps of one shape, any number of axes.

    Returns
    -------
    ()
        In [−1, 1]. NaN where one of the two is constant or not finite.

    Raises
    ------
    ValueError
        If the shapes differ.

    References
    ----------
    Spearman 1904, "The proof and measurement of association between two things".
    doi:10.2307/1412159

    Examples
    --------
    >>> import torch
    >>> spearman(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([9.0, 5.0, 1.0]))
    tensor(-1., dtype=torch.float64)
    """
    return correlation(*map_ranks(*_both("spearman", map, other)))


def ssim(
    map: Tensor,
    other: Tensor,
    *,
    window: int | Sequence[float] | Tensor | None = None,
    extent: float | None = None,
) -> Tensor:
    r"""Give the structural similarity of two maps: mean, contrast and pattern, window by window.

    .. math:: \frac{(2 \mu_h \mu_g + C_1)(2 \sigma_{hg} + C_2)}
                   {(\mu_h^2 + \mu_g^2 + C_1)(\sigma_h^2 + \sigma_g^2 + C_2)}, \qquad
              C_1 = (0.01 L)^2, \; C_2 = (0.03 L)^2

    averaged over all places of a window that lie in the map, in one, two, three or more dimensions.
    Per example: lift it over a batch with `torch.func.vmap`.

    Parameters
    ----------
    map, other : (\*space)
        Two maps of one shape.
    window
        Side of a window in which positions count alike, with the unbiased covariance; or weights
        along one side, such as a Gaussian's. None is 7, or less along an axis that is shorter.
    extent
        The range L of values that are possible. None is the range that the two maps have together.

    Returns
    -------
    ()
        In [−1, 1], 1 for equal maps. NaN where one of the two is constant or not finite.

    Raises
    ------
    ValueError
        If the shapes differ, or the window does not fit into the map.

    References
    ----------
    Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity".
    doi:10.1109/TIP.2003.819861

    Examples
    --------
    >>> import torch
    >>> map = torch.arange(64.0).reshape(8, 8)
    >>> ssim(map, map)
    tensor(1., dtype=torch.float64)
    """
    first, second = _both("ssim", map, other)
    windows, counted = _windows(window, tuple(map.shape))
    high = torch.maximum(first.amax(), second.amax())
    low = torch.minimum(first.amin(), second.amin())
    span = high - low if extent is None else extent
    h, g = first.reshape(map.shape), second.reshape(map.shape)
    mean_h, mean_g, hh, gg, hg = (_filtered(part, windows) for part in (h, g, h * h, g * g, h * g))
    # of positions that count alike, the covariance of a sample
    unbiased = counted / (counted - 1) if counted > 1 else 1.0
    var_h, var_g = unbiased * (hh - mean_h**2), unbiased * (gg - mean_g**2)
    covariance = unbiased * (hg - mean_h * mean_g)
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    alike = (2 * mean_h * mean_g + c1) * (2 * covariance + c2)
    places = alike / ((mean_h**2 + mean_g**2 + c1) * (var_h + var_g + c2))
    varies = (first.amax() > first.amin()) & (second.amax() > second.amin())
    known = varies & first.isfinite().all() & second.isfinite().all()
    return torch.where(known, places.mean(), torch.nan)


def map_ranks(*maps: Tensor) -> list[Tensor]:
    """Rank maps (..., position); all NaN where one is not finite."""
    finite = (one.isfinite().all(-1, keepdim=True) for one in maps)
    return [
        torch.where(fine, ranks(one), torch.nan) for fine, one in zip(finite, maps, strict=True)
    ]


def _unit_range(map: Tensor) -> Tensor:
    """Scale a map by its own extremes; a constant one becomes NaN, not blank."""
    map = map.double()
    return (map - map.amin()) / (map.amax() - map.amin())


def _both(name: str, map: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    if map.shape != other.shape or map.numel() == 0:
        raise ValueError(
            f"ifa.evaluate.{name}: expected two maps of one shape, got {tuple(map.shape)} and "
            f"{tuple(other.shape)}. Resize one with ifa.resize; batches go through torch.func.vmap."
        )
    return map.double().flatten(), other.double().flatten()


def _windows(
    window: int | Sequence[float] | Tensor | None, shape: tuple[int, ...]
) -> tuple[list[Tensor], int]:
    """Return weights along each axis, and how many positions count alike; 0 if they do not."""
    if window is None:
        sides = [min(7, extent) for extent in shape]
        return [torch.ones(side).double() / side for side in sides], math.prod(sides)
    weights = torch.ones(max(window, 0)) if isinstance(window, int) else torch.as_tensor(window)
    if weights.ndim != 1 or not 2 <= len(weights) <= min(shape):
        raise ValueError(
            f"ifa.evaluate.ssim: expected a window of at least 2 that fits into the map {shape}, "
            f"got {window}. Give a smaller one, or None."
        )
    weights = weights.double() / weights.double().sum()
    return [weights] * len(shape), window ** len(shape) if isinstance(window, int) else 0


def _filtered(values: Tensor, windows: list[Tensor]) -> Tensor:
    """Average over every place of the window that lies in the map, one axis after the other."""
    for axis, weights in enumerate(windows):
        values = values.unfold(axis, len(weights), 1) @ weights.to(values.device)
    return values
