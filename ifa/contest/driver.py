"""Methods against metrics over a population: the table."""

import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from ifa.checks import check_choice, check_count
from ifa.contest.methods import LeftOut, Method, explaining, possible
from ifa.contest.metrics import (
    BETTER,
    Explained,
    check_maps,
    columns_of,
    measuring,
    score_of,
)
from ifa.data.samples import owners_of, owners_token
from ifa.evaluate.masking import check_inputs, chunk_of, targets_of
from ifa.evaluate.sharing import Batch as Shared
from ifa.evaluate.sharing import sharing
from ifa.network.behaviour import Sketch, behaviour_of
from ifa.network.inputs import count, moved, shapes_of, split
from ifa.network.probabilities import heed_outputs, reads
from ifa.network.replicas import device_of
from ifa.network.scorers import Scorer
from ifa.network.tokens import callable_token
from ifa.population.driver import Advance, Cuts, Job, Versions, drive
from ifa.population.options import check_task
from ifa.population.passes import Loaded, network, probed
from ifa.progress import Progress
from ifa.reduce.verdicts import FLAGS, Task, said
from ifa.score import logit
from ifa.store.datasets import SCHEMA
from ifa.store.items import Batch, class_labels, collate, data_set, flag_labels, real_labels
from ifa.store.markers import Arrays
from ifa.store.references import ModelRef
from ifa.store.specs import Spaced, data_token
from ifa.store.specs import versions as versions_now
from ifa.store.tables import Rows
from ifa.types import Inputs, Output, ProbabilityOutput, Score

_WHERE = "ifa.contest.table"
TITLE = "ifa: methods against metrics"
_TASKS = ("classification", "binary", "multilabel", "regression")


