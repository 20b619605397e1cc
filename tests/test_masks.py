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
        tmp_path / "mask.zarr", RULE(importance), rule=RULE, attrs={"run": "r"}
    )
    ones = ifa.Weighted(torch.ones(5), torch.ones(5, 2), torch.tensor(3))
    step = ifa.keep(mask)
    rows = RULE(torch.tensor(importance.values)).float()
    assert torch.equal(step(ones).weights, rows[0])
    one = step(ones._replace(target=torch.tensor(1)))
    assert torch.equal(one.weights, rows[1])
    assert step(ones._replace(target=torch.tensor(2))).weights.isnan().all()
    opened = ifa.store.open_mask(tmp_path / "mask.zarr")
    assert opened.identical(mask)
    assert opened["target"].values.tolist() == [3, 1]
    assert opened.dtype == bool
    assert opened.attrs["rule"] == "largest(ratio=0.4)"
    assert opened.attrs["made_by"] == '{"run": "r"}'


def test_a_mask_opens_without_the_library(importance, tmp_path):
    ifa.store.save_mask(tmp_path / "m", RULE(importance), rule="by hand")
    code = (
        f"import xarray; m = xarray.open_zarr({str(tmp_path / 'm')!r}).mask; print(m.rule, m.dims)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "by hand ('target', 'channel')"


def test_a_mask_is_not_overwritten(tmp_path):
    with pytest.raises(ValueError, match=r"expected a mask \(channel,\) or \(target, channel\)"):
        ifa.store.save_mask(tmp_path / "m", torch.ones(1, 1, 5), rule=RULE)
    with pytest.raises(ValueError, match=r"open_mask: expected a mask made by"):
        ifa.store.open_mask(tmp_path / "m")
    ifa.store.save_mask(tmp_path / "m", torch.ones(5), rule=RULE)
    with pytest.raises(FileExistsError, match="Nothing was touched"):
        ifa.store.save_mask(tmp_path / "m", torch.ones(5), rule=RULE)


@pytest.fixture(scope="module")
def case():
    model = net(1)
    data = digits_like(model)
    return model, data, torch.stack([item[0] for item in data])


def difference(case, targets):
    model, data, _ = case
    tree = ifa.analyze(model, data, layer="conv2", targets=targets, progress=False)
    return ifa.difference(tree)


EVERY = ([0, 1, 2, 3], [3, 2, 1, 0])


def test_the_row_of_a_target_does_not_depend_on_the_order_of_targets(case):
    model, _, images = case
    forward, backward = (RULE(difference(case, targets)) for targets in EVERY)
    assert not torch.equal(*(torch.tensor(mask.values) for mask in (forward, backward)))
    for target in (0, 3):
        maps = [ifa.explain(model, images, target, mask=mask) for mask in (forward, backward)]
        assert torch.equal(*maps)


def test_a_target_without_a_row_never_gets_another_targets(case):
    model, _, images = case
    values = difference(case, [1, 3])
    mask = RULE(values)
    options = {"rectify": False, "layer": "conv2"}
    right = ifa.explain(model, images, 3, mask=RULE(values.sel(target=3)), **options)
    assert torch.equal(ifa.explain(model, images, 3, mask=mask, **options), right)
    assert ifa.explain(model, images, 0, mask=mask, **options).isnan().all()
    with pytest.raises(
        IndexError, match=r"ifa\.keep: expected targets below 2, the number of rows"
    ):
        ifa.explain(model, images, 2, mask=RULE(values.isel(target=[0])), **options)


@pytest.mark.parametrize("targeted", [False, True])
def test_a_feature_curve_finds_rows_by_target(case, targeted):
    model, _, images = case
    target = torch.arange(len(images)) % 4 if targeted else None
    options = {"ratio": (0.2, 0.6), "absolute": True}
    forward, backward = (
        ifa.evaluate.feature_curve(
            model, "conv2", images, difference(case, targets), target, **options
        ).outputs
        for targets in EVERY
    )
    assert torch.equal(forward, backward)


def test_an_output_without_a_row_is_refused(case):
    model, _, images = case
    values = difference(case, [1, 3])
    curve = partial(ifa.evaluate.feature_curve, model, "conv2", images, values)
    with pytest.raises(ValueError, match=r"each output that is asked for, got none for \[0, 2\]"):
        curve()
    threes = torch.full((len(images),), 3)
    rows = values.sel(target=3).values
    expected = ifa.evaluate.feature_curve(model, "conv2", images, rows).outputs
    assert torch.equal(curve(threes).outputs, expected)
    for wrong in (0, 2):
        with pytest.raises(ValueError, match=rf"got none for \[{wrong}\]"):
            curve(torch.full_like(threes, wrong))


def test_principal_features_find_rows_by_target(case):
    model, data, _ = case
    found = [
        ifa.diagnose.principal_features(
            model,
            "conv2",
            data,
            ifa.analyze(model, data, layer="conv2", targets=targets, progress=False),
            per_target=True,
            ratio=(0.2, 0.6),
            seeds=[0],
        )
        for targets in EVERY
    ]
    assert found[0]["performance"][:, 0].equals(found[1]["performance"][:, 0])
    assert found[0]["chosen"].equals(found[1]["chosen"].sortby("target"))


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
