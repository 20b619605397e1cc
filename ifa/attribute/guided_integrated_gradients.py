"""Guided integrated gradients: a path that moves first where the gradient is small."""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ifa.attribute.attributions import (
    Attributed,
    Complete,
    at_once,
    scorer_of,
    slopes,
)
from ifa.attribute.paths import attributed, gain
from ifa.baseline import Baseline
from ifa.chains import describe
from ifa.checks import check_count
from ifa.network.inputs import baselines_of, count, filled, floating, take
from ifa.network.scorers import Scorer
from ifa.score import logit
from ifa.stages import wide
from ifa.types import Output, Score

_CLOSE = 1e-9  # of the whole distance


def guided_integrated_gradients(
    model: nn.Module,
    *,
    score: Score = logit,
    output: Output = None,
    steps: int = 128,
    fraction: float = 0.25,
    distance: float = 0.02,
    baseline: Baseline = 0.0,
    chunk: int | None = None,
) -> Complete:
    r"""Integrate the gradient along a path that moves first where the gradient is small.

    In each of n steps the :math:`L_1` distance to the input shrinks by 1/n of the whole. It is
    walked by the coordinates whose gradients, taken at the start of the step, are the smallest in
    size, a fraction of them at a time, none more than `distance` ahead of or behind the straight
    line. Large gradients on the way, which are mostly noise, so count over short ways:

    .. math:: a = \sum_{k=1}^{n} \nabla y(x_{k-1}) \odot (x_k - x_{k-1}), \qquad x_0 = x',\ x_n = x

    Distances and quantiles are of each sample alone, and each target of a sample has its own path.

    Parameters
    ----------
    model, score, output
        As in `ifa.tap`. The model is never touched.
    steps
        Number n, each a forward and a backward pass; they cannot run at once.
    fraction
        Part of the coordinates that may move together, in (0, 1].
    distance
        How far, as a part of its whole way, a coordinate may be ahead or behind; in [0, 1]. 0 is
        the straight line.
    baseline
        What x' is, as in `ifa.attribute.integrated_gradients`; one only.
    chunk
        How many samples and targets run at once: bounds the memory and changes no result. None: as
        many as are fast.

    Returns
    -------
    callable
        ``(inputs, target=None) -> attribution`` as of `ifa.attribute.integrated_gradients`, with
        ``observe``; its total is y(x) − y(x'). Its gap falls as 1/n where y is smooth; in a network
        with ReLU the path follows their kinks, and some per cent may stay.

    Raises
    ------
    TypeError, ValueError
        As `ifa.attribute.integrated_gradients`.

    References
    ----------
    Kapishnikov et al. 2021, "Guided integrated gradients", algorithm 1. arXiv:2106.09788

    Examples
    --------
    >>> import ifa, torch
    >>> net = torch.nn.Linear(2, 1, bias=False)
    >>> _ = net.weight.data.copy_(torch.tensor([[3.0, -1.0]]))
    >>> guided = ifa.attribute.guided_integrated_gradients(net, steps=8)
    >>> guided(torch.tensor([[5.0, 7.0]]), target=0)
    tensor([[15., -7.]])
    """
    scorer = scorer_of("guided_integrated_gradients", model, score, output)
    check_count(scorer.where, "steps", steps)
    if not 0 < fraction <= 1 or not 0 <= distance <= 1:
        raise ValueError(
            f"{scorer.where}: expected fraction in (0, 1] and distance in [0, 1], got {fraction} "
            f"and {distance}."
        )
    options = f"{steps=}, {fraction=}, {distance=}, baseline={describe(baseline)}"
    method = partial(
        _guided,
        steps=steps,
        fraction=fraction,
        distance=distance,
        baseline=baseline,
        chunk=chunk,
    )
    observe = partial(_observed, method=method, baseline=baseline, chunk=chunk)
    return Complete(scorer, method, observe, options, chunked=True, chunk=chunk)


