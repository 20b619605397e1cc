"""Which methods may be the best: pairs compared all at once, by samples that change their signs."""

from math import ceil, log2
from typing import NamedTuple

import numpy as np

from ifa.clusters import cluster_sums

_DRAWS = 2000
_AT_ONCE = 100  # draws: bounds the memory and changes no result


class Compared(NamedTuple):
    """What is known of each method against the others."""

    p: np.ndarray  # (method,): that none is better; 1 of those that are left, NaN without a value
    best: int | None  # the largest mean of those that are left; None where no method has a value
    shared: np.ndarray  # (method,): clusters of which both it and the best have a value
    detectable: np.ndarray  # (method,): differences to the best from this on are told apart


class Pairs(NamedTuple):
    """Differences of each two methods, i − j, over the samples of which both have a value.

    The pull of a difference is the sum over clusters over the root of the sum of squares. Unlike
    Student's t, which grows with it, it has a limit: a pair with few samples cannot hide others.
    """

    i: np.ndarray  # (pair,), the first method
    j: np.ndarray
    mean: np.ndarray  # NaN where nothing is shared
    error: np.ndarray  # standard error; NaN below two clusters
    clusters: np.ndarray  # how many are shared
    pull: np.ndarray
    drawn: np.ndarray  # (draw, pair): the pull when clusters change their signs at random


def fewest(level: float) -> int:
    """Return from how many clusters on a difference can be told at a level: 6 of .95."""
    return ceil(1 - log2(1 - level) - 1e-9)


def pairs_of(values: np.ndarray, codes: np.ndarray, seed: int = 0) -> Pairs:
    """Compare methods, (method, sample) with NaN for what is missing, in pairs."""
    i, j = np.triu_indices(len(values), 1)
    apart = (values[i] - values[j]).T
    known = np.isfinite(apart)
    apart = np.where(known, apart, 0)
    sums, count = cluster_sums(apart, codes), known.sum(0)
    sizes = cluster_sums(known, codes)
    clusters = (sizes > 0).sum(0)
    root = np.sqrt(np.square(sums).sum(0))
    root[root == 0] = 1
    random, drawn = np.random.default_rng(seed), []
    for _ in range(0, _DRAWS, _AT_ONCE):
        signs = random.choice(np.array([-1.0, 1.0]), (_AT_ONCE, len(sums)))
        drawn.append(signs @ sums / root)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = apart.sum(0) / count
        rest = np.square(sums - np.nan_to_num(mean) * sizes).sum(0)
        error = np.sqrt(clusters / (clusters - 1) * rest) / count
    error = np.where(clusters > 1, error, np.nan)
    return Pairs(i, j, mean, error, clusters, sums.sum(0) / root, np.concatenate(drawn))


def compared(pairs: Pairs, mean: np.ndarray, *, level: float, same: float = 0.0) -> Compared:
    """Leave out the worst method until no two of the others are told apart.

    Parameters
    ----------
    pairs
        Of values of which large ones are good.
    mean : (method,)
        Of each method's own values.
    level
        Chance that the best are all left, at least.
    same
        Share of the larger mean up to which a difference may be rounding.
    """
    known = np.isfinite(mean)
    left, p, critical = known.copy(), np.where(known, 1.0, np.nan), np.full(len(mean), np.inf)
    size, i, j = np.abs(pairs.drawn), pairs.i, pairs.j
    sure = np.abs(pairs.mean) > same * np.fmax(np.abs(mean[i]), np.abs(mean[j]))
    last = 0.0
    while left.sum() > 1:
        inside = left[i] & left[j]
        largest = size[:, inside].max(1)
        if last <= 1 - level:
            critical[left] = _critical(largest, level)
        pulls = np.where(inside & sure, np.abs(pairs.pull), 0)
        worst = int(pulls.argmax())
        if pulls[worst] == 0:
            break
        # a draw may be what was seen but for rounding
        last = max(last, _p(largest, pulls[worst]))
        loser = (i if pairs.pull[worst] < 0 else j)[worst]
        p[loser], left[loser] = last, False
    told = p <= 1 - level
    if not known.any():
        return Compared(p, None, np.zeros(len(mean), int), critical)
    best = int(np.argmax(np.where(known & ~told, mean, -np.inf)))
    return Compared(p, best, *_against(pairs, best, critical))


def beating(pairs: Pairs, control: int, methods: int) -> np.ndarray:
    """Return p of each method being no better than a control; NaN where they share no samples.

    All methods at once, the one that is ahead by the most first, then the others without it.
    """
    p = np.full(methods, np.nan)
    own = ((pairs.i == control) | (pairs.j == control)) & (pairs.clusters > 0)
    first = pairs.j[own] == control
    way, others = np.where(first, 1, -1), np.where(first, pairs.i[own], pairs.j[own])
    pull, drawn = way * pairs.pull[own], way * pairs.drawn[:, own]
    order, last = np.argsort(-pull, kind="stable"), 0.0
    for place, one in enumerate(order):
        last = max(last, _p(drawn[:, order[place:]].max(1), float(pull[one])))
        p[others[one]] = last
    return p


def _p(drawn: np.ndarray, seen: float) -> float:
    return (1 + int((drawn >= seen - 1e-9).sum())) / (len(drawn) + 1)


def _critical(drawn: np.ndarray, level: float) -> float:
    """Return what has to be exceeded for p of at most 1 − level."""
    fewer = int((1 - level) * (len(drawn) + 1) + 1e-9)  # draws, with what was seen
    return float(np.sort(drawn)[-fewer]) if fewer > 0 else float("inf")


def _against(pairs: Pairs, best: int, critical: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how many clusters are shared with the best, and what difference would be told."""
    shared, error = np.zeros(len(critical), int), np.full(len(critical), np.nan)
    for one, other in ((pairs.i, pairs.j), (pairs.j, pairs.i)):
        own = one == best
        shared[other[own]], error[other[own]] = pairs.clusters[own], pairs.error[own]
    with np.errstate(invalid="ignore", divide="ignore"):
        # Student's t of a pull
        t = critical * np.sqrt((shared - 1) / (shared - np.square(critical)))
    return shared, np.where(np.square(critical) < shared, t * error, np.inf)
