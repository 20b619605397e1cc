"""Count, mean and variance, plain or weighted, in one mergeable pass."""

from typing import NamedTuple

import torch
from torch import Tensor

from ifa.reduce.core import from_monoid, picklable, sum_each
from ifa.types import Reduction


class MomentsState(NamedTuple):
    """What merges exactly; leading axes are groups."""

    count: Tensor  # (), int64
    mean: Tensor  # (*feature), float64
    m2: Tensor  # (*feature), float64, sum of squared deviations from the mean


class Moments(NamedTuple):
    """The statistic."""

    count: Tensor  # (), int64
    mean: Tensor  # (*feature), float64; NaN without a sample
    variance: Tensor  # (*feature), float64; NaN where there are no degrees of freedom


@picklable
def moments(*, ddof: int = 1) -> Reduction:
    r"""Count, mean and variance over the leading axis, in one mergeable pass.

    .. math::

        \bar x = \frac{1}{n} \sum_i x_i, \qquad
        s^2 = \frac{1}{n - ddof} \sum_i (x_i - \bar x)^2

    Accumulates in float64 whatever the input: in float32, activations near 1e4 with unit spread
    lose their whole variance to E[x²] − E[x]².

    Parameters
    ----------
    ddof
        Degrees of freedom taken off: 1 for the unbiased variance, 0 for the population's.

    Returns
    -------
    Reduction
        Batches (sample, \*feature) -> `MomentsState` -> `Moments(count, mean, variance)`.

    References
    ----------
    Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance".
    doi:10.1080/00031305.1983.10483115

    Examples
    --------
    >>> import ifa, torch
    >>> reduction = ifa.reduce.moments()
    >>> reduction.finalize(ifa.reduce.fold(reduction, torch.arange(4.0).split(3))).variance
    tensor(1.6667, dtype=torch.float64)
    """

    def init(like: Tensor) -> MomentsState:
        zero = like.new_zeros(like.shape[1:], dtype=torch.float64)
        return MomentsState(like.new_zeros((), dtype=torch.int64), zero, zero)

    def lift(batch: Tensor) -> MomentsState:
        batch = batch.double()
        mean = batch.sum(0) / max(len(batch), 1)
        count = batch.new_full((), len(batch), dtype=torch.int64)
        return MomentsState(count, mean, (batch - mean).square().sum(0))

    def lift_each(batch: Tensor, slot: Tensor, slots: int) -> MomentsState:
        one = torch.ones_like(slot, dtype=torch.float64)
        weight, mean, m2 = _weigh_each(batch.double(), one, slot, slots)
        return MomentsState(weight.long(), mean, m2)

    def merge(a: MomentsState, b: MomentsState) -> MomentsState:
        count = a.count + b.count
        share = b.count.double() / count.clamp(min=1)
        delta = b.mean - a.mean
        # in this order an empty side adds zero, however large the mean of the other
        m2 = a.m2 + b.m2 + (delta * a.count) * (delta * share)
        return MomentsState(count, a.mean + delta * share, m2)

    def finalize(state: MomentsState) -> Moments:
        freedom = (state.count - ddof).double()
        mean = torch.where(state.count > 0, state.mean, torch.nan)
        variance = torch.where(freedom > 0, state.m2 / freedom, torch.nan)
        return Moments(state.count, mean, variance)

    return from_monoid(init=init, lift=lift, merge=merge, finalize=finalize, lift_each=lift_each)


