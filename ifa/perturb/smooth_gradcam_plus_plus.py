"""Smooth Grad-CAM++: Grad-CAM++ with its derivatives averaged over noisy inputs."""

from functools import partial
from typing import Any, Literal

import torch
from einops import reduce
from torch import Tensor, nn

from ifa.checks import check_choice, check_noise
from ifa.network.inputs import count, joined, noise_like, over, repeated
from ifa.perturb.perturbation import Advance, Network, Perturbation, Running, Samples, each_layer
from ifa.progress import Progress
from ifa.score import logit
from ifa.stages import builder, wide
from ifa.taps.features import Tap, tap
from ifa.types import Grid, Inputs, Layer, Output, Score


@builder
def smooth_gradcam_plus_plus(
    model: nn.Module,
    layer: Any,
    example: Inputs,
    *,
    score: Score = logit,
    chunk: int | None = None,
    draws: int = 4,
    stdev: float = 0.3,
    seed: int = 0,
    numerator: Literal["second", "first"] = "second",
    output: Output = None,
    grid: Grid | None = None,
    grid_of: str | int | None = None,
    progress: Progress = False,
) -> Any:
    r"""Weigh each channel by its positive gradients, averaged over noisy inputs.

    .. math::

        D_m = \frac{1}{N} \sum_{i=1}^{N} G(x + \delta_i)^m, \qquad
        \alpha_k(p) = \frac{D_{2,k}(p)}{2 D_{2,k}(p) + D_{3,k}(p) \sum_q A_k(q)}, \qquad
        w_k = \sum_p \alpha_k(p) \max\bigl(0, D_{1,k}(p)\bigr)

    with :math:`\alpha = 0` where :math:`D_2 = 0`, noise :math:`\delta_i \sim N(0, \sigma^2)`, and
    the activations A of the input without noise. The noise of a draw depends on the seed alone and
    is the same for every example. Without noise this is `ifa.weight.gradcam_plus_plus`.

    Parameters
    ----------
    model, layer, example, score, output, grid, grid_of
        As in `ifa.tap`. Several layers are run one after the other and give a tuple.
    chunk
        How many noisy inputs run at once: bounds the memory and changes no result. None
        takes what fits in the cache, on a GPU what fits in 1 GiB.
    draws
        Number N of draws.
    stdev
        Standard deviation σ of the noise, in the input's own unit.
    seed
        Of the noise.
    numerator
        Of :math:`\alpha`: ``"second"`` is :math:`D_2`, as above and in torch-cam; ``"first"`` is
        :math:`D_1`, as the paper prints it.
    progress
        True draws a bar, a callable gets ``(done, total)``, counted in noisy inputs.

    Returns
    -------
    callable
        ``(inputs, target=None) -> Weighted`` with weights (sample, channel), or (target, sample,
        channel) for targets (target, sample), which share the noisy passes. In score units per
        activation unit (with ``"first"``, without unit); not negative where activations are not.

    Raises
    ------
    LookupError, ValueError, TypeError
        As `ifa.tap`; also if an option is out of range.

    References
    ----------
    Omeiza et al. 2019, "Smooth Grad-CAM++: an enhanced inference level visualization technique for
    deep convolutional neural network models", equation 7. arXiv:1908.01224. torch-cam takes the
    activations and the positive gradients of the last noisy input instead (defect D1-2).

    Examples
    --------
    >>> import ifa, torch
    >>> net = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Flatten(), torch.nn.Linear(3, 1))
    >>> _ = net[2].weight.data.copy_(torch.tensor([[1.0, -1.0, 0.0]]))
    >>> ifa.perturb.smooth_gradcam_plus_plus(net, "0", torch.ones(1, 1, 3))(
    ...     torch.ones(1, 1, 3)
    ... ).weights
    tensor([[0.2000]])
    """
    how = Running(score, chunk, output, grid, grid_of)

    def build(one: Layer | None) -> Perturbation:
        network = Network("smooth_gradcam_plus_plus", model, one, example, how)
        network.check_real(example, masked=False)
        check_noise(network.where, draws, stdev, seed)
        check_choice(network.where, "numerator", numerator, ("second", "first"))
        tapped = tap(
            model,
            network.layer,
            example,
            score=score,
            grid=grid,
            output=output,
            grid_of=grid_of,
        )
        noisy = partial(_noisy, stdev=stdev, seed=seed)
        weigh = partial(
            _smooth,
            tapped=tapped,
            noisy=noisy,
            draws=draws,
            network=network,
            first=numerator == "first",
        )
        options = f"{draws=}, {stdev=}, {seed=}, {numerator=}"
        return Perturbation(network, weigh, draws, progress, options)

    return each_layer(build, layer)


def _noisy(inputs: Inputs, draws: range, *, stdev: float, seed: int) -> Inputs:
    drawn = joined([noise_like(inputs, seed, draw) for draw in draws])  # (draw, *input)
    every = len(draws), count(inputs)

    def noisy(one: Tensor, added: Tensor) -> Tensor:
        return (one.unflatten(0, every) + stdev * added[:, None]).flatten(0, 1)

    return over(noisy, repeated(inputs, len(draws)), drawn)


def _smooth(
    samples: Samples,
    advance: Advance,
    *,
    tapped: Tap,
    noisy: Any,
    draws: int,
    network: Network,
    first: bool,
) -> Tensor:
    together = len(samples.activations)
    sums: Any = (0, 0, 0)
    for span in network.spans(samples, draws):
        targets = samples.targets.repeat(1, len(span))
        gradients = wide(tapped(noisy(samples.inputs, span), targets).gradients)
        gradients = gradients.unflatten(1, (len(span), together))
        powers = (gradients, gradients.square(), gradients.pow(3))
        sums = [total + power.sum(1) for total, power in zip(sums, powers, strict=True)]
        advance(len(span) * together)
    d1, d2, d3 = (total / draws for total in sums)  # each (target, sample, channel, *space)
    some = d2 > 0
    square = torch.where(some, d2, torch.ones_like(d2))
    area = reduce(wide(samples.activations), "sample channel ... -> sample channel", "sum")
    denominator = 2 + d3 / square * area.reshape(*area.shape, *(1,) * (d3.ndim - 3))
    # signed activations can bring the denominator to zero; keep its sign and a least size
    least = torch.finfo(samples.activations.dtype).eps
    safe = torch.where(denominator < 0, denominator.clamp(max=-least), denominator.clamp(min=least))
    positive = d1.relu() * (d1 / square if first else some)
    return reduce(positive / safe, "target sample channel ... -> target sample channel", "sum")
