"""What a network's hooks and wrappers do, seen in one run of a private copy."""

from collections.abc import Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ifa.network.inputs import call, clone
from ifa.network.outputs import every_tensor, map_tensors
from ifa.network.replicas import Replica
from ifa.network.tokens import Reader, bytes_of
from ifa.types import Inputs

# A hook: path of its module, "forward" or "pre", and its key there.
Place = tuple[str, str, int]


class Watched(NamedTuple):
    """What a run showed, or what is assumed without one."""

    acting: frozenset[Place] = frozenset()  # hooks that change what flows
    through: frozenset[str] = frozenset()  # modules whose own forward is what it wraps
    written: frozenset[tuple[str, str]] = frozenset()  # attributes that the run set anew
    inside: str = ""  # path of the network in a wrapper that hands everything through
    hooks: Mapping[Place, Any] = MappingProxyType({})  # tokens, without what the run changed


def watch(model: nn.Module, example: Inputs | None) -> Watched:
    """See whether hooks act, own forwards wrap, and the network is one inside a wrapper.

    A hook only looks if it returns None and leaves the tensors that it is given as they are. There
    is no run of a network without hooks, wrappers and forwards of its own; without an example they
    all count.
    """
    hooks = frozenset(place for place, *_ in _hooks(model))
    own, wrappers = _own(model), _wrappers(model)
    if not hooks and not own and not wrappers:
        return Watched()
    if example is None:
        return Watched(acting=hooks)
    copy = Replica(model, (), private=True).module
    acting: set[Place] = set()
    found = list(_hooks(copy))
    told = {place: Reader(steady=True).token(hook) for place, _, hook in found}
    for place, held, hook in found:
        held[place[2]] = partial(_looked, hook, place, acting)
    differing: set[str] = set()
    for path in own:
        module = copy.get_submodule(path)
        vars(module)["forward"] = partial(_compared, vars(module)["forward"], path, differing)
    handed = [
        _Handed(copy.get_submodule(outer), copy.get_submodule(inner)) for outer, inner in wrappers
    ]
    before = _attributes(copy)
    with torch.no_grad():
        call(copy, clone(example))
    after = _attributes(copy)
    told = {place: _kept(told[place], Reader(steady=True).token(hook)) for place, _, hook in found}
    written = {key for key in after if key not in before or before[key] is not after[key]}
    inside = ""
    for (outer, inner), seen in zip(wrappers, handed, strict=True):
        if not seen.same or any(path == outer for path, *_ in acting) or outer in own:
            break
        inside = inner
    through = frozenset(own) - differing
    return Watched(frozenset(acting), through, frozenset(written), inside, told)


_STATE = "state"


def _kept(before: Any, after: Any) -> Any:
    """Return what two tokens have in common: what a hook counts or keeps is state."""
    if isinstance(before, dict) and isinstance(after, dict):
        kept = {key: _kept(before[key], after[key]) for key in before if key in after}
        return {key: part for key, part in kept.items() if part is not _STATE}
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [_kept(*pair) for pair in zip(before, after, strict=True)]
    return before if before == after else _STATE


def _hooks(model: nn.Module) -> Iterator[tuple[Place, Any, Any]]:
    """Yield every forward hook with its place and what holds it."""
    for path, module in model.named_modules():
        for kind, held in (("forward", module._forward_hooks), ("pre", module._forward_pre_hooks)):
            for key, hook in held.items():
                yield (path, kind, key), held, hook


def hooks_at(model: nn.Module, places: frozenset[Place]) -> dict[Place, Any]:
    """Return the hooks at some places, in the order in which they run."""
    return {place: hook for place, _, hook in _hooks(model) if place in places}


def _own(model: nn.Module) -> list[str]:
    """List modules with a forward of their own that says what it wraps."""
    named = model.named_modules()
    return [path for path, one in named if hasattr(vars(one).get("forward"), "__wrapped__")]


