"""What sets of channels make of the samples: curves, and the smallest that is enough."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ifa import select
from ifa.diagnose.performances import METRICS, Metric, interval_of, values_of
from ifa.diagnose.sufficiency import fewest, folds_of, smallest
from ifa.intervals import crossed_interval, loss_bound

# `smallest` or `fewest`
Rule = Callable[..., int]


class Sets(NamedTuple):
    """The sets that are measured, for one fill."""

    ranked: Any  # (channel,) or (target, channel), or of atoms
    sizes: np.ndarray  # of those of the ranking
    counts: list[int]  # those of the ratios
    seeds: list[int]
    spans: bool  # whether all of them are the untouched network
    rotations: int = 0  # how many are measured for each ratio

    @property
    def tested(self) -> int:
        """How many sizes there is something to test of."""
        return len(self.sizes) - self.spans

    def first(self, count: int) -> Any:
        return select.largest(self.ranked, ratio=count / self.ranked.shape[-1])

    def of_ratios(self) -> xr.DataArray:
        """Those of the ranking that the ratios keep, (ratio, ...)."""
        attrs = {"long_name": "kept by the ranking"}
        kept = [self.first(count) for count in self.counts]
        return xr.concat(kept, "ratio").assign_attrs(attrs)

    def masks(self) -> tuple[Any, ...]:
        """Those of the ranking, and random ones: (ratio, seed)."""
        features = self.ranked.shape[-1]
        random = [
            select.random(self.ranked, ratio=count / features, seed=seed)
            for count in self.counts
            for seed in self.seeds
        ]
        return (*[self.first(int(count)) for count in self.sizes[: self.tested]], *random)


class Measured(NamedTuple):
    """What every set makes of the samples that are measured, for one fill."""

    metric: Metric
    labels: np.ndarray
    codes: np.ndarray
    full: np.ndarray  # (sample, ...)
    kept: np.ndarray  # (sample, mask, ...)

    def loss(self, outcomes: np.ndarray, samples: np.ndarray) -> tuple[np.ndarray, float | None]:
        """Return what is lost with a set, sample by sample: the paired difference."""
        labels = self.labels[samples]
        full = values_of(self.metric, self.full[samples], labels)
        kept = values_of(self.metric, outcomes[samples], labels)
        return full.each - kept.each, full.most


def measured_of(found: xr.Dataset, metric: Metric, codes: np.ndarray, samples: Any) -> Measured:
    """Take what the sets of one fill make of some samples into memory."""
    label, full, kept = (found[name].values[samples] for name in ("label", "full", "kept"))
    return Measured(metric, label, codes[samples], full, kept)


def reference_of(measured: Measured) -> dict[str, Any]:
    """Return the performance with every channel."""
    every = values_of(measured.metric, measured.full, measured.labels)
    low, high = interval_of(measured.metric, measured.full, measured.labels, measured.codes)
    return {
        "samples": len(measured.codes),
        "reference": float(every.each.mean()),
        "reference_low": low,
        "reference_high": high,
    }


def least_tolerance_of(measured: Measured, alpha: float) -> float:
    """Return the loss that so many samples cannot exclude though none is lost."""
    nothing = np.zeros(len(measured.codes))
    most = values_of(measured.metric, measured.full, measured.labels).most
    return loss_bound(nothing, codes=measured.codes, most=most, alpha=alpha)


def curves_of(measured: Measured, sets: Sets) -> xr.Dataset:
    """Return the curves of one fill: of the ranking, random sets and rotations."""
    start, draws = sets.tested, len(sets.seeds)
    cells = [_ranked(measured, sets), _random(measured, start, len(sets.counts), draws)]
    if sets.rotations:
        start += draws * len(sets.counts)
        cells.append(_random(measured, start, len(sets.counts), sets.rotations))
    cells = np.stack(cells)
    name = METRICS[measured.metric]
    long = (name, "lower limit, 95 %", "upper limit, 95 %")
    curves = {
        key: (("rule", "ratio"), cells[..., place], {"long_name": long[place], "units": "1"})
        for place, key in enumerate(("performance", "low", "high"))
    }
    return xr.Dataset(curves)


def found_of(
    measured: Measured, sets: Sets, tolerance: float, alpha: float, folds: int
) -> xr.Dataset:
    """Return the curves of one fill, and the set that is chosen."""
    every = np.arange(len(measured.codes))
    chosen = _smallest(measured, sets, every, tolerance, alpha)
    count = int(sets.sizes[min(chosen, len(sets.sizes) - 1)])
    least = _smallest(measured, sets, every, tolerance, alpha, fewest)
    attrs = {"long_name": f"smallest set shown to be within {tolerance:g} of every channel"}
    return (
        curves_of(measured, sets)
        .assign(
            {
                "chosen": sets.first(count).assign_attrs(attrs),
                "chosen_count": ((), count, {"long_name": "features of the chosen set"}),
                "least_count": (
                    (),
                    1 + int(sets.sizes[least - 1]) if least else 1,
                    {"long_name": "features; fewer are shown to lose more than the tolerance"},
                ),
                "enough": (
                    (),
                    sets.spans or chosen < sets.tested,
                    {"long_name": "whether the chosen set is shown to be enough"},
                ),
                **_elsewhere(measured, sets, tolerance, alpha, folds),
                **_sizes(measured, sets, alpha),
            }
        )
        .assign_coords(candidate=sets.sizes)
    )


def _outcomes(measured: Measured, sets: Sets, place: int) -> np.ndarray:
    """Return what a size of the ranking makes of the samples; after the tested, the network."""
    return measured.full if place == sets.tested else measured.kept[:, place]


def _ranked(measured: Measured, sets: Sets) -> np.ndarray:
    """Performance and interval of the first of the ranking, (ratio, 3)."""
    cells = []
    for count in sets.counts:
        outcomes = _outcomes(measured, sets, int(np.searchsorted(sets.sizes, count)))
        each = values_of(measured.metric, outcomes, measured.labels).each
        limits = interval_of(measured.metric, outcomes, measured.labels, measured.codes)
        cells.append((each.mean(), *limits))
    return np.array(cells)


def _random(measured: Measured, place: int, ratios: int, draws: int) -> np.ndarray:
    """Performance and interval of random sets, over samples and sets, (ratio, 3)."""
    cells = []
    for _ in range(ratios):
        drawn = range(place, place := place + draws)
        found = [
            values_of(measured.metric, measured.kept[:, one], measured.labels).each for one in drawn
        ]
        if not found:
            cells.append((np.nan, np.nan, np.nan))
            continue
        values = np.stack(found)
        cells.append((values.mean(), *crossed_interval(values, codes=measured.codes)))
    return np.array(cells)


def _smallest(
    measured: Measured,
    sets: Sets,
    samples: np.ndarray,
    tolerance: float,
    alpha: float,
    rule: Rule = smallest,
) -> int:
    def loss(place: int, some: np.ndarray) -> tuple[np.ndarray, float | None]:
        return measured.loss(_outcomes(measured, sets, place), some)

    return rule(loss, sets.tested + 1, samples, measured.codes, tolerance, alpha)


def _elsewhere(
    measured: Measured, sets: Sets, tolerance: float, alpha: float, folds: int
) -> dict[str, Any]:
    """Measure every sample with the set that the other folds choose."""
    outcomes, counts = measured.full.copy(), []
    for choosing, held in folds_of(measured.codes, folds):
        place = _smallest(measured, sets, choosing, tolerance, alpha)
        outcomes[held] = _outcomes(measured, sets, place)[held]
        counts.append(sets.sizes[min(place, len(sets.sizes) - 1)])
    loss, most = measured.loss(outcomes, np.arange(len(measured.codes)))
    each = values_of(measured.metric, outcomes, measured.labels).each
    low, high = interval_of(measured.metric, outcomes, measured.labels, measured.codes)
    what = "of samples, each with the set that the other folds choose"
    bound = loss_bound(loss, codes=measured.codes, most=most, alpha=alpha)
    found = {
        "chosen_performance": (each.mean(), f"{METRICS[measured.metric]} {what}"),
        "chosen_low": (low, "lower limit, 95 %"),
        "chosen_high": (high, "upper limit, 95 %"),
        "loss": (loss.mean(), f"loss {what}"),
        "loss_bound": (bound, f"upper limit of the loss, {1 - alpha:g} one-sided"),
    }
    scalars = {key: ((), value, {"long_name": text}) for key, (value, text) in found.items()}
    each_fold = ("fold", np.array(counts), {"long_name": "features that the other folds choose"})
    return {**scalars, "chosen_count_fold": each_fold}


def _sizes(measured: Measured, sets: Sets, alpha: float) -> dict[str, Any]:
    """Return the loss of every size, and its upper limit."""
    every = np.arange(len(measured.codes))
    losses = [
        measured.loss(_outcomes(measured, sets, place), every) for place in range(len(sets.sizes))
    ]
    bounds = [
        loss_bound(loss, codes=measured.codes, most=most, alpha=alpha) for loss, most in losses
    ]
    text = f"upper limit of the loss, {1 - alpha:g} one-sided"
    return {
        "candidate_loss": ("candidate", [loss.mean() for loss, _ in losses], {"long_name": "loss"}),
        "candidate_bound": ("candidate", bounds, {"long_name": text}),
    }
