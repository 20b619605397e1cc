"""Grad-CAM++: positive gradients, each position weighed so that small objects count alike."""

import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor


def gradcam_plus_plus(
    activations: Float[Tensor, "channel *space"], gradients: Float[Tensor, "channel *space"]
) -> Float[Tensor, " channel"]:
    r"""Weigh each channel by its positive gradients, with pixel-wise coefficients.

    .. math::

        w_k = \sum_p \alpha_k(p) \max(0, G_k(p)), \qquad
        \alpha_k(p) = \frac{G_k(p)^2}{2 G_k(p)^2 + G_k(p)^3 \sum_q A_k(q)}
                    = \frac{1}{2 + G_k(p) \sum_q A_k(q)}

    with :math:`\alpha = 0` where :math:`G = 0`. The paper's second and third derivatives are those
    of an exponential of the score, which leaves first derivatives only. The shortened fraction
    needs no epsilon for activations that are not negative, and so holds for gradients of any size.

    Parameters
    ----------
    activations : (channel, \*space)
        Feature maps A of one example.
    gradients : (channel, \*space)
        Derivative G of the score with respect to A, in score units per activation unit.

    Returns
    -------
    (channel,)
        Weights, in the unit of `gradients`. Not negative where the activations are not.

    References
    ----------
    Chattopadhyay et al. 2018, "Grad-CAM++: generalized gradient-based visual explanations for deep
    convolutional networks", equations 18 and 19. arXiv:1710.11063. torch-cam's result of this name
    is the sum of cubed gradients instead (defect D1-1).

    Examples
    --------
    >>> import torch
    >>> gradcam_plus_plus(torch.ones(1, 3), torch.tensor([[1.0, -1.0, 0.0]]))
    tensor([0.2000])
    """
    total = reduce(activations, "channel ... -> channel", "sum")
    total = total.reshape(total.shape + (1,) * (activations.ndim - 1))
    denominator = 2 + gradients * total
    # signed activations can bring the denominator to zero; keep its sign and a least size
    least = torch.finfo(gradients.dtype).eps
    safe = torch.where(denominator < 0, denominator.clamp(max=-least), denominator.clamp(min=least))
    return reduce(gradients.relu() / safe, "channel ... -> channel", "sum")
