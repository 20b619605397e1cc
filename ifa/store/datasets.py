"""Statistics and sample tables as labelled data, with names, units and provenance."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch.utils._pytree import keystr, tree_flatten_with_path

from ifa.reduce.kept import Statistic, Variable
from ifa.store.tables import Rows, Schema

SCHEMA = 3

# What trees are, by their titles.
STATISTICS = "ifa: which features a network uses, over a population"
MAPS = "ifa: maps of a population"


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


def layer_coords(axes: Axes) -> dict[str, Any]:
    """Label the axes that are the same for every layer."""
    coords = _named(axes.target_coords)
    coords["quantile"] = ("quantile", np.array(axes.quantiles))
    if axes.groups:
        coords["group"] = ("group", np.array(axes.groups, dtype=object))
    return coords


def labeled(
    name: str, statistic: Statistic, result: Any, axes: Axes, unit: str, channels: int
) -> xr.Dataset:
    """Label what a kept statistic finalized to."""
    fields = leaves(result)
    variables = statistic.variables
    if variables is None:
        variables = {
            "_".join([name, *re.findall(r"\w+", path)]): _named_by_itself(
                name, path, leaf, channels
            )
            for path, leaf in fields.items()
        }
    sizes = {"group": len(axes.groups or "1"), "target": len(axes.targets)}

    def array(variable: Variable) -> tuple[Any, ...]:
        path = variable.field if variable.field in fields else f".{variable.field}"
        values, dims = np.asarray(fields[path]), variable.dims
        if dims[:2] == tuple(sizes) and values.ndim == len(dims) - 1:
            values = values.reshape(*sizes.values(), *values.shape[1:])
        if dims[:1] == ("group",) and not axes.groups:
            values, dims = values[0], dims[1:]
        units = {"units": variable.units.replace("score", unit)} if variable.units else {}
        return dims, values, {"long_name": variable.long_name, **units}

    found, coords = (
        {key: array(variable) for key, variable in part.items()}
        for part in (variables, statistic.coords)
    )
    return xr.Dataset(found, coords)


def _named_by_itself(name: str, path: str, leaf: Any, channels: int) -> Variable:
    """Number the axes of a reduction that says nothing of them; the last may be the channels."""
    words = "_".join([name, *re.findall(r"\w+", path)])
    dims = [f"{words}_{axis}" for axis in range(np.ndim(leaf))]
    if dims and np.shape(leaf)[-1] == channels:
        dims[-1] = "channel"
    return Variable(path, tuple(dims), words.replace("_", " "), "")


def leaves(tree: Any) -> dict[str, np.ndarray]:
    """Return the tensors and numbers of a tree as arrays, by their paths in it."""
    found, _ = tree_flatten_with_path(tree)
    return {
        keystr(path): array_of(leaf) if isinstance(leaf, torch.Tensor) else np.asarray(leaf)
        for path, leaf in found
    }


def array_of(value: torch.Tensor) -> np.ndarray:
    """Take a tensor of any device and dtype as an array, of float32 where numpy has no such."""
    value = value.detach().cpu()
    return (value.float() if value.dtype in (torch.bfloat16, torch.float16) else value).numpy()


def statistics_tree(
    layers: Mapping[str, xr.Dataset],
    spec: Mapping[str, Any],
    origins: Mapping[str, str],
    title: str = STATISTICS,
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


def of_atoms(dataset: xr.Dataset) -> xr.Dataset:
    """Call the features of a layer atoms, not channels."""
    names = {name: str(name).replace("channel", "atom") for name in dataset.dims}
    return dataset.rename({old: new for old, new in names.items() if old != new})


def renamed(tree: xr.DataTree, was: Sequence[str], now: Sequence[str]) -> xr.DataTree:
    """Give layers the names they are asked for by: those of a network in a wrapper are longer."""
    if list(was) == list(now):
        return tree
    names = dict(zip(was, now, strict=True))
    found = {
        "/".join(names.get(part, part) for part in node.path.split("/")): node.to_dataset(False)
        for node in tree.subtree
    }
    result = xr.DataTree.from_dict(found)
    result.attrs["layers"] = list(now)
    return result


def with_samples(tree: xr.DataTree, samples: xr.DataTree) -> xr.DataTree:
    """Put the sample table into the result; of maps it is the result, with what the tree says."""
    if tree.attrs["title"] != MAPS:
        tree["samples"] = samples
        return tree
    samples.attrs = tree.attrs
    for layer in tree.children:
        samples[layer].attrs = tree[layer].attrs
    return samples


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
