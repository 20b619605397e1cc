"""Histograms of bounded relative error, in integers, so that merging is exact in any order."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ifa.reduce.core import from_monoid, picklable
from ifa.reduce.kept import Shape, Statistic, Variable, in_cells
from ifa.types import Reduction

_MANTISSA = 52  # bits of a float64's mantissa, and what its exponent is stored with
_BIAS = 1023


class HistogramState(NamedTuple):
    """What merges exactly, by adding."""

    count: Tensor  # (*feature, bin), int64
    nonfinite: Tensor  # (*feature,), int64, NaN and infinities, which are in no bin


class Histogram(NamedTuple):
    """The statistic."""

    value: Tensor  # (bin,), float64, the middle of each bin, ascending
    count: Tensor  # (*feature, bin), int64
    nonfinite: Tensor  # (*feature,), int64


@picklable
def histogram(*, bits: int = 4, low: int = -20, high: int = 20) -> Reduction:
    r"""Count values in bins whose width is a fixed share of their value, of either sign.

    Each octave :math:`[2^e, 2^{e+1})`, for e from `low` to `high` − 1, is cut into
    :math:`2^{bits}` bins of equal width, by the leading bits of the number itself; so every value
    in range is within :math:`2^{-(bits+1)}` of the middle of its bin, relative to itself: 1/32 by
    default. Values smaller than :math:`2^{low}` in size are counted in the bin of zero, values of
    :math:`2^{high}` and more in the outermost one.

    Parameters
    ----------
    bits
        Bits of the mantissa that tell bins apart, from 0 to 10.
    low, high
        Exponents of two of the smallest and the largest size told apart.

    Returns
    -------
    Reduction
        Batches (sample, \*feature) -> `HistogramState` -> `Histogram(value, count, nonfinite)`.
        The state has :math:`2 (high - low) 2^{bits} + 1` bins of 8 bytes for each feature: 10 KB by
        default. Its merge adds integers: exact, in any order.

    Raises
    ------
    ValueError
        If an option is out of range.

    References
    ----------
    Masson, Rim & Lee 2019, "DDSketch: a fast and fully-mergeable quantile sketch with
    relative-error guarantees". doi:10.14778/3352063.3352135. Bins are cut by bits, not by a
    logarithm, which is not the same on every device.

    Examples
    --------
    >>> import ifa, torch
    >>> reduction = ifa.reduce.histogram(bits=0, low=0, high=2)
    >>> found = reduction.finalize(ifa.reduce.fold(reduction, [torch.tensor([-1.0, 0.1, 2, 3])]))
    >>> found.value.tolist(), found.count.tolist()
    ([-3.0, -1.5, 0.0, 1.5, 3.0], [0, 1, 1, 0, 2])
    """
    if not 0 <= bits <= 10 or not -1000 <= low < high <= 1000:
        raise ValueError(
            "ifa.reduce.histogram: expected 0 <= bits <= 10 and -1000 <= low < high <= 1000, got "
            f"bits={bits}, low={low}, high={high}."
        )
    half = (high - low) << bits
    bins = 2 * half + 1

    def init(like: Tensor) -> HistogramState:
        nonfinite = like.new_zeros(like.shape[1:], dtype=torch.int64)
        return HistogramState(nonfinite[..., None].expand(*nonfinite.shape, bins), nonfinite)

    def lift(batch: Tensor) -> HistogramState:
        values = batch.double().reshape(len(batch), batch.shape[1:].numel())
        good = values.isfinite()
        size = values.contiguous().view(torch.int64) & torch.iinfo(torch.int64).max
        step = (size >> (_MANTISSA - bits)) - ((_BIAS + low) << bits)
        step = step.clamp(-1, half - 1) + 1  # 0 for what counts as zero
        index = half + torch.where(values < 0, -step, step)
        features = values.shape[1]
        place = index + bins * torch.arange(features, device=index.device)
        count = torch.bincount(place[good], minlength=features * bins)
        shape = batch.shape[1:]
        return HistogramState(count.reshape(*shape, bins), (~good).sum(0).reshape(shape))

    def finalize(state: HistogramState) -> Histogram:
        middle = _middles(bits, low, high).to(state.count.device)
        return Histogram(middle, *state)

    return from_monoid(init=init, lift=lift, merge=_added, finalize=finalize)


def histogram_quantiles(histogram: Histogram, levels: Sequence[float]) -> Tensor:
    r"""Read quantiles from a histogram, with the bins' bounded relative error.

    Between order statistics it interpolates linearly, as `ifa.reduce.quantiles` does. Each order
    statistic is off by at most :math:`2^{-(bits+1)}` of itself, 1/32 by default; and so is what is
    interpolated between two of the same sign, and between two of either sign by that share of the
    larger. Values that were out of the histogram's range are read as its smallest or largest.

    Parameters
    ----------
    histogram
        The statistic of `ifa.reduce.histogram`, also grouped.
    levels : (quantile,)
        Numbers in [0, 1].

    Returns
    -------
    (\*feature, quantile)
        float64, in the unit of the values; NaN without a sample.

    Raises
    ------
    ValueError
        If a level is not in [0, 1].

    Examples
    --------
    >>> import ifa, torch
    >>> reduction = ifa.reduce.histogram()
    >>> found = reduction.finalize(ifa.reduce.fold(reduction, [torch.tensor([1.0, 2.0, 4.0])]))
    >>> histogram_quantiles(found, [0.5])
    tensor([2.0625], dtype=torch.float64)
    """
    wanted = torch.as_tensor(levels, dtype=torch.float64, device=histogram.count.device)
    if wanted.ndim != 1 or not bool(((wanted >= 0) & (wanted <= 1)).all()):
        raise ValueError(
            f"ifa.reduce.histogram_quantiles: expected levels in [0, 1], got {wanted.tolist()}."
        )
    value = histogram.value.reshape(-1, histogram.value.shape[-1])[0]
    below = histogram.count.cumsum(-1)
    total = below[..., -1:]
    rank = wanted * (total - 1).clamp(min=0)
    first = rank.floor().long()
    found = [
        value[torch.searchsorted(below, order.contiguous(), right=True).clamp(max=len(value) - 1)]
        for order in (first, torch.minimum(first + 1, (total - 1).clamp(min=0)))
    ]
    mixed = found[0] + (found[1] - found[0]) * (rank - first)
    return torch.where(total > 0, mixed, torch.nan)


def _added(a: HistogramState, b: HistogramState) -> HistogramState:
    return HistogramState(a.count + b.count, a.nonfinite + b.nonfinite)


def _middles(bits: int, low: int, high: int) -> Tensor:
    octave = torch.arange(low, high, dtype=torch.float64).exp2()
    part = 1 + (torch.arange(1 << bits, dtype=torch.float64) + 0.5) / (1 << bits)
    positive = (octave[:, None] * part).flatten()
    return torch.cat([-positive.flip(0), positive.new_zeros(1), positive])


class _Spread(NamedTuple):
    """What is kept of a population's histograms: the bins between the outermost occupied ones."""

    value: Tensor  # (bin,)
    count: Tensor  # (cell, channel, bin)
    quantiles: Tensor  # (cell, channel, quantile)


