"""Galleries of samples: the strangest ones, and those that speak most for a channel."""

from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from ifa.plot.diagnoses import draw_distributions, names_of
from ifa.plot.grids import Inches, laid_out
from ifa.plot.layout import fit, name_ticks
from ifa.plot.overlays import draw
from ifa.plot.pictures import Look
from ifa.plot.populations import BLUE, GREY, ORANGE
from ifa.plot.shades import Shades, draw_bar, exceeds
from ifa.plot.singles import maps_of, name_of, top_rows, with_names
from ifa.plot.texts import fitted, tall
from ifa.score import logit
from ifa.types import Method, Score, Statistics
from ifa.weight import fullcam

_LEAST = 1.25  # inches of a picture's side
_SIZE = 8  # of its words, in points

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def outliers(
    statistics: Statistics,
    data: Any,
    *,
    maps: Any = None,
    samples: int = 10,
    width: float = 9.5,
    axes: Any = None,
) -> Any:
    r"""Draw the strangest samples, the strangest first; those with an alarm in orange.

    Parameters
    ----------
    statistics
        What `ifa.diagnose.outliers` returns.
    data
        The data set of the run, ``(input, label, ...)``.
    maps : (sample, \*space), optional
        Of every sample of the run, on the common scale.
    samples
        How many.
    width
        Of the figure, in inches: as many samples are side by side as there is room for.
    axes
        A sequence of axes, one for each; made if None.

    Returns
    -------
    numpy.ndarray
        The axes.
    """
    rows = statistics.isel(sample=slice(0, samples))
    facts = (rows[name].values for name in ("id", "target", "p_adjusted"))
    words = [(str(name), f"as {one}, p = {p:.1g}") for name, one, p in zip(*facts, strict=True)]
    titles = ["\n".join(each) for each in words]
    place = None
    if axes is None:
        axes, titles, place = _side_by_side(titles, width, 0.2 if maps is None else 0.75)
    axes = np.asarray(axes)
    for spare in axes.ravel()[len(titles) :]:
        spare.set_axis_off()
    # one grey scale, that of the population: a sample that is too bright must look so
    some = [np.asarray(data[index][0]) for index in range(0, len(data), -(-len(data) // 50))]
    low = float(np.median([image.min() for image in some]))
    high = float(np.median([image.max() for image in some]))
    shades = None if maps is None else Shades(label="common scale")
    alarms = rows["alarm"].values
    for one, title, position, alarm in zip(
        axes.ravel(), titles, rows["position"].values.tolist(), alarms, strict=False
    ):
        image = np.asarray(data[position][0])
        values = np.zeros(image.shape[1:]) if maps is None else np.asarray(maps[position])
        look = Look(window=(low, high) if maps is None and len(image) == 1 else None)
        draw("ifa.plot.outliers", one, image, values, shades, look)
        colour = ORANGE if alarm else "black"
        one.set_title(title, fontsize=_SIZE, color=colour, pad=3, parse_math=False)
    if shades is not None:
        beside: Any = {"ax": axes.ravel().tolist()} if place is None else place
        draw_bar(axes.ravel()[0].figure, shades, extend="both", **beside)
    return axes


def _side_by_side(
    titles: list[str], width: float, below: float
) -> tuple[np.ndarray, list[str], dict[str, Any]]:
    """Make axes for pictures, their titles broken, and a place for a bar at the foot."""
    from matplotlib import pyplot as plt

    columns = max(1, min(len(titles), 5, int(width / _LEAST)))
    side = (width - 0.2 - 0.12 * (columns - 1)) / columns
    titles = [fitted(title, side, _SIZE) for title in titles]
    above = 0.1 + max(tall(title, _SIZE) for title in titles)
    spaces = Inches(side, side, above, below, 0.1, 0.1)
    figure, grid = laid_out(plt.figure, 1, columns, -(-len(titles) // columns), spaces)
    place: dict[str, Any] = {}
    if below > 0.5:
        height, long = figure.get_size_inches()[1], min(width - 0.6, 4.0)
        box = 0.3 / width, 0.5 / height, long / width, 0.12 / height
        place = {"cax": figure.add_axes(box), "orientation": "horizontal"}
    return np.array(grid), titles, place


def channel_card(
    statistics: Statistics,
    data: Any,
    channel: int,
    *,
    layer: str | None = None,
    target: int | None = None,
    maps: Any = None,
    model: nn.Module | None = None,
    basis: Any = None,
    weight: Method = fullcam,
    score: Score = logit,
    samples: int = 6,
    width: float | None = None,
    figure: "Figure | None" = None,
) -> "Figure":
    r"""Draw one channel, or atom: its top samples, importance for each target, and distribution.

    Parameters
    ----------
    statistics
        A run with ``keep_samples="full"``.
    data
        The data set of the run, ``(input, label, ...)``.
    channel
        Which; of a run in a basis which atom.
    layer
        Which layer; may be left out where there is one.
    target
        Top samples of this target only, by its value.
    maps : (sample, \*space), optional
        The channel's own map of every sample of the run, signed: weight × activation.
    model
        The network of the run instead of `maps`: those of the top samples are made here, and drawn
        on the common scale of the run's whole maps, see `features`.
    basis, weight, score
        Those of the run. The name that `ifa.basis.named` gave the atom is in the title.
    samples
        How many top samples.
    width
        Of the figure, in inches: as many samples are side by side as there is room for.
    figure
        Where to draw, a figure or a subfigure; made if None.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib import pyplot as plt

    from ifa.diagnose.rows import statistics_of, table_of

    where = "ifa.plot.channel_card"
    statistics = with_names(statistics, basis)
    table = table_of(statistics, layer, where)
    means = statistics_of(statistics, table.layer, where)
    top = top_rows(where, table, channel, target, samples)
    if maps is not None and model is not None:
        raise ValueError(f"{where}: expected maps or the model that makes them, got both.")
    chosen, shades = None, Shades()
    if model is not None:
        made: Any = {"basis": basis, "weight": weight, "score": score}
        chosen, shades = maps_of(where, model, data, table, top, channel, means, **made)
    elif maps is not None:
        chosen = [np.asarray(maps[table.sample[row]]) for row in top]
        limit = max((float(np.abs(values).max()) for values in chosen), default=0.0)
        shades = Shades(high=limit or 1.0, signed=True, label=f"map ({table.unit})")
    if figure is not None:
        width = figure.bbox.width / figure.dpi
    width = 1.4 * max(samples, 5) + 0.6 if width is None else width
    columns = max(1, min(samples, int(width / _LEAST)))
    bands = -(-len(top) // columns) * (1 if chosen is None else 2)
    stacked = 1 if width >= 6 else 2
    above, below = bands * (width / columns + 0.4) + (0.4 if chosen is None else 0.9), 3.2 * stacked
    if figure is None:
        figure = plt.figure(figsize=(width, above + below), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=(above, below))
    upper, lower = parts
    images = [np.asarray(data[int(table.sample[row])][0]) for row in top]
    side = 0.9 * width / columns
    titles = [fitted(str(table.id[row]), side, _SIZE, most=3) for row in top]
    values = [f"{table.importance[row, channel]:.3g}" for row in top]
    said = [f"{title}\n{value}" for title, value in zip(titles, values, strict=True)]
    _top(upper, images, chosen, said, columns, shades)
    of_target = "" if target is None else f" of target {target}"
    title = f"{name_of(means, channel)} of {table.layer}: its top samples{of_target}, "
    title += "importance in "
    upper.suptitle(fitted(title + table.unit, 0.95 * width, 10), fontsize=10)
    left, right = lower.subplots(stacked, 3 - stacked)
    _bars(left, means, channel, table.unit)
    draw_distributions(table, channel, right, names_of(means))
    fit(left, right, legend=True)
    return figure


def _top(
    figure: Any,
    images: list[np.ndarray],
    maps: list[np.ndarray] | None,
    titles: list[str],
    columns: int,
    shades: Shades,
) -> None:
    """Draw the top samples of a channel, and below each its map."""
    where, each = "ifa.plot.channel_card", 1 if maps is None else 2
    bands = -(-len(images) // columns)
    grid = figure.subplots(bands * each, columns, squeeze=False)
    for spare in grid.ravel():
        spare.set_axis_off()
    for place, (image, title) in enumerate(zip(images, titles, strict=True)):
        band, column = divmod(place, columns)
        axes = grid[band * each, column]
        draw(where, axes, image, np.zeros(image.shape[1:]), None)
        axes.set_title(title, fontsize=_SIZE, parse_math=False)
        if maps is not None:
            draw(where, grid[band * each + 1, column], image, maps[place], shades)
    if maps is not None:
        place: Any = {"orientation": "horizontal", "aspect": 40, "shrink": 0.7}
        draw_bar(figure, shades, ax=list(grid.ravel()), extend=exceeds(shades, *maps), **place)


def _bars(axes: Any, means: Any, channel: int, unit: str) -> None:
    """Draw the importance of a channel for each target."""
    values = means["importance"].values[:, channel]
    deviation = np.sqrt(means["importance_variance"].values[:, channel])
    colours = [ORANGE if value > 0 else BLUE for value in values]
    places = np.arange(len(values))
    axes.barh(places, values, xerr=np.nan_to_num(deviation), color=colours, ecolor=GREY)
    axes.axvline(0, color=GREY, linewidth=0.8)
    name_ticks(axes.yaxis, list(names_of(means).values()))
    axes.invert_yaxis()
    axes.set_xlabel(f"mean importance ± standard deviation ({unit})")
    axes.set_ylabel("target")
