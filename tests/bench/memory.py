"""One variant in a process of its own: ``python -m tests.bench.memory CASE VARIANT``."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from tests.bench import peers
from tests.bench.networks import resnet50


def main(case: str, name: str) -> None:
    """Print by how many MiB the work raises the peak of the resident memory."""
    torch.set_num_threads(1)
    work = PREPARED[case](name)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = _status("VmRSS")
    work()
    print(json.dumps((_status("VmHWM") - before) / 1024))


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def taps(name: str) -> Callable[[], object]:
    from tests.bench.taps import ours

    case = resnet50()
    images = case.images(16)
    peers.bare(case)(images[:1])
    made = {
        "bare": lambda: peers.bare(case),
        "limit": lambda: peers.limit(case, case.last),
        "ifa": lambda: ours(case, case.last, images[:1]),
        "torch-cam": lambda: peers.torchcam(case, case.last),
        "captum": lambda: peers.captum(case, case.last, torch.zeros(16, dtype=torch.int64)),
        "pytorch-grad-cam, by definition": lambda: peers.pytorch_grad_cam(case, case.last),
    }[name]()
    return lambda: made(images)


def integrated_gradients(name: str) -> Callable[[], object]:
    from tests.bench.attributions import variants

    case = resnet50()
    images = case.images(1)
    peers.bare(case)(images)
    made = variants(case, images, 50)[name]
    return made


def population(name: str) -> Callable[[], object]:
    from tests.bench.populations import small_analysis

    samples = int(name)
    small_analysis(512)  # libraries are loaded, memory is warm
    return lambda: small_analysis(samples)


PREPARED = {"taps": taps, "integrated_gradients": integrated_gradients, "population": population}

if __name__ == "__main__":
    main(*sys.argv[1:])
