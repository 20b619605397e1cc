"""Reading what a diagnosis needs from a run: importances, level and score, row by row."""

import json
from typing import Any, NamedTuple

import numpy as np

from ifa.reduce.statistics import clusters_of, feature_of, one_layer
from ifa.reduce.verdicts import FLAGS, verdict
from ifa.types import Statistics


class Table(NamedTuple):
    """One row for each sample and explained target whose map is finite."""

    layer: str
    unit: str
    sample: np.ndarray  # (row,): position in the run
    id: np.ndarray  # (row,)
    target: np.ndarray  # (row,): the explained output
    importance: np.ndarray  # (row, channel), float64
    level: np.ndarray  # (row,): sum of the map
    score: np.ndarray  # (row,)
    right: np.ndarray | None  # (row,): whether the prediction is right; None for regression
    samples: int  # of the run
    label: np.ndarray | None = None  # (row,): what is right, of several labels each its own two
    accepted: np.ndarray | None = None  # (row,): whether it counts for the target's importance
    cluster: np.ndarray | None = None  # (row,): place in `clusters`, int64; None if none are known
    clusters: tuple[str, ...] = ()  # their labels, of the whole run
    feature: str = "channel"  # what importances are of: "atom" in a basis
    basis: str | None = None  # digest of its dictionary

    @property
    def targets(self) -> np.ndarray:
        return np.unique(self.target)

    @property
    def codes(self) -> np.ndarray:
        """Rows that belong together, int64 (row,): those of a cluster, or else of a sample."""
        return self.sample if self.cluster is None else self.cluster


def statistics_of(statistics: Statistics, layer: str | None, where: str) -> Any:
    """One layer's statistics, from a statistics or a dataset."""
    if layer is None:
        return one_layer(statistics, where)
    return statistics[_known(statistics, layer, where)].to_dataset()


def keeps_samples(statistics: Any, layer: str | None) -> bool:
    """Tell whether a run kept the importance of every sample of a layer."""
    children = getattr(statistics, "children", {})
    names = [layer] if layer is not None else [name for name in children if name != "samples"]
    table = children["samples"].children if "samples" in children else {}
    return len(names) == 1 and names[0] in table and "importance" in table[names[0]]


def table_of(
    statistics: Statistics,
    layer: str | None,
    where: str,
    *,
    cluster: Any = None,
    heed: bool = False,
) -> Table:
    """Lay the samples of a run out as a table with a row for each explained target.

    Clusters are those of `cluster`, a label of each sample of the run, or else those that it has
    kept. With `heed` a run without them that seems to need them is warned of.
    """
    layer = _known(statistics, layer, where)
    if "samples" not in statistics.children or "importance" not in statistics[f"samples/{layer}"]:
        raise ValueError(
            f"{where}: expected the importance of every sample, but this run kept none. Run "
            "ifa.analyze(..., keep_samples='full')."
        )
    samples, rows = (statistics[name].to_dataset() for name in ("samples", f"samples/{layer}"))
    spec = json.loads(statistics.attrs["spec"])
    importance = np.asarray(rows["importance"].values, dtype=np.float64)
    level, finite = rows["map_sum"].values, rows["finite"].values
    score, label = samples["score"].values, samples["label"].values
    prediction, count = samples["prediction"].values, len(samples["id"])
    if importance.ndim == 3:  # every target of every sample
        target = np.repeat(rows["target"].values, count)
        sample = np.tile(np.arange(count), len(rows["target"]))
    else:
        target = label if spec["targets"] == "label" else prediction
        sample = np.arange(count)
    right, truth, accepted, task = None, None, np.ones(len(sample), dtype=bool), spec["task"]
    if task in FLAGS:
        accepted, right = (
            part.reshape(-1) for part in verdict(task, label, prediction, rows["target"].values)
        )
        label = label.reshape(count, -1).T[rows["target"].values]
        truth = (2 * rows["target"].values[:, None] + label).reshape(-1)
    elif task in ("classification", "scored"):
        truth = label[sample]
        accepted, right = verdict(task, truth, prediction[sample], target)
    good = finite.reshape(-1)
    names, codes = clusters_of(statistics, cluster, where, heed=heed)
    return Table(
        layer=layer,
        unit=str(rows["importance"].attrs.get("units", "1")),
        sample=sample[good],
        id=samples["id"].values[sample][good],
        target=target[good],
        importance=importance.reshape(-1, importance.shape[-1])[good],
        level=level.reshape(-1)[good],
        score=score.reshape(-1)[good],
        right=None if right is None else right[good],
        label=None if truth is None else truth[good],
        accepted=accepted[good],
        samples=count,
        cluster=None if codes is None else codes[sample][good],
        clusters=names,
        feature=feature_of(rows["importance"]),
        basis=_basis(spec, layer),
    )


def _basis(spec: Any, layer: str) -> str | None:
    """Return the digest of the dictionary that a layer of a run is in."""
    found = spec.get("basis")
    return found.get(layer) if isinstance(found, dict) else found


def two_tables(
    statistics: Statistics, other: Statistics, layer: str | None, where: str, cluster: Any
) -> tuple[Table, Table]:
    """Lay two runs out, each with its own clusters: given as a pair, or what it has kept."""
    if cluster is None:
        pair = (None, None)
    elif isinstance(cluster, tuple | list) and len(cluster) == 2:
        pair = cluster
    else:
        raise ValueError(
            f"{where}: expected cluster to be a pair, the labels of each run's samples, got "
            f"{type(cluster).__name__}. Give cluster=(labels, labels of the other)."
        )
    one, two = (
        table_of(run, layer, where, cluster=labels, heed=True)
        for run, labels in zip((statistics, other), pair, strict=True)
    )
    if (one.feature, one.basis) != (two.feature, two.basis):
        said = (f"{t.feature}s{f' of {t.basis[:12]}' if t.basis else ''}" for t in (one, two))
        raise ValueError(
            f"{where}: expected two runs in one basis, got {' and '.join(said)}. Analyze both with "
            "the same dictionary."
        )
    return one, two


def codes_between(a: Table, b: Table) -> tuple[np.ndarray, np.ndarray]:
    """Number what belongs together in two runs, whose clusters are compared as text: by row each.

    Where a run has no clusters, its samples are no other run's.
    """
    parts = [_owners(table, run) for table, run in ((a, "a"), (b, "b"))]
    codes = np.unique(np.concatenate(parts), return_inverse=True)[1].astype(np.int64)
    return codes[: len(parts[0])], codes[len(parts[0]) :]


def _owners(table: Table, run: str) -> np.ndarray:
    if table.cluster is None:
        return np.array([f"{run}{sample}" for sample in table.sample.tolist()], dtype=object)
    names = np.array([f"cluster {name}" for name in table.clusters], dtype=object)
    return names[table.cluster]


def _known(statistics: Statistics, layer: str | None, where: str) -> str:
    layers = [name for name in getattr(statistics, "children", {}) if name != "samples"]
    if layer is None and len(layers) == 1:
        return layers[0]
    if layer is not None and layer in layers:
        return layer
    came = f"layer={layer!r} of" if layer is not None else "no layer= and"
    raise LookupError(
        f"{where}: expected a run as ifa.analyze or ifa.open returns it, and one of its layers, "
        f"got {came} {layers or type(statistics).__name__}."
    )
