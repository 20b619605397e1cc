"""Explanations of shifted inputs: laid side by side, or averaged."""

from collections.abc import Callable, Sequence
from functools import partial
from inspect import signature
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ifa.chains import describe
from ifa.checks import check_count
from ifa.network.inputs import at, grid_place, put, space_of
from ifa.taps.centers import steps_known
from ifa.types import Explain, Inputs, Target

Steps = tuple[float, ...] | None  # of the units of a layer, on each axis of space


class Moving:
    """An explanation made of those of shifted inputs. Build it with `stitched` or `shifted`."""

    def __init__(
        self, name: str, explain: Explain, change: Callable[..., Tensor], options: dict[str, Any]
    ):
        if not callable(explain):
            raise TypeError(
                f"ifa.dense.{name}: expected explain (inputs, target) -> maps, got {explain!r}. "
                "Take functools.partial(ifa.explain, model)."
            )
        self._name, self._explain, self._change, self._options = name, explain, change, options

    def __repr__(self) -> str:
        options = "".join(f", {key}={value}" for key, value in self._options.items())
        return f"{self._name}({describe(self._explain)}{options})"

    def __call__(self, inputs: Inputs, target: Target = None) -> Tensor:
        """Return the maps of every sample, of every target where there are many."""
        place = grid_place(f"ifa.dense.{self._name}", inputs)

        def moved(shift: Sequence[int]) -> Tensor:
            return self._explain(put(inputs, place, move(at(inputs, place), shift)), target)

        space = space_of(at(inputs, place))
        steps = partial(_steps, self._explain, inputs)
        return self._change(moved, space, steps, **self._options)


def move(values: Tensor, shift: Sequence[int]) -> Tensor:
    """Move what lies on the last axes by so many places; what comes in is zero."""
    if not any(shift):
        return values
    return pad(values, [part for by in reversed(shift) for part in (by, -by)])


def stitched(explain: Explain, *, stride: int | Sequence[int]) -> Moving:
    r"""Explain shifted inputs and lay the maps side by side: shift-and-stitch, for any network.

    .. math:: \hat L(s \, p + o) = L\bigl(x(\cdot + o)\bigr)(p), \qquad 0 \le o < s

    with one explanation for each offset o: ``stride ** axes`` of them. Beyond the reach of the
    input's border it is what `densify` gives, at its cost times many; but it needs to know nothing
    of the network. At borders they differ: a shifted input is cut off on one side, and zero comes
    in on the other.

    Parameters
    ----------
    explain
        ``(inputs, target) -> maps`` (..., \*space) on the layer's own grid, such as
        ``functools.partial(ifa.explain, model, size=None)``. Give a target: with None each shifted
        input is explained for its own prediction.
    stride
        Total stride of the layer: of every axis of space, or of each. It is looked up, and another
        one is refused, where `explain` is such a partial; otherwise the maps' size is looked at.

    Returns
    -------
    callable
        ``(inputs, target=None) -> maps``, `stride` times as large. Position 0 lies where it did:
        the layer's `ifa.positions` with the step divided by `stride`.

    Raises
    ------
    TypeError, ValueError
        If `explain` cannot be called or a stride is not positive; later, if the maps are on the
        input's grid already, or the layer has another stride.

    References
    ----------
    Long, Shelhamer & Darrell 2015, "Fully convolutional networks for semantic segmentation",
    section 3.2. arXiv:1411.4038

    Examples
    --------
    >>> import ifa, torch
    >>> every_second = ifa.dense.stitched(lambda inputs, target: inputs[:, 0, ::2], stride=2)
    >>> every_second(torch.arange(6.0).reshape(1, 1, 6))
    tensor([[0., 1., 2., 3., 4., 5.]])
    """
    for one in (stride,) if isinstance(stride, int) else stride:
        check_count("ifa.dense.stitched", "stride", one)
    return Moving("stitched", explain, _stitched, {"stride": stride})


def _stitched(
    moved: Callable[..., Tensor],
    space: tuple[int, ...],
    steps: Callable[[], Steps],
    *,
    stride: int | Sequence[int],
) -> Tensor:
    strides = _for_axes("stitched", "stride", stride, len(space))
    # along an axis of which nothing is laid side by side it is the explanation
    known = steps()
    if known is not None and any(
        by not in (1, step) for by, step in zip(strides, known, strict=True)
    ):
        raise ValueError(
            "ifa.dense.stitched: expected stride to be the total stride of the layer, "
            f"{', '.join(f'{step:g}' for step in known)} input pixels, got {strides}. Maps of "
            "other shifts do not lie side by side; see ifa.positions(model, layer, inputs).step."
        )
    offsets = list(product(*map(range, strides)))
    maps = [moved([-by for by in offset]) for offset in offsets]
    axes = len(space)
    grid = tuple(maps[0].shape[maps[0].ndim - axes :])
    if known is None and grid == space and max(strides) > 1:
        raise ValueError(
            f"ifa.dense.stitched: expected maps on the layer's own grid, got {grid}, that "
            "of the input. Explain with size=None; of maps at the input's size take "
            "ifa.dense.shifted."
        )
    if known is None:
        _check_grid(grid, space, strides)
    lead = maps[0].shape[: maps[0].ndim - axes]
    parts = torch.stack(maps, -1).reshape(*lead, *grid, *strides)
    first = len(lead)
    order = [n for axis in range(axes) for n in (first + axis, first + axes + axis)]
    wide = [extent * by for extent, by in zip(grid, strides, strict=True)]
    return parts.permute(*range(first), *order).reshape(*lead, *wide)


