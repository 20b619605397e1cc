"""Standard errors, bootstrap intervals and the stability of a selection."""

from functools import partial

import numpy as np
import pytest
import torch
import xarray as xr
from populations import digits_like, net
from scipy.stats import t

import ifa

OPTIONS = {"layer": "conv2", "keep_samples": "full", "progress": False}


@pytest.fixture(scope="module")
def tree():
    model = net()
    return ifa.analyze(model, digits_like(model, 60, without=(2,)), **OPTIONS)


def accepted(tree, target):
    samples = tree["samples"]
    right = (samples["label"] == samples["prediction"]) & (samples["label"] == target)
    return samples["conv2"]["importance"].values[right.values].astype(np.float64)


def test_the_standard_error_is_that_of_the_mean(tree):
    error = ifa.population.standard_error(tree)
    assert error.dims == ("target", "channel")
    assert error.attrs["units"] == "logit"
    for target in (0, 1, 3):
        values = accepted(tree, target)
        expected = values.std(0, ddof=1) / np.sqrt(len(values))
        np.testing.assert_allclose(error.sel(target=target), expected, rtol=1e-4)
    assert error.sel(target=2).isnull().all()


def test_the_bootstrap_is_seeded_ordered_and_about_as_wide_as_theory_says(tree):
    low, high = ifa.population.bootstrap(tree, seed=1)
    again = ifa.population.bootstrap(tree, seed=1)
    assert low.identical(again.low)
    assert high.identical(again.high)
    assert not low.equals(ifa.population.bootstrap(tree, seed=2).low)
    assert low.dims == high.dims == ("target", "channel")
    assert low.sel(target=2).isnull().all()
    seen = [0, 1, 3]
    mean = tree["conv2"]["importance"].sel(target=seen)
    assert (low.sel(target=seen) <= mean).all()
    assert (mean <= high.sel(target=seen)).all()
    width = (high - low).sel(target=seen)
    n = tree["conv2"]["count"].sel(target=seen)
    quantile = n.astype(float).copy(data=t.ppf(0.975, n - 1))
    student = 2 * quantile * ifa.population.standard_error(tree).sel(target=seen)
    ratio = width / student
    assert ((ratio > 0.999) & (ratio < 3.001)).all()
    assert float(ratio.mean()) < 1.3
    narrow = ifa.population.bootstrap(tree, level=0.5, seed=1)
    assert ((narrow.high - narrow.low).sel(target=seen) < width).all()
    wide = ifa.population.bootstrap(tree, simultaneous=True, seed=1)
    assert ((wide.high - wide.low).sel(target=seen) > student).all()


def run_of(values, cluster=None):
    """Make a run of one target's samples."""
    count = len(values)
    samples = {
        "id": ("sample", np.array([str(index) for index in range(count)], dtype=object)),
        **dict.fromkeys(("label", "prediction"), ("sample", np.zeros(count, dtype=np.int64))),
    }
    if cluster is not None:
        samples["cluster"] = "sample", np.array([str(one) for one in cluster], dtype=object)
    mean = values.mean(0)
    layer = {"importance": (("target", "channel"), mean[None]), "importance_overall": mean[0]}
    rows = {"importance": (("sample", "channel"), values), "finite": ("sample", values[:, 0] < 1e9)}
    parts = {"layer": xr.Dataset(layer, {"target": [0]}), "samples": xr.Dataset(samples)}
    return xr.DataTree.from_dict({**parts, "samples/layer": xr.Dataset(rows)})


def covered(values, truth, cluster=None, **options):
    low, high = ifa.population.bootstrap(run_of(values, cluster), draws=400, **options)
    return ((low <= truth) & (truth <= high)).values


LAWS = {
    "normal": (lambda rng, shape: rng.normal(size=shape), 0.0),
    "t3": (lambda rng, shape: rng.standard_t(3, size=shape), 0.0),
    "lognormal": (lambda rng, shape: rng.lognormal(size=shape), np.exp(0.5)),
    "ReLU": (lambda rng, shape: np.maximum(rng.normal(size=shape), 0), 1 / np.sqrt(2 * np.pi)),
}


