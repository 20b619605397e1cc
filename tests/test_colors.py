"""Colors mean values: that under a value is the bar's, in all that draws a map over an input.

Read back from the rendered figure, over inputs that are as gray as what bars are drawn over.
"""

import inspect
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib import pyplot as plt
from pictures import colour_at, pixels
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab

import ifa
import ifa.plot.saving
from ifa.testing import models

QUIET = {"progress": False}
# from below the limits to above them, on cells of a map
PROBE = np.linspace(-0.2, 1.3, 12).reshape(3, 4).astype(np.float32)
SIGNED = 2 * PROBE - 1
SIGNAL = PROBE.ravel()
SCALE = ifa.Scale(torch.tensor(-0.31), torch.tensor(2.1))
ROUNDING = 2  # of eight bits: in the picture, and of the bar's pixels
GRAY = 128
LINES = 1.5


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def gray(*shape):
    return np.full(shape, GRAY, np.uint8)


@pytest.fixture(scope="module")
def run():
    model = models.pooled_linear(2)
    data = [(one, n % 3, f"{n}") for n, one in enumerate(models.inputs(model, 9))]
    tree = ifa.analyze(model, data, layer="conv2", keep_samples="full", **QUIET)
    return tree, [(torch.full_like(one, 0.5), label, name) for one, label, name in data]


def overlays_picture():
    axes = ifa.plot.overlay(gray(3, 6, 8), PROBE, scale=SCALE, bar=True, axes=plt.figure().gca())
    return [(axes, PROBE)]


def overlays_picture_signed():
    figure = plt.figure()
    options = {"signed": True, "high": 0.7, "bar": True}
    return [(ifa.plot.overlay(gray(1, 6, 8), SIGNED, axes=figure.gca(), **options), SIGNED)]


def overlays_picture_of_any_gray():
    # gray is stretched to its extremes, and of one gray there are none
    return [(ifa.plot.overlay(torch.full((4, 6, 8), 3.0), PROBE, bar=True), PROBE)]


def overlays_map_alone():
    return [(ifa.plot.overlay(None, PROBE, bar=True, axes=plt.figure().gca()), PROBE)]


def overlays_volume():
    values = np.stack([PROBE - 0.2, PROBE, PROBE - 0.1])
    return [(ifa.plot.overlay(gray(1, 6, 6, 8), values, bar=True), PROBE)]


def overlays_signal():
    return [(ifa.plot.overlay(np.zeros((2, 24)), SIGNAL, bar=True), SIGNAL)]


def signals_signal():
    return [(ifa.plot.signal(np.zeros((2, 24)), SIGNAL, scale=SCALE), SIGNAL)]


def signals_of_each_channel():
    low = np.where(np.arange(24) == 0, 1.0, -1.0)  # not in the middle of its lane
    axes = ifa.plot.signal(np.stack([low] * 3), SIGNED, signed=True, high=0.7)
    return [(axes, SIGNED)]


BLOCK = np.stack([PROBE, PROBE[::-1], PROBE / 2])


def volumes_planes():
    axes = ifa.plot.planes(
        gray(1, 9, 9, 12), BLOCK, scale=SCALE, at=(3, 5, 6)
    )  # beside the middles
    return list(zip(axes, (BLOCK[1], BLOCK[:, 1], BLOCK[:, :, 2]), strict=True))


def volumes_slices():
    axes = ifa.plot.slices(gray(3, 6, 6, 8), BLOCK, indices=(0, 2, 5))
    return list(zip(axes, BLOCK, strict=True))


def overlays_gallery():
    images, maps = [gray(3, 6, 8)] * 2, {"a": np.stack([PROBE] * 2), "b": np.stack([PROBE / 2] * 2)}
    axes = ifa.plot.gallery(images, maps, scale=SCALE)
    return [(one, PROBE) for one in axes[1]] + [(one, PROBE / 2) for one in axes[2]]


PARTS = SIGNED / np.abs(SIGNED).max()  # as the bar of attributions has them


def attributions_attribution():
    axes = ifa.plot.attribution(gray(1, 3, 4), SIGNED[None])
    return list(zip(axes[1:4], (PARTS, PARTS.clip(min=0), PARTS.clip(max=0)), strict=True))


def attributions_map():
    axes = ifa.plot.attribution(gray(1, 3, 4), np.ones((1, 3, 4)), map=SIGNED)
    return [(axes[4], PARTS), (axes[5], PARTS)]


def attributions_attributions():
    axes = ifa.plot.attributions(gray(1, 3, 4), {"a": SIGNED, "b": 1e-6 * SIGNED[::-1]})
    return [(axes[1], PARTS), (axes[2], PARTS[::-1])]


def cards_outliers(run):
    found = {name: ("sample", np.arange(4)) for name in ("id", "position", "target")}
    found |= {"p_adjusted": ("sample", np.ones(4)), "alarm": ("sample", np.zeros(4, bool))}
    axes = ifa.plot.outliers(xr.Dataset(found), run[1], maps=[PROBE] * 9, samples=4)
    return [(one, PROBE) for one in axes.ravel()[:4]]


