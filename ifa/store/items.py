"""Reading a data set: items to batches, with errors that name the sample."""

import hashlib
import re
import threading
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from ifa.checks import check_count, text_of
from ifa.network.inputs import Shapes, described, leaves_of, shapes_of, tensors_of
from ifa.network.inputs import joined as tree_joined
from ifa.network.outputs import map_tensors
from ifa.stages import native
from ifa.store.references import DataRef
from ifa.store.workers import READER, in_processes, said
from ifa.types import LoaderTaken

DIGEST = 16  # bytes of an item's digest
_SMALL = 2**20  # bytes that are copied faster than viewed
_NUMPYS = {torch.float32, torch.float64, torch.uint8, torch.int16, torch.int32, torch.int64}


class Batch(NamedTuple):
    """Consecutive items of a data set."""

    inputs: Any  # (sample, *input), or a tree of these
    labels: list[Any]
    ids: list[str]
    digests: np.ndarray  # (sample, DIGEST), uint8: what each item is; (0, DIGEST) if not asked for


def data_set(where: str, data: Any) -> Any:
    """Take data that are sized, indexable and not empty, of a reference what it loads.

    Of a DataLoader its data set is taken.
    """
    if isinstance(data, DataRef):
        data = data.load()
    if isinstance(data, DataLoader):
        data = data.dataset
        warnings.warn(
            f"{where}: of a DataLoader its data set is taken, {type(data).__name__}. Its batches, "
            "order and collate_fn are not used.",
            LoaderTaken,
            stacklevel=3,
        )
    by_name = isinstance(data, Mapping) and 0 not in data  # statistics, or a set of data sets
    path = isinstance(data, str | bytes)  # which could be indexed
    if not hasattr(data, "__len__") or not hasattr(data, "__getitem__") or by_name or path:
        raise TypeError(
            f"{where}: expected a sized, indexable data set of (input, label), got "
            f"{type(data).__name__}. ifa.data makes one of a folder, a table, arrays, or another "
            "library's data set."
        )
    try:
        samples = len(data)
    except Exception as error:
        raise TypeError(
            f"{where}: expected a data set whose length is a whole number, got {said(error)}. "
            "Return how many items there are from its __len__, as an int."
        ) from error
    if samples == 0:
        raise ValueError(f"{where}: expected at least one sample, got an empty data set.")
    return data


def spaced(where: str, name: str, data: Any, count: int) -> Subset[Any]:
    """Take so many samples, evenly spaced; all where there are fewer. `name` is the option's."""
    check_count(where, name, count)
    places = np.linspace(0, len(data) - 1, min(count, len(data))).round().astype(int)
    return Subset(data, places.tolist())


def collate(
    where: str, data: Any, indices: range, shape: Shapes | None = None, *, digest: bool = False
) -> Batch:
    """Read items and stack their inputs; the id of an item without one is its index.

    An input is a tensor, an array, or a tuple or mapping of these. Of a Subset an index is that in
    the whole. `where` is what an error names; `shape` is what all inputs should have, by default
    that of the first; `digest` asks for the digests of the items.
    """
    items = [_item(where, data, index) for index in indices]
    digests = b"".join([item_digest(*item) for item in items]) if digest else b""
    told = np.frombuffer(digests, dtype=np.uint8).reshape(-1, DIGEST)
    inputs, labels, ids = map(list, zip(*items, strict=True))
    return Batch(_stacked(where, inputs, indices, ids, shape), labels, ids, told)


def _stacked(
    where: str, inputs: list[Any], indices: range, ids: list[str], shape: Shapes | None
) -> Any:
    """Join inputs along a sample axis, once they are found to be alike."""
    first = inputs[0]
    if isinstance(first, Tensor) and (shape is None or first.shape == shape):
        like = first.shape, first.dtype
        if all(isinstance(one, Tensor) and (one.shape, one.dtype) == like for one in inputs):
            return torch.stack(inputs)
    trees = [map_tensors(one, lambda tensor: tensor[None]) for one in inputs]
    names = [f"sample {index} (id {name!r})" for index, name in zip(indices, ids, strict=True)]
    _check_alike(where, trees, names, shape)
    return tree_joined(trees)


def _item(where: str, data: Any, index: int) -> tuple[Any, Any, str]:
    """Read one item: inputs as tensors, label, id."""
    item = _taken(where, data, index)
    if not isinstance(item, tuple | list) or len(item) not in (2, 3):
        length = f" of length {len(item)}" if isinstance(item, tuple | list) else ""
        raise TypeError(
            f"{where}: expected every item of the data to be (input, label) or "
            f"(input, label, id), got {type(item).__name__}{length} for sample {index}."
            f"{_cure(item)}"
        )
    id = item[2] if len(item) == 3 else str(_place(data, index))
    if type(id) is not str or not id.isascii() or not id.isprintable():
        id = text_of(where, f"the id of sample {index}", id)
    return _tree(where, item[0], index), item[1], id


