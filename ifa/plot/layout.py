"""Room for words at any size: ticks that thin out, lines that break, legends that hide nothing."""

import math
import textwrap
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from matplotlib.lines import Line2D
from matplotlib.ticker import AutoLocator, Formatter, Locator, NullLocator
from matplotlib.transforms import Bbox, ScaledTranslation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Text

_LETTER = 0.55  # width of a letter in font sizes, on average
_LINE = 1.3  # height of a line in font sizes
_NAMES = 0.35  # share of a figure's width or height that names of ticks may take


def axes_or_current(axes: "Axes | None") -> "Axes":
    """Take axes, or the current ones; of a figure with none, with a layout that leaves room."""
    from matplotlib import pyplot as plt

    if axes is not None:
        return axes
    figure = plt.gcf()
    if not figure.axes and figure.get_layout_engine() is None:
        figure.set_layout_engine("constrained")
    return plt.gca()


def figure_of(artist: Any) -> Any:
    """Return the whole figure that axes or an axis are in."""
    return artist.get_figure(root=True)


def plain(text: Any) -> str:
    """Write a name as it is, also one with dollar signs, which matplotlib takes for formulas."""
    return str(text).replace("$", r"\$")


def shortened(name: str, most: int) -> str:
    """Leave out the middle of a long name: names differ at their ends."""
    most = max(most, 5)
    if len(name) <= most:
        return name
    tail = (most - 1) // 2
    return f"{name[: most - 1 - tail]}…{name[len(name) - tail :]}"


def capped(names: Sequence[Any], most: int) -> list[str]:
    """Shorten names to so many letters; those that would be alike are told apart by number."""
    short = [shortened(str(name), most) for name in names]
    if len({*short}) == len({*map(str, names)}):
        return short
    return [f"{place}: {shortened(str(name), most - 4)}" for place, name in enumerate(names)]


class _Fitting(Locator):
    """Every place, or every second, third, … where not all of their names fit."""

    axis: Any

    def __init__(self, places: Sequence[float], letters: float) -> None:
        self.places, self.letters = sorted(places), letters

    def __call__(self) -> list[float]:
        low, high = sorted(self.axis.get_view_interval())
        seen = [place for place in self.places if low <= place <= high]
        axes, figure = self.axis.axes, figure_of(self.axis)
        length = axes.bbox.width if self.axis.axis_name == "x" else axes.bbox.height
        room = max(_LINE, (self.letters + 1) * _LETTER) * _size(self.axis) * figure.dpi / 72
        # by the nearest two, for places need not lie evenly
        start, *lie, end = self.axis.get_transform().transform([low, *seen, high])
        apart = min((b - a for a, b in pairwise(lie)), default=end - start)
        return seen[:: max(1, math.ceil(room * (end - start) / max(apart * length, 1e-9)))]

    def tick_values(self, vmin: float, vmax: float) -> list[float]:
        return [place for place in self.places if vmin <= place <= vmax]


class _Names(Formatter):
    """Names of places, shortened where they would take more than their share of the figure."""

    axis: Any

    def __init__(self, places: Sequence[float], names: Sequence[str]) -> None:
        self.places, self.names = list(places), list(names)

    def __call__(self, x: float, pos: int | None = None) -> str:
        if x not in self.places:
            return ""
        cell, dpi = cell_of(self.axis.axes), figure_of(self.axis).dpi
        length = cell.height if self.axis.axis_name == "x" else cell.width
        most = int(_NAMES * length * 72 / dpi / (_LETTER * _size(self.axis)))
        return plain(capped(self.names, most)[self.places.index(x)])


def _size(axis: Any) -> float:
    return axis.get_major_ticks(1)[0].label1.get_fontsize()


def name_ticks(
    axis: Any, names: Any, places: Sequence[float] | None = None, *, turned: bool = True
) -> None:
    """Name places of an axis: as many of them as there is room for, and as long.

    On an x axis the names are upright, unless they are not to be turned.
    """
    places = [float(place) for place in (range(len(names)) if places is None else places)]
    names = [str(name) for name in names]
    along = axis.axis_name == "x" and not turned
    if axis.axis_name == "x" and turned:
        axis.set_tick_params(rotation=90)
    axis.set_major_locator(_Fitting(places, max(map(len, names), default=0) if along else 0))
    axis.set_major_formatter(_Names(places, names))
    axis.set_minor_locator(NullLocator())


