"""CAM weightings: pure functions ``(activations, gradients) -> weights`` of one example."""

from ifa.weight.gradcam import gradcam as gradcam
from ifa.weight.hirescam import fullcam as fullcam
from ifa.weight.hirescam import hirescam as hirescam
from ifa.weight.layercam import layercam as layercam

__all__ = ["fullcam", "gradcam", "hirescam", "layercam"]
