"""Engines: what the shards of a population are done by, where it is more than one process.

An engine is given as ``map=`` to `ifa.analyze`, `ifa.maps` and `ifa.contest.table`. Shards are
committed on their own and folded in the order of their numbers, so that all engines give the same
bits.
"""

import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple
from uuid import uuid4

__all__ = ["dask"]

_WHERE = "ifa.engines.dask"

# Shards that a scheduler has at once: it is asked for more as they are done.
_AHEAD = 1000
# Bytes of a job, which each worker is sent once.
_MOST_BYTES = 2**26
# What a user can mend, and no repetition does.
_LASTING = (ValueError, TypeError, LookupError, AttributeError, ImportError, NotImplementedError)


def dask(
    client: Any, *, retries: int = 5, resources: Mapping[str, float] | None = None
) -> Callable[[Callable[[int], Any], Iterable[int]], Iterator[Any]]:
    """Do shards on the workers of a Dask cluster: for ``map=``.

    What a job is made of goes to each worker once, and a task is a number. Results are taken as
    they come, and are released at once. Where a worker dies its shards are done by others, but for
    those that it committed.

    Parameters
    ----------
    client
        A ``dask.distributed.Client``: of a ``LocalCluster``, of ``dask_jobqueue``, or any other.
    retries
        How many times a shard is done again after an error that may pass, such as of a disk or a
        network. Wrong data, options or workers are named at once. How many workers may die of one
        shard is Dask's to say: ``distributed.scheduler.allowed-failures``.
    resources
        What a worker has to have for each shard, such as ``{"GPU": 1}`` where workers are started
        with ``--resources "GPU=1" --nthreads 1``, one for each device.

    Returns
    -------
    callable
        For ``map=``. Give the network as an `ifa.ModelRef` and the data as an `ifa.DataRef`, which
        workers load by themselves.

    Raises
    ------
    TypeError
        If `client` is none, or an asynchronous one.
    ValueError
        If `retries` is no count, or no worker has the resources. When it is used: if the job is
        larger than 64 MiB, which it is with a large network or data in memory.
    RuntimeError
        When it is used: if the workers of a shard die, or the scheduler is lost. What was done of a
        run is kept: the same call continues it.

    Examples
    --------
    >>> from dask.distributed import Client  # doctest: +SKIP
    >>> client = Client(n_workers=4, threads_per_worker=1)  # doctest: +SKIP
    >>> ifa.analyze(
    ...     ifa.ModelRef("net:network", weights="net.safetensors"),
    ...     ifa.DataRef("ifa.data:folder", config={"root": "/data/train"}),
    ...     store="run",
    ...     map=ifa.engines.dask(client),
    ... )  # doctest: +SKIP
    """
    if not all(hasattr(client, name) for name in ("submit", "scheduler_info", "cancel")):
        raise TypeError(
            f"{_WHERE}: expected a dask.distributed.Client, got {type(client).__name__}. Make one: "
            "Client(n_workers=4), or Client(cluster)."
        )
    if getattr(client, "asynchronous", False):
        raise TypeError(
            f"{_WHERE}: expected a client that waits for its results, got an asynchronous one. "
            "Make it with asynchronous=False."
        )
    if not isinstance(retries, int) or retries < 0:
        raise ValueError(f"{_WHERE}: expected retries to be 0 or more, got {retries!r}.")
    engine = _Dask(client, retries, dict(resources or {}))
    engine.check_resources()
    return engine


