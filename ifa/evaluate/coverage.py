"""Coverage: how strong a map is in a region, and how much leaks out of it."""

from typing import NamedTuple

import torch
from torch import Tensor

from ifa.evaluate.regions import against, unless_zero


class Coverage(NamedTuple):
    """Mean of a map in and out of a region."""

    inside: Tensor  # (), in the map's unit; NaN for an empty mask
    outside: Tensor  # the same, leakage; NaN for a full mask


def coverage(map: Tensor, mask: Tensor) -> Coverage:
    r"""Average a map inside and outside of a mask.

    .. math:: \frac{1}{|M|} \sum_{p \in M} h_p, \qquad
              \frac{1}{|\bar M|} \sum_{p \notin M} h_p

    The map is taken as it is: on the common scale of a population, means of different maps can be
    compared. Per example: lift it over a batch with `torch.func.vmap`.

    Parameters
    ----------
    map : (\*space) or (block, \*space)
        Any number of axes.
    mask : (\*space)
        Boolean, of the map's shape or of its last axes.

    Returns
    -------
    Coverage
        `inside` and `outside`, in the map's unit. NaN where there is no such position, and both for
        a map that is zero everywhere or not finite.

    Raises
    ------
    ValueError
        If the mask is not boolean or not of the map's shape.

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
    """
    values, region = against("ifa.evaluate.coverage", map, mask)
    means = (torch.where(part, values, 0.0).sum() / part.sum() for part in (region, ~region))
    return Coverage(*(unless_zero(values, mean) for mean in means))
