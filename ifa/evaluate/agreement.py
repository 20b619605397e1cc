"""Does the level of a map follow the score? Correlation over a population, with intervals."""

from math import atanh, sqrt, tanh
from typing import NamedTuple

from torch import Tensor

from ifa.evaluate.coefficients import correlation, ranks


class Consistency(NamedTuple):
    """Correlation of map level and score."""

    pearson: Tensor  # (...), in [-1, 1]; NaN where one of the two is constant
    spearman: Tensor  # the same, of the ranks


def consistency(level: Tensor, score: Tensor) -> Consistency:
    r"""Correlate the level of maps with the score they explain, over a population.

    .. math:: r = \frac{\sum_n (l_n - \bar l)(s_n - \bar s)}
                       {\sqrt{\sum_n (l_n - \bar l)^2 \sum_n (s_n - \bar s)^2}}

    A map whose level says how sure the network is has r near 1. Scaled one by one, maps lose it.

    Parameters
    ----------
    level : (..., sample)
        Level of each map, such as its mean.
    score : (..., sample)
        The score that the map explains.

    Returns
    -------
    Consistency
        Pearson's and Spearman's coefficient, (...), float64. NaN where either is constant.

    Raises
    ------
    ValueError
        If the shapes differ, or there are fewer than two samples.

    References
    ----------
    Li et al. 2024, "Integrated feature analysis". arXiv:2407.01142

    Examples
    --------
    >>> import torch
    >>> consistency(torch.tensor([0.0, 1.0, 3.0]), torch.tensor([1.0, 2.0, 10.0])).spearman
    tensor(1., dtype=torch.float64)
    """
    if level.shape != score.shape or level.ndim == 0 or level.shape[-1] < 2:
        raise ValueError(
            "ifa.evaluate.consistency: expected level and score of one shape (..., sample) with at "
            f"least two samples, got {tuple(level.shape)} and {tuple(score.shape)}."
        )
    return Consistency(correlation(level, score), correlation(ranks(level), ranks(score)))


def correlation_interval(
    correlation: float, samples: int, *, level: float = 0.95
) -> tuple[float, float]:
    r"""Give the level interval of a Pearson correlation, by Fisher's transform.

    .. math:: \tanh\left(\operatorname{artanh} r \pm z \, / \sqrt{n - 3}\right)

    Parameters
    ----------
    correlation
        r in [−1, 1].
    samples
        n, at least 4.
    level
        Of the two-sided interval.

    Returns
    -------
    (low, high)
        NaN for a NaN correlation.

    References
    ----------
    Fisher 1921, "On the probable error of a coefficient of correlation deduced from a small
    sample". Metron 1:3–32

    Examples
    --------
    >>> low, high = correlation_interval(0.5, 103)
    >>> round(low, 3), round(high, 3)
    (0.339, 0.632)
    """
    from scipy.stats import norm

    if samples < 4:
        raise ValueError(
            f"ifa.evaluate.correlation_interval: expected at least 4 samples, got {samples}."
        )
    if abs(correlation) >= 1:
        return correlation, correlation
    spread = float(norm.ppf(0.5 + level / 2)) / sqrt(samples - 3)
    return tanh(atanh(correlation) - spread), tanh(atanh(correlation) + spread)
