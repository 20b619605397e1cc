"""Intervals over samples, or over whole clusters of samples: means, shares, areas, correlations.

Each holds its level for one figure, over draws of independent samples, or of independent clusters
where `codes` says which samples belong together. Coverages are of 500 to 4 000 simulated data sets
each.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ifa.clusters import cluster_sums

_ALMOST = 1 - 1e-12


class Interval(NamedTuple):
    """Two limits of one shape; NaN where nothing can be said."""

    low: np.ndarray
    high: np.ndarray


class MeanError(NamedTuple):
    """Means over samples, and how sure they are."""

    mean: np.ndarray  # (...)
    error: np.ndarray  # the standard error; NaN below two samples or clusters
    freedom: np.ndarray  # degrees of freedom: clusters with a value, less one
    count: np.ndarray  # samples with a value


def mean_interval(
    values: ArrayLike,
    *,
    codes: np.ndarray | None = None,
    level: float = 0.95,
    jointly: bool = False,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    r"""Student's interval of means over samples.

    .. math:: \bar v \pm \frac{t_{G-1}}{n} \sqrt{\frac{G}{G-1} \sum_g
              \Big(\sum_{i \in g} (v_i - \bar v)\Big)^2}

    over G clusters of n samples; of single samples that is :math:`t_{n-1} s / \sqrt n`. Each
    interval holds the level by itself, or all of them together.

    Nominal .95 covers .93–.97 of normal and t3 values from 2 samples or clusters on; of what is
    skewed less: of lognormal values .84, .89, .91 and .94 at 10, 30, 100 and 300 samples, of normal
    ones cut off at 0 (as after a ReLU) .89, .93 and .94 at 10, 30 and 100.

    Parameters
    ----------
    values : (sample, ...)
        NaN are left out.
    codes : (sample,), optional
        The number of each sample's cluster; each sample is one of its own if None.
    level
        Of the two-sided interval, in (0, 1).
    jointly
        Hold the level for all intervals at once: t gives way to the quantile of the largest
        absolute t over them, of `draws` in which clusters change their signs at random.
    draws, seed
        Of the signs.

    Returns
    -------
    Interval
        (...) each; NaN below two samples or clusters.

    References
    ----------
    Cochran 1977, "Sampling techniques", chapter 6 (the ratio estimator)

    Romano & Wolf 2005, "Exact and approximate stepdown methods for multiple hypothesis testing".
    doi:10.1198/016214504000000539
    """
    found = mean_error(values, codes=codes)
    if jointly:
        quantile = joint_quantile(values, codes=codes, level=level, draws=draws, seed=seed)
        half = quantile * found.error
    else:
        half = _t(level, found.freedom) * found.error
    return Interval(found.mean - half, found.mean + half)


def mean_error(values: ArrayLike, *, codes: np.ndarray | None = None) -> MeanError:
    """Return means and standard errors as `mean_interval` takes them."""
    mean, count, apart, groups = _apart(values, codes)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.sqrt(groups / (groups - 1) * np.square(apart).sum(0)) / count
    return MeanError(mean, np.where(groups > 1, error, np.nan), groups - 1, count)


def joint_quantile(
    values: ArrayLike,
    *,
    codes: np.ndarray | None = None,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> float:
    """Return the quantile of the largest absolute t of means, all of which are 0.

    Values less their means change their signs by whole clusters, at random and in all columns at
    once; so columns may depend on each other. Nominal .95 covers 20 or 200 means at once .93–.97
    from 10 samples on, 200 means of 5 samples .85–.91.
    """
    _, _, apart, groups = _apart(values, codes)
    apart, groups = apart.reshape(len(apart), -1), groups.reshape(-1)
    apart = apart[:, known := np.square(apart).sum(0) > 0]
    if not known.any():
        return float("nan")
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (draws, len(apart)))
    sums, squares, groups = signs @ apart, np.square(apart).sum(0), groups[known]
    left = np.maximum(squares - np.square(sums) / groups, 1e-12 * squares)
    largest = np.abs(sums / np.sqrt(groups / (groups - 1) * left)).max(1)
    return float(np.quantile(largest, level, method="higher"))


def loss_bound(
    loss: np.ndarray,
    *,
    codes: np.ndarray | None = None,
    most: float | None = None,
    alpha: float = 0.05,
) -> float:
    r"""Upper confidence bound on the mean of paired losses, each at most `most`.

    .. math:: \bar d + \frac1n \left(t \sqrt{V + m^2} + \tfrac m2
        + \frac{2t^2 + 1}{6} \max\left(0, \frac{T + m^3}{V + m^2}\right)\right)

    V and T are sums over clusters of the second and third powers of their sums of
    :math:`d - \bar d`, t is Student's quantile with one degree of freedom less than clusters, m is
    `most` times the mean size of a sample's cluster. So one more loss is counted that was not seen,
    as are the skewness of rare losses and that they are discrete: otherwise what lost nothing in
    ten samples would be sure to lose nothing.

    At most a share `alpha` of bounds lies below the mean of the population that samples, or
    clusters, are drawn from: for losses of -1, 0 and 1 that was at most .0505 of .05, from 30 to
    3 000 samples.

    Parameters
    ----------
    loss : (sample,)
        Such as 1 where only the network with every channel is right, -1 where only that with some.
    codes : (sample,), optional
        As in `mean_interval`.
    most
        None takes the largest absolute one that there is, which has no such guarantee.
    alpha
        Share of bounds that may be too low.

    Returns
    -------
    float
        NaN below two samples or clusters.

    References
    ----------
    Johnson 1978, "Modified t tests and confidence intervals for asymmetrical populations".
    doi:10.1080/01621459.1978.10480051
    """
    from scipy.stats import t

    loss = np.asarray(loss, dtype=np.float64)
    codes = np.arange(len(loss)) if codes is None else codes
    sizes = np.unique(codes, return_counts=True)[1]
    if len(sizes) < 2 or not np.isfinite(loss).all():
        return float("nan")
    sums = _sums(loss - loss.mean(), codes)
    m = (np.abs(loss).max() if most is None else most) * float((sizes**2).sum() / len(loss))
    quantile = float(t.ppf(1 - alpha, len(sizes) - 1))
    square = (sums**2).sum() * len(sizes) / (len(sizes) - 1) + m**2
    skew = max(0.0, ((sums**3).sum() + m**3) / square) if square > 0 else 0.0
    above = quantile * square**0.5 + m / 2 + (2 * quantile**2 + 1) / 6 * skew
    return float(loss.mean() + above / len(loss))


def crossed_interval(
    values: ArrayLike, *, codes: np.ndarray | None = None, level: float = 0.95
) -> Interval:
    r"""Interval of a mean over draws and samples, both of which could have been others.

    The variance is that of the draws' means over draws plus that of the samples' means over samples
    (or their clusters), with t of Satterthwaite's degrees of freedom; what is of a draw and a
    sample together counts in both, so that it is rather too wide.

    Parameters
    ----------
    values : (draw, sample)
        Such as whether a random set of channels is right.
    codes : (sample,), optional
        As in `mean_interval`.
    level
        As in `mean_interval`.

    Returns
    -------
    Interval
        Without axes; of a single draw that of its samples.
    """
    values = np.asarray(values, dtype=np.float64)
    parts = [mean_error(values.mean(0), codes=codes)]
    if len(values) > 1:
        parts.append(mean_error(values.mean(1)))
    squares = np.array([part.error**2 for part in parts])
    freedom = np.array([part.freedom for part in parts])
    total = squares.sum()
    joint = total**2 / max((squares**2 / freedom).sum(), np.finfo(float).tiny)
    half = _t(level, joint) * total**0.5
    return Interval(values.mean() - half, values.mean() + half)


def share_interval(
    right: ArrayLike, *, codes: np.ndarray | None = None, level: float = 0.95
) -> Interval:
    """Wilson's interval of a share of samples, such as an accuracy.

    Of clusters the number of samples is divided by the design effect (the variance of the share by
    clusters over that of single samples, at least 1), and t of the clusters less one takes the
    place of z. Where all samples are right, or none is, each cluster counts once. Of several labels
    for each sample take all as one row, and the samples, or their clusters, as its codes.

    Nominal .95 covers .91–.98 of shares of .5 to .99 of 10 or 30 samples, and .93–1 in 5 to 50
    clusters of 5 with a correlation of .5.

    Parameters
    ----------
    right : (sample, ...)
        Boolean, or 0 and 1; NaN are left out.
    codes, level
        As in `mean_interval`.

    Returns
    -------
    Interval
        (...) each, in [0, 1]; NaN without a sample, or with a single cluster of several.

    References
    ----------
    Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    doi:10.1080/01621459.1927.10502953

    Korn & Graubard 1998, "Confidence intervals for proportions with small expected number of
    positive counts estimated from survey data". Survey Methodology 24:193–201
    """
    found = mean_error(right, codes=codes)
    groups, alone = found.freedom + 1, found.mean * (1 - found.mean)
    with np.errstate(invalid="ignore", divide="ignore"):
        effective = np.minimum(alone / np.square(found.error), found.count)
    effective = np.where(alone > 0, effective, groups)
    single = groups == found.count  # nothing is clustered
    quantile = np.where(single, _z(level), _t(level, found.freedom))
    return wilson(found.mean, np.where(single, found.count, effective), quantile)


def wilson(share: ArrayLike, count: ArrayLike, quantile: ArrayLike) -> Interval:
    """Give Wilson's interval of shares of so many samples, which may be effective ones."""
    share, square = np.asarray(share, dtype=np.float64), np.square(quantile)
    with np.errstate(invalid="ignore", divide="ignore"):
        square = square / np.asarray(count, dtype=np.float64)
        centre = (share + square / 2) / (1 + square)
        half = np.sqrt(square * (share * (1 - share) + square / 4)) / (1 + square)
    return Interval(np.maximum(centre - half, 0), np.minimum(centre + half, 1))


