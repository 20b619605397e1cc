"""Find out whether a layer's channels come last, and which grid its tokens then lie on.

Nothing is taken from shapes alone: an output is read as channels-last only where a module says so,
which maps or normalizes the last axis. Then the grid is the input's, divided by one whole patch, or
that of a convolution below. Over time, where maps of the last axis may be maps of time, what a
convolution below says is channels or time, and what attends to the first axis, must agree.
"""

import itertools
import math
import re
from collections.abc import Collection, Iterator
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from ifa.network.sites import Site, Sites
from ifa.taps.grids import ChannelsLast, Tokens

# A class token, DeiT's two, and registers.
PREFIXES = range(6)
_NORM = re.compile(r"(layer|rms)_?norm", re.IGNORECASE)
# What modules that attend are called.
ATTENTION = re.compile("attention|attn", re.IGNORECASE)


def infer_grid(
    model: nn.Module, sites: Sites, site: Site, inputs: tuple[int, ...], where: str
) -> Tokens | ChannelsLast | None:
    """Return what lays a layer's output out on a grid, or None where it is fine as it is.

    Parameters
    ----------
    model
        The network.
    sites
        All of its sites, in order of execution.
    site
        The layer.
    inputs
        Shape of one example of the input.
    where
        What an error names.

    Raises
    ------
    ValueError
        If the output is a sequence of tokens, and not exactly one grid fits.
    """
    sequence = len(site.shape) == 2
    if not sequence and not 3 <= len(site.shape) == len(inputs):
        return None
    if not _channels_are_last(model, sites, site):
        return None
    if sequence:
        return _sequence(model, sites, site, inputs, where)
    first, last = site.shape[0], site.shape[-1]
    whole = site.shape[:-1] in {
        _divided(s, patch) for s in _spaces(inputs) for patch in _patches(s)
    }
    ambiguous = first == last or first in _mapped(model.get_submodule(_module(site)))[0]
    return ChannelsLast() if whole and not ambiguous else None


def next_norm(model: nn.Module, sites: Sites, site: Site) -> str | None:
    """Return the normalization over channels that runs next on something shaped like a site."""
    ran = list(sites)
    for name in ran[ran.index(site.layer) + 1 :]:
        kind = type(model.get_submodule(name.partition("#")[0])).__name__
        if sites[name].shape == site.shape and _NORM.search(kind):
            return name
    return None


def fitting(tokens: int, inputs: tuple[int, ...]) -> dict[Tokens, set[tuple[int, ...]]]:
    """Return every grid of so many tokens that fits the input, with what its patch may be."""
    if inputs == (tokens,):
        return {Tokens(0, inputs): {(1,)}}  # one token for each element
    found: dict[Tokens, set[tuple[int, ...]]] = {}
    for space, prefix in itertools.product(_spaces(inputs), PREFIXES):
        for patch in _patches(space):
            grid = _divided(space, patch)
            if 1 < math.prod(grid) == tokens - prefix:
                found.setdefault(Tokens(prefix, grid), set()).add(patch)
    return found


def only_grid(
    model: nn.Module,
    site: Site,
    inputs: tuple[int, ...],
    where: str,
    shown: Collection[Tokens] = (),
) -> Tokens:
    """Return the one grid that fits a sequence of tokens, or raise. `shown` is what convs say."""
    fits = fitting(site.shape[0], inputs)
    if len(fits) > 1:
        # the convolution that cuts the input into patches tells
        strides = {m.stride for m in model.modules() if _cuts(m)}
        fits = {grid: of for grid, of in fits.items() if of & strides} or fits
    likely = [*(fits.keys() & {*shown} or shown or fits)]
    if len(likely) == 1:
        return likely[0]
    return _refuse(site, inputs, where, {**fits, **dict.fromkeys(shown)})


def _refuse(site: Site, inputs: tuple[int, ...], where: str, fits: Collection[Tokens]) -> Any:
    each = [f"ifa.tokens(prefix={t.prefix}, grid={t.grid})" for t in fits]
    each += [f"ifa.tokens(prefix=0, grid={site.shape[:1]})"]
    each += ["torch.nn.Identity() for channels first"] if len(inputs) < 3 else []
    raise ValueError(
        f"{where}: expected one grid for the tokens of layer {site.layer!r}, (sample, "
        f"{site.shape[0]}, {site.shape[1]}), to fit inputs {inputs} with whole patches and up to "
        f"{PREFIXES[-1]} prefix tokens, found {len(fits)}. Say how they lie with grid=, one of "
        f"{', '.join(dict.fromkeys(each))}, or any function to (sample, channel, *space)."
    )


