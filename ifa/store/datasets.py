"""Statistics and sample tables as labelled data, with names, units and provenance."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import xarray as xr

from ifa.reduce.population import Population
from ifa.store.tables import Rows, Schema

SCHEMA = 1


@dataclass(frozen=True)
class Axes:
    """The labels of the statistics' axes."""

    targets: tuple[int, ...]  # output index of each row
    target_names: tuple[str, ...] | None
    groups: tuple[str, ...] | None
    quantiles: tuple[float, ...]

    @property
    def target_coords(self) -> dict[str, np.ndarray]:
        coords = {"target": np.array(self.targets, dtype=np.int64)}
        if self.target_names is not None:
            coords["target_name"] = np.array(self.target_names, dtype=object)
        return coords


# Variable -> dimensions after the group's, what it is, unit; the score's unit is filled in.
_VARIABLES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "importance": (("target", "channel"), "mean importance over accepted samples", "score"),
    "importance_overall": (
        ("channel",),
        "mean importance over accepted samples of all targets",
        "score",
    ),
    "importance_variance": (
        ("target", "channel"),
        "variance of importance between accepted samples",
        "score**2",
    ),
    "count": (("target",), "accepted samples", "1"),
    "nonfinite": (("target",), "samples left out because their map is not finite", "1"),
    "map_max": (("target", "quantile"), "quantiles over samples of the map's maximum", "score"),
    "map_min": (("target", "quantile"), "quantiles over samples of the map's minimum", "score"),
    "map_max_overall": (("quantile",), "quantiles of map maxima, all targets pooled", "score"),
    "map_min_overall": (("quantile",), "quantiles of map minima, all targets pooled", "score"),
}
_BY_GROUP = ("importance", "importance_overall", "importance_variance", "count")


def layer_dataset(statistics: Population, axes: Axes, unit: str) -> xr.Dataset:
    """Label one layer's statistics."""
    variables = {}
    for name, tensor in statistics._asdict().items():
        dims, long_name, units = _VARIABLES[name]
        values = tensor.cpu().numpy()
        if name in _BY_GROUP:
            dims, values = (("group", *dims), values) if axes.groups else (dims, values[0])
        attrs = {"long_name": long_name, "units": units.replace("score", unit)}
        variables[name] = (dims, values, attrs)
    coords = _named(axes.target_coords)
    coords["quantile"] = ("quantile", np.array(axes.quantiles))
    if axes.groups:
        coords["group"] = ("group", np.array(axes.groups, dtype=object))
    return xr.Dataset(variables, coords)


def statistics_tree(layers: Mapping[str, xr.Dataset], spec: Mapping[str, Any]) -> xr.DataTree:
    """Gather the layers under one root, which carries the provenance."""
    attrs = {
        "title": "ifa: which features a network uses, over a population",
        "layers": list(layers),
        "schema": SCHEMA,
        "ifa_version": version("ifa"),
        "torch_version": version("torch"),
        "spec": json.dumps(spec, sort_keys=True),
    }
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs=attrs), **layers})


def sample_tree(rows: Rows, schema: Schema, axes: Axes) -> xr.DataTree:
    """Label a sample table that is in memory."""
    groups = {}
    for group, columns in schema.items():
        variables = {
            name: (
                column.dims,
                rows[group][name].astype(object if column.dtype == "str" else column.dtype),
                {"long_name": column.long_name, "units": column.units},
            )
            for name, column in columns.items()
        }
        used = any("target" in column.dims for column in columns.values())
        groups[f"/{group}"] = xr.Dataset(variables, _named(axes.target_coords) if used else None)
    return xr.DataTree.from_dict(groups)


def joined(tables: Sequence[Rows], schema: Schema) -> Rows:
    """Put the rows of consecutive batches or shards together."""
    return {
        group: {
            name: np.concatenate([table[group][name] for table in tables], axis=column.axis)
            for name, column in columns.items()
        }
        for group, columns in schema.items()
    }


def _named(coords: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {name: (name.removesuffix("_name"), values) for name, values in coords.items()}
