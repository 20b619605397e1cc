"""Who a network is: what it is made of, what its maps are made of, and where two differ."""

import json
import threading
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from inspect import unwrap
from types import FunctionType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from torch import nn

from ifa.chains import describe
from ifa.network.behaviour import behaviour_difference
from ifa.network.codes import ANY, facts_of, home, home_of
from ifa.network.replicas import plain
from ifa.network.snapshots import snapshot
from ifa.network.tokens import Reader, callable_token, digest_of, short
from ifa.network.watching import Watched, hooks_at, watch
from ifa.score.rows import without_rows
from ifa.types import Grid, Inputs, Method, Output, Score


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
    where: str,
    network: Mapping[str, Any],
    layer: str,
    weight: Method,
    score: Score,
    grid: Grid | None,
    output: Output,
) -> Origin:
    """Identify what maps are made of; `network` is a `model_token`."""
    inside = f"{network['inside']}."

    def written(value: Any) -> str:
        return json.dumps(callable_token(value, where), sort_keys=True)

    return Origin(
        network=network_digest(network),
        layer=layer.removeprefix(inside),  # whatever hands the network through
        weight=written(weight),
        # what it is asked about is no more part of it than targets are
        score=written(without_rows(score)),
        grid=written(grid),
        output=written(output),
        names=(
            network["class"].rpartition(".")[2],
            describe(weight),
            describe(without_rows(score)),
        ),
    )


def read_origin(text: str) -> Origin:
    """Read what `Origin.written` wrote."""
    fields = json.loads(text)
    return Origin(**{**fields, "names": tuple(fields["names"])})


# The token of a network, and the snapshot and code that it holds for.
_TOKENS: WeakKeyDictionary[nn.Module, tuple[Any, dict[str, Any]]] = WeakKeyDictionary()
_LOCK = threading.Lock()


def remembered_token(model: nn.Module, example: Inputs) -> dict[str, Any]:
    """Return the token of a network; not read anew while nothing of it has changed."""
    model = plain(model)
    held = snapshot(model, contents=True)
    # globals that code names may change too
    state = None if held is None else (held, _codes(model, _read(model, Watched(), (), ())))
    with _LOCK:
        known = _TOKENS.get(model)
    if known is not None and state is not None and known[0] == state:
        return known[1]
    token = model_token(model, example)
    if state is not None:
        with _LOCK:
            _TOKENS[model] = state, token
    return token


def network_digest(token: Mapping[str, Any]) -> str:
    """Digest a `model_token`: all of it but names and behaviour."""
    parts = {name: token[name] for name in ("weights", "settings", "hooks")}
    return digest_of({**parts, "code": sorted(token["code"].values())})


def model_token(model: nn.Module, example: Inputs | None = None) -> dict[str, Any]:
    """Identify a network by its weights, the settings of its modules, their code, and hooks.

    Parameters
    ----------
    model
        The network. One inside a wrapper that hands everything through is the network itself.
    example
        A batch, to see what hooks and wrappers do; without one all of them count.

    Returns
    -------
    dict
        ``class``, to be read; ``weights``, one digest of parameters, buffers and packed weights;
        ``settings``, a digest for each module of torch's, and for each attribute of others
        (``"path:attribute"``) that code names or the class of a package sets. Attributes that code
        sets are state, and count as little as training flags. ``code``, a digest for each class
        that is not torch's: its forward and all that this reaches. ``hooks``, a digest for each
        module with forward hooks that change what flows. ``aside``, public attributes and modules
        that none of the code names, such as the number of an epoch or a criterion.
    """
    model = plain(model)
    seen = watch(model, example)
    network = model.get_submodule(seen.inside)
    hooks: dict[str, list[Any]] = {}
    reader = Reader(steady=True)
    for (path, kind, key), hook in hooks_at(model, seen.acting).items():
        token = reader.token(hook)
        place = f"{path.removeprefix(seen.inside).lstrip('.')}:{kind}"
        hooks.setdefault(place, []).append(seen.hooks.get((path, kind, key), token))
    return {
        "class": f"{type(network).__module__}.{type(network).__qualname__}",
        "inside": seen.inside,
        **parts_of(network, seen, named=reader.reached),
        "hooks": {place: short(tokens) for place, tokens in hooks.items()},
    }


def parts_of(
    network: nn.Module,
    seen: Watched | None = None,
    opened: Sequence[int] = (),
    named: Iterable[str] = (),
) -> dict[str, Any]:
    """Identify what a network holds and the code of its modules, whatever its hooks.

    `opened` are the identities of what is being read: a network may be named in its own code.
    `named` are names that its hooks read.
    """
    read = _read(network, seen or Watched(), opened, named)
    settings, aside = _settings(network, read)
    return {
        "weights": digest_of(_weights(network, read.reached)),
        "settings": settings,
        "code": _codes(network, read),
        "aside": aside,
    }


# A module's class, and a forward of its own.
_Kind = tuple[type, Any]


