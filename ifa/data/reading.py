"""One file of any known kind: pictures, arrays, volumes; and what reading them needs installed."""

import importlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ifa.data.decoding import file_input, in_mode, prepared

Mode = Literal["RGB", "L"]
Spacing = float | tuple[float, float, float] | None
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
VOLUMES = (".nii", ".nii.gz")
ARRAYS = (".npy",)
KINDS = (*PICTURES, *ARRAYS, *VOLUMES)


@dataclass(frozen=True)
class Decoder:
    """Read a file: a picture of PIL, an array, or the tensor of a volume."""

    where: str  # what errors name
    mode: Mode | None = None
    orient: str | None = "RAS"
    spacing: Spacing = None

    def __call__(self, path: str) -> Any:
        if is_kind(path, VOLUMES):
            from ifa.data.volumetric import read_volume

            return read_volume(self.where, self.orient, self.spacing, path)
        if is_kind(path, ARRAYS):
            return read_array(self.where, path)
        return read_picture(self.where, self.mode, path)

    def geometry(self, path: str) -> Any:
        """Return the geometry of a volume."""
        from ifa.data.volumetric import opened

        if not is_kind(path, VOLUMES):
            raise TypeError(f"{self.where}: expected a volume, which has a geometry, got {path}.")
        return opened(self.where, self.orient, self.spacing, path).geometry


@dataclass(frozen=True)
class Files:
    """Read files by their index: paths, and not their contents."""

    paths: tuple[str, ...]
    root: str
    decode: Decoder

    def __call__(self, index: int) -> tuple[Any, None, None]:
        return self.decode(self.path(index)), None, None

    def path(self, index: int) -> str:
        """Return where a file is."""
        return os.path.join(self.root, self.paths[index])

    def geometry(self, index: int) -> Any:
        """Return the geometry of a volume."""
        return self.decode.geometry(self.path(index))


def needed(where: str, module: str, what: str) -> ModuleType:
    """Import what is installed only with the extra `io`."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ImportError(
            f"{where}: expected {module.partition('.')[0]} to read {what}, but it is not "
            "installed. pip install 'ifa[io]'"
        ) from None


def is_kind(path: str | os.PathLike[str], kinds: Sequence[str]) -> bool:
    """Tell whether a file's name ends as one of these kinds."""
    return os.fspath(path).lower().endswith(tuple(kind.lower() for kind in kinds))


def read_picture(where: str, mode: Mode | None, path: str) -> Any:
    """Read a picture, upright; one of 16 bits or of real numbers keeps its mode."""
    needed(where, "PIL", path)
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            # a camera's JPEG may hold a small copy of the picture
            pages = 1 if opened.format == "MPO" else getattr(opened, "n_frames", 1)
            upright = ImageOps.exif_transpose(opened)
            picture = in_mode(upright, mode)
            picture.load()
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{where}: expected a picture that can be read, got {path}: {error}. Mend it, or leave "
            "it out."
        ) from error
    if pages > 1:
        raise ValueError(
            f"{where}: expected one picture in each file, got {pages} in {path}. Write them one by "
            "one, or as an array (.npy)."
        )
    return picture


def read_array(where: str, path: str) -> np.ndarray:
    """Read an array as it is stored."""
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(
            f"{where}: expected an array of numbers, as numpy.save writes it, got {path}: {error}."
        ) from error


def read_inputs(
    paths: Sequence[str | os.PathLike[str]],
    *,
    mode: Mode | None = None,
    prepare: Callable[[Any], Any] | None = None,
) -> Tensor:
    r"""Read files of one shape as a batch, as `ifa.data` reads them.

    Parameters
    ----------
    paths
        Pictures: (1 or 3, y, x). ``.npy``: the array, which is (channel, \*space). NIfTI: (channel,
        z, y, x) in RAS.
    mode
        ``"RGB"`` or ``"L"`` takes all pictures as such; None takes each as it is, grey ones with
        one channel.
    prepare
        What makes an input of what was read, instead of the rule: see `ifa.data`.

    Returns
    -------
    (sample, channel, \*space)
        float32, by the rule of `ifa.data`, or as prepared.

    Raises
    ------
    TypeError
        If `prepare` returns no tensor.
    ValueError
        If a kind of file is not known, a file cannot be read, or shapes differ.
    ImportError
        If Pillow or nibabel is missing.
    """
    where = "ifa.data.read_inputs"
    for path in paths:
        if not is_kind(path, KINDS):
            raise ValueError(
                f"{where}: expected a picture ({', '.join(PICTURES)}), an array (.npy) or NIfTI "
                f"({', '.join(VOLUMES)}), got {os.fspath(path)}."
            )
    read = Decoder(where, mode)
    plain = partial(file_input, where, None)
    make = plain if prepare is None else lambda value: prepared(where, prepare(value))
    inputs = [make(read(os.fspath(path))) for path in paths]
    for path, one in zip(paths, inputs, strict=True):
        if not isinstance(one, Tensor):
            raise TypeError(
                f"{where}: expected prepare= to return one tensor, got {type(one).__name__} for "
                f"{path}. Take several through a data set of ifa.data."
            )
        if one.shape != inputs[0].shape:
            raise ValueError(
                f"{where}: expected inputs of one shape, got {tuple(one.shape)} in {path} and "
                f"{tuple(inputs[0].shape)} in {paths[0]}. Take them in two calls, or resize them."
            )
    return torch.stack(inputs)


def absolute(root: str | os.PathLike[str]) -> str:
    """Return a folder's place, whatever the working directory will be."""
    return str(Path(os.path.abspath(root)))
