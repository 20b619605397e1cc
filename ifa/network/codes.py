"""What the code of a function says: its digest, what it names, what it sets, and whose it is."""

import dis
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from inspect import CO_OPTIMIZED
from pathlib import PurePath
from sysconfig import get_path
from types import CodeType, FunctionType
from typing import NamedTuple


class Facts(NamedTuple):
    """What is read off a code object and those inside of it."""

    digest: str
    globals: frozenset[str]  # names of its module that it reads
    names: frozenset[str]  # attributes and globals that it names, and words in its text
    stored: frozenset[str]  # attributes that it sets
    filled: frozenset[str]  # attributes that it adds something to, if they are containers


# What is among the names of code that reads attributes by a name which it computes.
ANY = "__dict__"


@lru_cache(maxsize=4096)
def facts_of(code: CodeType) -> Facts:
    """Read a code object."""
    nested = [facts_of(part) for part in code.co_consts if isinstance(part, CodeType)]
    names = {*code.co_names, *_words(_constants(code))}
    read, stored, filled, computed = _seen(code)
    return Facts(
        _digest(code),
        read.union(*(one.globals for one in nested)),
        frozenset(names).union({ANY} if computed else (), *(one.names for one in nested)),
        stored.union(*(one.stored for one in nested)),
        filled.union(*(one.filled for one in nested)),
    )


def _words(constants: Iterable[object]) -> Iterator[str]:
    for part in constants:
        if isinstance(part, str) and part.isidentifier():
            yield part
        elif isinstance(part, tuple | frozenset):
            yield from _words(part)


def _seen(code: CodeType) -> tuple[frozenset[str], frozenset[str], frozenset[str], bool]:
    """Return what is read of the module, set, and added to, and whether a name is computed."""
    read, stored, filled, last, computed = set(), set(), set(), "", False
    asked: list[dis.Instruction] | None = None  # since the last `getattr`
    for each in dis.get_instructions(code):
        if each.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            read.add(each.argval)
        elif each.opname == "STORE_ATTR":
            stored.add(each.argval)
        attribute = each.opname in ("LOAD_ATTR", "LOAD_METHOD")
        if attribute and last and each.argval in ("append", "extend", "add", "update"):
            filled.add(last)
        if each.opname != "CACHE":
            last = each.argval if attribute else ""
        if asked is not None:
            asked.append(each)
            if each.opname.startswith("CALL"):
                computed, asked = computed or not _written_out(asked), None
        elif each.argval == "getattr" and each.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            asked = []
    return frozenset(read), frozenset(stored), frozenset(filled), computed


def _written_out(call: Sequence[dis.Instruction]) -> bool:
    """Whether the name that a call of `getattr` asks for stands in the code, after one value."""
    names = [place for place, each in enumerate(call) if isinstance(each.argval, str)]
    constants = [place for place in names if call[place].opname == "LOAD_CONST"]
    if not constants or any("STRING" in each.opname or "BINARY" in each.opname for each in call):
        return False
    values = ("LOAD_FAST", "LOAD_DEREF", "LOAD_GLOBAL", "LOAD_NAME")
    return sum(each.opname.startswith(values) for each in call[: constants[0]]) == 1


def _constants(code: CodeType) -> tuple[object, ...]:
    """Return the constants of a code object; of text that only documents it nothing."""
    first = code.co_consts[0] if code.co_consts else None
    if not isinstance(first, str) or code.co_name[0] == "<" or not code.co_flags & CO_OPTIMIZED:
        return code.co_consts
    loads = (each for each in dis.get_instructions(code) if each.opname == "LOAD_CONST")
    used = any(each.arg == 0 for each in loads)
    return code.co_consts if used else (None, *code.co_consts[1:])


def _digest(code: CodeType) -> str:
    digest = hashlib.sha256(code.co_code)
    digest.update(repr(code.co_names).encode())
    for constant in _constants(code):
        if isinstance(constant, CodeType):
            digest.update(_digest(constant).encode())
        else:  # a set of text is in another order in every process
            ordered = isinstance(constant, frozenset)
            digest.update(repr(sorted(map(repr, constant)) if ordered else constant).encode())
    return digest.hexdigest()


def home_of(function: FunctionType) -> str:
    """Return whose a function is, as `home` does."""
    # by where its code is from: `functools.wraps` copies the name of a module
    name = function.__globals__.get("__name__", "")
    if name.partition(".")[0] == "jaxtyping":  # what checks shapes stands around a function
        name = function.__module__ or ""
    return home(name)


def home(module: str) -> str:
    """Return whose a module is, by where its file lies: a user's may be called as one of Python's.

    ``"named"``: its name is enough, as a run's versions say what it is, or it is Python's own;
    ``"installed"``: another package's; ``"own"``: the user's.
    """
    top = module.partition(".")[0]
    return _home(top, getattr(sys.modules.get(top), "__file__", None) or "")


@lru_cache(maxsize=4096)
def _home(top: str, file: str) -> str:
    if top in ("ifa", "torch", "numpy"):
        return "named"
    path = PurePath(file)
    if {"site-packages", "dist-packages"} & {*path.parts}:
        return "installed"
    pythons = not file or any(path.is_relative_to(place) for place in _LIBRARY)
    return "named" if top in sys.stdlib_module_names and pythons else "own"


# Where Python's own modules lie; of those in C and frozen ones no file is known.
_LIBRARY = {PurePath(os.__file__).parent, *map(get_path, ("stdlib", "platstdlib"))}


def version_of(module: str) -> str:
    """Return the version of the package that a module is of."""
    top = module.partition(".")[0]
    return str(getattr(sys.modules.get(top), "__version__", ""))


def members(
    kind: type, names: frozenset[str], above: tuple[type, ...]
) -> Iterator[tuple[str, object]]:
    """Yield what code that names so finds on a class, below the classes it all derives from."""
    for name in sorted(names):
        for one in kind.__mro__:
            if one in above:
                break
            if name in vars(one):
                yield name, vars(one)[name]
                if "super" not in names:  # which goes on to the next
                    break
