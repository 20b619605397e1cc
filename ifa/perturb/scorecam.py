"""Score-CAM: a channel's weight is what the network says of the input behind that channel."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ifa.checks import check_count
from ifa.network.inputs import varied
from ifa.perturb.perturbation import Advance, Network, Perturbation, Running, Samples, each_layer
from ifa.progress import Progress
from ifa.resizing import resized
from ifa.score import logit
from ifa.stages import builder
from ifa.types import Grid, Inputs, Layer, Output, Score

# (masks (sample, variant, *space), the channels of each sample, the draws of each of these) -> the
# masks to use
Alter = Callable[[Tensor, Sequence[Sequence[int]], Sequence[range]], Tensor]


@builder
def scorecam(
    model: nn.Module,
    layer: Any,
    example: Inputs,
    *,
    score: Score = logit,
    chunk: int | None = None,
    softmax: bool = True,
    top: int | None = None,
    output: Output = None,
    grid: Grid | None = None,
    grid_of: str | int | None = None,
    progress: Progress = False,
) -> Any:
    r"""Weigh each channel by the score of the input masked with that channel.

    .. math::

        S_k = y(x \odot M_k) - y(x), \qquad w_k = \frac{e^{S_k}}{\sum_j e^{S_j}}

    where :math:`M_k` is the activation :math:`A_k` scaled to [0, 1] by its own extremes, at the
    layer's resolution, and then interpolated to the input's as by `ifa.resize`. A channel without
    contrast has the mask 0. Of several tensors x is the one with the grid, and the others stay. No
    gradient is computed.

    Parameters
    ----------
    model, layer, example, score, output, grid, grid_of
        As in `ifa.tap`. Several layers are run one after the other and give a tuple. The layer
        has as many space axes as the input, one, two or three.
    chunk
        How many masked inputs run at once: bounds the memory and changes no result. None
        takes what fits in the cache, on a GPU what fits in 1 GiB.
    softmax
        Take the softmax over channels, by which :math:`y(x)` cancels and nearly equal scores give
        nearly equal weights. Without it :math:`w_k = S_k`.
    top
        Run only so many channels, those of the largest variance over space; the weights of others
        are 0. None runs all.
    progress
        True draws a bar, a callable gets ``(done, total)``, counted in channels of samples.

    Returns
    -------
    callable
        ``(inputs, target=None) -> Weighted`` with weights (sample, channel), or (target, sample,
        channel) for targets (target, sample), which share the masked passes. Softmax weights are
        positive, without unit; others are signed, in the score's unit.

    Raises
    ------
    LookupError, ValueError, TypeError
        As `ifa.tap`; also if the layer has no grid, or an option is out of range.

    References
    ----------
    Wang et al. 2020, "Score-CAM: score-weighted visual explanations for convolutional neural
    networks", algorithm 1. arXiv:1910.01279. The authors' code takes the probability as the score.

    Examples
    --------
    >>> import ifa, torch
    >>> net = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Flatten())
    >>> images = torch.tensor([[[1.0, 3.0], [2.0, 2.0]]])  # (sample, channel, t)
    >>> ifa.perturb.scorecam(net, "0", images, softmax=False)(images, target=1)
    Weighted(weights=tensor([[ 0., -3.]]), activations=tensor([[[1., 3.],
             [2., 2.]]]), target=tensor([1]))
    """
    how = Running(score, chunk, output, grid, grid_of)

    def build(one: Layer | None) -> Perturbation:
        network = Network("scorecam", model, one, example, how)
        network.check_real(example)
        return masked(network, _same, 1, softmax, top, progress)

    return each_layer(build, layer)


def masked(
    network: Network,
    alter: Alter,
    draws: int,
    softmax: bool,
    top: int | None,
    progress: Progress,
    options: str = "",
) -> Perturbation:
    """Make the perturbation whose weights come from inputs masked with altered activations."""
    network.check_masks()
    if top is not None:
        check_count(network.where, "top", top, network.channels)
    units = network.channels if top is None else top
    weigh = partial(
        _masked, network=network, alter=alter, draws=draws, softmax=softmax, channels=units
    )
    return Perturbation(network, weigh, units, progress, f"{options}{softmax=}, {top=}")


def _same(masks: Tensor, channels: Any, draws: Any) -> Tensor:
    return masks


def _masked(
    samples: Samples,
    advance: Advance,
    *,
    network: Network,
    alter: Alter,
    draws: int,
    softmax: bool,
    channels: int,
) -> Tensor:
    activations = samples.activations.to(samples.image)
    together = len(activations)
    chosen = _of_largest_variance(activations, channels)
    whole = channels == activations.shape[1]
    named = [range(channels)] * together if whole else chosen.tolist()  # once, not in each chunk
    rows = torch.arange(together, device=chosen.device)[:, None]
    masks = _unit_range(activations if whole else activations[rows, chosen])
    size = tuple(samples.image.shape[-len(network.space) :])
    lead = (1,) * (samples.image.ndim - 1 - len(size))
    scores: list[Tensor] = []
    for span in network.spans(samples, channels * draws):
        variants = torch.arange(span.start, span.stop, device=chosen.device)
        first, last = span.start // draws, (span.stop - 1) // draws
        large = resized(masks[:, first : last + 1], size)
        large = large if draws == 1 else large[:, variants // draws - first]
        each = [_within(span, one, draws) for one in range(first, last + 1)]
        factor = alter(large, [row[first : last + 1] for row in named], each).transpose(0, 1)
        behind = samples.image * factor.reshape(len(span), together, *lead, *size)
        output = network.run(varied(samples.inputs, network.place, behind.flatten(0, 1)))
        found = network.scores_of(output, samples.targets.repeat(1, len(span)))
        scores.append(found.unflatten(1, (len(span), together)))
        advance((span.stop // draws - span.start // draws) * together)
    # (target, sample, channel)
    means = torch.cat(scores, 1).unflatten(1, (channels, draws)).mean(2).transpose(1, 2)
    gained = means - samples.scores[..., None]
    found = gained.softmax(2) if softmax else gained
    weights = found.new_zeros(*found.shape[:2], activations.shape[1])
    return weights.scatter(2, chosen.to(found.device).expand_as(found), found)


def _within(span: range, channel: int, draws: int) -> range:
    """Return the draws of a channel that are among some variants."""
    start = channel * draws
    return range(max(span.start - start, 0), min(span.stop - start, draws))


def _of_largest_variance(activations: Tensor, channels: int) -> Tensor:
    """Return the indices of the channels that vary most over space, ties to the lower."""
    samples, every = activations.shape[:2]
    if channels == every:
        return torch.arange(channels, device=activations.device).expand(samples, -1)
    variance = activations.flatten(2).var(2, correction=0)
    return variance.argsort(dim=1, descending=True, stable=True)[:, :channels]


def _unit_range(activations: Tensor) -> Tensor:
    """Scale each channel to [0, 1] by its own extremes, and one without contrast to 0."""
    space = tuple(range(2, activations.ndim))
    low, high = activations.amin(space, keepdim=True), activations.amax(space, keepdim=True)
    width = torch.where(high > low, high - low, torch.ones_like(high))
    return (activations - low) / width
