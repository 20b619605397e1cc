"""Laws of weightings: (activations, gradients) -> weights. `features` draws other examples."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.func import vmap

from ifa.testing import strategies
from ifa.testing.assertions import (
    assert_trees_close,
)
from ifa.testing.holding import Drawn, Kernel, assert_same, copied, either, hold
from ifa.types import Features


def permuting_channels_permutes_weights(
    kernel: Kernel, *, features: Drawn = None, examples: int | None = None
) -> None:
    """No channel is special: in another order they get the same weights in that order."""

    @given(either(features, strategies.features()), st.data())
    def law(example: Features, data: st.DataObject) -> None:
        activations, gradients, _ = example
        order = data.draw(st.permutations(range(len(activations))), label="order")
        permuted = kernel(activations[order], gradients[order])
        assert_trees_close(permuted, kernel(activations, gradients)[order])

    hold(law, examples)


def flipping_space_flips_spatial_weights(
    kernel: Kernel, *, features: Drawn = None, examples: int | None = None
) -> None:
    """A mirrored example has mirrored spatial weights, and the same channel weights."""

    @given(either(features, strategies.features()), st.data())
    def law(example: Features, data: st.DataObject) -> None:
        activations, gradients, _ = example
        axis = data.draw(st.integers(1, activations.ndim - 1), label="axis")
        weights = kernel(activations, gradients)
        flipped = kernel(activations.flip(axis), gradients.flip(axis))
        assert_trees_close(flipped, weights if weights.ndim == 1 else weights.flip(axis))

    hold(law, examples)


def doubling_gradients_doubles_weights(
    kernel: Kernel, *, degree: float = 1, features: Drawn = None, examples: int | None = None
) -> None:
    """Weights are homogeneous in the gradients, of the degree that the method declares."""

    @given(either(features, strategies.features()))
    def law(example: Features) -> None:
        activations, gradients, _ = example
        doubled = kernel(activations, 2 * gradients)
        assert_trees_close(doubled, 2**degree * kernel(activations, gradients))

    hold(law, examples)


def zero_gradients_give_zero_weights(
    kernel: Kernel, *, features: Drawn = None, examples: int | None = None
) -> None:
    """What the score does not depend on has no weight."""

    @given(either(features, strategies.features()))
    def law(example: Features) -> None:
        weights = kernel(example.activations, torch.zeros_like(example.gradients))
        assert_trees_close(weights, torch.zeros_like(weights))

    hold(law, examples)


def weighting_a_batch_equals_a_loop(
    kernel: Kernel, *, features: Drawn = None, examples: int | None = None
) -> None:
    """Lifted by `vmap`, a kernel does what it does to one example after the other.

    `features`, if given, draws examples with a leading sample axis.
    """

    @given(either(features, strategies.features(samples=True)))
    def law(batch: Features) -> None:
        activations, gradients, _ = batch
        looped = [kernel(*pair) for pair in zip(activations, gradients, strict=True)]
        assert_trees_close(vmap(kernel)(activations, gradients), torch.stack(looped))

    hold(law, examples)


def weighting_leaves_its_inputs(
    kernel: Kernel, *, features: Drawn = None, examples: int | None = None
) -> None:
    """Activations and gradients are not written to, alone or under `vmap`, which would allow it."""

    @given(either(features, strategies.features()))
    def law(example: Features) -> None:
        given_now = example.activations, example.gradients
        before = copied(given_now)
        kernel(*given_now)
        vmap(kernel)(*(tensor[None] for tensor in given_now))
        assert_same(given_now, before)

    hold(law, examples)


def weights_are_always_finite(
    kernel: Kernel, *, features: Drawn = None, examples: int | None = None
) -> None:
    """Constant and all-zero activations or gradients have finite weights of the right shape."""

    @given(
        either(features, strategies.features()),
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

    hold(law, examples)


WEIGHTING = (
    permuting_channels_permutes_weights,
    flipping_space_flips_spatial_weights,
    doubling_gradients_doubles_weights,
    zero_gradients_give_zero_weights,
    weighting_a_batch_equals_a_loop,
    weighting_leaves_its_inputs,
    weights_are_always_finite,
)
