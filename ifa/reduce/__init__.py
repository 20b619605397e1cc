"""Reductions: batches to mergeable states to statistics."""

from ifa.reduce.core import fold as fold
from ifa.reduce.core import from_monoid as from_monoid
from ifa.reduce.core import grouped as grouped
from ifa.reduce.core import mapped as mapped
from ifa.reduce.core import zipped as zipped
from ifa.reduce.extrema import extrema as extrema
from ifa.reduce.moments import moments as moments
from ifa.reduce.population import population as population
from ifa.reduce.population import summarize as summarize
from ifa.reduce.quantiles import quantiles as quantiles
from ifa.reduce.statistics import difference as difference

__all__ = [
    "difference",
    "extrema",
    "fold",
    "from_monoid",
    "grouped",
    "mapped",
    "moments",
    "population",
    "quantiles",
    "summarize",
    "zipped",
]