def _place(data: Any, index: int) -> int:
    """Return the index of an item in the data that a Subset is of."""
    while isinstance(data, Subset):
        data, index = data.dataset, data.indices[index]
    return int(index)


def _cure(item: Any) -> str:
    """Say what makes items of such data."""
    if isinstance(item, Mapping):
        return " Of dictionaries ifa.data.keyed(data, 'input', 'label') makes such items."
    if hasattr(item, "shape"):
        return " Of arrays ifa.data.arrays(X, y) makes such items."
    return ""


def _check_alike(where: str, inputs: list[Any], names: list[str], shape: Shapes | None) -> None:
    """Raise unless inputs have the shape of the example, and one dtype."""
    shape = shapes_of(inputs[0]) if shape is None else shape
    like = [tensor.dtype for tensor in tensors_of(inputs[0])]
    for one, name in zip(inputs, names, strict=True):
        found, dtypes = shapes_of(one), [tensor.dtype for tensor in tensors_of(one)]
        if found != shape:
            raise ValueError(
                f"{where}: expected inputs of one shape, {described(shape)} like the example's, "
                f"got {described(found)} for {name}. Crop or resize them alike."
            )
        if dtypes != like:
            pairs = zip(like, dtypes, strict=True)
            was, came = next((was, came) for was, came in pairs if was != came)
            raise TypeError(
                f"{where}: expected inputs of one dtype, {was} as those of {names[0]}, got {came} "
                f"for {name}. Convert them alike."
            )


def item_digest(inputs: Any, label: Any, name: str) -> bytes:
    """Identify an item by its inputs, of one sample, its label and its id.

    Tensors and arrays count by their dtype, shape and bytes, all else by what it is written as. No
    two items have the same digest, but for a chance of 2⁻¹²⁸.
    """
    digest = hashlib.sha256()
    number = number_of(label)
    item = inputs, label if number is None else number, name  # whatever holds the number
    if isinstance(inputs, Tensor) and number is not None:
        leaves: Any = (((place,), leaf) for place, leaf in enumerate(item))
    else:
        leaves = sorted(leaves_of(item), key=lambda pair: repr(pair[0]))
    for place, leaf in leaves:
        kind, content = _content(leaf)
        digest.update(f"{place!r} {kind} {len(content)}|".encode())
        digest.update(content)
    return digest.digest()[:DIGEST]


def _content(leaf: Any) -> tuple[str, Any]:
    """Return what a leaf is, and its bytes, of an array without a copy where it is contiguous."""
    if isinstance(leaf, Tensor):
        kind = f"{leaf.dtype} {tuple(leaf.shape)}"
        if leaf.dtype in _NUMPYS and leaf.device.type == "cpu" and leaf.nbytes <= _SMALL:
            return kind, leaf.detach().numpy().tobytes()
        flat = leaf.detach().cpu().contiguous().reshape(-1)
        content = flat.view(torch.uint8).numpy() if len(flat) else b""
        return kind, content
    if isinstance(leaf, np.ndarray) and not leaf.dtype.hasobject:
        flat = np.ascontiguousarray(leaf).reshape(-1)
        return f"{leaf.dtype.str} {leaf.shape}", flat.view(np.uint8) if flat.nbytes else b""
    text = repr(leaf.tolist() if isinstance(leaf, np.ndarray) else leaf)
    if " at 0x" in text:  # an address is another in each process
        text = re.sub(r" at 0x[0-9a-f]+", "", text)
    return type(leaf).__qualname__, text.encode(errors="surrogatepass")


def reading(
    where: str,
    data: Any,
    spans: Sequence[range],
    shape: Shapes,
    workers: int | None,
    *,
    digest: bool = False,
) -> Generator[Batch, None, None]:
    """Read batches in their order, ahead of who takes them: by a thread, or so many processes.

    Close it when no more are taken: that ends the processes.
    """
    read = partial(collate, where, shape=shape, digest=digest)
    if workers:
        yield from in_processes(where, data, read, spans, min(workers, len(spans)))
        return
    batches = (read(data, span) for span in spans)
    yield from batches if workers == 0 else _one_ahead(batches)


