"""Which methods rank before which by a metric: mean ranks, and how far apart they have to be."""

from typing import Any

import numpy as np
import xarray as xr

from ifa.checks import check_choice, check_level
from ifa.clusters import cluster_means, table_codes

_WHERE = "ifa.contest.ranks"


def ranks(table: Any, metric: str, *, level: float = 0.95, cluster: Any = None) -> xr.Dataset:
    r"""Rank methods on each sample by a metric, and tell which mean ranks differ.

    .. math:: |\bar R_i - \bar R_j| > \frac{q_{k}}{\sqrt 2} \sqrt{\frac{k (k + 1)}{6 n}}

    tells two of k methods apart (Nemenyi), where Friedman's test, in the form of Iman and
    Davenport, says that they differ at all; q is the quantile of the studentized range. Ranks say
    how often a method is ahead, and not by how much, for which see `summary`.

    Parameters
    ----------
    table
        What `ifa.contest.table` returns.
    metric
        One of the table, with a better way.
    level
        Chance at least that of methods that are all equal no two are told apart, by this metric.
    cluster : (sample,), optional
        Labels of samples that belong together: ranks are of the means of each cluster. None as in
        `summary`.

    Returns
    -------
    xarray.Dataset
        ``rank(method)``, from 1, the best, on; ``group(group, method)``: sets of methods that are
        not told apart, as large as they can be. Attributes ``p`` (Friedman's), ``critical`` (the
        difference of ranks), ``samples`` (or clusters) and ``level``. Methods are sorted by rank;
        those without a value are left out, and so are samples of which another has none.

    Raises
    ------
    ValueError
        If the metric has no better way, or fewer than two methods share two samples; if the level
        is not between 0 and 1, or there is not a cluster for each sample.
    LookupError
        If the table has no such metric.

    Notes
    -----
    Of 2, 5, 10 and 15 equal methods two are told apart in .02 to .05 of tables of 10 and of 30
    samples, and of 15 in .00 of 6 samples (500 tables each).

    References
    ----------
    Demšar 2006, "Statistical comparisons of classifiers over multiple data sets". JMLR 7:1–30
    """
    check_level(_WHERE, level)
    if metric not in table["metric"].values:
        listed = ", ".join(map(str, table["metric"].values))
        raise LookupError(f"{_WHERE}: expected a metric of the table, {listed}, got {metric!r}.")
    place = table["metric"].values.tolist().index(metric)
    way = str(table["better"].values[place])
    check_choice(_WHERE, f"better[{metric!r}]", way, ("higher", "lower"))
    codes = table_codes(_WHERE, table, cluster)
    values = table["value"].transpose("metric", "sample", "method").values[place]
    known = np.isfinite(values).any(0)
    whole = np.isfinite(values[:, known]).all(1)
    values = cluster_means(values[whole][:, known], codes[whole])
    if values.ndim < 2 or len(values) < 2 or values.shape[1] < 2:
        raise ValueError(
            f"{_WHERE}: expected at least two samples (clusters) of which two methods have a value "
            f"by {metric!r}, got {len(values)} of {values.shape[-1]}. Leave out methods without: "
            "table.sel({'method': [...]})."
        )
    mean, p, critical = _nemenyi(values if way == "lower" else -values, level)
    order = np.argsort(mean, kind="stable")
    apart = critical if p <= 1 - level else np.inf
    return xr.Dataset(
        {
            "rank": ("method", mean[order], {"long_name": "mean rank, 1 is best"}),
            "group": (("group", "method"), _groups(mean[order], apart)),
        },
        {"method": table["method"].values[known][order]},
        {"metric": metric, "p": p, "critical": critical, "level": level, "samples": len(values),
         "clusters": len(np.unique(codes)) < len(codes)},
    )  # fmt: skip


def _nemenyi(values: np.ndarray, level: float) -> tuple[np.ndarray, float, float]:
    """Return mean ranks of (sample, method), p of Friedman's test and the critical difference."""
    from scipy.stats import f, rankdata, studentized_range

    samples, methods = values.shape
    each = rankdata(values, axis=1)
    mean, middle = each.mean(0), (methods + 1) / 2
    spread = np.square(each - middle).sum()
    # where all are tied nothing differs; where ranks are always the same all does
    share = samples * np.square(mean - middle).sum() / spread if spread else 0.0
    ratio = (samples - 1) * share / (1 - share) if share < 1 else np.inf
    p = float(f.sf(ratio, methods - 1, (methods - 1) * (samples - 1)))
    quantile = float(studentized_range.ppf(level, methods, np.inf)) / 2**0.5
    return mean, p, quantile * (methods * (methods + 1) / (6 * samples)) ** 0.5


def _groups(ranks: np.ndarray, apart: float) -> np.ndarray:
    """List the largest runs of sorted ranks within a distance: (group, method)."""
    ends = np.searchsorted(ranks, ranks + apart, side="right")
    found, last = [], 0
    for start, end in enumerate(ends):
        if end > last:
            found.append((np.arange(len(ranks)) >= start) & (np.arange(len(ranks)) < end))
            last = end
    return np.array(found)
