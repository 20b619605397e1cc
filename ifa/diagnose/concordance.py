"""Spearman's correlation of many channels within targets, and how sure it is."""

from typing import NamedTuple

import numpy as np


class Ranks(NamedTuple):
    """Of one target: what is left of its importances when only their order counts."""

    rows: np.ndarray  # (row,): places in the table
    place: np.ndarray  # (row, channel): the rank between −1/2 and 1/2
    spread: np.ndarray  # (channel,): its standard deviation; 0 of a constant
    order: np.ndarray  # (row, channel): rows by importance
    start: np.ndarray  # (row, channel): how many rows have less
    end: np.ndarray  # (row, channel): how many have no more


def ranks_of(importance: np.ndarray, rows: np.ndarray) -> Ranks:
    """Rank the rows of a target, equal importances by the middle of their ranks."""
    from scipy.stats import rankdata

    values, count = importance[rows], len(rows)
    start = rankdata(values, axis=0, method="min").astype(np.int64) - 1
    end = rankdata(values, axis=0, method="max").astype(np.int64)
    place = (start + end) / (2 * count) - 0.5
    order = np.argsort(values, axis=0, kind="stable")
    return Ranks(rows, place, place.std(axis=0), order, start, end)


def correlations(targets: list[Ranks], silent: np.ndarray) -> np.ndarray:
    """Return the mean correlation within targets, by their rows; NaN of silent channels."""
    parts = [one.place / np.where(one.spread > 0, one.spread, 1.0) for one in targets]
    r = np.full((len(silent), len(silent)), np.nan)
    alive = ~silent
    values = np.concatenate(parts)[:, alive]
    r[np.ix_(alive, alive)] = np.corrcoef(values, rowvar=False).reshape(alive.sum(), -1)
    return r.clip(-1, 1)


def variances(
    targets: list[Ranks], codes: np.ndarray, r: np.ndarray, channel: int, others: np.ndarray
) -> np.ndarray:
    """Return the variance of r of a channel with others, (other,), by what each cluster adds to it.

    What a row adds is its influence on Spearman's coefficient, also by moving the ranks of others;
    with equal values, by moving their spread.
    """
    rows = sum(len(one.rows) for one in targets)
    places = np.unique(codes, return_inverse=True)[1]
    sums = np.zeros((places.max() + 1, len(others)))
    for one in targets:
        np.add.at(sums, places[one.rows], _influence(one, r[channel, others], channel, others))
    clusters = (np.bincount(places, minlength=len(sums)) > 0).sum()
    return np.square(sums).sum(axis=0) * clusters / max(clusters - 1, 1) / rows**2


def _influence(one: Ranks, r: np.ndarray, channel: int, others: np.ndarray) -> np.ndarray:
    """Return what each row adds to r, (row, other), 0 on average."""
    both = np.append(others, channel)
    spread = np.where(one.spread > 0, one.spread, np.inf)
    mine = one.place[:, [channel]]
    column = np.full(len(others), channel)
    product = (
        mine * one.place[:, others]
        + _above(one, one.place[:, others], column)
        + _above(one, np.repeat(mine, len(others), axis=1), others)
    ) / (spread[channel] * spread[others])
    square = (one.place[:, both] ** 2 + 2 * _above(one, one.place[:, both], both)) / spread[
        both
    ] ** 2
    found = product - r / 2 * (square[:, :-1] + square[:, -1:])
    return found - found.mean(axis=0)


def _above(one: Ranks, values: np.ndarray, channels: np.ndarray) -> np.ndarray:
    """Average values over the rows above each row in the order of a channel, equal ones by half."""
    ordered = np.take_along_axis(values, one.order[:, channels], axis=0)
    sums = np.concatenate([np.zeros((1, len(channels))), np.cumsum(ordered, axis=0)])
    ends = (np.take_along_axis(sums, at[:, channels], axis=0) for at in (one.start, one.end))
    return (sums[-1] - sum(ends) / 2) / len(values)
