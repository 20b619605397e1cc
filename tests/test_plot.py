"""Pictures: what is drawn is what was given. How they look was looked at."""

import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib import pyplot as plt
from pictures import assert_readable

import ifa


@pytest.fixture
def axes():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def test_overlay_draws_the_map_over_the_whole_image(axes):
    assert ifa.plot.overlay(torch.rand(1, 6, 4), torch.rand(3, 2), axes=axes, high=2.0) is axes
    image, values = axes.images
    assert image.get_extent() == values.get_extent() == [0, 4, 6, 0]
    assert values.get_clim() == (0.0, 2.0)


def test_a_signed_overlay_is_centred_at_zero(axes):
    ifa.plot.overlay(torch.rand(3, 6, 4), torch.randn(6, 4), signed=True, high=0.5, axes=axes)
    assert axes.images[1].get_clim() == (-0.5, 0.5)


def test_of_a_volume_the_strongest_slice_is_drawn(axes):
    volume, values = torch.rand(1, 6, 4, 5), torch.zeros(3, 2, 5)
    values[2, 1, 1] = 1.0
    ifa.plot.overlay(volume, values, axes=axes)
    image, drawn = axes.images
    assert np.array_equal(image.get_array(), volume[0, 4])
    assert np.array_equal(drawn.get_array(), values[2])


def test_a_signal_is_a_line_over_its_map(axes):
    ifa.plot.overlay(torch.rand(1, 8), torch.rand(4), axes=axes)
    assert len(axes.lines[0].get_xdata()) == 8
    assert axes.images[0].get_array().shape == (1, 4)
    assert axes.images[0].get_extent()[:2] == [0, 8]


def test_signals_of_several_channels_have_a_line_each(axes):
    signals = torch.rand(6, 100)
    ifa.plot.overlay(signals, torch.rand(25), axes=axes)
    assert len(axes.lines) == 6
    drawn = np.stack([line.get_ydata() for line in axes.lines])
    assert (np.diff(drawn.mean(1)) < 0).all()  # the first is on top
    np.testing.assert_allclose(np.ptp(drawn, axis=1), np.ptp(signals.numpy(), axis=1), rtol=1e-5)


def test_overlay_refuses_what_does_not_fit(axes):
    with pytest.raises(ValueError, match="as many axes of space"):
        ifa.plot.overlay(torch.rand(2, 6, 4, 3), torch.rand(6, 4, 3), axes=axes)


def test_gallery_has_a_row_for_each_kind():
    grid = ifa.plot.gallery(
        torch.rand(3, 1, 4, 5), {"a": torch.rand(3, 4, 5), "b": torch.rand(3, 2, 2)}, titles="xyz"
    )
    assert grid.shape == (3, 3)
    assert [axes.get_title() for axes in grid[0]] == ["x", "y", "z"]
    assert all(len(axes.images) == 2 for axes in grid[1:].flat)
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
    assert len(axes.collections) == 3
    assert len({tuple(points.get_facecolor()[0]) for points in axes.collections}) == 3


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
