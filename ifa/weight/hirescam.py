"""HiResCAM, which IFA calls FullCAM: every position has its own weight, the gradient there."""

from jaxtyping import Float
from torch import Tensor

from ifa.declared import declare


@declare(linear=True)
def hirescam(
    activations: Float[Tensor, "channel *space"], gradients: Float[Tensor, "channel *space"]
) -> Float[Tensor, "channel *space"]:
    r"""Weigh each channel, at each position, by the gradient there.

    .. math:: w_{ki} = \frac{\partial y}{\partial A_{ki}}

    The map :math:`\sum_k w_k \odot A_k` sums to the score less its bias wherever what lies above
    the layer is linear in it. `fullcam` is this kernel under IFA's own name.

    Parameters
    ----------
    activations : (channel, \*space)
        Feature maps A of one example. Unused; kept so that every kernel has one signature.
    gradients : (channel, \*space)
        Derivative of the score y with respect to A, in score units per activation unit.

    Returns
    -------
    (channel, \*space)
        Weights, in the unit of `gradients`, signed.

    References
    ----------
    Draelos & Carin 2020, "Use HiResCAM instead of Grad-CAM for faithful explanations of
    convolutional neural networks". arXiv:2011.08891. As FullCAM: Li et al. 2024, "Integrated
    feature analysis". arXiv:2407.01142

    Examples
    --------
    >>> import torch
    >>> gradients = torch.tensor([[1.0, -2.0], [0.0, 3.0]])
    >>> hirescam(torch.ones(2, 2), gradients)
    tensor([[ 1., -2.],
            [ 0.,  3.]])
    """
    del activations
    return gradients


@declare(same_as=hirescam, linear=True)
def fullcam(
    activations: Float[Tensor, "channel *space"], gradients: Float[Tensor, "channel *space"]
) -> Float[Tensor, "channel *space"]:
    r"""Weigh each channel, at each position, by the gradient there: `hirescam` by IFA's own name.

    .. math:: w_{ki} = \frac{\partial y}{\partial A_{ki}}

    Parameters
    ----------
    activations, gradients : (channel, \*space)
        As in `hirescam`.

    Returns
    -------
    (channel, \*space)
        The same weights as those of `hirescam`.

    References
    ----------
    Li et al. 2024, "Integrated feature analysis". arXiv:2407.01142

    Examples
    --------
    >>> import torch
    >>> fullcam(torch.ones(1, 2), torch.tensor([[1.0, -2.0]]))
    tensor([[ 1., -2.]])
    """
    return hirescam(activations, gradients)
