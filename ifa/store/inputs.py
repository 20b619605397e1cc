"""Pictures, arrays and volumes from files, as tensors (channel, *space)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

_PICTURES = (".png", ".jpg", ".jpeg")
_VOLUMES = (".nii", ".gz")


def read_input(path: Path) -> Tensor:
    r"""Read one input as float32.

    Parameters
    ----------
    path
        A PNG or JPEG: (1 or 3, y, x) in [0, 1], turned upright as its EXIF mark says. A ``.npy``
        file: the array as it is, (channel, \*space). NIfTI, where nibabel is installed: one
        channel, (1, z, y, x).

    Returns
    -------
    (channel, \*space)

    Raises
    ------
    ValueError
        If the kind of file is not known, or nibabel is missing.
    """
    kind = path.suffix.lower()
    if kind in _PICTURES:
        from PIL import Image, ImageOps

        with Image.open(path) as opened:
            upright = ImageOps.exif_transpose(opened)
            grey = upright.mode in ("1", "L", "LA", "I", "F", "I;16")
            pixels = np.asarray(upright.convert("L" if grey else "RGB"), dtype=np.float32) / 255
        return torch.from_numpy(
            pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0).copy()
        )
    if kind == ".npy":
        return torch.from_numpy(np.load(path, allow_pickle=False)).float()
    if kind in _VOLUMES:
        try:
            import nibabel  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise ValueError(
                f"ifa explain: expected nibabel to read {path}, but it is not installed. "
                "pip install nibabel."
            ) from None
        # NIfTI's axes are x y z; ours are z y x
        loaded: Any = nibabel.load(path)  # pyright: ignore[reportPrivateImportUsage]
        volume = np.asarray(loaded.dataobj, dtype=np.float32).T
        return torch.from_numpy(np.ascontiguousarray(volume))[None]
    raise ValueError(f"ifa explain: expected PNG, JPEG, npy or NIfTI, got {path}.")


def read_inputs(paths: Sequence[Path]) -> Tensor:
    """Read inputs of one shape as a batch.

    Parameters
    ----------
    paths
        Files, as `read_input` reads them.
    """
    inputs = [read_input(path) for path in paths]
    for path, one in zip(paths, inputs, strict=True):
        if one.shape != inputs[0].shape:
            raise ValueError(
                f"ifa explain: expected inputs of one shape, got {tuple(one.shape)} in {path} and "
                f"{tuple(inputs[0].shape)} in {paths[0]}. Explain them in two runs, or resize them."
            )
    return torch.stack(inputs)
