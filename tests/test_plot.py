"""Pictures: what is drawn is what was given. How they look was looked at."""

import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib import pyplot as plt
from pictures import assert_readable
from PIL import Image

import ifa


@pytest.fixture
def axes():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def raster(axes):
    """Return the last picture that was drawn, as its array."""
    return np.asarray(axes.images[-1].get_array())


def test_overlay_draws_the_map_over_the_whole_image(axes):
    image, values = torch.rand(1, 6, 4), 2 * torch.rand(3, 2)
    assert ifa.plot.overlay(image, values, axes=axes, high=2.0) is axes
    assert axes.images[-1].get_extent() == [0, 4, 6, 0]
    assert np.array_equal(raster(axes), ifa.plot.blend(image, values, high=2.0))
    assert raster(axes).shape == (6, 4, 3)


def test_of_a_volume_the_strongest_slice_is_drawn(axes):
    volume, values = torch.rand(1, 6, 4, 5), torch.zeros(3, 2, 5)
    values[2, 1, 1] = 1.0
    ifa.plot.overlay(volume, values, axes=axes)
    whole = ifa.plot.blend(volume, values)
    assert whole.shape == (6, 4, 5, 3)
    assert np.array_equal(raster(axes), whole[4])


@pytest.mark.parametrize("channels", [1, 3])
def test_several_maps_of_an_image_are_no_volume(channels):
    image, maps = torch.rand(channels, 8, 8), torch.rand(3, 8, 8)
    for draw in (ifa.plot.blend, ifa.plot.overlay):
        with pytest.raises(ValueError, match=rf"plot\.{draw.__name__}: expected a map of two axes"):
            draw(image, maps)
        with pytest.raises(ValueError, match="expected a map of two axes"):
            draw(Image.new("RGB", (8, 8)), maps)
    assert ifa.plot.blend(image[None], maps).shape == (max(3, channels), 8, 8, 3)


def test_a_signal_is_a_line_over_its_map(axes):
    values = torch.rand(4)
    ifa.plot.overlay(torch.rand(1, 8), values, axes=axes)
    assert len(axes.lines[0].get_xdata()) == 8
    grey = np.full((1, 1, 4), 128, dtype=np.uint8)
    assert np.array_equal(raster(axes), ifa.plot.blend(grey, values[None]))
    assert axes.images[0].get_extent()[:2] == [0, 8]


def test_signals_of_several_channels_have_a_line_each(axes):
    signals = torch.rand(6, 100)
    ifa.plot.overlay(signals, torch.rand(25), axes=axes)
    assert len(axes.lines) == 6
    drawn = np.stack([line.get_ydata() for line in axes.lines])
    assert (np.diff(drawn.mean(1)) < 0).all()  # the first is on top
    each = [np.corrcoef(*pair)[0, 1] for pair in zip(drawn, signals.numpy(), strict=True)]
    np.testing.assert_allclose(each, 1, rtol=1e-5)


def test_overlay_refuses_what_does_not_fit(axes):
    image = torch.rand(1, 6, 4)
    with pytest.raises(ValueError, match="as many axes of space"):
        ifa.plot.overlay(torch.rand(2, 1, 6, 4), torch.rand(6, 4), axes=axes)
    with pytest.raises(ValueError, match=r"expected a map \(t\), \(y, x\) or \(z, y, x\), got"):
        ifa.plot.overlay(image, torch.rand(2, 1, 6, 4), axes=axes)
    with pytest.raises(ValueError, match="how to be one of"):
        ifa.plot.overlay(image, torch.rand(6, 4), how="lines", axes=axes)
    with pytest.raises(ValueError, match="expected low < high"):
        ifa.plot.overlay(image, torch.rand(6, 4), low=1.0, axes=axes)


def test_gallery_has_a_row_for_each_kind():
    grid = ifa.plot.gallery(
        torch.rand(3, 1, 4, 5), {"a": torch.rand(3, 4, 5), "b": torch.rand(3, 2, 2)}, titles="xyz"
    )
    assert grid.shape == (3, 3)
    assert [axes.get_title() for axes in grid[0]] == ["x", "y", "z"]
    assert all(raster(axes).shape == (4, 5, 3) for axes in grid.flat)
    plt.close(grid[0, 0].figure)


def test_importance_is_centred_and_named(axes):
    values = xr.DataArray(
        [[1.0, -3.0], [0.5, np.nan]],
        {"target": [0, 1], "target_name": ("target", ["no", "yes"])},
        ("target", "channel"),
        "importance",
        {"units": "logit"},
    )
    ifa.plot.importance(values, axes=axes)
    assert axes.images[0].get_clim() == (-3.0, 3.0)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["no", "yes"]
    assert axes.figure.axes[1].get_ylabel() == "importance (logit)"


def test_extremes_leave_out_what_is_not_finite(axes):
    samples = xr.Dataset(
        {
            "map_max": ("sample", [1.0, 2.0, np.nan]),
            "map_min": ("sample", [-1.0, 0.0, np.nan]),
            "finite": ("sample", [True, True, False]),
        }
    )
    scale = ifa.Scale(torch.tensor(-0.5), torch.tensor(1.5))
    ifa.plot.extremes(samples, scale, axes=axes)
    assert sum(patch.get_height() for patch in axes.patches) == 4
    assert [line.get_xdata()[0] for line in axes.lines] == [-0.5, 1.5]


def test_kept_draws_each_rule_with_its_interval(axes):
    shape = (("rule", "ratio"), np.array([[0.5, 0.9], [0.2, 0.4]]))
    curves = xr.Dataset(
        {
            "performance": shape,
            "low": (shape[0], shape[1] - 0.1),
            "high": (shape[0], shape[1] + 0.1),
        },
        {"rule": ["a", "b"], "ratio": [0.05, 0.5]},
        {"reference": 0.95},
    )
    ifa.plot.kept(curves, axes=axes)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "every channel: 0.950",
        "a",
        "b",
    ]
    segments = axes.containers[1][2][0].get_segments()
    np.testing.assert_allclose([segment[:, 1] for segment in segments], [[0.1, 0.3], [0.3, 0.5]])


def test_level_has_a_colour_for_each_target(axes):
    ifa.plot.level(torch.rand(3, 7), torch.rand(3, 7), names=["a", "b", "c"], axes=axes)
    colours = axes.collections[0].get_facecolor().reshape(3, 7, 4)
    assert (colours == colours[:, :1]).all()
    assert len({tuple(row[0]) for row in colours}) == 3
    bar = axes.figure.axes[1]
    np.testing.assert_allclose(bar.collections[-1].cmap(np.arange(3)), colours[:, 0])
    axes.figure.canvas.draw()
    assert [label.get_text() for label in bar.get_yticklabels()] == ["a", "b", "c"]


def test_texts_that_cannot_be_read_are_found():
    figure, axes = plt.subplots(1, 2, figsize=(4, 2), layout="constrained")
    turned = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    axes[0].set_xticks(range(4), [f"label {n}" for n in range(4)], **turned)
    axes[0].set_title("short")
    axes[1].text(0.5, 0.5, "inside")
    assert_readable(figure)
    for spoil, said in (
        (lambda: axes[0].set_title("one\nfar too long for a figure of four inches"), "outside of"),
        (lambda: axes[0].set_title("short") and axes[1].text(0.5, 0.52, "too"), "one over the"),
        (lambda: axes[1].texts[-1].set_position((-1.2, 0.5)), "over axes 'short': 'too'"),
    ):
        spoil()
        with pytest.raises(AssertionError, match=said):
            assert_readable(figure)
    plt.close(figure)
