"""CAM weightings: pure functions ``(activations, gradients) -> weights`` of one example."""

from ifa.weight.bagcam import bagcam as bagcam
from ifa.weight.classifier import cam as cam
from ifa.weight.eigencam import eigencam as eigencam
from ifa.weight.eigencam import eigengradcam as eigengradcam
from ifa.weight.elementwise_gradcam import elementwise_gradcam as elementwise_gradcam
from ifa.weight.gradcam import gradcam as gradcam
from ifa.weight.gradcam_plus_plus import gradcam_plus_plus as gradcam_plus_plus
from ifa.weight.hirescam import fullcam as fullcam
from ifa.weight.hirescam import hirescam as hirescam
from ifa.weight.layercam import layercam as layercam
from ifa.weight.randomcam import randomcam as randomcam
from ifa.weight.xgradcam import xgradcam as xgradcam

__all__ = [
    "bagcam",
    "cam",
    "eigencam",
    "eigengradcam",
    "elementwise_gradcam",
    "fullcam",
    "gradcam",
    "gradcam_plus_plus",
    "hirescam",
    "layercam",
    "randomcam",
    "xgradcam",
]
