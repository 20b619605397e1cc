"""Shift: whether two populations, such as train and validation, use a channel alike."""

from typing import Any

import numpy as np
import xarray as xr

from ifa.diagnose.corrections import check_alpha, corrected
from ifa.diagnose.rows import Table, table_of
from ifa.types import Statistics

_WHERE = "ifa.diagnose.shift"


def shift(
    statistics: Statistics,
    other: Any,
    layer: str | None = None,
    *,
    minimum: int = 8,
    adjust: str = "holm",
    alpha: float = 0.05,
) -> xr.Dataset:
    r"""Compare two populations: importance of each channel, level and score, for each target.

    Of two empirical distribution functions F and G, the statistic of Kolmogorov and Smirnov and the
    Wasserstein distance, the latter in standard deviations of the pooled samples, are

    .. math:: D = \sup_x |F(x) - G(x)|, \qquad W = \frac1\sigma \int |F(x) - G(x)| \, dx.

    Train against held-out samples shows overfitting, site against site a shift of domain. The share
    of right predictions is compared too, by Fisher's exact test; of several labels, the share of
    samples of which all that were explained are predicted rightly.

    Parameters
    ----------
    statistics, other
        Two runs of the same layer with ``keep_samples="full"``. Every sample of which a target was
        explained counts, right or wrong.
    layer
        Which layer; may be left out where there is one.
    minimum
        Targets with fewer samples in either run are not tested: NaN and no alarm.
    adjust
        ``"holm"`` or ``"benjamini-hochberg"``, over all tests: channels, level, score and
        correctness together.
    alpha
        Chance of an alarm, at most, on two samples of one population.

    Returns
    -------
    xarray.Dataset
        `ks`, `wasserstein`, `p_value`, `p_adjusted`, `alarm` (target, channel); the same of the
        map's level and of the score with the prefix ``level_`` and ``score_`` (target,);
        ``right_a``, ``right_b`` and ``right_p_value``, ``right_p_adjusted``, for classification;
        ``count_a`` and ``count_b`` (target,).

    Raises
    ------
    ValueError
        If a run kept no importances, the channels differ, or an option is unknown.
    LookupError
        If there is no such layer.

    References
    ----------
    Hodges 1958, "The significance probability of the Smirnov two-sample test".
    doi:10.1007/BF02589501
    """
    check_alpha(alpha, _WHERE)
    a, b = (table_of(run, layer, _WHERE) for run in (statistics, other))
    if a.importance.shape[1] != b.importance.shape[1]:
        raise ValueError(
            f"{_WHERE}: expected two runs of one layer, got {a.importance.shape[1]} and "
            f"{b.importance.shape[1]} channels."
        )
    targets = np.union1d(a.targets, b.targets)
    found = np.full((3, len(targets), a.importance.shape[1] + 2), np.nan)
    counts = np.array([[(run.target == target).sum() for target in targets] for run in (a, b)])
    for row, target in enumerate(targets):
        if counts[:, row].min() >= minimum:
            found[:, row] = _compare(_columns(a, target), _columns(b, target))
    right = _right(a, b)
    every = np.append(found[2].ravel(), right[2])
    adjusted = corrected(every, adjust, _WHERE)
    p_adjusted = adjusted[:-1].reshape(found[2].shape)
    variables: dict[str, Any] = {}
    for prefix, column in (("", slice(2, None)), ("level_", 0), ("score_", 1)):
        dims = ("target", "channel") if prefix == "" else ("target",)
        values = (*(part[:, column] for part in found), p_adjusted[:, column])
        values = (*values, values[-1] <= alpha)
        for (name, what, units), value in zip(_NAMES, values, strict=True):
            what = what.format(adjust=adjust, alpha=alpha)
            variables[prefix + name] = (dims, value, {"long_name": what, **units})
    for index, run in enumerate("ab"):
        variables[f"count_{run}"] = (
            "target",
            counts[index],
            {"long_name": f"samples of run {run}", "units": "1"},
        )
    if a.right is not None:
        for name, value in zip(("a", "b", "p_value"), right, strict=True):
            variables[f"right_{name}"] = ((), value, {"long_name": _RIGHT[name], "units": "1"})
        variables["right_p_adjusted"] = (
            (),
            adjusted[-1],
            {"long_name": f"p-value of correctness after {adjust}", "units": "1"},
        )
    return xr.Dataset(
        variables,
        {"target": targets, "channel": np.arange(a.importance.shape[1])},
        {"diagnosis": "shift", "layer": a.layer, "alpha": alpha},
    )


_ONE: dict[str, str] = {"units": "1"}
_NAMES: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("ks", "Kolmogorov and Smirnov's statistic", _ONE),
    ("wasserstein", "Wasserstein distance", {"units": "standard deviation"}),
    ("p_value", "p-value", _ONE),
    ("p_adjusted", "p-value after {adjust}", _ONE),
    ("alarm", "shifted at {alpha:g}", {}),
)
_RIGHT = {
    "a": "share of right predictions, run a",
    "b": "share of right predictions, run b",
    "p_value": "p-value of the difference in correctness",
}


def _columns(table: Table, target: int) -> np.ndarray:
    rows = table.target == target
    first = np.stack([table.level[rows], table.score[rows]], axis=1)
    return np.concatenate([first, table.importance[rows]], axis=1)


def _compare(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Statistic, distance and p-value of each column: (3, column)."""
    from scipy.stats import ks_2samp, wasserstein_distance

    pooled = np.concatenate([a, b]).std(axis=0)
    rows = []
    for x, y, spread in zip(a.T, b.T, pooled, strict=True):
        test: Any = ks_2samp(x, y, method="asymp")
        distance = wasserstein_distance(x, y) / spread if spread > 0 else 0.0
        rows.append((test.statistic, distance, test.pvalue))
    return np.array(rows).T


def _right(a: Table, b: Table) -> tuple[float, float, float]:
    from scipy.stats import fisher_exact

    if a.right is None or b.right is None:
        return np.nan, np.nan, np.nan
    # with several targets per sample, each sample counts once: they do not depend on each other
    shares = [
        ~np.isin(np.unique(table.sample), table.sample[~right])
        for table, right in ((a, a.right), (b, b.right))
    ]
    counts = [[int(share.sum()), int((~share).sum())] for share in shares]
    test: Any = fisher_exact(counts)
    return float(shares[0].mean()), float(shares[1].mean()), float(test.pvalue)
