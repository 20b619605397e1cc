"""Agreement: whether two runs give the channels the same importance."""

from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ifa.checks import check_size
from ifa.clusters import cluster_sums
from ifa.diagnose.corrections import check_alpha, corrected
from ifa.diagnose.rows import Table, keeps_samples, statistics_of, two_tables
from ifa.reduce.statistics import feature_of
from ifa.types import Statistics

_WHERE = "ifa.diagnose.agreement"


def agreement(
    statistics: Statistics,
    other: Any,
    layer: str | None = None,
    *,
    cluster: Any = None,
    margin: float = 0.2,
    level: float = 0.95,
    adjust: str = "holm",
    alpha: float = 0.05,
) -> xr.Dataset:
    r"""Compare the importances of two runs, channel by channel and together.

    With :math:`d_k = I^b_{tk} - I^a_{tk}` over the K channels of a target, the bias is their mean
    :math:`\bar d`, and Bland and Altman's limits of agreement are :math:`\bar d \pm z s`, s their
    standard deviation: they describe these channels. What is uncertain is due to the samples. Each
    sample, or cluster, g that was accepted in one run or both adds

    .. math:: \varphi_{gk} = \sum_{i \in g} \frac{x^b_{ik} - I^b_{tk}}{n_b}
              - \sum_{i \in g} \frac{x^a_{ik} - I^a_{tk}}{n_a}, \qquad
              se^2(d_k) = \sum_g c_g \varphi_{gk}^2

    with :math:`c_g = G / (G - 1)` as usual; for :math:`\bar d` the mean of :math:`\varphi_g`. Where
    the same ids (or clusters, as text) are in both runs, such as two checkpoints on the same data,
    this is Student's t of pairs; where none are, Welch's. Three answers:

    * *agree*: every channel's difference is shown to lie within the margin (two one-sided tests);
    * *differ*: else, where the bias or a channel differs from 0;
    * *cannot be said*: else.

    **What it promises.** Under Holm's correction, on two runs of one truth, the chance of any
    alarm, over biases and channels of all targets together (half of `alpha` each), is at most
    `alpha`, and so is that of an *agree* for any target with a channel beyond the margin: for
    independent samples, or clusters, whose differences of means are about normal. Without the
    sample tables of both, samples are taken for independent and other ones in each run, and the
    bias's variance is bounded from above by that of channels in step: with pairs or clusters in
    truth, alarms are rarer in the former and more often in the latter than promised.

    Parameters
    ----------
    statistics, other
        Two runs of the same layer and targets, such as two sites, folds or checkpoints, with
        ``keep_samples="full"``; or one layer's dataset of each, without.
    layer
        Which layer; may be left out where there is one.
    cluster : pair of (sample,), optional
        Of each run, whose each sample is, such as the patient; what the runs have kept if None.
    margin
        The largest difference that does not matter, as a share of the standard deviation of the
        target's importances over channels, on average of the two runs.
    level
        Of the limits of agreement and of each interval by itself.
    adjust
        ``"holm"``, or ``"benjamini-hochberg"``, which holds the share of false alarms among all
        that are raised; over targets and channels.
    alpha
        Chance of any false alarm, at most.

    Returns
    -------
    xarray.Dataset
        `answer` (target,). By target and channel `mean`, `difference`, `difference_interval` (with
        bound), `channel_p_value`, `channel_p_adjusted`, `channel_alarm`, and `detectable`, the
        smallest difference that alone would be an alarm. By target `bias`, `bias_interval` (with
        bound), `lower`, `upper`, the Pearson `correlation` and Lin's `concordance`,
        `bias_p_value`, `p_value` (of bias and channels together), `p_adjusted`, `alarm`, `margin`,
        `equivalence_p_value`, `equivalence_p_adjusted`, and `count_both`, how many samples or
        clusters are in both runs. NaN for a target with fewer than two of either.

    Raises
    ------
    ValueError
        If targets or channels differ, importances are by group, or an option is out of range.

    References
    ----------
    Bland & Altman 1999, "Measuring agreement in method comparison studies".
    doi:10.1177/096228029900800204

    Lin 1989, "A concordance correlation coefficient to evaluate reproducibility".
    doi:10.2307/2532051

    Schuirmann 1987, "A comparison of the two one-sided tests procedure and the power approach".
    doi:10.1007/BF01068419

    Examples
    --------
    >>> import xarray as xr
    >>> def run(values):
    ...     table = (("target", "channel"), [values])
    ...     return xr.Dataset({"importance": table, "importance_variance": table,
    ...                        "count": ("target", [9])}, {"target": [0]})
    >>> found = agreement(run([1.0, 2.0, 3.0]), run([2.0, 3.0, 4.0]))
    >>> float(found["bias"][0]), str(found["answer"][0].item())
    (1.0, 'cannot be said')
    """
    check_alpha(alpha, _WHERE)
    check_alpha(1 - level, _WHERE)
    check_size(_WHERE, "margin", margin)
    one, two = (statistics_of(run, layer, _WHERE) for run in (statistics, other))
    _check(one, two)
    if all(keeps_samples(run, layer) for run in (statistics, other)):
        tables = two_tables(statistics, other, layer, _WHERE, cluster)
        moments = _of_samples(*tables, one["target"].values)
    elif cluster is None:
        moments = _of_statistics(one, two)
    else:
        raise ValueError(
            f"{_WHERE}: expected runs with the importance of every sample for cluster=, got one "
            "that kept none. Run ifa.analyze(..., keep_samples='full')."
        )
    tests = _tested(moments, margin, level, adjust, alpha)
    feature = feature_of(one["importance"])
    variables = _variables(moments, tests, feature, level, adjust, alpha)
    unit = one["importance"].attrs.get("units", "1")
    coords = {name: one.coords[name] for name in ("target", "target_name") if name in one.coords}
    return xr.Dataset(
        {
            name: (dims, values, {"long_name": what, **({"units": units or unit} if units != "-"
                                                        else {})})
            for name, (dims, values, what, units) in variables.items()
        },
        {**coords, "bound": ["low", "high"]},
        {"diagnosis": "agreement", "level": level, "alpha": alpha},
    )  # fmt: skip


