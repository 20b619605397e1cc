"""Agreement: whether two runs give the channels the same importance."""

from typing import Any

import numpy as np
import xarray as xr

from ifa.diagnose.corrections import check_alpha, corrected
from ifa.diagnose.rows import statistics_of
from ifa.types import Statistics

_WHERE = "ifa.diagnose.agreement"


def agreement(
    statistics: Statistics,
    other: Any,
    layer: str | None = None,
    *,
    level: float = 0.95,
    adjust: str = "holm",
    alpha: float = 0.05,
) -> xr.Dataset:
    r"""Compare the importances of two runs by Bland and Altman: bias and limits of agreement.

    With :math:`d_k = I^b_{tk} - I^a_{tk}` over the K channels of a target, mean :math:`\bar d` and
    standard deviation s, the limits of agreement are :math:`\bar d \pm z s`, and their standard
    errors

    .. math:: se(\bar d) = s / \sqrt K, \qquad
              se(\text{limit}) = s \sqrt{1 / K + z^2 / (2 (K - 1))}.

    The bias that raises an alarm is tested by the samples, not by the channels, which are no
    independent draws: the mean importance over channels of the one run against the other's, with
    the variance of accepted samples bounded from above by that of channels in step,
    :math:`(\sum_k \sigma_{tk} / K)^2 / n_t` of each run.

    Parameters
    ----------
    statistics, other
        Two runs of the same layer and targets, such as two sites, folds or checkpoints; or one
        layer's dataset of each. They need no sample table.
    layer
        Which layer; may be left out where there is one.
    level
        Of the limits of agreement and of the intervals.
    adjust
        ``"holm"`` or ``"benjamini-hochberg"``, over targets.
    alpha
        Chance of an alarm, at most, on two runs over samples of one population.

    Returns
    -------
    xarray.Dataset
        `mean` and `difference` (target, channel), what one plots; by target `bias`, `lower`,
        `upper`, with `bias_interval`, `lower_interval`, `upper_interval` (target, bound), the
        Pearson `correlation` and Lin's `concordance`, `p_value`, `p_adjusted` and `alarm`. NaN for
        a target without accepted samples in both.

    Raises
    ------
    ValueError
        If targets or channels differ, importances are by group, or an option is out of range.

    References
    ----------
    Bland & Altman 1999, "Measuring agreement in method comparison studies".
    doi:10.1177/096228029900800204. Lin 1989, doi:10.2307/2532051

    Examples
    --------
    >>> import xarray as xr
    >>> def run(values):
    ...     table = (("target", "channel"), [values])
    ...     return xr.Dataset({"importance": table, "importance_variance": table,
    ...                        "count": ("target", [9])}, {"target": [0]})
    >>> found = agreement(run([1.0, 2.0, 3.0]), run([2.0, 3.0, 4.0]))
    >>> float(found["bias"][0]), float(found["lower"][0])
    (1.0, 1.0)
    """
    check_alpha(alpha, _WHERE)
    check_alpha(1 - level, _WHERE)
    one, other = (statistics_of(run, layer, _WHERE) for run in (statistics, other))
    _check(one, other)
    a, b = (np.asarray(run["importance"].values, dtype=np.float64) for run in (one, other))
    difference, p_value = b - a, _p_values(one, other)
    p_adjusted = corrected(p_value, adjust, _WHERE)
    unit = one["importance"].attrs.get("units", "1")
    limits = _limits(difference, level)
    percent = f"{100 * level:g} %"
    names = {
        "bias": "mean difference over channels",
        "lower": f"lower limit of agreement, {percent}",
        "upper": f"upper limit of agreement, {percent}",
    }
    attrs = {name: {"long_name": what, "units": unit} for name, what in names.items()}
    one_attrs = {"units": "1"}
    variables: dict[str, Any] = {
        "mean": (
            ("target", "channel"),
            (a + b) / 2,
            {"long_name": "mean importance of the two runs", "units": unit},
        ),
        "difference": (
            ("target", "channel"),
            difference,
            {"long_name": "difference of importance, second run less first", "units": unit},
        ),
        **{name: ("target", limits[name][0], attrs[name]) for name in names},
        **{
            f"{name}_interval": (
                ("target", "bound"),
                np.stack(limits[name][1:], axis=-1),
                {**attrs[name], "long_name": f"{percent} interval of the {names[name]}"},
            )
            for name in names
        },
        "correlation": ("target", _pearson(a, b), {"long_name": "Pearson's r", **one_attrs}),
        "concordance": (
            "target",
            _concordance(a, b),
            {"long_name": "Lin's concordance correlation", **one_attrs},
        ),
        "p_value": ("target", p_value, {"long_name": "p-value of the bias", **one_attrs}),
        "p_adjusted": (
            "target",
            p_adjusted,
            {"long_name": f"p-value after {adjust}", **one_attrs},
        ),
        "alarm": ("target", p_adjusted <= alpha, {"long_name": f"biased at {alpha:g}"}),
    }
    coords = {name: one.coords[name] for name in ("target", "target_name") if name in one.coords}
    return xr.Dataset(
        variables,
        {**coords, "bound": ["low", "high"]},
        {"diagnosis": "agreement", "level": level, "alpha": alpha},
    )


