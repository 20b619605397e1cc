"""A pass over a population, and what importing costs."""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import TensorDataset

import ifa
from tests.bench.measure import exponents, interleaved, peaks, table
from tests.bench.networks import resnet18


def analyzed(net: nn.Module, *, data: Any, layer: str, batch: int, **options: Any) -> int:
    """Analyze into a new store; return how many bytes it has on disk."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        ifa.analyze(net, data, layer=layer, batch_size=batch, store=run, progress=False, **options)
        return sum(file.stat().st_size for file in run.rglob("*") if file.is_file())


def small_analysis(samples: int) -> int:
    """Analyze random digits with a network of ten classes."""
    net, images = digits_of(10), torch.rand(samples, 1, 8, 8)
    return analyzed(net, data=accepted(net, images), layer="conv3", batch=64)


def digits_of(classes: int) -> nn.Module:
    """Return the network of digits with so many classes, of which random images have many."""
    torch.manual_seed(0)
    net = ifa.nets.digits_cnn()
    net.head = nn.Linear(64, classes)
    body = nn.Sequential(*list(net.children())[:-1]).eval()
    with torch.no_grad():  # what all images have in common decides for no class
        net.head.bias -= net.head(body(torch.rand(256, 1, 8, 8)).mean(0))
    return net.eval()


def accepted(net: nn.Module, images: torch.Tensor) -> TensorDataset:
    """Label images as the network does: statistics are of samples that are predicted rightly."""
    with torch.no_grad():
        labels = torch.cat([net(part).argmax(1) for part in images.split(64)])
    return TensorDataset(images, labels)


def bare(net: nn.Module, data: Any, batch: int) -> Callable[[], None]:
    """The forward passes and the reading of the data, nothing else."""

    def run() -> None:
        with torch.no_grad():
            for start in range(0, len(data), batch):
                rows = range(start, min(start + batch, len(data)))
                net(torch.stack([data[row][0] for row in rows]))

    return run


def speed(quick: bool) -> Iterator[str]:
    """What a population takes: once for a run, and for each image, against the bare passes."""
    rows: list[list[object]] = []
    case = resnet18()
    few, many = (8, 16) if quick else (64, 256)
    images = case.images(many)
    options: dict[str, dict[str, Any]] = {
        "fullcam": {},
        "gradcam": {"weight": ifa.weight.gradcam},
        "fullcam, compiled": {"compile": True},
    }
    if quick:
        del options["fullcam, compiled"], options["gradcam"]
    batch = 8 if quick else 16
    place = f"ResNet-18, {many} images of 224², batch {batch}"
    runs = partial(analyzed, case.net, layer=case.last, batch=batch)
    rows += _speed(place, case.net, images, few, batch, runs, options, 5 if quick else 150)
    net = digits_of(10)
    runs = partial(analyzed, net, layer="conv3", batch=64)
    for size in (8,) if quick else (8, 28):
        place = f"digits CNN, 4096 images of {size}², batch 64"
        digits = torch.rand(4096, 1, size, size)
        rows += _speed(place, net, digits, 1024, 64, runs, {"fullcam": {}}, 5 if quick else 30)
    head = ["network, population", "variant", "ms", "images per second / bare"]
    note = (
        "All samples are accepted. The last two columns: the same from image "
        f"{few} (ResNet-18) or 1024 (digits) on, and what a run costs before: tracing, hashing, "
        "committing, and compiling where that is asked for.\n\n"
    )
    yield (
        "### Population pass, with its store\n\n"
        + note
        + table([*head, "images per second / bare, further on", "seconds before"], rows)
    )


def _speed(
    place: str,
    net: nn.Module,
    inputs: torch.Tensor,
    few: int,
    batch: int,
    run: Callable[..., int],
    options: dict[str, dict[str, Any]],
    seconds: float,
) -> list[list[object]]:
    works: dict[str, Callable[[], object]] = {}
    for count in (few, len(inputs)):
        data = accepted(net, inputs[:count])
        works[f"bare {count}"] = bare(net, data, batch)
        works[f"bare, again {count}"] = works[f"bare {count}"]
        for name, given in options.items():
            works[f"{name} {count}"] = partial(run, data=data, **given)
    taken = interleaved(works, seconds)
    names = ["bare", "bare, again", *options]
    count = len(inputs)
    for name in names:
        pairs = zip(taken[f"{name} {count}"], taken[f"{name} {few}"], strict=True)
        taken[f"{name} more"] = [whole - part for whole, part in pairs]
    rows: list[list[object]] = []
    for name in names:
        each = statistics.median(taken[f"{name} more"]) / (count - few)
        before = statistics.median(taken[f"{name} {few}"]) - few * each
        rows.append(
            [
                place,
                name,
                taken.milliseconds(f"{name} {count}"),
                taken.ratio(f"bare {count}", f"{name} {count}"),
                taken.ratio("bare more", f"{name} more"),
                f"{max(before, 0.0):.1f}",
            ]
        )
    return rows


def classes(quick: bool) -> Iterator[str]:
    """What statistics by class cost as there are more classes."""
    images = torch.rand(256 if quick else 2048, 1, 8, 8)
    rows: list[list[object]] = []
    seconds: list[float] = []
    counts = (10, 100, 1000)
    for count in counts:
        net = digits_of(count)
        data = accepted(net, images)
        options: dict[str, Any] = {"layer": "conv3", "batch_size": 32, "progress": False}
        works = {
            "bare": bare(net, data, 32),
            "ifa": partial(ifa.analyze, net, data, **options),
        }
        taken = interleaved(works, 1 if quick else 15, 1 if quick else 3)
        present = len(data.tensors[1].unique())
        rows.append([count, present, taken.milliseconds("ifa"), taken.ratio("bare", "ifa")])
        seconds.append(statistics.median(taken["ifa"]))
    for row, power in zip(rows, exponents(counts, seconds), strict=True):
        row.append(power)
    head = ["digits CNN: classes", "that occur", "ms", "images per second / bare", "exponent"]
    note = f"{len(images)} images of 8², all accepted, in memory, batch 32.\n\n"
    yield "### Statistics by class\n\n" + note + table(head, rows)


def growth(quick: bool) -> Iterator[str]:
    """Time, memory and disk as the population grows."""
    counts = (1024, 4096) if quick else (1000, 10_000, 100_000)
    found = peaks("population", [str(count) for count in counts])
    rows: list[list[object]] = []
    seconds: list[float] = []
    for count in counts:
        start = time.process_time()
        size = small_analysis(count)
        seconds.append(time.process_time() - start)
        rows.append([count, f"{1e3 * seconds[-1]:.0f}", f"{found[str(count)]:.1f}", size // count])
    for row, power in zip(rows, exponents(counts, seconds), strict=True):
        row.append(power)
    head = ["digits CNN, samples (shards of 512)", "ms", "peak of memory, MiB"]
    head += ["bytes on disk / sample", "exponent"]
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
    yield from classes(quick)
    yield from growth(quick)
    yield from imports(quick)
