"""The maps of the samples that a page shows: of a run's own weighting, by feature, and others."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn

from ifa.basis.projections import projections, weights_in
from ifa.chains import chain
from ifa.contest.mapped import weighting_of
from ifa.contest.methods import WEIGHTINGS
from ifa.declared import declared
from ifa.network.identity import model_token, origin_of, read_origin
from ifa.reports.packing import packed, quantized
from ifa.reports.sources import Source
from ifa.stages import combine, product, weighing
from ifa.taps.weighings import Weighing
from ifa.types import Features, Weighted
from ifa.weight import fullcam

DETAILED = 250  # samples whose map of each feature is on the page, at most
_DETAIL_BYTES = 5 * 2**20  # of these, and of features: others are summed
MAP_BYTES = 3 * 2**20
_CARD_BYTES = 3 * 2**19
_BATCH_BYTES = 2**26
_APART = 0.01  # of the scale: from how much on a map is not the run's


class Network(NamedTuple):
    """A network ready to make the maps of a run's layers."""

    where: str
    own: Weighing
    others: Weighing | None  # of the network as well, for what follows
    steps: tuple[Any, ...]  # from features to a map, of each other method
    names: tuple[str, ...]  # of weightings, the own first
    notes: list[str]

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Features and extents of each layer."""
        return [tuple(shape) for shape in self.own.tap.shapes]

    @property
    def batch(self) -> int:
        """How many samples are mapped at once."""
        return max(1, min(32, _BATCH_BYTES // (4 * sum(map(math.prod, self.shapes)))))


def network_of(
    where: str,
    source: Source,
    model: nn.Module,
    example: Any,
    *,
    weight: Any,
    basis: Any,
    methods: Sequence[str],
    options: Mapping[str, Any],
) -> Network:
    """Make a network ready; refuse it where its maps would not be the run's."""
    layers = source.layers
    if weight is None:
        weight = WEIGHTINGS[weighting_of(where, source.tree, layers[0])]
    turned: Any = None if basis is None else partial(projections, where=where, basis=basis)
    own = Weighing(where, model, tuple(layers), example, weight, basis=turned, **options)
    token = model_token(model, example)
    made = own.tap.score, options.get("grid"), options.get("output")
    for layer, each in zip(own.layers, weights_in(weight, basis, own.layers), strict=True):
        origin = origin_of(where, token, layer, each, *made)
        change = origin.difference(read_origin(source.tree[layer].attrs["origin"]))
        if change:
            raise ValueError(
                f"{where}: expected what the run's maps were made of, got another: {change}. Give "
                "weight=, score=, grid=, output= and basis= as they were given to ifa.analyze."
            )
    known = [name for name, one in WEIGHTINGS.items() if one is weight]
    kernels, notes = _kernels(where, weight, basis, methods)
    others = Weighing(where, model, own.layers, example, fullcam, **options) if kernels else None
    steps = tuple(chain(weighing(one, where), combine) for one in kernels.values())
    names = known[-1] if known else getattr(weight, "__name__", "the run's"), *kernels
    return Network(where, own, others, steps, names, notes)


def _kernels(
    where: str, weight: Any, basis: Any, methods: Sequence[str]
) -> tuple[dict[str, Any], list[str]]:
    """Choose the other methods, and say which ones cannot be drawn."""
    kernels, notes = {}, []
    for name in methods:
        if name not in WEIGHTINGS:
            listed = ", ".join(WEIGHTINGS)
            raise LookupError(f"{where}: expected methods from {listed}, got {name!r}.")
        one = WEIGHTINGS[name]
        if basis is not None or declared(one, "kind", "kernel") != "kernel":
            notes.append(f"No maps by {name}: only kernels are drawn beside, and of channels.")
        elif one is not weight:
            kernels[name] = one
    return kernels, notes


@dataclass
class Layer:
    """Maps of a layer as they are made, sample by sample in the page's order."""

    shape: tuple[int, ...]  # (feature, *grid)
    tops: np.ndarray  # (feature, rank): positions in the run
    detailed: int  # so many first samples have the map of each feature
    listed: np.ndarray  # the features that have one
    maps: list[np.ndarray] = field(default_factory=list)
    others: list[list[np.ndarray]] = field(default_factory=list)
    parts: list[np.ndarray] = field(default_factory=list)
    rest: list[np.ndarray] = field(default_factory=list)
    cards: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)
    total: Any = 0.0

    def add(self, positions: np.ndarray, parts: np.ndarray, others: Sequence[np.ndarray]) -> None:
        """Take the parts (sample, feature, *grid) of a batch, and maps by other methods."""
        seen = sum(map(len, self.maps))
        whole = parts.sum(1, dtype=np.float64)
        self.maps.append(whole.astype(np.float32))
        self.others.append([one.astype(np.float32) for one in others])
        self.total = self.total + parts.sum(0, dtype=np.float64)
        some = parts[: max(0, self.detailed - seen)]
        if len(some):
            self.parts.append(some[:, self.listed])
            left = whole[: len(some)] - some[:, self.listed].sum(1, dtype=np.float64)
            self.rest.append(left)
        for place, position in enumerate(positions.tolist()):
            for feature, rank in zip(*np.nonzero(self.tops == position), strict=True):
                self.cards[int(feature), int(rank)] = parts[place, feature]