def _observed(
    scorer: Scorer,
    inputs: Any,
    targets: Tensor,
    *,
    method: partial[Any],
    baseline: Baseline,
    chunk: int | None,
) -> Attributed:
    ends = [(baselines_of(scorer.where, baseline, inputs), inputs)]
    gained = gain(scorer, ends, targets, at_once(scorer, inputs, chunk))
    return attributed(method(scorer, inputs, targets), gained, targets.ndim)


def _guided(
    scorer: Scorer,
    inputs: Any,
    targets: Tensor,
    *,
    steps: int,
    fraction: float,
    distance: float,
    baseline: Baseline,
    chunk: int | None,
) -> Any:
    start = baselines_of(scorer.where, baseline, inputs)
    # one row for each sample of each target, with the coordinates of all tensors
    rows = [
        _flat(part).expand(*targets.shape, -1).flatten(0, targets.ndim - 1)
        for part in (start, inputs)
    ]
    sample = torch.arange(targets.numel(), device=targets.device) % count(inputs)
    size = at_once(scorer, inputs, chunk)
    parts = [part.split(size) for part in (*rows, targets.flatten(), sample)]
    found = [
        _walk(scorer, begin, end, target, take(inputs, which), steps, fraction, distance)
        for begin, end, target, which in zip(*parts, strict=True)
    ]
    values = torch.cat(found).reshape(*targets.shape, -1)
    return filled(inputs, _apart(values, inputs), blank=True)


def _flat(tree: Any) -> Tensor:
    """Lay out all coordinates of the floating tensors: (sample, coordinate)."""
    return torch.cat([wide(one).reshape(len(one), -1) for one in floating(tree)], 1)


def _apart(values: Tensor, like: Any) -> list[Tensor]:
    """Return (..., coordinate) as tensors (..., *input)."""
    shapes = [one.shape[1:] for one in floating(like)]
    parts = values.split([shape.numel() for shape in shapes], -1)
    lead = values.shape[:-1]
    return [
        part.reshape(*lead, *shape).to(one.dtype)
        for part, shape, one in zip(parts, shapes, floating(like), strict=True)
    ]


def _walk(
    scorer: Scorer,
    start: Tensor,
    end: Tensor,
    targets: Tensor,
    like: Any,
    steps: int,
    fraction: float,
    distance: float,
) -> Tensor:
    whole = (end - start).abs().sum(1)
    here, found = start, torch.zeros_like(start)
    for step in range(1, steps + 1):
        part = step / steps
        slope = _flat(slopes(scorer, filled(like, _apart(here, like)), targets))
        low = torch.lerp(start, end, max(part - distance, 0.0))
        high = torch.lerp(start, end, min(part + distance, 1.0))
        before = here
        behind = (here - start).abs() < (low - start).abs()
        here = torch.where(behind, low, here)
        here = _moved(here, high, end, slope, (1 - part) * whole, whole, fraction)
        found = found + slope * (here - before)
    # a path on which something is not a number does not arrive
    arrived = (end - here).abs().sum(1) <= 1e3 * _CLOSE * whole
    return torch.where(arrived[:, None], found, math.nan)


def _moved(
    here: Tensor,
    high: Tensor,
    end: Tensor,
    slope: Tensor,
    aim: Tensor,
    whole: Tensor,
    fraction: float,
) -> Tensor:
    """Move rows towards `high`, smallest gradients first, until `aim` is left to the end."""
    size = slope.abs()
    rank = math.floor(fraction * (here.shape[1] - 1)) + 1
    # every pass but the last brings at least one coordinate of a row to the end of its way
    for _ in range(here.shape[1] + 1):
        excess = (end - here).abs().sum(1) - aim
        left = size.masked_fill(here == high, math.inf)
        chosen = (left <= left.kthvalue(rank, 1, keepdim=True).values) & left.isfinite()
        chosen &= (excess > _CLOSE * whole)[:, None]
        if not chosen.any():
            break
        way = torch.where(chosen, high - here, 0)
        share = excess / way.abs().sum(1)
        moved = torch.where((share < 1)[:, None], here + share[:, None] * way, high)
        here = torch.where(chosen, moved, here)
    return here
