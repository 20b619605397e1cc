"""How sure an importance is: standard errors, bootstrap intervals, stability of a selection."""

import json
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import xarray as xr

from ifa.checks import check_count
from ifa.clusters import cluster_sizes, cluster_sums, drawn
from ifa.intervals import joint_quantile, mean_error, mean_interval
from ifa.reduce.statistics import clusters_of, difference, one_layer
from ifa.reduce.verdicts import verdict
from ifa.types import Statistics

# So many draws are made at once: bounds the memory and changes no result.
_CHUNK = 64
_AT_ONCE = 32  # halves of every target
# A quantile of few samples, most of them the same, has no bound: at most so often Student's.
_MOST = 3.0
# Sets of samples without any signal, and how many of them in a hundred lie below the limit.
_NOISE, _LIMIT = 100, 0.95


class Interval(NamedTuple):
    """Two labeled arrays of one shape."""

    low: Any  # (target, channel)
    high: Any  # the same


def standard_error(statistics: Statistics) -> Any:
    r"""Standard error of each mean importance, from the stored variances and counts.

    .. math:: e_{tk} = \sqrt{s^2_{tk} / n_t}

    It takes samples for independent; where some belong together, see `bootstrap`.

    Parameters
    ----------
    statistics
        One layer's dataset as `ifa.analyze` returns it, or a tree with one layer.

    Returns
    -------
    xarray.DataArray
        (target, channel), after the groups if there are any, in the score's unit; NaN for targets
        with fewer than two accepted samples.

    Examples
    --------
    >>> import xarray as xr
    >>> statistics = xr.Dataset(
    ...     {"importance": (("target", "channel"), [[1.0, 0.0]]),
    ...      "importance_variance": (("target", "channel"), [[4.0, 1.0]]),
    ...      "count": ("target", [16])}
    ... )
    >>> standard_error(statistics).values.tolist()
    [[0.5, 0.25]]
    """
    dataset = one_layer(statistics, "ifa.population.standard_error")
    count = dataset["count"].astype("float64")
    error = (dataset["importance_variance"] / count.where(count > 0)) ** 0.5
    attrs = {**dataset["importance"].attrs, "long_name": "standard error of the mean importance"}
    return error.rename("standard_error").assign_attrs(attrs)


