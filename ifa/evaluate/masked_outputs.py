"""A network with many masks of a layer's channels, over a data set: what lies below runs once."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn
from torch.utils.data import Subset

from ifa.basis import Dictionary, digest, project
from ifa.checks import check_count
from ifa.evaluate.channels import Above, Channels, in_basis
from ifa.network.behaviour import Sketch, behaviour_of
from ifa.network.identity import model_token, network_digest, read_origin
from ifa.network.inputs import Shapes, moved, shapes_of, take
from ifa.network.replicas import device_of
from ifa.network.tokens import callable_token, short
from ifa.population.driver import Advance, Cuts, Job, Versions, drive
from ifa.population.passes import loaded, probed
from ifa.progress import Progress
from ifa.stages import by_output
from ifa.store.datasets import SCHEMA, array_of, joined, statistics_tree
from ifa.store.items import Batch, collate, data_set
from ifa.store.markers import Arrays
from ifa.store.references import ModelRef
from ifa.store.specs import Spaced, data_token
from ifa.store.specs import versions as versions_now
from ifa.store.tables import Column, Rows, Schema
from ifa.types import Grid, Inputs, Output

_TITLE = "ifa: a network with some channels of a layer"
# The mean that stands for a channel is over at most so many samples, evenly spaced.
LOOKED = 512


class Outcome(NamedTuple):
    """What is kept of outputs."""

    labels: Callable[[Batch, int], Tensor]  # (batch, its first sample) -> (sample, ...)
    of: Callable[[Tensor, Tensor], Tensor]  # (outputs (sample, output), labels) -> (sample, ...)
    name: str  # for the spec


class Pass(NamedTuple):
    """How a pass is made, as `ifa.analyze` says."""

    store: str | os.PathLike[str] | None
    data_version: str | None
    versions: Versions
    shard: int
    batch_size: int
    map: Any
    progress: Progress


class Laid(NamedTuple):
    """How outputs are picked, and layers laid out, as `ifa.tap` says."""

    output: Output = None
    grid: Grid | None = None
    grid_of: str | int | None = None


class Masks(NamedTuple):
    """Masks of channels or atoms, and what stands for those that they do not keep."""

    masks: tuple[Any, ...]  # each (channel,) or (output, channel), as `feature_perturbation` takes
    value: float | Tensor
    basis: Dictionary | None = None


class Seen(NamedTuple):
    """A batch at the layer."""

    batch: Batch
    activations: Tensor
    head: Above
    outputs: Tensor  # (sample, output), of the untouched network


@dataclass(frozen=True)
class CutNetwork:
    """A network that is cut at a layer, and its data. Other processes cut it anew."""

    where: str  # the public function, which errors name
    model: nn.Module
    layer: str | None
    laid: Laid
    data: Any
    example: Inputs  # of one sample

    def __getstate__(self) -> dict[str, Any]:
        made = ("channels", "token")
        return {key: value for key, value in vars(self).items() if key not in made}

    @cached_property
    def channels(self) -> Channels:
        return Channels(self.where, self.model, self.layer, self.example, *self.laid)

    @cached_property
    def token(self) -> dict[str, Any]:
        """Who the network is."""
        return model_token(self.model, self.example)

    @property
    def name(self) -> str:
        """The layer's."""
        return self.channels.layer

    @property
    def device(self) -> torch.device:
        return device_of(self.model)

    @property
    def shape(self) -> Shapes:
        return shapes_of(self.example)

    def see(self, batch: Batch) -> Seen:
        """Run a batch."""
        with torch.no_grad():
            activations, head = self.channels.below(moved(batch.inputs, self.device))
            outputs = head(activations)
        if not isinstance(outputs, Tensor) or outputs.ndim > 2:
            raise ValueError(
                f"{self.where}: expected a model with outputs (sample, output), got "
                f"{getattr(outputs, 'shape', type(outputs).__name__)}. Pick the tensor with "
                "output=."
            )
        return Seen(batch, activations, head, outputs.reshape(len(batch.ids), -1))

    def look(self, places: Sequence[int], batch_size: int) -> Iterator[Seen]:
        """Run some samples of the data, so many at once."""
        some = Subset(self.data, list(places))
        for start in range(0, len(some), batch_size):
            span = range(start, min(len(some), start + batch_size))
            yield self.see(collate(self.where, some, span, self.shape))