def correlation_interval(
    a: ArrayLike, b: ArrayLike, *, codes: np.ndarray | None = None, level: float = 0.95
) -> Interval:
    r"""Interval of Pearson's r, or of the mean r of several outputs, for any distribution.

    Fisher's :math:`\operatorname{artanh} r` plus and minus the larger of two halves: t times its
    standard error when single samples, or clusters, are left out in turn (the jackknife); and
    :math:`z / \sqrt{n - 3}`, which holds for normal values. Outputs go together: their joint
    jackknife says how their coefficients depend on each other.

    Nominal .95 covers .96–.98 of normal, .92–.97 of t3 and .92–.99 of lognormal values, of 10 to
    300 samples; .92–.99 in 10 to 50 clusters of 5 with a correlation of .5; .95–.97 for the mean of
    3 or 10 outputs.

    Parameters
    ----------
    a, b : (sample,) or (sample, output)
        Finite.
    codes, level
        As in `mean_interval`.

    Returns
    -------
    Interval
        Without axes, in [−1, 1]; a point at |r| = 1; NaN below four samples or two clusters, or
        where one of the two is constant.

    References
    ----------
    Fisher 1921, "On the probable error of a coefficient of correlation deduced from a small
    sample". Metron 1:3–32

    Hinkley 1978, "Improving the jackknife with special reference to correlation estimation".
    doi:10.1093/biomet/65.1.13
    """
    a, b = _columns(a), _columns(b)
    groups = len(a) if codes is None else len(np.unique(codes))
    varies = (np.ptp(a, 0) > 0) & (np.ptp(b, 0) > 0) if len(a) else np.array([False])
    if len(a) < 4 or groups < 2 or not varies.all():
        return _nothing()
    r, without = _left_out(a, b, codes)
    if np.abs(r).min() == 1:
        return Interval(r.mean(), r.mean())
    slopes = 1 - np.square(r)
    # what is left may be constant, or lie on a line
    z = np.where(slopes > 0, np.arctanh(np.nan_to_num(without).clip(-_ALMOST, _ALMOST)), 0)
    covariance = (groups - 1) ** 2 / groups * np.atleast_2d(np.cov(z.T))
    normal = (_z(level) / _t(level, groups - 1)) ** 2 / (len(a) - 3)
    error = np.sqrt(_raised(covariance, np.where(slopes > 0, normal, 0), slopes)) / len(r)
    half = float(_t(level, groups - 1)) * error / (1 - r.mean() ** 2)
    return Interval(np.tanh(np.arctanh(r.mean()) - half), np.tanh(np.arctanh(r.mean()) + half))


