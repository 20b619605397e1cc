"""Arrays and signals: NumPy, torch, xarray, memory maps."""

import mmap
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ifa.checks import check_choice
from ifa.data.decoding import Channels, array_input, in_mode, is_picture
from ifa.data.labels import Task, check_ids, grouped, labelled
from ifa.data.reading import ARRAYS, Decoder, Files, absolute, is_kind
from ifa.data.samples import Samples


@dataclass(frozen=True, eq=False)
class Rows:
    """Read the rows of an array."""

    values: Any

    def __call__(self, index: int) -> tuple[Any, None, None]:
        row = self.values[index]
        return (row.values if hasattr(row, "dims") else row), None, None  # of a DataArray

    def __reduce__(self) -> Any:
        """Pickle a memory map by its file, and not by its contents."""
        values = self.values
        # a part of a memory map has the whole one's offset
        if isinstance(values, np.memmap) and isinstance(values.base, mmap.mmap) and values.filename:
            order = "F" if np.isfortran(values) else "C"
            name = os.fspath(values.filename)
            return _mapped, (name, values.dtype, values.offset, values.shape, order)
        return Rows, (values,)


def _mapped(name: str, dtype: np.dtype, offset: int, shape: tuple[int, ...], order: Any) -> Rows:
    return Rows(np.memmap(name, dtype, "r", offset, shape, order))


def arrays(
    X: Any,
    y: Any = None,
    *,
    channels: Channels | None = None,
    ids: Sequence[str] | None = None,
    groups: Any = None,
    cluster: Any = None,
    names: Sequence[str] | None = None,
    task: Task | None = None,
    prepare: Callable[[Any], Any] | None = None,
) -> Samples:
    r"""Take arrays of images or volumes, and labels: NumPy, torch, xarray, a memory map, Zarr.

    Parameters
    ----------
    X : (sample, channel, \*space), (sample, \*space, channel) or (sample, y, x)
        Read sample by sample. Of a labelled array, its axis ``channel`` is that of the channels,
        and where its others are called ``z y x t``, it has none.
    y : (sample,) or (sample, output)
        Labels: text, whole numbers for classes, real values; None where there are none.
    channels
        ``"first"`` or ``"last"``. By default first, and (sample, y, x) gets an axis of one channel.
    ids, groups, cluster : (sample,)
        Of each sample; ids are by default its index. What samples share a `cluster`, such as a
        patient, belong together, as of `table`.
    names
        The classes in the order of the network's outputs; by default sorted, where y is text.
    task
        What numbers in y are, as of `table`.
    prepare
        What makes an input of one example as it is in X, instead of the rule: see `ifa.data`.

    Returns
    -------
    Samples
        float32: uint8 and uint16 are divided by 255 and 65 535, other numbers are kept.

    Raises
    ------
    ValueError
        If lengths differ, or what look like channels are not where `channels` says.

    Examples
    --------
    >>> data = arrays(np.full((3, 4, 5), 255, dtype=np.uint8), ["cat", "dog", "cat"])
    >>> image, label, name = data[1]
    >>> image.shape, image.max().item(), label, name, data.names
    (torch.Size([1, 4, 5]), 1.0, 1, '1', ('cat', 'dog'))
    """
    where = "ifa.data.arrays"
    values, channels = _laid_out(where, X, channels)
    named = _ids(where, ids, values.shape[0])
    labels, classes = labelled(where, y, named, names=names, task=task)
    return Samples(
        source=where,
        count=values.shape[0],
        read=Rows(values),
        plain=partial(array_input, where, channels, 2),
        rule=_rule(values),
        prepare=prepare,
        labels=labels,
        ids=named,
        names=classes,
        groups=grouped(where, groups, values.shape[0]),
        cluster=grouped(where, cluster, values.shape[0], "cluster"),
    )