def cut_network(
    where: str,
    model: nn.Module | ModelRef,
    layer: str | None,
    data: Any,
    device: str | torch.device | None,
    laid: Laid,
) -> CutNetwork:
    """Load a network and cut it at a layer."""
    data = data_set(where, data)
    network = loaded(where, model, device)
    first = collate(where, data, range(1))
    example = moved(take(first.inputs, slice(1)), device_of(network))
    return CutNetwork(where, network, layer, laid, data, example)


def check_origin(network: CutNetwork, table: Any, basis: Dictionary | None) -> None:
    """Raise if a layer's statistics are another network's, layer's or basis'.

    Those made by hand do not say what they are of, and are taken.
    """
    written = table.attrs.get("origin")
    if written is None:
        return
    its = read_origin(written)
    mine = replace(
        its,
        network=network_digest(network.token),
        layer=network.name.removeprefix(f"{network.token['inside']}."),
        names=(network.token["class"].rpartition(".")[2], *its.names[1:]),
    )
    weight = json.loads(its.weight)
    first = weight["chain"][0] if isinstance(weight, dict) and "chain" in weight else None
    wanted = None if basis is None else callable_token(project(basis), network.where)
    turned = basis is not None or "atom" in table.dims
    difference = mine.difference(its)
    if difference is None and turned and first != wanted:
        difference = "importances of " + ("channels" if first is None else "atoms of another basis")
    if difference:
        raise ValueError(
            f"{network.where}: expected statistics of this network, layer and basis, got "
            f"{difference}. Give those that ifa.analyze makes of it, with the same basis."
        )


def evenly(total: int, most: int) -> list[int]:
    """Return the places of samples, evenly spaced."""
    return np.linspace(0, total - 1, min(total, most)).round().astype(int).tolist()


def mean_activations(network: CutNetwork, batch_size: int) -> Tensor:
    """Mean of every channel over samples and positions, (channel,) float64."""
    total, count = torch.zeros((), dtype=torch.float64), 0
    for seen in network.look(evenly(len(network.data), LOOKED), batch_size):
        values = seen.activations.transpose(0, 1).flatten(1)
        total = total + values.sum(1, dtype=torch.float64).cpu()
        count += values.shape[1]
    return total / count


@dataclass(frozen=True)
class Plan:
    """What is made of every batch; pickles when the network does."""

    network: CutNetwork
    fills: Mapping[str, tuple[Masks, ...]]  # of all the same number of masks
    outcome: Outcome

    def rows(self, span: range, batch: Batch) -> Rows:
        """Return what every mask makes of a batch."""
        seen, labels = self.network.see(batch), self.outcome.labels(batch, span.start)
        kept = [
            torch.cat([self._kept(seen, labels, masks) for masks in several], 1)
            for several in self.fills.values()
        ]
        full = self.outcome.of(seen.outputs, labels.to(seen.outputs.device))
        return {
            "": {
                "id": np.array(batch.ids, dtype=object),
                "label": labels.numpy(),
                "full": array_of(full),
                "kept": array_of(torch.stack(kept, 1)),
            }
        }

    def _kept(self, seen: Seen, labels: Tensor, some: Masks) -> Tensor:
        """Return what masks of one basis make of a batch, (sample, mask, ...)."""
        run, where = self.network.channels, self.network.where
        values, head = in_basis(where, seen.activations, seen.head, some.basis)
        found = []
        for mask in some.masks:
            outputs = run.masked(values, head, mask, baseline=some.value)
            outputs = outputs.reshape(len(labels), -1)
            found.append(self.outcome.of(outputs, labels.to(outputs.device)))
        return torch.stack(found, 1)


