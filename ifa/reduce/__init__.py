"""Reductions: batches to mergeable states to statistics."""

from ifa.reduce.core import fold as fold
from ifa.reduce.core import from_monoid as from_monoid
from ifa.reduce.core import grouped as grouped
from ifa.reduce.core import mapped as mapped
from ifa.reduce.core import zipped as zipped
from ifa.reduce.covariances import covariance as covariance
from ifa.reduce.extrema import extrema as extrema
from ifa.reduce.histograms import histogram as histogram
from ifa.reduce.histograms import histogram_quantiles as histogram_quantiles
from ifa.reduce.kept import Observed as Observed
from ifa.reduce.kept import Shape as Shape
from ifa.reduce.kept import Statistic as Statistic
from ifa.reduce.kept import Variable as Variable
from ifa.reduce.moments import moments as moments
from ifa.reduce.moments import weighted_moments as weighted_moments
from ifa.reduce.population import population as population
from ifa.reduce.population import summarize as summarize
from ifa.reduce.quantiles import quantiles as quantiles
from ifa.reduce.second_moments import Rows as Rows
from ifa.reduce.second_moments import SecondMoments as SecondMoments
from ifa.reduce.second_moments import second_moments as second_moments
from ifa.reduce.statistics import difference as difference
from ifa.reduce.tops import cooccurrence as cooccurrence
from ifa.reduce.tops import top_samples as top_samples

__all__ = [
    "Observed",
    "Rows",
    "SecondMoments",
    "Shape",
    "Statistic",
    "Variable",
    "cooccurrence",
    "covariance",
    "difference",
    "extrema",
    "fold",
    "from_monoid",
    "grouped",
    "histogram",
    "histogram_quantiles",
    "mapped",
    "moments",
    "population",
    "quantiles",
    "second_moments",
    "summarize",
    "top_samples",
    "weighted_moments",
    "zipped",
]