def _wrappers(model: nn.Module) -> list[tuple[str, str]]:
    """List the paths of modules that hold nothing but one network, and of these, from the root."""
    found = []
    path, module = "", model
    while len(module._modules) == 1 and not module._parameters and not module._buffers:
        ((name, inner),) = module._modules.items()
        tensors = any(isinstance(one, Tensor) for one in vars(module).values())
        if tensors or inner is None or not inner._modules:
            break
        below = f"{path}.{name}".lstrip(".")
        found.append((path, below))
        path, module = below, inner
    return found


def _attributes(model: nn.Module) -> dict[tuple[str, str], Any]:
    named = model.named_modules()
    return {(path, name): one for path, module in named for name, one in vars(module).items()}


def _looked(hook: Any, place: Place, acting: set[Place], *given: Any) -> Any:
    """Run a hook, and note it if it returns something or writes to what it is given."""
    before = _Held(given[1:])
    result = hook(*given)
    if result is not None or not before.same(given[1:]):
        acting.add(place)
    return result


def _compared(forward: Any, path: str, differing: set[str], *args: Any, **kwargs: Any) -> Any:
    """Run a forward that wraps another, and note where that one gives something else."""
    copies = map_tensors((args, kwargs), Tensor.clone)
    result = forward(*args, **kwargs)
    wrapped = forward.__wrapped__(*copies[0], **copies[1])
    if not _Held(result).alike(wrapped) or not _Held((args, kwargs)).alike(copies):
        differing.add(path)
    return result


class _Held:
    """The tensors in some containers as they are now."""

    def __init__(self, parts: Any):
        self.tensors = list(every_tensor(parts))
        self.bytes = [_written(one) for one in self.tensors]

    def alike(self, parts: Any) -> bool:
        """Whether others hold the same values."""
        return self.bytes == [_written(one) for one in every_tensor(parts)]

    def same(self, parts: Any) -> bool:
        """Whether others are the very same, and hold what they held."""
        others = list(every_tensor(parts))
        one_by_one = zip(others, self.tensors, strict=False)
        return all(a is b for a, b in one_by_one) and self.alike(parts)


def _written(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.dtype, tuple(tensor.shape), bytes_of(tensor)


class _Handed:
    """Whether a wrapper hands the very same objects to what is inside, once, and back."""

    def __init__(self, outer: nn.Module, inner: nn.Module):
        self.calls, self.same = 0, False
        self._given: Any = None
        self._returned: Any = None
        self._modes = _modes()
        self._held = self._back = _Held(())
        outer.register_forward_pre_hook(self._enter, with_kwargs=True)
        inner.register_forward_pre_hook(self._inner, with_kwargs=True, prepend=True)
        inner.register_forward_hook(self._leave)
        outer.register_forward_hook(self._end, prepend=True)

    def _enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self._given = [*args, *kwargs.values()]
        self._held = _Held(self._given)
        self._modes = _modes()

    def _inner(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        given = [*args, *kwargs.values()]
        one_by_one = len(given) == len(self._given)
        one_by_one &= all(a is b for a, b in zip(given, self._given, strict=False))
        self.calls += 1
        # what runs the network under a mode of its own, as `ifa.dense` does, changes it
        alone = one_by_one and self._modes == _modes()
        self.same = self.calls == 1 and alone and self._held.same(given)

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self._returned, self._back = output, _Held(output)

    def _end(self, module: nn.Module, args: Any, output: Any) -> None:
        self.same &= output is self._returned and self._back.same(output)


def _modes() -> tuple[Any, ...]:
    """Return how many modes of torch are at work here, and whether it casts by itself."""
    functions, dispatches = (
        torch._C._len_torch_function_stack(),
        torch._C._len_torch_dispatch_stack(),
    )
    return (
        functions,
        dispatches,
        torch.is_autocast_enabled("cpu"),
        torch.is_autocast_enabled("cuda"),
    )
