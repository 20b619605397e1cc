"""Pictures of attributions: what is drawn is what was given. How they look was looked at."""

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

import ifa


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def drawn(axes):
    return axes.images[-1].get_array()


def test_attribution_is_drawn_whole_in_parts_and_with_a_map():
    image, values, map = torch.rand(3, 6, 4), torch.randn(3, 6, 4), torch.rand(6, 4)
    axes = ifa.plot.attribution(image, values, map=map)
    assert len(axes) == 6
    summed = values.sum(0).numpy()
    np.testing.assert_allclose(drawn(axes[1]), summed, rtol=1e-6)
    np.testing.assert_allclose(drawn(axes[2]) + drawn(axes[3]), summed, rtol=1e-6)
    assert drawn(axes[2]).min() == 0 == drawn(axes[3]).max()
    np.testing.assert_allclose(drawn(axes[4]), map.numpy())
    np.testing.assert_allclose(drawn(axes[5]), summed * map.numpy(), rtol=1e-6)
    limit = np.abs(summed).max()
    for panel in axes[1:4]:
        np.testing.assert_allclose(panel.images[-1].get_clim(), (-limit, limit), rtol=1e-6)


def test_a_signed_map_has_two_sides():
    image, values = torch.rand(1, 6, 4), torch.randn(1, 6, 4)
    axes = ifa.plot.attribution(image, values, map=torch.full((6, 4), -3.0))
    assert axes[4].images[-1].get_clim() == (-3, 3)
    axes = ifa.plot.attribution(image, values, map=torch.full((6, 4), 3.0))
    assert axes[4].images[-1].get_clim() == (0, 3)


def test_clipping_is_said():
    values = torch.arange(-50.0, 51.0).reshape(1, 101)
    axes = ifa.plot.attribution(torch.rand(1, 101), values, quantile=0.9)
    assert axes[1].images[-1].get_clim() == (-45, 45)
    assert "(90 %)" in axes[1].get_title()
    whole = ifa.plot.attribution(torch.rand(1, 101), values)
    assert whole[1].images[-1].get_clim() == (-50, 50)
    assert "%" not in whole[1].get_title()


def test_of_a_volume_one_slice_is_drawn_in_every_panel():
    volume, values, map = torch.rand(1, 5, 6, 4), torch.zeros(1, 5, 6, 4), torch.rand(5, 6, 4)
    values[0, 3, 2, 1], values[0, 1, 0, 0] = -2.0, 1.0
    axes = ifa.plot.attribution(volume, values, map=map)
    np.testing.assert_allclose(drawn(axes[1]), values[0, 3])
    np.testing.assert_allclose(axes[0].images[0].get_array(), volume[0, 3])
    np.testing.assert_allclose(drawn(axes[3]), values[0, 3])
    np.testing.assert_allclose(drawn(axes[4]), map[3])


def test_several_attributions_have_limits_of_their_own():
    image, one, other = torch.rand(1, 6, 4), torch.full((1, 6, 4), 2.0), -torch.ones(6, 4)
    axes = ifa.plot.attributions(image, {"one": one, "other": other})
    assert [panel.images[-1].get_clim() for panel in axes[1:]] == [(-2, 2), (-1, 1)]
    assert axes[2].get_title().startswith("other")


def test_what_does_not_fit_is_refused():
    image, values = torch.rand(1, 6, 4), torch.rand(1, 6, 4)
    with pytest.raises(ValueError, match=r"ifa.plot.attribution: expected a map"):
        ifa.plot.attribution(image, values, map=torch.rand(3, 2))
    with pytest.raises(ValueError, match="expected 4 axes, got 2"):
        ifa.plot.attribution(image, values, axes=plt.subplots(1, 2)[1])
    with pytest.raises(ValueError, match="expected quantile"):
        ifa.plot.attributions(image, {"one": values}, quantile=0)
