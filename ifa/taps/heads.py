"""What lies above a layer, as a function of the layer's output."""

import threading
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import vmap

from ifa.network.inputs import (
    check_inputs,
    clone,
    count,
    grid_place,
    joined,
    shapes_of,
    take,
)
from ifa.network.outputs import every_tensor, map_tensors, pick
from ifa.network.replicas import Replica, Replicas, Visit, plain, replicas
from ifa.network.sites import address, examine
from ifa.taps.defaults import choose
from ifa.taps.replays import Differs, Replay, Script, own_copy
from ifa.types import Inputs, Layer, Output


class Head:
    """``head(activations) -> outputs`` for given inputs. Build it with `cut`."""

    def __init__(self, cut: "Cut", inputs: Inputs, shape: tuple[int, ...], script: Script):
        self._cut, self._inputs, self._shape, self._script = cut, inputs, shape, script
        self._why = cut.why
        # looking for one that is up to date would cost as much as a small network
        self._copy, self._thread = cut.copy(), threading.get_ident()

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_copy": None, "_thread": None}  # hooks do not pickle

    def __repr__(self) -> str:
        where = f"head above {self._cut.layer!r}"
        if self._why:
            return f"{where}, by running the whole network with its output replaced: {self._why}"
        skips = self._script.skips
        calls = (
            "1 call below it returns what it"
            if skips == 1
            else f"{skips} calls below it return what they"
        )
        return f"{where}, by replay: {calls} returned"

    def __call__(self, activations: Tensor) -> Any:
        """Return the model's outputs with the layer's output replaced by `activations`."""
        if tuple(activations.shape) != self._shape:
            raise ValueError(
                f"ifa.cut: expected activations {self._shape} of layer {self._cut.layer!r}, for "
                f"the {count(self._inputs)} inputs the cut was called with, got "
                f"{tuple(activations.shape)}. For many variants of the activations map the head "
                "over them: torch.func.vmap(head)(variants)."
            )
        copy = self._copy if threading.get_ident() == self._thread else self._cut.copy()
        if not self._why:
            try:
                return self._cut.replay(copy, self._inputs, self._script, activations)
            except Differs:
                self._why = "it did not run alike twice for the same inputs"
        return self._cut.override(copy, self._inputs, activations)


class Seen(NamedTuple):
    """What one pass of a batch saw."""

    inputs: Inputs
    activations: Tensor  # of the layer
    output: Any  # what `output=` picked
    script: Script


class Cut:
    """``inputs -> (activations, head)``. Build it with `cut`."""

    def __init__(
        self,
        model: nn.Module,
        layer: Layer | None,
        example: Inputs,
        output: Output,
        grid_of: str | int | None = None,
    ):
        model = plain(model)
        traced = examine(model, example, output, "ifa.cut")
        place = grid_place("ifa.cut", example, grid_of)
        self.layer = choose(model, traced, layer, example, "ifa.cut", place=place, output=output)
        self._call = address(self.layer)
        self._name, self._like = type(model).__name__, shapes_of(example)
        self._output, self._writes_input = output, traced.writes_input
        self._copied: frozenset[int] = frozenset()  # what is written to after the call has ended
        self._maps_copies = False
        make = partial(replicas, model, (self._call,), watched=True, where="ifa.cut")
        self._copies: Replicas = make()
        self.why = ""  # replay is not right; empty where it is
        # replayed on copies that have not run: they show where a call left something on the model
        # that a later one reads
        self.why = self._verify(map_tensors(example, Tensor.detach), make())

    def __repr__(self) -> str:
        return f"cut({self._name}, {self.layer!r}), by {'override' if self.why else 'replay'}"

    def __call__(self, inputs: Inputs) -> tuple[Tensor, Head]:
        """Return the layer's activations of the inputs, and the network above it for them."""
        check_inputs("ifa.cut", inputs, self._like, "cut")
        seen = self._see(inputs)
        shape = tuple(seen.activations.shape)
        return seen.activations, Head(self, inputs, shape, seen.script)

    def copy(self) -> Replica:
        """Return this thread's copy of the model as it is now."""
        return self._copies.get()

    def override(self, copy: Replica, inputs: Inputs, activations: Tensor) -> Any:
        """Run the whole network, with the layer's output replaced."""
        return self._run(copy, inputs, partial(_replaced, activations))

    def replay(self, copy: Replica, inputs: Inputs, script: Script, activations: Tensor) -> Any:
        """Run what lies above the layer; raise `Differs` where that was not possible."""
        mapped_like = activations if self._maps_copies else None
        own = partial(own_copy, mapped_like=mapped_like)
        again = Replay(script, copy.running, self._call, own)

        def at_layer(tensor: Tensor) -> Tensor:
            again.reach()
            return _replaced(activations, tensor)

        output = self._run(copy, inputs, at_layer, again.visit)
        again.finish()
        return output

    def _run(
        self,
        copy: Replica,
        inputs: Inputs,
        at_layer: Callable[[Tensor], Tensor],
        visit: Visit | None = None,
    ) -> Any:
        def edit(call: str, tensor: Tensor) -> Tensor:
            return at_layer(tensor) if call == self._call else tensor

        inputs = clone(inputs) if self._writes_input else inputs
        return pick(copy.run(inputs, edit, visit=visit), self._output)

    def _see(self, inputs: Inputs) -> Seen:
        """Run the network, and remember what it did before the layer."""
        script, seen = Script(self._copied), []

        def at_layer(tensor: Tensor) -> Tensor:
            # neither may a later in-place layer edit what we return, nor the caller what we keep
            seen.append(tensor.clone())
            if not self.why:
                script.reach()
            return tensor.clone()

        with torch.no_grad():
            visit = None if self.why else script.visit
            output = self._run(self.copy(), inputs, at_layer, visit)
        if not seen:
            raise ValueError(
                f"ifa.cut: expected layer {self.layer!r} to run whatever the inputs, as on the "
                "example, got inputs on which it does not. Cut at a layer that always runs."
            )
        written = script.written() - self._copied
        if written:  # what is remembered is not what was returned: once more, with copies of it
            self._copied |= written
            return self._see(inputs)
        return Seen(inputs, seen[0], output, script)

    def _verify(self, example: Inputs, unused: Replicas) -> str:
        """Say why replay is not right, if so: it must give what override gives."""
        error: Exception = Differs()
        for batches in _trials(example):
            try:
                few, others = map(self._see, batches)
            except Exception as raised:  # such as of a network for batches of one size
                error = raised
                continue
            try:
                # the first once more, so that what the others left on the model would be seen
                whys = (self._mismatch(seen, unused) for seen in (few, others, few))
                return next(filter(None, whys), "")
            except Differs:
                return "it did not run alike twice for the same inputs"
            except Exception as raised:
                return f"otherwise {type(raised).__name__}: {raised}".splitlines()[0]
        return f"not verified on other inputs: {type(error).__name__}: {error}".splitlines()[0]

    def _mismatch(self, seen: Seen, unused: Replicas) -> str:
        replay = partial(self.replay, unused.get(), seen.inputs, seen.script)
        # other values everywhere, and other differences between them
        changed = 0.5 * seen.activations.flip(-1) + 0.1
        with torch.no_grad():
            if not _close(replay(seen.activations), seen.output):
                return "otherwise it would not give the model's output"
            expected = self.override(self.copy(), seen.inputs, changed)
            if not _close(replay(changed), expected):
                return "otherwise it would give other outputs for other activations"
            self._maps_copies = self._maps_copies or not _maps(replay, changed, expected)
            self._maps_copies = self._maps_copies and _maps(replay, changed, expected)
        return ""


