"""A run on disk: begun with a spec, filled shard by shard, committed once, opened, verified."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ifa.store.commits import added, changes, commit_text, differences, found, read_commit, resized
from ifa.store.datasets import SCHEMA, with_samples
from ifa.store.markers import Arrays, Marker, marker_text, read_marker
from ifa.store.places import Files, Place, digest_of, place_of, read_all
from ifa.store.specs import canonical, compared, versions
from ifa.store.tables import Rows, Schema, chunks, filled, laid_out, template_changes
from ifa.store.trees import impossible, in_memory, read_tree, tree_files

# How long a run waits for another process that writes it, such as one that is being ended.
WAIT = 30.0


# Where things are in a run.
SPEC, SAMPLES, SHARDS, STATISTICS = "spec.json", "samples.zarr", "shards", "statistics.zarr"
COMMIT = "COMMIT.json"


class Kept(NamedTuple):
    """What was read of shards for a commit."""

    files: Files
    made_by: set[tuple[tuple[str, str], ...]]  # versions of those who computed them


@dataclass(frozen=True)
class Run:
    """What one run has written. A kill at any moment loses at most the shards in flight."""

    place: Place
    where: str  # the public function, which errors name
    spec_digest: str = ""  # of what shards are made by, also where it was replaced meanwhile
    code: str = ""  # digest of the network's, which may be other than the spec's

    @classmethod
    def at(cls, run: Any, where: str) -> "Run":
        """Take the path of a run's folder, or the URL of a run."""
        return cls(place_of(where, run), where)

    @property
    def begins(self) -> bool:
        """Whether nothing has claimed the place."""
        return not self.place.exists(SPEC)

    @property
    def committed(self) -> bool:
        return self.place.exists(COMMIT)

    @property
    def marked(self) -> int:
        """How many shards are done."""
        return sum(name.endswith(".npz") for name in self.place.below(SHARDS).list())

    def spec(self) -> dict[str, Any]:
        """Return the run's spec; an error if this is no run."""
        try:
            said = json.loads(self.place.read(SPEC))
            if isinstance(said, dict):
                return said
            what = "a spec.json of something else"
        except NotADirectoryError:
            what = "a file"
        except FileNotFoundError:
            there = self.place.exists("")
            what = "a directory without spec.json" if there else "nothing there"
        except (OSError, ValueError) as error:
            what = f"a spec.json that cannot be read ({error})"
        raise ValueError(
            f"{self.where}: expected a run at {self.place}, got {what}. Give the folder that "
            "was store= of what made it."
        )

    def claimable(self) -> None:
        """Raise unless the place is new, empty, or a run; nothing is touched."""
        try:
            # names first: a spec that another process writes meanwhile is no other file
            others = self.place.list(deep=False)
            what = "a directory with other files in it" if others and self.begins else None
        except NotADirectoryError:
            what = "a file"
        if what:
            raise ValueError(
                f"{self.where}: expected {self.place} to be new, empty or a run, got {what}. "
                "Nothing was touched. Give another store=."
            )

    def begun(self, spec: Mapping[str, Any], *, alone: bool = True) -> "Run":
        """Write the spec, in place of one that nothing was made by; call it in `writing`.

        Where others may be about to work by the one that is there it is not replaced.
        """
        if self.begins:
            self.place.write_once(SPEC, canonical(spec))
        elif alone and self._bare() and self.spec() != json.loads(canonical(spec)):
            self.place.remove(SAMPLES)
            self.place.write(SPEC, canonical(spec))
        code = hashlib.sha256(canonical(spec.get("model", {}).get("code", {}))).hexdigest()
        return replace(self, spec_digest=self._spec_digest(), code=code[:16])

    def _spec_digest(self) -> str:
        return digest_of(self.place.read(SPEC))[1]

    def check(self, spec: Mapping[str, Any], versions: str, *, alone: bool = True) -> list[str]:
        """Raise unless the run is of this spec; return what differs that does not matter."""
        if alone and self._bare():
            return []  # nothing was made by its spec
        difference, notes = compared(self.spec(), spec, self.committed, versions)
        if difference:
            raise ValueError(
                f"{self.where}: expected the run at {self.place} to be of this very analysis, "
                f"got another: {difference}. Nothing was touched. Give another store=, or "
                "repeat the analysis as it was."
            )
        return notes

    def _bare(self) -> bool:
        """Whether this is a run of which no shard is done, and nothing else is there."""
        if not self.place.local:
            return False  # nobody can hold it alone while a spec is replaced
        others = self.place.list(deep=False).keys() - {SPEC, SAMPLES, SHARDS}
        said = self.spec()
        return not (others or self.marked) and {"schema", "versions", "data"} <= {*said}

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Make the place, and keep other processes from coordinating it at the same time."""
        with self.place.held(WAIT) as free:
            if not free:
                raise ValueError(
                    f"{self.where}: expected {self.place} to be written by one analysis at a "
                    f"time, but another has been writing it for the {WAIT:g} s that this one "
                    "waited. Nothing was touched. Wait for it, or end it, and run again."
                )
            yield

    def lay_out(self, schema: Schema, coords: Mapping[str, Any], shards: range, size: int) -> None:
        """Make the places for shards and the empty sample table, or check those that are there."""
        top, table = self.place.list(deep=False), self.place.below(SAMPLES)
        kinds = {name: top.get(name, "a folder") for name in (SHARDS, SAMPLES, STATISTICS)}
        for name, kind in kinds.items():
            if kind != "a folder":
                self._refuse([f"{name} is {kind if kind == 'a link' else 'no folder'}"])
        if not schema and SAMPLES in top:
            self._refuse(["samples.zarr is not of this run, which keeps no samples"])
        self.place.make(SHARDS)
        if not schema:
            return
        attrs = {"title": "ifa: one row for each sample", "schema": SCHEMA}
        template = laid_out(schema, coords, size, attrs)
        if self.place.built(SAMPLES):
            problems = template_changes(table, template, schema, shards)
            self._refuse(f"{SAMPLES}/{problem}" for problem in problems)
            return
        if self.marked:
            self._refuse(["samples.zarr is missing"])
        self.place.build(SAMPLES, template)

    def has(self, shard: int) -> bool:
        return self.place.exists(marker_of(shard))

    def states(self, shards: range, kept: Kept) -> Iterator[Arrays]:
        """Read the states of shards, in their order, and keep what a commit says of them."""
        for shard, marker, arrays, text in self._read(shards, states=True):
            kept.files[marker_of(shard)] = digest_of(text)
            rows = {f"{SAMPLES}/{name}": known for name, known in marker.files.items()}
            kept.files.update(rows)
            kept.made_by.add(tuple(marker.versions.items()))
            yield arrays

    def markers(self, shards: Iterable[int]) -> dict[int, Marker]:
        """Return the markers of shards that are done; an error if one is not of this run."""
        return {shard: marker for shard, marker, *_ in self._read(list(shards), states=False)}

    def _read(
        self, shards: Sequence[int], *, states: bool
    ) -> Iterator[tuple[int, Marker, Arrays, bytes]]:
        spec, problems = self._spec_digest(), []
        texts = read_all(self.place, map(marker_of, shards))
        for shard, text in zip(shards, texts, strict=True):
            name = f"{self.place}/{marker_of(shard)}"
            marker, arrays = read_marker(self.where, name, text, states=states)
            if (marker.spec, marker.shard) != (spec, shard):
                whose = "another run" if marker.spec != spec else f"shard {marker.shard}"
                problems.append(f"{marker_of(shard)} is a marker of {whose}")
            yield shard, marker, arrays, text
        self._refuse(problems)

    def done(self, shards: range, schema: Schema) -> dict[int, Marker]:
        """Return the markers of the shards that are done, once their rows are as they were."""
        place, table = self.place.below(SHARDS), self.place.below(SAMPLES)
        names = {marker_of(shard): shard for shard in shards}
        # what systems leave in folders that people look into is hidden
        marked = {f"{SHARDS}/{name}": kind for name, kind in place.list().items() if name[0] != "."}
        self._refuse(
            f"{name} is not of this run"
            for name, kind in marked.items()
            if name not in names or isinstance(kind, str)
        )
        markers = self.markers(names[name] for name in sorted(marked))
        there, problems = table.list(), []
        for shard, marker in markers.items():
            if sorted(marker.files) != sorted(chunks(schema, shard)):
                problems.append(f"{marker_of(shard)} vouches for other files")
            else:
                problems += [
                    f"{SAMPLES}/{problem}, for which {marker_of(shard)} vouches"
                    # what is digested anew where that costs little
                    for problem in changes(
                        table, marker.files, there, digested=lambda name: place.local
                    )
                ]
        self._refuse(problems)
        return markers

    def _refuse(self, problems: Iterable[str]) -> None:
        problems = list(problems)
        if problems:
            raise ValueError(
                f"{self.where}: expected the shards that are done in {self.place} as they were "
                f"written, got {len(problems)} differences: {'; '.join(problems)}. Restore these "
                f"files, or delete what does not belong and the markers in {self.place}/{SHARDS} "
                "of shards that are damaged, and run again: their samples are then done anew."
            )

    def add(
        self, shard: int, start: int, states: Arrays, rows: Rows, schema: Schema, items: np.ndarray
    ) -> None:
        """Commit a shard: its rows first, its states last, which mark it as done."""
        files: Files = {}
        if schema:
            table = self.place.below(SAMPLES)
            files = table.put(filled(table.read("zarr.json"), schema, rows, shard, start))
        made_by = {**versions(), "code": self.code}
        marker = Marker(self.spec_digest, shard, made_by, files, items)
        name, text = marker_of(shard), marker_text(marker, states)
        if self.place.local:
            self.place.write(name, text)
        elif not self.place.write_once(name, text):
            self._check_other(shard, marker)

    def _check_other(self, shard: int, ours: Marker) -> None:
        """Raise unless another driver, which was faster, found what this one did."""
        other = self.markers([shard])[shard]
        if other.files != ours.files or not np.array_equal(other.items, ours.items):
            self._refuse([f"{marker_of(shard)} is of another process, which got other rows"])

    def commit(self, statistics: xr.DataTree, kept: Kept) -> None:
        """Write the statistics and, last, the digests of everything: the run is then finished."""
        self.place.sweep()
        files = tree_files(statistics)
        # those of a commit that was killed go: they are derived from the shards
        self.place.remove(STATISTICS, but=files)
        self.place.build(STATISTICS, files)
        said = {
            "schema": SCHEMA,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": sorted(map(dict, kept.made_by), key=str),
        }
        known = {f"{STATISTICS}/{name}": digest_of(text) for name, text in files.items()}
        files = self._files(kept.files | known)
        text = commit_text(files, said)
        if self.place.local:
            self.place.write(COMMIT, text)
        elif not self.place.write_once(COMMIT, text) and self.listed() != files:
            self.refuse_damaged(["another process, at the same time, committed other files"])

    def _files(self, known: Files) -> Files:
        """Digest what belongs to the run, and compare it with what is known of it.

        What is known is digested anew only where that costs little.
        """
        there = self.place.list()
        names = [
            name
            for name, kind in there.items()
            if isinstance(kind, int)
            and (name in known or name == SPEC or name.split("/")[0].endswith(".zarr"))
        ]
        files = found(self.place, [one for one in names if self.place.local or one not in known])
        problems = resized(known, there)
        files = {name: files.get(name) or known[name] for name in names}
        self._refuse(
            f"{name} is other than its marker vouches for"
            for name in known
            if name in problems or files[name] != known[name]
        )
        return files

    def listed(self) -> Files:
        """Return the files that the run was committed with."""
        if not self.committed:
            self.spec()
            raise ValueError(
                f"{self.where}: expected a finished run, got {self.place} with {self.marked} "
                "shards done and no COMMIT.json. Do what made it again to continue it."
            )
        try:
            return read_commit(self.place.read(COMMIT))
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            self.refuse_damaged([f"COMMIT.json cannot be read ({error})"])
            raise

    def tree(self, statistics: xr.DataTree) -> xr.DataTree:
        """Put the table of samples, where there is one, into statistics that are at hand."""
        table = self.place.below(SAMPLES)
        return with_samples(statistics, read_tree(table.zarr())) if table.exists("") else statistics

    def refuse_damaged(self, problems: list[str]) -> None:
        """Raise if there are differences from what was committed."""
        if problems:
            raise ValueError(
                f"{self.where}: expected {self.place} as it was committed, got {len(problems)} "
                f"differences: {'; '.join(problems)}. Restore these files, or analyze anew "
                "elsewhere."
            )


def marker_of(shard: int) -> str:
    """Name the file that says that a shard is done."""
    return f"{SHARDS}/{shard:05d}.npz"


def open(run: str | os.PathLike[str]) -> xr.DataTree:
    """Open a finished run.

    All files are compared with those that were committed by name and size, and those that are read
    now, which are all but the samples, by content; `verify` compares everything.

    Parameters
    ----------
    run
        Folder or URL that was store= of `ifa.analyze`.

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
    return opened(Run.at(run, "ifa.open"))