class _Moments(NamedTuple):
    """Of each target and channel, the bias last: (target, channel + 1)."""

    a: np.ndarray  # (target, channel)
    b: np.ndarray
    difference: np.ndarray
    error: np.ndarray  # standard error
    freedom: np.ndarray  # degrees of freedom
    both: np.ndarray  # (target,): samples or clusters in both runs


class _Tests(NamedTuple):
    """Of each target and channel, the bias last, and of each target."""

    p_value: np.ndarray
    p_adjusted: np.ndarray
    half: np.ndarray  # of the intervals
    detectable: np.ndarray
    margin: np.ndarray  # (target,)
    equivalence: np.ndarray  # (target,): p-value
    equivalent: np.ndarray  # (target,): adjusted


def _check(one: Any, other: Any) -> None:
    for run in (one, other):
        if run["importance"].dims[:-1] != ("target",):
            raise ValueError(
                f"{_WHERE}: expected importances (target, channel), got "
                f"{run['importance'].dims}. Take one group: dataset.isel(group=0)."
            )
    shapes = [run["importance"].shape for run in (one, other)]
    features = [feature_of(run["importance"]) for run in (one, other)]
    if features[0] != features[1]:
        raise ValueError(
            f"{_WHERE}: expected two runs in one basis, got {features[0]}s and {features[1]}s. "
            "Analyze both with the same dictionary."
        )
    if shapes[0] != shapes[1] or not np.array_equal(one["target"], other["target"]):
        raise ValueError(
            f"{_WHERE}: expected two runs of the same targets and {features[0]}s, got "
            f"{shapes[0]} and {shapes[1]}."
        )
    if shapes[0][1] < 2:
        raise ValueError(f"{_WHERE}: expected at least two {features[0]}s, got {shapes[0][1]}.")


def _with_bias(values: np.ndarray) -> np.ndarray:
    return np.concatenate([values, values.mean(axis=-1, keepdims=True)], axis=-1)


