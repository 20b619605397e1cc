"""What the population says: importances, and where the common scale lies."""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ifa.reduce.statistics import one_layer
from ifa.types import Statistics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ifa.scaling import Scale

# Okabe & Ito's colours, which the colour-blind tell apart.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
COLOURS = (BLUE, ORANGE, GREEN, GREY, "#CC79A7", "#56B4E9", "#E69F00", "#000000")


def importance(
    statistics: Statistics,
    *,
    order: Literal["channel", "cluster"] = "channel",
    axes: "Axes | None" = None,
) -> "Axes":
    """Draw the importance of each channel for each target, as a heat map centred at zero.

    Parameters
    ----------
    statistics
        One layer's dataset as `ifa.analyze` returns it, a tree with one layer, or an array
        (target, channel), such as `ifa.difference(statistics)`.
    order
        ``"channel"``, or ``"cluster"``: channels of like importances side by side, in the order of
        a dendrogram (average linkage of their distances over targets).
    axes
        Where to draw; the current axes if None.

    Returns
    -------
    matplotlib.axes.Axes
    """
    from matplotlib import pyplot as plt

    axes = axes if axes is not None else plt.gca()
    is_array = getattr(statistics, "dims", None) == ("target", "channel")
    values = statistics if is_array else one_layer(statistics, "ifa.plot.importance")["importance"]
    if order not in ("channel", "cluster"):
        raise ValueError(
            f"ifa.plot.importance: expected order 'channel' or 'cluster', got {order!r}."
        )
    places = _dendrogram_order(values.values) if order == "cluster" else None
    values = values if places is None else values.isel(channel=places)
    limit = float(np.nanmax(np.abs(values.values)))
    picture = axes.imshow(
        values.values,
        cmap="RdBu_r",
        vmin=-limit,
        vmax=limit,
        aspect="auto",
        interpolation="nearest",
    )
    names = values["target_name"] if "target_name" in values.coords else values["target"]
    axes.set_yticks(range(len(names)), [str(name) for name in names.values])
    axes.set_xlabel("channel")
    if places is not None:
        ticks = range(0, len(places), max(1, len(places) // 32))
        axes.set_xticks(ticks, [str(places[tick]) for tick in ticks], rotation=90, fontsize=7)
        axes.set_xlabel("channel, in the order of the dendrogram")
    axes.set_ylabel("target")
    axes.set_title(values.attrs.get("long_name", values.name))
    axes.figure.colorbar(
        picture, ax=axes, label=f"{values.name} ({values.attrs.get('units', '1')})"
    )
    return axes


def _dendrogram_order(values: np.ndarray) -> np.ndarray:
    from scipy.cluster.hierarchy import leaves_list, linkage

    known = values[np.isfinite(values).all(axis=1)]
    if not known.size or values.shape[1] < 3:
        return np.arange(values.shape[1])
    return leaves_list(linkage(known.T, "average", optimal_ordering=values.shape[1] < 500))


def extremes(samples: Any, scale: "Scale", *, axes: "Axes | None" = None) -> "Axes":
    """Draw how the maps' minima and maxima are distributed, and the common scale's two limits.

    Parameters
    ----------
    samples
        One layer's sample table: ``ifa.open(run)["samples/LAYER"]``.
    scale
        A common scale, with one pair of limits.
    axes
        Where to draw; the current axes if None.

    Returns
    -------
    matplotlib.axes.Axes
    """
    from matplotlib import pyplot as plt

    axes = axes if axes is not None else plt.gca()
    low, high = float(scale.low), float(scale.high)
    smallest, largest = (np.ravel(samples[name].values) for name in ("map_min", "map_max"))
    finite = np.ravel(samples["finite"].values)
    edges = np.histogram_bin_edges(np.concatenate([smallest[finite], largest[finite]]), bins=60)
    edges = edges.tolist()
    axes.hist(smallest[finite], edges, color=BLUE, alpha=0.7, label="smallest value of a map")
    axes.hist(largest[finite], edges, color=ORANGE, alpha=0.7, label="largest value of a map")
    for limit, name, colour in ((low, "low", BLUE), (high, "high", ORANGE)):
        axes.axvline(limit, color=colour, linestyle="--", label=f"{name} limit {limit:.3g}")
    axes.set_xlabel(f"value ({samples['map_max'].attrs.get('units', '1')})")
    axes.set_ylabel("samples")
    axes.set_title("extremes of the maps and the common scale")
    axes.legend(fontsize=8)
    return axes