class _Read(NamedTuple):
    """What the code of a network was read to reach."""

    seen: Watched
    kinds: Mapping[_Kind, tuple[str, Reader]]  # digest of its code, and what read it
    names: frozenset[str]  # in all of it
    reached: frozenset[int]  # identities of modules

    def every(self) -> bool:
        """Whether the code reads attributes without naming them."""
        return not self.names.isdisjoint(_ANY)


# Code that names one of these may reach every module and attribute.
_ANY = frozenset((ANY, "vars", "_modules", "attrgetter", "get_submodule"))
_ANY |= {"children", "modules", "named_children", "named_modules"}


def _read(network: nn.Module, seen: Watched, opened: Sequence[int], named: Iterable[str]) -> _Read:
    """Read the code of a network, and of the modules that it names or that torch's own hold."""
    opened = [*opened, *map(id, network.modules())]
    paths = {id(module): path for path, module in network.named_modules()}
    kinds: dict[_Kind, tuple[str, Reader]] = {}
    names, reached = {*named}, set[int]()
    found, left = [network], list[tuple[str, nn.Module]]()  # not yet named
    while found:
        for module in found:
            if id(module) in reached:
                continue
            reached.add(id(module))
            kind = _kind(module, paths[id(module)], seen)
            if kind not in kinds:
                kinds[kind] = _opened(kind, opened)
                names |= kinds[kind][1].reached - (_ANY if _of_torch(*kind) else frozenset())
            children = [(name, one) for name, one in module._modules.items() if one is not None]
            if home(kind[0].__module__) == "named":
                found += [one for _, one in children]  # which this goes on to
            else:
                left += children
        every = not names.isdisjoint(_ANY)
        found = [one for name, one in left if every or name in names]
        left = [] if every else [(name, one) for name, one in left if name not in names]
    return _Read(seen, kinds, frozenset(names), frozenset(reached))


def _opened(kind: _Kind, opened: Sequence[int]) -> tuple[str, Reader]:
    """Read the code of a kind of modules."""
    reader = Reader(named=True, opened=opened)
    forward = kind[0].forward if kind[1] is None else kind[1]
    plain = isinstance(forward, FunctionType)
    code = reader.function(forward, kind[0]) if plain else reader.token(forward)
    asked = kind[0].__getattr__ is not nn.Module.__getattr__
    if asked or not plain:  # not all that it reads may have been seen
        reader.reached.add(ANY)
    return short(code), reader


def _weights(network: nn.Module, of: Container[int]) -> dict[str, Any]:
    """Identify parameters, buffers and what else some modules save, such as packed weights."""
    reader, held = Reader(), dict[str, Any]()
    for path, module in network.named_modules(remove_duplicate=False):
        if id(module) not in of:
            continue
        start, kind = f"{path}." if path else "", type(module)
        for name, part in (*module._parameters.items(), *module._buffers.items()):
            if part is not None:
                held[start + name] = part
        packs = kind._save_to_state_dict is not nn.Module._save_to_state_dict
        if packs or kind.get_extra_state is not nn.Module.get_extra_state:
            extra: dict[str, Any] = {}
            module._save_to_state_dict(extra, start, False)
            held |= {name: part for name, part in extra.items() if name not in held}
    return {name: reader.token(part) for name, part in held.items()}


# Of every module: what torch keeps there, hooks among them.
_MACHINERY = frozenset((*vars(nn.Module()), "_compiled_call_impl", "forward"))


def _settings(network: nn.Module, read: _Read) -> tuple[dict[str, str], dict[str, str]]:
    """Digest the attributes that reach the numbers, and apart the others, that no code names."""
    settings, aside = dict[str, str](), dict[str, str]()
    for path, module in network.named_modules():
        kind, ran = type(module), id(module) in read.reached
        key = _kind(module, path, read.seen)
        reader = read.kinds[key][1] if key in read.kinds else Reader(named=True)
        tokens = {
            name: reader.token(value)
            for name, value in sorted(vars(module).items())
            if _kept(read, module, path, name, reader)
        }
        made = _made(kind)
        counted = [name for name in tokens if read.every() or name in read.names | made]
        counted = {name: tokens.pop(name) for name in counted}
        if not ran:
            weights = _weights(network, (id(module),))
            aside[path] = short(
                [kind.__qualname__, list(module._modules), counted, tokens, weights]
            )
            continue
        aside |= {f"{path}:{name}": short(token) for name, token in tokens.items()}
        if _of_torch(kind, None):
            children = list(module._modules)
            settings[path] = short([kind.__qualname__, children, counted])
        else:
            settings |= {f"{path}:{name}": short(token) for name, token in counted.items()}
    return settings, aside


def _kept(read: _Read, module: nn.Module, path: str, name: str, reader: Reader) -> bool:
    """Whether an attribute is more than state, and than a private or a text that no code names."""
    value = vars(module)[name]
    if name in _MACHINERY or reader.sets(name, value) or name in _written_by_hooks(module):
        return False
    if (f"{read.seen.inside}.{path}".strip("."), name) in read.seen.written:
        return False
    return name in read.names if name[0] == "_" or type(value) is str else True


