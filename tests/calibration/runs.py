"""Runs and tables made from arrays, as `ifa.analyze` and `ifa.contest.table` return them."""

import json
from typing import Any

import numpy as np
import xarray as xr

LAYER = "layer"
QUANTILES = (0.25, 0.5, 0.75, 0.9, 0.95, 0.99)


def simulated_run(
    importance: np.ndarray,
    target: np.ndarray,
    label: np.ndarray,
    prediction: np.ndarray,
    score: np.ndarray,
    *,
    cluster: np.ndarray | None = None,
    ids: np.ndarray | None = None,
    extremes: tuple[np.ndarray, np.ndarray] | None = None,
) -> xr.DataTree:
    """Return the tree of ``ifa.analyze(..., keep_samples="full")`` of a classification.

    `importance` is (sample, channel), for each sample's prediction, or (target, sample, channel)
    for listed targets. `target` are the explained outputs; `score` and `extremes`, the maximum and
    minimum of each map, are (sample,) or (target, sample). The level of a map is its channels' sum.
    """
    listed = importance.ndim == 3
    importance, target = importance.astype(np.float32), np.asarray(target, dtype=np.int64)
    level = importance.sum(-1, dtype=np.float64)
    extremes = (level, level) if extremes is None else extremes
    highest, lowest = (values.astype(np.float32) for values in extremes)
    names = np.arange(len(label)).astype(str) if ids is None else np.asarray(ids)
    rows = ("target", "sample") if listed else ("sample",)
    samples: dict[str, Any] = {
        "id": ("sample", names.astype(object)),
        "label": ("sample", label),
        "prediction": ("sample", prediction),
        "score": (rows, score, {"units": "logit"}),
    }
    if cluster is not None:
        samples["cluster"] = ("sample", np.asarray(cluster).astype(str).astype(object))
    table = {
        "map_max": (rows, highest, {"units": "logit"}),
        "map_min": (rows, lowest, {"units": "logit"}),
        "map_sum": (rows, level, {"units": "logit"}),
        "finite": (rows, np.ones(level.shape, bool)),
        "importance": ((*rows, "channel"), importance, {"units": "logit"}),
    }
    spec = {
        "data": {"samples": len(label)},
        "groups": None,
        "keep_samples": "full",
        "layers": [LAYER],
        "probability_weighted": False,
        "targets": target.tolist() if listed else "predicted",
        "task": "classification",
    }
    attrs = {"layers": [LAYER], "schema": 3, "spec": json.dumps(spec)}
    return xr.DataTree.from_dict(
        {
            "/": xr.Dataset(attrs=attrs),
            f"/{LAYER}": _statistics(importance, target, label, prediction, highest, lowest),
            "/samples": xr.Dataset(samples, {"target": target} if listed else {}),
            f"/samples/{LAYER}": xr.Dataset(table),
        }
    )


def simulated_table(value: np.ndarray, better: str = "higher") -> xr.Dataset:
    """Return what `ifa.contest.table` does, of values (method, metric, sample)."""
    methods, metrics, samples = value.shape
    none = (("method", "sample"), np.zeros((methods, samples), bool))
    names = {"method": methods, "metric": metrics}
    return xr.Dataset(
        {"value": (("method", "metric", "sample"), value), "blank": none, "nonfinite": none},
        {name: [f"{name} {n}" for n in range(count)] for name, count in names.items()}
        | {"better": ("metric", [better] * metrics)},
    )


def _statistics(
    importance: np.ndarray,
    target: np.ndarray,
    label: np.ndarray,
    prediction: np.ndarray,
    highest: np.ndarray,
    lowest: np.ndarray,
) -> xr.Dataset:
    listed, correct = importance.ndim == 3, label == prediction
    # of the samples whose map is of a target, and whose prediction is right; and of all of these
    own = [np.full(len(label), listed) | (prediction == one) for one in target]
    parts = np.broadcast_to(importance, (len(target), *importance.shape[-2:])).astype(np.float64)
    accepted = [
        part[correct & (prediction == one)] for part, one in zip(parts, target, strict=True)
    ]
    if listed:
        overall = ("target", "channel"), [_mean(part[correct]) for part in parts]
    else:
        overall = ("channel",), _mean(np.concatenate(accepted))
    both, at = ("target", "channel"), ("target", "quantile")
    nothing = ("target", np.zeros(len(target), np.int64), {"units": "1"})
    units = {"units": "logit"}
    variables: dict[str, Any] = {
        "importance": (both, [_mean(part) for part in accepted], units),
        "importance_variance": (
            both,
            [_variance(part) for part in accepted],
            {"units": "logit**2"},
        ),
        "count": ("target", [len(part) for part in accepted], {"units": "1"}),
        **dict.fromkeys(("nonfinite", "zero_gradient", "cancelled"), nothing),
        "importance_overall": (*overall, units),
    }
    for name, values in (("map_max", highest), ("map_min", lowest)):
        rows = np.broadcast_to(values, (len(target), len(label)))
        found = [_quantiles(row[mine]) for row, mine in zip(rows, own, strict=True)]
        variables[name] = (at, found, units)
        variables[f"{name}_overall"] = ("quantile", _quantiles(values), units)
    return xr.Dataset(variables, {"target": target, "quantile": list(QUANTILES)})


def _mean(values: np.ndarray) -> np.ndarray:
    return values.mean(0) if len(values) else np.full(values.shape[1], np.nan)


def _variance(values: np.ndarray) -> np.ndarray:
    return values.var(0, ddof=1) if len(values) > 1 else np.full(values.shape[1], np.nan)


def _quantiles(values: np.ndarray) -> np.ndarray:
    return np.quantile(values, QUANTILES) if values.size else np.full(len(QUANTILES), np.nan)
