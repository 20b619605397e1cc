"""``python -m tests.calibration``: measure the table and write docs/calibration.md.

What was measured is kept beside, so that an interrupted run goes on; other code begins anew.
"""

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import torch

from .cells import Rate, measured, verdict
from .page import page
from .table import CELLS

ROOT = Path(__file__).parents[2]
PORTION = 100  # draws between two marks of the bar


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.calibration", description=__doc__)
    parser.add_argument("--only", default="", help="cells whose name has this in it")
    parser.add_argument("--draws", type=int, help="at most so many of each cell; all by default")
    parser.add_argument("--core", action="store_true", help="the cells of CI")
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
    kept = options.kept / f"{_digest()}.json"
    rates = _measured(wanted, kept, options.processes)
    wrong = [text for key, rate in rates.items() if (text := verdict(CELLS[key], rate))]
    for key in wanted:
        print(f"{rates[key]}  {key}")
    print("\n".join(["", f"{len(wrong)} of {len(wanted)} are out of bounds:", *wrong]))
    if wanted.keys() == CELLS.keys():
        options.page.write_text(page(rates), encoding="utf-8")
        print(options.page)
    return int(bool(wrong))


def _measured(wanted: dict[str, int], kept: Path, processes: int | None) -> dict[str, Rate]:
    """Measure in portions, each committed to `kept` when it is done."""
    known = json.loads(kept.read_text()) if kept.exists() else {}
    kept.parent.mkdir(parents=True, exist_ok=True)
    portions = [(key, first) for key, draws in wanted.items() for first in range(0, draws, PORTION)]
    left = [(key, first) for key, first in portions if f"{key} @{first}" not in known]
    with ProcessPoolExecutor(processes, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        jobs = {
            pool.submit(_portion, key, first, min(PORTION, wanted[key] - first)): (key, first)
            for key, first in left
        }
        begun = time.perf_counter()
        for done, job in enumerate(as_completed(jobs), start=1):
            key, first = jobs[job]
            known[f"{key} @{first}"] = job.result()
            whole = kept.with_suffix(".part")
            whole.write_text(json.dumps(known))
            whole.replace(kept)
            _bar(done, len(left), time.perf_counter() - begun)
    return {key: _sum(known, key, draws) for key, draws in wanted.items()}


def _portion(key: str, first: int, draws: int) -> Rate:
    return measured(CELLS[key], draws, first)


def _sum(known: dict[str, list[int]], key: str, draws: int) -> Rate:
    parts = [known[f"{key} @{first}"] for first in range(0, draws, PORTION)]
    return Rate(*map(sum, zip(*parts, strict=True)))


def _digest() -> str:
    """Digest of the library and of this table: what is measured is theirs."""
    files = sorted([*(ROOT / "ifa").rglob("*.py"), *Path(__file__).parent.glob("*.py")])
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


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
