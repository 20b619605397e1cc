"""Methods against metrics over a population: the table."""

import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from ifa.checks import check_choice, check_count
from ifa.contest.methods import LeftOut, Method, explaining, possible
from ifa.contest.metrics import BETTER, Explained, check_maps, columns_of, measuring
from ifa.evaluate.masking import check_inputs, chunk_of, targets_of
from ifa.network.behaviour import Sketch, behaviour_of
from ifa.network.identity import model_token
from ifa.network.inputs import count, moved, shapes_of
from ifa.network.replicas import device_of
from ifa.network.scorers import Scorer
from ifa.network.tokens import callable_token
from ifa.population.driver import Advance, Cuts, Job, Versions, drive
from ifa.population.passes import loaded, probed
from ifa.progress import Progress
from ifa.score import logit
from ifa.store.datasets import SCHEMA
from ifa.store.items import Batch, class_labels, collate, data_set
from ifa.store.markers import Arrays
from ifa.store.references import ModelRef
from ifa.store.specs import Spaced, data_token
from ifa.store.specs import versions as versions_now
from ifa.store.tables import Rows
from ifa.types import Output

_WHERE = "ifa.contest.table"


@dataclass(frozen=True)
class _Plan:
    model: nn.Module
    device: torch.device
    methods: Mapping[str, Method]
    metrics: Mapping[str, Callable[[Explained], Any]]
    targets: str | int
    scorer: Scorer  # the network's predictions
    better: Mapping[str, str]
    left_out: list[str]  # methods of a list that this network cannot be asked for, and why


