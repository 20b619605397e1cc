"""The reductions of all layers together: their states in a file of a shard, and their labels."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map, tree_unflatten

from ifa.reduce.core import absorbing
from ifa.reduce.extras import EXTRAS, always, asked
from ifa.reduce.kept import Observed, Shape, Statistic
from ifa.reduce.second_moments import Rows
from ifa.store.datasets import Axes, labeled, layer_coords, leaves, of_atoms
from ifa.store.markers import Arrays
from ifa.types import Reduction

# For each layer, the state of every reduction by its name.
States = list[dict[str, Any]]


@dataclass(frozen=True)
class Measures:
    """What is measured of each layer."""

    layers: tuple[str, ...]
    channels: tuple[int, ...]  # of each layer
    axes: Axes
    extras: Mapping[str, Statistic] = field(default_factory=dict)
    listed: bool = False  # whether targets are a list, which each sample has all of
    atoms: bool = False  # whether channels are atoms of a basis
    exclusive: bool = False  # whether one of the targets is right

    @property
    def always(self) -> tuple[str, ...]:
        """What is kept in any case."""
        return tuple(always(self.listed, self.atoms))

    @property
    def statistics(self) -> dict[str, Statistic]:
        """All that is kept."""
        return {**always(self.listed, self.atoms), **self.extras}

    def asked(self, over: Literal["entries", "positions"]) -> tuple[str, ...]:
        """Names of the extras over such batches."""
        return tuple(name for name, one in self.extras.items() if one.over == over)

    @cached_property
    def reductions(self) -> list[dict[str, Reduction]]:
        """The reductions of each layer, over `Observed` batches."""
        sizes = len(self.axes.targets), len(self.axes.groups or "1")
        return [
            {
                name: statistic.reduction(
                    Shape(*sizes, channels, self.axes.quantiles, self.exclusive)
                )
                for name, statistic in self.statistics.items()
            }
            for channels in self.channels
        ]

    @cached_property
    def empty(self) -> States:
        """States of no sample."""
        return [
            {
                name: reduction.init(_nothing(channels, self.statistics[name].over))
                for name, reduction in each.items()
            }
            for each, channels in zip(self.reductions, self.channels, strict=True)
        ]

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is made of the rest: it may not pickle."""
        return {name: vars(self)[name] for name in self.__dataclass_fields__}

    def bytes(self) -> int:
        """How much memory the states of the extras take before there is a sample."""
        states = [each[name] for each in self.empty for name in self.extras]
        return sum(leaf.numel() * leaf.element_size() for leaf in tree_flatten(states)[0])

    def check(self, where: str) -> None:
        """Raise where the states of a user's reduction are no tensors, or it has no labels."""
        for each, reductions, channels in zip(
            self.empty, self.reductions, self.channels, strict=True
        ):
            for name, statistic in self.extras.items():
                if statistic in EXTRAS.values():
                    continue
                if not all(isinstance(leaf, Tensor) for leaf in tree_flatten(each[name])[0]):
                    raise TypeError(
                        f"{where}: expected the state of reductions[{name!r}] to be a tree of "
                        f"tensors, got {each[name]!r}."
                    )
                try:
                    result = reductions[name].finalize(each[name])
                    labeled(name, statistic, result, self.axes, "", channels)
                except Exception as error:
                    raise ValueError(
                        f"{where}: expected reductions[{name!r}] to finalize the state of no "
                        f"sample to what its variables say, got {type(error).__name__}: {error}."
                    ) from error

    def update(
        self, state: dict[str, Any], position: int, batch: Observed | Rows, names: Iterable[str]
    ) -> None:
        """Add a batch to the states of one layer, which are replaced."""
        for name in names:
            reduction = self.reductions[position][name]
            if name not in state:  # the first batch says on which device and of which dtype it is
                state[name] = tree_map(torch.clone, reduction.init(batch))
            state[name] = absorbing(reduction)(state[name], batch)

    def merged(self, a: States | None, b: States) -> States:
        """Merge the states of two parts of the data."""
        if a is None:
            return b
        return [
            {name: reduction.merge(x[name], y[name]) for name, reduction in each.items()}
            for each, x, y in zip(self.reductions, a, b, strict=True)
        ]

    def datasets(self, shards: Iterable[Arrays], unit: str) -> dict[str, xr.Dataset]:
        """Merge the states of all shards, in their order, and label the statistics."""
        states: States | None = None
        for arrays in shards:
            states = self.merged(states, self.unpacked(arrays))
        found = {}
        for layer, channels, each, state in zip(
            self.layers, self.channels, self.reductions, states or [], strict=True
        ):
            parts = [
                labeled(
                    name, statistic, each[name].finalize(state[name]), self.axes, unit, channels
                )
                for name, statistic in self.statistics.items()
            ]
            whole = xr.merge(parts).assign_coords(layer_coords(self.axes))
            found[layer] = of_atoms(whole) if self.atoms else whole
        return found

    def packed(self, states: States) -> Arrays:
        """Name every leaf of the states, for a file."""
        return {
            f"{_place(position, name)}{path}": values
            for position, each in enumerate(states)
            for name, state in each.items()
            for path, values in leaves(state).items()
        }

    def unpacked(self, arrays: Mapping[str, np.ndarray]) -> States:
        """Take states from a file's arrays."""

        def restored(place: str, like: Any) -> Any:
            paths = [f"{place}{path}" for path in leaves(like)]
            spec: TreeSpec = tree_flatten(like)[1]
            return tree_unflatten([torch.from_numpy(arrays[path]) for path in paths], spec)

        return [
            {name: restored(_place(position, name), like) for name, like in each.items()}
            for position, each in enumerate(self.empty)
        ]

    def moved(self, states: States, groups: Sequence[int], targets: int, start: int) -> States:
        """Put states of other groups, here at `groups`, and of samples that now start later."""
        return [
            {
                name: _moved(self.statistics[name], state, empty[name], groups, targets, start)
                for name, state in each.items()
            }
            for each, empty in zip(states, self.empty, strict=True)
        ]


