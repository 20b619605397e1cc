"""Laws of attributions, as what makes one of a model: (model, options) -> attribution.

And of transforms: attribution -> attribution.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ifa.attribute import gradient
from ifa.chains import chain
from ifa.testing.assertions import (
    assert_leaves_model_untouched,
    assert_trees_close,
    leaves,
    map_leaves,
)
from ifa.testing.holding import assert_same, copied, hold
from ifa.testing.models import Net
from ifa.testing.models import inputs as inputs_of

# (model, chunk=...) -> (inputs, target) -> attribution; or a transform's record of them
Build = Callable[..., Callable[..., Any]]
Transform = Callable[[Any], Callable[..., Any]]


def an_attribution_treats_each_sample_alone(
    build: Build, model: Net, *, examples: int | None = None
) -> None:
    """In float64, the attribution of a batch in any order is the stack of those of singles."""
    precise = copy.deepcopy(model).double()
    attribution = build(precise)

    @given(_SEEDS, st.integers(2, 3), st.data())
    def law(seed: int, samples: int, data: st.DataObject) -> None:
        inputs, target = _case(precise, seed, samples)
        order = data.draw(st.permutations(range(samples)), label="order")
        singles = [leaves(attribution(inputs[n : n + 1], target[n : n + 1])) for n in order]
        whole = leaves(attribution(inputs[order], target[order]))
        for value, *each in zip(whole, *singles, strict=True):
            assert_trees_close(value, torch.cat(each), rtol=1e-7, atol=1e-10)

    hold(law, examples)


def an_attribution_is_shaped_like_the_inputs(
    build: Build, model: Net, *, examples: int | None = None
) -> None:
    """So it is, and finite; the prediction is what is explained where no target is given."""
    attribution = build(model)

    @given(_SEEDS, st.integers(1, 3))
    def law(seed: int, samples: int) -> None:
        inputs, _ = _case(model, seed, samples)
        found = attribution(inputs)
        assert found.shape == inputs.shape, f"expected {inputs.shape}, got {found.shape}"
        assert found.dtype == inputs.dtype, f"expected {inputs.dtype}, got {found.dtype}"
        assert found.isfinite().all(), "expected finite numbers"
        with torch.no_grad():
            predicted = model(inputs).argmax(1)
        assert_same(attribution(inputs, predicted), found)

    hold(law, examples)


def an_attribution_of_many_targets_is_that_of_each(
    build: Build, model: Net, *, examples: int | None = None
) -> None:
    """In float64, attributions for targets (target, sample) are those of each row alone."""
    precise = copy.deepcopy(model).double()
    attribution = build(precise)

    @given(_SEEDS, st.integers(1, 3))
    def law(seed: int, samples: int) -> None:
        inputs, target = _case(precise, seed, samples)
        targets = torch.stack([target, 3 - target])
        each = [leaves(attribution(inputs, row)) for row in targets]
        for value, *rows in zip(leaves(attribution(inputs, targets)), *each, strict=True):
            assert_trees_close(value, torch.stack(rows), rtol=1e-7, atol=1e-10)

    hold(law, examples)


def an_attribution_takes_a_tuple_as_it_takes_a_tensor(
    build: Build, model: Net, *, examples: int | None = None
) -> None:
    """And gives a tuple of one, of the same bits."""
    attribution = build(model)

    @given(_SEEDS, st.integers(1, 3))
    def law(seed: int, samples: int) -> None:
        inputs, target = _case(model, seed, samples)
        assert_same(leaves(attribution((inputs,), target)), leaves(attribution(inputs, target)))
        assert_same(leaves(attribution((inputs,))), leaves(attribution(inputs)))

    hold(law, examples)


def an_attribution_leaves_model_and_inputs(
    build: Build, model: Net, *, examples: int | None = None
) -> None:
    """Model, inputs and random state stay as they were; made again it gives the same numbers."""

    @given(_SEEDS, st.integers(1, 3))
    def law(seed: int, samples: int) -> None:
        case = _case(model, seed, samples)
        before = copied(case)
        with assert_leaves_model_untouched(model):
            first = map_leaves(torch.clone, build(model)(*case))
            assert_same(case, before)
            assert_same(build(model)(*case), first)

    hold(law, examples)


def an_attribution_does_not_depend_on_its_chunk(
    build: Build, model: Net, *, examples: int | None = None
) -> None:
    """In float64, however many inputs run at once, the attribution is the same."""
    precise = copy.deepcopy(model).double()

    @given(_SEEDS, st.integers(1, 3), st.integers(1, 7))
    def law(seed: int, samples: int, chunk: int) -> None:
        case = _case(precise, seed, samples)
        at_once = build(precise, chunk=1000)(*case)
        assert_trees_close(build(precise, chunk=chunk)(*case), at_once, rtol=1e-7, atol=1e-10)

    hold(law, examples)


def an_attribution_is_complete(
    build: Build, model: Net, *, tolerance: float = 1e-6, examples: int | None = None
) -> None:
    """In float64 it sums to what it explains, within a part of the values' size; and says so."""
    precise = copy.deepcopy(model).double()
    attribution: Any = build(precise)

    @given(_SEEDS, st.integers(1, 3))
    def law(seed: int, samples: int) -> None:
        inputs, target = _case(precise, seed, samples)
        values, total, gap = attribution.observe(inputs, target)
        assert_same(values, attribution(inputs, target))
        sums = values.flatten(1).sum(1)
        assert_trees_close(sums - total, gap, rtol=1e-6, atol=1e-9)
        size = values.flatten(1).abs().sum(1) + total.abs()
        assert (gap.abs() <= tolerance * size).all(), f"expected {total}, got {sums}"

    hold(law, examples)