@pytest.mark.parametrize(
    ("law", "samples", "least"),
    [
        ("normal", 3, 0.92),
        ("normal", 5, 0.92),
        ("normal", 10, 0.92),
        ("t3", 10, 0.92),
        ("lognormal", 10, 0.87),
        ("lognormal", 30, 0.90),
        ("ReLU", 10, 0.92),
    ],
)
def test_few_samples_are_covered(law, samples, least):
    """F-S5: percentiles covered .74, .84 and .90 of normal means, and .79 of lognormal ones."""
    draw, truth = LAWS[law]
    values = draw(np.random.default_rng(0), (samples, 800))  # as many channels, each a data set
    assert least < covered(values, truth).mean() < 0.99


def test_one_sample_says_nothing():
    values = np.random.default_rng(0).normal(size=(1, 3))
    assert all(limit.isnull().all() for limit in ifa.population.bootstrap(run_of(values)))
    values = np.random.default_rng(0).normal(size=(4, 3))
    of_one = run_of(values, ["a"] * 4)
    assert all(limit.isnull().all() for limit in ifa.population.bootstrap(of_one))
    assert ifa.population.stability(of_one, ifa.select.strongest)["stability"].isnull().all()


def test_constant_channels_are_a_point_and_others_are_not():
    values = np.random.default_rng(0).normal(size=(8, 3))
    values[:, 1] = 0.25
    for simultaneous in (False, True):
        low, high = ifa.population.bootstrap(run_of(values), simultaneous=simultaneous)
        assert float(low[0, 1]) == float(high[0, 1]) == 0.25
        assert (low[0, [0, 2]] < high[0, [0, 2]]).all()


def test_clusters_are_drawn_whole():
    """F-S1: of 20 patients with 5 slices, correlated by .5, samples covered .71."""
    rng, codes = np.random.default_rng(0), np.repeat(np.arange(20), 5)
    values = rng.normal(size=(20, 800))[codes] + rng.normal(size=(100, 800))
    assert covered(values, 0).mean() < 0.8
    assert 0.92 < covered(values, 0, codes).mean() < 0.98
    given = covered(values, 0, cluster=None)
    assert (covered(values, 0, codes) >= given).mean() > 0.98
    found = ifa.population.bootstrap(run_of(values), cluster=codes)
    assert found.low.equals(ifa.population.bootstrap(run_of(values, codes)).low)


@pytest.mark.parametrize("law", ["normal", "lognormal"])
def test_all_channels_are_covered_at_once(law):
    draw, truth = LAWS[law]
    runs = [draw(np.random.default_rng(seed), (30, 20)) for seed in range(30)]
    inside = [covered(values, truth, simultaneous=True).all() for values in runs]
    alone = [covered(values, truth).all() for values in runs]
    assert np.mean(inside) > 0.85
    assert np.mean(alone) < 0.6