def masked_outputs(plan: Plan, asked: Pass) -> xr.Dataset:
    """Run a data set with every mask: ``kept(sample, fill, mask, ...)``, ``full(sample, ...)``.

    Also `id` and `label`. What lies below the layer runs once for each batch. Of a store they are
    read when they are used.
    """
    network = plan.network
    where, data = network.where, network.data
    check_count(where, "shard", asked.shard)
    check_count(where, "batch_size", asked.batch_size)
    items = Spaced(where, data, network.shape)
    first = collate(where, data, range(min(2, len(data))), network.shape)
    schema = _schema(plan, plan.rows(range(len(first.ids)), first))
    spec = _spec(plan, asked, items)
    job = Job(
        where=where,
        label="mask channels",
        cuts=Cuts(data, network.shape, asked.shard, asked.batch_size, None),
        spec=spec,
        schema=schema,
        coords={},
        work=partial(_one_shard, plan, schema),
        finish=partial(_finished, spec=spec),
        check=lambda span, batch: plan.outcome.labels(batch, span.start),
        probe=partial(_behaviour, network, items, asked.batch_size),
    )
    tree = drive(
        job, store=asked.store, map=asked.map, progress=asked.progress, versions=asked.versions
    )
    return tree["samples"].to_dataset().assign_coords(fill=np.array([*plan.fills], dtype=object))


def _spec(plan: Plan, asked: Pass, items: Spaced) -> dict[str, Any]:
    network = plan.network
    return {
        "schema": SCHEMA,
        "masked": 1,
        "versions": versions_now(),
        "model": network.token,
        "data": data_token(network.where, network.data, asked.data_version, items),
        "layers": [network.name],
        "fills": {name: short([*map(_token, several)]) for name, several in plan.fills.items()},
        "outcome": plan.outcome.name,
        **{name: callable_token(value) for name, value in network.laid._asdict().items()},
        "shard": asked.shard,
        "batch_size": asked.batch_size,
        "device": network.device.type,
        "threads": torch.get_num_threads(),
    }


def _token(some: Masks) -> Any:
    """Identify masks, a value and a basis, of whatever kind of array."""
    numbers = [by_output("ifa", "a mask", one).double() for one in (*some.masks, some.value)]
    basis = None if some.basis is None else digest(some.basis)
    return [*map(callable_token, numbers), basis]


def _schema(plan: Plan, rows: Rows) -> Schema:
    """Lay out the table as some rows of it are."""
    samples, said = (
        len(plan.network.data),
        {
            "id": ("identity of the sample", ()),
            "label": ("ground truth", ("label_output",)),
            "full": ("with every channel", ("output",)),
            "kept": ("with some channels", ("fill", "mask", "output")),
        },
    )
    columns = {}
    for name, values in rows[""].items():
        text, dims = said[name]
        kind = "str" if values.dtype == object else values.dtype.str
        dims = ("sample", *dims)[: values.ndim]
        columns[name] = Column(dims, (samples, *values.shape[1:]), kind, text)
    return {"": columns}


def _one_shard(
    plan: Plan, schema: Schema, batches: Iterable[tuple[range, Batch]], advance: Advance
) -> tuple[Arrays, Rows]:
    tables: list[Rows] = []
    for span, batch in batches:
        tables.append(plan.rows(span, batch))
        advance(len(span))
    rows = joined(tables, schema)
    return {"samples": np.array(len(rows[""]["id"]))}, rows


def _finished(shards: Iterable[Arrays], *, spec: Any) -> xr.DataTree:
    for _ in shards:  # every marker must be readable
        pass
    return statistics_tree({}, spec, {}, _TITLE)


def _behaviour(network: CutNetwork, items: Spaced, size: int) -> dict[str, Any]:
    """Sketch the activations and outputs of the network on some samples."""
    output, layer, samples, dtype = Sketch(), Sketch(), 0, torch.float32
    for inputs in probed(items, size):
        with torch.no_grad():
            activations, head = network.channels.below(moved(inputs, network.device))
            found = head(activations)
        samples, dtype = samples + len(activations), activations.dtype
        output.add(found)
        layer.add(activations)
    return behaviour_of(samples, dtype, output, {network.name: {"activations": layer.numbers()}})
