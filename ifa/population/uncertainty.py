"""How sure an importance is: standard errors, bootstrap intervals, stability of a selection."""

import json
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from ifa.reduce.statistics import difference, one_layer
from ifa.reduce.verdicts import verdict
from ifa.types import Statistics

# So many draws are made at once: bounds the memory and changes no result.
_CHUNK = 64


class Interval(NamedTuple):
    """Two labeled arrays of one shape."""

    low: Any  # (target, channel)
    high: Any  # the same


def standard_error(statistics: Statistics) -> Any:
    r"""Standard error of each mean importance, from the stored variances and counts.

    .. math:: e_{tk} = \sqrt{s^2_{tk} / n_t}

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
    level: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> Interval:
    r"""Percentile bootstrap intervals of the mean importances, over samples.

    The accepted samples of each target are drawn anew, as many and with replacement, and averaged.
    The limits are the quantiles :math:`(1 \mp level) / 2` of these averages.

    Parameters
    ----------
    statistics
        Tree of `ifa.analyze` with ``keep_samples="full"``. Groups are pooled.
    layer
        Which layer; may be left out if there is one.
    level
        Share of the distribution inside of the interval, in (0, 1).
    draws
        How often the samples are drawn.
    seed
        The same seed gives the same interval.

    Returns
    -------
    Interval
        ``low`` and ``high``, each (target, channel), in the score's unit; NaN for targets without
        an accepted sample.

    Raises
    ------
    ValueError
        If the sample table has no importances, or an option is out of range.

    References
    ----------
    Efron & Tibshirani 1993, "An introduction to the bootstrap", chapter 13.
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
    if not 0 < level < 1:
        raise ValueError(f"ifa.population.bootstrap: expected a level in (0, 1), got {level}.")
    like, rows, _ = _accepted("ifa.population.bootstrap", statistics, layer)
    limits = np.full((2, *like.shape), np.nan)
    for position, means in enumerate(_resampled("ifa.population.bootstrap", rows, draws, (seed,))):
        if len(means):
            limits[:, position] = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], 0)
    said = f"of the {level:.6g} bootstrap interval of the importance"
    names = ("low", "lower limit"), ("high", "upper limit")
    return Interval(
        *(
            like.copy(data=limit).rename(name).assign_attrs(long_name=f"{what} {said}")
            for limit, (name, what) in zip(limits, names, strict=True)
        )
    )


def stability(
    statistics: Statistics,
    select: Callable[[Any], Any],
    *,
    layer: str | None = None,
    of: Literal["importance", "difference"] = "importance",
    draws: int = 200,
    seed: int = 0,
) -> Any:
    r"""Say how much a selection of channels depends on which samples happened to be seen.

    .. math:: J_t = \frac{1}{R} \sum_r \frac{|M_t \cap M_t^r|}{|M_t \cup M_t^r|}

    where :math:`M_t` is what is selected from all samples, and :math:`M_t^r` what is selected when
    the accepted samples of each target are drawn anew, as many and with replacement; for a
    difference with a list of targets so are the correctly predicted samples of other labels.

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
    draws, seed
        As in `bootstrap`.

    Returns
    -------
    xarray.DataArray
        (target,), from 0, never the same channels, to 1, always the same; NaN for targets without
        an accepted sample, or without others to differ from. A random choice of a share q of many
        channels has about q / (2 − q).

    Raises
    ------
    ValueError
        As `bootstrap` and `ifa.difference`, or if `of` is unknown.

    References
    ----------
    Kalousis, Prados & Hilario 2007, "Stability of feature selection algorithms".
    doi:10.1007/s10115-006-0040-8

    Examples
    --------
    >>> import ifa, torch
    >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 2, 3), torch.nn.Flatten())
    >>> data = [(torch.ones(1, 4), int(net(torch.ones(1, 1, 4)).argmax()))] * 3
    >>> tree = ifa.analyze(net, data, layer="0", keep_samples="full", progress=False)
    >>> float(ifa.population.stability(tree, ifa.select.strongest, draws=5).max())
    1.0
    """
    where = "ifa.population.stability"
    if of not in ("importance", "difference"):
        raise ValueError(f"{where}: expected of to be 'importance' or 'difference', got {of!r}.")
    like, rows, others = _accepted(where, statistics, layer)
    if of == "difference":
        difference(statistics if layer is None else statistics[layer])  # refuses where none can be
    found = np.full(len(rows), np.nan)
    seen = [place for place, values in enumerate(rows) if len(values)]
    if of == "difference":
        alone = len(seen) < 2 and others is None
        seen = [p for p in seen if not alone and (others is None or len(others[p]))]
    if seen:
        own = [rows[place] for place in seen]
        table = _means(where, own, draws, (seed,))
        if of == "difference":
            rest = None if others is None else [others[place] for place in seen]
            table = table - _overall(where, table, own, rest, draws, seed)
        masks = _selected(select, table)
        both = (masks[1:] & masks[:1]).sum(2)
        either = (masks[1:] | masks[:1]).sum(2)
        found[seen] = np.where(either > 0, both / np.maximum(either, 1), 1.0).mean(0)
    attrs = {"long_name": f"Jaccard stability of a selection by {of}", "units": "1"}
    result = like.isel({like.dims[-1]: 0}, drop=True).copy(data=found)
    result.attrs = attrs
    return result.rename("stability")


