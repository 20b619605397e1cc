"""What filters share: windows about every position, and checks of images."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ifa.stages import expect
from ifa.types import Map


def mirrored(values: Tensor, axis: int, reach: int) -> Tensor:
    """Continue an axis by so many positions on both sides: c b a | a b c | c b a."""
    extent = values.shape[axis]
    places = torch.arange(-reach, extent + reach, device=values.device) % (2 * extent)
    return values.index_select(axis, torch.where(places < extent, places, 2 * extent - 1 - places))


def box_mean(values: Tensor, window: Sequence[int]) -> Tensor:
    """Average the last axes over odd windows, mirrored at the borders."""
    for axis, extent in enumerate(window, -len(window)):
        windows = mirrored(values, axis, extent // 2).unfold(axis, extent, 1)
        values = windows.mean(-1)
    return values


def inner_mean(values: Tensor, axes: int, radius: int) -> Tensor:
    """Average the last axes over windows, of which what lies outside does not count."""
    for axis in range(-axes, 0):
        inside = values.new_ones(values.shape[axis])
        sums = _sums(values, axis, radius)
        values = sums / _sums(inside, 0, radius).reshape(-1, *[1] * (-axis - 1))
    return values


def _sums(values: Tensor, axis: int, radius: int) -> Tensor:
    shape = list(values.shape)
    shape[axis] = radius
    outside = values.new_zeros(shape)
    return torch.cat([outside, values, outside], axis).unfold(axis, 2 * radius + 1, 1).sum(-1)


def guide_of(where: str, image: Tensor) -> Tensor:
    """Check an image that guides a filter, (channel, *space)."""
    if not isinstance(image, Tensor) or not image.is_floating_point():
        raise TypeError(
            f"{where}: expected the image as a tensor of floating numbers, got "
            f"{getattr(image, 'dtype', type(image).__name__)}. Convert it first: image.float()."
        )
    if not 2 <= image.ndim <= 4 or not image.numel():
        raise ValueError(
            f"{where}: expected one image (channel, *space) with one to three axes of space, got "
            f"{tuple(image.shape)}. Over a batch: ifa.batched(lambda pair: "
            f"{where}(pair[1])(pair[0]))((maps, images))."
        )
    return image.detach()


def map_of(where: str, values: Map, size: Sequence[int], coarse: bool = False) -> Tensor:
    """Return the values of a map, whose last axes are those of an image's size, or coarser."""
    expect(where, values, Map, "Put ifa.combine before it.")
    shape = tuple(values.values.shape)
    if len(shape) < len(size):
        raise ValueError(
            f"{where}: expected a map with the image's {len(size)} axes of space, got {shape}. "
            "Give the image (channel, *space) that the map is of."
        )
    if not coarse and shape[-len(size) :] != tuple(size):
        raise ValueError(
            f"{where}: expected a map of the image's size {tuple(size)}, got {shape}. Put "
            "ifa.place or ifa.resize before it."
        )
    return values.values