def bar_beside(axes: "Axes", picture: Any, label: str) -> Any:
    """Draw the bar of colours beside axes."""
    drawn = axes.figure.colorbar(picture, ax=axes, label=label)
    drawn.ax.tick_params(labelsize="small")
    return drawn


def cell_of(axes: "Axes") -> Bbox:
    """Return where axes and their words may lie, in pixels: their part of the figure."""
    part: Any = axes.get_figure(root=False)
    whole, spec = part.bbox, axes.get_subplotspec()
    if spec is None:
        return whole
    grid, rows, columns = spec.get_gridspec(), spec.rowspan, spec.colspan
    wide, high = whole.width / grid.ncols, whole.height / grid.nrows
    return Bbox.from_extents(
        whole.x0 + wide * columns.start,
        whole.y1 - high * rows.stop,
        whole.x0 + wide * columns.stop,
        whole.y1 - high * rows.start,
    )


def broken(text: "Text", pixels: float) -> None:
    """Break the lines of a text so that none is longer."""
    said = text.get_text()
    upright = text.get_rotation() == 90

    def length() -> float:
        box = text.get_window_extent()
        return box.height if upright else box.width

    if not said or length() <= pixels:
        return
    longest = max(map(len, said.split("\n")))
    width = max(5, int(longest * pixels / length()))
    while True:
        lines = [textwrap.fill(line, width) for line in said.split("\n")]
        text.set_text("\n".join(lines))
        if length() <= pixels or width <= 5:
            return
        width -= 1


def fit(*drawn: "Axes", bar: Any = None, legend: bool = False, most: int = 8) -> None:
    """Break titles and labels of axes and of their bars as their room in the figure is.

    With a legend: below axes whose figure makes room for it, otherwise on them; of more entries
    than `most` the last says how many there are.
    """
    figure = figure_of(drawn[0])
    for axes in drawn:
        axes.title.set_fontsize("medium")
        axes.tick_params(labelsize="small")
    words = [(text, axes, text.get_text()) for axes in drawn for text in _words(axes)]
    if bar is not None:
        label = bar.ax.yaxis.label if bar.orientation == "vertical" else bar.ax.xaxis.label
        words.append((label, bar.ax, label.get_text()))
    _break_all(figure, words)
    made = _explained(drawn, most) if legend else []
    if made:
        _put_below(made)
        _break_all(figure, words)  # what is below takes room
        _put_below(made)


def _settle(figure: Any) -> None:
    """Put axes where they will be drawn."""
    engine = figure.get_layout_engine()
    if engine is None:
        figure.draw_without_rendering()
    else:
        engine.execute(figure)


def _words(axes: "Axes") -> "list[Text]":
    bars = [picture.colorbar for picture in (*axes.images, *axes.collections)]
    of = [axes, *(bar.ax for bar in bars if bar is not None)]
    return [axes.title, *(axis.label for one in of for axis in (one.xaxis, one.yaxis))]


def _break_all(figure: Any, words: "list[tuple[Text, Axes, str]]") -> None:
    for _ in range(4):  # what breaks makes the axes smaller
        _settle(figure)
        before = [text.get_text() for text, _, _ in words]
        for axes in {axes for _, axes, _ in words}:
            _thin(axes)
        for text, axes, whole in words:
            text.set_text(whole)
            broken(text, _room(text, cell_of(axes)))
        if before == [text.get_text() for text, _, _ in words]:
            return


def _thin(axes: "Axes") -> None:
    """Leave room between the numbers of an x axis."""
    locator = axes.xaxis.get_major_locator()
    if isinstance(locator, AutoLocator):
        letters = axes.bbox.width * 72 / figure_of(axes).dpi / (_LETTER * _size(axes.xaxis))
        locator.set_params(nbins=max(1, min(9, int(letters / 6))), min_n_ticks=1)


