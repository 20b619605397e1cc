"""A network, its layers and a method, made ready: what `weight=` means wherever it is taken."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ifa.chains import batched, chain, describe
from ifa.declared import declared
from ifa.network.gradients import joined, spans
from ifa.network.probabilities import heed_shares
from ifa.network.replicas import plain
from ifa.score import logit
from ifa.score.rows import output_of
from ifa.stages import (
    check_method,
    combination_cancels,
    product,
    reads_gradients,
    weighing,
)
from ifa.taps.cautions import heed, heed_gaps
from ifa.taps.centers import centers
from ifa.taps.features import Observation, Tap, prepare
from ifa.taps.memory import remembered
from ifa.types import Features, Grid, Inputs, Output, Positions, Score, Step, Target, Weighted


class Weighing:
    """Inputs to what a step makes of the `Weighted` of each layer.

    Parameters
    ----------
    where
        What an error names: the public function.
    model, layers, example, score, grid, output, grid_of, compile
        As in `ifa.tap`.
    weight
        A kernel, a step or a builder; what it is is declared, see `ifa.step` and `ifa.builder`. No
        gradient is computed that it does not read.
    remember
        Keep for the network what was seen of it, see `ifa.taps.memory`.
    basis
        Names of the layers, and how many channels each has, to a step for each from `Features` to
        those that are weighed, see `ifa.project`; None for none. Then `weight` is a kernel.
    """

    def __init__(
        self,
        where: str,
        model: nn.Module,
        layers: Any,
        example: Inputs,
        weight: Any,
        *,
        score: Score = logit,
        grid: Grid | None = None,
        output: Output = None,
        grid_of: str | int | None = None,
        compile: bool = False,
        remember: bool = False,
        basis: Callable[[tuple[str, ...], tuple[int, ...]], Sequence[Step]] | None = None,
    ):
        check_method(where, "weight", weight)
        _check_kernel(where, weight, basis)
        reads = declared(weight, "reads")
        if reads == "model":
            weight = weight(model)
        laid: Any = {"grid": grid, "output": output, "grid_of": grid_of}
        picked = laid | {"output": output_of(score, output)}
        if remember:
            prepared = remembered(model, layers, example, **picked)
        else:
            prepared = prepare(model, layers, example, **picked, compile=compile)
        self._where, self._prepared, self._grid_of = where, prepared, grid_of
        self.finer = getattr(plain(model), "on_finer_grid", False)
        self._steps: tuple[Step, ...] = ()
        self._score = score
        self._built: tuple[Any, ...] = ()
        if reads == "inputs":
            options = {"score": score, **laid}
            bound = weight.keywords if isinstance(weight, partial) else {}
            self._score = bound.get("score", score)
            options = {name: value for name, value in options.items() if name not in bound}
            if grid_of is None:  # not every builder knows trees
                options.pop("grid_of", None)
            names = (site.layer for site in prepared.sites)
            self._built = tuple(weight(model, name, example, **options) for name in names)
        else:
            self._steps = (weighing(weight, where),) * len(prepared.sites)
        gradients = any(map(reads_gradients, self._steps))
        self.tap = Tap(prepared, score, output, gradients=gradients)
        if basis is not None:
            extents = tuple(shape[0] for shape in self.tap.shapes)
            turned = zip(basis(self.layers, extents), self._steps, strict=True)
            self._steps = tuple(chain(*pair) for pair in turned)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers."""
        return tuple(site.layer for site in self.tap.sites)

    def positions(self, example: Inputs) -> tuple[Positions, ...]:
        """Return where the units of each layer lie, found out once."""
        return centers(self._prepared, example, self._where, self._grid_of)

    def look(self, inputs: Inputs, target: Target = None) -> Observation:
        """Run a batch; the result has the features of each layer, and their weights.

        The weights are None where a builder makes them, which runs the network itself.
        """
        if self._steps:
            return self.tap.look(inputs, target, step=partial(_with_weights, self._steps))
        seen = self.tap.look(inputs, target)
        every = (seen.result,) if isinstance(seen.result, Features) else seen.result
        return seen._replace(result=tuple((one, None) for one in every))

    def observe(
        self,
        inputs: Inputs,
        target: Target = None,
        params: Mapping[str, Tensor] | None = None,
        *,
        step: Step | tuple[Step, ...],
        beside: Sequence[Step | None] = (),
        warn: str | None = None,
    ) -> Observation:
        """Run a batch; the result is a tuple, what `step` makes of each layer's `Weighted`.

        Parameters
        ----------
        inputs, target, params
            As a tap takes them.
        step
            From `Weighted` of one example; of several layers one for all or one for each.
        beside
            Of each layer a step from the `Features` of one example, or None; with one, the layer's
            result is a pair of what the two make. Not of builders.
        warn
            The public function that warns of zero gradients and of cancellation; None for no
            warning, as where they are counted.
        """
        steps = step if isinstance(step, tuple) else (step,) * len(self.tap.sites)
        if self._steps:
            note = partial(noted, places=self.finer)
            last = steps if warn is None else tuple(partial(note, one) for one in steps)
            each = tuple(map(chain, self._steps, last))
            if any(beside):
                each = tuple(map(partial, (_both,) * len(each), each, beside))
            each = partial(_each, each)
            seen = self.tap.look(inputs, target, params, each)
            cancelled: tuple[Tensor, ...] = ()
            if warn is not None:
                result, cancelled, places = zip(*seen.result, strict=True)
                seen = seen._replace(result=result)
                if self.finer:
                    heed_gaps(warn, self.layers, places, seen.explained.ndim)
            heed(self.tap, inputs, params, seen, cancelled, warn)
            return seen
        seen = self.tap.observe(inputs, target, step=_nothing)
        if warn is not None:
            heed_shares(warn, self._score, seen.output)
        built = (build(inputs, seen.target) for build in self._built)
        made = (one._replace(target=seen.explained) for one in built)
        return seen._replace(result=tuple(map(_applied, steps, made)))


