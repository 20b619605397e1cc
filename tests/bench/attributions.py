"""Integrated gradients, 50 steps."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

import ifa
from tests.bench import peers
from tests.bench.measure import difference, interleaved, peaks, table
from tests.bench.networks import Case, resnet18, resnet50


def variants(case: Case, images: Tensor, steps: int) -> dict[str, Callable[[], Tensor]]:
    """Return ways to the same attribution."""
    from captum.attr import IntegratedGradients

    theirs = IntegratedGradients(case.net)
    target = torch.zeros(len(images), dtype=torch.int64)
    ours = ifa.attribute.integrated_gradients(case.net, steps=steps)
    tens = ifa.attribute.integrated_gradients(case.net, steps=steps, chunk=10)
    return {
        "ifa": lambda: ours(images, target),
        "ifa, chunk 10": lambda: tens(images, target),
        "captum, chunk 10": lambda: theirs.attribute(
            images, target=target, n_steps=steps, internal_batch_size=10
        ),
        "captum": lambda: theirs.attribute(images, target=target, n_steps=steps),
    }


def tables(quick: bool) -> Iterator[str]:
    """Yield the tables of this part."""
    case, steps = (resnet18(), 10) if quick else (resnet50(), 50)
    images = case.images(1)
    made, bare = variants(case, images, steps), peers.bare(case)
    expected = made["captum"]()
    apart = {name: difference(work(), expected) for name, work in made.items()}
    taken = interleaved({"bare": lambda: bare(images), **made}, 3 if quick else 100)
    memory = {} if quick else peaks("integrated_gradients", list(made))
    rows = [
        [
            name,
            taken.milliseconds(name),
            taken.ratio(name, "bare", 1 / steps),
            f"{memory[name]:.0f}" if memory else "",
            apart[name],
        ]
        for name in made
    ]
    head = [f"{case.title}, batch 1, {steps} steps", "ms", "/ bare, each step", "peak, MiB"]
    yield "### Integrated gradients\n\n" + table([*head, "max difference"], rows)
