"""Pointing game: whether the maximum of a map lies in a region."""

from torch import Tensor

from ifa.evaluate.regions import against, maximal, unless_constant


def pointing_game(map: Tensor, mask: Tensor, *, tolerance: float = 1e-6) -> Tensor:
    r"""Tell whether a map's maximum lies inside a mask.

    .. math:: \frac{|P \cap M|}{|P|}, \qquad P = \{p : h_p = h_{\max}\}

    One or zero, unless several positions share the maximum: then the share of these inside, which
    is the chance of a hit if one of them is picked. Per example: lift it over a batch with
    `torch.func.vmap`; the share of hits is a mean over samples.

    Parameters
    ----------
    map : (\*space) or (block, \*space)
        Any number of axes.
    mask : (\*space)
        Boolean, of the map's shape or of its last axes. Where near misses are hits, as within 15
        pixels in the source, dilate it first.
    tolerance
        Values this close to the maximum share it, as a share of the map's range.

    Returns
    -------
    ()
        In [0, 1]. NaN for an empty mask, which cannot be hit, and for a map that is constant or not
        finite.

    Raises
    ------
    ValueError
        If the mask is not boolean or not of the map's shape.

    References
    ----------
    Zhang et al. 2018, "Top-down neural attention by excitation backprop", section 4.1.
    doi:10.1007/s11263-017-1059-x

    Examples
    --------
    >>> import torch
    >>> pointing_game(torch.tensor([0.1, 0.9]), torch.tensor([False, True]))
    tensor(1., dtype=torch.float64)
    """
    values, region = against("ifa.evaluate.pointing_game", map, mask)
    top = maximal(values, tolerance)
    share = (top & region).sum().double() / top.sum()
    return unless_constant(values, share.where(region.any(), float("nan")))
