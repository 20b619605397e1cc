"""Coverage: how strong a map is in a region, and how much leaks out of it."""

from typing import NamedTuple

import torch
from torch import Tensor

from ifa.evaluate.regions import Weights, against, unless_zero, worth


class Coverage(NamedTuple):
    """Mean of a map in and out of a region."""

    inside: Tensor  # (), in the map's unit; NaN for an empty mask
    outside: Tensor  # the same, leakage; NaN for a full mask


def coverage(map: Tensor, mask: Tensor, *, weights: Weights | None = None) -> Coverage:
    r"""Average a map inside and outside of a mask.

    .. math:: \frac{1}{|M|} \sum_{p \in M} w_p \, h_p, \qquad
              \frac{1}{|\bar M|} \sum_{p \notin M} h_p

    The map is taken as it is: on the common scale of a population, means of different maps can be
    compared. Per example: lift it over a batch with `torch.func.vmap`.

    Parameters
    ----------
    map : (\*space) or (block, \*space)
        Any number of axes.
    mask : (\*space)
        Boolean, of the map's shape or of its last axes. With weights, whole numbers: the level of
        each position, as in `hit_rate`; the mask is where the level has a weight.
    weights
        (level,): the :math:`w` of levels 0, 1, ...; or a mapping of levels to that. None is 1. The
        source's graded form is ``{255: 1, 128: 0.5, 64: 0.25}``. As there, the sum is divided by
        how many positions the mask has, not by their weights: a map of ones has their mean.

    Returns
    -------
    Coverage
        `inside` and `outside`, in the map's unit. NaN where there is no such position, and both for
        a map that is zero everywhere or not finite.

    Raises
    ------
    ValueError
        If the mask is not boolean, or not levels with weights, or not of the map's shape.

    References
    ----------
    Saliency maps against layered skin ultrasound, by the project SaliencyCNNAnalysis: coverage by
    heat map.

    Examples
    --------
    >>> import torch
    >>> found = coverage(torch.tensor([0.5, 1.0, 0.0]), torch.tensor([True, True, False]))
    >>> found.inside, found.outside
    (tensor(0.7500, dtype=torch.float64), tensor(0., dtype=torch.float64))
    >>> levels = torch.tensor([128, 255, 0])
    >>> coverage(torch.tensor([0.5, 1.0, 0.0]), levels, weights={255: 1, 128: 0.5}).inside
    tensor(0.6250, dtype=torch.float64)
    """
    where, weight = "ifa.evaluate.coverage", None
    if weights is not None:
        weight = worth(where, map, mask, weights, torch.nan)
        mask = ~weight.isnan().reshape(map.shape)
    values, region = against(where, map, mask)
    graded = values if weight is None else torch.where(region, weight * values, values)
    means = (torch.where(part, graded, 0.0).sum() / part.sum() for part in (region, ~region))
    return Coverage(*(unless_zero(values, mean) for mean in means))
