"""How good maps are: curves of deletion and insertion, and methods against metrics."""

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ifa.clusters import codes_of
from ifa.contest.summaries import decimals_of, marks_of
from ifa.intervals import mean_interval
from ifa.plot.layout import axes_or_current, fit, plain, shortened
from ifa.plot.populations import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CURVES = "ifa.plot.relevance_curves"
_DASHES = ("-", "--", ":", "-.")
_SIZE = 8  # of the table's words, in points
_LETTER, _LINE = 0.6 * _SIZE / 72, 1.35 * _SIZE / 72  # in inches
Cells = list[list[tuple[str, bool]]]  # of each column: words, and whether they are bold
_FOOT = (
    "mean over {samples} samples; * best, = not told apart from it, ? too few samples to tell; "
    "colour: rank in the column, from worst (red) to best (blue)"
)


def relevance_curves(
    curves: Mapping[str, Any],
    *,
    label: str = "positions hidden (%)",
    unit: str = "probability of the target",
    cluster: Any = None,
    axes: "Axes | None" = None,
) -> "Axes":
    """Draw the score over the share of positions that are hidden or shown, a line for each method.

    Parameters
    ----------
    curves
        Name -> `ifa.evaluate.Curve` of a batch. The line is the mean over its samples that have a
        value, the band Student's 95 % interval of it, at each fraction for itself, which two
        samples have and one has not; both are on fractions of the whole, between which each
        sample's curve is straight.
    cluster : (sample,), optional
        The label of each sample, such as its patient: the band is one over whole clusters.
    label
        Of the fractions: what happens to positions.
    unit
        Of the score.
    axes
        Where to draw; the current axes if None.

    Returns
    -------
    matplotlib.axes.Axes
    """
    axes = axes_or_current(axes)
    for index, (name, curve) in enumerate(curves.items()):
        fraction, score, area = (np.asarray(part, dtype=float) for part in curve)
        known = np.isfinite(area)
        # rows may have different fractions: windows at the border are smaller than others
        common = np.unique(fraction[known].round(12))
        rows = np.array(
            [np.interp(common, f, s) for f, s in zip(fraction[known], score[known], strict=True)]
        ).reshape(-1, len(common))
        mean = rows.mean(0) if len(rows) else np.full(len(common), np.nan)
        codes = codes_of(_CURVES, cluster, len(known))[known]
        colour = COLOURS[index % len(COLOURS)]
        missing = f", {(~known).sum()} without a value" if not known.all() else ""
        text = f"{name}: AUC {area[known].mean():.3f}{missing}" if known.any() else f"{name}: none"
        dashes = _DASHES[index // len(COLOURS) % len(_DASHES)]
        axes.plot(100 * common, mean, dashes, color=colour, label=text)
        band = mean_interval(rows, codes=codes)
        axes.fill_between(100 * common, *band, color=colour, alpha=0.15, linewidth=0)
    axes.set_xlim(0, 100)
    axes.set_xlabel(label)
    axes.set_ylabel(unit)
    fit(axes, legend=True, most=40)
    return axes


def methods(summary: Any, *, width: float | None = None) -> "Figure":
    """Draw methods against metrics: means as numbers, each column coloured by rank.

    The best of each column is bold, with a star; one that is not told apart from it has an equals
    sign, one of too few samples to tell a question mark: see `ifa.contest.summary`. Columns of
    which neither way is better have no colour. After a name stands how many of its maps say
    nothing.

    Parameters
    ----------
    summary
        What `ifa.contest.summary` returns.
    width
        Of the figure, in inches; what is too wide for it continues below. As wide as the table if
        None.

    Returns
    -------
    matplotlib.figure.Figure
        As high as the table needs.

    Raises
    ------
    ValueError
        If the width is below 2 inches.
    """
    from matplotlib.figure import Figure

    if width is not None and not width >= 2:
        raise ValueError(f"ifa.plot.methods: expected a width of 2 inches or more, got {width!r}.")
    cells, heads, names = _table(summary)
    silent = (summary["blank"] + summary["nonfinite"]).values.tolist()
    plan = _planned(cells, heads, names, silent, width)
    said = _FOOT.format(samples=summary.attrs["samples"])
    foot = textwrap.wrap(said, int(1.1 * plan.width / _LETTER))
    high = plan.head + 1.4 * _LINE * len(names)
    height = len(plan.bands) * high + _LINE * len(foot) + 0.15
    figure = Figure(figsize=(plan.width, height))
    for number, band in enumerate(plan.bands, start=1):
        wide = plan.wide * len(cells[band]) / plan.width
        bottom, tall = 1 - number * high / height, (high - plan.head) / height
        axes = figure.add_axes((plan.before / plan.width, bottom, wide, tall))
        _band(axes, summary.isel(metric=band), cells[band], heads[band], plan.names)
        axes.tick_params(axis="x", labelrotation=90 if plan.turned else 0)
    place = 0.05 / plan.width, 0.08 / height
    figure.text(*place, "\n".join(foot), fontsize=_SIZE, va="bottom")
    return figure


class _Plan(NamedTuple):
    """Where the parts of a table go, in inches."""

    width: float
    names: list[str]  # of rows, as long as there is room for
    before: float  # room for these
    head: float  # height of heads of columns
    turned: bool  # whether heads are upright
    wide: float  # width of a column
    bands: list[slice]  # columns that are side by side


def _planned(
    cells: Cells, heads: list[str], names: list[str], silent: list[int], width: float | None
) -> _Plan:
    ends = [f" ({count} silent)" if count else "" for count in silent]
    numbers = max((len(text) for column in cells for text, _ in column), default=0) + 1
    lines = [line for head in heads for line in head.split("\n")]
    longest = max(map(len, lines), default=0) + 1
    columns, wide = len(heads), _LETTER * max(numbers, longest)
    if width is None:
        long = _LETTER * (max(map(len, map(str.__add__, names, ends))) + 1)
        width = max(long + wide * columns, long / 0.4, 4.0) + 0.1
    most = int(0.4 * width / _LETTER)
    names = [shortened(one, most - len(end)) + end for one, end in zip(names, ends, strict=True)]
    before = _LETTER * (max(map(len, names)) + 1)
    deep = _LINE * max(head.count("\n") + 1 for head in heads)
    turned = wide * columns > width - 0.1 - before
    head, wide = (_LETTER * longest, max(_LETTER * numbers, deep)) if turned else (deep, wide)
    across = max(1, min(columns, int((width - 0.1 - before) / wide)))
    bands = [slice(start, start + across) for start in range(0, columns, across)]
    return _Plan(width, names, before, head + 0.1, turned, wide, bands)


def _table(summary: Any) -> tuple[Cells, list[str], list[str]]:
    """Write the cells of each column, and which are bold; the heads of columns and of rows."""
    mean = summary["mean"].transpose("method", "metric").values
    marks = marks_of(summary.transpose("method", "metric"))
    cells = []
    for values, kinds in zip(mean.T, marks.T, strict=True):
        digits = decimals_of(values)
        cells.append([
            (f"{value:.{digits}f}{mark}", mark == "*") if np.isfinite(value) else ("–", False)
            for value, mark in zip(values, kinds, strict=True)
        ])  # fmt: skip
    arrows = {"higher": " ↑", "lower": " ↓", "": ""}
    better = [arrows[str(way)] for way in summary["better"].values]
    broken = [str(name).replace("_", "\n").replace(".", "\n") for name in summary["metric"].values]
    heads = [name + arrow for name, arrow in zip(broken, better, strict=True)]
    return cells, heads, [str(name) for name in summary["method"].values]


def _band(
    axes: "Axes",
    summary: Any,
    cells: Cells,
    heads: list[str],
    names: list[str],
) -> None:
    """Draw some columns of the table."""
    mean = summary["mean"].transpose("method", "metric").values
    rows, columns = mean.shape
    better = [str(way) for way in summary["better"].values]
    shade = np.stack([_placed(mean[:, c], better[c]) for c in range(columns)], 1)
    axes.imshow(shade, cmap="RdYlBu", vmin=-0.35, vmax=1.35, aspect="auto")
    for column, some in enumerate(cells):
        for row, (text, bold) in enumerate(some):
            axes.text(
                column, row, text, ha="center", va="center", fontsize=_SIZE,
                fontweight="bold" if bold else "normal",
            )  # fmt: skip
    axes.set_xticks(range(columns), [plain(head) for head in heads], fontsize=_SIZE)
    axes.xaxis.tick_top()
    axes.set_yticks(range(rows), [plain(name) for name in names], fontsize=_SIZE)
    axes.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(rows + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)


def _placed(values: np.ndarray, better: str) -> np.ndarray:
    """Place values between 0, the worst, and 1, the best, by rank; NaN if neither way is better."""
    signed = (values if better == "higher" else -values).round(decimals_of(values))
    ordered = np.unique(signed[np.isfinite(signed)])  # what is written alike is coloured alike
    if not better or len(ordered) < 2:
        return np.full(len(values), np.nan)
    places = np.searchsorted(ordered, signed) / (len(ordered) - 1)
    return np.where(np.isfinite(signed), places, np.nan)
