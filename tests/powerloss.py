"""A simulator of power loss: what a disk may hold after any cut of what was written to it.

After ALICE (Pillai et al. 2014, "All File Systems Are Not Created Equal", OSDI) and CrashMonkey
(Mohan et al. 2018, "Finding Crash-Consistency Bugs with Bounded Black-Box Crash Testing", OSDI).
Every operation on files below a directory is recorded in its order. Of the operations before a cut
POSIX promises only what was synchronized: the data of a file by its fsync, an entry of a directory
(made, renamed, linked, removed) by an fsync of that directory. Of the rest any part may be lost.
"""

import _io
import builtins
import io
import os
import random
import re
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock
from typing import Any, NamedTuple

import pytest

# What is on the disk: bytes of a file, None for a directory, by the path below the recorded root.
Disk = dict[str, bytes | None]


class Entries(NamedTuple):
    """Entries of directories that one operation sets or, with no node, removes, all at once."""

    changes: tuple[tuple[int, str, int | None], ...]  # directory, name, node


class Data(NamedTuple):
    """The whole content that a file now has."""

    node: int
    content: bytes


class Sync(NamedTuple):
    """A file or directory that is now on the disk."""

    node: int


Operation = Entries | Data | Sync
_ROOT = 0


@dataclass
class Log:
    """What was done below a directory, in order; nodes are numbered as inodes are."""

    operations: list[Operation] = field(default_factory=list)
    said: list[str] = field(default_factory=list)  # each operation in words
    directories: set[int] = field(default_factory=lambda: {_ROOT})
    before: int = 0  # how many operations stand for what was there before

    def add(self, operation: Operation, said: str) -> None:
        self.operations.append(operation)
        # names of temporary files are random
        self.said.append(re.sub(r"[0-9a-f]{32}", "*", said))


class Loss(NamedTuple):
    """What a power loss took of all that was not synchronized."""

    entries: frozenset[int] = frozenset()  # numbers of lost operations
    data: Mapping[int, str] = {}  # file -> what is left of its data, of `LEFT`


def _synced(new: bytes, old: bytes) -> bytes:
    return old


NOTHING = Loss()

