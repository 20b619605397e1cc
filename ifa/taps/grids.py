"""How a sequence of tokens, or a channels-last layer, becomes (channel, *space)."""

import math
from dataclasses import dataclass

from torch import Tensor


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


@dataclass(frozen=True)
class ChannelsLast:
    """(sample, *space, channel) as (sample, channel, *space). Build with `channels_last`."""

    def __call__(self, values: Tensor) -> Tensor:
        """Move the last axis to the front."""
        return values.movedim(-1, 1)


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
        (sample, token, channel) -> (sample, channel, \*grid).

    Examples
    --------
    >>> import torch
    >>> tokens(prefix=1, grid=(2, 3))(torch.zeros(1, 7, 5)).shape
    torch.Size([1, 5, 2, 3])
    """
    grid = tuple(grid)
    if prefix < 0 or not grid or min(grid) < 1:
        raise ValueError(
            f"ifa.tokens: expected prefix >= 0 and a positive grid, got {prefix}, {grid}."
        )
    return Tokens(prefix, grid)


def channels_last() -> ChannelsLast:
    r"""Move the last axis of a layer's output to the front, as Swin needs it.

    Returns
    -------
    callable
        (sample, \*space, channel) -> (sample, channel, \*space).

    Examples
    --------
    >>> import torch
    >>> channels_last()(torch.zeros(1, 4, 6, 5)).shape
    torch.Size([1, 5, 4, 6])
    """
    return ChannelsLast()
