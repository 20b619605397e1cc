"""Retention: what is left of the score when only a share of one sign's evidence is kept."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from ifa.baseline import Baseline
from ifa.checks import check_choice
from ifa.declared import declare
from ifa.evaluate.curves import Curve, curve, fractions_of, positions_of, ranked
from ifa.evaluate.masking import Case
from ifa.score import probability
from ifa.types import Inputs, Output, Score, Target

FRACTIONS = tuple(np.geomspace(0.01, 1, 16).tolist())
_SIGNS = {"positive": 1.0, "negative": -1.0}


@declare(takes="maps")
def retention(
    model: nn.Module,
    inputs: Inputs,
    maps: Any,
    target: Target = None,
    *,
    by: Literal["positive", "negative", "absolute"] = "positive",
    keep: bool = True,
    fraction: Sequence[float] = FRACTIONS,
    score: Score = probability,
    baseline: Baseline = 0.0,
    chunk: int | None = None,
    output: Output = None,
    grid_of: str | int | None = None,
) -> Curve:
    r"""Keep or remove the positions of the largest positive, negative or absolute map values.

    .. math:: s_k = y(x \odot S_k + b \odot (1 - S_k)), \qquad
              S_k = \{p : \operatorname{rank}(v_p) < \lceil f_k n \rceil,\ v_p > 0\}

    with :math:`v = h`, :math:`-h`, or :math:`|h|`, of which zeros are taken as well; to remove is
    to take :math:`1 - S_k`. Fractions are of all n positions, so that curves of different maps can
    be compared: once a sign is used up, its curve stays where it is.

    Parameters
    ----------
    model, inputs, target, chunk, output, grid_of
        As in `deletion`.
    maps : (sample, \*space) or (sample, block, \*space)
        Signed, at the inputs' size; see `deletion` for blocks and targets.
    by
        Which evidence is ranked: ``"positive"``, ``"negative"`` or ``"absolute"``.
    keep
        Keep the first of the ranking, or remove them and keep all others.
    fraction
        Of all positions kept or removed, rising, in (0, 1]. 0 is put before them, and 1 after them.
    score
        ``(output of one example, target) -> scalar``; the softmax probability by default. The
        measures by absolute value are accuracies in the paper: give a score that is 1 where the
        prediction is the target, and the labels as targets.
    baseline
        What is removed is set to this: as in `deletion`. The paper blurs.

    Returns
    -------
    Curve
        `fraction` and `score` (sample, point), from nothing to everything kept or removed, and
        `auc` (sample,); with targets (target, sample) the target axis is first. High is good for
        keeping positive or absolute values and for removing negative ones; low is good for the
        others. NaN where the map is constant or not finite, or has no value of the sign.

    Raises
    ------
    ValueError
        If maps, target, baseline or an option do not fit.
    TypeError
        If inputs are not of a floating dtype.

    References
    ----------
    Hesse, Schaub-Meyer & Roth 2021, "Fast axiomatic attribution for neural networks".
    arXiv:2111.07668

    Examples
    --------
    >>> import ifa, torch
    >>> net = torch.nn.Linear(4, 1, bias=False)
    >>> _ = net.weight.data.copy_(torch.tensor([[4.0, -3.0, 2.0, -1.0]]))
    >>> inputs, options = torch.ones(1, 4), {"score": ifa.score.logit, "fraction": (0.25, 0.5)}
    >>> retention(net, inputs, net.weight.data, 0, **options).score
    tensor([[0., 4., 6., 6.]], dtype=torch.float64)
    >>> retention(net, inputs, net.weight.data, 0, by="negative", keep=False, **options).score
    tensor([[2., 5., 6., 6.]], dtype=torch.float64)
    """
    where = "ifa.evaluate.retention"
    check_choice(where, "by", by, (*_SIGNS, "absolute"))
    points = fractions_of(where, fraction)
    points = [0.0, *points, *([1.0] if points[-1] < 1 else [])]
    case = Case(where, model, inputs, maps, target, score, baseline, chunk, output, grid_of)
    values = case.maps.abs() if by == "absolute" else _SIGNS[by] * case.maps
    usable = torch.ones_like(values, dtype=torch.bool) if by == "absolute" else values > 0
    rank, share = ranked(where, values, None)
    at = torch.tensor(points, dtype=torch.float64, device=rank.device)
    taken = positions_of(at, share.shape[1] - 1)
    lead = (-1, *(1,) * (rank.ndim - 1))
    scores = case.shown(
        len(points),
        lambda rows, number: ((rank[rows] < taken[number].reshape(lead)) & usable[rows]) == keep,
    )
    silent = case.silent | ~usable.flatten(1).any(1)
    return curve(case, at.expand(len(rank), -1), scores, silent)
