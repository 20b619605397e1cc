"""How a sequence of tokens, or a channels-last layer, becomes (channel, *space), and back."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ifa.checks import takes


@dataclass(frozen=True)
class Tokens:
    """Tokens (sample, prefix + grid, channel) as (sample, channel, *grid). Build with `tokens`."""

    prefix: int
    grid: tuple[int, ...]

    def __call__(self, sequence: Tensor) -> Tensor:
        """Lay the sequence out on its grid."""
        expected = self.prefix + math.prod(self.grid)
        if sequence.ndim != 3 or sequence.shape[1] != expected:
            raise ValueError(
                f"ifa.tokens: expected (sample, {expected}, channel) for {self.prefix} prefix "
                f"tokens and a grid of {self.grid}, got {tuple(sequence.shape)}. "
                "Change prefix or grid so that they add up."
            )
        return sequence[:, self.prefix :].transpose(1, 2).unflatten(2, self.grid)

    def back(self, values: Tensor, sequence: Tensor | None = None) -> Tensor:
        """Make a sequence of what lies on the grid, with the prefix tokens of another sequence."""
        if self.prefix and sequence is None:
            raise ValueError(
                f"ifa.tokens: expected a sequence to take {self.prefix} prefix tokens from, got "
                "none. Give the layer's own: grid.back(values, sequence)."
            )
        tokens = values.flatten(2).transpose(1, 2)
        return tokens if sequence is None else torch.cat([sequence[:, : self.prefix], tokens], 1)


@dataclass(frozen=True)
class Patches:
    """Pixels of patches as (sample, pixel · channel, *grid). Build with `patches`."""

    pixels: int
    grid: tuple[int, ...]

    def __call__(self, values: Tensor) -> Tensor:
        """Lay the patches out on their grid, the pixels of one merged into channels."""
        patches = math.prod(self.grid)
        if values.ndim != 4 or tuple(values.shape[1:3]) != (self.pixels, patches):
            raise ValueError(
                f"ifa.patches: expected (sample, {self.pixels}, {patches}, channel) for patches of "
                f"{self.pixels} pixels on a grid of {self.grid}, got {tuple(values.shape)}. "
                "Change pixels or grid."
            )
        return values.permute(0, 1, 3, 2).flatten(1, 2).unflatten(2, self.grid)

    def back(self, values: Tensor, _: Tensor | None = None) -> Tensor:
        """Return what lies on the grid as (sample, pixel, patch, channel)."""
        return values.flatten(2).unflatten(1, (self.pixels, -1)).permute(0, 1, 3, 2)


@dataclass(frozen=True)
class ChannelsLast:
    """(sample, *space, channel) as (sample, channel, *space). Build with `channels_last`."""

    def __call__(self, values: Tensor) -> Tensor:
        """Move the last axis to the front."""
        return values.movedim(-1, 1)

    def back(self, values: Tensor, _: Tensor | None = None) -> Tensor:
        """Move the channels to the end again."""
        return values.movedim(1, -1)


def check_grid(where: str, grid: Any) -> None:
    """Raise unless a grid is None or lays out a tensor."""
    if grid is not None and (not callable(grid) or not takes(grid, 1)):
        raise TypeError(
            f"{where}: expected grid to lay out (sample, ...) as (sample, channel, *space), got "
            f"{getattr(grid, '__name__', repr(grid))}. Call what makes one: "
            "grid=ifa.channels_last(), grid=ifa.tokens(prefix, space)."
        )


def tokens(prefix: int = 1, grid: tuple[int, ...] = (14, 14)) -> Tokens:
    r"""Lay a token sequence out on its grid: what `ifa.tap(..., grid=)` takes for transformers.

    Parameters
    ----------
    prefix
        How many tokens before the grid's: 1 for a class token, 2 for DeiT, 0 for none.
    grid
        Extent of each space axis, e.g. ``(14, 14)``; also 1-D and 3-D.

    Returns
    -------
    callable
        (sample, token, channel) -> (sample, channel, \*grid). Its method
        ``back(values, sequence)`` undoes it, with the prefix tokens of `sequence`.

    Examples
    --------
    >>> import torch
    >>> grid, sequence = tokens(prefix=1, grid=(2, 3)), torch.arange(14.0).reshape(1, 7, 2)
    >>> grid(sequence).shape
    torch.Size([1, 2, 2, 3])
    >>> torch.equal(grid.back(grid(sequence), sequence), sequence)
    True
    """
    grid = tuple(grid)
    if not isinstance(prefix, int):
        raise TypeError(
            f"ifa.tokens: expected a number of prefix tokens, got {type(prefix).__name__}. "
            "It makes what grid= takes: call it, grid=ifa.tokens(1, (14, 14))."
        )
    if prefix < 0 or not grid or min(grid) < 1:
        raise ValueError(
            f"ifa.tokens: expected prefix >= 0 and a positive grid, got {prefix}, {grid}."
        )
    return Tokens(prefix, grid)


def patches(pixels: int, grid: tuple[int, ...]) -> Patches:
    r"""Lay patches whose pixels are tokens of their own out on a grid, as MobileViT needs it.

    The pixels of a patch are merged into channels: channel ``p · channels + c`` is channel c of
    pixel p.

    Parameters
    ----------
    pixels
        How many pixels a patch has.
    grid
        How many patches there are along each space axis.

    Returns
    -------
    callable
        (sample, pixel, patch, channel) -> (sample, pixel · channel, \*grid). Its method
        ``back(values)`` undoes it.

    Examples
    --------
    >>> import torch
    >>> patches(pixels=4, grid=(2, 3))(torch.zeros(1, 4, 6, 5)).shape
    torch.Size([1, 20, 2, 3])
    """
    grid = tuple(grid)
    if pixels < 1 or not grid or min(grid) < 1:
        raise ValueError(
            f"ifa.patches: expected pixels >= 1 and a positive grid, got {pixels}, {grid}."
        )
    return Patches(pixels, grid)


def channels_last() -> ChannelsLast:
    r"""Move the last axis of a layer's output to the front, as Swin needs it.

    Returns
    -------
    callable
        (sample, \*space, channel) -> (sample, channel, \*space). Its method ``back(values)`` undoes
        it.

    Examples
    --------
    >>> import torch
    >>> channels_last()(torch.zeros(1, 4, 6, 5)).shape
    torch.Size([1, 5, 4, 6])
    """
    return ChannelsLast()
