r"""The one rule that makes inputs of what was read: float32 (channel, \*space)."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ifa.stages import native

Channels = Literal["first", "last"]
# of unsigned integers up to 16 bits: the largest number is 1
_SCALES = {torch.uint8: 255.0, torch.uint16: 65535.0}
_GREY = ("1", "L", "LA", "La")


def named(function: Any) -> str:
    """Name a function or a transform in few words."""
    name = getattr(function, "__qualname__", None) or type(function).__name__
    return f"{function.__module__}.{name}" if hasattr(function, "__qualname__") else name


def numbers(where: str, values: Any) -> Tensor:
    """Take numbers as float32 by the rule: unsigned integers to 0 … 1, others as they are."""
    tensor = tensor_of(where, values)
    if tensor.is_complex():
        raise TypeError(
            f"{where}: expected real numbers, got {tensor.dtype}. Give real and imaginary parts as "
            "channels: torch.view_as_real."
        )
    scale = _SCALES.get(tensor.dtype, 1.0)
    as_real = tensor.to(torch.float32, copy=True)
    return as_real if scale == 1 else as_real / scale


def tensor_of(where: str, values: Any) -> Tensor:
    """Take a tensor without its subclass or graph; an array as a copy."""
    if isinstance(values, Tensor):
        return values.detach().as_subclass(Tensor)
    try:
        return torch.as_tensor(native(np.asarray(values)))
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(
            f"{where}: expected numbers, got {type(values).__name__} of "
            f"{np.asarray(values).dtype}. Convert them by prepare=."
        ) from None


def channelled(where: str, values: Tensor, channels: Channels | None, space: int) -> Tensor:
    r"""Bring an example to (channel, \*space).

    Without `channels`, what has up to `space` axes has none, and of what has more they come first.
    """
    if channels is None and values.ndim == space:
        return values[None]
    if values.ndim < 2:
        return values
    if channels is None and values.shape[-1] in (1, 3, 4) and values.shape[0] > 4:
        raise ValueError(
            f"{where}: expected channels before space, got an input {tuple(values.shape)}, whose "
            "last axis looks like channels. Say channels='last', or channels='first'."
        )
    return values.movedim(-1, 0).contiguous() if channels == "last" else values


def array_input(where: str, channels: Channels | None, space: int, values: Any) -> Tensor:
    """Make an input of an array by the rule."""
    return channelled(where, numbers(where, values), channels, space)


def is_picture(value: Any) -> bool:
    """Tell whether this is a picture of PIL."""
    return type(value).__module__.startswith("PIL.") and hasattr(value, "getbands")


def in_mode(picture: Any, mode: str | None) -> Any:
    """Convert a picture to "RGB" or "L", by default what it is; one of more than 8 bits is kept."""
    if deep(picture):
        return picture
    mode = mode or ("L" if picture.mode in _GREY else "RGB")
    return picture if picture.mode == mode else picture.convert(mode)


def deep(picture: Any) -> bool:
    """Tell whether a picture has 16 bits or real numbers, which PIL would clip."""
    return picture.mode == "F" or picture.mode.startswith("I")


def file_input(where: str, mode: str | None, value: Any) -> Tensor:
    """Make (channel, y, x) of a picture by the rule; arrays and volumes are (channel, …)."""
    if not is_picture(value):
        return numbers(where, value)
    pixels = numbers(where, np.asarray(in_mode(value, mode)))
    if pixels.ndim == 3:
        return pixels.movedim(-1, 0).contiguous()
    return pixels.expand(3, -1, -1).contiguous() if mode == "RGB" else pixels[None]


def prepared(where: str, value: Any) -> Any:
    """Take what `prepare` returned: as it is, but float64, pictures and batches of one."""
    if isinstance(value, Mapping):
        return _processed(where, value)
    if isinstance(value, tuple):
        return tuple(prepared(where, part) for part in value)
    if is_picture(value):
        return file_input(where, None, value)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    tensor = tensor_of(where, value)
    return tensor.float() if tensor.dtype == torch.float64 else tensor


def _processed(where: str, parts: Mapping[Any, Any]) -> Any:
    """Take a mapping; of an image processor's, one picture without the axis of its batch."""
    pixels = parts.get("pixel_values")
    if not isinstance(pixels, list) and getattr(pixels, "ndim", 0) < 4:
        return {key: prepared(where, part) for key, part in parts.items()}
    for key, part in parts.items():
        if len(part) != 1:
            raise ValueError(
                f"{where}: expected prepare= to return pixel_values of one picture, with an axis "
                f"of length 1 first, got {len(part)} of {key!r}. Return a tensor instead."
            )
    taken = {key: prepared(where, part[0]) for key, part in parts.items()}
    return taken["pixel_values"] if len(taken) == 1 else taken
