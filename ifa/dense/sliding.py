"""Convolutions, pools and pads on the finer grid: strides become dilation."""

import math
from collections.abc import Sequence
from functools import lru_cache, partial
from itertools import starmap
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ifa.dense.calls import Call, Options, Rule
from ifa.dense.densities import Density, carry, note
from ifa.dense.windows import Windows, each, inside, staying, summed, windows

# names of parameters after the input, in their order
_CONVOLUTION: dict[str, Any] = {"weight": None, "bias": None, "stride": 1, "padding": 0}
_CONVOLUTION |= {"dilation": 1, "groups": 1}
_MAX: dict[str, Any] = {"padding": 0, "dilation": 1, "ceil_mode": False, "return_indices": False}
_AVERAGE: dict[str, Any] = {"padding": 0, "ceil_mode": False, "count_include_pad": True}
_AVERAGE |= {"divisor_override": None}


def _plan(
    options: Options, call: Call, stride: tuple[int, ...]
) -> tuple[Density, tuple[int, ...]] | None:
    """Return what is known of the input and what stays of strides; None where it cannot be."""
    axes = len(stride)
    density = call.density if call.known else _unknown(call.first.ndim)
    if density is None or max(density.factors[:-axes], default=1) > 1:
        return None
    limits = options.limits(axes)
    return density, stride if limits is None else _staying(stride, density.kept[-axes:], limits)


# what a network does at every call is worked out once


@lru_cache(maxsize=16)
def _unknown(rank: int) -> Density:
    return Density(None, (1,) * rank, (1,) * rank)


