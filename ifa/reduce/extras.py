"""What is kept of a population besides the importance of targets, by name."""

from typing import Any

from torch import Tensor

from ifa.reduce.core import grouped, mapped
from ifa.reduce.covariances import CovarianceState, covariance
from ifa.reduce.histograms import HistogramState, histogram
from ifa.reduce.moments import WeightedState, WeightedValues, weighted_moments
from ifa.reduce.population import Observed, PopulationState, finite, weighed
from ifa.reduce.tops import Cooccurrence, Ranked, TopSamples, cooccurrence, top_samples
from ifa.types import Reduction

# Share of the channels that co-occurrence takes for the top of a sample; samples of each channel.
TOP_CHANNELS = 0.1
TOP_SAMPLES = 10

# Name -> what its state is.
STATES: dict[str, Any] = {
    "population": PopulationState,
    "overall": WeightedState,
    "overall_by_target": WeightedState,
    "histogram": HistogramState,
    "top_samples": TopSamples,
    "covariance": CovarianceState,
    "cooccurrence": Cooccurrence,
}
# By group and target; the others are by group.
BY_TARGET = ("population", "overall_by_target", "histogram", "top_samples")
EXTRAS = tuple(STATES)[3:]


def extra(name: str, *, targets: int, groups: int, channels: int) -> Reduction:
    """Make the reduction of that name, over `Observed` batches."""
    if name == "overall":
        return mapped(_expected(None), grouped(weighted_moments(), size=groups))
    if name == "overall_by_target":
        return mapped(_expected(targets), grouped(weighted_moments(), size=groups * targets))
    if name == "top_samples":
        return mapped(_ranked(targets), grouped(top_samples(TOP_SAMPLES), size=groups * targets))
    if name == "histogram":
        return mapped(_values(targets), grouped(histogram(), size=groups * targets))
    top = max(1, round(TOP_CHANNELS * channels))
    plain = covariance() if name == "covariance" else cooccurrence(top=top)
    return mapped(_values(None), grouped(plain, size=groups))


def _expected(targets: int | None) -> Any:
    """Take what is expected of a sample whose class is not looked at.

    That is the accepted entries of all targets together; or for each target the entries of every
    sample that is predicted as its label, whether or not that label is the target.
    """

    def taken(batch: Observed) -> tuple[WeightedValues, Tensor]:
        chosen = batch.accepted if targets is None else batch.correct
        good = chosen & finite(batch.map_max, batch.map_min, batch.importance)
        cell = batch.group if targets is None else batch.group * targets + batch.target
        return weighed(batch, good), cell[good]

    return taken


def _values(targets: int | None) -> Any:
    """Take the accepted importances with their cell, or without targets their group."""

    def taken(batch: Observed) -> tuple[Tensor, Tensor]:
        good = _good(batch)
        cell = batch.group if targets is None else batch.group * targets + batch.target
        return batch.importance[good], cell[good]

    return taken


def _ranked(targets: int) -> Any:
    def taken(batch: Observed) -> tuple[Ranked, Tensor]:
        values, cell = _values(targets)(batch)
        return Ranked(values, batch.sample[_good(batch)]), cell

    return taken


def _good(batch: Observed) -> Tensor:
    return batch.accepted & finite(batch.map_max, batch.map_min, batch.importance)
