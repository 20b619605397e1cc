"""Laws: what every weighting, reduction, chain, scale, selection, tap and store must satisfy.

A law is a function of the thing under test. It draws its own inputs, and raises an
`AssertionError` with the smallest counterexample if it does not hold. `examples` says how many are
drawn; by default as many as the hypothesis profile in force says. The tuples `WEIGHTING`,
`REDUCTION`, `CHAIN`, `STEP`, `RESCALE`, `SELECT`, `TAP` and `STORE` hold the laws of one kind of
thing, which take the same positional arguments, so that a test is one line::

    @pytest.mark.parametrize("law", ifa.testing.laws.WEIGHTING)
    def test_my_weighting(law):
        law(my_weighting)
"""

import copy
import pickle
import tempfile
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from torch import Tensor, nn
from torch.func import vmap

import ifa
from ifa.reduce import fold
from ifa.scaling import Scale
from ifa.taps.outputs import first_tensor, pick, replace_first_tensor
from ifa.testing import strategies
from ifa.testing.assertions import (
    assert_leaves_model_untouched,
    assert_trees_close,
    leaves,
    map_leaves,
    rebuilt,
)
from ifa.types import Features, Map, Reduction

Kernel = Callable[[Tensor, Tensor], Tensor]
Step = Callable[[Any], Any]
Select = Callable[..., Tensor]
Drawn = SearchStrategy[Any] | None


# ------------------------------------------------------------------------------------------------
# Weightings: (activations, gradients) -> weights. `features` draws others than the usual examples.
# ------------------------------------------------------------------------------------------------


def permuting_channels_permutes_weights(
    kernel: Kernel, *, features: Drawn = None, examples: int | None = None
) -> None:
    """No channel is special: in another order they get the same weights in that order."""

    @given(_either(features, strategies.features()), st.data())
    def law(example: Features, data: st.DataObject) -> None:
        activations, gradients, _ = example
        order = data.draw(st.permutations(range(len(activations))), label="order")
        permuted = kernel(activations[order], gradients[order])
        assert_trees_close(permuted, kernel(activations, gradients)[order])

    _hold(law, examples)


def flipping_space_flips_spatial_weights(
    kernel: Kernel, *, features: Drawn = None, examples: int | None = None
) -> None:
    """A mirrored example has mirrored spatial weights, and the same channel weights."""

    @given(_either(features, strategies.features()), st.data())
    def law(example: Features, data: st.DataObject) -> None:
        activations, gradients, _ = example
        axis = data.draw(st.integers(1, activations.ndim - 1), label="axis")
        weights = kernel(activations, gradients)
        flipped = kernel(activations.flip(axis), gradients.flip(axis))
        assert_trees_close(flipped, weights if weights.ndim == 1 else weights.flip(axis))

    _hold(law, examples)


def doubling_gradients_doubles_weights(
    kernel: Kernel, *, degree: float = 1, features: Drawn = None, examples: int | None = None
) -> None:
    """Weights are homogeneous in the gradients, of the degree that the method declares."""

    @given(_either(features, strategies.features()))
    def law(example: Features) -> None:
        activations, gradients, _ = example
        doubled = kernel(activations, 2 * gradients)
        assert_trees_close(doubled, 2**degree * kernel(activations, gradients))

    _hold(law, examples)


def zero_gradients_give_zero_weights(
    kernel: Kernel, *, features: Drawn = None, examples: int | None = None
) -> None:
    """What the score does not depend on has no weight."""

    @given(_either(features, strategies.features()))
    def law(example: Features) -> None:
        weights = kernel(example.activations, torch.zeros_like(example.gradients))
        assert_trees_close(weights, torch.zeros_like(weights))

    _hold(law, examples)


def weighting_a_batch_equals_a_loop(
    kernel: Kernel, *, features: Drawn = None, examples: int | None = None
) -> None:
    """Lifted by `vmap`, a kernel does what it does to one example after the other.

    `features`, if given, draws examples with a leading sample axis.
    """

    @given(_either(features, strategies.features(samples=True)))
    def law(batch: Features) -> None:
        activations, gradients, _ = batch
        looped = [kernel(*pair) for pair in zip(activations, gradients, strict=True)]
        assert_trees_close(vmap(kernel)(activations, gradients), torch.stack(looped))

    _hold(law, examples)


def weighting_leaves_its_inputs(
    kernel: Kernel, *, features: Drawn = None, examples: int | None = None
) -> None:
    """Activations and gradients are not written to, alone or under `vmap`, which would allow it."""

    @given(_either(features, strategies.features()))
    def law(example: Features) -> None:
        given_now = example.activations, example.gradients
        before = _copied(given_now)
        kernel(*given_now)
        vmap(kernel)(*(tensor[None] for tensor in given_now))
        _assert_same(given_now, before)

    _hold(law, examples)


