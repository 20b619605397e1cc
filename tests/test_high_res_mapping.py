"""Defects of high-res-mapping beside its maps, by number: none of them is ours."""

import importlib
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

import ifa
import ifa.cli
from ifa import refine


def test_d3_10_weighted_averages_are_by_support():
    """What was called micro was divided by the largest support, and options did not exist."""
    right = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 1, 2])
    said = torch.tensor([0, 0, 0, 0, 1, 2, 1, 1, 0, 0])
    logits = torch.nn.functional.one_hot(said, 3).float()[:, :, None].repeat(1, 1, 4)
    net = nn.Sequential(nn.Conv1d(3, 3, 1, bias=False), nn.Flatten(), nn.Linear(12, 3)).eval()
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(3)[:, :, None])
        net[2].weight.copy_(torch.eye(3).repeat_interleave(4, 1))
        net[2].bias.zero_()
    data = [(x, int(label)) for x, label in zip(logits, right, strict=True)]
    report = ifa.evaluate.classification_report(ifa.analyze(net, data, layer="0"))
    support = np.array([6, 3, 1])
    precision, recall = np.array([4 / 6, 2 / 3, 0]), np.array([4 / 6, 2 / 3, 0])
    f1 = precision
    assert report["count"].values.tolist() == support.tolist()
    for name, each in (("precision", precision), ("recall", recall), ("f1", f1)):
        np.testing.assert_allclose(report[f"{name}_of"], each)
        np.testing.assert_allclose(report[name].sel(average="macro"), each.mean())
        np.testing.assert_allclose(report[name].sel(average="weighted"), each @ support / 10)
    assert float(report["accuracy"]) == 0.6  # what micro averages of all three are


def test_d3_11_items_are_those_of_their_index_and_arrays_may_be_read_only():
    """Index 0 was a random image, a name was looked up as an id, a bound was off by one."""
    values = np.arange(3 * 4 * 4, dtype=np.float32).reshape(3, 1, 4, 4)
    values.setflags(write=False)
    data = ifa.data.arrays(values, ["cat", "dog", "cat"], ids=["c", "a", "b"])
    for index, (label, name) in enumerate([(0, "c"), (1, "a"), (0, "b")]):
        x, *rest = data[index]
        assert torch.equal(x, torch.from_numpy(values[index].copy()))
        assert rest == [label, name]
    with pytest.raises(IndexError):
        data[3]
    assert not values.flags.writeable


def test_d3_12_the_largest_outputs_are_each_samples_own_in_order():
    """The first N were cut from the axis of samples."""
    net, x = ifa.nets.strided_cnn().eval(), torch.randn(4, 1, 24, 24)
    half, params = refine.half(net, None, "conv3", x, outputs=10)
    largest = functional_call(half, params, (x,)).topk(3)
    maps = refine.low(half, params, x, largest.indices.T)
    assert maps.values.shape == (3, 4, 3, 3)
    assert torch.equal(maps.target, largest.indices.T)
    logits = maps.values.mean((2, 3)) + params["head.linear.bias"][maps.target]
    torch.testing.assert_close(logits, largest.values.T)


def test_d3_13_importing_parses_nothing_and_a_file_is_a_file(monkeypatch, tmp_path):
    """Options were parsed when imported, and a folder was made that was called as the weights."""
    monkeypatch.setattr(sys, "argv", ["python", "--no-such-option"])
    monkeypatch.setattr(ifa, "cli", ifa.cli)  # as it was, afterwards
    for name in [name for name in sys.modules if name.partition(".")[2].startswith("cli")]:
        monkeypatch.delitem(sys.modules, name)
    importlib.import_module("ifa.cli")
    net, x = ifa.nets.strided_cnn().eval(), torch.randn(4, 1, 24, 24)
    half, params = refine.half(net, None, "conv3", x, outputs=2)
    file = tmp_path / "weights" / "best.pt"
    file.parent.mkdir()
    refine.trained(half, params, [(one, 0) for one in x], epochs=1, checkpoint=file)
    assert file.is_file()
    assert [one.name for one in file.parent.iterdir()] == ["best.pt"]


def test_d3_14_the_unit_of_an_image_is_told_and_kept():
    """Data said to be in [0, 1] were fed as 0 to 255."""
    pixels = np.full((2, 4, 5), 255, dtype=np.uint8)
    data = ifa.data.arrays(pixels)
    assert data[0][0].max() == 1
    assert "255" in repr(data)
    assert all(0 <= x.min() < x.max() <= 1 for x, _, _ in ifa.nets.digits("train")[:20])
    image, low = torch.rand(3, 20, 20), torch.rand(5, 5)
    one, other = (refine.pipeline(scale * image, low, image[0]) for scale in (1, 255))
    torch.testing.assert_close(other.result, 255 * one.result)


def test_d3_16_a_low_map_is_a_sixteenth_of_the_input_and_its_head_has_16_channels():
    """The figure said a fourteenth, and 64 channels."""
    net, x = ifa.nets.densenet_fcn(growth=2, layers=2, filters=4).eval(), torch.rand(1, 3, 64, 48)
    half, params = refine.half(net, None, "up.block", x, outputs=3)
    assert params["head.conv.weight"].shape == (16, 4, 1, 1)
    assert refine.low(half, params, x).values.shape == (1, 64 // 16, 48 // 16)


def test_d3_17_tools_take_networks_as_they_are_in_any_order():
    """Arguments were in another order than documented, and wrapped."""
    first, second = nn.Linear(2, 3), nn.Linear(2, 3)
    assert refine.differing(first, second) == refine.differing(second, first) == ["weight", "bias"]
    assert refine.differing(first.state_dict(), second) == ["weight", "bias"]
    assert refine.memory(first.eval(), torch.zeros(4, 2)).activations == {"": 4 * 3 * 4}


def test_d3_18_every_default_is_one_that_is_taken():
    """A default was refused by the check of its own type."""
    values, image = torch.rand(12, 12), torch.rand(3, 12, 12)
    region = refine.region_of_interest(values)
    segment = refine.filled(region, size=4)
    points = refine.focal_points(values)
    grown = refine.grown(values, points, low=0.0, high=1.0)
    steps = (refine.blurred(), refine.edges, refine.guided(image), refine.bilateral(image))
    found = [step(ifa.Map(values, torch.tensor(0))).values for step in steps]
    found += [refine.blended(segment, values), refine.cropped(image, values, fraction=0.15)]
    found += [*refine.pipeline(image, values, values), refine.affine()(image[None], 0)]
    assert all(one.isfinite().all() for one in (*found, grown))
