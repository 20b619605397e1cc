"""What metrics of maps against masks share: checks, and when a map says nothing."""

import torch
from torch import Tensor


def against(where: str, map: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the map as float64 and the mask, both (position,); a mask may serve all groups."""
    fits = mask.ndim <= map.ndim and map.shape[map.ndim - mask.ndim :] == mask.shape
    if mask.dtype != torch.bool or not fits or mask.ndim == 0:
        raise ValueError(
            f"{where}: expected a boolean mask of the map's shape {tuple(map.shape)}, or of its "
            f"last axes, got {mask.dtype} {tuple(mask.shape)}. Resize the map with ifa.resize, and "
            "compare labels to make a mask: labels == 1. Batches go through torch.func.vmap."
        )
    return map.double().flatten(), mask.expand(map.shape).flatten()


def unless_constant(map: Tensor, value: Tensor) -> Tensor:
    """Return a value, or NaN if the map is the same everywhere or not finite: it ranks nothing."""
    return torch.where(map.isfinite().all() & (map.amax() > map.amin()), value, torch.nan)


def unless_zero(map: Tensor, value: Tensor) -> Tensor:
    """Return a value, or NaN if the map is zero everywhere or not finite: it shows nothing."""
    return torch.where(map.isfinite().all() & (map != 0).any(), value, torch.nan)


def maximal(map: Tensor, tolerance: float) -> Tensor:
    """Tell which positions hold the maximum, up to a share of the map's range."""
    high = map.amax()
    return map >= high - tolerance * (high - map.amin())


def quantile(values: Tensor, fraction: Tensor) -> Tensor:
    """Return quantiles of (position,), interpolated, in the shape of the fraction."""
    # torch.quantile refuses volumes of more than 2**24 positions
    ordered = values.sort().values
    place = fraction * (len(values) - 1)
    below = place.floor().long()
    low, high = ordered[below], ordered[(below + 1).clamp(max=len(values) - 1)]
    return low + (place - below) * (high - low)