def layer_of(shape: tuple[int, ...], tops: np.ndarray, importance: np.ndarray, share: int) -> Layer:
    """Make room for the maps of a layer, of as many samples, features and tops as fit."""
    features, places = shape[0], math.prod(shape[1:])
    budget = _DETAIL_BYTES // share
    most = max(1, min(features, budget // (20 * (places + 4))))
    listed = np.arange(features)
    if most < features:  # those that matter most to any target
        size = np.nan_to_num(np.abs(importance)).max(0)
        listed = np.sort(np.argsort(-size, kind="stable")[:most])
    detailed = min(DETAILED, budget // (len(listed) * (places + 4)))
    ranks = min(tops.shape[1], _CARD_BYTES // share // (features * (places + 4)))
    return Layer(shape, tops[:, :ranks], detailed, listed)


def observed(
    network: Network, inputs: Any, target: Tensor
) -> list[tuple[np.ndarray, list[np.ndarray]]]:
    """Map a batch: of each layer the parts of all features, and maps by the other methods."""
    own = network.own.observe(inputs, target, step=product).result
    parts = [one.detach().cpu().float().numpy() for one in own]
    if network.others is None:
        return [(one, []) for one in parts]
    beside = (partial(_every, steps=network.steps),) * len(network.own.layers)
    seen = network.others.observe(inputs, target, step=_nothing, beside=beside).result
    return [
        (one, [each.detach().cpu().float().numpy() for each in maps])
        for one, (_, maps) in zip(parts, seen, strict=True)
    ]


def _every(features: Features, steps: Any) -> tuple[Tensor, ...]:
    return tuple(step(features).values for step in steps)


def _nothing(weighted: Weighted) -> Tensor:
    return weighted.target


def check_maps(
    where: str, layer: str, maps: np.ndarray, known: Mapping[str, np.ndarray], ids: Sequence[str]
) -> None:
    """Refuse maps that are not those whose extremes the run has kept."""
    axes = tuple(range(1, maps.ndim))
    good = known["finite"]
    spread = np.ptp([known["map_min"][good].min(initial=0), known["map_max"][good].max(initial=0)])
    for name, found in (("map_max", maps.max(axes)), ("map_min", maps.min(axes))):
        off = np.abs(found - known[name]) > _APART * spread
        if (wrong := np.flatnonzero(off & good)).size:
            first = int(wrong[0])
            raise ValueError(
                f"{where}: expected maps of layer {layer} as the run has them, got {name} = "
                f"{found[first]:.4g} instead of {known[name][first]:.4g} for the sample "
                f"{ids[first]!r}, and {wrong.size} samples like it. Give the network and the data "
                "as they were when the run was made."
            )


def maps_part(
    layer: Layer, network: Network, place: int, positions: Any, every: bool
) -> tuple[dict[str, Any], list[str]]:
    """Pack the maps of a layer; `every` says whether they are those of all samples of the run."""
    maps, notes = np.concatenate(layer.maps), []
    methods = [{"name": network.names[0], "maps": quantized(maps, 1, 16), "scale": None}]
    for number, name in enumerate(network.names[1:]):
        values = np.concatenate([one[number] for one in layer.others])
        axes = tuple(range(1, values.ndim))
        low, high = np.median(values.min(axes)), np.quantile(values.max(axes), 0.9)
        scale = {"low": float(low), "high": float(high), "samples": len(values), "every": every}
        methods.append({"name": name, "maps": quantized(values, 1, 16), "scale": scale})
    start, step = (values.double().cpu().tolist() for values in positions)
    parts: dict[str, Any] | None = None
    features = layer.shape[0]
    if layer.parts:
        parts = {
            "samples": layer.detailed if len(maps) > layer.detailed else len(maps),
            "listed": packed(layer.listed),
            "maps": quantized(np.concatenate(layer.parts), 2),
            "rest": None,
        }
        if len(layer.listed) < features:
            parts["rest"] = quantized(np.concatenate(layer.rest), 1, 16)
            notes.append(
                f"Of the {features} features of {network.own.layers[place]} the maps of the "
                f"{len(layer.listed)} most important ones are on the page; the others are summed."
            )
    content = {
        "grid": list(layer.shape[1:]),
        "start": start,
        "step": step,
        "methods": methods,
        "parts": parts,
        "cards": _cards(layer),
        "mean": quantized(layer.total / len(maps), 1),
    }
    return content, notes


def _cards(layer: Layer) -> dict[str, Any] | None:
    """Pack the maps of the samples that speak most for each feature."""
    if not layer.tops.size:
        return None
    maps = np.zeros((*layer.tops.shape, *layer.shape[1:]), np.float32)
    there = np.zeros(layer.tops.shape, bool)
    for (feature, rank), one in layer.cards.items():
        maps[feature, rank], there[feature, rank] = one, True
    return {"maps": quantized(maps, 2), "there": packed(there)}