def _check_kernel(where: str, weight: Any, basis: Any) -> None:
    """Raise where there is a basis for a weighting that cannot be in it."""
    if basis is not None and declared(weight, "kind", "kernel") != "kernel":
        raise TypeError(
            f"{where}: expected weight to be a kernel with basis=, such as ifa.weight.fullcam, "
            f"got {describe(weight)}. Put a step of your own behind the basis: "
            "weight=ifa.chain(ifa.project(dictionary), step)."
        )


def _both(step: Step, beside: Step | None, features: Features) -> Any:
    """Apply a step to the features of one example, and another beside it if there is one."""
    return step(features) if beside is None else (step(features), beside(features))


def _each(steps: tuple[Step, ...], features: Any) -> tuple[Any, ...]:
    """Apply steps to the features of one example, of one layer or several."""
    every = (features,) if isinstance(features, Features) else features
    return tuple(step(one) for step, one in zip(steps, every, strict=True))


def _with_weights(steps: tuple[Step, ...], features: Any) -> tuple[tuple[Features, Tensor], ...]:
    """Give the features of one example, of one layer or several, each with its weights."""
    every = (features,) if isinstance(features, Features) else features
    return tuple((one, step(one).weights) for step, one in zip(steps, every, strict=True))


def noted(step: Step, weighted: Weighted, *, places: bool = False) -> tuple[Any, Tensor, Tensor]:
    """Apply a step, and tell whether what it sums cancels, and if asked at which places it is."""
    somewhere = torch.zeros((), device=weighted.activations.device)
    if places:
        somewhere = (product(weighted) != 0).any(0)
    return step(weighted), combination_cancels(weighted), somewhere


def _nothing(features: Any) -> Tensor:
    return features.target if isinstance(features, Features) else features[0].target


def _applied(step: Step, weighted: Weighted) -> Any:
    """Apply a step to a batch, of many targets a few at a time."""
    one = weighted.activations[0]
    size = one.numel() * one.element_size()
    parts = (
        Weighted(*(field[span] for field in weighted)) for span in spans(weighted.target, size)
    )
    return joined([batched(step)(part) for part in parts])
