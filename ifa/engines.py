"""Engines: what the shards of a population are done by, where it is more than one process.

An engine is given as ``map=`` to `ifa.analyze`, `ifa.maps` and `ifa.contest.table`. Shards are
committed on their own and folded in the order of their numbers, so that all engines give the same
bits. `dask` needs a scheduler; `shards` and `commit` need none.
"""

import builtins
import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple
from uuid import uuid4

import xarray as xr

from ifa.checks import check_count
from ifa.contest import driver as tables
from ifa.population import analysis, mapping
from ifa.population.contract import computing
from ifa.population.driver import Cuts, Part, Versions
from ifa.store.places import place_of
from ifa.store.runs import Kept, Run, opened
from ifa.store.specs import FINISH, first_difference
from ifa.store.specs import versions as versions_now

__all__ = ["commit", "dask", "shards"]

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


def shards(number: int, of: int, *, map: Any = None) -> Part:
    """Do every so many-th shard of a run, from a first one: for ``map=``, without a scheduler.

    So many processes anywhere, such as the jobs of an array, do all shards of a run together, each
    started with a number of its own; the same one again does what it has not done. `commit`
    finishes.

    Parameters
    ----------
    number
        Which part, from 1.
    of
        How many parts there are.
    map
        What does the shards of the part, such as an executor's; None does them here.

    Returns
    -------
    callable
        For ``map=`` of a driver with ``store=``. It then returns an empty tree whose attributes say
        how many ``shards`` there are and how many are ``done``, unless the run is finished.

    Raises
    ------
    ValueError
        If there is no such part.

    Examples
    --------
    >>> import ifa, tempfile, torch
    >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 2, 3), torch.nn.Flatten())
    >>> data = [(torch.ones(1, 4), int(net(torch.ones(1, 1, 4)).argmax()))] * 3
    >>> options = {"layer": "0", "shard": 1, "store": tempfile.mkdtemp(), "progress": False}
    >>> for number in (1, 2):
    ...     part = ifa.analyze(net, data, map=ifa.engines.shards(number, 2), **options)
    >>> part.attrs["done"], part.attrs["shards"]
    (3, 3)
    >>> int(ifa.engines.commit(options["store"])["0"]["count"].sum())
    3
    """
    where = "ifa.engines.shards"
    check_count(where, "of", of)
    if not isinstance(number, int) or not 1 <= number <= of:
        raise ValueError(f"{where}: expected a part from 1 to {of}, got {number!r} of {of}.")
    return Part(number, of, builtins.map if map is None else map)


# What finishes a run, by what it was made by.
_FINISHING = {
    "analyze": analysis.finishing,
    "maps": mapping.finishing,
    "table": tables.finishing,
}


def commit(run: str | os.PathLike[str], *, versions: Versions = "same") -> xr.DataTree:
    """Finish a run all of whose shards are done; neither network nor data are needed.

    What the driver that did them would have made of them, with the same bits.

    Parameters
    ----------
    run
        What was ``store=`` of `ifa.analyze`, `ifa.maps` or `ifa.contest.table`.
    versions
        ``"any"`` to finish it with another version of ifa, torch or numpy than its shards are of.

    Returns
    -------
    xarray.DataTree
        As `ifa.open` gives it. A run that is finished is returned as it is.

    Raises
    ------
    ValueError
        If there is no run, or shards are missing or damaged; it is then left as it was. If it has
        reductions of your own: the call that made it finishes it too.
    """
    where = "ifa.engines.commit"
    this = Run(place_of(where, run).fixed(), where)
    spec = this.spec()
    if not this.committed:
        _check_finishing(this, spec, versions)
        with this.writing():
            if not this.committed:
                _commit(this, spec)
    return opened(this)


def _check_finishing(run: Run, spec: Mapping[str, Any], versions: str) -> None:
    if FINISH not in spec:
        raise ValueError(
            f"{run.where}: expected a run of ifa.analyze, ifa.maps or ifa.contest.table that says "
            f"what to make of its shards, got {run.place}, which does not, as with reductions of "
            "your own. Repeat the call that made it, without map=: it finishes it."
        )
    other = first_difference(spec["versions"], versions_now(), "versions")
    if other and versions != "any":
        raise ValueError(
            f"{run.where}: expected the versions that the shards of {run.place} are of, got "
            f"others: {other}. Install the same ones, or say versions='any'."
        )


def _commit(run: Run, spec: Mapping[str, Any]) -> None:
    """Fold the shards in their order, and write what they give."""
    numbers = Cuts(range(spec["data"]["samples"]), None, spec["shard"], 1, None).shards
    missing = [number for number in numbers if not run.has(number)]
    if missing:
        listed = ", ".join(map(str, missing[:5])) + (", …" if len(missing) > 5 else "")
        raise ValueError(
            f"{run.where}: expected all {len(numbers)} shards of {run.place} done, got "
            f"{len(missing)} missing: {listed}. Run their parts again, or the call that made it "
            "without map=, which does what is left."
        )
    model = {name: part for name, part in spec["model"].items() if name != "behaviour"}
    said = {**{name: part for name, part in spec.items() if name != FINISH}, "model": model}
    finish = _FINISHING[spec[FINISH]["driver"]](spec[FINISH], said)
    kept = Kept({}, set())
    with computing(run.where, spec["threads"]):
        tree = finish(run.states(numbers, kept))
    run.commit(tree, kept)


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
                f"{_WHERE}: expected shard {shard} to be done, but {times} workers died that had "
                f"it, at work or waiting, the last at {error.last_worker.address}. Where memory "
                "ran out, give a smaller batch_size or workers more memory; where workers come and "
                "go, raise distributed.scheduler.allowed-failures. What is done is kept: run again."
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
