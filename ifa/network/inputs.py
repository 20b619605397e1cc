"""What a network is given: a tensor, or a tree of tensors with the samples as their first axis.

A tuple is passed as positional arguments, a mapping by keyword; inside may be tuples, lists and
mappings again. None, numbers and text among the tensors are passed on as they are. A tensor by
itself is a tree as well; it is looked at first everywhere, so that it costs nothing.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from ifa.baseline import baseline_of
from ifa.network.outputs import map_tensors, parts_of, rebuilt
from ifa.noise import chunks, noise
from ifa.types import Inputs

# Where in a tree a tensor is: keys and indices from the outside in; () of a tensor by itself.
Place = tuple[Any, ...]
# Shape of one example, of a tensor or of each tensor in a tree.
Shapes = tuple[int, ...] | dict[Place, tuple[int, ...]]


def refuse_inference_mode(where: str) -> None:
    """Raise under `torch.inference_mode`."""
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            f"{where}: refused under torch.inference_mode(), where gradients of a layer are not "
            "reliable. Use torch.no_grad(), or nothing: no gradient of a parameter is computed."
        )


def call(module: nn.Module, inputs: Inputs, params: Mapping[str, Tensor] | None = None) -> Any:
    """Call a module with inputs, and with other parameters where some are given."""
    args, kwargs = arguments(inputs)
    if params is None:
        return module(*args, **kwargs)
    return functional_call(module, dict(params), args, kwargs)


def arguments(inputs: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return what a module is called with."""
    if isinstance(inputs, Tensor):
        return (inputs,), {}
    return ((), dict(inputs)) if isinstance(inputs, Mapping) else (tuple(inputs), {})


def named(inputs: Inputs) -> dict[Place, Tensor]:
    """List the tensors of a tree by their places."""
    return {place: leaf for place, leaf in leaves_of(inputs) if isinstance(leaf, Tensor)}


def tensors_of(inputs: Inputs) -> list[Tensor]:
    """List the tensors of a tree."""
    return [inputs] if isinstance(inputs, Tensor) else list(named(inputs).values())


def floating(inputs: Inputs) -> list[Tensor]:
    """List the tensors of a tree that can be differentiated by."""
    return [tensor for tensor in tensors_of(inputs) if tensor.is_floating_point()]


def count(inputs: Inputs) -> int:
    """Return the number of samples."""
    return len(tensors_of(inputs)[0]) if not isinstance(inputs, Tensor) else len(inputs)


def device_of(inputs: Inputs) -> torch.device:
    """Return where the inputs are."""
    return tensors_of(inputs)[0].device


def shapes_of(inputs: Inputs) -> Shapes:
    """Return the shape of one example, of every tensor."""
    if isinstance(inputs, Tensor):
        return tuple(inputs.shape[1:])
    return {place: tuple(tensor.shape[1:]) for place, tensor in named(inputs).items()}


def take(inputs: Any, index: Any) -> Any:
    """Return some of the samples, by a slice or their indices."""
    return inputs[index] if isinstance(inputs, Tensor) else map_tensors(inputs, lambda t: t[index])


def split(inputs: Any, size: int) -> Iterator[Any]:
    """Yield so many samples at a time."""
    return (take(inputs, slice(s.start, s.stop)) for s in chunks(count(inputs), size))


def joined(trees: Sequence[Any], axis: int = 0) -> Any:
    """Join trees of one structure along their samples."""
    if len(trees) == 1 or isinstance(trees[0], Tensor):
        return trees[0] if len(trees) == 1 else torch.cat(list(trees), axis)
    columns = [named(tree) for tree in trees]
    parts = {place: torch.cat([tree[place] for tree in columns], axis) for place in columns[0]}
    return _placed(trees[0], parts)


def repeated(inputs: Any, times: int) -> Any:
    """Repeat the samples, all of them one after the other."""
    return map_tensors(inputs, lambda t: t.repeat(times, *(1,) * (t.ndim - 1)))


def moved(inputs: Any, device: torch.device) -> Any:
    """Put every tensor on a device."""
    return map_tensors(inputs, lambda tensor: tensor.to(device))


def clone(inputs: Any) -> Any:
    """Copy the tensors of a tree."""
    return map_tensors(inputs, Tensor.clone)


