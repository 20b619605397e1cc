"""Is the map any good: one file for each metric."""

from ifa.evaluate.agreement import Consistency as Consistency
from ifa.evaluate.agreement import consistency as consistency
from ifa.evaluate.agreement import correlation_interval as correlation_interval
from ifa.evaluate.coefficients import Interval as Interval
from ifa.evaluate.complexity import complexity as complexity
from ifa.evaluate.confidence import Confidence as Confidence
from ifa.evaluate.confidence import confidence as confidence
from ifa.evaluate.coverage import Coverage as Coverage
from ifa.evaluate.coverage import coverage as coverage
from ifa.evaluate.curves import Curve as Curve
from ifa.evaluate.decisions import decisions as decisions
from ifa.evaluate.deletion import deletion as deletion
from ifa.evaluate.discrimination import auroc as auroc
from ifa.evaluate.discrimination import auroc_interval as auroc_interval
from ifa.evaluate.faithfulness_correlation import (
    faithfulness_correlation as faithfulness_correlation,
)
from ifa.evaluate.feature_curves import FeatureCurve as FeatureCurve
from ifa.evaluate.feature_curves import feature_curve as feature_curve
from ifa.evaluate.feature_curves import feature_perturbation as feature_perturbation
from ifa.evaluate.hit_rate import hit_rate as hit_rate
from ifa.evaluate.infidelity import infidelity as infidelity
from ifa.evaluate.insertion import insertion as insertion
from ifa.evaluate.iou import iou as iou
from ifa.evaluate.kept_maps import map_similarity as map_similarity
from ifa.evaluate.pointing_game import pointing_game as pointing_game
from ifa.evaluate.randomization import Randomization as Randomization
from ifa.evaluate.randomization import randomization as randomization
from ifa.evaluate.randomized import randomized as randomized
from ifa.evaluate.relevance_mass import relevance_mass as relevance_mass
from ifa.evaluate.relevance_rank import relevance_rank as relevance_rank
from ifa.evaluate.reports import classification_report as classification_report
from ifa.evaluate.reports import consistency_report as consistency_report
from ifa.evaluate.retention import retention as retention
from ifa.evaluate.road import Road as Road
from ifa.evaluate.road import road as road
from ifa.evaluate.sensitivity import Sensitivity as Sensitivity
from ifa.evaluate.sensitivity import sensitivity as sensitivity
from ifa.evaluate.similarity import Similarity as Similarity
from ifa.evaluate.similarity import pearson as pearson
from ifa.evaluate.similarity import similarity as similarity
from ifa.evaluate.similarity import spearman as spearman
from ifa.evaluate.similarity import ssim as ssim
from ifa.evaluate.sparseness import sparseness as sparseness
from ifa.evaluate.specificity import target_specificity as target_specificity

__all__ = [
    "Confidence",
    "Consistency",
    "Coverage",
    "Curve",
    "FeatureCurve",
    "Interval",
    "Randomization",
    "Road",
    "Sensitivity",
    "Similarity",
    "auroc",
    "auroc_interval",
    "classification_report",
    "complexity",
    "confidence",
    "consistency",
    "consistency_report",
    "correlation_interval",
    "coverage",
    "decisions",
    "deletion",
    "faithfulness_correlation",
    "feature_curve",
    "feature_perturbation",
    "hit_rate",
    "infidelity",
    "insertion",
    "iou",
    "map_similarity",
    "pearson",
    "pointing_game",
    "randomization",
    "randomized",
    "relevance_mass",
    "relevance_rank",
    "retention",
    "road",
    "sensitivity",
    "similarity",
    "sparseness",
    "spearman",
    "ssim",
    "target_specificity",
]
