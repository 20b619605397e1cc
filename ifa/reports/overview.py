"""How often a network is right, what it takes for what, and what is said of a run in words."""

from typing import Any

import numpy as np

from ifa.intervals import correlation_interval, share_interval
from ifa.population.summaries import summary
from ifa.reduce.verdicts import FLAGS
from ifa.reports.packing import packed
from ifa.reports.sources import Rows, Source, extremes_of
from ifa.scaling import scale_from

_CELLS = 2000  # of a confusion matrix, the largest
_BINS = 48


def accuracy(source: Source, rows: Rows) -> dict[str, Any]:
    """Say how often it is right, by class or output, with intervals; or how predictions follow."""
    names, codes = source.names, rows.codes
    if source.task == "regression":
        label, said = (v.reshape(len(rows.id), -1) for v in (rows.label, rows.prediction))
        each = [
            _entry(str(names.get(n, n)), _r(label[:, n], said[:, n], codes), target=n)
            for n in range(label.shape[1])
        ]
        return {"kind": "r", "every": None, "each": each}
    if source.task in FLAGS:
        label, said = (v.reshape(len(rows.id), -1) for v in (rows.label, rows.prediction))
        right = label == said
        each = [
            _entry(str(names.get(n, n)), _share(right[:, n], codes), target=n)
            for n in range(right.shape[1])
        ]
        return {"kind": "share", "every": _entry("all", _share(right.all(1), codes)), "each": each}
    right = rows.label == rows.prediction
    each = [
        _entry(
            str(names.get(int(one), one)),
            _share(right[rows.label == one], _at(codes, rows.label == one)),
            target=int(one),
        )
        for one in np.unique(rows.label)
    ]
    return {"kind": "share", "every": _entry("all", _share(right, codes)), "each": each}


def _entry(name: str, found: tuple[float, float, float, int, int], **more: Any) -> dict[str, Any]:
    value, low, high, count, of = found
    return {"name": name, "value": value, "low": low, "high": high, "right": count, "of": of} | more


def _share(right: np.ndarray, codes: np.ndarray | None) -> tuple[float, float, float, int, int]:
    low, high = share_interval(right, codes=codes)
    return float(right.mean()), float(low), float(high), int(right.sum()), len(right)


def _r(a: np.ndarray, b: np.ndarray, codes: np.ndarray | None) -> Any:
    low, high = correlation_interval(a, b, codes=codes)
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.corrcoef(a, b)[0, 1]), float(low), float(high), len(a), len(a)


def _at(codes: np.ndarray | None, chosen: np.ndarray) -> np.ndarray | None:
    return None if codes is None else codes[chosen]


def confusion(source: Source, rows: Rows) -> dict[str, Any] | None:
    """Count what each label is taken for: the most frequent cells."""
    if source.task not in ("classification", "scored"):
        return None
    pairs = np.stack([rows.label, rows.prediction], 1)
    cells, counts = np.unique(pairs, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:_CELLS]
    table = np.column_stack([cells[order], counts[order]])
    return {"cells": table.astype(int).tolist(), "left": max(0, len(cells) - _CELLS)}


def scale_part(source: Source, layer: str, rows: Rows | None) -> dict[str, Any]:
    """Describe a layer's common scale: its limits, and how extremes of maps are distributed."""
    dataset = source.tree[layer].to_dataset()
    unit = dataset["importance"].attrs.get("units", "1")
    found: dict[str, Any] = {"unit": unit, "low": None, "high": None, "extremes": None}
    if {0.5, 0.9} <= set(dataset["quantile"].values.tolist()):
        scale = scale_from(dataset)
        found |= {"low": _number(scale.low), "high": _number(scale.high)}
    if rows is not None:
        table = source.tree[f"samples/{layer}"].to_dataset()
        finite = table["finite"].values.ravel()
        low, high = (table[name].values.ravel()[finite] for name in ("map_min", "map_max"))
        if finite.any():
            edges = np.histogram_bin_edges(np.concatenate([low, high]), _BINS)
            found["extremes"] = {
                "edges": packed(edges),
                "low": packed(np.histogram(low, edges)[0]),
                "high": packed(np.histogram(high, edges)[0]),
            }
    cautions = ("nonfinite", "zero_gradient", "cancelled")
    found["cautions"] = {name: int(dataset[name].sum()) for name in cautions if name in dataset}
    return found


def _number(value: Any) -> float | None:
    value = float(value)
    return value if np.isfinite(value) else None


def samples_part(source: Source, rows: Rows, chosen: np.ndarray) -> dict[str, Any]:
    """Lay the sample table out, of the chosen samples."""
    found: dict[str, Any] = {
        "id": [str(name) for name in rows.id[chosen]],
        "position": packed(chosen),
        "target": packed(rows.target[chosen]),
        "score": packed(rows.score[chosen]),
        "right": None if rows.right is None else packed(rows.right[chosen]),
    }
    real = source.task == "regression"
    for name in ("label", "prediction"):
        values = getattr(rows, name).reshape(len(rows.id), -1)[chosen]
        found[name] = packed(values.astype(np.float64 if real else np.int64))
    found["layers"] = {
        layer: {
            name: packed(values[chosen])
            for name, values in extremes_of(source, layer, rows).items()
        }
        for layer in source.layers
    }
    return found


def words(source: Source) -> list[str]:
    """Say what a run found, as the command line does."""
    return summary(source.tree).splitlines()


def evidence(claims: Any) -> list[dict[str, Any]] | None:
    """List claims: what is claimed, whether it holds, and what was measured."""
    if claims is None:
        return None
    names = ("verdict", "sentence")
    return [
        {"claim": str(claim)} | {name: str(claims[name].values[place]) for name in names}
        for place, claim in enumerate(claims["claim"].values)
    ]


def methods(table: Any, rows: Rows | None) -> dict[str, Any] | None:
    """Say which methods a table tells from noise, and show it as it is written."""
    from ifa.contest import summary as ranked
    from ifa.contest.summaries import CONTROL, said_of_noise, written

    if table is None:
        return None
    if "value" not in table or "id" not in table:
        raise ValueError(
            "ifa.report: expected table to be what ifa.contest.table returned, got "
            f"{type(table).__name__}."
        )
    strange = set(table["id"].values.tolist()) - set([] if rows is None else rows.id.tolist())
    if rows is not None and strange:
        raise ValueError(
            f"ifa.report: expected a table of samples of the run, got {min(strange)!r} and "
            f"{len(strange) - 1} others that it has not. Make one of the run's data."
        )
    if "better" in table.coords and (table["better"].values == "").any():
        table = table.isel(metric=table["better"].values != "")
    found = ranked(table)
    said = f"The table has no method {CONTROL!r}: it cannot say whether any method beats noise."
    if "p_noise" in found:
        said = " ".join(said_of_noise(found)) or "No method was compared with noise."
    return {"said": said, "text": written(found)}