def weights_are_always_finite(
    kernel: Kernel, *, features: Drawn = None, examples: int | None = None
) -> None:
    """Constant and all-zero activations or gradients have finite weights of the right shape."""

    @given(
        _either(features, strategies.features()),
        st.sampled_from([None, 0.0, 1.0, -3.0]),
        st.sampled_from([None, 0.0, 1.0, -3.0]),
    )
    def law(example: Features, activation: float | None, gradient: float | None) -> None:
        filled = [
            tensor if value is None else torch.full_like(tensor, value)
            for tensor, value in zip(example[:2], (activation, gradient), strict=True)
        ]
        weights = kernel(*filled)
        allowed = example.activations.shape, example.activations.shape[:1]
        assert weights.shape in allowed, f"expected a shape of {allowed}, got {weights.shape}"
        assert weights.isfinite().all(), f"expected finite weights, got {weights}"

    _hold(law, examples)


WEIGHTING = (
    permuting_channels_permutes_weights,
    flipping_space_flips_spatial_weights,
    doubling_gradients_doubles_weights,
    zero_gradients_give_zero_weights,
    weighting_a_batch_equals_a_loop,
    weighting_leaves_its_inputs,
    weights_are_always_finite,
)


# ------------------------------------------------------------------------------------------------
# Reductions. `batches` draws a batch: a tensor, or a record of tensors with a sample axis first.
# ------------------------------------------------------------------------------------------------


def an_empty_state_is_the_identity(
    reduction: Reduction, *, batches: Drawn = None, examples: int | None = None
) -> None:
    """Merging with the state of no sample, on either side, changes nothing."""

    @given(_either(batches, strategies.batches()))
    def law(batch: Any) -> None:
        empty, state = reduction.init(batch), fold(reduction, [batch])
        assert_trees_close(reduction.merge(empty, state), state)
        assert_trees_close(reduction.merge(state, empty), state)
        nothing = fold(reduction, [_cut(batch, 0, 0)], like=batch)
        assert_trees_close(reduction.finalize(nothing), reduction.finalize(empty))

    _hold(law, examples)


def splits_do_not_matter(
    reduction: Reduction, *, batches: Drawn = None, examples: int | None = None
) -> None:
    """Cutting the data anywhere, and updating or merging, gives the statistic of the whole."""

    @given(_either(batches, strategies.batches()), st.data())
    def law(batch: Any, data: st.DataObject) -> None:
        cut = data.draw(st.integers(0, _count(batch)), label="cut")
        parts = _cut(batch, 0, cut), _cut(batch, cut, None)
        whole = reduction.finalize(fold(reduction, [batch]))
        streamed = fold(reduction, parts, like=batch)
        merged = reduction.merge(*(fold(reduction, [part], like=batch) for part in parts))
        assert_trees_close(reduction.finalize(streamed), whole)
        assert_trees_close(reduction.finalize(merged), whole)

    _hold(law, examples)


def order_does_not_matter(
    reduction: Reduction, *, batches: Drawn = None, examples: int | None = None
) -> None:
    """Samples in another order have the same statistic."""

    @given(_either(batches, strategies.batches()), st.data())
    def law(batch: Any, data: st.DataObject) -> None:
        order = data.draw(st.permutations(range(_count(batch))), label="order")
        shuffled = map_leaves(lambda leaf: leaf[order], batch)
        states = (fold(reduction, [values]) for values in (shuffled, batch))
        assert_trees_close(*map(reduction.finalize, states))

    _hold(law, examples)


def merging_is_associative(
    reduction: Reduction, *, batches: Drawn = None, examples: int | None = None
) -> None:
    """Three parts give the same statistic, whichever two of them are merged first."""

    @given(_either(batches, strategies.batches()), st.data())
    def law(batch: Any, data: st.DataObject) -> None:
        cuts = sorted(data.draw(st.integers(0, _count(batch)), label="cut") for _ in range(2))
        parts = zip((0, *cuts), (*cuts, None), strict=True)
        a, b, c = (fold(reduction, [_cut(batch, *part)], like=batch) for part in parts)
        merge = reduction.merge
        left, right = merge(merge(a, b), c), merge(a, merge(b, c))
        assert_trees_close(left, right)
        assert_trees_close(*map(reduction.finalize, (left, right)))

    _hold(law, examples)


def a_state_survives_the_store(
    reduction: Reduction, *, batches: Drawn = None, examples: int | None = None
) -> None:
    """A state that was saved and loaded merges and finalizes to the same bits."""

    @given(_either(batches, strategies.batches()), st.data())
    def law(batch: Any, data: st.DataObject) -> None:
        cut = data.draw(st.integers(0, _count(batch)), label="cut")
        parts = _cut(batch, 0, cut), _cut(batch, cut, None)
        first, second = (fold(reduction, [part], like=batch) for part in parts)
        restored = _saved_and_loaded(first)
        _assert_same(restored, first)
        finalized = (reduction.finalize(reduction.merge(s, second)) for s in (restored, first))
        _assert_same(*finalized)

    _hold(law, examples)


