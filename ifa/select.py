r"""Selection rules: importance of channels to a boolean mask of those to keep.

Each rule takes values of shape (channel,), or (target, channel) of which every row is treated by
itself: a tensor, array or DataArray. It returns a boolean mask of the same shape, for `ifa.keep`: a
tensor, or of a DataArray one with the same coordinates, so that rows are found by their target.
A ratio keeps exactly :math:`k = \max(1, \operatorname{round}(ratio \cdot channels))` channels; ties
go to the lower index; a row with NaN, such as a class without an accepted sample, is refused.
"""

from typing import Any

import torch
from torch import Tensor

from ifa.stages import as_tensor

__all__ = [
    "above",
    "every",
    "largest",
    "largest_absolute",
    "only",
    "random",
    "smallest_absolute",
    "strongest",
]


def every(values: Any) -> Any:
    """Keep every channel.

    Parameters
    ----------
    values : (channel,) or (target, channel)
        Only the shape is used.

    Examples
    --------
    >>> every([0.5, 2.0])
    tensor([True, True])
    """
    return _like(values, torch.ones_like(_table("every", values), dtype=torch.bool))


def largest(values: Any, *, ratio: float) -> Any:
    r"""Keep the channels of largest value: what speaks most for the target.

    Parameters
    ----------
    values : (channel,) or (target, channel)
        Importance, signed, any unit.
    ratio
        Share of the channels to keep, in [0, 1]; at least one is kept.

    Returns
    -------
    bool, shaped and labeled like `values`
        Exactly :math:`k = \max(1, \operatorname{round}(ratio \cdot channels))` true in each row.

    Raises
    ------
    ValueError
        If the ratio is not in [0, 1], or a row has NaN.

    Examples
    --------
    >>> largest([3.0, -9.0, 5.0, 5.0], ratio=0.5)
    tensor([False, False,  True,  True])

    Of a labeled array the mask knows which target each row is of:

    >>> import xarray as xr
    >>> values = xr.DataArray([[3.0, 1.0], [0.0, 2.0]], {"target": [7, 4]}, ("target", "channel"))
    >>> largest(values, ratio=0.5).sel(target=7).values
    array([ True, False])
    """
    return _like(values, _top("largest", _numbers("largest", values), ratio))


def largest_absolute(values: Any, *, ratio: float) -> Any:
    """Keep the channels of largest absolute value.

    Of `ifa.difference(statistics)` these are the channels that tell a target from the others: what
    IFA calls diff_top. Parameters, returns and errors as `largest`.

    Parameters
    ----------
    values : (channel,) or (target, channel)
        Importance, signed, any unit.
    ratio
        Share of the channels to keep, as in `largest`.

    Examples
    --------
    >>> largest_absolute([3.0, -9.0, 5.0, 5.0], ratio=0.5)
    tensor([False,  True,  True, False])
    """
    return _like(
        values, _top("largest_absolute", _numbers("largest_absolute", values).abs(), ratio)
    )


def smallest_absolute(values: Any, *, ratio: float) -> Any:
    """Keep what `largest_absolute` drops at the same ratio: its exact complement.

    What IFA calls reverse_diff_top. Parameters and errors as `largest`.

    Parameters
    ----------
    values : (channel,) or (target, channel)
        Importance, signed, any unit.
    ratio
        Share of the channels to drop, as in `largest`.

    Examples
    --------
    >>> smallest_absolute([3.0, -9.0, 5.0, 5.0], ratio=0.5)
    tensor([ True, False, False,  True])
    """
    dropped = _top("smallest_absolute", _numbers("smallest_absolute", values).abs(), ratio)
    return _like(values, ~dropped)


def strongest(values: Any) -> Any:
    """Keep the one channel of largest value in each row.

    Parameters
    ----------
    values : (channel,) or (target, channel)
        Importance, signed, any unit.

    Examples
    --------
    >>> strongest([-3.0, -1.0])
    tensor([False,  True])
    """
    return _like(values, _first("strongest", _numbers("strongest", values), 1))


