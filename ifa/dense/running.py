"""The function mode beside which a network runs on a finer grid."""

import sys
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ifa.dense.calls import Call, Options, called
from ifa.dense.densities import check_graph, density_of, forget, handed_out, taken_in
from ifa.dense.rules import rule_of
from ifa.dense.sliding import STRIDED
from ifa.network.outputs import every_tensor
from ifa.network.standins import behind, in_front


class Running(TorchFunctionMode):
    """Runs every operation of a network, and beside it that on the finer grid.

    Parameters
    ----------
    options
        What the network is run with.
    """

    def __init__(self, options: Options):
        super().__init__()
        self.options = options
        # operations after which it is not finer any more, with the modules that they ran in
        self.ended: list[tuple[str, nn.Module | None]] = []
        self._pooled: list[tuple[str, nn.Module | None]] = []  # to one position, perhaps for a gate

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if getattr(func, "__self__", None) is Tensor.data:
            forget(args[0])  # what writes to it by this name is not seen
        if name in _QUIET:
            return func(*args, **kwargs)
        if func is behind:
            return handed_out(*args)
        if func is in_front:
            return taken_in(*args)
        call = called(func, args, kwargs)  # before it may write to its arguments
        if call.known and self.options.pool == "dense":
            for one in every_tensor((list(args), kwargs)):
                check_graph(one, f"{name}()")
        found = func(*args, **kwargs)
        rule = rule_of(name) if call.known or name in STRIDED else None
        if rule is not None:
            found = rule(self.options, call, found)
        if call.known:
            self._note(name, call, found)
        return found

    def _note(self, name: str, call: Call, found: Any) -> None:
        """Note it if this ended the density."""
        finer = any(one.finer is not None for one in call.known.values())
        results = list(every_tensor(found)) if finer else ()
        if not results:
            return
        known = map(density_of, results)
        if any(one is not None and one.finer is not None for one in known):
            self._pooled.clear()  # they went on into what is finer still
            return
        # (sample, channel, *space), all of whose positions are one now
        pooled = all(max(one.shape[2:], default=1) == 1 for one in results)
        (self._pooled if pooled else self.ended).append((name, _module()))

    def told(self, network: nn.Module) -> tuple[str, ...]:
        """Write what ended the density where."""
        ended = self.ended + self._pooled
        paths = {module: name for name, module in network.named_modules()} if ended else {}
        told = [
            name + (f" in {paths[module]!r}" if module is not None and paths.get(module) else "")
            for name, module in ended
        ]
        return tuple(dict.fromkeys(told))


# properties, and what tells something about a tensor
_QUIET = frozenset(
    ["__get__", "__len__", "dim", "size", "numel", "stride", "is_contiguous", "is_floating_point"]
)


def _module() -> nn.Module | None:
    """Return the module whose code runs, from the stack."""
    frame = sys._getframe(3)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, nn.Module):
            return owner
        frame = frame.f_back
    return None


class Ends:
    """What ended the density where, in the last run; copies of a network share it."""

    def __deepcopy__(self, memo: Any) -> "Ends":
        return self

    def read(self) -> tuple[str, ...] | None:
        """Return it in words; None before a run."""
        return _SEEN.get(self)

    def write(self, told: tuple[str, ...]) -> None:
        """Note what a run saw."""
        _SEEN[self] = told


# apart from the network, of which a run must not change anything
_SEEN: WeakKeyDictionary[Ends, tuple[str, ...]] = WeakKeyDictionary()
