r"""The gradient integrated along a path: one sum for every path and every quadrature.

.. math:: a = \sum_k w_k \, \nabla y(\gamma(t_k)) \odot \gamma'(t_k)

which tends to what accounts for all of y at the path's end less y at its start.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ifa.attribute.attributions import (
    Attributed,
    Attribution,
    Complete,
    at_once,
    slopes,
    total,
)
from ifa.baseline import Baseline
from ifa.checks import check_choice, check_count
from ifa.network.inputs import baselines_of, count, filled, floating, joined, over, split, take
from ifa.network.scorers import Scorer
from ifa.noise import chunks
from ifa.stages import wide

Baselines = Baseline | Sequence[Baseline]
Rule = Literal["gauss-legendre", "trapezoid", "riemann", "riemann-left", "riemann-middle"]
# Where in each of n equal parts a Riemann sum looks.
_RIEMANN = {"riemann": 1.0, "riemann-left": 0.0, "riemann-middle": 0.5}
RULES = ("gauss-legendre", "trapezoid", *_RIEMANN)


class Quadrature(NamedTuple):
    """Where on [0, 1] an integral is evaluated, and with what weights."""

    nodes: Sequence[float]
    weights: Sequence[float]


class Path(NamedTuple):
    """Curves of a batch, one for each sample, or several to average over."""

    # (step, node) -> point and velocity, each (sample, *input)
    at: Callable[[int, float], tuple[Any, Any]]
    ends: Iterable[tuple[Any, Any]]  # start and end of each curve


# (inputs, baselines) -> the path of these samples
MakePath = Callable[[Any, Sequence[Any]], Path]


def quadrature(where: str, rule: str, steps: int, curves: int = 1) -> Quadrature:
    """Make a rule of so many steps for each of some curves, one after the other."""
    check_count(where, "steps", steps)
    check_choice(where, "rule", rule, RULES)
    if rule == "gauss-legendre":
        nodes, weights = np.polynomial.legendre.leggauss(steps)
        nodes, weights = (1 + nodes) / 2, weights / 2
    elif rule == "trapezoid":
        if steps < 2:
            raise ValueError(
                f"{where}: expected steps of a trapezoid rule to be at least 2, got {steps}. "
                "Take rule='gauss-legendre', which needs no end points."
            )
        nodes, weights = np.linspace(0, 1, steps), np.full(steps, 1 / (steps - 1))
        weights[[0, -1]] /= 2
    else:
        nodes, weights = (np.arange(steps) + _RIEMANN[rule]) / steps, np.full(steps, 1 / steps)
    return Quadrature(nodes.tolist() * curves, (weights / curves).tolist() * curves)


def several(where: str, baseline: Any) -> list[Baseline]:
    """List baselines, of which one may be given by itself."""
    listed = list(baseline) if isinstance(baseline, list) else [baseline]
    if not listed:
        raise ValueError(f"{where}: expected at least one baseline, got none. Take 0.0.")
    return listed


def path_attribution(
    scorer: Scorer,
    make: MakePath,
    rule: Quadrature,
    baselines: Sequence[Baseline],
    chunk: int | None,
    options: str,
) -> Complete:
    """Make the attribution that integrates along a path."""
    method = partial(_integrated, make=make, rule=rule, baselines=baselines, chunk=chunk)
    observe = partial(_observed, method=method, make=make, baselines=baselines, chunk=chunk)
    return Complete(scorer, method, observe, options, chunked=True, chunk=chunk)


def mean_gradient(
    scorer: Scorer,
    make: MakePath,
    rule: Quadrature,
    baselines: Sequence[Baseline],
    chunk: int | None,
    options: str,
) -> Attribution:
    """Make the attribution that averages the gradient on a path, whatever the path's velocity."""
    still = partial(_still, make=make)
    method = partial(_integrated, make=still, rule=rule, baselines=baselines, chunk=chunk)
    return Attribution(scorer, method, options, chunked=True, chunk=chunk)


