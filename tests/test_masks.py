"""Masks and scales of some targets only, and masks on disk."""

import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
import xarray as xr
from populations import digits_like, net

import ifa


@pytest.fixture(scope="module")
def importance():
    model = net(1)
    tree = ifa.analyze(model, digits_like(model), layer="conv2", targets=[3, 1], progress=False)
    return tree["conv2"]["importance"]


RULE = partial(ifa.select.largest, ratio=0.4)


def test_a_labeled_mask_of_some_targets_is_found_by_output(importance, tmp_path):
    mask = ifa.store.save_mask(
        tmp_path / "mask.zarr", RULE(importance), rule=RULE, like=importance, attrs={"run": "r"}
    )
    ones = ifa.Weighted(torch.ones(5), torch.ones(5, 2), torch.tensor(3))
    step = ifa.keep(mask)
    assert torch.equal(step(ones).weights, RULE(importance)[0].float())
    one = step(ones._replace(target=torch.tensor(1)))
    assert torch.equal(one.weights, RULE(importance)[1].float())
    assert step(ones._replace(target=torch.tensor(2))).weights.isnan().all()
    opened = ifa.store.open_mask(tmp_path / "mask.zarr")
    assert opened.identical(mask)
    assert opened["target"].values.tolist() == [3, 1]
    assert opened.dtype == bool
    assert opened.attrs["rule"] == "largest(ratio=0.4)"
    assert opened.attrs["made_by"] == '{"run": "r"}'


def test_a_mask_opens_without_the_library(importance, tmp_path):
    ifa.store.save_mask(tmp_path / "m", RULE(importance), rule="by hand", like=importance)
    code = (
        f"import xarray; m = xarray.open_zarr({str(tmp_path / 'm')!r}).mask; print(m.rule, m.dims)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "by hand ('target', 'channel')"


def test_a_mask_is_not_overwritten_and_has_the_shape_of_its_source(importance, tmp_path):
    with pytest.raises(ValueError, match=r"expected a mask \(2, 5\), got \(5,\)"):
        ifa.store.save_mask(tmp_path / "m", torch.ones(5), rule=RULE, like=importance)
    with pytest.raises(ValueError, match=r"open_mask: expected a mask made by"):
        ifa.store.open_mask(tmp_path / "m")
    ifa.store.save_mask(tmp_path / "m", torch.ones(5), rule=RULE)
    with pytest.raises(FileExistsError, match="Nothing was touched"):
        ifa.store.save_mask(tmp_path / "m", torch.ones(5), rule=RULE)


def test_a_labeled_scale_of_some_targets_is_found_by_output():
    coords = {"target": [3, 1]}
    limits = (xr.DataArray(values, coords, ["target"]) for values in ([0.0, -1.0], [4.0, 1.0]))
    step = ifa.rescale(ifa.Scale(*limits))
    for target, expected in ((3, 0.5), (1, 1.5)):
        values = ifa.Map(torch.tensor([2.0]), torch.tensor(target))
        assert step(values).values.tolist() == [expected]


def test_the_widest_of_no_scale_is_an_error():
    nothing = np.full((2, 2), np.nan)
    statistics = xr.Dataset(
        dict.fromkeys(("map_max", "map_min"), (("target", "quantile"), nothing))
        | {"map_max_overall": ("quantile", nothing[0])},
        {"quantile": [0.5, 0.9], "target": [0, 1]},
    )
    with pytest.raises(ValueError, match="a target that was explained, got NaN for all of them"):
        ifa.scale_from(statistics, over="widest")
