"""Laws of metrics that run the network: (model, inputs, maps, target, chunk=) -> values."""

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ifa.testing.assertions import (
    assert_leaves_model_untouched,
    assert_trees_close,
    leaves,
    map_leaves,
)
from ifa.testing.holding import assert_same, copied, hold
from ifa.testing.models import Net
from ifa.testing.models import inputs as inputs_of

# (model, inputs, maps (sample, ...) or (target, sample, ...), target, chunk=) -> tensors that
# begin with the axes of the target; NaN throughout for a map that says nothing
Metric = Callable[..., Any]


def a_metric_treats_each_sample_alone(
    metric: Metric, model: Net, *, examples: int | None = None
) -> None:
    """In float64, cutting the batch anywhere or taking it in another order changes nothing."""
    precise = copy.deepcopy(model).double()

    @given(*_draws(), st.data())
    def law(seed: int, samples: int, grouped: bool, data: st.DataObject) -> None:
        inputs, maps, target = _case(precise, seed, samples, grouped)
        order = data.draw(st.permutations(range(samples)), label="order")
        cut = data.draw(st.integers(1, samples - 1), label="cut")
        whole = metric(precise, inputs, maps, target)
        parts = [
            leaves(metric(precise, inputs[part], maps[part], target[part]))
            for part in (order[:cut], order[cut:])
        ]
        for value, *split in zip(leaves(whole), *parts, strict=True):
            assert_trees_close(torch.cat(split), value[order], rtol=1e-7, atol=1e-10)

    hold(law, examples)


def a_metric_does_not_depend_on_its_portions(
    metric: Metric, model: Net, *, examples: int | None = None
) -> None:
    """In float64, however many inputs run at once, the values are the same."""
    precise = copy.deepcopy(model).double()

    @given(*_draws(), st.integers(1, 7))
    def law(seed: int, samples: int, grouped: bool, chunk: int) -> None:
        case = _case(precise, seed, samples, grouped)
        at_once = metric(precise, *case)
        assert_trees_close(metric(precise, *case, chunk=chunk), at_once, rtol=1e-7, atol=1e-10)

    hold(law, examples)


def a_metric_of_many_targets_is_that_of_each(
    metric: Metric, model: Net, *, examples: int | None = None
) -> None:
    """In float64, values for targets (target, sample) are those of each row alone."""
    precise = copy.deepcopy(model).double()

    @given(*_draws())
    def law(seed: int, samples: int, grouped: bool) -> None:
        inputs, maps, target = _case(precise, seed, samples, grouped)
        several, targets = torch.stack([maps, -maps.flip(-1)]), torch.stack([target, 3 - target])
        both = metric(precise, inputs, several, targets)
        each = [leaves(metric(precise, inputs, *one)) for one in zip(several, targets, strict=True)]
        for value, *rows in zip(leaves(both), *each, strict=True):
            assert_trees_close(value, torch.stack(rows), rtol=1e-7, atol=1e-10)

    hold(law, examples)


def a_silent_map_has_no_value(metric: Metric, model: Net, *, examples: int | None = None) -> None:
    """Of a map that is constant or not finite all values are NaN, and those of others as before."""
    broken = st.sampled_from([None, math.nan, math.inf, -math.inf])

    @given(*_draws(), broken, st.integers(0, 10**6))
    def law(seed: int, samples: int, grouped: bool, value: float | None, place: int) -> None:
        inputs, maps, target = _case(model, seed, samples, grouped)
        before = metric(model, inputs, maps, target)
        spoilt, which = maps.clone(), place % samples
        if value is None:
            spoilt[which] = 0.5
        else:
            spoilt[which].view(-1)[place % maps[0].numel()] = value
        after = metric(model, inputs, spoilt, target)
        others = torch.arange(samples) != which
        for values, wanted in zip(leaves(after), leaves(before), strict=True):
            assert values[which].isnan().all(), f"expected NaN for {value}, got {values[which]}"
            assert_trees_close(values[others], wanted[others])

    hold(law, examples)


def a_metric_leaves_model_and_arguments(
    metric: Metric, model: Net, *, examples: int | None = None
) -> None:
    """The model, what it is given and the random state stay as they were; twice is the same."""

    @given(*_draws())
    def law(seed: int, samples: int, grouped: bool) -> None:
        case = _case(model, seed, samples, grouped)
        before = copied(case)
        with assert_leaves_model_untouched(model):
            first = map_leaves(torch.clone, metric(model, *case))
            assert_same(case, before)
            assert_same(metric(model, *case), first)

    hold(law, examples)


def a_metric_takes_a_tuple_as_it_takes_a_tensor(
    metric: Metric, model: Net, *, examples: int | None = None
) -> None:
    """Of a tuple of one tensor, and of its map, or a tuple of that, the values are the same."""

    @given(*_draws())
    def law(seed: int, samples: int, grouped: bool) -> None:
        inputs, maps, target = _case(model, seed, samples, grouped)
        expected = metric(model, inputs, maps, target)
        assert_same(metric(model, (inputs,), maps, target), expected)
        assert_same(metric(model, (inputs,), (maps,), target), expected)

    hold(law, examples)


METRIC = (
    a_metric_treats_each_sample_alone,
    a_metric_does_not_depend_on_its_portions,
    a_metric_of_many_targets_is_that_of_each,
    a_silent_map_has_no_value,
    a_metric_leaves_model_and_arguments,
    a_metric_takes_a_tuple_as_it_takes_a_tensor,
)


def _draws() -> tuple[st.SearchStrategy[Any], ...]:
    """Draw a seed, how many samples, and whether each channel has a map of its own."""
    return st.integers(0, 2**31 - 1), st.integers(2, 4), st.booleans()


def _case(model: Net, seed: int, samples: int, grouped: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Make inputs, maps for all channels or each, and targets among four."""
    inputs = inputs_of(model, samples, seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    shape = inputs.shape if grouped else (samples, *inputs.shape[2:])
    maps = torch.randn(*shape, generator=generator).to(inputs)
    return inputs, maps, torch.randint(0, 4, (samples,), generator=generator)
