"""A run on disk: begun with a spec, filled shard by shard, committed once, opened, verified."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ifa.store.commits import NOT_COMMITTED, changes, differences, found, read_commit, write_commit
from ifa.store.datasets import SCHEMA, with_samples
from ifa.store.files import (
    build_atomically,
    entries,
    is_temporary,
    locked,
    make_directory,
    read_file,
    sha256,
    sweep,
    temporary_beside,
    write_atomically,
    write_once,
)
from ifa.store.markers import Arrays, Files, Marker, load_marker, load_states, save_marker
from ifa.store.specs import canonical, compared, versions
from ifa.store.tables import Rows, Schema, chunks, fill, lay_out, template_changes
from ifa.store.trees import impossible, read_tree, write_tree

# How long a run waits for another process that writes it, such as one that is being ended.
WAIT = 30.0


@dataclass(frozen=True)
class Run:
    """The files of one run. A kill at any moment loses at most the shards in flight."""

    path: Path
    where: str  # the public function, which errors name
    spec_digest: str = ""  # of what shards are made by, also where it was replaced meanwhile
    code: str = ""  # digest of the network's, which may be other than the spec's

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

    @property
    def marked(self) -> bool:
        """Whether a shard is done."""
        return next(self.shards.glob("*.npz"), None) is not None

    def spec(self) -> dict[str, Any]:
        """Return the run's spec; an error if this is no run."""
        try:
            said = json.loads(read_file(self.spec_file))
            if isinstance(said, dict):
                return said
            what = "a spec.json of something else"
        except (FileNotFoundError, NotADirectoryError):
            what = "a file" if self.path.exists() else "nothing there"
            what = "a directory without spec.json" if self.path.is_dir() else what
        except (OSError, ValueError) as error:
            what = f"a spec.json that cannot be read ({error})"
        raise ValueError(
            f"{self.where}: expected a run at {self.path}, got {what}. Give the folder that "
            "was store= of what made it."
        )

    def claimable(self) -> None:
        """Raise unless the directory is new, empty, or a run; nothing is touched."""
        if self.path.exists() and not (self.path.is_dir() and self._unclaimed()):
            what = "a directory with other files in it" if self.path.is_dir() else "a file"
            raise ValueError(
                f"{self.where}: expected {self.path} to be new, empty or a run, got {what}. "
                "Nothing was touched. Give another store=."
            )

    def begun(self, spec: Mapping[str, Any]) -> "Run":
        """Write the spec, in place of one that nothing was made by; call it in `writing`."""
        if not self.spec_file.exists():
            write_once(self.spec_file, lambda file: file.write(canonical(spec)))
        elif self._bare() and self.spec() != json.loads(canonical(spec)):
            shutil.rmtree(self.samples, ignore_errors=True)
            write_atomically(self.spec_file, lambda file: file.write(canonical(spec)))
        code = hashlib.sha256(canonical(spec.get("model", {}).get("code", {}))).hexdigest()
        return replace(self, spec_digest=sha256(self.spec_file), code=code[:16])

    def check(self, spec: Mapping[str, Any], versions: str) -> list[str]:
        """Raise unless the run is of this spec; return what differs that does not matter."""
        if self._bare():
            return []  # nothing was made by its spec
        difference, notes = compared(self.spec(), spec, self.committed, versions)
        if difference:
            raise ValueError(
                f"{self.where}: expected the run at {self.path} to be of this very analysis, "
                f"got another: {difference}. Nothing was touched. Give another store=, or "
                "repeat the analysis as it was."
            )
        return notes

    def _bare(self) -> bool:
        """Whether this is a run of which no shard is done, and nothing else is there."""
        ours = {self.spec_file, self.samples, self.shards}
        others = {path for path in self.path.iterdir() if not is_temporary(path)} - ours
        said = self.spec()
        return not (others or self.marked) and {"schema", "versions", "data"} <= {*said}

    def _unclaimed(self) -> bool:
        """Whether nothing is there but what a writer left that was killed as it claimed it."""
        # names first: a spec that another process writes meanwhile is no other file
        names = list(self.path.iterdir())
        return self.spec_file.exists() or all(is_temporary(name) for name in names)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Make the directory, and keep other processes from coordinating it at the same time."""
        make_directory(self.path)
        with locked(self.path, WAIT) as free:
            if not free:
                raise ValueError(
                    f"{self.where}: expected {self.path} to be written by one analysis at a "
                    f"time, but another has been writing it for the {WAIT:g} s that this one "
                    "waited. Nothing was touched. Wait for it, or end it, and run again."
                )
            yield

    def lay_out(self, schema: Schema, coords: Mapping[str, Any], shards: range, size: int) -> None:
        """Make the places for shards and the empty sample table, or check those that are there."""
        for path in (self.shards, self.samples, self.statistics):
            if path.is_symlink() or (path.exists() and not path.is_dir()):
                self._refuse([f"{path.name} is {'a link' if path.is_symlink() else 'no folder'}"])
        if not schema and self.samples.exists():
            self._refuse(["samples.zarr is not of this run, which keeps no samples"])
        make_directory(self.shards)
        attrs = {"title": "ifa: one row for each sample", "schema": SCHEMA}
        if not schema:
            return
        if self.samples.exists():
            template = temporary_beside(self.samples)
            try:
                lay_out(template, schema, coords, size, attrs)
                sweep(self.samples)
                problems = template_changes(self.samples, template, schema, shards)
            finally:
                shutil.rmtree(template, ignore_errors=True)
            self._refuse(f"{self.samples.name}/{problem}" for problem in problems)
            return
        if self.marked:
            self._refuse(["samples.zarr is missing"])
        build_atomically(self.samples, lambda path: lay_out(path, schema, coords, size, attrs))

    def marker(self, shard: int) -> Path:
        return self.shards / f"{shard:05d}.npz"

    def has(self, shard: int) -> bool:
        return self.marker(shard).exists()

    def markers(self, shards: Iterable[int]) -> dict[int, Marker]:
        """Return the markers of shards that are done; an error if one is not of this run."""
        spec, problems = sha256(self.spec_file), []
        found = {shard: load_marker(self.where, self.marker(shard)) for shard in shards}
        for shard, marker in found.items():
            if (marker.spec, marker.shard) != (spec, shard):
                whose = "another run" if marker.spec != spec else f"shard {marker.shard}"
                problems.append(f"shards/{self.marker(shard).name} is a marker of {whose}")
        self._refuse(problems)
        return found

    def done(self, shards: range, schema: Schema) -> dict[int, Marker]:
        """Return the markers of the shards that are done, once their rows are as they were."""
        sweep(self.shards)
        names = {self.marker(shard).name: shard for shard in shards}
        # what systems leave in folders that people look into is hidden
        marked = {name: kind for name, kind in entries(self.shards).items() if name[0] != "."}
        self._refuse(
            f"shards/{name} is not of this run"
            for name, kind in marked.items()
            if name not in names or isinstance(kind, str)
        )
        markers = self.markers(names[name] for name in sorted(marked))
        there, problems = entries(self.samples), []
        for shard, marker in markers.items():
            name = f"shards/{self.marker(shard).name}"
            if sorted(marker.files) != sorted(chunks(schema, shard)):
                problems.append(f"{name} vouches for other files")
            else:
                problems += [
                    f"samples.zarr/{problem}, for which {name} vouches"
                    for problem in changes(self.samples, marker.files, there)
                ]
        self._refuse(problems)
        return markers

    def _refuse(self, problems: Iterable[str]) -> None:
        problems = list(problems)
        if problems:
            raise ValueError(
                f"{self.where}: expected the shards that are done in {self.path} as they were "
                f"written, got {len(problems)} differences: {'; '.join(problems)}. Restore these "
                f"files, or delete what does not belong and the markers in {self.shards} of shards "
                "that are damaged, and run again: their samples are then done anew."
            )

    def add(
        self, shard: int, start: int, states: Arrays, rows: Rows, schema: Schema, items: np.ndarray
    ) -> None:
        """Commit a shard: its rows first, its states last, which mark it as done."""
        files = fill(self.samples, schema, rows, shard, start) if schema else {}
        made_by = {**versions(), "code": self.code}
        marker = Marker(self.spec_digest, shard, made_by, files, items)
        save_marker(self.marker(shard), marker, states)

    def states(self, shard: int) -> Arrays:
        return load_states(self.where, self.marker(shard))

    def commit(self, statistics: xr.DataTree, markers: Mapping[int, Marker]) -> None:
        """Write the statistics and, last, the digests of everything: the run is then finished."""
        sweep(self.path)
        made_by = [dict(one) for one in {tuple(each.versions.items()) for each in markers.values()}]
        if self.statistics.exists():  # of a commit that was killed; it is derived from the shards
            shutil.rmtree(self.statistics)
        build_atomically(self.statistics, lambda path: write_tree(statistics, path))
        files = self._files(markers)
        write_commit(
            self.commit_file,
            files,
            {
                "schema": SCHEMA,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "versions": sorted(made_by, key=str),
            },
        )

    def _files(self, markers: Mapping[int, Marker]) -> Files:
        """Digest what belongs to the run, and compare it with what markers vouch for."""
        vouched: Files = {}
        for marker in markers.values():
            vouched |= {f"samples.zarr/{name}": known for name, known in marker.files.items()}
        ours = [self.marker(shard).relative_to(self.path).as_posix() for shard in markers]
        names = [
            name
            for name, kind in entries(self.path).items()
            if isinstance(kind, int)
            and (name in ours or name == "spec.json" or name.split("/")[0].endswith(".zarr"))
        ]
        files = found(self.path, names)
        self._refuse(
            f"{name} is other than its marker vouches for"
            for name, known in vouched.items()
            if files.get(name) != known
        )
        return files

    def listed(self) -> Files:
        """Return the files that the run was committed with."""
        if not self.committed:
            self.spec()
            raise ValueError(
                f"{self.where}: expected a finished run, got {self.path} with "
                f"{len(list(self.shards.glob('*.npz')))} shards done and no COMMIT.json. "
                "Do what made it again to continue it."
            )
        try:
            return read_commit(self.commit_file)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            self.refuse_damaged([f"COMMIT.json cannot be read ({error})"])
            raise

    def tree(self, statistics: xr.DataTree | None = None) -> xr.DataTree:
        """Read what was committed; statistics that are at hand are not read again."""
        statistics = read_tree(self.statistics).load() if statistics is None else statistics
        if not self.samples.exists():
            return statistics
        return with_samples(statistics, read_tree(self.samples))

    def refuse_damaged(self, problems: list[str]) -> None:
        """Raise if there are differences from what was committed."""
        if problems:
            raise ValueError(
                f"{self.where}: expected {self.path} as it was committed, got {len(problems)} "
                f"differences: {'; '.join(problems)}. Restore these files, or analyze anew "
                "elsewhere."
            )


def open(run: str | os.PathLike[str]) -> xr.DataTree:
    """Open a finished run.

    All files are compared with those that were committed by name and size, and those that are read
    now, which are all but the samples, by content; `verify` compares everything.

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
        If there is no run, it is not finished, or a file is missing or of another size.

    Examples
    --------
    >>> import ifa
    >>> ifa.open("nowhere")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: ifa.open: expected a run at nowhere, got nothing there. ...
    """
    return opened(Run(Path(run), "ifa.open"))


def opened(run: Run) -> xr.DataTree:
    """Open a finished run, once its files are found as they were listed."""
    files = run.listed()
    # what is in a store by another name may be read; what is beside the stores is not
    inside = [
        problem
        for problem in differences(run.path, files, _is_loaded)
        if not problem.endswith(NOT_COMMITTED) or (".zarr/" in problem and "/." not in problem)
    ]
    run.refuse_damaged(inside)
    for store in (run.statistics, run.samples):
        prefix = f"{store.name}/"
        below = {
            name.removeprefix(prefix): size
            for name, (size, _) in files.items()
            if name.startswith(prefix)
        }
        if below:
            run.refuse_damaged([prefix + problem for problem in impossible(store, below)])
    return run.tree()


def _is_loaded(name: str) -> bool:
    """Whether opening a run reads a file: statistics, metadata and coordinates, but no samples."""
    return name.startswith("statistics.zarr/") or name.endswith(".json") or "/target" in name


def verify(run: str | os.PathLike[str]) -> None:
    """Check every file of a finished run against the digests it was committed with.

    Parameters
    ----------
    run
        Directory that `ifa.analyze(..., store=)` wrote.

    Raises
    ------
    ValueError
        With all that is wrong: files missing, changed or added, folders, links and other things
        that were not committed, or a run that is not finished.
    """
    verified(Run(Path(run), "ifa.verify"))


def verified(run: Run) -> None:
    """Raise unless all of a finished run is as it was committed."""
    run.refuse_damaged(differences(run.path, run.listed(), bool))
