"""Standard errors, bootstrap intervals and the stability of a selection."""

from functools import partial

import numpy as np
import pytest
import torch
from populations import digits_like, measured, net

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
    expected = (
        2 * 1.96 * ifa.population.standard_error(tree).sel(target=seen) * np.sqrt((n - 1) / n)
    )
    assert abs(float((width / expected).mean()) - 1) < 0.06
    narrow = ifa.population.bootstrap(tree, level=0.5, seed=1)
    assert ((narrow.high - narrow.low).sel(target=seen) < width).all()


def test_the_bootstrap_resamples_each_target_by_itself():
    model = net(1, 43)
    data = measured(model)
    options = {**OPTIONS, "task": "regression"}
    many = ifa.analyze(model, data, targets=(5, 2), **options)
    low, high = ifa.population.bootstrap(many, draws=50)
    assert low["target"].values.tolist() == [5, 2]
    values = many["samples/conv2"]["importance"].isel(target=1).values.astype(np.float64)
    rng = np.random.default_rng((0, 1))
    counts = rng.multinomial(13, np.full(13, 1 / 13), 50)
    means = counts @ values / 13
    np.testing.assert_allclose(low[1], np.quantile(means, 0.025, axis=0), rtol=1e-10)
    np.testing.assert_allclose(high[1], np.quantile(means, 0.975, axis=0), rtol=1e-10)


@pytest.mark.parametrize("of", ["importance", "difference"])
def test_stability_lies_between_none_and_all(tree, of):
    select = partial(ifa.select.largest_absolute, ratio=0.4)
    found = ifa.population.stability(tree, select, of=of, draws=50)
    assert found.dims == ("target",)
    assert np.isnan(found.sel(target=2))
    rest = found.drop_sel(target=2)
    assert ((rest > 0.3) & (rest <= 1)).all()
    everything = ifa.population.stability(tree, ifa.select.every, of=of, draws=5)
    assert (everything.drop_sel(target=2) == 1).all()


def test_the_stability_of_what_sets_a_target_apart_is_of_the_difference_that_is_reported():
    model = net(dtype=torch.float64)
    tree = ifa.analyze(model, digits_like(model, 40), targets=[2], **OPTIONS)
    seen = []

    def largest(values):
        seen.append(values)
        return ifa.select.largest_absolute(values, ratio=0.4)

    found = ifa.population.stability(tree, largest, of="difference", draws=50)
    np.testing.assert_allclose(seen[0][0], ifa.difference(tree)[0], rtol=1e-5)
    assert 0.3 < float(found[0]) <= 1
    alone = [item for item in digits_like(model, 40) if item[1] == 1]
    for targets in ([1], "predicted"):
        tree = ifa.analyze(model, alone, targets=targets, **OPTIONS)
        assert ifa.population.stability(tree, largest, of="difference").isnull().all()


def test_nothing_that_is_chosen_every_time_is_stable(tree):
    found = ifa.population.stability(tree, partial(ifa.select.above, threshold=1e9), draws=5)
    assert (found.drop_sel(target=2) == 1).all()


def test_stability_of_a_random_choice_is_low(tree):
    choose = partial(ifa.select.random, ratio=0.4, seed=0)  # 2 of 5: 0.1 · 1 + 0.6 / 3 + 0.3 · 0
    found = ifa.population.stability(tree, choose, draws=2000)
    assert abs(float(found.drop_sel(target=2).mean()) - 0.3) < 0.2
    real = ifa.population.stability(tree, partial(ifa.select.largest, ratio=0.4), draws=200)
    assert float(real.mean()) > float(found.mean())


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
    with pytest.raises(ValueError, match="at least one draw, got 0"):
        ifa.population.stability(tree, ifa.select.every, draws=0)
    with pytest.raises(ValueError, match="of to be 'importance' or 'difference'"):
        ifa.population.stability(tree, ifa.select.every, of="variance")
