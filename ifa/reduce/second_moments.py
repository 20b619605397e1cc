"""Second moments of a layer's activations and gradients over positions, in one mergeable pass."""

from typing import Literal, NamedTuple

from torch import Tensor

from ifa.checks import check_choice
from ifa.reduce.core import from_monoid, picklable
from ifa.reduce.covariances import CovarianceState, check_table, covariance
from ifa.reduce.kept import Shape, Statistic, Variable
from ifa.types import Reduction


class Rows(NamedTuple):
    """A batch of positions, of samples and of their explained targets."""

    activations: Tensor  # (row, channel)
    gradients: Tensor  # (row, channel), of any number of rows


class SecondMomentsState(NamedTuple):
    """What merges exactly."""

    count: Tensor  # (), int64
    mean: Tensor  # (channel,), float64
    product: Tensor  # (channel, channel), float64, sums of products of deviations
    gradient_count: Tensor  # of gradients the same
    gradient_mean: Tensor
    gradient_product: Tensor


class SecondMoments(NamedTuple):
    """The statistic, of float64: what `ifa.basis.pca`, `gradient` and `balanced` are made of."""

    activation_mean: Tensor  # (channel,); NaN without a row
    activation_covariance: Tensor  # (channel, channel); NaN without a row
    gradient_mean: Tensor  # (channel,)
    gradient_moment: Tensor  # (channel, channel), about the mean or about zero


@picklable
def second_moments(*, about: Literal["mean", "zero"] = "mean") -> Reduction:
    r"""Second moments of activations and gradients, in one mergeable pass, in float64.

    .. math:: P = \frac1n \sum_i (a_i - \bar a)(a_i - \bar a)^\top, \qquad
        Q = \frac1m \sum_j (g_j - \bar g)(g_j - \bar g)^\top

    Parameters
    ----------
    about
        Whether gradients are taken from their ``"mean"``, or as they are, from ``"zero"``:
        :math:`Q = \frac1m \sum_j g_j g_j^\top`.

    Returns
    -------
    Reduction
        Batches `Rows(activations, gradients)`, each (row, channel), -> `SecondMomentsState` ->
        `SecondMoments(activation_mean, activation_covariance, gradient_mean, gradient_moment)`. The
        state takes 16 bytes for every two channels.

    Raises
    ------
    ValueError
        If batches are not (row, channel), or `about` is neither.

    References
    ----------
    Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance".
    doi:10.1080/00031305.1983.10483115

    Examples
    --------
    >>> import ifa, torch
    >>> rows = ifa.reduce.Rows(torch.tensor([[0.0, 1.0], [2.0, 5.0]]), torch.ones(1, 2))
    >>> reduction = ifa.reduce.second_moments(about="zero")
    >>> found = reduction.finalize(ifa.reduce.fold(reduction, [rows]))
    >>> found.activation_covariance.tolist(), found.gradient_moment.tolist()
    ([[1.0, 2.0], [2.0, 4.0]], [[1.0, 1.0], [1.0, 1.0]])
    """
    check_choice("ifa.reduce.second_moments", "about", about, ("mean", "zero"))
    one = covariance(ddof=0)

    def init(like: Rows) -> SecondMomentsState:
        for part in like:
            check_table("second_moments", part)
        return SecondMomentsState(*one.init(like.activations), *one.init(like.gradients))

    def lift(batch: Rows) -> SecondMomentsState:
        parts = (one.update(one.init(part), part) for part in batch)
        return SecondMomentsState(*(field for part in parts for field in part))

    def merge(a: SecondMomentsState, b: SecondMomentsState) -> SecondMomentsState:
        pairs = zip(_halves(a), _halves(b), strict=True)
        return SecondMomentsState(*(field for pair in pairs for field in one.merge(*pair)))

    def finalize(state: SecondMomentsState) -> SecondMoments:
        seen, slopes = (one.finalize(half) for half in _halves(state))
        moment = slopes.covariance
        if about == "zero":
            moment = moment + slopes.mean[:, None] * slopes.mean
        return SecondMoments(seen.mean, seen.covariance, slopes.mean, moment)

    return from_monoid(init=init, lift=lift, merge=merge, finalize=finalize)


def _halves(state: SecondMomentsState) -> tuple[CovarianceState, CovarianceState]:
    return CovarianceState(*state[:3]), CovarianceState(*state[3:])


def _of(shape: Shape) -> Reduction:
    return second_moments(about="mean" if shape.exclusive and shape.targets > 1 else "zero")


_SQUARE = ("channel", "channel_")
SECOND_MOMENTS = Statistic(
    _of,
    {
        "activation_mean": Variable("activation_mean", ("channel",), "mean activation"),
        "activation_covariance": Variable(
            "activation_covariance", _SQUARE, "covariance of activations over positions"
        ),
        "gradient_mean": Variable("gradient_mean", ("channel",), "mean gradient", "score"),
        "gradient_moment": Variable(
            "gradient_moment", _SQUARE, "second moment of target-centred gradients", "score**2"
        ),
    },
    over="positions",
)
