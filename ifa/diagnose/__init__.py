"""What the statistics say: one file for each diagnosis, from stored tables to a labelled result."""

from ifa.diagnose.correlations import redundancy as redundancy
from ifa.diagnose.differences import agreement as agreement
from ifa.diagnose.distances import outliers as outliers
from ifa.diagnose.distributions import shift as shift
from ifa.diagnose.feature_curves import feature_curve as feature_curve
from ifa.diagnose.probes import confounders as confounders
from ifa.diagnose.subsets import principal_features as principal_features
from ifa.diagnose.summaries import summary as summary

__all__ = [
    "agreement",
    "confounders",
    "feature_curve",
    "outliers",
    "principal_features",
    "redundancy",
    "shift",
    "summary",
]
