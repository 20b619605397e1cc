"""Cells of the table: what is measured, in which setting, and what is asked of it."""

import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.stats import beta

ASKED = {"interval": (0.92, 0.98), "alarm": (0.0, 0.07), "power": (0.8, 1.0)}
NOMINAL = {"interval": "95 %", "alarm": "5 %", "power": "—"}
SAFE = (0.92, 1.0)  # of an interval that may hold the truth more often
ANYTHING = (0.0, 1.0)  # where nothing is promised
SURE = 0.99  # of the exact limits by which a rate is judged


class Cell(NamedTuple):
    """A rate: how often an interval covers, an alarm errs, or a planted fault is found."""

    of: str  # room and name of the public function
    reports: tuple[
        str, ...
    ]  # names of what it returns that are looked at here; the first names the cell
    kind: str  # of `ASKED`
    setting: str
    draw: Callable[[np.random.Generator], bool | None]  # None: no answer, such as a NaN
    core: bool = False  # measured in CI by 300 draws
    draws: int = 2000  # in the deep job
    asked: tuple[float, float] | None = None  # where an exception is stated
    why: str = ""  # the exception

    @property
    def key(self) -> str:
        return f"{self.of} {self.reports[0]}, {self.kind}: {self.setting}"

    @property
    def bounds(self) -> tuple[float, float]:
        return self.asked or ASKED[self.kind]


class Rate(NamedTuple):
    """How often it was so, of how many draws that gave an answer, and how many gave none."""

    hits: int = 0
    of: int = 0
    silent: int = 0

    def __str__(self) -> str:
        low, high = self.limits(0.95)
        said = f"{self.hits / self.of:.3f} ({low:.3f} … {high:.3f})" if self.of else "no answer"
        return said + (f", {self.silent} of {self.of + self.silent} silent" * bool(self.silent))

    def limits(self, level: float = SURE) -> tuple[float, float]:
        """Exact binomial limits, by Clopper and Pearson."""
        tail, misses = (1 - level) / 2, self.of - self.hits
        low = beta.ppf(tail, self.hits, misses + 1) if self.hits else 0.0
        high = beta.ppf(1 - tail, self.hits + 1, misses) if misses else 1.0
        return float(low), float(high)


def measured(cell: Cell, draws: int, first: int = 0) -> Rate:
    """Measure a cell; each draw has random numbers of its own, whichever came before it."""
    found = [
        cell.draw(np.random.default_rng((zlib.crc32(cell.key.encode()), number)))
        for number in range(first, first + draws)
    ]
    answers = [bool(one) for one in found if one is not None]
    return Rate(sum(answers), len(answers), draws - len(answers))


def verdict(cell: Cell, rate: Rate) -> str:
    """Say what is wrong with a rate, if its exact limits lie outside of what is asked."""
    low, high = rate.limits()
    least, most = cell.bounds
    said = f"{cell.key}: {rate} of {rate.of} draws; asked {least:g} … {most:g}"
    if rate.silent > rate.of:
        return f"{said}; most draws gave no answer"
    if high < least:
        return f"{said}: too seldom"
    return f"{said}: too often" if low > most else ""
