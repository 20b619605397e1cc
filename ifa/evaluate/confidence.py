"""Confidence: what becomes of the score when only what a map shows is left, or only the rest."""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import vmap

from ifa.baseline import Baseline
from ifa.checks import check_choice
from ifa.declared import declare
from ifa.evaluate.masking import Case
from ifa.evaluate.regions import quantile
from ifa.score import probability
from ifa.types import Inputs, Output, Score, Target


class Confidence(NamedTuple):
    """Scores before and after masking, and what these say; (sample,), float64."""

    before: Tensor
    after: Tensor
    drop: Tensor  # share of the score that is lost, 0 where it rose
    increase: Tensor  # 1 where the score rose, else 0
    gain: Tensor  # share of what was missing to 1 that is gained, 0 where the score fell
    predicted: Tensor  # 1 where the network then predicts the target, else 0


@declare(takes="maps")
def confidence(
    model: nn.Module,
    inputs: Inputs,
    maps: Any,
    target: Target = None,
    *,
    keep: bool = True,
    threshold: float | None = None,
    of: Literal["maximum", "quantile"] = "maximum",
    scaled: bool = False,
    score: Score = probability,
    baseline: Baseline = 0.0,
    chunk: int | None = None,
    output: Output = None,
    grid_of: str | int | None = None,
) -> Confidence:
    r"""Mask the inputs with their maps and compare the scores before and after.

    .. math:: x' = m \odot x + (1 - m) \odot b, \qquad
              \mathrm{drop} = \frac{\max(0, y - y')}{y}, \quad
              \mathrm{increase} = 1[y' > y], \quad
              \mathrm{gain} = \frac{\max(0, y' - y)}{1 - y}

    A soft mask m is the map scaled to [0, 1] by its own extremes, or, on a scale that is the same
    for all samples, as it is, clipped. A hard mask is 1 where the map reaches a threshold.

    Parameters
    ----------
    model, inputs, target, chunk, output, grid_of
        As in `deletion`.
    maps : (sample, \*space) or (sample, block, \*space)
        At the inputs' size; see `deletion` for blocks and targets. Extremes are those of all groups
        together.
    keep
        Keep what the map shows (drop small: the map is enough), or remove it, with 1 − m instead of
        m (drop large: the map is needed).
    threshold
        None for the soft mask; else a share, in [0, 1], for the hard one.
    of
        What the threshold is a share of: the map's ``"maximum"``, or its values as a
        ``"quantile"``.
    scaled
        The maps are already on a common scale, see `ifa.rescale`: the soft mask is only clipped.
    score
        ``(output of one example, target) -> scalar``; the softmax probability by default. The
        relative figures are for scores in [0, 1].
    baseline
        What is masked becomes this: a number, a tensor like the inputs, or a function of them, such
        as those of `ifa.baseline`; for a hard mask also an imputation, ``ifa.baseline.linear()``.

    Returns
    -------
    Confidence
        Each (sample,), or (target, sample). All but `before` are NaN where the map is constant or
        not finite, or, for a threshold of the maximum, nowhere positive. `drop` is also NaN where
        the score fell from 0 or less, and `gain` where it rose from 1 or more: such scores, e.g.
        logits, have no share. The mean of `drop`, in percent, is the average drop of Grad-CAM++;
        the means of `increase` and `gain` are increase in confidence and average gain. The mean of
        `predicted` is the share of predictions that stay where `target` is the prediction, and the
        accuracy after masking where it is the label; it is NaN for a network of one
        output, an embedding, and several labels, which `ifa.score.sigmoid` is of.

    Raises
    ------
    ValueError
        If maps, target, baseline or an option do not fit.
    TypeError
        If inputs are not of a floating dtype.

    References
    ----------
    Chattopadhyay et al. 2018, "Grad-CAM++", section 5.1. arXiv:1710.11063.
    Zhang, Rao & Yang 2024, "Opti-CAM", equation 15 (gain). arXiv:2301.07002

    Examples
    --------
    >>> import ifa, torch
    >>> net = torch.nn.Linear(4, 2, bias=False)
    >>> _ = net.weight.data.copy_(torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]]))
    >>> inputs, maps = torch.ones(1, 4), torch.tensor([[5.0, 5.0, 1.0, 1.0]])
    >>> found = confidence(net, inputs, maps, 0)  # keeps what speaks for output 0
    >>> found.before.item(), round(found.after.item(), 4), found.increase.item()
    (0.5, 0.8808, 1.0)
    """
    where = "ifa.evaluate.confidence"
    check_choice(where, "of", of, ("maximum", "quantile"))
    if threshold is not None and not 0 <= threshold <= 1:
        raise ValueError(
            f"{where}: expected threshold to be None or a share in [0, 1], got {threshold!r}."
        )
    case = Case(where, model, inputs, maps, target, score, baseline, chunk, output, grid_of)
    mask = _soft(case.maps, scaled) if threshold is None else _hard(case.maps, threshold, of)
    if not keep:
        mask = ~mask if mask.dtype == torch.bool else 1 - mask
    silent = case.silent
    if threshold is not None and of == "maximum":
        silent = silent | (case.maps.flatten(1).amax(1) <= 0)
    before, (after, predicted) = case.before(), case.answered(mask)
    fell, rose = (before - after).clamp(min=0), (after - before).clamp(min=0)
    drop = torch.where(fell > 0, torch.where(before > 0, fell / before, torch.nan), fell)
    gain = torch.where(rose > 0, torch.where(before < 1, rose / (1 - before), torch.nan), rose)
    found = (after, drop, (rose > 0).double(), gain, predicted)
    return Confidence(case.lifted(before), *(case.known(part, silent) for part in found))


def _soft(maps: Tensor, scaled: bool) -> Tensor:
    if scaled:
        return maps.clamp(0, 1)
    every = tuple(range(1, maps.ndim))
    low, high = maps.amin(every, keepdim=True), maps.amax(every, keepdim=True)
    return (maps - low) / (high - low)


def _hard(maps: Tensor, threshold: float, of: str) -> Tensor:
    flat = maps.flatten(1).double()
    if of == "maximum":
        limit = threshold * flat.amax(1)
    else:
        limit = vmap(quantile, (0, None))(flat, flat.new_tensor(threshold))
    return (flat >= limit[:, None]).reshape(maps.shape)
