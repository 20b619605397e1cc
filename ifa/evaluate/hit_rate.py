"""Hit rate: whether the maximum lies where it matters, in layers of graded importance."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ifa.evaluate.regions import maximal, unless_constant


def hit_rate(
    map: Tensor,
    levels: Tensor,
    weights: Tensor | Sequence[float] | Mapping[int, float],
    *,
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
        of the source is ``{255: 3, 128: 2, 64: 1, 32: 0, 0: -1}``, hit rate 2 ``{255: 1, 128: 0,
        64: 0, 32: 0, 0: -1}``.
    tolerance
        The :math:`\varepsilon` up to which values are the maximum, as a share of the map's range.

    Returns
    -------
    ()
        In the weights' unit, between their least and largest. NaN for a map that is constant or not
        finite, and where a maximal position is of a level without a weight.

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
    >>> hit_rate(map, levels, {255: 3, 128: 2, 0: -1})
    tensor(2.5000, dtype=torch.float64)
    """
    whole = not (levels.is_floating_point() or levels.is_complex() or levels.dtype == torch.bool)
    fits = levels.ndim <= map.ndim and map.shape[map.ndim - levels.ndim :] == levels.shape
    if not whole or not fits:
        raise ValueError(
            f"ifa.evaluate.hit_rate: expected levels as whole numbers of the map's shape "
            f"{tuple(map.shape)}, or of its last axes, got {levels.dtype} {tuple(levels.shape)}."
        )
    known, worth = _table(weights, map.device)
    values = map.double().flatten()
    at = levels.expand(map.shape).flatten().long()
    place = torch.searchsorted(known, at).clamp(max=len(known) - 1)
    gain = torch.where(known[place] == at, worth[place], torch.nan)
    top = maximal(values, tolerance)
    # a level without a weight matters at a maximal position only
    total = torch.where(top, gain, 0.0).sum()
    return unless_constant(values, total / top.sum())


def _table(
    weights: Tensor | Sequence[float] | Mapping[int, float], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return levels in ascending order, and their weights."""
    if isinstance(weights, Mapping):
        known = sorted(weights)
        worth = torch.tensor([weights[level] for level in known], dtype=torch.float64)
        levels = torch.tensor(known)
    else:
        worth = torch.as_tensor(weights, dtype=torch.float64)
        levels = torch.arange(worth.numel())
    if worth.ndim != 1 or len(worth) == 0:
        raise ValueError(
            "ifa.evaluate.hit_rate: expected weights (level,) or a mapping of levels to weights, "
            f"got shape {tuple(worth.shape)}. Give one weight for each level."
        )
    return levels.to(device), worth.to(device)
