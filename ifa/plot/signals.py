"""Signals: a lane for each channel over its map, with amplitudes, time and events."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from ifa.checks import check_choice
from ifa.plot.layout import axes_or_current, cell_of, figure_of, fit, name_ticks, plain
from ifa.plot.pictures import numbers
from ifa.plot.populations import COLOURS
from ifa.plot.rasters import draw_raster
from ifa.plot.shades import GRAY, Shades, draw_bar, eight_bits, exceeds, over, shades_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WHERE = "ifa.plot.signal"
_FULL = 0.84  # of a lane's height, that its largest range takes
_EVENTS = 0.5  # height of a row of events, in lanes
_THROUGH = 40  # so many events at most have lines through the lanes


class Lanes(NamedTuple):
    """Signals (channel, t) and where they are drawn, the first on top, a lane being 1 high."""

    signals: np.ndarray
    middle: np.ndarray  # (channel,): the value in the middle of its lane
    range: np.ndarray  # (channel,): what fills a lane

    def centres(self) -> np.ndarray:
        """Return where the middles of lanes are."""
        return len(self.signals) - 0.5 - np.arange(len(self.signals))


def signal(
    image: Any,
    values: Any,
    *,
    rate: float | None = None,
    start: float = 0.0,
    names: Sequence[str] | None = None,
    channels: Sequence[int | str] | None = None,
    gain: Literal["own", "common"] = "own",
    amplitude: str | Sequence[str] = "",
    events: Sequence[tuple[float, float, str]] = (),
    scale: Any = None,
    low: float = 0.0,
    high: float = 1.0,
    signed: bool = False,
    unit: str = "",
    bar: bool = True,
    axes: "Axes | None" = None,
) -> "Axes":
    r"""Draw a signal of one or more channels over its map: each has a lane, the first on top.

    The map lies behind the lines in the colors of the bar, as `ifa.plot.overlay` has them. Beside a
    lane stands how much of its amplitude is how high.

    Parameters
    ----------
    image : (t,) or (channel, t)
        The signal.
    values : (t',) or (channel, t')
        A map, or the attribution of each channel, on the signal's grid or any coarser one.
    rate
        Samples in a second. If None, time is counted in samples.
    start
        When the first sample begins: seconds, or samples.
    names
        Of the channels.
    channels
        Which of them are drawn, and in which order: numbers or names. All if None.
    gain
        ``"own"``: every channel fills its lane; ``"common"``: they are as high as they are large.
    amplitude
        Unit of the signal, of all channels or of each.
    events
        ``(onset, duration, label)`` of what is marked, in the unit of time: a row for each label,
        and lines through the lanes while they are few. A duration of 0 is a moment.
    scale, low, high, signed, unit
        What colors mean, as in `ifa.plot.overlay`.
    bar
        Whether to draw the bar of the map.
    axes
        Where to draw; the current axes if None.

    Returns
    -------
    matplotlib.axes.Axes
        Time along x; lanes are 1 high, the last from 0 to 1.

    Raises
    ------
    ValueError
        If signal, map, names and channels do not fit, or an option is unknown.
    """
    check_choice(_WHERE, "gain", gain, ("own", "common"))
    if rate is not None and not 0 < rate < np.inf:
        raise ValueError(f"{_WHERE}: expected a rate above 0, in samples a second, got {rate!r}.")
    shades = shades_of(_WHERE, scale=scale, low=low, high=high, signed=signed, unit=unit)
    signals, maps = _arrays(image, values)
    count = len(signals)
    names = [str(n) for n in range(count)] if names is None else [str(name) for name in names]
    units = [amplitude] * count if isinstance(amplitude, str) else [*amplitude]
    if len(names) != count or len(units) != count:
        raise ValueError(
            f"{_WHERE}: expected a name and a unit for each of {count} channels, got {len(names)} "
            f"and {len(units)}."
        )
    rows = _chosen(channels, names)
    maps = maps if maps.ndim == 1 else maps[rows]
    lanes = lanes_of(signals[rows], gain == "common")
    axes = axes_or_current(axes)
    ends = start, start + signals.shape[1] / (rate or 1)
    draw_lanes(axes, lanes, maps, shades, ends)
    labels = _draw_events(axes, events, len(rows), ends)
    places = [*lanes.centres(), *(len(rows) + _EVENTS * (n + 0.5) for n in range(len(labels)))]
    name_ticks(axes.yaxis, [*(names[row] for row in rows), *labels], places)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("time (sample)" if rate is None else "time (s)")
    axes.set_ylabel("channel")
    fit(axes, bar=_draw_bar(axes, shades, maps) if bar else None)
    _draw_amplitudes(axes, lanes, [units[row] for row in rows])
    return axes


def _draw_bar(axes: "Axes", shades: Shades, maps: np.ndarray) -> Any:
    """Draw the bar beside the axes, or below narrow ones."""
    place: Any = {"ax": axes, "extend": exceeds(shades, maps)}
    if cell_of(axes).width / figure_of(axes).dpi < 5:
        place |= {"orientation": "horizontal", "aspect": 30}
    elif figure_of(axes).get_layout_engine() is None:
        place["pad"] = 0.12  # amplitudes lie between
    return draw_bar(axes.figure, shades, **place)


def lanes_of(signals: np.ndarray, common: bool) -> Lanes:
    """Place signals (channel, t) in their lanes; what is no number is a gap."""
    finite = np.where(np.isfinite(signals), signals, np.nan)
    known = np.isfinite(finite).any(1)
    low, high = np.zeros((2, len(signals)))
    if known.any():
        low[known], high[known] = np.nanmin(finite[known], 1), np.nanmax(finite[known], 1)
    span = high - low
    span = np.full_like(span, span.max(initial=0.0)) if common else span
    return Lanes(finite, (low + high) / 2, np.where(span > 0, span, 1.0))


def draw_lanes(
    axes: "Axes",
    lanes: Lanes | None,
    maps: np.ndarray,
    shades: Shades | None,
    ends: tuple[float, float],
) -> None:
    """Draw lanes over a map (t,) or one for each lane (channel, t), between two times."""
    count = 1 if lanes is None else len(lanes.signals)
    axes.set_xlim(*ends)
    axes.set_ylim(0, count)
    if shades is not None:
        pixels = eight_bits(over(GRAY, np.atleast_2d(maps), shades))
        draw_raster(axes, pixels, (*ends, 0, count), aspect="auto")
        axes.hlines(np.arange(1, count), *ends, color="white", linewidth=0.8, zorder=1)
    if lanes is not None:
        length = lanes.signals.shape[1]
        time = ends[0] + (np.arange(length) + 0.5) * (ends[1] - ends[0]) / length
        scaled = _FULL * (lanes.signals - lanes.middle[:, None]) / lanes.range[:, None]
        width = 0.5 if length > 2000 else 0.8
        axes.plot(time, (scaled + lanes.centres()[:, None]).T, color="black", linewidth=width)


def _arrays(image: Any, values: Any) -> tuple[np.ndarray, np.ndarray]:
    signals, maps = numbers(_WHERE, "image", image), numbers(_WHERE, "values", values)
    signals = signals[None] if signals.ndim == 1 else signals
    fits = maps.ndim == 1 or (maps.ndim == 2 and len(maps) == len(signals))
    if signals.ndim != 2 or not signals.size or not maps.size or not fits:
        raise ValueError(
            f"{_WHERE}: expected a signal (t) or (channel, t), and a map (t) or one of each "
            f"channel, got {signals.shape} and {maps.shape}. Take one sample of a batch."
        )
    return signals.astype(float), maps


def _chosen(channels: Sequence[int | str] | None, names: list[str]) -> list[int]:
    rows = []
    for one in range(len(names)) if channels is None else channels:
        known = one in names if isinstance(one, str) else -len(names) <= one < len(names)
        if not known:
            raise ValueError(
                f"{_WHERE}: expected channels to be numbers below {len(names)} or of {names}, got "
                f"{one!r}."
            )
        rows.append(names.index(one) if isinstance(one, str) else one % len(names))
    if not rows:
        raise ValueError(f"{_WHERE}: expected a channel or more, got none.")
    return rows


def _draw_events(
    axes: "Axes", events: Sequence[Any], lanes: int, ends: tuple[float, float]
) -> list[str]:
    """Draw a row of events for each label above the lanes; return the labels."""
    labels = list(dict.fromkeys(str(label) for _, _, label in events))
    for onset, duration, label in events:
        if not (np.isfinite(onset) and 0 <= duration < np.inf):
            raise ValueError(
                f"{_WHERE}: expected events (onset, duration, label) with a duration of 0 or more, "
                f"got {(onset, duration, label)!r}."
            )
        row = labels.index(str(label))
        colour, foot = COLOURS[row % len(COLOURS)], lanes + _EVENTS * row
        if duration:
            axes.broken_barh([(onset, duration)], (foot + 0.1, _EVENTS - 0.2), facecolor=colour)
        else:
            axes.vlines(onset, foot + 0.05, foot + _EVENTS - 0.05, color=colour, linewidth=1.5)
        if len(events) <= _THROUGH:
            both = {onset, onset + duration}
            axes.vlines([*both], 0, lanes, color=colour, linewidth=0.8, linestyle="--", zorder=1.5)
    axes.set_ylim(0, lanes + _EVENTS * len(labels))
    axes.set_xlim(*ends)
    return labels


def _draw_amplitudes(axes: "Axes", lanes: Lanes, units: list[str]) -> None:
    """Draw beside each lane a bar as high as a round amplitude; name those that there is room for.

    Where the gain is common, that of the first lane says it for all of the same unit.
    """
    points = figure_of(axes).dpi / 72
    high = axes.bbox.height / points / (axes.get_ylim()[1] - axes.get_ylim()[0])
    every = max(1, int(np.ceil(10 / high)))
    beside: Any = {"transform": axes.get_yaxis_transform(), "clip_on": False}
    said: set[tuple[float, str]] = set()
    alike = len({*lanes.range.tolist()}) == 1 and len(lanes.range) > 1
    for lane, (centre, whole, unit) in enumerate(
        zip(lanes.centres(), lanes.range, units, strict=True)
    ):
        if lane % every or (alike and (whole, unit) in said):
            continue
        said.add((whole, unit))
        size = round_below(whole / 2)
        half = _FULL * size / whole / 2
        axes.vlines(1.012, centre - half, centre + half, color="black", linewidth=1.5, **beside)
        text = plain(f"{size:g} {unit}".rstrip())
        axes.text(1.025, centre, text, va="center", fontsize="x-small", **beside)


def round_below(value: float) -> float:
    """Return the largest of 1, 2 and 5 times a power of ten that is no larger."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(max(step * power for step in (1, 2, 5) if step * power <= value * (1 + 1e-12)))
