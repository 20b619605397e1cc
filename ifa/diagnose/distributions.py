"""Shift: whether two populations, such as train and validation, use a channel alike."""

from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ifa.clusters import same_within
from ifa.diagnose import smirnov, strata
from ifa.diagnose.corrections import check_alpha, corrected
from ifa.diagnose.permuting import exchanged, rare
from ifa.diagnose.rows import Table, codes_between, two_tables
from ifa.intervals import share_interval
from ifa.types import Statistics

_WHERE = "ifa.diagnose.shift"
_LEVEL = 0.95  # of intervals


def shift(
    statistics: Statistics,
    other: Any,
    layer: str | None = None,
    *,
    cluster: Any = None,
    minimum: int = 8,
    adjust: str = "holm",
    alpha: float = 0.05,
    draws: int = 999,
    seed: int = 0,
) -> xr.Dataset:
    r"""Compare two populations: importance of each channel, level and score, for each target.

    Of two empirical distribution functions F and G, the statistic of Kolmogorov and Smirnov and the
    Wasserstein distance, the latter in standard deviations of the pooled samples, are

    .. math:: D = \sup_x |F(x) - G(x)|, \qquad W = \frac1\sigma \int |F(x) - G(x)| \, dx.

    Train against held-out samples shows overfitting, site against site a shift of domain. The share
    of right predictions is compared within each label, so that another mix of labels is no
    difference: Cochran, Mantel and Haenszel's test.

    **What it promises.** Under Holm's correction, with samples independent within and between the
    runs, the chance of any false alarm, over channels, level and score of all targets and
    correctness together, is at most `alpha`, at any number of samples and for any distribution:
    p-values of D are exact (with equal values cautious; from 800 samples of a target on by
    Hodges' law), that of correctness is too. With clusters, whole clusters change runs in `draws`
    permutations, and the chance is held over all tests by the step-down largest of Westfall and
    Young, for clusters that are independent; samples of a cluster that is in both runs change
    within it, as they could if only chance had put each in its run. Without clusters, what is in
    both runs, as two checkpoints on the same samples, makes alarms rarer: `agreement` is the test
    of pairs.

    Parameters
    ----------
    statistics, other
        Two runs of the same layer with ``keep_samples="full"``. Every sample of which a target was
        explained counts, right or wrong.
    layer
        Which layer; may be left out where there is one.
    cluster : pair of (sample,), optional
        Of each run, whose each sample is, such as the patient; what the runs have kept if None.
    minimum
        Targets with fewer samples, or clusters, in either run are not tested: NaN and no alarm.
    adjust
        ``"holm"``, or ``"benjamini-hochberg"``, which holds the share of false alarms among all
        that are raised; over all tests.
    alpha
        Chance of any false alarm, at most.
    draws, seed
        Of the permutations of clusters; of samples there are none.

    Returns
    -------
    xarray.Dataset
        `ks` with its 95 % `ks_interval`, `ks_detectable` (the smallest D that alone would be an
        alarm, above 1 if none can be), `wasserstein`, `p_value`, `p_adjusted`, `alarm` (target,
        channel); the same of the map's level and of the score with the prefix ``level_`` and
        ``score_`` (target,); for classification ``right_a``, ``right_b`` with 95 % intervals
        ``right_a_interval``, ``right_b_interval`` (of several labels the shares of samples of
        which all are right), ``right_p_value``, ``right_p_adjusted`` and ``right_alarm``;
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

    Agresti 2013, "Categorical data analysis", section 7.3.5 (exact test over strata)

    Westfall & Young 1993, "Resampling-based multiple testing"
    """
    check_alpha(alpha, _WHERE)
    a, b = two_tables(statistics, other, layer, _WHERE, cluster)
    if a.importance.shape[1] != b.importance.shape[1]:
        raise ValueError(
            f"{_WHERE}: expected two runs of one layer, got {a.importance.shape[1]} and "
            f"{b.importance.shape[1]} {a.feature}s."
        )
    both = _both(a, b)
    clustered = len(np.unique(both.codes)) < len(np.unique(both.sample))
    second = _drawn(both, draws, seed) if clustered or _repeated(both) else both.second[None]
    tested = _tested(both, minimum, clustered)
    found = (_clusters if clustered else _samples)(both, second, tested, adjust, alpha)
    return xr.Dataset(
        {
            **_columns(found, a.feature, adjust, alpha),
            **_counts(both),
            **(_right(a, b, found, adjust, alpha) if both.right is not None else {}),
        },
        {
            "target": both.targets,
            a.feature: np.arange(a.importance.shape[1]),
            "bound": ["low", "high"],
        },
        {"diagnosis": "shift", "layer": a.layer, "alpha": alpha},
    )


