"""Which methods rank before which: a picture of critical differences."""

from typing import TYPE_CHECKING, Any

from ifa.contest.ranks import ranks
from ifa.plot.layout import axes_or_current, fit, name_ticks
from ifa.plot.populations import BLUE, GREY, ORANGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def critical_differences(
    table: Any,
    metric: str,
    *,
    level: float = 0.95,
    cluster: Any = None,
    axes: "Axes | None" = None,
) -> "Axes":
    """Draw the mean rank of each method by a metric; bars join those that are not told apart.

    Parameters
    ----------
    table
        What `ifa.contest.table` returns.
    metric, level, cluster
        As in `ifa.contest.ranks`, which says what is told apart: by Friedman's test and Nemenyi's
        critical difference, at a level for all pairs by this metric.
    axes
        Where to draw; the current axes if None.

    Returns
    -------
    matplotlib.axes.Axes

    References
    ----------
    Demšar 2006, "Statistical comparisons of classifiers over multiple data sets". JMLR 7:1–30
    """
    found = ranks(table, metric, level=level, cluster=cluster)
    axes = axes_or_current(axes)
    rank, count = found["rank"].values, found.sizes["method"]
    rows, critical = range(count), found.attrs["critical"]
    axes.hlines(rows, 1, rank, color=GREY, linewidth=0.8, alpha=0.5)
    axes.plot(rank, rows, "o", color=BLUE, markersize=5)
    joined = [group.nonzero()[0] for group in found["group"].values if group.sum() > 1]
    apart = 0.04 * (count - 1)  # between bars, right of the last rank
    for place, group in enumerate(joined, start=1):
        ends = group[0] - 0.25, group[-1] + 0.25
        axes.plot([count + place * apart] * 2, ends, color=ORANGE, linewidth=3)
    axes.plot([1, 1 + critical], [-0.9, -0.9], "|-", color=GREY)
    axes.set_xlim(1 - apart, max(count + (len(joined) + 1) * apart, 1 + critical + apart))
    axes.set_ylim(count - 0.4, -1.4)
    name_ticks(axes.xaxis, list(range(1, count + 1)), list(range(1, count + 1)), turned=False)
    name_ticks(axes.yaxis, found["method"].values)
    of = "clusters" if found.attrs["clusters"] else "samples"
    axes.set_title(f"{metric}: Friedman p {found.attrs['p']:.2g}")
    axes.set_xlabel(
        f"mean rank over {found.attrs['samples']} {of}, 1 is best; grey: critical difference "
        f"{critical:.2f}; bars: not told apart at {level:.6g} (Nemenyi)"
    )
    fit(axes)
    return axes
