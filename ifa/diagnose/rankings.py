"""Which channels come first: by their importance, or one after the other by what they add."""

from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from ifa.basis import Dictionary
from ifa.diagnose.performances import Metric
from ifa.evaluate.channels import Above, in_basis
from ifa.evaluate.masked_outputs import CutNetwork, Outcome, evenly
from ifa.reduce.statistics import difference, feature_of

By = Literal["importance", "difference", "greedy"]
# Greedy looks at this many samples at most, whose activations are in memory at once.
GREEDY = 256


def ranked_by(where: str, by: By, statistics: Any, per_target: bool) -> Any:
    """Values that rank channels, (channel,) or (target, channel); larger comes first."""
    values = difference(statistics) if by == "difference" else statistics["importance"]
    values = abs(values)
    nothing = values.isnull().any(feature_of(values))
    if nothing.all() or (per_target and nothing.any()):
        named = values["target"].values[nothing.values].tolist()
        raise ValueError(
            f"{where}: expected importances of {'every' if per_target else 'a'} target, got none "
            f"of {named}, which no accepted sample is of. Analyze more samples"
            + (", or the other targets, or take one set for all." if per_target else ".")
        )
    return values if per_target else values.max("target")


def greedy_samples(samples: int) -> list[int]:
    """Return the places of those that greedy looks at: they measure nothing else."""
    return evenly(samples, min(GREEDY, max(1, samples // 2)))


def greedily(
    network: CutNetwork,
    outcome: Outcome,
    metric: Metric,
    values: Any,
    longest: int,
    basis: Dictionary | None,
    fill: Any,
) -> Any:
    """Rank channels by adding the best next one; those that are not reached by their importance.

    `values` (channel,) are the importances. Each step adds the channel that lifts the mean
    log-probability of the labels most, or lowers the squared error.
    """
    places = greedy_samples(len(network.data))
    (seen,) = network.look(places, len(places))
    target = outcome.labels(seen.batch, 0)
    held = in_basis(network.where, seen.activations, seen.head, basis)
    kept = torch.zeros(held[0].shape[1], dtype=torch.bool)
    ranked = values.values / (1 + abs(values.values).max())  # below 1
    for step in range(longest):
        left = (~kept).nonzero()[:, 0].tolist()
        gains = [
            _gain(_with(network, held, kept, channel, fill), target, metric) for channel in left
        ]
        best = left[int(np.argmax(gains))]
        kept[best], ranked[best] = True, longest - step
    return xr.DataArray(ranked, dims=values.dims)


def _with(
    network: CutNetwork, held: tuple[Tensor, Above], kept: Tensor, channel: int, fill: Any
) -> Tensor:
    mask = kept.clone()
    mask[channel] = True
    return network.channels.masked(*held, mask, baseline=fill).double().cpu()


def _gain(outputs: Tensor, labels: Tensor, metric: str) -> float:
    if metric == "r":
        return -float((outputs.reshape(labels.shape) - labels).square().mean())
    if labels.ndim == 2:
        outputs = outputs.reshape(labels.shape)
        return -float(binary_cross_entropy_with_logits(outputs, labels.double()))
    return float(outputs.log_softmax(1).gather(1, labels.long()[:, None]).mean())
