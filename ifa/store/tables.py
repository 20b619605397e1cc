"""The per-sample table: laid out once, each shard fills its own whole chunks."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from ifa.store.commits import changes
from ifa.store.places import Place, digest_of
from ifa.store.trees import consolidate, contents_of, in_memory

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
    import zarr

    store, buffers = in_memory()
    for group_name, columns in schema.items():
        group = zarr.open_group(store, mode="a", path=group_name, zarr_format=3)
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
    consolidate(store)
    return contents_of(buffers)


def filled(
    described: bytes, schema: Schema, rows: Rows, shard: int, start: int
) -> Iterator[tuple[str, bytes]]:
    """Make the files of one shard: its own chunks, column by column.

    `described` is the table's zarr.json, which has the metadata of all columns.
    """
    import zarr

    store, buffers = in_memory({"zarr.json": described})
    root = zarr.open_group(store, mode="r+", zarr_format=3)
    for group_name, columns in rows.items():
        for name, values in columns.items():
            path, column = f"{group_name}/{name}".removeprefix("/"), schema[group_name][name]
            region = [slice(None)] * values.ndim
            region[column.axis] = slice(start, start + values.shape[column.axis])
            _whole(root[path])[tuple(region)] = values
            chunk = f"{path}/{column.chunk(shard)}"
            yield chunk, buffers.pop(chunk).to_bytes()


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
    there = place.list()
    problems = [problem.split(": it has")[0] for problem in changes(place, files, there)]
    known = {name for shard in shards for name in chunks(schema, shard)} | template.keys()
    folders = {parent.as_posix() for name in known for parent in PurePosixPath(name).parents}
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
