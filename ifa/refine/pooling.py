"""A fine map averaged over what each unit of a coarser layer stands for."""

import torch
from torch import Tensor

from ifa.types import Positions


def pooled(values: Tensor, grid: tuple[int, ...], positions: Positions) -> Tensor:
    """Average the last axes over windows of one step about each unit's centre, cut at borders."""
    for axis, units in enumerate(grid, -len(grid)):
        start, step = (float(one[axis]) for one in positions)
        shares = _shares(units, values.shape[axis], start, step).to(values)
        values = (values.movedim(axis, -1) @ shares.T).movedim(-1, axis)
    return values


def _shares(units: int, extent: int, start: float, step: float) -> Tensor:
    """Return how much of each window is of each position, (unit, position)."""
    centers = start + step * torch.arange(units, dtype=torch.float64)[:, None]
    places = torch.arange(extent, dtype=torch.float64)
    ends = torch.minimum(centers + step / 2, places + 0.5)
    begins = torch.maximum(centers - step / 2, places - 0.5)
    covered = (ends - begins).clamp(min=0)
    nearest = (centers.clamp(0, extent - 1) - places).abs() <= 0.5  # of a window outside
    covered = torch.where(covered.any(1, keepdim=True), covered, nearest.double())
    return covered / covered.sum(1, keepdim=True)
