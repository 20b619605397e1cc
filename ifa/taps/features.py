"""Model and inputs to `Features`: activations and gradients of layers, by zero perturbation."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ifa.chains import batched, describe
from ifa.network.gradients import (
    Pass,
    Pull,
    Pulled,
    by_leaves,
    by_perturbation,
    check_score,
    differentiable,
    joined,
    pulled,
    score_all,
    spans,
    transformed,
)
from ifa.network.inputs import (
    Shapes,
    at,
    check_inputs,
    clone,
    count,
    device_of,
    grid_place,
    shapes_of,
    tensors_of,
)
from ifa.network.outputs import pick
from ifa.network.replicas import Edit, Replica, Replicas, plain, replicas
from ifa.network.sites import Site, address, examine
from ifa.network.targets import as_targets, predicted
from ifa.score import logit
from ifa.score.rows import classes_at, output_of
from ifa.taps.cautions import heed, zero_gradient
from ifa.taps.compiled import compile_pieces, pieces
from ifa.taps.defaults import choose
from ifa.taps.grids import check_grid
from ifa.taps.layouts import infer_grid, next_norm
from ifa.types import Features, Grid, Inputs, Layer, Output, Score, Step, Target


class Observation(NamedTuple):
    """Everything one tapped pass saw."""

    result: Any  # what the tap returns
    output: Any  # (sample, output), what `output=` picked
    score: Tensor  # (sample,) or (target, sample)
    target: Tensor  # the same, int64
    zero: tuple[Tensor, ...]  # of each layer the same, bool: the gradient is zero everywhere
    explained: Tensor  # the same, int64: the output that each target is about
    activations: tuple[Tensor, ...]  # of each layer, (sample, channel, *space)


class Prepared(NamedTuple):
    """A network as one example showed it: what a tap needs whatever the score and the step."""

    kind: str  # name of its class
    tensors: frozenset[str]  # names of its parameters and buffers
    single: bool  # one layer was asked for, not several
    sites: tuple[Site, ...]
    grids: tuple[Grid | None, ...]  # what lays each layer out
    norms: tuple[str | None, ...]  # the normalization that runs next on what is shaped like it
    like: Shapes  # of one example
    calls: tuple[str, ...]  # the address of each site
    output: tuple[int, ...] | None  # of one example's output; None where it is no tensor
    writes_input: bool
    replicas: Replicas
    compiled: Replicas


def prepare(
    model: nn.Module,
    layers: Any,
    example: Inputs,
    *,
    grid: Grid | None = None,
    output: Output = None,
    grid_of: str | int | None = None,
    compile: bool = False,
    weak: bool = False,
) -> Prepared:
    """Trace a network with an example, find the layers asked for, and make replicas ready."""
    model = plain(model)
    traced = examine(model, example, output, "ifa.tap")
    single = layers is None or isinstance(layers, str | nn.Module)
    asked: tuple[Any, ...] = (layers,) if single else tuple(layers)  # pyright: ignore
    check_grid("ifa.tap", grid)
    place = grid_place("ifa.tap", example, grid_of)
    choosing = partial(choose, place=place, grid=grid, output=output)
    names = [choosing(model, traced, layer, example, "ifa.tap") for layer in asked]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"ifa.tap: expected distinct layers, at least one, got {asked}.")
    sites, shape = tuple(traced.sites[name] for name in names), tuple(at(example, place).shape[1:])
    grids = tuple(grid or infer_grid(model, traced.sites, s, shape, "ifa.tap") for s in sites)
    calls = tuple(map(address, names))
    plain_ones = replicas(model, calls, weak=weak)
    compiled = plain_ones
    if compile:
        below = partial(compile_pieces, wanted=pieces(model, calls, example))
        compiled = replicas(model, calls, prepare=below)
    tensors = {*dict(model.named_parameters(remove_duplicate=False))}
    tensors |= {*dict(model.named_buffers(remove_duplicate=False))}
    norms = tuple(next_norm(model, traced.sites, site) for site in sites)
    known = type(model).__name__, frozenset(tensors), single, sites, grids, norms
    return Prepared(
        *known, shapes_of(example), calls, traced.output, traced.writes_input, plain_ones, compiled
    )


class Tap:
    """A pure function ``(inputs, target=None, params=None) -> Features``. Build it with `tap`.

    Parameters
    ----------
    prepared
        The network, from `prepare`.
    score, output, step
        As in `tap`.
    gradients
        Whether they are computed. Where a weighting does not look at them they are zeros that take
        no memory.
    """

    def __init__(
        self,
        prepared: Prepared,
        score: Score,
        output: Output,
        step: Step | None = None,
        gradients: bool = True,
    ):
        check_score("ifa.tap", score)
        self._prepared, self._score, self._step = prepared, score, step
        self._output = output_of(score, output)
        self._gradients = gradients
        self._unexpected = {f"{s.layer}#2" for s in prepared.sites if "#" not in s.layer}
        self._dtypes = [site.dtype for site in prepared.sites]  # as of the last call

    @property
    def sites(self) -> tuple[Site, ...]:
        """Where it taps."""
        return self._prepared.sites

    @property
    def grids(self) -> tuple[Grid | None, ...]:
        """What lays each layer's output out; None where it is as it should be."""
        return self._prepared.grids

    @property
    def norms(self) -> tuple[str | None, ...]:
        """The normalization that reads each layer, if one runs next."""
        return self._prepared.norms

    @property
    def calls(self) -> tuple[str, ...]:
        """The address of each layer's call."""
        return self._prepared.calls

    @property
    def score(self) -> Score:
        """What is differentiated."""
        return self._score

    def __repr__(self) -> str:
        layers = ", ".join(repr(site.layer) for site in self.sites)
        grids = [describe(grid) for grid in self.grids if grid is not None]
        options = f", score={describe(self._score)}"
        options += f", grid={', '.join(dict.fromkeys(grids))}" if grids else ""
        options += "" if self._step is None else f", step={describe(self._step)}"
        return f"tap({self._prepared.kind}, {layers}{options})"

    @property
    def reads_gradients(self) -> bool:
        """Whether gradients are computed."""
        return self._gradients

    @property
    def unit(self) -> str:
        """What the score is measured in, for labels: its name."""
        score = self._score.func if isinstance(self._score, partial) else self._score
        name = getattr(score, "__name__", "score").lstrip("_")
        return name.replace("<lambda>", "score")

    @property
    def outputs(self) -> int | None:
        """How many outputs an example has; None where the output is no tensor."""
        return None if self._prepared.output is None else (*self._prepared.output, 1)[0]

    @property
    def output_shape(self) -> tuple[int, ...] | None:
        """Of one example; None where the output is no tensor."""
        return self._prepared.output

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        r"""(channel, \*space) of each layer, as `Features` have it."""
        blanks = (torch.empty(1, *site.shape, device="meta") for site in self.sites)
        return tuple(
            tuple(_laid_out(blank, grid).shape[1:])
            for blank, grid in zip(blanks, self.grids, strict=True)
        )

    def __call__(
        self, inputs: Inputs, target: Target = None, params: Mapping[str, Tensor] | None = None
    ) -> Any:
        """Return `Features` of the inputs, or a tuple of them for several layers."""
        seen = self.look(inputs, target, params)
        heed(self, inputs, params, seen, warn="ifa.tap")
        return seen.result

    def observe(
        self,
        inputs: Inputs,
        target: Target = None,
        params: Mapping[str, Tensor] | None = None,
        *,
        step: Step | None = None,
    ) -> Observation:
        """Return what the call returns, together with the model's output, the score and target.

        `step` takes the place of the one that the tap was made with. Of gradients that are zero
        there is no warning, but a flag for each layer and sample.
        """
        seen = self.look(inputs, target, params, step)
        heed(self, inputs, params, seen)
        return seen

    def look(
        self,
        inputs: Inputs,
        target: Target = None,
        params: Mapping[str, Tensor] | None = None,
        step: Step | None = None,
    ) -> Observation:
        """Observe, and leave it to the caller to heed what there is to be said of it."""
        check_inputs("ifa.tap", inputs, self._prepared.like, "tap")
        known = count(inputs), self.outputs, device_of(inputs), self._score
        chosen = as_targets("ifa.tap", target, *known)
        seen, pull = self._run(inputs, chosen, self._detached(params))
        step = self._step if step is None else step
        activations = [
            _laid_out(tensor, grid)
            for tensor, grid in zip(seen.activations, self.grids, strict=True)
        ]
        size = sum(tensor.numel() * tensor.element_size() for tensor in activations)
        scores, made, zero = [], [], []
        lead, explained = seen.target.ndim, classes_at(self._score, seen.target)
        for part in self._pulled(seen, pull, size):
            scores.append(part.scores)
            made.append(self._gridded(part.gradients, lead == 2))
            zero.append(tuple(zero_gradient(one, lead) for one in made[-1]))
            if step is not None:  # now, so that the gradients of all targets never exist
                records = self._records(activations, made[-1], explained[part.span])
                made[-1] = batched(step)(records)
        result = joined(made)
        if step is None:
            result = self._records(activations, result, explained)
        nothing = joined(zero) if self._gradients else tuple(map(torch.zeros_like, joined(zero)))
        scored = joined(scores)
        whole = seen.output, scored, seen.target, nothing, explained
        return Observation(result, *whole, tuple(activations))

    def output_of(
        self, inputs: Inputs, target: Tensor, params: Mapping[str, Tensor] | None, insert: Edit
    ) -> Any:
        """Return the output of a pass in which `insert` says what goes on from each layer."""
        replica = self._prepared.replicas.get()
        return self._forward(replica, target, self._detached(params), inputs, insert)[1].output

    def _pulled(self, seen: Pass, pull: Pull | None, size: int) -> Iterator[Pulled]:
        if pull is not None:
            yield from pulled("ifa.tap", self._score, seen.output, seen.target, pull, size)
            return
        for span in spans(seen.target, size):
            target = seen.target[span]
            scores = score_all("ifa.tap", self._score, seen.output, target)
            lead = target.shape[:-1]
            nothing = [one.new_zeros(()).expand(*lead, *one.shape) for one in seen.activations]
            yield Pulled(span, scores, nothing)

    def _gridded(self, gradients: Sequence[Tensor], many: bool) -> tuple[Tensor, ...]:
        pairs = zip(gradients, self.grids, strict=True)
        return tuple(_laid_out(one, grid, many) for one, grid in pairs)

    def _records(
        self, activations: Sequence[Tensor], gradients: Sequence[Tensor], target: Tensor
    ) -> Any:
        pairs = zip(activations, gradients, strict=True)
        features = tuple(Features(a, g, target) for a, g in pairs)
        return features[0] if self._prepared.single else features

    def _run(
        self, inputs: Inputs, target: Tensor | None, params: dict[str, Tensor] | None
    ) -> tuple[Pass, Pull | None]:
        if not self._gradients:
            forward = partial(self._forward, self._prepared.compiled.get(), target, params)
            with torch.no_grad():
                return forward(inputs, lambda call, tensor: tensor.clone())[1], None
        if not transformed(*tensors_of(inputs)):
            replica = (self._prepared.replicas if params else self._prepared.compiled).get()
            if "hidden" not in replica.known:
                forward = partial(self._forward, replica, target, params)
                found = by_leaves(inputs, self._prepared.calls, forward)
                if found is not None:
                    return found
                replica.known["hidden"] = True  # so that the next call does not run twice
        forward = partial(self._forward, self._prepared.replicas.get(), target, params)
        shapes = [site.shape for site in self.sites]
        # a list of this call's own: other threads may see other dtypes, under autocast
        dtypes = list(self._dtypes)
        found = by_perturbation(inputs, self._prepared.calls, shapes, dtypes, forward)
        self._dtypes = dtypes
        return found

    def _forward(
        self,
        replica: Replica,
        target: Tensor | None,
        params: dict[str, Tensor] | None,
        inputs: Inputs,
        insert: Edit,
    ) -> tuple[list[Tensor], Pass]:
        """Run a pass in which `insert` says what goes on from each layer."""
        shapes = {
            call: site.shape for call, site in zip(self._prepared.calls, self.sites, strict=True)
        }
        seen: dict[str, Tensor] = {}
        samples = count(inputs)

        def edit(call: str, tensor: Tensor) -> Tensor:
            if call in self._unexpected:
                raise ValueError(self._differs(call, "a second call of it"))
            if call not in shapes:
                return tensor
            if tensor.shape != (samples, *shapes[call]):
                raise ValueError(self._differs(call, f"one of shape {tuple(tensor.shape)}"))
            seen[call] = tensor
            return insert(call, tensor)

        # a clone of our own, because torch.func refuses writing to a tensor from outside
        inputs = clone(inputs) if self._prepared.writes_input else inputs
        output = pick(replica.run(inputs, edit, params), self._output)
        for call in shapes:
            if call not in seen:
                raise ValueError(self._differs(call, "none"))
        target = predicted("ifa.tap", output) if target is None else target
        layers = tuple(seen[call] for call in shapes)
        return differentiable(output), Pass(layers, output, target)

    def _differs(self, call: str, came: str) -> str:
        layer = call if any(site.layer == call for site in self.sites) else call.rpartition("#")[0]
        return (
            f"ifa.tap: expected the same output of layer {layer!r} as on the example, whatever the "
            f"inputs, got {came}. Make another tap, or tap a layer that always runs alike."
        )

    def _detached(self, params: Mapping[str, Tensor] | None) -> dict[str, Tensor] | None:
        if params is None:
            return None
        unknown = [name for name in params if name not in self._prepared.tensors]
        if unknown:
            raise LookupError(
                f"ifa.tap: expected params named like those of {self._prepared.kind}, got "
                f"{unknown[0]!r} and {len(unknown) - 1} more it does not have. "
                "Take the names of model.named_parameters()."
            )
        return {name: tensor.detach() for name, tensor in params.items()}


