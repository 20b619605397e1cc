"""Values, functions and modules as tokens: JSON of all that decides what they compute."""

import hashlib
import io
import json
import logging
import math
import operator
import os
import random
import re
import threading
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from functools import cached_property, partial
from types import (
    BuiltinFunctionType,
    FunctionType,
    MappingProxyType,
    MethodType,
    ModuleType,
)
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ifa.chains import Chain, describe
from ifa.declared import declared
from ifa.network.codes import facts_of, home, home_of, members, version_of
from ifa.stages import native, weigh
from ifa.types import Reduction

# What a class has from these says nothing of it.
_ABOVE = (object, nn.Module)
# What is called without being named, of objects and of classes.
_CALLED = frozenset(("__call__", "__getitem__", "__iter__", "__enter__", "__exit__"))
_OPERATORS = {f"__{one}{name.strip('_')}__" for name in operator.__all__ for one in ("", "r", "i")}
_MADE = _CALLED | {"__init__", "__new__", "__post_init__"}
_MADE |= {"forward", "backward", "setup_context", "jvp", "vmap"}  # of torch.autograd.Function
# What is written by name alone, as no result depends on it.
_SILENT = (logging.Logger, type(threading.Lock()), type(threading.RLock()))
# What gives something else every time.
_PASSING = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
_PASSING += (io.IOBase, Iterator)
_NOTHING: frozenset[str] = frozenset()


def callable_token(value: Any, where: str = "ifa") -> Any:
    """Identify a function, a partial, a chain, or an option of one, by what determines it.

    A function is its code and all that the code reaches: what is bound, defaults, and the values,
    functions, classes and modules of the user's that it names. One of torch or of ours is its name,
    one of another package also its version. The token is the same in every process.

    Parameters
    ----------
    value
        A function or an option.
    where
        What an error names: the public function.

    Raises
    ------
    ValueError
        If a function names or has bound what cannot be identified, such as a generator, or reads
        environment variables.
    """
    return Reader(where).token(value)


def digest_of(token: Any) -> str:
    """Write a token as one digest."""
    return hashlib.sha256(json.dumps(token, sort_keys=True).encode()).hexdigest()


def short(token: Any) -> str:
    """Write a token as a digest for a spec, which has many of them."""
    return digest_of(token)[:16]


