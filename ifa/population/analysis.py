"""The population: data set to tap to reductions to a labelled, resumable run."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from ifa.chains import describe
from ifa.checks import check_text
from ifa.clusters import names_of
from ifa.data.samples import (
    check_order,
    known,
    label_names,
    output_names,
    owners_of,
    owners_token,
)
from ifa.network.inputs import described, shapes_of
from ifa.network.tokens import callable_token
from ifa.population.beside import chosen, rows_of, step_beside
from ifa.population.driver import Advance, Cuts, Job, Versions, drive
from ifa.population.options import (
    Analysis,
    Keep,
    which_outputs,
)
from ifa.population.passes import Engine, Question, question_of, ready, spec_of
from ifa.progress import Progress
from ifa.reduce.extras import EXTRAS, asked, tokens
from ifa.reduce.kept import Observed, finite
from ifa.reduce.population import Summary, summarize
from ifa.reduce.verdicts import FLAGS, Task, verdict
from ifa.score import logit
from ifa.store.datasets import Axes, array_of, joined, statistics_tree
from ifa.store.items import Batch, data_set
from ifa.store.markers import Arrays
from ifa.store.measures import Measures, States, measures_of, recorded
from ifa.store.references import ModelRef
from ifa.store.specs import Spaced
from ifa.store.tables import Column, Rows, Schema
from ifa.types import Grid, Inputs, Method, Output, Score
from ifa.weight import fullcam

_WHERE = "ifa.analyze"

# Extras whose states are larger than this would not fit beside a network.
MOST_BYTES = 2**32


def analyze(
    model: nn.Module | ModelRef,
    data: Any,
    *,
    layer: str | nn.Module | Sequence[str] | None = None,
    example: Inputs | None = None,
    weight: Method = fullcam,
    basis: Any = None,
    score: Score = logit,
    grid: Grid | None = None,
    output: Output = None,
    grid_of: str | int | None = None,
    targets: Literal["predicted", "label"] | Sequence[int] = "predicted",
    keep_samples: Keep = "summary",
    groups: Any = None,
    cluster: Any = None,
    task: Task = "classification",
    reduction: Literal["sum", "mean"] = "sum",
    reductions: Sequence[str] | Mapping[str, Any] = (),
    subsample_positions: int | None = None,
    probability_weighted: bool = False,
    quantiles: Sequence[float] = (0.25, 0.5, 0.75, 0.9, 0.95, 0.99),
    target_names: Sequence[str] | None = None,
    store: str | os.PathLike[str] | None = None,
    data_version: str | None = None,
    versions: Versions = "same",
    shard: int = 512,
    batch_size: int = 32,
    compile: bool = False,
    workers: int | None = None,
    device: str | torch.device | None = None,
    map: Any = None,
    progress: Progress = True,
) -> xr.DataTree:
    r"""Analyze which features a network uses, over a whole population of samples.

    Each sample n and explained target t gives an importance vector and a map,

    .. math:: I_k[n, t] = \sum_p w_k(p) A_k(p), \qquad L[n, t](p) = \sum_k w_k(p) A_k(p),

    signed and at the layer's resolution. Importances are averaged over the *accepted* samples of a
    target: for classification those with label t that are predicted as t, for binary and multilabel
    tasks those with label 1 of output t whose probability is above .5, for regression all.
    Extremes of the maps are taken over all samples of which t was explained.

    Parameters
    ----------
    model
        The network in evaluation mode, or an `ifa.ModelRef`.
    data
        A sized, indexable collection of ``(input, label)`` or ``(input, label, id)``, such as a
        map-style data set: the same item for the same index, every time. Labels are output indices;
        for binary and multilabel tasks 0 or 1, of each output; for regression, real values. Or an
        `ifa.DataRef`.
    layer
        Name of a layer, or several, or None for the last with a grid: see `ifa.tap`.
    example : (sample, \*input)
        A batch for shapes, or a tree of them as in `ifa.tap`; by default the first two inputs.
    weight
        Any method, as in `ifa.explain`: a kernel of `ifa.weight`, a step or a builder, its options
        bound, such as ``functools.partial(ifa.perturb.scorecam, chunk=16)``. No gradient is
        computed that it does not read.
    basis
        An `ifa.basis.Dictionary`, or a mapping of them by layers: importances and maps are then of
        its atoms, by `ifa.project`, and the dimension `channel` is called `atom`. `weight` is a
        kernel; one whose maps are other ones in every basis is named.
    score, grid, output, grid_of
        As in `ifa.tap`.
    targets
        Which outputs of each sample are explained: ``"predicted"``, ``"label"``, or a sequence of
        output indices, all from one forward pass. Of all tasks but classification both names stand
        for every output; regression has no ``"label"``.
    keep_samples
        ``"summary"`` keeps id, label, prediction, score and the map's extremes and sum of every
        sample; ``"full"`` also its importance vector; ``"none"`` keeps no sample.
    groups : (sample,)
        A label of each sample, such as its site or split: `importance`, `importance_overall`,
        `importance_variance` and `count` then get a leading `group` dimension.
    cluster : (sample,)
        Whose each sample is, where several belong together: a label such as the patient of a slice
        or the image of a crop. The sample table keeps it, and the intervals and tests that read a
        run draw, permute and count clusters. Statistics do not depend on it. None takes the
        clusters that data of `ifa.data` know.
    task
        ``"classification"``: one of the outputs is right, the largest is predicted.
        ``"binary"``: one logit, label 0 or 1. ``"multilabel"``: a logit for each label, none of
        which excludes another. ``"regression"``. Of binary and multilabel tasks an output above 0
        says 1; where the score reads probabilities, such as `ifa.score.log_odds`, above .5.
        ``"scored"``: for detectors, segmenters and embeddings, with a score such as `ifa.score.box`
        or `ifa.score.region`. A label is what the score is asked about, the row of its table or a
        class; it is predicted where its score is finite and not 0, otherwise the prediction is -1.
        With targets ``"label"``, or a list of classes; outputs are then classes, of the table.
    reduction
        ``"sum"`` or ``"mean"`` over positions, for the importance.
    reductions
        What else to keep of the importances of accepted samples: any of ``"histogram"``,
        ``"covariance"``, ``"cooccurrence"`` and ``"top_samples"``. Their states do not grow with
        the number of samples; for each group, they take 10 KB for each target and channel, 8 bytes
        for each two channels, the same, and 160 bytes for each target and channel. Also
        ``"second_moments"``, of activations and gradients over the positions of all samples whose
        maps are finite, which take 16 bytes for each two channels: what bases are made of, see
        `ifa.basis.balanced`. Gradients are of the explained targets. For classification they are
        target-centred: of a list of targets, less their mean at each position, and otherwise less
        the mean of all; of the other tasks, and of a single target, as they are. Or a mapping of
        names to `ifa.Reduction` of your own, over batches of `ifa.reduce.Observed` whose maps are
        finite, or to `ifa.reduce.Statistic`, which also says what its axes are.
    subsample_positions
        How many positions of each sample the second moments are of, drawn without replacement and
        anew for each batch, by its place among the data; None for all. Of large grids and many
        targets the gradients of so many positions are in memory.
    probability_weighted
        Weigh the importance of each sample by the probability of what is predicted, the class, or
        1 or 0 of the output: :math:`\bar I = \sum_n c_n I_n / \sum_n c_n`. Counts stay counts;
        `reductions` and extremes are not weighted. Not for regression.
    quantiles
        Which quantiles of the map extremes are stored.
    target_names
        A name for each output; of a binary task also two, those of the labels 0 and 1.
    store
        Folder of the run, or its URL on an object store, such as ``"s3://bucket/run"``. It
        continues a run that was interrupted, returns one that is finished, and refuses one of
        another analysis, network or data. None keeps everything in memory.
    data_version
        Your word for what the data are, such as a commit or date, kept with the run. None reads all
        samples of a run that is continued or returned, and refuses it where one is not as it was;
        with your word, which must be the run's, none is read. `ifa.open` reads none either.
    versions
        ``"any"`` continues an unfinished run though ifa, torch or numpy has another version now,
        which changes bits; the run then says which versions its shards are of.
    shard
        How many samples are committed at once.
    batch_size
        How many samples go through the network at once.
    compile
        Compile what lies below the layers, as `ifa.tap` does, for whole batches. Pays on long runs.
    workers
        How many processes read the data ahead, as of a `torch.utils.data.DataLoader`. None reads
        the next batch in a thread; 0 reads here, for data that only the thread that opened them can
        read. The same samples in the same order, so the same bits.
    device
        Where to compute; the model's own by default. The model itself is not moved.
    map
        Anything with the signature of the built-in `map`, such as an executor's, in whatever order
        it returns; or an engine of `ifa.engines`. A worker process loads an `ifa.ModelRef` and an
        `ifa.DataRef` by itself, once; a module, or data, are sent to it with every shard. One of
        other versions, another kind of device or another network raises, and is named.
    progress
        True draws a bar, False does not, a callable gets ``(done, total)`` samples.

    Returns
    -------
    xarray.DataTree
        One group for each layer, with

        ========================================  ==================================================
        ``importance(target, channel)``           mean of I over the accepted samples of t
        ``importance_overall(channel)``           the same over all accepted samples; of a list of
                                                  targets, and of binary and multilabel tasks,
                                                  ``(target, channel)``: over all samples of which
                                                  t is predicted rightly, whatever their label
        ``importance_variance(target, channel)``  unbiased variance; NaN below two samples
        ``count(target)``                         accepted samples, int64
        ``map_max, map_min(target, quantile)``    exact quantiles of the map's extremes
        ``map_max_overall, map_min_overall``      the same, pooled over targets
        ``nonfinite(target)``                     left out, because their map is not finite
        ``zero_gradient(target)``                 whose gradient is zero at every position
        ``cancelled(target)``                     whose map is rounding: see `ifa.Cancellation`
        ``residual(target)``                      of a basis: mean importance that no atom holds
        ``explained(target)``                     of a basis: the share that the atoms hold
        ========================================  ==================================================

        and what `reductions` asks for, with the group first where there are groups:

        ===================================================  =======================================
        ``importance_histogram(target, channel, bin)``       int64; `bin` is the middle of each bin
        ``importance_quantiles(target, channel, quantile)``  read from it, to 1/32 of their value
        ``importance_covariance(channel, channel_)``         unbiased, over all accepted samples,
                                                             of each target that they are of
        ``cooccurrence(channel, channel_)``                  samples with both in their top tenth
        ``top_value, top_sample(target, channel, rank)``     the ten largest, and whose they are
        ``activation_mean, gradient_mean(channel)``          over positions, without group
        ``activation_covariance(channel, channel_)``         the same, divided by their number
        ``gradient_moment(channel, channel_)``               the same, about the mean or zero
        ===================================================  =======================================

        A reduction of your own gives the variable of its name, or one for each field of what it
        finalizes to, ``NAME_field``, with dimensions ``NAME_field_0``, ``NAME_field_1``, …, of
        which the last is `channel` if it is as long; a `Statistic` gives the variables it declares.
        The bound of the histogram's quantiles holds for values of size 1e-6 to 1e6.
        NaN and count 0 where no sample qualifies. ``samples/`` holds what does not depend on the
        layer, ``samples/LAYER`` the rest. See `ifa.difference` and `ifa.scale_from`.

    Notes
    -----
    Besides one shard's samples, memory holds states. The exact quantiles at the end need the two
    extremes of every sample and explained target: 8 to 16 bytes each, and 4 for the target.

    Raises
    ------
    ValueError
        If an option, a label or an item is not as above, the network has one output and the task is
        classification, the model is in training mode with dropout or batch norm, or the store holds
        another analysis; it is then left untouched.
    LookupError
        If there is no such layer.

    Warns
    -----
    ProbabilityOutput
        If the network ends in a softmax, or of a binary or multilabel task in a sigmoid, and the
        score takes its outputs for logits.

    References
    ----------
    Li et al. 2024, "Integrated feature analysis". arXiv:2407.01142

    Examples
    --------
    >>> import ifa, torch
    >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 2, 3), torch.nn.Flatten())
    >>> data = [(torch.ones(1, 4), int(net(torch.ones(1, 1, 4)).argmax()))] * 3
    >>> statistics = ifa.analyze(net, data, layer="0", progress=False)
    >>> int(statistics["0"]["count"].sum())
    3
    """
    options = Analysis(
        layer=layer,
        weight=weight,
        basis=basis,
        score=score,
        grid=grid,
        output=output,
        grid_of=grid_of,
        targets=targets,
        task=task,
        shard=shard,
        batch_size=batch_size,
        compile=compile,
        workers=workers,
        data_version=data_version,
        keep_samples=keep_samples,
        reduction=reduction,
        reductions=reductions,
        subsample_positions=subsample_positions,
        probability_weighted=probability_weighted,
        quantiles=quantiles,
        target_names=target_names,
    )
    options.check(_WHERE)
    source, data = data, data_set(_WHERE, data)
    check_order(_WHERE, data, label_names(options.task, options.target_names))
    job = _job(model, data, options, example, (groups, cluster), device)
    return drive(job, store=store, map=map, progress=progress, versions=versions, source=source)


def _job(
    model: nn.Module | ModelRef,
    data: Any,
    options: Analysis,
    example: Inputs | None,
    labels: tuple[Any, Any],  # of groups and of clusters
    device: str | torch.device | None,
) -> Job:
    engine, label, like = ready(_WHERE, model, data, options, example, device)
    (groups, cluster), group_names, group = labels, None, np.zeros(len(data), dtype=np.int64)
    if groups is not None:
        group_names, group = names_of(_WHERE, "group", groups, len(data))
    owners = _owners(cluster, data, options.keep_samples)
    axes = _axes(engine, options, group_names)
    listed = options.task != "regression" and not isinstance(options.targets, str)
    listed = listed or options.task in FLAGS
    extras = asked(_WHERE, options.reductions)
    kinds = listed, options.basis is not None, options.task == "classification"
    measures = Measures(engine.layers, engine.channels, axes, extras, *kinds)
    measures.check(_WHERE)
    _check_positions(engine, measures)
    _check_size(measures)
    question = question_of(engine, options, axes.targets, label)
    cuts = Cuts(data, shapes_of(like), options.shard, options.batch_size, options.workers)
    schema = _schema(question, options, len(data), owners is not None)
    items = Spaced(_WHERE, data, shapes_of(like))
    spec = {
        **spec_of(question, items, options),
        "input_shape": described(cuts.shape),
        "layers_dtype": [str(site.dtype) for site in engine.tap.sites],
        "target_names": callable_token(axes.target_names),
        "reductions": tokens(extras) or None,
        "groups": None if groups is None else [*callable_token(group_names), callable_token(group)],
        "cluster": owners_token(owners),
    }
    plan = Plan(question, measures, group, owners, options, schema)
    origins = {layer: origin.written() for layer, origin in engine.origins.items()}
    said = {
        "origins": origins,
        "unit": question.unit,
        "shared": known(data).shared if owners is None else None,
    }
    ours = all(EXTRAS.get(name) is one for name, one in extras.items())
    question.heed(items)
    return Job(
        probe=partial(question.probe, items),
        where=_WHERE,
        label="analyze",
        cuts=cuts,
        spec=spec,
        schema=schema,
        coords=axes.target_coords,
        work=partial(_reduced, plan),
        finish=partial(_finished, measures=measures, spec=spec, **said),
        check=question.labels,
        record={**said, "driver": "analyze", **recorded(measures)} if ours else None,
    )


def finishing(record: Mapping[str, Any], spec: Mapping[str, Any]) -> Any:
    """Return what makes statistics of the states of shards, as a run's spec says."""
    said = {name: record[name] for name in ("origins", "unit", "shared")}
    return partial(_finished, measures=measures_of(_WHERE, record), spec=spec, **said)