def _steps(explain: Explain, inputs: Inputs) -> Steps:
    """Look up how far apart the units lie that are explained; None where `explain` hides it."""
    model = explain.args[0] if isinstance(explain, partial) and explain.args else None
    if not isinstance(explain, partial) or not isinstance(model, nn.Module):
        return None
    default = signature(explain.func).parameters.get("layer")
    given = ({} if default is None else {"layer": default.default}) | explain.keywords
    layer = given.get("layer", ...)
    if not (layer is None or isinstance(layer, str | nn.Module)):
        return None
    laid = {key: given[key] for key in ("grid", "output", "grid_of") if key in given}
    return steps_known(model, layer, inputs, **laid)


def _check_grid(grid: tuple[int, ...], space: tuple[int, ...], strides: tuple[int, ...]) -> None:
    """Raise where maps are far from as large as inputs of a size with these strides make them."""
    for units, extent, by in zip(grid, space, strides, strict=True):
        if units > 1 and by > 1 and not (units - 2) * by < extent < 1.5 * units * by:
            raise ValueError(
                f"ifa.dense.stitched: expected stride to be the total stride of the layer, got "
                f"{strides} for maps {grid} of inputs {space}, of which that is about "
                f"{extent / units:.2g}. Should it be right, because windows without padding see "
                "much of the input, explain with functools.partial(ifa.explain, model, layer=..., "
                "size=None), of which it is looked up."
            )


def shifted(explain: Explain, *, shifts: int | Sequence[Sequence[int]]) -> Moving:
    r"""Average the maps of shifted inputs, each shifted back.

    .. math:: \bar L(p) = \frac{1}{n(p)} \sum_{o} L\bigl(x(\cdot - o)\bigr)(p + o)

    over the shifts for which p + o is in the map, n(p) of them. What a network that is not
    equivariant to shifts, and interpolation of a coarse grid, make of where things lie averages
    out.

    Parameters
    ----------
    explain
        ``(inputs, target) -> maps`` (..., \*space) at the input's size, such as
        ``functools.partial(ifa.explain, model)``. Give a target: with None each shifted input is
        explained for its own prediction.
    shifts
        By how many pixels each axis is moved, for each explanation: for a total stride of 8, in
        steps of 4, ``itertools.product((-4, 0), repeat=2)``. A number s stands for all of s
        neighbouring ones on every axis, the middle one 0: ``s ** axes`` explanations.

    Returns
    -------
    callable
        ``(inputs, target=None) -> maps``, in the same unit. By no shift it is `explain`, exactly.

    Raises
    ------
    TypeError, ValueError
        If `explain` cannot be called or there is no shift; later, if the maps are not at the
        input's size, or a shift is not one for each axis and within it.

    Examples
    --------
    >>> import ifa, torch
    >>> coarse = lambda inputs, target: inputs[:, 0, ::2].repeat_interleave(2, 1)
    >>> ifa.dense.shifted(coarse, shifts=2)(torch.arange(4.0).reshape(1, 1, 4))
    tensor([[0.0000, 0.5000, 1.5000, 2.5000]])
    """
    if isinstance(shifts, int):
        check_count("ifa.dense.shifted", "shifts", shifts)
    else:
        shifts = tuple(tuple(int(by) for by in shift) for shift in shifts)
        if not shifts:
            raise ValueError("ifa.dense.shifted: expected shifts, got none. (0, 0) is no shift.")
    return Moving("shifted", explain, _shifted, {"shifts": shifts})


def _shifted(
    moved: Callable[..., Tensor],
    space: tuple[int, ...],
    steps: Callable[[], Steps],
    *,
    shifts: int | tuple[tuple[int, ...], ...],
) -> Tensor:
    if isinstance(shifts, int):
        near = range(-(shifts // 2), shifts - shifts // 2)
        shifts = tuple(product(near, repeat=len(space)))
    total, times = None, torch.zeros(space, dtype=torch.float64)
    for shift in shifts:
        _check_shift(shift, space)
        found = moved(shift)
        if tuple(found.shape[found.ndim - len(space) :]) != space:
            raise ValueError(
                f"ifa.dense.shifted: expected maps at the input's size {space}, got "
                f"{tuple(found.shape)}. Explain with size='input'; of maps on a layer's own grid "
                "take ifa.dense.stitched."
            )
        back = [-by for by in shift]
        part = move(found, back)
        total = part if total is None else total + part
        times += move(torch.ones_like(times), back)
    assert total is not None  # there is at least one shift
    return total / times.clamp(min=1).to(total)


def _check_shift(shift: Sequence[int], space: tuple[int, ...]) -> None:
    inside = len(shift) == len(space)
    inside = inside and all(abs(by) < extent for by, extent in zip(shift, space, strict=True))
    if not inside:
        raise ValueError(
            f"ifa.dense.shifted: expected shifts of the axes {space}, each smaller than its axis, "
            f"got {tuple(shift)}. Give one number for each axis of space."
        )


def _for_axes(name: str, what: str, values: int | Sequence[int], axes: int) -> tuple[int, ...]:
    each = (values,) * axes if isinstance(values, int) else tuple(values)
    if len(each) != axes:
        raise ValueError(
            f"ifa.dense.{name}: expected {what} of {axes} axes of space, got {values}. Give one "
            "number for all, or one for each."
        )
    return each
