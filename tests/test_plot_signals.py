"""Signals over their maps: lanes, amplitudes, time and events are those that were given."""

import re

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from pictures import colour_at, pixels

import ifa
from ifa.plot.signals import round_below

RNG = np.random.default_rng(0)
SIGNALS = RNG.standard_normal((3, 200)) * [[1.0], [40.0], [1e-5]] + [[0.0], [300.0], [0.0]]
NAMES = ["EEG", "EOG", "EMG"]


@pytest.fixture
def axes():
    figure = plt.figure(figsize=(6, 4), layout="constrained")
    yield figure.subplots()
    plt.close("all")


def names_of(axes):
    axes.figure.draw_without_rendering()
    return [label.get_text() for label in axes.get_yticklabels()]


def test_each_channel_fills_a_lane_of_its_own_the_first_on_top(axes):
    ifa.plot.signal(SIGNALS, torch.rand(50), names=NAMES, axes=axes)
    drawn = [line.get_ydata() for line in axes.lines[-3:]]
    for line, signal, foot in zip(drawn, SIGNALS, (2, 1, 0), strict=True):
        assert foot < line.min() < line.max() < foot + 1
        np.testing.assert_allclose(np.corrcoef(line, signal)[0, 1], 1)
    assert names_of(axes) == ["EMG", "EOG", "EEG"]  # from below


@pytest.mark.parametrize("gain", ["own", "common"])
def test_amplitudes_are_as_high_as_is_said(axes, gain):
    ifa.plot.signal(
        SIGNALS, torch.rand(50), gain=gain, amplitude=["µV", "µV", "mV"], names=NAMES, axes=axes
    )
    lines = axes.lines[-3:]
    bars = [one for one in axes.collections if not one.get_clip_on()]
    texts = [text for text in axes.texts if re.search("[µm]V", text.get_text())]
    assert len(bars) == len(texts) == (3 if gain == "own" else 2)  # of a unit one says it for all
    for bar, text in zip(bars, texts, strict=True):
        (segment,) = bar.get_segments()
        lane = 2 - int(segment[0, 1])
        value, unit = text.get_text().split()
        assert unit == ("mV" if lane == 2 else "µV")
        height = np.ptp(lines[lane].get_ydata()) / np.ptp(SIGNALS[lane])
        np.testing.assert_allclose(np.ptp(segment[:, 1]), height * float(value))


@pytest.mark.parametrize(
    ("value", "round"), [(1, 1), (0.99, 0.5), (4.9, 2), (2e-5, 2e-5), (70, 50)]
)
def test_round_amplitudes(value, round):
    assert round_below(value) == pytest.approx(round)


def test_time_is_in_seconds_and_the_map_has_the_bars_colors(axes):
    values = np.array([0.0, 0.25, 0.5, 1.0])
    ifa.plot.signal(np.zeros(200), values, rate=100, start=3, unit="logit", axes=axes)
    assert axes.get_xlabel() == "time (s)"
    assert axes.get_xlim() == (3, 5)
    np.testing.assert_allclose(axes.lines[-1].get_xdata()[[0, -1]], [3.005, 4.995])
    picture = pixels(axes.figure)
    (bar,) = axes.figure.axes[1:]
    assert bar.get_ylabel() == "intensity (logit)"
    for place, value in enumerate(values):
        there = colour_at(picture, axes, 3.25 + 0.5 * place, 0.8)
        beside = colour_at(picture, bar, 0.5, np.clip(value, 0.01, 0.99))
        assert np.abs(there - beside).max() <= 6


def test_attributions_of_each_channel_lie_in_its_lane(axes):
    values = np.zeros((3, 10))
    values[1, 4] = -2.0
    ifa.plot.signal(
        SIGNALS, values, signed=True, high=2, channels=["EOG", 0], names=NAMES, axes=axes
    )
    assert names_of(axes) == ["EEG", "EOG"]
    drawn = axes.images[0].get_array()
    assert drawn.shape == (2, 10, 3)
    assert (drawn[1] == drawn[0, 0]).all()
    assert drawn[0, 4, 2] > drawn[0, 4, 0]  # against: blue


def test_events_have_a_row_for_each_label(axes):
    events = [(0.5, 0.2, "spindle"), (1.0, 0, "arousal"), (1.5, 0.1, "spindle")]
    ifa.plot.signal(SIGNALS, torch.rand(50), rate=100, events=events, names=NAMES, axes=axes)
    assert names_of(axes)[3:] == ["spindle", "arousal"]
    spans = [
        path.get_extents() for one in axes.collections for path in one.get_paths() if len(path) > 3
    ]
    np.testing.assert_allclose([(box.x0, box.x1) for box in spans], [(0.5, 0.7), (1.5, 1.6)])
    assert {round(box.y0, 3) for box in spans} == {3.1}
    moments = [one.get_segments() for one in axes.collections if hasattr(one, "get_segments")]
    assert any(np.allclose(one[0][:, 0], 1.0) and one[0][0, 1] > 3.5 for one in moments if one)


def test_what_is_no_number_is_a_gap_and_what_does_not_vary_is_flat(axes):
    signals = SIGNALS.copy()
    signals[0, 5], signals[1], signals[2] = np.nan, 7.0, np.nan
    ifa.plot.signal(signals, torch.rand(50), axes=axes)
    first, second, third = (line.get_ydata() for line in axes.lines[-3:])
    assert np.isnan(first[5])
    assert np.isfinite(np.delete(first, 5)).all()
    assert (second == 1.5).all()
    assert np.isnan(third).all()


def test_an_overlay_of_a_signal_has_lanes(axes):
    ifa.plot.overlay(torch.from_numpy(SIGNALS), torch.rand(50), axes=axes)
    assert len(axes.lines) == 3
    assert axes.get_ylim() == (0, 3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rate": 0}, "expected a rate above 0"),
        ({"gain": "both"}, "expected gain to be one of"),
        ({"names": ["a"]}, "expected a name and a unit for each of 3"),
        ({"channels": ["no"]}, "expected channels to be numbers below 3"),
        ({"channels": []}, "expected a channel or more"),
        ({"events": [(0, -1, "a")]}, "expected events"),
        ({"values": np.zeros((2, 5))}, "expected a signal"),
        ({"image": np.zeros((2, 3, 5))}, "expected a signal"),
        ({"low": 2}, "expected low < high"),
    ],
)
def test_what_does_not_fit_is_refused(axes, change, said):
    given = {"image": SIGNALS, "values": np.zeros(5), "axes": axes}
    with pytest.raises(ValueError, match=rf"ifa\.plot\.signal: {said}"):
        ifa.plot.signal(**given | change)
