"""Run a network on variants of some samples at a time, in chunks, and score them.

Every variant is of one sample, and scored as such: no result is a function of other samples.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import vmap

from ifa.chains import describe
from ifa.checks import check_count
from ifa.declared import declare
from ifa.network.budgets import budget, fitting
from ifa.network.gradients import check_score, score_all
from ifa.network.inputs import (
    at,
    check_inputs,
    count,
    device_of,
    floating,
    grid_place,
    shapes_of,
    split,
    take,
)
from ifa.network.outputs import pick
from ifa.network.replicas import plain, replicas
from ifa.network.sites import Sites, examine
from ifa.network.targets import as_targets, predicted
from ifa.noise import chunks
from ifa.progress import Progress, reporting
from ifa.score.rows import classes_at, output_of
from ifa.taps.defaults import choose
from ifa.taps.grids import check_grid
from ifa.taps.heads import Head, cut
from ifa.taps.layouts import infer_grid
from ifa.types import Grid, Inputs, Layer, Output, Score, Target, Weighted

Advance = Callable[[int], None]


class Samples(NamedTuple):
    """Samples that run together, and what the network makes of them."""

    inputs: Inputs  # (sample, *input)
    image: Tensor  # the one of them with the grid
    raw: Tensor  # (sample, ...), the layer's output as the network has it
    activations: Tensor  # (sample, channel, *space), the same as the grid lays it out
    head: Head  # raw -> output
    targets: Tensor  # (target, sample)
    scores: Tensor  # (target, sample), of the untouched samples


class Running(NamedTuple):
    """How a network is run and read, whatever the perturbation."""

    score: Score
    chunk: int | None
    output: Output
    grid: Grid | None
    grid_of: str | int | None
    above: bool = False  # whether variants are of the layer's output, not of the input


class Network:
    """A network and one of its layers, checked: what every perturbation needs of them."""

    def __init__(
        self,
        method: str,
        model: nn.Module,
        layer: Layer | None,
        example: Inputs,
        how: Running,
    ):
        self.method, self.where = method, f"ifa.perturb.{method}"
        score, chunk, output, grid, grid_of, above = how
        if chunk is not None:
            check_count(self.where, "chunk", chunk)
        check_score(self.where, score)
        self._model, output = plain(model), output_of(score, output)
        traced = examine(self._model, example, output, self.where)
        check_grid(self.where, grid)
        self.place = grid_place(self.where, example, grid_of)
        gridded = at(example, self.place)
        options: dict[str, Any] = {"place": self.place, "grid": grid, "output": output}
        self.layer = choose(self._model, traced, layer, example, self.where, **options)
        self.score = score
        self.chunk = chunk or _fitting(traced.sites, self.layer if above else None, gridded.device)
        self._together = min(self.chunk, _kept(traced.sites, gridded.device))
        self._output = output
        self._outputs = None if traced.output is None else (*traced.output, 1)[0]
        self._like, self._input_shape = shapes_of(example), tuple(gridded.shape[1:])
        site = traced.sites[self.layer]
        self.grid = grid or infer_grid(
            self._model, traced.sites, site, self._input_shape, self.where
        )
        self._split = cut(self._model, self.layer, example, output=output, grid_of=grid_of)
        self._replicas = replicas(self._model, ())
        blank = torch.empty(1, *site.shape, device="meta")
        self.channels, *self.space = self.laid_out(blank).shape[1:]
        # how many outputs, one for each channel and sample, are at once
        widest = max(self.channels, self._outputs or 1) * site.dtype.itemsize
        self.rows = chunk or max(1, budget(gridded.device) // widest)

    def describe(self) -> str:
        """Write the network's part of a perturbation's description."""
        kind, score = type(self._model).__name__, describe(self.score)
        return f"{kind}, {self.layer!r}, score={score}, chunk={self.chunk}"

    def run(self, inputs: Inputs) -> Any:
        """Return the output for inputs that may be written to."""
        return pick(self._replicas.get().run(inputs, lambda call, tensor: tensor), self._output)

    def scores_of(self, output: Any, targets: Tensor) -> Tensor:
        """Score every row of an output for its targets (target, row), in the same shape."""
        rows = targets.shape[1]
        if isinstance(output, Tensor) and output.shape[:1] != (rows,):
            raise ValueError(
                f"{self.where}: expected an output with one row for each of {rows} inputs, got "
                f"{tuple(output.shape)}. Where the model drops the axis of a batch of one, give "
                "its squeeze a dim; or pick another output with output=."
            )
        return score_all(self.where, self.score, output, targets)

    def samples(self, inputs: Inputs, target: Tensor | None) -> Iterator[Samples]:
        """Run as many samples as fit at a time. `target` is (target, sample), or None."""
        start = 0
        for some in split(inputs, self._together):
            here = slice(start, start := start + count(some))
            raw, head = self._split(some)
            output = head(raw)
            targets = predicted(self.where, output)[None] if target is None else target[:, here]
            scores = self.scores_of(output, targets)
            image = at(some, self.place)
            yield Samples(some, image, raw, self.laid_out(raw), head, targets, scores)

    def first(self, example: Inputs) -> Samples:
        """Run the first sample, for its first target: to find out what can be done."""
        one = take(example, slice(1))
        target = torch.zeros(1, 1, dtype=torch.int64, device=device_of(one))
        with torch.no_grad():
            (samples,) = self.samples(one, target)
        return samples

    def spans(self, samples: Samples, variants: int) -> Iterator[range]:
        """Cut the variants of every sample into what runs at once."""
        return chunks(variants, max(1, self.chunk // len(samples.raw)))

    def positions(self, raw: Tensor) -> Tensor:
        """Return where in the layer's flat output each place of the laid-out one is."""
        return self.laid_out(torch.arange(raw.numel(), device=raw.device).reshape(raw.shape))

    def check(self, inputs: Inputs, target: Target) -> Tensor | None:
        """Raise unless inputs are like the example; return the targets, as integers."""
        check_inputs(self.where, inputs, self._like, "perturbation")
        known = count(inputs), self._outputs, device_of(inputs), self.score
        return as_targets(self.where, target, *known)

    def check_real(self, example: Inputs, masked: bool = True) -> None:
        """Raise unless what is to be masked, or something to be made noisy, are real numbers."""
        gridded = at(example, self.place)
        if not (gridded.is_floating_point() if masked else floating(example)):
            raise TypeError(
                f"{self.where}: expected inputs of a floating dtype, got {gridded.dtype}. "
                "Make the embedding the network's input, or take ifa.perturb.ablationcam."
            )

    def check_masks(self) -> None:
        """Raise unless the layer's grid can mask the input."""
        lead = len(self._input_shape) - len(self.space)
        if not self.space or lead not in (0, 1):
            raise ValueError(
                f"{self.where}: expected a layer laid out as (channel, *space) with the space axes "
                f"of the input, {self._input_shape} for each sample, got {self.layer!r} with "
                f"{(self.channels, *self.space)}. Choose a layer with a grid, or lay it out with "
                "grid=, e.g. ifa.tokens(prefix=1, grid=(14, 14))."
            )

    def laid_out(self, raw: Tensor) -> Tensor:
        """Return the layer's output as (sample, channel, *space)."""
        return raw if self.grid is None else self.grid(raw)


