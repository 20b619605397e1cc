"""Insertion: how fast the score rises as the most relevant positions are shown."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from ifa.baseline import Baseline
from ifa.declared import declare
from ifa.evaluate.curves import Curve, removed
from ifa.evaluate.masking import Case
from ifa.score import probability
from ifa.types import Inputs, Output, Score, Target


@declare(takes="maps")
def insertion(
    model: nn.Module,
    inputs: Inputs,
    maps: Any,
    target: Target = None,
    *,
    score: Score = probability,
    baseline: Baseline = 0.0,
    steps: int = 20,
    window: int | Sequence[int] | None = None,
    chunk: int | None = None,
    output: Output = None,
    grid_of: str | int | None = None,
) -> Curve:
    r"""Show the positions of the largest map values first, and follow the score.

    .. math:: s_k = y(x \odot M_k + b \odot (1 - M_k)), \qquad
              \mathrm{AUC} = \sum_k \tfrac12 (s_k + s_{k-1}) (f_k - f_{k-1})

    where :math:`M_k` marks the first positions of the ranking, a share :math:`f_k` of all.

    Parameters
    ----------
    model, inputs, maps, target, score, window, chunk, output, grid_of
        As in `deletion`.
    baseline
        What is there before a position is shown: a number, a tensor like the inputs, or a function
        of them. RISE inserts into a blurred image: ``ifa.baseline.blur(sigma)``.
    steps
        In how many equal shares of the ranking positions are shown: the curve has one point more.

    Returns
    -------
    Curve
        `fraction` of the positions that are shown and `score`, both (sample, steps + 1) from the
        baseline to the inputs as they are, and `auc` (sample,): high is good. With targets (target,
        sample) all have the target axis first. Float64. Equal values are shown in the order of
        groups and positions; where a map is constant or not finite, it ranks nothing, and `score`
        and `auc` are NaN.

    Raises
    ------
    ValueError
        If maps, target, baseline or an option do not fit.
    TypeError
        If inputs are not of a floating dtype.

    References
    ----------
    Petsiuk, Das & Saenko 2018, "RISE: randomized input sampling for explanation of black-box
    models". arXiv:1806.07421

    Examples
    --------
    >>> import ifa, torch
    >>> net = torch.nn.Linear(4, 2)
    >>> with torch.no_grad():
    ...     _ = net.weight.copy_(torch.tensor([[4.0, 3.0, 2.0, 1.0], [0.0] * 4])), net.bias.zero_()
    >>> inputs = torch.ones(1, 4)
    >>> maps = torch.tensor([[4.0, 3.0, 2.0, 1.0]])
    >>> insertion(net, inputs, maps, 0, score=ifa.score.logit, steps=4).score
    tensor([[ 0.,  4.,  7.,  9., 10.]], dtype=torch.float64)
    """
    where = "ifa.evaluate.insertion"
    case = Case(where, model, inputs, maps, target, score, baseline, chunk, output, grid_of)
    return removed(case, steps, window, shows=True)
