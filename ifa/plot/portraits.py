"""Pictures of samples with their maps: one by itself, or so many on a sheet."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ifa.data.volumetric import Geometry
from ifa.plot.grids import Inches, laid_out
from ifa.plot.overlays import draw, draw_flat
from ifa.plot.pictures import PLAIN, Look, middle_of, numbers, picture_of, said_of
from ifa.plot.shades import Shades, draw_bar, exceeds
from ifa.plot.texts import fitted, tall
from ifa.plot.volumes import upright

_ACROSS = 8  # samples side by side on a sheet
_CARD, _SHEET = 2.2, 1.4  # inches of a picture's width
_TITLE, _NAME, _BAR = 8, 5, 6  # points: of a card's titles, on a sheet, and of bars
_BAR_WIDE, _BAR_TALL, _TICKS = 2.2, 0.1, 0.2  # inches


class Panel(NamedTuple):
    """One of the maps that are drawn of each sample."""

    title: str
    shades: Shades


class Drawn(NamedTuple):
    """What is drawn of a sample: its input, its maps on one or two axes, and words."""

    image: np.ndarray  # a signal (channel, t), or a picture (y, x) or (y, x, 3) from 0 to 1
    maps: list[np.ndarray]
    lines: list[str]  # id, what was predicted, what was expected, …
    notes: list[str]  # what of it is drawn, where that is not all
    gray: bool = True  # beneath a map
    aspect: float = 1.0  # how high a pixel is for its width


def drawn_of(
    where: str,
    inputs: Any,
    maps: list[np.ndarray],
    panels: list[Panel],
    lines: list[str],
    look: Look = PLAIN,
    geometry: Geometry | None = None,
) -> Drawn:
    r"""Bring an input (channel, \*space) and its maps to what can be drawn."""
    space = maps[0].ndim
    if space == 1:
        return Drawn(numbers(where, "an input", inputs), maps, lines, [])
    picture = picture_of(where, inputs, space, look)
    notes = said_of(1 if inputs.ndim == space else len(inputs), look, space)
    if space == 2:
        return Drawn(picture, maps, lines, notes, look.gray)
    turn = None
    if geometry is not None and tuple(geometry.shape) == picture.shape[:3]:
        turn = upright(where, geometry)
        picture, maps = turn.turned(picture), [turn.turned(one) for one in maps]
    elif geometry is not None:
        notes.append("in voxels: of another size than its file")
    reach = sum(
        one.max((1, 2)) / panel.shades.high for one, panel in zip(maps, panels, strict=True)
    )
    cell = int(np.nan_to_num(reach, nan=-np.inf).argmax())
    place = middle_of(cell, len(maps[0]), len(picture))
    notes.append(f"z = {place} of 0 … {len(picture) - 1}" if turn is None else turn.says(place))
    slices = [one[cell] for one in maps]
    aspect = 1.0 if turn is None else turn.aspect
    return Drawn(picture[place], slices, lines, notes, look.gray, aspect)


def card(drawn: Sequence[Drawn], panels: list[Panel]) -> Any:
    """Draw one sample: overlays above, maps alone and what is known below."""
    from matplotlib.figure import Figure

    (one,) = drawn
    height = _CARD * _aspect(one)
    titles = [fitted(panel.title, _CARD, _TITLE) for panel in panels]
    said = "\n".join(fitted(line, _CARD, _TITLE) for line in (*one.lines, *one.notes))
    bars = {place: _label(panels[place].shades.said(), _CARD) for place in _firsts(panels)}
    above = 0.1 + max(tall(title, _TITLE) for title in titles) + 0.2 * (one.maps[0].ndim == 1)
    below = max(*(_below(label) for label in bars.values()), tall(said, _TITLE) - height + 0.1)
    spaces = Inches(_CARD, height, above, below)
    figure, axes = laid_out(Figure, 2, 1 + len(panels), 1, spaces)
    _draw(one, one.maps[0], None, axes[0][0])
    axes[1][0].set_axis_off()
    place = {"va": "top", "transform": axes[1][0].transAxes}
    axes[1][0].text(0, 1, said, fontsize=_TITLE, parse_math=False, **place)
    for column, (values, panel) in enumerate(zip(one.maps, panels, strict=True), start=1):
        _draw(one, values, panel, axes[0][column])
        _draw(one, values, panel, axes[1][column], alone=True)
        axes[0][column].set_title(titles[column - 1], fontsize=_TITLE, parse_math=False)
        if column - 1 in bars:
            left = spaces.left + column * (_CARD + spaces.gap)
            _bar(figure, [one], panels, column - 1, bars[column - 1], (left, below - 0.1, _CARD))
    for each in (axes[0][0], *axes[0][1:], *axes[1][1:]):
        each.tick_params(labelsize=6, labelbottom=False, labeltop=each is axes[0][0])
    return figure


def sheet(drawn: Sequence[Drawn], panels: list[Panel]) -> Any:
    """Draw many samples: below each input its maps alone."""
    from matplotlib.figure import Figure

    across, rows = min(_ACROSS, len(drawn)), 1 + len(panels)
    bands = -(-len(drawn) // across)
    height = _SHEET * _aspect(drawn[0])
    titles = [
        "\n".join(fitted(line, _SHEET, _NAME, most=2) for line in (*one.lines[:3], *one.notes))
        for one in drawn
    ]
    names = [fitted(panel.title, height, _NAME, most=3) for panel in panels]
    names = names if len(panels) > 1 else [""]
    left = 0.2 + max(tall(name, _NAME) for name in names)
    above = 0.1 + max(tall(title, _NAME) for title in titles)
    wide = left + across * (_SHEET + 0.12) + 0.13
    bars, below = _at_the_foot(panels, wide)
    spaces = Inches(_SHEET, height, above, below, left)
    figure, axes = laid_out(Figure, rows, across, bands, spaces)
    for place, one in enumerate(drawn):
        band, column = divmod(place, across)
        mine = [axes[band * rows + row][column] for row in range(rows)]
        _draw(one, one.maps[0], None, mine[0])
        mine[0].set_title(titles[place], fontsize=_NAME, parse_math=False)
        for axes_, values, panel, name in zip(mine[1:], one.maps, panels, names, strict=True):
            _draw(one, values, panel, axes_, alone=True)
            if column == 0:
                _write_beside(axes_, name)
        for axes_ in mine:
            axes_.tick_params(labelbottom=False)
    for place, (label, where) in bars.items():
        _bar(figure, drawn, panels, place, label, where)
    for place in range(len(drawn), bands * across):
        for row in range(rows):
            axes[place // across * rows + row][place % across].set_axis_off()
    return figure


def _write_beside(axes: Any, name: str) -> None:
    axes.annotate(
        name, (0, 0.5), (-4, 0), xycoords="axes fraction", textcoords="offset points", ha="right",
        va="center", rotation=90, fontsize=_NAME, annotation_clip=False, parse_math=False,
    )  # fmt: skip


def _draw(
    one: Drawn, values: np.ndarray, panel: Panel | None, axes: Any, alone: bool = False
) -> None:
    """Draw the input, the map over it, or the map alone over the gray of its bar."""
    shades = None if panel is None else panel.shades
    image = None if alone else one.image
    if values.ndim == 1:
        draw("ifa.plot", axes, image, values, shades)
    else:
        draw_flat(axes, image, values, shades, one.gray, aspect=one.aspect)


def _firsts(panels: list[Panel]) -> list[int]:
    """List the panels whose colors mean what those of none before do: each has a bar."""
    shades = [panel.shades for panel in panels]
    return [place for place, one in enumerate(shades) if one not in shades[:place]]


def _label(text: str, wide: float) -> str:
    return fitted(text, 0.9 * wide, _BAR, most=6)


def _below(label: str) -> float:
    """Return how many inches a bar takes, from its upper edge down, and what is above it."""
    return 0.1 + _BAR_TALL + _TICKS + tall(label, _BAR) + 0.05


def _at_the_foot(
    panels: list[Panel], width: float
) -> tuple[dict[int, tuple[str, tuple[float, float, float]]], float]:
    """Place the bars of a sheet, each named where there are several, in as many lines as needed."""
    firsts = _firsts(panels)
    across = max(1, int((width - 0.2) / (_BAR_WIDE + 0.3)))
    wide = min(_BAR_WIDE, width - 0.6)
    labels = []
    for place in firsts:
        title = f"{panels[place].title}: " if len(firsts) > 1 else ""
        labels.append(_label(f"{title}{panels[place].shades.said()}", wide))
    each = max(map(_below, labels))
    below = each * -(-len(firsts) // across) + 0.05
    places = {}
    for number, (place, label) in enumerate(zip(firsts, labels, strict=True)):
        line, column = divmod(number, across)
        left = 0.3 + column * (_BAR_WIDE + 0.3)
        places[place] = label, (left, below - line * each - 0.1, wide)
    return places, below


def _bar(
    figure: Any,
    drawn: Sequence[Drawn],
    panels: list[Panel],
    place: int,
    label: str,
    inches: tuple[float, float, float],
) -> None:
    """Draw the bar of a panel, and of all with the same colors; `inches`: left, top, width."""
    (left, top, wide), (width, height) = inches, figure.get_size_inches()
    box = left / width, (top - _BAR_TALL) / height, wide / width, _BAR_TALL / height
    shades = panels[place].shades
    alike = [number for number, panel in enumerate(panels) if panel.shades == shades]
    extend = exceeds(shades, *(one.maps[number] for one in drawn for number in alike))
    options: Any = {"orientation": "horizontal", "extend": extend, "size": _BAR}
    bar = draw_bar(figure, shades, cax=figure.add_axes(box), **options)
    bar.set_label(label, fontsize=_BAR, parse_math=False)  # with its name


def _aspect(one: Drawn) -> float:
    """Return how tall axes are for their width, so that little room is lost."""
    rows, columns = one.image.shape[:2] if one.maps[0].ndim > 1 else (1, 2)
    return min(max(one.aspect * rows / columns, 0.4), 2.5)
