"""Samples that belong together are drawn, permuted and counted as wholes."""

import re
import warnings
from functools import partial

import numpy as np
import pytest
import torch

import ifa
from ifa import DependentSamples
from ifa.clusters import (
    cluster_means,
    cluster_sizes,
    cluster_sums,
    codes_of,
    drawn,
    heed_dependence,
    names_of,
    same_within,
)
from ifa.diagnose.permuting import exchanged
from ifa.intervals import share_interval

CODES = np.array([3, 0, 3, 7, 0, 3])  # as of some rows of a larger table: with gaps


@pytest.mark.parametrize(
    ("labels", "names", "places"),
    [
        (["b", "a", "b"], ("a", "b"), [1, 0, 1]),
        ([10, 9, 10], ("9", "10"), [1, 0, 1]),
        (np.array(["x", "x", "y"], dtype=object), ("x", "y"), [0, 0, 1]),
        ([b"x", b"x", b"y"], ("x", "y"), [0, 0, 1]),
    ],
)
def test_labels_are_numbered_in_order(labels, names, places):
    found, codes = names_of("here", "cluster", labels, 3)
    assert found == names
    assert codes.dtype == np.int64
    assert codes.tolist() == places == codes_of("here", labels, 3).tolist()


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["a", "b"], "one cluster label for each of 3 samples"),
        ([["a"], ["b", "c"], ["d"]], "one cluster label for each of 3 samples"),
        (["a", None, "b"], "got None for sample 1"),
        ([1.0, float("nan"), 2.0], "got nan for sample 1"),
        (np.array(["2020-01-01", "NaT", "NaT"], "M8[ns]"), "for sample 1"),
        (["1", 1, 2], "told apart in text"),
    ],
)
def test_labels_that_cannot_be_are_refused(labels, said):
    with pytest.raises(ValueError, match=said):
        codes_of("here", labels, 3)


def test_without_clusters_each_sample_is_its_own():
    assert codes_of("here", None, 4).tolist() == [0, 1, 2, 3]


def test_sums_sizes_and_means_go_in_the_order_of_codes():
    values = np.arange(12.0).reshape(6, 2)
    assert cluster_sizes(CODES).tolist() == [2, 3, 1]
    assert cluster_sums(values, CODES).tolist() == [[10, 12], [14, 17], [6, 7]]
    assert cluster_means(values, CODES)[0].tolist() == [5, 6]


def test_as_many_clusters_are_drawn_anew():
    rng = np.random.default_rng(0)
    counts = drawn(3, 50, rng)
    assert counts.shape == (50, 3)
    assert (counts.sum(1) == 3).all()


def exchanges(labels, codes, draws, rng):
    """Draw labels that have changed places, (draw, sample)."""
    return labels[exchanged(labels, codes, np.zeros(len(codes)), draws, rng)]


def test_a_label_of_whole_clusters_is_permuted_between_them():
    codes, rng = np.repeat(np.arange(6), [1, 2, 3, 4, 5, 6]), np.random.default_rng(0)
    labels = np.array(["a", "a", "b", "b", "b", "c"])[codes]
    seen = set()
    for moved in exchanges(labels, codes, 50, rng):
        assert same_within(moved, codes).all()
        assert sorted(moved[[0, 1, 3, 6, 10, 15]]) == ["a", "a", "b", "b", "b", "c"]
        seen.add(tuple(moved))
    assert len(seen) > 20


def test_a_label_that_varies_in_a_cluster_is_permuted_in_it():
    codes = np.array([0, 0, 0, 1, 1, 1, 2, 3])
    labels = np.array([0, 1, 1, 5, 6, 7, 8, 9])
    for moved in exchanges(labels, codes, 20, np.random.default_rng(0)):
        assert sorted(moved[:3]) == [0, 1, 1]
        assert sorted(moved[3:6]) == [5, 6, 7]
        assert sorted(moved[6:]) == [8, 9]


def test_without_clusters_a_permutation_is_any():
    labels = np.arange(3)
    found = exchanges(labels, labels, 100, np.random.default_rng(0))
    assert len({tuple(moved) for moved in found}) == 6