def _room(text: "Text", cell: Bbox) -> float:
    """Return how long a line may be, about where it is centred."""
    box = text.get_window_extent()
    upright = text.get_rotation() == 90
    centre = (box.y0 + box.y1) / 2 if upright else (box.x0 + box.x1) / 2
    low, high = (cell.y0, cell.y1) if upright else (cell.x0, cell.x1)
    return 2 * max(min(centre - low, high - centre), 0.2 * (high - low)) * 0.97


def _explained(drawn: "Sequence[Axes]", most: int) -> "list[tuple[Axes, Any, Any]]":
    """Make legends; return those that go below their axes, with what makes room for them."""
    made = []
    for axes in drawn:
        handles, labels = axes.get_legend_handles_labels()
        labels = [plain(label) for label in labels]
        if len(handles) > most:
            labels = [*labels[: most - 1], f"… {len(labels) - most + 1} more"]
            handles = [*handles[: most - 1], Line2D([], [], linestyle="")]
        if handles and figure_of(axes).get_layout_engine() is None:
            axes.legend(handles, labels, fontsize="small")
        elif handles:
            legend = _folded(axes, handles, labels, 0.97 * cell_of(axes).width)
            # room is made by what has no width, for a legend may be wider than its axes
            room = axes.annotate(
                " ", (0.5, 0), (0, 0), xycoords="axes fraction", textcoords="offset points",
                va="bottom", fontsize=1,
            )  # fmt: skip
            made.append((axes, legend, room))
    return made


def _put_below(made: "list[tuple[Axes, Any, Any]]") -> None:
    """Put legends below the labels of their axes, within their part of the figure."""
    figure = figure_of(made[0][0])
    point = figure.dpi / 72
    for axes, legend, room in made:
        words = axes.xaxis.get_tightbbox()
        down = axes.bbox.y0 - (axes.bbox.y0 if words is None else words.y0) + 4 * point
        cell, (wide, high) = cell_of(axes), legend.get_window_extent().size
        room.set_position((0, -(down + high) / point))
        middle = (axes.bbox.x0 + axes.bbox.x1) / 2
        start = min(max(middle - wide / 2, cell.x0 + 2), cell.x1 - 2 - wide) - axes.bbox.x0
        move = ScaledTranslation(start / figure.dpi, -down / figure.dpi, figure.dpi_scale_trans)
        legend.set_bbox_to_anchor((0, 0), axes.transAxes + move)


def _folded(axes: "Axes", handles: list[Any], labels: list[str], room: float) -> Any:
    """Make a legend of as many columns as there is room for, with its lines broken."""

    def placed(columns: int) -> Any:
        drawn = axes.legend(
            handles, labels, ncols=columns, frameon=False, columnspacing=1.2, fontsize="small",
            loc="upper left", borderaxespad=0, borderpad=0,
        )  # fmt: skip
        drawn.set_in_layout(False)
        return drawn

    drawn = placed(1)
    for text in drawn.get_texts():
        broken(text, room - 4 * text.get_fontsize() * figure_of(axes).dpi / 72)
    labels = [text.get_text() for text in drawn.get_texts()]
    columns = max(1, min(len(labels), int(room / drawn.get_window_extent().width)))
    return placed(columns)


def label_points(axes: "Axes", named: Sequence[tuple[tuple[float, float], Any]]) -> None:
    """Name points, the first ones first, as many as can be named without a name over another."""
    _settle(figure_of(axes))
    taken: list[Bbox] = []
    for point, name in named:
        for x, y, across, up in ((4, 3, "left", "bottom"), (-4, 3, "right", "bottom"),
                                 (4, -3, "left", "top"), (-4, -3, "right", "top")):  # fmt: skip
            text = axes.annotate(
                plain(name), point, (x, y), textcoords="offset points", fontsize="x-small",
                ha=across, va=up,
            )  # fmt: skip
            box = text.get_window_extent()
            inside = axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1
            inside &= axes.bbox.y0 <= box.y0 and box.y1 <= axes.bbox.y1
            if inside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            text.remove()
