"""What a diagnosis found, in a few lines."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr

from ifa.reduce.statistics import feature_of

_WHERE = "ifa.diagnose.summary"


def summary(statistics: xr.Dataset, *, most: int = 5) -> str:
    """Say what a diagnosis found: how many alarms, and the first of what there is.

    Parameters
    ----------
    statistics
        What a function of `ifa.diagnose` returns.
    most
        How many samples, channels or targets are named.

    Returns
    -------
    str
        A few lines; the first says which diagnosis it is, of which layer if that is known.

    Raises
    ------
    ValueError
        If this is no diagnosis.

    Examples
    --------
    >>> import xarray as xr
    >>> found = {"alarm": ("sample", [False]), "id": ("sample", ["a"]), "target": ("sample", [2]),
    ...          "p_adjusted": ("sample", [0.5])}
    >>> print(summary(xr.Dataset(found, attrs={"diagnosis": "outliers", "alpha": 0.05})))
    outliers: 0 of 1 samples, at 0.05
      the strangest: a (of 2, p = 0.5)
    """
    kind = getattr(statistics, "attrs", {}).get("diagnosis")
    if kind not in _KINDS:
        raise ValueError(
            f"{_WHERE}: expected what a function of ifa.diagnose returns, got "
            f"{kind or type(statistics).__name__}."
        )
    of = f" of layer {statistics.attrs['layer']}" if "layer" in statistics.attrs else ""
    first, *rest = _KINDS[kind](statistics, most)
    return "\n".join([f"{kind}{of}: {first}", *(f"  {line}" for line in rest)])


def _outliers(found: Any, most: int) -> Iterator[str]:
    yield f"{int(found['alarm'].sum())} of {found.sizes['sample']} samples, at {_alpha(found)}"
    rows = found.isel(sample=slice(0, most))
    cells = zip(*(rows[name].values for name in ("id", "target", "p_adjusted")), strict=True)
    named = [f"{name} (of {target}, p = {p:.2g})" for name, target, p in cells]
    yield f"the strangest: {', '.join(named)}"


def _redundancy(found: Any, most: int) -> Iterator[str]:
    dead, cluster = found["dead"].values, found["cluster"].values
    rank = found.attrs["effective_rank"]
    pairs = int(np.triu(found["alarm"].values, 1).sum())
    limit = found.attrs["threshold"]
    feature = feature_of(found)
    yield f"{pairs} pairs of {feature}s are correlated beyond {limit:g}, at {_alpha(found)}"
    if found.attrs["detectable"] > 1:
        yield f"{found.attrs['samples']} independent samples cannot tell copies: none is an alarm"
    count = found.sizes[feature]
    yield f"{found.attrs['clusters']} groups of {count} {feature}s, effective rank {rank:.1f}"
    groups = [np.flatnonzero(cluster == group) for group in np.unique(cluster[cluster >= 0])]
    several = sorted((group for group in groups if len(group) > 1), key=len, reverse=True)
    if several:
        yield f"the largest: {'; '.join(_listed(group) for group in several[:most])}"
    yield f"{int(dead.sum())} say nothing" + (
        f": {_listed(np.flatnonzero(dead))}" if dead.any() else ""
    )


def _shift(found: Any, most: int) -> Iterator[str]:
    names = "alarm", "level_alarm", "score_alarm"
    alarms, level, score = (int(found[name].sum()) for name in names)
    yield f"{alarms} of {found['alarm'].size} {feature_of(found)}s of targets, at {_alpha(found)}"
    yield f"targets whose level of maps shifted: {level}; whose score did: {score}"
    if "right_a" in found:
        right = [float(found[f"right_{name}"]) for name in ("a", "b", "p_adjusted")]
        said = "an alarm, " if found["right_alarm"] else ""
        yield f"right: {right[0]:.3f} here, {right[1]:.3f} there, {said}p = {right[2]:.2g}"
    untested = int(found["p_value"].isnull().all(feature_of(found)).sum())
    if untested:
        yield f"{untested} targets have too few samples to be tested"
    order = _largest(found["wasserstein"].values, found["alarm"].values, most)
    if order:
        unit = found["wasserstein"].attrs["units"]
        cells = [_cell(found, "wasserstein", *place) for place in order]
        yield f"the largest distances ({unit}): {', '.join(cells)}"


def _agreement(found: Any, most: int) -> Iterator[str]:
    answers = found["answer"].values.tolist()
    said = ", ".join(f"{answers.count(one)} {one}" for one in ("agree", "differ"))
    unsaid = answers.count("cannot be said")
    yield f"of {len(answers)} targets {said}, of {unsaid} it cannot be said, at {_alpha(found)}"
    for target in found["target"].values[:most]:
        part = found.sel(target=target)
        row = {name: float(part[name]) for name in _BLAND}
        channels = np.flatnonzero(part["channel_alarm"].values)
        differ = f"; {feature_of(found)}s that differ: {_listed(channels)}" if len(channels) else ""
        limits = f"{row['lower']:.3g} … {row['upper']:.3g}"
        yield (
            f"target {target}: {part['answer'].item()}, bias {row['bias']:.3g} (limits {limits}), "
            f"concordance {row['concordance']:.3f}, p = {row['p_adjusted']:.2g}{differ}"
        )


_BLAND = ("bias", "lower", "upper", "concordance", "p_adjusted")


def _confounders(found: Any, most: int) -> Iterator[str]:
    probes = int(found["probe_alarm"].sum())
    yield f"{probes} of {found.sizes['target']} targets tell the nuisance, at {_alpha(found)}"
    for target in found["target"].values[:most]:
        row = found.sel(target=target)
        if np.isnan(float(row["probe"])):
            yield f"target {target}: not tested, the nuisance hardly varies within it"
            continue
        channels = np.flatnonzero(row["alarm"].values)
        named = f", important {feature_of(found)}s: {_listed(channels)}" if len(channels) else ""
        p = float(row["probe_p_adjusted"])
        yield f"target {target}: probe {float(row['probe']):.3f}, p = {p:.2g}{named}"


def _principal(found: Any, most: int) -> Iterator[str]:
    known, total = found.attrs, found["chosen"].shape[-1]
    features = f"{found['chosen'].dims[-1]}s"
    counts = " or ".join(str(int(count)) for count in found["chosen_count"])
    yield (
        f"{counts} of {total} {features} keep the {known['metric']} within {known['tolerance']:g} "
        f"of {known['reference']:.3f} with all, sure at {_alpha(found)}"
    )
    if known["least_tolerance"] > known["tolerance"]:
        yield (
            f"{known['samples']} samples cannot exclude a loss of {known['least_tolerance']:.2g}: "
            "give more samples, or a larger tolerance"
        )
    for fill in found["fill"].values:
        if not found["enough"].sel(fill=fill):
            yield f"not even all of them are shown to be enough, others at {_FILLS[fill]}"
        yield from _of_fill(found.sel(fill=fill), _FILLS[fill])


def _curve(found: Any, most: int) -> Iterator[str]:
    known, feature = found.attrs, feature_of(found)
    total = found.sizes[feature]
    yield (
        f"{known['metric']} of {known['samples']} samples, {known['reference']:.3f} with every "
        f"one of {total} {feature}s"
    )
    for row in found["performance"].stack(cell=("fill", "rule")).transpose("cell", ...):
        kept = zip(row["ratio"].values[:most], row.values, strict=False)
        said = ", ".join(f"{value:.3f} of {100 * ratio:g} %" for ratio, value in kept)
        yield f"{row['rule'].item()}, others at {_FILLS[row['fill'].item()]}: {said}"


_FILLS = {"zero": "zero", "mean": "their mean"}


def _of_fill(found: Any, fill: str) -> Iterator[str]:
    """Say what one fill gives."""
    folds = found["chosen_count_fold"].values
    chosen = " … ".join(f"{float(found[f'chosen_{name}']):.3f}" for name in ("low", "high"))
    performance = float(found["chosen_performance"])
    yield (
        f"others at {fill}: {int(found['chosen_count'])} chosen ({folds.min()} to "
        f"{folds.max()} in {len(folds)} folds), {performance:.3f} ({chosen}) of samples that did "
        "not choose them"
    )
    ranked, rest, *_ = found["performance"].values
    ratios = zip(found["ratio"].values, ranked, rest, strict=True)
    parts = [f"{100 * ratio:g} %: {ours:.3f} ({random:.3f})" for ratio, ours, random in ratios]
    yield f"  first of the ranking (as many at random): {', '.join(parts)}"
    beaten = found["ratio"].values[ranked <= rest]
    if len(beaten):
        named = ", ".join(f"{100 * ratio:g} %" for ratio in beaten)
        yield f"  the ranking is no better than chance at {named}"


_KINDS = {
    "outliers": _outliers,
    "redundancy": _redundancy,
    "shift": _shift,
    "agreement": _agreement,
    "confounders": _confounders,
    "feature curve": _curve,
    "principal features": _principal,
}


def _alpha(found: Any) -> str:
    return f"{found.attrs['alpha']:g}"


def _listed(channels: Any, most: int = 12) -> str:
    left = len(channels) - most
    return ", ".join(map(str, channels[:most])) + (f" and {left} more" if left > 0 else "")


def _largest(values: np.ndarray, alarm: np.ndarray, most: int) -> list[tuple[int, int]]:
    rows, columns = np.nonzero(alarm)
    order = np.argsort(-values[rows, columns], kind="stable")[:most]
    return [(int(rows[place]), int(columns[place])) for place in order]


def _cell(found: Any, name: str, target: int, channel: int) -> str:
    value = float(found[name].values[target, channel])
    return f"{feature_of(found)} {channel} of target {found['target'].values[target]}: {value:.2g}"
