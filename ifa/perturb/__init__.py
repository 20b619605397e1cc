"""Weightings that run the model again: ``(inputs, target=None) -> Weighted``.

Each sample is explained alone, so that neither its neighbours nor the batch size can change its
weights, and `chunk` bounds the memory whatever the batch.
"""

from ifa.perturb.ablationcam import ablationcam as ablationcam
from ifa.perturb.iscam import iscam as iscam
from ifa.perturb.scorecam import scorecam as scorecam
from ifa.perturb.smooth_gradcam_plus_plus import (
    smooth_gradcam_plus_plus as smooth_gradcam_plus_plus,
)
from ifa.perturb.sscam import sscam as sscam

__all__ = ["ablationcam", "iscam", "scorecam", "smooth_gradcam_plus_plus", "sscam"]
