"""The samples that a page shows: read, checked, drawn and mapped, a few at a time."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from ifa.network.inputs import at, grid_place, joined, moved, space_of, take
from ifa.network.replicas import device_of
from ifa.plot.pictures import Look
from ifa.progress import Progress, reporting
from ifa.reports import mapping
from ifa.reports.features import Layer
from ifa.reports.inputs import BYTES, Shown, drawn, input_bytes, inputs_part
from ifa.reports.sources import Rows, Source, extremes_of
from ifa.store.items import Batch, collate, numbers_of


class Asked(NamedTuple):
    """How samples are shown."""

    where: str
    model: nn.Module | None
    weight: Any
    basis: Any
    methods: tuple[str, ...]
    options: Mapping[str, Any]
    look: Look
    progress: Progress


class Pictured(NamedTuple):
    """What the page has of the samples that it shows."""

    chosen: np.ndarray  # positions in the run, in the page's order
    inputs: Any
    maps: list[Any]  # of each layer
    notes: list[str]


def shown_part(
    source: Source,
    rows: Rows,
    layers: Sequence[Layer],
    data: Any,
    order: np.ndarray,
    samples: int,
    asked: Asked,
) -> Pictured:
    """Read the first samples of an order, as many as fit, and make their maps."""
    first = _read(asked.where, data, rows, order[:1])
    network = _network(asked, source, data)
    rank = _rank(asked, network, first)
    picture = drawn(asked.where, first.inputs, asked.look, asked.options.get("grid_of"), rank)
    count = _count(len(order), samples, picture, network)
    order = order[:count]
    share = len(layers)
    made = []
    if network is not None:
        pairs = zip(network.shapes, layers, strict=True)
        made = [mapping.layer_of(shape, one.tops, one.importance, share) for shape, one in pairs]
    pictures: list[Shown] = []
    size = 32 if network is None else network.batch
    with reporting(asked.progress, "report", count) as advance:
        for chunk in np.split(order, range(size, count, size)):
            batch = _read(asked.where, data, rows, chunk)
            if picture is not None:
                pictures += _pictures(asked, batch, len(chunk), rank)
            if network is not None and asked.model is not None:
                target = torch.as_tensor(rows.target[chunk])
                seen = mapping.observed(network, *_on(asked.model, batch.inputs, target))
                for one, (parts, others) in zip(made, seen, strict=True):
                    one.add(chunk, parts, others)
            advance(len(chunk))
    return _packed(source, rows, order, pictures, network, made, first)


def _packed(
    source: Source,
    rows: Rows,
    order: np.ndarray,
    pictures: list[Shown],
    network: mapping.Network | None,
    made: list[mapping.Layer],
    first: Batch,
) -> Pictured:
    """Check the maps against the run's, and pack all of it."""
    notes, inputs = [], None
    if pictures:
        names = [str(one) for one in range(pictures[0].values.shape[0])]
        inputs, said = inputs_part(pictures, names)
        notes += said
    else:
        notes.append("Inputs are not drawn: they have no grid with as many axes as the maps.")
    if len(order) < len(rows.id):
        notes.append(f"{len(order)} of {len(rows.id)} samples are shown: see samples=.")
    if network is None:
        return Pictured(order, inputs, [None] * len(source.layers), notes)
    notes += network.notes
    maps = []
    own = network.own
    device = device_of_inputs(first.inputs)
    positions = own.positions(moved(joined([first.inputs, first.inputs]), device))
    for place, (name, one) in enumerate(zip(source.layers, made, strict=True)):
        known = extremes_of(source, name, rows)
        known = {key: values[order] for key, values in known.items()}
        ids = [str(rows.id[place]) for place in order]
        mapping.check_maps(network.where, name, np.concatenate(one.maps), known, ids)
        content, said = mapping.maps_part(
            one, network, place, positions[place], len(order) == len(rows.id)
        )
        maps.append(content)
        notes += said
    detailed = min(one.detailed for one in made)
    if detailed < len(order):
        notes.append(
            f"{detailed} of the {len(order)} samples shown have the map of each feature, so that "
            "features can be kept and left out."
        )
    return Pictured(order, inputs, maps, notes)


def device_of_inputs(inputs: Any) -> torch.device:
    """Return where inputs are."""
    place = grid_place("ifa.report", inputs)
    return at(inputs, place).device


def _network(asked: Asked, source: Source, data: Any) -> mapping.Network | None:
    if asked.model is None:
        return None
    example = collate(asked.where, data, range(min(2, len(data)))).inputs
    example = moved(example, device_of(asked.model))
    return mapping.network_of(
        asked.where,
        source,
        asked.model,
        example,
        weight=asked.weight,
        basis=asked.basis,
        methods=asked.methods,
        options=asked.options,
    )


def _on(model: nn.Module, inputs: Any, target: torch.Tensor) -> tuple[Any, torch.Tensor]:
    device = device_of(model)
    return moved(inputs, device), target.to(device)


def _rank(asked: Asked, network: mapping.Network | None, first: Batch) -> int:
    """Return how many axes of space maps have, or else the input."""
    if network is not None:
        return len(network.shapes[0]) - 1
    place = grid_place(asked.where, first.inputs, asked.options.get("grid_of"))
    return len(space_of(at(first.inputs, place)))


def _count(there: int, samples: int, picture: Shown | None, network: mapping.Network | None) -> int:
    """Return how many samples fit on the page."""
    count = min(there, samples)
    if picture is not None:
        count = min(count, BYTES // input_bytes(picture))
    if network is not None:
        each = sum(2 * math.prod(shape[1:]) + 4 for shape in network.shapes)
        count = min(count, mapping.MAP_BYTES // (each * len(network.names)))
    return max(1, count)


def _pictures(asked: Asked, batch: Batch, count: int, rank: int) -> list[Shown]:
    each = (take(batch.inputs, slice(place, place + 1)) for place in range(count))
    grid_of = asked.options.get("grid_of")
    made = (drawn(asked.where, one, asked.look, grid_of, rank) for one in each)
    return [one for one in made if one is not None]


def _read(where: str, data: Any, rows: Rows, positions: np.ndarray) -> Batch:
    """Read samples, and refuse those that are not the run's by label or id."""
    parts = [collate(where, data, range(place, place + 1)) for place in positions.tolist()]
    for place, one in zip(positions.tolist(), parts, strict=True):
        label, known = numbers_of(one.labels[0]), np.ravel(rows.label[place])
        same = len(label) == len(known) and np.allclose(label, known, equal_nan=True)
        if one.ids[0] != str(rows.id[place]) or not same:
            raise ValueError(
                f"{where}: expected the data of the run, with the id {str(rows.id[place])!r} and "
                f"the label {known.tolist()} as sample {place}, got {one.ids[0]!r} and "
                f"{label.tolist()}. Give the data set that it was made of."
            )
    return Batch(joined([one.inputs for one in parts]), [], [], np.zeros((0, 16), np.uint8))
