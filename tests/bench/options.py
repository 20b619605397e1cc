"""What channels-last, bfloat16 and compilation gain, and what they change."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

import ifa
from tests.bench.measure import difference, interleaved, table
from tests.bench.networks import resnet18, resnet50
from tests.bench.taps import GRADCAM

Maps = Callable[[Tensor], Tensor]


def variants(net: nn.Module, layer: str, example: Tensor) -> dict[str, Maps]:
    """Return Grad-CAM of a layer, plain and with each option."""
    last = copy.deepcopy(net).to(memory_format=torch.channels_last)
    plain = ifa.tap(net, layer, example, step=GRADCAM)
    found: dict[str, Maps] = {
        "plain": lambda images: plain(images).values,
        "channels-last": _maps(ifa.tap(last, layer, example, step=GRADCAM)),
        "bfloat16 autocast": _autocast(plain),
    }
    found["compile"] = _maps(ifa.tap(net, layer, example, step=GRADCAM, compile=True))
    found["compile, channels-last"] = _maps(
        ifa.tap(last, layer, example, step=GRADCAM, compile=True)
    )
    return found


def _maps(tap: Callable[[Tensor], ifa.Map]) -> Maps:
    return lambda images: tap(images).values


def _autocast(tap: Callable[[Tensor], ifa.Map]) -> Maps:
    def run(images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, dtype=torch.bfloat16):
            return tap(images).values.float()

    return run


def tables(quick: bool) -> Iterator[str]:
    """Yield the tables of this part."""
    if quick:  # compiling alone would take too long
        return
    # what an option changes is told by a trained network: a random one exaggerates
    net = ifa.nets.train_digits()
    digits = torch.stack([image for image, _, _ in ifa.nets.digits("held-out")[:64]])
    trained = variants(net, "conv3", digits)
    apart = {
        name: difference(run(digits), trained["plain"](digits)) for name, run in trained.items()
    }
    rows: list[list[object]] = []
    for case in (resnet18(), resnet50()):
        images = case.images(16)
        made = variants(case.net, case.last, images)
        works = {name: (lambda run=run, images=images: run(images)) for name, run in made.items()}
        taken = interleaved(works, 25)
        rows += [
            [case.title, name, taken.milliseconds(name), taken.ratio("plain", name), apart[name]]
            for name in works
        ]
    head = ["Grad-CAM at the last stage, batch 16", "option", "ms", "faster than plain"]
    text = table([*head, "max difference on trained digits"], rows)
    yield f"### Options\n\n{_bfloat16()}\n\n{text}"


def _bfloat16() -> str:
    """Say whether the processor multiplies bfloat16 itself: without that it is slower."""
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    own = [name for name in ("avx512_bf16", "amx_bf16") if name in flags]
    has = f"has {' and '.join(own)}" if own else "has neither avx512_bf16 nor amx_bf16"
    return f"bfloat16 gains where the processor multiplies it: this one {has}."
