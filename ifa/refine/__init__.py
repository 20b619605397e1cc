"""A map made sharper, with the image's or a decoder's help."""

from ifa.refine.contours import blurred as blurred
from ifa.refine.contours import edges as edges
from ifa.refine.growing import grown as grown
from ifa.refine.guided_filter import guided as guided
from ifa.refine.holes import filled as filled
from ifa.refine.interest import region_of_interest as region_of_interest
from ifa.refine.joint_bilateral import bilateral as bilateral
from ifa.refine.merging import blended as blended
from ifa.refine.merging import cropped as cropped
from ifa.refine.peaks import focal_points as focal_points
from ifa.refine.pipelines import Refined as Refined
from ifa.refine.pipelines import Seeded as Seeded
from ifa.refine.pipelines import pipeline as pipeline
from ifa.refine.pipelines import seeded as seeded

__all__ = [
    "Refined",
    "Seeded",
    "bilateral",
    "blended",
    "blurred",
    "cropped",
    "edges",
    "filled",
    "focal_points",
    "grown",
    "guided",
    "pipeline",
    "region_of_interest",
    "seeded",
]
