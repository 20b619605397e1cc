"""Which method is any good here: methods against metrics over a population."""

from ifa.contest.driver import table as table
from ifa.contest.methods import LeftOut as LeftOut
from ifa.contest.methods import Usable as Usable
from ifa.contest.methods import cam_methods as cam_methods
from ifa.contest.methods import noise as noise
from ifa.contest.methods import usable as usable
from ifa.contest.methods import with_model as with_model
from ifa.contest.metrics import default_metrics as default_metrics
from ifa.contest.metrics import metric as metric
from ifa.contest.ranks import ranks as ranks
from ifa.contest.summaries import summary as summary

__all__ = [
    "LeftOut",
    "Usable",
    "cam_methods",
    "default_metrics",
    "metric",
    "noise",
    "ranks",
    "summary",
    "table",
    "usable",
    "with_model",
]
