"""Gradient SHAP: random lines from random baselines to noisy inputs."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from torch import nn

from ifa.attribute.attributions import scorer_of
from ifa.attribute.paths import (
    Path,
    Quadrature,
    between,
    mean_gradient,
    path_attribution,
    several,
)
from ifa.chains import describe
from ifa.checks import check_noise
from ifa.network.inputs import count, noise_like, over, take, tensors_of
from ifa.score import logit
from ifa.types import Output, Score


def gradient_shap(
    model: nn.Module,
    *,
    score: Score = logit,
    output: Output = None,
    baselines: Any = 0.0,
    draws: int = 50,
    stdev: float = 0.0,
    seed: int = 0,
    times_input: bool = True,
    chunk: int | None = None,
) -> Any:
    r"""Average the gradient over random points between random baselines and the noisy input.

    .. math::

        a = \frac{1}{n} \sum_{j=1}^{n} (\tilde x_j - x'_j) \odot
        \nabla y\bigl(x'_j + u_j (\tilde x_j - x'_j)\bigr),
        \qquad \tilde x_j = x + N(0, s^2)

    with :math:`x'_j` drawn from the baselines and :math:`u_j` uniform on [0, 1]. It is integrated
    gradients with a Monte-Carlo quadrature, averaged over baselines and noise. What is drawn
    depends on the seed and on j alone, and is the same for every sample.

    Parameters
    ----------
    model, score, output
        As in `ifa.tap`. The model is never touched.
    baselines
        What is drawn from: a tensor (baseline, \*input), or a tree of these as the inputs are, such
        as a part of the training data, or
        one baseline or a list of them as in `ifa.attribute.integrated_gradients`.
    draws
        Number n of draws, each a forward and a backward pass.
    stdev
        Standard deviation s of the noise, in the input's own unit.
    seed
        Of the draws.
    times_input
        Multiply by :math:`\tilde x_j - x'_j`; without it the mean gradient, as in
        `ifa.attribute.integrated_gradients`.
    chunk
        How many points run at once: bounds the memory and changes no result. None: as many as are
        fast.

    Returns
    -------
    callable
        ``(inputs, target=None) -> attribution`` as of `ifa.attribute.integrated_gradients`, with
        ``observe``; its total is the mean over draws of y at the noisy input less y at the
        baseline, and its gap falls as one over the square root of n.

    Raises
    ------
    TypeError, ValueError
        As `ifa.attribute.integrated_gradients`.

    References
    ----------
    Lundberg & Lee 2017, "A unified approach to interpreting model predictions". arXiv:1705.07874

    Examples
    --------
    >>> import ifa, torch
    >>> net = torch.nn.Linear(2, 1, bias=False)
    >>> _ = net.weight.data.copy_(torch.tensor([[3.0, -1.0]]))
    >>> shap = ifa.attribute.gradient_shap(net, baselines=torch.tensor([[1.0, 1.0]]))
    >>> shap(torch.tensor([[5.0, 7.0]]), target=0)
    tensor([[12., -6.]])
    """
    scorer = scorer_of("gradient_shap", model, score, output)
    check_noise(scorer.where, draws, stdev, seed)
    listed = _listed(scorer.where, baselines)
    if not listed:
        raise ValueError(f"{scorer.where}: expected at least one baseline, got none. Take 0.0.")
    places, rng = (np.random.default_rng((seed, 0, use)) for use in (1, 2))
    nodes = Quadrature(places.random(draws).tolist(), [1 / draws] * draws)
    starts = rng.integers(len(listed), size=draws).tolist()
    make = partial(_random, starts=starts, stdev=stdev, seed=seed)
    options = f"baselines={describe(baselines)}, {draws=}, {stdev=}, {seed=}, {times_input=}"
    integrate = path_attribution if times_input else mean_gradient
    return integrate(scorer, make, nodes, listed, chunk, options)


def _listed(where: str, baselines: Any) -> list[Any]:
    if isinstance(baselines, list) or not tensors_of(baselines):
        return several(where, baselines)
    return [take(baselines, number) for number in range(count(baselines))]


def _random(
    inputs: Any, baselines: Sequence[Any], *, starts: Sequence[int], stdev: float, seed: int
) -> Path:
    def ends(step: int) -> tuple[Any, Any]:
        if not stdev:
            return baselines[starts[step]], inputs
        drawn = noise_like(inputs, seed, step)
        noisy = over(lambda one, added: one + stdev * added, inputs, drawn)
        return baselines[starts[step]], noisy

    def at(step: int, node: float) -> tuple[Any, Any]:
        return between(*ends(step), node)

    return Path(at, map(ends, range(len(starts))))
