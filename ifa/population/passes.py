"""One pass over a population: a shard's samples through the network to states and table rows."""

import copy
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ifa.chains import batched
from ifa.network.identity import model_token
from ifa.reduce.population import Observed, Summary, finite
from ifa.store.datasets import joined
from ifa.store.items import Batch, class_labels, reading, real_labels
from ifa.store.measures import Measures, States, array_of
from ifa.store.references import ModelRef
from ifa.store.runs import Run
from ifa.store.states import Arrays
from ifa.store.tables import Column, Rows, Schema
from ifa.taps.features import Tap, tap
from ifa.types import Features, Grid, Output, Score, Step

Task = Literal["classification", "regression"]
Keep = Literal["summary", "full", "none"]


class Seen(NamedTuple):
    """What one batch gives."""

    summaries: tuple[Summary, ...]  # one for each layer
    output: Tensor  # (sample, output)
    score: Tensor  # (sample,) or (target, sample)
    explained: Tensor  # the same, int64


@dataclass(frozen=True)
class Recipe:
    """All that an engine is made of, so that another process can make it again."""

    model: nn.Module | ModelRef
    layers: Any
    example: Tensor
    score: Score
    grid: Grid | None
    output: Output
    step: Step  # one example's record -> Summary
    perturb: Any  # builder, or None
    compile: bool
    device: str | torch.device | None


class Engine:
    """A network made ready. Of a model by reference, only the reference goes to other processes."""

    def __init__(self, recipe: Recipe, model: nn.Module):
        self.recipe, self.key, self.token = recipe, uuid.uuid4().hex, model_token(model)
        self.device = device_of(model)
        example = recipe.example.to(self.device)
        step = None if recipe.perturb is not None else partial(_each, recipe.step)
        self.tap = tap(
            model,
            recipe.layers,
            example,
            score=recipe.score,
            grid=recipe.grid,
            output=recipe.output,
            step=step,
            compile=recipe.compile,
        )
        self.layers = tuple(site.layer for site in self.tap.sites)
        self._perturbed: tuple[Any, ...] | None = None
        if recipe.perturb is not None:
            self._perturbed = tuple(recipe.perturb(model, name, example) for name in self.layers)

    def __reduce_ex__(self, protocol: Any) -> Any:
        if isinstance(self.recipe.model, ModelRef):
            return _engine, (self.key, self.token, self.recipe)
        return super().__reduce_ex__(protocol)

    def observe(self, inputs: Tensor, target: Tensor | None) -> Seen:
        """Run one batch."""
        inputs = inputs.to(self.device)
        seen = self.tap.observe(inputs, target)
        summaries = seen.result
        if self._perturbed is not None:
            records = tuple(perturbed(inputs, seen.target) for perturbed in self._perturbed)
            self._check(records, seen.target)
            summaries = tuple(map(batched(self.recipe.step), records))
        output = seen.output.detach().reshape(len(inputs), -1)
        return Seen(summaries, output, seen.score, seen.target)

    def _check(self, records: tuple[Any, ...], explained: Tensor) -> None:
        for layer, shape, record in zip(self.layers, self.tap.shapes, records, strict=True):
            came = tuple(record.activations.shape[explained.ndim :])
            if came != shape:
                raise ValueError(
                    f"ifa.analyze: expected perturb= to lay {layer!r} out as {shape}, as the "
                    f"analysis does, got {came}. Give the same grid= to both."
                )


def _each(step: Step, features: Any) -> tuple[Summary, ...]:
    """Summarize the features of one example, of one layer or several."""
    return tuple(map(step, (features,) if isinstance(features, Features) else features))


# The last engine that was made of a reference in this process: one model at a time.
_ENGINES: dict[str, Engine] = {}


def _engine(key: str, token: dict[str, str], recipe: Recipe) -> Engine:
    """Make the engine of a reference once in each process."""
    if key not in _ENGINES:
        made = Engine(recipe, loaded(recipe.model, recipe.device))
        if made.token != token:
            raise ValueError(
                "ifa.analyze: expected the model reference to give the same network in every "
                "process, got another in a worker. Set what is random in the factory, and leave "
                "the file of weights as it is while the analysis runs."
            )
        _ENGINES.clear()
        _ENGINES[key] = made
    return _ENGINES[key]


def loaded(model: nn.Module | ModelRef, device: str | torch.device | None) -> nn.Module:
    """Load a reference, and move a copy of a model to the device asked for."""
    if isinstance(model, ModelRef):
        model = model.load()
        return model if device is None else model.to(device)
    return model if device is None else copy.deepcopy(model).to(device)


