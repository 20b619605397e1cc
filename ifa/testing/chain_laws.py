"""Laws of `chain` itself, and of steps from maps to maps."""

import pickle
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

import ifa
from ifa.scaling import Scale
from ifa.testing import strategies
from ifa.testing.assertions import (
    assert_trees_close,
)
from ifa.testing.holding import Drawn, Step, assert_same, copied, either, hold
from ifa.types import Map, Positions


def _steps() -> SearchStrategy[list[Step]]:
    scale = Scale(torch.tensor(-1.0), torch.tensor(2.0))
    pool = [ifa.relu, ifa.minmax, ifa.clip(-0.5, 3.0), ifa.rescale(scale), ifa.unscale(scale)]
    return st.lists(st.sampled_from(pool), max_size=4)


def an_empty_chain_is_the_identity(chain: Any, *, examples: int | None = None) -> None:
    """`chain()` returns what it is given, and changes nothing inside another chain."""

    @given(_steps(), strategies.maps())
    def law(steps: list[Step], value: Map) -> None:
        assert_same(chain()(value), value)
        for padded in (chain(chain(), *steps), chain(*steps, chain())):
            assert_same(padded(value), chain(*steps)(value))

    hold(law, examples)


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
            assert_same(nested(value), expected)

    hold(law, examples)


def a_chain_of_one_is_its_step(chain: Any, *, examples: int | None = None) -> None:
    """`chain(f)(x)` is `f(x)`."""

    @given(_steps(), strategies.maps())
    def law(steps: list[Step], value: Map) -> None:
        for step in steps:
            assert_same(chain(step)(value), step(value))

    hold(law, examples)


def a_chain_pickles(chain: Any, *, examples: int | None = None) -> None:
    """A chain goes to another process and does the same there."""

    @given(_steps(), strategies.maps())
    def law(steps: list[Step], value: Map) -> None:
        made = chain(*steps)
        try:
            copied = pickle.loads(pickle.dumps(made))
        except Exception as error:
            raise AssertionError(f"expected a chain that pickles, got {error!r}") from error
        assert_same(copied(value), made(value))

    hold(law, examples)


CHAIN = (
    an_empty_chain_is_the_identity,
    chaining_is_associative,
    a_chain_of_one_is_its_step,
    a_chain_pickles,
)


def a_step_over_a_batch_equals_a_loop(
    step: Step, *, maps: Drawn = None, examples: int | None = None
) -> None:
    """`ifa.batched(step)` does what the step does to one map after the other.

    `maps`, if given, draws maps with a leading sample axis.
    """

    @given(either(maps, strategies.maps(samples=True)))
    def law(batch: Map) -> None:
        looped = [step(Map(*one)) for one in zip(*batch, strict=True)]
        expected = Map(*(torch.stack(field) for field in zip(*looped, strict=True)))
        assert_trees_close(ifa.batched(step)(batch), expected)

    hold(law, examples)


def a_step_leaves_its_input(step: Step, *, maps: Drawn = None, examples: int | None = None) -> None:
    """A map is not written to, and keeps its target."""

    @given(either(maps, strategies.maps()))
    def law(value: Map) -> None:
        before = copied(value)
        result = step(value)
        assert_same(value, before)
        assert_same(result.target, before.target)

    hold(law, examples)


def a_step_refuses_a_batch(step: Step, *, maps: Drawn = None, examples: int | None = None) -> None:
    """A batch is no example: a step says so, and names `ifa.batched`.

    `maps`, if given, draws records with a leading sample axis.
    """

    @given(either(maps, strategies.maps(samples=True)))
    def law(batch: Any) -> None:
        said = ""
        try:
            step(batch)
        except ValueError as error:
            said = str(error)
        assert "ifa.batched" in said, f"expected ifa.batched to be named, got {said!r}"

    hold(law, examples)


STEP = (a_step_over_a_batch_equals_a_loop, a_step_leaves_its_input, a_step_refuses_a_batch)


def placing_evenly_is_resizing(place: Any, *, examples: int | None = None) -> None:
    """Where units tile the input evenly, `ifa.place` is `ifa.resize`."""

    @given(strategies.maps(), st.lists(st.integers(1, 9), min_size=3, max_size=3))
    def law(value: Map, sizes: list[int]) -> None:
        units = torch.tensor(value.values.shape, dtype=torch.float64)
        size = tuple(sizes[: value.values.ndim])
        step = torch.tensor(size) / units
        placed = place(Positions((step - 1) / 2, step), size)(value)
        expected = ifa.resize(size)(value)
        rounding = 1e-6 * float(value.values.abs().max())
        assert_trees_close(placed, expected, rtol=1e-6, atol=rounding)

    hold(law, examples)
