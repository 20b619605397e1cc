"""The population: data set to tap to reductions to a labelled, resumable run."""

import builtins
import copy
import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from ifa.chains import Step, batched, chain
from ifa.progress import Progress, reporting
from ifa.reduce.population import Observed, PopulationState, finite, population, summarize
from ifa.score import logit
from ifa.stages import weigh
from ifa.store.datasets import SCHEMA, Axes, joined, layer_dataset, sample_tree, statistics_tree
from ifa.store.items import class_labels, collate, real_labels
from ifa.store.references import ModelRef
from ifa.store.runs import Run
from ifa.store.runs import open as open_run
from ifa.store.specs import callable_token, data_token, model_token
from ifa.store.states import Arrays
from ifa.store.tables import Column, Rows, Schema
from ifa.taps.features import Grid, Score, Tap
from ifa.taps.outputs import Output
from ifa.types import Reduction
from ifa.weight import fullcam

Task = Literal["classification", "regression"]
Keep = Literal["summary", "full", "none"]


def analyze(
    model: nn.Module | ModelRef,
    data: Any,
    *,
    layer: str | Sequence[str] | None = None,
    example: Tensor | None = None,
    weight: Any = fullcam,
    score: Score = logit,
    grid: Grid | None = None,
    output: Output = None,
    targets: Literal["predicted", "label"] | Sequence[int] = "predicted",
    keep_samples: Keep = "summary",
    groups: Any = None,
    task: Task = "classification",
    reduction: Literal["sum", "mean"] = "sum",
    quantiles: Sequence[float] = (0.25, 0.5, 0.75, 0.9, 0.95, 0.99),
    target_names: Sequence[str] | None = None,
    store: str | os.PathLike[str] | None = None,
    shard: int = 512,
    batch_size: int = 32,
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
        Name of a layer, or several, or None for the last with a grid: see `ifa.tap`, which also
        explains `score`, `grid` and `output`.
    example : (sample, \*input)
        A batch for shapes; by default the first two inputs.
    weight
        A kernel of `ifa.weight`, or a step `Features` -> `Weighted`.
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
    device
        Where to compute; the model's own by default. The model itself is not moved.
    map
        Anything with the signature of the built-in `map`, such as an executor's.
    progress
        True draws a bar, False does not, a callable gets ``(done, total)`` samples.

    Returns
    -------
    xarray.DataTree
        One group for each layer, with

        ========================================  =====================================================
        ``importance(target, channel)``           mean of I over the accepted samples of t, score unit
        ``importance_overall(channel)``           the same over all accepted samples
        ``importance_variance(target, channel)``  unbiased variance; NaN below two samples
        ``count(target)``                         accepted samples, int64
        ``map_max, map_min(target, quantile)``    exact quantiles of the map's extremes
        ``map_max_overall, map_min_overall``      the same over all samples and targets (quantile)
        ``nonfinite(target)``                     samples left out because their map is not finite
        ========================================  =====================================================

        NaN and count 0 where no sample qualifies. ``samples/`` holds what does not depend on the
        layer, ``samples/LAYER`` the rest. See `ifa.difference` and `ifa.scale_from`.

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
    >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(4, 2))
    >>> data = [(torch.ones(1, 4) * n, int(net(torch.ones(1, 1, 4) * n).argmax())) for n in range(3)]
    >>> statistics = ifa.analyze(net, data, layer="0", progress=False)
    >>> int(statistics["0"]["count"].sum())
    3
    """
    _check_options(targets, keep_samples, task, reduction, quantiles, shard, batch_size)
    _check_data(data)
    model = model.load() if isinstance(model, ModelRef) else model
    if device is not None:
        model = copy.deepcopy(model).to(device)
    if example is None:
        example = collate(data, range(min(2, len(data)))).inputs
    layers = layer if layer is None or isinstance(layer, str) else tuple(layer)
    tap = Tap(model, layers, example.to(_device(model)), score, grid, output)
    group_names, group = _groups(groups, len(data))
    plan = _Plan(
        data=data,
        tap=tap,
        step=chain(_weighting(weight), partial(summarize, reduction=reduction)),
        targets=targets if isinstance(targets, str) else tuple(targets),
        axes=Axes(*_rows(tap, targets, target_names), group_names, tuple(quantiles)),
        group=group,
        task=task,
        keep_samples=keep_samples,
        shard=shard,
        batch_size=batch_size,
        device=_device(model),
    )
    spec = {
        "schema": SCHEMA,
        "versions": _versions(),
        "model": model_token(model),
        "data": data_token(data),
        "input_shape": list(example.shape[1:]),
        "layers": [site.layer for site in tap.sites],
        "dtype": [str(site.dtype) for site in tap.sites],
        "weight": callable_token(weight),
        "score": callable_token(score),
        "grid": callable_token(grid),
        "output": callable_token(output),
        "targets": callable_token(plan.targets),
        "target_names": callable_token(plan.axes.target_names),
        "task": task,
        "reduction": reduction,
        "quantiles": list(quantiles),
        "groups": None if groups is None else [*callable_token(group_names), callable_token(group)],
        "keep_samples": keep_samples,
        "shard": shard,
        "batch_size": batch_size,
        "device": plan.device.type,
        "threads": torch.get_num_threads(),
    }
    mapper = builtins.map if map is None else map
    if store is None:
        shards = [result for result in _work(plan, mapper, progress, None) if result]
        tree = statistics_tree(_finalized(plan, (states for states, _ in shards)), spec)
        if keep_samples != "none":
            schema = _schema(plan)
            tree["samples"] = sample_tree(
                joined([rows for _, rows in shards], schema), schema, plan.axes
            )
        return tree
    run = Run(Path(store))
    run.begin(spec)
    if not run.committed:
        run.lay_out(_schema(plan), plan.axes.target_coords, shard)
        for _ in _work(plan, mapper, progress, run):
            pass
        states = builtins.map(run.states, range(plan.shards))
        run.commit(statistics_tree(_finalized(plan, states), spec), _versions())
    return open_run(run.path)


@dataclass(frozen=True)
class _Plan:
    """Everything a shard needs; pickles when model and data do."""

    data: Any
    tap: Tap
    step: Step  # Features -> Summary, of one example
    targets: str | tuple[int, ...]
    axes: Axes
    group: np.ndarray  # (sample,), int64
    task: Task
    keep_samples: Keep
    shard: int
    batch_size: int
    device: torch.device

    @property
    def shards(self) -> int:
        return -(-len(self.data) // self.shard)

    @property
    def many(self) -> bool:
        """Whether all rows of the statistics are explained for every sample."""
        return self.targets not in ("predicted", "label") or self.task == "regression"

    @property
    def reduction(self) -> Reduction:
        groups, targets = len(self.axes.groups or "1"), len(self.axes.targets)
        return population(targets=targets, groups=groups, levels=self.axes.quantiles)

    def samples(self, shard: int) -> range:
        return range(shard * self.shard, min(len(self.data), (shard + 1) * self.shard))


def _work(
    plan: _Plan, mapper: Any, progress: Progress, run: Run | None
) -> Iterator[tuple[Arrays, Rows] | None]:
    todo = [shard for shard in range(plan.shards) if run is None or not run.has(shard)]
    with reporting(progress, "analyze", len(plan.data)) as advance:
        advance(len(plan.data) - sum(len(plan.samples(shard)) for shard in todo))
        if mapper is builtins.map:  # in this process, so it can say more often how far it is
            yield from mapper(partial(_shard, plan, run, advance), todo)
            return
        done = mapper(partial(_shard, plan, run, None), todo)
        for shard, result in zip(todo, done, strict=True):
            advance(len(plan.samples(shard)))
            yield result


def _shard(
    plan: _Plan, run: Run | None, advance: Callable[[int], None] | None, shard: int
) -> tuple[Arrays, Rows] | None:
    samples = plan.samples(shard)
    states: list[PopulationState | None] = [None] * len(plan.tap.sites)
    tables: list[Rows] = []
    for start in range(samples.start, samples.stop, plan.batch_size):
        indices = samples[start - samples.start :][: plan.batch_size]
        observed, table = _batch(plan, indices)
        for position, (state, batch) in enumerate(zip(states, observed, strict=True)):
            before = plan.reduction.init(batch) if state is None else state
            states[position] = plan.reduction.update(before, batch)
        tables.append(table)
        if advance is not None:
            advance(len(indices))
    arrays = {
        f"{position}.{name}": _array(field)
        for position, state in enumerate(states)
        if state is not None
        for name, field in state._asdict().items()
    }
    rows = joined(tables, _schema(plan))
    if run is None:
        return arrays, rows
    run.add(shard, samples.start, arrays, rows)
    return None


def _batch(plan: _Plan, indices: range) -> tuple[list[Observed], Rows]:
    inputs, *_ = batch = collate(plan.data, indices)
    read = class_labels if plan.task == "classification" else real_labels
    label = read(batch, indices.start, len_outputs(plan.tap))
    every = torch.tensor(plan.axes.targets)[:, None].expand(-1, len(indices))
    target = every if plan.many else label if plan.targets == "label" else None
    seen = plan.tap.observe(inputs.to(plan.device), target)
    output = seen.output.detach().reshape(len(indices), -1)
    explained = seen.features[0].target
    if plan.task == "classification":
        prediction = output.argmax(1)
        right = prediction == label.to(plan.device)
        accepted = right & (explained == prediction)
    else:
        prediction = output.squeeze(1)
        accepted = torch.ones_like(explained, dtype=torch.bool)
    row = (
        torch.arange(len(every), device=plan.device)[:, None].expand_as(every)
        if plan.many
        else explained
    )
    group = (
        torch.from_numpy(plan.group[indices.start : indices.stop]).to(plan.device).expand_as(row)
    )
    rows: Rows = {
        "": {
            "id": np.array(batch.ids, dtype=object),
            "label": label.numpy(),
            "prediction": _array(prediction),
            "score": _array(seen.score),
        }
    }
    observed = []
    for site, features in zip(plan.tap.sites, seen.features, strict=True):
        summary = batched(plan.step)(features)
        entries = (summary.importance.reshape(row.numel(), -1), summary.map_max, summary.map_min)
        flat = (entry.flatten(0, row.ndim - 1) for entry in (*entries[1:], row, group, accepted))
        observed.append(Observed(entries[0], *flat))
        good = finite(summary.map_max, summary.map_min, summary.importance)
        columns = {**summary._asdict(), "finite": good}
        rows[site.layer] = {name: _array(values) for name, values in columns.items()}
    return observed, rows


def _finalized(plan: _Plan, shards: Any) -> dict[str, xr.Dataset]:
    merged: list[PopulationState | None] = [None] * len(plan.tap.sites)
    for arrays in shards:
        for position, before in enumerate(merged):
            fields = (arrays[f"{position}.{name}"] for name in PopulationState._fields)
            state = PopulationState(*map(torch.from_numpy, fields))
            merged[position] = state if before is None else plan.reduction.merge(before, state)
    return {
        site.layer: layer_dataset(plan.reduction.finalize(state), plan.axes)
        for site, state in zip(plan.tap.sites, merged, strict=True)
    }


def _schema(plan: _Plan) -> Schema:
    """Lay out the sample table: what does not depend on the layer, and one group for each layer."""
    if plan.keep_samples == "none":
        return {}
    count, outputs = len(plan.data), len_outputs(plan.tap)
    one = (("sample",), (count,))
    each = (("target", "sample"), (len(plan.axes.targets), count)) if plan.many else one
    wide = (("sample", "output"), (count, outputs))
    kind = "<i8" if plan.task == "classification" else "<f8"
    label = collate(plan.data, range(1)).labels[0]
    wide_label = plan.task == "regression" and torch.as_tensor(label).numel() > 1
    wide_prediction = plan.task == "regression" and outputs > 1
    schema: Schema = {
        "": {
            "id": Column(*one, "str", "identity of the sample"),
            "label": Column(*(wide if wide_label else one), kind, "ground truth"),
            "prediction": Column(*(wide if wide_prediction else one), kind, "prediction"),
            "score": Column(*each, "<f8", "score of the explained target", "score"),
        }
    }
    for site, shape in zip(plan.tap.sites, plan.tap.shapes, strict=True):
        real = "<f8" if site.dtype == torch.float64 else "<f4"
        schema[site.layer] = {
            "map_max": Column(*each, real, "largest value of the map", "score"),
            "map_min": Column(*each, real, "smallest value of the map", "score"),
            "map_sum": Column(*each, "<f8", "sum of the map over positions", "score"),
            "finite": Column(*each, "|b1", "whether the map is finite, and so counted"),
        }
        if plan.keep_samples == "full":
            dims, extents = (*each[0], "channel"), (*each[1], shape[0])
            schema[site.layer]["importance"] = Column(dims, extents, "<f4", "importance", "score")
    return schema


def len_outputs(tap: Tap) -> int:
    """How many outputs the tapped model has; an error where they are not (sample, output)."""
    if tap.output_shape is None or len(tap.output_shape) > 1:
        raise ValueError(
            "ifa.analyze: expected a model with outputs (sample, output), got "
            f"{tap.output_shape or 'no tensor'} for each sample. Pick the tensor with output=."
        )
    return (*tap.output_shape, 1)[0]


def _rows(
    tap: Tap, targets: Any, names: Sequence[str] | None
) -> tuple[tuple[int, ...], tuple[str, ...] | None]:
    outputs = len_outputs(tap)
    if names is not None and len(names) != outputs:
        raise ValueError(
            f"ifa.analyze: expected a target name for each of {outputs} outputs, got {len(names)}."
        )
    chosen = tuple(range(outputs)) if isinstance(targets, str) else tuple(int(t) for t in targets)
    if (
        not chosen
        or len(set(chosen)) < len(chosen)
        or not 0 <= min(chosen) <= max(chosen) < outputs
    ):
        raise ValueError(
            f"ifa.analyze: expected distinct targets in 0..{outputs - 1}, got {list(chosen)}."
        )
    return chosen, None if names is None else tuple(str(names[target]) for target in chosen)


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


def _weighting(weight: Any) -> Step:
    """Accept a kernel, of two arguments, or a step, of one."""
    if not callable(weight):
        raise TypeError(
            f"ifa.analyze: expected weight to be a kernel of ifa.weight or a step, got {weight!r}."
        )
    positional = [
        parameter
        for parameter in inspect.signature(weight).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        and parameter.default is parameter.empty
    ]
    return weight if len(positional) == 1 else weigh(weight)


def _device(model: nn.Module) -> torch.device:
    tensor = next(iter((*model.parameters(), *model.buffers())), None)
    return torch.device("cpu") if tensor is None else tensor.device


def _array(value: Tensor) -> np.ndarray:
    value = value.detach().cpu()
    return (value.float() if value.dtype in (torch.bfloat16, torch.float16) else value).numpy()


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("ifa", "torch", "numpy")}


def _check_data(data: Any) -> None:
    if not hasattr(data, "__len__") or not hasattr(data, "__getitem__") or len(data) == 0:
        raise TypeError(
            "ifa.analyze: expected a sized, indexable data set of at least one (input, label), "
            f"got {type(data).__name__}. For a DataLoader give its data set: loader.dataset."
        )


def _check_options(
    targets: Any,
    keep_samples: str,
    task: str,
    reduction: str,
    levels: Sequence[float],
    shard: int,
    batch_size: int,
) -> None:
    choices: list[tuple[str, Any, tuple[str, ...]]] = [
        ("keep_samples", keep_samples, ("summary", "full", "none")),
        ("task", task, ("classification", "regression")),
        ("reduction", reduction, ("sum", "mean")),
    ]
    if isinstance(targets, str):
        choices.append(("targets", targets, ("predicted", "label")))
    for name, value, allowed in choices:
        if value not in allowed:
            raise ValueError(f"ifa.analyze: expected {name} to be one of {allowed}, got {value!r}.")
    if task == "regression" and targets == "label":
        raise ValueError(
            "ifa.analyze: expected targets='predicted' (every output) or a list of outputs for "
            "regression, got 'label': its labels are values, not outputs."
        )
    for name, value in (("shard", shard), ("batch_size", batch_size)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"ifa.analyze: expected a positive {name}, got {value!r}.")
    if len(set(levels)) < len(levels) or not all(0 <= level <= 1 for level in levels):
        raise ValueError(f"ifa.analyze: expected distinct quantiles in [0, 1], got {levels}.")
