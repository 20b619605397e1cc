"""Laws of selections: select(values, ratio=...) -> mask. Bind other options by partial."""

from collections.abc import Callable

import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ifa.stages import keep
from ifa.testing import strategies
from ifa.testing.holding import Select, assert_same, hold
from ifa.types import Weighted

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

    hold(law, examples)


def strongest_are_kept_and_ties_go_to_the_lower(
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

    hold(law, examples)


def a_ratio_of_one_keeps_all(select: Select, *, examples: int | None = None) -> None:
    """Selecting all of the channels is no selection."""

    @given(strategies.importances())
    def law(values: Tensor) -> None:
        assert select(values, ratio=1.0).all(), "expected every channel kept"

    hold(law, examples)


def selecting_leaves_the_values(select: Select, *, examples: int | None = None) -> None:
    """Importances are not written to; the same call gives the same mask."""

    @given(strategies.importances(), _ratios)
    def law(values: Tensor, ratio: float) -> None:
        before = values.clone()
        mask = select(values, ratio=ratio).clone()
        assert_same(values, before)
        assert_same(select(values, ratio=ratio), mask)

    hold(law, examples)


def labels_are_kept(select: Select, *, examples: int | None = None) -> None:
    """Of labeled importances the mask has the same labels, by which `ifa.keep` finds its rows."""

    @given(strategies.importances(rows=True), _ratios, st.data())
    def law(values: Tensor, ratio: float, data: st.DataObject) -> None:
        targets = data.draw(st.permutations(range(len(values) + 1)))[: len(values)]
        table = xr.DataArray(values.numpy(), {"target": targets}, ("target", "channel"))
        plain, mask = select(values, ratio=ratio), select(table, ratio=ratio)
        assert isinstance(mask, xr.DataArray), f"expected a DataArray, got {type(mask).__name__}"
        found, expected = (mask.dims, mask["target"].values.tolist()), (table.dims, targets)
        assert found == expected, f"expected dims and targets {expected}, got {found}"
        ones = torch.ones(values.shape[1])
        for target, row in zip(targets, plain, strict=True):
            one = Weighted(ones, ones[:, None], torch.tensor(target))
            assert_same(keep(mask)(one).weights, row.to(ones))

    hold(law, examples)


SELECT = (
    exactly_k_channels_are_kept,
    strongest_are_kept_and_ties_go_to_the_lower,
    a_ratio_of_one_keeps_all,
    selecting_leaves_the_values,
    labels_are_kept,
)


def a_selection_is_the_complement_of(
    select: Select, other: Select, *, examples: int | None = None
) -> None:
    """At the same ratio one selection keeps exactly what the other drops."""

    @given(strategies.importances(), _ratios)
    def law(values: Tensor, ratio: float) -> None:
        assert_same(select(values, ratio=ratio), ~other(values, ratio=ratio))

    hold(law, examples)
