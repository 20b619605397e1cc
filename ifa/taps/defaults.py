"""The layer that is looked at where none is named, found by asking the network itself.

Candidates are the places whose output can be laid out as (channel, *grid), outside attention, last
first, prediction heads at the very end. One is taken if a gradient reaches its grid, if its
activations times gradients do not cancel over the channels, as they do under a normalization, and
if what is said to lie on one side of its grid does depend most on that side of the input.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import vmap

from ifa.network.gradients import differentiable
from ifa.network.inputs import Place, at, clone, count, joined, put, repeated, take
from ifa.network.outputs import map_tensors, pick
from ifa.network.replicas import Edit, Replica
from ifa.network.sites import Traced, address, find
from ifa.noise import noise
from ifa.stages import cancels
from ifa.taps.layouts import ATTENTION, infer_grid
from ifa.types import Grid, Inputs, Output

# How many candidates are looked at in one pass.
_FEW = 8
_FORWARD = re.compile("mlp|ffn|feed_?forward", re.IGNORECASE)
_HEAD = re.compile(r"(^|_)heads?$|(^|_)(classifier|predictor|logits|aux|auxiliary)(_|$)")


class Candidate(NamedTuple):
    """A place that can be laid out as (channel, *grid)."""

    layer: str
    lay: Grid | None  # what lays it out; None where it is laid out already
    inferred: bool  # whether what its axes are was inferred, not said by a convolution


class Search(NamedTuple):
    """A network to choose a layer of."""

    model: nn.Module
    traced: Traced
    replica: Replica
    attentions: frozenset[str]  # names of the modules that attend
    place: Place  # of the tensor with the grid
    shape: tuple[int, ...]  # of one example of it
    grid: Grid | None  # the user's own
    output: Output
    where: str


def choose(
    model: nn.Module,
    traced: Traced,
    layer: Any,
    example: Inputs,
    where: str,
    *,
    place: Place = (),
    grid: Grid | None = None,
    output: Output = None,
) -> str:
    """Return the site a user means by `layer`, or where that is None, the default one.

    `place` is where in the example the tensor with the grid is.

    Raises
    ------
    LookupError
        If there is no such layer, or none that is fit to be the default.
    """
    if layer is not None:
        return find(model, traced, layer, where)
    replica = Replica(model, where=where)
    shape = tuple(at(example, place).shape[1:])
    search = Search(model, traced, replica, _attentions(model), place, shape, grid, output, where)
    passed: Counter[str] = Counter()
    for inputs in _trials(example, place):
        passed.clear()
        for single in (False, True):  # a single channel is a gate or an output, mostly
            candidates, few = _candidates(search, single, passed), _FEW
            while some := list(islice(candidates, few)):
                try:
                    fit = _fit(search, some, inputs, passed)
                except torch.OutOfMemoryError:
                    raise
                except Exception as error:  # such as of a network that noise is no input for
                    passed[f"{type(error).__name__}: {error}".splitlines()[0]] += len(some)
                    break
                if fit is not None:
                    return fit
                few *= 2
    told = "".join(f", {reason} ({times})" for reason, times in passed.items())
    raise LookupError(
        f"{where}: expected a layer whose output has a grid, found none in {type(model).__name__}"
        f"{' that will do' if told else ''}{told}. Name the layer; list them with "
        "ifa.trace(model, example)."
    )


def _trials(example: Inputs, place: Place) -> Iterator[Inputs]:
    """Yield inputs to try: noise, so that the choice does not depend on the example; and that."""
    # two samples: with one, a table shared by all looks as if it were a sample's
    two = take(joined([example, example]), slice(2))
    gridded = at(two, place)
    if gridded.is_floating_point():
        yield put(two, place, noise(gridded.shape, gridded, 0))
    yield map_tensors(two, Tensor.detach)


def _candidates(search: Search, single: bool, passed: Counter[str]) -> Iterator[Candidate]:
    """Yield what can be laid out: last first, heads at the end."""
    heads = {name for name, part in search.model.named_modules() if _is_head(name, part)}
    listed: list[tuple[bool, str]] = []
    for name in reversed(search.traced.sites):
        above = list(_ancestors(name.partition("#")[0]))
        if search.attentions.isdisjoint(above[1:]):
            listed.append((not heads.isdisjoint(above), name))
    for _, name in sorted(listed, key=lambda row: row[0]):
        site = search.traced.sites[name]
        try:
            lay = search.grid or infer_grid(
                search.model, search.traced.sites, site, search.shape, search.where
            )
            shape = site.shape
            if lay is not None:
                shape = tuple(lay(torch.empty(1, *site.shape, device="meta")).shape[1:])
        except Exception:  # the user's own function may say anything about other layers
            passed["how they lie must be said with grid="] += not single
            continue
        if _has_grid(search, shape) and (shape[0] == 1) == single:
            said = lay is None and len(site.shape) > 2
            yield Candidate(
                name, lay, not said or (bool(search.attentions) and _skewed(search, shape))
            )


def _has_grid(search: Search, shape: tuple[int, ...]) -> bool:
    axes, outputs = max(1, len(search.shape) - 1), search.traced.output
    if outputs is not None and len(outputs) > 1:  # the output itself, or what becomes it
        maps = len(outputs) == len(shape) and outputs[0] == shape[0]
        if maps or shape == (1, *outputs):
            return False
    known = len(shape) > 1 and (search.grid is not None or len(shape) - 1 == axes)
    return known and math.prod(shape[1:]) > 1


def _skewed(search: Search, shape: tuple[int, ...]) -> bool:
    """Tell whether a grid has another form than the input, as tokens by channels of a head have."""
    steps = [own / extent for own, extent in zip(search.shape[1:], shape[1:], strict=False)]
    return max(steps, default=1) > 1.5 * min(steps, default=1)


def _fit(
    search: Search, candidates: Sequence[Candidate], inputs: Inputs, passed: Counter[str]
) -> str | None:
    """Return the first candidate that is fit to be looked at."""
    local: dict[str, bool] | None = None
    observed = _observed(search, candidates, inputs)
    for candidate, (activations, gradients) in observed.items():
        reached = gradients.flatten(2).any(1).any(0)
        if int(reached.sum()) < 2 or not gradients.isfinite().all():
            # none, or at the only token that is read
            passed["no gradient reaches their grid"] += 1
            continue
        if bool(vmap(cancels)(gradients * activations).all()):
            passed["activations times gradients cancel"] += 1
            continue
        if candidate.inferred and search.grid is None:
            local = _local(search, candidates, inputs) if local is None else local
            if not local.get(candidate.layer, True):
                passed["their places are not those of the input"] += 1
                continue
        if candidate.layer in search.traced.among:  # rather by the name of what returns it alone
            for other, (same, _) in observed.items():
                if other.layer not in search.traced.among and _equal(same, activations):
                    return other.layer
        return candidate.layer
    return None


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)


def _observed(
    search: Search, candidates: Sequence[Candidate], inputs: Inputs
) -> dict[Candidate, tuple[Tensor, Tensor]]:
    """Return activations and gradients, laid out, of what can be differentiated and was seen."""
    points: dict[str, Tensor] = {}
    samples = count(inputs)
    calls = {address(candidate.layer): candidate for candidate in candidates}

    def insert(call: str, tensor: Tensor) -> Tensor:
        if call not in calls or len(tensor) != samples:
            return tensor
        # with a graph, so that the last layer of a backbone run under no_grad can be taken
        with torch.enable_grad():
            # a point of its own: what goes on from here, and not by another way
            points[call] = tensor.clone() if tensor.requires_grad else tensor.detach()
            points[call].requires_grad_()
            return points[call].clone()  # so that a later in-place layer cannot edit it

    with torch.enable_grad():
        leaves = differentiable(_run(search, inputs, insert))
        # whatever the score is, it reads a mix of the outputs
        parts = [(leaf * noise(leaf.shape, leaf, 0)).sum() for leaf in leaves]
    parts = [part.real.double() for part in parts if part.requires_grad]
    named = [(call, candidate) for call, candidate in calls.items() if call in points]
    found: Sequence[Tensor | None] = [None] * len(named)
    if parts and named:
        starts = [points[call] for call, _ in named]
        found = torch.autograd.grad(torch.stack(parts).sum(), starts, allow_unused=True)
    return {
        candidate: (
            _laid(candidate, points[call].detach()),
            _laid(candidate, torch.zeros_like(points[call]) if gradient is None else gradient),
        )
        for (call, candidate), gradient in zip(named, found, strict=True)
    }


def _local(search: Search, candidates: Sequence[Candidate], inputs: Inputs) -> dict[str, bool]:
    """Tell of each candidate whether changing one half of the input changes that half of it most.

    It does not where tokens are no places, such as those that a network learns to ask with, or lie
    in another order.
    """
    seen: dict[str, Tensor] = {}
    calls = {address(candidate.layer): candidate for candidate in candidates}
    if not at(inputs, search.place).is_floating_point():
        return {}
    inputs = take(inputs, slice(1))
    base = at(inputs, search.place)
    other = noise(base.shape, base, 1)
    axes = range(-min(2, max(1, len(search.shape) - 1)), 0)
    halves = [(axis, first) for axis in axes for first in (True, False)]
    changed = [_swapped(base, other, axis, first) for axis, first in halves]

    def record(call: str, tensor: Tensor) -> Tensor:
        if call in calls and len(tensor) == 1 + len(halves):
            seen[call] = _laid(calls[call], tensor.detach().clone())
        return tensor

    with torch.no_grad():
        every = put(repeated(inputs, 1 + len(halves)), search.place, torch.cat([base, *changed]))
        _run(search, every, record)
    return {
        calls[call].layer: all(
            _follows((one - tensor[0]).abs().sum(0), *half)
            for one, half in zip(tensor[1:], halves, strict=True)
        )
        for call, tensor in seen.items()
    }


def _swapped(base: Tensor, other: Tensor, axis: int, first: bool) -> Tensor:
    half = base.shape[axis] // 2
    one, two = base.split([half, base.shape[axis] - half], axis)
    new, newer = other.split([half, base.shape[axis] - half], axis)
    return torch.cat([new, two] if first else [one, newer], axis)


def _follows(change: Tensor, axis: int, first: bool) -> bool:
    half = change.shape[axis] // 2
    if half == 0:
        return True
    low, high = (float(change.narrow(axis, s, half).mean()) for s in (0, -half))
    return low > high if first else high > low


def _run(search: Search, inputs: Inputs, edit: Edit) -> Any:
    return pick(search.replica.run(clone(inputs), edit), search.output)


def _laid(candidate: Candidate, tensor: Tensor) -> Tensor:
    return tensor if candidate.lay is None else candidate.lay(tensor)


def _ancestors(name: str) -> Iterator[str]:
    """Yield a module's name and those of all it lies in, but for the network."""
    while name:
        yield name
        name = name.rpartition(".")[0]


def _attentions(model: nn.Module) -> frozenset[str]:
    """Name the modules that attend: neither blocks that hold one and a perceptron, nor networks."""
    parts = {
        name: [child for child, _ in part.named_children()]
        for name, part in model.named_modules()
        if name and any(map(ATTENTION.search, (type(part).__name__, name.rpartition(".")[2])))
    }
    named = {name for name, children in parts.items() if children}
    outer = [next((up for up in list(_ancestors(name))[1:] if up in named), "") for name in named]
    blocks = {name for name in named if name in outer and any(map(_FORWARD.search, parts[name]))}
    return frozenset(name for name in named - blocks if outer.count(name) < 2)


def _is_head(name: str, module: nn.Module) -> bool:
    return bool(_HEAD.search(name.rpartition(".")[2])) or type(module).__name__.endswith("Head")