@dataclass(frozen=True)
class Plan:
    """Everything a shard needs; pickles when model and data do."""

    data: Any
    shape: tuple[int, ...]  # of one input
    engine: Engine
    measures: Measures
    targets: str | tuple[int, ...]
    group: np.ndarray  # (sample,), int64
    task: Task
    numbers: int  # how many a label has
    keep_samples: Keep
    confidence: bool
    shard: int
    batch_size: int
    workers: int | None
    schema: Schema = field(default_factory=dict)  # of the sample table; empty if none is kept

    @property
    def shards(self) -> int:
        return -(-len(self.data) // self.shard)

    @property
    def many(self) -> bool:
        """Whether all rows of the statistics are explained for every sample."""
        return self.targets not in ("predicted", "label") or self.task == "regression"

    def samples(self, shard: int) -> range:
        return range(shard * self.shard, min(len(self.data), (shard + 1) * self.shard))

    def batches(self, shards: Sequence[int]) -> list[list[range]]:
        """Return which samples run together, shard by shard."""
        size = self.batch_size
        return [
            [samples[start : start + size] for start in range(0, len(samples), size)]
            for samples in map(self.samples, shards)
        ]

    def read(self, spans: Sequence[range]) -> Iterator[Batch]:
        return reading(self.data, spans, self.shape, self.workers)


def one_shard(plan: Plan, run: Run | None, shard: int) -> tuple[Arrays, Rows] | None:
    """Do one shard: commit it to the run, or without one return its states and rows."""
    (spans,) = plan.batches([shard])
    arrays, rows = _reduced(plan, zip(spans, plan.read(spans), strict=True), lambda samples: None)
    if run is None:
        return arrays, rows
    run.add(shard, plan.samples(shard).start, arrays, rows)
    return None


def every_shard(
    plan: Plan, run: Run | None, shards: Sequence[int], advance: Callable[[int], None]
) -> Iterator[tuple[Arrays, Rows] | None]:
    """Do shards one after the other: the next is read and the last written meanwhile."""
    spans = plan.batches(shards)
    batches = plan.read([span for part in spans for span in part])
    with ThreadPoolExecutor(1, "ifa-write") as writer:
        written = writer.submit(lambda: None)
        for shard, part in zip(shards, spans, strict=True):
            arrays, rows = _reduced(plan, zip(part, batches, strict=False), advance)
            written.result()
            if run is None:
                yield arrays, rows
            else:
                written = writer.submit(run.add, shard, plan.samples(shard).start, arrays, rows)
                yield None
        written.result()


def _reduced(
    plan: Plan, batches: Iterable[tuple[range, Batch]], advance: Callable[[int], None]
) -> tuple[Arrays, Rows]:
    """Reduce the batches of a shard to its states and rows."""
    measures = plan.measures
    kept: list[list[Observed]] = [[] for _ in measures.layers]
    states: States = [{} for _ in measures.layers]
    tables: list[Rows] = []
    for indices, batch in batches:
        observed, table = _batch(plan, indices, batch)
        for position, one in enumerate(observed):
            measures.update(states[position], position, one, measures.always)
            if measures.extras:  # their states are large: better updated once than for each batch
                kept[position].append(one)
        tables.append(table)
        advance(len(indices))
    for position, parts in enumerate(kept):
        if parts:
            whole = Observed(*(torch.cat(part) for part in zip(*parts, strict=True)))
            measures.update(states[position], position, whole, measures.extras)
    return measures.packed(states), joined(tables, plan.schema)


def _batch(plan: Plan, indices: range, batch: Batch) -> tuple[list[Observed], Rows]:
    label = _labels(plan, indices, batch)
    targets, device = plan.measures.axes.targets, plan.engine.device
    every = torch.tensor(targets)[:, None].expand(-1, len(indices))
    target = every if plan.many else label if plan.targets == "label" else None
    seen = plan.engine.observe(batch.inputs, target)
    explained, weight = seen.explained, None
    if plan.task == "classification":
        prediction = seen.output.argmax(1)
        correct = prediction == label.to(device)
        accepted = correct & (explained == prediction)
    else:
        prediction = seen.output.squeeze(1)
        accepted = correct = torch.ones_like(explained, dtype=torch.bool)
    if plan.confidence:
        weight = seen.output.double().softmax(1).amax(1)
    row = torch.arange(len(every), device=device)[:, None] if plan.many else explained
    group = torch.from_numpy(plan.group[indices.start : indices.stop]).to(device)
    number = torch.arange(indices.start, indices.stop, device=device)
    weight = torch.ones_like(number, dtype=torch.float64) if weight is None else weight
    cells = [part.expand_as(explained) for part in (row, group, accepted, correct, weight, number)]
    rows: Rows = {
        "": {
            "id": np.array(batch.ids, dtype=object),
            "label": label.numpy(),
            "prediction": array_of(prediction),
            "score": array_of(seen.score),
        }
    }
    observed = []
    for layer, summary in zip(plan.measures.layers, seen.summaries, strict=True):
        importance = summary.importance.reshape(explained.numel(), -1)
        flat = (part.flatten() for part in (summary.map_max, summary.map_min, *cells))
        observed.append(Observed(importance, *flat))
        good = finite(summary.map_max, summary.map_min, summary.importance)
        columns = {**summary._asdict(), "finite": good}
        rows[layer] = {name: array_of(columns[name]) for name in plan.schema.get(layer, {})}
    return observed, rows


def _labels(plan: Plan, indices: range, batch: Batch) -> Tensor:
    if plan.task == "classification":
        return class_labels(batch, indices.start, len_outputs(plan.engine.tap))
    return real_labels(batch, indices.start, plan.numbers)


def schema_of(plan: Plan) -> Schema:
    """Lay out the sample table: what does not depend on the layer, and one group for each layer."""
    if plan.keep_samples == "none":
        return {}
    tap = plan.engine.tap
    count, outputs, unit = len(plan.data), len_outputs(tap), tap.unit
    one = (("sample",), (count,))
    each = one
    if plan.many:
        each = (("target", "sample"), (len(plan.measures.axes.targets), count))
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
    for site, shape in zip(tap.sites, tap.shapes, strict=True):
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


def device_of(model: nn.Module) -> torch.device:
    """Return where a model's parameters are; the CPU if it has none."""
    tensor = next(iter((*model.parameters(), *model.buffers())), None)
    return torch.device("cpu") if tensor is None else tensor.device
