"""How good maps are: curves of deletion and insertion, and methods against metrics."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ifa.contest.summaries import decimals_of
from ifa.plot.populations import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DASHES = ("-", "--", ":", "-.")


def relevance_curves(
    curves: Mapping[str, Any],
    *,
    label: str = "positions hidden (%)",
    unit: str = "probability of the target",
    axes: "Axes | None" = None,
) -> "Axes":
    """Draw the score over the share of positions that are hidden or shown, a line for each method.

    Parameters
    ----------
    curves
        Name -> `ifa.evaluate.Curve` of a batch. The line is the mean over its samples that have a
        value, the band its 95 % interval; both are on fractions of the whole, between which each
        sample's curve is straight.
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
    from matplotlib import pyplot as plt

    axes = axes if axes is not None else plt.gca()
    for index, (name, curve) in enumerate(curves.items()):
        fraction, score, area = (np.asarray(part, dtype=float) for part in curve)
        known = np.isfinite(area)
        # rows may have different fractions: windows at the border are smaller than others
        common = np.unique(fraction[known].round(12))
        rows = np.array(
            [np.interp(common, f, s) for f, s in zip(fraction[known], score[known], strict=True)]
        ).reshape(-1, len(common))
        mean = rows.mean(0) if len(rows) else np.full(len(common), np.nan)
        error = rows.std(0, ddof=1) / len(rows) ** 0.5 if len(rows) > 1 else 0 * mean
        colour = COLOURS[index % len(COLOURS)]
        missing = f", {(~known).sum()} without a value" if not known.all() else ""
        text = f"{name}: AUC {area[known].mean():.3f}{missing}" if known.any() else f"{name}: none"
        dashes = _DASHES[index // len(COLOURS) % len(_DASHES)]
        axes.plot(100 * common, mean, dashes, color=colour, label=text)
        low, high = mean - 1.96 * error, mean + 1.96 * error
        axes.fill_between(100 * common, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set_xlim(0, 100)
    axes.set_xlabel(label)
    axes.set_ylabel(unit)
    axes.legend(fontsize=8)
    return axes


def methods(summary: Any, *, axes: "Axes | None" = None) -> "Axes":
    """Draw methods against metrics: means as numbers, each column coloured by rank.

    Parameters
    ----------
    summary
        What `ifa.contest.summary` returns. The best of each column is bold, with a star; one that
        is not told apart from it has an equals sign. Columns of which neither way is better have no
        colour. After a name stands how many of its maps say nothing.
    axes
        Where to draw; by default of a new figure, as large as the table needs.

    Returns
    -------
    matplotlib.axes.Axes
    """
    from matplotlib import pyplot as plt

    mean = summary["mean"].transpose("method", "metric").values
    rows, columns = mean.shape
    if axes is None:
        size = 2.2 + 1.05 * columns, 1.5 + 0.32 * rows
        axes = plt.subplots(figsize=size, layout="constrained")[1]
    better = [str(way) for way in summary["better"].values]
    shade = np.stack([_placed(mean[:, c], better[c]) for c in range(columns)], 1)
    axes.imshow(shade, cmap="RdYlBu", vmin=-0.35, vmax=1.35, aspect="auto")
    best, tied = summary["best"].values, summary["tied"].values
    for column in range(columns):
        digits = decimals_of(mean[:, column])
        for row in range(rows):
            value = mean[row, column]
            mark = "*" if best[row, column] else "=" if tied[row, column] else ""
            text = f"{value:.{digits}f}{mark}" if np.isfinite(value) else "–"
            weight = "bold" if best[row, column] else "normal"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, fontweight=weight)
    arrows = {"higher": " ↑", "lower": " ↓", "": ""}
    names = [str(name).replace("_", "\n").replace(".", "\n") for name in summary["metric"].values]
    titles = [f"{name}{arrows[way]}" for name, way in zip(names, better, strict=True)]
    axes.set_xticks(range(columns), titles, fontsize=8)
    axes.xaxis.tick_top()
    silent = (summary["blank"] + summary["nonfinite"]).values
    names = [f"{name} ({n} silent)" if n else str(name)
             for name, n in zip(summary["method"].values, silent, strict=True)]  # fmt: skip
    axes.set_yticks(range(rows), names, fontsize=8)
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(rows + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="minor", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel(
        f"mean over {summary.attrs['samples']} samples; * best, = not told apart from it; colour: "
        "rank in the column, from worst (red) to best (blue)",
        fontsize=7,
    )
    return axes


def _placed(values: np.ndarray, better: str) -> np.ndarray:
    """Place values between 0, the worst, and 1, the best, by rank; NaN if neither way is better."""
    signed = (values if better == "higher" else -values).round(decimals_of(values))
    ordered = np.unique(signed[np.isfinite(signed)])  # what is written alike is coloured alike
    if not better or len(ordered) < 2:
        return np.full(len(values), np.nan)
    places = np.searchsorted(ordered, signed) / (len(ordered) - 1)
    return np.where(np.isfinite(signed), places, np.nan)
