"""Markers of finished shards: mergeable states, and what they vouch for, as one file of arrays."""

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ifa.store.places import Files

Arrays = dict[str, np.ndarray]

# Members of the file that are no states.
_ITEMS, _SAID = "__items__", "__marker__"
# More than this a byte of a deflated member cannot unfold to.
_MOST_UNFOLDED = 1032


class Marker(NamedTuple):
    """What says that a shard is done, and of what it was made."""

    spec: str  # digest of the spec's file
    shard: int
    versions: dict[str, str]  # of who computed it
    files: Files  # that hold the shard's rows
    items: np.ndarray  # (sample, 16) uint8: digests of the samples


def marker_text(marker: Marker, states: Arrays) -> bytes:
    """Write a marker and the states of its shard, as what a file holds."""
    said = {**marker._asdict(), "states": sorted(states)}
    del said["items"]
    text = json.dumps(said, sort_keys=True).encode()
    members = {**states, _ITEMS: marker.items, _SAID: np.frombuffer(text, dtype=np.uint8)}
    buffer = io.BytesIO()
    # compressed, because targets that a shard has not seen are zeros
    np.savez_compressed(buffer, **members)  # pyright: ignore[reportArgumentType]
    return _sealed(buffer.getvalue())


def read_marker(
    where: str, name: str, text: bytes, *, states: bool = True
) -> tuple[Marker, Arrays]:
    """Read what a marker says, and states unless not asked for; nothing in it is executed.

    Where it cannot be read, `name` is what the error calls it.
    """
    try:
        with zipfile.ZipFile(_unsealed(text)) as file:
            said = json.loads(_member(file, _SAID).tobytes())
            named = said.pop("states")
            if sorted([*named, _ITEMS, _SAID]) != sorted(map(_name, file.namelist())):
                raise ValueError("it has other members than it says")
            said["files"] = {name: tuple(found) for name, found in said["files"].items()}
            marker = Marker(**said, items=_member(file, _ITEMS))
            return marker, {name: _member(file, name) for name in named if states}
    except Exception as error:  # whatever a damaged file makes of its reader
        raise ValueError(
            f"{where}: expected the marker of a shard in {name}, could not read it "
            f"({type(error).__name__}: {error}). Delete this file and run again: its samples are "
            "then done anew."
        ) from error


def _sealed(archive: bytes) -> bytes:
    """Put the digest of an archive into its comment, which ends it, after a length of two bytes."""
    digest = hashlib.sha256(archive).hexdigest().encode()
    return archive[:-2] + len(digest).to_bytes(2, "little") + digest


def _unsealed(content: bytes) -> io.BytesIO:
    """Read an archive whose digest is as it was: the checksums of its members are not of all."""
    if content != _sealed(content[:-66] + bytes(2)):
        raise ValueError("its checksum is another")
    return io.BytesIO(content)


def _name(member: str) -> str:
    return member.removesuffix(".npy")


def _member(file: zipfile.ZipFile, name: str) -> np.ndarray:
    """Read an array, unless it says that it is larger than the file can hold."""
    found = file.getinfo(f"{name}.npy")
    if found.file_size > _MOST_UNFOLDED * found.compress_size + 64:
        raise ValueError(f"{name} claims {found.file_size} bytes")
    content = io.BytesIO(file.read(found))
    read: Mapping[Any, Any] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    shape, _, dtype = read[np.lib.format.read_magic(content)](content)
    if np.prod(shape, dtype=object) * dtype.itemsize != len(content.getvalue()) - content.tell():
        raise ValueError(f"{name} claims {shape} of {dtype}")
    content.seek(0)
    return np.lib.format.read_array(content, allow_pickle=False)
