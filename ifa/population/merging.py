"""Two runs as one: merged to what a single run over both gives, or side by side."""

import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from ifa.reduce.extras import asked
from ifa.reduce.extras import tokens as found_tokens
from ifa.reduce.kept import Statistic
from ifa.reduce.statistics import feature_of
from ifa.store.datasets import Axes, joined, sample_tree, statistics_tree
from ifa.store.markers import Arrays
from ifa.store.measures import Measures, States
from ifa.store.places import place_of
from ifa.store.runs import Kept, Run, opened, verified
from ifa.store.runs import open as open_run
from ifa.store.specs import FINISH, compared, first_difference
from ifa.store.tables import Column, Rows, Schema
from ifa.types import RunNote

Path_ = str | os.PathLike[str]

# What two runs that are merged may differ in: it does not change what a sample gives.
_FREE = ("data", "rows", "groups", "cluster", "shard", "batch_size", "device", "threads", "parents")


def merge(
    run: Path_,
    other: Path_,
    *,
    reductions: Mapping[str, Any] | None = None,
    store: Path_ | None = None,
) -> xr.DataTree:
    """Merge two finished runs, such as those of two sites: what one run over both data gives.

    Means, variances and covariances agree with those of one run to rounding, 1e-12; counts,
    histograms and quantiles exactly. Samples of the second run come after those of the first, and
    groups of the same name are one group, clusters likewise. Neither run is changed, and no sample
    is read again.

    Parameters
    ----------
    run, other
        Directories that ``ifa.analyze(..., store=)`` or this function wrote. They may differ in
        their data, groups, clusters, shards, batch size, device and threads, and in nothing else.
    reductions
        Reductions of your own that the runs were made with, as they were given to `ifa.analyze`. A
        state whose reduction is no `ifa.reduce.Statistic` is merged as it is: if it holds indices
        of groups or samples, it has to be one.
    store
        Folder or URL for the merged run, in the same format; `ifa.open` and `ifa.verify` read it,
        and it can be merged again. None keeps the result in memory.

    Returns
    -------
    xarray.DataTree
        As `ifa.analyze` returns it.

    Raises
    ------
    ValueError
        If a run is not finished or not as it was committed; the runs are of different analyses, of
        which the first difference is named, or have a sample in common; `reductions` are not those
        of the runs; or `store` is one of them or something else.

    Examples
    --------
    >>> import ifa, tempfile, torch
    >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 2, 3), torch.nn.Flatten())
    >>> label = int(net(torch.ones(1, 1, 4)).argmax())
    >>> data = [(torch.ones(1, 4), label, f"case {number}") for number in range(5)]
    >>> with tempfile.TemporaryDirectory() as home:
    ...     for site, part in {"a": data[:2], "b": data[2:]}.items():
    ...         options = {"store": f"{home}/{site}", "layer": "0", "progress": False}
    ...         _ = ifa.analyze(net, part, **options)
    ...     int(ifa.merge(f"{home}/a", f"{home}/b")["0"]["count"].sum())
    5
    """
    parts = [_Part.read(path, reductions or {}) for path in (run, other)]
    _check_same(*parts)
    _check_apart(*parts)
    groups = _groups([part.measures.axes.groups for part in parts])
    clusters = parts[0].spec.get("cluster") is not None
    first = parts[0].measures
    axes = Axes(first.axes.targets, first.axes.target_names, groups, first.axes.quantiles)
    measures = replace(first, axes=axes)
    spec = {
        **parts[0].spec,
        "data": [part.spec["data"] for part in parts],
        **({"rows": [part.spec["rows"] for part in parts]} if "rows" in parts[0].spec else {}),
        "groups": [part.spec["groups"] for part in parts] if groups else None,
        "cluster": [part.spec.get("cluster") for part in parts] if clusters else None,
        "shard": max(part.spec["shard"] for part in parts),
        "parents": [part.spec for part in parts],
    }
    states = _states(parts, measures)
    if store is None:
        tree = _tree(measures.datasets(states, parts[0].unit), parts, spec)
        if parts[0].schema:
            tables = [part.rows(slice(None)) for part in parts]
            schema = _longer(parts)
            tree["samples"] = sample_tree(joined(tables, schema), schema, axes.target_coords)
        return tree
    merged = Run.at(store, "ifa.merge")
    merged.claimable()
    if not merged.begins:
        merged.check(spec, "same")
        tree, items = opened(merged), _Part.read(store, reductions or {}).items
        if not np.array_equal(items, np.concatenate([part.items for part in parts])):
            raise ValueError(
                f"ifa.merge: expected the run at {store} to be of these runs, got one of other "
                "samples. Nothing was touched. Give another store=."
            )
        return tree
    else:
        # nothing is computed, so that a merge that is killed may begin anew
        merged.place.whole(
            lambda place: _write(Run(place, "ifa.merge"), parts, measures, states, spec)
        )
    return opened(merged)


