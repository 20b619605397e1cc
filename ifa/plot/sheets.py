"""Pictures of the maps of a population: one of each sample, or so many on a sheet, as files."""

import io
import json
import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from ifa.checks import check_choice, check_count
from ifa.data.samples import known
from ifa.network.inputs import at, grid_place
from ifa.plot.grids import Inches, laid_out
from ifa.plot.overlays import draw, draw_flat
from ifa.plot.pictures import PLAIN, Look, numbers, picture_of, said_of
from ifa.plot.shades import Shades, draw_bar, on_scale
from ifa.progress import Progress
from ifa.reduce.verdicts import FLAGS
from ifa.store.exports import (
    Export,
    check_id,
    check_ids,
    ends_of,
    file_names,
    identity_of,
    maps_of,
    shard_of,
)
from ifa.store.items import collate

_WHERE = "ifa.plot.write_overlays"
_ACROSS = 8  # samples side by side on a sheet


class Panel(NamedTuple):
    """One of the maps that are drawn of each sample."""

    title: str
    shades: Shades


class Drawn(NamedTuple):
    """What is drawn of a sample: its input, its maps on one or two axes, and words."""

    image: np.ndarray  # a signal (channel, t), or a picture (y, x) or (y, x, 3) from 0 to 1
    maps: list[np.ndarray]
    lines: list[str]  # id, what was predicted, what was expected, …
    gray: bool = True  # beneath a map


def write_overlays(
    run: Any,
    data: Any,
    folder: str | os.PathLike[str],
    *,
    form: Literal["png", "svg"] = "png",
    montage: int | None = None,
    names: Sequence[str] | None = None,
    dpi: int = 150,
    progress: Progress = True,
) -> list[Path]:
    r"""Write a picture of each sample of a population with its maps, on their common scale.

    Above the input with the map laid over it, below the map alone, in the colours of the bar; of
    several layers, targets, blocks or methods one beside the other. Of a volume one slice is drawn,
    in which the maps reach highest. The bar says the unit and what the ends of the scale are. Maps
    without a scale have the limits of all of the population.

    Memory holds the maps of one shard. A call that is killed continues when it is made again: files
    that are there are kept. ``made_by.json`` in the folder says of which maps they are, and which
    file is which sample's.

    Parameters
    ----------
    run
        What `ifa.maps` returned, or the folder of its run; or a mapping of names to several of the
        same samples, such as one for each method.
    data
        The data that they are of. Grey inputs, and RGB beyond 0 … 1, are stretched to their own
        extremes; of other numbers of channels the mean is drawn, of signals every channel.
    folder
        Where to write: new, empty, or begun with the same maps.
    form
        ``"png"`` or ``"svg"``.
    montage
        None for one picture of each sample; otherwise so many samples on a sheet, each with its
        input and its maps alone.
    names
        Of the classes; those of the data if None.
    dpi
        Dots per inch of a PNG.
    progress
        Whether to draw a bar, or a function of ``(done, total)``.

    Returns
    -------
    list of pathlib.Path
        The files: named like the samples, or ``montage-00.png`` and so on.

    Raises
    ------
    ValueError
        If the folder holds anything else, or maps and data are not of one another.
    """
    check_choice(_WHERE, "form", form, ("png", "svg"))
    check_count(_WHERE, "dpi", dpi)
    several = isinstance(run, Mapping) and not hasattr(run, "attrs")
    trees = {name: maps_of(_WHERE, one) for name, one in (run if several else {"": run}).items()}
    for tree in trees.values():
        check_ids(_WHERE, tree, data)
    first = next(iter(trees.values()))
    ids = first["id"].values.tolist()
    names = known(data).names if names is None else list(names)
    found = [each for name, tree in trees.items() for each in _panels(name, tree, names)]
    if montage is None:
        sheets = [range(index, index + 1) for index in range(len(ids))]
        stems, portion = file_names(ids), shard_of(first)
    else:
        check_count(_WHERE, "montage", montage)
        starts = range(0, len(ids), montage)
        sheets = [range(start, min(start + montage, len(ids))) for start in starts]
        width, portion = max(2, len(str(len(sheets) - 1))), 1
        stems = [f"montage-{number:0{width}d}" for number in range(len(sheets))]
    files = [[f"{stem}.{form}"] for stem in stems]
    made_by = {"what": "ifa: maps as pictures", "form": form, "montage": montage, "dpi": dpi}
    made_by |= {"maps": {name: identity_of(tree) for name, tree in trees.items()}}
    made_by |= {"names": names, "ids": ids}
    make = partial(
        _pictures, files=files, sheets=sheets, tree=first, found=found, data=data, names=names,
        draw=_card if montage is None else _sheet, form=form, dpi=dpi,
    )  # fmt: skip
    return Export(_WHERE, Path(folder), made_by, files, form).write(make, portion, progress)