def a_reduction_leaves_its_arguments(
    reduction: Reduction, *, batches: Drawn = None, examples: int | None = None
) -> None:
    """Neither states nor batches are written to: a state can be used twice."""

    @given(_either(batches, strategies.batches()))
    def law(batch: Any) -> None:
        state = fold(reduction, [batch])
        before = _copied((state, batch))
        reduction.update(state, batch)
        reduction.merge(state, state)
        reduction.finalize(state)
        _assert_same((state, batch), before)

    _hold(law, examples)


REDUCTION = (
    an_empty_state_is_the_identity,
    splits_do_not_matter,
    order_does_not_matter,
    merging_is_associative,
    a_state_survives_the_store,
    a_reduction_leaves_its_arguments,
)


def a_statistic_equals_its_definition(
    reduction: Reduction,
    definition: Callable[[np.ndarray], Any],
    *,
    read: Callable[[Any], Any] = tuple,
    examples: int | None = None,
) -> None:
    r"""What `read` takes from the statistic is what numpy says of all the data at once.

    Parameters
    ----------
    reduction
        Of plain batches (sample, \*feature), here streamed in three parts.
    definition
        float64 array (sample, \*feature) -> what is expected.
    read
        Statistic -> what is compared, a tensor or a tuple of tensors.
    examples
        How many are drawn.
    """

    @given(strategies.batches(samples=(2, 12)))
    def law(batch: Tensor) -> None:
        statistic = reduction.finalize(fold(reduction, batch.split(1 + len(batch) // 3)))
        expected = definition(batch.double().numpy())
        wanted = map_leaves(lambda leaf: torch.as_tensor(np.asarray(leaf)), expected)
        assert_trees_close(read(statistic), wanted)

    _hold(law, examples)


def a_variance_survives_far_from_zero(
    reduction: Reduction,
    *,
    read: Callable[[Any], Tensor] = lambda statistic: statistic.variance,
    examples: int | None = None,
) -> None:
    """The unbiased variance of float32 values near 1e4 or −1e6 is not lost to cancellation."""

    @given(strategies.batches(samples=(3, 12), offsets=(1e4, -1e6)))
    def law(batch: Tensor) -> None:
        variance = read(reduction.finalize(fold(reduction, batch.split(2))))
        expected = torch.as_tensor(np.asarray(batch.double().numpy().var(0, ddof=1)))
        assert_trees_close(variance.double(), expected, rtol=1e-6, atol=1e-6)

    _hold(law, examples)


# ------------------------------------------------------------------------------------------------
# Chains: laws of `chain` itself, with steps from maps to maps that do not commute.
# ------------------------------------------------------------------------------------------------


def _steps() -> SearchStrategy[list[Step]]:
    scale = Scale(torch.tensor(-1.0), torch.tensor(2.0))
    pool = [ifa.relu, ifa.minmax, ifa.clip(-0.5, 3.0), ifa.rescale(scale), ifa.unscale(scale)]
    return st.lists(st.sampled_from(pool), max_size=4)


def an_empty_chain_is_the_identity(chain: Any, *, examples: int | None = None) -> None:
    """`chain()` returns what it is given, and changes nothing inside another chain."""

    @given(_steps(), strategies.maps())
    def law(steps: list[Step], value: Map) -> None:
        _assert_same(chain()(value), value)
        for padded in (chain(chain(), *steps), chain(*steps, chain())):
            _assert_same(padded(value), chain(*steps)(value))

    _hold(law, examples)


def chaining_is_associative(chain: Any, *, examples: int | None = None) -> None:
    """Chains inside chains do what the flat chain does, from left to right."""

    @given(_steps(), _steps(), _steps(), strategies.maps())
    def law(a: list[Step], b: list[Step], c: list[Step], value: Map) -> None:
        expected = value
        for step in (*a, *b, *c):
            expected = step(expected)
        for nested in (
            chain(*a, *b, *c),
            chain(chain(chain(*a), chain(*b)), chain(*c)),
            chain(chain(*a), chain(chain(*b), chain(*c))),
        ):
            _assert_same(nested(value), expected)

    _hold(law, examples)


def a_chain_of_one_is_its_step(chain: Any, *, examples: int | None = None) -> None:
    """`chain(f)(x)` is `f(x)`."""

    @given(_steps(), strategies.maps())
    def law(steps: list[Step], value: Map) -> None:
        for step in steps:
            _assert_same(chain(step)(value), step(value))

    _hold(law, examples)


def a_chain_pickles(chain: Any, *, examples: int | None = None) -> None:
    """A chain goes to another process and does the same there."""

    @given(_steps(), strategies.maps())
    def law(steps: list[Step], value: Map) -> None:
        made = chain(*steps)
        try:
            copied = pickle.loads(pickle.dumps(made))
        except Exception as error:
            raise AssertionError(f"expected a chain that pickles, got {error!r}") from error
        _assert_same(copied(value), made(value))

    _hold(law, examples)


CHAIN = (
    an_empty_chain_is_the_identity,
    chaining_is_associative,
    a_chain_of_one_is_its_step,
    a_chain_pickles,
)


# ------------------------------------------------------------------------------------------------
# Steps from maps to maps
# ------------------------------------------------------------------------------------------------


def a_step_over_a_batch_equals_a_loop(
    step: Step, *, maps: Drawn = None, examples: int | None = None
) -> None:
    """`ifa.batched(step)` does what the step does to one map after the other.

    `maps`, if given, draws maps with a leading sample axis.
    """

    @given(_either(maps, strategies.maps(samples=True)))
    def law(batch: Map) -> None:
        looped = [step(Map(*one)) for one in zip(*batch, strict=True)]
        expected = Map(*(torch.stack(field) for field in zip(*looped, strict=True)))
        assert_trees_close(ifa.batched(step)(batch), expected)

    _hold(law, examples)


def a_step_leaves_its_input(step: Step, *, maps: Drawn = None, examples: int | None = None) -> None:
    """A map is not written to, and keeps its target."""

    @given(_either(maps, strategies.maps()))
    def law(value: Map) -> None:
        before = _copied(value)
        result = step(value)
        _assert_same(value, before)
        _assert_same(result.target, before.target)

    _hold(law, examples)


STEP = (a_step_over_a_batch_equals_a_loop, a_step_leaves_its_input)


# ------------------------------------------------------------------------------------------------
# Rescaling: `rescale` and its inverse `unscale` take a scale and make a step. `limits` says where
# `rescale` puts the scale's low and high.
# ------------------------------------------------------------------------------------------------

Rescaling = Callable[[Scale], Step]
_AFFINE = (0.0, 1.0)


def low_and_high_go_to_the_limits(
    rescale: Rescaling,
    unscale: Rescaling,
    *,
    limits: tuple[float, float] = _AFFINE,
    examples: int | None = None,
) -> None:
    """The scale's low and high land where the method says, and come back."""

    @given(strategies.scales())
    def law(scale: Scale) -> None:
        ends = torch.tensor(limits, dtype=torch.float64)
        assert_trees_close(rescale(scale)(_map(torch.stack(scale))).values, ends)
        assert_trees_close(unscale(scale)(_map(ends)).values, torch.stack(scale))

    _hold(law, examples)


def a_limit_of_zero_is_honoured(
    rescale: Rescaling,
    unscale: Rescaling,
    *,
    limits: tuple[float, float] = _AFFINE,
    examples: int | None = None,
) -> None:
    """A limit of exactly 0.0 is a limit, and not a missing one."""

    @given(st.floats(0.125, 64.0, width=32), st.booleans(), strategies.maps())
    def law(width: float, is_low: bool, value: Map) -> None:
        pair = (0.0, width) if is_low else (-width, 0.0)
        scale = Scale(*(torch.tensor(limit, dtype=torch.float64) for limit in pair))
        # among other values, from which a wrong limit would be taken
        around = torch.cat([torch.zeros(1, dtype=torch.float64), value.values.flatten()])
        landed = rescale(scale)(_map(around)).values[0]
        expected = torch.tensor(limits[0 if is_low else 1], dtype=torch.float64)
        assert_trees_close(landed, expected)
        assert_trees_close(unscale(scale)(_map(landed[None])).values, torch.zeros_like(around[:1]))

    _hold(law, examples)


def rescaling_keeps_the_order(
    rescale: Rescaling,
    unscale: Rescaling,
    *,
    limits: tuple[float, float] = _AFFINE,
    examples: int | None = None,
) -> None:
    """A larger value stays the larger one, strictly within the scale; both ways."""
    del limits

    @given(strategies.scales(), strategies.maps())
    def law(scale: Scale, value: Map) -> None:
        ordered = value.values.flatten().sort().values
        within = scale.low + torch.linspace(0, 1, 7, dtype=torch.float64) * (scale.high - scale.low)
        inside = rescale(scale)(_map(within)).values
        assert (rescale(scale)(_map(ordered)).values.diff() >= 0).all(), "expected order kept"
        assert (inside.diff() > 0).all(), f"expected strict order inside the scale, got {inside}"
        assert (unscale(scale)(_map(inside)).values.diff() > 0).all(), "expected order kept"

    _hold(law, examples)


def unscaling_undoes_rescaling(
    rescale: Rescaling,
    unscale: Rescaling,
    *,
    limits: tuple[float, float] = _AFFINE,
    examples: int | None = None,
) -> None:
    """The inverse is one: also outside of the scale, up to half its width."""
    del limits

    @given(strategies.scales(), strategies.maps())
    def law(scale: Scale, value: Map) -> None:
        part = value.values.clamp(-8, 8) / 8 + 0.5
        values = _map(scale.low + part * (scale.high - scale.low))
        assert_trees_close(unscale(scale)(rescale(scale)(values)).values, values.values)

    _hold(law, examples)


def each_target_has_its_own_scale(
    rescale: Rescaling,
    unscale: Rescaling,
    *,
    limits: tuple[float, float] = _AFFINE,
    examples: int | None = None,
) -> None:
    """With limits (target,), a map is scaled by those of its own target, alone or in a batch."""
    del limits

    @given(strategies.scales(targets=5), strategies.maps(samples=True))
    def law(scale: Scale, batch: Map) -> None:
        for make in (rescale, unscale):
            small = Map(batch.values / 10, batch.target)  # where tanh has an inverse
            alone = [
                make(Scale(scale.low[target], scale.high[target]))(Map(values, target)).values
                for values, target in zip(*small, strict=True)
            ]
            together = ifa.batched(make(scale))(small).values
            assert_trees_close(together, torch.stack(alone))

    _hold(law, examples)


RESCALE = (
    low_and_high_go_to_the_limits,
    a_limit_of_zero_is_honoured,
    rescaling_keeps_the_order,
    unscaling_undoes_rescaling,
    each_target_has_its_own_scale,
)


# ------------------------------------------------------------------------------------------------
# Selections: select(values, ratio=...) -> mask. Bind other options by functools.partial.
# ------------------------------------------------------------------------------------------------

_ratios = st.one_of(st.floats(0.0, 1.0), st.sampled_from([0.0, 0.05, 0.25, 0.3, 0.5, 1.0]))


def exactly_k_channels_are_kept(select: Select, *, examples: int | None = None) -> None:
    """Each row of a boolean mask keeps max(1, round(ratio × channels)), whatever the ties."""

    @given(strategies.importances(), _ratios)
    def law(values: Tensor, ratio: float) -> None:
        mask = select(values, ratio=ratio)
        count = max(1, round(ratio * values.shape[-1]))
        found, expected = (mask.dtype, mask.shape), (torch.bool, values.shape)
        assert found == expected, f"expected a mask {expected}, got {found}"
        assert (mask.sum(-1) == count).all(), f"expected {count} in each row, got {mask}"

    _hold(law, examples)


def the_strongest_are_kept_and_ties_go_to_the_lower_index(
    select: Select,
    *,
    strength: Callable[[Tensor], Tensor] = lambda values: values,
    examples: int | None = None,
) -> None:
    """No dropped channel is stronger than a kept one, or as strong and of lower index.

    `strength` says what the selection ranks by, such as `torch.abs`.
    """

    @given(strategies.importances(), _ratios)
    def law(values: Tensor, ratio: float) -> None:
        masks = torch.atleast_2d(select(values, ratio=ratio))
        for mask, row in zip(masks, torch.atleast_2d(strength(values)), strict=True):
            ranked = sorted(range(len(row)), key=lambda index: (-float(row[index]), index))
            kept = ranked[: int(mask.sum())]
            found = mask.nonzero()[:, 0].tolist()
            assert sorted(kept) == found, f"expected channels {sorted(kept)} kept, got {found}"

    _hold(law, examples)


def a_ratio_of_one_keeps_all(select: Select, *, examples: int | None = None) -> None:
    """Selecting all of the channels is no selection."""

    @given(strategies.importances())
    def law(values: Tensor) -> None:
        assert select(values, ratio=1.0).all(), "expected every channel kept"

    _hold(law, examples)


def selecting_leaves_the_values(select: Select, *, examples: int | None = None) -> None:
    """Importances are not written to; the same call gives the same mask."""

    @given(strategies.importances(), _ratios)
    def law(values: Tensor, ratio: float) -> None:
        before = values.clone()
        mask = select(values, ratio=ratio).clone()
        _assert_same(values, before)
        _assert_same(select(values, ratio=ratio), mask)

    _hold(law, examples)


SELECT = (
    exactly_k_channels_are_kept,
    the_strongest_are_kept_and_ties_go_to_the_lower_index,
    a_ratio_of_one_keeps_all,
    selecting_leaves_the_values,
)


def a_selection_is_the_complement_of(
    select: Select, other: Select, *, examples: int | None = None
) -> None:
    """At the same ratio one selection keeps exactly what the other drops."""

    @given(strategies.importances(), _ratios)
    def law(values: Tensor, ratio: float) -> None:
        _assert_same(select(values, ratio=ratio), ~other(values, ratio=ratio))

    _hold(law, examples)


# ------------------------------------------------------------------------------------------------
# Taps: laws of (model, layer, example). `tap` is what is under test, built as `ifa.tap`; other
# options (score, grid, output) go to it.
# ------------------------------------------------------------------------------------------------


def a_tap_equals_autograd(
    model: nn.Module,
    layer: str,
    example: Tensor,
    *,
    tap: Any = ifa.tap,
    examples: int | None = None,
    **options: Any,
) -> None:
    """Activations and gradients are those of ordinary autograd, to the bit.

    For many targets, whose backward passes are mapped together, gradients are so to rounding.
    """
    tapped = tap(model, layer, example, **options)
    outputs = _outputs(model, example, options)

    @given(*_calls(outputs))
    def law(seed: int, samples: int, draw_target: Callable[[int], Any]) -> None:
        inputs, target = _noise(example, samples, seed), draw_target(samples)
        actual = tapped(inputs, target)
        assert not any(field.requires_grad for field in actual), "expected no graph in the results"
        expected = _by_autograd(model, layer, inputs, target, options)
        if expected.target.ndim == 2:
            rounding = 1e-5 * float(expected.gradients.abs().max())
            assert_trees_close(actual.gradients, expected.gradients, rtol=1e-5, atol=rounding)
            actual = actual._replace(gradients=expected.gradients)
        _assert_same(actual, expected)

    _hold(law, examples)


def a_tap_equals_finite_differences(
    model: nn.Module,
    layer: str,
    example: Tensor,
    *,
    tap: Any = ifa.tap,
    examples: int | None = None,
    **options: Any,
) -> None:
    """In float64, moving the layer's output by a little moves the score as the gradient says."""
    precise, blank = copy.deepcopy(model).double(), example.double()
    tapped = tap(precise, layer, blank, **options)
    grid, step = options.get("grid") or (lambda values: values), 1e-6

    @given(st.integers(0, 2**31 - 1), st.integers(0, _outputs(precise, blank, options) - 1))
    def law(seed: int, index: int) -> None:
        inputs = _noise(blank, 3, seed)
        target = torch.full((3,), index)
        with torch.no_grad():
            caught, _ = _forward(precise, layer, inputs, target, options)
            # what the grid leaves out, such as a class token, must not move
            pull = torch.func.vjp(grid, caught)[1]
            direction = pull(_noise(grid(caught), 3, seed + 1))[0]
            scores = [
                _forward(precise, layer, inputs, target, options, add=part * direction)[1]
                for part in (-step, 0.0, step)
            ]
        left, right = ((b - a) / step for a, b in pairwise(scores))
        predicted = (tapped(inputs, target).gradients * grid(direction)).flatten(1)
        size = predicted.abs().sum(1) + 1e-6
        # where the two sides differ there is a kink between, such as a rectifier's
        assume(bool(((left - right).abs() < 1e-5 * size).all()))
        error = (predicted.sum(1) - (left + right) / 2).abs()
        assert (error < 1e-4 * size).all(), f"expected slopes {left}, got {predicted.sum(1)}"

    _hold(law, examples)


def a_tap_treats_each_sample_alone(
    model: nn.Module,
    layer: str,
    example: Tensor,
    *,
    tap: Any = ifa.tap,
    examples: int | None = None,
    **options: Any,
) -> None:
    """In float64, cutting the batch anywhere or taking it in another order changes nothing."""
    precise, blank = copy.deepcopy(model).double(), example.double()
    tapped = tap(precise, layer, blank, **options)

    @given(st.integers(0, 2**31 - 1), st.integers(2, 5), st.data())
    def law(seed: int, samples: int, data: st.DataObject) -> None:
        inputs = _noise(blank, samples, seed)
        order = data.draw(st.permutations(range(samples)), label="order")
        cut = data.draw(st.integers(1, samples - 1), label="cut")
        whole = tapped(inputs)
        parts = [tapped(inputs[order][:cut]), tapped(inputs[order][cut:])]
        joined = Features(*(torch.cat(fields) for fields in zip(*parts, strict=True)))
        expected = map_leaves(lambda field: field[order], whole)
        assert_trees_close(joined, expected, rtol=1e-9, atol=1e-12)

    _hold(law, examples)


def a_tap_leaves_the_model(
    model: nn.Module,
    layer: str,
    example: Tensor,
    *,
    tap: Any = ifa.tap,
    examples: int | None = None,
    **options: Any,
) -> None:
    """The model, the inputs and the random state stay as they were; also after an exception."""
    original, outputs = model, _outputs(model, example, options)

    @given(*_calls(outputs))
    def law(seed: int, samples: int, draw_target: Callable[[int], Any]) -> None:
        inputs, target = _noise(example, samples, seed), draw_target(samples)
        before = inputs.clone()
        model = copy.deepcopy(original)  # what one call changed must not hide what the next does
        breaking = _Breaking(model)
        with assert_leaves_model_untouched(breaking):
            tap(model, layer, example, **options)(inputs, target)
            # one exception inside the network, and one after it
            broken = tap(breaking, f"model.{layer}", example, **options)
            _assert_interrupted(broken, torch.full_like(inputs, torch.nan), target)
            failing = tap(model, layer, example, **{**options, "score": _interrupt})
            _assert_interrupted(failing, inputs, target)
        _assert_same(inputs, before)
        assert not inputs.requires_grad, "expected inputs without a graph, as they were"

    _hold(law, examples)


TAP = (
    a_tap_equals_autograd,
    a_tap_equals_finite_differences,
    a_tap_treats_each_sample_alone,
    a_tap_leaves_the_model,
)


# ------------------------------------------------------------------------------------------------
# Stores: `make(store, seed)` runs one of many analyses, in a directory or, if None, in memory.
# ------------------------------------------------------------------------------------------------

Make = Callable[[Path | None, int], Any]


def a_store_gives_back_what_was_put_in(
    make: Make, *, open: Any = None, verify: Any = None, examples: int | None = None
) -> None:
    """An opened run is identical to what was returned, and equal to the analysis in memory."""
    del verify
    read = open or ifa.open

    @given(st.integers(0, 99))
    def law(seed: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder, "run")
            returned = make(run, seed).load()
            opened = read(run).load()
        assert opened.identical(returned), f"expected {returned}, got {opened}"
        assert opened.equals(make(None, seed)), "expected the same values as in memory"

    _hold(law, examples)


def repeating_an_analysis_changes_nothing(
    make: Make, *, open: Any = None, verify: Any = None, examples: int | None = None
) -> None:
    """The same call again returns the finished run and does not write a byte."""
    del open, verify

    @given(st.integers(0, 99))
    def law(seed: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder, "run")
            first = make(run, seed).load()
            before = _written(run)
            second = make(run, seed).load()
            assert _written(run) == before, "expected no file written by the second call"
        assert second.identical(first), "expected the same result"

    _hold(law, examples)


def another_analysis_is_refused(
    make: Make, *, open: Any = None, verify: Any = None, examples: int | None = None
) -> None:
    """A store of another specification is an error, and is left as it was."""
    del open, verify

    @given(st.lists(st.integers(0, 99), min_size=2, max_size=2, unique=True))
    def law(seeds: list[int]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder, "run")
            make(run, seeds[0])
            before = _written(run)
            try:
                make(run, seeds[1])
            except ValueError:
                assert _written(run) == before, "expected the refused store left as it was"
            else:
                raise AssertionError("expected a ValueError for a store of another analysis")

    _hold(law, examples)


def verifying_passes_until_a_byte_changes(
    make: Make, *, open: Any = None, verify: Any = None, examples: int | None = None
) -> None:
    """`verify` accepts a finished run, and refuses it with any byte of its content changed."""
    del open
    check = verify or ifa.verify

    @given(st.integers(0, 99), st.data())
    def law(seed: int, data: st.DataObject) -> None:
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder, "run")
            make(run, seed)
            assert check(run) is None, "expected None for a run as it was made"
            names = [
                Path(path).relative_to(run) for path, (_, text) in _written(run).items() if text
            ]
            names.remove(Path("COMMIT.json"))  # which holds the digests
            file = run / data.draw(st.sampled_from(names), label="file")
            content = bytearray(file.read_bytes())
            content[data.draw(st.integers(0, len(content) - 1), label="byte")] ^= 1
            file.write_bytes(content)
            try:
                check(run)
            except ValueError:
                return
            raise AssertionError(f"expected a ValueError after {file.name} was changed")

    _hold(law, examples)


STORE = (
    a_store_gives_back_what_was_put_in,
    repeating_an_analysis_changes_nothing,
    another_analysis_is_refused,
    verifying_passes_until_a_byte_changes,
)


# ------------------------------------------------------------------------------------------------
# What the laws share
# ------------------------------------------------------------------------------------------------


def _hold(law: Any, examples: int | None) -> None:
    # torch's first calls are slow, and one counterexample at a time is enough
    chosen = settings(deadline=None, report_multiple_bugs=False)
    if examples is not None:
        chosen = settings(chosen, max_examples=examples)
    chosen(law)()


def _either(chosen: Drawn, usual: SearchStrategy[Any]) -> SearchStrategy[Any]:
    return usual if chosen is None else chosen


def _assert_same(actual: Any, expected: Any) -> None:
    assert_trees_close(actual, expected, rtol=0, atol=0)


def _copied(tree: Any) -> Any:
    return map_leaves(torch.clone, tree)


def _map(values: Tensor) -> Map:
    return Map(values, torch.tensor(0))


def _count(batch: Any) -> int:
    return len(leaves(batch)[0])


def _cut(batch: Any, start: int, stop: int | None) -> Any:
    return map_leaves(lambda leaf: leaf[start:stop], batch)


def _saved_and_loaded(state: Any) -> Any:
    from ifa.store.states import load_arrays, save_arrays  # which needs xarray and zarr

    parts = leaves(state)
    strange = [type(part).__name__ for part in parts if not isinstance(part, Tensor)]
    assert not strange, f"expected a state of tensors only, got {strange}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "state.npz")
        save_arrays(path, {str(index): part.numpy() for index, part in enumerate(parts)})
        loaded = load_arrays(path)
    return rebuilt(state, [torch.from_numpy(loaded[str(index)]) for index in range(len(parts))])


def _written(run: Path) -> dict[str, tuple[int, bytes]]:
    """Return when each file was written, and what."""
    files = (path for path in sorted(run.rglob("*")) if path.is_file())
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def _noise(like: Tensor, samples: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(samples, *like.shape[1:], generator=generator, dtype=like.dtype)


def _calls(outputs: int) -> tuple[SearchStrategy[Any], ...]:
    """Draw seed, number of samples, and a function from that number to any allowed target."""
    seeds = st.integers(0, 2**31 - 1)

    def each(lead: tuple[int, ...], seed: int) -> Callable[[int], Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return lambda samples: torch.randint(outputs, (*lead, samples), generator=generator)

    target = st.one_of(
        st.builds(lambda: lambda samples: None),
        st.builds(lambda index: lambda samples: index, st.integers(0, outputs - 1)),
        st.builds(each, st.sampled_from([(), (1,), (3,)]), seeds),
    )
    return seeds, st.integers(1, 4), target


def _outputs(model: nn.Module, example: Tensor, options: dict[str, Any]) -> int:
    with torch.no_grad():
        output = pick(copy.deepcopy(model)(example.clone()), options.get("output"))
    return 1 if output.ndim == 1 else output.shape[1]


def _forward(
    model: nn.Module,
    layer: str,
    inputs: Tensor,
    target: Any,
    options: dict[str, Any],
    *,
    add: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the output of one call of a layer, and the scores with `add` added to it.

    The graph, unless gradients are off, starts at that output.
    """
    twin = copy.deepcopy(model).requires_grad_(False)
    name, _, call = layer.partition("#")
    outputs: list[Any] = []
    caught: list[Tensor] = []

    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        outputs.append(output)
        if len(outputs) != int(call or 1):
            return None
        tensor = first_tensor(output)
        assert tensor is not None
        tensor = tensor.detach().requires_grad_(torch.is_grad_enabled())
        caught.append(tensor)
        # a copy goes on, so that what was caught is safe from layers that work in place
        return replace_first_tensor(output, tensor.clone() if add is None else tensor + add)

    twin.get_submodule(name).register_forward_hook(hook)
    output = pick(twin(inputs.clone()), options.get("output"))
    if target is None:
        target = output.argmax(1) if output.ndim == 2 else torch.zeros(len(inputs)).long()
    chosen = torch.as_tensor(target)
    chosen = chosen.expand(len(inputs)) if chosen.ndim == 0 else chosen
    score = options.get("score", ifa.score.logit)
    rows = [
        torch.stack([score(*pair) for pair in zip(output, row, strict=True)])
        for row in torch.atleast_2d(chosen)
    ]
    return caught[0], torch.stack(rows).reshape(chosen.shape)


def _by_autograd(
    model: nn.Module, layer: str, inputs: Tensor, target: Any, options: dict[str, Any]
) -> Features:
    with torch.enable_grad():
        caught, scores = _forward(model, layer, inputs, target, options)
        rows = [
            torch.autograd.grad(
                row.sum() + 0 * caught.sum(),  # also where the score does not depend on it
                caught,
                retain_graph=True,
            )[0]
            for row in torch.atleast_2d(scores)
        ]
    grid = options.get("grid") or (lambda values: values)
    gradients = torch.stack([grid(row) for row in rows])
    if target is None:
        target = _predicted(model, inputs, options)
    chosen = torch.as_tensor(target)
    chosen = chosen.expand(len(inputs)) if chosen.ndim == 0 else chosen
    shape = scores.shape[:-1] + gradients.shape[1:]
    return Features(grid(caught.detach()), gradients.reshape(shape), chosen)


def _predicted(model: nn.Module, inputs: Tensor, options: dict[str, Any]) -> Tensor:
    with torch.no_grad():
        output = pick(copy.deepcopy(model)(inputs.clone()), options.get("output"))
    return output.argmax(1) if output.ndim == 2 else torch.zeros(len(inputs)).long()


class _Interrupted(Exception):
    pass


def _interrupt(output: Tensor, target: Tensor) -> Tensor:
    raise _Interrupted


class _Breaking(nn.Module):
    """A model that raises for inputs with NaN, after they went through it."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.train(model.training)

    def forward(self, inputs: Tensor) -> Any:
        output = self.model(inputs)
        if inputs.isnan().any():
            raise _Interrupted
        return output


def _assert_interrupted(tapped: Any, inputs: Tensor, target: Any) -> None:
    try:
        tapped(inputs, target)
    except _Interrupted:
        return
    raise AssertionError("expected the exception raised inside the tapped pass to come out")


LAWS: Sequence[Callable[..., None]] = (
    *WEIGHTING,
    *REDUCTION,
    a_statistic_equals_its_definition,
    a_variance_survives_far_from_zero,
    *CHAIN,
    *STEP,
    *RESCALE,
    *SELECT,
    a_selection_is_the_complement_of,
    *TAP,
    *STORE,
)
