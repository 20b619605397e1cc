"""What each operation does on the finer grid: one small rule for each kind of operation.

A rule is given a call, and what the network computed by it. It notes how that is known more finely,
and returns it; where it does not know, it just returns it.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ifa.dense.calls import Call, Options, Rule, finer_in
from ifa.dense.densities import Density, carry, note
from ifa.dense.moved import MOVED
from ifa.dense.sliding import SLIDING
from ifa.dense.windows import each


def rule_of(name: str) -> Rule | None:
    """Return the rule of a function by its name."""
    return RULES.get(name) or (_pointwise if _is_pointwise(name) else None)


# each position by itself -------------------------------------------------------------------------


class Met(NamedTuple):
    """One dimension of tensors that are broadcast against one another."""

    extent: int  # that all have, of the finer ones
    factor: int
    kept: int


def _pointwise(options: Options, call: Call, found: Any) -> Any:
    if not isinstance(found, Tensor):
        return found
    density = call.density
    if density is not None and density.finer is None and found.shape == call.first.shape:
        return carry(found, density)
    tensors = [one for one in (*call.args, *call.kwargs.values()) if isinstance(one, Tensor)]
    met = _met(call, tensors, found.ndim)
    if met is None:
        return found
    factors, kept = [m.factor for m in met], [m.kept for m in met]
    if max(factors, default=1) == 1:
        return note(found, None, factors, kept)
    if any(found is one for one in tensors):  # it is written to
        known = call.known.get(id(found))
        if known is None or known.factors != tuple(factors):
            return found
    finer = call.run(lambda one: _brought(_constants(call, one, met), met))
    wanted = [m.extent if m.factor > 1 else e for m, e in zip(met, found.shape, strict=True)]
    return note(found, finer, factors, kept) if list(finer.shape) == wanted else found


def _met(call: Call, tensors: Sequence[Tensor], rank: int) -> tuple[Met, ...] | None:
    """Find the grid that tensors have in common; None if they have none."""
    found = []
    for back in range(-rank, 0):
        here = [(one, call.known.get(id(one))) for one in tensors if one.ndim >= -back]
        kept = max((known.kept[back] for _, known in here if known), default=1)
        factor = max((known.factors[back] for _, known in here if known), default=1)
        extent = 1
        if factor > 1:
            # a gate, of one position, is broadcast over the finer ones as well
            lie = {
                (known.factors[back] if known else 1, one.shape[back])
                for one, known in here
                if (known and known.factors[back] > 1) or not _constant(one, back)
            }
            if len(lie) > 1:
                return None
            grids = (one for one, known in here if known and known.factors[back] > 1)
            extent = min(call.finer(one).shape[back] for one in grids)
        found.append(Met(extent, factor, kept))
    return tuple(found)


def _constant(tensor: Tensor, dim: int) -> bool:
    """Tell whether a tensor is the same all along a dimension, such as a gate that was expanded."""
    return tensor.shape[dim] == 1 or tensor.stride(dim) == 0


def _constants(call: Call, one: Tensor, met: Sequence[Met]) -> Tensor:
    """Return the finer tensor, with one position of what others are finer along."""
    known, one = call.known.get(id(one)), call.finer(one)
    for back in range(-one.ndim, 0):
        if met[back].factor > 1 and (known is None or known.factors[back] == 1):
            one = one.narrow(back, 0, 1)
    return one


def _brought(finer: Tensor, met: Sequence[Met]) -> Tensor:
    """Leave out what others do not reach, behind the last place of the original."""
    for back in range(-finer.ndim, 0):
        if met[back].factor > 1 and finer.shape[back] > met[back].extent:
            finer = finer.narrow(back, 0, met[back].extent)
    return finer


# of one argument, or of several, that torch does not tag
_ALIKE = frozenset(
    [
        *("to", "type_as", "type", "float", "double", "half", "bfloat16", "int", "long", "bool"),
        *("contiguous", "detach", "cpu", "cuda", "copy", "fill", "zero", "_threshold"),
        *("hardswish", "logsigmoid", "softsign", "tanhshrink"),
        *("zeros_like", "ones_like", "full_like", "empty_like"),
    ]
)


@lru_cache(maxsize=4096)
def _is_pointwise(name: str) -> bool:
    if name.startswith("__"):
        name = name.strip("_")
        return any(map(_tagged, (name, name[1:])))
    return name.rstrip("_") in _ALIKE or _tagged(name.rstrip("_"))


def _tagged(name: str) -> bool:
    """Tell whether torch says that an operation acts on each element, and draws nothing."""
    packet = getattr(torch.ops.aten, name, None) if name.isidentifier() else None
    if packet is None:
        return False
    tags = [tag for kind in packet.overloads() for tag in getattr(packet, kind).tags]
    return torch.Tag.pointwise in tags and torch.Tag.nondeterministic_seeded not in tags


def _channels(options: Options, call: Call, found: Any) -> Any:
    """Of what acts on channels, the dimension after the samples', at each position by itself."""
    density = call.density
    return found if density is None or finer_in(density, _LEAD) else call.alone(found)


_LEAD = (0, 1)


def _expanded(options: Options, call: Call, found: Tensor) -> Tensor:
    """Of a gate, brought to the grid of another tensor."""
    if found.shape == call.first.shape and id(call.first) not in call.known:
        # a copy, so that what writes to it does not write to the gate twice
        call = call._replace(function=lambda gate, other: gate.expand_as(other).clone())
    return _pointwise(options, call, found)


def _unless(rule: Rule, place: int, name: str, default: bool) -> Rule:
    """Of what takes statistics, or draws random numbers, where an option says so."""

    def resting(options: Options, call: Call, found: Any) -> Any:
        return found if call.given(place, name, default) else rule(options, call, found)

    return resting