@dataclass(frozen=True)
class _Plan:
    network: Loaded
    methods: Mapping[str, Method]
    metrics: Mapping[str, Callable[[Explained], Any]]
    targets: str | int
    task: Task
    chances: bool  # whether outputs are probabilities, as the scores take them
    output: Output
    better: Mapping[str, str]
    left_out: list[str]  # methods of a list that this network cannot be asked for, and why
    owners: np.ndarray | None  # (sample,): whose each is

    @property
    def model(self) -> nn.Module:
        return self.network.model

    @property
    def device(self) -> torch.device:
        return device_of(self.model)

    @cached_property
    def scorer(self) -> Scorer:
        """The network's predictions."""
        return Scorer(_WHERE, self.model, logit, self.output)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is made of the rest."""
        return {name: vars(self)[name] for name in self.__dataclass_fields__}


def table(
    model: nn.Module | ModelRef,
    data: Any,
    methods: Mapping[str, Callable[..., Tensor]],
    metrics: Mapping[str, Callable[..., Any]],
    *,
    targets: Literal["predicted", "label"] | int = "predicted",
    task: Task = "classification",
    better: Mapping[str, str] | None = None,
    output: Output = None,
    store: str | os.PathLike[str] | None = None,
    cluster: Any = None,
    data_version: str | None = None,
    versions: Versions = "same",
    shard: int = 64,
    device: str | torch.device | None = None,
    map: Any = None,
    progress: Progress = True,
) -> xr.Dataset:
    r"""Measure every method by every metric on every sample of a population.

    Parameters
    ----------
    model
        The network in evaluation mode, or an `ifa.ModelRef`.
    data
        ``(input, label)`` or ``(input, label, id)``, as for `ifa.analyze`.
    methods
        Name -> ``(model, inputs, target) -> maps``, such as ``partial(ifa.explain, layer="conv3")``
        and those of `cam_methods`; one of ``(inputs, target)`` that has its model, such as those of
        `ifa.attribute`, goes through `with_model`. Maps are at the inputs' size: (sample, \*space)
        or (sample, block, \*space).
    metrics
        Name -> metric: any of `ifa.evaluate`, its options bound with `functools.partial`, or one of
        your own, declared with `metric`. It gives one number for each sample, or a record, whose
        fields of one number for each sample are columns of their own: ``confidence.drop``; a single
        one has the metric's name.
    targets
        What is explained: the output ``"predicted"`` for the untouched sample, its ``"label"``, or
        the same output of all samples. Of all tasks but classification an output, which may be left
        out where there is one.
    task
        As in `ifa.analyze`. Labels and predictions are those of the explained output, and metrics
        need another score than their default, the softmax probability: see `default_metrics`.
    better
        Column -> ``"higher"`` or ``"lower"``, for those that are not ours or not by our names.
    output
        Picks the output that the prediction is read from, as in `ifa.tap`.
    store
        Folder or URL of the table. It continues one that was interrupted, returns one that is
        finished, and refuses one of another evaluation, naming the difference. None keeps it in
        memory.
    cluster : (sample,), optional
        Whose each sample is, which the table keeps for `summary` and `ranks`: as in `ifa.analyze`.
    data_version, versions
        As in `ifa.analyze`.
    shard
        How many samples are explained, measured and committed at once.
    device
        Where to compute; the model's own by default. The model itself is not moved.
    map
        As in `ifa.analyze`.
    progress
        True draws a bar, a callable gets ``(done, total)``, in samples times methods times metrics.

    Returns
    -------
    xarray.Dataset
        ``value(method, metric, sample)`` float64, NaN where a map says nothing; and ``blank`` and
        ``nonfinite(method, sample)``: whether the map is the same everywhere, and whether it has a
        value that is not finite. ``id``, ``label``, ``prediction`` and ``target(sample)``,
        and ``cluster(sample)`` where it is known;
        ``better(metric)`` is ``"higher"``, ``"lower"`` or empty. The attribute ``left_out`` says
        which of `cam_methods` are missing, and why. Select a method with
        ``.sel({"method": "gradcam"})``: `sel` has another use for that keyword. See `summary`.

    Raises
    ------
    ValueError
        If the store holds another evaluation, or an option, a label or a map is not as above.
    TypeError
        If a method or metric is none.

    Warns
    -----
    LeftOut
        If methods of `cam_methods` are left out, because this network cannot be asked for them,
        such as `cam` of one with several linear layers. A method that is asked for by name, or by
        its `weightings`, raises instead.
    ProbabilityOutput
        If the network ends in a softmax or, of a binary or multilabel task, in a sigmoid, and the
        score of a method or metric takes its outputs for logits.

    Examples
    --------
    >>> import ifa, torch
    >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 3, 3), torch.nn.Flatten())
    >>> data = [(torch.rand(1, 9), 0, "a"), (torch.rand(1, 9), 1, "b")]
    >>> methods = {name: cam for name, cam in ifa.contest.cam_methods("0").items()
    ...            if name in ("gradcam", "noise")}
    >>> found = table(net, data, methods, {"deletion": ifa.evaluate.deletion}, progress=False)
    >>> dict(found.sizes)
    {'method': 2, 'metric': 1, 'sample': 2}
    """
    source, data = data, data_set(_WHERE, data)
    check_count(_WHERE, "shard", shard)
    for kind, asked in (("method", methods), ("metric", metrics)):
        if not isinstance(asked, Mapping) or not asked:
            raise ValueError(f"{_WHERE}: expected at least one {kind} by name, got {asked!r}.")
    check_choice(_WHERE, "task", task, _TASKS)
    if not isinstance(targets, int):
        check_choice(_WHERE, "targets", targets, ("predicted", "label"))
    for column, way in (better or {}).items():
        check_choice(_WHERE, f"better[{column!r}]", way, ("higher", "lower"))
    first = collate(_WHERE, data, range(min(2, len(data))))
    ready = network(_WHERE, model, first.inputs, device)
    example = moved(first.inputs, device_of(ready.model))
    methods, left_out = possible(methods, ready.model, example)
    if left_out:
        warnings.warn("\n".join([f"{_WHERE}:", *left_out]), LeftOut, stacklevel=2)
    read = _read([*methods.values(), *metrics.values()])
    outputs = Scorer(_WHERE, ready.model, logit, output).outputs(example)
    plan = _Plan(
        network=ready,
        methods={name: explaining(_WHERE, name, method) for name, method in methods.items()},
        metrics={name: measuring(_WHERE, name, metric) for name, metric in metrics.items()},
        targets=_targets(targets, task, outputs),
        task=task,
        chances="probabilities" in read and "logits" not in read,
        output=output,
        better={**BETTER, **(better or {})},
        left_out=left_out,
        owners=owners_of(_WHERE, data, cluster),
    )
    items = Spaced(_WHERE, data, shapes_of(first.inputs))
    spec = {
        "schema": SCHEMA,
        "table": 1,
        "versions": versions_now(),
        "model": ready.token,
        "data": data_token(_WHERE, data, data_version, items),
        "methods": {name: callable_token(method, _WHERE) for name, method in methods.items()},
        "metrics": {name: callable_token(metric, _WHERE) for name, metric in metrics.items()},
        "order": [list(methods), list(metrics)],
        "targets": plan.targets,
        "task": task,
        "better": dict(better or {}),
        "output": callable_token(output),
        "cluster": owners_token(plan.owners),
        "shard": shard,
        "device": plan.device.type,
        "threads": torch.get_num_threads(),
    }
    said: dict[str, Any] = {
        "methods": list(methods),
        "targets": str(plan.targets),
        "better": dict(plan.better),
        "left_out": left_out,
    }
    job = Job(
        where=_WHERE,
        label="evaluate",
        cuts=Cuts(data, shapes_of(first.inputs), shard, shard, None),
        spec=spec,
        schema={},
        coords={},
        work=partial(_one_shard, plan),
        finish=partial(_finished, **said),
        check=partial(_labels, plan),
        units=len(methods) * len(metrics),
        probe=partial(_behaviour, plan, items, shard),
        record={**said, "driver": "table"},
    )
    _heed(plan, items, shard, read.get("logits"))
    found = drive(job, store=store, map=map, progress=progress, versions=versions, source=source)
    return found.to_dataset()


def finishing(record: Mapping[str, Any], spec: Mapping[str, Any]) -> Any:
    """Return what makes a table of the states of shards, as a run's spec says."""
    return partial(_finished, **{name: record[name] for name in record if name != "driver"})