class Reader:
    """Reads tokens; what it has read before it does not open again.

    Parameters
    ----------
    where
        What an error names. None writes what cannot be identified by its type.
    named
        Whether of an object only the attributes count that code which was read names.
    steady
        Whether of an object the attributes do not count that code which was read sets.
    opened
        Identities of what is being read, which may hold itself.
    """

    def __init__(
        self,
        where: str | None = None,
        *,
        named: bool = False,
        steady: bool = False,
        opened: Sequence[int] = (),
    ):
        self.where, self.named, self.steady = where, named, steady
        # the operators of a network's configurations compare and copy them
        self._called = _CALLED if named else _CALLED | _OPERATORS
        self.reached: set[str] = set()  # names in all code that was read
        self.stored: set[str] = set()  # attributes that it sets
        self.filled: set[str] = set()  # attributes that it adds something to, as to a list
        self._open = [*opened]
        self._done: dict[Any, tuple[Any, Any]] = {}  # held, so that no identity comes again

    def token(self, value: Any, near: frozenset[str] = _NOTHING) -> Any:
        """Identify a value; `near` are the names in the code that it was named in."""
        if isinstance(value, FunctionType):
            return self.function(value)
        if isinstance(value, Enum):
            name = f"{type(value).__qualname__}.{value.name}"
            return {"enum": name, "value": self.token(value.value)}
        if value is None or isinstance(value, bool | int | str):
            return value
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else {"float": repr(float(value))}
        key = id(value), near
        if key not in self._done:
            if id(value) in self._open:  # it holds itself
                return {"again": len(self._open) - self._open.index(id(value))}
            self._open.append(id(value))
            try:
                self._done[key] = value, self._read(value, near)
            finally:
                self._open.pop()
        return self._done[key][1]

    def _read(self, value: Any, near: frozenset[str]) -> Any:
        if type(value) in _CONTAINERS:
            return _CONTAINERS[type(value)](self, value, near)
        for kinds, read in _HOW:
            if isinstance(value, kinds):
                return read(self, value, near)
        if hasattr(value, "_fields"):  # a record
            return self.each(value, near)
        if hasattr(value, "dims") and hasattr(value, "coords"):  # labelled
            labels = {str(name): self.token(np.asarray(c)) for name, c in value.coords.items()}
            return [list(value.dims), self.token(np.asarray(value)), labels]
        if hasattr(value, "__wrapped__"):  # of a wrapper in C, such as functools.lru_cache
            return {"wrapper": _name(type(value)), "of": self.token(value.__wrapped__, near)}
        return self._object(value, near)

    def each(self, values: Iterable[Any], near: frozenset[str] = _NOTHING) -> list[Any]:
        """Identify several."""
        return [self.token(value, near) for value in values]

    def sets(self, name: str, value: Any) -> bool:
        """Whether code that was read sets an attribute, or adds to the container in it."""
        fills = name in self.filled and isinstance(value, list | dict | set | deque)
        return fills or name in self.stored

    # Containers

    def _mapping(self, value: Mapping[Any, Any], near: frozenset[str]) -> Any:
        items = [(self.token(key, near), self.token(part, near)) for key, part in value.items()]
        if all(isinstance(key, str) for key in value):
            return dict(items)
        return {"items": sorted(items, key=json.dumps)}

    def _set(self, value: Any, near: frozenset[str]) -> Any:
        return {"set": sorted(self.each(value, near), key=json.dumps)}

    # Functions

    def function(self, function: Any, owner: type | None = None) -> Any:
        """Identify a function, of a class where it is a method."""
        function = getattr(function, "_torchdynamo_orig_callable", function)  # of torch.compile
        if not isinstance(function, FunctionType):
            return self.token(function)
        if declared(function, "same_as"):  # another name of the same function
            return self.token(declared(function, "same_as"))
        key = id(function), owner
        if key not in self._done:
            self._done[key] = function, {"again": function.__name__}
            self._done[key] = function, self._function(function, owner)
        return self._done[key][1]

    def _function(self, function: FunctionType, owner: type | None) -> Any:
        whose = home_of(function)
        name = function.__qualname__  # not its module: a script's is another when it is imported
        if whose == "named":
            name = f"{function.__module__}.{name}"
            if owner is None and "<locals>" not in name:
                return name
        facts = facts_of(function.__code__)
        if whose == "own":
            self._check_environment(function, facts.names)
        self.reached |= facts.names
        self.stored |= facts.stored
        self.filled |= facts.filled
        token: dict[str, Any] = {"function": name, "bound": self._bound(function, owner)}
        if whose != "named":
            token["code"] = facts.digest
            token["globals"] = self._globals(function, facts.globals, facts.names, whose)
        if whose == "installed":
            token["version"] = version_of(function.__globals__.get("__name__", ""))
        token["own"] = {} if owner is None else self._members(owner, facts.names)
        token = {key: part for key, part in token.items() if part}
        return name if len(token) == 1 else token

    def _bound(self, function: FunctionType, owner: type | None) -> list[Any]:
        """Identify what a function has bound: by the one that made it, and as defaults."""
        bound = []
        for name, cell in zip(
            function.__code__.co_freevars, function.__closure__ or (), strict=True
        ):
            try:
                part = cell.cell_contents
            except ValueError:  # not yet bound
                continue
            if name == "__class__":  # for super(), whose methods are members
                continue
            plain = isinstance(part, FunctionType)  # such as a method inside of a decorator's
            token = self.function(part, owner) if plain else self.token(part)
            bound.append(token)
            if home_of(function) == "own":
                self._known(token, name, part, f"what {describe(function)} has bound")
        defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).items())
        for part in defaults if home_of(function) == "own" else ():
            self._known(self.token(part), "a default", part, f"the defaults of {function.__name__}")
        return bound + self.each(defaults)

    def _known(self, token: Any, name: str, value: Any, what: str) -> Any:
        """Return the token of a value; an error if it says nothing of it."""
        if self.where is not None and _unread(token):
            raise ValueError(
                f"{self.where}: expected {what} to be values or functions, got {name!r} "
                f"({type(value).__name__}), which cannot be identified. Bind what it needs of it "
                "with functools.partial, such as a seed or what a file holds."
            )
        return token

    def _check_environment(self, function: FunctionType, names: frozenset[str]) -> None:
        """Raise where code reads variables of the environment, which no token can hold."""
        for name in sorted({"environ", "getenv"} & names) if self.where is not None else ():
            if "os" in names or function.__globals__.get(name) is getattr(os, name):
                raise ValueError(
                    f"{self.where}: expected {describe(function)} to read nothing of the "
                    f"environment, got code that names os.{name}. Read it before, and bind the "
                    "value with functools.partial."
                )

    def _globals(
        self, function: FunctionType, read: frozenset[str], near: frozenset[str], whose: str
    ) -> dict[str, Any]:
        """Identify the globals that a function reads; of another package those of its module."""
        found = {}
        for name in sorted(read & function.__globals__.keys()):
            value = function.__globals__[name]
            if whose == "installed" and not _of_module(value, function.__module__):
                continue
            found[name] = self.token(value, near)
            if whose == "own":
                what = f"the globals that {describe(function)} names"
                self._known(found[name], name, value, what)
        return found

    def _members(self, owner: type, names: frozenset[str]) -> dict[str, Any]:
        """Identify methods, properties and values of a class; of torch's own no word is said."""
        found: dict[str, Any] = {}
        for name, part in members(owner, names, _ABOVE):
            part = getattr(part, "__func__", part)  # of a static or class method
            part = part.func if isinstance(part, cached_property) else part
            for one in (part.fget, part.fset) if isinstance(part, property) else (part,):
                plain = isinstance(one, FunctionType)
                token = self.function(one, owner) if plain else self.token(one, names)
                named = isinstance(token, str) and plain
                if one is not None and not named:
                    found.setdefault(name, []).append(token)
        return found

    def _partial(self, value: Any, near: frozenset[str]) -> Any:
        if not value.args and not value.keywords:
            return self.token(value.func, near)
        if value.func is _WEIGH:  # a kernel as a step
            return self.token(value.keywords["kernel"])
        what = f"what is bound of {describe(value.func)}"
        args = {f"argument {place}": part for place, part in enumerate(value.args)}
        for name, part in (args | value.keywords).items():
            self._known(self.token(part), name, part, what)
        return {
            "function": self.token(value.func, near),
            "args": self.each(value.args),
            "options": {key: self.token(option) for key, option in value.keywords.items()},
        }

    def _method(self, value: MethodType, near: frozenset[str]) -> Any:
        of = value.__self__
        owner = of if isinstance(of, type) else type(of)
        if isinstance(of, type):
            return {"method": self.function(value.__func__, owner), "of": self.token(of)}
        return {
            "method": self.function(value.__func__, owner),
            "of": self.token(of, facts_of(value.__func__.__code__).names)
            if isinstance(value.__func__, FunctionType)
            else self.token(of),
        }

    def _chain(self, value: Chain, near: frozenset[str]) -> Any:
        steps = self.each(value.steps)
        return steps[0] if len(steps) == 1 else {"chain": steps}

    # Modules, classes and objects

    def _builtin(self, value: Any, near: frozenset[str]) -> Any:
        of = value.__self__
        if of is None or isinstance(of, type | ModuleType):
            return f"{value.__module__ or getattr(of, '__name__', '')}.{value.__qualname__}"
        return {"method": value.__qualname__, "of": self.token(of)}

    def _module(self, value: ModuleType, near: frozenset[str]) -> Any:
        if home(value.__name__) != "own":
            return f"module {value.__name__}"
        held = sorted(near & vars(value).keys())
        return {"module": {name: self.token(vars(value)[name], near) for name in held}}

    def _class(self, value: type, near: frozenset[str]) -> Any:
        if home(value.__module__) != "own":
            return _name(value)
        return {
            "class": value.__qualname__,
            "own": self._members(value, near | _MADE | self._called),
        }

    def _network(self, value: nn.Module, near: frozenset[str]) -> Any:
        from ifa.network.identity import parts_of  # which reads networks with a `Reader`

        parts = parts_of(value, opened=self._open)
        return {name: part for name, part in parts.items() if name != "aside"}

    def _object(self, value: Any, near: frozenset[str]) -> Any:
        """Identify an object by its class and by what a copy of it would be made of."""
        kind = type(value)
        token: dict[str, Any] = {"object": _name(kind)}
        if home(kind.__module__) != "named":
            token["own"] = self._members(kind, near | self._called | self.reached)
        try:
            made = value.__reduce_ex__(4)
        except Exception:  # such as a generator
            made = (None, (), getattr(value, "__dict__", None))
            if made[2] is None:
                return {"type": _name(kind)}
        if isinstance(made, str):  # a name in its module
            return {"name": made}
        args = [part for part in made[1] if part is not kind]
        holds = [[*part] for part in made[3:5] if part is not None]
        parts = [self._state(part, near) for part in (*made[2:3], *args)]
        held = made[2] if len(made) > 2 else None
        if home(kind.__module__) == "own" and isinstance(held, dict):
            what = f"the attributes of {describe(value)}"
            for name, part in held.items():
                self._known(self.token(part, near), name, part, what)
        return token | {"state": parts, "holds": self.each(holds)}

    def _state(self, value: Any, near: frozenset[str]) -> Any:
        if self.named and type(value) is dict:
            value = {key: part for key, part in value.items() if key in self.reached | near}
        if self.steady and type(value) is dict:
            value = {key: part for key, part in value.items() if not self.sets(key, part)}
        if type(value) is tuple:  # attributes and slots
            return [self._state(part, near) for part in value]
        return self.token(value, near)


