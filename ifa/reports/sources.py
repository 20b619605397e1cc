"""What a page is made of: runs, read; data and a network that are the run's."""

import json
import os
from typing import Any, NamedTuple

import numpy as np

from ifa.contest.from_run import check_same
from ifa.contest.mapped import statistics_of
from ifa.reduce.statistics import clusters_of, over_groups
from ifa.reduce.verdicts import FLAGS
from ifa.types import Statistics


class Source(NamedTuple):
    """A run."""

    name: str
    tree: Any
    spec: dict[str, Any]

    @property
    def layers(self) -> list[str]:
        """Names of its layers."""
        return list(self.tree.attrs["layers"])

    @property
    def task(self) -> str:
        return self.spec["task"]

    @property
    def names(self) -> dict[int, str]:
        """The name of each target."""
        dataset = self.tree[self.layers[0]]
        named = dataset["target_name" if "target_name" in dataset.coords else "target"]
        pairs = zip(dataset["target"].values.tolist(), named.values.tolist(), strict=True)
        return {int(target): str(name) for target, name in pairs}


class Rows(NamedTuple):
    """The sample table, a row for each sample, explained for one of its targets."""

    id: np.ndarray
    label: np.ndarray  # (sample,) or (sample, output)
    prediction: np.ndarray
    target: np.ndarray  # the explained output
    place: np.ndarray | None  # of the target among the run's, where each has its own values
    right: np.ndarray | None  # None of real values
    score: np.ndarray
    codes: np.ndarray | None  # whose each sample is

    def of(self, values: np.ndarray) -> np.ndarray:
        """Take from (sample,) or (target, sample) what is of each sample's target."""
        if values.ndim == 1 or self.place is None:
            return values
        return values[self.place, np.arange(values.shape[1])]


def source_of(where: str, run: Statistics | str | os.PathLike[str]) -> Source:
    """Open a run, or take its statistics; refuse anything else."""
    if isinstance(run, str | os.PathLike):
        tree, name = statistics_of(where, run), os.fspath(run).rstrip("/").rpartition("/")[2]
    else:
        tree, name = run, "run"
    attrs = getattr(tree, "attrs", {})
    spec = json.loads(attrs.get("spec", "{}"))
    if "layers" not in attrs or "keep_samples" not in spec:
        came = attrs.get("title", type(tree).__name__)
        raise ValueError(
            f"{where}: expected a run of ifa.analyze, its folder or its statistics, got {came!r}. "
            "Give what `ifa.analyze` returned, or the folder that was its store=."
        )
    return Source(name, tree, spec)


def check_data(where: str, run: Any, source: Source, model: Any, data: Any) -> None:
    """Refuse data, and a network if there is one, that are not the run's."""
    kept = isinstance(run, str | os.PathLike)
    check_same(where, run if kept else source.tree, model, data)


def rows_of(source: Source) -> Rows | None:
    """Read the sample table; None where the run kept none."""
    if "samples" not in source.tree.children:
        return None
    table = source.tree["samples"].to_dataset()
    id, label, prediction, score = (
        table[name].values for name in ("id", "label", "prediction", "score")
    )
    outputs = source.tree[source.layers[0]]["target"].values
    target, place = _explained(source, outputs, label, prediction, score)
    rows = Rows(id, label, prediction, target, place, None, score, None)
    _, codes = clusters_of(source.tree, None, "ifa.report", heed=False)
    right = None
    if source.task in FLAGS:
        each = (values.reshape(len(id), -1) for values in (label, prediction))
        truth, said = (values[np.arange(len(id)), target] for values in each)
        right = truth == said
    elif source.task != "regression":
        right = label == prediction
    return rows._replace(right=right, score=rows.of(score), codes=codes)


def _explained(
    source: Source, outputs: np.ndarray, label: Any, prediction: Any, score: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """Choose which target of each sample is shown, and find where the run has its values."""
    if score.ndim == 1:
        said = label if source.spec["targets"] == "label" else prediction
        return said.astype(np.int64), None
    count, place = len(prediction), None
    if source.task in ("classification", "scored"):
        first = label if source.task == "scored" else prediction
        for said in (label, first):  # what is predicted, else the label, else the first
            known = said[:, None] == outputs
            found = known.argmax(1)
            place = found if place is None else np.where(known.any(1), found, place)
    elif source.task == "multilabel":
        place = np.nan_to_num(score, nan=-np.inf).argmax(0)
    place = np.zeros(count, np.int64) if place is None else place
    return outputs[place].astype(np.int64), place


def extremes_of(source: Source, layer: str, rows: Rows) -> dict[str, np.ndarray]:
    """Return what the run kept of each sample's map."""
    table = source.tree[f"samples/{layer}"].to_dataset()
    names = ("map_min", "map_max", "map_sum", "finite")
    return {name: rows.of(table[name].values) for name in names}


def accepted_of(dataset: Any) -> np.ndarray:
    """Count the accepted samples of each target, over groups."""
    return dataset["count"].values.reshape(-1, dataset.sizes["target"]).sum(0)


def whole(dataset: Any, name: str) -> np.ndarray:
    """Return importances (target, feature), of groups their mean by accepted samples."""
    return over_groups(dataset[name], dataset["count"]).values
