"""Pictures of attributions: what is drawn is what was given. How they look was looked at."""

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from pictures import assert_readable

import ifa


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def drawn(axes):
    return np.asarray(axes.images[-1].get_array())


def alone(values, limit):
    """Return signed values in the colors of their bar."""
    grey = np.full((1, *values.shape), 128, dtype=np.uint8)
    return ifa.plot.blend(grey, values, high=float(limit), signed=True)


def test_attribution_is_drawn_whole_in_parts_and_with_a_map():
    image, values, map = torch.rand(3, 6, 4), torch.randn(3, 6, 4), torch.rand(6, 4)
    axes = ifa.plot.attribution(image, values, map=map)
    assert len(axes) == 6
    summed = values.numpy().sum(0)
    limit = np.abs(summed).max()  # that of all three
    assert np.array_equal(drawn(axes[1]), alone(summed, limit))
    assert np.array_equal(drawn(axes[2]), alone(summed.clip(min=0), limit))
    assert np.array_equal(drawn(axes[3]), alone(summed.clip(max=0), limit))
    assert np.array_equal(drawn(axes[4]), ifa.plot.blend(image, map, high=float(map.max())))
    product = summed * map.numpy()
    assert np.array_equal(drawn(axes[5]), alone(product, np.abs(product).max()))


def test_a_signed_map_has_two_sides():
    image, values = torch.rand(1, 6, 4), torch.randn(1, 6, 4)
    axes = ifa.plot.attribution(image, values, map=torch.full((6, 4), -3.0))
    assert np.array_equal(drawn(axes[4])[0, 0], alone(np.full((1, 1), -3.0), 3)[0, 0])
    axes = ifa.plot.attribution(image, values, map=torch.full((6, 4), 3.0))
    assert axes[4].get_title() == "map\n0 … 3"


def test_clipping_is_said():
    values = torch.arange(-50.0, 51.0).reshape(1, 101)
    axes = ifa.plot.attribution(torch.rand(1, 101), values, quantile=0.9)
    assert np.array_equal(drawn(axes[1]), alone(values.numpy(), 45))
    assert "(90 %)" in axes[1].get_title()
    whole = ifa.plot.attribution(torch.rand(1, 101), values)
    assert np.array_equal(drawn(whole[1]), alone(values.numpy(), 50))
    assert "%" not in whole[1].get_title()


def test_of_a_volume_one_slice_is_drawn_in_every_panel():
    volume, values, map = torch.rand(1, 5, 6, 4), torch.zeros(1, 5, 6, 4), torch.rand(5, 6, 4)
    values[0, 3, 2, 1], values[0, 1, 0, 0] = -2.0, 1.0
    axes = ifa.plot.attribution(volume, values, map=map)
    assert np.array_equal(drawn(axes[1]), alone(values[0, 3].numpy(), 2))
    assert np.array_equal(drawn(axes[3]), alone(values[0, 3].numpy(), 2))
    slice_ = ifa.plot.blend(volume[:, 3], map[3], high=float(map[3].max()))
    assert np.array_equal(drawn(axes[4]), slice_)


def test_several_attributions_have_limits_of_their_own():
    image, one, other = torch.rand(1, 6, 4), torch.full((1, 6, 4), 2.0), -torch.ones(6, 4)
    axes = ifa.plot.attributions(image, {"one": one, "other": other})
    assert np.array_equal(drawn(axes[1]), alone(one[0].numpy(), 2))
    assert np.array_equal(drawn(axes[2]), alone(other.numpy(), 1))
    assert axes[2].get_title().startswith("other")


@pytest.mark.parametrize("width", [3, 6, 12])
def test_titles_are_whole_at_any_size(width):
    for image in (torch.rand(3, 9, 7), torch.rand(6, 50)):
        values = {name: 1e-7 * torch.randn(image.shape) for name in ("saliency", 30 * "long ")}
        assert_readable(ifa.plot.attributions(image, values, width=width)[0].figure)
        given = {"map": torch.rand(image.shape[1:]), "quantile": 0.99}
        assert_readable(ifa.plot.attribution(image, image - 0.5, width=width, **given)[0].figure)


def test_what_does_not_fit_is_refused():
    image, values = torch.rand(1, 6, 4), torch.rand(1, 6, 4)
    with pytest.raises(ValueError, match=r"ifa.plot.attribution: expected a map"):
        ifa.plot.attribution(image, values, map=torch.rand(3, 2))
    with pytest.raises(ValueError, match="expected 4 axes, got 2"):
        ifa.plot.attribution(image, values, axes=plt.subplots(1, 2)[1])
    with pytest.raises(ValueError, match="expected quantile"):
        ifa.plot.attributions(image, {"one": values}, quantile=0)