def _named(target: Any, names: Sequence[str] | None) -> str:
    """Write a class by its name, and a value as a number."""
    if np.ndim(target):
        return ", ".join(_named(one, names) for one in target)
    if float(target) != int(target) or not isinstance(target, int | np.integer):
        return f"{float(target):.4g}"
    return str(names[int(target)]) if names and 0 <= target < len(names) else str(target)


def _flagged(flags: Any, names: Sequence[str] | None) -> str:
    """Write labels of 0 or 1 by the names of those that are there."""
    if not np.ndim(flags):
        return str(flags) if not names else names[0] if flags else f"not {names[0]}"
    return ", ".join(_named(one, names) for one in np.flatnonzero(flags)) or "none"


def _panels(method: str, tree: Any, names: Sequence[str] | None) -> list[tuple[Panel, Any]]:
    """List what is drawn of each sample, and the maps of all, which are not read yet."""
    found = []
    for layer in tree.attrs["layers"]:
        values, shades = tree[layer]["map"], _shades(tree, layer)
        some = {dim: range(values.sizes[dim]) for dim in ("target", "block") if dim in values.dims}
        for places in product(*some.values()):
            pick = dict(zip(some, places, strict=True))
            title = [method, layer]
            if "target" in pick:
                title.append(f"for {_named(tree['target'].values[pick['target']], names)}")
            title += [f"block {pick['block']}"] if "block" in pick else []
            found.append((Panel(", ".join(filter(None, title)), shades), values.isel(pick)))
    return found


def _shades(tree: Any, layer: str) -> Shades:
    attrs, unit = tree[layer].attrs, tree["score"].attrs.get("units", "score")
    ends = ends_of(attrs)
    if ends is not None:
        return on_scale(ends, unit)
    values, size = tree[layer]["map"], shard_of(tree)
    most = 0.0
    for start in range(0, values.sizes["sample"], size):
        some = np.abs(values.isel(sample=slice(start, start + size)).values)
        most = max(most, float(some.max(initial=0.0, where=np.isfinite(some))))
    return Shades(0.0, most or 1.0, not attrs["rectified"], f"map ({unit})")


def _pictures(
    places: range,
    wanted: Sequence[str],
    *,
    files: list[list[str]],
    sheets: list[range],
    tree: Any,
    found: list[tuple[Panel, Any]],
    data: Any,
    names: Sequence[str] | None,
    draw: Any,
    form: str,
    dpi: int,
) -> Iterator[tuple[str, bytes]]:
    """Draw sheets; the maps of all of them are read at once."""
    of = range(sheets[places.start].start, sheets[places.stop - 1].stop)
    panels = [panel for panel, _ in found]
    values = [maps.isel(sample=slice(of.start, of.stop)).values for _, maps in found]
    for place in places:
        (name,) = files[place]
        if name not in wanted:
            continue
        drawn = [
            _sample(tree, data, index, [one[index - of.start] for one in values], panels, names)
            for index in sheets[place]
        ]
        yield name, _saved(draw(drawn, panels), form, dpi)


def picture(one: Drawn, panels: list[Panel], dpi: int = 150) -> bytes:
    """Draw one sample as a PNG."""
    return _saved(_card([one], panels), "png", dpi)


def _saved(figure: Any, form: str, dpi: int) -> bytes:
    from matplotlib import rc_context

    content = io.BytesIO()
    # the same bits again: without the time, the version, or random names
    metadata = {"Software": None} if form == "png" else {"Date": None, "Creator": None}
    with rc_context({"svg.hashsalt": "ifa"}):
        figure.savefig(content, format=form, dpi=dpi, metadata=metadata)
    return content.getvalue()


