"""``python -m tests.calibration``: measure the table and write docs/calibration.md.

What was measured is kept, so that an interrupted run goes on. A cell is measured anew when its own
draw changes, or a file of the rooms that compute it: see `_SOURCES`; ``--fresh`` forgets all.
"""

import argparse
import hashlib
import inspect
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from pathlib import Path

import torch

from .cells import Rate, measured, verdict
from .page import page
from .table import CELLS

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
PORTION = 100  # draws between two marks of the bar
# Where the statistics of a room are computed, besides ifa.intervals and ifa.clusters.
_SOURCES = {
    "contest": ("contest",),
    "diagnose": ("diagnose", "evaluate", "select"),
    "evaluate": ("evaluate",),
    "population": ("population", "reduce", "select"),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.calibration", description=__doc__)
    parser.add_argument("--only", default="", help="cells whose name has this in it")
    parser.add_argument("--draws", type=int, help="at most so many of each cell; all by default")
    parser.add_argument("--core", action="store_true", help="the cells of CI")
    parser.add_argument("--fresh", action="store_true", help="forget what was measured")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "calibration.md")
    parser.add_argument(
        "--kept", type=Path, default=Path(tempfile.gettempdir()) / "ifa-calibration"
    )
    options = parser.parse_args()
    wanted = {
        key: min(cell.draws, options.draws or cell.draws)
        for key, cell in CELLS.items()
        if options.only in key and (cell.core or not options.core)
    }
    kept = options.kept / "measured.json"
    if options.fresh:
        kept.unlink(missing_ok=True)
    rates = _measured(wanted, kept, options.processes)
    wrong = [text for key, rate in rates.items() if (text := verdict(CELLS[key], rate))]
    for key in wanted:
        print(f"{rates[key]}  {key}")
    print("\n".join(["", f"{len(wrong)} of {len(wanted)} are out of bounds:", *wrong]))
    if not options.only:
        options.page.write_text(page(rates), encoding="utf-8")
        print(options.page)
    return int(bool(wrong))


def _measured(wanted: dict[str, int], kept: Path, processes: int | None) -> dict[str, Rate]:
    """Measure in portions, each committed to `kept` when it is done."""
    known = json.loads(kept.read_text()) if kept.exists() else {}
    kept.parent.mkdir(parents=True, exist_ok=True)
    names = {
        (key, first): f"{key} @{first} +{min(PORTION, draws - first)} {_digest(key)}"
        for key, draws in wanted.items()
        for first in range(0, draws, PORTION)
    }
    left = [place for place, name in names.items() if name not in known]
    with ProcessPoolExecutor(processes, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        jobs = {
            pool.submit(_portion, key, first, min(PORTION, wanted[key] - first)): (key, first)
            for key, first in left
        }
        begun = time.perf_counter()
        for done, job in enumerate(as_completed(jobs), start=1):
            if job.exception():
                pool.shutdown(wait=False, cancel_futures=True)
            known[names[jobs[job]]] = job.result()
            whole = kept.with_suffix(".part")
            whole.write_text(json.dumps(known))
            whole.replace(kept)
            _bar(done, len(left), time.perf_counter() - begun)
    parts: dict[str, list[list[int]]] = {key: [] for key in wanted}
    for (key, _), name in names.items():
        parts[key].append(known[name])
    return {key: Rate(*map(sum, zip(*each, strict=True))) for key, each in parts.items()}


def _portion(key: str, first: int, draws: int) -> Rate:
    return measured(CELLS[key], draws, first)


@cache
def _digest(key: str) -> str:
    """Digest of what a cell is computed by."""
    cell = CELLS[key]
    return hashlib.sha256(
        _files(cell.of.split(".")[0]) + inspect.getsource(cell.draw.func).encode()
    ).hexdigest()[:12]


@cache
def _files(room: str) -> bytes:
    rooms = [ROOT / "ifa" / part for part in _SOURCES[room]]
    files = [HERE / "runs.py", HERE / "settings.py"]
    files += [ROOT / "ifa" / f"{name}.py" for name in ("clusters", "intervals")]
    for place in rooms:
        files += sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    return b"".join(file.read_bytes() for file in files)


def _bar(done: int, of: int, seconds: float) -> None:
    left = seconds / done * (of - done)
    filled = "#" * (40 * done // of)
    print(
        f"\r[{filled:40}] {done} of {of}, {left:.0f} s left ", end="", file=sys.stderr, flush=True
    )
    if done == of:
        print(file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
