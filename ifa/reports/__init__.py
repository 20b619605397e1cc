"""The page one opens: a run, its samples and its maps in one file that needs nothing else."""

from ifa.reports.driver import Report as Report
from ifa.reports.driver import report as report

__all__ = ["Report", "report"]
