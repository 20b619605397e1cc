"""The one table: every interval and every alarm, in each setting."""

from . import alarms, intervals

CELLS = {cell.key: cell for cell in (*intervals.CELLS, *alarms.CELLS)}
assert len(CELLS) == len(intervals.CELLS) + len(alarms.CELLS), "two cells of one name"

# Cells that are out of bounds, and the finding that says so: a mend turns its test red here.
MISSES: dict[str, str] = {}
