"""One pass over a population: a network made ready, and what is asked of every batch."""

import copy
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ifa.basis import Dictionary
from ifa.basis.projections import by_layer, projections, weights_in
from ifa.chains import describe
from ifa.checks import check_device
from ifa.declared import declared
from ifa.network.behaviour import Sketch, behaviour_of
from ifa.network.gradients import score_all
from ifa.network.identity import model_token, network_difference, origin_of
from ifa.network.inputs import count, joined, moved, take
from ifa.network.outputs import every_tensor
from ifa.network.probabilities import heed_outputs, reads
from ifa.network.replicas import check_module, device_of, plain
from ifa.network.tokens import callable_token
from ifa.population.contract import Kept, check_kind, here
from ifa.population.options import Options, check_layers, check_task
from ifa.reduce.verdicts import FLAGS, Task, said
from ifa.score.rows import classes_at, rows_of
from ifa.store.datasets import SCHEMA, array_of
from ifa.store.items import (
    Batch,
    class_labels,
    collate,
    flag_labels,
    numbers_of,
    real_labels,
)
from ifa.store.references import ModelRef
from ifa.store.specs import Spaced, data_token, versions
from ifa.store.tables import Column, Schema
from ifa.taps.features import Observation
from ifa.taps.weighings import Weighing
from ifa.types import Inputs, Score, Step, Weighted

Steps = Step | tuple[Step, ...]


@dataclass(frozen=True)
class Recipe:
    """All that an engine is made of, so that another process can make it again."""

    where: str  # the public function, which errors name
    model: nn.Module | ModelRef
    example: Inputs
    options: Options
    device: str | torch.device | None


class Engine:
    """A network made ready. Of a model by reference, only the reference goes to other processes."""

    def __init__(self, recipe: Recipe, model: nn.Module):
        model = plain(model)  # what runs of a compiled one
        self.recipe, self.key = recipe, uuid.uuid4().hex
        self.device, options = device_of(model), recipe.options
        layers, example = options.layer, moved(recipe.example, self.device)
        given = options.basis
        basis = None if given is None else partial(projections, where=recipe.where, basis=given)
        self.made = Weighing(
            recipe.where,
            model,
            tuple(layers) if isinstance(layers, list) else layers,
            example,
            options.weight,
            score=options.score,
            grid=options.grid,
            output=options.output,
            grid_of=options.grid_of,
            compile=options.compile,
            basis=basis,
        )
        self.tap, self.layers = self.made.tap, self.made.layers
        made_of = options.score, options.grid, options.output
        self.token = model_token(model, example)
        weights = weights_in(options.weight, given, self.layers)
        self.origins = {
            layer: origin_of(recipe.where, self.token, layer, weight, *made_of)
            for layer, weight in zip(self.layers, weights, strict=True)
        }

    def __reduce_ex__(self, protocol: Any) -> Any:
        if isinstance(self.recipe.model, ModelRef):
            return _engine, (self.key, self.token, self.recipe, self.device.type)
        return super().__reduce_ex__(protocol)

    @cached_property
    def channels(self) -> tuple[int, ...]:
        """How many channels the weighting gives of each layer: a step's may be others."""
        if declared(self.recipe.options.weight, "kind", "kernel") == "kernel":
            return self.features
        seen = self.observe(self.recipe.example, 0, _one_position)
        return tuple(each.shape[-1] for each in seen.result)

    @cached_property
    def bases(self) -> tuple[Dictionary | None, ...]:
        """The dictionary of each layer, if there is one."""
        basis = self.recipe.options.basis
        if basis is None:
            return (None,) * len(self.layers)
        extents = tuple(shape[0] for shape in self.tap.shapes)
        return tuple(by_layer(self.recipe.where, basis, self.layers, extents).values())

    @property
    def features(self) -> tuple[int, ...]:
        """How many features of each layer are weighed: its channels, or the atoms."""
        pairs = zip(self.tap.shapes, self.bases, strict=True)
        return tuple(shape[0] if one is None else len(one.atoms) for shape, one in pairs)

    @property
    def outputs(self) -> int:
        """How many outputs the network has; an error where they are not (sample, output).

        Of a task that is scored they are classes: those of the score's table, or the first axis.
        """
        shape, options = self.tap.output_shape, self.recipe.options
        rows = rows_of(options.score)
        if rows is not None:  # there may be more names than classes that occur
            names = getattr(options, "target_names", None) or ()
            return max(int(rows.classes.max()) + 1, len(names))
        if shape is not None and options.task == "scored":
            return (*shape, 1)[0]
        if shape is None or len(shape) > 1:
            raise ValueError(
                f"{self.recipe.where}: expected a model with outputs (sample, output), got "
                f"{shape or 'no tensor'} for each sample. Pick the tensor with output=; of a "
                "detector, a segmenter or an embedding say task='scored', with such a score."
            )
        return (*shape, 1)[0]

    def observe(
        self,
        inputs: Inputs,
        target: Tensor | int | None,
        step: Steps,
        beside: Sequence[Step | None] = (),
    ) -> Observation:
        """Run one batch; the result is what `step` makes of each layer's `Weighted`.

        With a step `beside` it is a pair: also what that makes of the layer's `Features`.
        """
        return self.made.observe(moved(inputs, self.device), target, step=step, beside=beside)

    def outputs_of(self, inputs: Inputs) -> Tensor:
        """Run one batch for its outputs alone."""
        inputs = moved(inputs, self.device)
        target = torch.zeros(count(inputs), dtype=torch.int64, device=self.device)
        with torch.no_grad():
            return self.tap.output_of(inputs, target, None, lambda call, tensor: tensor)

    def behaviour(self, items: Iterable[Batch], target: int | None) -> dict[str, Any]:
        """Sketch what the network computes on some samples, for `network_difference`.

        The output, the activations of every layer and, where the weighting reads them, the
        gradients of one target, or where that is None of each sample's label; and the weights that
        it makes of them, so that whatever it reads is seen. Builders, which run the network many
        times, and perturbations are not run.
        """
        options, samples = self.recipe.options, 0
        output, layers = Sketch(), [dict[str, Sketch]() for _ in self.layers]
        for part in portions(items, options.batch_size):
            batch = joined([item.inputs for item in part])
            labels = [label for item in part for label in item.labels]
            each = [int(numbers_of(label)[0]) if target is None else target for label in labels]
            asked = torch.tensor(each)
            size, whole = count(batch), count(self.recipe.example)
            if options.compile:  # it is for batches like the example
                repeats = torch.arange(whole) % size
                batch, asked = take(batch, repeats), asked[repeats]
            seen = self.made.look(moved(batch, self.device), asked)
            samples += size
            shown = seen.output
            shown = shown[:size] if isinstance(shown, list) else take(shown, slice(size))
            for tensor in every_tensor(shown):
                output.add(tensor)
            for (record, weights), sketches in zip(seen.result, layers, strict=True):
                parts = {"activations": record.activations, "weights": weights}
                if self.tap.reads_gradients:
                    parts["gradients"] = record.gradients
                for kind, part in parts.items():
                    if part is not None:
                        sketches.setdefault(kind, Sketch()).add(part[:size])
        each = {
            layer: {kind: one.numbers() for kind, one in sketches.items()}
            for layer, sketches in zip(self.layers, layers, strict=True)
        }
        return behaviour_of(samples, self.tap.sites[0].dtype, output, each)