@dataclass(frozen=True)
class Plan:
    """What is made of every batch; pickles when the model does."""

    question: Question
    measures: Measures
    group: np.ndarray  # (sample,), int64
    cluster: np.ndarray | None  # (sample,), text
    options: Analysis
    schema: Schema


def _reduced(
    plan: Plan, batches: Iterable[tuple[range, Batch]], advance: Advance
) -> tuple[Arrays, Rows]:
    """Reduce the batches of a shard to its states and rows."""
    measures, later = plan.measures, plan.measures.asked("entries")
    kept: list[list[Observed]] = [[] for _ in measures.layers]
    states: States = [{} for _ in measures.layers]
    tables: list[Rows] = []
    for indices, batch in batches:
        observed, table = _batch(plan, indices, batch)
        for position, (one, places) in enumerate(observed):
            measures.update(states[position], position, one, measures.always)
            if places is not None:
                measures.update(states[position], position, places, measures.asked("positions"))
            if later:  # their states are large: better updated once than for each batch
                kept[position].append(one)
        tables.append(table)
        advance(len(indices))
    for position, parts in enumerate(kept):
        if parts:
            whole = Observed(*(torch.cat(part) for part in zip(*parts, strict=True)))
            measures.update(states[position], position, whole, later)
    return measures.packed(states), joined(tables, plan.schema)


