"""Correlation over the last axis, ranks in which ties share their places, shares' intervals."""

import torch
from torch import Tensor


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's r over the last axis, float64; NaN where one of the two is constant or has NaN."""
    # the mean of equal numbers may differ from them by a rounding error: compare, do not subtract
    varies = (a.amax(-1) > a.amin(-1)) & (b.amax(-1) > b.amin(-1))
    a, b = (x.double() - x.double().mean(-1, keepdim=True) for x in (a, b))
    norm = (a.square().sum(-1) * b.square().sum(-1)).sqrt()
    return torch.where(varies, (a * b).sum(-1) / norm, torch.nan).clamp(-1, 1)


def ranks(values: Tensor) -> Tensor:
    """Ranks from 1 over the last axis, float64; all NaN where one value is."""
    values = values.detach().contiguous()
    ordered = values.sort(-1).values
    below = torch.searchsorted(ordered, values)
    up_to = torch.searchsorted(ordered, values, right=True)
    unknown = values.isnan().any(-1, keepdim=True)
    return torch.where(unknown, torch.nan, (below + up_to + 1).double() / 2)


def share_interval(count: int, of: int, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's interval of a share, such as an accuracy: `count` of `of`."""
    from scipy.stats import binomtest

    interval = binomtest(count, of).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)
