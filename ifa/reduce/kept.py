"""What an analysis keeps of a population: a reduction, how it merges, and what it is called."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

from torch import Tensor

from ifa.reduce.core import grouped, mapped
from ifa.types import Reduction


class Observed(NamedTuple):
    """A batch of what an analysis saw: one entry for each sample and explained target."""

    importance: Tensor  # (entry, channel)
    map_max: Tensor  # (entry,)
    map_min: Tensor  # (entry,)
    target: Tensor  # (entry,), int64, row of the statistics
    group: Tensor  # (entry,), int64
    accepted: Tensor  # (entry,), bool, whether it counts for the target's importance
    correct: Tensor  # (entry,), bool, whether the sample is predicted as its label, any label
    weight: Tensor  # (entry,), how much it counts for the mean importance, usually 1
    sample: Tensor  # (entry,), int64, index of the sample
    zero: Tensor  # (entry,), bool, whether the gradient is zero everywhere
    cancelled: Tensor  # (entry,), bool, whether what the map sums cancels everywhere
    residual: Tensor  # (entry,), importance that no atom of a basis holds; 0 of channels


class Shape(NamedTuple):
    """What a kept statistic is made for."""

    targets: int
    groups: int
    channels: int
    quantiles: tuple[float, ...]  # those asked for
    exclusive: bool = False  # whether one target is right, and what all have in common says nothing


class Variable(NamedTuple):
    """A variable of the statistics, read off a field of what a reduction finalizes to."""

    field: str
    dims: tuple[str, ...]  # all of them, ``"group"`` and ``"target"`` first if they are there
    long_name: str
    units: str = "1"  # in which ``score`` stands for the score's unit


@dataclass(frozen=True)
class Statistic:
    """A statistic that `ifa.analyze` keeps, of which all else follows: checks, files, labels.

    Parameters
    ----------
    reduction
        `Shape` -> `Reduction` over batches of `Observed`, or what `over` says. States are trees of
        tensors, and ``init(like)`` reads no value of `like`, which may have no entry.
    variables
        By name. One axis of a field may stand for group and target, in this order.
    coords
        Coordinates of dimensions that are its own, likewise.
    by
        What the first axis of each field of the state counts: ``"group"``, or ``"target"`` for
        groups and their targets in one; None for neither. Runs that are merged may have other
        groups each, and this says where the state of one goes.
    samples
        Fields of the state that hold indices of samples, negative for none.
    whole
        Fields of the state that do not have that axis.
    over
        What batches are: ``"entries"``, `Observed`; or ``"positions"``, `ifa.reduce.Rows`.

    Examples
    --------
    The largest importance of every channel in each group:

    >>> import ifa
    >>> from ifa.reduce import Statistic, Variable
    >>> largest = Statistic(
    ...     lambda shape: ifa.reduce.mapped(
    ...         lambda batch: (batch.importance, batch.group),
    ...         ifa.reduce.grouped(ifa.reduce.extrema(), size=shape.groups),
    ...     ),
    ...     {"largest": Variable("maximum", ("group", "channel"), "largest importance", "score")},
    ...     by="group",
    ... )
    """

    reduction: Callable[[Shape], Reduction]
    variables: Mapping[str, Variable] | None = None  # None: named after its fields
    coords: Mapping[str, Variable] = field(default_factory=dict)
    by: Literal["group", "target"] | None = None
    samples: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    over: Literal["entries", "positions"] = "entries"


def finite(map_max: Tensor, map_min: Tensor, importance: Tensor) -> Tensor:
    """Whether each entry's map is finite, from its extremes and importances."""
    return map_max.isfinite() & map_min.isfinite() & importance.isfinite().all(-1)


def good(batch: Observed) -> Tensor:
    """Whether each entry's map is finite."""
    return finite(batch.map_max, batch.map_min, batch.importance)


def in_cells(
    plain: Reduction,
    shape: Shape,
    by: Literal["group", "target"],
    read: Callable[[Observed], Any] = lambda batch: batch.importance,
    chosen: Callable[[Observed], Tensor] = lambda batch: batch.accepted,
) -> Reduction:
    """Run a reduction for each group, or group and target, over what is read of chosen entries."""
    targets = shape.targets if by == "target" else 1

    def taken(batch: Observed) -> tuple[Any, Tensor, Tensor]:
        cell = batch.group if by == "group" else batch.group * targets + batch.target
        return read(batch), cell, chosen(batch) & good(batch)

    return mapped(taken, grouped(plain, size=shape.groups * targets))


def as_it_is(reduction: Reduction) -> Statistic:
    """Take a reduction over `Observed` batches, of finite maps, whose variables name themselves."""
    return Statistic(partial(_over_finite, reduction))


def _over_finite(reduction: Reduction, shape: Shape) -> Reduction:
    return mapped(_finite_entries, reduction)


def _finite_entries(batch: Observed) -> Observed:
    mask = good(batch)
    return Observed(*(part[mask] for part in batch))
