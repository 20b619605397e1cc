"""Mergeable states of one shard, as one file of arrays."""

import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ifa.store.files import write_atomically

Arrays = dict[str, np.ndarray]


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays, whole or not at all."""
    buffer = io.BytesIO()
    # compressed, because targets that a shard has not seen are zeros
    np.savez_compressed(buffer, **dict(arrays))  # pyright: ignore[reportArgumentType]
    write_atomically(path, lambda file: file.write(buffer.getvalue()))


def load_arrays(where: str, path: Path) -> Arrays:
    """Read them back; nothing in the file is executed."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{where}: expected the states of a shard in {path}, could not read them "
            f"({error}). Delete this file and run again: its samples are then done anew."
        ) from error
