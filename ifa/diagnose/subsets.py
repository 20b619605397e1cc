"""Principal features: the smallest set of channels that keeps the network's performance."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from ifa import select
from ifa.diagnose.rows import statistics_of
from ifa.evaluate.feature_curves import Channels
from ifa.intervals import correlation_interval, share_interval
from ifa.network.inputs import split, take
from ifa.network.probabilities import are_chances
from ifa.progress import Progress, reporting
from ifa.reduce.statistics import difference
from ifa.store.items import (
    Batch,
    class_labels,
    collate,
    data_set,
    flag_labels,
    numbers_of,
    real_labels,
)
from ifa.taps import cut
from ifa.types import Inputs, Statistics

_WHERE = "ifa.diagnose.principal_features"
Metric = Literal["accuracy", "auroc", "r"]


def principal_features(
    model: nn.Module,
    layer: str,
    data: Any,
    statistics: Statistics,
    *,
    by: Literal["importance", "difference", "greedy"] = "difference",
    metric: Metric = "accuracy",
    per_target: bool = False,
    tolerance: float = 0.01,
    ratio: Sequence[float] = (0.05, 0.10, 0.25, 0.50),
    seeds: Sequence[int] = range(10),
    batch_size: int = 256,
    progress: Progress = False,
) -> xr.Dataset:
    """Find the smallest set of channels that keeps the network's performance within a tolerance.

    The other channels are set to zero in the forward pass. Channels are ranked, and the curve over
    ratios is measured for the first of the ranking and for random sets of the same size. The chosen
    set is the shortest part of the ranking, found by bisection between the ratios, that is within
    the tolerance while the next shorter one is not.

    Parameters
    ----------
    model
        The network, in evaluation mode.
    layer
        Name of a layer, as `ifa.trace` lists it.
    data
        ``(input, label)`` or ``(input, label, id)``, as for `ifa.analyze`: other samples than those
        of `statistics`, if the figure is to hold for new ones. Of a network of one output, and
        where a label has several numbers, these are 0 or 1, and an output above 0 says 1.
    statistics
        The layer's statistics, or a tree with the layer.
    by
        ``"importance"`` or ``"difference"``: by absolute value, largest over targets;
        ``"greedy"``: one channel after another, the one that lifts the mean log-probability of the
        label most (of one logit or several labels that of each; regression: lowers the squared
        error most). Greedy looks at the labels of `data`, so that its curve is too good for them;
        and it is slow for many channels.
    metric
        ``"accuracy"``, of one logit and of several labels that of each label; ``"auroc"``, the mean
        over targets of one against the rest, or of each label; or ``"r"``, Pearson's for
        regression, the mean over outputs.
    per_target
        Each target's score from its own channels; otherwise one set for all.
    tolerance
        How much performance may be lost, in the metric's unit.
    ratio
        Shares of the channels, in (0, 1].
    seeds
        Of the random sets.
    batch_size
        How many samples go through the network at once.
    progress
        As in `ifa.analyze`.

    Returns
    -------
    xarray.Dataset
        `performance`, `low`, `high` (rule, ratio), what `ifa.plot.kept` draws: the interval is 95 %
        (Wilson's for an accuracy, the jackknife's for r, over 200 resamples of the samples for
        AUROC and the accuracy of several labels; over the seeds, Student's). `chosen` (channel,) or
        (target, channel). Attributes `reference` (with every channel), `performance` and `ratio` of
        the chosen set, `channels_chosen`.

    Raises
    ------
    ValueError
        If an option is unknown or out of range, or greedy is asked for each target.

    References
    ----------
    Li et al. 2024, "Integrated feature analysis". arXiv:2407.01142
    """
    _check(by, metric, per_target, tolerance, ratio)
    data = data_set(_WHERE, data)
    batch = collate(_WHERE, data, range(len(data)))
    table = statistics_of(statistics, layer if hasattr(statistics, "children") else None, _WHERE)

    perturbed = Channels(_WHERE, model, layer, take(batch.inputs, slice(1)))

    def run(mask: Any) -> np.ndarray:
        outputs = [perturbed(part, mask) for part in split(batch.inputs, batch_size)]
        return torch.cat(outputs).double().cpu().numpy()

    channels = table.sizes["channel"]
    every = run(torch.ones(channels, dtype=torch.bool))
    every = every.reshape(len(every), -1)
    labels = _labels(metric, batch, every)
    measure = partial(_PERFORMANCE[metric], labels=labels)
    with reporting(progress, "principal features", len(ratio) * (1 + len(seeds))) as advance:
        if by == "greedy":
            longest = max(_count(one, channels) for one in ratio)
            order = _greedy(model, layer, batch.inputs, labels, metric, longest)
            ranked = xr.DataArray(order, dims="channel")
        else:
            values = table["importance"] if by == "importance" else difference(table)
            ranked = abs(values) if per_target else abs(values).max("target")
        rows = []
        for one in ratio:
            outputs = run(select.largest(ranked, ratio=one))
            rows.append((measure(outputs), *_interval(metric, outputs, labels)))
            advance(1)
        for one in ratio:
            found = []
            for seed in seeds:
                found.append(measure(run(select.random(ranked, ratio=one, seed=seed))))
                advance(1)
            rows.append(_over_seeds(found))
    reference = measure(every)
    points = {_count(r, channels): row[0] for r, row in zip(ratio, rows, strict=False)}
    first = partial(_first, ranked)
    count = _shortest(points, channels, reference - tolerance, lambda k: measure(run(first(k))))
    chosen = first(count)
    kind = "own" if per_target else "common"
    what = ({"accuracy": "accuracy", "auroc": "AUROC", "r": "Pearson's r"}[metric],)
    what = (*what, "lower limit, 95 %", "upper limit, 95 %")
    cells = np.array(rows).reshape(2, len(ratio), 3)
    return xr.Dataset(
        {
            **{
                name: (("rule", "ratio"), cells[..., i], {"long_name": what[i], "units": "1"})
                for i, name in enumerate(("performance", "low", "high"))
            },
            "chosen": chosen.assign_attrs(
                long_name=f"smallest set within {tolerance:g} of every channel"
            ),
        },
        {
            "rule": np.array([f"{kind}, {by}", f"{kind}, random"], dtype=object),
            "ratio": list(ratio),
        },
        {
            "diagnosis": "principal features",
            "layer": layer,
            "metric": metric,
            "reference": reference,
            "tolerance": tolerance,
            "performance": measure(run(chosen)),
            "ratio": count / channels,
            "channels_chosen": count,
        },
    )


def _labels(metric: Metric, batch: Batch, outputs: np.ndarray) -> np.ndarray:
    """Read labels: (sample,) of classes, (sample, output) of 0 or 1 where there are several labels.

    One output, and a label for each of several outputs, are logits of labels of 0 or 1.
    """
    numbers, width = len(numbers_of(batch.labels[0])), outputs.shape[1]
    if metric == "r":
        return real_labels(_WHERE, batch, 0, numbers or 1).numpy()
    if width > 1 and numbers < 2:
        return class_labels(_WHERE, batch, 0, width).numpy()
    if are_chances(torch.from_numpy(outputs)):
        raise ValueError(
            f"{_WHERE}: expected logits, above 0 of which a label is predicted, got outputs that "
            "all lie between 0 and 1, as of a network that ends in a sigmoid. Give the network "
            "without it, such as net[:-1]."
        )
    return flag_labels(_WHERE, batch, 0, width).reshape(-1, width).numpy()


def _count(ratio: float, channels: int) -> int:
    """How many channels a ratio keeps, as `ifa.select` counts."""
    return max(1, round(ratio * channels))


def _first(ranked: Any, count: int) -> Any:
    return select.largest(ranked, ratio=count / ranked.shape[-1])


def _shortest(
    points: dict[int, float], channels: int, enough: float, measure: Callable[[int], float]
) -> int:
    """Bisect between the last count that is too small and the next that is enough."""
    good = min((k for k, value in points.items() if value >= enough), default=channels)
    bad = max((k for k in points if k < good), default=0)
    while good - bad > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if measure(middle) >= enough else (good, middle)
    return good


def _greedy(
    model: nn.Module, layer: str, inputs: Inputs, labels: np.ndarray, metric: str, longest: int
) -> np.ndarray:
    """Rank channels by adding the best next one; those that are not reached rank last, equally."""
    with torch.no_grad():
        activations, head = cut(model, layer, take(inputs, slice(1)))(inputs)
        channels, space = activations.shape[1], (1,) * (activations.ndim - 2)
        kept, ranked = torch.zeros(channels, dtype=torch.bool), np.zeros(channels)
        target = torch.from_numpy(labels)
        for step in range(longest):
            gains = {}
            for channel in (~kept).nonzero()[:, 0].tolist():
                mask = kept.clone()
                mask[channel] = True
                mask = mask.to(activations.device).reshape(1, -1, *space)
                gains[channel] = _gain(head(activations * mask).double().cpu(), target, metric)
            best = max(gains, key=lambda channel: gains[channel])
            kept[best], ranked[best] = True, longest - step
    return ranked


def _gain(outputs: Tensor, labels: Tensor, metric: str) -> float:
    if metric == "r":
        return -float((outputs.reshape(labels.shape) - labels).square().mean())
    if labels.ndim == 2:
        outputs = outputs.reshape(labels.shape)
        return -float(binary_cross_entropy_with_logits(outputs, labels.double()))
    return float(outputs.log_softmax(1).gather(1, labels.long()[:, None]).mean())


def _right(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Tell what is predicted rightly: (sample,), or each label of each sample."""
    if labels.ndim == 2:
        return (outputs.reshape(labels.shape) > 0) == labels
    return outputs.argmax(1) == labels


def _accuracy(outputs: np.ndarray, *, labels: np.ndarray) -> float:
    return float(_right(outputs, labels).mean())


def _auroc(outputs: np.ndarray, *, labels: np.ndarray) -> float:
    from scipy.special import softmax
    from sklearn.metrics import roc_auc_score

    own = labels.ndim == 2
    shares: Any = outputs.reshape(labels.shape) if own else softmax(outputs, axis=1)
    flags: Any = labels == 1 if own else labels[:, None] == np.arange(shares.shape[1])
    present = [t for t in range(shares.shape[1]) if 0 < flags[:, t].sum() < len(labels)]
    return float(np.mean([roc_auc_score(flags[:, t], shares[:, t]) for t in present]))


def _r(outputs: np.ndarray, *, labels: np.ndarray) -> float:
    outputs, labels = (x.reshape(len(labels), -1) for x in (outputs, labels))
    with np.errstate(invalid="ignore", divide="ignore"):
        pairs = zip(outputs.T, labels.T, strict=True)
        # an output that is constant follows nothing
        return float(np.mean([np.nan_to_num(np.corrcoef(a, b)[0, 1]) for a, b in pairs]))


_PERFORMANCE: dict[str, Callable[..., float]] = {"accuracy": _accuracy, "auroc": _auroc, "r": _r}


def _interval(metric: str, outputs: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    if metric == "accuracy" and labels.size == len(labels):
        low, high = share_interval(_right(outputs, labels))
        return float(low), float(high)
    if metric == "r":
        low, high = correlation_interval(outputs, labels.reshape(outputs.shape))
        return float(low), float(high)
    rng = np.random.default_rng(0)
    draws = [rng.integers(len(labels), size=len(labels)) for _ in range(200)]
    found = [_PERFORMANCE[metric](outputs[draw], labels=labels[draw]) for draw in draws]
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)


def _over_seeds(found: Sequence[float]) -> tuple[float, float, float]:
    from scipy.stats import t

    mean = float(np.mean(found))
    if len(found) < 2:
        return mean, mean, mean
    half = float(t.ppf(0.975, len(found) - 1) * np.std(found, ddof=1) / len(found) ** 0.5)
    return mean, mean - half, mean + half


def _check(
    by: str, metric: str, per_target: bool, tolerance: float, ratio: Sequence[float]
) -> None:
    for name, value, allowed in (
        ("by", by, ("importance", "difference", "greedy")),
        ("metric", metric, tuple(_PERFORMANCE)),
    ):
        if value not in allowed:
            raise ValueError(f"{_WHERE}: expected {name} to be one of {allowed}, got {value!r}.")
    if by == "greedy" and per_target:
        raise ValueError(
            f"{_WHERE}: expected one set for all targets with by='greedy', got per_target=True."
        )
    if tolerance < 0 or not len(ratio) or not all(0 < one <= 1 for one in ratio):
        raise ValueError(
            f"{_WHERE}: expected a tolerance of at least 0 and ratio in (0, 1], got "
            f"{tolerance!r} and {list(ratio)}."
        )
