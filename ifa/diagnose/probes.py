"""Confounders: channels that a target uses and that know what the network should not."""

from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from ifa.clusters import same_within
from ifa.diagnose.corrections import check_alpha
from ifa.diagnose.permuting import exchanged, rare
from ifa.diagnose.rows import Table, table_of
from ifa.types import Statistics

_WHERE = "ifa.diagnose.confounders"


def confounders(
    statistics: Statistics,
    nuisance: Any,
    layer: str | None = None,
    *,
    cluster: Any = None,
    important: float = 0.5,
    bins: int = 4,
    folds: int = 5,
    draws: int = 499,
    minimum: int = 5,
    alpha: float = 0.05,
    seed: int = 0,
) -> xr.Dataset:
    r"""Find channels important for a target that also predict a nuisance, such as site or scanner.

    Within each target, so that the target itself explains nothing:

    .. math:: MI_{tk} = \sum_{a, b} p(a, b) \ln \frac{p(a, b)}{p(a) \, p(b)}

    of a channel's importance, in bins of equal frequency, and the nuisance; and a probe: a
    cross-validated ridge regression of the nuisance on all channels, scored by the AUROC of the
    held-out folds (several values: its mean, one against the rest; real values: Pearson's r). Both
    are compared with the same after permuting the nuisance within targets: of single samples, or
    of clusters as wholes where the nuisance is one for all of a cluster, and else within the
    cluster. Clusters of several targets, and samples of which several targets were explained,
    change places with each other.

    **What it promises.** Where the nuisance has no influence within targets, on samples that are
    independent or clusters that are, the chance of any alarm over all channels of all targets is at
    most `alpha`, and so is that of the probes of all targets: the step-down largest of Westfall
    and Young, each quantity centered and scaled by its permutations. Also where the nuisance does
    influence some of them it is that of a false alarm of another target; of another channel of the
    same target as far as the two do not depend on each other.

    Parameters
    ----------
    statistics
        A run with ``keep_samples="full"``, from `ifa.analyze` or `ifa.open`.
    nuisance : (sample,)
        Of each sample of the run: labels of any kind, or real values (a float array).
    layer
        Which layer; may be left out where there is one.
    cluster : (sample,), optional
        Whose each sample is, such as the patient; what the run has kept if None. Folds of the
        probe are of whole clusters.
    important
        Share of the channels, by absolute mean importance for the target, that count as important.
    bins
        Of importance, and of a nuisance with real values.
    folds
        Of the probe's cross-validation.
    draws
        Of permutations. P-values, adjusted ones too, are at least 1 / (draws + 1), however many
        targets and channels there are.
    minimum
        A target is tested if at least two values of the nuisance have so many samples, or clusters,
        there.
    alpha
        Chance of any false alarm, at most; the probes' and the channels' each.
    seed
        Of draws and folds.

    Returns
    -------
    xarray.Dataset
        `information` (nats), `information_detectable` (the smallest that alone would be an alarm),
        `importance`, `important`, `p_value` (of each alone), `p_adjusted`, `alarm` (target,
        channel): an alarm is a channel that is important and informed. By target `probe`,
        `probe_detectable`, `probe_p_value`, `probe_p_adjusted`, `probe_alarm`. NaN where a target
        could not be tested: where the nuisance hardly varies within it, nothing tells the two
        apart.

    Raises
    ------
    ValueError
        If the run kept no importances, the nuisance has another length or is not finite, no target
        can be tested, there are too few draws for any alarm, or an option is out of range.
    LookupError
        If there is no such layer.

    References
    ----------
    Westfall & Young 1993, "Resampling-based multiple testing". Ojala & Garriga 2010, "Permutation
    tests for studying classifier performance". JMLR 11:1833–1863
    """
    from ifa.select import largest_absolute

    _check(alpha, draws)
    table = table_of(statistics, layer, _WHERE, cluster=cluster, heed=True)
    codes, values = _coded(nuisance, table.samples, bins)
    targets, channels = table.targets, table.importance.shape[1]
    importance = np.stack([table.importance[table.target == one].mean(axis=0) for one in targets])
    chosen = np.stack([largest_absolute(row, ratio=important).numpy() for row in importance])
    tested = [row for row, one in enumerate(targets) if _varies(table, codes, one, minimum)]
    if not tested:
        raise ValueError(
            f"{_WHERE}: expected a target within which at least two values of the nuisance have "
            f"{minimum} samples or clusters, got none. Within a target where it does not vary, the "
            "nuisance and the target cannot be told apart."
        )
    rng = np.random.default_rng(seed)
    sources = _sources(table, np.asarray(nuisance), draws, rng)
    found, scores = [], []
    for row in tested:
        rows = np.flatnonzero(table.target == targets[row])
        drawn, used = sources[:, table.sample[rows]], table.importance[rows]
        found.append(_information(_binned(used, bins), codes[drawn]))
        scores.append(_probe(used, values, drawn, folds, table.codes[rows], rng))
    place = partial(_at, tested, len(targets))
    known, probe = (place([part[0] for part in parts]) for parts in (found, scores))
    by_channel = rare(np.concatenate(found, axis=1), alpha)
    of_channels = [place(part.reshape(-1, channels)) for part in by_channel]
    of_probes = [place(part) for part in rare(np.stack(scores, 1), alpha)]
    what = "r of the probe" if codes is not values and values.ndim == 1 else "AUROC of the probe"
    columns = {
        "importance": (importance, "mean importance", table.unit),
        "important": (chosen, f"among the first {important:.0%}", ""),
        **_columns("", known, of_channels, "mutual information with the nuisance", "nat"),
        "alarm": (
            (of_channels[1] <= alpha) & chosen,
            f"important, and informed at {alpha:g}",
            "",
        ),
        **_columns("probe", probe, of_probes, what, "1"),
        "probe_alarm": (of_probes[1] <= alpha, f"predicts the nuisance at {alpha:g}", ""),
    }
    return xr.Dataset(
        {
            name: (
                ("target", table.feature)[: values.ndim],
                values,
                {"long_name": said} | ({"units": unit} if unit else {}),
            )
            for name, (values, said, unit) in columns.items()
        },
        {"target": targets, table.feature: np.arange(channels)},
        {"diagnosis": "confounders", "layer": table.layer, "alpha": alpha, "draws": draws},
    )


