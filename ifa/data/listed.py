"""Tables of files: CSV, TSV or pandas."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from ifa.data.decoding import file_input
from ifa.data.folders import check_mode
from ifa.data.labels import Task, check_ids, grouped, labelled, parents, shared
from ifa.data.reading import KINDS, Decoder, Files, Mode, absolute, is_kind, needed
from ifa.data.samples import Samples


class Rows(NamedTuple):
    """What a table says of each sample."""

    paths: tuple[str, ...]
    root: str
    ids: tuple[str, ...]
    fields: dict[str, Any]  # labels, names, groups, ids of `Samples`


def table(
    source: Any,
    *,
    root: str | os.PathLike[str] | None = None,
    path: str = "path",
    label: str | Sequence[str] | None = "label",
    id: str | None = None,
    groups: str | None = None,
    cluster: str | None = None,
    names: Sequence[str] | None = None,
    task: Task | None = None,
    prepare: Callable[[Any], Any] | None = None,
    mode: Mode = "RGB",
) -> Samples:
    """Take files that a table lists, with their labels.

    Parameters
    ----------
    source
        A CSV file, a TSV file, or a pandas data frame.
    root
        Where relative paths start; by default the table's own folder, of a data frame the working
        directory.
    path
        The column of paths: pictures, arrays (``.npy``, (channel, …)), or NIfTI.
    label
        The column of labels; several for several real values each; None where there are none.
    id
        The column of ids; by default the paths.
    groups
        The column of groups, such as sites.
    cluster
        The column that says whose a sample is, such as a patient: `ifa.analyze` keeps it with a
        run, and intervals and tests take what belongs together as one. ``"parent"``, where there is
        no such column, is the folder that a path lies in.
    names
        The classes in the order of the network's outputs; by default sorted, where they are text.
    task
        What numbers are: ``"classification"`` or ``"regression"``; by default whole numbers are
        classes, and real ones values.
    prepare
        What makes an input of what was read, instead of the rule: see `ifa.data`.
    mode
        Of pictures: ``"RGB"`` for 3 channels, ``"L"`` for 1.

    Returns
    -------
    Samples
        In the order of the rows.

    Raises
    ------
    LookupError
        If there is no such column.
    ValueError
        If labels are missing, ids are there twice, or a kind of file is not known.
    FileNotFoundError
        If files are missing.

    Examples
    --------
    >>> import pandas, tempfile, numpy as np
    >>> with tempfile.TemporaryDirectory() as home:
    ...     np.save(f"{home}/a.npy", np.zeros((1, 4, 5)))
    ...     frame = pandas.DataFrame({"path": ["a.npy"], "age": [31.5]})
    ...     data = table(frame, root=home, label="age")
    ...     image, age, name = data[0]
    >>> image.shape, age, name
    (torch.Size([1, 4, 5]), 31.5, 'a.npy')
    """
    where = "ifa.data.table"
    check_mode(where, mode)
    rows = rows_of(where, source, KINDS, root, path, label, id, groups, cluster, names, task)
    return Samples(
        source=written(where, source),
        count=len(rows.paths),
        read=Files(rows.paths, rows.root, Decoder(where, mode)),
        plain=partial(file_input, where, mode),
        rule=f"files, float32 (channel, *space); pictures {mode}, in 0 … 1",
        prepare=prepare,
        **rows.fields,
    )


def written(where: str, source: Any) -> str:
    """Write what data are made of."""
    return f"{where}({os.fspath(source)!r})" if is_path(source) else where


def is_path(source: Any) -> bool:
    """Tell whether this is a path."""
    return isinstance(source, str | os.PathLike)


def rows_of(
    where: str,
    source: Any,
    kinds: Sequence[str],
    root: str | os.PathLike[str] | None,
    path: str,
    label: str | Sequence[str] | None,
    id: str | None,
    groups: str | None,
    cluster: str | None,
    names: Sequence[str] | None,
    task: Task | None,
) -> Rows:
    """Read a table and check all of it but the contents of files."""
    texts = [column for column in (path, id) if column is not None]
    frame = _frame(where, source, texts)
    several = [] if label is None else [label] if isinstance(label, str) else list(label)
    beside = cluster == "parent" and "parent" not in frame.columns
    others = [one for one in (groups, None if beside else cluster) if one is not None]
    _check_columns(where, frame, [*texts, *several, *others])
    if frame[texts].isna().to_numpy().any() or not len(frame):
        raise ValueError(
            f"{where}: expected a path and an id in every row, got "
            f"{'rows without one' if len(frame) else 'no row'}. Leave empty rows out."
        )
    paths = tuple(os.fspath(one) for one in frame[path])
    ids = paths if id is None else tuple(map(str, frame[id]))
    check_ids(where, ids, "Name a column of ids: id=." if id is None else "Mend the ids.")
    if root is None:
        root = os.path.dirname(source) if is_path(source) else ""
    _check_files(where, paths, absolute(root), kinds)
    column = None if label is None else frame[label if isinstance(label, str) else several]
    values, classes = labelled(
        where, None if column is None else column.to_numpy(), ids, names=names, task=task
    )
    of = grouped(where, None if groups is None else frame[groups].to_numpy(), len(ids))
    whose = None if cluster is None or beside else frame[cluster].to_numpy()
    whose = parents(where, paths) if beside else grouped(where, whose, len(ids), "cluster")
    named = {} if cluster is not None else {str(one): frame[one].tolist for one in frame.columns}
    fields = {"labels": values, "ids": ids, "names": classes, "groups": of, "cluster": whose}
    fields["shared"] = shared(named)
    return Rows(paths, absolute(root), ids, fields)


def _frame(where: str, source: Any, texts: Sequence[str]) -> Any:
    """Take a data frame, or read one; paths and ids stay text, such as 007."""
    if not is_path(source):
        if not hasattr(source, "columns") or not hasattr(source, "to_numpy"):
            raise TypeError(
                f"{where}: expected a CSV or TSV file or a pandas data frame, got "
                f"{type(source).__name__}. For arrays use ifa.data.arrays."
            )
        return source
    if not os.path.isfile(source):
        raise FileNotFoundError(f"{where}: expected a CSV or TSV file, got {os.fspath(source)!r}.")
    pandas = needed(where, "pandas", os.fspath(source))
    tabs = is_kind(source, (".tsv", ".tab"))
    try:
        return pandas.read_csv(source, sep="\t" if tabs else ",", dtype=dict.fromkeys(texts, str))
    except ValueError as error:  # pandas' own, and what is no text
        raise ValueError(
            f"{where}: expected a CSV or TSV file, got {os.fspath(source)!r}: {error}. For other "
            "files give a data frame."
        ) from error


def _check_columns(where: str, frame: Any, columns: Sequence[str]) -> None:
    for column in columns:
        if column not in frame.columns:
            listed = ", ".join(map(repr, frame.columns))
            raise LookupError(
                f"{where}: expected a column {column!r}, got {listed}. Name the columns by path=, "
                "label=, id=, groups= and cluster=."
            )


def _check_files(where: str, paths: Sequence[str], root: str, kinds: Sequence[str]) -> None:
    for path in paths:
        if not is_kind(path, kinds):
            raise ValueError(f"{where}: expected files {', '.join(kinds)}, got {path!r}.")
    missing = [path for path in paths if not os.path.isfile(os.path.join(root, path))]
    if missing:
        raise FileNotFoundError(
            f"{where}: expected all files below {root}, got {len(missing)} of {len(paths)} that "
            f"are not there, such as {missing[0]!r}. Say where paths start by root=."
        )
