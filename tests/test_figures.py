"""Every picture at 3, 6 and 12 inches: nothing cut off, no words over others, none too small."""

import html
import re
from unittest import mock

import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.text import Text
from pictures import assert_readable
from PIL import Image

import ifa
from ifa import contest, evaluate
from ifa.plot.saving import content_of

WIDTHS = (3, pytest.param(6, marks=pytest.mark.deep), 12)
SMALLEST = 6.5  # points
LAYER = "features.denseblock4.denselayer16.conv2"
TARGETS = 100
RNG = np.random.default_rng(0)
VOLUME = np.ones((20, 48, 40)), np.random.default_rng(0).random((5, 12, 10))
AFFINE = np.array([[-2.0, 0, 0, 40], [0, 2, 0, -48], [0, 0, 5, -50], [0, 0, 0, 1]])
ATTRIBUTED = torch.rand(3, 6, 4), torch.randn(6, 4)
CHANNEL = torch.randn(220, 4, 4)
# what returns or writes arrays and files, which are looked at elsewhere
NO_FIGURES = {"blend", "save", "write_overlays"}
UNIT = "standard deviations of the logit of the target over the population"
NAMES = [f"a rather long name of class {n}, of the whole hierarchy" for n in range(TARGETS)]


def axes_of(width, height=None):
    figure = plt.figure(figsize=(width, height or max(3.0, 0.6 * width)), layout="constrained")
    return figure.subplots()


def importances(targets):
    return xr.DataArray(
        RNG.standard_normal((targets, 40)),
        {"target": range(targets), "target_name": ("target", NAMES[:targets])},
        ("target", "channel"),
        "importance",
        {"units": "logit", "long_name": f"mean importance over the accepted samples of {LAYER}"},
    )


@pytest.fixture(scope="module")
def run():
    """Return data and runs over them, of many targets, with long names."""
    torch.manual_seed(0)
    inputs = torch.randn(220, 1, 6, 6)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3), torch.nn.Flatten(), torch.nn.Linear(128, TARGETS)
    )
    with torch.no_grad():
        inputs[:, 0, 0, 0] += torch.arange(220) % 3
        labels = net(inputs).argmax(1).tolist()
    data = [
        (one, label, f"site-{n % 3}/patient-{n:04d}/session-01.nii.gz")
        for n, (one, label) in enumerate(zip(inputs, labels, strict=True))
    ]
    trees = [
        ifa.analyze(
            net.eval(),
            some,
            layer="0",
            keep_samples="full",
            target_names=NAMES,
            cluster=[name for *_, name in some],
            progress=False,
        )
        for some in (data, [(one + 0.3, *rest) for one, *rest in data])
    ]
    return data, *trees


def curve_kept():
    shape = ("rule", "ratio")
    rules = ["largest absolute difference of importances", "as many channels at random"]
    values = np.linspace(0.2, 0.9, 10).reshape(2, 5)
    return xr.Dataset(
        {
            "performance": (shape, values),
            "low": (shape, values - 0.1),
            "high": (shape, values + 0.1),
        },
        {"rule": rules, "ratio": [0.01, 0.02, 0.05, 0.1, 0.5]},
        {"reference": 0.95},
    )


def claimed():
    names = ["level", "per-map scale", "few channels, zero fill", "same map, beside random"]
    columns = {"estimate": [0.7, 1.2, 0.9, 0.4], "threshold": [0.5, 0, 0.25, 0]}
    columns |= {"low": [0.6, -0.1, 0.8, 0.3], "high": [0.8, 1.4, 0.9, 0.5]}
    columns |= {"above": [True, True, False, True]}
    columns |= {"verdict": ["holds", "cannot be said", "does not hold", "holds"]}
    variables = {name: ("claim", values) for name, values in columns.items()}
    said = {"layer": "features.denseblock4.denselayer16.conv2", "samples": 899}
    return xr.Dataset(variables, {"claim": names}, said)


def curves():
    found = {}
    for name in ("fullcam", "gradcam_plus_plus", "smooth_gradcam_plus_plus", "noise", "layercam"):
        fraction = torch.linspace(0, 1, 6).expand(4, 6)
        found[name] = evaluate.Curve(fraction, torch.rand(4, 6), torch.rand(4))
    return found


