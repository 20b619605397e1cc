"""What a table of methods and metrics says: means, intervals, the best, and who equals it."""

from textwrap import fill
from typing import Any

import numpy as np
import xarray as xr

from ifa.checks import check_level
from ifa.clusters import table_codes
from ifa.contest.comparisons import beating, compared, fewest, pairs_of
from ifa.intervals import mean_error, mean_interval, share_interval

_WHERE = "ifa.contest.summary"
_SAME = 1e-4
CONTROL = "noise"  # the method of `cam_methods` that knows nothing of the network


def summary(table: Any, *, level: float = 0.95, cluster: Any = None) -> xr.Dataset:
    r"""Average a table over samples, and tell which methods are worse than the best.

    The difference of each two methods, over the samples of which both have a value, is compared
    with what it is when samples, or whole clusters, change its sign at random. The worst method is
    left out, again and again, until no two are told apart by their largest difference: the best of
    those that are left is ``best``, the others are ``tied``.

    Parameters
    ----------
    table
        What `ifa.contest.table` returns.
    level
        Of the two-sided intervals, each for itself; and at least the chance that, by one metric,
        of all methods that are equally good and the best none is called worse, however many there
        are. Other metrics have errors of their own: for a whole table of m metrics take
        ``1 - 0.05 / m``.
    cluster : (sample,), optional
        Labels of samples that belong together, such as their patients; None for the variable
        ``cluster`` of the table, if it has one, or else for samples that are independent.

    Returns
    -------
    xarray.Dataset
        All of (method, metric):

        - ``mean``, ``low``, ``high``, ``count``: over the samples that have a value; the interval
          is Student's, and Wilson's where values are 0 and 1 only; NaN where nothing can be said;
        - ``best``: the best mean of the methods that are not called worse;
        - ``tied``: not told apart from the best, over the samples of which both have a value, up
          to a ten-thousandth of the larger mean, which may be rounding;
        - ``unknown``: not told apart, but with fewer samples (clusters) in common with the best
          than could tell any two methods apart: 6 of .95;
        - ``p``: that no other method is better. Called worse are those of 1 − level and less;
        - ``detectable``: the smallest difference to the best that would have been told apart;
        - ``p_noise``, where there is a method ``"noise"``: that this method is no better than it,
          adjusted for all methods, each metric for itself. Its smallest of a column is that of no
          method being better.

        ``blank`` and ``nonfinite(method)``: how many maps say nothing; their samples are missing
        from `count`.

    Raises
    ------
    ValueError
        If the level is not between 0 and 1, or there is not a cluster for each sample.

    Warns
    -----
    DependentSamples
        If ids look like samples that belong together, and no cluster is given.

    Notes
    -----
    Of equal methods at least one is called worse in 0 to .07 of tables of 2, 5, 10 and 15 methods,
    from 6 to 100 samples, normal, lognormal, and of 0 and 1, and in .04 to .08 in clusters of 5
    (150 to 300 tables each). With 5 methods, one of which is better by 1 (all have a standard
    deviation of 1, so that differences have 1.4), .17, .92 and 1.0 of the others are called worse
    at 10, 30 and 100 samples; with 15 methods .06, .68 and 1.0.

    References
    ----------
    Hansen, Lunde & Nason 2011, "The model confidence set". doi:10.3982/ECTA5771

    Romano & Wolf 2005, "Exact and approximate stepdown methods for multiple hypothesis testing".
    doi:10.1198/016214504000000539

    Efron 1969, "Student's t-test under symmetry conditions". doi:10.1080/01621459.1969.10501068

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
    check_level(_WHERE, level)
    value = table["value"].transpose("method", "metric", "sample").values
    codes = table_codes(_WHERE, table, cluster)
    parts = {name: np.stack(each, 1) for name, each in _columns(table, value, codes, level).items()}
    if CONTROL not in table["method"].values:
        del parts["p_noise"]
    variables: dict[str, Any] = {
        name: (("method", "metric"), part, {"long_name": _NAMES[name].format(level)})
        for name, part in parts.items()
    }
    variables["blank"] = table["blank"].sum("sample")
    variables["nonfinite"] = table["nonfinite"].sum("sample")
    coords = {name: table.coords[name] for name in ("method", "metric") if name in table.coords}
    attrs = {"samples": value.shape[2], "level": level, "clusters": len(np.unique(codes))}
    return xr.Dataset(variables, coords | {"better": table["better"]}, attrs)


_NAMES = {
    "mean": "mean over samples",
    "low": "lower limit, {:.6g}",
    "high": "upper limit, {:.6g}",
    "count": "samples with a value",
    "best": "best mean",
    "tied": "not told apart from the best",
    "unknown": "too few samples to be told from the best",
    "p": "p of no method being better",
    "detectable": "smallest difference to the best that would be told apart",
    "p_noise": f"p of being no better than {CONTROL}",
}


def _columns(
    table: Any, value: np.ndarray, codes: np.ndarray, level: float
) -> dict[str, list[np.ndarray]]:
    """Summarize each metric."""
    methods = [str(name) for name in table["method"].values]
    control = methods.index(CONTROL) if CONTROL in methods else None
    columns: dict[str, list[np.ndarray]] = {name: [] for name in _NAMES}
    for place, way in enumerate(table["better"].values):
        column = value[:, place]
        found = _averages(column, codes, level)
        found |= _ranked(column if way == "higher" else -column, bool(way), control, codes, level)
        for name, part in found.items():
            columns[name].append(part)
    return columns


def _averages(values: np.ndarray, codes: np.ndarray, level: float) -> dict[str, np.ndarray]:
    """Average (method, sample) over samples."""
    found = mean_error(values.T, codes=codes)
    known = values[np.isfinite(values)]
    interval = share_interval if len(known) and np.isin(known, (0, 1)).all() else mean_interval
    low, high = interval(values.T, codes=codes, level=level)
    return {"mean": found.mean, "low": low, "high": high, "count": found.count}


def _ranked(
    values: np.ndarray, known: bool, control: int | None, codes: np.ndarray, level: float
) -> dict[str, np.ndarray]:
    """Compare methods by values of which large ones are good, or by nothing if that is unknown."""
    mean = mean_error(values.T).mean
    nothing, none = np.full(mean.shape, np.nan), np.zeros(mean.shape, bool)
    if not known or not np.isfinite(mean).any():
        return {"best": none, "tied": none, "unknown": none, "p": nothing,
                "detectable": nothing, "p_noise": nothing}  # fmt: skip
    pairs = pairs_of(values, codes)
    found = compared(pairs, mean, level=level, same=_SAME)
    best = np.arange(len(mean)) == found.best
    few = (found.shared < fewest(level)) & ~best
    left = ~(found.p <= 1 - level) & ~best
    return {
        "best": best,
        "tied": left & ~few,
        "unknown": left & few,
        "p": found.p,
        "detectable": np.where(best, np.nan, found.detectable),
        "p_noise": nothing if control is None else beating(pairs, control, len(mean)),
    }


def written(found: xr.Dataset) -> str:
    """Write a summary as text: a row for each method, the best marked, and what is missing.

    The last row is what difference to the best would be told apart, the median over methods. Where
    there is a method ``"noise"``, the last column is by how many metrics each method is shown to
    beat it, and below stands which methods do, and by which metrics none does.
    """
    names = [str(name) for name in found["method"].values]
    missing = zip(found["blank"].values, found["nonfinite"].values, strict=True)
    columns = [["method", *names, "told apart from"]]
    columns += [
        [head, *_cells(column), _least(column)]
        for head, column in zip(_headings(found), _by_metric(found), strict=True)
    ]
    columns.append(["blank/nonfinite", *(f"{blank}/{broken}" for blank, broken in missing), ""])
    if "p_noise" in found:
        beats = found["p_noise"].values <= 1 - found.attrs["level"]
        columns.append([f"beats {CONTROL}", *map(_share, names, beats, _asked(found)), ""])
    rows = list(zip(*columns, strict=True))
    sides = [max(map(len, column)) for column in zip(*rows, strict=True)]
    text = [
        "  ".join([row[0].ljust(sides[0]), *map(str.rjust, row[1:], sides[1:])]).rstrip()
        for row in rows
    ]
    return "\n".join([*text, *(fill(part, 100) for part in _notes(found))])


def _notes(found: xr.Dataset) -> list[str]:
    """Say what the marks mean, and what is not shown."""
    level, of = found.attrs["level"], f"{found.attrs['samples']} samples"
    if found.attrs["clusters"] < found.attrs["samples"]:
        of += f" in {found.attrs['clusters']} clusters"
    notes = [
        f"Mean over {of} ± half of its {level:.6g} interval; ^ high is good, v low is good; * best,"
        " = not told apart from it, over the samples of which both have a value, ? too few of these"
        f" to tell. By each metric, at most {1 - level:.2g} of tables call a method worse that is"
        " as good as the best. The last row: from which difference to the best on it is told."
    ]
    return [*notes, *said_of_noise(found)] if "p_noise" in found else notes


def said_of_noise(found: xr.Dataset) -> list[str]:
    """Say which methods are shown to beat noise, and by which metrics none is."""
    asked = _asked(found)
    beats = (found["p_noise"].values <= 1 - found.attrs["level"]) & asked
    if not asked.any():
        return []
    if not beats.any():
        return [
            f"No method is shown to beat {CONTROL}, by any metric. These maps are not shown to say "
            "anything of the network: take more samples, other metrics, or doubt them."
        ]
    names, others = found["method"].values, found["method"].values != CONTROL
    every = [str(name) for name in names[(beats.sum(1) == asked.any(0).sum()) & others]]
    none = [str(name) for name in names[~beats.any(1) & others]]
    said = [
        f"Shown to beat {CONTROL} by every metric: {', '.join(every) or 'no method'}."
        + (f" By none: {', '.join(none)}." if none else "")
    ]
    smallest = np.where(asked, found["p_noise"].values, np.inf).min(0)
    lost = asked.any(0) & ~beats.any(0)
    if lost.any():
        listed = [
            f"{name} (p {p:.2g})"
            for name, p in zip(found["metric"].values[lost], smallest[lost], strict=True)
        ]
        said.append(
            f"No method is shown to beat {CONTROL} by {', '.join(listed)}. Such a column says "
            "nothing for any method: take more samples, another metric, or doubt the maps."
        )
    return said


def _asked(found: xr.Dataset) -> np.ndarray:
    """Tell which methods were compared with noise by which metrics: (method, metric)."""
    return np.isfinite(found["p_noise"].values)


def _share(name: str, beats: np.ndarray, asked: np.ndarray) -> str:
    """Write by how many metrics a method beats noise, of those by which it was asked."""
    return "" if name == CONTROL else f"{(beats & asked).sum()} of {asked.sum()}"


def decimals_of(values: np.ndarray) -> int:
    """How many decimals a column needs for three digits of its largest value."""
    sizes = np.abs(values[np.isfinite(values) & (values != 0)])
    return int(np.clip(2 - np.floor(np.log10(sizes.max())), 2, 6)) if len(sizes) else 2


def _by_metric(found: xr.Dataset) -> list[xr.Dataset]:
    return [found.isel(metric=place) for place in range(found.sizes["metric"])]


def _least(column: xr.Dataset) -> str:
    """Write what difference would be told apart, the median over methods."""
    known = column["detectable"].values
    known = known[~np.isnan(known)]
    middle = float(np.median(known)) if len(known) else float("nan")
    if not np.isfinite(middle):
        return "– "
    return f"{middle:.{decimals_of(column['mean'].values)}f} "


def _headings(found: xr.Dataset) -> list[str]:
    marks = {"higher": "^ ", "lower": "v ", "": ""}
    columns = zip(found["metric"].values, found["better"].values, strict=True)
    return [f"{marks[str(way)]}{name}" for name, way in columns]


def marks_of(summary: Any) -> np.ndarray:
    """Mark the best with a star, what is not told apart from it with =, what is unknown with ?."""
    kinds = [summary[name].values for name in ("best", "tied", "unknown")]
    return np.select(kinds, ["*", "=", "?"], "")


def _cells(column: xr.Dataset) -> list[str]:
    mean, low, high = (column[name].values for name in ("mean", "low", "high"))
    digits = decimals_of(mean)
    marks = marks_of(column)
    return [
        f"{a:.{digits}f} ±{b:.{digits}f}{mark or ' '}"
        for a, b, mark in zip(mean, (high - low) / 2, marks, strict=True)
    ]
