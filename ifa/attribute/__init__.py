"""Attributions: what each element of the input contributes, and transforms of such functions."""

from ifa.attribute.attention_rollout import attention_rollout as attention_rollout
from ifa.attribute.attributions import Attributed as Attributed
from ifa.attribute.blur_integrated_gradients import (
    blur_integrated_gradients as blur_integrated_gradients,
)
from ifa.attribute.fullgrad import fullgrad as fullgrad
from ifa.attribute.gradient_shap import gradient_shap as gradient_shap
from ifa.attribute.gradients import gradient as gradient
from ifa.attribute.gradients import input_times_gradient as input_times_gradient
from ifa.attribute.gradients import saliency as saliency
from ifa.attribute.guided_integrated_gradients import (
    guided_integrated_gradients as guided_integrated_gradients,
)
from ifa.attribute.integrated_gradients import integrated_gradients as integrated_gradients
from ifa.attribute.legrad import legrad as legrad
from ifa.attribute.noisy import smooth as smooth
from ifa.attribute.noisy import squared as squared
from ifa.attribute.noisy import variance as variance
from ifa.attribute.occlusion import occlusion as occlusion
from ifa.attribute.rectifiers import deconvnet as deconvnet
from ifa.attribute.rectifiers import guided_backprop as guided_backprop
from ifa.attribute.rise import rise as rise
from ifa.attribute.transforms import Split as Split
from ifa.attribute.transforms import collapse as collapse
from ifa.attribute.transforms import split as split
from ifa.attribute.transforms import times_input as times_input
from ifa.attribute.transforms import times_map as times_map

__all__ = [
    "Attributed",
    "Split",
    "attention_rollout",
    "blur_integrated_gradients",
    "collapse",
    "deconvnet",
    "fullgrad",
    "gradient",
    "gradient_shap",
    "guided_backprop",
    "guided_integrated_gradients",
    "input_times_gradient",
    "integrated_gradients",
    "legrad",
    "occlusion",
    "rise",
    "saliency",
    "smooth",
    "split",
    "squared",
    "times_input",
    "times_map",
    "variance",
]
