"""Eigen-CAM and EigenGrad-CAM: the direction in which the channels vary most over space."""

import torch
from jaxtyping import Float
from torch import Tensor

from ifa.declared import declare


@declare(gradients=False)
def eigencam(
    activations: Float[Tensor, "channel *space"],
    gradients: Float[Tensor, "channel *space"],
    *,
    centered: bool = True,
) -> Float[Tensor, " channel"]:
    r"""Weigh channels by the first right singular vector of the (space, channel) matrix.

    .. math:: R = U S V^\top, \qquad w = v_1, \qquad R_{pk} = A_k(p) - \bar A_k

    No target is involved. The weights' map :math:`\sum_k w_k A_k(p)` is the projection
    :math:`(R v_1)_p` plus the constant :math:`\sum_k w_k \bar A_k`; with ``centered=False`` nothing
    is subtracted and it is the projection itself. The sign is the one with which the projection
    correlates positively with :math:`\sum_k A_k`, whatever the order of the channels.

    Parameters
    ----------
    activations : (channel, \*space)
        Feature maps A of one example.
    gradients : (channel, \*space)
        Unused; kept so that every kernel has one signature.
    centered
        Whether each channel's mean over space is subtracted first. Bind it with
        `functools.partial`.

    Returns
    -------
    (channel,)
        Weights of unit length, zeros where no channel varies, NaN where an activation is not
        finite. The map has the activations' unit.

    References
    ----------
    Muhammad & Yeasin 2020, "Eigen-CAM: class activation map using principal components".
    arXiv:2008.00299

    Examples
    --------
    >>> import torch
    >>> eigencam(torch.tensor([[3.0, -3.0], [4.0, -4.0]]), torch.zeros(2, 2))
    tensor([0.6000, 0.8000])
    """
    del gradients
    return first_direction(activations, centered)


def eigengradcam(
    activations: Float[Tensor, "channel *space"],
    gradients: Float[Tensor, "channel *space"],
    *,
    centered: bool = True,
) -> Float[Tensor, "channel *space"]:
    r"""Weigh as `eigencam`, on gradient times activation: :math:`w_k(p) = (v_1)_k \, G_k(p)`.

    The weights' map :math:`\sum_k (v_1)_k G_k(p) A_k(p)` is the projection of :math:`G \odot A` on
    its first direction, plus the constant that centring takes away. The sign is the one with which
    it correlates positively with :math:`\sum_k G_k \odot A_k`.

    Parameters
    ----------
    activations : (channel, \*space)
        Feature maps A of one example.
    gradients : (channel, \*space)
        Derivative G of the score with respect to A, in score units per activation unit.
    centered
        As in `eigencam`.

    Returns
    -------
    (channel, \*space)
        Weights, in the unit of `gradients`, signed.

    References
    ----------
    Gildenblat et al. 2021, pytorch-grad-cam, "EigenGradCAM", after Muhammad & Yeasin 2020.

    Examples
    --------
    >>> import torch
    >>> eigengradcam(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 3.0]]))
    tensor([[1., 3.]])
    """
    direction = first_direction(gradients * activations, centered)
    return direction.reshape(direction.shape + (1,) * (gradients.ndim - 1)) * gradients


def first_direction(values: Tensor, centered: bool = True) -> Tensor:
    """First right singular vector of (space, channel), its sign fixed; zero if nothing varies.

    NaN in, NaN out, as everywhere; the decomposition itself would raise, also for other samples.
    """
    rows = values.reshape(len(values), -1).T  # (space, channel)
    finite = rows.isfinite().all()
    rows = torch.where(finite, rows, torch.zeros_like(rows))
    largest = rows.abs().amax()
    rows = rows / torch.where(largest > 0, largest, torch.ones_like(largest))
    matrix = rows - rows.mean(0) if centered else rows
    _, singular, right = torch.linalg.svd(matrix, full_matrices=False)
    direction = right[0]
    reference = rows.sum(1) - rows.sum(1).mean()
    agreement = (matrix @ direction * reference).sum()
    direction = torch.where(agreement < 0, -direction, direction)
    # of maps that are constant up to rounding, no direction is first
    size = rows.shape[0] * torch.finfo(rows.dtype).eps
    direction = torch.where(singular[0] > size, direction, torch.zeros_like(direction))
    return torch.where(finite, direction, torch.full_like(direction, torch.nan))