def test_permuting_whole_clusters_holds_the_level():
    """The difference of two groups of patients, whose slices are alike: .74 of runs of F-S1."""
    rng = np.random.default_rng(0)
    codes, group = np.repeat(np.arange(20), 5), np.repeat(np.arange(20) % 2, 5)
    alarms = np.zeros(2)
    for _ in range(200):
        values = rng.normal(size=20)[codes] + rng.normal(size=100)
        for place, by in enumerate((codes, np.arange(100))):
            moved = exchanges(group, by, 99, rng)
            found = np.abs(moved @ values - values.sum() / 2)
            alarms[place] += (found >= found[0]).mean() <= 0.05
    assert alarms[0] <= 20  # 10 expected; more than 20 in one of 500 such tests
    assert alarms[1] >= 40


def test_labels_stay_in_their_stratum():
    codes, strata = np.arange(8), np.arange(8) % 2
    for moved in exchanged(codes, codes, strata, 50, np.random.default_rng(0)):
        assert (strata[moved] == strata).all()
        assert sorted(moved) == list(range(8))


CLASSES = np.array([0, 0, 1, 1, 0, 1])


@pytest.mark.parametrize(
    ("ids", "labels", "said"),
    [
        (["a", "a", "b", "c", "d", "e"], None, "6 samples have 5 ids"),
        (["p1/a", "p1/b", "p2/a", "p2/b", "p3/a", "p3/b"], CLASSES, "lie in 3 folders"),
        (["p1/a", "p1/b", "p2/a", "p2/b", "p3/a", "p3/b"], None, "lie in 3 folders"),
        (["0/p1/a", "0/p1/b", "1/p2/a", "1/p2/b", "0/p3/a", "1/p4/a"], CLASSES, "lie in 4 folders"),
        (["sub-1_a", "sub-1_b", "sub-2_a", "sub-2_b", "sub-3_a", "sub-3_b"], None, "3 owners"),
        (["Patient 1a", "Patient 1b", *(f"Patient {k}" for k in "2345")], CLASSES, "5 owners"),
    ],
)
def test_ids_that_suggest_dependence_are_warned_of(ids, labels, said):
    with pytest.warns(DependentSamples, match=said) as seen:
        heed_dependence("ifa.here", ids, labels)
    assert len(seen) == 1
    assert seen[0].filename == __file__
    assert "cluster=" in str(seen[0].message)


@pytest.mark.parametrize(
    ("ids", "labels"),
    [
        ([str(k) for k in range(6)], None),
        ([f"images/{k}.png" for k in range(6)], None),
        ([f"{'cd'[k]}/{n}.png" for n, k in enumerate(CLASSES)], CLASSES),  # folders of classes
        ([f"{('train', 'test')[n % 2]}/{'cd'[k]}/{n}" for n, k in enumerate(CLASSES)], CLASSES),
        ([f"patient{n}/scan.nii" for n in range(6)], CLASSES),  # one sample each
        ([f"person{k}/{n}.png" for n, k in enumerate(CLASSES)], CLASSES),  # who it is, is the class
        ([f"case {n}" for n in range(6)], None),
    ],
)
def test_ids_of_independent_samples_are_not(ids, labels):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        heed_dependence("ifa.here", ids, labels)


def test_a_column_that_several_samples_share_is_named():
    with pytest.warns(DependentSamples, match="column 'patient'"):
        heed_dependence("ifa.here", ["0", "1"], column="patient")


def test_a_summary_counts_clusters_where_the_run_keeps_them():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv1d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(8, 2))
    inputs = torch.randn(8, 1, 6).repeat_interleave(5, 0)  # slices of eight patients, all alike
    labels = [n // 5 % 2 for n in range(40)]
    data = list(zip(inputs, labels, strict=True))
    run = partial(ifa.analyze, net.eval(), data, layer="0", progress=False)
    alone, whole = (
        ifa.population.summary(run(cluster=cluster)).splitlines()
        for cluster in (None, [f"patient {n // 5}" for n in range(40)])
    )
    assert whole[1] == "8 clusters of samples, which intervals count"
    ends = [
        [float(end) for end in re.findall(r"interval (\S+) … (\S+)\)", line)[0]]
        for line in (alone[1], whole[2])
    ]
    right = (net(inputs).argmax(1) == torch.tensor(labels)).numpy()
    expected = share_interval(right, codes=np.arange(40) // 5)
    np.testing.assert_allclose(ends[1], [expected.low, expected.high], atol=6e-4)
    assert ends[1][0] < ends[0][0] < ends[0][1] < ends[1][1]
