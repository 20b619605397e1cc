"""Redundancy: channels that say the same, and channels that say nothing."""

from typing import Any

import numpy as np
import xarray as xr

from ifa.diagnose.concordance import Ranks, correlations, ranks_of, variances
from ifa.diagnose.corrections import check_alpha, corrected
from ifa.diagnose.rows import table_of
from ifa.types import Statistics

_WHERE = "ifa.diagnose.redundancy"


def redundancy(
    statistics: Statistics,
    layer: str | None = None,
    *,
    cluster: Any = None,
    threshold: float = 0.95,
    adjust: str = "holm",
    alpha: float = 0.05,
    dead: float = 1e-6,
) -> xr.Dataset:
    r"""Find channels that say the same, by correlation of their importances within targets.

    :math:`r_{kl}` is Spearman's correlation over the samples of a target, averaged over targets by
    their samples: ranks, so that neither heavy tails nor a few large samples make channels alike.
    Two channels say the same where :math:`|r_{kl}|` lies above a threshold :math:`\rho`, by

    .. math:: t = \frac{|r_{kl}| - \rho}{1 - \rho^2} \, \min\Big(
              \sqrt{\frac{f}{1 + \rho^2 / 2}}, \; \frac{1 - r_{kl}^2}{s_{kl}}\Big)

    with f degrees of freedom, and s the standard error by what each sample, or cluster, adds to r
    (its influence, with ranks estimated). f are the samples, or clusters, each once however many
    targets are explained, less what the targets' means take of them, less 2; never less than the
    variance of normal values is taken.

    Groups of channels are those of average linkage at a distance :math:`1 - |r|` of
    :math:`1 - \rho`. The effective rank is :math:`\exp(-\sum_i p_i \ln p_i)`, p the eigenvalues of
    r by their sum.

    **What it promises.** Under Holm's correction, the chance that any pair is called the same whose
    correlation lies at the threshold or below is about `alpha` at most, over all pairs, for samples
    that are independent, or clusters that are. Many copies of few samples are not more samples;
    with fewer than about 100 of them even exact copies among 64 channels are no alarm: see the
    attribute `detectable`.

    Parameters
    ----------
    statistics
        A run with ``keep_samples="full"``, from `ifa.analyze` or `ifa.open`.
    layer
        Which layer; may be left out where there is one.
    cluster : (sample,), optional
        Whose each sample is, such as the patient; what the run has kept if None.
    threshold
        The :math:`\rho` in (0, 1) from which on two channels say the same.
    adjust
        ``"holm"``, or ``"benjamini-hochberg"``, which holds the share of false alarms among all
        that are raised; over pairs.
    alpha
        Chance of any false alarm, at most.
    dead
        A channel is dead if its largest absolute importance is at most this share of the layer's.

    Returns
    -------
    xarray.Dataset
        `correlation`, `p_value`, `p_adjusted`, `alarm` (channel, channel_b), NaN for dead channels;
        `correlation_interval` (channel, channel_b, bound), 95 %, of pairs beyond the threshold, of
        others NaN;
        `cluster`, `dead`, `order` (channel): the group from 0, whether dead (group −1), and the
        channels in the order of the dendrogram, dead ones last. Attributes `effective_rank`,
        `clusters`, `samples` (or clusters, that were counted), and `detectable`: the smallest
        correlation that alone would be an alarm, above 1 if none can be.

    Raises
    ------
    ValueError
        If the run kept no importances, or an option is out of range.
    LookupError
        If there is no such layer.

    References
    ----------
    Roy & Vetterli 2007, "The effective rank: a measure of effective dimensionality". EUSIPCO

    Bonett & Wright 2000, "Sample size requirements for estimating Pearson, Kendall and Spearman
    correlations". doi:10.1007/BF02294183

    Croux & Dehon 2010, "Influence functions of the Spearman and Kendall correlation measures".
    doi:10.1007/s10260-010-0142-z
    """
    check_alpha(alpha, _WHERE)
    if not 0 < threshold < 1:
        raise ValueError(f"{_WHERE}: expected a threshold in (0, 1), got {threshold!r}.")
    table = table_of(statistics, layer, _WHERE, cluster=cluster, heed=True)
    targets = [
        ranks_of(table.importance, rows)
        for rows in (np.flatnonzero(table.target == target) for target in table.targets)
        if len(rows) >= 3
    ]
    used = np.concatenate([np.zeros(0, np.int64), *(one.rows for one in targets)])
    units = len(np.unique(table.codes[used]))
    freedom = units * (1 - len(targets) / max(len(used), 1)) - 2
    largest = np.abs(table.importance).max(axis=0)
    silent = (largest <= dead * largest.max()) | ~np.any([one.spread > 0 for one in targets], 0)
    if freedom < 2 or silent.all():
        raise ValueError(
            f"{_WHERE}: expected channels that vary within targets, got {units} samples or "
            f"clusters of {len(table.targets)} targets and {int((~silent).sum())} such channels."
        )
    r = correlations(targets, silent)
    found = _tested(targets, table.codes, r, threshold, freedom)
    p_value, p_adjusted = (_both(p) for p in (found[0], corrected(found[0], adjust, _WHERE)))
    pairs = max(int(np.isfinite(found[0]).sum()), 1)
    group, order = _clusters(r, silent, threshold)
    square = (table.feature, f"{table.feature}_b")
    one = {"units": "1"}
    return xr.Dataset(
        {
            "correlation": (square, r, {"long_name": "correlation within targets", **one}),
            "correlation_interval": (
                (*square, "bound"),
                np.stack([_both(bound) for bound in found[1:]], axis=-1),
                {"long_name": "95 % interval of the correlation", **one},
            ),
            "p_value": (square, p_value, {"long_name": "p-value", **one}),
            "p_adjusted": (square, p_adjusted, {"long_name": f"p-value after {adjust}", **one}),
            "alarm": (square, p_adjusted <= alpha, {"long_name": f"says the same at {alpha:g}"}),
            "cluster": (square[0], group, {"long_name": f"group of {square[0]}s; −1 is dead"}),
            "dead": (square[0], silent, {"long_name": "says nothing"}),
            "order": (square[0], order, {"long_name": f"{square[0]}s by the dendrogram"}),
        },
        {
            **dict.fromkeys(square, np.arange(len(r))),
            "bound": ["low", "high"],
        },
        {
            "diagnosis": "redundancy",
            "layer": table.layer,
            "threshold": threshold,
            "alpha": alpha,
            "samples": units,
            "detectable": _detectable(alpha / pairs, threshold, freedom),
            "effective_rank": _effective_rank(r[~silent][:, ~silent]),
            "clusters": int(group.max() + 1),
        },
    )


