"""The full of a half: a decoder of its trunk, whose channels make a map of the input's size."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ifa.network.inputs import at, grid_place
from ifa.network.sites import address, examine
from ifa.refine.halves import CONVOLUTIONS, Half, Head
from ifa.refine.trunks import (
    Params,
    arguments,
    calls_of,
    checked_params,
    reached,
    state_of,
)
from ifa.resizing import resized
from ifa.types import Grid, Inputs

_NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class Decoder(nn.Module):
    """Skips of ever larger grids joined to what comes from below, up to the input's size."""

    def __init__(
        self, axes: int, below: int, skips: Sequence[int], width: int, channels: int, tied: bool
    ):
        super().__init__()
        self.up, self.join = nn.ModuleList(), nn.ModuleList()
        for skip in skips:
            self.up.append(_convolved(axes, below, width))
            self.join.append(_convolved(axes, width + skip, width))
            below = width
        self.last = CONVOLUTIONS[axes](below, channels, 3, padding=1)
        self.tied = tied

    def forward(self, below: Tensor, skips: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """Return channels at the input's size; signed if they are tied to signed ones."""
        for up, join, skip in zip(self.up, self.join, skips, strict=True):
            raised = up(resized(below, tuple(skip.shape[2:])))
            below = join(torch.cat([raised, skip], 1))
        features = self.last(resized(below, tuple(size)))
        return features if self.tied else features.relu()


def _convolved(axes: int, channels_in: int, channels: int) -> nn.Sequential:
    convolution = CONVOLUTIONS[axes](channels_in, channels, 3, padding=1, bias=False)
    return nn.Sequential(convolution, _NORMS[axes](channels), nn.ReLU())


class Decoding(nn.Module):
    """A decoder, and the image made of its channels."""

    def __init__(self, body: nn.Module, image: nn.Module):
        super().__init__()
        self.body, self.image = body, image


class Full(nn.Module):
    """A half with a decoder of the same trunk. Build it with `full`."""

    def __init__(self, net: nn.Module, calls: Sequence[str], grid: Grid | None, head: Head):
        super().__init__()
        self.net, self.head, self.calls, self.grid = net, head, tuple(calls), grid
        self.tied = True
        self.decoder: Decoding

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return logits (sample, outputs), those of the half, bit for bit."""
        (activations,) = reached(self.net, self.calls[-1:], args, kwargs)
        return self.head(activations if self.grid is None else self.grid(activations))

    def decoded(self, inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
        """Return the activations of the layer, the decoder's channels, and the image of them."""
        *skips, below = reached(self.net, self.calls, *arguments(inputs))
        below = below if self.grid is None else self.grid(below)
        image = at(inputs, grid_place("ifa.refine.full", inputs))
        features = self.decoder.body(below, skips[::-1], tuple(image.shape[2:]))
        return below, features, self.decoder.image(features)


def full(
    model: Half,
    params: Params | None,
    example: Inputs,
    *,
    tied: bool = True,
    skips: Sequence[str] | None = None,
    width: int = 32,
    decoder: nn.Module | None = None,
    seed: int = 0,
) -> tuple[Full, dict[str, Tensor]]:
    r"""Give a half a decoder, whose channels make a map of the input's size with the same weights.

    .. math:: high_c(p) = \textstyle\sum_j W_{cj} B_j(p)

    B are the decoder's channels, as many as the head's. It rebuilds the input from the layer and
    from skips: the last layer of each larger grid on the way. Tied, B averaged over each position
    of the layer is trained to be A, and so the high map, pooled, to be the low one; untied nothing
    ties channel j of B to channel j of A, and what the high map says of a class is an accident.

    Parameters
    ----------
    model, params
        What `half` returned, or its parameters once trained.
    example : (sample, \*input)
        A batch, for shapes.
    tied
        False for the public code's decoder, whose channels are rectified and not tied.
    skips
        Names of layers of the half's network, in the order in which they run, instead.
    width
        Channels inside the decoder.
    decoder
        A module of ``(activations, skips from the largest step down to the smallest, size)`` to
        (sample, head's channels, \*space), instead of the one made here; such as
        `ifa.nets.densenet_decoder`.
    seed
        Of the decoder's first weights. Global random state is left as it was.

    Returns
    -------
    model, params
        `Full`, and the union of the given parameters, bit for bit, with the decoder's, under
        ``decoder.``. Train these with `trained`.

    Raises
    ------
    TypeError, ValueError, LookupError
        If the model is no half, or a skip no layer that runs before the half's own and has a grid.

    References
    ----------
    As `half`.

    Examples
    --------
    >>> import ifa, torch
    >>> net, example = ifa.nets.simulated_cnn(1).eval(), torch.zeros(1, 1, 48)
    >>> model, params = ifa.refine.half(net, None, "conv2", example, outputs=3)
    >>> model, params = ifa.refine.full(model, params, example)
    >>> ifa.refine.low(model, params, example).values.shape
    torch.Size([1, 24])
    >>> ifa.refine.high(model, params, example).values.shape
    torch.Size([1, 48])
    """
    where = "ifa.refine.full"
    if not isinstance(model, Half):
        raise TypeError(
            f"{where}: expected what ifa.refine.half returned, got {type(model).__name__}. Make a "
            "half of the network first."
        )
    given = checked_params(where, model, params)
    names = _skips(model, example) if skips is None else list(skips)
    calls = [*calls_of(names), model.call]
    made = Full(model.net, calls, model.grid, model.head)
    with torch.no_grad():
        *larger, below = reached(model.net, calls, *arguments(example))
        below = below if model.grid is None else model.grid(below)
    image = at(example, grid_place(where, example))
    axes, channels = below.ndim - 2, model.head.linear.in_features
    _check_skips(where, names, larger, axes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        counts = [one.shape[1] for one in reversed(larger)]
        body = decoder or Decoder(axes, below.shape[1], counts, width, channels, tied)
        last = CONVOLUTIONS[axes](channels, image.shape[1], 1, bias=False)
    made.decoder = Decoding(body, last).to(below).eval().requires_grad_(False)
    made.tied = tied
    new = {f"decoder.{name}": tensor for name, tensor in state_of(made.decoder).items()}
    return made.eval(), {**given, **new}


def _skips(model: Half, example: Inputs) -> list[str]:
    """Name the last layer of each grid that is larger than the half's, on the way to it."""
    sites = examine(model, example, None, "ifa.refine.full").sites
    prefix = "net."
    ran = [name for name in sites if name.startswith(prefix)]
    own = _grid_of(model, example)
    last: dict[tuple[int, ...], str] = {}
    for name in ran:
        grid = sites[name].shape[1:]
        short = name.removeprefix(prefix)
        if address(short) == model.call:
            break
        larger = len(grid) == len(own) and all(a >= b for a, b in zip(grid, own, strict=True))
        if larger and grid != own:
            last[grid] = short
    # in the order in which they run, each grid once
    return [name for name in (n.removeprefix(prefix) for n in ran) if name in last.values()]


def _grid_of(model: Half, example: Inputs) -> tuple[int, ...]:
    with torch.no_grad():
        (raw,) = reached(model.net, [model.call], *arguments(example))
        return tuple((raw if model.grid is None else model.grid(raw)).shape[2:])


def _check_skips(where: str, names: Sequence[str], skips: Sequence[Tensor], axes: int) -> None:
    for name, skip in zip(names, skips, strict=True):
        if skip.ndim != axes + 2:
            raise ValueError(
                f"{where}: expected skips (sample, channel, *space) with {axes} axes of space, got "
                f"{tuple(skip.shape)} of {name!r}. Choose a layer with a grid."
            )
