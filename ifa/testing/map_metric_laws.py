"""Laws of metrics that look at a map alone, or at a map and the labels of its positions.

The thing under test takes one example's map and labels, whole numbers from 0 to 2 of the same
shape, and returns a tensor or a record of tensors: a mask is ``labels == 1``.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.func import vmap

from ifa.testing import strategies
from ifa.testing.assertions import assert_trees_close, leaves, map_leaves
from ifa.testing.holding import assert_same, copied, hold

MapMetric = Callable[[Tensor, Tensor], Any]
Bounds = Callable[[Tensor], tuple[float, float]]


def a_map_metric_stays_in_its_bounds(
    metric: MapMetric,
    *,
    bounds: Bounds = lambda map: (0.0, 1.0),
    examples: int | None = None,
) -> None:
    """A positive map that varies has a value, within the bounds."""

    @given(_cases(generic=True))
    def law(case: tuple[Tensor, Tensor]) -> None:
        map, labels = case
        positive = map - map.min() + 0.5
        low, high = bounds(positive)
        for value in leaves(metric(positive, labels)):
            inside = (value >= low - 1e-9) & (value <= high + 1e-9)
            assert inside.all(), f"expected values in {low} to {high}, got {value}"

    hold(law, examples)


def a_map_metric_does_not_depend_on_the_unit(
    metric: MapMetric, *, degree: float = 0, examples: int | None = None
) -> None:
    """A map in another unit has the same value, or one in that unit: of degree one."""

    @given(_cases(), st.sampled_from([2.0**-20, 0.5, 8.0, 2.0**20]))
    def law(case: tuple[Tensor, Tensor], unit: float) -> None:
        map, labels = case
        expected = map_leaves(lambda value: unit**degree * value, metric(map, labels))
        assert_trees_close(metric(unit * map, labels), expected)

    hold(law, examples)


def permuting_positions_changes_nothing(metric: MapMetric, *, examples: int | None = None) -> None:
    """Where a position lies does not matter, only its value and label."""

    @given(_cases(), st.integers(0, 2**31 - 1))
    def law(case: tuple[Tensor, Tensor], seed: int) -> None:
        map, labels = case
        order = torch.randperm(map.numel(), generator=torch.Generator().manual_seed(seed))
        moved = (part.flatten()[order].reshape(part.shape) for part in case)
        assert_trees_close(metric(*moved), metric(map, labels))

    hold(law, examples)


def a_map_metric_over_a_batch_equals_a_loop(
    metric: MapMetric, *, examples: int | None = None
) -> None:
    """`vmap` gives each map the value it has alone, next to maps that have none."""

    @given(_cases(), st.integers(0, 2))
    def law(case: tuple[Tensor, Tensor], blank: int) -> None:
        map, labels = case
        maps = torch.stack([map, map.flip(0), -2 * map])
        maps[blank] = (0.0, 1.0, torch.nan)[blank]
        several = torch.stack([labels, labels, labels.flip(0)])
        alone = [metric(*one) for one in zip(maps, several, strict=True)]
        together = vmap(metric)(maps, several)
        for index, one in enumerate(alone):
            taken = map_leaves(lambda value, index=index: value[index], together)
            assert_trees_close(taken, one)

    hold(law, examples)


def a_map_that_shows_nothing_has_no_value(
    metric: MapMetric, *, examples: int | None = None
) -> None:
    """A map that is zero, or with a position that is not finite, has the value NaN."""

    @given(_cases(), st.sampled_from([math.nan, math.inf, -math.inf]), st.integers(0, 10**6))
    def law(case: tuple[Tensor, Tensor], broken: float, place: int) -> None:
        map, labels = case
        spoilt = map.clone().flatten()
        spoilt[place % len(spoilt)] = broken
        for silent in (torch.zeros_like(map), spoilt.reshape(map.shape)):
            for value in leaves(metric(silent, labels)):
                assert value.isnan().all(), f"expected NaN for {silent}, got {value}"

    hold(law, examples)


def a_map_metric_leaves_its_arguments(metric: MapMetric, *, examples: int | None = None) -> None:
    """Neither the map nor its labels are changed."""

    @given(_cases())
    def law(case: tuple[Tensor, Tensor]) -> None:
        before = copied(case)
        metric(*case)
        assert_same(case, before)

    hold(law, examples)


MAP_METRIC = (
    a_map_metric_stays_in_its_bounds,
    a_map_metric_does_not_depend_on_the_unit,
    permuting_positions_changes_nothing,
    a_map_metric_over_a_batch_equals_a_loop,
    a_map_that_shows_nothing_has_no_value,
    a_map_metric_leaves_its_arguments,
)


@st.composite
def _cases(draw: Any, *, generic: bool = False) -> tuple[Tensor, Tensor]:
    """Draw a map of at least two positions, and labels among which are 0 and 1."""
    features = strategies.features(generic=generic)
    several = features.filter(lambda one: one.activations[0].numel() > 1)
    map = draw(several).activations[0]
    seed = draw(st.integers(0, 2**31 - 1), label="labels")
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (map.numel(),), generator=generator)
    labels[torch.randperm(len(labels), generator=generator)[:2]] = torch.tensor([0, 1])
    return map, labels.reshape(map.shape)
