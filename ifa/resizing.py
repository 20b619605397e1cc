"""Maps to another grid, such as the input's, in one, two or three space axes."""

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ifa.stages import expect
from ifa.types import Map, Positions, Step

_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def resize(size: Sequence[int], *, mode: str = "linear") -> Step:
    r"""Make a step that brings a map to another grid by interpolation.

    Pixel centres are aligned (``align_corners=False``), as in torch-cam and OpenCV. Down-sampling
    is not smoothed.

    Parameters
    ----------
    size
        New extent of each space axis: one, two or three numbers. Axes before them are kept.
    mode
        ``"linear"`` (bilinear, trilinear) or ``"nearest"``.

    Returns
    -------
    callable
        `Map` -> `Map` with values (\*size), or (block, \*size).

    Raises
    ------
    ValueError
        If the size is not one to three positive numbers, or the map has fewer axes.

    Examples
    --------
    >>> import ifa, torch
    >>> small = ifa.Map(torch.tensor([[0.0, 1.0]]), torch.tensor(0))
    >>> ifa.resize((1, 4))(small).values
    tensor([[0.0000, 0.2500, 0.7500, 1.0000]])
    """
    size = _checked("ifa.resize", size)
    if mode not in ("linear", "nearest"):
        raise ValueError(f"ifa.resize: expected mode 'linear' or 'nearest', got {mode!r}.")
    return partial(_resize, size=size, mode=mode)


def _checked(where: str, size: Sequence[int]) -> tuple[int, ...]:
    size = tuple(int(extent) for extent in size)
    if len(size) not in _LINEAR or min(size) < 1:
        raise ValueError(f"{where}: expected one to three positive extents, got {size}.")
    return size


def _resize(values: Map, *, size: tuple[int, ...], mode: str) -> Map:
    expect("ifa.resize", values, Map, "Put ifa.combine before it.")
    return values._replace(values=resized(values.values, size, mode))


def resized(values: Tensor, size: tuple[int, ...], mode: str = "linear") -> Tensor:
    """Interpolate the last ``len(size)`` axes of a tensor to `size`."""
    lead = values.shape[: values.ndim - len(size)]
    if values.ndim < len(size):
        raise ValueError(
            f"ifa.resize: expected a map with {len(size)} space axes for size {size}, "
            f"got {tuple(values.shape)}."
        )
    if values.shape[len(lead) :] == size:
        return values
    stacked = values.reshape(1, -1, *values.shape[len(lead) :])
    if mode == "nearest":
        return interpolate(stacked, size=size, mode="nearest-exact").reshape(*lead, *size)
    out = interpolate(stacked, size=size, mode=_LINEAR[len(size)], align_corners=False)
    return out.reshape(*lead, *size)


def place(
    positions: Positions, size: Sequence[int], *, input_size: Sequence[int] | None = None
) -> Step:
    r"""Make a step that brings a map to the input's grid with every unit at its true centre.

    Linear interpolation between the centres; beyond the outermost ones their values are held. Where
    the units tile the input evenly it is `ifa.resize`; where padded convolutions of stride 2 shift
    the centres, `ifa.resize` is off by up to half a unit.

    Parameters
    ----------
    positions
        Of the layer, see `ifa.positions`.
    size
        Extent of each space axis of the result: one, two or three numbers. Axes before them are
        kept.
    input_size
        Extents of the input, which the positions refer to, where `size` is another.

    Returns
    -------
    callable
        `Map` -> `Map` with values (\*size), or (group, \*size).

    Raises
    ------
    ValueError
        If the size is not one to three positive numbers, the positions are not of as many axes and
        finite, or the map has fewer axes.

    Examples
    --------
    >>> import ifa, torch
    >>> first = ifa.Positions(torch.tensor([0.0]), torch.tensor([2.0]))
    >>> small = ifa.Map(torch.tensor([0.0, 1.0]), torch.tensor(0))
    >>> ifa.place(first, (4,))(small).values
    tensor([0.0000, 0.5000, 1.0000, 1.0000])
    """
    size = _checked("ifa.place", size)
    given = size if input_size is None else _checked("ifa.place", input_size)
    start, step = (tuple(map(float, values)) for values in positions)
    if not len(start) == len(step) == len(size) == len(given):
        raise ValueError(
            f"ifa.place: expected positions and sizes of as many axes, got start {start}, step "
            f"{step} for size {size} of inputs {given}. Give the extent of each axis of space."
        )
    if not all(map(math.isfinite, start + step)) or 0 in step:
        raise ValueError(
            f"ifa.place: expected finite positions with steps other than 0, got start {start}, "
            f"step {step}. Take them from ifa.positions(model, layer, example)."
        )
    ratios = tuple(extent / of for extent, of in zip(size, given, strict=True))
    start = tuple((c + 0.5) * ratio - 0.5 for c, ratio in zip(start, ratios, strict=True))
    step = tuple(c * ratio for c, ratio in zip(step, ratios, strict=True))
    return partial(_place, start=start, step=step, size=size)


def _place(
    values: Map, *, start: tuple[float, ...], step: tuple[float, ...], size: tuple[int, ...]
) -> Map:
    expect("ifa.place", values, Map, "Put ifa.combine before it.")
    placed = values.values
    if placed.ndim < len(size):
        raise ValueError(
            f"ifa.place: expected a map with {len(size)} space axes for size {size}, "
            f"got {tuple(placed.shape)}. Give the extent of each axis of the map."
        )
    for axis, (first, between, extent) in enumerate(
        zip(start, step, size, strict=True), -len(size)
    ):
        placed = _interpolated(placed, axis, first, between, extent)
    return values._replace(values=placed)


def _interpolated(values: Tensor, axis: int, start: float, step: float, extent: int) -> Tensor:
    """Read one axis, whose elements lie at start + step · i, at 0 … extent - 1."""
    last = values.shape[axis] - 1
    if (start, step, extent) == (0, 1, last + 1):  # every unit is at a pixel's centre
        return values
    kind = torch.float32 if values.device.type == "mps" else torch.float64
    ends = -start / step, (extent - 1 - start) / step
    where = torch.linspace(*ends, extent, dtype=kind, device=values.device).clamp(0, last)
    below = where.long()
    weight = (where - below).to(values.dtype).reshape(-1, *[1] * (-axis - 1))
    lower = values.index_select(axis, below)
    upper = values.index_select(axis, (below + 1).clamp(max=last))
    return torch.lerp(lower, upper, weight)
