"""What can be kept of a population besides its importances, by the names `ifa.analyze` takes."""

from typing import Any

from torch import Tensor

from ifa.reduce.core import grouped, mapped
from ifa.reduce.covariances import CovarianceState, covariance
from ifa.reduce.histograms import HistogramState, histogram
from ifa.reduce.population import Observed, PopulationState, finite
from ifa.reduce.tops import Cooccurrence, Ranked, TopSamples, cooccurrence, top_samples
from ifa.types import Reduction

# Share of the channels that co-occurrence takes for the top of a sample; samples of each channel.
TOP_CHANNELS = 0.1
TOP_SAMPLES = 10

# Name -> what its state is. The first two are by group and target, the others by group.
STATES: dict[str, Any] = {
    "population": PopulationState,
    "histogram": HistogramState,
    "top_samples": TopSamples,
    "covariance": CovarianceState,
    "cooccurrence": Cooccurrence,
}
BY_TARGET = ("population", "histogram", "top_samples")
EXTRAS = tuple(name for name in STATES if name != "population")


def extra(name: str, *, targets: int, groups: int, channels: int) -> Reduction:
    """Make the reduction of that name: `Observed` batches, of which accepted entries count."""
    if name == "top_samples":
        return mapped(_ranked(targets), grouped(top_samples(TOP_SAMPLES), size=groups * targets))
    if name == "histogram":
        return mapped(_values(targets), grouped(histogram(), size=groups * targets))
    top = max(1, round(TOP_CHANNELS * channels))
    plain = covariance() if name == "covariance" else cooccurrence(top=top)
    return mapped(_values(None), grouped(plain, size=groups))


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
