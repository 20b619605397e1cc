"""Redundancy: channels that say the same, and channels that say nothing."""

import numpy as np
import xarray as xr

from ifa.diagnose.corrections import check_alpha, corrected
from ifa.diagnose.rows import Table, table_of
from ifa.types import Statistics

_WHERE = "ifa.diagnose.redundancy"


def redundancy(
    statistics: Statistics,
    layer: str | None = None,
    *,
    threshold: float = 0.95,
    adjust: str = "holm",
    alpha: float = 0.05,
    dead: float = 1e-6,
) -> xr.Dataset:
    r"""Find channels that say the same, by correlation of their importances within targets.

    With :math:`r_{kl}` the correlation over the samples within targets, each target's importances
    centered and scaled first, two channels say the same where :math:`|r_{kl}|` lies above a
    threshold :math:`\rho`, tested by Fisher's transform with n samples of m targets,

    .. math:: z = (\operatorname{artanh} |r_{kl}| - \operatorname{artanh} \rho) \sqrt{n - m - 2}.

    Clusters are those of average linkage at a distance :math:`1 - |r|` of :math:`1 - \rho`.
    The effective rank is :math:`\exp(-\sum_i p_i \ln p_i)`, p the eigenvalues of r by their sum.

    Parameters
    ----------
    statistics
        A run with ``keep_samples="full"``, from `ifa.analyze` or `ifa.open`.
    layer
        Which layer; may be left out where there is one.
    threshold
        The :math:`\rho` in (0, 1) from which on two channels say the same.
    adjust
        ``"holm"`` or ``"benjamini-hochberg"``, over pairs.
    alpha
        Chance of an alarm where no pair is correlated beyond the threshold.
    dead
        A channel is dead if its largest absolute importance is at most this share of the layer's.

    Returns
    -------
    xarray.Dataset
        `correlation`, `p_value`, `p_adjusted`, `alarm` (channel, channel_b), NaN for dead channels;
        `cluster`, `dead`, `order` (channel): the cluster from 0, whether dead (cluster −1), and the
        channels in the order of the dendrogram, dead ones last. Attributes `effective_rank` and
        `clusters`.

    Raises
    ------
    ValueError
        If the run kept no importances, or an option is out of range.
    LookupError
        If there is no such layer.

    References
    ----------
    Roy & Vetterli 2007, "The effective rank: a measure of effective dimensionality". EUSIPCO
    """
    from scipy.stats import norm

    check_alpha(alpha, _WHERE)
    if not 0 < threshold < 1:
        raise ValueError(f"{_WHERE}: expected a threshold in (0, 1), got {threshold!r}.")
    table = table_of(statistics, layer, _WHERE)
    largest = np.abs(table.importance).max(axis=0)
    values, freedom = _within(table)
    silent = (largest <= dead * largest.max()) | (values.std(axis=0) == 0)
    if freedom < 2 or silent.all():
        raise ValueError(
            f"{_WHERE}: expected channels that vary within targets, got {len(values)} samples of "
            f"{len(table.targets)} targets and {int((~silent).sum())} such channels."
        )
    r = _correlation(values, silent)
    # so that a perfect copy has a large z, not an infinite one
    certain = np.clip(np.abs(r), 0, 1 - 1e-12)
    z = (np.arctanh(certain) - np.arctanh(threshold)) * np.sqrt(freedom)
    pairs = np.triu(np.ones_like(r, dtype=bool), 1)
    p_value = np.where(pairs, norm.sf(z), np.nan)
    p_value, p_adjusted = (_both(p) for p in (p_value, corrected(p_value, adjust, _WHERE)))
    cluster, order = _clusters(r, silent, threshold)
    square = ("channel", "channel_b")
    return xr.Dataset(
        {
            "correlation": (square, r, {"long_name": "correlation within targets", "units": "1"}),
            "p_value": (square, p_value, {"long_name": "p-value", "units": "1"}),
            "p_adjusted": (
                square,
                p_adjusted,
                {"long_name": f"p-value after {adjust}", "units": "1"},
            ),
            "alarm": (square, p_adjusted <= alpha, {"long_name": f"says the same at {alpha:g}"}),
            "cluster": ("channel", cluster, {"long_name": "group of channels; −1 is dead"}),
            "dead": ("channel", silent, {"long_name": "says nothing"}),
            "order": ("channel", order, {"long_name": "channels by the dendrogram"}),
        },
        {"channel": np.arange(len(r)), "channel_b": np.arange(len(r))},
        {
            "diagnosis": "redundancy",
            "layer": table.layer,
            "threshold": threshold,
            "alpha": alpha,
            "effective_rank": _effective_rank(r[~silent][:, ~silent]),
            "clusters": int(cluster.max() + 1),
        },
    )


def _within(table: Table) -> tuple[np.ndarray, int]:
    """Importances centered and scaled within targets, and the degrees of freedom of Fisher's z."""
    parts, targets = [], 0
    for target in table.targets:
        rows = table.importance[table.target == target]
        if len(rows) < 3:
            continue
        centered = rows - rows.mean(axis=0)
        spread = centered.std(axis=0)
        parts.append(centered / np.where(spread > 0, spread, 1.0))
        targets += 1
    values = np.concatenate(parts) if parts else np.zeros((0, table.importance.shape[1]))
    return values, len(values) - targets - 2


def _correlation(values: np.ndarray, silent: np.ndarray) -> np.ndarray:
    r = np.full((len(silent), len(silent)), np.nan)
    alive = ~silent
    r[np.ix_(alive, alive)] = np.corrcoef(values[:, alive], rowvar=False).reshape(alive.sum(), -1)
    return r


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
