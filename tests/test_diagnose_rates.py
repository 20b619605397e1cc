"""How often a diagnosis alarms where nothing is wrong, and what it must find: findings F-S.

A few draws each, enough to tell the rate from what it was; `tests/calibration` has the table.
"""

import numpy as np
import pytest
import xarray as xr
from drawn_runs import drawn_run
from scipy.stats import binom, ks_2samp, spearmanr, ttest_ind, ttest_rel

import ifa
from ifa.diagnose import concordance, smirnov, strata

ALPHA = 0.05


def at_most(rate, alarms, draws):
    """Tell whether so many alarms are not surely more often than a rate."""
    return binom.sf(alarms - 1, draws, rate) > 1e-3


def clusters_of(rng, patients=20, slices=5, channels=20):
    """Draw importances with a correlation of .5 between the slices of a patient."""
    patient = np.repeat(np.arange(patients), slices)
    own = rng.standard_normal((patients * slices, channels))
    return rng.standard_normal((patients, channels))[patient] + own, patient


def any_shift(found):
    return any(bool(found[f"{name}alarm"].any()) for name in ("", "level_", "score_", "right_"))


def test_small_samples_do_not_shift_more_often_than_promised():
    # one channel, nothing to correct: the law for many samples alarmed in .12 at n = 8
    rng, alarms = np.random.default_rng(0), 0
    for _ in range(400):
        found = smirnov.distances(rng.standard_normal((16, 1)), np.arange(16) < 8)[0]
        alarms += int(smirnov.chance(found, 8, 8)[0] <= ALPHA)
    assert at_most(ALPHA, alarms, 400)


def test_the_chance_of_a_distance_is_exact():
    rng = np.random.default_rng(0)
    for ours, theirs in ((8, 8), (9, 13), (40, 25)):
        a, b = rng.standard_normal((ours, 3)), rng.standard_normal((theirs, 3)) + 0.5
        second = np.repeat([False, True], [ours, theirs])
        found, _ = smirnov.distances(np.concatenate([a, b]), second)
        expected = [ks_2samp(x, y, method="exact") for x, y in zip(a.T, b.T, strict=True)]
        np.testing.assert_allclose(found, [one.statistic for one in expected])
        np.testing.assert_allclose(
            smirnov.chance(found, ours, theirs), [one.pvalue for one in expected]
        )
    assert smirnov.chance(np.array([1.0]), 8, 8)[0] == pytest.approx(2 / 12870)
    least = smirnov.least(0.05, 8, 8)
    assert smirnov.chance(np.array([least]), 8, 8)[0] <= 0.05


def test_another_mix_of_classes_is_no_other_correctness():
    # Fisher's test over all samples alarmed in .55
    rng, alarms = np.random.default_rng(0), 0
    for _ in range(100):
        label = rng.random(400) < np.repeat([0.2, 0.8], 200)
        right = rng.random(400) < np.where(label, 0.6, 0.95)
        second = np.arange(400) >= 200
        alarms += int(strata.exact(right, second, label) <= ALPHA)
    assert at_most(ALPHA, alarms, 100)
    worse = rng.random(400) < np.where(second, 0.6, 0.95)
    assert strata.exact(worse, second, label) < 1e-4


def test_one_label_is_fishers_test():
    from scipy.stats import fisher_exact

    right, second = np.arange(30) % 3 == 0, np.arange(30) >= 14
    right[second] |= np.arange(16) % 2 == 0
    table = [[int((right & side).sum()), int((~right & side).sum())] for side in (second, ~second)]
    found = strata.exact(right, second, np.zeros(30))
    assert found == pytest.approx(fisher_exact(table).pvalue)


@pytest.mark.parametrize("given", [True, False])
def test_slices_of_patients_are_no_shift(given):
    # taken for independent, .74 of the runs alarmed
    rng, alarms = np.random.default_rng(0), 0
    for _ in range(12):
        runs, patients = [], []
        for name in "ab":
            values, patient = clusters_of(rng)
            patients.append([f"{name}{one}" for one in patient])
            runs.append(drawn_run(values, np.zeros(100, dtype=int)))
        labels = patients if given else [range(100)] * 2
        alarms += any_shift(ifa.diagnose.shift(*runs, cluster=labels, draws=99))
    assert at_most(ALPHA, alarms, 12) == given


