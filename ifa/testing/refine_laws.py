"""Laws of filters of maps, and of the filling of masks."""

from collections.abc import Callable

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ifa.testing import strategies
from ifa.testing.assertions import assert_trees_close
from ifa.testing.holding import Drawn, Step, assert_same, either, hold
from ifa.types import Map

# (image) -> step; the image is (channel, *space), of the map's size
Filter = Callable[[Tensor], Step]


def _close(actual: Map, expected: Map, like: Tensor) -> None:
    rounding = 1e-7 * float(like.abs().max())
    assert_trees_close(actual, expected, rtol=1e-7, atol=rounding)


def _image(values: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, *values.shape, generator=generator).to(values)


_SEEDS = st.integers(0, 2**31 - 1)


def a_filter_keeps_a_constant(
    made: Filter, *, maps: Drawn = None, examples: int | None = None
) -> None:
    """What is the same everywhere stays as it is, whatever the image and the borders."""

    @given(either(maps, strategies.maps()), _SEEDS, st.floats(-8, 8, width=32))
    def law(value: Map, seed: int, constant: float) -> None:
        flat = value._replace(values=torch.full_like(value.values, constant))
        _close(made(_image(value.values, seed))(flat), flat, flat.values)

    hold(law, examples)


def a_filter_is_linear_in_the_map(
    made: Filter, *, maps: Drawn = None, examples: int | None = None
) -> None:
    """A filter of a sum is the sum of what is filtered, and of a negative map the negative."""

    @given(either(maps, strategies.maps()), _SEEDS, st.sampled_from([-2.0, 0.5, 1.0]))
    def law(value: Map, seed: int, factor: float) -> None:
        step = made(_image(value.values, seed))
        first, second = value.values, _image(value.values, seed + 1)[0] - 0.5
        parts = (step(value._replace(values=one)).values for one in (first, second))
        expected = sum(factor * one for one in parts)
        found = step(value._replace(values=factor * (first + second)))
        _close(found, value._replace(values=expected), first.abs() + 1)

    hold(law, examples)


def flipping_space_flips_what_is_filtered(
    made: Filter, *, maps: Drawn = None, examples: int | None = None
) -> None:
    """No direction of an axis is preferred."""

    @given(either(maps, strategies.maps()), _SEEDS, st.data())
    def law(value: Map, seed: int, data: st.DataObject) -> None:
        image = _image(value.values, seed)
        axis = data.draw(st.integers(-value.values.ndim, -1), label="axis")
        flipped = made(image.flip(axis))(value._replace(values=value.values.flip(axis)))
        expected = made(image)(value)
        turned = expected._replace(values=expected.values.flip(axis))
        _close(flipped, turned, value.values.abs() + 1)

    hold(law, examples)


FILTER = (
    a_filter_keeps_a_constant,
    a_filter_is_linear_in_the_map,
    flipping_space_flips_what_is_filtered,
)


def filling_only_adds(fill: Callable[[Tensor], Tensor], *, examples: int | None = None) -> None:
    """What a mask holds it still holds, and the mask that was given is left as it was."""

    @given(strategies.maps())
    def law(value: Map) -> None:
        mask = value.values > 0
        before = mask.clone()
        result = fill(mask)
        assert_same(mask, before)
        assert result.dtype == torch.bool, f"expected a mask, got {result.dtype}"
        assert bool((result | ~mask).all()), "expected no position to be taken away"

    hold(law, examples)


def filling_twice_is_filling_once(
    fill: Callable[[Tensor], Tensor], *, examples: int | None = None
) -> None:
    """No hole is left that would be filled."""

    @given(strategies.maps())
    def law(value: Map) -> None:
        once = fill(value.values > 0)
        assert_same(fill(once), once)

    hold(law, examples)


FILL = (filling_only_adds, filling_twice_is_filling_once)
