"""The one table: every interval and every alarm, in each setting."""

from . import alarms, intervals

CELLS = {cell.key: cell for cell in (*intervals.CELLS, *alarms.CELLS)}
assert len(CELLS) == len(intervals.CELLS) + len(alarms.CELLS), "two cells of one name"

# Cells that are out of bounds, and the finding that says so: a mend turns its test red here.
MISSES: dict[str, str] = {
    "population.bootstrap low, interval: normal, n 100, clusters": "F-S1",
    "evaluate.consistency_report low, interval: t3, n 30, r 0.5": "F-S9",
    "evaluate.consistency_report low, interval: lognormal, n 30, r 0.5": "F-S9",
    "diagnose.agreement bias, interval: normal, n 30, blocks": "F-S2",
    "diagnose.agreement alarm, power: normal, n 30, ±2 sd in halves of them": "F-S2",
    "diagnose.agreement alarm, power: normal, n 60, the same samples .3 sd apart": "F-S2",
    "diagnose.confounders alarm, alarm: normal, n 100, clusters": "F-S1",
    "diagnose.confounders probe_alarm, alarm: normal, n 100, clusters": "F-S1",
    "diagnose.outliers alarm, power: ReLU-like, n 200, blocks, one at 8 sd": "F-S12",
}
