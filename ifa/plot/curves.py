"""Curves and scatters: performance over kept channels, level against score."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ifa.plot.layout import axes_or_current, bar_beside, fit, name_ticks
from ifa.plot.populations import BLUE, GREEN, GREY, ORANGE
from ifa.reduce.statistics import feature_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STYLES = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (GREY, "D"))
_LINES = ("-", "--", ":")


def kept(curves: Any, *, axes: "Axes | None" = None) -> "Axes":
    """Draw what becomes of a performance when only a share of the channels is kept.

    Parameters
    ----------
    curves
        Dataset with ``performance(rule, ratio)``, its interval ``low`` and ``high`` of the same
        shape, and an attribute ``reference``: the performance with every channel. With an axis
        ``fill`` before these, as `ifa.diagnose.feature_curve` returns it, others are dashed, and
        the chosen sets of `ifa.diagnose.principal_features` stars: their performance on
        samples that did not choose them.
    axes
        Where to draw; the current axes if None.

    Returns
    -------
    matplotlib.axes.Axes
    """
    axes = axes_or_current(axes)
    filled = curves if "fill" in curves.dims else curves.expand_dims("fill")
    cells = [
        (fill, rule) for fill in range(filled.sizes["fill"]) for rule in range(len(curves.rule))
    ]
    for place, (fill, rule) in enumerate(cells):
        row = filled.isel(fill=fill, rule=rule)
        words = [str(row["rule"].values), *(_others(row) if "fill" in curves.dims else ())]
        colour, marker = _STYLES[rule % len(_STYLES)]
        style: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": _LINES[fill % 3]}
        # beside each other, so that intervals do not hide each other
        aside = 1.03 ** (place - (len(cells) - 1) / 2)
        _with_limits(axes, row["ratio"] * 100 * aside, row, label=", ".join(words), **style)
    if "chosen_performance" in filled:
        _stars(axes, filled)
    reference = curves.attrs["reference"]
    axes.axhline(
        reference, color=GREY, linestyle="--", label=f"every {feature_of(curves)}: {reference:.3f}"
    )
    percent = curves["ratio"].values * 100
    axes.set_xscale("log")
    name_ticks(axes.xaxis, [f"{value:g}" for value in percent], percent, turned=False)
    axes.set_ylim(0, 1.03)
    axes.set_xlabel(f"{feature_of(curves)}s kept (%)")
    axes.set_ylabel(curves["performance"].attrs.get("long_name", "performance"))
    fit(axes, legend=True)
    return axes


def _others(row: Any) -> list[str]:
    """Say what stands for the channels that are not kept."""
    fill = str(row["fill"].values)
    return [{"zero": "others zero", "mean": "others their mean"}.get(fill, fill)]


def _with_limits(axes: "Axes", places: Any, row: Any, **style: Any) -> None:
    centre, low, high = (np.atleast_1d(row[name]) for name in ("performance", "low", "high"))
    spread = np.abs(np.stack([centre - low, high - centre]))
    axes.errorbar(np.atleast_1d(places), centre, spread, capsize=3, **style)


def _stars(axes: "Axes", filled: Any) -> None:
    """Draw the chosen set of every fill."""
    names = {"chosen_performance": "performance", "chosen_low": "low", "chosen_high": "high"}
    for place in range(filled.sizes["fill"]):
        row = filled[[*names, "chosen_count"]].isel(fill=place).rename(names)
        count, total = int(row["chosen_count"]), filled["chosen"].shape[-1]
        label = ", ".join([f"chosen: {count} of {total}", *_others(row)])
        style: dict[str, Any] = {"color": GREEN, "marker": "*", "markersize": 11}
        style["markerfacecolor"] = (GREEN, "white", "none")[place % 3]
        _with_limits(axes, 100 * count / total, row, label=label, linestyle="none", **style)


def claims(found: Any, *, axes: "Axes | None" = None) -> "Axes":
    """Draw what was found of each claim: estimate and interval, and from where on it would hold.

    Parameters
    ----------
    found
        What `ifa.claims` returns.
    axes
        Where to draw; the current axes if None.

    Returns
    -------
    matplotlib.axes.Axes
    """
    axes = axes_or_current(axes)
    names, said = found["claim"].values, found["verdict"].values
    colors = {"holds": GREEN, "does not hold": ORANGE, "cannot be said": GREY}
    rows = np.arange(len(names))
    for verdict, color in colors.items():
        chosen = said == verdict
        part = found.isel(claim=chosen)
        ends = np.stack([part["estimate"] - part["low"], part["high"] - part["estimate"]])
        axes.errorbar(
            part["estimate"], rows[chosen], xerr=np.abs(ends), color=color, linestyle="none",
            marker="o", capsize=3, label=f"{verdict}: {chosen.sum()}",
        )  # fmt: skip
    for marker, side, chosen in ((">", "above", found["above"]), ("<", "below", ~found["above"])):
        axes.plot(
            found["threshold"].values[chosen], rows[chosen], color="black", linestyle="none",
            marker=marker, markerfacecolor="none", label=f"holds {side}",
        )  # fmt: skip
    axes.invert_yaxis()
    name_ticks(axes.yaxis, names)
    axes.set_xlabel("r, its gain, or a share")
    axes.set_title(f"Claims, on layer {found.attrs['layer']}: {found.attrs['samples']} samples")
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