def _one_ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Read the next batch while the last is at work."""
    with ThreadPoolExecutor(1, READER) as thread:
        coming = thread.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield batch


def class_labels(
    where: str, batch: Batch, first: int, outputs: int, what: str = "the model's outputs"
) -> Tensor:
    """Labels as output indices, (sample,) int64; one that is no output is an error.

    `what` says what they are numbers of.
    """
    found = [number_of(label) for label in batch.labels]
    if all(one is not None and 0 <= one < outputs and one == int(one) for one in found):
        return torch.tensor([int(one) for one in found])  # pyright: ignore
    indices = []
    for index, (label, name) in enumerate(zip(batch.labels, batch.ids, strict=True), first):
        values = numbers_of(label)
        if len(values) != 1 or not 0 <= values[0] < outputs or values[0] % 1:
            cure = (
                "Map the labels to outputs; if they are real values, ask for a regression."
                if len(values) < 2
                else "Of several labels for each sample, 0 or 1 for each output, say "
                "task='multilabel'; of real values task='regression'."
            )
            raise ValueError(
                f"{where}: expected labels in 0..{outputs - 1}, {what}, got {label!r} for sample "
                f"{index} (id {name!r}). {cure}"
            )
        indices.append(int(values[0]))
    return torch.tensor(indices)


def flag_labels(where: str, batch: Batch, first: int, outputs: int) -> Tensor:
    """Labels of 0 or 1 for each output, (sample,) or (sample, output) int64."""
    labels = []
    for index, (label, name) in enumerate(zip(batch.labels, batch.ids, strict=True), first):
        values = numbers_of(label)
        if len(values) != outputs or not np.isin(values, (0, 1)).all():
            each = "" if outputs == 1 else f" for each of the model's {outputs} outputs"
            raise ValueError(
                f"{where}: expected labels that are 0 or 1{each}, got {label!r} for sample {index} "
                f"(id {name!r}). Write what is there as 1 and what is not as 0, and leave out "
                "samples of which it is not known."
            )
        labels.append(torch.from_numpy(values.astype(np.int64)))
    return torch.stack(labels).squeeze(1)


def real_labels(where: str, batch: Batch, first: int, numbers: int) -> Tensor:
    """Labels as real values, (sample,) or (sample, output) float64, of so many numbers each."""
    labels = []
    for index, (label, name) in enumerate(zip(batch.labels, batch.ids, strict=True), first):
        values = numbers_of(label)
        if len(values) != numbers:
            came = f"{len(values)} numbers" if len(values) else repr(label)
            raise ValueError(
                f"{where}: expected as many real labels for each sample as for others or as "
                f"the model has outputs, {numbers}, got {came} for sample {index} (id {name!r})."
            )
        labels.append(torch.from_numpy(values))
    return torch.stack(labels).squeeze(1)


def _taken(where: str, data: Any, index: int) -> Any:
    """Take an item; whatever the data set raises names the sample."""
    try:
        return data[index]
    except IndexError as error:
        raise IndexError(
            f"{where}: expected data that do not change while they are read, got no sample {index} "
            f"of the {len(data)} there are now: {error}. List the items once, when the data set is "
            "made."
        ) from error
    except BaseException as error:
        # here it may be a key that was pressed; a thread or process that reads gets none
        asked = not isinstance(error, Exception)
        if asked and not threading.current_thread().name.startswith(READER):
            raise
        raise RuntimeError(
            f"{where}: expected sample {index} to be read, got {said(error)} from the data set. "
            f"See what data[{index}] does by itself, mend it, or leave the sample out."
        ) from error


def _tree(where: str, value: Any, index: int) -> Any:
    """Take an input as tensors; a tuple of numbers alone is one."""
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, Mapping):
        return {key: _part(where, part, index) for key, part in value.items()}
    if isinstance(value, tuple) and not all(isinstance(part, bool | int | float) for part in value):
        return tuple(_part(where, part, index) for part in value)
    return _tensor(where, value, index)


def _part(where: str, value: Any, index: int) -> Any:
    return None if value is None else _tree(where, value, index)


def _tensor(where: str, value: Any, index: int) -> Tensor:
    try:
        return torch.as_tensor(native(value)).detach()
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(
            f"{where}: expected inputs that are tensors or arrays of numbers, got "
            f"{type(value).__name__} for sample {index}. Convert it in the data set."
        ) from None


def number_of(label: Any) -> float | None:
    """Take a label that is one number as such; None of any other."""
    if type(label) is float or (type(label) is int and abs(label) < 2**53):
        return float(label)
    if type(label) is Tensor and label.ndim == 0 and label.device.type == "cpu":
        return None if label.is_complex() else float(label)
    values = numbers_of(label)
    return float(values[0]) if len(values) == 1 else None


def numbers_of(label: Any) -> np.ndarray:
    """Take a label as float64 numbers; none where it is something else, such as text or a date."""
    try:
        if isinstance(label, Tensor):
            label = label.detach().cpu()
            label = label if label.is_complex() else label.double()  # numpy has no bfloat16
        values = np.asarray(label)
        odd = values.dtype.kind == "O" and any(
            value is None or isinstance(value, str | bytes) for value in values.flat
        )
        if odd or values.dtype.kind not in "biufO":
            return np.empty(0)
        return np.array(values, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return np.empty(0)
