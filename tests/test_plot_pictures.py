"""Inputs as pictures: channels, what is put back onto them, and texts that are whole."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from pictures import assert_readable
from PIL import Image

import ifa
from ifa.plot.pictures import Look
from ifa.plot.portraits import Panel, card, drawn_of, sheet
from ifa.plot.saving import content_of
from ifa.plot.shades import Shades, on_scale
from ifa.store.exports import Ends

NOTHING = np.zeros((4, 5))  # over which the image is seen


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def shown(image, **options):
    """Return the picture beneath a map, from 0 to 1."""
    return ifa.plot.blend(image, NOTHING, gray=False, contrast=1, **options) / 255


def stretched(values):
    return (values - values.min()) / (values.max() - values.min())


def close(came, expected):
    expected = np.asarray(expected)
    expected = expected[..., None] if expected.ndim == 2 else np.moveaxis(expected, 0, -1)
    return np.abs(came - expected).max() <= 0.5 / 255 + 1e-6


def test_any_number_of_channels_is_drawn():
    bands = torch.rand(13, 4, 5).numpy()
    assert close(shown(bands), stretched(bands.mean(0)))
    assert close(shown(bands, channels=7), stretched(bands[7]))
    assert close(shown(bands, channels=(3, 2, 1)), bands[[3, 2, 1]])
    assert close(shown(bands[:3]), bands[:3])
    assert close(shown(bands[:3], channels="mean"), stretched(bands[:3].mean(0)))
    strong = np.outer(np.linspace(1, 2, 4), np.ones(13)).T[:, :, None] * np.linspace(1, 3, 5)
    assert close(shown(-strong * 1e3, channels="principal"), stretched(-strong[0]))
    for channels in (13, (1, 2), "first", (0, 1, 13)):
        with pytest.raises(ValueError, match=r"ifa.plot.blend: expected channels to be one of 13"):
            shown(bands, channels=channels)
    with pytest.raises(ValueError, match="Channels come first"):
        shown(bands.reshape(1, *bands.shape))


def test_what_was_normalized_is_put_back():
    photograph = torch.rand(3, 4, 5)
    mean, deviation = torch.tensor([0.48, 0.46, 0.41]), torch.tensor([0.23, 0.22, 0.25])
    normal = (photograph - mean[:, None, None]) / deviation[:, None, None]
    back = lambda image: image * deviation[:, None, None] + mean[:, None, None]  # noqa: E731
    assert close(shown(normal, denormalize=(mean, deviation)), photograph)
    assert close(shown(normal, denormalize=(mean.tolist(), tuple(deviation.tolist()))), photograph)
    assert close(shown(normal, denormalize=back), photograph)
    dim = 0.2 + 0.3 * torch.rand(1, 4, 5)
    assert close(shown((dim - 0.5) / 0.5, denormalize=(0.5, 0.5)), dim)  # as dim as it was
    with pytest.raises(ValueError, match="one for each of 3 channels, or a function, got sizes"):
        shown(normal, denormalize=([0.1, 0.2], 1.0))


def test_nothing_is_clipped_in_silence():
    normal = torch.randn(3, 4, 5).numpy()
    assert close(shown(normal), stretched(normal))
    rounded = np.clip(torch.rand(3, 4, 5).numpy(), 0, 1) * (1 + 1e-6)
    assert close(shown(rounded), rounded.clip(0, 1))
    scan = (1000 * torch.randn(1, 4, 5)).numpy()
    assert close(shown(scan), stretched(scan[0]))
    assert close(shown(scan, window=(-500, 800)), ((scan[0] + 500) / 1300).clip(0, 1))
    bytes_ = (255 * torch.rand(3, 4, 5)).byte().numpy()
    assert close(shown(bytes_), bytes_ / 255)
    assert close(shown(Image.fromarray(np.moveaxis(bytes_, 0, -1))), bytes_ / 255)
    with pytest.raises(ValueError, match="expected window="):
        shown(scan, window=(3, 1))


def test_a_scale_is_said_on_the_bar():
    from ifa.plot.shades import shades_of

    scale = ifa.Scale(torch.tensor(-0.3125), torch.tensor(2.0))
    said = "common scale: 0 = -0.312, 1 = 2"
    assert shades_of("here", scale=scale) == Shades(0.0, 1.0, False, said)
    assert shades_of("here", scale=scale, unit="logit").label == f"{said} logit"
    each = ifa.Scale(torch.zeros(3), torch.ones(3))
    assert "that of its target" in shades_of("here", scale=each).label
    assert shades_of("here", high=2.0, unit="logit") == Shades(0.0, 2.0, False, "intensity (logit)")
    for wrong in ({"scale": (0.0, 1.0)}, {"scale": scale, "high": 2.0}):
        with pytest.raises(TypeError, match="here: expected scale to be a Scale or statistics"):
            shades_of("here", **wrong)


def test_a_bar_ends_in_an_arrow_where_values_go_on():
    axes = plt.figure().gca()
    for values, expected in (([0.0, 1.0], "neither"), ([0.5, 1.1], "max"), ([-0.1], "min"),
                             ([-1.0, 2.0], "both"), ([float("nan"), 0.5], "neither")):  # fmt: skip
        assert ifa.plot.bar(axes, torch.tensor(values)).extend == expected
    assert ifa.plot.bar(axes, torch.tensor([-0.9]), signed=True).extend == "neither"


@pytest.mark.parametrize("how", ["opacity", "contours"])
@pytest.mark.parametrize("width", [3, 6, 12])
def test_a_bar_is_whole_at_any_size(width, how):
    scale, values = ifa.Scale(torch.tensor(-0.31), torch.tensor(2.1)), torch.rand(6, 8)
    for options in ({"scale": scale, "unit": "logit"},
                    {"signed": True, "high": 1e-6, "unit": "log probability"}):  # fmt: skip
        plt.figure(figsize=(width, 0.75 * width))
        axes = ifa.plot.overlay(torch.rand(1, 6, 8), values, how=how, bar=True, **options)
        assert_readable(axes.figure)


LONG = "n01440764/a_photograph_of_a_fish_{:05d}.JPEG"


@pytest.mark.parametrize("width", [3, 6, 12])
@pytest.mark.parametrize("count", [1, 2, 20])
def test_a_gallery_is_whole_at_any_size(count, width):
    images, maps = torch.rand(count, 1, 6, 8), torch.rand(count, 6, 8)
    scale = ifa.Scale(torch.tensor(-0.31), torch.tensor(2.1))
    kinds = {"fullcam": maps, "ablationcam, of a quarter of the channels": maps}
    titles = [LONG.format(number) for number in range(count)]
    axes = ifa.plot.gallery(images, kinds, titles=titles, scale=scale, unit="logit", width=width)
    figure = axes[0, 0].figure
    assert axes.shape == (3, count)
    assert figure.get_size_inches()[0] == pytest.approx(width)
    assert_readable(figure)
    said = "\n".join(text.get_text().replace("\n", "") for text in axes[0, -1].figure.texts)
    said += axes[0, -1].get_title().replace("\n", "")
    assert said.endswith(titles[-1][-12:])  # in which names differ


SCALED = on_scale(Ends(np.array([-0.31]), np.array([2.1]), (0.0, 1.0)), "logit")
OWN = on_scale(Ends(np.zeros(3), np.ones(3), (0.05, 0.95)), "logit")
TINY = Shades(0.0, 3e-6, True, "map (log probability)")
PANELS = [
    Panel("fullcam, layer4.2.bn3, for Staffordshire bullterrier, Staffordshire terrier", SCALED),
    Panel("gradcam_plus_plus, features.stage4.block.11.layers.0.conv_dw, block 3", OWN),
    Panel("ablationcam", TINY),
]  # fmt: skip
LINES = [
    LONG.format(1) * 2,
    "predicted: Staffordshire bullterrier, Staffordshire bull terrier (12.3 logit)",
    "expected: American Staffordshire terrier, Staffordshire terrier",
    *(f"for target number {number}: {number}.5 logit" for number in range(4)),
]


@pytest.mark.parametrize(
    ("shape", "count"),
    [((6, 90), 1), ((3, 40, 40), 1), ((13, 12, 60), 9), ((4, 60, 12), 2), ((2, 5, 8, 9), 1)],
)
def test_cards_and_sheets_are_whole(shape, count):
    image = torch.rand(*shape)
    maps = [1.5 * torch.rand(shape[1:]).numpy() - 0.2] * len(PANELS)
    drawn = drawn_of("here", image, maps, PANELS, LINES)
    assert_readable(sheet([drawn] * count, PANELS))
    for panels in (PANELS, PANELS[:1]) if count == 1 else ():
        assert_readable(card([drawn._replace(maps=drawn.maps[: len(panels)])], panels))


def test_vector_graphics_hold_every_pixel_and_texts_as_texts():
    image, values = torch.rand(3, 97, 61), torch.rand(97, 61).numpy()
    panels = PANELS[:1]
    drawn = drawn_of("here", image, [values], panels, LINES, Look())
    figure = card([drawn], panels)
    content = content_of(figure, "svg", 20).decode()
    pictures = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(one))).convert("RGB"))
        for one in re.findall(r'data:image/png;base64,([^"]+)"', content)
    ]
    for expected in (ifa.plot.blend(image, values), shown_rgb(image)):
        assert any(np.array_equal(one, expected) for one in pictures)
    texts = "".join(re.findall(r"<text[^>]*>([^<]*)", content)).replace(" ", "")
    assert SCALED.label.replace(" ", "") in texts
    assert content_of(figure, "pdf", 20).startswith(b"%PDF")
    assert content_of(figure, "pdf", 20) == content_of(figure, "pdf", 20)


def shown_rgb(image):
    return (255 * np.moveaxis(image.numpy(), 0, -1)).round().astype(np.uint8)


def test_photographs_are_drawn_as_they_were_before_a_preparation(tmp_path):
    from ifa.data.samples import normalization_of
    from ifa.store.preparations import Photograph

    prepare = Photograph((8, 8), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), 1.0, False, "bicubic")
    (tmp_path / "a").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a" / "0.png")
    data = ifa.data.folder(tmp_path, prepare=prepare)
    found = normalization_of(torch.utils.data.Subset(data, [0]))
    assert found == (prepare.mean, prepare.deviation)
    back = ifa.plot.blend(data[0][0], np.zeros((8, 8)), gray=False, contrast=1, denormalize=found)
    assert np.array_equal(back, pixels)
    assert normalization_of([(1, 2)]) is None


@pytest.mark.parametrize("cells", [2, 4, 8])
def test_of_a_volume_the_slice_in_the_middle_of_the_strongest_cell_is_drawn(cells):
    volume = np.arange(4.0)[:, None, None] * np.ones((4, 3, 3)) / 3
    values = np.zeros((cells, 3, 3))
    values[-1] = 1.0  # the last cell, whether it is larger or smaller than a slice
    one = Panel("a map", Shades(0.0, 1.0))
    drawn = drawn_of("here", volume[None], [values], [one], [])
    place = 2 if cells == 2 else 3
    assert drawn.notes[-1] == f"z = {place} of 0 … 3"
    assert (drawn.image == volume[place]).all()
    assert (drawn.maps[0] == 1).all()