def test_samples_that_seem_to_belong_together_are_warned_of():
    run = run_of(np.random.default_rng(0).normal(size=(6, 3)))
    ids = np.array([f"patient{index // 2}/{index}" for index in range(6)], dtype=object)
    run["samples"]["id"] = xr.DataArray(ids, dims="sample")
    for ask in (ifa.population.bootstrap, lambda run, **options: noise_of(run, 0.5, **options)):
        with pytest.warns(ifa.DependentSamples, match="3 owners of 6 samples"):
            ask(run)
        ask(run, cluster=np.arange(6) // 2)


# The stability of a selection


def noise_of(run, ratio, **options):
    rule = partial(ifa.select.largest_absolute, ratio=ratio)
    return ifa.population.stability(run, rule, **options).isel(target=0)


@pytest.mark.parametrize("of", ["importance", "difference"])
def test_stability_lies_between_noise_and_the_same(tree, of):
    select = partial(ifa.select.largest_absolute, ratio=0.4)
    found = ifa.population.stability(tree, select, of=of)
    assert found["stability"].dims == ("target",)
    assert found.sel(target=2).to_array().isnull().all()
    rest = found.drop_sel(target=2)
    assert (rest["stability"] <= 1).all()
    assert (rest["noise"] < rest["limit"]).all()
    assert found.identical(ifa.population.stability(tree, select, of=of))


@pytest.mark.parametrize("ratio", [0.05, 0.1, 0.25, 0.5])
def test_noise_is_not_stable(ratio):
    """F-S6: .25, .31, .44 and .61 at these ratios."""
    rng = np.random.default_rng(0)
    found = [noise_of(run_of(rng.normal(size=(40, 200))), ratio, seed=seed) for seed in range(3)]
    assert abs(np.mean([one["stability"] for one in found])) < 0.08
    assert abs(np.mean([one["noise"] for one in found])) < 0.02
    assert sum(one["stability"] > one["limit"] for one in found) <= 1


def test_channels_of_other_spread_are_stable_without_a_signal_and_the_noise_says_so():
    rng = np.random.default_rng(0)
    spread = np.exp(rng.normal(size=100))
    noise = noise_of(run_of(rng.normal(size=(40, 100)) * spread), 0.1)
    assert noise["stability"] > 0.2
    assert abs(noise["stability"] - noise["noise"]) < 0.2
    assert noise["stability"] <= noise["limit"]


def test_a_signal_is_stable():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(40, 100)) + 3 * (np.arange(100) < 10)
    found = noise_of(run_of(values), 0.1)
    assert found["stability"] == 1
    assert found["limit"] < 0.3


def test_clusters_are_parted_whole():
    rng, codes = np.random.default_rng(0), np.repeat(np.arange(20), 5)
    found = []
    for _ in range(3):
        values = rng.normal(size=(20, 100))[codes] + rng.normal(size=(100, 100))
        found.append([noise_of(run_of(values, by), 0.1) for by in (None, codes)])
    alone, whole = (
        np.mean([one["stability"] for one in each]) for each in zip(*found, strict=True)
    )
    assert alone > 0.1
    assert abs(whole) < 0.1
    assert sum(one[1]["stability"] > one[1]["limit"] for one in found) <= 2


def test_the_stability_of_what_sets_a_target_apart_is_of_its_difference():
    model = net(dtype=torch.float64)
    tree = ifa.analyze(model, digits_like(model, 40), targets=[2], **OPTIONS)
    seen = []

    def largest(values):
        seen.append(values)
        return ifa.select.largest_absolute(values, ratio=0.4)

    found = ifa.population.stability(tree, largest, of="difference", draws=400)
    # the halves' differences are about those of all samples
    np.testing.assert_allclose(seen[0].mean(0), ifa.difference(tree)[0], atol=0.1)
    assert -0.5 < float(found["stability"][0]) <= 1
    alone = [item for item in digits_like(model, 40) if item[1] == 1]
    for targets in ([1], "predicted"):
        tree = ifa.analyze(model, alone, targets=targets, **OPTIONS)
        assert ifa.population.stability(tree, largest, of="difference").to_array().isnull().all()


def test_what_chooses_nothing_or_everything_has_no_index(tree):
    for rule in (partial(ifa.select.above, threshold=1e9), ifa.select.every):
        found = ifa.population.stability(tree, rule, draws=3)
        assert found.to_array().isnull().all()


def test_what_cannot_be_resampled_is_refused(tree):
    model = net()
    summary = ifa.analyze(
        model, digits_like(model, 8), layer=["conv1", "conv2"], progress=False, shard=4
    )
    with pytest.raises(ValueError, match=r"expected layer= to be one of \['conv1', 'conv2'\]"):
        ifa.population.bootstrap(summary)
    with pytest.raises(ValueError, match="Analyze with keep_samples='full'"):
        ifa.population.bootstrap(summary, layer="conv1")
    with pytest.raises(ValueError, match=r"a level in \(0, 1\), got 95"):
        ifa.population.bootstrap(tree, level=95)
    with pytest.raises(ValueError, match="draws to be a whole number, at least 1, got 0"):
        ifa.population.stability(tree, ifa.select.every, draws=0)
    with pytest.raises(ValueError, match="of to be 'importance' or 'difference'"):
        ifa.population.stability(tree, ifa.select.every, of="variance")
