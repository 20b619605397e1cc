"""What one would analyze, and how: read off a network and the first two samples."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from ifa.data.samples import known
from ifa.network.inputs import described, shapes_of
from ifa.reduce.verdicts import Task
from ifa.store.items import collate, data_set, numbers_of
from ifa.taps.blocks import Blocks, blocks

# What activations of a batch may take, and the importances of all samples on the disk.
_BATCH_BYTES = 2**29
_KEPT_BYTES = 2**30


class Proposal(NamedTuple):
    """Options of an analysis."""

    samples: int
    inputs: str  # shape of one
    outputs: int | None
    layer: str
    grid: str  # channels and grid of the layer, in words
    task: Task
    target_names: tuple[str, ...] | None
    batch_size: int
    keep_samples: str
    cautions: tuple[str, ...]


def propose(where: str, model: nn.Module, data: Any) -> Proposal:
    """Inspect a network and data, and propose how to analyze them; `where` is named in errors."""
    data = data_set(where, data)
    batch = collate(where, data, range(min(2, len(data))))
    found = blocks(model, batch.inputs)
    if found.default is None:
        raise LookupError(
            f"{where}: expected a layer that can be taken unasked, found none: {found.why} List "
            "the layers with ifa layers, and name one with --layer."
        )
    block = found[found.default]
    laid = block.laid or (0,)
    outputs = None if found.output is None else (*found.output, 1)[0]
    task = _task(known(data).names, data, batch.labels, outputs)
    names = None if task == "regression" else known(data).names
    classes = names if task == "classification" else None
    cautions = tuple(_cautions(found, outputs, classes))
    return Proposal(
        samples=len(data),
        inputs=described(shapes_of(batch.inputs)),
        outputs=outputs,
        layer=found.default,
        grid=f"{laid[0]} channels on {' × '.join(map(str, laid[1:]))}",
        task=task,
        target_names=names if names is not None and len(names) == outputs else None,
        batch_size=_batch_size(found),
        keep_samples="full" if 4 * len(data) * laid[0] <= _KEPT_BYTES else "summary",
        cautions=cautions,
    )


def _task(names: Any, data: Any, labels: list[Any], outputs: int | None) -> Task:
    """Tell what labels are: for a sample one index, 0 or 1 of each output, or real values."""
    numbers = [numbers_of(label) for label in labels]
    flags = all(len(one) == outputs and np.isin(one, (0, 1)).all() for one in numbers)
    real = _is_real(names, data, labels)
    if outputs == 1:
        return "regression" if real or not flags else "binary"
    if len(numbers[0]) > 1:
        return "multilabel" if flags and any(map(np.any, numbers)) else "regression"
    return "regression" if real else "classification"


def _is_real(names: Any, data: Any, labels: list[Any]) -> bool:
    """Tell whether labels are real values."""
    column = getattr(data, "labels", None)
    if names is not None:
        return False
    if column is not None:
        return bool(column.dtype.kind == "f")
    first = labels[0]
    number = getattr(first, "dtype", None)
    return isinstance(first, float) or (number is not None and "float" in str(number))


def _cautions(found: Blocks, outputs: int | None, names: Any) -> Iterator[str]:
    if found[str(found.default)].coarse:
        yield f"the grid of {found.default} is coarse; an earlier layer shows more: ifa layers"
    if names is not None and len(names) != outputs:
        yield (
            f"the network has {outputs} outputs and the data {len(names)} classes: labels are "
            "not its outputs. Name the outputs (target_names), and label the data by these"
        )


def _batch_size(found: Blocks) -> int:
    """Return the largest power of two whose activations are small enough, at most 32."""
    each = 4 * sum(math.prod(block.shape) for block in found.values())
    size = 32
    while size > 1 and size * each > _BATCH_BYTES:
        size //= 2
    return size
