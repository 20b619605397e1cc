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

# Zstandard packs at most 128 KiB into a block, whose header alone has three bytes.
_MOST_UNFOLDED = (128 << 10) // 3


def write_tree(tree: xr.DataTree, path: Path) -> None:
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
        path,
        mode="w-",
        zarr_format=3,
        consolidated=False,
        encoding=encoding,
        write_empty_chunks=True,
    )
    consolidate(path)


def consolidate(path: Path) -> None:
    """Gather all metadata in one file, so that a store opens in one read."""
    with warnings.catch_warnings():  # zarr's: the feature is not yet in the written standard
        warnings.filterwarnings("ignore", message="Consolidated metadata", category=UserWarning)
        zarr.consolidate_metadata(path, zarr_format=3)


def read_tree(path: Path) -> xr.DataTree:
    """Open a store; what it holds is read when it is used."""
    return xr.open_datatree(path, engine="zarr", chunks=None, zarr_format=3)


def impossible(path: Path, sizes: Mapping[str, int]) -> list[str]:
    """Name arrays that say they are larger than their files can hold, before any is allocated.

    Parameters
    ----------
    path
        A consolidated store, of which every chunk was written.
    sizes
        Of all files below it, in bytes.
    """
    text = (path / "zarr.json").read_bytes()
    arrays = json.loads(text).get("consolidated_metadata", {}).get("metadata", {})
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