def _tested(
    targets: list[Ranks], codes: np.ndarray, r: np.ndarray, threshold: float, freedom: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return p-values of the pairs above the diagonal, and the limits of those beyond it."""
    from scipy.stats import t

    p_value = np.where(np.triu(np.isfinite(r), 1), 1.0, np.nan)
    low, high = np.full((2, *r.shape), np.nan)
    least = np.sqrt((1 + threshold**2 / 2) / freedom)  # of artanh r
    for channel in range(len(r)):
        others = channel + 1 + np.flatnonzero(np.abs(r[channel, channel + 1 :]) > threshold)
        if not len(others):
            continue
        size = np.abs(r[channel, others])
        slope = np.maximum(1 - size**2, 1e-12)
        own = np.sqrt(variances(targets, codes, r, channel, others)) / slope
        error = np.maximum(own, least)
        score = (size - threshold) / ((1 - threshold**2) * error)
        p_value[channel, others] = t.sf(score, freedom)
        centre, half = np.arctanh(np.minimum(size, 1 - 1e-12)), t.ppf(0.975, freedom) * error
        signs = np.sign(r[channel, others])
        bounds = np.sort(signs * np.tanh([centre - half, centre + half]), axis=0)
        low[channel, others], high[channel, others] = bounds
    return p_value, low, high


def _detectable(alpha: float, threshold: float, freedom: float) -> float:
    from scipy.stats import t

    least = np.sqrt((1 + threshold**2 / 2) / freedom)
    return float(threshold + t.isf(alpha, freedom) * (1 - threshold**2) * least)


def _both(upper: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(upper), upper.T, upper)


def _clusters(r: np.ndarray, silent: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    from scipy.cluster.hierarchy import fcluster, leaves_list

    alive = np.flatnonzero(~silent)
    cluster = np.full(len(silent), -1)
    if len(alive) == 1:
        cluster[alive] = 0
        return cluster, np.concatenate([alive, np.flatnonzero(silent)])
    joined = links(r[np.ix_(alive, alive)])
    labels = fcluster(joined, 1 - threshold, "distance")
    # numbered by the first channel of each, so that the numbers say nothing of the method
    first = {label: index for index, label in enumerate(dict.fromkeys(labels.tolist()))}
    cluster[alive] = [first[label] for label in labels.tolist()]
    return cluster, np.concatenate([alive[leaves_list(joined)], np.flatnonzero(silent)])


def links(r: np.ndarray) -> np.ndarray:
    """Link channels by average linkage at a distance 1 − |r|, as scipy's linkage does."""
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    apart = np.clip(1 - np.abs(r), 0, None)
    np.fill_diagonal(apart, 0)
    return linkage(squareform(apart, checks=False), "average", optimal_ordering=len(r) < 500)


def _effective_rank(r: np.ndarray) -> float:
    share = np.clip(np.linalg.eigvalsh(r), 0, None)
    share = share[share > 0] / share.sum()
    return float(np.exp(-(share * np.log(share)).sum()))
