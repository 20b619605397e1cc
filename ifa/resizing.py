"""Maps to another grid, such as the input's, in one, two or three space axes."""

from collections.abc import Sequence
from functools import partial

from torch import Tensor
from torch.nn.functional import interpolate

from ifa.stages import expect
from ifa.types import Map, Step

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
    size = tuple(int(extent) for extent in size)
    if len(size) not in _LINEAR or min(size) < 1:
        raise ValueError(f"ifa.resize: expected one to three positive extents, got {size}.")
    if mode not in ("linear", "nearest"):
        raise ValueError(f"ifa.resize: expected mode 'linear' or 'nearest', got {mode!r}.")
    return partial(_resize, size=size, mode=mode)


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
