"""What the population says: importances, and where the common scale lies."""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ifa.plot.layout import axes_or_current, bar_beside, fit, name_ticks
from ifa.reduce.statistics import feature_of, one_layer
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
        ``"channel"``, or ``"cluster"``: channels of like importances side by side, below the
        dendrogram that orders them (average linkage of their distances over targets).
    axes
        Where to draw; the current axes if None.

    Returns
    -------
    matplotlib.axes.Axes
    """
    axes = axes_or_current(axes)
    is_array = tuple(getattr(statistics, "dims", ()))[:-1] == ("target",)
    values = statistics if is_array else one_layer(statistics, "ifa.plot.importance")["importance"]
    if order not in ("channel", "cluster"):
        raise ValueError(
            f"ifa.plot.importance: expected order 'channel' or 'cluster', got {order!r}."
        )
    links = _links(values.values) if order == "cluster" else None
    if links is None:
        axes.set_xlabel(feature_of(values))
        axes.locator_params(axis="x", integer=True)
    else:
        places = dendrogram(axes, links, "distance")
        values = values.isel({feature_of(values): places})
        name_ticks(axes.xaxis, places)
        axes.set_xlabel(f"{feature_of(values)}, in the order of the dendrogram")
    axes.set_title(values.attrs.get("long_name", values.name))
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
    name_ticks(axes.yaxis, names.values)
    axes.set_ylabel("target")
    bar_beside(axes, picture, f"{values.name} ({values.attrs.get('units', '1')})")
    fit(axes)
    return axes


def dendrogram(axes: "Axes", links: np.ndarray, label: str) -> np.ndarray:
    """Draw the dendrogram of linked columns above axes; return the order of the columns."""
    from matplotlib.collections import LineCollection
    from scipy.cluster.hierarchy import leaves_list

    order = leaves_list(links)
    # by hand, for scipy's recurses as deep as the tree is
    at, height = np.zeros((2, 2 * len(order) - 1))
    at[order] = np.arange(len(order))
    lines = []
    for node, (a, b, distance, _) in enumerate(links, start=len(order)):
        ends = int(a), int(b)
        x, y = at[[*ends]], height[[*ends]]
        lines.append([(x[0], y[0]), (x[0], distance), (x[1], distance), (x[1], y[1])])
        at[node], height[node] = x.mean(), distance
    above = axes.inset_axes((0, 1.02, 1, 0.2), sharex=axes)
    above.add_collection(LineCollection(lines, colors=GREY, linewidths=0.7))
    above.spines[["top", "right", "bottom"]].set_visible(False)
    above.tick_params(axis="x", bottom=False, labelbottom=False)
    top = float(height[-1]) or 1.0
    above.set_ylim(0, 1.05 * top)
    above.set_yticks([0, top], ["0", f"{top:.2g}"], fontsize="x-small")
    above.set_ylabel(label, fontsize="x-small")
    return order


def _links(values: np.ndarray) -> np.ndarray | None:
    """Link columns by distance; None where there are too few columns, or no known rows."""
    from scipy.cluster.hierarchy import linkage

    known = values[np.isfinite(values).all(axis=1)]
    if not known.size or values.shape[1] < 3:
        return None
    return linkage(known.T, "average", optimal_ordering=values.shape[1] < 500)


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
    axes = axes_or_current(axes)
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
    fit(axes, legend=True)
    return axes
