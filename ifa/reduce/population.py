"""What integrated feature analysis keeps of a population, as one mergeable reduction."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ifa.reduce.core import absorbed, absorbing, grouped, picklable, sum_each
from ifa.reduce.kept import Observed, Shape, Statistic, Variable, good
from ifa.reduce.moments import WeightedState, WeightedValues, weighted_moments
from ifa.reduce.quantiles import quantiles
from ifa.stages import cancels, long_sum, product
from ifa.types import Reduction, Weighted


class Summary(NamedTuple):
    """What the population sees of one example and one target."""

    importance: Tensor  # (channel,), float64, score unit
    map_max: Tensor  # ()
    map_min: Tensor  # ()
    map_sum: Tensor  # (), float64
    cancelled: Tensor  # (), bool, see `ifa.stages.cancels`


class PopulationState(NamedTuple):
    """What merges exactly. Cell g·targets + t holds group g and target t."""

    count: Tensor  # (cell,), int64
    weight: Tensor  # (cell,), float64, sum of the entries' weights
    square: Tensor  # (cell,), float64, sum of their squares
    mean: Tensor  # (cell, channel), float64
    m2: Tensor  # (cell, channel), float64
    nonfinite: Tensor  # (target,), int64
    zero_gradient: Tensor  # (target,), int64
    cancelled: Tensor  # (target,), int64
    map_max: Tensor  # (entry,): all that were seen, NaN where not finite: quantiles do not merge
    map_min: Tensor  # (entry,)
    target: Tensor  # (entry,), int32


class Population(NamedTuple):
    """The statistic; see `ifa.analyze` for what each field means."""

    importance: Tensor  # (group, target, channel)
    importance_variance: Tensor  # (group, target, channel)
    count: Tensor  # (group, target), int64
    nonfinite: Tensor  # (target,), int64
    zero_gradient: Tensor  # (target,), int64
    cancelled: Tensor  # (target,), int64
    map_max: Tensor  # (target, quantile)
    map_min: Tensor  # (target, quantile)
    map_max_overall: Tensor  # (quantile,)
    map_min_overall: Tensor  # (quantile,)


def summarize(weighted: Weighted, *, reduction: Literal["sum", "mean"] = "sum") -> Summary:
    r"""Reduce one example to its importance vector and the extremes and sum of its map.

    .. math:: I_k = \sum_p w_k(p) A_k(p), \qquad L(p) = \sum_k w_k(p) A_k(p)

    Parameters
    ----------
    weighted
        `Weighted` of one example.
    reduction
        ``"sum"`` or ``"mean"`` over the positions p, for the importance.

    Returns
    -------
    Summary
        Signed, before any rectifying, at the layer's resolution, in the score's unit. Of float32
        the importance is off by at most 1e-6 of the sum of sizes, see `ifa.stages.long_sum`.

    Examples
    --------
    >>> import ifa, torch
    >>> example = ifa.Weighted(torch.tensor([1.0, -2.0]), torch.ones(2, 3), torch.tensor(0))
    >>> summarize(example).importance
    tensor([ 3., -6.], dtype=torch.float64)
    """
    parts = product(weighted)
    importance, values = long_sum(parts.reshape(len(parts), -1)), parts.sum(0)
    if reduction == "mean":
        importance = importance / values.numel()
    total = values.sum(dtype=torch.float64)
    return Summary(importance, values.amax(), values.amin(), total, cancels(parts, values))


@picklable
def population(*, targets: int, groups: int = 1, levels: Sequence[float]) -> Reduction:
    """Importances by target and group, and exact quantiles of map extremes.

    Entries whose map is not finite are left out of everything and counted. Importances are averaged
    over accepted entries, extremes are taken over all.

    Parameters
    ----------
    targets, groups
        How many rows and groups there are.
    levels
        Which quantiles of the extremes are wanted.

    Returns
    -------
    Reduction
        `Observed` batches -> `PopulationState` -> `Population`. The state grows by the two extremes
        of each entry.

    Examples
    --------
    >>> import ifa, torch
    >>> reduction = population(targets=2, levels=[0.5])
    >>> one = torch.ones(1, dtype=torch.int64)
    >>> extremes = torch.ones(1), -torch.ones(1)
    >>> flags, no = (one.bool(), one.bool()), 0 * one
    >>> entry = Observed(torch.ones(1, 3), *extremes, one, no, *flags, one, no, *flags, no)
    >>> reduction.finalize(ifa.reduce.fold(reduction, [entry])).count
    tensor([[0, 1]])
    """
    cells = grouped(weighted_moments(), size=groups * targets)
    absorb_cells = absorbing(cells)

    def init(like: Observed) -> PopulationState:
        empty = cells.init((weighed(like), like.target))
        counts = [like.target.new_zeros(targets)] * 3
        none = like.map_max.new_empty(0)
        return _state(empty, counts, [none, none, like.target.new_empty(0).int()])

    def absorb(state: PopulationState, batch: Observed) -> PopulationState:
        sound = good(batch)
        cell = batch.group * targets + batch.target
        taken = weighed(batch), cell, sound & batch.accepted
        moved = absorb_cells(_cells(state), taken)
        flags = ~sound, batch.zero, batch.cancelled
        more = [sum_each(flag.long(), batch.target, targets) for flag in flags]
        counts = [one + new for one, new in zip(_counts(state), more, strict=True)]
        extremes = [torch.where(sound, v, torch.nan) for v in (batch.map_max, batch.map_min)]
        return _state(moved, counts, _appended(_seen(state), [*extremes, batch.target.int()]))

    def update(state: PopulationState, batch: Observed) -> PopulationState:
        return absorb(PopulationState(*(field.clone() for field in state)), batch)

    def merge(a: PopulationState, b: PopulationState) -> PopulationState:
        merged = cells.merge(_cells(a), _cells(b))
        counts = [one + other for one, other in zip(_counts(a), _counts(b), strict=True)]
        return _state(merged, counts, _appended(_seen(a), _seen(b)))

    def finalize(state: PopulationState) -> Population:
        each = cells.finalize(_cells(state))
        shape = (groups, targets)
        found = state.map_max.isfinite()  # both or none
        extremes = [values[found].cpu().numpy() for values in (state.map_max, state.map_min)]
        target = state.target[found].cpu().numpy()
        by_target = [_by_target(values, target, targets, levels) for values in extremes]
        mean, variance = each.mean.unflatten(0, shape), each.variance.unflatten(0, shape)
        return Population(
            mean,
            variance,
            each.count.unflatten(0, shape),
            *_counts(state),
            *by_target,
            *(torch.from_numpy(quantiles(values, levels)) for values in extremes),
        )

    return absorbed(Reduction(init, update, merge, finalize), absorb)


def weighed(batch: Observed) -> WeightedValues:
    """Take the entries' importances, with their weights."""
    return WeightedValues(batch.importance, batch.weight)


