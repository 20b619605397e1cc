"""Correlation over the last axis, ranks in which ties share their places, intervals by row."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ifa.clusters import codes_of


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


class Interval(NamedTuple):
    """Two limits; NaN where nothing can be said."""

    low: Tensor  # (...), float64
    high: Tensor  # the same


def rowwise(
    where: str, interval: Callable[..., tuple[Any, Any]], a: Tensor, b: Tensor, cluster: Any
) -> Interval:
    """Give the interval of each row of two tensors (..., sample)."""
    if a.shape != b.shape or a.ndim == 0:
        raise ValueError(
            f"{where}: expected two tensors of one shape (..., sample), got {tuple(a.shape)} and "
            f"{tuple(b.shape)}."
        )
    samples = a.shape[-1]
    codes = None if cluster is None else codes_of(where, cluster, samples)
    rows = zip(*(x.detach().cpu().reshape(-1, samples).numpy() for x in (a, b)), strict=True)
    ends = [[float(end) for end in interval(*row, codes=codes)] for row in rows]
    ends = torch.tensor(ends, dtype=torch.float64)
    low, high = ends.reshape(*a.shape[:-1], 2).unbind(-1)
    return Interval(low, high)
