"""Files that are there whole or not at all, and their digests."""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

TEMPORARY = ".tmp"


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file so that a kill at any moment leaves it whole or absent: data, name, directory."""
    temporary = temporary_beside(path)
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def build_atomically(path: Path, build: Callable[[Path], object]) -> None:
    """Build a directory elsewhere and move it into place; it must not be there yet."""
    temporary = temporary_beside(path)
    try:
        build(temporary)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def temporary_beside(path: Path) -> Path:
    """Return a new name in the same directory, which `sweep` removes if it is left behind."""
    return path.with_name(f".{path.name}.{uuid4().hex}{TEMPORARY}")


def sweep(directory: Path) -> None:
    """Remove what killed writers, ours and zarr's, left behind."""
    for path in list(directory.iterdir()):
        if path.name.startswith(".") and path.name.endswith(TEMPORARY):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in list(directory.rglob("*.partial")):
        path.unlink()


def files_below(directory: Path) -> Iterator[Path]:
    """Every file below a directory, in a fixed order."""
    return (path for path in sorted(directory.rglob("*")) if path.is_file())


def sha256(path: Path) -> str:
    """Digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
