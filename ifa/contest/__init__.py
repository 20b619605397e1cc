"""Which method is any good here: methods against metrics over a population."""

from ifa.contest.driver import table as table
from ifa.contest.methods import cam_methods as cam_methods
from ifa.contest.methods import noise_map as noise_map
from ifa.contest.metrics import default_metrics as default_metrics
from ifa.contest.summaries import summary as summary

__all__ = ["cam_methods", "default_metrics", "noise_map", "summary", "table"]
