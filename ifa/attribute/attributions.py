"""What every attribution is: a pure function of inputs and targets over a private network."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ifa.baseline import space_axes
from ifa.checks import check_count
from ifa.network.inputs import Place, at, check_batch, floating, over, put, split, tensors_of
from ifa.network.scorers import Scorer
from ifa.stages import wide
from ifa.types import Inputs, Output, Score, Target


class Attributed(NamedTuple):
    """An attribution, and whether it accounts for all of what it explains."""

    values: Any  # the attribution
    total: Tensor  # (sample,) or (target, sample): what the contributions should sum to
    gap: Tensor  # the same: what they do sum to, less that


# along every space axis, or along each
Extent = int | Sequence[int]
# (inputs, targets (sample,) or (target, sample)) -> what has the axes of targets and of an input
Method = Callable[[Scorer, Any, Tensor], Any]
Observe = Callable[[Scorer, Any, Tensor], Attributed]


class Attribution:
    """A pure function ``(inputs, target=None) -> attribution``. Build it with `ifa.attribute`."""

    def __init__(
        self,
        scorer: Scorer,
        method: Method,
        options: str = "",
        *,
        chunked: bool = False,
        chunk: int | None = None,
    ):
        if chunk is not None:
            check_count(scorer.where, "chunk", chunk)
        self._scorer, self._method = scorer, method
        self._chunked, self._chunk = chunked, chunk
        parts = (options, f"{chunk=}" if chunked else "")
        self._options = "".join(f", {part}" for part in parts if part)

    def __repr__(self) -> str:
        name = self._scorer.where.rpartition(".")[2]
        return f"{name}({self._scorer!r}{self._options})"

    def __call__(self, inputs: Inputs, target: Target = None) -> Any:
        """Return the attribution of every sample, of every target where there are many.

        Of a tree it is one, with None where there is nothing attributed.
        """
        return self._method(self._scorer, inputs, self.targets(inputs, target))

    def targets(self, inputs: Inputs, target: Target = None) -> Tensor:
        """Return what is explained of these inputs, (sample,) or (target, sample) int64."""
        where = self._scorer.where
        check_batch(where, inputs)
        if not floating(inputs):
            raise TypeError(
                f"{where}: expected inputs of a floating dtype, got {tensors_of(inputs)[0].dtype}. "
                "Make the embedding the network's input."
            )
        if target is not None or not self._chunked:
            return self._scorer.targets(inputs, target)
        parts = split(inputs, at_once(self._scorer, inputs, self._chunk))
        return torch.cat([self._scorer.targets(part, None) for part in parts])


class Complete(Attribution):
    """An attribution whose contributions should sum to something known."""

    def __init__(
        self, scorer: Scorer, method: Method, observe: Observe, options: str = "", **chunks: Any
    ):
        super().__init__(scorer, method, options, **chunks)
        self._observe = observe

    def observe(self, inputs: Inputs, target: Target = None) -> Attributed:
        """Return the attribution with what it should sum to, and the gap that is left."""
        return self._observe(self._scorer, inputs, self.targets(inputs, target))


def scorer_of(name: str, model: nn.Module, score: Score, output: Output) -> Scorer:
    """Make the private network of an attribution."""
    where = f"ifa.attribute.{name}"
    check_model(where, model)
    return Scorer(where, model, score, output)


def check_model(where: str, model: Any) -> None:
    """Raise unless a model is a module."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"{where}: expected a torch.nn.Module, got {type(model).__name__}.")


def per_axis(where: str, name: str, given: Extent, limits: Sequence[int]) -> list[int]:
    """Return one whole number for each space axis, each at most its limit."""
    extents = [given] * len(limits) if isinstance(given, int) else list(given)
    for extent in extents:
        check_count(where, name, extent)
    if len(extents) != len(limits) or any(
        e > most for e, most in zip(extents, limits, strict=True)
    ):
        raise ValueError(
            f"{where}: expected {name} to be a whole number or one for each space axis, at most "
            f"{tuple(limits)}, got {given!r}."
        )
    return extents


def alike_over_channels(inputs: Any, place: Place, maps: Tensor) -> Any:
    """Give maps (*target, sample, *space) the shape of the tensor at a place; None elsewhere."""
    image = at(inputs, place)
    space = len(space_axes(image))
    lead = maps.shape[: maps.ndim - space]
    channels = image.shape[1 : image.ndim - space]
    shaped = maps.reshape(*lead, *(1,) * len(channels), *maps.shape[len(lead) :]).to(image.dtype)
    return put(inputs, place, shaped.expand(*lead, *image.shape[1:]).clone(), blank=True)


def at_once(scorer: Scorer, inputs: Inputs, chunk: int | None) -> int:
    """Return how many inputs run at once: the chunk, or as many as are fast."""
    return scorer.fitting(inputs) if chunk is None else chunk


def slopes(scorer: Scorer, inputs: Any, targets: Tensor) -> Any:
    """Return the gradient of the score; NaN where the score is, whatever rectifiers make of it."""
    gradients, scores = scorer.gradients(inputs, targets)
    return over(partial(spoilt, scores=scores), gradients)


def spoilt(values: Tensor, scores: Tensor) -> Tensor:
    """Return values with NaN for all of a sample and target whose score is NaN."""
    unknown = scores.isnan().reshape(*scores.shape, *(1,) * (values.ndim - scores.ndim))
    return values.masked_fill(unknown, math.nan)


def total(values: Any, axes: int) -> Tensor:
    """Sum over everything but the first axes, of all tensors."""
    sums = [wide(one).reshape(*one.shape[:axes], -1).sum(axes) for one in floating(values)]
    return sum(sums[1:], sums[0])
