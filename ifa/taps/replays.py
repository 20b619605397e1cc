"""Run a network again without what lies below a layer: modules there return what they returned.

A pass is remembered as the calls of modules that ended before the layer was reached, the outermost
only. On the next pass for the same inputs these calls do not run. A call is not remembered, and
runs again with what is inside it remembered, where skipping would lose something: it writes to
its arguments, returns one of them, or returns objects that are not data.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import torch
from torch import Tensor
from torch.func import debug_unwrap

from ifa.network.outputs import every_tensor, is_data, map_tensors
from ifa.network.replicas import Running


class _Again(Enum):
    """What stands for an output that was not kept; the same one when it is read back."""

    RUNS = 1


_RUNS_AGAIN: Any = _Again.RUNS


class Differs(Exception):
    """A pass did not call the modules that were called when it was remembered."""


@dataclass(frozen=True)
class Call:
    """One call of a module before the layer's, and what it returned."""

    name: str
    output: Any = _RUNS_AGAIN
    versions: tuple[int, ...] = ()  # of the tensors in it, when the call ended

    @property
    def skipped(self) -> bool:
        return self.output is not _RUNS_AGAIN

    def unchanged(self) -> bool:
        """Tell whether nothing wrote to the output since the call ended."""
        return not self.skipped or self.versions == _versions(every_tensor(self.output))


@dataclass
class Script:
    """The calls of one pass before the layer's. Made by a pass with `visit` and `reach`."""

    copied: frozenset[int] = frozenset()  # places of outputs that are written to later
    calls: list[Call] = field(default_factory=list)
    layer: int | None = None  # place of the layer's own call
    _ended: int | None = None  # place of the call that ended last

    def visit(self, name: str, forward: Any, args: Any, kwargs: Any) -> Any:
        """Run a module, and remember what it returns if it ends before the layer."""
        if self.layer is not None:
            return forward(*args, **kwargs)
        place = len(self.calls)
        self.calls.append(Call(name))
        given = list(every_tensor((args, kwargs)))
        before = _versions(given)
        output = forward(*args, **kwargs)
        if self.layer is not None:  # it contains the layer
            return output
        self._ended = place
        if is_data(output) and before == _versions(given) and not _shared(given, output):
            del self.calls[place + 1 :]
            kept = map_tensors(output, Tensor.clone if place in self.copied else _same)
            self.calls[place] = Call(name, kept, _versions(every_tensor(kept)))
        return output

    def reach(self) -> None:
        """Note that the call that ended last is the layer's."""
        if self._ended is None:
            raise Differs
        self.layer = self._ended

    def written(self) -> frozenset[int]:
        """Return the places of outputs that were written to after the call had ended."""
        changed = (place for place, call in enumerate(self.calls) if not call.unchanged())
        return frozenset(changed) - {self.layer}

    @property
    def skips(self) -> int:
        """How many calls are not run again, the layer's own left out."""
        return sum(call.skipped for call in self.calls) - self._skips_layer

    @property
    def _skips_layer(self) -> bool:
        return self.layer is not None and self.calls[self.layer].skipped


class Replay:
    """One pass by a script."""

    def __init__(
        self, script: Script, running: Running, call: str, own: Callable[[Tensor], Tensor]
    ):
        self._script, self._running, self._own = script, running, own
        self._number = int(call.rpartition("#")[2])
        self._place = 0
        self._reached = False

    def visit(self, name: str, forward: Any, args: Any, kwargs: Any) -> Any:
        """Return what the module returned, if it is one that ended before the layer."""
        if self._reached:
            return forward(*args, **kwargs)
        place, calls = self._place, self._script.calls
        if place == len(calls) or calls[place].name != name:
            raise Differs
        self._place += 1
        if place == self._script.layer:
            # calls inside what is skipped were not counted
            self._running.calls[name] = self._number - 1
        if not calls[place].skipped:
            return forward(*args, **kwargs)
        return map_tensors(
            calls[place].output, self._own if place in self._script.copied else _same
        )

    def reach(self) -> None:
        """Note that the layer has run."""
        self._reached = True

    def finish(self) -> None:
        """Raise if the pass was another, or wrote to what must be remembered."""
        if not self._reached or self._place != len(self._script.calls) or self._script.written():
            raise Differs


def own_copy(tensor: Tensor, mapped_like: Tensor | None = None) -> Tensor:
    """Copy a tensor; mapped by `vmap` as the other is, so that that can be added to it in place."""
    if mapped_like is None:
        return tensor.clone()
    return torch.where(mapped_like.flatten()[0].isnan(), tensor, tensor)


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _versions(tensors: Iterable[Tensor]) -> tuple[int, ...]:
    return tuple(tensor._version for tensor in tensors)


def _shared(given: Iterable[Tensor], output: Any) -> bool:
    stores = set(map(_storage, given))
    return any(_storage(tensor) in stores for tensor in every_tensor(output))


def _storage(tensor: Tensor) -> int:
    inner = debug_unwrap(tensor)
    return inner.untyped_storage()._cdata if inner.layout == torch.strided else id(inner)
