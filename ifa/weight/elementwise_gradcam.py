"""Element-wise Grad-CAM: keep, at each position, the channels that speak for the target there."""

import torch
from jaxtyping import Float
from torch import Tensor


def elementwise_gradcam(
    activations: Float[Tensor, "channel *space"], gradients: Float[Tensor, "channel *space"]
) -> Float[Tensor, "channel *space"]:
    r"""Weigh each position by its gradient where gradient times activation is positive.

    The map is :math:`L(p) = \sum_k \max(0, G_k(p) A_k(p))`, a sum of rectified terms. As weights,

    .. math:: w_k(p) = G_k(p) \, [G_k(p) A_k(p) > 0],

    whose product with the activations, summed over channels, is that map.

    Parameters
    ----------
    activations : (channel, \*space)
        Feature maps A of one example.
    gradients : (channel, \*space)
        Derivative G of the score with respect to A, in score units per activation unit.

    Returns
    -------
    (channel, \*space)
        Weights, in the unit of `gradients`; their map is not negative.

    References
    ----------
    Gildenblat et al. 2021, pytorch-grad-cam, "GradCAMElementWise".

    Examples
    --------
    >>> import torch
    >>> elementwise_gradcam(torch.tensor([[1.0, -1.0]]), torch.tensor([[2.0, 2.0]]))
    tensor([[2., 0.]])
    """
    # by sign, because the product of two tiny numbers is zero
    agrees = gradients.sign() * activations.sign() > 0
    return torch.where(agrees, gradients, torch.zeros_like(gradients))
