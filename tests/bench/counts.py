"""What a table of methods against metrics asks of a network: counted, the same on every machine."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ifa import contest

from .measure import table


class Count:
    """How many examples, in how many passes."""

    examples = 0
    passes = 0


@contextmanager
def passes(module: nn.Module) -> Iterator[Count]:
    """Count what passes through a module, in the network and in all private copies of it.

    It has to run alone, not mapped by `vmap`, inside of which a batch has no size. Of a network
    whose passes are counted take the first layer that has weights: a layer further in is also run
    by replays of what lies above another.
    """
    count = Count()

    def counted(_: nn.Module, args: tuple) -> None:
        count.examples += len(args[0])
        count.passes += 1

    handle = module.register_forward_pre_hook(counted)
    try:
        yield count
    finally:
        handle.remove()


def drawn(inputs: Tensor, target: Tensor, seed: int) -> Tensor:
    """A map that asks nothing of the network."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(len(inputs), *inputs.shape[2:], generator=generator)


def passes_of(
    net: nn.Module, first: str, inputs: Tensor, methods: int, metrics: Mapping[str, Any]
) -> int:
    """Return how many passes of each sample the metrics of a table run, the methods' own aside.

    `first` is the first layer with weights, whose calls are counted.
    """
    before: list[int] = []

    def explain(inputs: Tensor, target: Tensor, seed: int) -> Tensor:
        before.append(seen.examples)  # the network has been looked at, and the samples predicted
        return drawn(inputs, target, seed)

    asked = {f"m{n}": contest.with_model(partial(explain, seed=n)) for n in range(methods)}
    data = [(one, 0, str(number)) for number, one in enumerate(inputs)]
    with passes(net.get_submodule(first)) as seen:
        contest.table(net, data, asked, metrics, progress=False, shard=len(inputs))
    whole, single = divmod(seen.examples - before[0], len(inputs))
    assert single <= len(metrics)  # examples that are asked how many outputs there are
    return whole


def passes_of_images(methods: int, metrics: Mapping[str, Any]) -> int:
    """The same of a small network of images of 8², of which a curve has 21 different points."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 3)).eval()
    return passes_of(net, "0", torch.rand(9, 1, 8, 8), methods, metrics)


def tables(quick: bool) -> Iterator[str]:
    """Yield the tables of this part."""
    counts = (1, 17)
    known = contest.default_metrics(slow=True)
    again = ("sensitivity", "randomization")  # explain anew: see what a method costs
    rows: list[list[object]] = []
    for name in known.keys() - {*again}:
        one = {name: known[name]}
        rows.append([name, *(passes_of_images(count, one) for count in counts)])
    rows.sort(key=lambda row: str(row[0]))
    fast = contest.default_metrics()
    rows.append(["all but road", *(passes_of_images(count, fast) for count in counts)])
    head = ["metric", *(f"passes of a sample, {count} methods" for count in counts)]
    yield "### A table's passes, counted\n\n" + table(head, rows)
