"""Relevance mass: which share of a map's evidence lies in a region."""

import torch
from torch import Tensor

from ifa.evaluate.regions import against, unless_zero


def relevance_mass(map: Tensor, mask: Tensor) -> Tensor:
    r"""Divide the positive evidence inside a mask by all positive evidence.

    .. math:: \frac{\sum_{p \in M} \max(0, h_p)}{\sum_p \max(0, h_p)}

    Per example: lift it over a batch with `torch.func.vmap`.

    Parameters
    ----------
    map : (\*space) or (block, \*space)
        Any number of axes. What is negative speaks against the target and has no mass; give the
        absolute value where both count.
    mask : (\*space)
        Boolean, of the map's shape or of its last axes.

    Returns
    -------
    ()
        In [0, 1]; the mask's share of the positions for a constant map. NaN for an empty mask, and
        for a map without positive values or not finite.

    Raises
    ------
    ValueError
        If the mask is not boolean or not of the map's shape.

    References
    ----------
    Arras, Osman & Samek 2022, "CLEVR-XAI: a benchmark dataset for the ground truth evaluation of
    neural network explanations", relevance mass accuracy. arXiv:2003.07258

    Examples
    --------
    >>> import torch
    >>> relevance_mass(torch.tensor([3.0, 1.0, -5.0]), torch.tensor([True, False, True]))
    tensor(0.7500, dtype=torch.float64)
    """
    values, region = against("ifa.evaluate.relevance_mass", map, mask)
    positive = values.clamp(min=0)
    share = torch.where(region, positive, 0.0).sum() / positive.sum()
    return unless_zero(values, share.where(region.any(), float("nan")))
