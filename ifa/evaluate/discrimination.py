"""AUROC: whether the level of a map tells a target's samples from others."""

import torch
from torch import Tensor

from ifa.evaluate.coefficients import ranks


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
        In [0, 1], float64. NaN in rows with one class only, or where a level is NaN.

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
    where = "ifa.evaluate.auroc"
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
    count, others = chosen.sum(-1).double(), (~chosen).sum(-1).double()
    total = torch.where(chosen, ranks(level), 0.0).sum(-1)
    total = torch.where(level.isnan().any(-1), torch.nan, total)
    # 0 / 0 where there is one class only
    return (total - count * (count + 1) / 2) / (count * others)
