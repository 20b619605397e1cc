"""Integrated gradients: along the straight line from a baseline."""

from functools import partial
from typing import Any

from torch import nn

from ifa.attribute.attributions import scorer_of
from ifa.attribute.paths import (
    Baselines,
    Rule,
    mean_gradient,
    path_attribution,
    quadrature,
    several,
    straight,
)
from ifa.chains import describe
from ifa.score import logit
from ifa.types import Output, Score


def integrated_gradients(
    model: nn.Module,
    *,
    score: Score = logit,
    output: Output = None,
    steps: int = 50,
    rule: Rule = "gauss-legendre",
    baseline: Baselines = 0.0,
    times_input: bool = True,
    chunk: int | None = None,
) -> Any:
    r"""Integrate the gradient along the straight line from a baseline to the input.

    .. math::

        a = (x - x') \odot \int_0^1 \nabla y\bigl(x' + t\,(x - x')\bigr)\, dt,
        \qquad \sum a = y(x) - y(x')

    Parameters
    ----------
    model, score, output
        As in `ifa.tap`. The model is never touched.
    steps
        Number of points on the line, each a forward and a backward pass.
    rule
        ``"gauss-legendre"``, exact for polynomials up to degree 2·steps − 1; ``"trapezoid"``, with
        both end points; ``"riemann"``, the paper's sum at t = 1/n … 1, the right ends of n equal
        parts, ``"riemann-left"`` at their left ends and ``"riemann-middle"`` at their middles.
        Where y is smooth the first is by far the best; across the kinks of a network with ReLU the
        error of each falls as 1/n. These are captum's, but that its trapezoid's weights sum to
        (n − 1)/n.
    baseline
        What x' is: a number, a tensor like the inputs, or a function of them such as
        `ifa.baseline.black`, `white`, or ``blur(4.0)``. A list of these: the average over all.
    times_input
        Multiply by :math:`x - x'`. Without it the integral alone: the mean gradient on the line,
        in the score's unit per unit of the input (captum's ``multiply_by_inputs=False``).
    chunk
        How many points run at once: bounds the memory and changes no result. None: as many as are
        fast.

    Returns
    -------
    callable
        ``(inputs, target=None) -> attribution`` shaped like the inputs, with a target axis first
        for targets (target, sample); signed, in the score's unit. Its method ``observe``, of the
        same arguments, returns ``Attributed(values, total, gap)``: the attribution, y(x) − y(x'),
        and what the attribution's sum has more than that; without `times_input` nothing is said to
        sum to anything, and there is none.

    Raises
    ------
    TypeError, ValueError
        As `ifa.attribute.gradient`; also if an option is out of range, or the baseline does not
        fit.

    References
    ----------
    Sundararajan et al. 2017, "Axiomatic attribution for deep networks". arXiv:1703.01365

    Examples
    --------
    >>> import ifa, torch
    >>> squares = torch.nn.Bilinear(2, 2, 1, bias=False)
    >>> _ = squares.weight.data.copy_(torch.tensor([[[1.0, 0.0], [0.0, 3.0]]]))
    >>> class Net(torch.nn.Module):
    ...     def forward(self, x):
    ...         return squares(x, x)
    >>> ifa.attribute.integrated_gradients(Net(), steps=2)(torch.tensor([[3.0, 1.0]]), target=0)
    tensor([[9., 3.]])
    """
    scorer = scorer_of("integrated_gradients", model, score, output)
    baselines = several(scorer.where, baseline)
    nodes = quadrature(scorer.where, rule, steps, len(baselines))
    named = ", ".join(map(describe, baselines))
    named = named if len(baselines) == 1 else f"[{named}]"
    options = f"{steps=}, {rule=}, baseline={named}, {times_input=}"
    make = partial(straight, steps=steps)
    integrate = path_attribution if times_input else mean_gradient
    return integrate(scorer, make, nodes, baselines, chunk, options)