def _spread(shape: Shape) -> Reduction:
    each = in_cells(histogram(), shape, "target")

    def finalize(state: HistogramState) -> _Spread:
        found = each.finalize(state)
        bins = _occupied(found.count)
        quantiles = histogram_quantiles(found, shape.quantiles)
        return _Spread(found.value[0, bins], found.count[..., bins], quantiles)

    return each._replace(finalize=finalize)


def _occupied(count: Tensor) -> slice:
    """From the first to the last bin in which there is anything; the bin of zero if none is."""
    used = count.flatten(0, -2).any(0).nonzero().flatten()
    zero = count.shape[-1] // 2
    first, last = (int(used[0]), int(used[-1])) if len(used) else (zero, zero)
    return slice(first, last + 1)


_CHANNELS = ("group", "target", "channel")
HISTOGRAM = Statistic(
    _spread,
    {
        "importance_histogram": Variable(
            "count", (*_CHANNELS, "bin"), "accepted samples whose importance is in a bin"
        ),
        "importance_quantiles": Variable(
            "quantiles",
            (*_CHANNELS, "quantile"),
            "quantiles of importance, to 1/32 of their value",
            "score",
        ),
    },
    {"bin": Variable("value", ("bin",), "middle of a bin", "score")},
    by="target",
)
