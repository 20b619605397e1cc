"""The largest: which channels are it together, and which samples are it for a channel."""

from typing import NamedTuple

import torch
from torch import Tensor

from ifa.reduce.core import from_monoid, picklable
from ifa.reduce.covariances import check_table
from ifa.reduce.kept import Observed, Shape, Statistic, Variable, in_cells
from ifa.types import Reduction

# What an analysis keeps: samples of each channel; the share of channels taken for a sample's top.
_SAMPLES = 10
_CHANNELS = 0.1


class Cooccurrence(NamedTuple):
    """Both the state and the statistic."""

    count: Tensor  # (), int64, samples
    together: Tensor  # (channel, channel), int64; on the diagonal how often each is at the top


class Ranked(NamedTuple):
    """A batch for `top_samples`."""

    values: Tensor  # (sample, channel)
    sample: Tensor  # (sample,), int64, not negative


class TopSamples(NamedTuple):
    """Both the state and the statistic; −inf and −1 where there are fewer samples than ranks."""

    value: Tensor  # (channel, rank), float64, descending
    sample: Tensor  # (channel, rank), int64


@picklable
def cooccurrence(*, top: int) -> Reduction:
    r"""Count how often two channels are among the largest of a sample together.

    Parameters
    ----------
    top
        How many channels of each sample are taken: those of the largest values, ties to the lower
        index.

    Returns
    -------
    Reduction
        Batches (sample, channel) -> `Cooccurrence(count, together)`: integers, of which the state
        has one for every two channels.

    Raises
    ------
    ValueError
        If batches are not (sample, channel), or have fewer channels than `top`.

    Examples
    --------
    >>> import ifa, torch
    >>> reduction = ifa.reduce.cooccurrence(top=2)
    >>> batch = torch.tensor([[3.0, 1.0, 2.0], [3.0, 2.0, 1.0]])
    >>> reduction.finalize(ifa.reduce.fold(reduction, [batch])).together.tolist()
    [[2, 1, 1], [1, 1, 0], [1, 0, 1]]
    """

    def init(like: Tensor) -> Cooccurrence:
        check_table("cooccurrence", like)
        channels = like.shape[1]
        if not 1 <= top <= channels:
            raise ValueError(
                f"ifa.reduce.cooccurrence: expected top in 1..{channels}, the channels, got {top}."
            )
        zero = like.new_zeros((), dtype=torch.int64)
        return Cooccurrence(zero, zero.new_zeros(channels, channels))

    def lift(batch: Tensor) -> Cooccurrence:
        order = batch.argsort(dim=1, descending=True, stable=True)[:, :top]
        # float64 counts exactly, and multiplies matrices on every device
        chosen = torch.zeros_like(batch, dtype=torch.float64).scatter(1, order, 1.0)
        count = order.new_full((), len(batch))
        return Cooccurrence(count, (chosen.T @ chosen).round().long())

    def merge(a: Cooccurrence, b: Cooccurrence) -> Cooccurrence:
        return Cooccurrence(a.count + b.count, a.together + b.together)

    return from_monoid(init=init, lift=lift, merge=merge, finalize=lambda state: state)


@picklable
def top_samples(ranks: int) -> Reduction:
    r"""Find the samples of the largest values of each channel: those one wants to look at.

    Parameters
    ----------
    ranks
        How many samples are kept for each channel.

    Returns
    -------
    Reduction
        Batches ``(values, sample)``, (sample, channel) and (sample,) int64 indices that are not
        negative, -> `TopSamples(value, sample)`. Ties go to the lower index. The state takes 16
        bytes for each channel and rank, however many samples there are.

    Raises
    ------
    ValueError
        If `ranks` is less than 1, or values are not (sample, channel).

    Examples
    --------
    >>> import ifa, torch
    >>> reduction = ifa.reduce.top_samples(2)
    >>> batch = torch.tensor([[1.0], [5.0], [3.0]]), torch.tensor([10, 11, 12])
    >>> reduction.finalize(ifa.reduce.fold(reduction, [batch])).sample.tolist()
    [[11, 12]]
    """
    if ranks < 1:
        raise ValueError(f"ifa.reduce.top_samples: expected at least one rank, got {ranks}.")

    def init(like: tuple[Tensor, Tensor]) -> TopSamples:
        check_table("top_samples", like[0])
        value = like[0].new_full((like[0].shape[1], ranks), -torch.inf, dtype=torch.float64)
        return TopSamples(value, torch.full_like(value, -1, dtype=torch.int64))

    def lift(batch: tuple[Tensor, Tensor]) -> TopSamples:
        values, sample = batch
        empty = init((values, sample))
        value = torch.cat([values.double().T, empty.value], 1)
        return _first(value, torch.cat([sample.expand(values.T.shape), empty.sample], 1), ranks)

    def merge(a: TopSamples, b: TopSamples) -> TopSamples:
        return _first(torch.cat([a.value, b.value], -1), torch.cat([a.sample, b.sample], -1), ranks)

    return from_monoid(init=init, lift=lift, merge=merge, finalize=lambda state: state)


def _first(value: Tensor, sample: Tensor, ranks: int) -> TopSamples:
    """Sort by value, ties by sample, and what is empty last."""
    last = torch.iinfo(torch.int64).max
    by_sample = torch.where(sample < 0, last, sample).argsort(dim=-1, stable=True)
    value, sample = value.gather(-1, by_sample), sample.gather(-1, by_sample)
    by_value = value.argsort(dim=-1, descending=True, stable=True)[..., :ranks]
    return TopSamples(value.gather(-1, by_value), sample.gather(-1, by_value))


def _together(shape: Shape) -> Reduction:
    top = max(1, round(_CHANNELS * shape.channels))
    return in_cells(cooccurrence(top=top), shape, "group")


COOCCURRENCE = Statistic(
    _together,
    {
        "cooccurrence": Variable(
            "together",
            ("group", "channel", "channel_"),
            "accepted samples of which both channels are in the top tenth",
        ),
    },
    by="group",
)


def _ranked(batch: Observed) -> Ranked:
    return Ranked(batch.importance, batch.sample)


def _tops(shape: Shape) -> Reduction:
    each = in_cells(top_samples(_SAMPLES), shape, "target", _ranked)

    def finalize(state: TopSamples) -> TopSamples:
        return state._replace(value=state.value.where(state.sample >= 0, torch.nan))

    return each._replace(finalize=finalize)


_RANKS = ("group", "target", "channel", "rank")
TOP_SAMPLES = Statistic(
    _tops,
    {
        "top_value": Variable("value", _RANKS, "largest importances of accepted samples", "score"),
        "top_sample": Variable(
            "sample",
            _RANKS,
            "index of the samples of the largest importances, -1 where there are fewer",
        ),
    },
    by="target",
    samples=("sample",),
)