def _state(
    cells: WeightedState, counts: Sequence[Tensor], seen: Sequence[Tensor]
) -> PopulationState:
    return PopulationState(*cells, *counts, *seen)


def _cells(state: PopulationState) -> WeightedState:
    return WeightedState(*state[:5])


def _counts(state: PopulationState) -> tuple[Tensor, Tensor, Tensor]:
    return state.nonfinite, state.zero_gradient, state.cancelled


def _seen(state: PopulationState) -> tuple[Tensor, Tensor, Tensor]:
    return state.map_max, state.map_min, state.target


def _appended(a: Sequence[Tensor], b: Sequence[Tensor]) -> list[Tensor]:
    return [torch.cat(pair) for pair in zip(a, b, strict=True)]


def _by_target(
    values: np.ndarray, target: np.ndarray, targets: int, levels: Sequence[float]
) -> Tensor:
    """Quantiles of each target's values, (target, quantile); most may have none."""
    found = np.full((targets, len(levels)), np.nan)
    order = target.argsort(kind="stable")
    present, starts = np.unique(target[order], return_index=True)
    for row, part in zip(present, np.split(values[order], starts[1:]), strict=False):
        found[row] = quantiles(part, levels)
    return torch.from_numpy(found)


def _population(shape: Shape) -> Reduction:
    return population(targets=shape.targets, groups=shape.groups, levels=shape.quantiles)


_CELL, _CHANNELS = ("group", "target"), ("group", "target", "channel")
POPULATION = Statistic(
    _population,
    {
        "importance": Variable(
            "importance", _CHANNELS, "mean importance over accepted samples", "score"
        ),
        "importance_variance": Variable(
            "importance_variance",
            _CHANNELS,
            "variance of importance between accepted samples",
            "score**2",
        ),
        "count": Variable("count", _CELL, "accepted samples"),
        "nonfinite": Variable(
            "nonfinite", ("target",), "samples left out because their map is not finite"
        ),
        "zero_gradient": Variable(
            "zero_gradient", ("target",), "samples whose gradient is zero at every position"
        ),
        "cancelled": Variable(
            "cancelled", ("target",), "samples in whose map the channels cancel at every position"
        ),
        "map_max": Variable(
            "map_max",
            ("target", "quantile"),
            "quantiles over samples of the map's maximum",
            "score",
        ),
        "map_min": Variable(
            "map_min",
            ("target", "quantile"),
            "quantiles over samples of the map's minimum",
            "score",
        ),
        "map_max_overall": Variable(
            "map_max_overall", ("quantile",), "quantiles of map maxima, all targets pooled", "score"
        ),
        "map_min_overall": Variable(
            "map_min_overall", ("quantile",), "quantiles of map minima, all targets pooled", "score"
        ),
    },
    by="target",
    whole=("nonfinite", "zero_gradient", "cancelled", "map_max", "map_min", "target"),
)