def _unread(token: Any) -> bool:
    """Whether a token, or one in a container, says no more than a type."""
    if isinstance(token, list):
        return any(map(_unread, token))
    if not isinstance(token, dict) or not _READ.isdisjoint(token):
        return False
    return set(token) == {"type"} or any(map(_unread, token.values()))


# What the token of something has that was read itself.
_READ = frozenset(("function", "object", "class", "module", "weights", "wrapper", "method"))


def _of_module(value: Any, module: str) -> bool:
    """Whether a global is a plain value, or a function of a module's own."""
    if isinstance(value, FunctionType):
        return value.__module__ == module
    return isinstance(value, bool | int | float | str | tuple | Tensor | np.ndarray)


def _name(kind: type) -> str:
    """Name a class; of the user's not the module, which is another in a script."""
    own = home(kind.__module__) == "own"
    return kind.__qualname__ if own else f"{kind.__module__}.{kind.__qualname__}"


# Tensors and arrays


def bytes_of(value: Any) -> bytes:
    """Return what a tensor or array holds."""
    if isinstance(value, np.ndarray) and value.dtype.kind not in "biufc":
        return native(value).tobytes()
    tensor = torch.as_tensor(native(value)).detach().cpu().contiguous()
    tensor = tensor.resolve_conj().resolve_neg()
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def _array(reader: Reader, value: Any, near: frozenset[str] = _NOTHING) -> Any:
    if isinstance(value, np.ndarray) and value.dtype == object:
        return {"array": list(value.shape), "of": reader.each(value.reshape(-1))}
    if isinstance(value, np.ndarray):
        kind = value.dtype.newbyteorder("=")
        dtype = kind.name if kind.kind in "biufc" else str(kind)
    else:
        dtype = str(value.dtype).removeprefix("torch.")
    return f"{dtype} {tuple(value.shape)} {hashlib.sha256(bytes_of(value)).hexdigest()}"


