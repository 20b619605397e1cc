"""Smallest and largest value, in one mergeable pass."""

from typing import NamedTuple

import torch
from torch import Tensor

from ifa.reduce.core import from_monoid, picklable
from ifa.types import Reduction


class Extrema(NamedTuple):
    """Both the state and the statistic."""

    minimum: Tensor  # (*feature), float64; +inf without a sample
    maximum: Tensor  # (*feature), float64; -inf without a sample


@picklable
def extrema() -> Reduction:
    r"""Minimum and maximum over the leading axis; NaN in a sample makes both NaN.

    Returns
    -------
    Reduction
        Batches (sample, \*feature) -> `Extrema(minimum, maximum)`, in the unit of the values. The
        identity is (+inf, −inf), which is also the result without a sample.

    Examples
    --------
    >>> import ifa, torch
    >>> reduction = ifa.reduce.extrema()
    >>> reduction.finalize(ifa.reduce.fold(reduction, torch.arange(4.0).split(3))).minimum
    tensor(0., dtype=torch.float64)
    """

    def init(like: Tensor) -> Extrema:
        infinite = like.new_full(like.shape[1:], torch.inf, dtype=torch.float64)
        return Extrema(infinite, -infinite)

    def lift(batch: Tensor) -> Extrema:
        return (
            init(batch)
            if len(batch) == 0
            else Extrema(batch.double().amin(0), batch.double().amax(0))
        )

    def merge(a: Extrema, b: Extrema) -> Extrema:
        return Extrema(torch.minimum(a.minimum, b.minimum), torch.maximum(a.maximum, b.maximum))

    return from_monoid(init=init, lift=lift, merge=merge, finalize=lambda state: state)
