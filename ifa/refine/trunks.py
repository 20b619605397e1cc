"""The part of a network below a layer, and what its layers return on the way there."""

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ifa.network.inputs import Inputs, arguments, at, grid_place
from ifa.network.outputs import first_tensor
from ifa.network.replicas import Replica, plain
from ifa.network.sites import Site, Sites, examine
from ifa.taps.defaults import choose
from ifa.taps.grids import check_grid
from ifa.taps.layouts import infer_grid
from ifa.types import Grid, Layer

Params = Mapping[str, Tensor]


class _Reached(Exception):
    """A network came to the last layer that is wanted: nothing above it runs."""


def reached(net: nn.Module, calls: Sequence[str], args: Any, kwargs: Any) -> list[Tensor]:
    """Run a network up to the last of some calls of its layers, and return what each gave.

    Hooks are there only while it runs, after all others, so that they see what others changed; of
    another thread that runs the same network they do not hear.
    """
    own = threading.get_ident()
    found: dict[str, Tensor] = {}
    counts: Counter[str] = Counter()

    def hook(name: str, module: nn.Module, given: Any, output: Any) -> None:
        if threading.get_ident() != own:
            return
        counts[name] += 1
        call, tensor = f"{name}#{counts[name]}", first_tensor(output)
        if call not in calls or tensor is None:
            return
        if call == calls[-1]:
            found[call] = tensor
            raise _Reached
        found[call] = tensor.clone()  # what runs next may work in place

    names = dict.fromkeys(call.rpartition("#")[0] for call in calls)
    handles = [net.get_submodule(name).register_forward_hook(partial(hook, name)) for name in names]
    try:
        net(*args, **kwargs)
    except _Reached:
        pass
    finally:
        for handle in handles:
            handle.remove()
    if len(found) < len(calls):
        missing = [call for call in calls if call not in found]
        raise RuntimeError(
            f"ifa.refine: expected {type(net).__name__} to run {missing} with these inputs, as "
            "with the example, got a pass without. Make the half anew, with such an example."
        )
    return [found[call] for call in calls]


def found_layer(
    where: str, model: nn.Module, layer: Layer | None, example: Inputs, grid: Grid | None
) -> tuple[Site, Grid | None]:
    """Trace a network; return the site that is meant, and what lays it out."""
    check_grid(where, grid)
    traced = examine(model, example, None, where)
    place = grid_place(where, example)
    name = choose(model, traced, layer, example, where, place=place, grid=grid)
    site = traced.sites[name]
    return site, grid or layout(where, model, traced.sites, site, example)


def layout(where: str, model: nn.Module, sites: Sites, site: Site, example: Inputs) -> Grid | None:
    """Return what lays a layer out as (sample, channel, *space), where it is not so already."""
    shape = tuple(at(example, grid_place(where, example)).shape[1:])
    return infer_grid(model, sites, site, shape, where)


def laid(found: Sequence[Tensor], grids: Sequence[Grid | None]) -> list[Tensor]:
    """Lay out what layers gave."""
    pairs = zip(found, grids, strict=True)
    return [one if grid is None else grid(one) for one, grid in pairs]


def private(where: str, model: nn.Module) -> nn.Module:
    """Copy a network but for its tensors, which are the same."""
    return Replica(plain(model), (), where=where).module


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """Return a module's parameters and buffers by name, without graphs."""
    named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {name: tensor.detach() for name, tensor in named.items()}


def checked_params(where: str, module: nn.Module, params: Params | None) -> dict[str, Tensor]:
    """Return a network's parameters and buffers, its own if None; raise unless names fit."""
    own = state_of(module)
    if params is None:
        return own
    off = sorted(own.keys() ^ params.keys())
    if off or any(params[name].shape != own[name].shape for name in own):
        off = off or [name for name in own if params[name].shape != own[name].shape]
        raise ValueError(
            f"{where}: expected params to be the parameters and buffers of {type(module).__name__} "
            f"by name, got other names or shapes: {', '.join(off[:5])}. Give None for its own."
        )
    return {name: tensor.detach() for name, tensor in params.items()}


def shape_at(where: str, net: nn.Module, call: str, grid: Grid | None, example: Inputs) -> Tensor:
    """Return what a layer gives for the example, laid out as (sample, channel, *space)."""
    args, kwargs = arguments(example)
    with torch.no_grad():
        (found,) = laid(reached(net, [call], args, kwargs), [grid])
    if not 3 <= found.ndim <= 5:
        raise ValueError(
            f"{where}: expected a layer (sample, channel, *space) with one to three axes of space, "
            f"got {tuple(found.shape)} of {call.removesuffix('#1')!r}. Choose another layer, or "
            "say with grid= how it lies."
        )
    return found
