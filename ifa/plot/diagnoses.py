"""What a diagnosis found: redundancy, shift, agreement, distributions; or any, by its kind."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ifa.diagnose.correlations import links
from ifa.plot.curves import kept
from ifa.plot.layout import axes_or_current, bar_beside, fit, label_points, name_ticks
from ifa.plot.populations import BLUE, GREEN, GREY, ORANGE, dendrogram
from ifa.reduce.statistics import feature_of
from ifa.types import Statistics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def redundancy(statistics: Statistics, *, axes: "Axes | None" = None) -> "Axes":
    """Draw the correlation of channels below the dendrogram that orders them, with alarms marked.

    Parameters
    ----------
    statistics
        What `ifa.diagnose.redundancy` returns.
    axes
        Where to draw; the current axes if None.

    Returns
    -------
    matplotlib.axes.Axes
    """
    axes = axes_or_current(axes)
    order = statistics["order"].values
    values = statistics["correlation"].values[np.ix_(order, order)]
    picture = axes.imshow(
        values, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto", interpolation="nearest"
    )
    y, x = np.nonzero(statistics["alarm"].values[np.ix_(order, order)])
    said = f"says the same, pairs: {len(x) // 2}{_groups(statistics['cluster'].values)}"
    axes.scatter(x, y, s=26, facecolors="none", edgecolors="black", label=said)
    alive = order[~statistics["dead"].values[order]]
    if len(alive) > 1:
        dendrogram(axes, links(statistics["correlation"].values[np.ix_(alive, alive)]), "1 − |r|")
    name_ticks(axes.xaxis, order)
    name_ticks(axes.yaxis, order)
    feature = feature_of(statistics)
    axes.set_xlabel(f"{feature}, in the order of the dendrogram")
    axes.set_ylabel(feature)
    rank, dead = statistics.attrs["effective_rank"], int(statistics["dead"].sum())
    axes.set_title(
        f"{len(order)} {feature}s, {statistics.attrs['clusters']} groups, {dead} dead; "
        f"effective rank {rank:.1f}"
    )
    bar_beside(axes, picture, "correlation within targets (1)")
    fit(axes, legend=bool(len(x)))
    return axes


def _groups(cluster: np.ndarray) -> str:
    """Write the channels of the largest groups."""
    groups = [np.flatnonzero(cluster == group).tolist() for group in range(cluster.max() + 1)]
    several = sorted((group for group in groups if len(group) > 1), key=len)[::-1]
    said = [", ".join([*map(str, group[:6]), *(["…"] if len(group) > 6 else [])])
            for group in several[:4]]  # fmt: skip
    more = [f"{len(several) - 4} more groups"] if len(several) > 4 else []
    return "".join(f"; {one}" for one in [*said, *more])


def shift(statistics: Statistics, *, axes: "Axes | None" = None) -> "Axes":
    """Draw the distance between two populations, by channel and target, with alarms marked.

    The first two columns are the map's level and the score.

    Parameters
    ----------
    statistics
        What `ifa.diagnose.shift` returns.
    axes
        Where to draw; the current axes if None.

    Returns
    -------
    matplotlib.axes.Axes
    """
    axes = axes_or_current(axes)
    channels = statistics.sizes[feature_of(statistics)]
    # level and score as wide as can be read beside many channels
    wide = max(1, channels // 16)
    values = _with_level_and_score(statistics, "wasserstein", wide)
    picture = axes.imshow(values, cmap="cividis", vmin=0, aspect="auto", interpolation="nearest")
    centres = np.array([0.5 * wide - 0.5, 1.5 * wide - 0.5, *(2 * wide + np.arange(channels))])
    y, x = np.nonzero(_with_level_and_score(statistics, "alarm", 1))
    axes.scatter(centres[x], y, s=22, marker="x", color=ORANGE, label=f"alarm ({len(x)})")
    axes.axvline(2 * wide - 0.5, color="white", linewidth=2)
    names = ["level", "score", *map(str, range(channels))]
    name_ticks(axes.xaxis, names, centres.tolist())
    name_ticks(axes.yaxis, statistics["target"].values)
    axes.set_xlabel(feature_of(statistics))
    axes.set_ylabel("target")
    title = f"shift between two runs, tested at {statistics.attrs['alpha']:g}"
    if "right_a" in statistics:
        title += (
            f"; right {float(statistics['right_a']):.3f} and {float(statistics['right_b']):.3f}"
        )
        title += f" (p = {float(statistics['right_p_adjusted']):.2g})"
    axes.set_title(title)
    bar_beside(axes, picture, f"Wasserstein distance ({statistics['wasserstein'].attrs['units']})")
    fit(axes, legend=True)
    return axes


def _with_level_and_score(statistics: Statistics, name: str, wide: int) -> np.ndarray:
    first = [
        statistics[f"{prefix}_{name}"].values for prefix in ("level", "score") for _ in range(wide)
    ]
    return np.concatenate([np.stack(first, axis=1), statistics[name].values], axis=1)


def agreement(statistics: Statistics, target: int, *, axes: "Axes | None" = None) -> "Axes":
    """Draw Bland and Altman's plot of the importances of two runs, for one target.

    Parameters
    ----------
    statistics
        What `ifa.diagnose.agreement` returns.
    target
        Which, by its value.
    axes
        Where to draw; the current axes if None.

    Returns
    -------
    matplotlib.axes.Axes
    """
    axes = axes_or_current(axes)
    _agreement(statistics, target, axes)
    fit(axes, legend=True)
    return axes


def _agreement(statistics: Statistics, target: int, axes: "Axes") -> None:
    row = statistics.sel(target=target)
    alarm = row["channel_alarm"].values
    for chosen, colour, label in (
        (~alarm, BLUE, feature_of(statistics)),
        (alarm, ORANGE, f"differs ({alarm.sum()})"),
    ):
        if chosen.any():
            values = row["mean"][chosen], row["difference"][chosen]
            axes.scatter(*values, s=14, color=colour, linewidths=0, label=label)
    axes.axhline(0, color=GREY, linewidth=0.8)
    low, high = row["bias_interval"].values
    axes.axhspan(low, high, color=ORANGE, alpha=0.15, linewidth=0)
    for name, style in (("bias", "-"), ("lower", "--"), ("upper", "--")):
        value = float(row[name])
        axes.axhline(value, color=ORANGE, linestyle=style, label=f"{name} {value:.3g}")
    unit = row["mean"].attrs.get("units", "1")
    axes.set_xlabel(f"mean importance of the two runs ({unit})")
    axes.set_ylabel(f"second run less first ({unit})")
    axes.set_title(
        f"target {target}: concordance {float(row['concordance']):.3f}, "
        f"p = {float(row['p_adjusted']):.2g}: {_ANSWERS[str(row['answer'].item())]}"
    )


_ANSWERS = {"agree": "they agree", "differ": "they differ", "cannot be said": "cannot be said"}


def distributions(
    statistics: Statistics, channel: int, *, layer: str | None = None, axes: "Axes | None" = None
) -> "Axes":
    """Draw how the importance of one channel is distributed over samples, for each target.

    Parameters
    ----------
    statistics
        A run with ``keep_samples="full"``.
    channel
        Which.
    layer
        Which layer; may be left out where there is one.
    axes
        Where to draw; the current axes if None.

    Returns
    -------
    matplotlib.axes.Axes
    """
    from ifa.diagnose.rows import table_of

    axes = axes_or_current(axes)
    table = table_of(statistics, layer, "ifa.plot.distributions")
    draw_distributions(table, channel, axes, names_of(statistics[table.layer]))
    fit(axes, legend=True)
    return axes


def names_of(statistics: Any) -> dict[int, str]:
    """Return the names of targets, by their values."""
    names = statistics["target_name"] if "target_name" in statistics else statistics["target"]
    return dict(zip(statistics["target"].values.tolist(), names.values.tolist(), strict=True))


def draw_distributions(table: Any, channel: int, axes: "Axes", names: dict[int, str]) -> None:
    """Draw the distributions of a table of rows; words are not made to fit."""
    parts = [table.importance[table.target == target, channel] for target in table.targets]
    varied = [index for index, part in enumerate(parts) if np.ptp(part) > 0]
    if varied:
        shapes = axes.violinplot(
            [parts[i] for i in varied], varied, orientation="horizontal", showextrema=False
        )
        for body in shapes["bodies"]:  # pyright: ignore[reportGeneralTypeIssues]
            body.set(facecolor=BLUE, alpha=0.6)
    axes.scatter(
        [np.median(part) for part in parts], range(len(parts)), s=10, color="black", label="median"
    )
    axes.axvline(0, color=GREY, linewidth=0.8)
    name_ticks(axes.yaxis, [names.get(target, target) for target in table.targets.tolist()])
    axes.set_ylim(len(parts) - 0.4, -0.6)  # the first on top, as in a table
    axes.set_xlabel(f"importance of {table.feature} {channel} ({table.unit})")
    axes.set_ylabel("target")


def confounders(statistics: Statistics, *, axes: "Axes | None" = None) -> "Axes":
    """Draw how much each channel knows of the nuisance over how important it is.

    Parameters
    ----------
    statistics
        What `ifa.diagnose.confounders` returns.
    axes
        Where to draw; the current axes if None.

    Returns
    -------
    matplotlib.axes.Axes
    """
    axes = axes_or_current(axes)
    alarm, feature = statistics["alarm"].values, feature_of(statistics)
    x, y = (statistics[name].values for name in ("importance", "information"))
    known = np.isfinite(y)
    quiet = known & ~alarm
    axes.scatter(x[quiet], y[quiet], s=9, color=GREY, alpha=0.6, linewidths=0, label="no alarm")
    markers, colours = "os^Dvp", (ORANGE, BLUE, GREEN)
    named: list[tuple[tuple[float, float], int]] = []
    for index, row in enumerate(np.flatnonzero(alarm.any(axis=1))):
        where = alarm[row]
        axes.scatter(
            x[row, where],
            y[row, where],
            s=26,
            color=colours[index % 3],
            marker=markers[index % 6],
            label=f"target {statistics['target'].values[row]}: {where.sum()} {feature}s",
        )
        first = np.flatnonzero(where)[np.argsort(-y[row, where])][:3]
        named += [((x[row, channel], y[row, channel]), channel) for channel in first]
    axes.set_xlabel(f"mean importance ({statistics['importance'].attrs['units']})")
    axes.set_ylabel("information on the nuisance (nat)")
    axes.set_title(f"{feature}s that know the nuisance, tested at {statistics.attrs['alpha']:g}")
    fit(axes, legend=True)
    label_points(axes, named)
    return axes


def diagnosis(statistics: Statistics, *, figure: "Figure | None" = None) -> "Figure":
    """Draw what any function of `ifa.diagnose` found, without the data.

    Outliers are drawn by their two deviations; `ifa.plot.outliers` shows the samples themselves. Of
    an agreement, so many targets as there are, at most nine.

    Parameters
    ----------
    statistics
        What a function of `ifa.diagnose` returns.
    figure
        Where to draw; made if None.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    draw = {
        "outliers": _deviations,
        "redundancy": redundancy,
        "shift": shift,
        "confounders": confounders,
        "feature curve": kept,
        "principal features": kept,
    }
    kind = getattr(statistics, "attrs", {}).get("diagnosis")
    if kind not in (*draw, "agreement"):
        raise ValueError(
            "ifa.plot.diagnosis: expected what a function of ifa.diagnose returns, got "
            f"{kind or type(statistics).__name__}."
        )
    targets = statistics["target"].values[:9].tolist() if kind == "agreement" else [None]
    columns = min(len(targets), 3)
    if figure is not None:
        columns = max(1, min(columns, int(figure.bbox.width / figure.dpi / 3)))
    rows = -(-len(targets) // columns)
    figure = figure or Figure(figsize=(7.5 * columns, 5.5 * rows), layout="constrained")
    places = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, target in zip(places, targets, strict=False):
        if target is None:
            draw[kind](statistics, axes=axes)
        else:
            _agreement(statistics, target, axes)
    if kind == "agreement":
        fit(*places[: len(targets)], legend=True)
    for axes in places[len(targets) :]:
        axes.set_axis_off()
    return figure


def _deviations(statistics: Any, *, axes: "Axes") -> None:
    alarm = statistics["alarm"].values
    x, y = (statistics[name].values for name in ("distance_z", "level_z"))
    for chosen, colour, name in ((~alarm, GREY, "no alarm"), (alarm, ORANGE, "alarm")):
        label = f"{name}: {int(chosen.sum())} samples"
        axes.scatter(x[chosen], y[chosen], s=14, color=colour, linewidths=0, label=label)
    known = np.flatnonzero(np.isfinite(x + y))[:5]
    axes.set_xlabel("distance from its class in feature space (robust standard deviations)")
    axes.set_ylabel("level of the map (robust standard deviations)")
    axes.set_title(f"outliers of layer {statistics.attrs['layer']}")
    fit(axes, legend=True)
    label_points(axes, [((x[n], y[n]), statistics["id"].values[n]) for n in known])
