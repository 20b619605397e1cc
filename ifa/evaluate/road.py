"""ROAD: remove and debias, the most and the least relevant positions first."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ifa.baseline import Baseline, linear
from ifa.declared import declare
from ifa.evaluate.curves import fractions_of, positions_of, ranked
from ifa.evaluate.masking import Case
from ifa.score import probability
from ifa.types import Inputs, Output, Score, Target

_FRACTIONS = (0.2, 0.4, 0.6, 0.8)
_LINEAR = linear()


class Road(NamedTuple):
    """Scores as the most, and the least relevant positions are removed; all float64."""

    fraction: Tensor  # (sample, point), of the positions removed, from 0
    most: Tensor  # (sample, point), the most relevant removed; NaN where the map says nothing
    least: Tensor  # (sample, point), the least relevant removed; the same
    combined: Tensor  # (sample,), half of what the least leave more than the most


@declare(takes="maps")
def road(
    model: nn.Module,
    inputs: Inputs,
    maps: Any,
    target: Target = None,
    *,
    fraction: Sequence[float] = _FRACTIONS,
    score: Score = probability,
    baseline: Baseline = _LINEAR,
    chunk: int | None = None,
    output: Output = None,
    grid_of: str | int | None = None,
) -> Road:
    r"""Remove the most, and the least relevant positions, filled in from their neighbours.

    .. math:: s^{\pm}_k = y(x \text{ without the first share } f_k \text{ of } \pm h), \qquad
              \mathrm{combined} = \frac1K \sum_{k=1}^{K} \frac{s^-_k - s^+_k}{2}

    What is removed is imputed instead of set to one value, so that less of what was removed shows
    in the shape of the hole. A score needs 2 K + 1 forward passes, and 2 K imputations.

    Parameters
    ----------
    model, inputs, target, chunk, output, grid_of
        As in `deletion`.
    maps : (sample, \*space) or (sample, block, \*space)
        At the inputs' size; see `deletion` for blocks and targets.
    fraction
        Shares :math:`f_k` of the positions that are removed, rising, in (0, 1); of n positions
        :math:`\lceil f_k n \rceil`, but one is always left. Equal values count as falling in the
        order of blocks and positions.
    score
        ``(output of one example, target) -> scalar``; the softmax probability by default. The paper
        reports accuracies: see `confidence`.
    baseline
        What is removed becomes this: noisy linear imputation, ``ifa.baseline.linear()``, or any
        baseline of `deletion`.

    Returns
    -------
    Road
        `fraction`, `most` and `least` (sample, K + 1), the first point being the inputs as they
        are, and `combined` (sample,), without it: high is good, and a map that ranks at random has
        0 on average. With targets (target, sample) all have the target axis first. NaN where the
        map is constant or not finite.

    Raises
    ------
    ValueError
        If maps, target, baseline or an option do not fit.
    TypeError
        If inputs are not of a floating dtype.

    Notes
    -----
    The combined score is that of pytorch-grad-cam's ``ROADCombined``, and a point less the first
    one that of ``ROADMostRelevantFirst`` and ``ROADLeastRelevantFirst``, for the percentile
    100 (1 − f). It removes all values at or above that percentile: one position less where f n is
    not whole, and more where values are equal. It draws noise anew for each sample and percentile.

    References
    ----------
    Rong et al. 2022, "A consistent and efficient evaluation strategy for attribution methods".
    arXiv:2202.00449

    Examples
    --------
    >>> import ifa, torch
    >>> net = torch.nn.Linear(4, 1, bias=False)
    >>> _ = net.weight.data.copy_(torch.tensor([[4.0, 3.0, 2.0, 1.0]]))
    >>> options = {"score": ifa.score.logit, "baseline": 0.0, "fraction": (0.25, 0.5)}
    >>> found = road(net, torch.ones(1, 4), net.weight.data, 0, **options)
    >>> found.most.tolist(), found.least.tolist(), found.combined.tolist()
    ([[10.0, 6.0, 3.0]], [[10.0, 9.0, 7.0]], [1.75])
    """
    where = "ifa.evaluate.road"
    shares = fractions_of(where, fraction)
    case = Case(where, model, inputs, maps, target, score, baseline, chunk, output, grid_of)
    rank = ranked(where, case.maps, None).rank
    count = rank[0].numel()
    if shares[-1] == 1 or count < 2:
        raise ValueError(
            f"{where}: expected fraction in (0, 1), of at least 2 positions, of which one is left "
            f"to fill in the others from, got {shares} of {count}."
        )
    points = torch.tensor([0.0, *shares], dtype=torch.float64, device=rank.device)
    taken = positions_of(points[1:], count).clamp(max=count - 1)
    lead, several = (-1, *(1,) * (rank.ndim - 1)), len(shares)

    def shown(rows: Tensor, number: Tensor) -> Tensor:
        least = number >= several
        removed = taken[number % several]
        place = torch.where(least.reshape(lead), count - 1 - rank[rows], rank[rows])
        return place >= removed.reshape(lead)

    scores = case.shown(2 * several, shown)
    before = case.before()[:, None]
    most = torch.cat([before, scores[:, :several]], 1)
    least = torch.cat([before, scores[:, several:]], 1)
    combined = ((least - most)[:, 1:] / 2).mean(1)
    known = (case.known(part) for part in (most, least, combined))
    return Road(case.lifted(points.expand(len(rank), -1)), *known)