def correlation_gain(
    a: ArrayLike,
    b: ArrayLike,
    score: ArrayLike,
    *,
    codes: np.ndarray | None = None,
    level: float = 0.95,
) -> Interval:
    r"""Interval of how much more a follows a score than b: of r(a, s) − r(b, s), on one sample.

    .. math:: \Delta - \sqrt{(r_a - l_a)^2 + (u_b - r_b)^2 - 2 c \, (r_a - l_a)(u_b - r_b)}

    and likewise above, of the limits :math:`l, u` of `correlation_interval` and the correlation c
    of the two coefficients when single samples, or clusters, are left out in turn.

    Nominal .95 covers .93–.97 of normal and t3 values, and .92–.96 of lognormal ones, of 10 to 300
    samples.

    Parameters
    ----------
    a, b, score : (sample,)
        Finite.
    codes, level
        As in `mean_interval`.

    Returns
    -------
    Interval
        Without axes, in [−2, 2]; NaN where one of the two has none.

    References
    ----------
    Zou 2007, "Toward using confidence intervals to compare correlations".
    doi:10.1037/1082-989X.12.4.399
    """
    limits = [correlation_interval(one, score, codes=codes, level=level) for one in (a, b)]
    if np.isnan(limits).any():
        return _nothing()
    both, twice = (np.stack(pair, 1) for pair in ((a, b), (score, score)))
    r, without = _left_out(_columns(both), _columns(twice), codes)
    spread = without - without.mean(0)
    norm = np.sqrt(np.square(spread).sum(0).prod())
    together = float(spread.prod(1).sum() / norm) if norm > 0 else 0.0
    (low_a, high_a), (low_b, high_b) = limits
    down, up = (
        _mover(r[0] - low_a, high_b - r[1], together),
        _mover(high_a - r[0], r[1] - low_b, together),
    )
    return Interval(r[0] - r[1] - down, r[0] - r[1] + up)


