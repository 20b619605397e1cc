"""Laws of reductions. `batches` draws a batch: a tensor, or a record with a sample axis first."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ifa.reduce import fold
from ifa.testing import strategies
from ifa.testing.assertions import (
    assert_trees_close,
    leaves,
    map_leaves,
    rebuilt,
)
from ifa.testing.holding import Drawn, assert_same, copied, either, hold
from ifa.types import Reduction


def an_empty_state_is_the_identity(
    reduction: Reduction, *, batches: Drawn = None, examples: int | None = None
) -> None:
    """Merging with the state of no sample, on either side, changes nothing."""

    @given(either(batches, strategies.batches()))
    def law(batch: Any) -> None:
        empty, state = reduction.init(batch), fold(reduction, [batch])
        assert_trees_close(reduction.merge(empty, state), state)
        assert_trees_close(reduction.merge(state, empty), state)
        nothing = fold(reduction, [_cut(batch, 0, 0)], like=batch)
        assert_trees_close(reduction.finalize(nothing), reduction.finalize(empty))

    hold(law, examples)


def splits_do_not_matter(
    reduction: Reduction, *, batches: Drawn = None, examples: int | None = None
) -> None:
    """Cutting the data anywhere, and updating or merging, gives the statistic of the whole."""

    @given(either(batches, strategies.batches()), st.data())
    def law(batch: Any, data: st.DataObject) -> None:
        cut = data.draw(st.integers(0, _count(batch)), label="cut")
        parts = _cut(batch, 0, cut), _cut(batch, cut, None)
        whole = reduction.finalize(fold(reduction, [batch]))
        streamed = fold(reduction, parts, like=batch)
        merged = reduction.merge(*(fold(reduction, [part], like=batch) for part in parts))
        assert_trees_close(reduction.finalize(streamed), whole)
        assert_trees_close(reduction.finalize(merged), whole)

    hold(law, examples)


def order_does_not_matter(
    reduction: Reduction, *, batches: Drawn = None, examples: int | None = None
) -> None:
    """Samples in another order have the same statistic."""

    @given(either(batches, strategies.batches()), st.data())
    def law(batch: Any, data: st.DataObject) -> None:
        order = data.draw(st.permutations(range(_count(batch))), label="order")
        shuffled = map_leaves(lambda leaf: leaf[order], batch)
        states = (fold(reduction, [values]) for values in (shuffled, batch))
        assert_trees_close(*map(reduction.finalize, states))

    hold(law, examples)


def merging_is_associative(
    reduction: Reduction, *, batches: Drawn = None, examples: int | None = None
) -> None:
    """Three parts give the same statistic, whichever two of them are merged first."""

    @given(either(batches, strategies.batches()), st.data())
    def law(batch: Any, data: st.DataObject) -> None:
        cuts = sorted(data.draw(st.integers(0, _count(batch)), label="cut") for _ in range(2))
        parts = zip((0, *cuts), (*cuts, None), strict=True)
        a, b, c = (fold(reduction, [_cut(batch, *part)], like=batch) for part in parts)
        merge = reduction.merge
        left, right = merge(merge(a, b), c), merge(a, merge(b, c))
        assert_trees_close(left, right)
        assert_trees_close(*map(reduction.finalize, (left, right)))

    hold(law, examples)


def a_state_survives_the_store(
    reduction: Reduction, *, batches: Drawn = None, examples: int | None = None
) -> None:
    """A state that was saved and loaded merges and finalizes to the same bits."""

    @given(either(batches, strategies.batches()), st.data())
    def law(batch: Any, data: st.DataObject) -> None:
        cut = data.draw(st.integers(0, _count(batch)), label="cut")
        parts = _cut(batch, 0, cut), _cut(batch, cut, None)
        first, second = (fold(reduction, [part], like=batch) for part in parts)
        restored = _saved_and_loaded(first)
        assert_same(restored, first)
        finalized = (reduction.finalize(reduction.merge(s, second)) for s in (restored, first))
        assert_same(*finalized)

    hold(law, examples)


def a_reduction_leaves_its_arguments(
    reduction: Reduction, *, batches: Drawn = None, examples: int | None = None
) -> None:
    """Neither states nor batches are written to: a state can be used twice."""

    @given(either(batches, strategies.batches()))
    def law(batch: Any) -> None:
        state = fold(reduction, [batch])
        before = copied((state, batch))
        reduction.update(state, batch)
        reduction.merge(state, state)
        reduction.finalize(state)
        assert_same((state, batch), before)

    hold(law, examples)


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

    hold(law, examples)


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

    hold(law, examples)


def _count(batch: Any) -> int:
    return len(leaves(batch)[0])


def _cut(batch: Any, start: int, stop: int | None) -> Any:
    return map_leaves(lambda leaf: leaf[start:stop], batch)


def _saved_and_loaded(state: Any) -> Any:
    from ifa.store.markers import Marker, marker_text, read_marker  # which needs xarray and zarr

    parts = leaves(state)
    strange = [type(part).__name__ for part in parts if not isinstance(part, Tensor)]
    assert not strange, f"expected a state of tensors only, got {strange}"
    states = {str(index): part.numpy() for index, part in enumerate(parts)}
    text = marker_text(Marker("", 0, {}, {}, np.empty((0, 16), np.uint8)), states)
    _, loaded = read_marker("ifa.testing", "state.npz", text)
    return rebuilt(state, [torch.from_numpy(loaded[str(index)]) for index in range(len(parts))])
