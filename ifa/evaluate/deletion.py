"""Deletion: how fast the score falls as the most relevant positions are hidden."""

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
def deletion(
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
    r"""Hide the positions of the largest map values first, and follow the score.

    .. math:: s_k = y(b \odot M_k + x \odot (1 - M_k)), \qquad
              \mathrm{AUC} = \sum_k \tfrac12 (s_k + s_{k-1}) (f_k - f_{k-1})

    where :math:`M_k` marks the first positions of the ranking, a share :math:`f_k` of all.

    Parameters
    ----------
    model
        The network, in evaluation mode.
    inputs : (sample, \*input)
        A batch: (sample, channel, \*space) or (sample, feature); or a tuple or mapping of tensors,
        as in `ifa.tap`, of which the one with the grid is masked and the others stay.
    maps : (sample, \*space) or (sample, block, \*space)
        At the inputs' size. A group's map hides its own block of channels, one after another; a
        whole attribution has a group for each channel, and all its values are ranked together. With
        targets (target, sample) maps have the target axis first.
    target
        None for the prediction on the inputs as they are, an int, (sample,), or (target, sample).
    score
        ``(output of one example, target) -> scalar``; the softmax probability by default.
    baseline
        What hidden positions are set to: a number, a tensor like the inputs, or a function of them,
        such as those of `ifa.baseline`; or an imputation, such as ``ifa.baseline.linear()``.
    steps
        In how many equal shares of the ranking positions are hidden: the curve has one point more.
    window
        None ranks single positions; a side, or one for each space axis, ranks windows by their sum.
        Windows tile the whole space; those at the far border are smaller.
    chunk
        How many inputs run at once: bounds the memory and changes no result. None goes by the size
        of an input.
    output
        Picks the output out of what the model returns, as in `ifa.tap`.
    grid_of
        Which tensor of a tree is masked, by its key or index; None for the first (sample, channel,
        \*space). Of maps that are a tree, such as attributions, its own is taken.

    Returns
    -------
    Curve
        `fraction` of the positions that are hidden and `score`, both (sample, steps + 1) from the
        inputs as they are to the baseline, and `auc` (sample,): low is good. With targets (target,
        sample) all have the target axis first. Float64. Equal values are hidden in the order of
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
    >>> deletion(net, inputs, maps, 0, score=ifa.score.logit, steps=4).score
    tensor([[10.,  6.,  3.,  1.,  0.]], dtype=torch.float64)
    """
    where = "ifa.evaluate.deletion"
    case = Case(where, model, inputs, maps, target, score, baseline, chunk, output, grid_of)
    return removed(case, steps, window)