def above(values: Any, *, threshold: float) -> Any:
    """Keep the channels whose value is larger than a threshold; there may be none.

    Parameters
    ----------
    values : (channel,) or (target, channel)
        Importance, signed, any unit.
    threshold
        In the same unit.

    Examples
    --------
    >>> above([-3.0, 0.0, 1.0], threshold=0.0)
    tensor([False, False,  True])
    """
    return _like(values, _numbers("above", values) > threshold)


def only(values: Any, *, index: int) -> Any:
    """Keep one channel, by its index.

    Parameters
    ----------
    values : (channel,) or (target, channel)
        Only the shape is used.
    index
        Which channel, from 0.

    Raises
    ------
    IndexError
        If there is no such channel.

    Examples
    --------
    >>> only([0.5, 2.0, 1.0], index=2)
    tensor([False, False,  True])
    """
    table = _table("only", values)
    channels = table.shape[-1]
    if not 0 <= index < channels:
        raise IndexError(f"ifa.select.only: expected an index in 0..{channels - 1}, got {index}.")
    chosen = torch.arange(channels, device=table.device) == index
    return _like(values, chosen.expand(table.shape).clone())


def random(values: Any, *, ratio: float, seed: int) -> Any:
    """Keep channels drawn at random without replacement, each row by itself: the control.

    Parameters
    ----------
    values : (channel,) or (target, channel)
        Only the shape is used.
    ratio
        Share of the channels to keep, as in `largest`.
    seed
        The same seed gives the same mask, on every device.

    Examples
    --------
    >>> int(random(torch.zeros(10), ratio=0.3, seed=0).sum())
    3
    """
    table = _table("random", values)
    generator = torch.Generator().manual_seed(seed)
    drawn = _top("random", torch.rand(table.shape, generator=generator), ratio)
    return _like(values, drawn.to(table.device))


def _like(values: Any, mask: Tensor) -> Any:
    """Give a mask the labels of what it was selected from, if that has any."""
    if not hasattr(values, "dims"):
        return mask
    labeled = values.copy(data=mask.numpy()).rename("mask")
    labeled.attrs = {"long_name": "channels that are kept", "units": "1"}
    return labeled


def _top(name: str, values: Tensor, ratio: float) -> Tensor:
    if not 0 <= ratio <= 1:
        raise ValueError(f"ifa.select.{name}: expected a ratio in [0, 1], got {ratio}.")
    return _first(name, values, max(1, round(ratio * values.shape[-1])))


def _first(name: str, values: Tensor, count: int) -> Tensor:
    order = values.argsort(dim=-1, descending=True, stable=True)
    mask = torch.zeros_like(values, dtype=torch.bool)
    return mask.scatter(-1, order[..., :count], True)


def _table(name: str, values: Any) -> Tensor:
    table = as_tensor(f"ifa.select.{name}", "values", values)
    dims = getattr(values, "dims", ())
    if table.ndim not in (1, 2) or table.shape[-1] == 0 or {"channel", "atom"} & {*dims[:-1]}:
        raise ValueError(
            f"ifa.select.{name}: expected values of shape (channel,) or (target, channel), "
            f"got {tuple(table.shape)}{f' {dims}' if dims else ''}."
        )
    return table.detach()


def _numbers(name: str, values: Any) -> Tensor:
    table = _table(name, values)
    bad = torch.atleast_2d(table).isnan().any(1)
    if bad.any():
        rows = [_row_name(values, int(index)) for index in bad.nonzero()[:, 0]]
        raise ValueError(
            f"ifa.select.{name}: expected numbers, got NaN in {', '.join(rows)}. "
            "A target without an accepted sample has no importance: leave it out, or give it "
            "ifa.select.every."
        )
    return table


def _row_name(values: Any, index: int) -> str:
    if getattr(values, "ndim", 1) == 1 and not isinstance(values, list):
        return "the values"
    coords = getattr(values, "coords", {})
    target = int(coords["target"][index]) if "target" in coords else index
    name = f" ({coords['target_name'].values[index]})" if "target_name" in coords else ""
    return f"row {target}{name}"
