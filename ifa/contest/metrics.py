"""Metrics as the columns of a table: who is called with what, and which way is better."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.func import vmap

from ifa.evaluate.complexity import complexity
from ifa.evaluate.confidence import confidence
from ifa.evaluate.deletion import deletion
from ifa.evaluate.faithfulness_correlation import faithfulness_correlation
from ifa.evaluate.infidelity import infidelity
from ifa.evaluate.insertion import insertion
from ifa.evaluate.randomization import randomization
from ifa.evaluate.sensitivity import sensitivity
from ifa.evaluate.sparseness import sparseness

# Which way is better, of the columns that our metrics give by their own names.
BETTER = {
    "complexity": "lower",
    "confidence.drop": "lower",
    "confidence.gain": "higher",
    "confidence.increase": "higher",
    "deletion": "lower",
    "faithfulness_correlation": "higher",
    "infidelity": "lower",
    "insertion": "higher",
    "randomization": "lower",
    "sensitivity.max": "lower",
    "sensitivity.mean": "lower",
    "sparseness": "higher",
}


class Explained(NamedTuple):
    """What a metric can be asked of."""

    model: nn.Module
    inputs: Tensor
    maps: Tensor
    target: Tensor  # (sample,)
    explain: Callable[..., Tensor]  # (inputs, target) -> maps
    explain_of: Callable[..., Tensor] | None  # (model, inputs, target) -> maps


def default_metrics(*, slow: bool = False) -> dict[str, Callable[..., Any]]:
    """List metrics for `table`, with their defaults, by name.

    Parameters
    ----------
    slow
        Also those that explain anew, dozens of times: `sensitivity`, and `randomization`, which is
        the rank correlation with the maps of a network all of whose weights are random.

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
    return fast | ({"sensitivity": sensitivity, "randomization": _randomized} if slow else {})


def measuring(where: str, name: str, metric: Any) -> Callable[[Explained], Any]:
    """Tell by its arguments what a metric is called with."""
    asked = _positional(metric) if callable(metric) else []
    if asked[:3] == ["model", "inputs", "maps"]:
        return lambda seen: metric(seen.model, seen.inputs, seen.maps, seen.target)
    if asked[:3] == ["model", "explain", "inputs"]:
        return partial(_of_method, where, name, metric)
    if asked[:2] == ["attribution", "inputs"]:
        return lambda seen: metric(seen.explain, seen.inputs, seen.target)
    if asked == ["map"]:
        return lambda seen: vmap(metric)(seen.maps)
    raise TypeError(
        f"{where}: expected a metric of (model, inputs, maps, target), (model, explain, inputs, "
        f"target), (attribution, inputs, target) or (map), by these names, got {name!r} of "
        f"({', '.join(asked)}). Wrap it in a function with one of these signatures."
    )


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


def _of_method(where: str, name: str, metric: Callable[..., Any], seen: Explained) -> Any:
    if seen.explain_of is None:
        raise TypeError(
            f"{where}: expected methods (model, inputs, target) -> maps for {name!r}, which "
            "explains other networks, got one of (inputs, target)."
        )
    return metric(seen.model, seen.explain_of, seen.inputs, seen.target)


def takes_model(where: str, name: str, method: Any) -> bool:
    """Tell whether a method is (model, inputs, target) -> maps, or (inputs, target) -> maps."""
    asked = _positional(method) if callable(method) else []
    if asked[:1] == ["model"]:
        return True
    if not callable(method) or asked[:1] == []:
        raise TypeError(
            f"{where}: expected method {name!r} to be (model, inputs, target) -> maps or (inputs, "
            f"target) -> maps, got {method!r}. Take one of ifa.contest.cam_methods."
        )
    return False


def check_maps(where: str, name: str, maps: Any, samples: int) -> None:
    """Raise unless a method has given a map for each sample."""
    if not isinstance(maps, Tensor) or maps.ndim < 2 or len(maps) != samples:
        came = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
        raise ValueError(
            f"{where}: expected maps (sample, ...) of {samples} samples from method {name!r}, got "
            f"{came}."
        )


def _positional(function: Callable[..., Any]) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in inspect.signature(function).parameters.values() if p.kind in kinds]


def _randomized(
    model: nn.Module, explain: Callable[..., Tensor], inputs: Tensor, target: Tensor
) -> Tensor:
    return randomization(model, explain, inputs, target).spearman[-1]
