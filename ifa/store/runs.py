"""A run on disk: begun with a spec, filled shard by shard, committed once, opened, verified."""

import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import xarray as xr
import zarr
from zarr.codecs import ZstdCodec

from ifa.store.datasets import SCHEMA, with_samples
from ifa.store.files import (
    build_atomically,
    files_below,
    is_temporary,
    locked,
    sha256,
    sweep,
    write_atomically,
    write_once,
)
from ifa.store.specs import canonical, first_difference
from ifa.store.states import Arrays, load_arrays, save_arrays
from ifa.store.tables import Rows, Schema, fill, lay_out


@dataclass(frozen=True)
class Run:
    """The files of one run. A kill at any moment loses at most the shards in flight."""

    path: Path
    where: str  # the public function, which errors name

    @property
    def spec_file(self) -> Path:
        return self.path / "spec.json"

    @property
    def samples(self) -> Path:
        return self.path / "samples.zarr"

    @property
    def shards(self) -> Path:
        return self.path / "shards"

    @property
    def statistics(self) -> Path:
        return self.path / "statistics.zarr"

    @property
    def commit_file(self) -> Path:
        return self.path / "COMMIT.json"

    @property
    def committed(self) -> bool:
        return self.commit_file.exists()

    def spec(self) -> dict[str, Any]:
        """Return the run's spec; an error if this is no run."""
        try:
            return json.loads(self.spec_file.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            what = "a file" if self.path.exists() else "nothing there"
            what = "a directory without spec.json" if self.path.is_dir() else what
            raise ValueError(
                f"{self.where}: expected a run at {self.path}, got {what}. Give the folder that "
                "was store= of what made it."
            ) from None

    def begin(self, spec: Mapping[str, Any]) -> None:
        """Claim the directory for this spec, or continue in one that has the same; else refuse."""
        if not self.spec_file.exists():
            if self.path.exists() and not (self.path.is_dir() and self._unclaimed()):
                what = "a directory with other files in it" if self.path.is_dir() else "a file"
                raise ValueError(
                    f"{self.where}: expected {self.path} to be new, empty or a run, got {what}. "
                    "Nothing was touched. Give another store=."
                )
            self.path.mkdir(parents=True, exist_ok=True)
            write_once(self.spec_file, lambda file: file.write(canonical(spec)))
        # read back: of two processes that claim the directory at once, one has lost
        difference = first_difference(self.spec(), json.loads(canonical(spec)))
        if difference:
            raise ValueError(
                f"{self.where}: expected the run at {self.path} to be of this very analysis, "
                f"got another: {difference}. Nothing was touched. Give another store=, or "
                "repeat the analysis as it was."
            )

    def _unclaimed(self) -> bool:
        """Whether nothing is there but what a writer left that was killed as it claimed it."""
        # names first: a spec that another process writes meanwhile is no other file
        names = list(self.path.iterdir())
        return self.spec_file.exists() or all(is_temporary(name) for name in names)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep other processes from coordinating this run at the same time."""
        with locked(self.spec_file) as free:
            if not free:
                raise ValueError(
                    f"{self.where}: expected {self.path} to be written by one analysis at a "
                    "time, but another process, or a worker it left behind, is writing it. "
                    "Nothing was touched. Wait for it, or end it, and run again."
                )
            yield

    def lay_out(self, schema: Schema, coords: Mapping[str, Any], shard: int) -> None:
        """Make the places for shards and the empty sample table, unless they are there."""
        self.shards.mkdir(exist_ok=True)
        if schema and not self.samples.exists():
            if any(self.shards.glob("*.npz")):
                raise ValueError(
                    f"{self.where}: expected the sample table of the shards that are done at "
                    f"{self.samples}, got nothing there. Restore it, or delete {self.shards} and "
                    "run again: all samples are then done anew."
                )
            attrs = {"title": "ifa: one row for each sample", "schema": SCHEMA}
            build_atomically(self.samples, lambda path: lay_out(path, schema, coords, shard, attrs))

    def marker(self, shard: int) -> Path:
        return self.shards / f"{shard:05d}.npz"

    def has(self, shard: int) -> bool:
        return self.marker(shard).exists()

    def add(self, shard: int, start: int, states: Arrays, rows: Rows) -> None:
        """Commit a shard: its rows first, its states last, which mark it as done."""
        if rows:
            fill(self.samples, rows, start)
        save_arrays(self.marker(shard), states)

    def states(self, shard: int) -> Arrays:
        return load_arrays(self.where, self.marker(shard))

    def commit(self, statistics: xr.DataTree, versions: Mapping[str, str]) -> None:
        """Write the statistics and, last, the digests of everything: the run is then finished."""
        sweep(self.path)
        if self.statistics.exists():  # of a commit that was killed; it is derived from the shards
            shutil.rmtree(self.statistics)
        build_atomically(self.statistics, lambda path: write_tree(statistics, path))
        if self.samples.exists():
            consolidate(self.samples)
        record = {
            "schema": SCHEMA,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": dict(versions),
            "sha256": self._digests(),
        }
        write_atomically(self.commit_file, lambda file: file.write(canonical(record)))

    def _digests(self) -> dict[str, str]:
        files = (file for file in files_below(self.path) if file != self.commit_file)
        return {file.relative_to(self.path).as_posix(): sha256(file) for file in files}

    def problems(self) -> list[str]:
        """List everything that differs from what was committed."""
        try:
            committed = dict(json.loads(self.commit_file.read_bytes())["sha256"])
        except (ValueError, TypeError, KeyError) as error:
            return [f"{self.commit_file.name} cannot be read ({error!r})"]
        present = self._digests()
        return [
            *(f"{name} is missing" for name in committed if name not in present),
            *(f"{name} was not committed" for name in present if name not in committed),
            *(
                f"{name} was changed"
                for name, digest in committed.items()
                if present.get(name, digest) != digest
            ),
        ]


def open(run: str | os.PathLike[str]) -> xr.DataTree:
    """Open a finished run.

    Parameters
    ----------
    run
        Directory that `ifa.analyze(..., store=)` wrote.

    Returns
    -------
    xarray.DataTree
        One group for each layer, in memory, and the sample table under ``samples/``, read when it
        is used.

    Raises
    ------
    ValueError
        If there is no run, or it is not finished.

    Examples
    --------
    >>> import ifa
    >>> ifa.open("nowhere")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: ifa.open: expected a run at nowhere, got nothing there. ...
    """
    files = Run(Path(run), "ifa.open")
    files.spec()
    if not files.committed:
        raise ValueError(
            f"ifa.open: expected a finished run, got {files.path} with "
            f"{len(list(files.shards.glob('*.npz')))} shards done and no COMMIT.json. "
            "Do what made it again to continue it."
        )
    tree = xr.open_datatree(files.statistics, engine="zarr", chunks=None).load()
    if files.samples.exists():
        samples = xr.open_datatree(files.samples, engine="zarr", chunks=None)
        return with_samples(tree, samples)
    return tree


def verify(run: str | os.PathLike[str]) -> None:
    """Check every file of a finished run against the digests it was committed with.

    Parameters
    ----------
    run
        Directory that `ifa.analyze(..., store=)` wrote.

    Raises
    ------
    ValueError
        With all that is wrong: files missing, changed or added, or a run that is not finished.
    """
    files = Run(Path(run), "ifa.verify")
    if not files.committed:
        files.spec()
        raise ValueError(
            f"ifa.verify: expected a finished run, got {files.path} without COMMIT.json. "
            "Do what made it again to continue it."
        )
    problems = files.problems()
    if problems:
        raise ValueError(
            f"ifa.verify: expected {files.path} as it was committed, got {len(problems)} "
            f"differences: {'; '.join(problems)}. Restore these files, or analyze anew elsewhere."
        )


def write_tree(tree: xr.DataTree, path: Path) -> None:
    """Write a tree in whole chunks with checksums, and without masks."""
    checked = {"compressors": [ZstdCodec(level=3, checksum=True)]}
    encoding: dict[str, Any] = {}
    for node in tree.subtree:
        dataset = node.to_dataset(inherit=False)
        encoding[node.path] = {
            str(name): checked
            | {"chunks": variable.shape, "_FillValue": None}
            | ({"fill_value": float("nan")} if variable.dtype.kind == "f" else {})
            for name, variable in dataset.variables.items()
        }
    tree.to_zarr(path, mode="w-", zarr_format=3, consolidated=False, encoding=encoding)
    consolidate(path)


def consolidate(path: Path) -> None:
    """Gather all metadata in one file, so that a store opens in one read."""
    with warnings.catch_warnings():  # zarr's: the feature is not yet in the written standard
        warnings.filterwarnings("ignore", message="Consolidated metadata", category=UserWarning)
        zarr.consolidate_metadata(path)
