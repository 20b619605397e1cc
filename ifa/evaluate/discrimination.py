"""AUROC: whether the level of a map tells a target's samples from others."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ifa import intervals
from ifa.checks import check_level
from ifa.evaluate.coefficients import Interval, ranks, rowwise


def auroc(level: Tensor, positive: Tensor) -> Tensor:
    r"""Give the area under the ROC curve of a level: the chance to rank a positive sample higher.

    .. math:: \frac{1}{n_+ n_-} \sum_{i \in +} \sum_{j \in -}
              \left[ 1(l_i > l_j) + \tfrac12 1(l_i = l_j) \right]

    For several targets, give a row for each: its level, and ``prediction == target``. That is so
    for two targets as well: given the predicted index itself, as the original IFA did, the first
    target's area would be one less its own.

    Parameters
    ----------
    level : (..., sample)
        Level of each map, such as its mean.
    positive : (..., sample)
        Boolean, or whole numbers 0 and 1.

    Returns
    -------
    (...)
        In [0, 1], float64. NaN in rows with one class only, or where a level is NaN. How sure it is
        says `auroc_interval`.

    Raises
    ------
    TypeError
        If `positive` is real-valued: for a regression there is no such area.
    ValueError
        If the shapes differ, or `positive` holds other numbers than 0 and 1.

    References
    ----------
    Hanley & McNeil 1982, "The meaning and use of the area under a receiver operating characteristic
    (ROC) curve". doi:10.1148/radiology.143.1.7063747

    Examples
    --------
    >>> import torch
    >>> prediction = torch.tensor([0, 0, 1, 2])
    >>> levels = torch.tensor([[3.0, 2.0, 1.0, 2.0], [0.0, 0.0, 1.0, 0.0]])
    >>> auroc(levels, prediction == torch.arange(2)[:, None])
    tensor([0.8750, 1.0000], dtype=torch.float64)
    """
    chosen = _flags("ifa.evaluate.auroc", level, positive)
    count, others = chosen.sum(-1).double(), (~chosen).sum(-1).double()
    total = torch.where(chosen, ranks(level), 0.0).sum(-1)
    total = torch.where(level.isnan().any(-1), torch.nan, total)
    # 0 / 0 where there is one class only
    return (total - count * (count + 1) / 2) / (count * others)


def auroc_interval(
    values: Tensor, positive: Tensor, *, cluster: Any = None, level: float = 0.95
) -> Interval:
    """Give the interval of the area under the ROC curve of values: of `auroc`.

    Newcombe's fifth method, which has a width also at areas of 0 and 1, made as wide as DeLong's
    variance asks for, of clusters Obuchowski's. It holds `level` for each row by itself, over draws
    of independent samples, or of whole clusters.

    Parameters
    ----------
    values : (..., sample)
        Such as the level of each map.
    positive : (..., sample)
        Boolean, or whole numbers 0 and 1.
    cluster : (sample,), optional
        Labels of samples that belong together, such as their patients.
    level
        Of the two-sided interval, in (0, 1).

    Returns
    -------
    Interval
        `low` and `high`, (...), in [0, 1], float64. NaN in rows with one class only, or where a
        value is NaN. Of one positive or negative sample it takes exponential scores for granted.

    Raises
    ------
    TypeError, ValueError
        As `auroc`; and if the level is not between 0 and 1, or there is not a cluster for each
        sample.

    Notes
    -----
    Nominal .95 covers .93 to .99 of areas of .5 to .99, from 3 positive of 33 to 100 of 200 samples
    (500 draws each). Where a few positive samples vary three times as much as the negative ones it
    covers .88 at the least; of a single one .83 to 1.

    References
    ----------
    Newcombe 2006, "Confidence intervals for an effect size measure based on the Mann–Whitney
    statistic. Part 2: asymptotic methods and evaluation". doi:10.1002/sim.2324

    DeLong, DeLong & Clarke-Pearson 1988, "Comparing the areas under two or more correlated receiver
    operating characteristic curves". doi:10.2307/2531595

    Obuchowski 1997, "Nonparametric analysis of clustered ROC curve data". doi:10.2307/2533958

    Examples
    --------
    >>> import torch
    >>> values = torch.arange(20.0)
    >>> low, high = auroc_interval(values, values > 13)
    >>> round(float(low), 2), float(high)
    (0.77, 1.0)
    """
    where = "ifa.evaluate.auroc_interval"
    check_level(where, level)
    chosen = _flags(where, values, positive)
    return rowwise(where, partial(intervals.auroc_interval, level=level), values, chosen, cluster)


def _flags(where: str, level: Tensor, positive: Tensor) -> Tensor:
    """Take what is positive as booleans, one for each level."""
    if positive.is_floating_point() or positive.is_complex():
        raise TypeError(
            f"{where}: expected positive to be boolean, got {positive.dtype}. Real-valued labels "
            "have no two classes: use ifa.evaluate.consistency for a regression."
        )
    if level.shape != positive.shape or level.ndim == 0:
        raise ValueError(
            f"{where}: expected level and positive of one shape (..., sample), got "
            f"{tuple(level.shape)} and {tuple(positive.shape)}."
        )
    chosen = positive.bool()
    if not bool((chosen == positive).all()):
        raise ValueError(
            f"{where}: expected positive to hold 0 and 1 only, got values up to "
            f"{int(positive.max())}. Give one row for each target: prediction == target."
        )
    return chosen