# (samples, how to say so many units are done) -> weights (target, sample, channel), or with *space
Weigh = Callable[[Samples, Advance], Tensor]


@declare(kind="built")
class Perturbation:
    """A pure function ``(inputs, target=None) -> Weighted``. Build it with `ifa.perturb`."""

    def __init__(
        self, network: Network, weigh: Weigh, units: int, progress: Progress, options: str
    ):
        self._network, self._weigh, self._units = network, weigh, units
        self._progress, self._options = progress, options

    def __repr__(self) -> str:
        parts = (self._network.describe(), self._options)
        return f"{self._network.method}({', '.join(filter(None, parts))})"

    def __call__(self, inputs: Inputs, target: Target = None) -> Weighted:
        """Return the weights and the activations of every sample."""
        network = self._network
        chosen = network.check(inputs, target)
        many = chosen is not None and chosen.ndim == 2
        asked = chosen[None] if chosen is not None and not many else chosen
        total = count(inputs) * self._units
        found: list[Weighted] = []
        with reporting(self._progress, network.method, total) as advance, torch.no_grad():
            for samples in network.samples(inputs, asked):
                weights = self._weigh(samples, advance).to(samples.activations.dtype)
                found.append(Weighted(weights, samples.activations, samples.targets))
        parts = zip(*found, (1, 0, 1), strict=True)  # each with its axis of samples
        weights, activations, targets = (torch.cat(each, axis) for *each, axis in parts)
        targets = classes_at(network.score, targets)
        if not many:
            return Weighted(weights[0], activations, targets[0])
        # a view: `ifa.batched` maps every field over the targets
        return Weighted(weights, activations.expand(len(targets), *activations.shape), targets)


def score_variants(network: Network, samples: Samples, variants: Tensor, mapped: bool) -> Tensor:
    """Score variants (variant, sample, ...) of the layer's output: (target, variant, sample)."""

    def one(raw: Tensor) -> Tensor:
        return network.scores_of(samples.head(raw), samples.targets)

    if not mapped:
        return torch.stack([one(raw) for raw in variants], 1)
    with warnings.catch_warnings():
        # operations that vmap must loop over, such as fused attention, are right as well
        warnings.filterwarnings("ignore", message="There is a performance drop")
        return vmap(one, out_dims=1)(variants)


def can_be_mapped(network: Network, example: Inputs) -> bool:
    """Find out whether vmap knows all that lies above the layer: it has no rule for an LSTM."""
    samples = network.first(example)
    try:
        with torch.no_grad():
            score_variants(network, samples, samples.raw[None], mapped=True)
    except RuntimeError:
        return False
    return True


class Layers:
    """The same perturbation of several layers: gives a tuple of `Weighted`."""

    def __init__(self, parts: tuple[Perturbation, ...]):
        self._parts = parts

    def __repr__(self) -> str:
        return repr(self._parts)

    def __call__(self, inputs: Inputs, target: Target = None) -> tuple[Weighted, ...]:
        """Return one `Weighted` for each layer."""
        return tuple(part(inputs, target) for part in self._parts)


def each_layer(build: Callable[[Layer | None], Perturbation], layer: Any) -> Any:
    """Build the perturbation of one layer, or of each of a sequence of layers."""
    if layer is None or isinstance(layer, str | nn.Module):
        return build(layer)
    if not layer or len({*layer}) < len(layer):
        raise ValueError(
            f"ifa.perturb: expected distinct layers, at least one, got {layer!r}. "
            "List the names with ifa.trace(model, example)."
        )
    return Layers(tuple(build(one) for one in layer))


def _kept(sites: Sites, device: torch.device) -> int:
    """Return of how many samples all that lies below a layer may be kept, to be replayed."""
    sizes = (math.prod(site.shape) * site.dtype.itemsize for site in sites.values())
    return max(1, 4 * budget(device) // max(1, sum(sizes)))


def _fitting(sites: Sites, above: str | None, device: torch.device) -> int:
    """Return how many variants of the input, or of the output of a layer, run at once."""
    if above is None:
        return fitting(sites.values(), device)
    running = list(sites.values())[list(sites).index(above) :]
    # a variant of what a layer returns is written, laid out and copied before it is read
    return max(1, fitting(running, device) // 4)