def _sequence(
    model: nn.Module, sites: Sites, site: Site, inputs: tuple[int, ...], where: str
) -> Tokens | None:
    """Lay out what has as many rows as tokens and says that its last axis is the channels."""
    ran = list(sites)
    below = [sites[name] for name in ran[: ran.index(site.layer)]]
    first = [one.shape for one in below if _channels_are_first(model, one)]
    shown = set(filter(None, (_shown(site.shape[0], shape, inputs) for shape in first)))
    if len(inputs) == 2 and site.shape[0] == [inputs, *first][-1][0]:
        # as many rows as there were channels: they still are, and time was mapped or normalized
        if not shown and not _attends(model, sites, site.shape[0]):
            return None
        return _refuse(site, inputs, where, shown)
    return only_grid(model, site, inputs, where, shown)


def _shown(tokens: int, shape: tuple[int, ...], inputs: tuple[int, ...]) -> Tokens | None:
    """Return the grid of a convolution's output if there are as many tokens, and a few before."""
    grid = shape[1:]
    if len(inputs) < 3:  # a signal given to convolutions of images
        grid = tuple(extent for extent in grid if extent > 1)
    prefix = tokens - math.prod(grid)
    axes = {max(1, len(inputs) - 1), len(inputs)} if len(inputs) < 3 else {len(inputs) - 1}
    return Tokens(prefix, grid) if len(grid) in axes and prefix in PREFIXES else None


def _channels_are_first(model: nn.Module, site: Site) -> bool:
    module = model.get_submodule(_module(site))
    return len(site.shape) > 1 and isinstance(module, _ConvNd | _NormBase | nn.GroupNorm)


def _attends(model: nn.Module, sites: Sites, rows: int) -> bool:
    """Tell whether something in the network attends to, or runs along, an axis of so many rows."""
    for site in sites.values():
        if len(site.shape) == 2 and site.shape[0] == rows:
            for part in model.get_submodule(_module(site)).modules():
                if isinstance(part, nn.RNNBase) or ATTENTION.search(type(part).__name__):
                    return True
    return False


def _channels_are_last(model: nn.Module, sites: Sites, site: Site) -> bool:
    """Ask the layer, or what ran before it and returned the same shape if the layer cannot tell."""
    ran = list(sites)
    for name in reversed(ran[: ran.index(site.layer) + 1]):
        if sites[name].shape != site.shape:
            return False
        lasts, seconds = _mapped(model.get_submodule(_module(sites[name])))
        if site.shape[0] in seconds:
            return False
        if site.shape[-1] in lasts:
            return True
        if lasts or seconds:
            return False
    return False


def _mapped(module: nn.Module) -> tuple[set[int], set[int]]:
    """Sizes that modules inside give the last axis, and those they give the axis of channels."""
    lasts: set[int] = set()
    seconds: set[int] = set()
    for part in module.modules():
        if isinstance(part, nn.Linear):
            lasts.add(part.out_features)
        elif isinstance(part, nn.LayerNorm | nn.RMSNorm) and len(part.normalized_shape) == 1:
            lasts.add(part.normalized_shape[0])
        elif isinstance(part, nn.Embedding):
            lasts.add(part.embedding_dim)
        elif isinstance(part, nn.MultiheadAttention):
            lasts.add(part.embed_dim)
        elif isinstance(part, nn.RNNBase) and part.batch_first:
            lasts.add((part.proj_size or part.hidden_size) * (1 + part.bidirectional))
        elif isinstance(part, _ConvNd):
            seconds.add(part.out_channels)
            if _cuts(part):  # into patches, which mostly become tokens
                lasts.add(part.out_channels)
        elif isinstance(part, _NormBase):
            seconds.add(part.num_features)
        elif isinstance(part, nn.GroupNorm):
            seconds.add(part.num_channels)
    return lasts, seconds


def _cuts(module: nn.Module) -> bool:
    return (
        isinstance(module, _ConvNd)
        and module.stride == module.kernel_size
        and max(module.stride) > 1
    )


def _module(site: Site) -> str:
    return site.layer.partition("#")[0]


def _spaces(inputs: tuple[int, ...]) -> list[tuple[int, ...]]:
    """List what may be the input's space: (space,), (channel, space...), (frame, channel, ...)."""
    if len(inputs) == 1:
        return [inputs]
    frames_first = [(inputs[0], *inputs[2:])] if len(inputs) == 4 else []
    return [inputs[1:], *frames_first]


def _divided(space: tuple[int, ...], patch: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(extent // size for extent, size in zip(space, patch, strict=True))


def _patches(space: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Yield whole patches of one size along all axes; of a video, of any duration."""
    times, sides = (space[:1], space[1:]) if len(space) == 3 else ((), space)
    sizes = (*map(_divisors, times), _divisors(math.gcd(*sides)))
    for *time, side in itertools.product(*sizes):
        yield (*time, *(side for _ in sides))


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]
