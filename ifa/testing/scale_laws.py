"""Laws of `rescale` and its inverse `unscale`, which take a scale and make a step."""

from collections.abc import Callable

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import ifa
from ifa.scaling import Scale
from ifa.testing import strategies
from ifa.testing.assertions import (
    assert_trees_close,
)
from ifa.testing.holding import Step, hold
from ifa.types import Map

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

    hold(law, examples)


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

    hold(law, examples)


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

    hold(law, examples)


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

    hold(law, examples)


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

    hold(law, examples)


RESCALE = (
    low_and_high_go_to_the_limits,
    a_limit_of_zero_is_honoured,
    rescaling_keeps_the_order,
    unscaling_undoes_rescaling,
    each_target_has_its_own_scale,
)


def _map(values: Tensor) -> Map:
    return Map(values, torch.tensor(0))
