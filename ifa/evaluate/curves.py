"""Curves of the score as ranked positions are hidden or shown."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ifa.checks import check_count
from ifa.evaluate.masking import Case


class Curve(NamedTuple):
    """Scores over shares of the positions, both end points among them; all float64."""

    fraction: Tensor  # (sample, point), from 0 to 1
    score: Tensor  # (sample, point), NaN where the map says nothing
    auc: Tensor  # (sample,), the area by the trapezoid rule


class Ranked(NamedTuple):
    """Positions in the order of their values, in pieces of one position or one window."""

    rank: Tensor  # (row, block, *space), int64: how many pieces come before a position's
    share: Tensor  # (row, piece + 1), float64: of all positions, how many the first pieces hold


def ranked(where: str, values: Tensor, window: int | Sequence[int] | None) -> Ranked:
    r"""Rank the pieces of maps (row, block, \*space) by their sum, the largest first.

    Windows tile the space from its first corner; those at the far border are as large as what is
    left. Equal sums keep the order of groups and of positions.
    """
    piece, count = _pieces(tuple(values.shape[1:]), _window(where, window, values.shape[2:]))
    piece = piece.to(values.device)
    flat = values.flatten(1).double()
    sums = flat.new_zeros(len(flat), count).index_add_(1, piece, flat)
    order = sums.argsort(dim=1, descending=True, stable=True)
    sizes = torch.bincount(piece, minlength=count).double()
    share = torch.nn.functional.pad(sizes[order].cumsum(1) / len(piece), (1, 0))
    return Ranked(order.argsort(dim=1)[:, piece].reshape(values.shape), share)


def removed(
    case: Case, steps: int, window: int | Sequence[int] | None, *, shows: bool = False
) -> Curve:
    """Follow the score as one share of the ranking after another is hidden, or shown."""
    check_count(case.where, "steps", steps)
    rank, share = ranked(case.where, case.maps, window)
    points = counts(share.shape[1] - 1, steps).to(rank.device)
    taken, place = points.unique(return_inverse=True)  # of few pieces several points are the same
    lead = (-1, *(1,) * (rank.ndim - 1))

    def left(rows: Tensor, number: Tensor) -> Tensor:
        return (rank[rows] < taken[1 + number].reshape(lead)) == shows

    ends = case.before()[:, None], case.emptied()[:, None]  # no map changes them
    first, last = ends[::-1] if shows else ends
    score = torch.cat([first, case.shown(len(taken) - 2, left), last], 1)[:, place]
    return curve(case, share[:, points], score, case.silent)


def curve(case: Case, fraction: Tensor, score: Tensor, silent: Tensor) -> Curve:
    """Make the curve of all rows, and its area by the trapezoid rule."""
    area = torch.trapezoid(score, fraction, dim=1)
    return Curve(case.lifted(fraction), case.known(score, silent), case.known(area, silent))


def counts(pieces: int, steps: int) -> Tensor:
    """Return the numbers of pieces at which a curve of so many steps is taken, with both ends."""
    return (torch.arange(steps + 1) * pieces + steps - 1) // steps


def fractions_of(where: str, fraction: Sequence[float]) -> list[float]:
    """Return checked shares of the positions, rising, in (0, 1]."""
    points = [float(point) for point in fraction]
    rising = all(a < b for a, b in pairwise(points))
    if not points or not rising or not 0 < points[0] <= points[-1] <= 1:
        raise ValueError(
            f"{where}: expected fraction to rise, in (0, 1], at least one, got {points}."
        )
    return points


def positions_of(fraction: Tensor, count: int) -> Tensor:
    """Return how many positions of so many a share is, at least: int64."""
    # rounded first: 0.1 * 30 is a little more than 3
    return (fraction * count).round(decimals=6).ceil().long()


def _pieces(shape: tuple[int, ...], window: tuple[int, ...]) -> tuple[Tensor, int]:
    """Return the piece of each position of (block, *space), and how many pieces there are."""
    piece, count = torch.zeros((), dtype=torch.int64), 1
    for extent, side in zip(shape, (1, *window), strict=True):
        piece = piece[..., None] * -(-extent // side) + torch.arange(extent) // side
        count *= -(-extent // side)
    return piece.flatten(), count


def _window(
    where: str, window: int | Sequence[int] | None, space: Sequence[int]
) -> tuple[int, ...]:
    sides = (1,) * len(space) if window is None else window
    sides = (sides,) * len(space) if isinstance(sides, int) else tuple(sides)
    if len(sides) != len(space) or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ValueError(
            f"{where}: expected window to be None, a positive side, or one for each of the "
            f"{len(space)} space axes, got {window!r}."
        )
    return sides
