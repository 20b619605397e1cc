"""The maps of a population: those of explain, streamed, resumed, on a scale."""

from functools import partial

import numpy as np
import pytest
import torch
import xarray as xr

import ifa
from ifa.testing import models

QUIET = {"progress": False}
LAYERS = ["conv1", "conv2"]


def net(axes=2, seed=0):
    return models.pooled_linear(axes, seed=seed)


def population(model, count=11):
    inputs = models.inputs(model, count)
    return [(one, n % 4) for n, one in enumerate(inputs)]


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("targets", ["predicted", "label", (2, 0)], ids=str)
def test_maps_are_those_of_explain(axes, targets, tmp_path):
    model = net(axes)
    data = population(model)
    options = {"layer": LAYERS, "targets": targets, "shard": 4, "batch_size": 3, **QUIET}
    stored = ifa.maps(model, data, store=tmp_path / "maps", **options)
    inputs = torch.stack([values for values, _ in data])
    asked = {
        "predicted": None,
        "label": torch.tensor([label for _, label in data]),
    }.get(targets, torch.tensor([2, 0])[:, None].expand(-1, len(data)))
    for layer in LAYERS:
        expected = ifa.explain(model, inputs, asked, layer=layer)
        np.testing.assert_allclose(stored[layer]["map"], expected, rtol=1e-4, atol=1e-6)
        assert stored[layer]["map"].dims[-axes:] == ifa.types.SPACE[axes]
    if targets == (2, 0):
        assert stored[LAYERS[0]]["target"].values.tolist() == [2, 0]
    ifa.verify(tmp_path / "maps")
    xr.testing.assert_equal(ifa.maps(model, data, **options).load(), stored.load())
    xr.testing.assert_identical(ifa.open(tmp_path / "maps").load(), stored)


@pytest.mark.parametrize("weight", ["gradcam", "cam", "noise", "scorecam"])
@pytest.mark.parametrize("size", ["input", None, (3, 4)], ids=str)
def test_every_kind_of_weighting_at_every_size(weight, size):
    from ifa.contest.methods import weighting

    model = net()
    data = population(model, 3)
    method = weighting("test", weight)
    options = {"layer": "conv2", "weight": method, "size": size}
    found = ifa.maps(model, data, **options, **QUIET)
    inputs = torch.stack([values for values, _ in data])
    expected = ifa.explain(model, inputs, **options)
    np.testing.assert_allclose(found["conv2"]["map"], expected, rtol=1e-4, atol=1e-6)


def test_an_interrupted_run_continues_with_the_same_bits(tmp_path):
    model = net()
    data = population(model)
    make = partial(ifa.maps, model, data, layer="conv2", shard=4, batch_size=2)

    class Killed(Exception):
        pass

    def killed(done, total):
        assert total == len(data)
        if done > 6:
            raise Killed

    with pytest.raises(Killed):
        make(store=tmp_path / "run", progress=killed)
    resumed = make(store=tmp_path / "run", progress=False)
    whole = make(store=tmp_path / "whole", progress=False)
    xr.testing.assert_identical(resumed, whole)
    ifa.verify(tmp_path / "run")


def test_the_scale_the_mask_and_what_was_rectified_are_recorded_and_compared(tmp_path):
    model = net()
    data = [(one, int(model(one[None]).argmax())) for one, _ in population(model, 20)]
    statistics = ifa.analyze(model, data, layer=LAYERS, targets=(0, 1, 2, 3), **QUIET)
    masks = {
        layer: ifa.select.largest(statistics[layer]["importance_overall"], ratio=0.4)
        for layer in LAYERS
    }
    make = partial(ifa.maps, model, data, layer=LAYERS, store=tmp_path / "run", **QUIET)
    found = make(scale=statistics, mask=masks)
    inputs = torch.stack([values for values, _ in data])
    for layer in LAYERS:
        scale = ifa.scale_from(statistics[layer])
        expected = ifa.explain(model, inputs, layer=layer, scale=scale, mask=masks[layer])
        np.testing.assert_allclose(found[layer]["map"], expected, rtol=1e-4, atol=1e-5)
        attrs = found[layer].attrs
        assert attrs["limits"] == [float(limit) for limit in scale]
        assert attrs["origin"] == statistics[layer].attrs["origin"]
        assert attrs["rectified"] == 0
        assert found[layer]["map"].attrs["units"] == "1"
    for other, named in (
        ({"scale": statistics}, "masks"),
        ({"scale": None, "mask": masks}, "limits"),
        ({"scale": statistics, "mask": masks, "size": (2, 2)}, "space"),
    ):
        with pytest.raises(ValueError, match=rf"ifa\.maps: expected .* another: .*{named}"):
            make(**other)


