"""Galleries of samples: the strangest ones, and those that speak most for a channel."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ifa.plot.diagnoses import distributions
from ifa.plot.overlays import draw
from ifa.plot.pictures import Look
from ifa.plot.populations import BLUE, GREY, ORANGE
from ifa.plot.shades import Shades, draw_bar
from ifa.types import Statistics

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def outliers(
    statistics: Statistics, data: Any, *, maps: Any = None, samples: int = 10, axes: Any = None
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
    axes
        A sequence of axes, one for each; made if None.

    Returns
    -------
    numpy.ndarray
        The axes.
    """
    from matplotlib import pyplot as plt

    rows = statistics.isel(sample=slice(0, samples))
    count = rows.sizes["sample"]
    if axes is None:
        columns = min(count, 5)
        shape = (-(-count // columns), columns)
        size = (1.9 * shape[1], 2.1 * shape[0])
        axes = plt.subplots(*shape, figsize=size, squeeze=False, layout="constrained")[1]
    axes = np.asarray(axes)
    for spare in axes.ravel()[count:]:
        spare.set_axis_off()
    # one grey scale, that of the population: a sample that is too bright must look so
    some = [np.asarray(data[index][0]) for index in range(0, len(data), -(-len(data) // 50))]
    low = float(np.median([image.min() for image in some]))
    high = float(np.median([image.max() for image in some]))
    flat = [np.asarray(data[int(position)][0]) for position in rows["position"].values]
    for index, (one, image) in enumerate(zip(axes.ravel(), flat, strict=False)):
        row = rows.isel(sample=index)
        values = np.zeros(image.shape[1:]) if maps is None else maps[int(row["position"])]
        look = Look(window=(low, high) if maps is None and len(image) == 1 else None)
        shades = None if maps is None else Shades()
        draw("ifa.plot.outliers", one, image, np.asarray(values), shades, look)
        one.set_title(
            f"{row['id'].item()}\nas {row['target'].item()}, p = {float(row['p_adjusted']):.1g}",
            fontsize=7,
            color=ORANGE if bool(row["alarm"]) else "black",
        )
    return axes


def channel_card(
    statistics: Statistics,
    data: Any,
    channel: int,
    *,
    layer: str | None = None,
    target: int | None = None,
    maps: Any = None,
    samples: int = 6,
    figure: "Figure | None" = None,
) -> "Figure":
    r"""Draw one channel: its top samples, its importance for each target, and its distribution.

    Parameters
    ----------
    statistics
        A run with ``keep_samples="full"``.
    data
        The data set of the run, ``(input, label, ...)``.
    channel
        Which.
    layer
        Which layer; may be left out where there is one.
    target
        Top samples of this target only, by its value.
    maps : (sample, \*space), optional
        The channel's own map of every sample of the run, signed: weight × activation.
    samples
        How many top samples.
    figure
        Where to draw, a figure or a subfigure; made if None.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib import pyplot as plt

    from ifa.diagnose.rows import statistics_of, table_of

    if figure is None:
        figure = plt.figure(figsize=(1.4 * max(samples, 5) + 0.6, 5.4), layout="constrained")
    table = table_of(statistics, layer, "ifa.plot.channel_card")
    means = statistics_of(statistics, table.layer, "ifa.plot.channel_card")
    shown = np.flatnonzero(table.target == target) if target is not None else table.target >= 0
    rows = np.arange(len(table.target))[shown]
    top = rows[np.argsort(-table.importance[rows, channel], kind="stable")][:samples]
    parts: Any = figure.subfigures(2, 1, height_ratios=(1 if maps is None else 2, 2))
    upper, lower = parts
    pictures = upper.subplots(1 if maps is None else 2, samples, squeeze=False)
    for spare in pictures.ravel():
        spare.set_axis_off()
    for axes, row in zip(pictures[0], top, strict=False):
        image = np.asarray(data[int(table.sample[row])][0])
        draw("ifa.plot.channel_card", axes, image, np.zeros(image.shape[1:]), None)
        axes.set_title(f"{table.id[row]}\n{table.importance[row, channel]:.3g}", fontsize=7)
    if maps is not None:
        chosen = [np.asarray(maps[table.sample[row]]) for row in top]
        limit = max(float(np.abs(values).max()) for values in chosen) or 1.0
        shades = Shades(high=limit, signed=True, label=f"map ({table.unit})")
        for axes, row, values in zip(pictures[1], top, chosen, strict=False):
            image = np.asarray(data[int(table.sample[row])][0])
            draw("ifa.plot.channel_card", axes, image, values, shades)
        draw_bar(upper, shades, ax=list(pictures.ravel()))
    of_target = "" if target is None else f" of target {target}"
    upper.suptitle(f"channel {channel} of {table.layer}: its top samples{of_target}", fontsize=10)
    left, right = lower.subplots(1, 2)
    values = means["importance"].isel(channel=channel).values
    deviation = np.sqrt(means["importance_variance"].isel(channel=channel).values)
    names = means["target_name"] if "target_name" in means else means["target"]
    colours = [ORANGE if value > 0 else BLUE for value in values]
    places = np.arange(len(values))
    left.barh(places, values, xerr=np.nan_to_num(deviation), color=colours, ecolor=GREY)
    left.axvline(0, color=GREY, linewidth=0.8)
    left.set_yticks(places, [str(name) for name in names.values])
    left.invert_yaxis()
    left.set_xlabel(f"mean importance ± standard deviation ({table.unit})")
    left.set_ylabel("target")
    distributions(statistics, channel, layer=table.layer, axes=right)
    return figure
