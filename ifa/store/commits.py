"""The record that a run is finished: names, sizes and digests of its files, and its own."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

from ifa.store.places import Entries, Files, Place, digest_of, read_all
from ifa.store.specs import canonical


def commit_text(files: Files, said: Mapping[str, Any]) -> bytes:
    """Write the record, with a checksum of itself."""
    return _with_checksum({**said, "files": files})


def read_commit(text: bytes) -> Files:
    """Return the files that a record lists; a ValueError if it is not as it was written."""
    record = json.loads(text)
    if not isinstance(record, dict):
        raise ValueError("it is no record")
    record.pop("checksum", None)
    if text != _with_checksum(record):
        raise ValueError("its checksum is another")
    return {name: (size, digest) for name, (size, digest) in record["files"].items()}


def _with_checksum(record: Mapping[str, Any]) -> bytes:
    return canonical({**record, "checksum": hashlib.sha256(canonical(record)).hexdigest()})


def found(place: Place, names: list[str]) -> Files:
    """Return size and digest of files."""
    contents = read_all(place, names)
    return {name: digest_of(content) for name, content in zip(names, contents, strict=True)}


# How `added` ends the name of what is there and was not listed.
NOT_COMMITTED = " was not committed"


def differences(place: Place, files: Files) -> list[str]:
    """Say how what is in a place differs from what was committed; see `changes`."""
    there = place.list()
    return changes(place, files, there) + added(files, there)


def added(files: Files, there: Entries) -> list[str]:
    """Say what is there that was not committed."""
    folders = {parent.as_posix() for name in files for parent in PurePosixPath(name).parents}
    return [
        f"{name}{'' if isinstance(kind, int) else f', {kind},'}{NOT_COMMITTED}"
        for name, kind in there.items()
        if not (name in files or name == "COMMIT.json" or (name in folders and kind == "a folder"))
    ]


def resized(files: Files, there: Entries) -> dict[str, str]:
    """Say which files are not as they are listed by name and size."""
    problems = {}
    for name, (size, _) in files.items():
        is_now = there.get(name)
        if is_now is None:
            problems[name] = f"{name} is missing"
        elif isinstance(is_now, str):
            problems[name] = f"{name} is {is_now}"
        elif is_now != size:
            problems[name] = f"{name} was changed: it has {is_now} bytes, not {size}"
    return problems


def changes(
    place: Place,
    files: Files,
    there: Entries,
    kept: dict[str, bytes] | None = None,
    digested: Callable[[str], bool] = bool,
) -> list[str]:
    """Say which files are not as they are listed: by name and size, and by digest.

    Parameters
    ----------
    place
        Where they are.
    files
        What is expected.
    there
        What the place has.
    kept
        Where to put what was read for its digest.
    digested
        Of which files, by name, to compare what they hold; by default of all.
    """
    problems = resized(files, there)
    names = [name for name in files if name not in problems and digested(name)]
    for name, content in zip(names, read_all(place, names), strict=True):
        if digest_of(content) != files[name]:
            problems[name] = f"{name} was changed"
        elif kept is not None:
            kept[name] = content
    return [problems[name] for name in files if name in problems]