def _mover(one: np.ndarray, other: np.ndarray, together: float) -> np.ndarray:
    return np.sqrt(np.maximum(one**2 + other**2 - 2 * together * one * other, 0))


def auroc_interval(
    scores: ArrayLike,
    positive: ArrayLike,
    *,
    codes: np.ndarray | None = None,
    level: float = 0.95,
) -> Interval:
    r"""Interval of the area under the ROC curve, or of the mean area of several outputs.

    All areas A with

    .. math:: |\hat A - A| \le z \sqrt{s V(A)}, \quad
              V(A) = \frac{A (1 - A)}{m n}
              \left[1 + k \frac{1 - A}{2 - A} + k \frac{A}{1 + A}\right]

    of m positive and n negative samples, k being their mean less 1. This is Newcombe's fifth
    method: V is that of exponential scores. s is how much larger DeLong's variance is at the
    estimate (of clusters Obuchowski's), with t of Welch's degrees of freedom for z, and at least 1:
    so the interval is never without width. Outputs go together by the covariance of their areas. A
    single positive sample, or cluster of them, has no variance of its own: V stands for it, and its
    shape is an assumption. Where all areas are 0 or 1, clusters count once.

    What it covers, and whose methods these are, says `ifa.evaluate.auroc_interval`; the same in 5
    to 50 clusters of 5.

    Parameters
    ----------
    scores : (sample,) or (sample, output)
        Larger for positive samples.
    positive : as scores
        Boolean.
    codes, level
        As in `mean_interval`.

    Returns
    -------
    Interval
        Without axes, in [0, 1]; NaN where an output has samples of one kind only, or a score is
        NaN.
    """
    scores, yes = _columns(scores), _columns(positive) == 1
    kinds = np.stack([yes, ~yes])
    counts = kinds.sum(1).astype(np.float64)  # (kind, output)
    if not counts.size or counts.min() == 0 or np.isnan(scores).any():
        return _nothing()
    area, pull = _placements(scores, kinds, counts)
    groups = np.stack([(_sums(kind, codes) > 0).sum(0) for kind in kinds])
    # what one kind varies by is not known from a single cluster
    pull = pull * np.sqrt(np.where(groups > 1, groups / np.maximum(groups - 1, 1), 0))[:, None]
    parts = np.stack([np.square(_sums(one, codes)).sum(0) for one in pull])
    freedom = parts.sum(0) ** 2 / np.maximum(
        (parts**2 / np.maximum(groups - 1, 1)).sum(0), np.finfo(float).tiny
    )
    wider = _t(level, np.maximum(freedom, 1)) / _z(level)
    joint = _sums(pull.sum(0), codes) * np.where(parts.sum(0) > 0, wider, 0)
    assumed, flat = _newcombe(area, counts), not (area * (1 - area)).any()
    used = (groups if flat else counts).mean(1)
    spread = _raised(joint.T @ joint, assumed, np.ones(len(area))) / len(area) ** 2
    scale = 1.0 if flat else spread / float(_newcombe(area.mean(), used))
    return _inverted(area.mean(), used, _z(level) * scale**0.5)


