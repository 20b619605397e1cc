"""The reductions of all layers together: their states in a file of a shard, and their labels."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ifa.reduce.extras import BY_TARGET, STATES, extra
from ifa.reduce.population import Observed, population
from ifa.store.datasets import Axes, extra_variables, layer_dataset
from ifa.store.states import Arrays
from ifa.types import Reduction

# For each layer, the state of every reduction by its name.
States = list[dict[str, Any]]


@dataclass(frozen=True)
class Measures:
    """What is measured of each layer."""

    layers: tuple[str, ...]
    channels: tuple[int, ...]  # of each layer
    axes: Axes
    extras: tuple[str, ...] = ()
    listed: bool = False  # whether targets are a list, which each sample has all of

    @property
    def always(self) -> tuple[str, ...]:
        """What is kept in any case."""
        return ("population", "overall_by_target" if self.listed else "overall")

    @property
    def groups(self) -> int:
        return len(self.axes.groups or "1")

    @cached_property
    def reductions(self) -> list[dict[str, Reduction]]:
        """The reductions of each layer, over `Observed` batches."""
        sizes = {"targets": len(self.axes.targets), "groups": self.groups}
        first = {"population": population(**sizes, levels=self.axes.quantiles)}
        return [
            first
            | {
                name: extra(name, **sizes, channels=channels)
                for name in (*self.always[1:], *self.extras)
            }
            for channels in self.channels
        ]

    def empty(self) -> States:
        """States of no sample."""
        return [
            {name: reduction.init(_nothing(channels)) for name, reduction in each.items()}
            for each, channels in zip(self.reductions, self.channels, strict=True)
        ]

    def bytes(self) -> int:
        """How much memory the states of the extras take, however many samples there are."""
        cells, pairs = self.groups * len(self.axes.targets), self.groups
        each = {"histogram": 1281 * cells, "top_samples": 20 * cells}
        return 8 * sum(
            each[name] * channels if name in each else pairs * channels**2
            for channels in self.channels
            for name in self.extras
        )

    def update(
        self, state: dict[str, Any], position: int, batch: Observed, names: Sequence[str]
    ) -> None:
        """Add a batch to the states of one layer, which are replaced."""
        for name in names:
            reduction = self.reductions[position][name]
            # the first batch says on which device and of which dtype a state is
            before = state.get(name) or reduction.init(batch)
            state[name] = reduction.update(before, batch)

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
        for name, each, state in zip(self.layers, self.reductions, states or [], strict=True):
            dataset = layer_dataset(
                each["population"].finalize(state["population"]), self.axes, unit
            )
            for kind in (*self.always[1:], *self.extras):
                statistic = each[kind].finalize(state[kind])
                dataset = dataset.assign(extra_variables(kind, statistic, self.axes, unit))
            found[name] = dataset
        return found

    def packed(self, states: States) -> Arrays:
        """Name every field of the states, for a file."""
        return {
            f"{_place(position, name)}.{key}": array_of(field)
            for position, each in enumerate(states)
            for name, state in each.items()
            for key, field in state._asdict().items()
        }

    def unpacked(self, arrays: Mapping[str, np.ndarray]) -> States:
        """Take states from a file's arrays."""
        return [
            {
                name: STATES[name](
                    *(
                        torch.from_numpy(arrays[f"{_place(position, name)}.{key}"])
                        for key in STATES[name]._fields
                    )
                )
                for name in (*self.always, *self.extras)
            }
            for position in range(len(self.layers))
        ]

    def moved(self, states: States, groups: Sequence[int], targets: int, start: int) -> States:
        """Put states of other groups, here at `groups`, and of samples that now start later."""
        return [
            {
                name: _moved(name, state, empty[name], groups, targets, start)
                for name, state in each.items()
            }
            for each, empty in zip(states, self.empty(), strict=True)
        ]


def array_of(value: Tensor) -> np.ndarray:
    """Take a tensor of any device and dtype as an array, of float32 where numpy has no such."""
    value = value.detach().cpu()
    return (value.float() if value.dtype in (torch.bfloat16, torch.float16) else value).numpy()


def _place(position: int, name: str) -> str:
    return str(position) if name == "population" else f"{position}.{name}"


def _moved(
    name: str, state: Any, empty: Any, groups: Sequence[int], targets: int, start: int
) -> Any:
    each = targets if name in BY_TARGET else 1
    place = (each * torch.tensor(groups)[:, None] + torch.arange(each)).flatten()
    fields = {}
    for key, field in state._asdict().items():
        if name == "population" and key in ("nonfinite", "map_max", "map_min", "target"):
            fields[key] = field
            continue
        if name == "top_samples" and key == "sample":
            field = torch.where(field < 0, field, field + start)
        fields[key] = getattr(empty, key).clone().index_copy(0, place, field)
    return type(state)(**fields)


def _nothing(channels: int) -> Observed:
    """Return a batch of no entry."""
    none, whole = torch.empty(0), torch.empty(0, dtype=torch.int64)
    importance = torch.empty(0, channels, dtype=torch.float64)
    cells = whole, whole, whole.bool(), whole.bool()
    return Observed(importance, none, none, *cells, none.double(), whole)