def _sample(
    tree: Any,
    data: Any,
    index: int,
    maps: list[np.ndarray],
    panels: list[Panel],
    names: Sequence[str] | None,
) -> Drawn:
    """Read a sample, and say what is known of it."""
    batch = collate(_WHERE, data, range(index, index + 1))
    check_id(_WHERE, index, tree["id"].values[index], batch.ids[0])
    grid_of = json.loads(tree.attrs["spec"]).get("grid_of")
    grid_of = grid_of if isinstance(grid_of, str | int) else None
    inputs = at(batch.inputs, grid_place(_WHERE, batch.inputs, grid_of))[0]
    lines = [str(batch.ids[0]), *_words(tree, index, names)]
    return drawn_of(inputs, maps, panels, lines)


def drawn_of(
    inputs: Any,
    maps: list[np.ndarray],
    panels: list[Panel],
    lines: list[str],
    look: Look = PLAIN,
) -> Drawn:
    r"""Bring an input (channel, \*space) and its maps to what can be drawn."""
    space = maps[0].ndim
    if space == 1:
        return Drawn(numbers(_WHERE, "an input", inputs), maps, lines)
    picture = picture_of(_WHERE, inputs, space, look)
    lines = [*lines, *said_of(1 if inputs.ndim == space else len(inputs), look, space)]
    if space == 2:
        return Drawn(picture, maps, lines, look.gray)
    reach = sum(
        one.max((1, 2)) / panel.shades.high for one, panel in zip(maps, panels, strict=True)
    )
    part = int(np.nan_to_num(reach, nan=-np.inf).argmax()) / len(maps[0])
    place = round(part * len(picture))
    lines.append(f"z = {place} of 0 … {len(picture) - 1}")
    return Drawn(picture[place], [one[int(part * len(one))] for one in maps], lines, look.gray)


def _words(tree: Any, index: int, names: Sequence[str] | None) -> list[str]:
    """Say what was predicted, with its score, and what was expected."""
    unit = tree["score"].attrs.get("units", "score")
    predicted = tree["prediction"].values[index]
    score, target = tree["score"].isel(sample=index).values, tree["target"].values
    flags = json.loads(tree.attrs["spec"])["task"] in FLAGS
    written = _flagged if flags else _named
    words = [f"predicted: {written(predicted, names)}"]
    explained = target if target.ndim and score.ndim else [target[index]]
    scores = dict(zip(map(int, explained), np.atleast_1d(score).tolist(), strict=True))
    one_of = predicted.ndim == 0 and isinstance(predicted, np.integer) and not flags
    if one_of and int(predicted) in scores:
        words[0] += f" ({scores.pop(int(predicted)):.3g} {unit})"
        if score.ndim == 0:
            scores = {}
    words.append(f"expected: {written(tree['label'].values[index], names)}")
    return words + [
        f"for {_named(one, names)}: {value:.3g} {unit}" for one, value in [*scores.items()][:4]
    ]


def _card(drawn: Sequence[Drawn], panels: list[Panel]) -> Any:
    """Draw one sample: overlays above, maps below."""
    from matplotlib.figure import Figure

    (one,) = drawn
    across = 1 + len(panels)
    spaces = Inches(2.2, 2.2 * _aspect(one), above=0.35, below=0.8)
    figure, axes = laid_out(Figure, 2, across, 1, spaces)
    _draw(one, one.maps[0], None, axes[0][0])
    axes[1][0].set_axis_off()
    said = "\n".join(_wrapped(line, 38) for line in one.lines)
    axes[1][0].text(
        *(0, 1, said), va="top", fontsize=8, transform=axes[1][0].transAxes, parse_math=False
    )
    for column, (values, panel) in enumerate(zip(one.maps, panels, strict=True), start=1):
        _draw(one, values, panel, axes[0][column])
        _draw(one, values, panel, axes[1][column], alone=True)
        title = _wrapped(panel.title, 28)
        axes[0][column].set_title(title, fontsize=8, parse_math=False)
        if panel.shades not in [before.shades for before in panels[: column - 1]]:
            _bar(figure, axes[1][column], panel)
    for each in (axes[0][0], *axes[0][1:], *axes[1][1:]):
        each.tick_params(labelsize=6, labelbottom=False, labeltop=each is axes[0][0])
    return figure