def _placements(
    scores: np.ndarray, kinds: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return areas, and by how much each sample pulls at them: (kind, sample, output)."""
    from scipy.stats import rankdata

    ranks = rankdata(scores, axis=0)
    own = np.zeros(kinds.shape)
    for kind, output in np.ndindex(2, scores.shape[1]):
        chosen = kinds[kind, :, output]
        own[kind, chosen, output] = rankdata(scores[chosen, output])
    above = (ranks - own) / counts[::-1, None]  # share of the other kind below each sample
    places = np.where(kinds, np.stack([above[0], 1 - above[1]]), 0)
    area = places[0].sum(0) / counts[0]
    return area, np.where(kinds, places - area, 0) / counts[:, None]


def _newcombe(area: ArrayLike, counts: np.ndarray) -> np.ndarray:
    """Give the variance of areas of exponential scores, both kinds as many as their mean."""
    area, half = np.asarray(area), counts.mean(0) - 1
    shape = 1 + half * (1 - area) / (2 - area) + half * area / (1 + area)
    return area * (1 - area) * shape / counts.prod(0)


def _inverted(area: float, counts: np.ndarray, width: float) -> Interval:
    """Find the areas that are as far from the estimate as they vary."""
    from scipy.optimize import brentq

    def beyond(one: float, way: int) -> float:
        return way * (area - one) - width * float(np.sqrt(_newcombe(one, counts)))

    # nothing varies at 0 and at 1, which are no limits of an estimate there
    low = 0.0 if area == 0 else brentq(beyond, 0, min(area, _ALMOST), (1,))
    high = 1.0 if area == 1 else brentq(beyond, max(area, 1 - _ALMOST), 1, (-1,))
    return Interval(np.array(low), np.array(high))


def _left_out(
    a: np.ndarray, b: np.ndarray, codes: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return Pearson's r, (output,), and with each cluster left out, (cluster, output)."""
    a, b = a - a.mean(0), b - b.mean(0)
    parts = [np.ones_like(a), a, b, a * a, b * b, a * b]
    wholes = [part.sum(0) for part in parts]
    lefts = [w - _sums(p, codes) for w, p in zip(wholes, parts, strict=True)]
    return _pearson(*wholes), _pearson(*lefts)


def _pearson(
    n: np.ndarray, a: np.ndarray, b: np.ndarray, aa: np.ndarray, bb: np.ndarray, ab: np.ndarray
) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        norm = np.sqrt(np.maximum(aa - a * a / n, 0) * np.maximum(bb - b * b / n, 0))
        return np.clip((ab - a * b / n) / norm, -1, 1)


def _raised(covariance: np.ndarray, least: np.ndarray, weights: np.ndarray) -> float:
    """Return the variance of a weighted sum; each variance is at least so much."""
    own = np.diagonal(covariance)
    size = np.where(own > 0, own, 1)
    related = np.where(np.eye(len(own)) > 0, 1, covariance / np.sqrt(np.outer(size, size)))
    pulls = weights * np.sqrt(np.maximum(own, least))
    return float(pulls @ related @ pulls)


def _apart(
    values: ArrayLike, codes: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return means, counts, sums of what is apart from the means by cluster, and their number."""
    values = np.asarray(values, dtype=np.float64)
    known = np.isfinite(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        count = known.sum(0)
        mean = np.where(known, values, 0).sum(0) / count
        apart = _sums(np.where(known, values - mean, 0), codes)
    return mean, count, apart, (_sums(known, codes) > 0).sum(0)


def _sums(values: np.ndarray, codes: np.ndarray | None) -> np.ndarray:
    """Sum over the samples of each cluster: (cluster, ...)."""
    return values if codes is None else cluster_sums(values, codes)


def _columns(values: ArrayLike) -> np.ndarray:
    """Take (sample,) or (sample, output) as float64 (sample, output)."""
    values = np.asarray(values, dtype=np.float64)
    return values if values.ndim > 1 else values[:, None]


def _nothing() -> Interval:
    return Interval(np.array(np.nan), np.array(np.nan))


def _z(level: float) -> float:
    from scipy.stats import norm

    return float(norm.ppf(0.5 + level / 2))


def _t(level: float, freedom: ArrayLike) -> np.ndarray:
    from scipy.stats import t

    return np.asarray(t.ppf(0.5 + level / 2, np.maximum(freedom, 1)))