def _targets(targets: str | int, task: Task, outputs: int | None) -> str | int:
    """Return which output is explained, of tasks that predict something of each."""
    if outputs is None:  # not a tensor: what is predicted says so
        return targets
    check_task(_WHERE, task, outputs)
    if task == "classification" or isinstance(targets, int):
        return targets
    if outputs > 1:
        raise ValueError(
            f"{_WHERE}: expected targets to be an output for task={task!r}, one of 0..{outputs - 1}"
            f", got {targets!r}, which several are. Make a table of each: targets=0."
        )
    return 0


def _read(functions: Iterable[Any]) -> dict[str, Score]:
    """Return what methods and metrics take outputs for, each with a score that does so."""
    scores = [score for one in functions if (score := score_of(one)) is not None]
    return {str(reads(score)): score for score in scores}


def _heed(plan: _Plan, items: Spaced, size: int, of_logits: Score | None) -> None:
    """Warn of outputs that are no logits, seen on some samples, where a score takes them so."""
    if of_logits is None or plan.task == "regression":
        return
    with torch.no_grad():
        parts = [plan.scorer.run(moved(part, plan.device)) for part in probed(items, size)]
    heed_outputs(_WHERE, of_logits, torch.cat(parts), flags=plan.task != "classification")


def _behaviour(plan: _Plan, items: Spaced, size: int) -> dict[str, Any]:
    """Sketch the outputs of the network on some samples."""
    samples, output, dtype = 0, Sketch(), torch.float32
    for batch in probed(items, size):
        with torch.no_grad():
            found = plan.scorer.run(moved(batch, plan.device))
        samples, dtype = samples + count(batch), found.dtype
        output.add(found)
    return behaviour_of(samples, dtype, output)


def _one_shard(
    plan: _Plan, batches: Iterable[tuple[range, Batch]], advance: Advance
) -> tuple[Arrays, Rows]:
    ((samples, batch),) = batches  # a shard is one batch
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ProbabilityOutput)  # which the table has named
        return _explained(plan, samples, batch, advance), {}


