"""The full of a half: a decoder of its trunk, whose channels make a map of the input's size."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ifa.network.inputs import arguments, at, grid_place
from ifa.network.sites import address, examine
from ifa.refine.halves import CONVOLUTIONS, Half, Head
from ifa.refine.trunks import (
    Params,
    checked_params,
    laid,
    layout,
    reached,
    state_of,
)
from ifa.resizing import resized
from ifa.taps.centers import centers
from ifa.taps.features import prepare
from ifa.types import Grid, Inputs, Positions

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

    def __init__(
        self, net: nn.Module, calls: Sequence[str], grids: Sequence[Grid | None], head: Head
    ):
        super().__init__()
        self.net, self.head, self.calls, self.grids = net, head, tuple(calls), tuple(grids)
        self.tied = True
        self.positions: Positions  # of the head's units
        self.decoder: Decoding

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return logits (sample, outputs), those of the half, bit for bit."""
        return self.head(*laid(reached(self.net, self.calls[-1:], args, kwargs), self.grids[-1:]))

    def decoded(self, inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
        """Return the activations of the layer, the decoder's channels, and the image of them."""
        *skips, below = laid(reached(self.net, self.calls, *arguments(inputs)), self.grids)
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
    from skips: the last layer of each larger grid on the way. Tied, B averaged over one step of the
    layer about the centre of each unit (`ifa.positions`) is trained to be A, and so the high map,
    pooled, to be the low one; untied nothing ties channel j of B to channel j of A, and what the
    high map says of a class is an accident. Where the centres are not known, a warning of category
    `ifa.EvenTiling` says so.

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
    names = _skips(where, model, example) if skips is None else list(skips)
    calls = [*map(address, names), model.call]
    grids = [*_grids(where, model, names, example), model.grid]
    made = Full(model.net, calls, grids, model.head)
    *larger, below = _laid(model, calls, grids, example)
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
    (made.positions,) = centers(prepare(model, "head.conv", example), example, where)
    new = {f"decoder.{name}": tensor for name, tensor in state_of(made.decoder).items()}
    return made.eval(), {**given, **new}


def _skips(where: str, model: Half, example: Inputs) -> list[str]:
    """Name the last layer of each grid that is larger than the half's, on the way to it."""
    own = _laid(model, [model.call], [model.grid], example)[-1].shape[2:]
    last: dict[tuple[int, ...], str] = {}
    for name, grid in _layouts(where, model, example).items():
        larger = len(grid) == len(own) and all(a >= b for a, b in zip(grid, own, strict=True))
        if larger and grid != own:
            last.pop(grid, None)  # so that they stay in the order in which they run
            last[grid] = name
    return list(last.values())


def _layouts(where: str, model: Half, example: Inputs) -> dict[str, tuple[int, ...]]:
    """Return the grid of every layer below the half's that can be laid out on one."""
    sites = examine(model, example, None, where).sites
    found: dict[str, tuple[int, ...]] = {}
    for name, site in sites.items():
        short = name.removeprefix("net.")
        if short == name or address(short) == model.call:
            continue
        try:
            grid = layout(where, model, sites, site, example)
        except ValueError:  # tokens that fit several grids
            continue
        shape = torch.empty(1, *site.shape, device="meta")
        found[short] = tuple((shape if grid is None else grid(shape)).shape[2:])
    return found


def _grids(where: str, model: Half, names: Sequence[str], example: Inputs) -> list[Grid | None]:
    """Return what lays each layer out."""
    sites = examine(model, example, None, where).sites
    of = {address(name.removeprefix("net.")): site for name, site in sites.items()}
    missing = [name for name in names if address(name) not in of]
    if missing:
        raise LookupError(
            f"{where}: expected skips that run before the half's layer, got {missing}. Its layers "
            "are listed by ifa.trace(half, example), with net. before them."
        )
    return [layout(where, model, sites, of[address(name)], example) for name in names]


def _laid(
    model: Half, calls: Sequence[str], grids: Sequence[Grid | None], example: Inputs
) -> list[Tensor]:
    with torch.no_grad():
        found = reached(model.net, calls, *arguments(example))
    return laid(found, grids)


def _check_skips(where: str, names: Sequence[str], skips: Sequence[Tensor], axes: int) -> None:
    for name, skip in zip(names, skips, strict=True):
        if skip.ndim != axes + 2:
            raise ValueError(
                f"{where}: expected skips (sample, channel, *space) with {axes} axes of space, got "
                f"{tuple(skip.shape)} of {name!r}. Choose a layer with a grid."
            )
