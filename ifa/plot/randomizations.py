"""Curves of similarity as a network forgets what it has learned."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ifa.plot.layout import axes_or_current, fit, name_ticks
from ifa.plot.populations import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = "os^Dvp*XP<>"


def randomization(
    similarities: Mapping[str, Any],
    steps: Sequence[str],
    *,
    ylabel: str = "Spearman's ρ to the trained network's map",
    axes: "Axes | None" = None,
) -> "Axes":
    """Draw the similarity of maps against the modules that were randomized.

    A line is the median over samples, a band the middle half of them. Samples without a value are
    counted in the legend.

    Parameters
    ----------
    similarities
        Name of each method -> similarity (step, sample), a part of `ifa.evaluate.randomization`.
    steps
        Names of the steps, the keys of `ifa.evaluate.randomized`.
    ylabel
        What was compared.
    axes
        Where to draw; the current axes if None.

    Returns
    -------
    matplotlib.axes.Axes
    """
    axes = axes_or_current(axes)
    places = np.arange(len(steps))
    for index, (name, values) in enumerate(similarities.items()):
        rows = np.asarray(values, dtype=np.float64)
        if rows.ndim != 2 or len(rows) != len(steps):
            raise ValueError(
                f"ifa.plot.randomization: expected a similarity (step, sample) of {len(steps)} "
                f"steps, got {rows.shape} of {name!r}. Take one field of what "
                "ifa.evaluate.randomization returns, and one target."
            )
        unknown = np.isnan(rows)
        label = f"{name} ({unknown.mean():.1%} without a value)" if unknown.any() else name
        colour = COLOURS[index % len(COLOURS)]
        known = ~unknown.all(1)
        # a step at which no sample has a value is a gap
        bands = np.full((3, len(rows)), np.nan)
        if known.any():
            bands[:, known] = np.nanquantile(rows[known], (0.25, 0.5, 0.75), axis=1)
        low, middle, high = bands
        style: Any = {"color": colour, "marker": _MARKERS[index % len(_MARKERS)]}
        axes.plot(places, middle, markersize=4, label=label, **style)
        axes.fill_between(places, low, high, color=colour, alpha=0.12, linewidth=0)
    axes.axhline(0, color="black", linewidth=0.6)
    name_ticks(axes.xaxis, list(steps))
    axes.set_ylim(-1.05 if min(axes.get_ylim()) < -0.6 else -0.6, 1.05)
    axes.set_xlabel("randomized, from the output on")
    axes.set_ylabel(ylabel)
    fit(axes, legend=True, most=40)
    return axes
