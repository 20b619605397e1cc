"""The per-sample table: laid out once, each shard fills its own whole chunks."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ifa.store.commits import found
from ifa.store.files import entries, synced
from ifa.store.markers import Files
from ifa.store.trees import consolidate

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


def lay_out(
    path: Path,
    schema: Schema,
    coords: Mapping[str, np.ndarray],
    shard: int,
    attrs: Mapping[str, Any],
) -> None:
    """Create the table without any value; `coords` are those of the target dimension."""
    import zarr

    for group_name, columns in schema.items():
        group = zarr.open_group(path, mode="a", path=group_name, zarr_format=3)
        if not group_name:
            group.attrs.update(attrs)
        for name, column in columns.items():
            _create(group, name, column, shard)
        if any("target" in column.dims for column in columns.values()):
            for name, values in coords.items():
                kind = "str" if values.dtype == object else values.dtype.str
                column = Column(("target",), values.shape, kind, name.replace("_", " "))
                _whole(_create(group, name, column, len(values)))[:] = values
            if "target_name" in coords:
                group.attrs["coordinates"] = "target_name"  # xarray's mark of a coordinate
    consolidate(path)


def fill(path: Path, schema: Schema, rows: Rows, shard: int, start: int) -> Files:
    """Write the rows of one shard to its own chunks, and return once they are on the disk."""
    import zarr

    root = zarr.open_group(path, mode="r+", zarr_format=3)
    for group_name, columns in rows.items():
        for name, values in columns.items():
            array = _whole(root[f"{group_name}/{name}".removeprefix("/")])
            axis = schema[group_name][name].axis
            region = [slice(None)] * values.ndim
            region[axis] = slice(start, start + values.shape[axis])
            array[tuple(region)] = values
    names = chunks(schema, shard)
    # a chunk is renamed into its folder, and the first one makes it
    folders = {path / parent for name in names for parent in Path(name).parents}
    synced([*(path / name for name in names), *sorted(folders, reverse=True)])
    return found(path, names)


def chunks(schema: Schema, shard: int) -> list[str]:
    """List the files that hold a shard's rows."""
    return [
        f"{group}/{name}/{column.chunk(shard)}".removeprefix("/")
        for group, columns in schema.items()
        for name, column in columns.items()
    ]


def template_changes(path: Path, template: Path, schema: Schema, shards: range) -> list[str]:
    """Say where a table is not as it was laid out, or holds what is no shard's."""
    there, expected = entries(path), entries(template)
    problems = []
    for name, kind in expected.items():
        if name not in there:
            problems.append(f"{name} is missing")
        elif isinstance(kind, str) or isinstance(there[name], str):
            problems += [f"{name} is {there[name]}"] * (there[name] != kind)
        elif (path / name).read_bytes() != (template / name).read_bytes():
            problems.append(f"{name} was changed")
    known = {name for shard in shards for name in chunks(schema, shard)} | expected.keys()
    folders = {parent.as_posix() for name in known for parent in Path(name).parents}
    for name, kind in there.items():
        if not (name in known and isinstance(kind, int)) and not (
            name in folders and kind == "a folder"
        ):
            problems.append(f"{name} is not of this run")
    return problems


def _whole(array: Any) -> Any:
    """Write every chunk, those too that have nothing but the fill value: absence is no value."""
    return array.with_config({"write_empty_chunks": True})


def _create(group: Any, name: str, column: Column, shard: int) -> Any:
    from zarr.codecs import ZstdCodec

    # the fill value is stored as such, never as a mask: a real zero must not come back as missing
    empty = {"f": np.nan, "i": -1, "b": False}.get(np.dtype(column.dtype).kind, "")
    chunks = tuple(
        max(1, shard if dim == "sample" else extent)
        for dim, extent in zip(column.dims, column.shape, strict=True)
    )
    return group.create_array(
        name,
        shape=column.shape,
        chunks=chunks,
        dtype=str if column.dtype == "str" else column.dtype,
        compressors=ZstdCodec(level=3, checksum=True),
        fill_value=empty,
        dimension_names=column.dims,
        attributes={"long_name": column.long_name, "units": column.units},
    )
