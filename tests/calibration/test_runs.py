"""What is simulated is what `ifa.analyze` and `ifa.contest.table` return."""

import json
from functools import partial

import numpy as np
import pytest
import torch

import ifa

from .runs import LAYER, simulated_run, simulated_table


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    net = torch.nn.Sequential()
    net.add_module(LAYER, torch.nn.Conv2d(1, 4, 3))
    net.add_module("rest", torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 3)))
    return net.eval()


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(40, 1, 5, 5, generator=generator)
    return [(one, n % 3) for n, one in enumerate(inputs)]


@pytest.mark.parametrize("targets", ["predicted", [2, 0]])
def test_a_simulated_run_is_what_analyze_returns(net, data, targets):
    real = ifa.analyze(net, data, layer=LAYER, targets=targets, keep_samples="full", progress=False)
    samples, rows = real["samples"], real[f"samples/{LAYER}"]
    ours = simulated_run(
        rows["importance"].values,
        real[LAYER]["target"].values,
        samples["label"].values,
        samples["prediction"].values,
        samples["score"].values,
        extremes=(rows["map_max"].values, rows["map_min"].values),
    )
    assert {node.path for node in ours.subtree} == {node.path for node in real.subtree}
    for node in real.subtree:
        assert ours[node.path].variables.keys() == node.variables.keys(), node.path
        for name, values in node.variables.items():
            same = ours[node.path].variables[name]
            assert (same.dims, same.dtype) == (values.dims, values.dtype), name
            assert same.attrs.get("units") in (None, values.attrs.get("units")), name
            if values.dtype == object:
                assert (same.values == values.values).all()
            else:
                np.testing.assert_allclose(same.values, values.values, 1e-4, 1e-6, err_msg=name)
    spec, given = json.loads(real.attrs["spec"]), json.loads(ours.attrs["spec"])
    assert given.pop("data")["samples"] == spec["data"]["samples"]
    assert given == {name: spec[name] for name in given}
    assert {name: real.attrs[name] for name in ours.attrs if name != "spec"} == {
        name: value for name, value in ours.attrs.items() if name != "spec"
    }


def test_a_simulated_table_is_what_the_contest_returns(net, data):
    methods = {
        f"method {n}": partial(ifa.explain, layer=LAYER, weight=weight)
        for n, weight in enumerate((ifa.weight.fullcam, ifa.weight.gradcam))
    }
    real = ifa.contest.table(
        net,
        data[:4],
        methods,
        {"metric 0": ifa.evaluate.deletion},
        better={"metric 0": "lower"},
        progress=False,
    )
    ours = simulated_table(real["value"].values, "lower")
    for name in ("value", "blank", "nonfinite", "better", "method", "metric"):
        assert ours[name].dims == real[name].dims
        assert (ours[name].values == real[name].values).all()
