"""What determines a run's result, as canonical JSON that two runs can be compared by."""

import hashlib
import json
import re
from collections.abc import Mapping
from functools import partial
from types import CodeType, FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ifa.chains import Chain

# Data are identified by their size and this many of their items, evenly spaced.
FINGERPRINT_ITEMS = 16


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
    """Identify a network by class, architecture as it prints, and every parameter and buffer."""
    printed = re.sub(r" at 0x[0-9a-f]+", "", repr(model))
    digest = hashlib.sha256()
    for name, tensor in sorted([*model.named_parameters(), *model.named_buffers()]):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(_bytes(tensor))
    return {
        "class": f"{type(model).__module__}.{type(model).__qualname__}",
        "architecture": hashlib.sha256(printed.encode()).hexdigest(),
        "weights": digest.hexdigest(),
    }


def data_token(data: Any) -> dict[str, Any]:
    """Identify data by their size and some evenly spaced items: inputs, labels and ids."""
    digest = hashlib.sha256()
    for index in np.linspace(0, len(data) - 1, min(len(data), FINGERPRINT_ITEMS)).astype(int):
        for part in data[int(index)]:
            digest.update(b"|")
            digest.update(part.encode() if isinstance(part, str) else _bytes(part))
    return {"samples": len(data), "fingerprint": digest.hexdigest()}


def callable_token(value: Any) -> Any:
    """Identify a function, a partial, a chain, or an option of one, by what determines it."""
    if isinstance(value, Chain):
        return {"chain": [callable_token(step) for step in value.steps]}
    if isinstance(value, partial):
        options = {key: callable_token(option) for key, option in value.keywords.items()}
        return {
            "function": callable_token(value.func),
            "args": [callable_token(a) for a in value.args],
            "options": options,
        }
    if isinstance(value, FunctionType):
        name = f"{value.__module__}.{value.__qualname__}"
        if value.__module__.partition(".")[0] == "ifa":
            return name
        bound = [cell.cell_contents for cell in value.__closure__ or ()]
        bound += [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
        code = _code_digest(value.__code__)
        return {"function": name, "code": code, "bound": [callable_token(b) for b in bound]}
    if isinstance(value, Tensor | np.ndarray):
        return hashlib.sha256(_bytes(value)).hexdigest()
    if isinstance(value, nn.Module):
        return model_token(value)
    if isinstance(value, tuple | list):
        return [callable_token(part) for part in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _code_digest(code: CodeType) -> str:
    digest = hashlib.sha256(code.co_code)
    digest.update(repr(code.co_names).encode())
    for constant in code.co_consts:
        nested = isinstance(constant, CodeType)
        digest.update((_code_digest(constant) if nested else repr(constant)).encode())
    return digest.hexdigest()


def _bytes(value: Any) -> bytes:
    tensor = torch.as_tensor(value).detach().cpu().contiguous()
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
