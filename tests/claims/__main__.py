"""``python -m tests.claims``: measure what the literature claims, and write docs/tables/claims.md.

Every population, network and seed is a file once it is measured, so that a killed run goes on;
``--fresh`` forgets all. What was measured by other code in this folder is not read.
"""

import argparse
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from shutil import rmtree
from typing import Any

import torch

from ifa.progress import reporting

from . import cells, curves
from .page import page

ROOT = Path(__file__).parents[2]
MEASURED = {"cells": cells.measured, "curves": curves.measured}
Job = tuple[str, str, int]  # what is measured, of which network, with which seed


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.claims", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", default="", help="networks whose name has this in it")
    parser.add_argument("--fresh", action="store_true", help="forget what was measured")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "tables" / "claims.md")
    parser.add_argument("--kept", type=Path, default=Path(tempfile.gettempdir()) / "ifa-claims")
    options = parser.parse_args()
    if options.fresh:
        rmtree(options.kept, ignore_errors=True)
    names = [("cells", name) for name in cells.CELLS] + [
        ("curves", name) for name in curves.NETWORKS
    ]
    jobs = [
        (kind, name, seed)
        for seed in range(options.seeds)
        for kind, name in names
        if options.only in name
    ]
    found = measured(jobs, options.kept, options.processes)
    text = page({job: json.loads(file.read_text()) for job, file in found.items()})
    if options.only:
        print(text)
    else:
        options.page.parent.mkdir(exist_ok=True)
        options.page.write_text(text, encoding="utf-8")
        print(options.page)


def measured(jobs: list[Job], kept: Path, processes: int | None) -> Mapping[Job, Path]:
    """Measure what is not kept; return the file of each job."""
    kept.mkdir(parents=True, exist_ok=True)
    files = {job: kept / f"{_digest(job[0])} {job[1]} {job[2]}.json" for job in jobs}
    left = [job for job in jobs if not files[job].exists()]
    with (
        ProcessPoolExecutor(processes, initializer=torch.set_num_threads, initargs=(1,)) as pool,
        reporting(True, "claims", len(jobs)) as advance,
    ):
        advance(len(jobs) - len(left))
        running = {pool.submit(_measured, *job): job for job in left}
        for done in as_completed(running):
            if done.exception():
                pool.shutdown(wait=False, cancel_futures=True)
            whole = files[running[done]]
            part = whole.with_suffix(".part")
            part.write_text(json.dumps(done.result()))
            part.replace(whole)
            advance(1)
    return files


def _measured(kind: str, name: str, seed: int) -> dict[str, Any]:
    begun = time.process_time()
    found = MEASURED[kind](name, seed)
    return found | {"seconds": time.process_time() - begun}


def _digest(kind: str) -> str:
    return hashlib.sha256(Path(__file__).with_name(f"{kind}.py").read_bytes()).hexdigest()[:8]


if __name__ == "__main__":
    main()