def test_patients_that_do_shift_are_found_whoever_is_in_both_runs():
    rng = np.random.default_rng(0)
    first, patient = clusters_of(rng)
    again = first + rng.standard_normal(first.shape)
    for names, second in ((patient + 100, clusters_of(rng)[0]), (patient, again)):
        second[:, 3] += 3
        runs = drawn_run(first, [0] * 100, cluster=patient), drawn_run(second, [0] * 100)
        found = ifa.diagnose.shift(*runs, cluster=(patient, names))
        assert np.flatnonzero(found["alarm"]).tolist() == [3]
        assert float(found["ks_detectable"].max()) < float(found["ks"].max())
    with pytest.raises(ValueError, match=r"shift: expected cluster to be a pair"):
        ifa.diagnose.shift(*runs, cluster=np.asarray(patient))


def test_correctness_has_an_alarm_and_intervals():
    rng = np.random.default_rng(0)
    label = np.arange(200) % 2
    runs = [
        drawn_run(rng.standard_normal((200, 3)), label, np.where(rng.random(200) < p, label, 9))
        for p in (0.95, 0.6)
    ]
    found = ifa.diagnose.shift(*runs)
    assert bool(found["right_alarm"])
    low, high = found["right_b_interval"].values
    assert low < float(found["right_b"]) < high < float(found["right_a_interval"][0])


def test_spearman_within_a_target_and_its_variance():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((60, 3))
    values[:, 1] = values[:, 0] + 0.3 * values[:, 1]
    values[:, 2] = np.maximum(values[:, 0] + 0.3 * values[:, 2], 0)  # ties
    ranks = concordance.ranks_of(values, np.arange(60))
    r = concordance.correlations([ranks], np.zeros(3, dtype=bool))
    others = np.array([1, 2])
    np.testing.assert_allclose(r[0, 1:], [spearmanr(values[:, 0], values[:, n])[0] for n in others])
    variance = concordance.variances([ranks], np.arange(60), r, 0, others)
    left = np.array(
        [
            [spearmanr(np.delete(values[:, 0], n), np.delete(values[:, k], n))[0] for k in others]
            for n in range(60)
        ]
    )
    np.testing.assert_allclose(variance, 60 * 59 / 60 * left.var(0), rtol=0.06)


@pytest.mark.parametrize("law", ["normal", "lognormal", "t3", "listed"])
def test_pairs_at_the_threshold_do_not_say_the_same_more_often_than_promised(law):
    # .53 to .94 of the runs alarmed with heavy tails, .81 with ten listed targets
    rng, alarms = np.random.default_rng(0), 0
    draw = {
        "lognormal": lambda *n: np.exp(rng.standard_normal(n)),
        "t3": lambda *n: rng.standard_t(3, n),
    }.get(law, lambda *n: rng.standard_normal(n))
    for _ in range(25):
        shape = (10, 60) if law == "listed" else (60,)
        common = draw(60, 5).repeat(2, axis=1)
        values = np.sqrt(0.95) * common + np.sqrt(0.05) * draw(60, 10)
        if law == "listed":
            values = np.broadcast_to(values, (10, 60, 10))
        found = ifa.diagnose.redundancy(drawn_run(values, np.zeros(60, dtype=int)))
        alarms += int(found["alarm"].any())
    assert shape[-1] == 60
    assert at_most(ALPHA, alarms, 25)