def table(
    model: nn.Module | ModelRef,
    data: Any,
    methods: Mapping[str, Callable[..., Tensor]],
    metrics: Mapping[str, Callable[..., Any]],
    *,
    targets: Literal["predicted", "label"] | int = "predicted",
    better: Mapping[str, str] | None = None,
    output: Output = None,
    store: str | os.PathLike[str] | None = None,
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
        the same output of all samples.
    better
        Column -> ``"higher"`` or ``"lower"``, for those that are not ours or not by our names.
    output
        Picks the output that the prediction is read from, as in `ifa.tap`.
    store
        Directory of the table. It continues one that was interrupted, returns one that is finished,
        and refuses one of another evaluation, naming the difference. None keeps it in memory.
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
        value that is not finite. ``id``, ``label``, ``prediction`` and ``target(sample)``;
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
    data = data_set(_WHERE, data)
    check_count(_WHERE, "shard", shard)
    for kind, asked in (("method", methods), ("metric", metrics)):
        if not isinstance(asked, Mapping) or not asked:
            raise ValueError(f"{_WHERE}: expected at least one {kind} by name, got {asked!r}.")
    if not isinstance(targets, int):
        check_choice(_WHERE, "targets", targets, ("predicted", "label"))
    for column, way in (better or {}).items():
        check_choice(_WHERE, f"better[{column!r}]", way, ("higher", "lower"))
    network = loaded(_WHERE, model, device)
    first = collate(_WHERE, data, range(min(2, len(data))))
    methods, left_out = possible(methods, network, moved(first.inputs, device_of(network)))
    if left_out:
        warnings.warn("\n".join([f"{_WHERE}:", *left_out]), LeftOut, stacklevel=2)
    plan = _Plan(
        model=network,
        device=device_of(network),
        methods={name: explaining(_WHERE, name, method) for name, method in methods.items()},
        metrics={name: measuring(_WHERE, name, metric) for name, metric in metrics.items()},
        targets=targets,
        scorer=Scorer(_WHERE, network, logit, output),
        better={**BETTER, **(better or {})},
        left_out=left_out,
    )
    items = Spaced(_WHERE, data, shapes_of(first.inputs))
    spec = {
        "schema": SCHEMA,
        "table": 1,
        "versions": versions_now(),
        "model": model_token(network, moved(first.inputs, plan.device)),
        "data": data_token(_WHERE, data, data_version, items),
        "methods": {name: callable_token(method, _WHERE) for name, method in methods.items()},
        "metrics": {name: callable_token(metric, _WHERE) for name, metric in metrics.items()},
        "order": [list(methods), list(metrics)],
        "targets": targets,
        "better": dict(better or {}),
        "output": callable_token(output),
        "shard": shard,
        "device": plan.device.type,
        "threads": torch.get_num_threads(),
    }
    job = Job(
        where=_WHERE,
        label="evaluate",
        cuts=Cuts(data, shapes_of(first.inputs), shard, shard, None),
        spec=spec,
        schema={},
        coords={},
        work=partial(_one_shard, plan),
        finish=partial(_finished, plan),
        check=partial(_labels, plan),
        units=len(methods) * len(metrics),
        probe=partial(_behaviour, plan, items, shard),
    )
    found = drive(job, store=store, map=map, progress=progress, versions=versions)
    return found.to_dataset()


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
    check_inputs(_WHERE, batch.inputs)
    inputs = moved(batch.inputs, plan.device)
    scorer = plan.scorer
    label = _labels(plan, samples, batch)
    prediction = targets_of(scorer, inputs, None, chunk_of(_WHERE, None, inputs))
    asked: Any = {"predicted": prediction, "label": label}.get(str(plan.targets), plan.targets)
    target = scorer.targets(inputs, asked)
    values, blank, nonfinite = [], [], []
    columns: list[str] = []
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
    arrays = {
        "value": torch.stack(values).numpy(),
        "blank": torch.stack(blank).cpu().numpy(),
        "nonfinite": torch.stack(nonfinite).cpu().numpy(),
        "id": np.array(batch.ids),
        "label": label.numpy(),
        "prediction": prediction.cpu().numpy(),
        "target": target.cpu().numpy(),
        "metric": np.array(columns),
    }
    return arrays, {}


def _labels(plan: _Plan, samples: range, batch: Batch) -> Tensor:
    outputs = plan.scorer.outputs(moved(batch.inputs, plan.device)) or 1
    return class_labels(_WHERE, batch, samples.start, outputs)


def _measured(plan: _Plan, seen: Explained, advance: Advance) -> dict[str, Tensor]:
    row: dict[str, Tensor] = {}
    for metric, measure in plan.metrics.items():
        row |= columns_of(_WHERE, metric, measure(seen), count(seen.inputs))
        advance(count(seen.inputs))
    return row


def _finished(plan: _Plan, shards: Iterable[Arrays]) -> xr.DataTree:
    return xr.DataTree(_dataset(plan, list(shards), plan.better))


_VARIABLES = {
    "value": (("method", "metric", "sample"), "value of the metric"),
    "blank": (("method", "sample"), "whether the map is the same everywhere"),
    "nonfinite": (("method", "sample"), "whether the map has a value that is not finite"),
    "id": (("sample",), "identity of the sample"),
    "label": (("sample",), "ground truth"),
    "prediction": (("sample",), "prediction"),
    "target": (("sample",), "explained output"),
}


def _dataset(plan: _Plan, parts: list[Any], directions: Mapping[str, str]) -> xr.Dataset:
    columns = parts[0]["metric"].tolist()
    variables = {}
    for name, (dims, what) in _VARIABLES.items():
        values = np.concatenate([part[name] for part in parts], axis=-1)
        values = values.astype(object) if values.dtype.kind == "U" else values
        variables[name] = (dims, values, {"long_name": what})
    better = np.array([directions.get(column, "") for column in columns], dtype=object)
    return xr.Dataset(
        variables,
        {
            "method": np.array(list(plan.methods), dtype=object),
            "metric": np.array(columns, dtype=object),
            "better": ("metric", better, {"long_name": "which way is better"}),
        },
        {
            "title": "ifa: methods against metrics",
            "targets": str(plan.targets),
            "left_out": plan.left_out,
        },
    )
