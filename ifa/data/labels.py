"""Labels: text to indices by names, whole numbers as classes, real numbers as they are."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from torch import Tensor

from ifa.checks import check_choice, check_text

Task = Literal["classification", "regression"]
Names = tuple[str, ...]

# What a column is called that says whose a sample is.
_OWNERS = {"patient", "participant", "subject", "volunteer", "donor", "person", "pid", "mrn"}
_OWNERS |= {"animal", "mouse", "case", "recording", "session"}


def labelled(
    where: str,
    values: Any,
    ids: Sequence[str],
    *,
    names: Sequence[str] | None = None,
    task: Task | None = None,
) -> tuple[np.ndarray | None, Names | None]:
    """Take labels as int64 indices or float64 values, with the names of their classes."""
    if task is not None:
        check_choice(where, "task", task, ("classification", "regression"))
    names = None if names is None else checked_names(where, names)
    if values is None:
        return None, names
    array = as_array(values)
    if len(array) != len(ids):
        raise ValueError(
            f"{where}: expected a label for each of {len(ids)} samples, got {len(array)}."
        )
    _complete(where, array, ids)
    if array.dtype.kind == "O":
        return _indices(where, array, ids, names, task)
    return _numbers(where, array, ids, names, task), names


def as_array(values: Any) -> np.ndarray:
    """Take an array of numbers, or of objects if there is text or something else in it."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    mixed = isinstance(values, list | tuple) and any(isinstance(one, str) for one in values)
    array = np.array(values, dtype=object) if mixed else np.asarray(values)
    if array.dtype.kind in "US":
        return array.astype(object)
    if array.dtype.kind == "O" and not any(isinstance(value, str) for value in array.flat):
        array = np.array([[np.nan if _missing(one) else one for one in array.flat]])
        array = array.reshape(np.shape(values))
        return array.astype(np.float64) if array.dtype.kind == "O" else array
    return array


def index_of(where: str, label: Any, names: Names | None, name: str) -> Any:
    """Take one label that was read: text as its index."""
    if not isinstance(label, str):
        if np.ndim(label) == 0:
            _check_numeral(where, label, names, name)
        return label
    if names is None or label not in names:
        listed = "" if names is None else f", one of {_listed(names)}"
        raise ValueError(
            f"{where}: expected labels that are numbers, or named by names={listed}, got {label!r} "
            f"of sample {name!r}. Give the names of all classes, in the order of the outputs."
        )
    return names.index(label)


def check_ids(where: str, ids: Sequence[str], instead: str) -> None:
    """Raise unless every sample has an id of its own, which can be written."""
    for name in ids:
        check_text(where, "an id", name)
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise ValueError(
            f"{where}: expected an id of its own for each sample, got {_listed(twice)} more than "
            f"once. {instead}"
        )


def grouped(where: str, values: Any, count: int, what: str = "group") -> np.ndarray | None:
    """Take one group, or cluster, for each sample."""
    if values is None:
        return None
    array = np.asarray(values)
    if array.shape != (count,):
        raise ValueError(
            f"{where}: expected one {what} for each of {count} samples, got {array.shape}."
        )
    without = [index for index, value in enumerate(array.tolist()) if _missing(value)]
    if without:
        raise ValueError(
            f"{where}: expected a {what} for every sample, got none for {len(without)}, such as "
            f"sample {without[0]}. Name these too, such as 'unknown', or leave them out."
        )
    return array.astype(str) if array.dtype.kind == "O" else array


def parents(where: str, ids: Sequence[str]) -> np.ndarray:
    """Return the folder that each sample lies in, by its path: whose samples belong together."""
    folders = [name.replace("\\", "/").rpartition("/")[0] for name in ids]
    if "" in folders:
        raise ValueError(
            f"{where}: expected a folder in every path for cluster='parent', got "
            f"{ids[folders.index('')]!r}. Give a label of each sample instead."
        )
    return np.array(folders, dtype=object).astype(str)


def shared(columns: Mapping[str, Callable[[], Any]]) -> str | None:
    """Find a column that by its name says whose a sample is, and that several samples share."""
    for name, values in columns.items():
        plain = re.sub(r"[^a-z]|id(entifier)?$|name$|num(ber)?$", "", name.lower())
        if plain in _OWNERS:
            found = list(map(str, values()))
            if 1 < len(set(found)) < len(found):
                return name
    return None


