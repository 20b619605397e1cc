"""Outliers: samples far from their class in feature space."""

from typing import Any, Literal

import numpy as np
import xarray as xr

from ifa.diagnose.corrections import check_alpha, corrected
from ifa.diagnose.rows import Table, table_of
from ifa.types import Statistics

_WHERE = "ifa.diagnose.outliers"
# Quantiles that tails are told by: of all targets together, and of each, where a few outliers are
# a larger share.
_FROM, _TO, _OWN = 0.75, 0.95, 0.9


def outliers(
    statistics: Statistics,
    layer: str | None = None,
    *,
    cluster: Any = None,
    method: Literal["covariance", "forest"] = "covariance",
    components: int = 8,
    minimum: int = 20,
    adjust: str = "benjamini-hochberg",
    alpha: float = 0.05,
    seed: int = 0,
) -> xr.Dataset:
    r"""Rank samples by how far they are from their class in feature space.

    Importances and the level of the map are centered within the explained target by the median and
    scaled by what lies between the 10 % and 90 % quantiles; over all targets :math:`x_n` are their
    coordinates along the principal axes of values clipped at 3, with variances
    :math:`\lambda_i`, and

    .. math:: d_n^2 = \sum_i \frac{x_{ni}^2}{\lambda_i + \bar\lambda / 10}

    or d is :math:`s / (1 - s)` of an isolation forest's score s. Beyond the upper quarter of a
    target, at :math:`q_t`, d is taken for a power law's, whose :math:`\xi` is told by the quantiles
    .75 and .95 of :math:`\ln d - \ln q_t` of all targets together, and lengthened for a target
    whose own at .9 is beyond theirs. With k samples, or clusters, in that range,

    .. math:: p_n = \tfrac14 \Big(1 + \frac{\ln d_n - \ln q_t}{k \, \xi}\Big)^{-k}

    which allows for what is not known of :math:`\xi`. It is corrected for the number of samples.

    **What it promises.** On a run without outliers the chance of any alarm is about `alpha` at most
    where tails are no longer than the upper quarter of the distances shows; no test of a run by
    itself can promise it for all distributions, as its p-values could not be below 1 / n. Of
    simulated clean runs, with channels in blocks or independent, normal, lognormal, of Student's t
    with 3 degrees of freedom or rectified, of 20 to 450 samples, 0 to .07 had one. It is cautious:
    faint outliers rank high without an alarm. Outliers hide each other where they are one sample in
    ten of a class, or one in twenty of a run.

    Parameters
    ----------
    statistics
        A run with ``keep_samples="full"``, from `ifa.analyze` or `ifa.open`.
    layer
        Which layer; may be left out where there is one.
    cluster : (sample,), optional
        Whose each sample is, such as the patient; what the run has kept if None. Each counts once
        for what is known of the tail.
    method
        ``"covariance"`` or ``"forest"``.
    components
        Principal components; fewer where there are fewer channels.
    minimum
        Targets with fewer samples, or clusters, are not tested: their rows are NaN and no alarm.
    adjust
        ``"holm"``, for the chance of any false alarm, or ``"benjamini-hochberg"``, for the share of
        false alarms among all that are raised; over samples.
    alpha
        Of that chance or share, at most.
    seed
        Of the forest.

    Returns
    -------
    xarray.Dataset
        Over `sample`, the strangest first: `id`, `target`, `position` in the run, `distance`,
        `distance_detectable` (the smallest that alone would be an alarm), `distance_z` and
        `level_z` (standard deviations from the target's median, by its 90th percentile, of the
        logarithm of the one), `level`, `p_value`, `p_adjusted`, `alarm`. With several targets per
        sample, a row for each.

    Raises
    ------
    ValueError
        If the run kept no importances, an option is unknown, or no target has enough samples.
    LookupError
        If there is no such layer.

    References
    ----------
    Hill 1975, "A simple general approach to inference about the tail of a distribution".
    doi:10.1214/aos/1176343247

    Liu, Ting & Zhou 2008, "Isolation forest". doi:10.1109/ICDM.2008.17

    Bates, Candès, Lei, Romano & Sesia 2023, "Testing for outliers with conformal p-values".
    doi:10.1214/22-AOS2244 (which needs a second run that is known to be clean)
    """
    if method not in ("covariance", "forest"):
        raise ValueError(f"{_WHERE}: expected method 'covariance' or 'forest', got {method!r}.")
    check_alpha(alpha, _WHERE)
    table = table_of(statistics, layer, _WHERE, cluster=cluster, heed=True)
    members = _members(table, minimum)
    tested = np.concatenate(members)
    residuals = np.zeros((len(table.target), table.importance.shape[1] + 1))
    every = np.column_stack([table.importance, table.level])
    for rows in members:
        residuals[rows] = _standardized(every[rows])
    distance = np.full(len(table.target), np.nan)
    distance[tested] = _distance(residuals[tested], method, components, seed)
    p_value, detectable = _tails(distance, members, table.codes, alpha)
    features, level = np.full((2, len(distance)), np.nan)
    for rows in members:
        features[rows] = _deviation(np.log(distance[rows]))
        level[rows] = _two_sided(table.level[rows])
    p_adjusted = corrected(p_value, adjust, _WHERE)
    order = np.lexsort((-np.nan_to_num(features, nan=-np.inf), np.nan_to_num(p_value, nan=2.0)))
    columns = {
        "id": (table.id, "identity of the sample", ""),
        "target": (table.target, "explained target", ""),
        "position": (table.sample, "position of the sample in the run", "1"),
        "distance": (distance, "distance from its class in feature space", "1"),
        "distance_detectable": (detectable, "smallest distance that alone is an alarm", "1"),
        "distance_z": (features, "deviation of the log distance", "standard deviation"),
        "level": (table.level, "sum of the map", table.unit),
        "level_z": (level, "deviation of the level", "standard deviation"),
        "p_value": (p_value, "p-value", "1"),
        "p_adjusted": (p_adjusted, f"p-value after {adjust}", "1"),
        "alarm": (p_adjusted <= alpha, f"outlier at {alpha:g}", ""),
    }
    return xr.Dataset(
        {
            name: (
                "sample",
                values[order],
                {"long_name": what, **({"units": unit} if unit else {})},
            )
            for name, (values, what, unit) in columns.items()
        },
        attrs={"diagnosis": "outliers", "layer": table.layer, "method": method, "alpha": alpha},
    )


