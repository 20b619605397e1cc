"""The drivers over a whole population: analyze, merge, compare; and how sure its statistics are."""

from ifa.population.analysis import analyze as analyze
from ifa.population.mapping import maps as maps
from ifa.population.merging import compare as compare
from ifa.population.merging import merge as merge
from ifa.population.summaries import summary as summary
from ifa.population.uncertainty import Interval as Interval
from ifa.population.uncertainty import bootstrap as bootstrap
from ifa.population.uncertainty import stability as stability
from ifa.population.uncertainty import standard_error as standard_error

__all__ = [
    "Interval",
    "analyze",
    "bootstrap",
    "compare",
    "maps",
    "merge",
    "stability",
    "standard_error",
    "summary",
]