def compare(run: Any, other: Any) -> xr.DataTree:
    """Put the statistics of two runs side by side: folds, checkpoints or sites.

    Parameters
    ----------
    run, other
        Directories of finished runs, or trees of `ifa.analyze`, with a layer in common.

    Returns
    -------
    xarray.DataTree
        For each layer that both have a dataset of all the variables that both have, with a
        dimension `run` first, labeled with the directories' names, or "a" and "b". Targets, groups
        and quantiles of either are there, with NaN where a run lacks them; counts are then real
        numbers. ``importance.sel(run=...)`` of the two have the same rows.

    Raises
    ------
    ValueError
        If there is no common layer, or a common layer has other channels.

    Examples
    --------
    >>> import ifa, torch
    >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 2, 3), torch.nn.Flatten())
    >>> data = [(torch.ones(1, 4), 0), (-torch.ones(1, 4), 1)]
    >>> half = [ifa.analyze(net, data[n:], layer="0", progress=False) for n in (0, 1)]
    >>> ifa.compare(*half)["0"]["importance"].dims
    ('run', 'target', 'channel')
    """
    trees = [one if isinstance(one, xr.DataTree) else open_run(one) for one in (run, other)]
    names = _names([run, other])
    layers = [[name for name in tree.children if name != "samples"] for tree in trees]
    common = [name for name in layers[0] if name in layers[1]]
    if not common:
        raise ValueError(
            f"ifa.compare: expected runs with a layer in common, got {layers[0]} and {layers[1]}."
        )
    found = {name: _aligned(name, [tree[name].to_dataset() for tree in trees]) for name in common}
    label = xr.DataArray(np.array(names, dtype=object), dims="run", attrs={"long_name": "run"})
    attrs = {"title": "ifa: two runs compared", "layers": common}
    specs = [tree.attrs.get("spec", "{}") for tree in trees]
    difference = first_difference(*map(json.loads, specs))
    if difference:
        attrs["first_difference"] = difference.replace("in the run", f"in {names[0]}").replace(
            " now", f" in {names[1]}"
        )
    layered = {name: dataset.assign_coords(run=label) for name, dataset in found.items()}
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs=attrs), **layered})


@dataclass(frozen=True)
class _Part:
    """A finished run that is merged."""

    run: Run
    spec: dict[str, Any]
    measures: Measures
    unit: str
    origins: dict[str, str]  # of each layer
    table: xr.DataTree | None
    shared: str | None  # the column that several samples have in common

    @classmethod
    def read(cls, path: Path_, reductions: Mapping[str, Any]) -> "_Part":
        run = Run.at(path, "ifa.merge")
        verified(run)
        tree = opened(run)
        spec = {name: part for name, part in run.spec().items() if name != FINISH}
        if "keep_samples" not in spec:
            raise ValueError(
                f"ifa.merge: expected a run of ifa.analyze at {path}, got one of "
                f"{'ifa.maps' if 'maps' in spec else 'a table'}, which is not merged. Run both "
                "data sets at once."
            )
        layers = tuple(spec["layers"])
        one = tree[layers[0]].to_dataset()
        labels = {
            name: tuple(one[name].values.tolist()) if name in one.coords else None
            for name in ("target", "target_name", "group", "quantile")
        }
        axes = Axes(
            labels["target"] or (), labels["target_name"], labels["group"], labels["quantile"] or ()
        )
        feature = feature_of(one)
        channels = tuple(tree[layer].sizes[feature] for layer in layers)
        extras = _extras(spec.get("reductions") or {}, reductions)
        listed = "target" in one["importance_overall"].dims
        kinds = listed, feature == "atom", spec["task"] == "classification"
        measures = Measures(layers, channels, axes, extras, *kinds)
        table = tree.children.get("samples")
        origins = {layer: tree[layer].attrs["origin"] for layer in layers}
        unit, shared = one["importance"].attrs["units"], tree.attrs.get("shared")
        return cls(run, spec, measures, unit, origins, table, shared)

    @property
    def samples(self) -> int:
        data = self.spec["data"]
        return _count(data)

    @property
    def shards(self) -> range:
        return range(self.run.marked)

    @property
    def items(self) -> np.ndarray:
        """Return the digests of all samples."""
        return np.concatenate([each.items for each in self.run.markers(self.shards).values()])

    @property
    def schema(self) -> Schema:
        """Lay out the table as it is."""
        return {
            group: {
                str(name): Column(
                    tuple(map(str, values.dims)),
                    values.shape,
                    "str" if values.dtype.kind in "OTU" else values.dtype.str,
                    values.attrs["long_name"],
                    values.attrs["units"],
                )
                for name, values in node.data_vars.items()
            }
            for group, node in self._nodes()
        }

    def rows(self, samples: slice) -> Rows:
        """Read the rows of some samples."""
        return {
            group: {
                str(name): values.isel(sample=samples).values
                for name, values in node.data_vars.items()
            }
            for group, node in self._nodes()
        }

    def _nodes(self) -> list[tuple[str, Any]]:
        if self.table is None:
            return []
        layers = self.measures.layers
        return [("", self.table), *((layer, self.table[layer]) for layer in layers)]