def _check(alpha: float, draws: int) -> None:
    check_alpha(alpha, _WHERE)
    if (draws + 1) * alpha < 1:
        raise ValueError(
            f"{_WHERE}: expected draws of at least {int(np.ceil(1 / alpha)) - 1} for alarms at "
            f"{alpha:g}, got {draws}: p-values are at least 1 / (draws + 1)."
        )


def _columns(
    prefix: str, found: np.ndarray, rarity: list[np.ndarray], what: str, unit: str
) -> dict[str, tuple[np.ndarray, str, str]]:
    """Name what was found of channels or probes, and how rare it is where there is nothing."""
    name, before = prefix or "information", f"{prefix}_" if prefix else ""
    p_value, p_adjusted, detectable = rarity
    return {
        name: (found, what, unit),
        f"{name}_detectable": (detectable, f"smallest {what} that alone is an alarm", unit),
        f"{before}p_value": (p_value, "p-value", "1"),
        f"{before}p_adjusted": (p_adjusted, "p-value, with all others", "1"),
    }


def _at(rows: list[int], count: int, values: Any) -> np.ndarray:
    """Put what was found of some targets at their places; NaN elsewhere."""
    values = np.asarray(values)
    result = np.full((count, *values.shape[1:]), np.nan)
    result[rows] = values
    return result


def _varies(table: Table, codes: np.ndarray, target: int, minimum: int) -> bool:
    """Tell whether two values of the nuisance have enough samples, or clusters, of a target."""
    rows = table.target == target
    pairs = np.unique(np.stack([codes[table.sample[rows]], table.codes[rows]], 1), axis=0)
    return bool((np.unique(pairs[:, 0], return_counts=True)[1] >= minimum).sum() >= 2)


