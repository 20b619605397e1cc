"""Who a network is: what it is made of, what its maps are made of, and where two differ."""

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import FunctionType
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from ifa.chains import describe
from ifa.network.behaviour import behaviour_difference
from ifa.network.codes import facts_of, home_of
from ifa.network.replicas import plain
from ifa.network.snapshots import snapshot
from ifa.network.tokens import Reader, callable_token, digest_of, short
from ifa.network.watching import Watched, hooks_at, watch
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
        score=written(score),
        grid=written(grid),
        output=written(output),
        names=(network["class"].rpartition(".")[2], describe(weight), describe(score)),
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
    state = None if held is None else (held, _codes(model, Watched(), {}, ()))
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
        (``"path:attribute"``): the public ones, and the private ones that code names. Attributes
        that code sets are state, and count as little as training flags. ``code``, a digest for each
        class that is not torch's: its forward and all that this reaches. ``hooks``, a digest for
        each module with forward hooks that change what flows.
    """
    model = plain(model)
    seen = watch(model, example)
    network = model.get_submodule(seen.inside)
    hooks = {}
    for (path, kind), held in hooks_at(model, seen.acting).items():
        path = path.removeprefix(seen.inside).lstrip(".")
        hooks[f"{path}:{kind}"] = short(Reader().each(held))
    return {
        "class": f"{type(network).__module__}.{type(network).__qualname__}",
        "inside": seen.inside,
        **parts_of(network, seen),
        "hooks": hooks,
    }


def parts_of(
    network: nn.Module, seen: Watched | None = None, opened: Sequence[int] = ()
) -> dict[str, Any]:
    """Identify what a network holds and the code of its modules, whatever its hooks.

    `opened` are the identities of what is being read: a network may be named in its own code.
    """
    seen, readers = seen or Watched(), {}
    code = _codes(network, seen, readers, opened)
    return {
        "weights": _weights(network),
        "settings": _settings(network, seen, readers),
        "code": code,
    }


def _weights(network: nn.Module) -> str:
    """Digest parameters, buffers and what else a state dictionary has, such as packed weights."""
    reader = Reader()
    held: dict[str, Any] = dict(network.named_parameters(remove_duplicate=False))
    held |= dict(network.named_buffers(remove_duplicate=False))
    for path, module in network.named_modules():
        kind = type(module)
        packs = kind._save_to_state_dict is not nn.Module._save_to_state_dict
        if packs or kind.get_extra_state is not nn.Module.get_extra_state:
            extra: dict[str, Any] = {}
            module._save_to_state_dict(extra, f"{path}." if path else "", False)
            held |= {name: part for name, part in extra.items() if name not in held}
    return digest_of({name: reader.token(part) for name, part in held.items()})


# Of every module: what torch keeps there, hooks among them.
_MACHINERY = frozenset((*vars(nn.Module()), "_compiled_call_impl", "forward"))


def _settings(
    network: nn.Module, seen: Watched, readers: Mapping[Any, tuple[Any, Reader]]
) -> dict[str, str]:
    settings = {}
    for path, module in network.named_modules():
        reader = readers[_kind(module, path, seen)][1]
        stored = reader.stored | _written_by_hooks(module)
        place = f"{seen.inside}.{path}".strip(".")
        counted = {
            name: reader.token(value)
            for name, value in sorted(vars(module).items())
            if name not in _MACHINERY | stored
            and (place, name) not in seen.written
            and (name in reader.reached if name[0] == "_" or type(value) is str else True)
        }
        if _of_torch(type(module), None):
            children = list(module._modules)
            settings[path] = short([type(module).__qualname__, children, counted])
        else:
            settings |= {f"{path}:{name}": short(token) for name, token in counted.items()}
    return settings


def _written_by_hooks(module: nn.Module) -> set[str]:
    stored: set[str] = set()
    for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values()):
        code = getattr(getattr(hook, "__func__", hook), "__code__", None)
        stored |= set() if code is None else facts_of(code).stored
    return stored


def _kind(module: nn.Module, path: str, seen: Watched) -> tuple[type, Any]:
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


def _codes(
    network: nn.Module, seen: Watched, readers: dict[Any, tuple[Any, Reader]], opened: Sequence[int]
) -> dict[str, str]:
    """Digest the code of each class, and of each forward of a module's own, with where it runs."""
    opened = [*opened, *map(id, network.modules())]
    places: dict[str, tuple[str, list[Any]]] = {}
    for path, module in network.named_modules():
        kind, own = key = _kind(module, path, seen)
        if key not in readers:
            reader = Reader(named=True, opened=opened)
            forward = kind.forward if own is None else own
            plain = isinstance(forward, FunctionType)
            code = reader.function(forward, kind) if plain else reader.token(forward)
            readers[key] = short(code), reader
        if _of_torch(kind, own):
            continue
        code, reader = readers[key]
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
        is known and agrees; names of classes never matter.
    """
    found = ["weights of the network"] if run.get("weights") != now.get("weights") else []
    found += [_attribute(key) for key in _differing(run, now, "settings")]
    found += [
        f"a hook on module {key.rpartition(':')[0]!r}" for key in _differing(run, now, "hooks")
    ]
    found = [*found[:4], f"{len(found) - 4} more"] if len(found) > 5 else found
    known = "behaviour" in run and "behaviour" in now
    found += behaviour_difference(run["behaviour"], now["behaviour"]) if known else []
    code = _other_code(run, now)
    if found:
        return "; ".join([*found, *([f"other code: {code}"] if code else [])]), None
    if code and not known:
        return f"the code of {code}", None
    samples = run["behaviour"]["samples"] if code else 0
    note = f"the code of {code} is other than the run's; on {samples} samples it computes the same"
    return None, note if code else None


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