def _extras(tokens: Mapping[str, Any], reductions: Mapping[str, Any]) -> dict[str, Statistic]:
    """Return what a run kept: ours by name, and the user's, which have to be given again."""
    names = [name for name, token in tokens.items() if token is None]
    own = {name: reductions[name] for name in tokens if name in reductions}
    found = asked("ifa.merge", dict(zip(names, names, strict=True)) | own)
    difference = first_difference(dict(tokens), found_tokens(found))
    if difference:
        raise ValueError(
            "ifa.merge: expected reductions= to have the reductions of the runs, as they were "
            f"given to ifa.analyze, got {difference}."
        )
    return found


def _count(data: Any) -> int:
    return sum(map(_count, data)) if isinstance(data, list) else int(data["samples"])


def _check_same(a: _Part, b: _Part) -> None:
    kept = [{key: value for key, value in part.spec.items() if key not in _FREE} for part in (a, b)]
    for spec in kept:  # what the network computes was asked for other samples
        spec["model"] = {key: each for key, each in spec["model"].items() if key != "behaviour"}
    difference, notes = compared(*kept, finished=True, versions="same")
    for note in [] if difference else notes:
        warnings.warn(f"ifa.merge: of the two runs, {note}.", RunNote, stacklevel=4)
    for name, those in (("groups", "groups"), ("cluster", "clusters")):
        none = [part.spec.get(name) is None for part in (a, b)]
        if difference is None and none[0] != none[1]:
            having = [f"no {those}" if without else those for without in none]
            difference = f"{name}: {having[0]} in the run, {having[1]} now"
    counts = [len(part.measures.axes.targets) for part in (a, b)]
    if difference is None and counts[0] != counts[1]:  # of a score's table
        difference = (
            f"{counts[0]} classes in the run, {counts[1]} now (target_names= says them all)"
        )
    if difference:
        said = difference.replace(" in the run", " in the first").replace(" now", " in the second")
        raise ValueError(
            f"ifa.merge: expected two runs of the same analysis, {a.run.place} and {b.run.place}, "
            f"of other data, got {said}. Repeat one of them as the other was made, or put them "
            "side by side with ifa.compare."
        )


def _check_apart(a: _Part, b: _Part) -> None:
    there = {each.tobytes(): index for index, each in enumerate(a.items)}
    both = [(there[each.tobytes()], i) for i, each in enumerate(b.items) if each.tobytes() in there]
    if both:
        raise ValueError(
            f"ifa.merge: expected runs of other samples, got {len(both)} that are in both, with "
            f"input, label and id, such as sample {both[0][0]} of {a.run.place} and {both[0][1]} "
            f"of {b.run.place}: they would count twice. Give them ids of their own if they are "
            "others."
        )


def _groups(each: Sequence[tuple[str, ...] | None]) -> tuple[str, ...] | None:
    """All names in the order that one run would have them in: numbers by value, else by text."""
    names = {name for groups in each if groups for name in groups}
    if not names:
        return None
    try:
        return tuple(sorted(names, key=lambda name: (float(name), name)))
    except ValueError:
        return tuple(sorted(names))


