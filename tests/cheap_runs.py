"""Runs that cost nothing but their files, and what is in a run bit by bit."""

import numpy as np
import torch
import xarray as xr
from populations import contents

from ifa.population.driver import Cuts, Job, drive
from ifa.store.datasets import SCHEMA, statistics_tree
from ifa.store.tables import Column

SAMPLES, SHARD, CHANNELS = 20, 3, 4  # seven shards, the last of two samples
EMPTY = range(6, 9)  # all values of this shard are fill values, so that it writes no chunk


def cheap_run(store, seed=0, shard=SHARD):
    """Fill a run with rows of every kind of values; of another seed all differ."""
    return drive(_job(seed, shard), store=store, progress=False)


def _job(seed, shard):
    data = [(torch.full((1,), float(number)), 0) for number in range(SAMPLES)]
    one = ("sample",), (SAMPLES,)
    schema = {
        "": {"id": Column(*one, "str", "name"), "label": Column(*one, "<i8", "label")},
        "conv": {
            "map_max": Column(*one, "<f4", "largest"),
            "finite": Column(*one, "|b1", "finite"),
            "importance": Column(("sample", "channel"), (SAMPLES, CHANNELS), "<f4", "importance"),
            "score": Column(("target", "sample"), (2, SAMPLES), "<f8", "score"),
        },
    }
    return Job(
        where="ifa.analyze",
        label="cheap",
        cuts=Cuts(data, None, shard, shard, 0),
        spec={"schema": SCHEMA, "data": {"samples": SAMPLES}, "seed": seed},
        schema=schema,
        coords={"target": np.array([3, 0])},
        work=lambda batches, advance: _worked(seed, [n for span, _ in batches for n in span]),
        finish=lambda shards: _finished(seed, shards),
        check=lambda span, batch: None,
    )


def _worked(seed, samples):
    numbers = np.array(samples)
    values = np.array([np.random.default_rng([seed, n]).standard_normal(CHANNELS) for n in samples])
    empty = np.isin(numbers, EMPTY)
    importance = np.where(empty[:, None] | (numbers[:, None] % 5 == 0), np.nan, values)
    names = [f"é {number} of {seed}" for number in samples]
    rows = {
        "": {
            "id": np.where(empty, "", np.array(names, dtype=object)),
            "label": np.where(empty, -1, numbers % 3 - 1 + 3 * seed),
        },
        "conv": {
            "map_max": np.where(empty, np.nan, values.max(1)).astype(np.float32),
            "finite": ~empty & (numbers % 2 == seed % 2),
            "importance": importance.astype(np.float32),
            "score": np.where(empty, np.nan, values[:, :2].T),
        },
    }
    return {"sum": values.sum(0), "count": np.array(len(samples))}, rows


def _finished(seed, shards):
    shards = list(shards)
    mean = sum(one["sum"] for one in shards) / sum(one["count"] for one in shards)
    dataset = xr.Dataset({"importance": ("channel", mean, {"units": "1"})})
    return statistics_tree({"conv": dataset}, {"job": "cheap", "seed": seed}, {"conv": "{}"})


def bits(tree):
    """All values of a tree, and what they are."""
    found = {}
    for node in tree.subtree:
        for name, variable in node.to_dataset(inherit=False).variables.items():
            values = np.asarray(variable.values)
            raw = values.tolist() if values.dtype == object else values.tobytes()
            found[f"{node.path}/{name}"] = variable.dims, str(values.dtype), values.shape, raw
    return found


def results(run):
    """Digests of everything but COMMIT.json, which has the date."""
    return {name: one for name, one in contents(run).items() if name != "COMMIT.json"}


def names_a_place(error, run):
    """Whether a refusal says where it is: the run, or a file in it."""
    return str(run) in str(error) or any(path.name in str(error) for path in run.rglob("*"))