def cards_channel_card(run):
    tree, data = run
    figure = ifa.plot.channel_card(tree, data, 1, maps=[SIGNED] * 9)
    return [(axes, SIGNED) for axes in figure.axes[6:12]]


def singles_features(run, monkeypatch):
    signed = torch.as_tensor(np.stack([SIGNED] * 4))
    monkeypatch.setattr("ifa.plot.singles.explain", lambda *_, **__: signed)
    axes = ifa.plot.features(*run, torch.nn.Identity(), [1, 0], samples=4)
    return [(one, SIGNED) for one in axes.ravel()]


def sheets_card(tmp_path, monkeypatch, montage=None):
    model = models.pooled_linear(2)
    inputs = models.inputs(model, 3)
    data = [(torch.full_like(one, 0.5), 0, f"{n}") for n, one in enumerate(inputs)]
    # the last step of a map is its scale: to every sample the probe
    tree = ifa.maps(model, data, layer="conv2", scale=SCALE, size=(3, 4), **QUIET)
    tree["conv2"]["map"][:] = PROBE
    figures = drawn_by(monkeypatch)
    ifa.plot.write_overlays(tree, data, tmp_path / "out", montage=montage, **QUIET)
    axes = [one for one in figures[0].axes if one.images and not hasattr(one, "_colorbar")]
    return [(one, PROBE) for one in (axes[3:] if montage else axes[1:3])]


def sheets_sheet(tmp_path, monkeypatch):
    return sheets_card(tmp_path, monkeypatch, montage=3)


def drawn_by(monkeypatch):
    """Keep the figures that are saved as files."""
    figures, saved = [], ifa.plot.saving.content_of
    for home in ("ifa.plot.sheets.content_of", "ifa.plot.saving.content_of"):
        monkeypatch.setattr(home, lambda figure, *a: figures.append(figure) or saved(figure, *a))
    return figures


def explain_card(tmp_path, monkeypatch):
    from ifa.cli import main

    monkeypatch.chdir(tmp_path)
    Path("net_of_colors.py").write_text(
        "import torch\n"
        "def net():\n"
        "    torch.manual_seed(0)\n"
        "    body = torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU()\n"
        "    head = torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 3)\n"
        "    return torch.nn.Sequential(*body, *head)\n"
    )
    Image.fromarray(gray(6, 8, 3)).save("gray.png")
    figures = drawn_by(monkeypatch)
    assert main(["explain", "net_of_colors:net", "gray.png", "--out", "out"]) == 0
    sys.modules.pop("net_of_colors", None)
    values = xr.open_zarr("out/maps.zarr")["map"][0].values
    axes = [one for one in figures[0].axes if one.images and not hasattr(one, "_colorbar")]
    return [(axes[1], values), (axes[2], values)]


CASES = {
    "overlay": [overlays_picture, overlays_picture_signed, overlays_picture_of_any_gray,
                overlays_map_alone, overlays_volume, overlays_signal],
    "signal": [signals_signal, signals_of_each_channel],
    "planes": [volumes_planes],
    "slices": [volumes_slices],
    "gallery": [overlays_gallery],
    "attribution": [attributions_attribution, attributions_map],
    "attributions": [attributions_attributions],
    "outliers": [cards_outliers],
    "channel_card": [cards_channel_card],
    "features": [singles_features],
    "write_overlays": [sheets_card, sheets_sheet, explain_card],
}  # fmt: skip
ARRAYS = {"bar", "blend"}


@pytest.mark.parametrize("case", [case for cases in CASES.values() for case in cases])
def test_the_color_under_a_value_is_that_of_the_bar(case, request):
    given = [request.getfixturevalue(name) for name in inspect.signature(case).parameters
             if name != "montage"]  # fmt: skip
    panels = case(*given)
    figure = panels[0][0].get_figure(root=True)
    (bar,) = {one._colorbar for one in figure.axes if hasattr(one, "_colorbar")}
    bar.outline.set_visible(False)  # it covers the ends
    picture = pixels(figure, dpi=200)
    colors = set()
    for axes, values in panels:
        for place, value in np.ndenumerate(values):
            came = colour_at(picture, axes, *in_axes(axes, place, values.shape))
            expected = of_bar(picture, bar, value)
            colors.add(tuple(came))
            assert np.abs(came - expected).max() <= ROUNDING, (value, came, expected)
    assert len(colors) > 5  # of values that differ


def in_axes(axes, place, shape):
    """Return where the middle of a map's cell is in axes."""
    left, right, bottom, top = axes.images[-1].get_extent()
    across = left + (place[-1] + 0.5) * (right - left) / shape[-1]
    if len(shape) == 1:
        return across, bottom + 0.03 * (top - bottom)  # away from the line
    return across, top + (place[0] + 0.5) * (bottom - top) / shape[0]


def of_bar(picture, bar, value):
    low, high = bar.vmin, bar.vmax
    edge = 0.002 * (high - low)
    value = float(np.clip(value, low + edge, high - edge))
    middle = np.mean(bar.ax.get_xlim() if bar.orientation == "vertical" else bar.ax.get_ylim())
    return colour_at(picture, bar.ax, *((middle, value) if bar.orientation == "vertical" else
                                        (value, middle)))  # fmt: skip