# What may be left of a file's data that were not synchronized, of the new and the last synced.
LEFT: dict[str, Callable[[bytes, bytes], bytes]] = {
    "old": _synced,
    "empty": lambda new, old: b"",
    "half": lambda new, old: new[: len(new) // 2],
    "zeros": lambda new, old: bytes(len(new)),
}


def disk_after(log: Log, cut: int, loss: Loss = NOTHING) -> Disk:
    """Return what is on the disk when the power fails after so many operations."""
    entries: dict[int, dict[str, int]] = {_ROOT: {}}
    data: dict[int, bytes] = {}
    safe: dict[int, bytes] = {}
    for number, operation in enumerate(log.operations[:cut]):
        if isinstance(operation, Data):
            data[operation.node] = operation.content
        elif isinstance(operation, Sync):
            if operation.node in data:
                safe[operation.node] = data[operation.node]
        elif number not in loss.entries:
            for directory, name, node in operation.changes:
                names = entries.setdefault(directory, {})
                if node is None:
                    names.pop(name, None)
                else:
                    names[name] = node
    for node, left in loss.data.items():
        data[node] = LEFT[left](data.get(node, b""), safe.get(node, b""))
    found: Disk = {}
    _list(log, entries, data, _ROOT, "", found)
    return found


def _list(
    log: Log,
    entries: Mapping[int, Mapping[str, int]],
    data: Mapping[int, bytes],
    directory: int,
    prefix: str,
    found: Disk,
) -> None:
    for name, node in sorted(entries.get(directory, {}).items()):
        path = prefix + name
        if node in log.directories:
            found[path] = None
            _list(log, entries, data, node, f"{path}/", found)
        else:
            found[path] = data.get(node, b"")


def unsynced(log: Log, cut: int) -> tuple[list[int], list[int]]:
    """Return the operations on entries, and the files, that a loss at this cut may take."""
    waiting: dict[int, set[int]] = {}  # operation -> directories that are still to be synchronized
    files: dict[int, None] = {}
    for number, operation in enumerate(log.operations[:cut]):
        if isinstance(operation, Entries):
            waiting[number] = {directory for directory, _, _ in operation.changes}
        elif isinstance(operation, Data):
            files[operation.node] = None
        elif operation.node in log.directories:
            for directories in waiting.values():
                directories.discard(operation.node)
        else:
            files.pop(operation.node, None)
    return [number for number, left in waiting.items() if left], [*files]


def losses(log: Log, cut: int, draw: random.Random, *, subsets: int) -> Iterator[tuple[str, Loss]]:
    """Name losses that POSIX allows at a cut: none, all, every single one and random subsets."""
    entries, files = unsynced(log, cut)
    yield "nothing lost", NOTHING
    yield "all lost", Loss(frozenset(entries), dict.fromkeys(files, "old"))
    yield "all entries lost", Loss(frozenset(entries))
    for left in LEFT:
        yield f"all data {left}", Loss(data=dict.fromkeys(files, left))
    for number in entries:
        yield f"lost: {log.said[number]}", Loss(frozenset([number]))
    for node in files:
        left = draw.choice([*LEFT])
        yield f"data {left} of file {node}", Loss(data={node: left})
    for number in range(subsets):
        some = frozenset(entry for entry in entries if draw.random() < 0.5)
        spoiled = {node: draw.choice([*LEFT]) for node in files if draw.random() < 0.5}
        yield f"random subset {number}", Loss(some, spoiled)


def write(disk: Disk, home: Path) -> None:
    """Make a directory what a disk holds."""
    home.mkdir()
    for name, content in disk.items():
        if content is None:
            (home / name).mkdir()
        else:
            (home / name).write_bytes(content)


def read(home: Path) -> Disk:
    """Return what a directory holds."""
    return {
        path.relative_to(home).as_posix(): None if path.is_dir() else path.read_bytes()
        for path in sorted(home.rglob("*"))
    }


@contextmanager
def recorded(root: Path, *, without: tuple[str, ...] = ()) -> Iterator[Log]:
    """Record all that this process does to files below a directory.

    What is there before is on the disk. Functions of `os` named in `without` do nothing and are not
    recorded: a broken writer.
    """
    with pytest.MonkeyPatch.context() as patch:
        recorder = _Recorder(root.resolve(), Log(), without)
        recorder.begin()
        recorder.install(patch)
        try:
            yield recorder.log
        finally:
            recorder.look()
            recorder.close()


class _Recorder:
    def __init__(self, root: Path, log: Log, without: tuple[str, ...]):
        self.root, self.log, self.without = str(root), log, without
        self.lock = RLock()
        self.entries: dict[int, dict[str, int]] = {_ROOT: {}}  # as they are now
        self.count = 1
        self.content: dict[int, bytes] = {}
        # files that are open for writing: node, a descriptor to read by, whether it is closed
        self.writing: list[tuple[int, int, Callable[[], bool]]] = []
        self.real: dict[str, Any] = {}

    def begin(self) -> None:
        """Take what is there as written and synchronized."""
        for path in sorted(Path(self.root).rglob("*")):
            place = self.place(path)
            assert place is not None
            node = self.made(place, "there before", directory=path.is_dir())
            if path.is_file():
                self.content[node] = path.read_bytes()
                self.log.add(Data(node, self.content[node]), "there before")
        for node in range(self.count):
            self.log.add(Sync(node), "there before")
        self.log.before = len(self.log.operations)

    def install(self, patch: pytest.MonkeyPatch) -> None:
        for name in (
            *("mkdir", "rmdir", "unlink", "remove", "rename", "replace", "link"),
            *("symlink", "open", "fsync", "fdatasync"),
        ):
            self.real[name] = getattr(os, name)
            patch.setattr(os, name, getattr(self, f"on_{name}"))
        self.real["file"] = io.open
        for module in (builtins, io, _io):
            patch.setattr(module, "open", self.on_file)

    def close(self) -> None:
        for _, descriptor, _ in self.writing:
            os.close(descriptor)

    # Names and nodes

    def place(self, path: Any, within: int | None = None) -> tuple[int, str] | None:
        """Return the directory and the name in it of a path; None if it lies elsewhere."""
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        path = os.fsdecode(path)
        if within is not None and not os.path.isabs(path):
            path = os.path.join(os.readlink(f"/proc/self/fd/{within}"), path)
        relative = os.path.relpath(os.path.abspath(path), self.root)
        if relative == "." or relative.startswith(".."):
            return None
        *parents, name = relative.split(os.sep)
        directory = _ROOT
        for parent in parents:
            directory = self.entries[directory].get(parent, -1)
            if directory not in self.log.directories:
                return None  # the operation fails by itself
        return directory, name

    def node(self, path: Any) -> int | None:
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        if os.path.abspath(path) == self.root:
            return _ROOT
        place = self.place(path)
        return None if place is None else self.entries[place[0]].get(place[1])

    def made(self, place: tuple[int, str], said: str, *, directory: bool) -> int:
        node, self.count = self.count, self.count + 1
        if directory:
            self.log.directories.add(node)
            self.entries[node] = {}
        self.change(said, (*place, node))
        return node

    def change(self, said: str, *changes: tuple[int, str, int | None]) -> None:
        for directory, name, node in changes:
            if node is None:
                del self.entries[directory][name]
            else:
                self.entries[directory][name] = node
        self.log.add(Entries(changes), said)

    def look(self) -> None:
        """Record what was written to files since the last operation."""
        still = []
        for node, descriptor, closed in self.writing:
            last = closed()
            content = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
            if content != self.content.get(node, b""):
                self.content[node] = content
                self.log.add(Data(node, content), f"write {len(content)} bytes to file {node}")
            if last:
                os.close(descriptor)
            else:
                still.append((node, descriptor, closed))
        self.writing = still

    def short(self, path: Any) -> str:
        return os.path.relpath(os.fsdecode(path), self.root)

    # Operations

    def on_mkdir(self, path, mode=0o777, *, dir_fd=None):
        with self.lock:
            self.look()
            self.real["mkdir"](path, mode, dir_fd=dir_fd)
            place = self.place(path, dir_fd)
            if place:
                self.made(place, f"mkdir {self.short(path)}", directory=True)

    def _removed(self, kind, path, dir_fd):
        with self.lock:
            self.look()
            place = self.place(path, dir_fd)
            self.real[kind](path, dir_fd=dir_fd)
            if place:
                self.change(f"{kind} {self.short(path)}", (*place, None))

    def on_rmdir(self, path, *, dir_fd=None):
        self._removed("rmdir", path, dir_fd)

    def on_unlink(self, path, *, dir_fd=None):
        self._removed("unlink", path, dir_fd)

    def on_remove(self, path, *, dir_fd=None):
        self._removed("remove", path, dir_fd)

    def _moved(self, kind, source, target):
        with self.lock:
            self.look()
            self.real[kind](source, target)
            old, new = self.place(source), self.place(target)
            assert (old is None) == (new is None), f"{kind} across the border: {source}, {target}"
            if old and new:
                node = self.entries[old[0]][old[1]]
                said = f"{kind} {self.short(source)} to {self.short(target)}"
                self.change(said, (*old, None), (*new, node))

    def on_rename(self, source, target):
        self._moved("rename", source, target)

    def on_replace(self, source, target):
        self._moved("replace", source, target)

    def on_link(self, source, target):
        with self.lock:
            self.look()
            self.real["link"](source, target)
            new = self.place(target)
            if new:
                said = f"link {self.short(source)} to {self.short(target)}"
                self.change(said, (*new, self.node(source)))

    def on_symlink(self, source, target, *args, **kwargs):
        assert self.place(target) is None, "symbolic links are not simulated"
        self.real["symlink"](source, target, *args, **kwargs)

    def _synchronized(self, kind, descriptor):
        with self.lock:
            if kind in self.without:
                return
            self.look()
            number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
            path = os.readlink(f"/proc/self/fd/{number}")
            node = self.node(path)
            if node is not None:
                self.log.add(Sync(node), f"{kind} {self.short(path)}")

    def on_fsync(self, descriptor):
        self._synchronized("fsync", descriptor)

    def on_fdatasync(self, descriptor):
        self._synchronized("fdatasync", descriptor)

    def _opened(self, path, writes, make, dir_fd=None):
        """Open something; record a file that this makes, and read on what is written to it."""
        if not writes or isinstance(path, int):
            return make()
        with self.lock:
            self.look()
            place = self.place(path, dir_fd)
            opened = make()
            if place is None:
                return opened
            node = self.entries[place[0]].get(place[1])
            if node is None:
                node = self.made(place, f"create {self.short(path)}", directory=False)
            descriptor = self.real["open"](path, os.O_RDONLY, dir_fd=dir_fd)
            self.writing.append((node, descriptor, _closed(opened)))
            self.look()  # emptied
            return opened

    def on_open(self, path, flags, mode=0o777, *, dir_fd=None):
        def make():
            return self.real["open"](path, flags, mode, dir_fd=dir_fd)

        return self._opened(path, flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT), make, dir_fd)

    def on_file(self, file, mode="r", *args, **kwargs):
        def make():
            return self.real["file"](file, mode, *args, **kwargs)

        return self._opened(file, set(mode) & set("wax+"), make)


def _closed(opened: Any) -> Callable[[], bool]:
    """Tell whether a file is closed, without keeping it open; of a descriptor it is not known."""
    if isinstance(opened, int):
        return lambda: False
    there = weakref.ref(opened)

    def closed() -> bool:
        file = there()
        return file is None or file.closed

    return closed
