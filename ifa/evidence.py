"""Claims of the literature on common scales and few features, measured on one's own network."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import nn
from torch.utils.data import Subset

from ifa import select
from ifa.basis import balanced
from ifa.checks import check_choice, check_count
from ifa.clusters import codes_of
from ifa.data.samples import owners_of
from ifa.diagnose import principal_features
from ifa.diagnose.rows import statistics_of, table_of
from ifa.evaluate import map_similarity
from ifa.evaluate.coefficients import correlation
from ifa.intervals import Interval, correlation_gain, correlation_interval, mean_interval
from ifa.network.identity import read_origin
from ifa.network.inputs import joined, moved
from ifa.network.replicas import device_of
from ifa.population import analyze
from ifa.population.passes import loaded
from ifa.progress import Progress
from ifa.store.items import collate, data_set
from ifa.store.references import ModelRef
from ifa.store.specs import data_difference, data_token
from ifa.taps import tap
from ifa.types import Statistics

__all__ = ["Thresholds", "claims", "summary"]

_WHERE = "ifa.claims"
_METRICS: dict[str, Literal["accuracy", "r"]] = {
    "classification": "accuracy",
    "binary": "accuracy",
    "multilabel": "accuracy",
    "regression": "r",
}
_FILLED = {"zero": "with zeros for the others", "mean": "with their means for the others"}
_EXACT = 1e-4  # of the score's spread: what of it no level explains, where it is one by algebra
VERDICTS = ("holds", "does not hold", "cannot be said")


class Thresholds(NamedTuple):
    """From where on a claim holds."""

    consistent: float = 0.5  # Pearson's r of level and score
    few: float = 0.25  # share of the features
    alike: float = 0.8  # Pearson's r of two maps


THRESHOLDS = Thresholds()


class Claim(NamedTuple):
    """One claim, and what was found."""

    name: str
    said: str  # what is claimed
    estimate: float
    interval: Interval
    threshold: float
    above: bool = True  # whether it holds above the threshold, or up to it
    note: str = ""


def claims(
    model: nn.Module | ModelRef,
    data: Any,
    layer: str,
    *,
    statistics: Statistics | None = None,
    ratio: float = 0.25,
    thresholds: Thresholds = THRESHOLDS,
    tolerance: float = 0.01,
    level: float = 0.95,
    task: Literal["classification", "binary", "multilabel", "regression"] = "classification",
    cluster: Any = None,
    maps: int = 256,
    batch_size: int = 32,
    device: str | torch.device | None = None,
    seed: int = 0,
    progress: Progress = True,
) -> xr.Dataset:
    r"""Measure what the literature claims of common scales and few features.

    The level of a map is its sum. That it follows the score says what a common scale can show:
    brighter is surer. Measured are

    - *level*: Pearson's r of level and score, pooled over targets, on the common scale, which does
      not change it;
    - *per-map scale*: how much larger that r is than with every map scaled by its own limits;
    - *kept level*: how much larger r is if only the first `ratio` of the channels are kept;
    - *few channels*: the share of the channels that keeps the performance, with zeros, and with
      their means, in place of the others, by `ifa.diagnose.principal_features`;
    - *few atoms*: the same of directions that both vary and matter, by `ifa.basis.balanced`;
    - *ranked*: by how much the first `ratio` keep more of it than as many at random;
    - *same map*: Pearson's r of maps of the first `ratio` and of all channels, and how much larger
      it is than with as many at random.

    What ranks channels comes from other samples than those they are measured on. A claim *holds*
    where all of its interval is beyond the threshold, *does not hold* where none of it is, and
    otherwise *cannot be said*. Each interval holds its level by itself, not all of them together.

    Parameters
    ----------
    model, task, batch_size, device, progress
        As in `ifa.analyze`.
    data
        ``(input, label)`` or ``(input, label, id)``, of which the network knew nothing. Without
        `statistics` every other sample ranks the channels, and the rest measure.
    layer
        Name of a layer, as `ifa.trace` lists it.
    statistics
        A run of this network and layer on other samples, which ranks the channels; with
        ``reductions=["second_moments"]``, atoms as well. The very same data are refused; samples
        that are in both are not found.
    ratio
        Share of the channels that are kept.
    thresholds
        From where on claims hold.
    tolerance
        Of performance, as in `ifa.diagnose.principal_features`.
    level
        Of the two-sided intervals.
    cluster
        One label for each sample of `data`, of those that belong together: see `ifa.analyze`. None
        is what data of `ifa.data` know themselves.
    maps
        So many samples, evenly spaced, are those whose maps are compared.
    seed
        Of random channels.

    Returns
    -------
    xarray.Dataset
        Over `claim`: `estimate`, `low`, `high`, `threshold`, `above`, `verdict`, and a `sentence`,
        as `ifa.evidence.summary` prints and `ifa.plot.claims` draws. The interval of a share of
        channels goes from the least that is not shown to lose more than the tolerance to the least
        that is shown not to: with few samples it is wide. Those of *ranked* are the two
        performances' intervals taken against each other, and wide.

    Raises
    ------
    ValueError
        If an option is out of range, a target that is explained has no importance, `statistics`
        are of another network, layer or weighting, of the same data, in a basis or by groups, or
        as `ifa.analyze`.

    Warns
    -----
    DependentSamples
        If samples seem to belong together and no cluster is given.

    References
    ----------
    Li et al. 2024, "Integrated feature analysis". arXiv:2407.01142
    """
    _check(ratio, level, task, maps)
    fit, rest, whose = _parted(data, statistics, cluster)
    network = loaded(_WHERE, model, device)
    options: Any = {"layer": layer, "task": task, "batch_size": batch_size, "progress": progress}
    if statistics is None:
        statistics = analyze(network, fit, reductions=["second_moments"], **options)
    run = analyze(network, rest, keep_samples="full", cluster=whose, **options)
    ranks = _ranks(statistics, run, layer, rest)
    kept = select.largest(ranks["importance"].dropna("target"), ratio=ratio)
    seen = _Seen(network, layer, rest, run, kept, thresholds, ratio, level, seed)
    measure = partial(
        principal_features, network, layer, rest, metric=_METRICS[task], tolerance=tolerance,
        alpha=(1 - level) / 2, cluster=whose, by="importance", ratio=(ratio,),
        batch_size=batch_size, progress=progress,
    )  # fmt: skip
    few = [*_few(seen, measure(ranks)), _atoms(seen, ranks, measure)]
    found = [*_levels(seen), *few, *_maps(seen, maps)]
    said = {"layer": layer, "level": level, "ratio": ratio, "tolerance": tolerance}
    return _table(found).assign_attrs(said, samples=len(rest))


class _Seen(NamedTuple):
    """What has been run, and what is asked of it."""

    model: nn.Module
    layer: str
    data: Any
    run: Statistics
    kept: xr.DataArray  # (target, channel), bool
    thresholds: Thresholds
    ratio: float
    level: float
    seed: int


def _check(ratio: float, level: float, task: str, maps: int) -> None:
    check_choice(_WHERE, "task", task, tuple(_METRICS))
    check_count(_WHERE, "maps", maps)
    for name, value in (("ratio", ratio), ("level", level)):
        if not 0 < value < 1:
            raise ValueError(f"{_WHERE}: expected {name} in (0, 1), got {value!r}.")


def _ranks(statistics: Statistics, run: Statistics, layer: str, data: Any) -> xr.Dataset:
    """Return what ranks the channels: of this network, weighed likewise, and of other samples."""
    ranks = statistics_of(statistics, layer if hasattr(statistics, "children") else None, _WHERE)
    dims = set(ranks["importance"].dims)
    if dims != {"target", "channel"}:
        raise ValueError(
            f"{_WHERE}: expected statistics with importances over (target, channel), got "
            f"{tuple(ranks['importance'].dims)}. Give a run of channels, and not by groups."
        )
    if "origin" in ranks.attrs:  # those made by hand do not say what they are of
        own = read_origin(run[layer].attrs["origin"])
        difference = own.difference(read_origin(ranks.attrs["origin"]))
        if difference:
            raise ValueError(
                f"{_WHERE}: expected statistics of this network and layer, as ifa.analyze makes "
                f"them by default, got {difference}. Leave statistics out, or give a run of it."
            )
    if of_same_data(_WHERE, statistics, data):
        raise ValueError(
            f"{_WHERE}: expected statistics of other samples than those they are measured on, got "
            "those of the same data. Leave statistics out: every other sample then ranks."
        )
    return ranks


def of_same_data(where: str, statistics: Statistics, data: Any) -> bool:
    """Tell whether a run, or one of those merged into it, is of these very data."""
    attrs = getattr(statistics, "attrs", {})
    found = json.loads(attrs["spec"])["data"] if "spec" in attrs else []
    parts = found if isinstance(found, list) else [found]
    now = data_token(where, data)
    if any("items" in part and data_difference(part, now) is None for part in parts):
        return True
    # whoever gave data a version gave it to the run's, not to these
    if not any("version" in part for part in parts) or "samples" not in statistics.children:
        return False
    ids = statistics["samples"]["id"].values.tolist()
    spans = (range(at, at + 1) for at in range(len(data)))
    return len(ids) == len(data) and ids == [collate(where, data, one).ids[0] for one in spans]


def _parted(data: Any, statistics: Statistics | None, cluster: Any) -> tuple[Any, Any, Any]:
    """Return what ranks, what measures, and whose samples these are: whole clusters in one part."""
    data = data_set(_WHERE, data)
    owners = owners_of(_WHERE, data, cluster)
    if statistics is not None:
        return None, data, owners
    codes = codes_of(_WHERE, owners, len(data))
    # numbered anew by first appearance, so that neighbours part
    order = np.unique(codes, return_index=True)[1].argsort().argsort()
    first = order[np.unique(codes, return_inverse=True)[1]] % 2 == 0
    parts = [np.flatnonzero(part).tolist() for part in (first, ~first)]
    if min(map(len, parts)) < 4:
        raise ValueError(
            f"{_WHERE}: expected at least eight samples, or clusters of samples, half of which "
            f"rank the channels, got {len(data)}. Give statistics= of others."
        )
    whose = None if owners is None else owners[~first]
    return Subset(data, parts[0]), Subset(data, parts[1]), whose


def _levels(seen: _Seen) -> Iterator[Claim]:
    """Compare levels with scores: as they are, scaled map by map, and of the kept channels."""
    table = table_of(seen.run, seen.layer, _WHERE)
    known = np.isin(table.target, seen.kept["target"].values)
    if not known.any():
        raise ValueError(
            f"{_WHERE}: expected samples of the {seen.kept.sizes['target']} targets that have an "
            "importance, got none. Give statistics= of samples that are predicted rightly."
        )
    masks = seen.kept.sel(target=table.target[known]).values
    level, score, codes = table.level[known], table.score[known], table.codes[known]
    parts = (table.importance[known] * masks).sum(1)
    alone = _alone(seen)[known]
    limits = {"codes": codes, "level": seen.level}
    least, share = seen.thresholds.consistent, f"{seen.ratio:.0%}"
    exact = _by_algebra(level, score, table.target[known])
    yield Claim(
        "level",
        "the level of maps follows the score",
        _r(level, score),
        correlation_interval(level, score, **limits),
        least,
        note="by algebra: what lies above is linear, and a level is its score less a constant"
        if exact
        else "",
    )
    yield Claim(
        "per-map scale",
        "a common scale is more consistent than one for each map",
        _r(level, score) - _r(alone, score),
        correlation_gain(level, alone, score, **limits),
        0.0,
        note=f"r = {_r(alone, score):.2f} with a scale for each map",
    )
    yield Claim(
        "kept level",
        f"{share} of the channels are more consistent than all",
        _r(parts, score) - _r(level, score),
        correlation_gain(parts, level, score, **limits),
        0.0,
        note=f"r = {_r(parts, score):.2f} of the kept channels",
    )


def _alone(seen: _Seen) -> np.ndarray:
    """Return levels of maps that are scaled from 0 to 1 each, of the rows of the table."""
    maps = seen.run[f"samples/{seen.layer}"].to_dataset()
    example = moved(collate(_WHERE, seen.data, range(1)).inputs, device_of(seen.model))
    features = tap(seen.model, seen.layer, example)(example)
    positions = features.activations[0, 0].numel()
    low, high, total = (maps[name].values.reshape(-1) for name in ("map_min", "map_max", "map_sum"))
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = (total / positions - low) / (high.astype(np.float64) - low)
    # a map without limits has no level: none is what minmax draws
    return np.where(high > low, scaled, 0.0)[maps["finite"].values.reshape(-1)]


def _by_algebra(level: np.ndarray, score: np.ndarray, target: np.ndarray) -> bool:
    """Tell whether levels are scores less a constant of each target."""
    rest = score - level
    within = [np.ptp(rest[target == one]) for one in np.unique(target)]
    return max(within) <= _EXACT * score.std() and len(level) > len(within)


def _few(seen: _Seen, found: xr.Dataset) -> Iterator[Claim]:
    """Say how many channels are enough, and what the first are worth beside random ones."""
    channels, rules = seen.kept.sizes["channel"], found["rule"].values
    for fill in found["fill"].values.tolist():
        row, instead = found.sel(fill=fill), _FILLED[fill]
        said = f"at most {seen.thresholds.few:.0%} of the channels keep the performance, {instead}"
        yield _share(f"few channels, {fill} fill", said, row, channels, seen.thresholds.few)
        own, drawn = (row.sel(rule=rule).isel(ratio=0) for rule in rules)
        best, random = float(own["performance"]), float(drawn["performance"])
        yield Claim(
            f"ranked, {fill} fill",
            f"the first {seen.ratio:.0%} of the channels keep more than as many at random, "
            f"{instead}",
            best - random,
            Interval((own["low"] - drawn["high"]).values, (own["high"] - drawn["low"]).values),
            0.0,
            note=f"{best:.2f} and {random:.2f} of {found.attrs['reference']:.2f}",
        )


def _atoms(seen: _Seen, ranks: Any, measure: Callable[..., xr.Dataset]) -> Claim:
    """Say how many directions are enough of those that both vary and matter."""
    said = f"at most {seen.thresholds.few:.0%} as many balanced atoms keep the performance"
    said += f", {_FILLED['mean']}"
    name = "few atoms, mean fill"
    if "gradient_moment" not in ranks:
        nothing = np.array(np.nan)
        cure = "not measured: the statistics have no second moments, analyze with "
        cure += "reductions=['second_moments']"
        unknown = float("nan"), Interval(nothing, nothing), seen.thresholds.few
        return Claim(name, said, *unknown, above=False, note=cure)
    basis = balanced(ranks)
    # atoms come the strongest first
    order = np.arange(len(basis.atoms), 0, -1, dtype=np.float64)[None]
    first = xr.Dataset({"importance": (("target", "atom"), order)}, {"target": [0]})
    found = measure(first, basis=basis, fill="mean", seeds=()).isel(fill=0)
    return _share(name, said, found, basis.atoms.shape[1], seen.thresholds.few)


def _share(name: str, said: str, found: xr.Dataset, channels: int, threshold: float) -> Claim:
    """Say which share is enough, between what is shown to lose too much and what is shown not to.

    The estimate is where losses, as they were measured, come to stay within the tolerance.
    """
    attrs, kept = found.attrs, found["candidate_loss"].values <= found.attrs["tolerance"]
    first = len(kept) - int(kept[::-1].cumprod().sum())
    count = int(found["candidate"][min(first, len(kept) - 1)])
    low, high = (found[one].values / channels for one in ("least_count", "chosen_count"))
    note = f"{count} of {channels}"
    if attrs["least_tolerance"] > attrs["tolerance"]:
        note += f"; {attrs['samples']} samples cannot exclude a loss of "
        note += f"{attrs['least_tolerance']:.2g}, and {attrs['tolerance']:g} is tolerated"
    return Claim(name, said, count / channels, Interval(low, high), threshold, False, note)


def _maps(seen: _Seen, count: int) -> Iterator[Claim]:
    """Compare maps of few channels with those of all, sample by sample."""
    table = table_of(seen.run, seen.layer, _WHERE)
    rows = np.flatnonzero(np.isin(table.target, seen.kept["target"].values))
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int))]
    random = select.random(seen.kept.astype(float), ratio=seen.ratio, seed=seen.seed)
    alike, device = [], device_of(seen.model)
    for part in np.array_split(rows, -(-len(rows) // 32)):
        items = [collate(_WHERE, seen.data, range(at, at + 1)) for at in table.sample[part]]
        inputs = moved(joined([item.inputs for item in items]), device)
        target = torch.as_tensor(table.target[part], device=device)
        both = [
            map_similarity(seen.model, seen.layer, inputs, mask, target).pearson.cpu().numpy()
            for mask in (seen.kept, random)
        ]
        alike.append(np.stack(both, 1))
    values, codes = np.concatenate(alike), table.codes[rows]
    means = np.nanmean(values, 0)
    limits: Any = {"codes": codes, "level": seen.level}
    share = f"{seen.ratio:.0%}"
    yield Claim(
        "same map",
        f"maps of {share} of the channels look like those of all",
        float(means[0]),
        mean_interval(values[:, 0], **limits),
        seen.thresholds.alike,
        note=f"mean r of {len(values)} maps",
    )
    yield Claim(
        "same map, beside random",
        f"maps of the first {share} look more like it than as many at random",
        float(np.nanmean(values[:, 0] - values[:, 1])),
        mean_interval(values[:, 0] - values[:, 1], **limits),
        0.0,
        note=f"r = {means[1]:.2f} at random",
    )


def _r(a: np.ndarray, b: np.ndarray) -> float:
    return float(correlation(torch.from_numpy(a), torch.from_numpy(b)))


def verdict(claim: Claim) -> str:
    """Say whether all, none or some of an interval is where the claim holds."""
    low, high = float(claim.interval.low), float(claim.interval.high)
    if not np.isfinite([low, high]).all():
        return VERDICTS[2]
    if low > claim.threshold if claim.above else high <= claim.threshold:
        return VERDICTS[0]
    if high <= claim.threshold if claim.above else low > claim.threshold:
        return VERDICTS[1]
    return VERDICTS[2]


def _table(found: list[Claim]) -> xr.Dataset:
    said = [verdict(one) for one in found]
    columns: dict[str, tuple[list[Any], str]] = {
        "estimate": ([one.estimate for one in found], "what was measured"),
        "low": ([float(one.interval.low) for one in found], "lower limit"),
        "high": ([float(one.interval.high) for one in found], "upper limit"),
        "threshold": ([one.threshold for one in found], "from where on the claim holds"),
        "above": ([one.above for one in found], "whether it holds above, not up to it"),
        "verdict": (said, "whether the claim holds"),
        "sentence": ([_sentence(one, how) for one, how in zip(found, said, strict=True)], "said"),
    }
    return xr.Dataset(
        {name: ("claim", values, {"long_name": what}) for name, (values, what) in columns.items()},
        {"claim": [one.name for one in found]},
    )


def _sentence(claim: Claim, how: str) -> str:
    way = "above" if claim.above else "at most"
    low, high = float(claim.interval.low), float(claim.interval.high)
    note = f" ({claim.note})" if claim.note else ""
    return (
        f"That {claim.said} {how}: {claim.estimate:.2f}, {low:.2f} to {high:.2f}, where {way} "
        f"{claim.threshold:.2f} is claimed{note}."
    )


def summary(found: xr.Dataset) -> str:
    """Write claims as text: a table, and a sentence each.

    Parameters
    ----------
    found
        What `ifa.claims` returns.

    Returns
    -------
    str
        Lines of at most a hundred characters.
    """
    from textwrap import fill

    rows = [["claim", "estimate", "from", "to", "threshold", "verdict"]]
    for one in found["claim"].values.tolist():
        row = found.sel(claim=one)
        numbers = [f"{float(row[name]):.2f}" for name in ("estimate", "low", "high", "threshold")]
        rows.append([one, *numbers, str(row["verdict"].item())])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:-1], widths[1:-1]), row[-1]])
        for row in rows
    ]
    head = (
        f"Layer {found.attrs['layer']}, {found.attrs['samples']} samples; "
        f"{found.attrs['ratio']:.0%} of the channels kept"
    )
    sentences = [fill(str(text), 100) for text in found["sentence"].values]
    return "\n".join([head, "", *lines, "", *sentences])
