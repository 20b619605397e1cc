"""Files that are there whole or not at all, whatever ends the writer, and their digests."""

import hashlib
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

try:
    import fcntl
except ImportError:  # Windows, where writers are not kept apart
    fcntl = None

TEMPORARY = ".tmp"


def synced(paths: Iterable[Path]) -> None:
    """Return once files, and the names that directories hold, would outlast a loss of power."""
    every = list(paths)
    if len(every) < 4:
        for path in every:
            _sync(path)
        return
    # a disk that is asked for many at once writes them together
    with ThreadPoolExecutor(8, "ifa-sync") as threads:
        list(threads.map(_sync, every))


def _sync(path: Path) -> None:
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows does not open directories
        if path.is_dir():
            return
        raise
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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
    synced([path.parent])


def write_once(path: Path, write: Callable[[BinaryIO], object]) -> bool:
    """Write a file atomically, unless it is there: of several writers at once one wins."""
    temporary = temporary_beside(path)
    write_atomically(temporary, write)
    try:
        os.link(temporary, path)  # unlike a rename, it never replaces what is there
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
        synced([path.parent])
    return True


def make_directory(path: Path) -> None:
    """Make a directory, and those above it, that a loss of power does not take away."""
    new = [one for one in (path, *path.parents) if not one.exists()]
    path.mkdir(parents=True, exist_ok=True)
    synced(one.parent for one in reversed(new))


def build_atomically(path: Path, build: Callable[[Path], object]) -> None:
    """Build a directory elsewhere and move it into place; it must not be there yet."""
    temporary = temporary_beside(path)
    try:
        build(temporary)
        synced([*(temporary / name for name in entries(temporary)), temporary])
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    synced([path.parent])


# Of directories that this process holds. A process that is forked has them too, and would keep
# them held after this one has died.
_HELD: set[int] = set()


def _let_go() -> None:
    for handle in _HELD:
        os.close(handle)
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


@contextmanager
def locked(directory: Path, wait: float = 0.0) -> Iterator[bool]:
    """Hold a directory for this process; false if another still does after so many seconds.

    The end of the process lets go of it, whatever ended it and whichever processes it started.
    """
    if fcntl is None:
        yield True
        return
    handle = os.open(directory, os.O_RDONLY)
    _HELD.add(handle)
    try:
        yield _held(handle, time.monotonic() + wait)
    finally:
        if handle in _HELD:  # not in a process that was forked meanwhile
            _HELD.discard(handle)
            os.close(handle)


def _held(handle: int, until: float) -> bool:
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # pyright: ignore
            return True
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(0.05)
        except OSError:  # a file system without locks
            return True


def temporary_beside(path: Path) -> Path:
    """Return a new name in the same directory, which `sweep` removes if it is left behind."""
    return path.with_name(f".{path.name}.{uuid4().hex}{TEMPORARY}")


def sweep(directory: Path) -> None:
    """Remove what killed writers, ours and zarr's, left behind."""
    for name, found in entries(directory).items():
        path = directory / name
        if is_temporary(path) and found == "a folder":
            shutil.rmtree(path, ignore_errors=True)
        elif is_temporary(path) or (path.suffix == ".partial" and isinstance(found, int)):
            path.unlink(missing_ok=True)


def is_temporary(path: Path) -> bool:
    """Whether a name is one of `temporary_beside`."""
    return path.name.startswith(".") and path.name.endswith(TEMPORARY)


def entries(directory: Path) -> dict[str, int | str]:
    """Find all that is below a directory: names to sizes of files, or to what else they are.

    What a folder holds comes before the folder; no link is followed.
    """
    return dict(_below(str(directory), ""))


def _below(folder: str, prefix: str) -> Iterator[tuple[str, int | str]]:
    try:
        listing = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in listing:
        kind = _kind(entry.stat(follow_symlinks=False))
        if kind == "a folder":
            yield from _below(entry.path, f"{prefix}{entry.name}/")
        yield prefix + entry.name, kind


def _kind(status: os.stat_result) -> int | str:
    if stat.S_ISREG(status.st_mode):
        return status.st_size
    if stat.S_ISDIR(status.st_mode):
        return "a folder"
    return "a link" if stat.S_ISLNK(status.st_mode) else "no file"


def kind_of(path: Path) -> int | str:
    """Size of a file, or what else it is."""
    return _kind(path.lstat())


def read_file(path: Path) -> bytes:
    """Return what a file holds; of what is no file, such as a pipe, nothing is waited for."""
    if not isinstance(kind := kind_of(path), int):
        raise OSError(f"it is {kind}")
    return path.read_bytes()


def sha256(path: Path) -> str:
    """Digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