def test_options_of_several_layers_are_by_layer():
    model = net()
    data = population(model, 3)
    make = partial(ifa.maps, model, data, layer=LAYERS, **QUIET)
    with pytest.raises(ValueError, match=r"a mapping of masks by layer for conv1, conv2"):
        make(mask=torch.ones(5, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"a mask for each of conv1, conv2, got masks for conv1"):
        make(mask={"conv1": None})
    with pytest.raises(ValueError, match=r"statistics or a run to read a scale for each"):
        make(scale=ifa.Scale(torch.tensor(0.0), torch.tensor(1.0)))


@pytest.mark.parametrize(("how", "widen"), [("tanh", 1.0), ("affine", 1.5), ("tanh", 1.2)])
def test_maps_are_brought_to_the_scale_as_rescale_does(how, widen, tmp_path):
    model = net()
    data = population(model, 7)
    statistics = ifa.analyze(model, data, layer="conv2", **QUIET)
    make = partial(ifa.maps, model, data, layer="conv2", **QUIET)
    raw = make(rectify=False)["conv2"]["map"].values
    step = ifa.batched(ifa.rescale(ifa.scale_from(statistics), how, widen))
    expected = step(ifa.Map(torch.tensor(raw), torch.zeros(7, dtype=torch.int64))).values
    found = make(scale=statistics, how=how, widen=widen, size=None, store=tmp_path / "run")
    whole = make(scale=statistics, how=how, widen=widen)
    assert (whole["conv2"].attrs["how"], whole["conv2"].attrs["widen"]) == (how, widen)
    if how == "affine":  # interpolation and tanh do not commute
        np.testing.assert_allclose(whole["conv2"]["map"], expected, rtol=1e-4, atol=1e-5)
    small = step(
        ifa.Map(
            torch.tensor(make(rectify=False, size=None)["conv2"]["map"].values),
            torch.zeros(7, dtype=torch.int64),
        )
    ).values
    np.testing.assert_allclose(found["conv2"]["map"], small, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"ifa\.maps: expected .* another: .*(how|widen)"):
        make(scale=statistics, size=None, store=tmp_path / "run")


def test_blocks_of_channels_have_maps_of_their_own(tmp_path):
    model = net()
    data = population(model, 7)
    make = partial(ifa.maps, model, data, layer="conv2", shard=3, rectify=False, **QUIET)
    channels = ifa.analyze(model, data, layer="conv2", **QUIET)["conv2"].sizes["channel"]
    found = make(blocks=channels, store=tmp_path / "run")["conv2"]["map"]
    assert found.dims == ("sample", "block", "y", "x")
    np.testing.assert_allclose(found.sum("block"), make()["conv2"]["map"], rtol=1e-4, atol=1e-5)
    ifa.verify(tmp_path / "run")


def test_options_of_a_scale_need_one():
    model = net()
    make = partial(ifa.maps, model, population(model, 3), layer="conv2", **QUIET)
    with pytest.raises(ValueError, match=r"ifa\.maps: expected a scale with how='tanh'"):
        make(how="tanh")
    scale = ifa.Scale(torch.tensor(0.0), torch.tensor(1.0))
    with pytest.raises(ValueError, match=r"widen to be finite, above 0, got 0"):
        make(scale=scale, widen=0)
    with pytest.raises(ValueError, match=r"blocks to be a whole number, at least 1, got 0"):
        make(blocks=0)


def test_a_rule_and_a_ratio_are_one_call():
    model = net()
    data = [(one, int(model(one[None]).argmax())) for one, _ in population(model, 20)]
    statistics = ifa.analyze(model, data, layer="conv2", targets=(0, 1, 2, 3), **QUIET)
    rule = partial(ifa.select.largest, ratio=0.4)
    mask = rule(statistics["conv2"]["importance_overall"])
    found = ifa.maps(model, data, layer="conv2", mask=mask, scale=statistics, **QUIET)
    inputs = torch.stack([values for values, _ in data])
    expected = ifa.explain(model, inputs, layer="conv2", mask=mask, scale=statistics)
    np.testing.assert_allclose(found["conv2"]["map"], expected, rtol=1e-4, atol=1e-5)