def a_linear_network_has_a_closed_form(
    build: Build, closed_form: Callable[[Tensor, Tensor], Tensor], *, examples: int | None = None
) -> None:
    r"""In float64, of a network that is W x the attribution is what the closed form says.

    It takes the row of W, (\*input), and the inputs (sample, \*input), and returns their
    attribution.
    """

    @given(_SEEDS, st.sampled_from([(7,), (2, 5), (2, 4, 3), (1, 3, 2, 4)]))
    def law(seed: int, shape: tuple[int, ...]) -> None:
        generator = torch.Generator().manual_seed(seed)
        inputs = torch.randn(3, *shape, generator=generator, dtype=torch.float64)
        linear = nn.Linear(inputs[0].numel(), 2, bias=False).double()
        with torch.no_grad():
            linear.weight.copy_(torch.randn(linear.weight.shape, generator=generator))
        row = linear.weight[1].detach().reshape(shape)
        found = build(nn.Sequential(nn.Flatten(), linear))(inputs, 1)
        expected = closed_form(row, inputs).expand_as(inputs)
        assert_trees_close(found, expected, rtol=1e-7, atol=1e-9)

    with torch.random.fork_rng(devices=[]):  # a layer draws its first weights
        hold(law, examples)


def a_transform_without_noise_is_its_limit(
    transform: Transform,
    model: Net,
    *,
    limit: Callable[[Tensor], Tensor] = lambda base: base,
    examples: int | None = None,
) -> None:
    """Where no noise is added, what averages over it is a function of the attribution, exactly."""
    base = gradient(model)

    @given(_SEEDS, st.integers(1, 3))
    def law(seed: int, samples: int) -> None:
        case = _case(model, seed, samples)
        assert_same(transform(base)(*case), limit(base(*case)))

    hold(law, examples)


def transforms_commute(
    one: Transform, other: Transform, model: Net, *, examples: int | None = None
) -> None:
    """In float64, applying two transforms in either order gives the same."""
    precise = copy.deepcopy(model).double()
    base = gradient(precise)

    @given(_SEEDS, st.integers(1, 3))
    def law(seed: int, samples: int) -> None:
        case = _case(precise, seed, samples)
        assert_trees_close(one(other(base))(*case), other(one(base))(*case), rtol=1e-7, atol=1e-12)

    hold(law, examples)


def chaining_transforms_is_applying_them(
    transforms: tuple[Transform, ...], model: Net, *, examples: int | None = None
) -> None:
    """However a chain of transforms is bracketed, it is one applied to what the others made."""

    @given(_SEEDS, st.integers(0, len(transforms)))
    def law(seed: int, cut: int) -> None:
        case = _case(model, seed, 2)
        expected: Any = gradient(model)
        for transform in transforms:
            expected = transform(expected)
        bracketed: Any = chain(chain(*transforms[:cut]), chain(*transforms[cut:]))
        assert_same(bracketed(gradient(model))(*case), expected(*case))

    hold(law, examples)


ATTRIBUTION = (
    an_attribution_treats_each_sample_alone,
    an_attribution_is_shaped_like_the_inputs,
    an_attribution_of_many_targets_is_that_of_each,
    an_attribution_leaves_model_and_inputs,
    an_attribution_takes_a_tuple_as_it_takes_a_tensor,
)

_SEEDS = st.integers(0, 2**31 - 1)


def _case(model: Net, seed: int, samples: int) -> tuple[Tensor, Tensor]:
    """Make inputs, and targets among four."""
    generator = torch.Generator().manual_seed(seed + 1)
    inputs = inputs_of(model, samples, seed=seed)
    return inputs, torch.randint(0, 4, (samples,), generator=generator)