def _explained(plan: _Plan, samples: range, batch: Batch, advance: Advance) -> Arrays:
    """Explain the samples of a shard by each method, and measure its maps."""
    check_inputs(_WHERE, batch.inputs)
    inputs = moved(batch.inputs, plan.device)
    scorer = plan.scorer
    label, prediction = _labels(plan, samples, batch), _predictions(plan, inputs)
    asked: Any = {"predicted": prediction, "label": label}.get(str(plan.targets), plan.targets)
    target = scorer.targets(inputs, asked)
    values, blank, nonfinite = [], [], []
    columns: list[str] = []
    with sharing(Shared(plan.model, inputs, target)):
        for name, method in plan.methods.items():
            maps = method.explain(plan.model, inputs, target)
            check_maps(_WHERE, name, maps, count(inputs))
            maps = maps.detach()
            flat = maps.flatten(1)
            finite = flat.isfinite().all(1)
            nonfinite.append(~finite)
            blank.append(finite & (flat.amax(1) == flat.amin(1)))
            row = _measured(plan, Explained(plan.model, inputs, maps, target, method), advance)
            columns = list(row)
            values.append(torch.stack(list(row.values())))
    return {
        "value": torch.stack(values).numpy(),
        "blank": torch.stack(blank).cpu().numpy(),
        "nonfinite": torch.stack(nonfinite).cpu().numpy(),
        "id": np.array(batch.ids),
        "label": label.numpy(),
        "prediction": prediction.cpu().numpy(),
        "target": target.cpu().numpy(),
        "metric": np.array(columns),
        **_owners(plan, samples),
    }


def _owners(plan: _Plan, samples: range) -> Arrays:
    if plan.owners is None:
        return {}
    return {"cluster": plan.owners[samples.start : samples.stop].astype(str)}


def _labels(plan: _Plan, samples: range, batch: Batch) -> Tensor:
    """Return the labels, of tasks that have several those of the explained output."""
    outputs = plan.scorer.outputs(moved(batch.inputs, plan.device)) or 1
    if plan.task == "classification":
        return class_labels(_WHERE, batch, samples.start, outputs)
    if plan.task in FLAGS:
        labels = flag_labels(_WHERE, batch, samples.start, outputs)
    else:
        labels = real_labels(_WHERE, batch, samples.start, outputs)
    return labels.reshape(len(labels), -1)[:, int(plan.targets)]


def _predictions(plan: _Plan, inputs: Inputs) -> Tensor:
    """Return the predictions, of tasks that have several those of the explained output."""
    chunk = chunk_of(_WHERE, None, inputs)
    if plan.task == "classification":
        return targets_of(plan.scorer, inputs, None, chunk)
    with torch.no_grad():
        parts = [plan.scorer.run(part) for part in split(inputs, chunk)]
    output = torch.cat(parts).reshape(count(inputs), -1)[:, int(plan.targets)]
    return said(output, plan.chances) if plan.task in FLAGS else output.double()


def _measured(plan: _Plan, seen: Explained, advance: Advance) -> dict[str, Tensor]:
    row: dict[str, Tensor] = {}
    for metric, measure in plan.metrics.items():
        row |= columns_of(_WHERE, metric, measure(seen), count(seen.inputs))
        advance(count(seen.inputs))
    return row


_VARIABLES = {
    "value": (("method", "metric", "sample"), "value of the metric"),
    "blank": (("method", "sample"), "whether the map is the same everywhere"),
    "nonfinite": (("method", "sample"), "whether the map has a value that is not finite"),
    "id": (("sample",), "identity of the sample"),
    "label": (("sample",), "ground truth"),
    "prediction": (("sample",), "prediction"),
    "target": (("sample",), "explained output"),
    "cluster": (("sample",), "what belongs together"),
}


def _finished(
    shards: Iterable[Arrays],
    *,
    methods: list[str],
    targets: str,
    better: Mapping[str, str],
    left_out: list[str],
) -> xr.DataTree:
    """Put the shards together, in their order."""
    parts = list(shards)
    columns = parts[0]["metric"].tolist()
    variables = {}
    known = {name: said for name, said in _VARIABLES.items() if name in parts[0]}
    for name, (dims, what) in known.items():
        values = np.concatenate([part[name] for part in parts], axis=-1)
        values = values.astype(object) if values.dtype.kind == "U" else values
        variables[name] = (dims, values, {"long_name": what})
    directions = np.array([better.get(column, "") for column in columns], dtype=object)
    found = xr.Dataset(
        variables,
        {
            "method": np.array(methods, dtype=object),
            "metric": np.array(columns, dtype=object),
            "better": ("metric", directions, {"long_name": "which way is better"}),
        },
        {"title": TITLE, "targets": targets, "left_out": left_out},
    )
    return xr.DataTree(found)
