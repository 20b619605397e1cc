"""How well a network does with sets of a layer's channels, over a data set: one pass for all."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ifa.basis import Dictionary, rotation
from ifa.basis import fill as basis_fill
from ifa.basis.projections import check_features
from ifa.checks import check_choice
from ifa.clusters import codes_of, heed_dependence
from ifa.data.samples import owners_of
from ifa.diagnose.kept_sets import Measured, Sets, measured_of
from ifa.diagnose.performances import METRICS, Metric, outcome_of
from ifa.diagnose.rankings import By, greedily, greedy_samples, ranked_by
from ifa.diagnose.rows import statistics_of
from ifa.diagnose.sufficiency import candidates
from ifa.evaluate.masked_outputs import (
    CutNetwork,
    Masks,
    Pass,
    Plan,
    check_origin,
    evenly,
    masked_outputs,
    mean_activations,
)
from ifa.types import Statistics

FILLS = ("zero", "mean")


class Question(NamedTuple):
    """Which sets are measured, and how; options are those of `ifa.diagnose.feature_curve`."""

    where: str  # the public function, which errors name
    by: By
    metric: Metric
    per_target: bool
    basis: Dictionary | None
    fills: tuple[str, ...]
    ratio: Sequence[float]
    seeds: Sequence[int]
    rotations: Sequence[int]
    sizes: int = 0  # how many sizes of the ranking are measured, besides those of the ratios

    def counts(self, features: int) -> list[int]:
        """How many features each ratio keeps, as `ifa.select` counts."""
        return [max(1, round(one * features)) for one in self.ratio]


class MeasuredSets(NamedTuple):
    """What the sets of every fill make of the samples."""

    sets: dict[str, Sets]
    measured: dict[str, Measured]


def check_question(asked: Question) -> None:
    """Raise if an option is unknown or out of range."""
    where, by, ratio = asked.where, asked.by, asked.ratio
    check_choice(where, "by", by, ("importance", "difference", "greedy"))
    check_choice(where, "metric", asked.metric, tuple(METRICS))
    for one in asked.fills:
        check_choice(where, "fill", one, FILLS)
    if by == "greedy" and asked.per_target:
        raise ValueError(
            f"{where}: expected one set for all targets with by='greedy', got per_target=True."
        )
    if not len(ratio) or not all(0 < one <= 1 for one in ratio) or not asked.fills:
        raise ValueError(
            f"{where}: expected at least one fill, and ratio in (0, 1], got {list(asked.fills)} "
            f"and {list(ratio)}. Name a fill, and shares such as (0.05, 0.25)."
        )


def measured_sets(
    network: CutNetwork,
    layer: str,
    statistics: Statistics,
    cluster: Any,
    asked: Question,
    how: Pass,
) -> MeasuredSets:
    """Rank the features, and run the data once with every set of them."""
    where, basis, by = asked.where, asked.basis, asked.by
    table = statistics_of(statistics, layer if hasattr(statistics, "children") else None, where)
    check_origin(network, table, basis)
    check_features(where, "importances", table["importance"], basis)
    cluster = owners_of(where, network.data, cluster)
    (seen,) = network.look(evenly(len(network.data), 16), 16)
    outcome = outcome_of(where, asked.metric, seen.batch.labels[0], seen.outputs)
    values = {name: _value(network, table, basis, name, how.batch_size) for name in asked.fills}
    ranked = ranked_by(where, "importance" if by == "greedy" else by, table, asked.per_target)
    longest = max(asked.counts(ranked.shape[-1]))
    greedy = partial(greedily, network, outcome, asked.metric, ranked, longest, basis)
    sets = {
        name: _sets(asked, greedy(value) if by == "greedy" else ranked)
        for name, value in values.items()
    }
    masks = _masks(network, table, asked, sets, values, how.batch_size)
    found = masked_outputs(Plan(network, masks, outcome), how)
    if cluster is None:
        heed_dependence(where, found["id"].values.tolist(), found["label"].values)
    codes = codes_of(where, cluster, len(found["id"]))
    looked = greedy_samples(len(codes)) if by == "greedy" else []
    rest = np.setdiff1d(np.arange(len(codes)), looked)
    every = {
        name: measured_of(found.sel(fill=name), asked.metric, codes, rest) for name in asked.fills
    }
    return MeasuredSets(sets, every)


def labelled(
    parts: Sequence[xr.Dataset], network: CutNetwork, asked: Question, **attrs: Any
) -> xr.Dataset:
    """Join what was found of every fill, with the names of fills, rules and ratios."""
    kinds = (asked.by, "random", *["random rotation"][: len(asked.rotations)])
    rules = [f"{'own' if asked.per_target else 'common'}, {kind}" for kind in kinds]
    named = {"fill": list(asked.fills), "rule": rules}
    coords = {key: np.array(names, dtype=object) for key, names in named.items()}
    joined = xr.concat(parts, "fill", combine_attrs="override").assign_coords(coords)
    said = {"layer": network.name, "metric": asked.metric}
    return joined.assign_coords(ratio=list(asked.ratio)).assign_attrs({**said, **attrs})


def _sets(asked: Question, ranked: Any) -> Sets:
    """Say which sets are measured of a ranking; every channel is the untouched network."""
    features = ranked.shape[-1]
    counts = asked.counts(features)
    sizes = candidates(features, counts, asked.sizes) if asked.sizes else np.unique(counts)
    spans = asked.basis is None and int(sizes[-1]) == features
    return Sets(ranked, sizes, counts, list(asked.seeds), spans, len(asked.rotations))


def _masks(
    network: CutNetwork,
    table: Any,
    asked: Question,
    sets: Mapping[str, Sets],
    values: Mapping[str, float | Tensor],
    batch_size: int,
) -> dict[str, tuple[Masks, ...]]:
    turned = [_rotation(network, table, seed, batch_size) for seed in asked.rotations]
    return {
        name: (
            Masks(some.masks(), values[name], asked.basis),
            *_turned(turned, name, some.counts),
        )
        for name, some in sets.items()
    }


def _mean(network: CutNetwork, table: Any, batch_size: int) -> Tensor:
    """Mean of each channel, if it is there that of the statistics."""
    if "activation_mean" in table:
        return torch.from_numpy(np.asarray(table["activation_mean"].values))
    return mean_activations(network, batch_size)


def _value(
    network: CutNetwork, table: Any, basis: Dictionary | None, fill: str, batch_size: int
) -> float | Tensor:
    """What stands for a channel or an atom: 0, or its mean."""
    if fill == "zero":
        return 0.0
    return _mean(network, table, batch_size) if basis is None else basis_fill(basis)


def _rotation(network: CutNetwork, table: Any, seed: int, batch_size: int) -> Dictionary:
    mean = _mean(network, table, batch_size)
    return rotation(SimpleNamespace(activation_mean=mean), seed=seed)


def _turned(turned: Sequence[Dictionary], fill: str, counts: Sequence[int]) -> Iterator[Masks]:
    """Yield the first directions of each rotation, by ratio and then by rotation."""
    for count in counts:
        for basis in turned:
            mask = torch.arange(len(basis.atoms)) < count
            yield Masks((mask,), 0.0 if fill == "zero" else basis_fill(basis), basis)
