"""BagCAM: each channel's evidence, weighed by what the channel says for the target overall."""

import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor


def bagcam(
    activations: Float[Tensor, "channel *space"], gradients: Float[Tensor, "channel *space"]
) -> Float[Tensor, "channel *space"]:
    r"""Weigh each position by its gradient, times the mean of one plus the channel's evidence.

    The map is a sum of rectified terms,

    .. math::

        L(p) = \sum_k \max\bigl(0, m_k \, G_k(p) A_k(p)\bigr), \qquad
        m_k = \frac{1}{Z} \sum_q \bigl(1 + G_k(q) A_k(q)\bigr).

    As weights, :math:`w_k(p) = m_k G_k(p)` where the term is positive, and 0 elsewhere: their
    product with the activations, summed over channels, is that map.

    Parameters
    ----------
    activations : (channel, \*space)
        Feature maps A of one example.
    gradients : (channel, \*space)
        Derivative G of the score with respect to A, in score units per activation unit.

    Returns
    -------
    (channel, \*space)
        Weights; their map is not negative. The sum of 1 and a score is the authors': it is not
        free of units.

    References
    ----------
    Zhu et al. 2022, "Bagging regional classification activation maps for weakly supervised object
    localization". arXiv:2207.07818, by the authors' public code.

    Examples
    --------
    >>> import torch
    >>> bagcam(torch.tensor([[1.0, 1.0]]), torch.tensor([[2.0, -1.0]]))
    tensor([[3., 0.]])
    """
    mean = 1 + reduce(gradients * activations, "channel ... -> channel", "mean")
    mean = mean.reshape(mean.shape + (1,) * (activations.ndim - 1))
    # by sign, because the product of two tiny numbers is zero
    positive = mean.sign() * gradients.sign() * activations.sign() > 0
    return torch.where(positive, mean * gradients, torch.zeros_like(gradients))