def cut(
    model: nn.Module,
    layer: Layer | None,
    example: Inputs,
    *,
    output: Output = None,
    grid_of: str | int | None = None,
) -> Cut:
    r"""Cut a network at a layer: its activations, and what lies above as a function of them.

    Parameters
    ----------
    model
        The network, in evaluation mode.
    layer
        A layer, or None for the default, as in `ifa.tap`.
    example : (sample, \*input)
        A batch, used once, for shapes; or a tree of tensors, as in `ifa.tap`.
    output, grid_of
        As in `ifa.tap`.

    Returns
    -------
    callable
        ``inputs -> (activations, head)``. ``head(activations) -> outputs`` is the network above the
        layer for these very inputs and the model as it was: a pure function, that can be
        differentiated and mapped. It runs by replay: modules that ended before the layer return
        what they returned. That this equals running the whole network with the layer's output
        replaced is verified on variations of the example when the cut is made; where it does not,
        the whole network runs, and the repr of `head` says so and why.

    Raises
    ------
    LookupError, ValueError
        As `ifa.tap`.

    Examples
    --------
    >>> import ifa, torch
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    >>> inputs = torch.ones(4, 2)
    >>> activations, head = ifa.cut(net, "1", inputs)(inputs)
    >>> head
    head above '1', by replay: 1 call below it returns what it returned
    >>> torch.equal(head(activations), net(inputs))
    True
    """
    return Cut(model, layer, example, output, grid_of)


def _replaced(activations: Tensor, tensor: Tensor) -> Tensor:
    # a clone, because a later in-place layer must not edit the caller's activations; with a graph,
    # so that the last layer of a backbone run under no_grad can be differentiated
    with torch.enable_grad():
        return activations.to(tensor).clone()


def _trials(example: Inputs) -> Iterator[tuple[Inputs, Inputs]]:
    """Pairs of unlike batches, of two sizes first."""
    few = take(example, slice(2))
    yield few, map_tensors(joined([few, take(few, slice(1))]), _unlike)
    yield example, map_tensors(example, _unlike)


def _unlike(batch: Tensor) -> Tensor:
    turned = batch.flip(-1)
    if not turned.is_floating_point():
        return turned
    # an example is often all zeros
    wave = torch.linspace(-0.5, 0.5, batch.numel(), device=batch.device)
    return turned + wave.reshape(batch.shape).to(batch)


def _maps(head: Callable[[Tensor], Any], activations: Tensor, expected: Any) -> bool:
    """Tell whether a head can be mapped over variants of the activations."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="There is a performance drop")
            mapped = vmap(head)(torch.stack([activations, activations]))
    except Exception:
        return False
    return _close([tensor[0] for tensor in every_tensor(mapped)], list(every_tensor(expected)))


def _close(output: Any, expected: Any) -> bool:
    found, wanted = list(every_tensor(output)), list(every_tensor(expected))
    return 0 < len(found) == len(wanted) and all(map(_near, found, wanted))


def _near(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if not one.is_floating_point():
        return torch.equal(one, other)
    finite = other[other.isfinite()].abs()
    size = float(finite.max()) if finite.numel() else 0.0
    tolerance = torch.finfo(one.dtype).eps ** 0.5
    return torch.allclose(one, other, rtol=tolerance, atol=tolerance * size, equal_nan=True)
