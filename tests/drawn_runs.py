"""Runs whose importances are drawn, as `ifa.analyze(..., keep_samples="full")` returns them."""

import json

import numpy as np
import xarray as xr


def drawn_run(importance, label, prediction=None, *, cluster=None, ids=None):
    """Make a run of importances (sample, channel), of the label's, or (target, sample, channel)."""
    importance, label = np.asarray(importance, dtype=np.float64), np.asarray(label)
    prediction = label if prediction is None else np.asarray(prediction)
    many = importance.ndim == 3
    rows = ("target", "sample") if many else ("sample",)
    targets = np.arange(len(importance)) if many else np.unique(label)
    where = {"target": targets} if many else {}
    names = [f"s{n}" for n in range(len(label))] if ids is None else list(ids)
    samples = {
        "id": ("sample", np.array(names, dtype=object)),
        "label": ("sample", label),
        "prediction": ("sample", prediction),
        "score": (rows, importance.mean(-1)),
    }
    if cluster is not None:
        samples["cluster"] = ("sample", np.array([str(c) for c in cluster], dtype=object))
    table = {
        "map_sum": (rows, importance.sum(-1)),
        "finite": (rows, np.ones(importance.shape[:-1], dtype=bool)),
        "importance": ((*rows, "channel"), importance),
    }
    spec = {"targets": targets.tolist() if many else "label", "task": "classification"}
    return xr.DataTree.from_dict(
        {
            "/": xr.Dataset(attrs={"spec": json.dumps(spec), "layers": ["layer"]}),
            "/layer": _statistics(importance, label, prediction, targets),
            "/samples": xr.Dataset(samples, where),
            "/samples/layer": xr.Dataset(table, where),
        }
    )


def _statistics(importance, label, prediction, targets):
    right = label == prediction
    parts = [
        (importance[row] if importance.ndim == 3 else importance)[right & (label == target)]
        for row, target in enumerate(targets)
    ]
    both, nan = ("target", "channel"), np.full(importance.shape[-1], np.nan)
    return xr.Dataset(
        {
            "importance": (both, [x.mean(0) if len(x) else nan for x in parts]),
            "importance_variance": (both, [x.var(0, ddof=1) if len(x) > 1 else nan for x in parts]),
            "count": ("target", [len(x) for x in parts]),
        },
        {"target": targets},
    )