def over(change: Callable[..., Any], first: Any, *rest: Any) -> Any:
    """Change the floating tensors of trees of one structure; elsewhere is what the first has."""
    if isinstance(first, Tensor):
        return change(first, *rest) if first.is_floating_point() else first
    others = [parts_of(tree) for tree in rest]
    found = {
        key: over(change, part, *(other.get(key) for other in others))
        for key, part in parts_of(first).items()
    }
    return rebuilt(first, found) if found else first


def filled(inputs: Any, values: Sequence[Tensor], blank: bool = False) -> Any:
    """Put values in the places of the floating tensors; elsewhere is what was there, or None."""
    if isinstance(inputs, Tensor):
        return values[0]
    places = [place for place, tensor in named(inputs).items() if tensor.is_floating_point()]
    return _placed(inputs, dict(zip(places, values, strict=True)), blank)


def grid_place(where: str, inputs: Inputs, grid_of: str | int | None = None) -> Place:
    r"""Find the tensor with the grid: the one named, or the first (sample, channel, \*space).

    Where there is none, it is the first (sample, space), otherwise the first of all.
    """
    found = {(): inputs} if isinstance(inputs, Tensor) else named(inputs)
    if grid_of is not None:
        for place in found:
            if place and written(place) == str(grid_of):
                return place
        listed = ", ".join(map(written, found)) if found.keys() - {()} else "a single tensor"
        raise LookupError(
            f"{where}: expected grid_of to name a tensor of the inputs, got {grid_of!r} for "
            f"{listed}. Name one of these, or leave it out."
        )
    for first in (2, 1):
        for place, tensor in found.items():
            if tensor.ndim > first and math.prod(tensor.shape[first:]) > 1:
                return place
    return next(iter(found))


def real_grid_place(where: str, inputs: Inputs, grid_of: str | int | None = None) -> Place:
    """Find the tensor with the grid; raise unless it can be hidden in and differentiated by."""
    place = grid_place(where, inputs, grid_of)
    gridded = at(inputs, place)
    if not gridded.is_floating_point():
        name = f" of {written(place)!r}" if place else ""
        raise TypeError(
            f"{where}: expected inputs of a floating dtype, got {gridded.dtype}{name}. "
            "Make the embedding the network's input."
        )
    return place


def space_of(tensor: Tensor) -> tuple[int, ...]:
    r"""Return the space of (sample, channel, \*space) or (sample, space)."""
    return tuple(tensor.shape[max(1, min(2, tensor.ndim - 1)) :])


def at(inputs: Any, place: Place) -> Any:
    """Return what is at a place of a tree."""
    for key in place:
        inputs = parts_of(inputs)[key]
    return inputs


def put(inputs: Any, place: Place, new: Any, blank: bool = False) -> Any:
    """Return a tree with something else at a place; elsewhere is what was there, or None."""
    return new if not place else _placed(inputs, {place: new}, blank)


