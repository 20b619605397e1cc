"""What a layer's features are worth: importance with intervals, distributions, copies, samples."""

from typing import Any, NamedTuple

import numpy as np

from ifa.intervals import mean_interval
from ifa.reduce.statistics import difference, feature_of, over_groups, tells_apart
from ifa.reports.packing import packed
from ifa.reports.sources import Source, accepted_of, whole

# A table of a layer has so many cells at most; each takes 40 bytes of the page.
MOST_CELLS = 60_000
TOPS = 8  # samples that speak most for a feature
_PARTNERS = 5
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_LACKING = "The run did not keep the importance of every sample (keep_samples='full')"


class Layer(NamedTuple):
    """What the page knows of a layer's features."""

    name: str
    kept: np.ndarray  # places of the targets that are listed
    importance: np.ndarray  # (target, feature), of all targets
    table: Any  # rows of importances; None where the run kept none
    content: dict[str, Any]
    notes: list[str]

    @property
    def tops(self) -> np.ndarray:
        """Positions in the run of the samples that speak most for each feature, (feature, rank)."""
        if self.table is None:
            return np.zeros((self.importance.shape[1], 0), np.int64)
        values, sample = self.table.importance, self.table.sample
        order = np.argsort(-values, axis=0, kind="stable")[: 4 * TOPS].T
        # a sample with several targets stands there once
        rows = [list(dict.fromkeys(sample[one].tolist()))[:TOPS] for one in order]
        least = min(map(len, rows), default=0)
        return np.array([row[:least] for row in rows], dtype=np.int64).reshape(len(rows), least)


def layer_part(source: Source, layer: str, share: int) -> Layer:
    """Describe a layer's features; with `share` layers on a page, of as many targets as fit."""
    from ifa.diagnose.rows import keeps_samples, table_of

    dataset = source.tree[layer].to_dataset()
    table, notes = None, []
    if keeps_samples(source.tree, layer):
        table = table_of(source.tree, layer, "ifa.report")
    else:
        notes.append(f"{_LACKING}: no distribution, top samples, outliers or copies of {layer}.")
    importance, accepted = whole(dataset, "importance"), accepted_of(dataset)
    most = max(1, MOST_CELLS // share // importance.shape[1])
    kept = np.sort(np.argsort(-accepted, kind="stable")[:most])
    if most < len(accepted):
        notes.append(
            f"Importances in {layer} are listed of the {most} targets of {len(accepted)} with the "
            "most accepted samples."
        )
    apart = None
    if tells_apart(dataset):
        apart = over_groups(difference(dataset), dataset["count"]).values[kept]
    low, high = _intervals(source, dataset, table, kept)
    content = {
        "name": layer,
        "feature": feature_of(dataset),
        "features": importance.shape[1],
        "targets": dataset["target"].values[kept].tolist(),
        "accepted": accepted[kept].tolist(),
        "importance": packed(importance[kept]),
        "difference": None if apart is None else packed(apart),
        "low": packed(low),
        "high": packed(high),
        "quantiles": None if table is None else packed(_quantiles(table, dataset, kept)),
        "levels": list(_QUANTILES),
    }
    return Layer(layer, kept, importance, table, content, notes)


def _intervals(
    source: Source, dataset: Any, table: Any, kept: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return 95 % intervals of importances (target, feature); NaN where none can be given."""
    shape = len(kept), dataset.sizes[feature_of(dataset)]
    low, high = np.full((2, *shape), np.nan)
    if table is not None:
        for place, target in enumerate(dataset["target"].values[kept]):
            rows = (table.target == target) & table.accepted
            if rows.any():
                found = mean_interval(table.importance[rows], codes=table.codes[rows])
                low[place], high[place] = found
        return low, high
    clustered = "samples" in source.tree.children and "cluster" in source.tree["samples"]
    if clustered or "group" in dataset["importance"].dims:
        return low, high
    from scipy.stats import t

    count = dataset["count"].values[kept, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.sqrt(dataset["importance_variance"].values[kept] / count)
        half = t.ppf(0.975, count - 1) * error
    mean = dataset["importance"].values[kept]
    return mean - half, mean + half


def _quantiles(table: Any, dataset: Any, kept: np.ndarray) -> np.ndarray:
    """Return quantiles of importances over accepted samples, (target, feature, level)."""
    size = table.importance.shape[1]
    found = np.full((len(kept), size, len(_QUANTILES)), np.nan)
    for place, target in enumerate(dataset["target"].values[kept]):
        rows = (table.target == target) & table.accepted
        if rows.any():
            found[place] = np.quantile(table.importance[rows], _QUANTILES, axis=0).T
    return found


class Diagnosed(NamedTuple):
    """What diagnoses of a layer say."""

    sentences: list[list[str]]  # of each diagnosis its lines
    partners: dict[str, Any] | None
    strange: Any  # of outliers: None, or what `ifa.diagnose.outliers` returns


def diagnosed(source: Source, layer: Layer) -> Diagnosed:
    """Make the diagnoses that need no more than the run; say why where one cannot be made."""
    from ifa import diagnose

    if layer.table is None:
        return Diagnosed([], None, None)
    sentences, found = [], {}
    for name in ("outliers", "redundancy"):
        try:
            found[name] = getattr(diagnose, name)(source.tree, layer.name)
            sentences.append(diagnose.summary(found[name]).splitlines())
        except ValueError as error:  # such as too few samples of every target
            sentences.append([f"{name} of layer {layer.name}: none. {error}"])
    partners = _partners(found["redundancy"]) if "redundancy" in found else None
    return Diagnosed(sentences, partners, found.get("outliers"))


def _partners(found: Any) -> dict[str, Any]:
    """Return the features that each is most correlated with."""
    r = np.abs(np.nan_to_num(found["correlation"].values))
    np.fill_diagonal(r, -1.0)
    order = np.argsort(-r, axis=1, kind="stable")[:, :_PARTNERS]
    rows = np.arange(len(r))[:, None]
    return {
        "feature": packed(order),
        "r": packed(np.nan_to_num(found["correlation"].values)[rows, order]),
        "alarm": packed(found["alarm"].values[rows, order]),
        "group": packed(found["cluster"].values),
        "dead": packed(found["dead"].values),
    }


def strange_part(found: Any, count: int) -> dict[str, Any] | None:
    """Return of each sample how strange it is: its rank, the p-value and whether it is an alarm."""
    if found is None:
        return None
    rank = np.zeros(count, np.int64)
    p, alarm = np.full(count, np.nan), np.zeros(count, bool)
    for place, row in enumerate(found["position"].values.tolist(), 1):
        if rank[row] == 0:  # the strangest of its targets
            rank[row] = place
            p[row] = found["p_adjusted"].values[place - 1]
            alarm[row] = found["alarm"].values[place - 1]
    return {"rank": rank, "p": p, "alarm": alarm}
