"""Reading a data set: items to batches, with errors that name the sample."""

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """Consecutive items of a data set."""

    inputs: Tensor  # (sample, *input)
    labels: list[Any]
    ids: list[str]


def collate(data: Any, indices: range) -> Batch:
    """Read items and stack their inputs; the id of an item without one is its index."""
    inputs, labels, ids = [], [], []
    for index in indices:
        item = data[index]
        if not isinstance(item, tuple | list) or len(item) not in (2, 3):
            length = f" of length {len(item)}" if isinstance(item, tuple | list) else ""
            raise TypeError(
                "ifa.analyze: expected every item of the data to be (input, label) or "
                f"(input, label, id), got {type(item).__name__}{length} for sample {index}."
            )
        inputs.append(torch.as_tensor(item[0]))
        labels.append(item[1])
        ids.append(str(item[2]) if len(item) == 3 else str(index))
        if inputs[-1].shape != inputs[0].shape:
            raise ValueError(
                f"ifa.analyze: expected inputs of one shape, got {tuple(inputs[-1].shape)} for "
                f"sample {index} after {tuple(inputs[0].shape)}. Crop or resize them alike."
            )
    return Batch(torch.stack(inputs), labels, ids)


def class_labels(batch: Batch, first: int, outputs: int) -> Tensor:
    """Labels as output indices, (sample,) int64; one that is no output is an error."""
    for index, (label, name) in enumerate(zip(batch.labels, batch.ids, strict=True), first):
        value = torch.as_tensor(label)
        if value.numel() != 1 or not 0 <= float(value) < outputs or float(value) % 1:
            raise ValueError(
                f"ifa.analyze: expected labels in 0..{outputs - 1}, the model's outputs, got "
                f"{label!r} for sample {index} (id {name!r}). "
                "Map the labels to outputs; for real values give task='regression'."
            )
    return torch.tensor([int(label) for label in batch.labels])


def real_labels(batch: Batch, first: int, outputs: int) -> Tensor:
    """Labels as real values, (sample,) or (sample, output) float64."""
    labels = [torch.as_tensor(label, dtype=torch.float64).reshape(-1) for label in batch.labels]
    for index, (label, name) in enumerate(zip(labels, batch.ids, strict=True), first):
        if len(label) not in (1, outputs) or len(label) != len(labels[0]):
            raise ValueError(
                f"ifa.analyze: expected one real label, or one for each of {outputs} outputs, got "
                f"{len(label)} for sample {index} (id {name!r})."
            )
    return torch.stack(labels).squeeze(1)
