"""Files made of the maps of a population: one for each sample, in a folder that says of what."""

import hashlib
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ifa.progress import Progress, reporting
from ifa.scaling import TANH_HIGH, TANH_LOW
from ifa.store.datasets import MAPS
from ifa.store.files import (
    is_temporary,
    locked,
    make_directory,
    read_file,
    sweep,
    synced,
    temporary_beside,
    write_once,
)
from ifa.store.runs import WAIT, Run, opened
from ifa.store.specs import canonical, first_difference

MADE_BY = "made_by.json"

# files that are wanted of consecutive samples -> the contents of each
Make = Callable[[range, Sequence[str]], Iterator[tuple[str, bytes]]]


def maps_of(where: str, run: Any) -> Any:
    """Take what `ifa.maps` returned, or open the folder of its run."""
    if isinstance(run, str | os.PathLike):
        run = opened(Run.at(run, where))
    if not isinstance(run, xr.DataTree) or run.attrs.get("title") != MAPS:
        what = run.attrs.get("title", "a tree") if hasattr(run, "attrs") else type(run).__name__
        raise TypeError(
            f"{where}: expected what ifa.maps returned, or the folder of its run, got {what}. "
            "Make them: ifa.maps(model, data, layer=..., scale=run, store=...)."
        )
    return run


def identity_of(tree: Any) -> str:
    """Digest what maps were made of, and what was predicted of every sample."""
    digest = hashlib.sha256(tree.attrs["spec"].encode())
    said = {layer: tree[layer].attrs for layer in tree.attrs["layers"]}
    digest.update(json.dumps(said, sort_keys=True, default=str).encode())
    digest.update(json.dumps(tree["id"].values.tolist()).encode(errors="surrogatepass"))
    for name in ("label", "prediction", "score"):
        digest.update(np.ascontiguousarray(tree[name].values).tobytes())
    return digest.hexdigest()


def shard_of(tree: Any) -> int:
    """Return how many samples a shard of maps has."""
    return json.loads(tree.attrs["spec"])["shard"]


class Ends(NamedTuple):
    """What of the common scale stands for which score, of each target or of all."""

    low: np.ndarray
    high: np.ndarray
    at: tuple[float, float]  # where on the scale these are


def ends_of(attrs: Mapping[str, Any]) -> Ends | None:
    """Return the ends of the scale that a layer's maps are on, as far as it was widened."""
    if "limits" not in attrs:
        return None
    low, high = (np.atleast_1d(limit) for limit in attrs["limits"])
    centre, half = (low + high) / 2, (high - low) / 2 * attrs.get("widen", 1.0)
    tanh = attrs.get("how") == "tanh"
    return Ends(centre - half, centre + half, (TANH_LOW, TANH_HIGH) if tanh else (0.0, 1.0))


def check_ids(where: str, tree: Any, data: Any) -> None:
    """Raise unless data are those that maps were made of, as far as it is known without reading."""
    from ifa.data.samples import known

    ids = tree["id"].values
    if len(data) != len(ids):
        raise ValueError(
            f"{where}: expected the {len(ids)} samples that the maps are of, got {len(data)}. Give "
            "the data that ifa.maps was given."
        )
    theirs = known(data).ids
    for index, (one, other) in enumerate(zip(ids, ids if theirs is None else theirs, strict=True)):
        check_id(where, index, one, other)


def check_id(where: str, index: int, expected: Any, came: Any) -> None:
    """Raise unless a sample is the one that a map is of."""
    if str(expected) != str(came):
        raise ValueError(
            f"{where}: expected sample {index} to be {expected!r}, of which the map is, got "
            f"{came!r}. Give the data that ifa.maps was given."
        )


