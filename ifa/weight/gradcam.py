"""Grad-CAM: a channel's weight is the mean gradient of the score over space."""

from einops import reduce
from jaxtyping import Float
from torch import Tensor

from ifa.declared import declare


@declare(linear=True)
def gradcam(
    activations: Float[Tensor, "channel *space"], gradients: Float[Tensor, "channel *space"]
) -> Float[Tensor, " channel"]:
    r"""Weigh each channel by its spatially averaged gradient.

    .. math:: \alpha_k = \frac{1}{Z} \sum_i \frac{\partial y}{\partial A_{ki}}

    Parameters
    ----------
    activations : (channel, \*space)
        Feature maps A of one example. Unused; kept so that every kernel has one signature.
    gradients : (channel, \*space)
        Derivative of the score y with respect to A, in score units per activation unit.

    Returns
    -------
    (channel,)
        Weights, in the unit of `gradients`. Signed: rectify the map, not the weights.

    References
    ----------
    Selvaraju et al. 2017, "Grad-CAM", equation 1. doi:10.1109/ICCV.2017.74

    Examples
    --------
    >>> import torch
    >>> slopes = torch.tensor([1.0, 3.0]).reshape(2, 1, 1)
    >>> gradcam(torch.ones(2, 4, 4), slopes.expand(2, 4, 4))
    tensor([1., 3.])
    """
    del activations
    return reduce(gradients, "channel ... -> channel", "mean")
