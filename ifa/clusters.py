"""Samples that belong together: slices of a patient, crops of an image, pieces of a recording.

A cluster is what was drawn independently. What takes samples for independent, an interval or a
p-value, draws, permutes and counts whole clusters instead.
"""

import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ifa.checks import outside, text_of
from ifa.types import DependentSamples

# Words before a number, in an id, that name what several samples are taken of.
_OWNER = re.compile(
    r"(?<![a-z])(patient|pat|participant|subject|subj|sub|person|animal|recording|session|case)s?"
    r"[-_ ]?(\d+)",
    re.IGNORECASE,
)
# Folders of these names tell parts of the data apart, not whose a sample is.
_PARTS = {"train", "training", "val", "valid", "validation", "test", "testing", "dev", "held-out"}


def names_of(
    where: str, what: str, values: Any, samples: int
) -> tuple[tuple[str, ...], np.ndarray]:
    """Take a label of each sample, such as its group: the names in order, and int64 places."""
    try:
        array = np.asarray(values)
    except ValueError:  # lists of different lengths
        array = np.empty((samples, 0))
    if array.shape != (samples,):
        raise ValueError(
            f"{where}: expected one {what} label for each of {samples} samples, "
            f"got shape {array.shape}."
        )
    missing = np.flatnonzero(_missing(array))
    if len(missing):
        raise ValueError(
            f"{where}: expected a {what} label for each sample, got {array[missing[0]]} for "
            f"sample {missing[0]}. Give those without one a name, such as 'unknown'."
        )
    if array.dtype.kind not in "biufcmM":  # numbers and dates stay in their own order
        given = list(values) if isinstance(values, list | tuple) else array.tolist()
        array = _texts(where, what, given)
    names, places = np.unique(array, return_inverse=True)
    return tuple(str(name) for name in names), places.astype(np.int64)


def _missing(array: np.ndarray) -> np.ndarray:
    """Tell where there is nothing: None, NaN, NaT, or what pandas puts there."""
    if array.dtype.kind != "O":
        return array != array  # NaN and NaT alone
    nothing = (type(None).__name__, "NAType", "NaTType")
    return np.array(
        [
            type(value).__name__ in nothing
            or (isinstance(value, float | np.floating) and bool(value != value))
            for value in array
        ],
        dtype=bool,
    )


def _texts(where: str, what: str, labels: list[Any]) -> np.ndarray:
    """Write labels as text; two that differ must not be written alike."""
    first: dict[str, tuple[int, Any]] = {}
    texts = np.empty(len(labels), dtype=object)  # text of fixed length loses zeros at its end
    for sample, label in enumerate(labels):
        texts[sample] = text = text_of(where, f"the {what} label of sample {sample}", label)
        other, like = first.setdefault(text, (sample, label))
        if not bool(label == like):
            raise ValueError(
                f"{where}: expected {what} labels that can be told apart in text, got {label!r} "
                f"for sample {sample} and {like!r} for sample {other}. Rename one, or make them "
                "alike."
            )
    return texts


def codes_of(where: str, cluster: Any, samples: int) -> np.ndarray:
    """Number the clusters of samples, int64 (sample,); of None each sample is its own."""
    if cluster is None:
        return np.arange(samples)
    return names_of(where, "cluster", cluster, samples)[1]


def table_codes(where: str, table: Any, cluster: Any, *, column: str | None = None) -> np.ndarray:
    """Number the clusters of a table's samples: those given, its own, or each sample's own.

    A warning says where ids, by labels, look as if samples belonged together and nothing says so.
    """
    if cluster is None and "cluster" in table:
        cluster = table["cluster"].values
    if cluster is None and "id" in table:
        labels = table["label"].values if "label" in table else None
        heed_dependence(where, table["id"].values.tolist(), labels, column=column)
    return codes_of(where, cluster, table.sizes["sample"])


def cluster_sizes(codes: np.ndarray) -> np.ndarray:
    """Count the samples of each cluster, in the order of codes: (cluster,), int64."""
    return np.unique(codes, return_counts=True)[1]


