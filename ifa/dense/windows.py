"""The arithmetic of sliding windows on a finer grid: one axis at a time, whole numbers only.

On an axis of extent N that is r times finer, windows of k taps lie d·r apart, the padding is p·r,
and of a stride s a divisor q stays and s / q becomes fineness.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Windows(NamedTuple):
    """Windows over one axis of a finer tensor."""

    taps: int  # k
    apart: int  # d · r
    stride: int  # q, which stays
    before: int  # padding, p · r
    after: int  # padding that the last window needs
    count: int
    factor: int  # of the result: r · s / q


def each(values: int | Sequence[int], axes: int) -> tuple[int, ...]:
    """Write an option of each axis out."""
    values = (values,) if isinstance(values, int) else tuple(values)
    return values * axes if len(values) == 1 else values


def staying(stride: int, kept: int, limit: int) -> int:
    """Return the greatest divisor of a stride with which at most `limit` is kept."""
    return max(q for q in range(1, stride + 1) if stride % q == 0 and (q == 1 or kept * q <= limit))


def windows(
    extent: int,
    factor: int,
    taps: int,
    stride: int,
    stay: int,
    padding: int,
    dilation: int,
    *,
    ceil: bool,
) -> Windows:
    """Lay windows out on a finer axis so that every (r s / q)-th of them is one of the original's.

    With E = N + 2 p r − d r (k − 1) − 1, the last place a window can start at, there are
    floor(E / q) + 1 of them, and ceil of that by r s / q is what the original has: floor(e / s) + 1
    with e = floor(E / r). In ceil mode windows may start up to s − 1 of the original's places
    later, but not in the padding behind.
    """
    reach = dilation * factor * (taps - 1)
    last = extent + 2 * padding * factor - reach - 1
    if ceil:
        most = (last // factor + stride) * factor - 1
        last = min(most, extent + padding * factor - 1)
    count = last // stay + 1
    after = (count - 1) * stay + reach + 1 - extent - padding * factor
    kept = factor * stride // stay
    return Windows(taps, dilation * factor, stay, padding * factor, max(after, 0), count, kept)


def inside(over: Windows, extent: int, margin: int = 0) -> Tensor:
    """Count the taps of each window that lie in an axis, widened by a margin on both sides."""
    starts = torch.arange(over.count) * over.stride - over.before
    places = starts[:, None] + torch.arange(over.taps) * over.apart
    return ((places >= -margin) & (places < extent + margin)).sum(1)


def summed(values: Tensor, dim: int, over: Windows) -> Tensor:
    """Sum the taps of each window along a padded dimension."""
    span = (over.count - 1) * over.stride + 1
    parts = (
        values.narrow(dim, tap * over.apart, span)[_stepped(values.ndim, dim, over.stride)]
        for tap in range(over.taps)
    )
    total = next(parts)
    for part in parts:
        total = total + part
    return total


def cropped(extent: int, factor: int, start: int, step: int, count: int, stay: int) -> slice:
    """Return the slice of a finer axis that is start, start + step … of the original, `count`."""
    stop = min(extent, (start + step * count) * factor)
    return slice(start * factor, stop, stay)


def _stepped(rank: int, dim: int, step: int) -> tuple[slice, ...]:
    return tuple(slice(None, None, step if n == dim % rank else None) for n in range(rank))
