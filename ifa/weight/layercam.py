"""Layer-CAM: every position has its own weight, the gradient there where it is positive."""

from jaxtyping import Float
from torch import Tensor


def layercam(
    activations: Float[Tensor, "channel *space"], gradients: Float[Tensor, "channel *space"]
) -> Float[Tensor, "channel *space"]:
    r"""Weigh each channel, at each position, by the positive part of the gradient there.

    .. math:: w_{ki} = \max\left(0, \frac{\partial y}{\partial A_{ki}}\right)

    Parameters
    ----------
    activations : (channel, \*space)
        Feature maps A of one example. Unused; kept so that every kernel has one signature.
    gradients : (channel, \*space)
        Derivative of the score y with respect to A, in score units per activation unit.

    Returns
    -------
    (channel, \*space)
        Weights, in the unit of `gradients`, not negative.

    References
    ----------
    Jiang et al. 2021, "LayerCAM: exploring hierarchical class activation maps for localization",
    equations 5 and 6. doi:10.1109/TIP.2021.3089943

    Examples
    --------
    >>> import torch
    >>> layercam(torch.ones(1, 2), torch.tensor([[1.0, -2.0]]))
    tensor([[1., 0.]])
    """
    del activations
    return gradients.relu()
