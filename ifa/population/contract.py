"""What a worker has to be like, so that a shard has the same bits wherever it is done."""

import os
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from ifa.store.specs import versions


@dataclass(frozen=True)
class Contract:
    """The versions that bits depend on; who receives one of others raises.

    It is put before what it is of: what another version made may not even be readable.
    """

    where: str  # the public function, which errors name
    versions: Mapping[str, str]

    def __reduce__(self) -> Any:
        return checked, (self.where, dict(self.versions))


def checked(where: str, of: Mapping[str, str]) -> Contract:
    """Raise unless this process has the versions of who sent work to it."""
    other = [name for name in of if of[name] != versions().get(name)]
    if other:
        wanted, found = (
            ", ".join(f"{name} {each.get(name)}" for name in other) for each in (of, versions())
        )
        raise ValueError(
            f"{where}: expected {wanted} in every worker, as where it was called, got {found} in "
            f"{here()}. Other versions have other bits: install the same ones, and run again; "
            "shards that are done are kept."
        )
    return Contract(where, of)


def check_kind(where: str, expected: str, found: str) -> None:
    """Raise unless this process computes on the kind of device that the spec says."""
    if found != expected:
        raise ValueError(
            f"{where}: expected every worker to compute on {expected}, as where it was called, got "
            f"{found} in {here()}. Other kinds of devices have other bits: give device= a kind "
            "that all have, or the engine resources= that only such workers have."
        )


def check_samples(where: str, expected: int, found: int) -> None:
    """Raise unless this process reads as many samples as there are."""
    if found != expected:
        raise ValueError(
            f"{where}: expected data of {expected} samples in every worker, as where it was "
            f"called, got {found} in {here()}. Let all read the same files."
        )


def here() -> str:
    """Name this process, for errors that another one shows."""
    return f"the process {os.getpid()} on {socket.gethostname()}"


class Computing:
    """How many threads one computation takes, in a process in which several may run at once.

    The number is the process's, so that it is set by the first of them and put back by the last.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = self._before = self._count = 0

    @contextmanager
    def __call__(self, where: str, count: int) -> Iterator[None]:
        """Compute on so many threads."""
        with self._lock:
            if self._running and self._count != count:
                raise ValueError(
                    f"{where}: expected work of {self._count} threads in {here()}, as what runs "
                    f"there already, got work of {count}. Give torch.set_num_threads the same "
                    "number everywhere, or workers of one thread."
                )
            if not self._running:
                self._before, self._count = torch.get_num_threads(), count
            self._running += 1
            if torch.get_num_threads() != count:  # each thread asks for itself
                torch.set_num_threads(count)
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1
                if not self._running and self._before != count:
                    torch.set_num_threads(self._before)


computing = Computing()


class Kept:
    """The last values that were made, by key: each once, though several threads ask for it."""

    def __init__(self, most: int):
        self._most, self._lock = most, threading.Lock()
        self._places: OrderedDict[Any, _Place] = OrderedDict()

    def get(self, key: Any, make: Callable[[], Any]) -> Any:
        """Return the value of a key; where there is none, who comes first makes it."""
        with self._lock:
            place = self._places.setdefault(key, _Place(threading.Lock(), []))
            self._places.move_to_end(key)
            while len(self._places) > self._most:
                self._places.popitem(last=False)
        with place.lock:  # others' keys are not waited for
            if not place.value:
                place.value.append(make())
            return place.value[0]


@dataclass(frozen=True)
class _Place:
    lock: threading.Lock
    value: list[Any]  # empty until it is made