def _layer_norm(options: Options, call: Call, found: Any) -> Any:
    density, shape = call.density, call.given(1, "normalized_shape")
    last = 1 if isinstance(shape, int) else len(shape)
    return found if density is None or finer_in(density, range(-last, 0)) else call.alone(found)


def _linear(options: Options, call: Call, found: Any) -> Any:
    density, weight = call.density, call.given(1, "weight", call.kwargs.get("other"))
    if density is None or finer_in(density, (-1,)) or getattr(weight, "ndim", 0) != 2:
        return found
    return call.alone(found)


# along dimensions --------------------------------------------------------------------------------


def _by_dim(place: int, default: Any = None, pooled: bool = False) -> Rule:
    """Of what reduces, cuts or normalizes along dimensions that hold no positions."""

    def rule(options: Options, call: Call, found: Any) -> Any:
        dims = call.given(place, "dim", call.kwargs.get("axis", default))
        if isinstance(dims, Tensor):  # the larger of two
            return _pointwise(options, call, found)
        density = call.density
        if density is None or dims is None or isinstance(dims, bool):
            return found
        rank = len(density.factors)
        gone = {dim % rank for dim in ([dims] if isinstance(dims, int) else dims)}
        on = {dim for dim in range(rank) if density.factors[dim] > 1}
        if on and on <= gone and pooled and options.pool == "dense":
            return call.on(density.finer)
        if on & gone:
            return found
        finer = None if density.finer is None else call.on(density.finer)
        return _each(found, finer, density, gone)

    return rule


def _each(found: Any, finer: Any, density: Density, gone: set[int]) -> Any:
    """Note the density of every tensor of a result, some dimensions of which may be gone."""
    if isinstance(found, tuple | list):
        for number, one in enumerate(found):
            _each(one, None if finer is None else finer[number], density, gone)
        return found
    rank = len(density.factors)
    left = [n for n in range(rank) if found.ndim == rank or n not in gone]
    return note(found, finer, [density.factors[n] for n in left], [density.kept[n] for n in left])


# by statistics over positions --------------------------------------------------------------------


def _group_norm(options: Options, call: Call, found: Any) -> Any:
    given = call.named(input=None, num_groups=1, weight=None, bias=None, eps=1e-5)
    return _by_statistics(call, found, given["num_groups"], given)


def _instance_norm(options: Options, call: Call, found: Any) -> Any:
    names = dict.fromkeys(("input", "running_mean", "running_var", "weight", "bias"))
    given = call.named(**names, use_input_stats=True, momentum=0.1, eps=1e-5)
    if not given["use_input_stats"]:
        return _channels(options, call, found)
    return _by_statistics(call, found, call.first.shape[1], given)


def _by_statistics(call: Call, found: Tensor, groups: int, given: Mapping[str, Any]) -> Tensor:
    """Normalize everywhere by the statistics at the original's positions."""
    density, tensor = call.density, call.first
    if density is None or finer_in(density, _LEAD):
        return found
    if density.finer is None:
        return note(found, None, density.factors, density.kept)
    parts = tensor.unflatten(1, (groups, -1)).flatten(2)
    variance, mean = torch.var_mean(parts, 2, correction=0)
    shape = (len(tensor), groups, *(1,) * (tensor.ndim - 1))
    scale = (variance + given["eps"]).rsqrt().reshape(shape)
    finer = density.finer.unflatten(1, (groups, -1))
    finer = ((finer - mean.reshape(shape)) * scale).flatten(1, 2)
    per_channel = (-1, *(1,) * (tensor.ndim - 2))
    if given["weight"] is not None:
        finer = finer * given["weight"].reshape(per_channel)
    if given["bias"] is not None:
        finer = finer + given["bias"].reshape(per_channel)
    return note(found, finer.to(found.dtype), density.factors, density.kept)


def _adaptive_average(options: Options, call: Call, found: Any) -> Any:
    """Take the mean of all positions, of the finer ones if that is asked for."""
    density, axes = call.density, int(call.function.__name__[-2])
    if density is None or density.finer is None or options.pool == "exact":
        return found
    if set(each(call.given(1, "output_size"), axes)) != {1}:
        return found
    return density.finer.mean(tuple(range(-axes, 0)), keepdim=True)


def _named(rule: Rule, names: str) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


_dropout = _unless(_pointwise, 2, "training", True)

RULES: dict[str, Rule] = {
    **SLIDING,
    **MOVED,
    **_named(_channels, "prelu local_response_norm channel_shuffle"),
    "expand_as": _expanded,
    **_named(_by_dim(1, pooled=True), "mean"),
    **_named(_by_dim(1), "sum amax amin prod std var logsumexp argmax argmin all any max min"),
    **_named(_by_dim(1), "softmax log_softmax softmin cumsum select narrow index_select"),
    **_named(_by_dim(1, 0), "unbind"),
    **_named(_by_dim(1, -1), "glu sort argsort"),
    **_named(_by_dim(2, 0), "chunk split split_with_sizes tensor_split"),
    **_named(_by_dim(2), "norm vector_norm"),
    **_named(_by_dim(2, 1), "normalize"),
    **_named(_by_dim(2, -1), "topk"),
    **_named(_linear, "linear matmul __matmul__"),
    **_named(_layer_norm, "layer_norm rms_norm"),
    **_named(_dropout, "dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout"),
    **_named(_dropout, "feature_alpha_dropout"),
    **_named(_adaptive_average, " ".join(f"adaptive_avg_pool{n}d" for n in (1, 2, 3))),
    "batch_norm": _unless(_channels, 5, "training", False),
    "group_norm": _group_norm,
    "instance_norm": _instance_norm,
}
