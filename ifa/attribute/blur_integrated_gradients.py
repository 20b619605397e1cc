"""Blur integrated gradients: along ever less blurred versions of the input."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from ifa.attribute.attributions import Complete, scorer_of
from ifa.attribute.paths import Path, Rule, path_attribution, quadrature
from ifa.baseline import diffused, diffusion
from ifa.network.inputs import over
from ifa.score import logit
from ifa.types import Output, Score


def blur_integrated_gradients(
    model: nn.Module,
    *,
    score: Score = logit,
    output: Output = None,
    steps: int = 50,
    sigma: float = 50.0,
    rule: Rule = "gauss-legendre",
    chunk: int | None = None,
) -> Complete:
    r"""Integrate the gradient from a blurred input to the sharp one.

    .. math::

        a = -\int_0^{\sigma} \nabla y\bigl(L(x, s)\bigr) \odot
        \frac{\partial L(x, s)}{\partial s}\, ds,
        \qquad \sum a = y(x) - y\bigl(L(x, \sigma)\bigr)

    where :math:`L(x, s)` is the input blurred by s as by `ifa.baseline.blur`, whose derivative is
    exact. The points are :math:`s = \sigma (1 - t)^2`, close to each other where the input is
    nearly sharp and most changes. The path needs no baseline and invents no edges; what is as flat
    as the blurred input is not attributed.

    Parameters
    ----------
    model, score, output
        As in `ifa.tap`. The model is never touched. The paper takes `ifa.score.probability`.
    steps
        Number of points on the path, each a forward and a backward pass.
    sigma
        Largest standard deviation of the blur, in positions; far beyond the image is its mean.
    rule
        In t, as in `ifa.attribute.integrated_gradients`.
    chunk
        How many points run at once: bounds the memory and changes no result. None: as many as are
        fast.

    Returns
    -------
    callable
        ``(inputs, target=None) -> attribution`` as of `ifa.attribute.integrated_gradients`, with
        ``observe``; its total is y of the input less y of the blurred one.

    Raises
    ------
    TypeError, ValueError
        As `ifa.attribute.integrated_gradients`; also if sigma is not positive and finite.

    References
    ----------
    Xu et al. 2020, "Attribution in scale and space". arXiv:2004.03383

    Examples
    --------
    >>> import ifa, torch
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 1, bias=False))
    >>> _ = net[1].weight.data.copy_(torch.tensor([[1.0, -1.0]]))
    >>> blurred = ifa.attribute.blur_integrated_gradients(net)
    >>> blurred(torch.tensor([[[3.0, 1.0]]]), target=0)  # to the mean, 2
    tensor([[[1.0000, 1.0000]]])
    """
    scorer = scorer_of("blur_integrated_gradients", model, score, output)
    if not 0 < sigma < math.inf:
        raise ValueError(f"{scorer.where}: expected sigma to be positive and finite, got {sigma}.")
    nodes = quadrature(scorer.where, rule, steps)
    make = partial(_blurred, sigma=float(sigma))
    return path_attribution(scorer, make, nodes, (), chunk, f"{steps=}, {sigma=}, {rule=}")


def _blurred(inputs: Any, _: Sequence[Any], *, sigma: float) -> Path:
    def blurred(place: float) -> Any:
        return over(partial(diffused, sigma=torch.tensor(place, dtype=torch.float64)), inputs)

    def at(step: int, node: float) -> tuple[Any, Any]:
        del step
        place, speed = sigma * (1 - node) ** 2, -2 * sigma * (1 - node)
        point = blurred(place)
        return point, over(lambda one: speed * place * diffusion(one), point)

    return Path(at, [(blurred(sigma), inputs)])
