"""A private copy of a model that shares its storage, in which every call of a layer can be edited.

The user's model gets no hook, no graph and no change of mode. Each thread has a copy of its own.
"""

import copy
import threading
import weakref
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import CellType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm

from ifa.network.inputs import call
from ifa.network.outputs import first_tensor, replace_first_tensor
from ifa.network.standins import behind, in_front
from ifa.types import Inputs

# (call, tensor) -> the tensor to go on with. A call is a layer's name with a number: "relu#2".
Edit = Callable[[str, Tensor], Tensor]

# (name, forward, args, kwargs) -> what the module returns, with or without running its forward
Visit = Callable[[str, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


class Running:
    """What one forward pass of a replica does at its hooks."""

    def __init__(self) -> None:
        self.edit: Edit | None = None
        self.visit: Visit | None = None
        self.calls: Counter[str] = Counter()
        self.alone = True  # whether the tensor being edited is all that its layer returned


class Replica:
    """A copy of a model, with hooks of its own on some of its layers.

    Parameters
    ----------
    model
        The model to copy. Its tensors are aliases: no memory, in-place updates are seen.
    layers
        Names of the modules whose calls are edited; None for all.
    private
        Whether tensors that are no parameters are copied too, for a first run of a model that may
        write into them.
    watched
        Whether the forward of every module can be visited.
    where
        What an error names.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Iterable[str] | None = None,
        *,
        private: bool = False,
        watched: bool = False,
        where: str = "ifa.tap",
    ):
        self.module = _alias(model, private, where)
        self.known: dict[str, Any] = {}  # what was found out about it
        # shared with the hooks, which must not refer to the replica: a cycle would keep it alive
        self.running = Running()
        modules = dict(self.module.named_modules())
        for name in modules if layers is None else layers:
            if name not in modules:
                raise LookupError(
                    f"{where}: expected {type(model).__name__} to have {name!r} still, as when it "
                    "was traced, got a model without it. Make anew what was made of it then."
                )
            modules[name].register_forward_hook(_hook(self.running, name))
        for name, module in modules.items():
            # of the model itself there is nothing to visit
            if watched and name and not isinstance(module, torch.jit.ScriptModule):
                vars(module)["forward"] = _watched(self.running, name, module)

    def run(
        self,
        inputs: Inputs,
        edit: Edit,
        params: Mapping[str, Tensor] | None = None,
        visit: Visit | None = None,
    ) -> Any:
        """Return the model's raw output, each hooked call of a layer passing through `edit`."""
        running = self.running
        before = running.edit, running.visit, running.calls
        running.edit, running.visit, running.calls = edit, visit, Counter()
        try:
            return call(self.module, inputs, params)
        finally:
            running.edit, running.visit, running.calls = before


class Replicas(threading.local):
    """One up-to-date replica of a model for each thread.

    A replica sees in-place updates by itself. It is made anew when a parameter, buffer or module of
    the model was replaced by another. Everything else, training flags and plain attributes, is as
    it was at creation.
    """

    def __init__(
        self,
        model: "nn.Module | weakref.ref[nn.Module]",
        layers: Sequence[str],
        modes: Sequence[bool],
        watched: bool = False,
        where: str = "ifa.tap",
        prepare: Callable[[Replica], None] | None = None,
    ):
        # a local holds its arguments too, so that a reference must come weak
        self._model, self.weak = model, isinstance(model, weakref.ref)
        self.layers, self.modes = layers, modes
        self.watched, self.where, self.prepare = watched, where, prepare
        self.replica: Replica | None = None
        # what it was made from, held so that no object made later can have the same identity
        self.modules: list[nn.Module] = []
        self.tensors: list[Tensor] = []
        self.identities: list[Any] = []

    @property
    def model(self) -> nn.Module:
        """The model; where it is held weakly, whoever asks holds it."""
        return self._model() if self.weak else self._model  # pyright: ignore

    def __reduce__(self) -> Any:
        given = self.model, self.layers, self.modes, self.watched, self.where, self.prepare
        return Replicas, given

    def get(self) -> Replica:
        """Return this thread's replica of the model as it is now."""
        # where it is held weakly, whoever keeps it looks for changes: see `ifa.taps.memory`
        if self.replica is None or (not self.weak and self._identities() != self.identities):
            self.replica = None  # an error below must not leave an old one behind
            if not self.weak:
                self.modules = list(self.model.modules())
                self.tensors = [*self.model.parameters(), *self.model.buffers()]
                self.identities = self._identities()
            self.replica = self._made()
        return self.replica

    def _made(self) -> Replica:
        replica = Replica(self.model, self.layers, watched=self.watched, where=self.where)
        modules = list(replica.module.modules())
        if len(modules) == len(self.modes):  # otherwise it was rebuilt, and they say nothing
            for module, mode in zip(modules, self.modes, strict=True):
                module.training = mode
        refuse_random_or_coupled(replica.module, self.where)
        if self.prepare is not None:
            self.prepare(replica)
        return replica

    def _identities(self) -> list[Any]:
        found = _identities(self.modules)
        if self.prepare is not None:  # it may have made constants of what it saw
            found += [tensor._version for tensor in self.tensors]
        return found


def replicas(
    model: nn.Module,
    addresses: Sequence[str],
    *,
    watched: bool = False,
    where: str = "ifa.tap",
    prepare: Callable[[Replica], None] | None = None,
    weak: bool = False,
) -> Replicas:
    """Make replicas of a model as it is now, with hooks where the addressed calls happen."""
    layers = tuple(dict.fromkeys(address.split("#")[0] for address in addresses))
    modes = [module.training for module in model.modules()]
    held = weakref.ref(model) if weak else model
    return Replicas(held, layers, modes, watched, where, prepare)


def plain(model: nn.Module) -> nn.Module:
    """Return the plain module inside a compiled one, and any other as it is."""
    return getattr(model, "_orig_mod", model)


def device_of(model: nn.Module) -> torch.device:
    """Return where a model's parameters are; the CPU if it has none."""
    tensor = next(iter((*model.parameters(), *model.buffers())), None)
    return torch.device("cpu") if tensor is None else tensor.device


def named_tensors(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor in nested containers, with the nearest key above it."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from named_tensors(part, str(key))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from named_tensors(part, name)


def check_module(where: str, model: Any) -> None:
    """Raise unless a model is a module whose layers can be seen."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"{where}: expected a torch.nn.Module, got {type(model).__name__}.")
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise TypeError(
                f"{where}: expected a torch.nn.Module of Python code, got one compiled by "
                f"torch.jit{f' at {name!r}' if name else ''}, whose layers cannot be observed. "
                "Give the module that it was made of, with the same weights."
            )


def refuse_random_or_coupled(model: nn.Module, where: str) -> None:
    """Raise where a layer would draw random numbers, update itself or let samples interact."""
    for name, module in model.named_modules():
        kind = type(module).__name__
        alone = isinstance(module, _InstanceNorm) and not module.track_running_stats
        norm = isinstance(module, _NormBase) and not alone
        drops = isinstance(module, _DropoutNd) and module.p > 0
        drops |= isinstance(module, nn.RNNBase | nn.MultiheadAttention) and module.dropout > 0
        if module.training and (drops or norm):
            raise ValueError(
                f"{where}: expected a model in evaluation mode, got {name!r} ({kind}) in training "
                "mode, where samples are random or depend on each other. Call model.eval() first."
            )
        if norm and module.running_mean is None:
            raise ValueError(
                f"{where}: expected layers that treat each sample alone, got {name!r} ({kind}) "
                "without running statistics: it normalizes with the statistics of the batch. "
                "Build it with track_running_stats=True."
            )


def _hook(running: Running, name: str) -> Callable[..., Any]:
    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        if running.edit is None:
            return None
        running.calls[name] += 1
        tensor = first_tensor(output)
        if tensor is None:
            return None
        running.alone = tensor is output
        seen = behind(tensor)
        edited = running.edit(f"{name}#{running.calls[name]}", seen)
        return None if edited is seen else replace_first_tensor(output, in_front(edited, tensor))

    return hook


def _watched(running: Running, name: str, module: nn.Module) -> Callable[..., Any]:
    own = vars(module).get("forward")  # a module compiled or wrapped by itself has one of its own
    # weakly, because a cycle would keep the replica's memory until it is collected
    kind, alive = type(module), weakref.ref(module)

    def forward(*args: Any, **kwargs: Any) -> Any:
        run = own or partial(kind.forward, alive())
        if running.visit is None:
            return run(*args, **kwargs)
        return running.visit(name, run, args, kwargs)

    return forward


def _alias(model: nn.Module, private: bool, where: str) -> nn.Module:
    memo: dict[int, Any] = {}
    for module in model.modules():
        # tensors in plain attributes too, and what recorded them: deepcopy would refuse those that
        # were computed, such as the weight of an old-style weight norm
        hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
        owners = [getattr(getattr(hook, "func", hook), "__self__", hook) for hook in hooks]
        places = [vars(owner) for owner in (module, *owners) if hasattr(owner, "__dict__")]
        for _, tensor in named_tensors(places):
            alias = tensor.detach()
            if isinstance(tensor, nn.Parameter):
                memo[id(tensor)] = nn.Parameter(alias, requires_grad=False)
            else:
                memo[id(tensor)] = alias.clone() if private else alias
        # backward hooks are refused by torch.func; forward hooks may be part of the model
        memo[id(module._backward_hooks)] = OrderedDict()
        memo[id(module._backward_pre_hooks)] = OrderedDict()
    try:
        alias = copy.deepcopy(model, memo)
    except Exception as error:
        raise TypeError(
            f"{where}: expected a model that copy.deepcopy can copy, got {type(model).__name__}, "
            f"where it fails: {error} Remove the attribute or hook that cannot be copied."
        ) from error
    for module in alias.modules():
        own = vars(module).get("forward")
        if isinstance(own, FunctionType):  # a copy shares it, and with it the modules it calls
            vars(module)["forward"] = _rebound(own, memo)
    return alias


def _rebound(value: Any, memo: dict[int, Any]) -> Any:
    """Take a function, with what it has bound or finds in its script, to the copies of modules."""
    if isinstance(value, nn.Module):
        return memo.get(id(value), value)
    if isinstance(value, MethodType):
        return MethodType(value.__func__, _rebound(value.__self__, memo))
    if not isinstance(value, FunctionType) or id(value) in memo:
        return memo.get(id(value), value)
    named = {name: value.__globals__.get(name) for name in value.__code__.co_names}
    others = {
        name: _rebound(found, memo)
        for name, found in named.items()
        if isinstance(getattr(found, "__self__", found), nn.Module)
    }
    found = {**value.__globals__, **others} if others else value.__globals__
    held = value.__closure__ or ()
    cells = tuple(CellType() for _ in held)
    made = FunctionType(value.__code__, found, value.__name__, value.__defaults__, cells)
    memo[id(value)] = made  # before what it holds, which may be itself
    for cell, other in zip(cells, held, strict=True):
        cell.cell_contents = _rebound(other.cell_contents, memo)
    made.__kwdefaults__ = value.__kwdefaults__
    vars(made).update(vars(value))
    return made


def _identities(modules: Sequence[nn.Module]) -> list[Any]:
    """List what changes where a tensor or module of a model is replaced; read on every call."""
    found: list[Any] = []
    for module in modules:
        found.extend(map(id, module._modules.values()))
        for tensors in (module._parameters, module._buffers):
            for tensor in tensors.values():
                if tensor is not None:
                    found += id(tensor), tensor.data_ptr(), tensor.shape, tensor.stride()
    return found
