"""Low and high class maps of half and full networks, and how well they agree."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ifa.network.inputs import arguments, check_batch, count
from ifa.network.targets import as_targets, predicted
from ifa.refine.decoders import Full
from ifa.refine.halves import Half
from ifa.refine.pooling import pooled
from ifa.refine.trunks import Params, checked_params, laid, reached
from ifa.stages import wide
from ifa.types import Inputs, Map, Target


class Halved(NamedTuple):
    """What a half computes of a batch."""

    logits: Tensor  # (sample, output)
    low: Tensor  # (sample, channel, *grid), the channels A of its low map


class Decoded(NamedTuple):
    """What a full network computes of a batch."""

    logits: Tensor  # (sample, output)
    low: Tensor  # (sample, channel, *grid), the channels A of its low map
    high: Tensor  # (sample, channel, *space), the channels B of its high map
    pooled: Tensor  # (sample, channel, *grid), B averaged about the center of each of the units
    image: Tensor  # (sample, input's channel, *space), the input as rebuilt of B


class Whole(nn.Module):
    """Gives all that a half or full network computes, in one pass."""

    def __init__(self, model: Half | Full):
        super().__init__()
        self.model = model

    def forward(self, inputs: Any) -> Halved | Decoded:
        """Return the record of a batch."""
        model = self.model
        if isinstance(model, Full):
            activations, high, image = model.decoded(inputs)
            low = model.head.conv(activations)
            coarse = pooled(high, tuple(low.shape[2:]), model.positions)
            return Decoded(model.head(activations), low, high, coarse, image)
        (activations,) = laid(reached(model.net, [model.call], *arguments(inputs)), [model.grid])
        return Halved(model.head(activations), model.head.conv(activations))


def whole(model: Half | Full, params: Params, inputs: Inputs) -> Any:
    """Run a half or full network with its parameters: `Halved` or `Decoded`."""
    prefixed = {f"model.{name}": tensor for name, tensor in params.items()}
    return functional_call(Whole(model), prefixed, (inputs,))


def low(model: Half | Full, params: Params | None, inputs: Inputs, target: Target = None) -> Map:
    r"""Return the low maps of a half or full network: the head's weights times its channels.

    .. math:: low_c = \textstyle\sum_j W_{cj} A_j

    Signed, without a bias; its mean over space is the logit less the bias.

    Parameters
    ----------
    model, params
        From `half` or `full`; `params` once trained, or None for what the model was made with.
    inputs : (sample, \*input)
        A batch.
    target
        The explained class: None for the prediction, an int, (sample,) or (target, sample).

    Returns
    -------
    Map
        Values (sample, \*grid), or (target, sample, \*grid), in logits.

    Raises
    ------
    TypeError, ValueError
        If the model is neither, the params are another's, or the target is no class.

    Examples
    --------
    See `half`.
    """
    (values,), chosen = _maps(
        "ifa.refine.low", (Half, Full), model, params, inputs, target, ("low",)
    )
    return Map(values, chosen)


def high(model: Full, params: Params | None, inputs: Inputs, target: Target = None) -> Map:
    r"""Return the high maps of a full network: the head's weights times the decoder's channels.

    .. math:: high_c = \textstyle\sum_j W_{cj} B_j

    Signed, without a bias. It says where a class is only if the decoder was trained tied: then,
    averaged about the centre of each of the layer's units, it is the low map up to `residual`.

    Parameters
    ----------
    model, params
        From `full`; `params` once trained.
    inputs : (sample, \*input)
        A batch.
    target
        As in `low`.

    Returns
    -------
    Map
        Values (sample, \*space), or (target, sample, \*space), at the input's size, in logits.

    Raises
    ------
    TypeError, ValueError
        As `low`; also of a half, which has none.

    Examples
    --------
    See `full`.
    """
    (values,), chosen = _maps("ifa.refine.high", Full, model, params, inputs, target, ("high",))
    return Map(values, chosen)


def residual(model: Full, params: Params | None, inputs: Inputs, target: Target = None) -> Tensor:
    r"""Measure how far the high map, pooled to the layer's units, is from the low map.

    .. math:: r = \frac{\| P(high) - low \|}{\| low \|}

    P averages over one step of the layer about each unit's centre, see `ifa.positions`.
    0 where they agree, 1 for a high map of nothing; about :math:`\sqrt 2` and more where they have
    nothing in common.

    Parameters
    ----------
    model, params, inputs, target
        As in `high`.

    Returns
    -------
    (sample,) or (target, sample), float64
        NaN where the low map is zero.

    Raises
    ------
    TypeError, ValueError
        As `high`.

    Examples
    --------
    >>> import ifa, torch
    >>> net, example = ifa.nets.simulated_cnn(1).eval(), torch.ones(1, 1, 48)
    >>> model, params = ifa.refine.half(net, None, "conv2", example, outputs=3)
    >>> model, params = ifa.refine.full(model, params, example)
    >>> bool(ifa.refine.residual(model, params, example) > 0.1)  # not trained
    True
    """
    where = "ifa.refine.residual"
    both = ("pooled", "low")
    (fine, coarse), chosen = _maps(where, Full, model, params, inputs, target, both)
    coarse = wide(coarse)
    off = wide(fine) - coarse
    return off.flatten(chosen.ndim).norm(dim=-1) / coarse.flatten(chosen.ndim).norm(dim=-1)


def _maps(
    where: str,
    kind: Any,
    model: Any,
    params: Params | None,
    inputs: Inputs,
    target: Target,
    which: Sequence[str],
) -> tuple[list[Tensor], Tensor]:
    """Return maps of some channels by the head's weights, and the targets that they are of."""
    if not isinstance(model, kind):
        made = "full" if kind is Full else "half or ifa.refine.full"
        raise TypeError(
            f"{where}: expected what ifa.refine.{made} returned, got {type(model).__name__}. Make "
            "it of the network first."
        )
    check_batch(where, inputs)
    given = checked_params(where, model, params)
    with torch.no_grad():
        seen = whole(model, given, inputs)
    outputs = seen.logits.shape[1]
    chosen = as_targets(where, target, count(inputs), outputs, seen.logits.device)
    chosen = predicted(where, seen.logits) if chosen is None else chosen
    weights = given["head.linear.weight"][chosen]  # (..., sample, channel)
    sums = "tnc,nc...->tn..." if chosen.ndim == 2 else "nc,nc...->n..."
    return [torch.einsum(sums, weights, getattr(seen, name)) for name in which], chosen
