"""Tables that were printed, kept as JSON, and what has become slower since."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from .measure import Ratio

# Of a column's heading: what larger numbers mean. The first that it contains counts.
_WAYS = {
    "max difference": 0,
    "range": 0,
    "faster": -1,
    "per second": -1,
    "/ ": 1,
    "passes": 1,
    "synchronizations": 1,
    "MiB": 1,
    "bytes": 1,
    "exponent": 1,
    "seconds": 1,
}
_NUMBER = r"(\d+(?:\.\d+)?)"
_CELL = re.compile(rf"{_NUMBER}(?: \({_NUMBER}–{_NUMBER}\))?")


class Table(NamedTuple):
    """A table as it was printed."""

    title: str
    head: list[str]
    rows: list[list[str]]


def parsed(text: str) -> Table:
    """Read a table of Markdown below its title."""
    lines = text.splitlines()
    title = next(line.lstrip("# ") for line in lines if line.startswith("#"))
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line[:1] == "|"]
    return Table(title, cells[0], cells[2:])


def save(tables: Sequence[Table], path: Path) -> None:
    """Write tables for a later `--compare`."""
    path.write_text(json.dumps([table._asdict() for table in tables], indent=1) + "\n")


def load(path: Path) -> list[Table]:
    """Read what `save` wrote."""
    return [Table(**table) for table in json.loads(path.read_text())]


def slower(old: Sequence[Table], new: Sequence[Table]) -> list[str]:
    """Say which numbers have become worse: counts by any, others beyond what rounds differ by."""
    before = {key: cell for table in old for key, cell in _cells(table)}
    found = []
    for table in new:
        for key, cell in _cells(table):
            title, row, column = key
            if key in before and _worse(before[key], cell, column):
                found.append(f"{title}: {row}: {column}: {before[key]} → {cell}")
    return found


def _cells(table: Table) -> Iterator[tuple[tuple[str, str, str], str]]:
    """Yield what is compared, by its title, row and column."""
    named = [place for place, head in enumerate(table.head) if _way(head) is None]
    for row in table.rows:
        name = ", ".join(row[place] for place in named)
        for head, cell in zip(table.head, row, strict=True):
            if _way(head) and _CELL.fullmatch(cell):
                yield (table.title, name, head), cell


def _way(head: str) -> int | None:
    if head.split()[0] in ("ms", "µs"):  # times travel badly from machine to machine
        return 0
    return next((way for part, way in _WAYS.items() if part in head), None)


def _worse(before: str, now: str, column: str) -> bool:
    old, new = _numbers(before), _numbers(now)
    if "passes" in column or "synchronizations" in column:
        return new.median > old.median
    if "exponent" in column:
        return new.median > old.median + 0.15
    if _way(column) == -1:  # as if what was before came after
        old, new = new, old
    return new.median > 1.05 * old.median and new.low > old.high


def _numbers(cell: str) -> Ratio:
    """Return the median and both quartiles; of a plain number, itself within a twentieth."""
    match = _CELL.fullmatch(cell)
    assert match is not None
    middle, low, high = match.groups()
    value = float(middle)
    return Ratio(value, float(low or 0.95 * value), float(high or 1.05 * value))