def _check(one: Any, other: Any) -> None:
    for run in (one, other):
        if run["importance"].dims[:-1] != ("target",):
            raise ValueError(
                f"{_WHERE}: expected importances (target, channel), got "
                f"{run['importance'].dims}. Take one group: dataset.isel(group=0)."
            )
    shapes = [run["importance"].shape for run in (one, other)]
    if shapes[0] != shapes[1] or not np.array_equal(one["target"], other["target"]):
        raise ValueError(
            f"{_WHERE}: expected two runs of the same targets and channels, got {shapes[0]} and "
            f"{shapes[1]}."
        )
    if shapes[0][1] < 2:
        raise ValueError(f"{_WHERE}: expected at least two channels, got {shapes[0][1]}.")


def _limits(
    difference: np.ndarray, level: float
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Each of bias, lower and upper with its interval."""
    from scipy.stats import norm, t

    channels = difference.shape[1]
    bias, spread = difference.mean(axis=1), difference.std(axis=1, ddof=1)
    z = norm.ppf(0.5 + level / 2)
    student = t.ppf(0.5 + level / 2, channels - 1)
    narrow = student * spread / np.sqrt(channels)
    wide = student * spread * np.sqrt(1 / channels + z**2 / (2 * (channels - 1)))
    return {
        name: (centre, centre - half, centre + half)
        for name, centre, half in (
            ("bias", bias, narrow),
            ("lower", bias - z * spread, wide),
            ("upper", bias + z * spread, wide),
        )
    }


def _p_values(one: Any, other: Any) -> np.ndarray:
    from scipy.stats import norm

    squared = np.zeros(one["importance"].shape[0])
    for run in (one, other):
        # channels in step: the largest variance that their mean can have
        spread = np.sqrt(run["importance_variance"].values).mean(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            squared = squared + spread**2 / run["count"].values
    bias = (other["importance"].values - one["importance"].values).mean(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.abs(bias) / np.sqrt(squared)
    return np.where(bias == 0, np.where(np.isnan(squared), np.nan, 1.0), 2 * norm.sf(z))


def _pearson(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    product = (_centered(a) * _centered(b)).mean(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return product / (a.std(axis=1) * b.std(axis=1))


def _concordance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    product = (_centered(a) * _centered(b)).mean(axis=1)
    gap = (a.mean(axis=1) - b.mean(axis=1)) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return 2 * product / (a.var(axis=1) + b.var(axis=1) + gap)


def _centered(values: np.ndarray) -> np.ndarray:
    return values - values.mean(axis=1, keepdims=True)