def test_redundancy_says_when_it_cannot_alarm_and_counts_clusters():
    values = np.random.default_rng(0).standard_normal((200, 1)).repeat(12, axis=1)
    label = np.zeros(200, dtype=int)
    found = ifa.diagnose.redundancy(drawn_run(values, label))
    assert found["alarm"].values[0, 1:].all()
    assert 0.95 < found.attrs["detectable"] < 1
    few = ifa.diagnose.redundancy(drawn_run(values, label), cluster=np.arange(200) // 20)
    assert few.attrs["samples"] == 10
    assert few.attrs["detectable"] > 1
    assert not few["alarm"].any()
    assert "cannot" in ifa.diagnose.summary(few)


def rectified(rng, samples, channels=20):
    """Draw channels of a network: none below 0, and correlated by .8 in blocks of five."""
    blocks = rng.standard_normal((samples, channels // 5)).repeat(5, axis=1)
    values = np.sqrt(0.8) * blocks + np.sqrt(0.2) * rng.standard_normal((samples, channels))
    return np.maximum(values, 0)


def test_outliers_on_correlated_rectified_channels_are_found():
    # nothing alarmed, at 128 standard deviations either
    rng, found = np.random.default_rng(0), 0
    for _ in range(10):
        values = rectified(rng, 200)
        values[0] += 8 * values.std(0)
        result = ifa.diagnose.outliers(drawn_run(values, np.zeros(200, dtype=int)))
        assert int(result["position"][0]) == 0
        found += bool(result["alarm"][0])
        assert float(result["distance_detectable"][0]) > 0
    assert found >= 4


@pytest.mark.parametrize("law", ["rectified", "t3", "level"])
def test_long_tails_are_no_outliers(law):
    # .09 to .18 of the runs alarmed; .47 by a level of long tails
    rng, alarms = np.random.default_rng(1), 0
    for _ in range(25):
        values = {
            "rectified": lambda: rectified(rng, 60),
            "t3": lambda: rng.standard_t(3, (60, 20)),
            "level": lambda: rng.standard_normal((60, 20)) / 9 + rng.standard_t(2, (60, 1)),
        }[law]()
        found = ifa.diagnose.outliers(drawn_run(values, np.zeros(60, dtype=int)))
        alarms += int(found["alarm"].any())
    assert at_most(ALPHA, alarms, 25)


def test_constant_and_copied_channels_raise_no_warning():
    values = np.zeros((60, 6))
    values[:30, 0] = values[:30, 1] = np.arange(30)
    label = np.arange(60) // 30
    found = ifa.diagnose.outliers(drawn_run(values, label))
    assert not found["alarm"].any()
    clustered = ifa.diagnose.outliers(drawn_run(values, label), cluster=np.arange(60), minimum=30)
    xr.testing.assert_identical(found, clustered)
    with pytest.raises(ValueError, match="at least 20 samples or clusters, got"):
        ifa.diagnose.outliers(drawn_run(values, label), cluster=np.arange(60) // 5)


def two_runs(rng, samples=30, targets=1, channels=20, shift=0.0, pairs=None):
    """Draw two runs of one truth, or the second of them shifted by some."""
    label = np.arange(samples * targets) % targets
    first = rng.standard_normal((len(label), channels))
    second = rng.standard_normal(first.shape) if pairs is None else first + pairs
    names = [f"a{n}" for n in range(len(label))], [f"b{n}" for n in range(len(label))]
    runs = drawn_run(first, label, ids=names[0]), drawn_run(second + shift, label, ids=names[1])
    return runs if pairs is None else (runs[0], drawn_run(second + shift, label, ids=names[0]))


def test_halves_of_the_channels_that_differ_either_way_are_found():
    # the bias alone had p = .995
    found = ifa.diagnose.agreement(
        *two_runs(np.random.default_rng(0), shift=np.where(np.arange(20) % 2, 2.0, -2.0))
    )
    assert found["alarm"].all()
    assert found["channel_alarm"].all()
    assert float(found["bias_p_value"][0]) > ALPHA
    assert found["answer"].values.tolist() == ["differ"]
    assert "channels that differ: 0, 1" in ifa.diagnose.summary(found)


def test_the_same_samples_through_two_checkpoints_are_pairs():
    # silent at .3 sd, where pairs tell a difference of .05
    rng = np.random.default_rng(0)
    runs = two_runs(rng, 60, shift=0.05, pairs=0.1 * rng.standard_normal((60, 20)))
    found = ifa.diagnose.agreement(*runs)
    assert float(found["p_adjusted"][0]) < 1e-3
    assert int(found["count_both"][0]) == 60
    expected = ttest_rel(*(run["samples/layer"]["importance"].values for run in runs[::-1]))
    np.testing.assert_allclose(found["channel_p_value"][0], expected.pvalue)
    other = ifa.diagnose.agreement(*two_runs(np.random.default_rng(0)))
    importance = [run["samples/layer"]["importance"] for run in two_runs(np.random.default_rng(0))]
    welch = ttest_ind(*importance, equal_var=False)
    np.testing.assert_allclose(other["channel_p_value"][0], welch.pvalue)
    assert int(other["count_both"][0]) == 0


@pytest.mark.parametrize("samples", [3, 30])
def test_two_runs_of_one_truth_do_not_differ(samples):
    # .40 of the runs alarmed with 3 samples in each of 10 classes
    rng, alarms = np.random.default_rng(0), 0
    for _ in range(25):
        alarms += bool(ifa.diagnose.agreement(*two_runs(rng, samples, 10))["alarm"].any())
    assert at_most(ALPHA, alarms, 25)


def test_the_interval_of_the_bias_is_that_of_samples():
    # channels taken for draws, it covered .38 in blocks of channels and .09 in one
    rng, covers = np.random.default_rng(0), 0
    for _ in range(40):
        shared = [rng.standard_normal((40, 1)) + rng.standard_normal((40, 20)) / 2 for _ in "ab"]
        runs = [
            drawn_run(values, np.zeros(40, dtype=int), ids=[f"{name}{n}" for n in range(40)])
            for name, values in zip("ab", shared, strict=True)
        ]
        low, high = ifa.diagnose.agreement(*runs)["bias_interval"].values[0]
        covers += low <= 0 <= high
    assert at_most(0.05, 40 - covers, 40)


def test_patients_are_what_agreement_counts():
    # .20 of the runs alarmed
    rng, alarms = np.random.default_rng(0), 0
    for _ in range(25):
        (first, patient), (second, _) = clusters_of(rng), clusters_of(rng)
        label = np.zeros(100, dtype=int)
        runs = drawn_run(first, label), drawn_run(second, label)
        found = ifa.diagnose.agreement(*runs, cluster=(patient, patient + 100))
        alarms += bool(found["alarm"].any())
    assert at_most(ALPHA, alarms, 25)


def test_runs_that_agree_are_shown_to_and_few_samples_say_nothing():
    rng = np.random.default_rng(0)
    level = np.arange(20.0)
    many = [drawn_run(level + rng.standard_normal((400, 20)), [0] * 400) for _ in "ab"]
    found = ifa.diagnose.agreement(*many, cluster=(range(400), range(400, 800)))
    assert found["answer"].values.tolist() == ["agree"]
    few = [run.copy() for run in two_runs(rng, 4)]
    assert ifa.diagnose.agreement(*few)["answer"].values.tolist() == ["cannot be said"]
    alone = ifa.diagnose.agreement(*(run["layer"].to_dataset() for run in few))
    assert alone["answer"].values.tolist() == ["cannot be said"]
    with pytest.raises(ValueError, match="the importance of every sample for cluster="):
        ifa.diagnose.agreement(*(run["layer"].to_dataset() for run in few), cluster=([], []))


def test_one_of_many_targets_that_tells_the_nuisance_is_found():
    # above 25 targets at 499 permutations nothing could be an alarm: p after Holm was .1 at 9 sd
    rng = np.random.default_rng(0)
    label, nuisance = np.arange(1200) % 50, np.arange(1200) // 50 % 2
    values = rng.standard_normal((1200, 6))
    values[label == 7, 2] += 9 * nuisance[label == 7] + 5
    found = ifa.diagnose.confounders(drawn_run(values, label), nuisance, draws=99)
    assert np.argwhere(found["alarm"].values).tolist() == [[7, 2]]
    assert found["probe_alarm"].values.nonzero()[0].tolist() == [7]
    assert float(found["information"][7, 2]) > float(found["information_detectable"][7, 2])
    with pytest.raises(ValueError, match="expected draws of at least 19 for alarms"):
        ifa.diagnose.confounders(drawn_run(values, label), nuisance, draws=18)


@pytest.mark.parametrize("given", [True, False])
def test_the_site_of_patients_is_not_told_by_their_slices(given):
    # taken for independent, the probe alarmed in .99 of the runs
    rng, alarms = np.random.default_rng(0), np.zeros(2, dtype=int)
    for seed in range(15):
        values, patient = clusters_of(rng)
        owner = patient if given else range(100)
        run = drawn_run(values, np.zeros(100, dtype=int), cluster=owner)
        site = rng.permutation(np.arange(20) % 2)[patient]
        found = ifa.diagnose.confounders(run, site, draws=99, seed=seed)
        alarms += [bool(found["alarm"].any()), bool(found["probe_alarm"].any())]
    assert at_most(ALPHA, alarms[1], 15) == given
    assert at_most(ALPHA, alarms[0], 15) or not given


def test_a_mark_on_some_slices_of_patients_is_found():
    rng = np.random.default_rng(0)
    values, patient = clusters_of(rng)
    mark = rng.random(100) < 0.4
    values[mark, 3] += 3
    run = drawn_run(values, np.zeros(100, dtype=int), cluster=patient)
    found = ifa.diagnose.confounders(run, mark, important=1.0, draws=99)
    assert np.flatnonzero(found["alarm"][0]).tolist() == [3]
    assert bool(found["probe_alarm"][0])
