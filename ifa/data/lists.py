"""Names and columns that are written on a line or in a file, for the command line."""

import csv
import os
from collections.abc import Sequence

from ifa.data.labels import checked_names

_TABLES = {".csv": ",", ".tsv": "\t"}


def listed_names(where: str, text: str) -> tuple[str, ...]:
    """Read names of classes: ``a,b,c``, or a text file with one on each line."""
    if os.path.isfile(text):
        names = [line.strip() for line in _lines(where, text)]
        while names and not names[-1]:
            names.pop()
        if "" in names:  # left out, it would move all that follow
            raise ValueError(
                f"{where}: expected {text} to have a name on each line, got none on line "
                f"{names.index('') + 1}."
            )
    elif os.path.splitext(text)[1] == ".txt" or os.sep in text:
        raise FileNotFoundError(
            f"{where}: expected names such as a,b,c, or a file with one on each line, got {text}, "
            "which is no file."
        )
    else:
        names = [name.strip() for name in text.split(",")]
    return checked_names(where, names)


def listed_column(where: str, text: str, ids: Sequence[str] | None, samples: int) -> list[str]:
    """Read one value for each sample: a text file's lines, in order, or ``table.csv:COLUMN``.

    The rows of a table are found by its column ``id``, or ``path`` where it has none; the table may
    have other rows too.
    """
    table, _, column = text.rpartition(":")
    if os.path.splitext(table)[1] in _TABLES and os.path.isfile(table):
        return _by_id(where, table, column, ids)
    if not os.path.isfile(text) or os.path.splitext(text)[1] in _TABLES:
        raise ValueError(
            f"{where}: expected a text file with a line for each sample, or TABLE.csv:COLUMN, got "
            f"{text!r}. Of a table that is the data, a column may be named alone."
        )
    lines = [line.strip() for line in _lines(where, text)]
    if len(lines) != samples:
        raise ValueError(
            f"{where}: expected {text} to have a line for each of {samples} samples, got "
            f"{len(lines)}."
        )
    return lines


def _lines(where: str, path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.read().splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{where}: expected {path} to be text in UTF-8, but it is not ({error})."
        ) from error


def _by_id(where: str, path: str, column: str, ids: Sequence[str] | None) -> list[str]:
    if ids is None:
        raise ValueError(
            f"{where}: expected data that know their ids without being read, as those of ifa.data "
            f"do, to find them in {path}. Give a text file with a line for each sample."
        )
    lines = _lines(where, path)
    cells = csv.reader(lines, delimiter=_TABLES[os.path.splitext(path)[1]])
    head, *rows = [[cell.strip() for cell in row] for row in cells if row] or [[]]
    key = "id" if "id" in head else "path"
    if column not in head or key not in head:
        raise LookupError(
            f"{where}: expected columns {column!r} and 'id' (or 'path') in {path}, got "
            f"{', '.join(head) or 'no row'}."
        )
    found: dict[str, str] = {}
    for row in rows:
        one = dict(zip(head, row, strict=False))
        name, value = one.get(key, ""), one.get(column, "")
        if found.setdefault(name, value) != value:
            raise ValueError(
                f"{where}: expected one {column!r} for each sample in {path}, got {found[name]!r} "
                f"and {value!r} for {name!r}."
            )
    missing = [name for name in ids if not found.get(name)]
    if missing:
        raise LookupError(
            f"{where}: expected {column!r} of every sample in {path}, got none of {len(missing)}, "
            f"such as {missing[0]!r}."
        )
    return [found[name] for name in ids]
