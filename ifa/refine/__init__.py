"""A map made sharper, with the image's or a decoder's help."""

from ifa.refine.adapters import segmented as segmented
from ifa.refine.adapters import upsampled as upsampled
from ifa.refine.augmenting import affine as affine
from ifa.refine.class_maps import Decoded as Decoded
from ifa.refine.class_maps import Halved as Halved
from ifa.refine.class_maps import high as high
from ifa.refine.class_maps import low as low
from ifa.refine.class_maps import residual as residual
from ifa.refine.comparing import differing as differing
from ifa.refine.contours import blurred as blurred
from ifa.refine.contours import edges as edges
from ifa.refine.decoders import Full as Full
from ifa.refine.decoders import full as full
from ifa.refine.footprints import Memory as Memory
from ifa.refine.footprints import memory as memory
from ifa.refine.growing import grown as grown
from ifa.refine.guided_filter import guided as guided
from ifa.refine.halves import Half as Half
from ifa.refine.halves import half as half
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
from ifa.refine.training import Trained as Trained
from ifa.refine.training import trained as trained

__all__ = [
    "Decoded",
    "Full",
    "Half",
    "Halved",
    "Memory",
    "Refined",
    "Seeded",
    "Trained",
    "affine",
    "bilateral",
    "blended",
    "blurred",
    "cropped",
    "differing",
    "edges",
    "filled",
    "focal_points",
    "full",
    "grown",
    "guided",
    "half",
    "high",
    "low",
    "memory",
    "pipeline",
    "region_of_interest",
    "residual",
    "seeded",
    "segmented",
    "trained",
    "upsampled",
]
