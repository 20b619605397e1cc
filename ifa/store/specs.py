"""What determines a run's result, as canonical JSON that two runs can be compared by."""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np

from ifa.network.identity import network_difference
from ifa.network.inputs import Shapes, tensors_of
from ifa.store.items import Batch, collate

# Data are identified by their size and this many of their items, evenly spaced.
FINGERPRINT_ITEMS = 16
_KEPT_BYTES = 2**22  # of each


@cache
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
    same = json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)  # 1 is not 1.0
    return None if same else f"{path}: {a!r} in the run, {b!r} now"


def compared(
    run: Mapping[str, Any], now: Mapping[str, Any], finished: bool, versions: str
) -> tuple[str | None, list[str]]:
    """Compare a run's spec with another one.

    Parameters
    ----------
    run, now
        The specs.
    finished
        Whether the run is, so that nothing more is computed for it.
    versions
        ``"any"`` to go on with an unfinished run of other versions.

    Returns
    -------
    difference : str or None
        The first place where they are of another analysis.
    notes : list of str
        What is other than it was, and does not matter.
    """
    was, is_now = (dict(json.loads(canonical(spec))) for spec in (run, now))
    for spec in (was, is_now):
        spec.pop(FINISH, None)  # which follows from the rest
    if finished:  # what is returned is named as it was asked for
        was, is_now = map(_inside, (was, is_now))
    networks, made_by, threads, data = (
        [spec.pop(key, {}) for spec in (was, is_now)] for key in _APART
    )
    other_network, note = network_difference(*networks)
    notes = [note] if note else []
    other_threads = first_difference(threads[0], threads[1], "threads")
    if other_threads and finished:
        notes.append(other_threads)
    difference = data_difference(*data) or first_difference(was, is_now) or other_network
    difference = difference or (None if finished else other_threads)
    other_versions = first_difference(made_by[0], made_by[1], "versions")
    if other_versions and (finished or versions == "any"):
        notes.append(other_versions)
    elif other_versions:
        difference = difference or f"{other_versions} (versions='any' goes on all the same)"
    return difference, notes


def _inside(spec: dict[str, Any]) -> dict[str, Any]:
    """Name layers from the network itself, whatever module hands everything through to it."""
    model = spec.get("model", {})
    around = f"{model['inside']}." if model.get("inside") else ""
    if "layers" in spec:
        spec["layers"] = [name.removeprefix(around) for name in spec["layers"]]
    for behaviour in filter(None, [model.get("behaviour")]):
        layers = behaviour["layers"].items()
        behaviour["layers"] = {name.removeprefix(around): each for name, each in layers}
    return spec


# The part of a spec that says what `ifa.commit` makes of the shards.
FINISH = "finish"
# Parts of a spec that may differ.
_APART = ("model", "versions", "threads", "data")


class Spaced:
    """Some items of data, evenly spaced, read once: they identify the data and probe a network.

    Few large ones are not kept, but read again. Only the data go to other processes.
    """

    def __init__(self, where: str, data: Any, shape: Shapes | None = None):
        self.where, self.data, self.shape = where, data, shape
        self._kept: list[Batch] = []

    def __reduce__(self) -> Any:
        return Spaced, (self.where, self.data, self.shape)

    def __iter__(self) -> Iterator[Batch]:
        return (item for _, item in self.items())

    def items(self) -> Iterator[tuple[int, Batch]]:
        """Return each with its index."""
        total, kept = len(self.data), self._kept
        places = np.linspace(0, total - 1, min(total, FINGERPRINT_ITEMS)).astype(int)
        for number, place in enumerate(places):
            if number < len(kept):
                yield int(place), kept[number]
                continue
            item = collate(self.where, self.data, range(place, place + 1), self.shape, digest=True)
            small = sum(one.nbytes for one in tensors_of(item.inputs)) <= _KEPT_BYTES
            if small and number == len(kept):
                kept.append(item)
            yield int(place), item


def data_token(
    where: str, data: Any, version: str | None = None, items: Spaced | None = None
) -> dict[str, Any]:
    """Identify data by their size and the version its owner gives it, or else by some items.

    The items are `Spaced`, by default read here: inputs, labels and ids. What all items are is kept
    as they are read, in the markers of shards.
    """
    if version is not None:
        return {"samples": len(data), "version": version}
    found = items or Spaced(where, data)
    digests = {str(place): item.digests.tobytes().hex() for place, item in found.items()}
    return {"samples": len(data), "items": digests}


def data_difference(run: Any, now: Any) -> str | None:
    """Say where data are others, by what `data_token` returned."""
    kept = [isinstance(each, Mapping) for each in (run, now)]  # of merged runs it is a list
    if all(kept) and run.get("samples") != now.get("samples"):
        return first_difference(run.get("samples"), now.get("samples"), "data.samples")
    if not all(kept):
        return first_difference(run, now, "data")
    if run.get("version") != now.get("version"):
        return first_difference(run.get("version"), now.get("version"), "data.version")
    for place in sorted(run.get("items", {}), key=int):
        if now.get("items", {}).get(place) != run["items"][place] and "items" in now:
            return f"data: another sample {place}"
    return first_difference(run, now, "data")
