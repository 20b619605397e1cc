"""What a network is given: a batch of examples, checked against the one it was made with."""

from typing import Any

from torch import Tensor

from ifa.network.sites import refuse_inference_mode


def check_inputs(where: str, inputs: Any, shape: tuple[int, ...], maker: str) -> None:
    """Raise unless inputs are a batch of examples of a shape; `maker` is what to make anew."""
    refuse_inference_mode(where)
    if not isinstance(inputs, Tensor):
        raise TypeError(f"{where}: expected a batch as a tensor, got {type(inputs).__name__}.")
    if tuple(inputs.shape[1:]) != shape or len(inputs) == 0:
        raise ValueError(
            f"{where}: expected inputs (sample, {', '.join(map(str, shape))}) like the example the "
            f"{maker} was made with, got {tuple(inputs.shape)}. "
            f"Make another {maker} for another shape."
        )
