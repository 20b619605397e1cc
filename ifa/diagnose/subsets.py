"""Principal features: the smallest set of channels that keeps the network's performance."""

import os
from collections.abc import Sequence
from typing import Any, Literal

import torch
import xarray as xr
from torch import nn

from ifa.basis import Dictionary
from ifa.checks import check_count
from ifa.diagnose.kept_sets import found_of, least_tolerance_of, reference_of
from ifa.diagnose.measured_sets import (
    FILLS,
    Question,
    check_question,
    labelled,
    measured_sets,
)
from ifa.diagnose.performances import Metric
from ifa.diagnose.rankings import By
from ifa.evaluate.masked_outputs import Laid, Pass, cut_network
from ifa.population.driver import Versions
from ifa.progress import Progress
from ifa.store.references import ModelRef
from ifa.types import Grid, Output, Statistics

_WHERE = "ifa.diagnose.principal_features"


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
    fill: Literal["zero", "mean"] | Sequence[str] = FILLS,
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
    first of the ranking, in several sizes, and random sets; the curve alone, of fewer sets, is
    `feature_curve`. The data are streamed: what lies below
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
    rules = (ratio, seeds, rotations, sizes)
    question = Question(_WHERE, by, metric, per_target, basis, fills, *rules)
    check_question(question)
    _check(tolerance, alpha, folds, sizes)
    network = cut_network(_WHERE, model, layer, data, device, Laid(output, grid, grid_of))
    how = Pass(store, data_version, versions, shard, batch_size, map, progress)
    sets, every = measured_sets(network, layer, statistics, cluster, question, how)
    parts = [found_of(every[name], sets[name], tolerance, alpha, folds) for name in fills]
    first = every[fills[0]]
    said = {"tolerance": tolerance, "alpha": alpha, **reference_of(first)}
    said["least_tolerance"] = least_tolerance_of(first, alpha)
    return labelled(parts, network, question, diagnosis="principal features", **said)


def _check(tolerance: float, alpha: float, folds: int, sizes: int) -> None:
    check_count(_WHERE, "folds", folds)
    check_count(_WHERE, "sizes", sizes)
    if tolerance < 0 or not 0 < alpha < 1 or folds < 2:
        raise ValueError(
            f"{_WHERE}: expected a tolerance of at least 0, alpha in (0, 1) and at least two "
            f"folds, got {tolerance!r}, {alpha!r} and {folds}."
        )
