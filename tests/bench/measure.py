"""Time and memory of variants of one piece of work, side by side."""

import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

Work = Callable[[], object]


class Ratio(NamedTuple):
    """Of two variants' times, round by round."""

    median: float
    low: float  # first quartile
    high: float  # third

    def __str__(self) -> str:
        digits = 0 if self.median >= 20 else 1 if self.median >= 5 else 2
        return f"{self.median:.{digits}f} ({self.low:.{digits}f}–{self.high:.{digits}f})"


class Measured(dict[str, list[float]]):
    """Seconds of each variant, round by round."""

    def milliseconds(self, name: str) -> str:
        value = 1e3 * statistics.median(self[name])
        return f"{value:.0f}" if value >= 10 else f"{value:.2f}"

    def ratio(self, name: str, to: str, share: float = 1.0) -> Ratio:
        """Compare one variant with another; `share` scales what it did to what is compared."""
        ratios = sorted(share * one / two for one, two in zip(self[name], self[to], strict=True))
        quarter = len(ratios) // 4
        return Ratio(statistics.median(ratios), ratios[quarter], ratios[-1 - quarter])


def interleaved(variants: Mapping[str, Work], seconds: float, least: int = 3) -> Measured:
    """Run all variants in turns, A B C C B A A B C …, at least so often and so long.

    The clock is the CPU time of the process, so that others do not count; on a GPU, the wall's.
    """
    for work in variants.values():  # memory is got and kernels are chosen at the first call
        work()
    taken = Measured({name: [] for name in variants})
    names, start = list(variants), time.perf_counter()
    while len(taken[names[0]]) < least or time.perf_counter() - start < seconds:
        for name in names:
            before = _now()
            variants[name]()
            taken[name].append(_now() - before)
        names.reverse()
    return taken


def exponents(sizes: Sequence[float], seconds: Sequence[float]) -> list[str]:
    """Write with which power of the size time has grown since the size before; none of the first.

    What a call costs of any size is in it: it falls short of the true power where work is small.
    """
    pairs = zip(sizes, seconds, sizes[1:], seconds[1:], strict=False)
    grown = [math.log(after / before) / math.log(large / small)
             for small, before, large, after in pairs]  # fmt: skip
    return ["", *(f"{max(power, 0.0):.2f}" for power in grown)]


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def peaks(case: str, names: list[str]) -> dict[str, float]:
    """Return by how many MiB each variant of a case of `tests.bench.memory` raises the peak."""
    return {name: _peak(case, name) for name in names}


def _peak(case: str, name: str) -> float:
    # a process of its own: an allocator that another variant has warmed says nothing
    command = [sys.executable, "-m", "tests.bench.memory", case, name]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    return json.loads(done.stdout.splitlines()[-1])


def difference(one: torch.Tensor, other: torch.Tensor) -> str:
    """Write the largest difference, in units of the largest value."""
    return f"{float((one - other).abs().max() / other.abs().max()):.0e}"


def table(head: list[str], rows: list[list[object]]) -> str:
    """Write a Markdown table."""
    lines = [head, ["---"] * len(head), *([str(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
