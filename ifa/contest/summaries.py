"""What a table of methods and metrics says: means, intervals, the best, and who equals it."""

from textwrap import fill
from typing import Any

import numpy as np
import xarray as xr

_SAME = 1e-4
CONTROL = "noise"  # the method of `cam_methods` that knows nothing of the network


def summary(table: Any, *, level: float = 0.95) -> xr.Dataset:
    r"""Average a table over samples, and tell which method is best by each metric.

    .. math:: \bar v \pm t_{n-1} \, s / \sqrt{n}

    Parameters
    ----------
    table
        What `ifa.contest.table` returns.
    level
        Of the two-sided intervals.

    Returns
    -------
    xarray.Dataset
        ``mean``, ``low``, ``high`` and ``count(method, metric)`` over the samples that have a
        value; NaN where none has. ``best``: the best mean. ``tied``: not the best, but the interval
        of its difference to the best, over the samples of which both have a value, reaches 0, but
        for a ten-thousandth of the best, which may be rounding.
        ``blank`` and ``nonfinite(method)``: how many maps say nothing; their samples are missing
        from `count`.

    Raises
    ------
    ValueError
        If the level is not between 0 and 1.

    Examples
    --------
    >>> import xarray as xr
    >>> value = (("method", "metric", "sample"), [[[1.0, 2.0, 3.0]], [[2.0, 3.0, float("nan")]]])
    >>> none = (("method", "sample"), [[False] * 3] * 2)
    >>> better = ("metric", ["higher"])
    >>> table = xr.Dataset({"value": value, "blank": none, "nonfinite": none, "better": better})
    >>> found = summary(table)
    >>> found["mean"].values.tolist(), found["count"].values.tolist()
    ([[2.0], [2.5]], [[3], [2]])
    """
    if not 0 < level < 1:
        raise ValueError(f"ifa.contest.summary: expected a level between 0 and 1, got {level!r}.")
    value = table["value"].transpose("method", "metric", "sample").values
    mean, half, count = _averages(value, level)
    best, tied = np.zeros(mean.shape, bool), np.zeros(mean.shape, bool)
    for column, way in enumerate(table["better"].values):
        known = np.isfinite(mean[:, column])
        if way and known.any():
            sign = 1 if way == "higher" else -1
            first = int(np.argmax(np.where(known, sign * mean[:, column], -np.inf)))
            best[first, column] = True
            behind, width, _ = _averages(sign * (value[first, column] - value[:, column]), level)
            least = _SAME * abs(mean[first, column])
            tied[:, column] = (behind - width <= least) & ~best[:, column]
    dims = ("method", "metric")
    return xr.Dataset(
        {
            "mean": (dims, mean, {"long_name": "mean over samples"}),
            "low": (dims, mean - half, {"long_name": f"lower limit, {level:.0%}"}),
            "high": (dims, mean + half, {"long_name": f"upper limit, {level:.0%}"}),
            "count": (dims, count, {"long_name": "samples with a value"}),
            "best": (dims, best, {"long_name": "best mean"}),
            "tied": (dims, tied, {"long_name": "not told apart from the best"}),
            "blank": table["blank"].sum("sample"),
            "nonfinite": table["nonfinite"].sum("sample"),
        },
        {name: table.coords[name] for name in ("method", "metric") if name in table.coords}
        | {"better": table["better"]},
        {"samples": value.shape[2]},
    )


def _averages(values: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, half of the interval and count over the last axis, of what is not NaN."""
    from scipy.stats import t

    known = np.isfinite(values)
    count = known.sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(known, values, 0).sum(-1) / count
        squares = np.where(known, values - mean[..., None], 0) ** 2
        error = np.sqrt(squares.sum(-1) / (count - 1) / count)
        half = t.ppf(0.5 + level / 2, np.maximum(count - 1, 1)) * error
    return mean, np.where(count > 1, half, np.nan), count


def written(found: xr.Dataset) -> str:
    """Write a summary as text: a row for each method, the best marked, and what is missing.

    Below it stands by which metrics no method beats noise, if there is such a method.
    """
    rows = [["method", *_headings(found), "blank/nonfinite"]]
    columns = [_cells(found.isel(metric=place)) for place in range(found.sizes["metric"])]
    missing = zip(found["blank"].values, found["nonfinite"].values, strict=True)
    rows += [
        [str(name), *cells, f"{blank}/{broken}"]
        for name, cells, (blank, broken) in zip(
            found["method"].values, zip(*columns, strict=True), missing, strict=True
        )
    ]
    sides = [max(map(len, column)) for column in zip(*rows, strict=True)]
    text = [
        "  ".join([row[0].ljust(sides[0]), *map(str.rjust, row[1:], sides[1:])]) for row in rows
    ]
    note = (
        f"Mean over {found.attrs['samples']} samples ± half of its interval; ^ high is good, v low "
        "is good;\n* best, = not told apart from the best, over the samples of which both have a "
        "value."
    )
    lost = unbeaten(found)
    if lost:
        said = (
            f"No method beats {CONTROL} by {', '.join(lost)}: there it is the best, or not told "
            "apart from it. Such a column says nothing for any method: take more samples, another "
            "metric, or doubt the maps."
        )
        note += "\n" + fill(said, 100)
    return "\n".join([*text, note])


def unbeaten(found: xr.Dataset) -> list[str]:
    """List the metrics of a summary by which the best method is noise, or not told apart."""
    if CONTROL not in found["method"].values:
        return []
    first = (found["best"] | found["tied"]).sel({"method": CONTROL}).values
    return [str(name) for name in found["metric"].values[first]]


def decimals_of(values: np.ndarray) -> int:
    """How many decimals a column needs for three digits of its largest value."""
    sizes = np.abs(values[np.isfinite(values) & (values != 0)])
    return int(np.clip(2 - np.floor(np.log10(sizes.max())), 2, 6)) if len(sizes) else 2


def _headings(found: xr.Dataset) -> list[str]:
    marks = {"higher": "^ ", "lower": "v ", "": ""}
    columns = zip(found["metric"].values, found["better"].values, strict=True)
    return [f"{marks[str(way)]}{name}" for name, way in columns]


def _cells(column: xr.Dataset) -> list[str]:
    mean = column["mean"].values
    digits = decimals_of(mean)
    half = column["high"].values - mean
    best, tied = column["best"].values, column["tied"].values
    marks = np.where(best, "*", np.where(tied, "=", " "))
    return [
        f"{a:.{digits}f} ±{b:.{digits}f}{mark}"
        for a, b, mark in zip(mean, half, marks, strict=True)
    ]