def probed(items: Iterable[Batch], size: int) -> Iterator[Inputs]:
    """Yield the inputs that a network's behaviour is looked at on, so many at once."""
    for part in portions(items, size):
        yield joined([item.inputs for item in part])


def portions(items: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Yield so many items at once."""
    each = iter(items)
    while part := list(islice(each, size)):
        yield part


def _one_position(weighted: Weighted) -> Tensor:
    return weighted.activations.flatten(1)[:, 0]


# The last engines and networks that were made of references in this process.
_ENGINES, _NETWORKS = Kept(2), Kept(2)


def _engine(key: str, token: dict[str, Any], recipe: Recipe, device: str) -> Engine:
    """Make the engine of a reference once in each process."""

    def made() -> Engine:
        engine = Engine(recipe, loaded(recipe.where, recipe.model, recipe.device))
        check_kind(recipe.where, device, engine.device.type)
        _check_token(recipe.where, token, engine.token)
        return engine

    return _ENGINES.get(key, made)


@dataclass(frozen=True)
class Loaded:
    """A network and its token; of one by reference, only the reference goes to other processes."""

    where: str
    source: nn.Module | ModelRef
    example: Inputs
    asked: str | torch.device | None  # the device that was asked for
    model: nn.Module
    token: dict[str, Any]
    key: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __reduce__(self) -> Any:
        kind = device_of(self.model).type
        parts = self.where, self.source, self.example, self.asked
        if isinstance(self.source, ModelRef):
            return _network, (self.key, self.token, kind, *parts)
        return Loaded, (*parts, self.model, self.token, self.key)


def network(
    where: str, source: nn.Module | ModelRef, example: Inputs, device: str | torch.device | None
) -> Loaded:
    """Make a network ready where it runs as it is."""
    model = loaded(where, source, device)
    token = model_token(model, moved(example, device_of(model)))
    return Loaded(where, source, example, device, model, token)


def _network(key: str, token: dict[str, Any], kind: str, where: str, *parts: Any) -> Loaded:
    """Load a network by its reference once in each process."""

    def made() -> Loaded:
        found = network(where, *parts)
        check_kind(where, kind, device_of(found.model).type)
        _check_token(where, token, found.token)
        return found

    return _NETWORKS.get(key, made)


def _check_token(where: str, token: dict[str, Any], found: dict[str, Any]) -> None:
    """Raise unless this process made the same network."""
    difference, _ = network_difference(token, found)
    if difference:
        raise ValueError(
            f"{where}: expected the model reference to give the same network in every process, got "
            f"another in {here()}: {difference}. Set what is random in the factory, leave the file "
            "of weights as it is while this runs, and let all read the same one."
        )


def loaded(where: str, model: nn.Module | ModelRef, device: str | torch.device | None) -> nn.Module:
    """Load a reference, and move a copy of a model to the device asked for."""
    check_device(where, device)
    if not isinstance(model, ModelRef):
        check_module(where, model)
    if isinstance(model, ModelRef):
        model = model.load()
        return model if device is None else model.to(device)
    return model if device is None else copy.deepcopy(model).to(device)


class Looked(NamedTuple):
    """What one batch gives."""

    label: Tensor
    prediction: Tensor
    seen: Observation
    row: dict[str, np.ndarray]  # of the sample table, what does not depend on the layer


@dataclass(frozen=True)
class Question:
    """What is asked of every sample: the labels' kind, and which outputs are explained."""

    engine: Engine
    targets: str | tuple[int, ...]
    rows: tuple[int, ...]  # the output of each row of the statistics
    task: Task
    numbers: int  # how many a label has

    @property
    def many(self) -> bool:
        """Whether all rows are explained for every sample."""
        one_each = self.task in ("classification", "scored")
        return self.targets not in ("predicted", "label") or not one_each

    @property
    def score(self) -> Score:
        """What is explained of an output."""
        return self.engine.recipe.options.score

    @property
    def unit(self) -> str:
        """What the score is measured in, for labels: its name, or of an output as it is its own."""
        if not declared(self.score, "picks", False):
            return self.engine.tap.unit
        if self.task == "regression":
            return "output"
        return "logit" if reads(self.score) == "logits" else "probability"

    def look(
        self, indices: range, batch: Batch, step: Steps, beside: Sequence[Step | None] = ()
    ) -> Looked:
        """Run a batch."""
        label = self.labels(indices, batch)
        every = torch.tensor(self.rows)[:, None].expand(-1, len(indices))
        target = every if self.many else label if self.targets == "label" else None
        seen = self.engine.observe(batch.inputs, target, step, beside)
        if self.task == "scored":
            label, prediction = self._found(label, seen)
        else:
            seen = seen._replace(output=seen.output.detach().reshape(len(indices), -1))
            prediction = self.predictions(seen.output)
        row = {
            "id": np.array(batch.ids, dtype=object),
            "label": label.numpy(),
            "prediction": array_of(prediction),
            "score": array_of(seen.score),
        }
        return Looked(label, prediction, seen, row)

    def _found(self, asked: Tensor, seen: Observation) -> tuple[Tensor, Tensor]:
        """Return the class that each label is about, and where its score finds something again."""
        asked, value = asked.to(seen.score.device), seen.score
        if self.many:  # the label may be none of what is explained
            where = self.engine.recipe.where
            value = score_all(where, self.score, seen.output, asked)
        label = classes_at(self.score, asked)
        found = value.isfinite() & (value != 0)
        return label.cpu(), torch.where(found, label, -1)

    def labels(self, indices: range, batch: Batch) -> Tensor:
        """Return what a batch's labels are; an error for one that is none."""
        where, outputs = self.engine.recipe.where, self.engine.outputs
        if self.task == "classification":
            return class_labels(where, batch, indices.start, outputs)
        if self.task == "scored":
            table = rows_of(self.score)
            if table is None:
                return class_labels(where, batch, indices.start, outputs)
            known = len(table.classes), "the rows of the score's table"
            return class_labels(where, batch, indices.start, *known)
        if self.task in FLAGS:
            return flag_labels(where, batch, indices.start, outputs)
        return real_labels(where, batch, indices.start, self.numbers)

    def predictions(self, output: Tensor) -> Tensor:
        """Return what is predicted of each sample, (sample,), or of each output as well."""
        if self.task == "classification":
            return output.argmax(1)
        if self.task in FLAGS:
            output = said(output, self._ends_in_chances(output))
        return output.squeeze(1)

    def certainty(self, output: Tensor) -> Tensor:
        """Return the probability of what is predicted, (sample,) or (target, sample), float64."""
        chances, output = self._ends_in_chances(output), output.double()
        if self.task == "classification":
            return (output if chances else output.softmax(1)).amax(1)
        output = output if chances else output.sigmoid()
        return torch.maximum(output, 1 - output).T[list(self.rows)]

    def _ends_in_chances(self, output: Tensor) -> bool:
        """Tell whether outputs are probabilities, as the score takes them; raise if they cannot."""
        if reads(self.score) != "probabilities":
            return False
        if ((output < 0) | (output > 1)).any():
            raise ValueError(
                f"{self.engine.recipe.where}: expected outputs from 0 to 1, which the score "
                f"{describe(self.score)} takes for probabilities, got {float(output.min()):.4g} … "
                f"{float(output.max()):.4g}. Of a network that ends in logits take ifa.score.logit."
            )
        return True

    def probe(self, items: Iterable[Batch]) -> dict[str, Any]:
        """Sketch what the network computes on some samples."""
        by_label = self.task == "scored" and self.targets == "label"
        return self.engine.behaviour(items, None if by_label else self.rows[0])

    def heed(self, items: Iterable[Batch]) -> None:
        """Warn of outputs that are no logits, seen on some samples, where they are taken so."""
        flags, taken = self.task in FLAGS, reads(self.score)
        if not flags and (self.task != "classification" or taken != "logits"):
            return
        if taken == "probabilities":
            return
        where, size = self.engine.recipe.where, self.engine.recipe.options.batch_size
        # shares are seen on two samples, chances may lie in 0 … 1 by chance
        seen = items if flags else islice(items, 2)
        parts = [self.engine.outputs_of(inputs) for inputs in probed(seen, size)]
        output = torch.cat([part.reshape(len(part), -1) for part in parts])
        heed_outputs(where, self.score, output, flags=flags)

    def each(self, samples: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Return dimensions and extents of one value for each sample and explained target."""
        if self.many:
            return ("target", "sample"), (len(self.rows), samples)
        return ("sample",), (samples,)

    def schema(self, samples: int) -> Schema:
        """Lay out what the sample table holds whatever the layer."""
        outputs = self.engine.outputs
        one, wide = (("sample",), (samples,)), (("sample", "output"), (samples, outputs))
        kind = "<f8" if self.task == "regression" else "<i8"
        several = self.task not in ("classification", "scored") and outputs > 1
        return {
            "": {
                "id": Column(*one, "str", "identity of the sample"),
                "label": Column(*(wide if self.numbers > 1 else one), kind, "ground truth"),
                "prediction": Column(*(wide if several else one), kind, "prediction"),
                "score": Column(
                    *self.each(samples), "<f8", "score of the explained target", self.unit
                ),
            }
        }


def question_of(engine: Engine, options: Options, rows: tuple[int, ...], first: Any) -> Question:
    """Make a question of options; `first` is the first sample's label."""
    targets = options.targets if isinstance(options.targets, str) else rows
    where, task, outputs = engine.recipe.where, options.task, engine.outputs
    fixed = {"classification": 1, "scored": 1, "regression": len(numbers_of(first))}
    numbers = fixed.get(task, outputs)
    table = rows_of(options.score)
    if table is not None and not isinstance(targets, str):
        own = table.classes[: max(rows) + 1]
        if len(own) <= max(rows) or own[list(rows)].tolist() != list(rows):
            raise ValueError(
                f"{where}: expected targets='label' for a score of which several rows are of one "
                f"class, got {list(rows)}. Rows that are listed are explained for every sample, "
                "and have statistics of their own: leave their classes out."
            )
    if task == "regression" and numbers not in (1, outputs):
        raise ValueError(
            f"{where}: expected one real label, or one for each of {outputs} outputs, got "
            f"{first!r} for sample 0."
        )
    check_task(where, task, outputs)
    return Question(engine, targets, rows, task, numbers)


def ready(
    where: str,
    model: nn.Module | ModelRef,
    data: Any,
    options: Options,
    example: Inputs | None,
    device: str | torch.device | None,
) -> tuple[Engine, Any, Inputs]:
    """Make the engine of a driver; return it with the first label and what inputs are like."""
    first = collate(where, data, range(min(2, len(data))))
    like: Inputs = first.inputs if example is None else example
    if options.compile:  # it is for batches like the example
        rows = torch.arange(min(options.batch_size, len(data)))
        like = take(like, rows % count(like))
    engine = Engine(Recipe(where, model, like, options, device), loaded(where, model, device))
    check_layers(where, engine.layers)
    return engine, first.labels[0], like


def spec_of(question: Question, items: Spaced, options: Options) -> dict[str, Any]:
    """Return what determines the result of every driver."""
    engine = question.engine
    return {
        "schema": SCHEMA,
        "versions": versions(),
        "model": engine.token,
        "data": data_token(items.where, items.data, options.data_version, items),
        "layers": list(engine.layers),
        "targets": callable_token(question.targets),
        "device": engine.device.type,
        **options.spec(engine.recipe.where),
    }
