"""What half and full networks are trained for."""

from typing import Any

from torch import Tensor
from torch.nn.functional import cross_entropy

from ifa.network.inputs import at, grid_place


def classified(seen: Any, inputs: Any, labels: Tensor) -> Tensor:
    """Cross entropy: the usual loss of a half."""
    del inputs
    return cross_entropy(seen.logits, labels)


def rebuilt(seen: Any, inputs: Any, labels: Tensor) -> Tensor:
    """Squared error of the image, and a cross entropy that is constant here: the public code's."""
    return _image_error(seen, inputs) + cross_entropy(seen.logits, labels)


def agreeing(seen: Any, inputs: Any, labels: Tensor) -> Tensor:
    """Squared errors of the image, and of the pooled channels as a share of the head's."""
    del labels
    low = seen.low.detach()
    off = (seen.pooled - low).square().mean()
    return _image_error(seen, inputs) + off / low.square().mean().clamp(min=1e-12)


def _image_error(seen: Any, inputs: Any) -> Tensor:
    image = at(inputs, grid_place("ifa.refine.trained", inputs))
    return (seen.image - image).square().mean()
