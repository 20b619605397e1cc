"""Curves and scatters: performance over kept channels, level against score."""

from typing import TYPE_CHECKING, Any

import numpy as np

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
    from matplotlib import pyplot as plt

    axes = axes if axes is not None else plt.gca()
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
    axes.set_xticks(percent, [f"{value:g}" for value in percent])
    axes.minorticks_off()
    axes.set_ylim(0, 1.03)
    axes.set_xlabel("channels kept (%)")
    axes.set_ylabel(curves["performance"].attrs.get("long_name", "performance"))
    axes.legend(fontsize=8)
    return axes


def level(levels: Any, scores: Any, *, names: Any = None, axes: "Axes | None" = None) -> "Axes":
    """Draw the level of maps against the score they explain, one colour for each target.

    Parameters
    ----------
    levels, scores : (target, sample)
        Level of each map, such as its mean, and the score.
    names
        Of the targets.
    axes
        Where to draw; the current axes if None.

    Returns
    -------
    matplotlib.axes.Axes
    """
    from matplotlib import pyplot as plt

    axes = axes if axes is not None else plt.gca()
    levels, scores = np.asarray(levels), np.asarray(scores)
    names = range(len(levels)) if names is None else names
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.95, len(levels)))
    for name, x, y, colour in zip(names, scores, levels, colours, strict=True):
        axes.scatter(x, y, s=4, color=colour, label=str(name), linewidths=0)
    axes.set_xlabel("score (logit)")
    axes.set_ylabel("level of the map (mean)")
    axes.legend(title="target", fontsize=6, title_fontsize=7, markerscale=2, ncols=2)
    return axes