def file_names(ids: Sequence[str]) -> list[str]:
    """Make file names of ids: safe and unique, without what all of them begin with.

    Where several would be alike, also but for upper and lower case, each has its sample's number.
    """
    parts = [[part for part in re.split(r"[/\\]+", str(one)) if part] or [""] for one in ids]
    folders = zip(*(part[:-1] for part in parts), strict=False)
    shared = sum(1 for _ in takewhile(lambda level: len({*level}) == 1, folders))
    stems = [_safe("-".join(part[shared:])) for part in parts]
    alike = Counter(stem.casefold() for stem in stems)
    width = len(str(len(stems) - 1))
    numbered = [
        f"{stem}-{index:0{width}d}" if alike[stem.casefold()] > 1 else stem
        for index, stem in enumerate(stems)
    ]
    if len({name.casefold() for name in numbered}) == len(numbered):
        return numbered
    return [f"{index:0{width}d}-{stem}" for index, stem in enumerate(stems)]


def _safe(name: str) -> str:
    from ifa.data.reading import KINDS

    kind = next((kind for kind in sorted(KINDS, key=len)[::-1] if name.lower().endswith(kind)), "")
    name = unicodedata.normalize("NFC", name[: len(name) - len(kind)])
    name = re.sub(r"[^\w.+=-]+", "_", name).strip("._-")
    return name.encode()[:120].decode(errors="ignore") or "sample"


@dataclass(frozen=True)
class Export:
    """A folder of files, which a kill at any moment leaves each whole or absent."""

    where: str
    folder: Path
    made_by: Mapping[str, Any]  # all that determines the files
    files: Sequence[Sequence[str]]  # of each sample, or of each of what is drawn together
    label: str  # of the progress bar

    def write(self, make: Make, portion: int, progress: Progress) -> list[Path]:
        """Make the files that are not there, of so many samples at a time."""
        self._claimable()
        make_directory(self.folder)
        with locked(self.folder, WAIT) as free:
            if not free:
                raise ValueError(
                    f"{self.where}: expected {self.folder} to be written by one process at a time, "
                    "but another is writing it. Wait for it, or end it, and write again."
                )
            write_once(self.folder / MADE_BY, lambda file: file.write(canonical(self._said())))
            sweep(self.folder)
            there = {entry.name for entry in os.scandir(self.folder)}
            with reporting(progress, self.label, len(self.files)) as advance:
                for start in range(0, len(self.files), portion):
                    some = range(start, min(start + portion, len(self.files)))
                    wanted = [name for index in some for name in self.files[index]]
                    wanted = [name for name in wanted if name not in there]
                    if wanted:
                        self._publish(make(some, wanted))
                    advance(len(some))
        return [self.folder / name for names in self.files for name in names]

    def _said(self) -> dict[str, Any]:
        files = [list(names) for names in self.files]
        return {"ifa_version": version("ifa"), **self.made_by, "files": files}

    def _claimable(self) -> None:
        """Raise unless the folder is new, empty, or of the same maps; nothing is touched."""
        mine = self.folder / MADE_BY
        if not os.path.lexists(self.folder):
            return
        what = None
        if not self.folder.is_dir():
            what = "a file"
        elif os.path.lexists(mine):
            try:
                there = json.loads(read_file(mine))
                what = first_difference(there, json.loads(canonical(self._said())))
                what = what and f"files of others: {what}"
            except (OSError, ValueError) as error:
                what = f"a {MADE_BY} that cannot be read ({error})"
        elif any(not is_temporary(one) for one in self.folder.iterdir()):
            what = "a folder with other files in it"
        if what:
            raise ValueError(
                f"{self.where}: expected {self.folder} to be new, empty, or begun with these very "
                f"maps and options, got {what}. Nothing was touched. Give another folder."
            )

    def _publish(self, contents: Iterator[tuple[str, bytes]]) -> None:
        """Write files together: first they are on the disk, then they have their names."""
        names: dict[Path, Path] = {}
        try:
            for name, content in contents:
                temporary = temporary_beside(self.folder / name)
                names[temporary] = self.folder / name
                temporary.write_bytes(content)
            synced(names)
            for temporary, path in names.items():
                os.replace(temporary, path)
        finally:
            for temporary in names:
                temporary.unlink(missing_ok=True)
        synced([self.folder])