class _Both(NamedTuple):
    """The rows of two runs, the first run's first."""

    values: np.ndarray  # (row, 2 + channel): level, score, importances
    second: np.ndarray  # (row,): whether of the second run
    target: np.ndarray  # (row,)
    sample: np.ndarray  # (row,): number of the sample
    codes: np.ndarray  # (row,): of clusters, or else of samples
    right: np.ndarray | None  # (row,)
    label: np.ndarray  # (row,): what correctness is compared within
    targets: np.ndarray


class _Found(NamedTuple):
    """Of each target and column, level and score before channels; correctness is one number."""

    ks: np.ndarray
    wasserstein: np.ndarray
    margin: np.ndarray  # half the interval of D
    detectable: np.ndarray
    p_value: np.ndarray
    p_adjusted: np.ndarray
    right_p_value: float
    right_p_adjusted: float


def _both(a: Table, b: Table) -> _Both:
    right, label = None, np.zeros(len(a.target) + len(b.target), dtype=np.int64)
    if a.right is not None and b.right is not None:
        right = np.concatenate([a.right, b.right])
        label = np.concatenate([np.asarray(a.label), np.asarray(b.label)])
    return _Both(
        values=np.concatenate([np.c_[run.level, run.score, run.importance] for run in (a, b)]),
        second=np.repeat([False, True], [len(a.target), len(b.target)]),
        target=np.concatenate([a.target, b.target]),
        sample=np.concatenate([a.sample, a.samples + b.sample]),
        codes=np.concatenate(codes_between(a, b)),
        right=right,
        label=label,
        targets=np.union1d(a.targets, b.targets),
    )


def _once(both: _Both) -> np.ndarray:
    """Rows that say something of their own of correctness: of one label, one for each sample."""
    return np.unique(np.stack([both.sample, both.label], 1), axis=0, return_index=True)[1]


def _repeated(both: _Both) -> bool:
    rows = _once(both)
    return len(np.unique(both.codes[rows])) < len(rows)


def _drawn(both: _Both, draws: int, seed: int) -> np.ndarray:
    """Draw whose each row is, (draw + 1, row): samples change runs with all of their rows."""
    _, first, rows = np.unique(both.sample, return_index=True, return_inverse=True)
    alone = same_within(both.target, both.sample)
    home = np.where(alone, both.target[first], both.targets.max() + 1)
    rng = np.random.default_rng(seed)
    sources = exchanged(both.second[first], both.codes[first], home, draws, rng)
    return both.second[first][sources][:, rows]


def _tested(both: _Both, minimum: int, clustered: bool) -> np.ndarray:
    units = both.codes if clustered else np.arange(len(both.codes))
    counts = [
        [len(np.unique(units[(both.target == target) & (both.second == run)])) for run in (0, 1)]
        for target in both.targets
    ]
    return np.min(counts, axis=1) >= minimum


def _samples(
    both: _Both, second: np.ndarray, tested: np.ndarray, adjust: str, alpha: float
) -> _Found:
    """Test independent samples: exactly, and corrected for the number of tests."""
    shape = (len(both.targets), both.values.shape[1])
    ks, wasserstein, margin, detectable, p_value = np.full((5, *shape), np.nan)
    right = _right_p_value(both, second)
    number = tested.sum() * shape[1] + np.isfinite(right)
    for row in np.flatnonzero(tested):
        rows = both.target == both.targets[row]
        ks[row], wasserstein[row] = smirnov.distances(both.values[rows], both.second[rows])
        counts = int((~both.second[rows]).sum()), int(both.second[rows].sum())
        p_value[row] = smirnov.chance(ks[row], *counts)
        margin[row] = smirnov.least(1 - _LEVEL, *counts)
        detectable[row] = smirnov.least(alpha / number, *counts)
    adjusted = corrected(np.append(p_value, right), adjust, _WHERE)
    return _Found(
        ks, wasserstein, margin, detectable, p_value, adjusted[:-1].reshape(shape), right,
        float(adjusted[-1]),
    )  # fmt: skip