def _batch(plan: Plan, indices: range, batch: Batch) -> tuple[list[tuple[Observed, Any]], Rows]:
    measures, engine = plan.measures, plan.question.engine
    kernel: Any = plan.options.weight if measures.atoms else None
    places = _places(plan, indices.start)
    beside = tuple(step_beside(kernel, plan.options.reduction, index) for index in places)
    step = partial(summarize, reduction=plan.options.reduction)
    label, prediction, seen, row = plan.question.look(indices, batch, step, beside)
    cells = _cells(plan, indices, label, prediction, seen)
    if "cluster" in plan.schema.get("", {}) and plan.cluster is not None:
        row["cluster"] = plan.cluster[indices.start : indices.stop]
    rows: Rows = {"": row}
    observed = []
    for number, (layer, result, zero) in enumerate(
        zip(measures.layers, seen.result, seen.zero, strict=True)
    ):
        index = places[number]
        pair: tuple[Summary, Any] = result if beside[number] else (result, None)
        summary, more = pair
        importance = summary.importance.reshape(seen.explained.numel(), -1)
        held = summary.importance.sum(-1)
        residual = torch.zeros_like(held) if kernel is None else more.whole - held
        parts = (summary.map_max, summary.map_min, *cells, zero, summary.cancelled, residual)
        flat = (part.flatten() for part in parts)
        columns = {**summary._asdict(), "finite": _good(summary), "residual": residual}
        rows[layer] = {name: array_of(columns[name]) for name in plan.schema.get(layer, {})}
        found = None
        if index is not None:
            told = columns["finite"], engine.bases[number], measures.exclusive
            found = rows_of(seen, number, index, *told)
        observed.append((Observed(importance, *flat), found))
    return observed, rows