def _of_samples(a: Table, b: Table, targets: np.ndarray) -> _Moments:
    shape = (len(targets), a.importance.shape[1])
    means = np.full((2, *shape), np.nan)
    error, freedom = np.full((2, shape[0], shape[1] + 1), np.nan)
    both = np.zeros(len(targets), dtype=np.int64)
    owners = [
        table.id.astype(object).astype(str)
        if table.cluster is None
        else np.array(table.clusters)[table.cluster]
        for table in (a, b)
    ]
    for row, target in enumerate(targets):
        chosen = [np.asarray(run.accepted) & (run.target == target) for run in (a, b)]
        parts = [run.importance[rows] for run, rows in zip((a, b), chosen, strict=True)]
        for run, part in enumerate(parts):
            means[run, row] = part.mean(axis=0) if len(part) else np.nan
        names = [owner[rows] for owner, rows in zip(owners, chosen, strict=True)]
        both[row] = len(np.intersect1d(names[0], names[1]))
        if min(len(np.unique(name)) for name in names) >= 2:
            error[row], freedom[row] = _error(parts, names)
    difference = _with_bias(means[1] - means[0])
    return _Moments(means[0], means[1], difference, error, freedom, both)


def _error(parts: list[np.ndarray], names: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return standard errors and degrees of freedom of differences of means, the bias last."""
    codes = np.unique(np.concatenate(names), return_inverse=True)[1]
    signed = [
        sign * _with_bias(part - part.mean(axis=0)) / len(part)
        for sign, part in zip((-1, 1), parts, strict=True)
    ]
    pulls = cluster_sums(np.concatenate(signed), codes)
    inside = [
        np.bincount(part, minlength=len(pulls)) > 0 for part in np.split(codes, [len(parts[0])])
    ]
    counts = [one.sum() for one in inside]
    scale = np.max(
        [one * count / (count - 1) for one, count in zip(inside, counts, strict=True)], 0
    )
    squares = pulls**2 * scale[:, None]
    # those of the first run only, of the second only, of both
    kinds = np.stack([inside[0] & ~inside[1], inside[1] & ~inside[0], inside[0] & inside[1]])
    sums, sizes = kinds @ squares, kinds.sum(axis=1)
    return _welch(sums, np.maximum(sizes - 1, 1)[:, None])


def _welch(variances: np.ndarray, freedom: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the standard error and the degrees of freedom of a sum, over the first axis."""
    total = variances.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = total**2 / (variances**2 / freedom).sum(axis=0)
    return np.sqrt(total), np.where(total > 0, found, 1.0)


def _of_statistics(one: Any, two: Any) -> _Moments:
    a, b = (np.asarray(run["importance"].values, dtype=np.float64) for run in (one, two))
    parts, counts = [], []
    for run in (one, two):
        count = np.asarray(run["count"].values, dtype=np.float64)[:, None]
        count = np.where(count >= 2, count, np.nan)
        spread = np.sqrt(run["importance_variance"].values)
        # channels in step: the largest variance that their mean can have
        parts.append(_with_bias(spread) ** 2 / count)
        counts.append(count - 1)
    error, freedom = _welch(np.stack(parts), np.stack(counts))
    return _Moments(a, b, _with_bias(b - a), error, freedom, np.zeros(len(a), dtype=np.int64))


def _tested(moments: _Moments, margin: float, level: float, adjust: str, alpha: float) -> _Tests:
    from scipy.stats import t

    difference, error, freedom = moments.difference, moments.error, moments.freedom

    def chance(apart: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(apart == 0, 0.0, apart / error)
        return np.where(np.isnan(error), np.nan, t.sf(ratio, freedom))

    p_value = np.minimum(2 * chance(np.abs(difference)), 1.0)
    # half of alpha for the biases, half for the channels
    parts = [corrected(part, adjust, _WHERE) for part in (p_value[:, :-1], p_value[:, -1:])]
    p_adjusted = np.minimum(2 * np.concatenate(parts, axis=1), 1.0)
    known = np.isfinite(p_value)
    number = np.where(np.arange(p_value.shape[1]) < p_value.shape[1] - 1, known[:, :-1].sum(),
                      known[:, -1].sum())  # fmt: skip
    within = margin * ((moments.a + moments.b) / 2).std(axis=1, ddof=1)
    beyond = chance(within[:, None] - np.abs(difference))[:, :-1]
    equivalence = beyond.max(axis=1)
    return _Tests(
        p_value,
        p_adjusted,
        t.ppf(0.5 + level / 2, freedom) * error,
        t.isf(alpha / 4 / np.maximum(number, 1), freedom) * error,
        within,
        equivalence,
        corrected(equivalence, "holm", _WHERE),
    )


def _variables(
    moments: _Moments, tests: _Tests, feature: str, level: float, adjust: str, alpha: float
) -> dict[str, tuple[Any, np.ndarray, str, str]]:
    """Name what was found: dimensions, values, what it is, and units; of importance if empty."""
    from scipy.stats import norm

    both, one, percent = ("target", feature), "target", f"{100 * level:g} %"
    channels, bias = moments.difference[:, :-1], moments.difference[:, -1]
    wide = norm.ppf(0.5 + level / 2) * channels.std(axis=1, ddof=1)
    half = tests.half
    interval = np.stack([moments.difference - half, moments.difference + half], axis=-1)
    p_value = np.minimum(2 * channels.shape[1] * tests.p_value[:, :-1].min(axis=1), 1.0)
    p_value = np.minimum(p_value, 2 * tests.p_value[:, -1])
    p_adjusted = tests.p_adjusted.min(axis=1)
    alarm = p_adjusted <= alpha
    answer = np.where(alarm, "differ", "cannot be said")
    answer = np.where(tests.equivalent <= alpha, "agree", answer).astype(object)
    return {
        "answer": (one, answer, f"agree, differ or cannot be said, at {alpha:g}", "-"),
        "mean": (both, (moments.a + moments.b) / 2, "mean importance of the two runs", ""),
        "difference": (both, channels, "difference of importance, second run less first", ""),
        "difference_interval": (
            (*both, "bound"), interval[:, :-1], f"{percent} interval of the difference", "",
        ),
        "detectable": (
            both, tests.detectable[:, :-1], "smallest difference that alone is an alarm", "",
        ),
        "channel_p_value": (both, tests.p_value[:, :-1], "p-value of the difference", "1"),
        "channel_p_adjusted": (both, tests.p_adjusted[:, :-1], f"p-value after {adjust}", "1"),
        "channel_alarm": (both, tests.p_adjusted[:, :-1] <= alpha, f"differs at {alpha:g}", "-"),
        "bias": (one, bias, f"mean difference over {feature}s", ""),
        "bias_interval": (
            (one, "bound"), interval[:, -1], f"{percent} interval of the mean difference", "",
        ),
        "lower": (one, bias - wide, f"lower limit of agreement, {percent} of {feature}s", ""),
        "upper": (one, bias + wide, f"upper limit of agreement, {percent} of {feature}s", ""),
        "correlation": (one, _pearson(moments.a, moments.b), "Pearson's r", "1"),
        "concordance": (one, _concordance(moments.a, moments.b), "Lin's concordance", "1"),
        "bias_p_value": (one, tests.p_value[:, -1], "p-value of the bias", "1"),
        "p_value": (one, p_value, f"p-value of bias and {feature}s together", "1"),
        "p_adjusted": (one, p_adjusted, f"p-value after {adjust}", "1"),
        "alarm": (one, alarm, f"biased, or one of the {feature}s differs, at {alpha:g}", "-"),
        "margin": (one, tests.margin, "largest difference that does not matter", ""),
        "equivalence_p_value": (one, tests.equivalence, "p-value of a difference beyond", "1"),
        "equivalence_p_adjusted": (one, tests.equivalent, "p-value after holm", "1"),
        "count_both": (one, moments.both, "samples or clusters in both runs", "1"),
    }  # fmt: skip


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