def test_everything_that_draws_a_map_is_tested():
    home = Path(ifa.plot.__file__).parent
    modules = {
        f"ifa.plot.{path.stem}"
        for path in home.glob("[a-z]*.py")
        if "ifa.plot.shades" in path.read_text() or "ifa.plot.overlays" in path.read_text()
    } | {"ifa.plot.shades"}
    drawing = {name for name in ifa.plot.__all__ if getattr(ifa.plot, name).__module__ in modules}
    assert drawing == {*CASES, *ARRAYS}


@pytest.mark.parametrize("signed", [False, True])
def test_a_contour_has_the_color_of_its_level_over_any_image(signed):
    values = np.repeat(np.linspace(-1.05, 1.05, 64)[None], 8, axis=0)
    image = np.random.default_rng(0).random((3, 8, 64))
    figure = plt.figure(figsize=(6, 2))
    axes = ifa.plot.overlay(image, values, how="contours", signed=signed, bar=True,
                            axes=figure.gca())  # fmt: skip
    (bar,) = {one._colorbar for one in figure.axes if hasattr(one, "_colorbar")}
    picture = pixels(figure, dpi=400)
    (lines,) = axes.collections
    assert len(lines.levels) == (10 if signed else 5)
    for level in lines.levels:
        under = np.interp(level, values[0], np.arange(64) + 0.5)
        came = colour_at(picture, axes, under, 3.7)
        assert np.abs(came - of_bar(picture, bar, level)).max() <= ROUNDING
        assert np.ptp(came) > 60  # no gray


# Machado, Oliveira & Fernandes 2009, of which one kind of cone is missing, in linear RGB
EYES = {
    "all": np.eye(3),
    "no red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
               [-0.003882, -0.048116, 1.051998]],
    "no green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                 [-0.011820, 0.042940, 0.968881]],
    "no blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                [0.004733, 0.691367, 0.303900]],
}  # fmt: skip


def seen(values, eyes):
    """Return what is seen of the bar of a signed map, in CIELAB."""
    colors = ifa.plot.blend(gray(1, 1, len(values)), values[None], signed=True)[0] / 255
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    linear = (linear @ np.transpose(EYES[eyes])).clip(0, 1)
    return rgb2lab(
        np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    )


@pytest.mark.parametrize("eyes", EYES)
def test_equal_steps_are_seen_as_such_and_both_sides_as_two(eyes):
    values = np.linspace(0, 1, 13)
    sides = [seen(side * values, eyes) for side in (1, -1)]
    for side in sides:
        steps = deltaE_ciede2000(side[:-1], side[1:])
        assert steps.max() < (1.5 if eyes == "all" else 3) * steps.min()
        assert (np.diff(side[:, 0]) > -0.4).all()  # light rises, but for rounding
        assert side[-1, 0] - side[0, 0] > 30
    apart = deltaE_ciede2000(*sides)
    assert (apart[3:] > 15).all()  # from a quarter of the range on


def test_an_array_is_blended_by_its_formula():
    image = np.random.default_rng(0).random((3, 6, 8))
    values = np.full((3, 4), 0.5, np.float32)
    light = np.tensordot([0.299, 0.587, 0.114], image, 1)
    clear = ifa.plot.blend(None, values)
    assert clear.shape == (3, 4, 4)
    assert (clear[..., 3] == 128).all()
    expected = 0.5 * 255 * light[..., None] + 0.5 * clear[0, 0, :3]
    came = ifa.plot.blend(image, values, contrast=1)
    assert np.abs(came - expected).max() <= 1
    colored = ifa.plot.blend(image, values, gray=False, contrast=1)
    expected = 0.5 * 255 * np.moveaxis(image, 0, -1) + 0.5 * clear[0, 0, :3]
    assert np.abs(colored - expected).max() <= 1
    finer = ifa.plot.blend(image, np.zeros((12, 16)), contrast=1)
    assert np.array_equal(finer[::2, ::2], np.repeat((255 * light).round()[..., None], 3, axis=2))
    holes = np.where(np.arange(4) % 2, np.nan, values)
    assert np.array_equal(
        ifa.plot.blend(image, holes, contrast=1)[:, 2::4], finer[::2, ::2][:, 2::4]
    )


@pytest.mark.parametrize("contrast", [0, 0.5, 1])
def test_over_any_image_colors_are_near_those_of_the_bar(contrast):
    values = np.random.default_rng(0).random((16, 16))
    image = np.random.default_rng(1).integers(0, 256, (3, 16, 16), np.uint8)
    bar = ifa.plot.blend(gray(1, 16, 16), values).astype(int)
    came = ifa.plot.blend(image, values, gray=False, contrast=contrast)
    farthest = (1 - values[..., None]) * contrast / 2
    assert (np.abs(came - bar) / 256 <= farthest + 1 / 255).all()
    with pytest.raises(ValueError, match=r"expected contrast in \[0, 1\], got 2"):
        ifa.plot.blend(image, values, contrast=2)