def _tensor(reader: Reader, value: Tensor, near: frozenset[str] = _NOTHING) -> Any:
    value = value.detach()
    if value.is_meta:
        return {"type": f"{value.dtype} {tuple(value.shape)} without values"}
    if value.is_quantized:
        scheme = [str(value.qscheme())]
        if "channel" in scheme[0]:
            scheme += [value.q_per_channel_scales(), value.q_per_channel_zero_points()]
        else:
            scheme += [value.q_scale(), value.q_zero_point()]
        return {"quantized": reader.each([value.int_repr(), *scheme])}
    if value.layout != torch.strided:
        return {"sparse": str(value.layout), "of": _array(reader, value.to_dense())}
    return _array(reader, value)


def _script(reader: Reader, value: Any, near: frozenset[str]) -> Any:
    """Identify an object of torch's in C++, such as the packed weights of a quantized layer."""
    try:
        return {"packed": reader.token(value.__getstate__())}
    except Exception:
        return {"type": _name(type(value))}


def _number(reader: Reader, value: np.generic, near: frozenset[str]) -> Any:
    item = value.item()
    return repr(value) if isinstance(item, np.generic) else reader.token(item)


_WEIGH = weigh(lambda activations, gradients: gradients).func  # pyright: ignore

# How a value of a kind is read; the first that fits.
_HOW: tuple[tuple[Any, Any], ...] = (
    (Chain, Reader._chain),
    (partial, Reader._partial),
    (MethodType, Reader._method),
    (BuiltinFunctionType, Reader._builtin),
    (_PASSING, lambda reader, value, near: {"type": _name(type(value))}),
    (ModuleType, Reader._module),
    (_SILENT, lambda reader, value, near: _name(type(value))),
    (Tensor, _tensor),
    (np.ndarray, _array),
    (nn.Module, Reader._network),
    (torch.jit.ScriptFunction, lambda reader, value, near: {"script": value.code}),
    (torch.ScriptObject, _script),
    (Reduction, lambda reader, value, near: reader.token(getattr(value, "call", tuple(value)))),
    (type, Reader._class),
    # a dtype is the same as its name, as which configurations keep it
    (torch.dtype, lambda reader, value, near: str(value).removeprefix("torch.")),
    ((torch.device, torch.layout, torch.memory_format), lambda reader, value, near: str(value)),
    ((np.dtype, np.ufunc, re.Pattern), lambda reader, value, near: repr(value)),
    (np.generic, _number),
    ((bytes, bytearray), lambda reader, value, near: {"bytes": bytes(value).hex()}),
    (complex, lambda reader, value, near: {"complex": reader.each((value.real, value.imag))}),
    (range, lambda reader, v, near: {"range": [v.start, v.stop, v.step]}),
    (slice, lambda reader, v, near: {"slice": reader.each((v.start, v.stop, v.step))}),
    ((type(...), type(NotImplemented)), lambda reader, value, near: repr(value)),
)

# These very kinds: what derives from them is an object that holds something.
_CONTAINERS = {
    **dict.fromkeys((dict, OrderedDict, defaultdict, Counter, MappingProxyType), Reader._mapping),
    **dict.fromkeys((list, tuple, deque, torch.Size), Reader.each),
    **dict.fromkeys((set, frozenset), Reader._set),
}