@dataclass(frozen=True)
class _Dask:
    client: Any
    retries: int
    resources: dict[str, float]

    def check_resources(self) -> None:
        """Raise where there are workers and none of them has what is asked for."""
        if not self.resources:
            return
        workers = self.client.scheduler_info()["workers"].values()
        having = [one.get("resources", {}) for one in workers]
        wanted = self.resources.items()
        if having and not any(all(of.get(name, 0) >= n for name, n in wanted) for of in having):
            listed = " ".join(f"{name}={n:g}" for name, n in wanted)
            raise ValueError(
                f"{_WHERE}: expected a worker with resources {listed}, got {len(having)} without. "
                f'Start workers with --resources "{listed}".'
            )

    def __call__(self, function: Callable[[int], Any], shards: Iterable[int]) -> Iterator[Any]:
        """Yield what the function returns, as it comes."""
        from distributed import as_completed

        calls = _Calls(self, _packed(function))
        numbers = iter(shards)
        done = as_completed([calls.submit(number) for number in islice(numbers, _AHEAD)])
        try:
            for future in done:
                result = calls.result(future)
                for number in islice(numbers, 1):
                    done.add(calls.submit(number))
                yield result
        finally:
            calls.end()


@dataclass
class _Calls:
    """The calls of one job: those that were submitted, and are not done."""

    engine: _Dask
    packed: bytes
    name: str = field(default_factory=lambda: f"ifa-{uuid4().hex[:8]}")
    left: dict[str, tuple[int, Any]] = field(default_factory=dict)  # key -> shard, future
    job: Any = None  # future of what is the same for all of them

    def submit(self, shard: int) -> Any:
        client, retries = self.engine.client, self.engine.retries
        if self.job is None:  # a task like others, so that it outlasts workers that have it
            key = f"{self.name}-job"
            self.job = client.submit(bytes, self.packed, key=key, retries=retries, pure=False)
        key = f"{self.name}-{shard}"
        future = client.submit(
            _done,
            self.job,
            shard,
            key=key,
            retries=retries,
            resources=self.engine.resources or None,
            pure=False,
        )
        self.left[key] = shard, future
        return future

    def result(self, future: Any) -> Any:
        """Return what a future has, and let go of it."""
        from concurrent.futures import CancelledError

        from distributed import KilledWorker

        shard, _ = self.left.pop(future.key)
        try:
            found = future.result()
        except KilledWorker as error:
            times = error.allowed_failures + 1
            raise RuntimeError(
                f"{_WHERE}: expected shard {shard} to be done, but {times} workers died meanwhile, "
                f"the last at {error.last_worker.address}. Where memory ran out, give a smaller "
                "batch_size or workers more memory; where workers come and go, raise "
                "distributed.scheduler.allowed-failures. What is done is kept: run again."
            ) from error
        except CancelledError as error:
            raise RuntimeError(
                f"{_WHERE}: expected shard {shard} to be done, but the scheduler let go of it "
                f"({error}). Look whether it is still there. What is done is kept: run again."
            ) from error
        except Exception as error:
            error.add_note(f"{_WHERE}: of shard {shard}, after {self.engine.retries} retries.")
            raise
        finally:
            future.release()
        if isinstance(found, _Refused):
            found.error.add_note(f"{_WHERE}: of shard {shard}, in {found.worker}.")
            raise found.error
        return found

    def end(self) -> None:
        """Take back what was not done; those that run come to their end."""
        futures = [future for _, future in self.left.values()]
        with suppress(Exception):  # the scheduler may be gone
            self.engine.client.cancel([*futures, self.job] if self.job is not None else futures)
        self.left.clear()


def _packed(function: Callable[[int], Any]) -> bytes:
    """Pickle a job, with functions of notebooks by value."""
    import cloudpickle

    packed = cloudpickle.dumps(function)
    if len(packed) > _MOST_BYTES:
        raise ValueError(
            f"{_WHERE}: expected a job of at most {_MOST_BYTES >> 20} MiB, got "
            f"{len(packed) >> 20} MiB: it holds the network or the data. Give ifa.ModelRef(…) and "
            "ifa.DataRef(…), which workers load by themselves."
        )
    return packed


class _Refused(NamedTuple):
    """What a task returns instead of an error that no retry would mend."""

    error: Exception
    worker: str


def _done(packed: bytes, shard: int) -> Any:
    """Do a shard; the task that workers run."""
    from distributed import get_worker

    try:
        return pickle.loads(packed)(shard)
    except _LASTING as error:
        return _Refused(error, f"worker {get_worker().name!s} at {get_worker().address}")
