"""Which outputs a call asks for: targets as integers, checked once, and predictions."""

from typing import Any

import torch
from torch import Tensor
from torch.func import debug_unwrap

from ifa.score.rows import rows_of
from ifa.types import Score, Target


def as_targets(
    where: str,
    target: Target,
    samples: int,
    outputs: int | None,
    device: torch.device,
    score: Score | None = None,
) -> Tensor | None:
    """Return targets as (sample,) or (target, sample) int64; None stays None, others raise.

    Those of a score with a table are numbers of its rows.
    """
    rows = rows_of(score)
    if target is None and rows is not None:
        raise ValueError(
            f"{where}: expected a target, the row of the score's table that each sample is asked "
            f"about, 0..{len(rows.classes) - 1}, got None. Where each has its own, in order, give "
            f"target=torch.arange({samples})."
        )
    if target is None:
        return None
    said = f"the model's {outputs} outputs"
    if rows is not None:
        outputs = len(rows.classes)
        said = f"the {outputs} rows of the score's table"
    one = target if type(target) is int else None
    target = torch.as_tensor(target)
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise TypeError(f"{where}: expected integer targets, got {target.dtype}.")
    if target.ndim == 0:
        target = target.expand(samples)
    if target.ndim > 2 or target.shape[-1] != samples or target.numel() == 0:
        raise ValueError(
            f"{where}: expected target to be an int, ({samples},) or (target, {samples}) for "
            f"{samples} inputs, got {tuple(target.shape)}. Give one target for each sample."
        )
    # values are unknown inside a transform that maps over targets
    if outputs is not None and debug_unwrap(target) is target:
        # of one number, nothing waits for a device
        low, high = (one, one) if one is not None else torch.stack(target.aminmax()).tolist()
        if low < 0 or high >= outputs:
            raise ValueError(
                f"{where}: expected targets in 0..{outputs - 1}, {said}, got "
                f"{low if low < 0 else high}."
            )
    return target.to(device, torch.int64)


def predicted(where: str, output: Any) -> Tensor:
    """Return the largest output of each sample, (sample,) int64."""
    if isinstance(output, Tensor) and output.ndim == 1:
        return torch.zeros_like(output, dtype=torch.int64)
    if isinstance(output, Tensor) and output.ndim == 2:
        return output.detach().argmax(1)
    came = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    raise ValueError(
        f"{where}: expected a target, because the prediction is defined only for outputs "
        f"(sample, output), got {came}. Give target=, or pick another output with output=."
    )