def recorded(measures: Measures) -> dict[str, Any]:
    """Write measures as JSON, those of the user's own by their names only."""
    axes = asdict(measures.axes)
    flags = {name: getattr(measures, name) for name in ("listed", "atoms", "exclusive")}
    shape = {"layers": measures.layers, "channels": measures.channels}
    return {**shape, "axes": axes, "extras": list(measures.extras), **flags}


def measures_of(where: str, record: Mapping[str, Any]) -> Measures:
    """Read what `recorded` wrote of measures that are ours."""
    axes = {name: each and tuple(each) for name, each in record["axes"].items()}
    shape = tuple(record["layers"]), tuple(record["channels"])
    flags = (record[name] for name in ("listed", "atoms", "exclusive"))
    return Measures(*shape, Axes(**axes), asked(where, record["extras"]), *flags)


def _place(position: int, name: str) -> str:
    return str(position) if name == "population" else f"{position}.{name}"


def _moved(
    statistic: Statistic, state: Any, empty: Any, groups: Sequence[int], targets: int, start: int
) -> Any:
    if statistic.by is None and not statistic.samples:
        return state
    each = targets if statistic.by == "target" else 1
    place = (each * torch.tensor(groups)[:, None] + torch.arange(each)).flatten()
    fields = state._asdict()
    for key in statistic.samples:
        fields[key] = torch.where(fields[key] < 0, fields[key], fields[key] + start)
    if statistic.by is not None:
        for key in set(fields) - set(statistic.whole):
            fields[key] = getattr(empty, key).clone().index_copy(0, place, fields[key])
    return type(state)(**fields)


def _nothing(channels: int, over: str) -> Observed | Rows:
    """Return a batch of no entry."""
    if over == "positions":
        return Rows(*[torch.empty(0, channels)] * 2)
    none, whole = torch.empty(0), torch.empty(0, dtype=torch.int64)
    importance = torch.empty(0, channels, dtype=torch.float64)
    cells = whole, whole, whole.bool(), whole.bool()
    return Observed(
        *(importance, none, none, *cells, none.double()),
        *(whole, whole.bool(), whole.bool(), none.double()),
    )
