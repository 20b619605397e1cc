"""Data sets of other libraries: columns of HuggingFace, and items that are dictionaries."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from ifa.data.decoding import Channels, array_input, file_input, is_picture
from ifa.data.folders import check_mode
from ifa.data.labels import check_ids, grouped, labelled, shared
from ifa.data.reading import Mode
from ifa.data.samples import Samples


@dataclass(frozen=True)
class Items:
    """Read items that are mappings."""

    where: str
    items: Any
    input: str | tuple[str, ...]
    label: str | None = None  # where it is read with the input
    id: str | None = None

    def __call__(self, index: int) -> tuple[Any, Any, str]:
        item = self.items[index]
        label, name = self.facts(item, index)
        if isinstance(self.input, str):
            return content(self._of(item, self.input, index)), label, name
        parts = {key: content(self._of(item, key, index)) for key in self.input}
        return parts, label, name

    def facts(self, item: Any, index: int) -> tuple[Any, str]:
        """Return label and id of an item."""
        name = str(index) if self.id is None else str(plain(self._of(item, self.id, index)))
        return None if self.label is None else plain(self._of(item, self.label, index)), name

    def _of(self, item: Any, key: str, index: int) -> Any:
        try:
            return item[key]
        except (KeyError, TypeError, IndexError):
            came = ", ".join(map(repr, item)) if isinstance(item, Mapping) else type(item).__name__
            raise LookupError(
                f"{self.where}: expected items with {key!r}, got {came} in sample {index}. Name "
                "their keys by input=, label= and id=."
            ) from None


def content(value: Any) -> Any:
    """Take the tensor of an image of torchio; anything else as it is."""
    inner = None if isinstance(value, Tensor) else getattr(value, "data", None)
    return inner if isinstance(inner, Tensor) else value


def plain(value: Any) -> Any:
    """Take a number of torch or NumPy as one of Python."""
    alone = getattr(value, "shape", None) in ((), (1,)) and hasattr(value, "item")
    return value.item() if alone else value


def huggingface(
    dataset: Any,
    *,
    input: str = "image",
    label: str | None = "label",
    id: str | None = None,
    groups: str | None = None,
    cluster: str | None = None,
    names: Sequence[str] | None = None,
    channels: Channels | None = None,
    prepare: Callable[[Any], Any] | None = None,
    mode: Mode = "RGB",
) -> Samples:
    r"""Take columns of a data set of HuggingFace's `datasets`.

    Parameters
    ----------
    dataset
        A `datasets.Dataset`, such as one split of what `load_dataset` returns. Columns are read in
        one way whatever its ``with_format`` is: images as pictures of PIL, others as arrays. Where
        it has a transform of its own (``with_transform``), `input` is a key of what that returns.
    input
        The column of images or arrays.
    label
        The column of labels, read once; None where there are none. Names are those of a
        ``ClassLabel``.
    id, groups, cluster
        Columns of ids, groups and clusters, as of `table`. Ids are by default the indices.
    names
        The classes in the order of the network's outputs; by default those of the column.
    channels
        Of arrays: ``"first"`` or ``"last"``, as of `arrays`.
    prepare
        What makes an input of the picture of PIL, or of the array, instead of the rule: see
        `ifa.data`.
    mode
        Of images: ``"RGB"`` for 3 channels, ``"L"`` for 1.

    Returns
    -------
    Samples
        By the rule of `ifa.data`.

    Raises
    ------
    TypeError
        If this is no such data set, or one that is streamed.
    LookupError
        If there is no such column.
    """
    where = "ifa.data.huggingface"
    check_mode(where, mode)
    _check_columns(where, dataset, input, [label, id, groups, cluster])
    columns = dataset.with_format(None)

    def column(name: str | None) -> list[Any] | None:
        return None if name is None else list(columns[name])

    named = column(id)
    ids = tuple(map(str, range(len(dataset)) if named is None else named))
    check_ids(where, ids, "Mend the ids, or leave id= out.")
    values = column(label)
    own = None if label is None else getattr(dataset.features[label], "names", None)
    if own is not None and names is not None:  # numbers are places among the column's own names
        values = [own[one] if one in range(len(own)) else one for one in values or ()]
    labels, classes = labelled(where, values, ids, names=own if names is None else names)
    return Samples(
        source=where,
        count=len(dataset),
        read=Items(where, _viewed(dataset, input), input),
        plain=partial(_column_input, where, channels, mode),
        rule=f"column {input!r}, float32 (channel, *space); pictures {mode}, in 0 … 1",
        prepare=prepare,
        labels=labels,
        ids=ids,
        names=classes,
        groups=grouped(where, column(groups), len(dataset)),
        cluster=grouped(where, column(cluster), len(dataset), "cluster"),
        shared=None
        if cluster is not None
        else shared({name: partial(column, name) for name in dataset.features}),
    )


def keyed(
    dataset: Any,
    input: str | Sequence[str],
    label: str | None,
    *,
    id: str | None = None,
    names: Sequence[str] | None = None,
    groups: Any = None,
    cluster: Any = None,
    channels: Channels | None = None,
    prepare: Callable[[Any], Any] | None = None,
) -> Samples:
    r"""Take a data set whose items are dictionaries, such as MONAI's and torchio's.

    Parameters
    ----------
    dataset
        Sized and indexable. Labels and ids of a list are read once; of anything else with the
        inputs, as a data set's transforms give them.
    input
        The key of the input: a tensor, an array, a picture of PIL, or an image of torchio, whose
        tensor is taken, its axes as they are. Several keys give the network a mapping of them.
    label
        The key of the label; None where there is none. Text becomes an index by `names`.
    id
        The key of the id; by default an item's id is its index.
    names
        The classes in the order of the network's outputs.
    groups, cluster : (sample,)
        A label of each sample, as of `arrays`.
    channels
        As of `arrays`; arrays of one or two axes get no axis here.
    prepare
        What makes an input of what is under the key, or of a mapping of several, instead of the
        rule: see `ifa.data`.

    Returns
    -------
    Samples
        By the rule of `ifa.data`.

    Raises
    ------
    TypeError
        If the data set is not sized and indexable.
    LookupError
        If an item has no such key.

    Examples
    --------
    >>> import torch
    >>> items = [{"image": torch.zeros(1, 4, 5), "label": "cat", "name": "a"}]
    >>> keyed(items, "image", "label", id="name", names=["dog", "cat"])[0][1:]
    (1, 'a')
    """
    where = "ifa.data.keyed"
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise TypeError(
            f"{where}: expected a sized, indexable data set of dictionaries, got "
            f"{type(dataset).__name__}."
        )
    key = input if isinstance(input, str) else tuple(input)
    read, labels, ids = Items(where, dataset, key, label, id), None, None
    classes = labelled(where, None, (), names=names)[1]
    if isinstance(dataset, list | tuple):  # an item is there without reading
        facts = [read.facts(item, index) for index, item in enumerate(dataset)]
        ids = tuple(name for _, name in facts)
        check_ids(where, ids, "Mend the ids, or leave id out.")
        values = None if label is None else [value for value, _ in facts]
        labels, classes = labelled(where, values, ids, names=names)
    return Samples(
        source=where,
        count=len(dataset),
        read=read,
        plain=partial(_keyed_input, where, channels),
        rule=f"{input!r} of each item, float32 (channel, *space)",
        prepare=prepare,
        labels=labels,
        ids=ids,
        names=classes,
        groups=grouped(where, groups, len(dataset)),
        cluster=grouped(where, cluster, len(dataset), "cluster"),
    )


def _check_columns(where: str, dataset: Any, input: str, columns: Sequence[str | None]) -> None:
    if isinstance(dataset, Mapping):
        raise TypeError(
            f"{where}: expected one split, got a set of them, {', '.join(map(repr, dataset))}. "
            "Take one: dataset['test']."
        )
    if not all(hasattr(dataset, name) for name in ("features", "with_format", "__len__")):
        raise TypeError(
            f"{where}: expected a datasets.Dataset that can be indexed, got "
            f"{type(dataset).__name__}. Load it without streaming; for other data sets of "
            "dictionaries use ifa.data.keyed."
        )
    asked = [*columns, None if _own_transform(dataset) else input]
    for name in asked:
        if name is not None and name not in dataset.features:
            raise LookupError(
                f"{where}: expected a column {name!r}, got {', '.join(map(repr, dataset.features))}"
                ". Name the columns by input=, label=, id=, groups= and cluster=."
            )


def _own_transform(dataset: Any) -> bool:
    return getattr(dataset, "format", {}).get("type") == "custom"


def _viewed(dataset: Any, input: str) -> Any:
    """Read the one column: images as pictures of PIL, others as arrays."""
    if _own_transform(dataset):
        return dataset
    column = dataset.select_columns(input)
    image = type(dataset.features[input]).__name__ == "Image"
    return column.with_format(None if image else "numpy")


def _column_input(where: str, channels: Channels | None, mode: str, value: Any) -> Any:
    if is_picture(value):
        return file_input(where, mode, value)
    return array_input(where, channels, 2, value)


def _keyed_input(where: str, channels: Channels | None, value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _keyed_input(where, channels, part) for key, part in value.items()}
    if is_picture(value):
        return file_input(where, None, value)
    return array_input(where, channels, 0, value)
