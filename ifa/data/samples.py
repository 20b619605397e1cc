"""What all data sets share: an index to `(input, label, id)`, and what is known without reading."""

import operator
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Subset

from ifa.clusters import names_of
from ifa.data.decoding import named, prepared
from ifa.data.labels import index_of
from ifa.network.tokens import digest_of

Sample = tuple[Any, Any, str]
# index -> what was read, and label and id where these are read with it
Reader = Callable[[int], tuple[Any, Any, Any]]


@dataclass(frozen=True, eq=False, repr=False)
class Samples:
    r"""A lazy, sized, indexable data set of ``(input, label, id)``, as `ifa.data` makes them.

    Parameters
    ----------
    source
        What it was made of, as its repr and errors say.
    count
        How many samples there are.
    read
        index -> (what was read, label, id); None where `labels` and `ids` are known beforehand.
    plain
        What was read -> input (channel, \*space), where there is no `prepare`.
    rule
        What `plain` does, in words.
    prepare
        What was read -> input, instead of `plain`.
    labels : (sample,)
        int64 indices or float64 values, (sample, output) where there are several; None where they
        are read with the inputs, or where there are none.
    ids : (sample,)
        None where they are read with the inputs.
    names : (class,)
        Names of classes, in the order of their indices, or None.
    groups : (sample,)
        A label of each sample, such as its site, or None: for ``ifa.analyze(groups=)``.
    cluster : (sample,)
        Whose each sample is, such as its patient, or None: `ifa.analyze` keeps it with a run.
    shared
        The column of a table that seems to say so where `cluster` is None.
    notes
        What else its repr says.
    """

    source: str
    count: int
    read: Reader
    plain: Callable[[Any], Any]
    rule: str
    prepare: Callable[[Any], Any] | None = None
    labels: np.ndarray | None = None
    ids: tuple[str, ...] | None = None
    names: tuple[str, ...] | None = None
    groups: np.ndarray | None = None
    cluster: np.ndarray | None = None
    shared: str | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        index = self._index(index)
        value, label, name = self.read(index)
        if self.ids is not None:
            name = self.ids[index]
        if self.labels is not None:
            label = _plain(self.labels[index])
        elif label is not None:
            label = index_of(self.source, label, self.names, name)
        return self._input(value, index, name), label, name

    def geometry(self, index: int) -> Any:
        """Return the `Geometry` of a volume, of its header alone."""
        read = getattr(self.read, "geometry", None)
        if read is None:
            raise TypeError(f"{self.source}: expected volumes, got data that have no geometry.")
        return read(self._index(index))

    def __repr__(self) -> str:
        how = self.rule if self.prepare is None else f"prepared by {named(self.prepare)}"
        lines = [f"{self.source}: {self.count} samples", f"  input: {how}"]
        lines += [f"  labels: {self._written_labels()}"]
        if self.groups is not None:
            lines.append(f"  groups: {_counted(self.groups.tolist())}")
        if self.cluster is not None:
            lines.append(f"  clusters: {len(set(self.cluster.tolist()))}")
        elif self.shared is not None:
            lines.append(f"  clusters: none; several samples share a {self.shared!r} (cluster=)")
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])

    def _index(self, index: int) -> int:
        try:
            place = operator.index(index)
        except TypeError:
            raise TypeError(
                f"{self.source}: expected the index of one sample, got {index!r}. For several take "
                "torch.utils.data.Subset(data, indices)."
            ) from None
        if not -self.count <= place < self.count:
            raise IndexError(
                f"{self.source}: expected an index below {self.count}, the number of samples, got "
                f"{index!r}."
            )
        return place % self.count

    def _input(self, value: Any, index: int, name: str) -> Any:
        try:
            if self.prepare is None:
                return self.plain(value)
            return prepared(self.source, self.prepare(value))
        except Exception as error:
            error.add_note(f"{self.source}: this was sample {index} (id {name!r}).")
            raise

    def _written_labels(self) -> str:
        if self.labels is None:
            of = "" if self.names is None else f" (classes: {', '.join(self.names)})"
            return f"not known before samples are read{of}"
        if self.labels.ndim > 1:
            return f"{self.labels.shape[1]} values each"
        if self.labels.dtype.kind == "f":
            low, high = self.labels.min(), self.labels.max()
            return f"real values {low:.4g} … {high:.4g}"
        of = self.labels.tolist()
        return _counted(
            of if self.names is None else [self.names[label] for label in of], self.names
        )


