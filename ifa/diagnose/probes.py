"""Confounders: channels that a target uses and that know what the network should not."""

from typing import Any

import numpy as np
import xarray as xr

from ifa.diagnose.corrections import check_alpha, corrected
from ifa.diagnose.rows import table_of
from ifa.types import Statistics

_WHERE = "ifa.diagnose.confounders"


def confounders(
    statistics: Statistics,
    nuisance: Any,
    layer: str | None = None,
    *,
    important: float = 0.5,
    bins: int = 4,
    folds: int = 5,
    draws: int = 499,
    minimum: int = 5,
    adjust: str = "holm",
    alpha: float = 0.05,
    seed: int = 0,
) -> xr.Dataset:
    r"""Find channels important for a target that also predict a nuisance, such as site or scanner.

    Within each target, so that the target itself explains nothing:

    .. math:: MI_{tk} = \sum_{a, b} p(a, b) \ln \frac{p(a, b)}{p(a) \, p(b)}

    of a channel's importance, in bins of equal frequency, and the nuisance; and a probe: a
    cross-validated ridge regression of the nuisance on all channels, scored by the AUROC of the
    held-out folds (several values: its mean, one against the rest; real values: Pearson's r). Both
    are compared with the same after permuting the nuisance within the target. A channel's p-value
    is that of the largest information over channels, so that it already holds for all channels of
    the target; over targets it is corrected.

    Parameters
    ----------
    statistics
        A run with ``keep_samples="full"``, from `ifa.analyze` or `ifa.open`.
    nuisance : (sample,)
        Of each sample of the run: labels of any kind, or real values (a float array).
    layer
        Which layer; may be left out where there is one.
    important
        Share of the channels, by absolute mean importance for the target, that count as important.
    bins
        Of importance, and of a nuisance with real values.
    folds
        Of the probe's cross-validation.
    draws
        P-values are at least 1 / (draws + 1): with Holm's correction over many targets take
        more.
    minimum
        A target is tested if at least two values of the nuisance have so many samples there.
    adjust
        ``"holm"`` or ``"benjamini-hochberg"``, over targets.
    alpha
        Chance of an alarm where the nuisance has no influence; the probe's and the channels' each.
    seed
        Of draws and folds.

    Returns
    -------
    xarray.Dataset
        `information` (nats), `importance`, `important`, `p_value`, `p_adjusted`, `alarm` (target,
        channel): an alarm is a channel that is important and informed. By target `probe`,
        `probe_p_value`, `probe_p_adjusted`, `probe_alarm`. NaN where a target could not be tested:
        where the nuisance hardly varies within it, nothing tells the two apart.

    Raises
    ------
    ValueError
        If the run kept no importances, the nuisance has another length or is not finite, no target
        can be tested, or an option is out of range.
    LookupError
        If there is no such layer.

    References
    ----------
    Westfall & Young 1993, "Resampling-based multiple testing". Ojala & Garriga 2010, "Permutation
    tests for studying classifier performance". JMLR 11:1833–1863
    """
    from ifa.select import largest_absolute

    check_alpha(alpha, _WHERE)
    table = table_of(statistics, layer, _WHERE)
    codes, values = _coded(nuisance, table.samples, bins)
    targets, channels = table.targets, table.importance.shape[1]
    information, p_value, importance = np.full((3, len(targets), channels), np.nan)
    chosen = np.zeros((len(targets), channels), dtype=bool)
    probe, probe_p = np.full((2, len(targets)), np.nan)
    for row, target in enumerate(targets):
        rows = np.flatnonzero(table.target == target)
        sample = table.sample[rows]
        used = table.importance[rows]
        importance[row] = used.mean(axis=0)
        chosen[row] = largest_absolute(importance[row], ratio=important).numpy()
        if (np.bincount(codes[sample]) >= minimum).sum() < 2:
            continue
        rng = np.random.default_rng((seed, int(target)))
        order = np.stack([rng.permutation(len(rows)) for _ in range(draws)])
        order = np.concatenate([np.arange(len(rows))[None], order])  # the first is the data's own
        found = _information(_binned(used, bins), codes[sample][order])
        information[row] = found[0]
        p_value[row] = (found.max(axis=1)[:, None] >= found[0] - 1e-12).mean(axis=0)
        scores = _probe(used, values[sample], order, folds, rng)
        probe[row], probe_p[row] = scores[0], (scores >= scores[0] - 1e-12).mean()
    if np.isnan(probe_p).all():
        raise ValueError(
            f"{_WHERE}: expected a target within which at least two values of the nuisance have "
            f"{minimum} samples, got none. Within a target where it does not vary, the nuisance "
            "and the target cannot be told apart."
        )
    # a channel's p-value holds for all channels of its target; targets are what is left to correct
    tested = np.isfinite(probe_p)
    factor = _by_target(p_value, adjust)
    probe_adjusted = corrected(probe_p, adjust, _WHERE)
    what = "r of the probe" if codes is not values and values.ndim == 1 else "AUROC of the probe"
    both = ("target", "channel")
    one = {"units": "1"}
    return xr.Dataset(
        {
            "information": (
                both,
                information,
                {"long_name": "mutual information with the nuisance", "units": "nat"},
            ),
            "importance": (both, importance, {"long_name": "mean importance", "units": table.unit}),
            "important": (both, chosen, {"long_name": f"among the first {important:.0%}"}),
            "p_value": (both, p_value, {"long_name": "p-value, over the target's channels", **one}),
            "p_adjusted": (both, factor, {"long_name": f"p-value after {adjust}", **one}),
            "alarm": (
                both,
                (factor <= alpha) & chosen,
                {"long_name": f"important, and informed at {alpha:g}"},
            ),
            "probe": ("target", probe, {"long_name": what, **one}),
            "probe_p_value": ("target", probe_p, {"long_name": "p-value of the probe", **one}),
            "probe_p_adjusted": (
                "target",
                probe_adjusted,
                {"long_name": f"p-value of the probe after {adjust}", **one},
            ),
            "probe_alarm": (
                "target",
                tested & (probe_adjusted <= alpha),
                {"long_name": f"predicts the nuisance at {alpha:g}"},
            ),
        },
        {"target": targets, "channel": np.arange(channels)},
        {
            "diagnosis": "confounders",
            "layer": table.layer,
            "alpha": alpha,
            "draws": draws,
        },
    )


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
        expected = (codes[0] == value).mean() * table.mean(axis=0).reshape(channels, -1)
        ratio = np.divide(joint, expected, out=np.ones_like(joint), where=joint > 0)
        result += (joint * np.log(ratio)).sum(axis=-1)
    return result


