"""Seeded noise, the same on every device, and the portions in which draws are run."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor


def chunks(total: int, size: int) -> Iterator[range]:
    """Cut 0..total into consecutive ranges of at most `size`."""
    return (range(start, min(start + size, total)) for start in range(0, total, size))


def noise(shape: Sequence[int], like: Tensor, seed: int, *place: int) -> Tensor:
    """Draw standard normal numbers that depend on the seed, the place and the shape alone."""
    state = np.random.SeedSequence((seed, *place)).generate_state(1, np.uint64)
    generator = torch.Generator().manual_seed(int(state[0]))
    # float32 on the CPU whatever the model's dtype and device: the same numbers everywhere
    return torch.randn(tuple(shape), generator=generator).to(like)


# Draws of one place come from one generator, as many as have few numbers: making one takes as long.
_TOGETHER, _NUMBERS = 32, 2**16


def repeated_noise(
    shape: Sequence[int], like: Tensor, seed: int, *place: int, draws: range
) -> Tensor:
    """Draw some of the repetitions at a place, (draw, *shape); each depends on its number alone."""
    size = max(1, min(_TOGETHER, _NUMBERS // max(1, math.prod(shape))))
    first, last = draws.start // size, (draws.stop - 1) // size
    blocks = [noise((size, *shape), like, seed, *place, at) for at in range(first, last + 1)]
    return torch.cat(blocks)[draws.start - first * size : draws.stop - first * size]
