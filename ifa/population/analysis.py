"""The population: data set to tap to reductions to a labelled, resumable run."""

import builtins
import operator
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from ifa.chains import chain
from ifa.network.identity import callable_token
from ifa.population.options import (
    check_combination,
    check_data,
    check_names,
    check_options,
    extra_names,
    levels,
)
from ifa.population.passes import (
    Engine,
    Keep,
    Plan,
    Recipe,
    Task,
    every_shard,
    len_outputs,
    loaded,
    one_shard,
    schema_of,
)
from ifa.progress import Progress, reporting
from ifa.reduce.population import summarize
from ifa.score import logit
from ifa.stages import weighing
from ifa.store.datasets import SCHEMA, Axes, joined, sample_tree, statistics_tree
from ifa.store.items import collate, numbers_of
from ifa.store.measures import Measures
from ifa.store.references import ModelRef
from ifa.store.runs import Run
from ifa.store.runs import open as open_run
from ifa.store.specs import data_token, versions
from ifa.store.states import Arrays
from ifa.store.tables import Rows
from ifa.taps.features import Tap
from ifa.types import Grid, Output, Score
from ifa.weight import fullcam

# Extras whose states are larger than this would not fit beside a network.
MOST_BYTES = 2**32


def analyze(
    model: nn.Module | ModelRef,
    data: Any,
    *,
    layer: str | Sequence[str] | None = None,
    example: Tensor | None = None,
    weight: Any = fullcam,
    perturb: Any = None,
    score: Score = logit,
    grid: Grid | None = None,
    output: Output = None,
    targets: Literal["predicted", "label"] | Sequence[int] = "predicted",
    keep_samples: Keep = "summary",
    groups: Any = None,
    task: Task = "classification",
    reduction: Literal["sum", "mean"] = "sum",
    reductions: Sequence[str] = (),
    confidence: bool = False,
    quantiles: Sequence[float] = (0.25, 0.5, 0.75, 0.9, 0.95, 0.99),
    target_names: Sequence[str] | None = None,
    store: str | os.PathLike[str] | None = None,
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
    target: for classification those with label t that are predicted as t, for regression all.
    Extremes of the maps are taken over all samples of which t was explained.

    Parameters
    ----------
    model
        The network in evaluation mode, or an `ifa.ModelRef`.
    data
        A sized, indexable collection of ``(input, label)`` or ``(input, label, id)``, such as a
        map-style data set: the same item for the same index, every time. Labels are output indices;
        for regression, real values.
    layer
        Name of a layer, or several, or None for the last with a grid: see `ifa.tap`.
    example : (sample, \*input)
        A batch for shapes; by default the first two inputs.
    weight
        A kernel of `ifa.weight`, or a step `Features` -> `Weighted`.
    perturb
        Instead of `weight`: a builder of `ifa.perturb`, its options bound, such as
        ``functools.partial(ifa.perturb.scorecam, chunk=16)``. It is called with the model, the name
        of a layer and the example, and returns ``(inputs, target) -> Weighted``. What `score`,
        `grid` or `output` it should use is bound to it, too.
    score, grid, output
        As in `ifa.tap`.
    targets
        Which outputs of each sample are explained: ``"predicted"`` (for regression: every output),
        ``"label"``, or a sequence of output indices, all from one forward pass.
    keep_samples
        ``"summary"`` keeps id, label, prediction, score and the map's extremes and sum of every
        sample; ``"full"`` also its importance vector; ``"none"`` keeps no sample.
    groups : (sample,)
        A label of each sample, such as its site or split: `importance`, `importance_overall`,
        `importance_variance` and `count` then get a leading `group` dimension.
    task
        ``"classification"`` or ``"regression"``.
    reduction
        ``"sum"`` or ``"mean"`` over positions, for the importance.
    reductions
        What else to keep of the importances of accepted samples: any of ``"histogram"``,
        ``"covariance"``, ``"cooccurrence"`` and ``"top_samples"``. Their states do not grow with
        the number of samples; for each group, they take 10 KB for each target and channel, 8 bytes
        for each two channels, the same, and 160 bytes for each target and channel.
    confidence
        Weigh the importance of each sample by the softmax probability of the predicted class:
        :math:`\bar I = \sum_n c_n I_n / \sum_n c_n`. Counts stay counts; `reductions` and
        extremes are not weighted. For classification by logits.
    quantiles
        Which quantiles of the map extremes are stored.
    target_names
        A name for each output.
    store
        Directory of the run. It continues one that was interrupted, returns one that is finished,
        and refuses one of another analysis. None keeps everything in memory.
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
        Anything with the signature of the built-in `map`, such as an executor's. A worker process
        loads an `ifa.ModelRef` by itself, once; a module is sent to it with every shard.
    progress
        True draws a bar, False does not, a callable gets ``(done, total)`` samples.

    Returns
    -------
    xarray.DataTree
        One group for each layer, with

        ========================================  ==================================================
        ``importance(target, channel)``           mean of I over the accepted samples of t
        ``importance_overall(channel)``           the same over all accepted samples; of a list of
                                                  targets ``(target, channel)``: over all correctly
                                                  predicted samples, whatever their label
        ``importance_variance(target, channel)``  unbiased variance; NaN below two samples
        ``count(target)``                         accepted samples, int64
        ``map_max, map_min(target, quantile)``    exact quantiles of the map's extremes
        ``map_max_overall, map_min_overall``      the same, pooled over targets
        ``nonfinite(target)``                     left out, because their map is not finite
        ========================================  ==================================================

        and what `reductions` asks for, with the group first where there are groups:

        ===================================================  =======================================
        ``importance_histogram(target, channel, bin)``       int64; `bin` is the middle of each bin
        ``importance_quantiles(target, channel, quantile)``  read from it, to 1/32 of their value
        ``importance_covariance(channel, channel_)``         unbiased, over all accepted samples
        ``cooccurrence(channel, channel_)``                  samples with both in their top tenth
        ``top_value, top_sample(target, channel, rank)``     the ten largest, and whose they are
        ===================================================  =======================================

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
        If an option, a label or an item is not as above, the model is in training mode with dropout
        or batch norm, or the store holds another analysis; it is then left untouched.
    LookupError
        If there is no such layer.

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
    check_options(targets, keep_samples, task, reduction, shard, batch_size, workers)
    check_combination(task, weight, perturb, confidence)
    check_data(data)
    asked, extras = levels(quantiles), extra_names(reductions)
    reference = model if isinstance(model, ModelRef) else None
    model = loaded(model, device)
    first = collate(data, range(min(2, len(data))))
    example = first.inputs if example is None else example
    if compile:  # it is for batches like the example
        rows = torch.arange(min(batch_size, len(data)))
        example = example[rows % len(example)]
    layers = layer if layer is None or isinstance(layer, str) else tuple(layer)
    summary = partial(summarize, reduction=reduction)
    step = summary if perturb else chain(weighing(weight, "ifa.analyze"), summary)
    engine = Engine(
        Recipe(
            reference or model, layers, example, score, grid, output, step, perturb, compile, device
        ),
        model,
    )
    tap = engine.tap
    check_names(engine.layers)
    group_names, group = _groups(groups, len(data))
    axes = Axes(*_rows(tap, targets, target_names), group_names, asked)
    channels = tuple(shape[0] for shape in tap.shapes)
    listed = task == "classification" and not isinstance(targets, str)
    measures = Measures(engine.layers, channels, axes, extras, listed)
    _check_size(measures)
    plan = Plan(
        data=data,
        shape=tuple(example.shape[1:]),
        engine=engine,
        measures=measures,
        targets=targets if isinstance(targets, str) else axes.targets,
        group=group,
        task=task,
        numbers=_label_numbers(first.labels[0], task, len_outputs(tap)),
        keep_samples=keep_samples,
        confidence=confidence,
        shard=shard,
        batch_size=batch_size,
        workers=workers,
    )
    plan = replace(plan, schema=schema_of(plan))
    spec = {
        "schema": SCHEMA,
        "versions": versions(),
        "model": engine.token,
        "data": data_token(data),
        "input_shape": list(plan.shape),
        "layers": list(engine.layers),
        "layers_dtype": [str(site.dtype) for site in tap.sites],
        "weight": None if perturb else callable_token(weight),
        "perturb": callable_token(perturb),
        "score": callable_token(score),
        "grid": callable_token(grid),
        "output": callable_token(output),
        "targets": callable_token(plan.targets),
        "target_names": callable_token(axes.target_names),
        "task": task,
        "reduction": reduction,
        # as good as absent where they are not used, so that older runs can be continued
        "reductions": list(extras) or None,
        "confidence": confidence or None,
        "compile": compile or None,
        "quantiles": list(asked),
        "groups": None if groups is None else [*callable_token(group_names), callable_token(group)],
        "keep_samples": keep_samples,
        "shard": shard,
        "batch_size": batch_size,
        "device": engine.device.type,
        "threads": torch.get_num_threads(),
    }
    mapper = builtins.map if map is None else map
    if store is None:
        return _in_memory(plan, mapper, progress, spec)
    run = Run(Path(store))
    run.begin(spec)
    if not run.committed:
        with run.writing():
            _fill(plan, run, mapper, progress, spec)
    return open_run(run.path)


def _in_memory(plan: Plan, mapper: Any, progress: Progress, spec: dict[str, Any]) -> xr.DataTree:
    shards = [result for result in _work(plan, mapper, progress, None) if result]
    unit = plan.engine.tap.unit
    tree = statistics_tree(plan.measures.datasets((part for part, _ in shards), unit), spec)
    if plan.schema:
        rows = joined([rows for _, rows in shards], plan.schema)
        tree["samples"] = sample_tree(rows, plan.schema, plan.measures.axes)
    return tree


def _fill(plan: Plan, run: Run, mapper: Any, progress: Progress, spec: dict[str, Any]) -> None:
    if run.committed:  # by another process, after we looked
        return
    run.lay_out(plan.schema, plan.measures.axes.target_coords, plan.shard)
    for _ in _work(plan, mapper, progress, run):
        pass
    states = builtins.map(run.states, range(plan.shards))
    layers = plan.measures.datasets(states, plan.engine.tap.unit)
    run.commit(statistics_tree(layers, spec), versions())


def _work(
    plan: Plan, mapper: Any, progress: Progress, run: Run | None
) -> Iterator[tuple[Arrays, Rows] | None]:
    todo = [shard for shard in range(plan.shards) if run is None or not run.has(shard)]
    with reporting(progress, "analyze", len(plan.data)) as advance:
        advance(len(plan.data) - sum(len(plan.samples(shard)) for shard in todo))
        if mapper is builtins.map:  # in this process, so it can say more often how far it is
            yield from every_shard(plan, run, todo, advance)
            return
        done = mapper(partial(one_shard, plan, run), todo)
        for shard, result in zip(todo, done, strict=True):
            advance(len(plan.samples(shard)))
            yield result


def _rows(
    tap: Tap, targets: Any, names: Sequence[str] | None
) -> tuple[tuple[int, ...], tuple[str, ...] | None]:
    outputs = len_outputs(tap)
    if names is not None and len(names) != outputs:
        raise ValueError(
            f"ifa.analyze: expected a target name for each of {outputs} outputs, got {len(names)}."
        )
    try:
        listed = range(outputs) if isinstance(targets, str) else targets
        chosen = tuple(operator.index(target) for target in listed)
    except TypeError:
        raise TypeError(
            "ifa.analyze: expected targets to be 'predicted', 'label' or a list of output indices, "
            f"got {targets!r}."
        ) from None
    distinct = len(set(chosen)) == len(chosen) > 0
    if not distinct or not 0 <= min(chosen) <= max(chosen) < outputs:
        raise ValueError(
            f"ifa.analyze: expected distinct targets in 0..{outputs - 1}, at least one, got "
            f"{list(chosen)}."
        )
    return chosen, None if names is None else tuple(str(names[target]) for target in chosen)


def _label_numbers(label: Any, task: str, outputs: int) -> int:
    count = len(numbers_of(label))
    if task == "regression" and count not in (1, outputs):
        raise ValueError(
            f"ifa.analyze: expected one real label, or one for each of {outputs} outputs, got "
            f"{label!r} for sample 0."
        )
    return count if task == "regression" else 1


def _groups(groups: Any, samples: int) -> tuple[tuple[str, ...] | None, np.ndarray]:
    if groups is None:
        return None, np.zeros(samples, dtype=np.int64)
    values = np.asarray(groups)
    if values.shape != (samples,):
        raise ValueError(
            f"ifa.analyze: expected one group label for each of {samples} samples, "
            f"got shape {values.shape}."
        )
    names, index = np.unique(values, return_inverse=True)
    return tuple(str(name) for name in names), index.astype(np.int64)


def _check_size(measures: Measures) -> None:
    if measures.bytes() > MOST_BYTES:
        raise ValueError(
            f"ifa.analyze: expected states of reductions={measures.extras} of at most "
            f"{MOST_BYTES >> 30} GiB, got {measures.bytes() / 2**30:.1f} GiB. Give fewer targets, "
            "groups or layers, or leave 'histogram' out."
        )
