"""One resumable driver: a data set, cut into shards, to states and rows, to a labelled tree."""

import builtins
import itertools
import os
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import xarray as xr

from ifa.checks import check_choice, check_progress
from ifa.population.contract import Contract, check_samples, computing
from ifa.progress import Progress, reporting
from ifa.store.datasets import joined, renamed, sample_tree, with_samples
from ifa.store.items import DIGEST, Batch, reading
from ifa.store.markers import Arrays, Marker
from ifa.store.places import place_of
from ifa.store.references import DataRef
from ifa.store.runs import Kept, Run, opened, verified
from ifa.store.specs import FINISH
from ifa.store.specs import versions as versions_now
from ifa.store.tables import Rows, Schema
from ifa.types import RunNote

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Cuts:
    """Data, cut into shards of consecutive samples, and these into batches."""

    data: Any
    shape: Any  # of one input
    shard: int
    batch_size: int
    workers: int | None
    source: DataRef | None = None  # what another process loads the data by

    def __getstate__(self) -> dict[str, Any]:
        of = {"count": self.count, **vars(self)}
        return of if self.source is None else {**of, "data": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        source = state["source"]
        vars(self).update(state if source is None else {**state, "data": source.loaded()})

    @cached_property
    def count(self) -> int:
        """How many samples there are, asked once: of data that shrink an item is missed."""
        return len(self.data)

    @property
    def shards(self) -> range:
        """Numbers of the shards."""
        return range(-(-self.count // self.shard))

    def samples(self, shard: int) -> range:
        """Return which samples a shard holds."""
        return range(shard * self.shard, min(self.count, (shard + 1) * self.shard))

    def batches(self, shard: int) -> list[range]:
        """Return which samples of a shard run together."""
        samples, size = self.samples(shard), self.batch_size
        return [samples[start : start + size] for start in range(0, len(samples), size)]

    def read(
        self, where: str, spans: list[range], *, digest: bool, first: Batch | None = None
    ) -> Generator[Batch, None, None]:
        """Read batches ahead of who takes them, who closes it; `where` is what an error names."""
        if first is not None:
            yield first
        later = spans[first is not None :]
        if later:
            yield from reading(where, self.data, later, self.shape, self.workers, digest=digest)


@dataclass(frozen=True)
class Job:
    """Work over a population; pickles when its parts do."""

    where: str  # the public function, which errors name
    label: str  # of the progress bar
    cuts: Cuts
    spec: Mapping[str, Any]  # all that determines the result
    schema: Schema  # of the sample table; empty if there is none
    coords: Mapping[str, np.ndarray]  # of its target dimension
    # (batches of a shard with their samples, advance) -> states and rows
    work: Callable[[Iterable[tuple[range, Batch]], Advance], tuple[Arrays, Rows]]
    # states of all shards, in their order -> the result, but for the sample table
    finish: Callable[[Iterable[Arrays]], xr.DataTree]
    # what a batch has to be like, before anything is written
    check: Callable[[range, Batch], object]
    # what the network computes of some samples; asked for where there is a run to compare it with
    probe: Callable[[], Mapping[str, Any]] | None = None
    # what `finish` is made of, as JSON, so that `ifa.commit` needs neither network nor data
    record: Mapping[str, Any] | None = None
    units: int = 1  # of progress, for each sample

    @property
    def vouched(self) -> bool:
        """Whether the owner of the data says which they are."""
        return "version" in self.spec["data"]


Versions = Literal["same", "any"]


def drive(
    job: Job,
    *,
    store: str | os.PathLike[str] | None,
    map: Any = None,
    progress: Progress = True,
    versions: Versions = "same",
    source: Any = None,
) -> xr.DataTree:
    """Do a job shard by shard, in memory or in a run that can be killed and continued.

    Shards are committed on their own and merged in the order of their numbers, so that a run that
    was killed, and one done by many processes, has the same bits as an undisturbed one. Of data by
    reference, the `source`, only the reference goes to other processes.
    """
    if isinstance(source, DataRef):
        job = replace(job, cuts=replace(job.cuts, source=source))
    check_choice(job.where, "versions", versions, ("same", "any"))
    check_progress(job.where, progress)
    mapper = builtins.map if map is None else map
    if not callable(mapper):
        raise TypeError(
            f"{job.where}: expected map= to be a function like the built-in map, got "
            f"{type(map).__name__}. Of an executor give its method: executor.map."
        )
    part = map if isinstance(map, Part) else None
    if store is None:
        if part is not None:
            raise ValueError(
                f"{job.where}: expected store= with a part of the shards, which others finish, got "
                "none. Give the run that all parts are of."
            )
        return _in_memory(job, sorted(_every(job, None, (), mapper, progress), key=_number))
    run = Run(place_of(job.where, store).fixed(), job.where)
    run.claimable()
    first = _first(job) if run.begins else None
    spec = job.spec
    if job.probe is not None:
        spec = {**spec, "model": {**spec["model"], "behaviour": job.probe()}}
    if job.record is not None:
        spec = {**spec, FINISH: job.record}
    if not run.begins:
        run.check(spec, versions)  # before it is waited for
    if part is not None and not run.committed:
        return _do_part(job, run, part, spec, versions, progress)
    if not run.committed:
        with run.writing():
            if not run.committed:
                run = run.begun(spec)
                notes = run.check(spec, versions)
                tree = _fill(job, run, mapper, progress, first)
                return _noted(run, notes, run.tree(tree))
    # whoever committed it, before us or while we waited
    notes = run.check(spec, versions)
    tree = renamed(opened(run), run.spec().get("layers", []), job.spec.get("layers", []))
    if not job.vouched:
        verified(run)
        _check_items(job, run, run.markers(job.cuts.shards), progress)
    return _noted(run, notes, tree)


@dataclass(frozen=True)
class Part:
    """Some of the shards, for ``map=``: others do the rest, and `ifa.commit` finishes."""

    number: int  # from 1
    of: int
    map: Any

    def __call__(self, function: Callable[[int], Any], shards: Iterable[int]) -> Iterable[Any]:
        """Do the shards that are given: a driver gives those of the part."""
        return self.map(function, shards)


# What the tree is called that a part gives, and its attributes.
UNFINISHED = "ifa: an unfinished run"


def _do_part(
    job: Job,
    run: Run,
    part: Part,
    spec: Mapping[str, Any],
    versions: Versions,
    progress: Progress,
) -> xr.DataTree:
    """Do a part's shards, while others may do theirs; the run is held only to lay it out."""
    cuts = job.cuts
    with run.writing():
        run = run.begun(spec, alone=False)
        notes = run.check(spec, versions, alone=False)
        run.lay_out(job.schema, job.coords, cuts.shards, cuts.shard)
    mine = cuts.shards[part.number - 1 :: part.of]
    done = run.markers(shard for shard in mine if run.has(shard))
    _check_items(job, run, done, progress)
    for _ in _every(job, run, done, part.map, progress, shards=mine):
        pass
    said = {"shards": len(cuts.shards), "done": run.marked}
    title = {"title": UNFINISHED, "part": f"{part.number}/{part.of}", "run": str(run.place)}
    return _noted(run, notes, xr.DataTree(xr.Dataset(attrs={**title, **said})))


def _first(job: Job) -> Batch:
    """Read the first batch: what is wrong with all of the data is said before there is a run."""
    span = job.cuts.batches(0)[0]
    batch = next(reading(job.where, job.cuts.data, [span], job.cuts.shape, 0, digest=True))
    job.check(span, batch)
    return batch


def _noted(run: Run, notes: list[str], tree: xr.DataTree) -> xr.DataTree:
    for note in notes:
        warnings.warn(f"{run.where}: of the run at {run.place}, {note}.", RunNote, stacklevel=4)
    return tree


def _number(result: tuple[Any, ...]) -> int:
    return result[0]


def _in_memory(job: Job, shards: list[Any]) -> xr.DataTree:
    tree = job.finish(arrays for _, arrays, _ in shards)
    if job.schema:
        rows = joined([rows for _, _, rows in shards], job.schema)
        return with_samples(tree, sample_tree(rows, job.schema, job.coords))
    return tree


def _fill(job: Job, run: Run, mapper: Any, progress: Progress, first: Batch | None) -> xr.DataTree:
    cuts = job.cuts
    run.lay_out(job.schema, job.coords, cuts.shards, cuts.shard)
    done = run.done(cuts.shards, job.schema)
    _check_items(job, run, done, progress)
    for _ in _every(job, run, done, mapper, progress, None if 0 in done else first):
        pass
    kept = Kept({}, set())
    tree = job.finish(run.states(cuts.shards, kept))
    run.commit(tree, kept)
    return tree


def _check_items(job: Job, run: Run, done: Mapping[int, Marker], progress: Progress) -> None:
    """Raise where a sample is another than the one that a shard was made of."""
    if job.vouched or not done:
        return
    cuts = job.cuts
    spans = [(shard, span) for shard in done for span in cuts.batches(shard)]
    read = cuts.read(job.where, [span for _, span in spans], digest=True)
    total = sum(len(span) for _, span in spans)
    # a function that is told of samples done would not know that these are but looked at
    with closing(read) as batches, reporting(progress is True, "check data", total) as advance:
        for (shard, span), batch in zip(spans, batches, strict=True):
            start = span.start - cuts.samples(shard).start
            known = done[shard].items[start : start + len(span)]
            other = np.flatnonzero((batch.digests != known).any(1))
            if len(other):
                name = batch.ids[other[0]]
                raise ValueError(
                    f"{job.where}: expected the data that the run at {run.place} was made of, got "
                    f"another sample {span[other[0]]} (id {name!r}): its input, label or id has "
                    "changed. Nothing was touched. Give another store=, or the data as they were. "
                    "If they are read otherwise but are the same, make runs with data_version=."
                )
            advance(len(span))


def _every(
    job: Job,
    run: Run | None,
    done: Iterable[int],
    mapper: Any,
    progress: Progress,
    first: Batch | None = None,
    shards: range | None = None,
) -> Iterator[Any]:
    """Do the shards that are not done, of all or of those that are given."""
    cuts = job.cuts
    shards = cuts.shards if shards is None else shards
    todo = [shard for shard in shards if shard not in done]
    total, left = (sum(len(cuts.samples(shard)) for shard in some) for some in (shards, todo))
    with reporting(progress, job.label, job.units * total) as advance:
        advance(job.units * (total - left))
        if mapper is builtins.map:  # in this process, so it can say more often how far it is
            yield from _in_turn(job, run, todo, advance, first)
            return
        waiting = set(todo)
        for result in mapper(Work(job, run), todo) or ():
            shard = result[0] if isinstance(result, tuple) and result else result
            if shard not in waiting:
                raise _not_as_map(job, f"{shard!r}, which was not waited for")
            waiting.remove(shard)
            advance(job.units * len(cuts.samples(shard)))
            yield result
        if waiting:
            raise _not_as_map(job, f"nothing for {min(waiting)}")


def _not_as_map(job: Job, came: str) -> ValueError:
    return ValueError(
        f"{job.where}: expected map= to return what its function returns, once for every shard, "
        f"got {came}."
    )


@dataclass(frozen=True)
class Work:
    """What `map=` is given: shard -> its number and, without a run to commit it to, its result.

    It goes to other processes with a `Contract`, without what is done where it was made.
    """

    job: Job
    run: Run | None

    def __reduce__(self) -> Any:
        sent = replace(self.job, finish=_elsewhere, check=_elsewhere, probe=None)
        return _received, (Contract(self.job.where, versions_now()), sent, self.run)

    def __call__(self, shard: int) -> tuple[Any, ...]:
        job, run = self.job, self.run
        if run is not None and run.has(shard):  # an executor does again what a worker died of
            return (shard,)
        spans = job.cuts.batches(shard)
        read = _Read(job.cuts.read(job.where, spans, digest=run is not None))
        with closing(read), computing(job.where, job.spec["threads"]):
            arrays, rows = job.work(zip(spans, read, strict=True), lambda samples: None)
        if run is None:
            return shard, arrays, rows
        _add(job, run, shard, arrays, rows, read.digests())
        return (shard,)


def _received(contract: Contract, job: Job, run: Run | None) -> Work:
    """Take work from another process, whose contract was checked as it was read."""
    check_samples(contract.where, job.cuts.count, len(job.cuts.data))
    return Work(job, run)


def _elsewhere(*given: Any) -> Any:
    """Stand for a function that a worker is not sent."""
    raise NotImplementedError


def _add(job: Job, run: Run, shard: int, arrays: Arrays, rows: Rows, items: np.ndarray) -> None:
    """Commit a shard, unless a sample that was read before was another one then."""
    samples = job.cuts.samples(shard)
    for place, digest in job.spec["data"].get("items", {}).items():
        index = int(place)
        if index in samples and items[index - samples.start].tobytes().hex() != digest:
            raise ValueError(
                f"{job.where}: expected data that give the same item for the same index, every "
                f"time, got another sample {index} than before. Set what is random aside, or seed "
                "it by the index."
            )
    run.add(shard, samples.start, arrays, rows, job.schema, items)


class _Read:
    """Batches, of which the digests are kept until they are asked for."""

    def __init__(self, batches: Generator[Batch, None, None]):
        self._batches = batches
        self.close = batches.close
        self._kept: list[np.ndarray] = []

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        batch = next(self._batches)
        self._kept.append(batch.digests)
        return batch

    def digests(self) -> np.ndarray:
        """Return those since the last time, (sample, DIGEST)."""
        found = np.concatenate([np.empty((0, DIGEST), np.uint8), *self._kept])
        self._kept.clear()
        return found


def _in_turn(
    job: Job, run: Run | None, shards: list[int], advance: Advance, first: Batch | None
) -> Iterator[tuple[Any, ...]]:
    """Do shards one after the other: the next is read and the last written meanwhile."""
    spans = [job.cuts.batches(shard) for shard in shards]
    everything = [span for part in spans for span in part]
    batches = job.cuts.read(job.where, everything, digest=run is not None, first=first)
    with closing(_Read(batches)) as read, ThreadPoolExecutor(1, "ifa-write") as writer:
        written = writer.submit(lambda: None)
        for shard, part in zip(shards, spans, strict=True):
            batches = itertools.islice(read, len(part))
            arrays, rows = job.work(zip(part, batches, strict=True), advance)
            written.result()
            if run is None:
                yield shard, arrays, rows
            else:
                written = writer.submit(_add, job, run, shard, arrays, rows, read.digests())
                yield (shard,)
        written.result()