def bootstrap(
    statistics: Statistics,
    *,
    layer: str | None = None,
    cluster: Any = None,
    level: float = 0.95,
    simultaneous: bool = False,
    draws: int = 1000,
    seed: int = 0,
) -> Interval:
    r"""Bootstrap-t intervals of the mean importances, over samples or whole clusters of them.

    .. math:: [\bar I - q_{1 - \alpha / 2} \, e, \; \bar I - q_{\alpha / 2} \, e], \qquad
              T^* = (\bar I^* - \bar I) / e^*

    The accepted samples of each target, or the clusters that they are of, are drawn anew, as many
    and with replacement; q are quantiles of :math:`T^*`, in which each mean is measured by its own
    standard error. Where Student's quantile is farther it is taken, and never more than three times
    as far, as few samples of which most are alike have no other bound.

    An interval holds its level for one channel and target, over draws of independent samples, or
    clusters. Nominal .95 covers .95–.97 of normal and t3 values from 5 samples on; of skewed ones
    less: of lognormal values .90, .90, .92, .93 and .96 at 5, 10, 20, 30 and 100 samples, of normal
    ones cut off at 0 (as after a ReLU) .89 at 5 and .96–.98 from 10 on, of ones cut off at one
    standard deviation .70, .87, .93 and .97 at 10, 20, 30 and 100. With `simultaneous` all channels
    of a target are inside of their intervals at once: .93–1 of 20 or 200 channels that correlate by
    .8 in blocks, from 10 samples on (after a ReLU from 30).

    Parameters
    ----------
    statistics
        Tree of `ifa.analyze` with ``keep_samples="full"``. Groups are pooled.
    layer
        Which layer; may be left out if there is one.
    cluster : (sample,)
        Whose each sample of the run is, as in `ifa.analyze`; None takes what the run has kept.
    level
        Of the two-sided intervals, in (0, 1).
    simultaneous
        Hold the level for all channels of a target at once, by the quantile of the largest absolute
        :math:`T^*` over them.
    draws
        How often the samples are drawn.
    seed
        The same seed gives the same interval.

    Returns
    -------
    Interval
        ``low`` and ``high``, each (target, channel), in the score's unit; NaN for targets with
        fewer than two accepted samples, or clusters. Where all samples have one value the interval
        is that.

    Raises
    ------
    ValueError
        If the sample table has no importances, or an option is out of range.

    Warns
    -----
    DependentSamples
        If samples seem to belong together and no cluster is known.

    References
    ----------
    Efron & Tibshirani 1993, "An introduction to the bootstrap", chapter 12.
    doi:10.1201/9780429246593

    Examples
    --------
    >>> import ifa, torch
    >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 2, 3), torch.nn.Flatten())
    >>> data = [(torch.ones(1, 4), int(net(torch.ones(1, 1, 4)).argmax()))] * 3
    >>> tree = ifa.analyze(net, data, layer="0", keep_samples="full", progress=False)
    >>> low, high = ifa.population.bootstrap(tree, draws=10)
    >>> low.dims, bool((low.dropna("target") == high.dropna("target")).all())
    (('target', 'channel'), True)
    """
    where = "ifa.population.bootstrap"
    if not 0 < level < 1:
        raise ValueError(f"{where}: expected a level in (0, 1), got {level}.")
    check_count(where, "draws", draws)
    like, rows, _ = _accepted(where, statistics, layer, cluster)
    limits = np.full((2, *like.shape), np.nan)
    for position, own in enumerate(rows):
        if len(own.values):
            # of its own for each target, so that one does not depend on the others
            limits[:, position] = _limits(own, level, simultaneous, draws, (seed, position))
    over = " for all channels of a target at once" if simultaneous else ""
    said = f"of the {level:.6g} bootstrap-t interval of the importance{over}"
    names = ("low", "lower limit"), ("high", "upper limit")
    return Interval(
        *(
            like.copy(data=limit).rename(name).assign_attrs(long_name=f"{what} {said}")
            for limit, (name, what) in zip(limits, names, strict=True)
        )
    )


class _Own(NamedTuple):
    """Some samples of a layer and target."""

    values: np.ndarray  # (sample, channel), float64
    codes: np.ndarray  # (sample,): what belongs together, numbered over the whole run


def _limits(
    own: _Own, level: float, simultaneous: bool, draws: int, seeds: tuple[int, ...]
) -> np.ndarray:
    """Both limits of one target's means, (2, channel)."""
    values, codes = own
    plain = np.stack(mean_interval(values, codes=codes, level=level))
    if np.isnan(plain).all():
        return plain
    mean, error = mean_error(values, codes=codes)[:2]
    found = np.concatenate(list(_studentized(values, codes, draws, seeds)))
    if simultaneous:
        least = joint_quantile(values, codes=codes, level=level, draws=draws, seed=seeds[0])
        largest = np.nanmax(np.where(np.isnan(found), 0, np.abs(found)), 1)
        half = np.clip(np.quantile(largest, level), least, _MOST * least) * error
        return np.where(error > 0, np.stack([mean - half, mean + half]), plain)
    shares = np.array([(1 + level) / 2, (1 - level) / 2])
    quantiles = _quantiles(found, shares)
    with np.errstate(invalid="ignore"):
        apart = -quantiles * error  # of the lower limit below, of the upper one above the mean
    student = plain - mean
    low = np.clip(apart[0], _MOST * student[0], student[0])
    high = np.clip(apart[1], student[1], _MOST * student[1])
    return mean + np.where(np.isnan(apart), student, np.stack([low, high]))