def cluster_sums(values: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Sum values (sample, ...) over each cluster, in the order of codes: (cluster, ...)."""
    found, places = np.unique(codes, return_inverse=True)
    sums = np.zeros((len(found), *np.shape(values)[1:]))
    np.add.at(sums, places, np.asarray(values, dtype=np.float64))
    return sums


def cluster_means(values: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Average values (sample, ...) over each cluster, in the order of codes: (cluster, ...)."""
    sizes = cluster_sizes(codes)
    return cluster_sums(values, codes) / sizes.reshape(-1, *[1] * (np.ndim(values) - 1))


def drawn(clusters: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Draw clusters anew, as many and with replacement: how often each, (draw, cluster).

    With `cluster_sums` and `cluster_sizes` a resampled mean is
    ``counts @ sums / (counts @ sizes)``.
    """
    return rng.multinomial(clusters, np.full(clusters, 1 / clusters), draws)


def same_within(labels: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Tell whether all samples of each cluster have one label, in the order of codes: bool."""
    pairs = np.stack([codes, np.unique(labels, return_inverse=True)[1]], 1)
    return cluster_sizes(np.unique(pairs, axis=0)[:, 0]) == 1


def heed_dependence(
    where: str, ids: Sequence[str], labels: Any = None, *, column: str | None = None
) -> None:
    """Warn where samples seem to belong together; for whom no cluster was given.

    Parameters
    ----------
    where
        The public function whose interval or p-value takes samples for independent.
    ids : (sample,)
        Their ids: of each sample one, not of each row of a table.
    labels : (sample,)
        Their classes, which folders may be named by; None where there are none.
    column
        The column of a table that seems to say whose a sample is.
    """
    reason = next(_reasons(ids, labels, column), None)
    if reason is None:
        return
    warnings.warn(
        f"{where}: expected samples that are independent, or cluster=, as its intervals and "
        f"p-values do not hold otherwise, but {reason}. Give cluster=, one label for each sample "
        "such as its patient, here or to ifa.analyze, which keeps it with the run; "
        "cluster=range(number of samples) if each is independent.",
        DependentSamples,
        stacklevel=outside(),
    )


def _reasons(ids: Sequence[str], labels: Any, column: str | None) -> Iterator[str]:
    """Say why samples seem to belong together, the surest reason first."""
    if column is not None:
        yield f"the data have a column {column!r} that several samples share"
    names = [str(name) for name in ids]
    count = len(names)
    if (found := len(set(names))) < count:
        yield f"its {count} samples have {found} ids"
    classes = None if labels is None else np.asarray(labels)
    if classes is not None and classes.shape[1:] in ((), (1,)):
        classes = classes.reshape(-1)  # of one output
    else:
        classes = None
    matches = [_OWNER.search(name) for name in names]
    owners = [match.group(0).lower() if match else "" for match in matches]
    if _tells(owners, classes) and all(owners):
        yield f"ids name {len(set(owners))} owners of {count} samples, such as {owners[0]!r}"
    parents = [re.split(r"[/\\]", name)[:-1] for name in names]
    depth = max(map(len, parents), default=0)
    levels = [[parent[at] if at < len(parent) else "" for parent in parents] for at in range(depth)]
    telling = [level for level in levels if _tells(level, classes)]
    folders = set(zip(*telling, strict=True))
    if telling and len(folders) < count:
        yield f"its {count} samples lie in {len(folders)} folders that are not those of classes"


def _tells(owners: list[str], classes: np.ndarray | None) -> bool:
    """Tell whether names may be of owners: several samples share one, and no class explains it."""
    found = set(owners)
    if not 1 < len(found) < len(owners) or {name.lower() for name in found} <= _PARTS:
        return False
    if classes is None:
        return True
    pairs = set(zip(classes.tolist(), owners, strict=True))
    return len(pairs) > len(set(classes.tolist()))
