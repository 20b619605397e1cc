"""Seeded noise, the same on every device, and the portions in which draws are run."""

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