def _quantiles(found: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Quantiles over the first axis without what is NaN; NaN where nothing is left."""
    result = np.quantile(found, shares, axis=0)
    for column in np.flatnonzero(np.isnan(found).any(0)):
        kept = found[np.isfinite(found[:, column]), column]
        if len(kept):
            result[:, column] = np.quantile(kept, shares)
    return result


def _studentized(
    values: np.ndarray, codes: np.ndarray, draws: int, seeds: tuple[int, ...]
) -> Iterator[np.ndarray]:
    """Draw clusters anew: by how many standard errors the means differ, (draw, channel).

    NaN where what was drawn does not vary.
    """
    rng = np.random.default_rng(seeds)
    sums, sizes = cluster_sums(values - values.mean(0), codes), cluster_sizes(codes)
    groups, least = len(sizes), 1e-12 * np.square(sums).sum(0)
    for start in range(0, draws, _CHUNK):
        counts = drawn(groups, min(_CHUNK, draws - start), rng).astype(np.float64)
        total = (counts @ sizes)[:, None]
        moved = counts @ sums / total
        # sum of squares of each cluster's sum, less its share of the mean that was drawn
        squares = counts @ np.square(sums) - 2 * moved * (counts @ (sums * sizes[:, None]))
        squares += np.square(moved) * (counts @ np.square(sizes))[:, None]
        error = np.sqrt(groups / (groups - 1) * np.maximum(squares, 0)) / total
        yield np.where(squares > least, moved / np.where(squares > least, error, 1), np.nan)


def stability(
    statistics: Statistics,
    select: Callable[[Any], Any],
    *,
    layer: str | None = None,
    of: Literal["importance", "difference"] = "importance",
    cluster: Any = None,
    draws: int = 20,
    seed: int = 0,
) -> Any:
    r"""Say how much a selection of channels depends on which samples happened to be seen.

    .. math:: \Phi = 1 - \frac{\overline{|A \mathbin{\triangle} B|} / 2 d}
                              {\bar k / d \, (1 - \bar k / d)}

    The samples, or the clusters that they are of, are parted at random in two halves that share
    none, and A and B are what is selected of d channels by each half alone; k is how many these
    are. 1 is the same selection by both halves, 0 what two random selections of as many channels
    have in common. It is of half of the samples: by all of them a selection is more stable.

    Beside it stands what noise has: the importances of each cluster, less their means, with a
    random sign, of which no channel has more than another, but each its own spread and its
    correlations. That may be far from 0 where few channels have most of the spread. One in twenty
    such sets of samples is more stable than `limit`, for one target.

    Parameters
    ----------
    statistics
        Tree of `ifa.analyze` with ``keep_samples="full"``. Groups are pooled.
    select
        A rule of `ifa.select` with its options bound, such as
        ``functools.partial(ifa.select.largest, ratio=0.25)``.
    layer
        Which layer; may be left out if there is one.
    of
        Select from the ``"importance"`` or from its ``"difference"`` to that of all samples.
    cluster
        As in `bootstrap`.
    draws
        How often the samples are parted.
    seed
        The same seed gives the same result.

    Returns
    -------
    xarray.Dataset
        ``stability``, ``noise``: the mean of 100 sets without any signal, and ``limit``, their 95 %
        quantile, each (target,); NaN for targets with fewer than two accepted samples or clusters,
        without others to differ from, and where nothing or every channel is selected.

    Raises
    ------
    ValueError
        As `bootstrap` and `ifa.difference`, or if `of` is unknown.

    Warns
    -----
    DependentSamples
        As `bootstrap`.

    References
    ----------
    Shah & Samworth 2013, "Variable selection with error control: another look at stability
    selection". doi:10.1111/j.1467-9868.2011.01034.x

    Nogueira, Sechidis & Brown 2018, "On the stability of feature selection algorithms".
    https://jmlr.org/papers/v18/17-514.html

    Examples
    --------
    >>> import ifa, torch
    >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 2, 3), torch.nn.Flatten())
    >>> data = [(torch.ones(1, 4), int(net(torch.ones(1, 1, 4)).argmax()))] * 4
    >>> tree = ifa.analyze(net, data, layer="0", keep_samples="full", progress=False)
    >>> found = ifa.population.stability(tree, ifa.select.strongest, draws=5)
    >>> float(found["stability"].max())
    1.0
    """
    where = "ifa.population.stability"
    if of not in ("importance", "difference"):
        raise ValueError(f"{where}: expected of to be 'importance' or 'difference', got {of!r}.")
    check_count(where, "draws", draws)
    like, rows, others = _accepted(where, statistics, layer, cluster)
    found = np.full((3, len(rows)), np.nan)
    seen = [place for place, own in enumerate(rows) if len(np.unique(own.codes)) > 1]
    if of == "difference":
        difference(statistics if layer is None else statistics[layer])  # refuses where none can be
        alone = len(seen) < 2 and others is None
        seen = [p for p in seen if not alone and (others is None or len(others[p].values))]
    if seen:
        own = [rows[place] for place in seen]
        rest = None if others is None else [others[place] for place in seen]
        halves = _Halves(own, rest, of == "difference")
        found[:, seen] = _indices(halves, select, draws, seed)
    target = like.isel({like.dims[-1]: 0}, drop=True)
    words = {
        "stability": f"stability of a selection by {of} of half of the samples",
        "noise": "the same, mean of samples without any signal",
        "limit": f"the same, {_LIMIT:.0%} quantile of samples without any signal",
    }
    arrays = {}
    for (name, long_name), values in zip(words.items(), found, strict=True):
        arrays[name] = target.copy(data=values)
        arrays[name].attrs = {"long_name": long_name, "units": "1"}
    return xr.Dataset(arrays, attrs={"draws": draws, "noises": _NOISE})


class _Sums(NamedTuple):
    """The samples of one target by their clusters."""

    places: np.ndarray  # (cluster,) of this target, among all
    sums: np.ndarray  # (cluster, channel)
    apart: np.ndarray  # the same of values less their mean
    sizes: np.ndarray  # (cluster,)


class _Halves:
    """What each half of the samples says of every target."""

    def __init__(self, rows: list[_Own], others: list[_Own] | None, differ: bool):
        every = [*rows, *(others or [])]
        self.clusters = np.unique(np.concatenate([own.codes for own in every]))
        self.rows, self.differ = [self._sums(own) for own in rows], differ
        self.others = None if others is None else [self._sums(own) for own in others]
        # clusters that are of the same targets are parted evenly
        there = np.stack([np.isin(self.clusters, own.codes) for own in every], 1)
        self._kinds = np.unique(there, axis=0, return_inverse=True)[1].reshape(-1)

    def _sums(self, own: _Own) -> "_Sums":
        places = np.searchsorted(self.clusters, np.unique(own.codes))
        sums, sizes = cluster_sums(own.values, own.codes), cluster_sizes(own.codes)
        mean = sums.sum(0) / max(sizes.sum(), 1)
        return _Sums(places, sums, sums - sizes[:, None] * mean, sizes)

    def parted(self, draws: int, rng: np.random.Generator) -> np.ndarray:
        """Part the clusters, one too many in either half: 1 or 0, (draw, cluster)."""
        order = np.argsort(self._kinds + rng.random((draws, len(self.clusters))), axis=1)
        first = np.searchsorted(np.sort(self._kinds), self._kinds)
        place = np.argsort(order, axis=1) - first
        side = (place + rng.integers(2, size=(draws, self._kinds.max() + 1))[:, self._kinds]) % 2
        return side.astype(np.float64)

    def means(self, side: np.ndarray, sign: np.ndarray | None = None) -> np.ndarray:
        """Average what lies in a half, or its noise: (draw, target, channel), NaN of no sample."""
        sums, total = _half(self.rows, side, sign)
        with np.errstate(invalid="ignore", divide="ignore"):
            table = sums / total
            if not self.differ:
                return table
            if self.others is None:  # all are some target's own
                return table - sums.sum(1, keepdims=True) / total.sum(1, keepdims=True)
            rest, count = _half(self.others, side, sign)
            return table - (sums + rest) / (total + count)


def _half(
    parts: list["_Sums"], side: np.ndarray, sign: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Sum what lies in a half, (draw, target, channel), and count it, (draw, target, 1).

    With signs it is what is apart from the mean of both halves.
    """
    found = []
    for part in parts:
        inside = side[:, part.places]
        total = (inside @ part.sizes)[:, None]
        signed = None if sign is None else inside * sign[part.places]
        found.append((inside @ part.sums if signed is None else signed @ part.apart, total))
    sums, total = zip(*found, strict=True)
    return np.stack(sums, 1), np.stack(total, 1)