def _weigh_each(
    values: Tensor, weight: Tensor, slot: Tensor, slots: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Sum the weights of each slot, and find weighted mean and squared deviations, in float64."""
    total = sum_each(weight, slot, slots)
    axes = [1] * (values.ndim - 1)
    spread = weight.reshape(-1, *axes)
    mean = sum_each(values * spread, slot, slots)
    mean /= torch.where(total > 0, total, 1).reshape(-1, *axes)
    away = (values - mean[slot]).square_() * spread
    return total, mean, sum_each(away, slot, slots)


class WeightedValues(NamedTuple):
    """A batch for `weighted_moments`."""

    values: Tensor  # (sample, *feature)
    weight: Tensor  # (sample,), not negative


class WeightedState(NamedTuple):
    """What merges exactly; leading axes are groups."""

    count: Tensor  # (), int64
    weight: Tensor  # (), float64, sum of the weights
    square: Tensor  # (), float64, sum of their squares
    mean: Tensor  # (*feature), float64
    m2: Tensor  # (*feature), float64, weighted sum of squared deviations from the mean


@picklable
def weighted_moments() -> Reduction:
    r"""Count, weighted mean and variance over the leading axis, in one mergeable pass.

    .. math::

        \bar x = \frac{\sum_i w_i x_i}{\sum_i w_i}, \qquad
        s^2 = \frac{\sum_i w_i (x_i - \bar x)^2}{\sum_i w_i - \sum_i w_i^2 / \sum_i w_i}

    With equal weights this is `moments`, to the bit.

    Returns
    -------
    Reduction
        Batches ``(values, weight)``, (sample, \*feature) and (sample,), as `WeightedValues` or a
        tuple, -> `WeightedState` -> `Moments(count, mean, variance)`. Weights are not negative; the
        mean is NaN if they are all zero, the variance below two samples.

    References
    ----------
    West 1979, "Updating mean and variance estimates: an improved method".
    doi:10.1145/359146.359153

    Examples
    --------
    >>> import ifa, torch
    >>> reduction = ifa.reduce.weighted_moments()
    >>> batch = torch.tensor([1.0, 5.0]), torch.tensor([3.0, 1.0])
    >>> reduction.finalize(ifa.reduce.fold(reduction, [batch])).mean
    tensor(2., dtype=torch.float64)
    """

    def init(like: tuple[Tensor, Tensor]) -> WeightedState:
        zero = like[0].new_zeros(like[0].shape[1:], dtype=torch.float64)
        none = like[0].new_zeros((), dtype=torch.float64)
        return WeightedState(none.long(), none, none, zero, zero)

    def lift(batch: tuple[Tensor, Tensor]) -> WeightedState:
        values, each = batch[0].double(), batch[1].double()
        spread = each.reshape(-1, *[1] * (values.ndim - 1))
        weight = each.sum()
        mean = (values * spread).sum(0) / torch.where(weight > 0, weight, 1)
        m2 = ((values - mean).square() * spread).sum(0)
        count = torch.full_like(weight, len(each), dtype=torch.int64)
        return WeightedState(count, weight, each.square().sum(), mean, m2)

    def lift_each(batch: tuple[Tensor, Tensor], slot: Tensor, slots: int) -> WeightedState:
        each = batch[1].double()
        weight, mean, m2 = _weigh_each(batch[0].double(), each, slot, slots)
        count = sum_each(torch.ones_like(slot), slot, slots)
        return WeightedState(count, weight, sum_each(each.square(), slot, slots), mean, m2)

    def merge(a: WeightedState, b: WeightedState) -> WeightedState:
        weight = a.weight + b.weight
        share = b.weight / torch.where(weight > 0, weight, 1)
        delta = b.mean - a.mean
        m2 = a.m2 + b.m2 + (delta * a.weight) * (delta * share)
        count, square = a.count + b.count, a.square + b.square
        return WeightedState(count, weight, square, a.mean + delta * share, m2)

    def finalize(state: WeightedState) -> Moments:
        freedom = state.weight - state.square / state.weight
        usable = (state.count > 1) & (freedom > 0)
        mean = torch.where(state.weight > 0, state.mean, torch.nan)
        return Moments(state.count, mean, torch.where(usable, state.m2 / freedom, torch.nan))

    return from_monoid(init=init, lift=lift, merge=merge, finalize=finalize, lift_each=lift_each)
