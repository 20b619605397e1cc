"""Hit rate: whether the maximum lies where it matters, in layers of graded importance."""

import math

import torch
from torch import Tensor

from ifa.evaluate.regions import Weights, maximal, unless_constant, worth


def hit_rate(
    map: Tensor,
    levels: Tensor,
    weights: Weights,
    *,
    unlisted: float = math.nan,
    tolerance: float = 1e-6,
) -> Tensor:
    r"""Average the weights of the levels that a map's maximal positions lie in.

    .. math:: \mathrm{HR} = \frac{1}{|P|} \sum_{p \in P} w_{l(p)}, \qquad
              P = \{p : h_p \ge h_{\max} - \varepsilon (h_{\max} - h_{\min})\}

    All maximal positions count. Per example: lift it over a batch with `torch.func.vmap`.

    Parameters
    ----------
    map : (\*space) or (block, \*space)
        Any number of axes.
    levels : (\*space)
        Whole numbers: the level of each position, of the map's shape or of its last axes.
    weights
        (level,): what a hit in level 0, 1, ... is worth; or a mapping of levels to that. Hit rate 1
        of the source is ``{255: 3, 128: 2, 64: 1, 32: 0}`` with ``unlisted=-1``, hit rate 2
        ``{255: 1, 128: 0, 64: 0, 32: 0}`` with the same.
    unlisted
        What a hit in any other level is worth. NaN: it is not known.
    tolerance
        The :math:`\varepsilon` up to which values are the maximum, as a share of the map's range.

    Returns
    -------
    ()
        In the weights' unit, between the least and the largest. NaN for a map that is constant or
        not finite, and where a maximal position is of a level whose weight is not known.

    Raises
    ------
    ValueError
        If the levels are no whole numbers of the map's shape.

    References
    ----------
    Saliency maps against layered skin ultrasound, by the project SaliencyCNNAnalysis: hit rate.

    Examples
    --------
    >>> import torch
    >>> map = torch.tensor([[0.1, 0.9], [0.9, 0.2]])
    >>> levels = torch.tensor([[0, 128], [255, 0]])
    >>> hit_rate(map, levels, {255: 3, 128: 2}, unlisted=-1)
    tensor(2.5000, dtype=torch.float64)
    """
    gain = worth("ifa.evaluate.hit_rate", map, levels, weights, unlisted)
    values = map.double().flatten()
    top = maximal(values, tolerance)
    # a level without a weight matters at a maximal position only
    total = torch.where(top, gain, 0.0).sum()
    return unless_constant(values, total / top.sum())