def _indices(
    halves: _Halves, select: Callable[[Any], Any], draws: int, seed: int
) -> list[np.ndarray]:
    """Index of the samples, mean and limit of that of noise, (target,) each."""
    rng = np.random.default_rng(seed)
    found = _index(halves, select, halves.parted(draws, rng))
    noises = []
    for _ in range(_NOISE):
        sign = rng.choice([-1.0, 1.0], len(halves.clusters))
        noises.append(_index(halves, select, halves.parted(draws, rng), sign))
    known = np.isfinite(found)
    table = np.where(known, np.stack(noises), 0)
    both = table.mean(0), np.quantile(table, _LIMIT, 0, method="higher")
    return [found, *(np.where(known, one, np.nan) for one in both)]


def _index(
    halves: _Halves,
    select: Callable[[Any], Any],
    side: np.ndarray,
    sign: np.ndarray | None = None,
) -> np.ndarray:
    """Nogueira's index of two halves, by the means over draws: (target,)."""
    apart, share, count = (np.zeros(len(halves.rows)) for _ in range(3))
    for start in range(0, len(side), _AT_ONCE):
        one = side[start : start + _AT_ONCE]
        both = np.stack([halves.means(half, sign) for half in (one, 1 - one)])
        known = np.asarray(
            np.isfinite(both).all((0, 3))
        )  # (draw, target): both halves have samples
        masks = _selected(select, np.where(np.isnan(both), 0, both)) & known[None, ..., None]
        apart += (masks[0] ^ masks[1]).mean(2).sum(0) / 2
        share += masks.mean((0, 3)).sum(0)
        count += known.astype(np.float64).sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = share / count
        return 1 - apart / count / (share * (1 - share))