def _places(plan: Plan, seed: int) -> list[Tensor | None]:
    """Choose the positions of each layer that second moments are of; None where nobody asks."""
    shapes, most = plan.question.engine.tap.shapes, plan.options.subsample_positions
    if not plan.measures.asked("positions"):
        return [None] * len(shapes)
    return [chosen(math.prod(shape[1:]), most, seed) for shape in shapes]


def _good(summary: Summary) -> Tensor:
    return finite(summary.map_max, summary.map_min, summary.importance)


def _cells(
    plan: Plan, indices: range, label: Tensor, prediction: Tensor, seen: Any
) -> list[Tensor]:
    """Return what `Observed` needs besides the summaries, in its order."""
    question, explained = plan.question, seen.explained
    device = explained.device
    accepted = correct = torch.ones_like(explained, dtype=torch.bool)
    if question.task != "regression":
        target = list(question.rows) if question.task in FLAGS else explained
        accepted, correct = verdict(question.task, label.to(device), prediction, target)
    number = torch.arange(indices.start, indices.stop, device=device)
    weight = torch.ones_like(number, dtype=torch.float64)
    if plan.options.probability_weighted:
        weight = question.certainty(seen.output)
    row = explained
    if question.many:
        row = torch.arange(len(question.rows), device=device)[:, None]
    group = torch.from_numpy(plan.group[indices.start : indices.stop]).to(device)
    cells = row, group, accepted, correct, weight, number
    return [part.expand_as(explained) for part in cells]


