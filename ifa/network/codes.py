"""What the code of a function says: its digest, what it names, what it sets, and whose it is."""

import dis
import hashlib
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import PurePath
from types import CodeType, FunctionType
from typing import NamedTuple


class Facts(NamedTuple):
    """What is read off a code object and those inside of it."""

    digest: str
    globals: frozenset[str]  # names of its module that it reads
    names: frozenset[str]  # attributes and globals that it names, and words in its text
    stored: frozenset[str]  # attributes that it sets, or adds something to


@lru_cache(maxsize=4096)
def facts_of(code: CodeType) -> Facts:
    """Read a code object."""
    nested = [facts_of(part) for part in code.co_consts if isinstance(part, CodeType)]
    words = {part for part in code.co_consts if isinstance(part, str) and part.isidentifier()}
    read, stored = _read_and_stored(code)
    return Facts(
        _digest(code),
        read.union(*(one.globals for one in nested)),
        frozenset(code.co_names).union(words, *(one.names for one in nested)),
        stored.union(*(one.stored for one in nested)),
    )


def _read_and_stored(code: CodeType) -> tuple[frozenset[str], frozenset[str]]:
    read, stored, last = set(), set(), ""
    for each in dis.get_instructions(code):
        if each.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            read.add(each.argval)
        elif each.opname == "STORE_ATTR":
            stored.add(each.argval)
        attribute = each.opname in ("LOAD_ATTR", "LOAD_METHOD")
        if attribute and last and each.argval in ("append", "extend", "add", "update"):
            stored.add(last)
        if each.opname != "CACHE":
            last = each.argval if attribute else ""
    return frozenset(read), frozenset(stored)


def _digest(code: CodeType) -> str:
    digest = hashlib.sha256(code.co_code)
    digest.update(repr(code.co_names).encode())
    for constant in code.co_consts:
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


@lru_cache(maxsize=4096)
def home(module: str) -> str:
    """Return whose a module is.

    ``"named"``: its name is enough, as a run's versions say what it is, or it is Python's own;
    ``"installed"``: another package's; ``"own"``: the user's.
    """
    top = module.partition(".")[0]
    if top in ("ifa", "torch", "numpy") or top in sys.stdlib_module_names:
        return "named"
    file = getattr(sys.modules.get(top), "__file__", None)
    places = PurePath(file or "").parts
    return "installed" if {"site-packages", "dist-packages"} & {*places} else "own"


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
