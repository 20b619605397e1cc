"""Who a network or a function is: digests of all that decides what it computes."""

import hashlib
import json
import re
import threading
from dataclasses import asdict, dataclass
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from ifa.chains import Chain, describe
from ifa.declared import declared
from ifa.network.replicas import plain
from ifa.network.snapshots import snapshot
from ifa.stages import native
from ifa.types import Grid, Method, Output, Reduction, Score


@dataclass(frozen=True)
class Origin:
    """What maps and statistics were made of; two that differ have no common scale."""

    network: str  # digest
    layer: str
    weight: str  # tokens, as JSON
    score: str
    grid: str
    output: str
    names: tuple[str, str, str]  # of the network's class, the weighting and the score, to be read

    def written(self) -> str:
        """Write it as JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    def difference(self, other: "Origin") -> str | None:
        """Say in words where another one differs, for an error; None if it does not."""
        network, weight, score = zip(self.names, other.names, strict=True)
        each = (
            ("network", self.network, other.network, network),
            ("layer", self.layer, other.layer, (repr(self.layer), repr(other.layer))),
            ("weighting", self.weight, other.weight, weight),
            ("score", self.score, other.score, score),
            ("grid", self.grid, other.grid, (self.grid, other.grid)),
            ("output", self.output, other.output, (self.output, other.output)),
        )
        for what, mine, its, (name, its_name) in each:
            if mine != its:
                same = " with other weights or options" if name == its_name else ""
                return f"{what} {its_name}{same} instead of {name}"
        return None


def origin_of(
    model: nn.Module,
    layer: str,
    weight: Method,
    score: Score,
    grid: Grid | None,
    output: Output,
    *,
    network: str | None = None,
) -> Origin:
    """Identify what maps are made of; `network` is the network's digest, where it is known."""
    return Origin(
        network=network or network_digest(model),
        layer=layer,
        weight=_written(weight),
        score=_written(score),
        grid=_written(grid),
        output=_written(output),
        names=(type(plain(model)).__name__, describe(weight), describe(score)),
    )


def _written(value: Any) -> str:
    return json.dumps(callable_token(value), sort_keys=True)


def read_origin(text: str) -> Origin:
    """Read what `Origin.written` wrote."""
    fields = json.loads(text)
    return Origin(**{**fields, "names": tuple(fields["names"])})


def digest_of(token: Any) -> str:
    """Write a token as one digest."""
    return hashlib.sha256(json.dumps(token, sort_keys=True).encode()).hexdigest()


# The digest of a network, and the snapshot that it holds for.
_DIGESTS: WeakKeyDictionary[nn.Module, tuple[list[Any], str]] = WeakKeyDictionary()
_LOCK = threading.Lock()


def network_digest(model: nn.Module) -> str:
    """Digest a network; not anew while nothing of it has changed."""
    model = plain(model)
    state = snapshot(model, contents=True)
    with _LOCK:
        known = _DIGESTS.get(model)
    if known is not None and state is not None and known[0] == state:
        return known[1]
    digest = digest_of(model_token(model))
    if state is not None:
        with _LOCK:
            _DIGESTS[model] = state, digest
    return digest


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
        digest.update(bytes_of(tensor))
    return {
        "class": f"{type(model).__module__}.{type(model).__qualname__}",
        "architecture": printed.hexdigest(),
        "weights": digest.hexdigest(),
    }


def callable_token(value: Any, seen: set[int] | None = None) -> Any:
    """Identify a function, a partial, a chain, or an option of one, by what determines it.

    A function of another package is its name, its code, what it has bound, and the values and
    functions of its own module that it names. What was `seen` before is not opened again.
    """
    seen = set() if seen is None else seen
    value = getattr(value, "_torchdynamo_orig_callable", value)  # inside of torch.compile
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
        if declared(value, "same_as"):  # another name of the same function
            return token(declared(value, "same_as"))
        name = f"{value.__module__}.{value.__qualname__}"
        made = "<locals>" in value.__qualname__  # by a function, whose options it has bound
        if id(value) in seen or (_ours_or_torch(value) and not made):
            return name
        seen.add(id(value))
        bound = [cell.cell_contents for cell in value.__closure__ or ()]
        if _ours_or_torch(value):
            return {"function": name, "bound": [token(part) for part in bound]}
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
        return f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(bytes_of(value)).hexdigest()}"
    if isinstance(value, nn.Module):
        return model_token(value)
    if isinstance(value, Reduction):
        value = getattr(value, "call", tuple(value))  # what made it
    if isinstance(value, tuple | list):
        return [token(part) for part in value]
    if isinstance(value, dict):
        return {str(key): token(part) for key, part in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if hasattr(value, "dims") and hasattr(value, "coords"):  # labelled; its repr is abbreviated
        labels = {str(name): token(np.asarray(part)) for name, part in value.coords.items()}
        return [list(value.dims), token(np.asarray(value)), labels]
    kind = type(value)
    if isinstance(value, torch.jit.ScriptFunction):
        return {"script": value.code}
    if hasattr(value, "__wrapped__"):  # of a wrapper in C, such as functools.lru_cache
        return {"wrapper": f"{kind.__module__}.{kind.__qualname__}", "of": token(value.__wrapped__)}
    if isinstance(getattr(kind, "__call__", None), FunctionType) and id(value) not in seen:  # noqa: B004
        seen.add(id(value))
        slots = [name for one in kind.__mro__ for name in getattr(one, "__slots__", ())]
        return {
            "object": f"{kind.__module__}.{kind.__qualname__}",
            "call": token(kind.__call__),
            "state": token(getattr(value, "__dict__", None)),
            "slots": {name: token(getattr(value, name, None)) for name in slots},
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
    # by where its code is from: `functools.wraps` copies the name of a module
    home = function.__globals__.get("__name__", "").partition(".")[0]
    if home == "jaxtyping":  # what checks shapes stands around a function
        home = (function.__module__ or "").partition(".")[0]
    return home in ("ifa", "torch")


def _without_addresses(text: str) -> str:
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def bytes_of(value: Any) -> bytes:
    """Return what a tensor or array holds."""
    tensor = torch.as_tensor(native(value)).detach().cpu().contiguous()
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
