"""What becomes of a network's performance over a data set with ever more channels of a layer."""

import os
from collections.abc import Sequence
from typing import Any, Literal

import torch
import xarray as xr
from torch import nn

from ifa.basis import Dictionary
from ifa.diagnose.kept_sets import curves_of, reference_of
from ifa.diagnose.measured_sets import (
    FILLS,
    Question,
    check_question,
    labelled,
    measured_sets,
)
from ifa.diagnose.performances import Metric
from ifa.diagnose.rankings import By
from ifa.evaluate.masked_outputs import Laid, Pass, cut_network
from ifa.population.driver import Versions
from ifa.progress import Progress
from ifa.store.references import ModelRef
from ifa.types import Grid, Output, Statistics

_WHERE = "ifa.diagnose.feature_curve"


def feature_curve(
    model: nn.Module | ModelRef,
    layer: str,
    data: Any,
    statistics: Statistics,
    *,
    by: By = "difference",
    metric: Metric = "accuracy",
    per_target: bool = False,
    basis: Dictionary | None = None,
    fill: Literal["zero", "mean"] | Sequence[str] = FILLS,
    ratio: Sequence[float] = (0.05, 0.10, 0.25, 0.50, 1.0),
    seeds: Sequence[int] = range(10),
    rotations: Sequence[int] = (),
    cluster: Any = None,
    output: Output = None,
    grid: Grid | None = None,
    grid_of: str | int | None = None,
    store: str | os.PathLike[str] | None = None,
    data_version: str | None = None,
    versions: Versions = "same",
    shard: int = 512,
    batch_size: int = 64,
    device: str | torch.device | None = None,
    map: Any = None,
    progress: Progress = False,
) -> xr.Dataset:
    """Measure a network over a data set with ever more channels of a layer, the first ranked first.

    Of a batch, and of the outputs themselves, it is `ifa.evaluate.feature_curve`. Here the data
    are streamed: what lies below the layer runs once for each batch, and what lies above once for
    each set and fill. Memory holds a shard and a number for each sample and set (an accuracy), or
    each sample, set and output (`metric` of another kind). Which size is enough is chosen by
    `principal_features`, of more sizes than these.

    Parameters
    ----------
    model, layer, data, statistics, by, metric, per_target, basis, fill, seeds, rotations, cluster
        As in `principal_features`.
    ratio
        Shares of the channels, in (0, 1], counted as in `ifa.select`.
    output, grid, grid_of
        As in `ifa.tap`. Tokens that the grid leaves out, such as a class token, are in no set.
    store
        Directory of a run that keeps what every set makes of every sample; it is continued, and
        refused if it is another's, as in `ifa.analyze`.
    data_version, versions, shard, device, map, progress
        As in `ifa.analyze`.
    batch_size
        How many samples go through the network at once.

    Returns
    -------
    xarray.Dataset
        `performance`, `low`, `high` (fill, rule, ratio), which `ifa.plot.kept` draws; rules are the
        ranking, ``"random"`` and ``"random rotation"``. Intervals are 95 %, of samples (Wilson's
        for an accuracy) or their clusters; of random sets of samples and sets, both drawn anew.
        `kept` (fill, ratio, channel) or (fill, ratio, target, channel), of a basis of atoms, tells
        which channels the ranking keeps, as masks for `ifa.keep`. Attributes: `reference`,
        `reference_low`, `reference_high`, the performance of the untouched network, of `samples`.

    Raises
    ------
    ValueError
        If an option is unknown or out of range, greedy is asked for each target, a target has no
        importance, or `statistics` are of another network, layer or basis.

    Warns
    -----
    DependentSamples
        If samples seem to belong together and no cluster is given.

    References
    ----------
    Li et al. 2024, "Integrated feature analysis". arXiv:2407.01142

    Examples
    --------
    >>> import ifa
    >>> net = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Linear(4, 2, bias=False)).eval()
    >>> _ = net[1].weight.data.copy_(torch.tensor([[4.0, 2.0, 1.0, 0.5], [0.0, 0.0, 0.0, 0.0]]))
    >>> data = [(torch.tensor([1.0, -2.0, 3.0, 1.0]) * sign, sign < 0) for sign in [1, -1] * 8]
    >>> data = [(inputs, int(label)) for inputs, label in data]
    >>> importance = xr.DataArray([[4.0, 2.0, 1.0, 0.5]], {"target": [0]}, ("target", "channel"))
    >>> statistics = importance.to_dataset(name="importance")
    >>> options = {"by": "importance", "ratio": (0.25, 0.5, 1.0), "seeds": range(3)}
    >>> curve = feature_curve(net, "0", data, statistics, fill="zero", **options)
    >>> curve["performance"].sel(fill="zero", rule="common, importance").values
    array([1. , 0.5, 1. ])
    """
    fills = (fill,) if isinstance(fill, str) else tuple(fill)
    rules = (ratio, seeds, rotations)
    question = Question(_WHERE, by, metric, per_target, basis, fills, *rules)
    check_question(question)
    network = cut_network(_WHERE, model, layer, data, device, Laid(output, grid, grid_of))
    how = Pass(store, data_version, versions, shard, batch_size, map, progress)
    sets, every = measured_sets(network, layer, statistics, cluster, question, how)
    parts = [
        curves_of(every[name], sets[name]).assign(kept=sets[name].of_ratios()) for name in fills
    ]
    first = reference_of(every[fills[0]])
    return labelled(parts, network, question, diagnosis="feature curve", **first)
