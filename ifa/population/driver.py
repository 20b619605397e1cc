"""One resumable driver: a data set, cut into shards, to states and rows, to a labelled tree."""

import builtins
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ifa.progress import Progress, reporting
from ifa.store.datasets import joined, sample_tree, with_samples
from ifa.store.items import Batch, reading
from ifa.store.runs import Run
from ifa.store.runs import open as open_run
from ifa.store.specs import versions
from ifa.store.states import Arrays
from ifa.store.tables import Rows, Schema

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Cuts:
    """Data, cut into shards of consecutive samples, and these into batches."""

    data: Any
    shape: Any  # of one input
    shard: int
    batch_size: int
    workers: int | None

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

    def read(self, where: str, spans: list[range]) -> Generator[Batch, None, None]:
        """Read batches ahead of who takes them, who closes it; `where` is what an error names."""
        return reading(where, self.data, spans, self.shape, self.workers)


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
    units: int = 1  # of progress, for each sample


def drive(
    job: Job,
    *,
    store: str | os.PathLike[str] | None,
    map: Any = None,
    progress: Progress = True,
) -> xr.DataTree:
    """Do a job shard by shard, in memory or in a run that can be killed and continued.

    Shards are committed on their own and merged in the order of their numbers, so that a run that
    was killed, and one done by many processes, has the same bits as an undisturbed one.
    """
    mapper = builtins.map if map is None else map
    if store is None:
        return _in_memory(job, list(_every(job, None, mapper, progress)))
    run = Run(Path(store), job.where)
    run.begin(job.spec)
    if not run.committed:
        with run.writing():
            if not run.committed:  # by another process, after we looked
                _fill(job, run, mapper, progress)
    return open_run(run.path)


def _in_memory(job: Job, shards: list[Any]) -> xr.DataTree:
    tree = job.finish(arrays for arrays, _ in shards)
    if job.schema:
        rows = joined([rows for _, rows in shards], job.schema)
        return with_samples(tree, sample_tree(rows, job.schema, job.coords))
    return tree


def _fill(job: Job, run: Run, mapper: Any, progress: Progress) -> None:
    run.lay_out(job.schema, job.coords, job.cuts.shard)
    for _ in _every(job, run, mapper, progress):
        pass
    run.commit(job.finish(builtins.map(run.states, job.cuts.shards)), versions())


def _every(job: Job, run: Run | None, mapper: Any, progress: Progress) -> Iterator[Any]:
    """Do the shards that are not done."""
    cuts = job.cuts
    todo = [shard for shard in cuts.shards if run is None or not run.has(shard)]
    with reporting(progress, job.label, job.units * cuts.count) as advance:
        left = sum(len(cuts.samples(shard)) for shard in todo)
        advance(job.units * (cuts.count - left))
        if mapper is builtins.map:  # in this process, so it can say more often how far it is
            yield from _in_turn(job, run, todo, advance)
            return
        done = mapper(partial(_one, job, run), todo)
        for shard, result in zip(todo, done, strict=True):
            advance(job.units * len(cuts.samples(shard)))
            yield result


def _one(job: Job, run: Run | None, shard: int) -> tuple[Arrays, Rows] | None:
    """Do one shard: commit it to the run, or without one return its states and rows."""
    spans = job.cuts.batches(shard)
    with closing(job.cuts.read(job.where, spans)) as batches:
        arrays, rows = job.work(zip(spans, batches, strict=True), lambda samples: None)
    if run is None:
        return arrays, rows
    run.add(shard, job.cuts.samples(shard).start, arrays, rows)
    return None


def _in_turn(
    job: Job, run: Run | None, shards: list[int], advance: Advance
) -> Iterator[tuple[Arrays, Rows] | None]:
    """Do shards one after the other: the next is read and the last written meanwhile."""
    spans = [job.cuts.batches(shard) for shard in shards]
    reading = job.cuts.read(job.where, [span for part in spans for span in part])
    with closing(reading) as batches, ThreadPoolExecutor(1, "ifa-write") as writer:
        written = writer.submit(lambda: None)
        for shard, part in zip(shards, spans, strict=True):
            arrays, rows = job.work(zip(part, batches, strict=False), advance)
            written.result()
            if run is None:
                yield arrays, rows
            else:
                start = job.cuts.samples(shard).start
                written = writer.submit(run.add, shard, start, arrays, rows)
                yield None
        written.result()
