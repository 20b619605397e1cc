"""What functions on the host share: checks of maps, masks and options, to arrays and back."""

from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor


def check_fraction(where: str, name: str, value: Any) -> None:
    """Raise unless an option is a share of positions, above 0 and below 1."""
    if not isinstance(value, int | float | np.floating) or not 0 < value < 1:
        raise ValueError(
            f"{where}: expected {name} to be a share of positions, above 0 and below 1, got "
            f"{value!r}. Fifteen percent are 0.15."
        )


def numbers(where: str, name: str, values: Any) -> np.ndarray:
    """Take a map (*space) of one to three axes as float64; refuse what is not finite."""
    array = _array(where, name, values)
    if array.dtype == bool or not np.issubdtype(array.dtype, np.number) or np.iscomplexobj(array):
        raise TypeError(f"{where}: expected {name} of real numbers, got {array.dtype}.")
    if not 1 <= array.ndim <= 3 or not array.size:
        raise ValueError(
            f"{where}: expected {name} of one example, (*space) with one to three axes, got "
            f"{array.shape}. It runs on the host: call it for each example."
        )
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise ValueError(
            f"{where}: expected {name} to be finite, got {int((~np.isfinite(array)).sum())} of "
            f"{array.size} positions that are not. Leave such samples out."
        )
    return array


def truths(where: str, name: str, mask: Any) -> np.ndarray:
    """Take a mask (*space) of one to three axes."""
    array = _array(where, name, mask)
    if array.dtype != bool or not 1 <= array.ndim <= 3:
        raise ValueError(
            f"{where}: expected {name} as a boolean mask (*space) with one to three axes, got "
            f"{array.dtype} {array.shape}. Compare it to make one: {name} > 0."
        )
    return array


def _array(where: str, name: str, values: Any) -> np.ndarray:
    if not isinstance(values, Tensor):
        raise TypeError(f"{where}: expected {name} as a tensor, got {type(values).__name__}.")
    return (
        values.detach().cpu().float().numpy()
        if values.dtype == torch.bfloat16
        else (values.detach().cpu().numpy())
    )


def parts_of(mask: np.ndarray, *, diagonal: bool = False) -> tuple[np.ndarray, int]:
    """Number the parts of a mask from 1, joined through faces or through corners as well."""
    structure = np.ones((3,) * mask.ndim) if diagonal else None
    parts, count = ndimage.label(mask, structure)  # type: ignore[misc]
    return np.asarray(parts), int(count)


def back(array: np.ndarray, like: Tensor) -> Tensor:
    """Put an array where a tensor is."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(like.device)
