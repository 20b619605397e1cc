"""The region of interest: where a map is largest."""

import torch
from torch import Tensor

from ifa.refine.given import check_fraction
from ifa.stages import wide


def region_of_interest(values: Tensor, *, fraction: float = 0.15) -> Tensor:
    r"""Find where a map is above its quantile: the given share of positions, less where values tie.

    .. math:: \{p : L_p > Q_{1 - fraction}(L)\}

    Where none is above, because the largest value is held by more than that share, all that hold it
    are the region: it is never empty. Per example: lift it with `torch.func.vmap`.

    Parameters
    ----------
    values : (\*space)
        A map, of any number of axes, signed.
    fraction
        Of all positions, above 0 and below 1. The quantile is linear between values.

    Returns
    -------
    (\*space), bool
        Nowhere true for a map with NaN.

    Raises
    ------
    ValueError
        If the fraction is none.

    References
    ----------
    Tagaris, Sdraka & Stafylopatis 2019, "High-resolution class activation mapping", ICIP, by its
    public code high-res-mapping.

    Examples
    --------
    >>> import ifa, torch
    >>> ifa.refine.region_of_interest(torch.tensor([0.0, 1.0, 3.0, 2.0]), fraction=0.5)
    tensor([False, False,  True,  True])
    """
    check_fraction("ifa.refine.region_of_interest", "fraction", fraction)
    ordered = wide(values).flatten().sort().values
    # rounded, because 0.85 · 20 may be a little less than 17
    place = round((1 - fraction) * (len(ordered) - 1), 9)
    below = int(place)
    limit = torch.lerp(ordered[below], ordered[min(below + 1, len(ordered) - 1)], place - below)
    above = wide(values) > limit
    # NaN comes last in an order: with it there is no region
    known = ~ordered[-1].isnan()
    return torch.where(above.any() | ~known, above, wide(values) >= limit) & known
