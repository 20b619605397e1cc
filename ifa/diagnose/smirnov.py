"""Distances between two samples of many quantities: Kolmogorov and Smirnov's, and Wasserstein's."""

from functools import lru_cache

import numpy as np

_EXACT = 800  # samples of both; of more, the law for many is as good


def distances(values: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return D, and W in standard deviations, of each column of values (row, column)."""
    order = np.argsort(values, axis=0, kind="stable")
    ordered = np.take_along_axis(values, order, axis=0)
    steps, whole = _steps(second)
    apart = np.abs(np.cumsum(steps[order], axis=0)) / whole
    wide = np.diff(ordered, axis=0)
    spread = values.std(axis=0)
    area = (apart[:-1] * wide).sum(axis=0)
    wasserstein = np.divide(area, spread, out=np.zeros_like(area), where=spread > 0)
    return (apart[:-1] * (wide > 0)).max(axis=0, initial=0.0), wasserstein


def permuted_distances(values: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return D of each column, (draw, column), where `second` (draw, row) says whose a row is."""
    steps, whole = _steps(second)
    result = np.empty((len(second), values.shape[1]))
    for place, column in enumerate(values.T):
        order = np.argsort(column, kind="stable")
        last = np.flatnonzero(np.diff(column[order]) > 0)  # of equal values
        apart = np.cumsum(steps[:, order], axis=1)[:, last]
        result[:, place] = np.abs(apart).max(axis=1, initial=0) / whole[:, 0]
    return result


def _steps(second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Steps of F − G at each row (..., row), in whole numbers, and what divides them (..., 1)."""
    ours, theirs = (np.maximum(one.sum(-1, keepdims=True), 1) for one in (~second, second))
    return np.where(second, ours, -theirs), ours * theirs


def chance(distance: np.ndarray, ours: int, theirs: int) -> np.ndarray:
    r"""Chance of a D at least so large, (distance,), of samples of one continuous distribution.

    Of all orders of the pooled samples; exact for up to 800 of them, by Hodges' recursion over the
    paths that have left :math:`|i / n - j / m| < D`, which keeps small chances exact too.
    """
    from scipy.stats import kstwo

    levels, back = np.unique(np.asarray(distance, dtype=np.float64), return_inverse=True)
    if ours + theirs > _EXACT:
        found = kstwo.sf(levels, round(ours * theirs / (ours + theirs)))
    else:
        found = _paths(levels[:, None] - 1e-9, ours, theirs)
    return np.asarray(found)[back].reshape(np.shape(distance))


def _paths(levels: np.ndarray, ours: int, theirs: int) -> np.ndarray:
    first = np.arange(ours + 1)
    left = np.zeros((len(levels), ours + 1))
    for both in range(1, ours + theirs + 1):
        other = both - first
        below = left[:, :-1] * (first[1:] / both)
        left = left * (np.maximum(other, 0) / both)
        left[:, 1:] += below
        away = np.abs(first / ours - other / theirs) >= levels
        left = np.where(away, 1.0, left) * ((other >= 0) & (other <= theirs))
    return left[:, ours]


@lru_cache(256)  # targets, and runs, often have as many samples as others
def least(alpha: float, ours: int, theirs: int) -> float:
    """Find the smallest D, to 1 / 1000, whose chance is at most alpha; above 1 if there is none."""
    coarse = np.arange(32, 1025, 32)
    near = coarse[np.argmax(chance(coarse / 1000, ours, theirs) <= alpha)]
    fine = np.arange(near - 31, near + 1)
    return float(fine[np.argmax(chance(fine / 1000, ours, theirs) <= alpha)]) / 1000