def _finished(
    shards: Iterable[Arrays],
    *,
    measures: Measures,
    spec: Any,
    origins: Any,
    unit: str,
    shared: str | None,
) -> xr.DataTree:
    tree = statistics_tree(measures.datasets(shards, unit), spec, origins)
    if shared is not None:
        tree.attrs["shared"] = shared
    return tree


def _owners(cluster: Any, data: Any, keep: Keep) -> np.ndarray | None:
    """Return the name of each sample's cluster: of those given, or of those that data know."""
    if cluster is not None and keep == "none":
        raise ValueError(
            f"{_WHERE}: expected keep_samples='summary' or 'full' with cluster=, which is kept in "
            "the sample table, got 'none'."
        )
    return None if keep == "none" else owners_of(_WHERE, data, cluster)


def _schema(question: Question, options: Analysis, samples: int, clusters: bool) -> Schema:
    """Lay out the sample table: what does not depend on the layer, and one group for each layer."""
    if options.keep_samples == "none":
        return {}
    feature = "channel" if options.basis is None else "atom"
    schema, tap = question.schema(samples), question.engine.tap
    if clusters:
        schema[""]["cluster"] = Column(("sample",), (samples,), "str", "what belongs together")
    each, unit = question.each(samples), question.unit
    for site, channels in zip(tap.sites, question.engine.channels, strict=True):
        real = "<f8" if site.dtype == torch.float64 else "<f4"
        schema[site.layer] = {
            "map_max": Column(*each, real, "largest value of the map", unit),
            "map_min": Column(*each, real, "smallest value of the map", unit),
            "map_sum": Column(*each, "<f8", "sum of the map over positions", unit),
            "finite": Column(*each, "|b1", "whether the map is finite, and so counted"),
        }
        if options.basis is not None:
            column = Column(*each, "<f8", "importance that no atom holds", unit)
            schema[site.layer]["residual"] = column
        if options.keep_samples == "full":
            dims, extents = (*each[0], feature), (*each[1], channels)
            schema[site.layer]["importance"] = Column(dims, extents, "<f4", "importance", unit)
    return schema


