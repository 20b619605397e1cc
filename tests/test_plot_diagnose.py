"""Pictures of diagnoses: what is drawn is what was found. How they look was looked at."""

from functools import partial

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

import ifa


@pytest.fixture(scope="module")
def run():
    data = ifa.nets.simulated(2, samples=120)
    net = ifa.nets.train(partial(ifa.nets.simulated_cnn, 2), data, epochs=2)
    analyze = partial(ifa.analyze, net, layer="conv2", keep_samples="full", progress=False)
    return data, analyze(data), analyze(data[:60])


@pytest.fixture
def axes():
    figure, axes = plt.subplots()
    yield axes
    plt.close("all")
    del figure


def test_redundancy_is_in_the_order_of_the_dendrogram(run, axes):
    found = ifa.diagnose.redundancy(run[1])
    assert ifa.plot.redundancy(found, axes=axes) is axes
    order = found["order"].values
    drawn = axes.images[0].get_array()
    np.testing.assert_array_equal(drawn, found["correlation"].values[order][:, order])
    assert axes.images[0].get_clim() == (-1, 1)
    assert len(axes.collections[0].get_offsets()) == int(found["alarm"].sum())


def test_shift_has_level_and_score_before_the_channels(run, axes):
    found = ifa.diagnose.shift(run[1], run[2])
    ifa.plot.shift(found, axes=axes)
    drawn = axes.images[0].get_array()
    np.testing.assert_array_equal(drawn[:, 2:], found["wasserstein"].values)
    np.testing.assert_array_equal(drawn[:, 0], found["level_wasserstein"].values)
    assert axes.get_xticklabels()[1].get_text() == "score"


def test_agreement_draws_the_limits(run, axes):
    found = ifa.diagnose.agreement(run[1], run[2])
    target = int(found["target"][np.isfinite(found["bias"].values)][0])
    ifa.plot.agreement(found, target, axes=axes)
    heights = [line.get_ydata()[0] for line in axes.lines]
    row = found.sel(target=target)
    assert heights == [0, *(float(row[name]) for name in ("bias", "lower", "upper"))]
    assert "logit" in axes.get_xlabel()


def test_distributions_have_a_row_for_each_target(run, axes):
    ifa.plot.distributions(run[1], 3, axes=axes)
    assert len(axes.get_yticklabels()) == len(np.unique(run[1]["samples"]["prediction"]))


def test_confounders_draw_every_tested_channel(run, axes):
    found = ifa.diagnose.confounders(run[1], np.arange(120) % 2)
    ifa.plot.confounders(found, axes=axes)
    drawn = sum(len(points.get_offsets()) for points in axes.collections)
    assert drawn == int(np.isfinite(found["information"]).sum())


def test_outliers_are_drawn_strangest_first(run):
    data, tree, _ = run
    found = ifa.diagnose.outliers(tree)
    grid = ifa.plot.outliers(found, data, samples=7)
    assert grid.shape == (2, 5)
    first = grid[0, 0]
    assert first.get_title().startswith(str(found["id"].values[0]))
    some = [data[index][0].numpy() for index in range(0, len(data), 3)]
    low, high = (np.median([end(one) for one in some]) for end in (np.min, np.max))
    lit = (data[int(found["position"][0])][0][0].numpy() - low) / (high - low)
    drawn = np.asarray(first.images[0].get_array())[..., 0]
    np.testing.assert_array_equal(drawn, (255 * lit.clip(0, 1)).round())
    plt.close("all")


@pytest.mark.parametrize("maps", [None, torch.randn(120, 8, 8)])
def test_a_channel_card_shows_the_top_samples(run, maps):
    data, tree, _ = run
    figure = ifa.plot.channel_card(tree, data, 5, maps=maps, samples=4)
    importance = tree["samples/conv2"]["importance"].values[:, 5]
    top = str(tree["samples"]["id"].values[importance.argmax()])
    titles = [axes.get_title() for part in figure.subfigs for axes in part.axes]
    assert titles[0].startswith(top)
    plt.close("all")


def test_importance_by_cluster_is_the_same_channels(run, axes):
    ifa.plot.importance(run[1], order="cluster", axes=axes)
    drawn = axes.images[0].get_array()
    values = run[1]["conv2"]["importance"].values
    np.testing.assert_array_equal(np.sort(drawn, axis=1), np.sort(values, axis=1))
    with pytest.raises(ValueError, match="order 'channel' or 'cluster'"):
        ifa.plot.importance(run[1], order="size", axes=axes)