def _clusters(
    both: _Both, second: np.ndarray, tested: np.ndarray, adjust: str, alpha: float
) -> _Found:
    """Test by permutations of whole clusters, all quantities at once."""
    shape = (len(both.targets), both.values.shape[1])
    ks, wasserstein, margin, detectable, p_value, p_adjusted = np.full((6, *shape), np.nan)
    drawn, sizes = [np.zeros((len(second), 0))], []
    for row in np.flatnonzero(tested):
        rows = both.target == both.targets[row]
        ks[row], wasserstein[row] = smirnov.distances(both.values[rows], both.second[rows])
        found = smirnov.permuted_distances(both.values[rows], second[:, rows])
        margin[row] = np.quantile(found, _LEVEL, axis=0)
        theirs = second[:, rows].mean(axis=1)
        # comparable between draws that have other numbers of samples
        size = np.sqrt(theirs * (1 - theirs))
        drawn.append(found * size[:, None])
        sizes.append(np.full(shape[1], size[0]))
    if known := both.right is not None:
        drawn.append(_right_drawn(both, second)[:, None])
    every = rare(np.concatenate(drawn, axis=1), alpha)
    adjusted = every.p_adjusted if adjust == "holm" else corrected(every.p_value, adjust, _WHERE)
    columns = slice(None, -1 if known else None)
    p_value[tested] = every.p_value[columns].reshape(-1, shape[1])
    p_adjusted[tested] = adjusted[columns].reshape(-1, shape[1])
    critical = every.critical[columns] / np.concatenate([np.ones(0), *sizes])
    detectable[tested] = critical.reshape(-1, shape[1])
    right = (every.p_value[-1], adjusted[-1]) if known else (np.nan, np.nan)
    return _Found(ks, wasserstein, margin, detectable, p_value, p_adjusted, *map(float, right))


def _right_p_value(both: _Both, second: np.ndarray) -> float:
    if both.right is None:
        return np.nan
    if len(second) > 1:  # several labels of each sample: they go together
        found = _right_drawn(both, second)
        return float((found >= found[0] - 1e-9).mean())
    rows = _once(both)
    return strata.exact(both.right[rows], both.second[rows], both.label[rows])


def _right_drawn(both: _Both, second: np.ndarray) -> np.ndarray:
    rows = _once(both)
    right = np.asarray(both.right)[rows]
    return strata.studentized(right, second[:, rows], both.label[rows], both.codes[rows])


_ONE: dict[str, str] = {"units": "1"}
_NAMES: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("ks", "Kolmogorov and Smirnov's statistic", _ONE),
    ("ks_interval", "95 % interval of the statistic", _ONE),
    ("ks_detectable", "smallest statistic that alone is an alarm", _ONE),
    ("wasserstein", "Wasserstein distance", {"units": "standard deviation"}),
    ("p_value", "p-value", _ONE),
    ("p_adjusted", "p-value after {adjust}", _ONE),
    ("alarm", "shifted at {alpha:g}", {}),
)


def _columns(found: _Found, feature: str, adjust: str, alpha: float) -> dict[str, Any]:
    interval = np.stack([found.ks - found.margin, found.ks + found.margin], axis=-1).clip(0, 1)
    values = (
        found.ks,
        interval,
        found.detectable,
        found.wasserstein,
        found.p_value,
        found.p_adjusted,
        found.p_adjusted <= alpha,
    )
    variables: dict[str, Any] = {}
    for prefix, column in (("", slice(2, None)), ("level_", 0), ("score_", 1)):
        for (name, what, units), value in zip(_NAMES, values, strict=True):
            dims = ("target", *((feature,) if prefix == "" else ()))
            dims = (*dims, "bound") if name == "ks_interval" else dims
            what = what.format(adjust=adjust, alpha=alpha)
            variables[prefix + name] = (dims, value[:, column], {"long_name": what, **units})
    return variables


def _counts(both: _Both) -> dict[str, Any]:
    return {
        f"count_{run}": (
            "target",
            np.array([(both.target[both.second == index] == one).sum() for one in both.targets]),
            {"long_name": f"samples of run {run}", "units": "1"},
        )
        for index, run in enumerate("ab")
    }


def _right(a: Table, b: Table, found: _Found, adjust: str, alpha: float) -> dict[str, Any]:
    """Say how many samples of each run are right: of several labels those right in all."""
    variables: dict[str, Any] = {}
    for name, run in (("a", a), ("b", b)):
        sample, first = np.unique(run.sample, return_index=True)
        every = ~np.isin(sample, run.sample[~np.asarray(run.right)])
        codes = None if run.cluster is None else run.cluster[first]
        interval = np.stack(share_interval(every, codes=codes, level=_LEVEL), axis=-1)
        what = f"share of right predictions, run {name}"
        variables[f"right_{name}"] = ((), every.mean(), {"long_name": what, **_ONE})
        what = f"95 % interval of the {what}"
        variables[f"right_{name}_interval"] = ("bound", interval, {"long_name": what, **_ONE})
    within = "p-value of the difference in correctness, within labels"
    p_value, adjusted = found.right_p_value, found.right_p_adjusted
    return {
        **variables,
        "right_p_value": ((), p_value, {"long_name": within, **_ONE}),
        "right_p_adjusted": ((), adjusted, {"long_name": f"{within}, after {adjust}", **_ONE}),
        "right_alarm": ((), adjusted <= alpha, {"long_name": f"right more often, at {alpha:g}"}),
    }