def signals(
    X: Any,
    y: Any = None,
    *,
    rate: float | None = None,
    channels: Channels | None = None,
    ids: Sequence[str] | None = None,
    groups: Any = None,
    cluster: Any = None,
    names: Sequence[str] | None = None,
    task: Task | None = None,
    prepare: Callable[[Any], Any] | None = None,
) -> Samples:
    """Take signals, and labels: an array, or files of arrays.

    Parameters
    ----------
    X : (sample, channel, t), (sample, t, channel) or (sample, t)
        An array as of `arrays`, or paths of ``.npy`` files with one signal each.
    y : (sample,) or (sample, output)
        Labels, as of `arrays`.
    rate
        Points in a second, for the repr.
    channels
        ``"first"`` or ``"last"``. By default first, and (sample, t) gets an axis of one channel.
    ids, groups, cluster, names, task, prepare
        As of `arrays`; ids of files are by default their paths.

    Returns
    -------
    Samples
        Inputs (channel, t) float32, by the rule of `ifa.data`.

    Raises
    ------
    ValueError
        If lengths differ.
    FileNotFoundError
        If files are missing.

    Examples
    --------
    >>> signals(np.zeros((2, 100)), [0, 1], rate=50.0)[1][0].shape
    torch.Size([1, 100])
    """
    where = "ifa.data.signals"
    if rate is not None and not 0 < rate < np.inf:
        raise ValueError(f"{where}: expected rate to be points in a second, got {rate!r}.")
    if isinstance(X, Sequence) and X and isinstance(X[0], str | os.PathLike):
        paths = _paths(where, X)
        read, count = Files(paths, absolute(""), Decoder(where)), len(paths)
        named, rule = _ids(where, paths if ids is None else ids, count), "signals from files"
        _check_channels(where, channels)
    else:
        values, channels = _laid_out(where, X, channels)
        read, count = Rows(values), values.shape[0]
        named, rule = _ids(where, ids, count), _rule(values)
    labels, classes = labelled(where, y, named, names=names, task=task)
    return Samples(
        source=where,
        count=count,
        read=read,
        plain=partial(array_input, where, channels, 1),
        rule=rule if rate is None else f"{rule}, {rate:g} points in a second",
        prepare=prepare,
        labels=labels,
        ids=named,
        names=classes,
        groups=grouped(where, groups, count),
        cluster=grouped(where, cluster, count, "cluster"),
    )


def _laid_out(where: str, values: Any, channels: Channels | None) -> tuple[Any, Channels | None]:
    """Take an array, one with named axes by these, and where its channels are."""
    _check_channels(where, channels)
    if not hasattr(values, "shape") or not hasattr(values, "dtype"):
        if not isinstance(values, list | tuple):
            raise TypeError(
                f"{where}: expected an array, got {type(values).__name__}. Of a data frame take "
                "frame.to_numpy()."
            )
        values = _stacked(where, values)
    if "sample" in getattr(values, "dims", ()):
        values = values.transpose("sample", ...)
    dims: tuple[Any, ...] = tuple(getattr(values, "dims", ()))
    if "channel" in dims:
        values, channels = values.transpose(dims[0], "channel", ...), "first"
    elif dims and set(dims[1:]) <= set("tzyx"):
        values, channels = values.expand_dims("channel", 1), "first"
    if len(values.shape) < 2:
        raise ValueError(
            f"{where}: expected an array with samples first, got one of shape "
            f"{tuple(values.shape)}."
        )
    return values, channels


def _stacked(where: str, values: Sequence[Any]) -> np.ndarray:
    try:
        # the numbers of a picture with a palette are places in that
        pictures = (in_mode(one, None) if is_picture(one) else one for one in values)
        return np.stack([np.asarray(one) for one in pictures])
    except ValueError as error:
        raise ValueError(
            f"{where}: expected examples of one shape, got a list that does not stack: {error}."
        ) from None


def _check_channels(where: str, channels: Channels | None) -> None:
    if channels is not None:
        check_choice(where, "channels", channels, ("first", "last"))


def _ids(where: str, ids: Sequence[str] | None, count: int) -> tuple[str, ...]:
    """Take an id for each sample, by default its index."""
    named = tuple(map(str, range(count) if ids is None else ids))
    if len(named) != count:
        raise ValueError(f"{where}: expected an id for each of {count} samples, got {len(named)}.")
    check_ids(where, named, "Mend the ids.")
    return named


def _paths(where: str, paths: Sequence[Any]) -> tuple[str, ...]:
    for path in paths:
        if not is_kind(path, ARRAYS) or not os.path.isfile(path):
            raise FileNotFoundError(
                f"{where}: expected .npy files, got no such file {os.fspath(path)!r}."
            )
    return tuple(map(os.fspath, paths))


def _rule(values: Any) -> str:
    kind = str(values.dtype).removeprefix("torch.")
    scaled = {"uint8": ", divided by 255", "uint16": ", divided by 65535"}.get(kind, "")
    return f"{kind} array {tuple(values.shape)}{scaled}, float32 (channel, *space)"
