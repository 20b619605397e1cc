"""What determines a run's result, as canonical JSON that two runs can be compared by."""

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
from torch import Tensor

from ifa.network.identity import bytes_of
from ifa.network.inputs import named, written
from ifa.store.items import collate

# Data are identified by their size and this many of their items, evenly spaced.
FINGERPRINT_ITEMS = 16


def versions() -> dict[str, str]:
    """Return the versions of what a result's bits depend on."""
    return {name: version(name) for name in ("ifa", "torch", "numpy")}


def canonical(spec: Mapping[str, Any]) -> bytes:
    """Write a spec as JSON, the same bytes for the same content."""
    return json.dumps(spec, sort_keys=True, indent=1, ensure_ascii=False).encode()


def first_difference(a: Any, b: Any, path: str = "") -> str | None:
    """Name the first place where two specs differ, with both values; None if they agree."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in sorted({*a, *b}):
            found = first_difference(a.get(key), b.get(key), f"{path}.{key}" if path else key)
            if found:
                return found
        return None
    return None if a == b else f"{path}: {a!r} in the run, {b!r} now"


def data_token(where: str, data: Any) -> dict[str, Any]:
    """Identify data by their size and some evenly spaced items: inputs, labels and ids."""
    digest = hashlib.sha256()
    for index in np.linspace(0, len(data) - 1, min(len(data), FINGERPRINT_ITEMS)).astype(int):
        values, labels, ids, _ = collate(where, data, range(index, index + 1))
        for place, tensor in named(values).items():
            written_so = f"{written(place)}|{tensor.dtype} {tuple(tensor.shape)} {ids[0]}|"
            digest.update(written_so.encode() + bytes_of(tensor))
        label = labels[0]
        arrays = isinstance(label, Tensor | np.ndarray)
        digest.update(bytes_of(label) if arrays else repr(label).encode())
    return {"samples": len(data), "fingerprint": digest.hexdigest()}
