"""What metrics of maps against masks share: checks, levels, and when a map says nothing."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Weights = Tensor | Sequence[float] | Mapping[int, float]


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


def worth(where: str, map: Tensor, levels: Tensor, weights: Weights, unlisted: float) -> Tensor:
    """Return the weight of each position's level, (position,) float64; levels may serve all."""
    whole = not (levels.is_floating_point() or levels.is_complex() or levels.dtype == torch.bool)
    fits = levels.ndim <= map.ndim and map.shape[map.ndim - levels.ndim :] == levels.shape
    if not whole or not fits:
        raise ValueError(
            f"{where}: expected levels as whole numbers of the map's shape {tuple(map.shape)}, or "
            f"of its last axes, got {levels.dtype} {tuple(levels.shape)}."
        )
    known, gain = _table(where, weights, map.device)
    at = levels.expand(map.shape).flatten().long()
    place = torch.searchsorted(known, at).clamp(max=len(known) - 1)
    return torch.where(known[place] == at, gain[place], unlisted)


def _table(where: str, weights: Weights, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return levels in ascending order, and their weights."""
    if isinstance(weights, Mapping):
        known = sorted(weights)
        worth = torch.tensor([weights[level] for level in known], dtype=torch.float64)
        levels = torch.tensor(known)
    else:
        worth = torch.as_tensor(weights, dtype=torch.float64)
        levels = torch.arange(worth.numel())
    if worth.ndim != 1 or len(worth) == 0:
        raise ValueError(
            f"{where}: expected weights (level,) or a mapping of levels to weights, got shape "
            f"{tuple(worth.shape)}. Give one weight for each level."
        )
    return levels.to(device), worth.to(device)


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
