"""The population: data set to tap to reductions to a labelled, resumable run."""

import builtins
import copy
import operator
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
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
from ifa.stages import weighing
from ifa.store.datasets import SCHEMA, Axes, joined, layer_dataset, sample_tree, statistics_tree
from ifa.store.items import class_labels, collate, numbers_of, real_labels
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
        Name of a layer, or several, or None for the last with a grid: see `ifa.tap`.
    example : (sample, \*input)
        A batch for shapes; by default the first two inputs.
    weight
        A kernel of `ifa.weight`, or a step `Features` -> `Weighted`.
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

        ========================================  ==================================================
        ``importance(target, channel)``           mean of I over the accepted samples of t
        ``importance_overall(channel)``           the same over all accepted samples
        ``importance_variance(target, channel)``  unbiased variance; NaN below two samples
        ``count(target)``                         accepted samples, int64
        ``map_max, map_min(target, quantile)``    exact quantiles of the map's extremes
        ``map_max_overall, map_min_overall``      the same, pooled over targets
        ``nonfinite(target)``                     left out, because their map is not finite
        ========================================  ==================================================

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
    >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 2, 3), torch.nn.Flatten())
    >>> data = [(torch.ones(1, 4), int(net(torch.ones(1, 1, 4)).argmax()))] * 3
    >>> statistics = ifa.analyze(net, data, layer="0", progress=False)
    >>> int(statistics["0"]["count"].sum())
    3
    """
    _check_options(targets, keep_samples, task, reduction, shard, batch_size)
    _check_data(data)
    levels = _levels(quantiles)
    model = model.load() if isinstance(model, ModelRef) else model
    if device is not None:
        model = copy.deepcopy(model).to(device)
    first = collate(data, range(min(2, len(data))))
    example = first.inputs if example is None else example
    layers = layer if layer is None or isinstance(layer, str) else tuple(layer)
    tap = Tap(model, layers, example.to(_device(model)), score, grid, output)
    _check_names([site.layer for site in tap.sites])
    group_names, group = _groups(groups, len(data))
    axes = Axes(*_rows(tap, targets, target_names), group_names, levels)
    plan = _Plan(
        data=data,
        shape=tuple(example.shape[1:]),
        tap=tap,
        step=chain(weighing(weight, "ifa.analyze"), partial(summarize, reduction=reduction)),
        targets=targets if isinstance(targets, str) else axes.targets,
        axes=axes,
        group=group,
        task=task,
        numbers=_label_numbers(first.labels[0], task, len_outputs(tap)),
        keep_samples=keep_samples,
        shard=shard,
        batch_size=batch_size,
        device=_device(model),
    )
    plan = replace(plan, schema=_schema(plan))
    spec = {
        "schema": SCHEMA,
        "versions": _versions(),
        "model": model_token(model),
        "data": data_token(data),
        "input_shape": list(plan.shape),
        "layers": [site.layer for site in tap.sites],
        "layers_dtype": [str(site.dtype) for site in tap.sites],
        "weight": callable_token(weight),
        "score": callable_token(score),
        "grid": callable_token(grid),
        "output": callable_token(output),
        "targets": callable_token(plan.targets),
        "target_names": callable_token(plan.axes.target_names),
        "task": task,
        "reduction": reduction,
        "quantiles": list(levels),
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
        if plan.schema:
            rows = joined([rows for _, rows in shards], plan.schema)
            tree["samples"] = sample_tree(rows, plan.schema, axes)
        return tree
    run = Run(Path(store))
    run.begin(spec)
    if not run.committed:
        with run.writing():
            _fill(plan, run, mapper, progress, spec)
    return open_run(run.path)


@dataclass(frozen=True)
class _Plan:
    """Everything a shard needs; pickles when model and data do."""

    data: Any
    shape: tuple[int, ...]  # of one input
    tap: Tap
    step: Step  # Features -> Summary, of one example
    targets: str | tuple[int, ...]
    axes: Axes
    group: np.ndarray  # (sample,), int64
    task: Task
    numbers: int  # how many a label has
    keep_samples: Keep
    shard: int
    batch_size: int
    device: torch.device
    schema: Schema = field(default_factory=dict)  # of the sample table; empty if none is kept

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


def _fill(plan: _Plan, run: Run, mapper: Any, progress: Progress, spec: dict[str, Any]) -> None:
    if run.committed:  # by another process, after we looked
        return
    run.lay_out(plan.schema, plan.axes.target_coords, plan.shard)
    for _ in _work(plan, mapper, progress, run):
        pass
    states = builtins.map(run.states, range(plan.shards))
    run.commit(statistics_tree(_finalized(plan, states), spec), _versions())


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
    samples, reduction = plan.samples(shard), plan.reduction
    states: list[PopulationState | None] = [None] * len(plan.tap.sites)
    tables: list[Rows] = []
    for start in range(samples.start, samples.stop, plan.batch_size):
        indices = samples[start - samples.start :][: plan.batch_size]
        observed, table = _batch(plan, indices)
        for position, (state, batch) in enumerate(zip(states, observed, strict=True)):
            before = reduction.init(batch) if state is None else state
            states[position] = reduction.update(before, batch)
        tables.append(table)
        if advance is not None:
            advance(len(indices))
    arrays = {
        f"{position}.{name}": _array(field)
        for position, state in enumerate(states)
        if state is not None
        for name, field in state._asdict().items()
    }
    rows = joined(tables, plan.schema)
    if run is None:
        return arrays, rows
    run.add(shard, samples.start, arrays, rows)
    return None


def _batch(plan: _Plan, indices: range) -> tuple[list[Observed], Rows]:
    inputs, *_ = batch = collate(plan.data, indices, plan.shape)
    if plan.task == "classification":
        label = class_labels(batch, indices.start, len_outputs(plan.tap))
    else:
        label = real_labels(batch, indices.start, plan.numbers)
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
        kept = plan.schema.get(site.layer, {})
        rows[site.layer] = {name: _array(columns[name]) for name in kept}
    return observed, rows


def _finalized(plan: _Plan, shards: Any) -> dict[str, xr.Dataset]:
    reduction = plan.reduction
    merged: list[PopulationState | None] = [None] * len(plan.tap.sites)
    for arrays in shards:
        for position, before in enumerate(merged):
            fields = (arrays[f"{position}.{name}"] for name in PopulationState._fields)
            state = PopulationState(*map(torch.from_numpy, fields))
            merged[position] = state if before is None else reduction.merge(before, state)
    return {
        site.layer: layer_dataset(reduction.finalize(state), plan.axes, plan.tap.unit)
        for site, state in zip(plan.tap.sites, merged, strict=True)
    }


def _schema(plan: _Plan) -> Schema:
    """Lay out the sample table: what does not depend on the layer, and one group for each layer."""
    if plan.keep_samples == "none":
        return {}
    count, outputs, unit = len(plan.data), len_outputs(plan.tap), plan.tap.unit
    one = (("sample",), (count,))
    each = (("target", "sample"), (len(plan.axes.targets), count)) if plan.many else one
    wide = (("sample", "output"), (count, outputs))
    kind = "<i8" if plan.task == "classification" else "<f8"
    wide_prediction = plan.task == "regression" and outputs > 1
    schema: Schema = {
        "": {
            "id": Column(*one, "str", "identity of the sample"),
            "label": Column(*(wide if plan.numbers > 1 else one), kind, "ground truth"),
            "prediction": Column(*(wide if wide_prediction else one), kind, "prediction"),
            "score": Column(*each, "<f8", "score of the explained target", unit),
        }
    }
    for site, shape in zip(plan.tap.sites, plan.tap.shapes, strict=True):
        real = "<f8" if site.dtype == torch.float64 else "<f4"
        schema[site.layer] = {
            "map_max": Column(*each, real, "largest value of the map", unit),
            "map_min": Column(*each, real, "smallest value of the map", unit),
            "map_sum": Column(*each, "<f8", "sum of the map over positions", unit),
            "finite": Column(*each, "|b1", "whether the map is finite, and so counted"),
        }
        if plan.keep_samples == "full":
            dims, extents = (*each[0], "channel"), (*each[1], shape[0])
            schema[site.layer]["importance"] = Column(dims, extents, "<f4", "importance", unit)
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


def _device(model: nn.Module) -> torch.device:
    tensor = next(iter((*model.parameters(), *model.buffers())), None)
    return torch.device("cpu") if tensor is None else tensor.device


def _array(value: Tensor) -> np.ndarray:
    value = value.detach().cpu()
    return (value.float() if value.dtype in (torch.bfloat16, torch.float16) else value).numpy()


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("ifa", "torch", "numpy")}


def _check_data(data: Any) -> None:
    if not hasattr(data, "__len__") or not hasattr(data, "__getitem__"):
        raise TypeError(
            "ifa.analyze: expected a sized, indexable data set of (input, label), got "
            f"{type(data).__name__}. For a DataLoader give its data set: loader.dataset."
        )
    if len(data) == 0:
        raise ValueError("ifa.analyze: expected at least one sample, got an empty data set.")


# Names in the tree that a layer's group cannot have.
_TAKEN = ("samples", "id", "label", "prediction", "score", "target", "target_name")


def _check_names(layers: Sequence[str]) -> None:
    for name in layers:
        if name in _TAKEN or "/" in name:
            raise ValueError(
                f"ifa.analyze: expected a layer whose name can be that of a group, got {name!r}: "
                f"{', '.join(_TAKEN)} are taken, and '/' parts groups. Rename the module, or wrap "
                "the model in torch.nn.Sequential."
            )


def _levels(quantiles: Any) -> tuple[float, ...]:
    try:
        levels = tuple(float(level) for level in quantiles)
    except (TypeError, ValueError):
        levels = ()
    if not 0 < len(levels) == len(set(levels)) or not all(0 <= level <= 1 for level in levels):
        raise ValueError(
            "ifa.analyze: expected distinct quantiles in [0, 1], at least one, such as "
            f"(0.5, 0.9), got {quantiles!r}."
        )
    return levels


def _check_options(
    targets: Any,
    keep_samples: str,
    task: str,
    reduction: str,
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