def opened(run: Run) -> xr.DataTree:
    """Open a finished run, once its files are found as they were listed."""
    files, there = run.listed(), run.place.list()
    read: dict[str, bytes] = {}
    problems = changes(run.place, files, there, read, _is_loaded)
    # what is in a store by another name may be read; what is beside the stores is not
    problems += [one for one in added(files, there) if ".zarr/" in one and "/." not in one]
    run.refuse_damaged(problems)
    for store in (STATISTICS, SAMPLES):
        below = {name: size for name, (size, _) in _below(store, files).items()}
        if below:
            described = read[f"{store}/zarr.json"]
            run.refuse_damaged([f"{store}/{one}" for one in impossible(described, below)])
    return run.tree(read_tree(in_memory(_below(STATISTICS, read))).load())


def _below(store: str, files: Mapping[str, Any]) -> dict[str, Any]:
    prefix = f"{store}/"
    return {name.removeprefix(prefix): files[name] for name in files if name.startswith(prefix)}


def _is_loaded(name: str) -> bool:
    """Whether opening a run reads a file: statistics, metadata and coordinates, but no samples."""
    return name.startswith("statistics.zarr/") or name.endswith(".json") or "/target" in name


def verify(run: str | os.PathLike[str]) -> None:
    """Check every file of a finished run against the digests it was committed with.

    Parameters
    ----------
    run
        Folder or URL that was store= of `ifa.analyze`.

    Raises
    ------
    ValueError
        With all that is wrong: files missing, changed or added, folders, links and other things
        that were not committed, or a run that is not finished.
    """
    verified(Run.at(run, "ifa.verify"))


def verified(run: Run) -> None:
    """Raise unless all of a finished run is as it was committed."""
    run.refuse_damaged(differences(run.place, run.listed()))
