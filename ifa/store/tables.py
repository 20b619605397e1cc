"""The per-sample table: laid out once, each shard fills its own whole chunks."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ifa.store.commits import changes
from ifa.store.encoding import Files, Metadata, array, chunk, group, metadata_files
from ifa.store.files import is_temporary
from ifa.store.places import Place, digest_of

# Group of the table ("" for what does not depend on the layer) -> variable -> values.
Rows = dict[str, dict[str, np.ndarray]]


@dataclass(frozen=True)
class Column:
    """A variable of the table: `dims` without the sample axis, which is last or first."""

    dims: tuple[str, ...]  # with "sample" among them
    shape: tuple[int, ...]
    dtype: str  # "str" for text of any length
    long_name: str
    units: str = "1"

    @property
    def axis(self) -> int:
        return self.dims.index("sample")

    def chunk(self, shard: int) -> str:
        """Return the name of the file that holds a shard's values."""
        return "/".join(["c", *(str(shard if dim == "sample" else 0) for dim in self.dims)])


Schema = dict[str, dict[str, Column]]


def laid_out(
    schema: Schema, coords: Mapping[str, np.ndarray], shard: int, attrs: Mapping[str, Any]
) -> dict[str, bytes]:
    """Make the files of a table without any value; `coords` are those of the target dimension."""
    found: Metadata = {"": group(attrs)}
    files: Files = {}
    for group_name, columns in schema.items():
        start = f"{group_name}/" if group_name else ""
        for name, column in columns.items():
            found[start + name] = _described(column, shard)
        own = dict(attrs) if not group_name else {}
        if any("target" in column.dims for column in columns.values()):
            for name, values in coords.items():
                kind = "str" if values.dtype == object else values.dtype.str
                column = Column(("target",), values.shape, kind, name.replace("_", " "))
                found[start + name] = _described(column, len(values))
                files[f"{start}{name}/{column.chunk(0)}"] = chunk(values)
            if "target_name" in coords:
                own = {**own, "coordinates": "target_name"}  # xarray's mark of a coordinate
        found[group_name] = group(own)
    return {**files, **metadata_files(found)}


def filled(
    described: bytes, schema: Schema, rows: Rows, shard: int, start: int
) -> Iterator[tuple[str, bytes]]:
    """Make the files of one shard: its own chunks, column by column.

    `described` is the table's zarr.json, which has the metadata of all columns.
    """
    known = json.loads(described)["consolidated_metadata"]["metadata"]
    for group_name, columns in rows.items():
        for name, values in columns.items():
            path, column = f"{group_name}/{name}".removeprefix("/"), schema[group_name][name]
            size = known[path]["chunk_grid"]["configuration"]["chunk_shape"][column.axis]
            dtype = object if column.dtype == "str" else column.dtype
            shape = list(values.shape)
            shape[column.axis] = size  # of the last shard too
            whole = np.full(shape, _empty(column), dtype=dtype)
            first = start - shard * size
            region = [slice(None)] * values.ndim
            region[column.axis] = slice(first, first + values.shape[column.axis])
            whole[tuple(region)] = values
            yield f"{path}/{column.chunk(shard)}", chunk(whole)


def chunks(schema: Schema, shard: int) -> list[str]:
    """List the files that hold a shard's rows."""
    return [
        f"{group}/{name}/{column.chunk(shard)}".removeprefix("/")
        for group, columns in schema.items()
        for name, column in columns.items()
    ]


def template_changes(
    place: Place, template: Mapping[str, bytes], schema: Schema, shards: range
) -> list[str]:
    """Say where a table is not as it was laid out, or holds what is no shard's."""
    files = {name: digest_of(content) for name, content in template.items()}
    # others may be writing now; what killed writers left goes with the commit
    there = {
        name: kind
        for name, kind in place.list().items()
        if not (is_temporary(Path(name)) or name.endswith(".partial"))
    }
    problems = [problem.split(": it has")[0] for problem in changes(place, files, there)]
    known = {name for shard in shards for name in chunks(schema, shard)} | template.keys()
    folders = {parent.as_posix() for name in known for parent in PurePosixPath(name).parents}
    for name, kind in there.items():
        if not (name in known and isinstance(kind, int)) and not (
            name in folders and kind == "a folder"
        ):
            problems.append(f"{name} is not of this run")
    return problems


def _empty(column: Column) -> Any:
    # stored as such, never as a mask: a real zero must not come back as missing
    return {"f": np.nan, "i": -1, "b": False}.get(np.dtype(column.dtype).kind, "")


def _described(column: Column, shard: int) -> dict[str, Any]:
    whole = [
        max(1, shard if dim == "sample" else extent)
        for dim, extent in zip(column.dims, column.shape, strict=True)
    ]
    attrs = {"long_name": column.long_name, "units": column.units}
    return array(column.shape, whole, column.dtype, _empty(column), column.dims, attrs)