def _axes(engine: Engine, options: Analysis, groups: tuple[str, ...] | None) -> Axes:
    names, outputs = output_names(options.task, options.target_names), engine.outputs
    if names is not None and len(names) != outputs:
        raise ValueError(
            f"{_WHERE}: expected a target name for each of {outputs} outputs, got {len(names)}."
        )
    chosen = which_outputs(_WHERE, options.targets, outputs)
    named = None if names is None else tuple(str(names[target]) for target in chosen)
    for name in named or ():
        check_text(_WHERE, "every target name", name)
    return Axes(chosen, named, groups, tuple(float(level) for level in options.quantiles))


def _check_positions(engine: Engine, measures: Measures) -> None:
    """Raise where there are no gradients of the features that are weighed."""
    asked_for = measures.asked("positions")
    if not asked_for:
        return
    if not engine.tap.reads_gradients:
        raise ValueError(
            f"{_WHERE}: expected a weighting that reads gradients for reductions={[*asked_for]}, "
            f"got {describe(engine.recipe.options.weight)}. Take ifa.weight.fullcam."
        )
    if engine.features != engine.channels:
        raise ValueError(
            f"{_WHERE}: expected a weighting of the layer's {engine.features} channels for "
            f"reductions={[*asked_for]}, got one of {engine.channels}. Give a dictionary as basis=."
        )


def _check_size(measures: Measures) -> None:
    if measures.bytes() > MOST_BYTES:
        raise ValueError(
            f"{_WHERE}: expected states of reductions={[*measures.extras]} of at most "
            f"{MOST_BYTES >> 30} GiB, got {measures.bytes() / 2**30:.1f} GiB. Give fewer targets, "
            "groups or layers, or leave the largest out."
        )
