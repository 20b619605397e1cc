"""Dictionaries on disk: safetensors, or Zarr."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ifa.basis.dictionaries import Dictionary, check_dictionary

_TITLE = "ifa.basis.Dictionary"
_DIMS = (("atom", "channel"), ("atom", "channel"), ("channel",), ("atom",), (), (), ("byte",))


def save(dictionary: Dictionary, path: str | os.PathLike[str]) -> None:
    """Write a dictionary to a file or folder, which must not be there yet.

    Parameters
    ----------
    dictionary
        What to write, of any device.
    path
        ``NAME.safetensors``, or ``NAME.zarr``, a Zarr group with an array for each field.

    Raises
    ------
    FileExistsError
        If there is something already; it is left alone.
    ValueError
        If the path ends in neither, or it is no dictionary.

    Examples
    --------
    >>> import ifa, tempfile, torch
    >>> one = ifa.basis.Dictionary(torch.eye(2), torch.eye(2), torch.zeros(2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     ifa.basis.save(one, folder + "/basis.safetensors")
    ...     ifa.basis.digest(ifa.basis.load(folder + "/basis.safetensors")) == ifa.basis.digest(one)
    True
    """
    where, home = "ifa.basis.save", Path(path)
    check_dictionary(where, dictionary)
    kind = _kind(where, home)
    if home.exists():
        raise FileExistsError(f"{where}: expected nothing at {home}. Nothing was touched.")
    # a copy of each: of an orthonormal one both matrices are the same memory
    parts = {
        name: part.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, part in _named(dictionary).items()
    }
    temporary = home.with_name(f".{home.name}.{os.getpid()}.part")
    try:
        if kind == ".safetensors":
            from safetensors.torch import save as written

            temporary.write_bytes(written(parts, {"format": _TITLE}))
        else:
            _write_group(temporary, parts)
        os.replace(temporary, home)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        temporary.unlink(missing_ok=True)


def load(path: str | os.PathLike[str]) -> Dictionary:
    """Read a dictionary that `save` wrote.

    Parameters
    ----------
    path
        Its file or folder.

    Returns
    -------
    Dictionary
        On the CPU, to the bit as it was.

    Raises
    ------
    ValueError
        If it is none.

    Examples
    --------
    See `save`.
    """
    where, home = "ifa.basis.load", Path(path)
    read = _read_file if _kind(where, home) == ".safetensors" else _read_group
    try:
        parts = read(home)
        found = Dictionary(**parts)
    except Exception as error:
        raise ValueError(
            f"{where}: expected a dictionary that ifa.basis.save wrote at {home}, got "
            f"{type(error).__name__}: {error}."
        ) from error
    return check_dictionary(where, found)


def _kind(where: str, path: Path) -> str:
    if path.suffix not in (".safetensors", ".zarr"):
        raise ValueError(
            f"{where}: expected a path that ends in .safetensors or .zarr, got {path}."
        )
    return path.suffix


def _named(dictionary: Dictionary) -> dict[str, torch.Tensor]:
    parts = dictionary._asdict()
    return {name: part for name, part in parts.items() if name != "names" or part.numel()}


def _write_group(path: Path, parts: dict[str, torch.Tensor]) -> None:
    import zarr

    group = zarr.open_group(path, mode="w-", zarr_format=3)
    group.attrs["title"] = _TITLE
    for (name, part), dims in zip(parts.items(), _DIMS, strict=False):
        group.create_array(name, data=part.numpy(), dimension_names=dims[: part.ndim])


def _read_group(path: Path) -> dict[str, torch.Tensor]:
    import zarr

    group: Any = zarr.open_group(path, mode="r", zarr_format=3)
    return {name: torch.from_numpy(np.array(group[name][...])) for name in group.array_keys()}


def _read_file(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load as read

    return read(path.read_bytes())
