"""Outliers: samples far from their class in feature space, or with a map unlike its maps."""

from typing import Literal

import numpy as np
import xarray as xr

from ifa.diagnose.corrections import check_alpha, corrected
from ifa.diagnose.rows import table_of
from ifa.types import Statistics

_WHERE = "ifa.diagnose.outliers"


def outliers(
    statistics: Statistics,
    layer: str | None = None,
    *,
    method: Literal["covariance", "forest"] = "covariance",
    components: int = 8,
    minimum: int = 20,
    adjust: str = "benjamini-hochberg",
    alpha: float = 0.05,
    seed: int = 0,
) -> xr.Dataset:
    r"""Rank samples by how far they are from their class: in feature space, and by map level.

    Importances are centered and scaled robustly within the explained target, over all targets
    reduced to their principal components :math:`x_n`, and there

    .. math:: d_n = \sqrt{(x_n - \mu)^\top \Sigma^{-1} (x_n - \mu)}

    with the robust :math:`\mu, \Sigma` of the minimum covariance determinant, or an isolation
    forest's score. Deviations z of :math:`\log d`, and of the level on either side, are from the
    target's median, in units that make the 90th percentile a normal distribution's; their tail is
    exponential through median and 90th percentile, :math:`P(Z > z) = 5^{-z / 1.28} / 2`. So a few
    outliers do not move what they are measured by, and the long tails of real runs are no alarm. A
    sample's p-value is twice the smaller of the two, corrected for the number of samples.

    Parameters
    ----------
    statistics
        A run with ``keep_samples="full"``, from `ifa.analyze` or `ifa.open`.
    layer
        Which layer; may be left out where there is one.
    method
        ``"covariance"`` or ``"forest"``.
    components
        Principal components; fewer where there are fewer channels.
    minimum
        Targets with fewer samples are not tested: their rows are NaN and no alarm.
    adjust
        ``"holm"`` or ``"benjamini-hochberg"``, over samples.
    alpha
        Chance of an alarm on a run without outliers.
    seed
        Of the subsets that the method draws.

    Returns
    -------
    xarray.Dataset
        Over `sample`, the strangest first: `id`, `target`, `position` in the run, `distance`,
        `distance_z` and `level_z` (robust standard deviations from the target's median), `level`,
        `p_value`, `p_adjusted`, `alarm`. With several targets per sample, a row for each.

    Raises
    ------
    ValueError
        If the run kept no importances, an option is unknown, or no target has enough samples.
    LookupError
        If there is no such layer.

    References
    ----------
    Rousseeuw & Van Driessen 1999, "A fast algorithm for the minimum covariance determinant
    estimator". doi:10.1080/00401706.1999.10485670. Liu, Ting & Zhou 2008, "Isolation forest".
    doi:10.1109/ICDM.2008.17. The fitted tail is ours: that of χ² is too light for real features.
    """
    if method not in ("covariance", "forest"):
        raise ValueError(f"{_WHERE}: expected method 'covariance' or 'forest', got {method!r}.")
    check_alpha(alpha, _WHERE)
    table = table_of(statistics, layer, _WHERE)
    members = [np.flatnonzero(table.target == target) for target in table.targets]
    members = [rows for rows in members if len(rows) >= minimum]
    if not members:
        raise ValueError(
            f"{_WHERE}: expected a target with at least {minimum} samples, got "
            f"{[int((table.target == target).sum()) for target in table.targets]}. Lower minimum=."
        )
    tested = np.concatenate(members)
    residuals = np.full(table.importance.shape, np.nan)
    for rows in members:
        residuals[rows] = _standardized(table.importance[rows])
    distance = np.full(len(table.target), np.nan)
    distance[tested] = _distance(residuals[tested], method, components, seed)
    features, level = np.full((2, len(distance)), np.nan)
    for rows in members:
        features[rows] = _deviation(np.log(distance[rows]))
        level[rows] = _two_sided(table.level[rows])
    p_value = _combined(features, np.abs(level))
    p_adjusted = corrected(p_value, adjust, _WHERE)
    order = np.lexsort((-np.nan_to_num(features, nan=-np.inf), np.nan_to_num(p_value, nan=2.0)))
    columns = {
        "id": (table.id, "identity of the sample", ""),
        "target": (table.target, "explained target", ""),
        "position": (table.sample, "position of the sample in the run", "1"),
        "distance": (distance, "distance from its class in feature space", "1"),
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


def _standardized(values: np.ndarray) -> np.ndarray:
    centered = values - np.median(values, axis=0)
    spread = 1.4826 * np.median(np.abs(centered), axis=0)
    # a channel that is silent for more than half of the class has no robust spread, but others
    spread = np.where(spread > 0, spread, centered.std(axis=0))
    return centered / np.where(spread > 0, spread, 1.0)


def _distance(residuals: np.ndarray, method: str, components: int, seed: int) -> np.ndarray:
    from sklearn.covariance import MinCovDet
    from sklearn.decomposition import PCA
    from sklearn.ensemble import IsolationForest

    rank = int(np.linalg.matrix_rank(residuals))
    if rank == 0:
        raise ValueError(f"{_WHERE}: expected importances that differ, got constant ones.")
    reduced = PCA(min(components, rank), random_state=seed).fit_transform(residuals)
    if method == "covariance":
        found = np.sqrt(MinCovDet(random_state=seed).fit(reduced).dist_)
    else:
        forest = IsolationForest(n_estimators=300, random_state=seed).fit(reduced)
        found = -forest.score_samples(reduced)
    return np.maximum(found, np.finfo(float).tiny)


def _deviation(values: np.ndarray, quantile: float = 0.9) -> np.ndarray:
    """How far above the median, in standard deviations of a normal with this upper quantile."""
    from scipy.stats import norm

    median = np.median(values)
    spread = (np.quantile(values, quantile) - median) / norm.ppf(quantile)
    return (values - median) / spread if spread > 0 else np.zeros_like(values)


def _two_sided(values: np.ndarray) -> np.ndarray:
    upper, lower = _deviation(values), _deviation(-values)
    return np.where(upper >= 0, upper, -lower)


def _combined(features: np.ndarray, level: np.ndarray) -> np.ndarray:
    from scipy.stats import norm

    # one quantity is tested on one side, the other on both
    tails = [sides * 0.5 * 5.0 ** (-z / norm.ppf(0.9)) for sides, z in ((1, features), (2, level))]
    smaller = np.minimum(*tails)
    return np.minimum(2 * smaller, 1.0)
