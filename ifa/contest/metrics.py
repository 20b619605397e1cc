"""Metrics as the columns of a table: who is called with what, and which way is better."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple, TypeVar

from torch import Tensor, nn
from torch.func import vmap

from ifa.contest.methods import Method
from ifa.declared import declare, declared
from ifa.evaluate.complexity import complexity
from ifa.evaluate.confidence import confidence
from ifa.evaluate.deletion import deletion
from ifa.evaluate.faithfulness_correlation import faithfulness_correlation
from ifa.evaluate.infidelity import infidelity
from ifa.evaluate.insertion import insertion
from ifa.evaluate.randomized import randomized, replaced
from ifa.evaluate.road import road
from ifa.evaluate.sensitivity import sensitivity
from ifa.evaluate.sharing import Batch, once
from ifa.evaluate.similarity import spearman
from ifa.evaluate.sparseness import sparseness
from ifa.network.inputs import clone, take
from ifa.types import Inputs, Score

# Which way is better, of the columns that our metrics give by their own names.
BETTER = {
    "complexity": "lower",
    "confidence.drop": "lower",
    "confidence.gain": "higher",
    "confidence.increase": "higher",
    "confidence.predicted": "higher",
    "deletion": "lower",
    "faithfulness_correlation": "higher",
    "infidelity": "lower",
    "insertion": "higher",
    "randomization": "lower",
    "road": "higher",
    "sensitivity.max": "lower",
    "sensitivity.mean": "lower",
    "sparseness": "higher",
}


F = TypeVar("F", bound=Callable[..., Any])


class Explained(NamedTuple):
    """What a metric can be asked of."""

    model: nn.Module
    inputs: Inputs
    maps: Tensor
    target: Tensor  # (sample,)
    method: Method


def default_metrics(
    *, slow: bool = False, score: Score | None = None
) -> dict[str, Callable[..., Any]]:
    """List metrics for `table`, with their defaults, by name.

    Parameters
    ----------
    slow
        Also those that take long. Two explain anew: `sensitivity` 10 times, and `randomization`,
        the rank correlation with the maps of a network all of whose weights are random, once.
        `road` runs the network 8 times, where deletion and insertion do 38 times, and solves 8
        linear systems of as many unknowns as a sample has positions.
    score
        What those read that look at a score; None for their default, `ifa.score.probability`. Of
        one logit or several labels take `ifa.score.sigmoid`, of a network that ends in
        probabilities, or of real values, `ifa.score.value`.

    Returns
    -------
    dict
        Name -> metric.

    Examples
    --------
    >>> sorted(default_metrics())[:3]
    ['complexity', 'confidence', 'deletion']
    """
    fast = {
        "deletion": deletion,
        "insertion": insertion,
        "confidence": confidence,
        "faithfulness_correlation": faithfulness_correlation,
        "infidelity": partial(infidelity, normalized=True),
        "sparseness": sparseness,
        "complexity": complexity,
    }
    rest = {"road": road, "sensitivity": sensitivity, "randomization": _randomized}
    found = fast | (rest if slow else {})
    if score is None:
        return found
    return {
        name: one if score_of(one) is None else partial(one, score=score)
        for name, one in found.items()
    }


def score_of(function: Any) -> Any:
    """Return the score that a metric or method reads; None where it takes none."""
    if isinstance(function, partial):
        return function.keywords.get("score") or score_of(function.func)
    try:
        options = inspect.signature(function).parameters
    except (TypeError, ValueError):  # one of C, which does not say
        return None
    default = options["score"].default if "score" in options else None
    return None if default is inspect.Parameter.empty else default


def metric(*, takes: Literal["maps", "map", "attribution", "explain"]) -> Callable[[F], F]:
    """Make a decorator that declares what a metric of `table` is called with.

    Parameters
    ----------
    takes
        ``"maps"``: ``(model, inputs, maps, target)``, of a batch. ``"map"``: ``(map)``, of one
        sample. ``"attribution"``: ``(attribution, inputs, target)``, with the method itself as
        ``(inputs, target) -> maps``. ``"explain"``: ``(model, explain, inputs, target)``, with the
        method as ``(model, inputs, target) -> maps``.

    Returns
    -------
    callable
        The decorator. The metrics of `ifa.evaluate` are declared.

    Examples
    --------
    >>> import ifa
    >>> @ifa.contest.metric(takes="map")
    ... def largest(map):
    ...     return map.amax()
    """
    return declare(takes=takes)


def measuring(where: str, name: str, metric: Any) -> Callable[[Explained], Any]:
    """Return what calls a metric with what it is declared to take."""
    takes = declared(metric, "takes") if callable(metric) else None
    if takes not in _CALLS:
        raise TypeError(
            f"{where}: expected a metric that is declared, got {name!r}. Take one of ifa.evaluate, "
            f"or declare yours: @ifa.contest.metric(takes=...), one of {', '.join(_CALLS)}."
        )
    return partial(_CALLS[takes], where, name, metric)


def _of_maps(where: str, name: str, metric: Callable[..., Any], seen: Explained) -> Any:
    return metric(seen.model, seen.inputs, seen.maps, seen.target)


def _of_map(where: str, name: str, metric: Callable[..., Any], seen: Explained) -> Any:
    return vmap(metric)(seen.maps)


def _of_attribution(where: str, name: str, metric: Callable[..., Any], seen: Explained) -> Any:
    explain = partial(seen.method.explain, seen.model)
    return metric(explain, seen.inputs, seen.target, **_known(metric, seen))


def _of_explain(where: str, name: str, metric: Callable[..., Any], seen: Explained) -> Any:
    if seen.method.has_model:
        raise TypeError(
            f"{where}: expected methods that explain any network for {name!r}, got one of "
            "ifa.contest.with_model, which has its own. Leave one of the two out."
        )
    return metric(seen.model, seen.method.explain, seen.inputs, seen.target, **_known(metric, seen))


def _known(metric: Callable[..., Any], seen: Explained) -> dict[str, Any]:
    """Hand the maps to a metric that would explain the inputs as they are once more."""
    return {"maps": seen.maps} if declared(metric, "known") == "maps" else {}


_CALLS = {
    "maps": _of_maps,
    "map": _of_map,
    "attribution": _of_attribution,
    "explain": _of_explain,
}


def columns_of(where: str, name: str, value: Any, samples: int) -> dict[str, Tensor]:
    """Take what a metric gives for each sample: a tensor, or fields of a record by their names."""
    fields = value._asdict() if hasattr(value, "_asdict") else {"": value}
    found = {
        field: part.detach().double().cpu()
        for field, part in fields.items()
        if isinstance(part, Tensor) and part.shape == (samples,)
    }
    if not found:
        shapes = [tuple(getattr(part, "shape", ())) for part in fields.values()]
        raise ValueError(
            f"{where}: expected one number for each of {samples} samples from {name!r}, got "
            f"{shapes}. Wrap it in a function that takes what should be in the table."
        )
    if len(found) == 1:
        return {name: next(iter(found.values()))}
    return {f"{name}.{field}": part for field, part in found.items()}


def check_maps(where: str, name: str, maps: Any, samples: int) -> None:
    """Raise unless a method has given a map for each sample."""
    if not isinstance(maps, Tensor) or maps.ndim < 2 or len(maps) != samples:
        came = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
        raise ValueError(
            f"{where}: expected maps (sample, ...) of {samples} samples from method {name!r}, got "
            f"{came}."
        )


@declare(takes="explain", known="maps")
def _randomized(
    model: nn.Module,
    explain: Callable[..., Tensor],
    inputs: Inputs,
    target: Tensor,
    *,
    maps: Tensor,
) -> Tensor:
    """Take the last step of `ifa.evaluate.randomization`, of one network for all methods."""
    redrawn = once(Batch(model, inputs, target), ("redrawn",), lambda: _redrawn(model, inputs))
    return vmap(spearman)(maps, explain(redrawn, clone(inputs), target))


def _redrawn(model: nn.Module, inputs: Inputs) -> nn.Module:
    """Copy a network, all of whose weights are drawn anew."""
    steps = randomized(model, take(inputs, slice(1)))
    return replaced(model, list(steps.values())[-1], "ifa.contest.table")
