"""``python -m tests.bench``: print the tables as Markdown."""

import argparse
import os
import platform
import time
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from tests.bench.records import load, parsed, save, slower

ROWS = [
    "counts",
    "calls",
    "taps",
    "perturbations",
    "attributions",
    "populations",
    "scaling",
    "options",
    "placing",
    "highres",
]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "rows", nargs="*", help=f"which tables, of {', '.join(ROWS)}; all by default"
    )
    parser.add_argument("--quick", action="store_true", help="done in two minutes, less exact")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="keep the tables here, for a later --compare")
    parser.add_argument(
        "--compare", type=Path, help="what --json has kept: print what has become slower since"
    )
    options = parser.parse_args()
    if unknown := [row for row in options.rows if row not in ROWS]:
        parser.error(f"expected rows of {', '.join(ROWS)}, got {', '.join(unknown)}")
    torch.set_num_threads(options.threads)
    before = load(options.compare) if options.compare else []
    print(header(options.threads), flush=True)
    tables = []
    for row in options.rows or ROWS:
        start = time.perf_counter()
        for text in import_module(f"tests.bench.{row}").tables(options.quick):
            print(f"\n{text}\n\n({time.perf_counter() - start:.0f} s)", flush=True)
            tables.append(parsed(text))
            if options.json:  # after each, because all together take long
                save(tables, options.json)
            start = time.perf_counter()
    if options.compare:
        worse = slower(before, tables)
        print(f"\nSlower than in {options.compare}:" if worse else "\nNothing became slower.")
        print(*worse, sep="\n")


def header(threads: int) -> str:
    packages = ["torch", "ifa", "torchcam", "captum", "transformers", "numpy"]
    versions = ", ".join(f"{name} {_version(name)}" for name in packages)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    load = os.getloadavg()[0]
    return (
        f"{versions}; Python {platform.python_version()}; {device}, {threads} thread"
        f"{'s' if threads > 1 else ''}; load {load:.1f}. Times: median of rounds; ratios: median "
        "(quartiles) of the rounds' own."
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    with open("/proc/cpuinfo") as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
