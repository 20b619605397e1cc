"""Labelled trees as Zarr stores: written in whole chunks with checksums, read once checked."""

import json
import warnings
from collections.abc import Mapping
from math import ceil, prod
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import ZstdCodec
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.storage import MemoryStore

Buffers = dict[str, Buffer]

# Zstandard packs at most 128 KiB into a block, whose header alone has three bytes.
_MOST_UNFOLDED = (128 << 10) // 3


def in_memory(files: Mapping[str, bytes] | None = None) -> tuple[MemoryStore, Buffers]:
    """Make a store of files in memory, and the dictionary that it has them in."""
    make = default_buffer_prototype().buffer.from_bytes
    buffers = {name: make(content) for name, content in (files or {}).items()}
    return MemoryStore(buffers), buffers


def contents_of(buffers: Buffers) -> dict[str, bytes]:
    """Return the files of a store in memory."""
    return {name: content.to_bytes() for name, content in buffers.items()}


def tree_files(tree: xr.DataTree) -> dict[str, bytes]:
    """Make the files of a tree; see `write_tree`."""
    store, buffers = in_memory()
    write_tree(tree, store)
    return contents_of(buffers)


def write_tree(tree: xr.DataTree, path: Path | MemoryStore) -> None:
    """Write a tree in whole chunks with checksums, without masks, and with every chunk there."""
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
    tree.to_zarr(
        path,  # pyright: ignore[reportArgumentType]
        mode="w-",
        zarr_format=3,
        consolidated=False,
        encoding=encoding,
        write_empty_chunks=True,
    )
    consolidate(path)


def consolidate(path: Path | MemoryStore) -> None:
    """Gather all metadata in one file, so that a store opens in one read."""
    with warnings.catch_warnings():  # zarr's: the feature is not yet in the written standard
        warnings.filterwarnings("ignore", message="Consolidated metadata", category=UserWarning)
        zarr.consolidate_metadata(path, zarr_format=3)


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