def _members(table: Table, minimum: int) -> list[np.ndarray]:
    members = [np.flatnonzero(table.target == target) for target in table.targets]
    counts = [len(np.unique(table.codes[rows])) for rows in members]
    enough = [rows for rows, count in zip(members, counts, strict=True) if count >= minimum]
    if not enough:
        raise ValueError(
            f"{_WHERE}: expected a target with at least {minimum} samples or clusters, got "
            f"{counts}. Lower minimum=."
        )
    return enough


def _standardized(values: np.ndarray) -> np.ndarray:
    from scipy.stats import norm

    centered = values - np.median(values, axis=0)
    low, high = np.quantile(values, [0.1, 0.9], axis=0)
    spread = (high - low) / (2 * norm.ppf(0.9))
    # a channel that is silent for most of the class has no such spread, but others
    spread = np.where(spread > 0, spread, centered.std(axis=0))
    return centered / np.where(spread > 0, spread, 1.0)


def _distance(residuals: np.ndarray, method: str, components: int, seed: int) -> np.ndarray:
    # clipped, so that a few outliers do not turn the axes towards them
    clipped = np.clip(residuals, -3, 3)
    clipped = clipped - clipped.mean(axis=0)
    variance, axes = np.linalg.eigh(clipped.T @ clipped / len(clipped))
    variance, axes = variance[::-1][:components], axes[:, ::-1][:, :components]
    if variance[0] <= 1e-12:
        raise ValueError(f"{_WHERE}: expected importances that differ, got constant ones.")
    reduced = (residuals @ axes) / np.sqrt(np.maximum(variance, 0) + variance.mean() / 10)
    if method == "covariance":
        found = np.linalg.norm(reduced, axis=1)
    else:
        from sklearn.ensemble import IsolationForest

        forest = IsolationForest(n_estimators=300, random_state=seed).fit(reduced)
        score = -forest.score_samples(reduced)
        found = score / np.maximum(1 - score, 1e-12)
    return np.maximum(found, np.finfo(float).tiny)


def _tails(
    distance: np.ndarray, members: list[np.ndarray], codes: np.ndarray, alpha: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return p-values by the tails of the log distances, and what alone would be an alarm."""
    far = np.log(distance)
    p_value, detectable = np.full((2, len(far)), np.nan)
    starts = [np.quantile(far[rows], _FROM) for rows in members]
    above = [far[rows] - start for rows, start in zip(members, starts, strict=True)]
    tested = sum(map(len, members))
    together = np.concatenate(above)
    common = np.quantile(together, _TO) / np.log((1 - _FROM) / (1 - _TO))
    usual = max(np.quantile(together, _OWN), 1e-9)
    known = (_TO - _FROM) * len(np.unique(codes[np.concatenate(members)]))
    for rows, start, beyond in zip(members, starts, above, strict=True):
        # longer than the others', beyond what so few samples are uncertain by
        own = np.quantile(beyond, _OWN) / usual
        longer = max(1.0, own / (1 + 1 / np.sqrt((_OWN - _FROM) * len(rows))))
        slope = max(common * longer, 1e-9)
        tail = (1 - _FROM) * (1 + np.maximum(beyond, 0) / (known * slope)) ** -known
        # below, its rank
        ranks = (beyond[:, None] <= beyond).mean(axis=1)
        p_value[rows] = np.where(beyond > 0, tail, np.maximum(ranks, 1 - _FROM))
        needed = ((1 - _FROM) * tested / alpha) ** (1 / known) - 1
        detectable[rows] = np.exp(np.minimum(start + known * slope * needed, 700))
    return p_value, detectable


def _deviation(values: np.ndarray, quantile: float = 0.9) -> np.ndarray:
    """How far above the median, in standard deviations of a normal with this upper quantile."""
    from scipy.stats import norm

    median = np.median(values)
    spread = (np.quantile(values, quantile) - median) / norm.ppf(quantile)
    return (values - median) / spread if spread > 0 else np.zeros_like(values)


def _two_sided(values: np.ndarray) -> np.ndarray:
    upper, lower = _deviation(values), _deviation(-values)
    return np.where(upper >= 0, upper, -lower)
