"""Intervals against scipy and closed forms; how often they cover is in tests/calibration."""

import numpy as np
import pytest
from scipy import stats

from ifa.intervals import (
    auroc_interval,
    correlation_interval,
    joint_quantile,
    mean_interval,
    share_interval,
)

RNG = np.random.default_rng(0)
LEVELS = [0.9, 0.95]


def clusters(count, size, *shape, rng, share=0.5):
    """Draw normal values of clusters whose samples correlate, and the clusters' codes."""
    codes = np.repeat(np.arange(count), size)
    common, own = rng.normal(size=(count, *shape)), rng.normal(size=(count * size, *shape))
    return codes, share**0.5 * common[codes] + (1 - share) ** 0.5 * own


def covered(interval, truth):
    return interval.low <= truth <= interval.high


@pytest.mark.parametrize("level", LEVELS)
def test_intervals_of_means_equal_scipy_and_leave_nan_out(level):
    values = RNG.lognormal(size=(9, 4, 2))
    values[2:5, 1] = np.nan
    found = mean_interval(values, level=level)
    for place in np.ndindex(4, 2):
        one = values[:, *place][np.isfinite(values[:, *place])]
        want = stats.t.interval(level, len(one) - 1, one.mean(), stats.sem(one))
        np.testing.assert_allclose([part[place] for part in found], want)


def test_one_sample_or_cluster_has_no_interval():
    for found in (
        mean_interval(np.ones((1, 3))),
        mean_interval(np.ones((4, 3)), codes=np.zeros(4, int)),
        mean_interval(np.full((4, 3), np.nan)),
    ):
        assert np.isnan(found).all()
    for found in (
        share_interval([]),
        correlation_interval([1, 2, 3], [1, 2, 4]),
        correlation_interval(np.arange(9), np.ones(9)),
        auroc_interval(np.arange(5), np.ones(5)),
        auroc_interval([], []),
        auroc_interval([1, 2, np.nan], [0, 1, 1]),
    ):
        assert np.isnan(found).all()


def test_clusters_of_one_size_have_the_interval_of_their_means():
    codes, values = clusters(8, 3, 2, rng=RNG)
    order = RNG.permutation(24)
    found = mean_interval(values[order], codes=7 * codes[order])
    np.testing.assert_allclose(found, mean_interval(values.reshape(8, 3, 2).mean(1)))


def test_clusters_of_one_sample_change_nothing():
    a, b = RNG.normal(size=(2, 12))
    yes, codes = b > 0.3, np.arange(12) + 5
    for with_codes, without in (
        (mean_interval(a, codes=codes), mean_interval(a)),
        (share_interval(yes, codes=codes), share_interval(yes)),
        (correlation_interval(a, b, codes=codes), correlation_interval(a, b)),
        (auroc_interval(a, yes, codes=codes), auroc_interval(a, yes)),
    ):
        np.testing.assert_allclose(with_codes, without)


@pytest.mark.parametrize("level", LEVELS)
def test_intervals_of_shares_are_wilsons(level):
    for count, of in ((0, 4), (3, 4), (90, 90), (17, 200)):
        right = np.arange(of) < count
        want = stats.binomtest(count, of).proportion_ci(level, method="wilson")
        np.testing.assert_allclose(share_interval(right, level=level), want, atol=1e-12)
        # each five times over: no more is known
        again = share_interval(np.repeat(right, 5), codes=np.repeat(np.arange(of), 5))
        assert again.high - again.low >= np.ptp(share_interval(right))


def test_outputs_that_are_alike_are_one_output():
    a, b = RNG.normal(size=(2, 20, 1)).repeat(3, axis=2)
    np.testing.assert_allclose(
        correlation_interval(a, b), correlation_interval(a[:, 0], b[:, 0]), rtol=1e-6
    )
    np.testing.assert_allclose(
        auroc_interval(a, b > 0), auroc_interval(a[:, 0], b[:, 0] > 0), rtol=1e-6
    )


def test_outputs_that_differ_are_surer_together():
    a, noise = RNG.normal(size=(2, 60, 10))
    b = a + noise
    together, alone = correlation_interval(a, b), correlation_interval(a[:, 0], b[:, 0])
    assert np.ptp(together) < np.ptp(alone) / 2
    assert np.ptp(auroc_interval(a, b > 0)) < np.ptp(auroc_interval(a[:, 0], b[:, 0] > 0)) / 2


