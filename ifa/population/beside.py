"""What an analysis sees besides what is weighed: the channels' own importance, and positions."""

from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ifa.basis import Dictionary
from ifa.basis.dictionaries import encode, over_channels
from ifa.reduce.population import summarize
from ifa.reduce.second_moments import Rows
from ifa.stages import weigh
from ifa.taps.features import Observation
from ifa.types import Features, Kernel, Step


class Beside(NamedTuple):
    """What is seen of the features of one example and target."""

    whole: Tensor  # (), float64, importance of all channels together; 0 where nobody asks
    gradients: Tensor  # (position, channel), of some positions, or of none


def step_beside(
    kernel: Kernel | None, reduction: Literal["sum", "mean"], index: Tensor | None
) -> Step | None:
    """Make a step from `Features` to `Beside`, for a basis, or for positions; None for neither."""
    if kernel is None and index is None:
        return None
    weighing = None if kernel is None else weigh(kernel)
    return partial(_look, weighing=weighing, mean=reduction == "mean", index=index)


def _look(features: Features, *, weighing: Step | None, mean: bool, index: Tensor | None) -> Beside:
    activations, gradients, _ = features
    whole = activations.new_zeros((), dtype=torch.float64)
    if weighing is not None:
        # summed as that of atoms is: channels by themselves leave nothing
        reduction = "mean" if mean else "sum"
        whole = summarize(weighing(features), reduction=reduction).importance.sum()
    if index is None:
        return Beside(whole, gradients.new_zeros(0, len(gradients)))
    return Beside(whole, _rows(gradients, index))


def chosen(positions: int, most: int | None, seed: int) -> Tensor:
    """Draw which positions are looked at, without replacement, in their order."""
    if most is None or most >= positions:
        return torch.arange(positions)
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(positions, generator=generator)[:most].sort().values


def rows_of(
    seen: Observation,
    layer: int,
    index: Tensor,
    sound: Tensor,
    basis: Dictionary | None,
    centred: bool,
) -> Rows:
    """Return the rows of a batch for `ifa.reduce.second_moments`, of finite samples.

    Parameters
    ----------
    seen
        Of which each result is a pair whose second is `Beside`.
    layer
        Its number.
    index
        Which positions.
    sound : (sample,) or (target, sample)
        Whether a map is finite.
    basis
        In whose atoms they are wanted.
    centred
        Whether gradients are taken less their mean over the targets, of which there are several.
    """
    slopes = seen.result[layer][1].gradients  # (..., sample, position, channel)
    values = torch.func.vmap(partial(_rows, index=index))(seen.activations[layer])
    if centred and slopes.ndim == 4 and len(slopes) > 1:
        slopes = slopes - slopes.mean(0, dtype=torch.float64)
    samples = sound.reshape(-1, sound.shape[-1]).all(0)
    samples = samples & values.isfinite().flatten(1).all(1)
    lead = slopes.movedim(-3, 0).flatten(1)
    samples = samples & lead.isfinite().all(1)
    values, slopes = values[samples].flatten(0, 1), slopes[..., samples, :, :]
    slopes = slopes.reshape(-1, slopes.shape[-1])
    if basis is None:
        return Rows(values, slopes)
    return Rows(encode(basis, values.T).T, over_channels(basis.atoms, slopes.T).T)


def _rows(values: Tensor, index: Tensor) -> Tensor:
    """Take some positions of (channel, *space) as rows."""
    return values.reshape(len(values), -1).index_select(1, index.to(values.device)).T
