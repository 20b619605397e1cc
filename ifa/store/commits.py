"""The record that a run is finished: names, sizes and digests of its files, and its own."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ifa.store.files import entries, read_file, sha256, write_atomically
from ifa.store.markers import Files
from ifa.store.specs import canonical


def write_commit(path: Path, files: Files, said: Mapping[str, Any]) -> None:
    """Write the record, with a checksum of itself."""
    record = {**said, "files": files}
    write_atomically(path, lambda file: file.write(_with_checksum(record)))


def read_commit(path: Path) -> Files:
    """Return the files that a record lists; a ValueError if it is not as it was written."""
    text = read_file(path)
    record = json.loads(text)
    if not isinstance(record, dict):
        raise ValueError("it is no record")
    record.pop("checksum", None)
    if text != _with_checksum(record):
        raise ValueError("its checksum is another")
    return {name: (size, digest) for name, (size, digest) in record["files"].items()}


def _with_checksum(record: Mapping[str, Any]) -> bytes:
    return canonical({**record, "checksum": hashlib.sha256(canonical(record)).hexdigest()})


def found(root: Path, names: list[str]) -> Files:
    """Return size and digest of files below a directory."""
    return {name: ((root / name).stat().st_size, sha256(root / name)) for name in names}


# How `differences` ends the name of what is there and was not listed.
NOT_COMMITTED = " was not committed"


def differences(root: Path, files: Files, digested: Callable[[str], bool]) -> list[str]:
    """Say how what is in a run's directory differs from what was committed; see `changes`."""
    there = entries(root)
    folders = {parent.as_posix() for name in files for parent in Path(name).parents}
    return changes(root, files, there, digested) + [
        f"{name}{'' if isinstance(kind, int) else f', {kind},'}{NOT_COMMITTED}"
        for name, kind in there.items()
        if not (name in files or name == "COMMIT.json" or (name in folders and kind == "a folder"))
    ]


def changes(
    root: Path,
    files: Files,
    there: Mapping[str, int | str],
    digested: Callable[[str], bool] = bool,
) -> list[str]:
    """Say which files are not as they are listed: by name and size, and by digest.

    Parameters
    ----------
    root
        The directory they are in.
    files
        What is expected.
    there
        The entries of that directory.
    digested
        Of which files, by name, to compare what they hold; by default of all.
    """
    problems = []
    for name, (size, digest) in files.items():
        is_now = there.get(name)
        if is_now is None:
            problems.append(f"{name} is missing")
        elif isinstance(is_now, str):
            problems.append(f"{name} is {is_now}")
        elif is_now != size:
            problems.append(f"{name} was changed: it has {is_now} bytes, not {size}")
        elif digested(name) and sha256(root / name) != digest:
            problems.append(f"{name} was changed")
    return problems
