"""Weightings that run the model again: ``(inputs, target=None) -> Weighted``.

Samples and variants of them run together, `chunk` at once whatever the batch. A sample's weights
depend on no other sample; how many run together changes their rounding and nothing else.
"""

from ifa.perturb.ablationcam import ablationcam as ablationcam
from ifa.perturb.iscam import iscam as iscam
from ifa.perturb.reciprocam import reciprocam as reciprocam
from ifa.perturb.scorecam import scorecam as scorecam
from ifa.perturb.shapleycam import shapleycam as shapleycam
from ifa.perturb.smooth_gradcam_plus_plus import (
    smooth_gradcam_plus_plus as smooth_gradcam_plus_plus,
)
from ifa.perturb.sscam import sscam as sscam

__all__ = [
    "ablationcam",
    "iscam",
    "reciprocam",
    "scorecam",
    "shapleycam",
    "smooth_gradcam_plus_plus",
    "sscam",
]
