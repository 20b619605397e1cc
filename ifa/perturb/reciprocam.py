"""Recipro-CAM: what the network says of one position of a layer by itself."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

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
from ifa.progress import Progress
from ifa.score import logit
from ifa.stages import builder
from ifa.types import Grid, Inputs, Layer, Output, Score

# What a position keeps along an axis, what its neighbours get, and all others. The authors' filter
# of 3 × 3 is the product over axes.
_SINGLE, _GAUSSIAN = (1.0, 0.0, 0.0), (0.5, 0.25, 0.0)


@builder
def reciprocam(
    model: nn.Module,
    layer: Any,
    example: Inputs,
    *,
    score: Score = logit,
    chunk: int | None = None,
    gaussian: bool = False,
    output: Output = None,
    grid: Grid | None = None,
    grid_of: str | int | None = None,
    progress: Progress = False,
) -> Any:
    r"""Score each position of a layer by what the network makes of it alone.

    .. math:: L(p) = y(A_p) - y(0), \qquad A_p(q) = A(p) \, g(q - p)

    where :math:`A_p` has the activations of position p in all channels and nothing elsewhere, and
    :math:`y(0)` is the score of nothing anywhere. Only what lies above the layer runs again, see
    `ifa.cut`. No gradient is computed. Under pooling and a linear layer this is Grad-CAM.

    The method says nothing of channels: its weights are the smallest whose product with the
    activations, summed over channels, is the map, :math:`w_k(p) = L(p) A_k(p) / \sum_j A_j(p)^2`.

    Parameters
    ----------
    model, layer, example, score, output, grid, grid_of
        As in `ifa.tap`. Several layers are run one after the other and give a tuple. Tokens that
        the grid leaves out, such as a class token, stay as they are.
    chunk
        How many positions of samples run at once: bounds the memory and changes no result. None
        takes what fits in the cache, on a GPU what fits in 1 GiB.
    gaussian
        Spread what is at p over its neighbours, :math:`g = (1, 2, 1) / 4` along each axis, cut off
        at the border. Otherwise g is 1 at 0 and 0 elsewhere.
    progress
        True draws a bar, a callable gets ``(done, total)``, counted in positions of samples.

    Returns
    -------
    callable
        ``(inputs, target=None) -> Weighted`` with weights (sample, channel, \*space), or (target,
        sample, channel, \*space) for targets (target, sample), which share the passes. The map is
        signed, in the score's unit.

    Raises
    ------
    LookupError, ValueError, TypeError
        As `ifa.tap`; also if the layer has no grid.

    References
    ----------
    Byun & Lee 2022, "Recipro-CAM: fast gradient-free visual explanations for convolutional neural
    networks". arXiv:2209.14074, by the authors' code. It takes `ifa.score.probability`, and does
    not subtract y(0), which the scaling of each map by its extremes takes away.

    Examples
    --------
    >>> import ifa, torch
    >>> linear = torch.nn.Linear(3, 1, bias=False)
    >>> net = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Flatten(), linear)
    >>> _ = linear.weight.data.copy_(torch.tensor([[1.0, -1.0, 5.0]]))
    >>> signals = torch.tensor([[[2.0, 3.0, 0.0]]])  # (sample, channel, t)
    >>> weighted = ifa.perturb.reciprocam(net, "0", signals)(signals)
    >>> ifa.batched(ifa.combine)(weighted).values
    tensor([[ 2., -3.,  0.]])
    """
    how = Running(score, chunk, output, grid, grid_of, above=True)

    def build(one: Layer | None) -> Perturbation:
        network = Network("reciprocam", model, one, example, how)
        if not network.space:
            raise ValueError(
                f"{network.where}: expected a layer laid out as (channel, *space), got "
                f"{network.layer!r} with {network.channels} channels and no space. Choose a layer "
                "with a grid, or lay it out with grid=, e.g. ifa.tokens(prefix=1, grid=(14, 14))."
            )
        mapped = can_be_mapped(network, example)
        options = f"{gaussian=}" + ("" if mapped else ", one position at a time")
        weigh = partial(_alone, network=network, gaussian=gaussian, mapped=mapped)
        units = int(torch.tensor(network.space).prod())
        return Perturbation(network, weigh, units, progress, options)

    return each_layer(build, layer)


def _alone(
    samples: Samples, advance: Advance, *, network: Network, gaussian: bool, mapped: bool
) -> Tensor:
    places = network.positions(samples.raw).flatten(2)  # (sample, channel, position)
    activations = samples.activations.flatten(2)
    # what the grid leaves out stays
    nothing = samples.raw.flatten().index_fill(0, places.flatten(), 0)
    shape, positions = samples.raw.shape, places.shape[2]

    def scored(variants: Tensor) -> Tensor:  # (target, variant, sample)
        return score_variants(network, samples, variants.reshape(-1, *shape), mapped)

    found: list[Tensor] = []
    for span in network.spans(samples, positions):
        here = slice(span.start, span.stop)
        spread = _spread(span, network.space, gaussian, activations)  # (variant, position)
        # (variant, sample, channel, position)
        kept = activations[..., here].movedim(2, 0)[..., None] * spread[:, None, None]
        index = places.flatten().expand(len(span), -1)
        found.append(scored(nothing.repeat(len(span), 1).scatter_(1, index, kept.flatten(1))))
        advance(len(span) * len(samples.raw))
    gained = (torch.cat(found, 1) - scored(nothing[None])).transpose(1, 2)
    weights = gained[:, :, None] * _smallest(activations)  # (target, sample, channel, position)
    return weights.unflatten(3, network.space)


def _spread(span: range, space: list[int], gaussian: bool, like: Tensor) -> Tensor:
    """Return what each position of the grid gets of some positions: (one of them, position)."""
    places = torch.unravel_index(torch.arange(span.start, span.stop), space)
    rows = torch.ones(len(span), 1)
    for extent, place in zip(space, places, strict=True):
        distance = (torch.arange(extent) - place[:, None]).abs().clamp(max=2)
        along = torch.tensor(_GAUSSIAN if gaussian else _SINGLE)[distance]
        rows = (rows[:, :, None] * along[:, None]).flatten(1)
    return rows.to(like)


def _smallest(activations: Tensor) -> Tensor:
    """Return the smallest weights whose product with activations (sample, channel, position) is 1.

    And 0 at positions without activation, which the map is 0 at as well.
    """
    size = activations.abs().amax(1, keepdim=True)
    some = size > 0
    safe = torch.where(some, size, torch.ones_like(size))
    unit = activations / safe  # whose square is no underflow
    squares = torch.where(some, unit.square().sum(1, keepdim=True), torch.ones_like(size))
    return unit / squares / safe