def varied(inputs: Any, place: Place, variants: Tensor) -> Any:
    """Put variants of one tensor in its place, the others repeated for as many."""
    if not place:
        return variants
    return put(repeated(inputs, len(variants) // count(inputs)), place, variants)


def baselines_of(where: str, baseline: Any, inputs: Any) -> Any:
    """Return what stands for nothing there, for each floating tensor; the others are as they are.

    `baseline` is one for all, or a tree like the inputs with one for each.
    """
    if isinstance(baseline, Mapping | tuple):
        return over(lambda one, value: baseline_of(where, value, one), inputs, baseline)
    return over(lambda one: baseline_of(where, baseline, one), inputs)


def noise_like(inputs: Any, seed: int, *draw: int) -> Any:
    """Draw noise (1, *input) for each floating tensor; that of the first is as of it alone."""
    made = [
        noise(one.shape[1:], one, seed, *draw, *([number] if number else []))[None]
        for number, one in enumerate(floating(inputs))
    ]
    return filled(inputs, made)


def check_batch(where: str, inputs: Any, what: str = "inputs") -> None:
    """Raise unless inputs are a tensor or a tree of tensors, of as many samples each."""
    if isinstance(inputs, Tensor):
        if inputs.ndim < 2 or len(inputs) == 0:
            batch = "a batch" if what == "inputs" else f"an {what} batch"
            raise ValueError(
                f"{where}: expected {batch} (sample, *input) of at least one sample, got "
                f"{tuple(inputs.shape)}. Add the batch axis: {what}[None]."
            )
        return
    _check_kind(where, inputs, what)
    found = named(inputs)
    if not found:
        raise TypeError(f"{where}: expected {what} with a tensor, got {type(inputs).__name__}.")
    sizes = {len(tensor) if tensor.ndim else None for tensor in found.values()}
    if len(sizes) > 1 or not next(iter(sizes)):
        raise ValueError(
            f"{where}: expected tensors of as many samples each, at least one, as the first axis "
            f"of all, got {came(inputs)}. Repeat or expand what is the same for all samples."
        )


def check_inputs(where: str, inputs: Any, like: Shapes, maker: str) -> None:
    """Raise unless inputs are a batch of examples of a shape; `maker` is what to make anew."""
    refuse_inference_mode(where)
    if not isinstance(inputs, Tensor):
        check_batch(where, inputs)
    if shapes_of(inputs) != like or count(inputs) == 0:
        raise ValueError(
            f"{where}: expected inputs {described(like, 'sample')} like the example the {maker} "
            f"was made with, got {came(inputs)}. Make another {maker} for another shape."
        )


def written(place: Place) -> str:
    """Write a place as `grid_of` takes it: keys and indices, with dots between."""
    return ".".join(map(str, place))


def described(found: Shapes, *lead: Any) -> str:
    """Write shapes for an error, with axes before each."""
    if isinstance(found, tuple):
        return str((*lead, *found)).replace("'", "")
    return (
        f"{{{', '.join(f'{written(place)}: {described(found[place], *lead)}' for place in found)}}}"
    )


def came(inputs: Inputs) -> str:
    """Write the shapes of inputs for an error."""
    if isinstance(inputs, Tensor):
        return str(tuple(inputs.shape))
    return described({place: tuple(tensor.shape) for place, tensor in named(inputs).items()})


def leaves_of(inputs: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Yield everything in a tree, tensors and what is passed on, with its place."""
    if isinstance(inputs, Tensor) or not isinstance(inputs, Mapping | tuple | list):
        yield place, inputs
        return
    for key, part in parts_of(inputs).items():
        yield from leaves_of(part, (*place, key))


def _placed(tree: Any, new: Mapping[Place, Any], blank: bool = False, place: Place = ()) -> Any:
    if place in new:
        return new[place]
    if isinstance(tree, Tensor) or not isinstance(tree, Mapping | tuple | list):
        return None if blank else tree
    parts = parts_of(tree).items()
    return rebuilt(tree, {key: _placed(part, new, blank, (*place, key)) for key, part in parts})


def _check_kind(where: str, inputs: Any, what: str) -> None:
    """Raise where something in a tree, or all of it, is nothing that a network is given."""
    if isinstance(inputs, list):
        kinds = sorted({type(part).__name__ for part in inputs})
        raise TypeError(
            f"{where}: expected {what} to be a tensor (sample, *input), a tuple of these for "
            f"several arguments, or a mapping, got a list of {len(inputs)} {' and '.join(kinds)}. "
            "Read files first, e.g. with ifa.data.read_inputs, and join examples with torch.stack."
        )
    if not isinstance(inputs, tuple | Mapping | np.ndarray):
        raise TypeError(
            f"{where}: expected a batch as a tensor, a tuple or a mapping of tensors, got "
            f"{type(inputs).__name__}."
        )
    for place, leaf in leaves_of(inputs):
        named_so = f" as {written(place)!r}" if place else ""
        if isinstance(leaf, np.ndarray):
            raise TypeError(
                f"{where}: expected {what} as tensors, got a NumPy array "
                f"{leaf.shape}{named_so}. Convert it with torch.from_numpy, channels before space "
                "where the network wants them so."
            )
        if not (leaf is None or isinstance(leaf, Tensor | bool | int | float | str)):
            raise TypeError(
                f"{where}: expected {what} as tensors, got {type(leaf).__name__}{named_so}. "
                "Convert it to a tensor."
            )
