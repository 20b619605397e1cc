"""Statistics and sample tables as labelled data, with names, units and provenance."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
import xarray as xr

from ifa.reduce.histograms import histogram_quantiles
from ifa.reduce.population import Population
from ifa.store.tables import Rows, Schema

SCHEMA = 2


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
_BY_GROUP = ("importance", "importance_variance", "count")


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


# Variable of an extra reduction -> its field, dimensions, what it is, unit.
_EXTRAS: dict[str, dict[str, tuple[str, tuple[str, ...], str, str]]] = {
    "overall": {
        "importance_overall": (
            "mean",
            ("channel",),
            "mean importance over accepted samples of all targets",
            "score",
        ),
    },
    "overall_by_target": {
        "importance_overall": (
            "mean",
            ("target", "channel"),
            "mean importance over correctly predicted samples of any label",
            "score",
        ),
    },
    "histogram": {
        "importance_histogram": (
            "count",
            ("target", "channel", "bin"),
            "accepted samples whose importance is in a bin",
            "1",
        ),
        "importance_quantiles": (
            "quantiles",
            ("target", "channel", "quantile"),
            "quantiles of importance, to 1/32 of their value",
            "score",
        ),
    },
    "top_samples": {
        "top_value": (
            "value",
            ("target", "channel", "rank"),
            "largest importances of accepted samples",
            "score",
        ),
        "top_sample": (
            "sample",
            ("target", "channel", "rank"),
            "index of the samples of the largest importances, -1 where there are fewer",
            "1",
        ),
    },
    "covariance": {
        "importance_covariance": (
            "covariance",
            ("channel", "channel_"),
            "covariance of importance between accepted samples of all targets",
            "score**2",
        ),
    },
    "cooccurrence": {
        "cooccurrence": (
            "together",
            ("channel", "channel_"),
            "accepted samples of which both channels are in the top tenth",
            "1",
        ),
    },
}


def extra_variables(kind: str, statistic: Any, axes: Axes, unit: str) -> dict[str, Any]:
    """Label the statistic of an extra reduction; its first axis is the group's and target's."""
    fields, coords = statistic._asdict(), {}
    if kind == "histogram":
        fields["quantiles"] = histogram_quantiles(statistic, axes.quantiles)
        bins = _occupied(statistic.count)
        fields["count"] = statistic.count[..., bins]
        middle = {"long_name": "middle of a bin", "units": unit}
        coords["bin"] = ("bin", statistic.value[0, bins].cpu().numpy(), middle)
    if kind == "top_samples":
        fields["value"] = statistic.value.where(statistic.sample >= 0, torch.nan)
    found = {}
    for name, (field, dims, long_name, units) in _EXTRAS[kind].items():
        values = fields[field].cpu().numpy()
        groups = len(axes.groups or "1")
        values = values.reshape(groups, *([-1] if "target" in dims else []), *values.shape[1:])
        dims, values = (("group", *dims), values) if axes.groups else (dims, values[0])
        attrs = {"long_name": long_name, "units": units.replace("score", unit)}
        found[name] = xr.DataArray(values, dims=dims, attrs=attrs)
        if "bin" in dims:
            found[name] = found[name].assign_coords(coords)
    return found


def _occupied(count: torch.Tensor) -> slice:
    """From the first to the last bin in which there is anything; the bin of zero if none is."""
    used = count.flatten(0, -2).any(0).nonzero().flatten()
    zero = count.shape[-1] // 2
    first, last = (int(used[0]), int(used[-1])) if len(used) else (zero, zero)
    return slice(first, last + 1)


def statistics_tree(
    layers: Mapping[str, xr.Dataset],
    spec: Mapping[str, Any],
    origins: Mapping[str, str],
    title: str = "ifa: which features a network uses, over a population",
) -> xr.DataTree:
    """Gather the layers under one root, which carries the provenance; each says its origin."""
    attrs = {
        "title": title,
        "layers": list(layers),
        "schema": SCHEMA,
        "ifa_version": version("ifa"),
        "torch_version": version("torch"),
        "spec": json.dumps(spec, sort_keys=True),
    }
    named = {name: layer.assign_attrs(origin=origins[name]) for name, layer in layers.items()}
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs=attrs), **named})


def sample_tree(rows: Rows, schema: Schema, coords: Mapping[str, np.ndarray]) -> xr.DataTree:
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
        groups[f"/{group}"] = xr.Dataset(variables, _named(coords) if used else None)
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