def checked_names(where: str, names: Sequence[str]) -> Names:
    """Take names of classes; raise unless these are texts that differ."""
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"{where}: expected names to be texts, one for each class, got {names!r}.")
    if len(set(names)) != len(names):
        raise ValueError(f"{where}: expected each class once in names, got {_listed(names)}.")
    for name in names:
        check_text(where, "a name of a class", name)
    return tuple(names)


def _missing(value: Any) -> bool:
    """Tell whether there is nothing: None, NaN, or what pandas puts there."""
    nothing = value is None or type(value).__name__ in ("NAType", "NaTType")
    return nothing or (isinstance(value, float) and value != value)


def _complete(where: str, array: np.ndarray, ids: Sequence[str]) -> None:
    """Raise where a label is missing or not finite."""
    if array.dtype.kind == "O":
        missing = np.array([_missing(value) for value in array.flat])
        missing = missing.reshape(array.shape)
    elif array.dtype.kind == "f":
        missing = ~np.isfinite(array)
    else:
        return
    without = [ids[row] for row in np.flatnonzero(missing.reshape(len(array), -1).any(1)).tolist()]
    if without:
        raise ValueError(
            f"{where}: expected a finite label for every sample, got none for {len(without)}: "
            f"{_listed(without)}. Leave these out, or complete their labels."
        )


def _indices(
    where: str, array: np.ndarray, ids: Sequence[str], names: Names | None, task: Task | None
) -> tuple[np.ndarray, Names]:
    """Take text as indices."""
    others = [value for value in array.flat if not isinstance(value, str)]
    if array.ndim > 1 or others or task == "regression":
        came = f"{others[0]!r} beside text" if others else "text"
        what = "numbers" if array.ndim > 1 or task == "regression" else "text alone, or numbers"
        raise ValueError(
            f"{where}: expected labels that are {what}, got {came}. Name one column of classes, or "
            "columns of numbers."
        )
    names = tuple(sorted(set(array.tolist()))) if names is None else names
    places = {name: index for index, name in enumerate(names)}
    for label, name in zip(array, ids, strict=True):
        if label not in places:
            raise ValueError(
                f"{where}: expected labels among names, {_listed(names)}, got {label!r} of sample "
                f"{name!r}. Add it to names, or leave the sample out."
            )
    return np.array([places[label] for label in array], dtype=np.int64), names


def _check_numeral(where: str, label: Any, names: Names | None, name: str) -> None:
    """Raise where a label that is a number is the name of another class."""
    text = f"{label:g}" if isinstance(label, float) else str(label)
    if names is not None and text in names and names.index(text) != label:
        raise ValueError(
            f"{where}: expected labels that are places in names, {_listed(names)}, or names, got "
            f"{label} of sample {name!r}, which is place {int(label)} and the name of place "
            f"{names.index(text)}. Give labels as text, or names in the order of the numbers."
        )


def _numbers(
    where: str, array: np.ndarray, ids: Sequence[str], names: Names | None, task: Task | None
) -> np.ndarray:
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{where}: expected labels that are text or numbers, got {array.dtype}.")
    real = array.dtype.kind == "f"
    if task == "regression" or (real and task is None):
        if names is not None:
            raise ValueError(
                f"{where}: expected no names for labels that are real values, got {_listed(names)}."
                " If they are classes, say task='classification'."
            )
        return array.astype(np.float64)
    for label, name in zip(array.tolist(), ids, strict=True) if array.ndim == 1 else ():
        _check_numeral(where, label, names, name)
    array = array.astype(np.int64) if array.dtype.kind == "b" else array
    wrong = (array < 0) | (array >= (np.inf if names is None else len(names))) | (array % 1 != 0)
    if wrong.any():
        row = int(np.flatnonzero(wrong.reshape(len(array), -1).any(1))[0])
        limit = "at least 0" if names is None else f"below {len(names)}, the number of names"
        raise ValueError(
            f"{where}: expected labels that are whole numbers, {limit}, got "
            f"{array[row].tolist()} of sample {ids[row]!r}. "
            "If they are real values, say task='regression'."
        )
    return array.astype(np.int64)


def _listed(values: Sequence[Any], most: int = 3) -> str:
    shown = ", ".join(repr(value) for value in values[:most])
    return shown if len(values) <= most else f"{shown} and {len(values) - most} more"
