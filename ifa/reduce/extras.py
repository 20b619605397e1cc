"""What an analysis keeps, by name: in any case, or where it is asked for."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ifa.network.tokens import callable_token
from ifa.reduce.covariances import COVARIANCE
from ifa.reduce.histograms import HISTOGRAM
from ifa.reduce.kept import Observed, Shape, Statistic, Variable, as_it_is, in_cells
from ifa.reduce.moments import weighted_moments
from ifa.reduce.population import POPULATION, weighed
from ifa.reduce.residuals import RESIDUAL
from ifa.reduce.second_moments import SECOND_MOMENTS
from ifa.reduce.tops import COOCCURRENCE, TOP_SAMPLES
from ifa.types import Reduction

# What `ifa.analyze(reductions=)` takes by name.
EXTRAS: dict[str, Statistic] = {
    "histogram": HISTOGRAM,
    "top_samples": TOP_SAMPLES,
    "covariance": COVARIANCE,
    "cooccurrence": COOCCURRENCE,
    "second_moments": SECOND_MOMENTS,
}


def _pooled(shape: Shape) -> Reduction:
    return in_cells(weighted_moments(), shape, "group", weighed)


def _of_any_label(shape: Shape) -> Reduction:
    return in_cells(weighted_moments(), shape, "target", weighed, _correct)


def _correct(batch: Observed) -> Tensor:
    return batch.correct


# What is expected of a sample whose class is not looked at; the second for a list of targets.
_OVERALL = "importance_overall"
_PLACES = ("mean importance over accepted samples of all targets", "score")
OVERALL = Statistic(
    _pooled, {_OVERALL: Variable("mean", ("group", "channel"), *_PLACES)}, by="group"
)
_PLACES = ("mean importance over correctly predicted samples of any label", "score")
OVERALL_BY_TARGET = Statistic(
    _of_any_label,
    {_OVERALL: Variable("mean", ("group", "target", "channel"), *_PLACES)},
    by="target",
)


def always(listed: bool, atoms: bool = False) -> dict[str, Statistic]:
    """Return what is kept in any case, with a list of targets or without, of atoms or channels."""
    found = {"population": POPULATION, "overall": OVERALL_BY_TARGET if listed else OVERALL}
    return {**found, "residual": RESIDUAL} if atoms else found


def asked(where: str, reductions: Any) -> dict[str, Statistic]:
    """Return what `reductions` asks for, ours in our order and then the user's."""
    if isinstance(reductions, Mapping):
        names = [name for name, value in reductions.items() if value in (name, EXTRAS.get(name))]
        own = {name: value for name, value in reductions.items() if name not in names}
    else:
        own, names = {}, [reductions] if isinstance(reductions, str) else list(reductions)
    if not set(names) <= set(EXTRAS) or len(set(names)) < len(names):
        raise ValueError(
            f"{where}: expected distinct reductions of {tuple(EXTRAS)}, or a mapping of names to "
            f"ifa.Reduction, got {names}."
        )
    found = {name: statistic for name, statistic in EXTRAS.items() if name in names}
    for name, value in own.items():
        if not isinstance(value, Reduction | Statistic):
            raise TypeError(
                f"{where}: expected reductions[{name!r}] to be an ifa.Reduction or an "
                f"ifa.reduce.Statistic, got {value!r}."
            )
        found[name] = value if isinstance(value, Statistic) else as_it_is(value)
        _check_free(where, name, found[name])
    return found


def tokens(statistics: Mapping[str, Statistic]) -> dict[str, Any]:
    """Identify what is asked for: ours by name, the user's by all that determines it."""
    return {
        name: None if EXTRAS.get(name) is one else callable_token([*vars(one).values()])
        for name, one in statistics.items()
    }


# Names in a layer's dataset that are not of a variable.
_LABELS = ("group", "target", "target_name", "channel", "atom", "quantile", "run")


def _check_free(where: str, name: Any, statistic: Statistic) -> None:
    """Raise where a name is no word, or that of something else in a layer's dataset."""
    ours = (*always(False, True).values(), *EXTRAS.values())
    taken = {*_LABELS, *(key for one in ours for key in (*(one.variables or ()), *one.coords))}
    found = [*(statistic.variables or ()), *statistic.coords]
    clash = taken & set(found)
    if statistic.variables is None:  # they begin with its name
        clash = {one for one in taken if f"{one}_".startswith(f"{name}_")}
    if (
        clash
        or name in ("population", "overall", "residual", *EXTRAS)
        or not str(name).isidentifier()
    ):
        raise ValueError(
            f"{where}: expected names of reductions, and of their variables, that are words and "
            f"none of the statistics', got {name!r}. {sorted(clash or taken)} are taken."
        )
