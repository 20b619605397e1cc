"""The same elements in other dimensions, some of them, or of several tensors, on the finer grid."""

import math
from typing import Any

import torch
from torch import Tensor

from ifa.dense.calls import Call, Options, Rule
from ifa.dense.densities import Density, carry, note
from ifa.dense.windows import cropped, staying


def _permuted(options: Options, call: Call, found: Tensor) -> Tensor:
    density = call.density
    if density is None:
        return found
    extents = tuple(range(2, len(density.factors) + 2))  # which tell dimensions apart
    order = [extent - 2 for extent in call.on(torch.empty(extents, device="meta")).shape]
    factors, kept = ([of[n] for n in order] for of in (density.factors, density.kept))
    return note(found, None if density.finer is None else call.on(density.finer), factors, kept)


def _flipped(options: Options, call: Call, found: Tensor) -> Tensor:
    density = call.density
    if density is None:
        return found
    if density.finer is None:
        return carry(found, density)
    dims, finer = call.kwargs.get("dims", call.args[1:]), density.finer
    dims = dims[0] if dims and not isinstance(dims[0], int) else dims
    for dim, factor in ((dim, density.factors[dim]) for dim in dims):
        # it is mirrored at the original's last place
        finer = finer.narrow(dim, 0, (found.shape[dim] - 1) * factor + 1) if factor > 1 else finer
    return note(found, call.on(finer), density.factors, density.kept)


def _reshaped(options: Options, call: Call, found: Tensor) -> Tensor:
    """Of what regroups dimensions that hold no positions, such as channels."""
    density, tensor = call.density, call.first
    places = None if density is None else _places(density, tuple(tensor.shape), tuple(found.shape))
    if density is None or places is None or found.dtype != tensor.dtype:
        return found
    factors, kept, shape = [1] * found.ndim, [1] * found.ndim, list(found.shape)
    for dim, place in places.items():
        factors[place], kept[place] = density.factors[dim], density.kept[dim]
        shape[place] = call.finer(tensor).shape[dim]
    finer = None if density.finer is None else density.finer.reshape(shape)
    return note(found, finer, factors, kept)


def _places(density: Density, old: tuple[int, ...], new: tuple[int, ...]) -> dict[int, int] | None:
    """Find where dimensions with positions are after regrouping the others; None if nowhere."""
    found: dict[int, int] = {}
    start = 0
    for dim, extent in enumerate(old):
        if density.factors[dim] == 1 and density.kept[dim] == 1:
            continue
        before = math.prod(old[:dim])
        fits = (n for n in range(start, len(new)) if math.prod(new[:n]) == before)
        place = next((n for n in fits if new[n] == extent), None)
        if place is None:
            return None
        found[dim], start = place, place + 1
    return found


def _indexed(options: Options, call: Call, found: Any) -> Any:
    """Of whole numbers, slices, None and an ellipsis between brackets."""
    density, tensor = call.density, call.first
    keys = call.args[1] if isinstance(call.args[1], tuple) else (call.args[1],)
    plain = all(one is None or one is Ellipsis or type(one) in (int, slice) for one in keys)
    if density is None or not plain:
        return found
    taken = sum(one is not None and one is not Ellipsis for one in keys)
    whole = (slice(None),) * (tensor.ndim - taken)
    where = keys.index(Ellipsis) if Ellipsis in keys else len(keys)
    made, factors, kept, dim = [], [], [], 0
    for key in (*keys[:where], *whole, *keys[where + 1 :]):
        one = (None, 1, 1) if key is None else _cut(options, call, density, dim, key)
        if one is None:
            return found
        dim += key is not None
        made.append(one[0])
        if type(key) is not int:
            factors, kept = [*factors, one[1]], [*kept, one[2]]
    if max(factors, default=1) == 1:
        return note(found, None, factors, kept)
    finer = call.finer(tensor)[tuple(made)]
    # where it is the first to be finer, a copy: what writes to both must not write twice
    return note(found, finer.clone() if density.finer is None else finer, factors, kept)


def _cut(
    options: Options, call: Call, density: Density, dim: int, key: int | slice
) -> tuple[Any, int, int] | None:
    """Return what is taken of a finer dimension, its factor and what is kept; None if unknown."""
    factor, kept = density.factors[dim], density.kept[dim]
    if not isinstance(key, slice) or (factor == 1 and kept == 1):
        return (key, factor, kept) if factor == 1 else None
    extent = call.first.shape[dim]
    start, stop, step = key.indices(extent)
    count = len(range(start, stop, step))
    if (start, step, count) == (0, 1, extent):
        return slice(None), factor, kept
    if not count or (step > 1 and not isinstance(options.stride, int)):
        return None
    stay = staying(step, kept, options.stride) if isinstance(options.stride, int) else 1
    finer = call.finer(call.first).shape[dim]
    return cropped(finer, factor, start, step, count, stay), factor * step // stay, kept * stay


def _joined(options: Options, call: Call, found: Tensor) -> Tensor:
    """Of what joins tensors of one grid along a dimension that holds no positions."""
    tensors, stacks = list(call.first), call.function.__name__ == "stack"
    known = [call.known.get(id(one)) for one in tensors]
    rank = found.ndim - stacks
    factors = {known.factors if known else (1,) * rank for known in known}
    kept = [max(one.kept[n] if one else 1 for one in known) for n in range(rank)]
    dim = call.given(1, "dim", call.kwargs.get("axis", 0)) % found.ndim
    if len(factors) > 1 or not any(known):
        return found
    shared = list(factors.pop())
    if not stacks and shared[dim] > 1:
        return found
    finer = [call.finer(one) for one in tensors]
    for n in (n for n, factor in enumerate(shared) if factor > 1):
        shortest = min(one.shape[n] for one in finer)
        finer = [one.narrow(n, 0, shortest) for one in finer]
    joined = call.on(finer) if max(shared) > 1 else None
    if stacks:
        shared.insert(dim, 1)
        kept.insert(dim, 1)
    return note(found, joined, shared, kept)


def _named(rule: Rule, names: str) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


MOVED: dict[str, Rule] = {
    **_named(_permuted, "permute transpose movedim moveaxis swapaxes swapdims"),
    **_named(_reshaped, "view reshape flatten unflatten squeeze unsqueeze"),
    **_named(_joined, "cat concat concatenate stack"),
    "__getitem__": _indexed,
    "flip": _flipped,
}