def _probe(
    used: np.ndarray, values: np.ndarray, order: np.ndarray, folds: int, rng: np.random.Generator
) -> np.ndarray:
    """Score of the probe for each permutation: ridge is linear in what it predicts."""
    spread = used.std(axis=0)
    x = (used - used.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    fold = rng.permutation(np.arange(len(x)) % folds)
    operator = np.zeros((len(x), len(x)))
    for index in range(folds):
        test, train = fold == index, fold != index
        # as strong a penalty as there are channels: a correlation of 1 / sqrt(n) is noise
        gram = x[train] @ x[train].T + x.shape[1] * np.eye(train.sum())
        operator[np.ix_(test, train)] = np.linalg.solve(gram, x[train] @ x[test].T).T
    columns = values[:, None] if values.ndim == 1 else values[:, values[0:].any(axis=0)]
    scores = []
    for column in columns.T:
        truth = column[order]  # (permutation, sample)
        predicted = (truth - truth.mean()) @ operator.T
        scores.append(_pearson(predicted, truth) if values.ndim == 1 else _auroc(predicted, truth))
        if values.ndim == 2 and columns.shape[1] == 2:
            break  # of two values, one against the rest says it all
    return np.mean(scores, axis=0)


def _auroc(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    from scipy.stats import rankdata

    positive = truth.sum(axis=1)
    negative = truth.shape[1] - positive
    ranks = (rankdata(predicted, axis=1) * truth).sum(axis=1)
    return (ranks - positive * (positive + 1) / 2) / (positive * negative)


def _pearson(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = (x - x.mean(axis=1, keepdims=True) for x in (a, b))
    norm = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return (a * b).sum(axis=1) / np.where(norm > 0, norm, 1.0)


def _by_target(p_value: np.ndarray, how: str) -> np.ndarray:
    """Correct over targets: each target's smallest p-value, and no channel's below it."""
    smallest = p_value.min(axis=1)
    adjusted = corrected(smallest, how, _WHERE)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.minimum(p_value * (adjusted / smallest)[:, None], 1.0)