def tap(
    model: nn.Module,
    layer: Layer | Sequence[Layer] | None,
    example: Inputs,
    *,
    score: Score = logit,
    grid: Grid | None = None,
    output: Output = None,
    grid_of: str | int | None = None,
    step: Step | None = None,
    compile: bool = False,
) -> Tap:
    r"""Make a pure function that returns a layer's activations and the gradients of a score there.

    The gradient at an inner layer is that with respect to a zero added there:

    .. math:: G = \left.\frac{\partial y(A + \delta)}{\partial \delta}\right|_{\delta = 0}

    so nothing below the layer is differentiated and no gradient of a parameter exists. The model is
    never touched: work happens on a private copy that shares its storage, one for each thread.

    Parameters
    ----------
    model
        The network, in evaluation mode.
    layer
        Name of a layer, as `ifa.trace` lists it, or the module itself; a tuple or list of them, all
        from one forward and one backward pass; or None for the last layer whose output has a grid
        larger than 1, outside attention and prediction heads, that the output depends on and where
        activations times gradients do not cancel, as they do under a normalization of tokens.
    example : (sample, \*input)
        A batch, used once, for shapes; or a tree: a tuple of tensors is passed to the network as
        positional arguments, a mapping by keyword, with the samples first in each. What the tap is
        called with is like it. None, numbers and text in a tree are passed on as they are.
    score
        ``(output of one example, target) -> scalar``, see `ifa.score`.
    grid
        Lays the layer's output out as (sample, channel, \*space): `ifa.tokens`, `ifa.patches`,
        `ifa.channels_last`, or any purely structural function. None: as it is, unless the layer
        says that its channels come last, such as a transformer's block. Its tokens are then laid
        out on the one grid that fits the input with whole patches.
    output
        Picks the output out of what the model returns: a callable, a key or an index. What is
        called ``logits``, or the first tensor, is found without help.
    grid_of
        Which tensor of a tree has the grid that tokens are laid out on, by its key or index
        ("views.0" inside another); None for the first (sample, channel, \*space).
    step
        What to make of the features of one example, such as a chain; the tap then returns what
        ``ifa.batched(step)`` makes of them. Of many targets a few are done at a time, so that the
        gradients of all never exist at once.
    compile
        Compile the modules below the layer, with their weights as constants, for batches shaped
        just like the example; what lies above it, other batches, other `params` and transforms run
        as they are. Needs a C++ compiler, and seconds to minutes at the first call and after every
        change of the weights; one through ``parameter.data`` is not seen. Results change by
        rounding only.

    Returns
    -------
    callable
        ``(inputs, target=None, params=None) -> Features``, or what `step` makes of them; for
        several layers a tuple of them.
        `target` is None (the largest output), an int, (sample,) int64, or (target, sample) int64:
        outputs, or rows of a score's table; many targets from one forward pass, where `gradients`
        and `target` have a target axis first. `Features.target` is the output, also of a row.
        `params` replaces parameters and buffers by name, as in `torch.func.functional_call`; they
        are constants. Gradients are in units of the score per unit of activation.
        In-place updates and replaced tensors of the model are seen; its training flags and plain
        attributes are those of when the tap was made. The method ``observe``, of the same
        arguments, also returns the model's output and the score.

    Raises
    ------
    LookupError
        If there is no such layer, it did not run, or ran several times and no call was named; or
        none is fit to be the default.
    ValueError
        If the model is in training mode with dropout or batch norm, or not exactly one grid fits
        the tokens of a layer; later, if a target is out of range or of the wrong length, or inputs
        are not shaped like the example, or no path leads from the layer to the score, such as
        because of a ``detach`` or ``no_grad`` above it.
    RuntimeError
        Under `torch.inference_mode`.

    Warns
    -----
    ZeroGradient
        If the gradient of a sample is zero at every channel and position.

    Examples
    --------
    >>> import ifa, torch
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.Flatten())
    >>> images = torch.zeros(5, 1, 4, 4)
    >>> features = ifa.tap(net, "0", images)(images, target=1)
    >>> features.activations.shape, features.target
    (torch.Size([5, 3, 2, 2]), tensor([1, 1, 1, 1, 1]))
    """
    laid: Any = {"grid": grid, "output": output_of(score, output), "grid_of": grid_of}
    prepared = prepare(model, layer, example, **laid, compile=compile)
    return Tap(prepared, score, output, step)


def _laid_out(values: Tensor, grid: Grid | None, targets: bool = False) -> Tensor:
    if grid is None:
        return values
    if not targets:
        return grid(values)
    return grid(values.flatten(0, 1)).unflatten(0, values.shape[:2])
