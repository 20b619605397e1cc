"""Files that are there whole or not at all, and their digests."""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

try:
    import fcntl
except ImportError:  # Windows, where writers are not kept apart
    fcntl = None

TEMPORARY = ".tmp"


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file that a kill at any moment leaves whole or absent: data, name, directory."""
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


def write_once(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file atomically, unless it is there: of several writers at once one wins."""
    temporary = temporary_beside(path)
    write_atomically(temporary, write)
    try:
        os.link(temporary, path)  # unlike a rename, it never replaces what is there
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold a file for this process; false if another holds it. A kill lets go of it."""
    with open(path, "r+b") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            except OSError:  # a file system without locks
                pass
        yield True


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
    for path in list(directory.rglob("*")):
        if is_temporary(path) and path.is_dir():
            shutil.rmtree(path)
        elif is_temporary(path) or path.suffix == ".partial":
            path.unlink(missing_ok=True)


def is_temporary(path: Path) -> bool:
    """Whether a name is one of `temporary_beside`."""
    return path.name.startswith(".") and path.name.endswith(TEMPORARY)


def files_below(directory: Path) -> Iterator[Path]:
    """Every file below a directory, in a fixed order."""
    return (path for path in sorted(directory.rglob("*")) if path.is_file())


def sha256(path: Path) -> str:
    """Digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