def made_up(methods, metrics, samples=5):
    value = RNG.random((methods, metrics, samples))
    value += np.linspace(0, 0.5, methods)[:, None, None]
    blank = np.zeros((methods, samples), bool)
    blank[-1] = True
    names = [f"smooth_gradcam_plus_plus_{n}" for n in range(methods)]
    kinds = ["deletion.auc", "faithfulness_correlation", "confidence_increase", "relevance_mass"]
    return xr.Dataset(
        {
            "value": (("method", "metric", "sample"), value),
            "blank": (("method", "sample"), blank),
            "nonfinite": (("method", "sample"), np.zeros((methods, samples), bool)),
            "better": ("metric", (["higher", "lower", ""] * metrics)[:metrics]),
        },
        {"method": names, "metric": [f"{kinds[n % 4]}_{n}" for n in range(metrics)]},
    )


def refined():
    low, high = torch.rand(5, 5, generator=torch.Generator().manual_seed(0)), torch.zeros(20, 20)
    high[5:12, 6:14] = 1.0
    return ifa.refine.pipeline(torch.rand(1, 20, 20), low, high)


def extremes_of(run, width):
    tree = run[1]
    return ifa.plot.extremes(tree["samples/0"], ifa.scale_from(tree), axes=axes_of(width))


def features_of(run, width):
    with mock.patch(
        "ifa.plot.singles.explain", lambda net, inputs, *_, **__: CHANNEL[: len(inputs)]
    ):
        net = torch.nn.Identity()
        return ifa.plot.features(run[1], run[0], net, [0, 3, 5], samples=5, width=width)


def steps():
    return [f"features.denseblock{n}.denselayer16.conv2" for n in range(12)]


# name -> what draws it for a run at a width: axes, an array of them, a figure, or several of these
DRAWN = {
    "agreement": lambda run, w: ifa.plot.agreement(
        ifa.diagnose.agreement(*run[1:]), first_target(run), axes=axes_of(w)
    ),
    "attribution": lambda run, w: ifa.plot.attribution(
        *ATTRIBUTED, map=torch.rand(6, 4), quantile=0.9, width=w
    ),
    "attributions": lambda run, w: ifa.plot.attributions(
        ATTRIBUTED[0], dict.fromkeys(curves(), ATTRIBUTED[1]), width=w
    ),
    "bar": lambda run, w: (
        ifa.plot.bar(
            ifa.plot.overlay(*ATTRIBUTED, axes=axes_of(w)), low=-1e-7, high=3e-6, unit=UNIT
        ).ax
    ),
    "channel_card": lambda run, w: [
        ifa.plot.channel_card(run[1], run[0], 3, maps=maps, width=w) for maps in (None, CHANNEL)
    ],
    "claims": lambda run, w: ifa.plot.claims(claimed(), axes=axes_of(w)),
    "confounders": lambda run, w: ifa.plot.confounders(
        ifa.diagnose.confounders(run[1], np.arange(len(run[0])) % 3, alpha=0.5), axes=axes_of(w)
    ),
    "critical_differences": lambda run, w: [
        ifa.plot.critical_differences(made_up(n, 2, 30), "deletion.auc_0", axes=axes_of(w, 4))
        for n in (2, 9, 30)
    ],
    "diagnosis": lambda run, w: [
        ifa.plot.diagnosis(found, figure=Figure((w, h), layout="constrained"))
        for found, h in (
            (ifa.diagnose.outliers(run[1], minimum=2), 4),
            (ifa.diagnose.agreement(*run[1:]).isel(target=[1, 3, 4]), 9 if w < 6 else 7),
        )
    ],
    "distributions": lambda run, w: ifa.plot.distributions(run[1], 3, axes=axes_of(w)),
    "extremes": extremes_of,
    "features": features_of,
    "gallery": lambda run, w: ifa.plot.gallery(
        torch.rand(7, 1, 5, 4),
        {"gradcam on the common scale": torch.rand(7, 5, 4), "one by one": torch.rand(7, 5, 4)},
        titles=NAMES[:7],
        width=w,
    ),
    "importance": lambda run, w: [
        ifa.plot.importance(importances(10), axes=axes_of(w)),
        ifa.plot.importance(importances(100), order="cluster", axes=axes_of(w)),
    ],
    "kept": lambda run, w: ifa.plot.kept(curve_kept(), axes=axes_of(w)),
    "level": lambda run, w: [
        ifa.plot.level(torch.rand(n, 5), torch.rand(n, 5), names=NAMES[:n], axes=axes_of(w))
        for n in (3, 100)
    ],
    "methods": lambda run, w: ifa.plot.methods(contest.summary(made_up(9, 8)), width=w),
    "randomization": lambda run, w: ifa.plot.randomization(
        {name: torch.rand(12, 4) for name in curves()}, steps(), axes=axes_of(w, 5)
    ),
    "redundancy": lambda run, w: ifa.plot.redundancy(
        ifa.diagnose.redundancy(run[1], threshold=0.1), axes=axes_of(w, 3 + w / 2)
    ),
    "refinement": lambda run, w: ifa.plot.refinement(
        refined(),
        axes=plt.figure(figsize=(w, 6 if w < 6 else 0.8 * w), layout="constrained").subplots(3, 4),
    ),
    "relevance_curves": lambda run, w: ifa.plot.relevance_curves(curves(), axes=axes_of(w, 4)),
    "outliers": lambda run, w: [
        ifa.plot.outliers(
            ifa.diagnose.outliers(run[1], minimum=2), run[0], maps=maps, samples=7, width=w
        )
        for maps in (None, CHANNEL)
    ],
    "overlay": lambda run, w: [
        ifa.plot.overlay(image, values, bar=True, unit=UNIT, axes=axes_of(w))
        for image, values in (ATTRIBUTED, (torch.rand(6, 90), torch.rand(30)), VOLUME)
    ],
    "planes": lambda run, w: ifa.plot.planes(*VOLUME, geometry=AFFINE, width=w, unit=UNIT),
    "shift": lambda run, w: ifa.plot.shift(ifa.diagnose.shift(*run[1:]), axes=axes_of(w, 4)),
    "signal": lambda run, w: [
        ifa.plot.signal(
            RNG.standard_normal((count, 300)),
            RNG.random(75),
            rate=100,
            amplitude="µV",
            unit=UNIT,
            names=NAMES[:count],
            events=[(0.2, 1, "a long sleep spindle"), (1, 0, "arousal")],
            gain=gain,
            axes=axes_of(w, 4),
        )
        for count, gain in ((1, "own"), (6, "own"), (6, "common"), (64, "own"))
    ],
    "slices": lambda run, w: ifa.plot.slices(*VOLUME, geometry=AFFINE, width=w, unit=UNIT),
    "summary": lambda run, w: ifa.plot.summary(
        run[1], figure=Figure((w, 7 if w < 7 else 4), layout="constrained")
    ),
}


