"""How much runs at once where nobody said: as much as is fast, not as much as there is room for."""

import math
from collections.abc import Iterable

import torch

from ifa.network.sites import Site

# On a CPU what fits in the cache is fastest; larger chunks are slower, not faster.
CACHE_BYTES = 16 * 2**20
GPU_BYTES = 2**30
# Of tiny examples more at once save nothing on a CPU, and have the kernel give out memory anew.
CPU_EXAMPLES = 256


def budget(device: torch.device) -> int:
    """Return how many bytes the largest tensor of a chunk should have."""
    return CACHE_BYTES if device.type == "cpu" else GPU_BYTES


def fitting(sites: Iterable[Site], device: torch.device) -> int:
    """Return how many examples run at once so that the largest output of a layer is in budget."""
    sizes = (math.prod(site.shape) * site.dtype.itemsize for site in sites)
    found = max(1, budget(device) // max(sizes, default=1))
    return min(found, CPU_EXAMPLES) if device.type == "cpu" else found