def _made(kind: type) -> frozenset[str]:
    """Return the attributes that the classes of packages set when a module is made."""
    made: frozenset[str] = frozenset()
    for one in kind.__mro__:
        init = unwrap(vars(one).get("__init__", None))
        if isinstance(init, FunctionType) and home_of(init) != "own":
            made |= facts_of(init.__code__).stored
    return made


def _written_by_hooks(module: nn.Module) -> set[str]:
    stored: set[str] = set()
    for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values()):
        code = getattr(getattr(hook, "__func__", hook), "__code__", None)
        stored |= set() if code is None else facts_of(code).stored
    return stored


def _kind(module: nn.Module, path: str, seen: Watched) -> _Kind:
    """Return what modules with the same code share: their class, and a forward of their own."""
    kind, own = type(module), vars(module).get("forward")
    wraps = f"{seen.inside}.{path}".strip(".") in seen.through
    own = own.__wrapped__ if wraps else own  # pyright: ignore[reportOptionalMemberAccess]
    if wraps or getattr(own, "__self__", None) is module:
        own = getattr(own, "__func__", own)
    return kind, None if own is kind.forward else own


def _of_torch(kind: type, own: Any) -> bool:
    """Whether the name of a module's class says what it computes."""
    forward = kind.forward  # pyright: ignore[reportAttributeAccessIssue]
    torchs = kind.__module__.partition(".")[0] == "torch" and own is None
    return torchs and isinstance(forward, FunctionType) and home_of(forward) == "named"


def _codes(network: nn.Module, read: _Read) -> dict[str, str]:
    """Digest the code of each class, and of each forward of a module's own, with where it runs."""
    places: dict[str, tuple[str, list[Any]]] = {}
    for path, module in network.named_modules():
        kind, own = key = _kind(module, path, read.seen)
        if id(module) not in read.reached or _of_torch(kind, own):
            continue
        code, reader = read.kinds[key]
        name = f"{kind.__qualname__}.forward" + ("" if own is None else f" of its own at {path!r}")
        flag = module.training if "training" in reader.reached else None
        places.setdefault(code, (name, []))[1].append([path, flag])
    found: dict[str, str] = {}
    for code, (name, where) in places.items():
        name = name if name not in found else f"{name} at {where[0][0]!r}"
        found[name] = short([code, where])
    return found


def network_difference(
    run: Mapping[str, Any], now: Mapping[str, Any]
) -> tuple[str | None, str | None]:
    """Say where two networks differ, by their tokens, with ``behaviour`` where it is known.

    Parameters
    ----------
    run, now
        What `model_token` returned, then and now.

    Returns
    -------
    tuple
        What to refuse with, and what to note only. Other code is a note where the behaviour of both
        is known and agrees, and so is what stands aside; names of classes never matter.
    """
    found = ["weights of the network"] if run.get("weights") != now.get("weights") else []
    found += [_attribute(key) for key in _differing(run, now, "settings")]
    found += [
        f"a hook on module {key.rpartition(':')[0]!r}" for key in _differing(run, now, "hooks")
    ]
    found = _few(found)
    code, known = _other_code(run, now), "behaviour" in run and "behaviour" in now
    if known:
        alike = not found and not code
        found += behaviour_difference(run["behaviour"], now["behaviour"], alike=alike)
    if found:
        return "; ".join([*found, *([f"other code: {code}"] if code else [])]), None
    if code and not known:
        return f"the code of {code}", None
    other = [_attribute(key) for key in _differing(run, now, "aside")] if known else []
    other = [*([f"the code of {code}"] if code else []), *other]
    if not other:
        return None, None
    verb = "is" if len(other) == 1 else "are"
    samples = run["behaviour"]["samples"]
    return None, (
        f"{' and '.join(_few(other))} {verb} other than the run's; on {samples} samples it "
        "computes the same"
    )


def _few(names: list[str]) -> list[str]:
    return [*names[:4], f"{len(names) - 4} more"] if len(names) > 5 else names


def _differing(run: Mapping[str, Any], now: Mapping[str, Any], part: str) -> list[str]:
    mine, its = run.get(part) or {}, now.get(part) or {}
    return [key for key in sorted({*mine, *its}) if mine.get(key) != its.get(key)]


def _other_code(run: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Name the code that differs, whatever its classes are called."""
    mine, its = run.get("code") or {}, now.get("code") or {}
    if sorted(mine.values()) == sorted(its.values()):
        return ""
    both = {*mine.values()} & {*its.values()}
    names = [name for name, code in (its | mine).items() if code not in both]
    names += [name for name, code in its.items() if code not in both and name not in names]
    return ", ".join(names[:4])


def _attribute(key: str) -> str:
    path, _, name = key.partition(":")
    return f"attribute {name!r} of module {path!r}" if name else f"settings of module {path!r}"
