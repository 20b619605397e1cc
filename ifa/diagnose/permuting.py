"""Permutation tests over many statistics at once: which labels change places, and what is rare."""

from typing import NamedTuple

import numpy as np

from ifa.clusters import same_within


class Rare(NamedTuple):
    """How rare each statistic is among its permutations."""

    p_value: np.ndarray  # (statistic,): of each alone
    p_adjusted: np.ndarray  # (statistic,): with all of them, stepped down
    critical: np.ndarray  # (statistic,): the value that alone would be an alarm at alpha


def exchanged(
    labels: np.ndarray, codes: np.ndarray, strata: np.ndarray, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw whose label each sample takes: positions (draw + 1, sample), the first the data's own.

    Clusters whose samples have one label exchange it as wholes, within their stratum; in the others
    the samples of a stratum exchange theirs. A cluster that lies in several strata is in one with
    those that do, too. Where every sample is its own cluster these are permutations within strata.
    """
    codes = np.unique(codes, return_inverse=True)[1]
    first = np.unique(codes, return_index=True)[1]
    whole = same_within(labels, codes)
    strata = np.unique(strata, return_inverse=True)[1]
    home = np.where(same_within(strata, codes), strata[first], -1)[whole]
    places = (np.cumsum(whole) - 1)[codes]
    alone = np.flatnonzero(~whole[codes])
    own = np.unique(np.stack([codes, strata], 1)[alone], axis=0, return_inverse=True)[1].reshape(-1)
    result = np.tile(np.arange(len(codes)), (draws + 1, 1))
    if whole.any():
        result[1:] = first[whole][_within(home, draws, rng)][:, places]
    result[1:, alone] = alone[_within(own, draws, rng)]
    return result


def _within(groups: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Draw permutations (draw, place) in which every place takes one of its own group."""
    order = np.argsort(groups + rng.random((draws, len(groups))), axis=1)
    result = np.empty_like(order)
    result[:, np.argsort(groups, kind="stable")] = order
    return result


def rare(statistics: np.ndarray, alpha: float) -> Rare:
    r"""Test all statistics at once: the step-down largest of Westfall and Young.

    Each is centered and scaled by its permutations, the data's own among them, so that none rules
    the others. p-values are at least 1 / (draws + 1), however many statistics there are. The chance
    of any false alarm is held whichever of them are null, where their joint permutations are those
    of the null: strong control.

    Parameters
    ----------
    statistics : (draw + 1, statistic)
        Large where the null is wrong; the first are the data's own. A constant is never rare.
    alpha
        Of the critical values, which are the first step's.
    """
    center, spread = statistics.mean(axis=0), statistics.std(axis=0)
    scaled = np.divide(
        statistics - center, spread, out=np.zeros_like(statistics), where=spread > 1e-12
    )
    own = scaled[0] - 1e-9  # equal up to rounding is as large
    p_value = (scaled >= own).mean(axis=0)
    order = np.argsort(own, kind="stable")  # the largest of those that are no larger
    largest = np.maximum.accumulate(scaled[:, order], axis=1)
    adjusted = np.empty_like(p_value)
    steps = (largest >= own[order]).mean(axis=0)
    adjusted[order] = np.maximum.accumulate(steps[::-1])[::-1]
    limit = np.quantile(scaled.max(axis=1), 1 - alpha, method="higher")
    return Rare(p_value, adjusted, center + limit * spread)
