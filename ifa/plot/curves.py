"""Curves and scatters: performance over kept channels, level against score."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ifa.plot.layout import axes_or_current, bar_beside, fit, name_ticks
from ifa.plot.populations import BLUE, GREEN, GREY, ORANGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STYLES = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (GREY, "D"))


def kept(curves: Any, *, axes: "Axes | None" = None) -> "Axes":
    """Draw what becomes of a performance when only a share of the channels is kept.

    Parameters
    ----------
    curves
        Dataset with ``performance(rule, ratio)``, its interval ``low`` and ``high`` of the same
        shape, and an attribute ``reference``: the performance with every channel.
    axes
        Where to draw; the current axes if None.

    Returns
    -------
    matplotlib.axes.Axes
    """
    axes = axes_or_current(axes)
    percent = curves["ratio"].values * 100
    for index, rule in enumerate(curves["rule"].values):
        colour, marker = _STYLES[index % len(_STYLES)]
        row = curves.sel(rule=rule)
        centre = row["performance"].values
        spread = np.abs(np.stack([centre - row["low"].values, row["high"].values - centre]))
        # beside each other, so that intervals do not hide each other
        shifted = percent * 1.03 ** (index - (len(curves["rule"]) - 1) / 2)
        axes.errorbar(
            shifted, centre, spread, color=colour, marker=marker, capsize=3, label=str(rule)
        )
    reference = curves.attrs["reference"]
    axes.axhline(reference, color=GREY, linestyle="--", label=f"every channel: {reference:.3f}")
    axes.set_xscale("log")
    name_ticks(axes.xaxis, [f"{value:g}" for value in percent], percent, turned=False)
    axes.set_ylim(0, 1.03)
    axes.set_xlabel("channels kept (%)")
    axes.set_ylabel(curves["performance"].attrs.get("long_name", "performance"))
    fit(axes, legend=True)
    return axes


def level(
    levels: Any,
    scores: Any,
    *,
    names: Any = None,
    unit: str = "logit",
    axes: "Axes | None" = None,
) -> "Axes":
    """Draw the level of maps against the score they explain, one colour for each target.

    Parameters
    ----------
    levels, scores : (target, sample)
        Level of each map, such as its mean, and the score.
    names
        Of the targets.
    unit
        Of the score.
    axes
        Where to draw; the current axes if None.

    Returns
    -------
    matplotlib.axes.Axes
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm, ListedColormap

    axes = axes_or_current(axes)
    levels, scores = np.asarray(levels), np.asarray(scores)
    names = range(len(levels)) if names is None else names
    colours = colormaps["viridis"](np.linspace(0, 0.95, len(levels)))
    each = np.broadcast_to(np.arange(len(levels))[:, None], levels.shape)
    axes.scatter(scores.ravel(), levels.ravel(), s=4, color=colours[each.ravel()], linewidths=0)
    axes.set_xlabel(f"score ({unit})")
    axes.set_ylabel(f"level of the map, its mean ({unit})")
    edges = np.arange(len(levels) + 1) - 0.5
    one_by_one = ScalarMappable(BoundaryNorm(edges, len(levels)), ListedColormap(colours))
    drawn = bar_beside(axes, one_by_one, "target")
    name_ticks(drawn.ax.yaxis, list(names))
    drawn.ax.invert_yaxis()  # the first on top, as in a legend
    fit(axes)
    return axes
