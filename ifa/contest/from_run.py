"""The table of a run's population: the run's own network, data and layer, checked."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from torch import nn

from ifa.contest.bases import Given, bases_of
from ifa.contest.driver import table
from ifa.contest.methods import cam_methods, usable, weighting
from ifa.contest.metrics import default_metrics
from ifa.network.identity import model_token, network_difference
from ifa.network.inputs import moved
from ifa.network.replicas import device_of
from ifa.progress import Progress
from ifa.score import sigmoid, value
from ifa.store.items import collate, data_set, spaced
from ifa.store.references import ModelRef
from ifa.store.runs import Run
from ifa.store.runs import open as open_run
from ifa.store.specs import data_difference, data_token
from ifa.types import Statistics

_WHERE = "ifa evaluate"


# What metrics read of a network whose outputs are not the logits of classes.
_METRIC_SCORES = {"binary": sigmoid, "multilabel": sigmoid, "regression": value}


class Evaluated(NamedTuple):
    """A table and where it is."""

    table: xr.Dataset
    path: str  # or a URL
    left_out: list[str]  # methods, with the reason


def table_of_run(
    run: str,
    reference: ModelRef,
    data: Any,
    *,
    out: str | None = None,
    layer: str | None = None,
    given: Given | None = None,
    methods: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    samples: int | None = None,
    targets: Any = "predicted",
    rectify: bool = True,
    shard: int = 64,
    device: str | None = None,
    progress: Progress = True,
) -> Evaluated:
    """Measure methods on the network and data that a run was made of; see `ifa evaluate`."""
    data = data_set(_WHERE, data)
    model = reference.load()
    spec = Run.at(run, _WHERE).spec()
    check_same(_WHERE, run, model, data)
    layer = layer_of(_WHERE, spec["layers"], layer)
    (own,) = bases_of(_WHERE, [run], [layer], given or {})
    basis = None if own is None else own[layer]
    left_out: list[str] = []
    if methods is None:
        first = collate(_WHERE, data, range(min(2, len(data))))
        weightings, left_out = usable(model, layer, first.inputs, basis=basis)
    else:
        weightings = {name: weighting(_WHERE, name) for name in methods}
    task = spec["task"]
    known = default_metrics(slow=True, score=_METRIC_SCORES.get(task))
    home = out or f"{run.rstrip('/')}-evaluation"
    found = table(
        model,
        data if samples is None else spaced(_WHERE, "--samples", data, samples),
        cam_methods(layer, weightings=weightings, rectify=rectify, basis=basis),
        _chosen(known, metrics),
        targets=targets,
        task=task,
        store=home,
        shard=shard,
        device=device,
        progress=progress,
    )
    return Evaluated(_clustered(found, open_run(run)), home, left_out)


def _clustered(found: xr.Dataset, statistics: Any) -> xr.Dataset:
    """Give a table the clusters that the samples of its run have, by id."""
    samples = statistics["samples"].to_dataset() if "samples" in statistics.children else {}
    if "cluster" not in samples or len(np.unique(samples["id"])) < len(samples["id"]):
        return found
    of = dict(zip(samples["id"].values, samples["cluster"].values, strict=True))
    return found.assign(cluster=("sample", [of[name] for name in found["id"].values]))


def _chosen(known: Mapping[str, Any], asked: Sequence[str] | None) -> dict[str, Any]:
    names = list(default_metrics()) if asked is None else asked
    for name in names:
        if name not in known:
            raise LookupError(
                f"{_WHERE}: expected --metrics from {', '.join(known)}, got {name!r}."
            )
    return {name: known[name] for name in names}


def check_same(
    where: str,
    run: str | os.PathLike[str] | Statistics,
    model: nn.Module | None,
    data: Any,
    *,
    other_data: bool = False,
) -> None:
    """Raise unless this is the network of a run, if there is one, and the data are the run's."""
    kept = isinstance(run, str | os.PathLike)
    spec = Run.at(run, where).spec() if kept else json.loads(run.attrs["spec"])
    network = others = None
    if model is not None:
        example = moved(collate(where, data, range(min(2, len(data)))).inputs, device_of(model))
        network, _ = network_difference(spec.get("model", {}), model_token(model, example))
    known = spec.get("data", {})
    if not other_data:
        version = known.get("version") if isinstance(known, Mapping) else None
        others = data_difference(known, data_token(where, data, version))
    difference = "; ".join(filter(None, (network, others)))
    if difference:
        what = "network" if other_data else "data" if model is None else "network and data"
        raise ValueError(
            f"{where}: expected the {what} of the run{f' at {run}' if kept else ''}, got others: "
            f"{difference}. Give the factory, weights and data set that it was made of."
        )


def layer_of(where: str, layers: Sequence[str], asked: str | None) -> str:
    """Return which layer of a run is meant, as the command line names it."""
    if asked is None and len(layers) > 1:
        raise ValueError(
            f"{where}: expected --layer, one of {', '.join(layers)}: the run has several."
        )
    if asked is not None and asked not in layers:
        raise LookupError(
            f"{where}: expected --layer to be one of the run's, {', '.join(layers)}, got {asked!r}."
        )
    return asked or layers[0]
