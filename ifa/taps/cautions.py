"""What can be seen of a pass: no gradient reached a layer, a sum cancels, outputs are shares."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ifa.checks import outside
from ifa.network.gradients import score_all, transformed
from ifa.network.inputs import tensors_of
from ifa.network.probabilities import are_shares, reads, warn_of_shares
from ifa.types import Cancellation, Inputs, ZeroGradient

if TYPE_CHECKING:
    from ifa.taps.features import Observation, Tap


def zero_gradient(gradients: Tensor, lead: int) -> Tensor:
    r"""Tell of each sample whether its gradient is zero everywhere.

    Parameters
    ----------
    gradients : (sample, channel, \*space) or (target, sample, channel, \*space)
    lead
        How many axes come before the channel.

    Returns
    -------
    (sample,) or (target, sample), bool
    """
    gradients = gradients.detach()
    axes = tuple(range(lead, gradients.ndim))
    if not axes:
        return gradients == 0
    # the largest and the least are found faster than whether any is not zero
    return (gradients.amax(axes) == 0) & (gradients.amin(axes) == 0)


def heed(
    tap: "Tap",
    inputs: Inputs,
    params: Mapping[str, Tensor] | None,
    seen: "Observation",
    cancelled: Sequence[Tensor] = (),
    warn: str | None = None,
) -> None:
    """Raise where no path leads from a layer to the score; warn of what else there is to be heeded.

    Looks at the flags once. `warn` is the public function that a warning names, None for no
    warning. Under a transform nothing is known yet.
    """
    flags = (*seen.zero, *cancelled)
    if torch.compiler.is_compiling() or transformed(*flags, *tensors_of(inputs)):
        return
    shares = are_shares(seen.output) if warn and reads(tap.score) == "logits" else None
    looked = [flag.sum() for flag in (*flags, *([] if shares is None else [shares]))]
    zeros = torch.stack(looked).tolist()
    if warn and shares is not None and zeros.pop():
        warn_of_shares(warn, tap.score)
    cancels = zeros[len(seen.zero) :]
    total = seen.zero[0].numel()
    for site, number in zip(tap.sites, zeros, strict=False):
        if number == total and not connected(tap, inputs, params, seen.target, site.layer):
            raise ValueError(
                f"{warn or 'ifa.tap'}: expected a layer that the score depends on, got "
                f"{site.layer!r}, from where no gradient reaches the score: above it is a detach, "
                "a no_grad or what cannot be differentiated, or the score reads something else. "
                "Take a layer above that, listed by ifa.trace(model, example), or a method of "
                "ifa.perturb, which needs no gradient."
            )
        if number and warn:
            text = (
                f"{warn}: the gradient of the score is zero at every position of layer "
                f"{site.layer!r} for {_share(number, seen.zero[0])}, and so are maps made of it. "
                "Take a layer further below, such as an inner one of the block, or a score that is "
                "not saturated, such as ifa.score.logit."
            )
            warnings.warn(text, ZeroGradient, stacklevel=outside())
    for site, norm, number in zip(tap.sites, tap.norms, cancels, strict=False):
        if number and warn:
            instead = f"the output of the norm, {norm!r}" if norm else "the output of the norm"
            text = (
                f"{warn}: weights times activations of layer {site.layer!r} cancel over the "
                f"channels at every position for {_share(number, cancelled[0])}: the map is what "
                f"rounding left, as it is where a normalization reads the layer. Take {instead}, "
                "or an inner layer of the block; see the page Cancellation of the documentation."
            )
            warnings.warn(text, Cancellation, stacklevel=outside())


def heed_gaps(where: str, layers: Sequence[str], places: Sequence[Tensor], lead: int) -> None:
    r"""Warn of maps on a finer grid that are zero between the network's own positions.

    `places` says of each layer where its weighted activations are not zero: bool, with so many axes
    before those of space.
    """
    if torch.compiler.is_compiling() or transformed(*places):
        return
    for layer, some in zip(layers, places, strict=True):
        for axis in range(lead, some.ndim):
            others = [other for other in range(some.ndim) if other != axis]
            taken = some.any(others) if others else some
            (at,) = taken.nonzero(as_tuple=True)
            every = math.gcd(*at.diff().tolist()) if len(at) > 2 else 1
            if every > 1:
                text = (
                    f"{where}: on the finer grid of layer {layer!r} weights times activations are "
                    f"zero but at every {_ordinal(every)} position: the score reads the network's "
                    "own positions alone, and these weights are of each position. Take "
                    "ifa.dense.densify(model, pool='dense') where a global average is known (its "
                    "repr says what ended the density), or ifa.weight.gradcam, whose weights are "
                    "of whole channels."
                )
                warnings.warn(text, ZeroGradient, stacklevel=outside())
                break


def _ordinal(number: int) -> str:
    ends = {1: "st", 2: "nd", 3: "rd"}
    return f"{number}{'th' if number // 10 % 10 == 1 else ends.get(number % 10, 'th')}"


def connected(
    tap: "Tap", inputs: Inputs, params: Mapping[str, Tensor] | None, target: Tensor, layer: str
) -> bool:
    """Tell whether a path that can be differentiated leads from a layer to the score."""
    points: dict[str, Tensor] = {}

    def insert(call: str, tensor: Tensor) -> Tensor:
        # with a graph, so that the last layer of a backbone run under no_grad counts
        with torch.enable_grad():
            points[call] = tensor.clone() if tensor.requires_grad else tensor.detach()
            return points[call].requires_grad_().clone()

    with torch.enable_grad():
        output = tap.output_of(inputs, target, params, insert)
        total = score_all("ifa.tap", tap.score, output, target).sum()
    names = [site.layer for site in tap.sites]
    start = [points[call] for call, name in zip(tap.calls, names, strict=True) if name == layer]
    if not total.requires_grad:
        return False
    return torch.autograd.grad(total, start, allow_unused=True)[0] is not None


def _share(number: int, flags: Tensor) -> str:
    unit = "samples" if flags.ndim == 1 else "targets and samples"
    return f"{int(number)} of {flags.numel()} {unit}"
