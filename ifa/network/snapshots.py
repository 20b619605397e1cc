"""What a private copy of a model depends on: equal snapshots mean that a copy is still right."""

import re
import types
from collections import OrderedDict
from collections.abc import Iterable
from enum import Enum
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# What is compared by value.
_PLAIN = frozenset(
    (str, bytes, bool, int, float, complex, type(None), torch.dtype, torch.device, torch.Size)
)
# What a deep copy shares, so that the copy keeps it alive and its identity says enough.
_SHARED = (
    *(types.FunctionType, types.BuiltinFunctionType, type, Enum, re.Pattern, types.ModuleType),
    torch.Generator,
)
_CONTAINERS = frozenset((dict, OrderedDict, list, tuple, set, frozenset))
# A value of a kind derived from these is more than its attributes.
_OWN = (dict, list, tuple, set, frozenset, int, float, complex, str, bytes)
_MOST_BYTES = 4096


class Unknown(Exception):
    """Something in a model cannot be compared."""


def snapshot(model: nn.Module, *, contents: bool = False) -> list[Any] | None:
    """List everything of a model that a copy was made of, tensors by where they lie.

    Parameters
    ----------
    model
        A network.
    contents
        Also what tensors hold: sums over their bytes as integers, by place, because not all that
        writes to a tensor counts up its version (fused optimizers, ``.data``, arrays that share its
        memory). Functions are kept alive, so that no other one can be taken for them.

    Returns
    -------
    list or None
        Equal to that of another time if nothing was replaced, added or set since: modules, tensors,
        hooks, training flags and all other attributes, however deep. None where something is in it
        that cannot be compared, such as a large array.
    """
    found: list[Any] = []
    try:
        _note((model,), found, {}, contents)
    except Unknown:
        return None
    return found


def _note(values: Iterable[Any], found: list[Any], known: dict[int, int], contents: bool) -> None:
    """Add what values are; most are plain or empty, and this runs before every explanation."""
    for value in values:
        kind = type(value)
        if kind in _PLAIN:
            found += kind, value  # 1 is True, and another option
        elif kind in _CONTAINERS:
            found.append(kind)
            if value:
                found.append(len(value))
                _note(_parts(value, found), found, known, contents)
        elif isinstance(value, Tensor):
            _note_tensor(value, found, contents)
        elif not isinstance(value, nn.Module) and isinstance(value, _SHARED):
            if holds_others(value):  # such as the model itself, which must not be kept alive
                raise Unknown
            found.append(_Same(value) if contents else id(value))
        elif id(value) in known:
            found.append(known[id(value)])
        else:
            known[id(value)] = len(known)
            found.append(kind)
            _note(_attributes(value), found, known, contents)


def holds_others(value: Any) -> bool:
    """Tell whether a function has more bound to it than plain values."""
    if not isinstance(value, types.FunctionType):
        return False
    bound = [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
    return bool(value.__closure__) or not all(type(one) in _PLAIN for one in bound)


def _parts(container: Any, found: list[Any]) -> Iterable[Any]:
    if isinstance(container, dict):
        found.extend(container)
        return container.values()
    return sorted(map(repr, container)) if isinstance(container, set | frozenset) else container


def _attributes(value: Any) -> Iterable[Any]:
    if isinstance(value, nn.Module) and not isinstance(value, torch.jit.ScriptModule):
        return (vars(value),)
    if isinstance(value, types.MethodType):
        return value.__func__, value.__self__
    if isinstance(value, partial):
        return value.func, value.args, value.keywords
    if isinstance(value, np.ndarray) and value.nbytes <= _MOST_BYTES and value.dtype != object:
        return value.dtype.str, value.shape, value.tobytes()
    # what a container of its own kind or a C object holds is not all in its attributes
    plain = hasattr(value, "__dict__") and not isinstance(value, _OWN)
    if not plain or hasattr(type(value), "__slots__") or isinstance(value, torch.jit.ScriptModule):
        raise Unknown
    return (vars(value),)


def _note_tensor(tensor: Tensor, found: list[Any], contents: bool) -> None:
    plain = type(tensor) in (Tensor, nn.Parameter)
    if not plain or tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
        raise Unknown
    try:
        found += tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, type(tensor)
    except RuntimeError:  # a tensor of another kind, such as one inside a transform
        raise Unknown from None
    found += tensor.is_conj(), tensor.is_neg()
    if contents:
        found += tensor._version, _summed(tensor)


class _Same:
    """Something that is equal to nothing but itself."""

    __slots__ = ("value",)

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value

    __hash__ = None  # pyright: ignore[reportAssignmentType]


_LARGE = 4096
_BLOCK, _SAMPLED = 512, 16
_WHOLE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64, 16: torch.int64}


def _summed(tensor: Tensor) -> tuple[int, ...]:
    """Sum words by place: each of a small tensor; of a large one blocks, and in some the words."""
    flat = tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
    size = flat.element_size()
    # eight bytes at once are twenty times faster; of small tensors the finer sum is as fast
    wide = len(flat) >= _LARGE and not len(flat) * size % 8 and not flat.storage_offset() * size % 8
    words = flat.view(torch.int64 if wide else _WHOLE[size])
    if len(words) < _LARGE:
        return (_by_place(words),)
    whole = len(words) // _BLOCK * _BLOCK
    blocks = words[:whole].view(-1, _BLOCK)
    return (
        _by_place(blocks.sum(1, dtype=torch.int64)),
        _by_place(blocks[::_SAMPLED]),
        _by_place(words[whole:]),
    )


def _by_place(words: Tensor) -> int:
    return int((words * _odd(words.shape[-1], words.device)).sum(dtype=torch.int64))


@lru_cache(maxsize=256)
def _odd(count: int, device: torch.device) -> Tensor:
    return 2 * torch.arange(count, device=device) + 1
