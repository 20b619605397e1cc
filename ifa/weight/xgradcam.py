"""XGrad-CAM: the mean gradient of a channel, weighed by where the channel is active."""

import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor


def xgradcam(
    activations: Float[Tensor, "channel *space"], gradients: Float[Tensor, "channel *space"]
) -> Float[Tensor, " channel"]:
    r"""Weigh each channel by its gradients, averaged with its own activations as weights.

    .. math:: w_k = \frac{\sum_p G_k(p) A_k(p)}{\sum_q A_k(q)}

    A channel whose activations cancel has no such mean: the size of its denominator is kept above
    1e-7 of :math:`\sum_q |A_k(q)|`, with its sign. A channel of zeros has weight zero.

    Parameters
    ----------
    activations : (channel, \*space)
        Feature maps A of one example.
    gradients : (channel, \*space)
        Derivative G of the score with respect to A, in score units per activation unit.

    Returns
    -------
    (channel,)
        Weights, in the unit of `gradients`, signed.

    References
    ----------
    Fu et al. 2020, "Axiom-based Grad-CAM", equation 11. arXiv:2008.02312

    Examples
    --------
    >>> import torch
    >>> xgradcam(torch.tensor([[1.0, 3.0]]), torch.tensor([[2.0, 4.0]]))
    tensor([3.5000])
    """
    size = reduce(activations.abs(), "channel ... -> channel", "sum")
    shape = size.shape + (1,) * (activations.ndim - 1)
    # shares of each channel's activation, so that neither huge nor tiny activations overflow
    share = activations / torch.where(size > 0, size, torch.ones_like(size)).reshape(shape)
    total = reduce(share, "channel ... -> channel", "sum")
    safe = torch.where(total < 0, total.clamp(max=-1e-7), total.clamp(min=1e-7))
    return reduce(gradients * share, "channel ... -> channel", "sum") / safe