@lru_cache(maxsize=256)
def _staying(*each_axis: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(starmap(staying, zip(*each_axis, strict=True)))


@lru_cache(maxsize=256)
def _coarser(kept: tuple[int, ...], stride: tuple[int, ...]) -> Density:
    """Return what is known after strides that stay, of what is as fine as it gets."""
    lead = len(kept) - len(stride)
    after = (k * s for k, s in zip(kept[lead:], stride, strict=True))
    return Density(None, (1,) * len(kept), (*kept[:lead], *after))


def _slid(
    found: Tensor,
    finer: Tensor,
    density: Density,
    stride: Sequence[int],
    stay: Sequence[int],
) -> Tensor:
    """Note the result of windows with strides of which some stay."""
    axes = len(stride)
    lead = [1] * (found.ndim - axes)
    each_axis = zip(density.factors[-axes:], stride, stay, strict=True)
    factors = lead + [factor * s // q for factor, s, q in each_axis]
    kept = lead + [k * q for k, q in zip(density.kept[-axes:], stay, strict=True)]
    return note(found, finer, factors, kept)


def _convolution(options: Options, call: Call, found: Tensor, *, axes: int) -> Tensor:
    stride = each(call.given(3, "stride", 1), axes)
    if not call.known and max(stride) == 1:
        return found
    plan = _plan(options, call, stride)
    if plan is None:
        return found
    density, stay = plan
    if density.finer is None and stay == stride:
        return carry(found, _coarser(density.kept, stride))
    given = call.named(input=None, **_CONVOLUTION)
    factors, finer = density.factors[-axes:], call.finer(call.first)
    dilation = each(given["dilation"], axes)
    ends = _ends(given["padding"], given["weight"].shape[-axes:], dilation)
    padding = [before * factor for (before, _), factor in zip(ends, factors, strict=True)]
    if any(before != after for before, after in ends):
        scaled = [(b * f, a * f) for (b, a), f in zip(ends, factors, strict=True)]
        finer, padding = functional.pad(finer, _flat(scaled)), [0] * axes
    apart = [d * factor for d, factor in zip(dilation, factors, strict=True)]
    options_given = stay, padding, apart, given["groups"]
    finer = call.function(finer, given["weight"], given["bias"], *options_given)
    return _slid(found, finer, density, stride, stay)


def _ends(padding: Any, taps: Sequence[int], dilation: Sequence[int]) -> list[tuple[int, int]]:
    """Write the padding before and after each axis out."""
    if padding == "same":
        reach = [d * (k - 1) for k, d in zip(taps, dilation, strict=True)]
        return [(whole // 2, whole - whole // 2) for whole in reach]
    return [(p, p) for p in each(0 if padding == "valid" else padding, len(taps))]


def _flat(ends: Sequence[tuple[int, int]]) -> list[int]:
    """Write padding as torch takes it, the last axis first."""
    return [width for pair in reversed(ends) for width in pair]


def _pool(options: Options, call: Call, found: Any, *, axes: int, largest: bool) -> Any:
    names = {"kernel_size": None, "stride": None, **(_MAX if largest else _AVERAGE)}
    given = call.named(input=None, **names)
    taps = each(given["kernel_size"], axes)
    stride = each(given["stride"] or taps, axes)
    plan = _plan(options, call, stride)
    if plan is None or not isinstance(found, Tensor):
        return found
    density, stay = plan
    if density.finer is None and stay == stride:
        return carry(found, _coarser(density.kept, stride))
    tensor, finer = call.first, call.finer(call.first)
    padding, dilation = each(given["padding"], axes), each(given.get("dilation", 1), axes)
    extents = zip(taps, tensor.shape[-axes:], strict=True)
    if not any(padding) and all(tap >= extent for tap, extent in extents):  # of the whole grid
        averages = not largest and not given["divisor_override"] and options.pool == "dense"
        dense = averages and density.finer is not None
        return finer.mean(tuple(range(-axes, 0)), keepdim=True) if dense else found
    per_axis = zip(
        *(finer.shape[-axes:], density.factors[-axes:], taps, stride, stay, padding, dilation),
        strict=True,
    )
    over = [windows(*one, ceil=bool(given["ceil_mode"])) for one in per_axis]
    finer = _largest(finer, over) if largest else _average(finer, over, given)
    return _slid(found, finer, density, stride, stay)


def _largest(finer: Tensor, over: Sequence[Windows]) -> Tensor:
    least = -math.inf if finer.is_floating_point() else torch.iinfo(finer.dtype).min
    padded = functional.pad(finer, _flat([(o.before, o.after) for o in over]), value=least)
    taps, strides, apart = ([o[n] for o in over] for n in (0, 2, 1))
    found = getattr(functional, f"max_pool{len(over)}d")(padded, taps, strides, 0, apart)
    for axis, one in enumerate(over, -len(over)):
        # between the original's places a window may lie in the padding altogether
        empty = inside(one, finer.shape[axis]) == 0
        if empty.any():
            found = found.masked_fill(_on(axis, empty.to(finer.device)), 0)
    return found


def _average(finer: Tensor, over: Sequence[Windows], given: Any) -> Tensor:
    total = functional.pad(finer, _flat([(o.before, o.after) for o in over]))
    for axis, one in enumerate(over, -len(over)):
        total = summed(total, axis, one)
    if given["divisor_override"]:
        return total / given["divisor_override"]
    for axis, one in enumerate(over, -len(over)):
        margin = one.before if given["count_include_pad"] else 0
        count = inside(one, finer.shape[axis], margin).clamp(min=1)
        total = total / _on(axis, count.to(total))
    return total


def _on(axis: int, values: Tensor) -> Tensor:
    """Lay values along an axis, counted from the last."""
    return values.reshape(-1, *(1,) * (-axis - 1))


def _pad(options: Options, call: Call, found: Tensor) -> Tensor:
    given = call.named(input=None, pad=None, mode="constant", value=None)
    density, widths = call.density, list(given["pad"])
    if density is None:
        return found
    if density.finer is None:
        return note(found, None, density.factors, density.kept)
    tensor, finer, scaled = call.first, density.finer, list(widths)
    for n in range(len(widths) // 2):
        dim, (before, after) = tensor.ndim - 1 - n, widths[2 * n : 2 * n + 2]
        factor = density.factors[dim]
        scaled[2 * n : 2 * n + 2] = before * factor, after * factor
        if given["mode"] == "circular" and finer.shape[dim] != tensor.shape[dim] * factor:
            return found
        if given["mode"] in ("reflect", "replicate") and after:
            # it is mirrored at the original's last place
            finer = finer.narrow(dim, 0, (tensor.shape[dim] - 1) * factor + 1)
    finer = functional.pad(finer, scaled, given["mode"], given["value"])
    return note(found, finer, density.factors, density.kept)


def _for_axes(pattern: str, rule: Any, **options: Any) -> dict[str, Rule]:
    return {pattern.format(n): partial(rule, axes=n, **options) for n in (1, 2, 3)}


# what may make a tensor finer of which nothing is known yet
STRIDED: dict[str, Rule] = {
    **_for_axes("conv{}d", _convolution),
    **_for_axes("max_pool{}d", _pool, largest=True),
    **_for_axes("avg_pool{}d", _pool, largest=False),
}
SLIDING: dict[str, Rule] = {**STRIDED, "pad": _pad}