def _draw(
    one: Drawn, values: np.ndarray, panel: Panel | None, axes: Any, alone: bool = False
) -> None:
    """Draw the input, the map over it, or the map alone over the gray of its bar."""
    shades = None if panel is None else panel.shades
    image = None if alone else one.image
    if values.ndim == 1:
        draw(_WHERE, axes, image, values, shades)
    else:
        draw_flat(axes, image, values, shades, one.gray)


def _sheet(drawn: Sequence[Drawn], panels: list[Panel]) -> Any:
    """Draw many samples: below each input its maps alone."""
    from matplotlib.figure import Figure

    across, high = min(_ACROSS, len(drawn)), 1 + len(panels)
    bands = -(-len(drawn) // across)
    spaces = Inches(1.4, 1.4 * _aspect(drawn[0]), above=0.5, below=0.8)
    figure, axes = laid_out(Figure, high, across, bands, spaces)
    for place, one in enumerate(drawn):
        band, column = divmod(place, across)
        top = axes[band * high][column]
        _draw(one, one.maps[0], None, top)
        words = [_wrapped(one.lines[0], 20, most=2), *one.lines[1:3]]
        top.set_title("\n".join(words), fontsize=5, parse_math=False)
        for row, (values, panel) in enumerate(zip(one.maps, panels, strict=True), start=1):
            below = axes[band * high + row][column]
            _draw(one, values, panel, below, alone=True)
            if len(panels) > 1 and column == 0:
                middle = sum(below.get_position().intervaly) / 2
                figure.text(
                    *(0.005, middle, _wrapped(panel.title, 34, most=1)),
                    fontsize=5, rotation=90, va="center", parse_math=False,
                )  # fmt: skip
            below.tick_params(labelbottom=False)
        top.tick_params(labelbottom=False)
    _bars(figure, axes[1:high], panels)
    for place in range(len(drawn), bands * across):
        for row in range(high):
            axes[place // across * high + row][place % across].set_axis_off()
    return figure


def _bars(figure: Any, axes: list[list[Any]], panels: list[Panel]) -> None:
    """Draw the bars of a sheet at its foot, each named where there are several."""
    first = [
        place
        for place, panel in enumerate(panels)
        if panel.shades not in [before.shades for before in panels[:place]]
    ]
    for number, place in enumerate(first):
        panel = panels[place]
        name = f"{panel.title}: " if len(first) > 1 else ""
        _bar(figure, axes[place][0], panel, at=number / len(first), name=name)


def _bar(figure: Any, axes: Any, panel: Panel, at: float | None = None, name: str = "") -> None:
    """Draw the bar of a map below it, or on a sheet at the foot."""
    place, (width, height) = axes.get_position(), figure.get_size_inches()
    left, wide = place.x0, place.width
    bottom = place.y0 - 0.2 / height
    if at is not None:
        left, wide, bottom = at + 0.25 / width, min(2.2 / width, 0.8), 0.5 / height
    cax = figure.add_axes((left, bottom, wide, 0.1 / height))
    shades = panel.shades._replace(label=f"{name}{panel.shades.label}")
    options: Any = {"orientation": "horizontal", "extend": "both", "size": 6}
    bar = draw_bar(figure, shades, cax=cax, **options)
    bar.ax.xaxis.get_offset_text().set_fontsize(6)


def _wrapped(text: str, width: int, most: int = 4) -> str:
    """Break a line; of a text without end keep its last letters, in which names differ."""
    text = text if len(text) <= width * most else "…" + text[1 - width * most :]
    return textwrap.fill(text, width)


def _aspect(one: Drawn) -> float:
    """Return how tall axes are for their width, so that little room is lost."""
    rows, columns = one.image.shape[-2:] if one.maps[0].ndim > 1 else (1, 2)
    return min(max(rows / columns, 0.4), 2.5)
