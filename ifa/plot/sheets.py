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
from ifa.plot.overlays import overlay
from ifa.progress import Progress
from ifa.store.exports import (
    Ends,
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


class Colours(NamedTuple):
    """What colours of a map mean."""

    low: float
    high: float
    signed: bool
    label: str  # of the bar


class Panel(NamedTuple):
    """One of the maps that are drawn of each sample."""

    title: str
    colours: Colours


class Drawn(NamedTuple):
    """What is drawn of a sample: an input of one or two axes, its maps alike, and words."""

    image: np.ndarray
    maps: list[np.ndarray]
    lines: list[str]  # id, what was predicted, what was expected, …


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


def _panels(method: str, tree: Any, names: Sequence[str] | None) -> list[tuple[Panel, Any]]:
    """List what is drawn of each sample, and the maps of all, which are not read yet."""
    found = []
    for layer in tree.attrs["layers"]:
        values, colours = tree[layer]["map"], _colours(tree, layer)
        some = {dim: range(values.sizes[dim]) for dim in ("target", "block") if dim in values.dims}
        for places in product(*some.values()):
            pick = dict(zip(some, places, strict=True))
            title = [method, layer]
            if "target" in pick:
                title.append(f"for {_named(tree['target'].values[pick['target']], names)}")
            title += [f"block {pick['block']}"] if "block" in pick else []
            found.append((Panel(", ".join(filter(None, title)), colours), values.isel(pick)))
    return found


def _colours(tree: Any, layer: str) -> Colours:
    attrs, unit = tree[layer].attrs, tree["score"].attrs.get("units", "score")
    ends = ends_of(attrs)
    if ends is not None:
        return on_scale(ends, unit)
    values, size = tree[layer]["map"], shard_of(tree)
    most = 0.0
    for start in range(0, values.sizes["sample"], size):
        some = np.abs(values.isel(sample=slice(start, start + size)).values)
        most = max(most, float(some.max(initial=0.0, where=np.isfinite(some))))
    return Colours(0.0, most or 1.0, not attrs["rectified"], f"map ({unit})")


def on_scale(ends: Ends, unit: str) -> Colours:
    """Take the colours of the common scale, and say what its ends are."""
    low, high = (f"{one[0]:.3g}" if len(one) == 1 else "that of its target" for one in ends[:2])
    first, last = ends.at
    return Colours(0.0, 1.0, False, f"common scale: {first:g} = {low}, {last:g} = {high} {unit}")


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
    return drawn_of(inputs.detach().cpu().float().numpy(), maps, panels, lines)


def drawn_of(
    inputs: np.ndarray, maps: list[np.ndarray], panels: list[Panel], lines: list[str]
) -> Drawn:
    r"""Bring an input (channel, \*space) and its maps to what can be drawn."""
    image, said = _image(inputs, maps[0].ndim)
    if maps[0].ndim < 3:
        return Drawn(image, maps, [*lines, *said])
    reach = sum(
        one.max((1, 2)) / panel.colours.high for one, panel in zip(maps, panels, strict=True)
    )
    part = int(np.nan_to_num(reach, nan=-np.inf).argmax()) / len(maps[0])
    place = round(part * len(image))
    said.append(f"z = {place} of 0 … {len(image) - 1}")
    return Drawn(image[place], [one[int(part * len(one))] for one in maps], [*lines, *said])


def _image(values: np.ndarray, space: int) -> tuple[np.ndarray, list[str]]:
    r"""Bring an input (channel, \*space) to one that is drawn; say where it is not all of it."""
    values = values.reshape(-1, *values.shape[values.ndim - space :])
    if space == 1:
        return values, []
    if len(values) == 3 and space == 2:
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        within = low >= 0 and high <= 1
        return (values if within else (values - low) / (high - low or 1.0)), []
    said = [f"mean of {len(values)} channels"] if len(values) > 1 else []
    return values.mean(0), said


def _words(tree: Any, index: int, names: Sequence[str] | None) -> list[str]:
    """Say what was predicted, with its score, and what was expected."""
    unit = tree["score"].attrs.get("units", "score")
    predicted = tree["prediction"].values[index]
    score, target = tree["score"].isel(sample=index).values, tree["target"].values
    words = [f"predicted: {_named(predicted, names)}"]
    explained = target if target.ndim and score.ndim else [target[index]]
    scores = dict(zip(map(int, explained), np.atleast_1d(score).tolist(), strict=True))
    if predicted.ndim == 0 and isinstance(predicted, np.integer) and int(predicted) in scores:
        words[0] += f" ({scores.pop(int(predicted)):.3g} {unit})"
        if score.ndim == 0:
            scores = {}
    words.append(f"expected: {_named(tree['label'].values[index], names)}")
    return words + [
        f"for {_named(one, names)}: {value:.3g} {unit}" for one, value in [*scores.items()][:4]
    ]


def _card(drawn: Sequence[Drawn], panels: list[Panel]) -> Any:
    """Draw one sample: overlays above, maps below."""
    (one,) = drawn
    across = 1 + len(panels)
    figure, axes = _grid(2, across, room=0.35, below=0.8, aspect=_aspect(one))
    overlay(one.image, one.maps[0], alpha=0.0, axes=axes[0][0])
    axes[1][0].set_axis_off()
    said = "\n".join(_wrapped(line, 38) for line in one.lines)
    axes[1][0].text(
        *(0, 1, said), va="top", fontsize=8, transform=axes[1][0].transAxes, parse_math=False
    )
    for column, (values, panel) in enumerate(zip(one.maps, panels, strict=True), start=1):
        _overlay(one, values, panel, 0.5, axes[0][column])
        _overlay(one, values, panel, 1.0, axes[1][column])
        title = _wrapped(panel.title, 28)
        axes[0][column].set_title(title, fontsize=8, parse_math=False)
        if panel.colours not in [before.colours for before in panels[: column - 1]]:
            _bar(figure, axes[1][column], panel.colours.label)
    for each in (axes[0][0], *axes[0][1:], *axes[1][1:]):
        each.tick_params(labelsize=6, labelbottom=False, labeltop=each is axes[0][0])
    return figure


def _overlay(one: Drawn, values: np.ndarray, panel: Panel, alpha: float, axes: Any) -> None:
    low, high, signed, _ = panel.colours
    overlay(one.image, values, low=low, high=high, signed=signed, alpha=alpha, axes=axes)
    if alpha == 1.0:  # the map alone, without the line of a signal
        for line in list(axes.lines):
            line.remove()


def _sheet(drawn: Sequence[Drawn], panels: list[Panel]) -> Any:
    """Draw many samples: below each input its maps alone."""
    across, high = min(_ACROSS, len(drawn)), 1 + len(panels)
    bands = -(-len(drawn) // across)
    inches: dict[str, Any] = {"room": 0.5, "below": 0.8, "size": 1.4, "aspect": _aspect(drawn[0])}
    figure, axes = _grid(bands * high, across, every=high, **inches)
    for place, one in enumerate(drawn):
        band, column = divmod(place, across)
        top = axes[band * high][column]
        overlay(one.image, one.maps[0], alpha=0.0, axes=top)
        words = [_wrapped(one.lines[0], 20, most=2), *one.lines[1:3]]
        top.set_title("\n".join(words), fontsize=5, parse_math=False)
        for row, (values, panel) in enumerate(zip(one.maps, panels, strict=True), start=1):
            below = axes[band * high + row][column]
            _overlay(one, values, panel, 1.0, below)
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


def _grid(
    rows: int,
    across: int,
    *,
    room: float,
    below: float,
    aspect: float,
    size: float = 2.2,
    every: int = 0,
) -> tuple[Any, list[list[Any]]]:
    """Lay out axes by inches, which takes a tenth of the time of a layout that is solved for."""
    from matplotlib.figure import Figure

    gap, side, tall = 0.12, 0.25, size * aspect
    bands = rows // every if every else 1
    width = side * 2 + across * size + (across - 1) * gap
    height = room * bands + rows * (tall + gap) + below
    figure = Figure(figsize=(width, height))

    def at(row: int, column: int) -> tuple[float, float, float, float]:
        titles = room * (1 + (row // every if every else 0))
        bottom = height - titles - (row + 1) * tall - row * gap
        left = side + column * (size + gap)
        return left / width, bottom / height, size / width, tall / height

    places = [[at(row, column) for column in range(across)] for row in range(rows)]
    return figure, [[figure.add_axes(place) for place in row] for row in places]


def _bars(figure: Any, axes: list[list[Any]], panels: list[Panel]) -> None:
    """Draw the bars of a sheet at its foot, each named where there are several."""
    first = [
        place
        for place, panel in enumerate(panels)
        if panel.colours not in [before.colours for before in panels[:place]]
    ]
    for number, place in enumerate(first):
        panel = panels[place]
        name = f"{panel.title}: " if len(first) > 1 else ""
        _bar(figure, axes[place][0], f"{name}{panel.colours.label}", at=number / len(first))


def _bar(figure: Any, axes: Any, label: str, at: float | None = None) -> None:
    """Draw the bar of a map below it, or on a sheet at the foot."""
    place, (width, height) = axes.get_position(), figure.get_size_inches()
    left, wide = place.x0, place.width
    bottom = place.y0 - 0.2 / height
    if at is not None:
        left, wide, bottom = at + 0.25 / width, min(2.2 / width, 0.8), 0.5 / height
    bar = figure.colorbar(
        axes.images[-1],
        cax=figure.add_axes((left, bottom, wide, 0.1 / height)),
        orientation="horizontal",
        extend="both",
    )
    bar.ax.tick_params(labelsize=6)
    bar.ax.xaxis.get_offset_text().set_fontsize(6)
    bar.set_label(_wrapped(label, 52), fontsize=6, parse_math=False)


def _wrapped(text: str, width: int, most: int = 4) -> str:
    """Break a line; of a text without end keep its last letters, in which names differ."""
    text = text if len(text) <= width * most else "…" + text[1 - width * most :]
    return textwrap.fill(text, width)


def _aspect(one: Drawn) -> float:
    """Return how tall axes are for their width, so that little room is lost."""
    rows, columns = one.image.shape[-2:] if one.maps[0].ndim > 1 else (1, 2)
    return min(max(rows / columns, 0.4), 2.5)