def _still(inputs: Any, baselines: Sequence[Any], *, make: MakePath) -> Path:
    """Go along a path as if every element moved by one."""
    path = make(inputs, baselines)

    def at(step: int, node: float) -> tuple[Any, Any]:
        point, velocity = path.at(step, node)
        return point, over(torch.ones_like, velocity)

    return Path(at, path.ends)


def straight(inputs: Any, baselines: Sequence[Any], *, steps: int) -> Path:
    """Go from each baseline to the inputs on a line, in so many steps each."""

    def at(step: int, node: float) -> tuple[Any, Any]:
        return between(baselines[step // steps], inputs, node)

    return Path(at, [(start, inputs) for start in baselines])


def between(start: Any, end: Any, node: float) -> tuple[Any, Any]:
    """Return a point of a line, and how fast it moves."""
    return over(partial(torch.lerp, weight=node), start, end), over(torch.sub, end, start)


def gain(scorer: Scorer, ends: Iterable[tuple[Any, Any]], targets: Tensor, size: int) -> Tensor:
    """Return what y gains from start to end, on average over curves, in float64; so many a time."""

    def scores(inputs: Any) -> Tensor:
        parts = zip(split(inputs, size), targets.split(size, -1), strict=True)
        return wide(torch.cat([scorer.scores(*part) for part in parts], targets.ndim - 1))

    return torch.stack([scores(end) - scores(start) for start, end in ends]).mean(0)


def attributed(values: Any, gained: Tensor, axes: int) -> Attributed:
    """Put an attribution together with what it should sum to."""
    dtype = floating(values)[0].dtype
    return Attributed(values, gained.to(dtype), (total(values, axes) - gained).to(dtype))


def _integrated(
    scorer: Scorer,
    inputs: Any,
    targets: Tensor,
    *,
    make: MakePath,
    rule: Quadrature,
    baselines: Sequence[Baseline],
    chunk: int | None,
) -> Any:
    starts = [baselines_of(scorer.where, one, inputs) for one in baselines]
    rows = at_once(scorer, inputs, chunk)
    found: list[Any] = []
    for span in chunks(count(inputs), rows):
        here = slice(span.start, span.stop)
        some = take(inputs, here)
        path = make(some, [take(start, here) for start in starts])
        size = max(1, rows // len(span))
        found.append(_sum(scorer, path, rule, targets[..., here], size, some))
    return joined(found, targets.ndim - 1)


def _sum(
    scorer: Scorer, path: Path, rule: Quadrature, targets: Tensor, size: int, like: Any
) -> Any:
    axis = targets.ndim - 1
    # steps are added in order whatever the chunk
    found = [wide(one.new_zeros(*targets.shape, *one.shape[1:])) for one in floating(like)]
    for steps in chunks(len(rule.nodes), size):
        pairs = [path.at(step, rule.nodes[step]) for step in steps]
        points = joined([point for point, _ in pairs])
        asked = targets.repeat(*(1,) * axis, len(steps))
        gradients = floating(slopes(scorer, points, asked))
        by_step = zip(*(one.chunk(len(steps), axis) for one in gradients), strict=True)
        for step, (_, velocity), slope in zip(steps, pairs, by_step, strict=True):
            weight = rule.weights[step]
            each = zip(found, floating(velocity), slope, strict=True)
            found = [sums + weight * wide(v) * wide(s) for sums, v, s in each]
    pairs = zip(found, floating(like), strict=True)
    return filled(like, [sums.to(one.dtype) for sums, one in pairs], blank=True)


def _observed(
    scorer: Scorer,
    inputs: Any,
    targets: Tensor,
    *,
    method: Any,
    make: MakePath,
    baselines: Sequence[Baseline],
    chunk: int | None,
) -> Attributed:
    values = method(scorer, inputs, targets)
    starts = [baselines_of(scorer.where, one, inputs) for one in baselines]
    ends = make(inputs, starts).ends
    gained = gain(scorer, ends, targets, at_once(scorer, inputs, chunk))
    return attributed(values, gained, targets.ndim)
