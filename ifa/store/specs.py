"""What determines a run's result, as canonical JSON that two runs can be compared by."""

import hashlib
import json
import re
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ifa.chains import Chain
from ifa.store.items import collate

# Data are identified by their size and this many of their items, evenly spaced.
FINGERPRINT_ITEMS = 16


def versions() -> dict[str, str]:
    """Return the versions of what a result's bits depend on."""
    return {name: version(name) for name in ("ifa", "torch", "numpy")}


def canonical(spec: Mapping[str, Any]) -> bytes:
    """Write a spec as JSON, the same bytes for the same content."""
    return json.dumps(spec, sort_keys=True, indent=1, ensure_ascii=False).encode()


def first_difference(a: Any, b: Any, path: str = "") -> str | None:
    """Name the first place where two specs differ, with both values; None if they agree."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in sorted({*a, *b}):
            found = first_difference(a.get(key), b.get(key), f"{path}.{key}" if path else key)
            if found:
                return found
        return None
    return None if a == b else f"{path}: {a!r} in the run, {b!r} now"


def model_token(model: nn.Module) -> dict[str, str]:
    """Identify a network by class, architecture, options, and every parameter and buffer.

    The architecture is what it prints and the code of each module's forward pass; options are plain
    attributes of modules: numbers, text and tensors.
    """
    printed = hashlib.sha256(_without_addresses(repr(model)).encode())
    digest = hashlib.sha256()
    for path, module in model.named_modules():
        forward = type(module).forward
        if isinstance(forward, FunctionType) and not _ours_or_torch(forward):
            printed.update(_code_digest(forward.__code__).encode())
        plain = {name: vars(module)[name] for name in sorted(vars(module)) if name[0] != "_"}
        for name, value in plain.items():
            if isinstance(value, bool | int | float | str | Tensor | tuple):
                token = json.dumps(callable_token(value), sort_keys=True)
                digest.update(f"{path} {name} {token}".encode())
    for name, tensor in sorted([*model.named_parameters(), *model.named_buffers()]):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(_bytes(tensor))
    return {
        "class": f"{type(model).__module__}.{type(model).__qualname__}",
        "architecture": printed.hexdigest(),
        "weights": digest.hexdigest(),
    }


def data_token(data: Any) -> dict[str, Any]:
    """Identify data by their size and some evenly spaced items: inputs, labels and ids."""
    digest = hashlib.sha256()
    for index in np.linspace(0, len(data) - 1, min(len(data), FINGERPRINT_ITEMS)).astype(int):
        values, labels, ids = collate(data, range(index, index + 1))
        digest.update(f"|{values.dtype} {tuple(values.shape)} {ids[0]}|".encode())
        digest.update(_bytes(values))
        label = labels[0]
        arrays = isinstance(label, Tensor | np.ndarray)
        digest.update(_bytes(label) if arrays else repr(label).encode())
    return {"samples": len(data), "fingerprint": digest.hexdigest()}


def callable_token(value: Any, seen: set[int] | None = None) -> Any:
    """Identify a function, a partial, a chain, or an option of one, by what determines it.

    A function of another package is its name, its code, what it has bound, and the values and
    functions of its own module that it names. What was `seen` before is not opened again.
    """
    seen = set() if seen is None else seen
    token = partial(callable_token, seen=seen)
    if isinstance(value, Chain):
        return {"chain": [token(step) for step in value.steps]}
    if isinstance(value, partial):
        return {
            "function": token(value.func),
            "args": [token(a) for a in value.args],
            "options": {key: token(option) for key, option in value.keywords.items()},
        }
    if isinstance(value, FunctionType):
        name = f"{value.__module__}.{value.__qualname__}"
        if id(value) in seen or _ours_or_torch(value):
            return name
        seen.add(id(value))
        bound = [cell.cell_contents for cell in value.__closure__ or ()]
        bound += [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
        bound += _globals(value)
        return {
            "function": name,
            "code": _code_digest(value.__code__),
            "bound": [token(part) for part in bound],
        }
    if isinstance(value, MethodType):
        return {"method": token(value.__func__), "of": token(value.__self__)}
    if isinstance(value, Tensor | np.ndarray):
        return f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(_bytes(value)).hexdigest()}"
    if isinstance(value, nn.Module):
        return model_token(value)
    if isinstance(value, tuple | list):
        return [token(part) for part in value]
    if isinstance(value, dict):
        return {str(key): token(part) for key, part in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    kind = type(value)
    if isinstance(getattr(kind, "__call__", None), FunctionType) and id(value) not in seen:  # noqa: B004
        seen.add(id(value))
        return {
            "object": f"{kind.__module__}.{kind.__qualname__}",
            "call": token(kind.__call__),
            "state": token(getattr(value, "__dict__", None)),
        }
    return _without_addresses(repr(value))


def _globals(function: FunctionType) -> list[Any]:
    """List plain values, tensors and the module's own functions that a function names."""
    named = (function.__globals__.get(name) for name in sorted(_names(function.__code__)))
    return [
        value
        for value in named
        if isinstance(value, bool | int | float | str | tuple | Tensor | np.ndarray)
        or (isinstance(value, FunctionType) and value.__module__ == function.__module__)
    ]


def _names(code: CodeType) -> set[str]:
    nested = (_names(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*nested)


def _code_digest(code: CodeType) -> str:
    digest = hashlib.sha256(code.co_code)
    digest.update(repr(code.co_names).encode())
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            digest.update(_code_digest(constant).encode())
        else:  # a set of text is in another order in every process
            ordered = isinstance(constant, frozenset)
            digest.update(repr(sorted(map(repr, constant)) if ordered else constant).encode())
    return digest.hexdigest()


def _ours_or_torch(function: FunctionType) -> bool:
    """Whether the spec's versions say what a function is, so that its name is enough."""
    return (function.__module__ or "").partition(".")[0] in ("ifa", "torch")


def _without_addresses(text: str) -> str:
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def _bytes(value: Any) -> bytes:
    tensor = torch.as_tensor(value).detach().cpu().contiguous()
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
