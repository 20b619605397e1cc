"""Ablation-CAM: a channel's weight is what the score loses without that channel."""

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import vmap

from ifa.checks import check_choice
from ifa.noise import chunks
from ifa.perturb.perturbation import (
    Advance,
    Network,
    Perturbation,
    Running,
    Samples,
    can_be_mapped,
    each_layer,
    score_variants,
)
from ifa.perturb.updates import one_changed
from ifa.progress import Progress
from ifa.score import logit
from ifa.stages import builder
from ifa.types import Grid, Inputs, Layer, Output, Score


@builder
def ablationcam(
    model: nn.Module,
    layer: Any,
    example: Inputs,
    *,
    score: Score = logit,
    chunk: int | None = None,
    normalize: bool = True,
    baseline: float | Literal["mean"] = 0.0,
    output: Output = None,
    grid: Grid | None = None,
    grid_of: str | int | None = None,
    progress: Progress = False,
) -> Any:
    r"""Weigh each channel by the part of the score that is lost without it.

    .. math:: w_k = \frac{y - y_{\setminus k}}{|y| + \epsilon}

    where :math:`y_{\setminus k}` is the score with channel k of the layer replaced, and
    :math:`\epsilon` the resolution of the dtype. Only what lies above the layer runs again, see
    `ifa.cut`. No gradient is computed.

    Parameters
    ----------
    model, layer, example, score, output, grid, grid_of
        As in `ifa.tap`. Several layers are run one after the other and give a tuple. Tokens that
        the grid leaves out, such as a class token, are not replaced.
    chunk
        How many ablated versions of samples run at once: bounds the memory and changes no result.
        None takes what fits in the cache, on a GPU what fits in 1 GiB.
    normalize
        Divide by the size of the score. Without it :math:`w_k = y - y_{\setminus k}`, which is
        defined for scores near 0 as well.
    baseline
        What a channel is replaced by: a number, or its own ``"mean"`` over space.
    progress
        True draws a bar, a callable gets ``(done, total)``, counted in channels of samples.

    Returns
    -------
    callable
        ``(inputs, target=None) -> Weighted`` with weights (sample, channel), or (target, sample,
        channel) for targets (target, sample), which share the ablated passes. Positive where the
        channel speaks for the target; without unit, or in the score's if not normalized.

    Raises
    ------
    LookupError, ValueError, TypeError
        As `ifa.tap`; also if an option is out of range.

    References
    ----------
    Desai and Ramaswamy 2020, "Ablation-CAM: visual explanations for deep convolutional network via
    gradient-free localization", equation 3. doi:10.1109/WACV45572.2020.9093360. It divides by y
    itself, which turns every weight's sign where y is negative (defect D4-7).

    Examples
    --------
    >>> import ifa, torch
    >>> net = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Linear(2, 1, bias=False))
    >>> _ = net[1].weight.data.copy_(torch.tensor([[3.0, -5.0]]))
    >>> ifa.perturb.ablationcam(net, "0", torch.ones(1, 2))(torch.ones(1, 2)).weights
    tensor([[ 1.5000, -2.5000]])
    """
    how = Running(score, chunk, output, grid, grid_of, above=True)

    def build(one: Layer | None) -> Perturbation:
        network = Network("ablationcam", model, one, example, how)
        if isinstance(baseline, str):
            check_choice(network.where, "baseline", baseline, ("mean",))
        mapped = can_be_mapped(network, example)
        options = f"{normalize=}, {baseline=}" + ("" if mapped else ", one ablation at a time")
        weigh = partial(
            _ablated, network=network, normalize=normalize, baseline=baseline, mapped=mapped
        )
        return Perturbation(network, weigh, network.channels, progress, options)

    return each_layer(build, layer)


def _ablated(
    samples: Samples,
    advance: Advance,
    *,
    network: Network,
    normalize: bool,
    baseline: float | str,
    mapped: bool,
) -> Tensor:
    places = network.positions(samples.raw)
    # (channel, sample, place)
    places = places.reshape(*places.shape[:2], -1).transpose(0, 1)
    flat = samples.raw.flatten()
    if isinstance(baseline, str):
        new = flat[places].mean(2, keepdim=True)
    else:
        new = flat.new_full((len(places), 1, 1), baseline)
    new = new.expand_as(places)
    scores = None
    if network.grid is None:  # otherwise channels lie elsewhere in the layer's own output
        every = flat.scatter(0, places.flatten(), new.flatten()).reshape(samples.raw.shape)
        scores = _updated(samples, advance, network, every)
    if scores is None:
        scores = _one_by_one(samples, advance, network, places, new, mapped)
    lost = samples.scores[..., None] - scores.transpose(1, 2)
    if not normalize:
        return lost
    return lost / (samples.scores.abs() + torch.finfo(lost.dtype).eps)[..., None]


def _updated(samples: Samples, advance: Advance, network: Network, every: Tensor) -> Tensor | None:
    """Score without each channel, what lies above being run once; None where that cannot be."""
    scores: list[Tensor] = []
    for span in chunks(network.channels, max(1, network.rows // len(samples.raw))):
        outputs = one_changed(samples.head, samples.raw, every, span)
        if outputs is None:
            return None
        scored = vmap(partial(network.scores_of, targets=samples.targets), out_dims=1)
        scores.append(scored(outputs))
        advance(len(span) * len(samples.raw))
    return torch.cat(scores, 1)


def _one_by_one(
    samples: Samples,
    advance: Advance,
    network: Network,
    places: Tensor,
    new: Tensor,
    mapped: bool,
) -> Tensor:
    """Score without each channel, what lies above being run for each."""
    flat = samples.raw.flatten()
    scores: list[Tensor] = []
    for span in network.spans(samples, len(places)):
        part = slice(span.start, span.stop)
        at, value = places[part].flatten(1), new[part].flatten(1)
        variants = flat.repeat(len(span), 1).scatter_(1, at, value)
        variants = variants.reshape(len(span), *samples.raw.shape)
        scores.append(score_variants(network, samples, variants, mapped))
        advance(len(span) * len(samples.raw))
    return torch.cat(scores, 1)