def first_target(run):
    found = ifa.diagnose.agreement(*run[1:])
    return int(found["target"][np.isfinite(found["bias"].values)][0])


def figures_of(drawn):
    if isinstance(drawn, list):
        return [figure for one in drawn for figure in figures_of(one)]
    if isinstance(drawn, np.ndarray):
        return figures_of(drawn.flat[0])
    return [drawn if isinstance(drawn, Figure) else drawn.get_figure(root=True)]


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def test_every_picture_is_looked_at():
    assert {*DRAWN} | NO_FIGURES == {*ifa.plot.__all__}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", sorted(DRAWN))
def test_nothing_is_cut_off_or_hidden(run, name, width):
    for figure in figures_of(DRAWN[name](run, width)):
        assert figure.get_size_inches()[0] == width
        assert_readable(figure)
        said = words(figure)
        assert not {text: size for text, size in said.items() if size < SMALLEST}
        if width == 12:
            assert_words_stay_words(figure, said)
        if width == 6:
            assert b"/FontDescriptor" in content_of(figure, "pdf", 300)


def assert_words_stay_words(figure, said):
    svg = html.unescape(content_of(figure, "svg", 300).decode())
    written = " ".join(re.findall(r">([^<>]+)</t", svg))
    assert {word for text in said for word in text.split()} <= {*written.split()}


def words(figure):
    """Settle a figure; return the texts that are drawn, each with its size in points."""
    found = {}

    def draw(text, *rest, **more):
        if text.get_visible() and text.get_text().strip():
            found[text.get_text()] = text.get_fontsize()
        return before(text, *rest, **more)

    before = Text.draw
    with mock.patch.object(Text, "draw", draw):
        figure.draw_without_rendering()
    return found


def test_a_picture_is_saved_by_its_ending(tmp_path):
    axes = plt.subplots(figsize=(2, 1))[1]
    path = ifa.plot.save(np.array([[axes]]), tmp_path / "one.PNG", dpi=50)
    with Image.open(path) as picture:
        assert picture.size == (100, 50)
    with pytest.raises(
        ValueError, match=r"ifa\.plot\.save: expected the path's ending to be one of"
    ):
        ifa.plot.save(axes, tmp_path / "one.jpg")
