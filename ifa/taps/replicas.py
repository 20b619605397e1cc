"""A private copy of a model that shares its storage, in which every call of a layer can be edited.

The user's model gets no hook, no graph and no change of mode. Each thread has a copy of its own.
"""

import copy
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from ifa.taps.outputs import first_tensor, replace_first_tensor

# (call, tensor) -> the tensor to go on with. A call is a layer's name with a number: "relu#2".
Edit = Callable[[str, Tensor], Tensor]


class Replica:
    """A copy of a model, with hooks of its own on some of its layers.

    Parameters
    ----------
    model
        The model to copy. Parameters and buffers are aliases: no memory, in-place updates are seen.
    layers
        Names of the modules whose calls are edited; None for all.
    private_buffers
        Whether buffers are copied too, for a first run of a model that may write into them.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Iterable[str] | None = None,
        *,
        private_buffers: bool = False,
    ):
        self.module = _alias(model, private_buffers)
        self.edit: Edit | None = None
        self.calls: Counter[str] = Counter()
        modules = dict(self.module.named_modules())
        for name in modules if layers is None else layers:
            modules[name].register_forward_hook(self._hook(name))

    def _hook(self, name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            if self.edit is None:
                return None
            self.calls[name] += 1
            tensor = first_tensor(output)
            if tensor is None:
                return None
            edited = self.edit(f"{name}#{self.calls[name]}", tensor)
            return None if edited is tensor else replace_first_tensor(output, edited)

        return hook

    def run(self, inputs: Tensor, edit: Edit, params: Mapping[str, Tensor] | None = None) -> Any:
        """Return the model's raw output, each hooked call of a layer passing through `edit`."""
        before = self.edit, self.calls
        self.edit, self.calls = edit, Counter()
        try:
            if params is None:
                return self.module(inputs)
            return functional_call(self.module, dict(params), (inputs,))
        finally:
            self.edit, self.calls = before


class Replicas(threading.local):
    """One up-to-date replica of a model for each thread.

    A replica sees in-place updates by itself. It is made anew when a parameter, buffer or module of
    the model was replaced by another object. Training flags are those of the moment of creation.
    """

    def __init__(self, model: nn.Module, layers: Sequence[str], modes: Sequence[bool]):
        self.model, self.layers, self.modes = model, layers, modes
        self.replica: Replica | None = None
        self.made_from: tuple[int, ...] = ()

    def __reduce__(self) -> Any:
        return Replicas, (self.model, self.layers, self.modes)

    def get(self) -> Replica:
        """Return this thread's replica of the model as it is now."""
        made_from = _storage(self.model)
        if self.replica is None or made_from != self.made_from:
            self.replica, self.made_from = Replica(self.model, self.layers), made_from
            modules = list(self.replica.module.modules())
            if len(modules) == len(self.modes):
                for module, mode in zip(modules, self.modes, strict=True):
                    module.training = mode
            else:  # the model was rebuilt: what held at creation says nothing about it
                refuse_random_or_coupled(self.model, "ifa.tap")
        return self.replica


def replicas(model: nn.Module, addresses: Sequence[str]) -> Replicas:
    """Make replicas of a model as it is now, with hooks where the addressed calls happen."""
    layers = tuple(dict.fromkeys(address.split("#")[0] for address in addresses))
    return Replicas(model, layers, [module.training for module in model.modules()])


def refuse_random_or_coupled(model: nn.Module, where: str) -> None:
    """Raise where a layer would draw random numbers, update itself or let samples interact."""
    for name, module in model.named_modules():
        kind = type(module).__name__
        drops = "dropout" in kind.lower() or "droppath" in kind.lower().replace("_", "")
        rate = getattr(module, "p", getattr(module, "drop_prob", getattr(module, "dropout", None)))
        random = (drops or isinstance(module, _DropoutNd | nn.RReLU)) and rate != 0
        if isinstance(module, nn.MultiheadAttention | nn.RNNBase):
            random = bool(module.dropout)
        norm = isinstance(module, _NormBase)
        if module.training and (random or norm):
            raise ValueError(
                f"{where}: expected a model in evaluation mode, got {name!r} ({kind}) in training "
                "mode, where samples are random or depend on each other. Call model.eval() first."
            )
        if norm and module.running_mean is None and "Instance" not in kind:
            raise ValueError(
                f"{where}: expected layers that treat each sample alone, got {name!r} ({kind}) "
                "without running statistics: it normalizes with the statistics of the batch. "
                "Build it with track_running_stats=True."
            )


def _alias(model: nn.Module, private_buffers: bool) -> nn.Module:
    memo: dict[int, Any] = {}
    for module in model.modules():
        for value in vars(module).values():
            # an old-style weight norm keeps a computed tensor, which deepcopy would refuse
            if isinstance(value, Tensor):
                memo[id(value)] = value.detach()
    for buffer in model.buffers():
        memo[id(buffer)] = buffer.detach().clone() if private_buffers else buffer.detach()
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
    replica = copy.deepcopy(model, memo)
    for module in replica.modules():
        # old-style backward hooks are refused by torch.func; forward hooks may be part of the model
        module._backward_hooks.clear()
        module._backward_pre_hooks.clear()
    return replica


def _storage(model: nn.Module) -> tuple[int, ...]:
    tensors = [tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())]
    return (*tensors, *map(id, model.modules()))
