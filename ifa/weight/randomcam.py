"""Random weights: the control that every other weighting has to beat."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ifa.declared import declare


@declare(gradients=False)
def randomcam(
    activations: Float[Tensor, "channel *space"],
    gradients: Float[Tensor, "channel *space"],
    *,
    seed: int = 0,
) -> Float[Tensor, " channel"]:
    r"""Weigh each channel at random: :math:`w_k \sim U(-1, 1)`, the same for every example.

    Parameters
    ----------
    activations : (channel, \*space)
        Feature maps of one example; only their number and type matter.
    gradients : (channel, \*space)
        Unused; kept so that every kernel has one signature.
    seed
        Of the weights. Bind it with `functools.partial`.

    Returns
    -------
    (channel,)
        Weights, without unit.

    Examples
    --------
    >>> import torch
    >>> randomcam(torch.ones(3, 4), torch.ones(3, 4)).abs().max() <= 1
    tensor(True)
    """
    del gradients
    weights = np.random.default_rng(seed).uniform(-1, 1, len(activations))
    return torch.tensor(weights, dtype=activations.dtype, device=activations.device)
