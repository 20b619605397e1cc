"""Whether one of two runs is right more often, within each label."""

import numpy as np


def exact(right: np.ndarray, second: np.ndarray, label: np.ndarray) -> float:
    """Two-sided p-value of the number right in the second run, margins of every label fixed.

    Cochran, Mantel and Haenszel's by its exact law: a sum of hypergeometric counts.
    """
    from scipy.stats import hypergeom

    law, least, count = np.ones(1), 0, int((right & second).sum())
    for one in np.unique(label):
        ours, theirs = right[label == one], second[label == one]
        total, good, drawn = len(ours), int(ours.sum()), int(theirs.sum())
        low = max(0, good + drawn - total)
        support = np.arange(low, min(good, drawn) + 1)
        law, least = np.convolve(law, hypergeom.pmf(support, total, good, drawn)), least + low
    return float(min(law[law <= law[count - least] * (1 + 1e-7)].sum(), 1.0))


def studentized(
    right: np.ndarray, second: np.ndarray, label: np.ndarray, codes: np.ndarray
) -> np.ndarray:
    r"""Absolute difference of correctness within labels, by its standard error: (draw,).

    With :math:`e_i` right less its label's share, and :math:`r_i` of the second run less its
    label's share, :math:`T = |\sum_i r_i e_i| / \sqrt{\sum_g (\sum_{i \in g} r_i e_i)^2}` over
    clusters g, which moves little with the mix of labels.

    Parameters
    ----------
    second : (draw, row)
        Whose each row is.
    """
    order = np.argsort(label, kind="stable")
    starts, counts = np.unique(label[order], return_index=True, return_counts=True)[1:]
    right, second, codes = right[order].astype(float), second[:, order], codes[order]
    shares = np.add.reduceat(right, starts) / counts
    e = right - np.repeat(shares, counts)
    r = second - np.repeat(np.add.reduceat(second, starts, axis=1) / counts, counts, axis=1)
    by_code = np.argsort(codes, kind="stable")
    groups = np.unique(codes[by_code], return_index=True)[1]
    sums = np.add.reduceat((r * e)[:, by_code], groups, axis=1)
    spread = np.sqrt(np.square(sums).sum(axis=1))
    total = np.abs(sums.sum(axis=1))
    return np.divide(total, spread, out=np.zeros_like(total), where=spread > 1e-9)
