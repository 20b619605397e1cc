"""The per-sample table: laid out once, each shard fills its own whole chunks."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

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
                _create(group, name, column, len(values))[:] = values
            if "target_name" in coords:
                group.attrs["coordinates"] = "target_name"  # xarray's mark of a coordinate


def fill(path: Path, rows: Rows, start: int) -> None:
    """Write the rows of one shard, which starts a chunk."""
    import zarr

    for group_name, columns in rows.items():
        group = zarr.open_group(path, mode="r+", path=group_name)
        for name, values in columns.items():
            array: Any = group[name]
            axis = array.metadata.dimension_names.index("sample")
            region = [slice(None)] * values.ndim
            region[axis] = slice(start, start + values.shape[axis])
            array[tuple(region)] = values


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