def _states(parts: Sequence[_Part], measures: Measures) -> Iterator[Arrays]:
    """Every shard's states, in order, with the groups of all and the samples counted on."""
    start = 0
    for part in parts:
        names = measures.axes.groups or ("",)
        place = [names.index(name) for name in part.measures.axes.groups or ("",)]
        for arrays in part.run.states(part.shards, Kept({}, set())):
            states = part.measures.unpacked(arrays)
            moved = measures.moved(states, place, len(measures.axes.targets), start)
            yield measures.packed(moved)
        start += part.samples


def _longer(parts: Sequence[_Part]) -> Schema:
    total = sum(part.samples for part in parts)

    def longer(column: Column) -> Column:
        shape = tuple(
            total if dim == "sample" else extent
            for dim, extent in zip(column.dims, column.shape, strict=True)
        )
        return Column(column.dims, shape, column.dtype, column.long_name, column.units)

    return {
        group: {name: longer(column) for name, column in columns.items()}
        for group, columns in parts[0].schema.items()
    }


def _write(
    run: Run,
    parts: Sequence[_Part],
    measures: Measures,
    states: Iterator[Arrays],
    spec: Mapping[str, Any],
) -> None:
    """Write the merged run: the rows in shards of its own, of which each has some states."""
    schema = _longer(parts) if parts[0].schema else {}
    total, size = sum(part.samples for part in parts), spec["shard"]
    shards = range(-(-total // size))
    run = run.begun(spec)
    run.lay_out(schema, measures.axes.target_coords, shards, size)
    items = np.concatenate([part.items for part in parts])
    for shard in shards:
        # there are as many states as the runs had shards, which were not larger than these
        each = next(states) if shard < shards[-1] else _merged(measures, states)
        span = slice(shard * size, min(total, (shard + 1) * size))
        run.add(shard, span.start, each, _rows(parts, schema, span), schema, items[span])
    kept = Kept({}, set())
    layers = measures.datasets(run.states(shards, kept), parts[0].unit)
    run.commit(_tree(layers, parts, spec), kept)


def _tree(
    layers: Mapping[str, xr.Dataset], parts: Sequence[_Part], spec: Mapping[str, Any]
) -> xr.DataTree:
    """Gather the merged layers; that samples share something is said where either run says so."""
    tree = statistics_tree(layers, spec, parts[0].origins)
    said = [part.shared for part in parts if part.shared is not None]
    if said:
        tree.attrs["shared"] = said[0]
    return tree


def _merged(measures: Measures, states: Iterator[Arrays]) -> Arrays:
    whole: States | None = None
    for arrays in states:
        whole = measures.merged(whole, measures.unpacked(arrays))
    return measures.packed(whole or [])


def _rows(parts: Sequence[_Part], schema: Schema, span: slice) -> Rows:
    """Read the rows of some samples of the whole, of whichever part they are."""
    tables, start = [], 0
    for part in parts:
        first, last = max(span.start - start, 0), min(span.stop - start, part.samples)
        if schema and first < last:
            tables.append(part.rows(slice(first, last)))
        start += part.samples
    return joined(tables, schema)


def _names(runs: Sequence[Any]) -> list[str]:
    names = [
        default if isinstance(run, xr.DataTree) else place_of("ifa.compare", run).name
        for run, default in zip(runs, "ab", strict=True)
    ]
    return names if names[0] != names[1] else [f"{names[0]} (a)", f"{names[1]} (b)"]


def _aligned(name: str, datasets: Sequence[xr.Dataset]) -> xr.Dataset:
    sizes = [f"{dataset.sizes[feature_of(dataset)]} {feature_of(dataset)}s" for dataset in datasets]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"ifa.compare: expected layer {name!r} with the same features in both runs, got "
            f"{sizes[0]} and {sizes[1]}."
        )
    common = [
        name
        for name in datasets[0].data_vars
        if name in datasets[1] and datasets[0][name].dims == datasets[1][name].dims
    ]
    kept = [dataset[common].drop_vars("target_name", errors="ignore") for dataset in datasets]
    aligned = xr.align(*kept, join="outer")
    result = xr.concat(
        aligned, "run", combine_attrs="drop_conflicts", coords="minimal", compat="override"
    )
    called = {
        int(target): str(label)
        for dataset in datasets
        if "target_name" in dataset.coords
        for target, label in zip(
            dataset["target"].values, dataset["target_name"].values, strict=True
        )
    }
    if called:
        labels = [called.get(int(target), "") for target in result["target"].values]
        result = result.assign_coords(target_name=("target", np.array(labels, dtype=object)))
    return result
