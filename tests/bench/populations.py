"""A pass over a population, and what importing costs."""

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import TensorDataset

import ifa
from tests.bench.measure import interleaved, peaks, table
from tests.bench.networks import resnet18


def analyzed(net: nn.Module, data: Any, layer: str, batch: int, **options: Any) -> int:
    """Analyze into a new store; return how many bytes it has on disk."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        ifa.analyze(net, data, layer=layer, batch_size=batch, store=run, progress=False, **options)
        return sum(file.stat().st_size for file in run.rglob("*") if file.is_file())


def small_analysis(samples: int) -> int:
    """Analyze random digits with the network that ships with the library."""
    torch.manual_seed(0)
    data = TensorDataset(torch.rand(samples, 1, 8, 8), torch.zeros(samples, dtype=torch.int64))
    return analyzed(ifa.nets.digits_cnn().eval(), data, "conv3", 64)


def bare(net: nn.Module, data: Any, batch: int) -> Callable[[], None]:
    """The forward passes and the reading of the data, nothing else."""

    def run() -> None:
        with torch.no_grad():
            for start in range(0, len(data), batch):
                rows = range(start, min(start + batch, len(data)))
                net(torch.stack([data[row][0] for row in rows]))

    return run


def speed(quick: bool) -> Iterator[str]:
    """Images per second, against the bare forward passes."""
    rows: list[list[object]] = []
    case = resnet18()
    images = case.images(32 if quick else 256)
    population = TensorDataset(images, torch.zeros(len(images), dtype=torch.int64))
    options: dict[str, dict[str, Any]] = {
        "fullcam": {},
        "gradcam": {"weight": ifa.weight.gradcam},
        "fullcam, compiled": {"compile": True},
    }
    works = {"bare": bare(case.net, population, 16)}
    for name, given in options.items():
        if not (quick and "compile" in given):
            works[name] = lambda given=given: analyzed(case.net, population, case.last, 16, **given)
    works["bare, again"] = works["bare"]
    rows += _speed(f"ResNet-18, {len(images)} images of 224², batch 16", works, 5 if quick else 120)
    for size in (8,) if quick else (8, 28):
        rows += _small(size, 5 if quick else 30)
    head = ["network, population", "variant", "ms", "images per second / bare"]
    yield "### Population pass, with its store\n\n" + table(head, rows)


def _small(size: int, seconds: float) -> list[list[object]]:
    net, count = ifa.nets.digits_cnn().eval(), 4096
    digits = TensorDataset(torch.rand(count, 1, size, size), torch.zeros(count).long())
    gradcam = ifa.weight.gradcam
    works = {
        "bare": bare(net, digits, 64),
        "fullcam": lambda: analyzed(net, digits, "conv3", 64),
        "gradcam": lambda: analyzed(net, digits, "conv3", 64, weight=gradcam),
        "fullcam, batch 512": lambda: analyzed(net, digits, "conv3", 512),
    }
    return _speed(f"digits CNN, {count} images of {size}², batch 64", works, seconds)


def _speed(
    place: str, works: dict[str, Callable[[], object]], seconds: float
) -> list[list[object]]:
    taken = interleaved(works, seconds)
    return [[place, work, taken.milliseconds(work), taken.ratio("bare", work)] for work in works]


def growth(quick: bool) -> Iterator[str]:
    """Memory and disk, from N to 10 N samples."""
    counts = (1024, 4096) if quick else (1024, 10240)
    found = peaks("population", [str(count) for count in counts])
    rows = [
        [count, f"{found[str(count)]:.1f}", f"{small_analysis(count) / count:.0f}"]
        for count in counts
    ]
    head = ["digits CNN, samples (shards of 512)", "peak of memory, MiB", "bytes on disk / sample"]
    yield "### Growth with the population\n\n" + table(head, rows)


def imports(quick: bool) -> Iterator[str]:
    """What `import ifa` costs beyond `import torch`."""
    code = (
        "import time; import torch; start = time.process_time(); import ifa; "
        "print(time.process_time() - start)"
    )
    command = [sys.executable, "-c", code]
    seconds = [
        float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        for _ in range(3 if quick else 9)
    ]
    rows = [[f"{statistics.median(seconds):.2f}", f"{min(seconds):.2f}–{max(seconds):.2f}"]]
    yield "### `import ifa` beyond `import torch`\n\n" + table(["seconds", "range"], rows)


def tables(quick: bool) -> Iterator[str]:
    """Yield the tables of this part."""
    yield from speed(quick)
    yield from growth(quick)
    yield from imports(quick)
