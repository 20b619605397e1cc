"""Random affine changes and flips of a batch, for training."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample


def affine(
    *,
    probability: float = 0.5,
    scale: tuple[float, float] = (0.9, 1.1),
    shift: float = 0.2,
    rotation: float = 180.0,
    shear: float = 5.0,
    flip: float = 0.5,
) -> Callable[[Tensor, int], Tensor]:
    r"""Make an augmentation by random scales, shifts, rotations, shears and flips.

    The defaults are the public code's of high-res-mapping. Drawn for each sample alone; read
    linearly, with zeros outside. In one axis there is no rotation or shear; in three they are in
    the plane of the last two.

    Parameters
    ----------
    probability
        Of a sample being changed, but for its flip.
    scale
        Least and largest factor, of each axis.
    shift
        Most, as a share of the extent, to either side, on each axis.
    rotation, shear
        Most, in degrees, to either side.
    flip
        Probability of turning the last axis around.

    Returns
    -------
    callable
        ``(inputs, seed) -> inputs`` of a batch (sample, channel, \*space).

    Raises
    ------
    ValueError
        If a probability is none, or the scales are not positive.

    Examples
    --------
    >>> import ifa, torch
    >>> change = ifa.refine.affine(probability=0.0, flip=1.0)
    >>> change(torch.tensor([[[1.0, 2.0, 3.0]]]), 0)
    tensor([[[3., 2., 1.]]])
    """
    where = "ifa.refine.affine"
    for name, value in (("probability", probability), ("flip", flip)):
        if not 0 <= value <= 1:
            raise ValueError(f"{where}: expected {name} from 0 to 1, got {value!r}.")
    if not 0 < scale[0] <= scale[1]:
        raise ValueError(f"{where}: expected scale as two positive factors, got {scale!r}.")
    options = {"probability": probability, "scale": scale, "shift": shift, "flip": flip}
    return partial(_affine, **options, turn=math.radians(rotation), shear=math.radians(shear))


def _affine(
    inputs: Tensor,
    seed: int,
    *,
    probability: float,
    scale: tuple[float, float],
    shift: float,
    turn: float,
    shear: float,
    flip: float,
) -> Tensor:
    drawn, samples, axes = np.random.default_rng(seed), len(inputs), inputs.ndim - 2
    changed = drawn.random(samples) < probability
    flipped = drawn.random(samples) < flip
    scales = drawn.uniform(*scale, (samples, axes))
    shifts = drawn.uniform(-shift, shift, (samples, axes))
    turns, shears = drawn.uniform(-turn, turn, samples), drawn.uniform(-shear, shear, samples)
    result = inputs.clone()
    if changed.any():
        which = torch.from_numpy(np.flatnonzero(changed)).to(inputs.device)
        given = (scales[changed], shifts[changed], turns[changed], shears[changed])
        result[which] = _moved(inputs[which], *given)
    turned = torch.from_numpy(flipped).to(inputs.device).reshape(-1, *[1] * (axes + 1))
    return torch.where(turned, result.flip(-1), result)


def _moved(
    inputs: Tensor, scales: np.ndarray, shifts: np.ndarray, turns: np.ndarray, shears: np.ndarray
) -> Tensor:
    """Read a batch where its matrices, from the result to what is read, say."""
    axes = inputs.ndim - 2
    if axes == 1:  # a picture of one row
        one = np.ones((len(scales), 1))
        wide = (np.hstack([one, scales]), np.hstack([0 * one, shifts]))
        return _moved(inputs[:, :, None], *wide, 0 * turns, 0 * shears)[:, :, 0]
    space = inputs.shape[2:]
    matrix = np.tile(np.eye(axes, axes + 1), (len(scales), 1, 1))
    # torch's order is x first, and its unit half the extent: rotations keep lengths in positions
    cos, sin, lean = np.cos(turns), np.sin(turns), np.tan(shears)
    across = space[-2] / space[-1]
    matrix[:, 0, 0], matrix[:, 0, 1] = cos, (lean * cos - sin) * across
    matrix[:, 1, 0], matrix[:, 1, 1] = sin / across, lean * sin + cos
    matrix[:, :, :axes] /= scales[:, None, ::-1]
    matrix[:, :, axes] = 2 * shifts[:, ::-1]
    grid = affine_grid(torch.from_numpy(matrix).to(inputs), list(inputs.shape), align_corners=False)
    return grid_sample(inputs, grid, align_corners=False)
