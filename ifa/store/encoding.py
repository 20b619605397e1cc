"""Arrays and groups as the files of a Zarr store, format 3, of the kinds that are written here.

They are byte for byte what zarr writes, without its event loop: for tables of a few kilobytes that
took longer than a small network took for a thousand samples.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numcodecs.vlen import VLenUTF8
from numcodecs.zstd import Zstd

_PACK = Zstd(level=3, checksum=True)
_TEXT = VLenUTF8()
_ZSTD = {"name": "zstd", "configuration": {"level": 3, "checksum": True}}

Files = dict[str, bytes]
Metadata = dict[str, dict[str, Any]]  # by the path of an array or group, "" for the root


def group(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a group."""
    return {"attributes": _plain(dict(attrs)), "zarr_format": 3, "node_type": "group"}


def array(
    shape: Sequence[int],
    chunks: Sequence[int],
    dtype: Any,
    fill: Any,
    dims: Sequence[str],
    attrs: Mapping[str, Any],
) -> dict[str, Any]:
    """Describe an array; of text of any length its dtype is ``str`` or object."""
    text = is_text(dtype)
    kind = np.dtype(dtype)
    if kind.kind not in "biufOU":
        raise TypeError(
            f"ifa.store: expected numbers, booleans or text to write, got {kind}. Convert it first."
        )
    name: Any = "string" if text else kind.name
    if kind.kind == "U" and not text:
        name = {"name": "fixed_length_utf32", "configuration": {"length_bytes": kind.itemsize}}
    first: dict[str, Any] = {"name": "vlen-utf8", "configuration": {}}
    if not text:
        ordered = {"configuration": {"endian": "little"}} if kind.itemsize > 1 else {}
        first = {"name": "bytes", **ordered}
    named = {"dimension_names": list(dims)} if dims else {}
    separated = {"name": "default", "configuration": {"separator": "/"}}
    return {
        "shape": list(shape),
        "data_type": name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunks)}},
        "chunk_key_encoding": separated,
        "fill_value": "NaN" if kind.kind == "f" and np.isnan(fill) else fill,
        "codecs": [first, _ZSTD],
        "attributes": _plain(dict(attrs)),
        **named,
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }


def is_text(dtype: Any) -> bool:
    """Whether values are text of any length."""
    return dtype is str or dtype == "str" or np.dtype(dtype).kind == "O"


def chunk(values: np.ndarray) -> bytes:
    """Pack the values of one chunk."""
    if values.dtype.kind == "O":
        return bytes(_PACK.encode(_TEXT.encode(values.reshape(-1))))
    little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    return bytes(_PACK.encode(little.reshape(-1).view(np.uint8)))


def metadata_files(found: Metadata) -> Files:
    """Write what describes a store: a file of each group and array, and all in that of the root."""
    files = {f"{path}/zarr.json": _written(one) for path, one in found.items() if path}
    inside = {"kind": "inline", "must_understand": False}
    every = {}
    for path in sorted((path for path in found if path), key=lambda path: (path.count("/"), path)):
        every[path] = found[path]
        if found[path]["node_type"] == "group":
            every[path] = _consolidated(found[path], {**inside, "metadata": {}})
    root = _consolidated(found[""], {**inside, "metadata": every})
    return {**files, "zarr.json": _written(root)}


def _consolidated(one: dict[str, Any], inside: dict[str, Any]) -> dict[str, Any]:
    kept = {key: one[key] for key in ("attributes", "zarr_format")}
    return {**kept, "consolidated_metadata": inside, "node_type": "group"}


def _written(one: Any) -> bytes:
    return json.dumps(one, indent=2).encode()


def _plain(value: Any) -> Any:
    """Take attributes as JSON has them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value
