"""Principal features: the smallest set of channels that keeps the network's performance."""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from ifa.basis import Dictionary, rotation
from ifa.basis import fill as basis_fill
from ifa.basis.projections import check_features
from ifa.checks import check_choice, check_count
from ifa.clusters import codes_of, heed_dependence
from ifa.data.samples import owners_of
from ifa.diagnose.kept_sets import Sets, found_of, measured_of, reference_of
from ifa.diagnose.performances import METRICS, Metric, outcome_of
from ifa.diagnose.rankings import By, greedily, greedy_samples, ranked_by
from ifa.diagnose.rows import statistics_of
from ifa.diagnose.sufficiency import candidates
from ifa.evaluate.masked_outputs import (
    CutNetwork,
    Laid,
    Masks,
    Pass,
    Plan,
    check_origin,
    cut_network,
    evenly,
    masked_outputs,
    mean_activations,
)
from ifa.population.driver import Versions
from ifa.progress import Progress
from ifa.store.references import ModelRef
from ifa.types import Grid, Output, Statistics

_WHERE = "ifa.diagnose.principal_features"
_FILLS = ("zero", "mean")


def principal_features(
    model: nn.Module | ModelRef,
    layer: str,
    data: Any,
    statistics: Statistics,
    *,
    by: By = "difference",
    metric: Metric = "accuracy",
    per_target: bool = False,
    basis: Dictionary | None = None,
    fill: Literal["zero", "mean"] | Sequence[str] = _FILLS,
    tolerance: float = 0.01,
    alpha: float = 0.05,
    ratio: Sequence[float] = (0.05, 0.10, 0.25, 0.50),
    seeds: Sequence[int] = range(10),
    rotations: Sequence[int] = (),
    sizes: int = 64,
    folds: int = 5,
    cluster: Any = None,
    output: Output = None,
    grid: Grid | None = None,
    grid_of: str | int | None = None,
    store: str | os.PathLike[str] | None = None,
    data_version: str | None = None,
    versions: Versions = "same",
    shard: int = 512,
    batch_size: int = 64,
    device: str | torch.device | None = None,
    map: Any = None,
    progress: Progress = False,
) -> xr.Dataset:
    """Find the smallest set of channels that is shown to keep the network's performance.

    The other channels are set to zero, or to their mean. Channels are ranked, and measured are the
    first of the ranking, in several sizes, and random sets. The data are streamed: what lies below
    the layer runs once for each batch, and memory holds a shard and a number for each sample and
    set (an accuracy), or each sample, set and output (`metric` of another kind).

    The chosen set is the smallest that is shown to lose at most the tolerance: sizes are tested
    from every channel downwards, by an upper confidence bound on the paired loss, until one is not
    shown to be enough. Of sets so chosen at most a share `alpha` loses more than the tolerance in
    the population that the samples (or clusters) were drawn from, whatever the number of sizes, for
    each fill by itself; in no other population. This holds where the ranking is of other samples.
    What the choice is worth is measured by samples that had no part in it: they are cut into
    `folds`, and each fold is measured with the set that the others choose.

    Parameters
    ----------
    model
        The network, in evaluation mode, or an `ifa.ModelRef`.
    layer
        Name of a layer, as `ifa.trace` lists it.
    data
        ``(input, label)`` or ``(input, label, id)``, as for `ifa.analyze`: other samples than those
        of `statistics`, if the figure is to hold for new ones. Of a network of one output, and
        where a label has several numbers, these are 0 or 1, and an output above 0 says 1.
    statistics
        The layer's statistics, or a tree with the layer: of this network and `basis`.
    by
        ``"importance"`` or ``"difference"``: by absolute value, largest over targets;
        ``"greedy"``: one channel after another, the one that lifts the mean log-probability of the
        label most (of one logit or several labels that of each; regression: lowers the squared
        error most). Greedy looks at up to 256 samples, at most half of `data`, evenly spaced, whose
        activations it holds; these measure nothing. It is slow for many channels.
    metric
        ``"accuracy"``, of one logit and of several labels that of each label; ``"auroc"``, the mean
        over targets of one against the rest, or of each label; or ``"r"``, Pearson's for
        regression, the mean over outputs.
    per_target
        Each target's score from its own channels; otherwise one set for all.
    basis
        An `ifa.basis.Dictionary`, of which `statistics` are: sets are of its atoms, and what none
        of them holds is at its mean. All atoms may be too few: see `enough`.
    fill
        What other channels are set to: ``"zero"``, or ``"mean"``, each channel's over samples and
        positions, as statistics with ``reductions=["second_moments"]`` have it, otherwise over up
        to 512 samples of `data`, evenly spaced, which run once more for it.
    tolerance
        How much performance may be lost, in the metric's unit.
    alpha
        Share of choices that may lose more.
    ratio
        Shares of the channels, in (0, 1].
    seeds
        Of the random sets.
    rotations
        Seeds of random orthonormal directions of the layer, of which as many are kept, as a third
        rule; none by default.
    sizes
        How many sizes are tested: every one of so many channels, otherwise about evenly spaced in
        ratio. More make the chosen set smaller, and take longer.
    folds
        Into how many parts the samples, or their clusters, are cut.
    cluster
        One label for each sample of `data`, of those that belong together: see `ifa.analyze`. None
        is what data of `ifa.data` know themselves.
    output, grid, grid_of
        As in `ifa.tap`. Tokens that the grid leaves out, such as a class token, are in no set: they
        stay each sample's.
    store
        Directory of a run that keeps what every set makes of every sample; it is continued, and
        refused if it is another's, as in `ifa.analyze`. Another tolerance, alpha, folds or cluster
        reads it again.
    data_version, versions, shard, device, map, progress
        As in `ifa.analyze`.
    batch_size
        How many samples go through the network at once.

    Returns
    -------
    xarray.Dataset
        `performance`, `low`, `high` (fill, rule, ratio), what `ifa.plot.kept` draws: intervals are
        95 %, of samples (Wilson's for an accuracy), and of random sets of samples and sets, both
        drawn anew. `chosen` (fill, channel) or (fill, target, channel), of a basis of atoms, is the
        set that all samples choose, with `chosen_count` and `enough` (fill): whether it is shown to
        be, and `least_count` (fill): as surely, fewer lose more. `chosen_count_fold` (fill, fold).
        `chosen_performance`, `chosen_low`, `chosen_high`, `loss` and `loss_bound` (fill): each
        sample with the set that the other folds choose. `candidate_loss` and `candidate_bound`
        (fill, candidate): all sizes, by all samples. Attributes: `reference`, the performance of
        the untouched network, of `samples`; and `least_tolerance`, the loss that so many samples
        cannot exclude though none is lost: with a smaller tolerance every channel is kept.

    Raises
    ------
    ValueError
        If an option is unknown or out of range, greedy is asked for each target, a target has no
        importance, or `statistics` are of another network, layer or basis.

    Warns
    -----
    DependentSamples
        If samples seem to belong together and no cluster is given.

    References
    ----------
    Li et al. 2024, "Integrated feature analysis". arXiv:2407.01142

    Maurer, Hothorn & Lehmacher 1995, "Multiple comparisons in drug clinical trials and preclinical
    assays: a-priori ordered hypotheses"
    """
    fills = (fill,) if isinstance(fill, str) else tuple(fill)
    _check(by, metric, per_target, fills, tolerance, alpha, ratio, folds, sizes)
    network = cut_network(_WHERE, model, layer, data, device, Laid(output, grid, grid_of))
    table = statistics_of(statistics, layer if hasattr(statistics, "children") else None, _WHERE)
    check_origin(network, table, basis)
    check_features(_WHERE, "importances", table["importance"], basis)
    cluster = owners_of(_WHERE, network.data, cluster)
    (seen,) = network.look(evenly(len(network.data), 16), 16)
    outcome = outcome_of(_WHERE, metric, seen.batch.labels[0], seen.outputs)
    ranked = ranked_by(_WHERE, "importance" if by == "greedy" else by, table, per_target)
    counts = [_count(one, ranked.shape[-1]) for one in ratio]
    tested = candidates(ranked.shape[-1], counts, sizes)
    values = {name: _value(network, table, basis, name, batch_size) for name in fills}
    greedy = partial(greedily, network, outcome, metric, ranked, max(counts), basis)
    held = tested, counts, list(seeds), basis is None, len(rotations)
    sets = {
        name: Sets(greedy(value) if by == "greedy" else ranked, *held)
        for name, value in values.items()
    }
    turned = [_rotation(network, table, seed, batch_size) for seed in rotations]
    masks = {
        name: (Masks(sets[name].masks(), values[name], basis), *_turned(turned, name, counts))
        for name in fills
    }
    plan = Plan(network, masks, outcome)
    asked = Pass(store, data_version, versions, shard, batch_size, map, progress)
    found = masked_outputs(plan, asked)
    if cluster is None:
        heed_dependence(_WHERE, found["id"].values.tolist(), found["label"].values)
    codes = codes_of(_WHERE, cluster, len(found["id"]))
    looked = greedy_samples(len(codes)) if by == "greedy" else []
    samples = np.setdiff1d(np.arange(len(codes)), looked)
    every = {name: measured_of(found.sel(fill=name), metric, codes, samples) for name in fills}
    parts = [found_of(every[name], sets[name], tolerance, alpha, folds) for name in fills]
    kinds = (by, "random", *["random rotation"][: len(rotations)])
    rules = [f"{'own' if per_target else 'common'}, {kind}" for kind in kinds]
    named = {"fill": list(fills), "rule": rules}
    coords = {key: np.array(names, dtype=object) for key, names in named.items()}
    said = {"layer": network.name, "metric": metric, "tolerance": tolerance, "alpha": alpha}
    joined = xr.concat(parts, "fill", combine_attrs="override").assign_coords(coords)
    joined = joined.assign_coords(ratio=list(ratio))
    first = reference_of(every[fills[0]], alpha)
    return joined.assign_attrs({"diagnosis": "principal features", **said, **first})


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


