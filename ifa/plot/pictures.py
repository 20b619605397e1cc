r"""From a network's input (channel, \*space) to a picture: gray or RGB, from 0 to 1."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from ifa.plot.shades import GRAY
from ifa.stages import as_tensor

Channels = int | Sequence[int] | Literal["mean", "principal"] | None
Denormalize = tuple[Any, Any] | Callable[[Any], Any] | None

_ROUNDING = 1e-3  # below that of eight bits
_LUMA = np.array([0.299, 0.587, 0.114])


class Look(NamedTuple):
    """How an input is made a picture."""

    channels: Channels = None
    denormalize: Denormalize = None
    window: tuple[float, float] | None = None
    gray: bool = True  # beneath a map


PLAIN = Look()


def numbers(where: str, name: str, values: Any) -> np.ndarray:
    """Take an array that matplotlib and numpy can draw; of half precision as float32."""
    tensor = as_tensor(where, name, values).detach().cpu()
    return (tensor.float() if tensor.dtype.itemsize < 4 and tensor.is_floating_point() else tensor
            ).numpy()  # fmt: skip


def picture_of(where: str, image: Any, space: int, look: Look) -> np.ndarray:
    r"""Make a picture (\*space), or (\*space, 3) of RGB, from 0 to 1."""
    rgb = hasattr(image, "getbands")  # of PIL
    if rgb:
        image = np.asarray(image.convert("RGB"))
        image = np.moveaxis(image, -1, 0)
    values = _denormalized(where, image, look.denormalize)
    if space == values.ndim == 3 and len(values) in (1, 3):
        raise ValueError(
            f"{where}: expected a map of two axes for an image of channels first, {values.shape}, "
            "got one of three. Take one of several maps, or sum over channels; of a volume that is "
            "so thin add the channel: image[None]."
        )
    values = values[None] if values.ndim == space else values
    if values.ndim != space + 1:
        raise ValueError(
            f"{where}: expected an input (*space) or (channel, *space) and a map with as many axes "
            f"of space, got {values.shape} and a map with {space}. Channels come first; take one "
            "sample of a batch."
        )
    values = _chosen(where, values, look.channels)
    lit = _lit(where, values, look)
    return lit[0] if len(lit) == 1 else np.moveaxis(lit, 0, -1)


def middle_of(cell: int, cells: int, count: int) -> int:
    """Return which of so many slices lies in the middle of a map's cell."""
    return int((cell + 0.5) * count / cells - 0.5)


def desaturated(picture: np.ndarray, space: int) -> np.ndarray:
    r"""Take the light of a picture (\*space, 3), so that hues beneath a map mean nothing."""
    return picture if picture.ndim == space else picture @ _LUMA


def said_of(channels: int, look: Look, space: int) -> list[str]:
    """Say in words what is drawn of several channels, unless it is what one expects."""
    if channels == 1 or space == 1 or (look.channels is None and channels == 3 and space == 2):
        return []
    if look.channels is None or isinstance(look.channels, str):
        kind = {"principal": "first principal component"}.get(str(look.channels), "mean")
        return [f"{kind} of {channels} channels"]
    listed = ", ".join(map(str, np.atleast_1d(look.channels)))
    return [f"channel{'s' * ('.' not in listed and ',' in listed)} {listed} of {channels}"]


def _denormalized(where: str, image: Any, how: Denormalize) -> np.ndarray:
    if callable(how):
        return numbers(where, "what denormalize returns", how(image))
    values = numbers(where, "image", image)
    if how is None:
        return values
    pair = [np.asarray(numbers(where, "denormalize", one), float) for one in how]
    if len(pair) != 2 or any(one.size not in (1, len(values)) for one in pair):
        raise ValueError(
            f"{where}: expected denormalize=(mean, deviation) of one value or one for each of "
            f"{len(values)} channels, or a function, got sizes {[one.size for one in pair]}."
        )
    mean, deviation = (one.reshape(-1, *[1] * (values.ndim - 1)) for one in pair)
    return values * deviation + mean


def _chosen(where: str, values: np.ndarray, channels: Channels) -> np.ndarray:
    r"""Take one channel or three (\*space) of those that there are, or one made of all."""
    count, space = len(values), values.ndim - 1
    if channels is None:
        channels = range(count) if count == 1 or (count == 3 and space == 2) else "mean"
    if channels == "mean":
        return values.mean(0, keepdims=True)
    if channels == "principal":
        return _principal(values)
    wanted = [channels] if isinstance(channels, int) else channels
    known = not isinstance(wanted, str) and all(-count <= one < count for one in wanted)
    if not known or len(wanted) not in (1, 3):
        raise ValueError(
            f"{where}: expected channels to be one of {count}, three of them for RGB, 'mean' or "
            f"'principal', got {channels!r}."
        )
    return values[[*wanted]]


def _principal(values: np.ndarray) -> np.ndarray:
    """Project channels on the direction in which they vary most; it rises with their mean."""
    flat = np.nan_to_num(values.reshape(len(values), -1).astype(float))
    flat -= flat.mean(1, keepdims=True)
    direction = np.linalg.eigh(flat @ flat.T)[1][:, -1]
    projected = direction @ flat
    projected *= 1.0 if projected @ flat.mean(0) >= 0 else -1.0
    return projected.reshape(1, *values.shape[1:])


def _lit(where: str, values: np.ndarray, look: Look) -> np.ndarray:
    """Bring values to 0, black, and 1, white."""
    if look.window is not None:
        low, high = look.window
        if not low < high:
            raise ValueError(f"{where}: expected window=(black, white), rising, got {look.window}.")
    elif values.dtype == np.uint8:
        low, high = 0, 255
    else:
        low, high = _own(values, taken=len(values) == 3 or look.denormalize is not None)
    values = values.astype(float)
    if low == high:
        return np.full_like(values, GRAY)  # neither dark nor light
    return np.nan_to_num((values - low) / (high - low)).clip(0, 1)


def _own(values: np.ndarray, taken: bool) -> tuple[float, float]:
    """Return 0 and 1 where values may be `taken` as they are, and are within; else their own."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if taken and low >= -_ROUNDING and high <= 1 + _ROUNDING:
        return 0.0, 1.0
    return low, high