def test_an_area_of_newcombes_paper():
    """Normal scores without ties, as many of both kinds: his fifth method, by its formula."""
    scores = np.r_[
        stats.norm.ppf((np.arange(40) + 0.5) / 40) + 1, stats.norm.ppf((np.arange(40) + 0.5) / 40)
    ]
    positive = np.arange(80) < 40
    found = auroc_interval(scores, positive)
    area = stats.mannwhitneyu(scores[:40], scores[40:]).statistic / 1600
    for end in found:
        k = 39
        shape = 1 + k * (1 - end) / (2 - end) + k * end / (1 + end)
        distance = abs(area - end) / np.sqrt(end * (1 - end) * shape / 1600)
        assert distance == pytest.approx(1.96, rel=0.06)
        assert distance >= 1.9599


@pytest.mark.parametrize("positives", [1, 2, 20])
def test_an_area_of_one_has_an_interval_with_width(positives):
    scores = np.arange(40)
    low, high = auroc_interval(scores, scores >= 40 - positives)
    assert high == 1
    assert 0.3 < low < (0.6, 0.8, 0.95)[(positives > 1) + (positives > 2)]
    turned = auroc_interval(-scores, scores >= 40 - positives)
    np.testing.assert_allclose(turned, (0, 1 - low), atol=1e-9)


def test_a_perfect_correlation_is_a_point_and_a_line_but_for_one_is_not():
    a = np.arange(6.0)
    assert correlation_interval(a, 2 * a) == (1, 1)
    low, high = correlation_interval(a, np.r_[a[:5], -9])
    assert low < 0 < 0.9 < high


@pytest.mark.parametrize("kind", ["normal", "t3", "lognormal"])
def test_correlations_are_covered_beyond_normality(kind):
    """Fisher's alone covers .75 of t3 and .65–.75 of lognormal pairs (F-S9)."""
    rng = np.random.default_rng(3)
    hits, truth = 0, 0.8 if kind != "lognormal" else (np.exp(0.8) - 1) / (np.e - 1)
    for _ in range(200):
        a, rest = rng.normal(size=(2, 30))
        b = 0.8 * a + 0.6 * rest
        if kind == "t3":
            a, b = np.stack([a, b]) * np.sqrt(3 / rng.chisquare(3, 30))
        if kind == "lognormal":
            a, b = np.exp(a), np.exp(b)
        hits += covered(correlation_interval(a, b), truth)
    assert hits >= 176  # of 200; .95 − 4 sd


def test_areas_near_one_are_covered():
    """DeLong's interval covers .7–.8 here, and has no width in a sixth of the draws (F-S10)."""
    rng = np.random.default_rng(3)
    apart = stats.norm.ppf(0.95) * 2**0.5
    found = [
        auroc_interval(np.r_[rng.normal(size=10) + apart, rng.normal(size=40)], np.arange(50) < 10)
        for _ in range(200)
    ]
    assert sum(covered(one, 0.95) for one in found) >= 180
    assert min(np.ptp(one) for one in found) > 0.02


def test_clusters_are_covered():
    """Single samples taken for independent cover .71 of means, .84 of r (F-S1)."""
    rng = np.random.default_rng(3)
    hits = np.zeros(4)
    for _ in range(150):
        codes, pair = clusters(20, 5, 2, rng=rng)
        a, b = pair.T
        own, area = rng.random(100) < 0.4, stats.norm.cdf(1 / 2**0.5)
        hits += (
            covered(mean_interval(a, codes=codes), 0),
            covered(share_interval(a < 1, codes=codes), stats.norm.cdf(1)),
            covered(correlation_interval(a, b, codes=codes), 0),
            covered(auroc_interval(b + own, own, codes=codes), area),
        )
    assert (hits >= 132).all(), hits


def test_joint_intervals_hold_all_means_at_once():
    rng = np.random.default_rng(3)
    each = together = 0
    for _ in range(100):
        values = rng.normal(size=(20, 30)) + rng.normal(size=(20, 1))
        low, high = mean_interval(values)
        each += ((low <= 0) & (high >= 0)).all()
        low, high = mean_interval(values, jointly=True, draws=400)
        together += ((low <= 0) & (high >= 0)).all()
    assert each < 80
    assert together >= 86
    same = np.repeat(rng.normal(size=(40, 1)), 5, 1)
    assert joint_quantile(same) == pytest.approx(stats.t.ppf(0.975, 39), rel=0.05)
    assert np.isnan(joint_quantile(np.ones((3, 2))))
