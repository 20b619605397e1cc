"""Relevance rank: whether the strongest positions of a map are those of a region."""

from torch import Tensor

from ifa.evaluate.regions import against, unless_constant


def relevance_rank(map: Tensor, mask: Tensor) -> Tensor:
    r"""Give the share of a mask's K positions that is among the K largest of a map.

    .. math:: \frac{|\mathrm{top}_K(h) \cap M|}{K}, \qquad K = |M|

    Where equal values compete for the last of the K places, each has the same part of them. Per
    example: lift it over a batch with `torch.func.vmap`.

    Parameters
    ----------
    map : (\*space) or (block, \*space)
        Any number of axes.
    mask : (\*space)
        Boolean, of the map's shape or of its last axes.

    Returns
    -------
    ()
        In [0, 1]; a random map has the mask's share of the positions. NaN for an empty mask, and
        for a map that is constant or not finite.

    Raises
    ------
    ValueError
        If the mask is not boolean or not of the map's shape.

    References
    ----------
    Arras, Osman & Samek 2022, "CLEVR-XAI: a benchmark dataset for the ground truth evaluation of
    neural network explanations", relevance rank accuracy. arXiv:2003.07258

    Examples
    --------
    >>> import torch
    >>> mask = torch.tensor([True, True, False, False])
    >>> relevance_rank(torch.tensor([0.9, 0.1, 0.5, 0.2]), mask)
    tensor(0.5000, dtype=torch.float64)
    """
    values, region = against("ifa.evaluate.relevance_rank", map, mask)
    places = region.sum()
    ordered = values.sort(descending=True).values
    last = ordered.gather(0, (places - 1).clamp(min=0)[None])
    above, level = values > last, values == last
    part = (places - above.sum()).double() / level.sum()
    kept = (above & region).sum() + part * (level & region).sum()
    return unless_constant(values, (kept / places).where(places > 0, float("nan")))
