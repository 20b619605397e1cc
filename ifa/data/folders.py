"""Folders of classes."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np

from ifa.checks import check_choice
from ifa.data.decoding import file_input
from ifa.data.labels import check_ids, checked_names, labelled, parents
from ifa.data.reading import PICTURES, Decoder, Files, Mode, absolute, is_kind
from ifa.data.samples import Samples


class Found(NamedTuple):
    """Files of a folder, by their paths in it."""

    paths: tuple[str, ...]
    labels: list[str]
    names: Sequence[str] | None
    notes: tuple[str, ...]


def folder(
    root: str | os.PathLike[str],
    *,
    names: Sequence[str] | None = None,
    labels: Mapping[str, Any] | None = None,
    cluster: Literal["parent"] | None = None,
    prepare: Callable[[Any], Any] | None = None,
    mode: Mode = "RGB",
    extensions: Sequence[str] = PICTURES,
) -> Samples:
    """Take the pictures in a folder, whose folders are the classes.

    Parameters
    ----------
    root
        A folder with one folder for each class; below it, pictures at any depth. Hidden files, and
        what is no picture by its name, are skipped, and counted in the repr.
    names
        The classes in the order of the network's outputs; by default sorted. There may be classes
        without a picture here, but no folder of pictures whose name is not among them.
    labels
        Of every picture by its path in the folder, such as ``{"a.png": "cat"}``, instead of the
        folders' names.
    cluster
        ``"parent"`` where below the class folders there is one for each patient, or recording:
        pictures of one belong together, as of `table`.
    prepare
        What makes an input of a picture of PIL, instead of the rule: see `ifa.data`.
    mode
        ``"RGB"`` for 3 channels, ``"L"`` for 1.
    extensions
        What the names of pictures end in.

    Returns
    -------
    Samples
        Inputs (channel, y, x) float32 in 0 … 1; ids are paths in the folder, ``"cat/a.png"``.

    Raises
    ------
    ValueError
        If there are no class folders, a class has no picture, or, when it is read, a picture cannot
        be read.
    FileNotFoundError
        If there is no such folder.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as home:
    ...     for name in ("cat", "dog"):
    ...         (pathlib.Path(home) / name).mkdir()
    ...         Image.new("RGB", (5, 4), "red").save(f"{home}/{name}/1.png")
    ...     data = folder(home)
    ...     image, label, name = data[1]
    >>> image.shape, label, name, data.names
    (torch.Size([3, 4, 5]), 1, 'dog/1.png', ('cat', 'dog'))
    """
    where = "ifa.data.folder"
    check_mode(where, mode)
    extensions = [extensions] if isinstance(extensions, str) else extensions
    found = found_in(where, root, extensions, names, labels, "pictures")
    values, classes = labelled(where, found.labels, found.paths, names=found.names)
    return Samples(
        source=f"{where}({os.fspath(root)!r})",
        count=len(found.paths),
        read=Files(found.paths, absolute(root), Decoder(where, mode)),
        plain=partial(file_input, where, mode),
        rule=f"{mode} pictures, float32 in 0 … 1, (channel, y, x)",
        prepare=prepare,
        labels=values,
        ids=found.paths,
        names=classes,
        cluster=_owners(where, found.paths, cluster, labels is None),
        notes=found.notes,
    )


def _owners(
    where: str, paths: Sequence[str], cluster: str | None, by_class: bool
) -> np.ndarray | None:
    """Take the folder that each file lies in, which may not be its class."""
    if cluster is None:
        return None
    check_choice(where, "cluster", cluster, ("parent",))
    above = [path for path in paths if path.count("/") == 1] if by_class else []
    if above:
        raise ValueError(
            f"{where}: expected folders below those of classes for cluster='parent', got "
            f"{above[0]!r}. List the files in a table with a column for it: ifa.data.table."
        )
    return parents(where, paths)


def check_mode(where: str, mode: str) -> None:
    """Raise unless this is a mode of pictures."""
    if mode not in ("RGB", "L"):
        raise ValueError(f"{where}: expected mode to be 'RGB' or 'L', got {mode!r}.")


def found_in(
    where: str,
    root: str | os.PathLike[str],
    extensions: Sequence[str],
    names: Sequence[str] | None,
    labels: Mapping[str, Any] | None,
    what: str,
) -> Found:
    """Find the files of a folder, with their labels: the class folders' names, or those given."""
    if not os.path.isdir(root):
        raise FileNotFoundError(f"{where}: expected a folder, got {os.fspath(root)!r}.")
    names = None if names is None else checked_names(where, names)
    paths, classes, skipped, hidden = _walked(root, extensions)
    if labels is not None:
        missing = [path for path in paths if path not in labels]
        if missing or not paths:
            came = f"none for {missing[0]!r}" if paths else f"no {what}"
            raise ValueError(f"{where}: expected a label for each of the {what}, got {came}.")
        check_ids(where, paths, "Rename them.")
        given = [labels[path] for path in paths]
        return Found(tuple(paths), given, names, _notes(skipped, hidden, 0, what))
    inside = [path for path in paths if "/" in path]
    if not inside:
        raise ValueError(
            f"{where}: expected a folder for each class in {os.fspath(root)!r}, got {len(paths)} "
            f"{what} and no such folder. For labels in a table use ifa.data.table, or give labels=."
        )
    check_ids(where, inside, "Rename them.")
    of = [path.partition("/")[0] for path in inside]
    _check_classes(where, classes, set(of), names, what)
    return Found(tuple(inside), of, names, _notes(skipped, hidden, len(paths) - len(inside), what))


def _walked(
    root: str | os.PathLike[str], extensions: Sequence[str]
) -> tuple[list[str], list[str], int, int]:
    """List files of these kinds and folders, sorted; count what was skipped, and what is hidden."""
    paths, classes, skipped, hidden = [], [], 0, 0
    for home, folders, files in os.walk(root, followlinks=True):
        hidden += sum(name.startswith(".") for name in files)
        folders[:] = sorted(name for name in folders if not _left_out(home, name))
        inner = os.path.relpath(home, root)
        classes = classes or list(folders)
        for name in files:
            if name.startswith("."):
                continue
            if is_kind(name, extensions):
                paths.append(os.path.normpath(os.path.join(inner, name)).replace(os.sep, "/"))
            else:
                skipped += 1
    return sorted(paths), classes, skipped, hidden


def _left_out(home: str, name: str) -> bool:
    """Tell whether a folder is hidden, or a link to one that it is in."""
    inside, place = (os.path.realpath(part) for part in (home, os.path.join(home, name)))
    return name.startswith(".") or os.path.join(inside, "").startswith(os.path.join(place, ""))


def _check_classes(
    where: str, classes: list[str], used: set[str], names: Sequence[str] | None, what: str
) -> None:
    """Raise where a folder is no class, or a class has nothing and so would move the indices."""
    empty = [name for name in classes if name not in used]
    if names is None and empty:
        raise ValueError(
            f"{where}: expected {what} in every class folder, got none in {empty[0]!r}. Remove it, "
            "or give the classes by names=."
        )
    unknown = sorted(used - set(names or used))
    if unknown:
        raise ValueError(
            f"{where}: expected class folders among names, {', '.join(names or ())}, got "
            f"{unknown[0]!r}. Add it to names, or move it."
        )


def _notes(skipped: int, hidden: int, beside: int, what: str) -> tuple[str, ...]:
    counts = {
        f"that are no {what}": skipped,
        "hidden": hidden,
        "beside the class folders": beside,
    }
    written = [f"{count} {kind}" for kind, count in counts.items() if count]
    return (f"skipped: {', '.join(written)}",) if written else ()