def _means(where: str, rows: list[np.ndarray], draws: int, seeds: tuple[int, ...]) -> np.ndarray:
    """Mean of each target's samples, then of those drawn anew: (1 + resample, target, channel)."""
    drawn = np.stack(list(_resampled(where, rows, draws, seeds)), 1)
    return np.concatenate([np.stack([values.mean(0) for values in rows])[None], drawn])


def _overall(
    where: str,
    table: np.ndarray,
    rows: list[np.ndarray],
    others: list[np.ndarray] | None,
    draws: int,
    seed: int,
) -> np.ndarray:
    """Mean over all samples for each row of `table`, the means of the targets' own samples."""
    count = np.array([len(values) for values in rows], dtype=np.float64)
    if others is None:  # all are some target's own
        return np.einsum("rtk,t->rk", table, count / count.sum())[:, None]
    share = count / (count + [len(values) for values in others])
    rest = _means(where, others, draws, (seed, 1))
    return table * share[:, None] + rest * (1 - share)[:, None]


def _selected(select: Callable[[Any], Any], table: np.ndarray) -> np.ndarray:
    rows = torch.from_numpy(table.reshape(-1, table.shape[-1]))
    return np.asarray(select(rows)).astype(bool).reshape(table.shape)


def _accepted(
    where: str, statistics: Statistics, layer: str | None
) -> tuple[Any, list[np.ndarray], list[np.ndarray] | None]:
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
    rows: list[np.ndarray] = []
    many, every = "target" in values.dims, np.ones(len(label), dtype=bool)
    others: list[np.ndarray] | None = [] if many and task != "regression" else None
    for position, target in enumerate(like["target"].values):
        finite = good[position] if many else good
        chosen = (values.isel(target=position) if many else values).values
        accepted, correct = every, every
        if task != "regression":
            accepted, correct = verdict(task, label, prediction, target)
        rows.append(chosen[finite & accepted].astype(np.float64))
        if others is not None:
            others.append(chosen[finite & correct & ~accepted].astype(np.float64))
    return like, rows, others


def _resampled(where: str, rows: list[np.ndarray], draws: int, seeds: tuple[int, ...]) -> Any:
    """Means of each target's samples drawn anew: (resample, channel), or nothing without any."""
    if not isinstance(draws, int) or draws < 1:
        raise ValueError(f"{where}: expected at least one draw, got {draws!r}.")
    for position, values in enumerate(rows):
        # of its own for each target, so that one does not depend on the others
        rng = np.random.default_rng((*seeds, position))
        count = len(values)
        if count == 0:
            yield np.empty((0, values.shape[1]))
            continue
        spans = [min(_CHUNK, draws - start) for start in range(0, draws, _CHUNK)]
        even = np.full(count, 1 / count)
        yield np.concatenate(
            [rng.multinomial(count, even, span) @ values / count for span in spans]
        )
