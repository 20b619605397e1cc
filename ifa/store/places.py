"""Where a run is kept, by few verbs: a folder, which has renames and locks, or something else."""

import hashlib
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from ifa.store.files import (
    build_atomically,
    entries,
    is_temporary,
    kind_of,
    locked,
    make_directory,
    read_file,
    sweep,
    synced,
    temporary_beside,
    write_atomically,
    write_once,
)

# Name of a file -> its size and the digest of its bytes.
Files = dict[str, tuple[int, str]]
# Names to sizes of files, or to what else they are: what `Place.list` returns.
Entries = dict[str, int | str]

AT_ONCE = 16  # files that are read or written together where each one waits for a network


class Place(Protocol):
    """Where a run is kept. Names are relative to it, with slashes between their parts.

    A file is there whole or not at all, whatever ends its writer.
    """

    # Whether one writer can hold it alone, and files may be read again at little cost.
    local: ClassVar[bool]

    @property
    def name(self) -> str:
        """The last part of where it is."""
        ...

    def fixed(self) -> "Place":
        """Return the same place, also for a process that works in another directory."""
        ...

    def below(self, name: str) -> "Place":
        """Return the place of all names that begin with this one."""
        ...

    def read(self, name: str) -> bytes:
        """Return what a file holds; a FileNotFoundError if it is not there."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Write a file, or replace it."""
        ...

    def write_once(self, name: str, content: bytes) -> bool:
        """Write a file unless it is there; of several writers at once one wins."""
        ...

    def exists(self, name: str) -> bool:
        """Whether a file, or anything below such a name, is there."""
        ...

    def list(self, *, deep: bool = True) -> Entries:
        """Find all that is there, or what is at its top, without what killed writers left."""
        ...

    def zarr(self) -> Any:
        """Return what Zarr reads this place as."""
        ...

    # For those who write

    def held(self, wait: float) -> AbstractContextManager[bool]:
        """Make the place and hold it, where that can be; false if another has it meanwhile."""
        ...

    def make(self, name: str) -> None:
        """Make a folder, where there are such."""
        ...

    def put(self, files: Iterable[tuple[str, bytes]]) -> Files:
        """Write files, and return their digests once all would outlast a loss of power."""
        ...

    def build(self, name: str, files: Mapping[str, bytes]) -> None:
        """Write a Zarr store, so that `built` is said of all of it."""
        ...

    def built(self, name: str) -> bool:
        """Whether a store was built, and not a part of it."""
        ...

    def whole(self, build: Callable[["Place"], object]) -> None:
        """Build all of a run that can be built anew, where it can be so that none of it is seen."""
        ...

    def remove(self, name: str, but: Iterable[str] = ()) -> None:
        """Remove a store; of objects not those that are about to be written anew."""
        ...

    def sweep(self) -> None:
        """Remove what killed writers left behind."""
        ...


@dataclass(frozen=True)
class Folder:
    """A directory of this machine, or of a file system that it mounts."""

    path: Path
    local: ClassVar[bool] = True

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        return self.path.name

    def fixed(self) -> "Folder":
        return Folder(Path(os.path.abspath(self.path)))

    def below(self, name: str) -> "Folder":
        return Folder(self.path / name)

    def read(self, name: str) -> bytes:
        return read_file(self.path / name)

    def write(self, name: str, content: bytes) -> None:
        write_atomically(self.path / name, lambda file: file.write(content))

    def write_once(self, name: str, content: bytes) -> bool:
        return write_once(self.path / name, lambda file: file.write(content))

    def exists(self, name: str) -> bool:
        return (self.path / name).exists()

    def list(self, *, deep: bool = True) -> Entries:
        if deep:
            return entries(self.path)
        try:
            top = [path for path in self.path.iterdir() if not is_temporary(path)]
        except FileNotFoundError:
            return {}
        return {path.name: kind_of(path) for path in top if os.path.lexists(path)}

    def zarr(self) -> Path:
        return self.path

    def held(self, wait: float) -> AbstractContextManager[bool]:
        make_directory(self.path)
        return locked(self.path, wait)

    def make(self, name: str) -> None:
        make_directory(self.path / name)

    def put(self, files: Iterable[tuple[str, bytes]]) -> Files:
        found = {name: self._written(name, content) for name, content in files}
        # a file is renamed into its folder, and the first one makes it
        folders = {self.path / parent for name in found for parent in Path(name).parents}
        synced([*(self.path / name for name in found), *sorted(folders, reverse=True)])
        return found

    def _written(self, name: str, content: bytes) -> tuple[int, str]:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_beside(path)
        try:
            temporary.write_bytes(content)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        return digest_of(content)

    def build(self, name: str, files: Mapping[str, bytes]) -> None:
        build_atomically(self.path / name, lambda path: _write_all(path, files))

    def built(self, name: str) -> bool:
        return (self.path / name).exists()

    def whole(self, build: Callable[[Place], object]) -> None:
        def built(path: Path) -> None:
            path.mkdir()
            build(Folder(path))

        build_atomically(self.path, built)

    def remove(self, name: str, but: Iterable[str] = ()) -> None:
        shutil.rmtree(self.path / name, ignore_errors=True)

    def sweep(self) -> None:
        sweep(self.path)


def _write_all(root: Path, files: Mapping[str, bytes]) -> None:
    for folder in {(root / name).parent for name in files}:
        folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (root / name).write_bytes(content)


def place_of(where: str, given: Any) -> Place:
    """Take the path of a folder, a URL such as s3://bucket/run, or an obstore store as a place."""
    # those need obstore, which is asked for only where there is one
    if isinstance(given, str) and "://" in given:
        from ifa.store.objects import at_url

        return at_url(where, given)
    if type(given).__module__.split(".")[0] in ("obstore", "_obstore"):
        from ifa.store.objects import of_obstore

        return of_obstore(given)
    try:
        return Folder(Path(given))
    except TypeError:
        raise TypeError(
            f"{where}: expected store= to be the path of a folder, the URL of an object store, or "
            f"a store of obstore, got {type(given).__name__}."
        ) from None


def digest_of(content: bytes) -> tuple[int, str]:
    """Size and digest of what a file holds."""
    return len(content), hashlib.sha256(content).hexdigest()


def read_all(place: Place, names: Iterable[str]) -> Iterator[bytes]:
    """Read files in their order; where each waits for a network, some ahead of who takes them."""
    if place.local:
        yield from map(place.read, names)
        return
    with ThreadPoolExecutor(AT_ONCE, "ifa-read") as threads:
        coming = deque()
        for name in names:
            coming.append(threads.submit(place.read, name))
            if len(coming) == AT_ONCE:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
