"""Methods against metrics over a population: one driver, resumable, labelled."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from ifa.checks import check_choice, check_count
from ifa.contest.metrics import BETTER, Explained, check_maps, columns_of, measuring, takes_model
from ifa.evaluate.masking import check_inputs, chunk_of, targets_of
from ifa.network.identity import callable_token, model_token
from ifa.network.scorers import Scorer
from ifa.population.options import check_data
from ifa.population.passes import device_of, loaded
from ifa.progress import Progress, reporting
from ifa.score import logit
from ifa.store.datasets import SCHEMA
from ifa.store.items import class_labels, collate
from ifa.store.references import ModelRef
from ifa.store.runs import Run
from ifa.store.runs import open as open_run
from ifa.store.specs import data_token, versions
from ifa.store.states import Arrays
from ifa.types import Output

_WHERE = "ifa.contest.table"
Advance = Callable[[int], None]


@dataclass(frozen=True)
class _Plan:
    model: nn.Module
    data: Any
    shape: tuple[int, ...]  # of one input
    device: torch.device
    methods: Mapping[str, tuple[bool, Any]]  # whether it takes the model, and the method
    metrics: Mapping[str, Callable[[Explained], Any]]
    targets: str | int
    scorer: Scorer  # the network's predictions
    shard: int

    def samples(self, shard: int) -> range:
        return range(shard * self.shard, min(len(self.data), (shard + 1) * self.shard))

    @property
    def shards(self) -> range:
        return range(-(-len(self.data) // self.shard))

    @property
    def units(self) -> int:
        return len(self.methods) * len(self.metrics)


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
    shard: int = 64,
    device: str | torch.device | None = None,
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
        and those of `cam_methods`; or ``(inputs, target) -> maps`` of a method that has its model.
        Maps are at the inputs' size: (sample, \*space) or (sample, group, \*space).
    metrics
        Name -> metric, see `default_metrics`; options are bound with `functools.partial`. By the
        names of its arguments it is called with ``(model, inputs, maps, target)``, ``(model,
        explain, inputs, target)``, ``(attribution, inputs, target)``, or as ``(map)`` for each
        sample. It gives one number for each sample, or a record, whose fields of one number for
        each sample are columns of their own: ``confidence.drop``; a single one has the metric's
        name.
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
    shard
        How many samples are explained, measured and committed at once.
    device
        Where to compute; the model's own by default. The model itself is not moved.
    progress
        True draws a bar, a callable gets ``(done, total)``, in samples times methods times metrics.

    Returns
    -------
    xarray.Dataset
        ``value(method, metric, sample)`` float64, NaN where a map says nothing; and ``blank`` and
        ``nonfinite(method, sample)``: whether the map is the same everywhere, and whether it has a
        value that is not finite. ``id``, ``label``, ``prediction`` and ``target(sample)``;
        ``better(metric)`` is ``"higher"``, ``"lower"`` or empty. Select a method with
        ``.sel({"method": "gradcam"})``: `sel` has another use for that keyword. See `summary`.

    Raises
    ------
    ValueError
        If the store holds another evaluation, or an option, a label or a map is not as above.
    TypeError
        If a method or metric is none.

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
    plan, spec = _planned(model, data, methods, metrics, targets, output, shard, device)
    directions = _directions(better)
    spec["better"] = dict(better or {})
    if store is None:
        return _dataset(plan, list(_work(plan, None, progress)), directions)
    run = Run(Path(store), _WHERE)
    run.begin(spec)
    if not run.committed:
        with run.writing():
            if not run.committed:  # by another process, after we looked
                run.lay_out({}, {}, shard)
                for _ in _work(plan, run, progress):
                    pass
                parts = [run.states(number) for number in plan.shards]
                found = _dataset(plan, parts, directions)
                run.commit(xr.DataTree(found), spec["versions"])
    return open_run(run.path).to_dataset()


def _planned(
    model: nn.Module | ModelRef,
    data: Any,
    methods: Mapping[str, Any],
    metrics: Mapping[str, Any],
    targets: Any,
    output: Output,
    shard: int,
    device: Any,
) -> tuple[_Plan, dict[str, Any]]:
    check_data(data)
    check_count(_WHERE, "shard", shard)
    for kind, asked in (("method", methods), ("metric", metrics)):
        if not isinstance(asked, Mapping) or not asked:
            raise ValueError(f"{_WHERE}: expected at least one {kind} by name, got {asked!r}.")
    if not isinstance(targets, int):
        check_choice(_WHERE, "targets", targets, ("predicted", "label"))
    network = loaded(model, device)
    first = collate(data, range(1)).inputs
    plan = _Plan(
        model=network,
        data=data,
        shape=tuple(first.shape[1:]),
        device=device_of(network),
        scorer=Scorer(_WHERE, network, logit, output),
        methods={name: (takes_model(_WHERE, name, m), m) for name, m in methods.items()},
        metrics={name: measuring(_WHERE, name, metric) for name, metric in metrics.items()},
        targets=targets,
        shard=shard,
    )
    spec = {
        "schema": SCHEMA,
        "table": 1,
        "versions": versions(),
        "model": model_token(network),
        "data": data_token(data),
        "methods": {name: callable_token(method) for name, method in methods.items()},
        "metrics": {name: callable_token(metric) for name, metric in metrics.items()},
        "order": [list(methods), list(metrics)],
        "targets": targets,
        "output": callable_token(output),
        "shard": shard,
        "device": plan.device.type,
        "threads": torch.get_num_threads(),
    }
    return plan, spec


def _directions(better: Mapping[str, str] | None) -> dict[str, str]:
    for column, way in (better or {}).items():
        check_choice(_WHERE, f"better[{column!r}]", way, ("higher", "lower"))
    return {**BETTER, **(better or {})}


def _work(plan: _Plan, run: Run | None, progress: Progress) -> Iterator[Arrays | None]:
    todo = [shard for shard in plan.shards if run is None or not run.has(shard)]
    total = len(plan.data) * plan.units
    with reporting(progress, "evaluate", total) as advance:
        advance(total - plan.units * sum(len(plan.samples(shard)) for shard in todo))
        for shard in todo:
            found = _one_shard(plan, plan.samples(shard), advance)
            if run is None:
                yield found
            else:
                run.add(shard, plan.samples(shard).start, found, {})
                yield None


def _one_shard(plan: _Plan, samples: range, advance: Advance) -> Arrays:
    batch = collate(plan.data, samples, plan.shape)
    check_inputs(_WHERE, batch.inputs)
    inputs = batch.inputs.to(plan.device)
    scorer = plan.scorer
    label = class_labels(batch, samples.start, scorer.outputs(inputs) or 1)
    prediction = targets_of(scorer, inputs, None, chunk_of(_WHERE, None, inputs))
    asked = {"predicted": prediction, "label": label}.get(str(plan.targets), plan.targets)
    target = scorer.targets(inputs, asked)
    values, blank, nonfinite = [], [], []
    columns: list[str] = []
    for name, (of_model, method) in plan.methods.items():
        explain = partial(method, plan.model) if of_model else method
        maps = explain(inputs, target)
        check_maps(_WHERE, name, maps, len(inputs))
        maps = maps.detach()
        flat = maps.flatten(1)
        finite = flat.isfinite().all(1)
        nonfinite.append(~finite)
        blank.append(finite & (flat.amax(1) == flat.amin(1)))
        seen = Explained(plan.model, inputs, maps, target, explain, method if of_model else None)
        row: dict[str, Tensor] = {}
        for metric, measure in plan.metrics.items():
            row |= columns_of(_WHERE, metric, measure(seen), len(inputs))
            advance(len(inputs))
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
    }


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
        {"title": "ifa: methods against metrics", "targets": str(plan.targets)},
    )
