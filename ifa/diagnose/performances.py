"""How well a network does, as a mean over samples: accuracy, AUROC, Pearson's r."""

from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
from torch import Tensor

from ifa.evaluate.masked_outputs import Outcome
from ifa.intervals import auroc_interval, correlation_interval, mean_interval, share_interval
from ifa.network.probabilities import are_chances
from ifa.store.items import Batch, class_labels, flag_labels, numbers_of, real_labels

Metric = Literal["accuracy", "auroc", "r"]
METRICS = {"accuracy": "accuracy", "auroc": "AUROC", "r": "Pearson's r"}


class Values(NamedTuple):
    """A performance, sample by sample."""

    each: np.ndarray  # (sample,) float64, whose mean is the performance
    most: float | None  # how much of the mean times n one sample can be; None without a bound


def outcome_of(where: str, metric: Metric, label: Any, outputs: Tensor) -> Outcome:
    """Say what is kept of outputs for a metric; `label` is the first, `outputs` some to look at.

    One output, and a label for each of several outputs, are logits of labels of 0 or 1.
    """
    numbers, width = len(numbers_of(label)), outputs.shape[1]
    kind = "real" if metric == "r" else "class" if width > 1 and numbers < 2 else "flags"
    if kind == "flags" and are_chances(outputs):
        raise ValueError(
            f"{where}: expected logits, above 0 of which a label is predicted, got outputs that "
            "all lie between 0 and 1, as of a network that ends in a sigmoid. Give the network "
            "without it, such as net[:-1]."
        )
    size = numbers or 1 if kind == "real" else width
    labels = partial(_labels, where, kind, size)
    return Outcome(labels, _right if metric == "accuracy" else _whole, f"{metric} of {kind}")


def _labels(where: str, kind: str, size: int, batch: Batch, first: int) -> Tensor:
    """Read labels: (sample,) of classes, (sample, output) of 0 or 1, or real."""
    if kind == "class":
        return class_labels(where, batch, first, size)
    read = real_labels if kind == "real" else flag_labels
    return read(where, batch, first, size).reshape(-1, size)


def _right(outputs: Tensor, labels: Tensor) -> Tensor:
    """Tell what is predicted rightly: (sample,), of several labels the share of them."""
    if labels.ndim == 1:
        return outputs.argmax(1) == labels
    found = (outputs > 0) == labels.bool()
    return found[:, 0] if found.shape[1] == 1 else found.double().mean(1)


def _whole(outputs: Tensor, labels: Tensor) -> Tensor:
    return outputs


def values_of(metric: Metric, outcomes: np.ndarray, labels: np.ndarray) -> Values:
    """Write a performance as a mean over samples.

    An accuracy is one. The AUROC and r are estimated by all samples together; each is its value
    plus the sample's influence on it (DeLong's placements; the derivative of r), so that the mean
    is the performance, and the variance of the mean that of the estimate.
    """
    if metric == "accuracy":
        return Values(outcomes.astype(np.float64), 1.0)
    outcomes = outcomes.astype(np.float64)
    return _auroc(outcomes, labels) if metric == "auroc" else _r(outcomes, labels)


def interval_of(
    metric: Metric, outcomes: np.ndarray, labels: np.ndarray, codes: np.ndarray
) -> tuple[float, float]:
    """Interval of a performance over samples or their clusters, 95 %."""
    if metric == "auroc":
        found = auroc_interval(*_told(outcomes, labels), codes=codes)
    elif metric == "r":
        found = correlation_interval(outcomes, labels, codes=codes)
    elif outcomes.dtype == np.bool_:
        found = share_interval(outcomes, codes=codes)
    else:
        found = mean_interval(outcomes, codes=codes)
    return float(found.low), float(found.high)


def _told(outputs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores and flags (sample, target) of targets that some samples are of, and some not."""
    from scipy.special import softmax

    own = labels.ndim == 2
    scores = outputs if own else softmax(outputs, axis=1)
    flags = labels == 1 if own else labels[:, None] == np.arange(scores.shape[1])
    present = flags.any(0) & ~flags.all(0)
    return scores[:, present], flags[:, present]


def _auroc(outputs: np.ndarray, labels: np.ndarray) -> Values:
    """AUROC, the mean over targets that are there: of one against the rest, or of each label."""
    scores, flags = _told(outputs, labels)
    if not flags.shape[1]:
        return Values(np.full(len(labels), np.nan), np.nan)
    each = np.mean([_placed(*pair) for pair in zip(scores.T, flags.T, strict=True)], axis=0)
    rarest = np.minimum(flags.sum(0), (~flags).sum(0)).min()
    return Values(each, len(labels) / rarest / flags.shape[1])


def _placed(scores: np.ndarray, flag: np.ndarray) -> np.ndarray:
    """AUROC of one label plus every sample's influence on it."""
    from scipy.stats import rankdata

    ranks, place = rankdata(scores), np.empty(len(scores))
    yes, no = int(flag.sum()), int((~flag).sum())
    place[flag] = (ranks[flag] - rankdata(scores[flag])) / no
    place[~flag] = 1 - (ranks[~flag] - rankdata(scores[~flag])) / yes
    whole = place[flag].mean()
    return whole + (place - whole) * len(scores) / np.where(flag, yes, no)


def _r(outputs: np.ndarray, labels: np.ndarray) -> Values:
    """Pearson's r, the mean over outputs; one that is constant follows nothing."""
    x, y = (_standard(values.reshape(len(labels), -1)) for values in (outputs, labels))
    product = x * y
    r = product.mean(0)
    return Values((r + product - r * (x**2 + y**2) / 2).mean(1), None)


def _standard(values: np.ndarray) -> np.ndarray:
    away = values - values.mean(0)
    spread = np.sqrt((away**2).mean(0))
    return np.divide(away, spread, out=np.zeros_like(away), where=spread > 0)