def _selected(select: Callable[[Any], Any], table: np.ndarray) -> np.ndarray:
    rows = torch.from_numpy(table.reshape(-1, table.shape[-1]))
    return np.asarray(select(rows)).astype(bool).reshape(table.shape)


def _accepted(
    where: str, statistics: Statistics, layer: str | None, cluster: Any
) -> tuple[Any, list[_Own], list[_Own] | None]:
    """Return the labeled importances of a layer and, for each target, its accepted samples'.

    With a list of targets also those of correctly predicted samples of other labels.
    """
    children = getattr(statistics, "children", {})
    names = [name for name in children if name != "samples"]
    name = names[0] if layer is None and len(names) == 1 else layer
    if name not in names:
        raise ValueError(
            f"{where}: expected layer= to be one of {names}, got {layer!r}. "
            "Give the tree that ifa.analyze returned, and the name of a layer."
        )
    table = children["samples"].children.get(name) if "samples" in children else None
    if table is None or "importance" not in table:
        raise ValueError(
            f"{where}: expected a sample table with importances, got none. "
            "Analyze with keep_samples='full'."
        )
    if json.loads(statistics.attrs.get("spec", "{}")).get("probability_weighted"):
        raise ValueError(
            f"{where}: expected importances that are not weighted, got those of "
            "probability_weighted=True, whose weights are not in the sample table. "
            "Analyze without it."
        )
    task = json.loads(statistics.attrs.get("spec", "{}")).get("task", "classification")
    like = statistics[name]["importance"]
    like = like.isel(group=0, drop=True) if "group" in like.dims else like
    good, values = table["finite"].values, table["importance"]
    label, prediction = (children["samples"][part].values for part in ("label", "prediction"))
    codes = clusters_of(statistics, cluster, where)[1]
    codes = np.arange(len(label)) if codes is None else codes
    rows: list[_Own] = []
    many, every = "target" in values.dims, np.ones(len(label), dtype=bool)
    others: list[_Own] | None = [] if many and task != "regression" else None
    for position, target in enumerate(like["target"].values):
        finite = good[position] if many else good
        chosen = (values.isel(target=position) if many else values).values
        accepted, correct = every, every
        if task != "regression":
            accepted, correct = verdict(task, label, prediction, target)
        mine, rest = finite & accepted, finite & correct & ~accepted
        rows.append(_Own(chosen[mine].astype(np.float64), codes[mine]))
        if others is not None:
            others.append(_Own(chosen[rest].astype(np.float64), codes[rest]))
    return like, rows, others