def _sources(
    table: Table, nuisance: np.ndarray, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw whose nuisance each sample of the run takes, (draw + 1, sample)."""
    result = np.tile(np.arange(table.samples), (draws + 1, 1))
    used, first = np.unique(table.sample, return_index=True)
    alone = same_within(table.target, table.sample)
    home = np.where(alone, table.target[first], table.targets.max() + 1)
    labels = np.unique(nuisance[used], return_inverse=True)[1]
    result[:, used] = used[exchanged(labels, table.codes[first], home, draws, rng)]
    return result


def _coded(nuisance: Any, samples: int, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes for the information, and what the probe predicts: (sample,) or (sample, value)."""
    given = np.asarray(nuisance)
    if given.shape != (samples,):
        raise ValueError(
            f"{_WHERE}: expected a nuisance for each of {samples} samples, got {given.shape}."
        )
    if given.dtype.kind == "f":
        if not np.isfinite(given).all():
            raise ValueError(f"{_WHERE}: expected a finite nuisance, got NaN or infinity.")
        return _binned(given[:, None], bins)[:, 0], given.astype(np.float64)
    codes = np.unique(given, return_inverse=True)[1].astype(np.int64)
    return codes, np.eye(int(codes.max()) + 1)[codes]


def _binned(values: np.ndarray, bins: int) -> np.ndarray:
    """Bins of equal frequency, of each column; equal values share one."""
    from scipy.stats import rankdata

    ranks = rankdata(values, axis=0, method="min") - 1
    return (ranks * bins // len(values)).astype(np.int64)


def _information(binned: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Mutual information in nats of each channel with each permutation of the codes."""
    samples, channels = binned.shape
    table = np.eye(int(binned.max()) + 1)[binned].reshape(samples, -1)
    result = np.zeros((len(codes), channels))
    for value in np.unique(codes):
        joint = ((codes == value) @ table).reshape(len(codes), channels, -1) / samples
        share = (codes == value).mean(axis=1)  # of each draw: clusters are of many sizes
        expected = share[:, None, None] * table.mean(axis=0).reshape(channels, -1)
        ratio = np.divide(joint, expected, out=np.ones_like(joint), where=joint > 0)
        result += (joint * np.log(ratio)).sum(axis=-1)
    return result


def _probe(
    used: np.ndarray,
    values: np.ndarray,
    drawn: np.ndarray,
    folds: int,
    clusters: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Score of the probe for each draw of whose values: ridge is linear in what it predicts."""
    spread = used.std(axis=0)
    x = (used - used.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    names, places = np.unique(clusters, return_inverse=True)
    fold = rng.permutation(np.arange(len(names)) % folds)[places]
    operator = np.zeros((len(x), len(x)))
    for index in np.unique(fold):
        test, train = fold == index, fold != index
        # as strong a penalty as there are channels: a correlation of 1 / sqrt(n) is noise
        gram = x[train] @ x[train].T + x.shape[1] * np.eye(train.sum())
        operator[np.ix_(test, train)] = np.linalg.solve(gram, x[train] @ x[test].T).T
    own = values[drawn[0]]
    columns = values[:, None] if values.ndim == 1 else values[:, own.any(axis=0)]
    scores = []
    for column in columns.T:
        truth = column[drawn]  # (draw, row)
        predicted = (truth - truth.mean(axis=1, keepdims=True)) @ operator.T
        scores.append(_pearson(predicted, truth) if values.ndim == 1 else _auroc(predicted, truth))
        if values.ndim == 2 and columns.shape[1] == 2:
            break  # of two values, one against the rest says it all
    return np.mean(scores, axis=0)


def _auroc(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    from scipy.stats import rankdata

    positive = truth.sum(axis=1)
    negative = truth.shape[1] - positive
    ranks = (rankdata(predicted, axis=1) * truth).sum(axis=1)
    pairs = positive * negative
    above = ranks - positive * (positive + 1) / 2
    return np.divide(above, pairs, out=np.full(len(pairs), 0.5), where=pairs > 0)


def _pearson(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = (x - x.mean(axis=1, keepdims=True) for x in (a, b))
    norm = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return (a * b).sum(axis=1) / np.where(norm > 0, norm, 1.0)
