"""Which samples a page shows: strange ones, wrong ones, the surest and least sure, and others."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ifa.reports.sources import Rows

_STRANGE, _WRONG, _RANKS = 12, 60, 3


def order_of(rows: Rows, strange: Iterable[Any], tops: Iterable[np.ndarray]) -> np.ndarray:
    """Order all samples of a run by how much one wants to see them, the first ones first.

    Parameters
    ----------
    rows
        The sample table.
    strange
        What `ifa.diagnose.outliers` found, of each layer, or None.
    tops : (feature, rank)
        Of each layer, the samples that speak most for each feature.
    """
    count = len(rows.id)
    listed = [
        np.fromiter(_strange(strange), np.int64),
        np.fromiter(_by_class(rows), np.int64),
        np.zeros(0, np.int64) if rows.right is None else np.flatnonzero(~rows.right)[:_WRONG],
        *(one[:, rank] for one in tops for rank in range(min(_RANKS, one.shape[1]))),
        _spread(count),
    ]
    every = np.concatenate(listed)
    return every[np.sort(np.unique(every, return_index=True)[1])]


def _strange(found: Iterable[Any]) -> Iterator[int]:
    for one in found:
        if one is not None:
            yield from one["position"].values[:_STRANGE].tolist()


def _by_class(rows: Rows) -> Iterator[int]:
    """Give of each target the sample of the largest, a median and the smallest score."""
    score = np.nan_to_num(rows.score)
    for target in np.unique(rows.target)[:200]:
        own = np.flatnonzero(rows.target == target)
        ranked = own[np.argsort(-score[own], kind="stable")]
        yield from (int(ranked[0]), int(ranked[len(ranked) // 2]), int(ranked[-1]))


def _spread(count: int) -> np.ndarray:
    """Order 0 … count - 1 so that any beginning of it is spread evenly."""
    golden = (np.arange(count) * 0.6180339887498949) % 1.0
    return np.argsort(golden, kind="stable")
