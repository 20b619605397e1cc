"""Labelled trees as Zarr stores: written in whole chunks with checksums, read once checked."""

import json
from collections.abc import Mapping
from math import ceil, prod
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from xarray.conventions import encode_dataset_coordinates
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from ifa.store.encoding import Files, Metadata, array, chunk, group, metadata_files

# Zstandard packs at most 128 KiB into a block, whose header alone has three bytes.
_MOST_UNFOLDED = (128 << 10) // 3


def tree_files(tree: xr.DataTree) -> Files:
    """Make the files of a tree: whole chunks with checksums, no masks, every chunk there."""
    found: Metadata = {}
    files: Files = {}
    for node in tree.subtree:
        variables, attrs = encode_dataset_coordinates(node.to_dataset(inherit=False))
        place = node.path.strip("/")
        found[place] = group(attrs)
        for name, variable in variables.items():
            path = f"{place}/{name}".strip("/")
            values = np.asarray(variable.values)
            dims = [str(dim) for dim in variable.dims]
            whole = [max(1, extent) for extent in values.shape]
            empty = {"f": np.nan, "b": False, "O": "", "U": ""}.get(values.dtype.kind, 0)
            found[path] = array(values.shape, whole, values.dtype, empty, dims, variable.attrs)
            if values.size:
                files["/".join([path, "c", *("0" for _ in dims)])] = chunk(values)
    return {**files, **metadata_files(found)}


def write_tree(tree: xr.DataTree, path: Path) -> None:
    """Write the files of a tree below a new directory."""
    for name, content in tree_files(tree).items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)


def in_memory(files: Mapping[str, bytes]) -> MemoryStore:
    """Make a store of files in memory."""
    make = default_buffer_prototype().buffer.from_bytes
    return MemoryStore({name: make(content) for name, content in files.items()})


def read_tree(path: Any) -> xr.DataTree:
    """Open a store; what it holds is read when it is used."""
    return xr.open_datatree(path, engine="zarr", chunks=None, zarr_format=3)


def impossible(described: bytes, sizes: Mapping[str, int]) -> list[str]:
    """Name arrays that say they are larger than their files can hold, before any is allocated.

    Parameters
    ----------
    described
        The zarr.json of a consolidated store, of which every chunk was written.
    sizes
        Of all files below it, in bytes.
    """
    arrays = json.loads(described).get("consolidated_metadata", {}).get("metadata", {})
    problems = []
    for name, entry in arrays.items():
        if entry["node_type"] != "array":
            continue
        chunk = entry["chunk_grid"]["configuration"]["chunk_shape"]
        counts = [ceil(n / size) for n, size in zip(entry["shape"], chunk, strict=True)]
        there = [size for file, size in sizes.items() if file.startswith(f"{name}/c")]
        if len(there) != prod(counts):
            problems.append(f"{name} has {len(there)} of {prod(counts)} chunks")
        elif entry["data_type"] != "string":
            one = prod(chunk) * np.dtype(entry["data_type"]).itemsize
            if one > _MOST_UNFOLDED * min(there, default=1):
                problems.append(f"{name} claims {one} bytes for {min(there, default=0)}")
    return problems
