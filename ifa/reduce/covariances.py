"""Covariance of channels, in one mergeable pass."""

from typing import NamedTuple

import torch
from torch import Tensor

from ifa.reduce.core import from_monoid, picklable
from ifa.reduce.kept import Shape, Statistic, Variable, in_cells
from ifa.types import Reduction


class CovarianceState(NamedTuple):
    """What merges exactly."""

    count: Tensor  # (), int64
    mean: Tensor  # (channel,), float64
    product: Tensor  # (channel, channel), float64, sums of products of deviations


class Covariance(NamedTuple):
    """The statistic."""

    count: Tensor  # (), int64
    mean: Tensor  # (channel,), float64; NaN without a sample
    covariance: Tensor  # (channel, channel), float64; NaN without degrees of freedom


@picklable
def covariance(*, ddof: int = 1) -> Reduction:
    r"""Covariance of every two channels, in one mergeable pass, in float64.

    .. math:: C_{jk} = \frac{1}{n - ddof} \sum_i (x_{ij} - \bar x_j)(x_{ik} - \bar x_k)

    Parameters
    ----------
    ddof
        Degrees of freedom taken off: 1 for the unbiased covariance.

    Returns
    -------
    Reduction
        Batches (sample, channel) -> `CovarianceState` -> `Covariance(count, mean, covariance)`, in
        the square of the values' unit. The state takes 8 bytes for every two channels.

    Raises
    ------
    ValueError
        If batches are not (sample, channel).

    References
    ----------
    Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance".
    doi:10.1080/00031305.1983.10483115

    Examples
    --------
    >>> import ifa, torch
    >>> reduction = ifa.reduce.covariance()
    >>> batch = torch.tensor([[0.0, 1.0], [2.0, 5.0]])
    >>> reduction.finalize(ifa.reduce.fold(reduction, batch.split(1))).covariance.tolist()
    [[2.0, 4.0], [4.0, 8.0]]
    """

    def init(like: Tensor) -> CovarianceState:
        check_table("covariance", like)
        mean = like.new_zeros(like.shape[1], dtype=torch.float64)
        count = like.new_zeros((), dtype=torch.int64)
        return CovarianceState(count, mean, mean.new_zeros(len(mean), len(mean)))

    def lift(batch: Tensor) -> CovarianceState:
        batch = batch.double()
        mean = batch.sum(0) / max(len(batch), 1)
        away = batch - mean
        count = batch.new_full((), len(batch), dtype=torch.int64)
        return CovarianceState(count, mean, away.T @ away)

    def merge(a: CovarianceState, b: CovarianceState) -> CovarianceState:
        count = a.count + b.count
        share = b.count.double() / count.clamp(min=1)
        delta = b.mean - a.mean
        between = (delta * a.count)[..., :, None] * (delta * share)[..., None, :]
        # the two orders of a pair are rounded apart
        between = (between + between.mT) / 2
        return CovarianceState(count, a.mean + delta * share, a.product + b.product + between)

    def finalize(state: CovarianceState) -> Covariance:
        freedom = (state.count - ddof).double()
        mean = torch.where(state.count > 0, state.mean, torch.nan)
        found = torch.where(freedom > 0, state.product / freedom, torch.nan)
        return Covariance(state.count, mean, found)

    return from_monoid(init=init, lift=lift, merge=merge, finalize=finalize)


def check_table(name: str, batch: Tensor) -> None:
    """Raise unless a batch is (sample, channel)."""
    if batch.ndim != 2:
        raise ValueError(
            f"ifa.reduce.{name}: expected batches (sample, channel), got {tuple(batch.shape)}. "
            "Reduce the other axes before it, with ifa.reduce.mapped."
        )


def _by_group(shape: Shape) -> Reduction:
    return in_cells(covariance(), shape, "group")


COVARIANCE = Statistic(
    _by_group,
    {
        "importance_covariance": Variable(
            "covariance",
            ("group", "channel", "channel_"),
            "covariance of importance between accepted samples of all targets",
            "score**2",
        ),
    },
    by="group",
)