class Known(NamedTuple):
    """What is known of data without reading a sample; None where it is not."""

    names: tuple[str, ...] | None = None
    ids: tuple[str, ...] | None = None
    groups: np.ndarray | None = None
    cluster: np.ndarray | None = None
    shared: str | None = None


def known(data: Any) -> Known:
    """Say what is known of a data set of `ifa.data`, or a `torch.utils.data.Subset` of one.

    Of other data nothing is known.

    Examples
    --------
    >>> import ifa, numpy as np
    >>> known(ifa.data.arrays(np.zeros((2, 1, 4, 4), np.float32), ["cat", "dog"])).names
    ('cat', 'dog')
    """
    if isinstance(data, Subset):
        whole, places = known(data.dataset), list(data.indices)
        ids = None if whole.ids is None else tuple(whole.ids[place] for place in places)
        groups, cluster = (
            None if each is None else each[places] for each in (whole.groups, whole.cluster)
        )
        return Known(whole.names, ids, groups, cluster, whole.shared)
    if not isinstance(data, Samples):
        return Known()
    return Known(data.names, data.ids, data.groups, data.cluster, data.shared)


def normalization_of(data: Any) -> tuple[Any, Any] | None:
    """Return the mean and deviation that the preparation of data ends with, where it says them.

    That is one of `ModelRef.preparation`, any with an attribute `normalization`, or a transform of
    torchvision that is, or ends with, a ``Normalize``.
    """
    if isinstance(data, Subset):
        return normalization_of(data.dataset)
    prepare: Any = data.prepare if isinstance(data, Samples) else None
    if hasattr(prepare, "normalization"):
        return prepare.normalization
    last = (getattr(prepare, "transforms", None) or [prepare])[-1]
    return (last.mean, last.std) if hasattr(last, "mean") and hasattr(last, "std") else None


def owners_of(where: str, data: Any, cluster: Any) -> np.ndarray | None:
    """Return the name of each sample's cluster: of those given, or of those that data know."""
    found = known(data).cluster if cluster is None else cluster
    if found is None:
        return None
    names, codes = names_of(where, "cluster", found, len(data))
    return np.array(names, dtype=object)[codes]


def owners_token(owners: np.ndarray | None) -> str | None:
    """Write for a run's specification whose samples are."""
    return None if owners is None else f"{len(set(owners))}: {digest_of(list(owners))}"


def output_names(task: str, names: Sequence[str] | None) -> Sequence[str] | None:
    """Return the names of outputs: the one of a binary task says whether the label is 1."""
    return names[1:] if names is not None and task == "binary" and len(names) == 2 else names


def label_names(task: str, names: Sequence[str] | None) -> Sequence[str | None] | None:
    """Return the names of labels by those of outputs.

    A binary task may name both labels, or the one that its output says: None is then what 0 is.
    """
    if names is None or task != "binary" or len(names) == 2:
        return names
    return (None, *names)


def check_order(where: str, data: Any, names: Sequence[str | None] | None) -> None:
    """Raise where outputs have names of the data's classes, but in another order."""
    classes = known(data).names
    if names is None or classes is None:
        return
    outputs = [None if name is None else str(name) for name in names]
    moved = [name for at, name in enumerate(classes) if outputs[at : at + 1] != [name]]
    wrong = [name for name in moved if name in outputs]
    if wrong:
        what = "label" if outputs[0] is None else "output"
        raise ValueError(
            f"{where}: expected the data's classes in the order of the outputs' names, got "
            f"{wrong[0]!r} as label {classes.index(wrong[0])} and {what} {outputs.index(wrong[0])}."
            " Give names=, in the order of the outputs, to the function of ifa.data that made them."
        )


def _plain(label: Any) -> Any:
    """Take a label as a number of Python; several as a copy."""
    return label.item() if np.ndim(label) == 0 else label.copy()


def _counted(values: Sequence[Any], names: Sequence[Any] | None = None, most: int = 12) -> str:
    counts = Counter(values)
    order = sorted(counts, key=str) if names is None else list(names)
    if names is None and all(isinstance(value, int) for value in counts):
        order = sorted(counts)
    shown = ", ".join(f"{value}: {counts[value]}" for value in order[:most])
    left = len(order) - most
    return shown if left <= 0 else f"{shown}, and {left} more"
