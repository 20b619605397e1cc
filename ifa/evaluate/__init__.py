"""Is the map any good: one file for each metric."""

from ifa.evaluate.agreement import Consistency as Consistency
from ifa.evaluate.agreement import consistency as consistency
from ifa.evaluate.agreement import correlation_interval as correlation_interval
from ifa.evaluate.features import feature_perturbation as feature_perturbation

__all__ = ["Consistency", "consistency", "correlation_interval", "feature_perturbation"]