def _count(ratio: float, channels: int) -> int:
    """How many channels a ratio keeps, as `ifa.select` counts."""
    return max(1, round(ratio * channels))


def _check(
    by: str,
    metric: str,
    per_target: bool,
    fills: Sequence[str],
    tolerance: float,
    alpha: float,
    ratio: Sequence[float],
    folds: int,
    sizes: int,
) -> None:
    check_choice(_WHERE, "by", by, ("importance", "difference", "greedy"))
    check_choice(_WHERE, "metric", metric, tuple(METRICS))
    check_count(_WHERE, "folds", folds)
    check_count(_WHERE, "sizes", sizes)
    for one in fills:
        check_choice(_WHERE, "fill", one, _FILLS)
    if by == "greedy" and per_target:
        raise ValueError(
            f"{_WHERE}: expected one set for all targets with by='greedy', got per_target=True."
        )
    if tolerance < 0 or not len(ratio) or not all(0 < one <= 1 for one in ratio):
        raise ValueError(
            f"{_WHERE}: expected a tolerance of at least 0 and ratio in (0, 1], got "
            f"{tolerance!r} and {list(ratio)}."
        )
    if not 0 < alpha < 1 or not fills or folds < 2:
        raise ValueError(
            f"{_WHERE}: expected alpha in (0, 1), at least one fill and two folds, got {alpha!r}, "
            f"{list(fills)} and {folds}."
        )
