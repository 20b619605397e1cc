"""What the stored table of a run's samples says of the network, and of its maps."""

import json
from functools import partial
from typing import Any

import numpy as np
import torch
import xarray as xr

from ifa.checks import check_level
from ifa.clusters import table_codes
from ifa.evaluate.agreement import consistency
from ifa.evaluate.discrimination import auroc
from ifa.intervals import auroc_interval, correlation_interval, share_interval
from ifa.types import Statistics

_WHERE = "ifa.evaluate.classification_report"


def classification_report(
    statistics: Statistics, *, level: float = 0.95, cluster: Any = None
) -> xr.Dataset:
    r"""Report accuracy, precision, recall and F1 of the network that a run is of.

    .. math:: P_c = \frac{n_{cc}}{\sum_l n_{lc}}, \quad R_c = \frac{n_{cc}}{\sum_p n_{cp}}, \quad
              F_c = \frac{2 P_c R_c}{P_c + R_c}

    with :math:`n_{lp}` samples of label l that are predicted as p. Macro averages over targets,
    weighted over samples: each target counts by its number of labels.

    Parameters
    ----------
    statistics
        A run of a classification or a binary task, from `ifa.analyze` or `ifa.open`, with its
        samples.
    level
        Of the two-sided interval of the accuracy.
    cluster : (sample,), optional
        Labels of samples that belong together, such as their patients; None for those that the run
        has kept, or else for samples that are independent.

    Returns
    -------
    xarray.Dataset
        `accuracy`, with its `low` and `high`, Wilson's, over draws of samples or whole clusters;
        `precision`, `recall`, `f1` (average) with the averages ``"macro"`` and
        ``"weighted"``; the same of each target, `precision_of`, `recall_of`, `f1_of` and `count`
        (target); `confusion` (target, predicted). All in [0, 1], but for counts. Targets are the
        labels and predictions that occur, of a binary task 0 and 1; one that is never predicted has
        the precision 0.

    Raises
    ------
    ValueError
        If the run kept no samples, or is of a regression or several labels; if the level is not
        between 0 and 1, or there is not a cluster for each sample.

    Warns
    -----
    DependentSamples
        If ids look like samples that belong together, and no cluster is given.

    References
    ----------
    Pedregosa et al. 2011, "Scikit-learn: machine learning in Python". JMLR 12:2825–2830
    """
    from sklearn import metrics

    check_level(_WHERE, level)
    table = _samples(_WHERE, statistics)
    task = json.loads(statistics.attrs["spec"])["task"]
    if task not in ("classification", "binary"):
        cure = (
            "Use ifa.evaluate.consistency_report."
            if task == "regression"
            else "Of each label ifa.population.summary says how often it is found."
        )
        raise ValueError(
            f"{_WHERE}: expected a run of a classification or a binary task, got task={task!r}. "
            f"{cure}"
        )
    label, prediction = (table[name].values for name in ("label", "prediction"))
    targets, place = np.unique(np.concatenate([label, prediction]), return_inverse=True)
    codes = table_codes(_WHERE, table, cluster, column=statistics.attrs.get("shared"))
    low, high = share_interval(label == prediction, codes=codes, level=level)
    confusion = np.zeros((len(targets),) * 2, np.int64)
    np.add.at(confusion, tuple(place.reshape(2, -1)), 1)
    names, averages = ("precision", "recall", "f1"), ("macro", "weighted")
    options: dict[str, Any] = {"labels": targets, "zero_division": 0.0}
    scores = partial(metrics.precision_recall_fscore_support, label, prediction, **options)
    averaged, each = [scores(average=average) for average in averages], scores()
    variables: dict[str, Any] = {
        "accuracy": ((), np.trace(confusion) / len(label), {"units": "1"}),
        "low": ((), low, {"long_name": f"lower limit of the accuracy, {level:.6g}"}),
        "high": ((), high, {"long_name": f"upper limit of the accuracy, {level:.6g}"}),
        "count": ("target", confusion.sum(1), {"long_name": "labels"}),
        "confusion": (("target", "predicted"), confusion, {"long_name": "samples"}),
    }
    for index, name in enumerate(names):
        variables[name] = ("average", [row[index] for row in averaged], {"units": "1"})
        variables[f"{name}_of"] = ("target", each[index], {"units": "1"})
    coords = {"average": list(averages), "target": targets, "predicted": targets}
    return xr.Dataset(variables, coords, {"samples": len(label)})


def consistency_report(
    statistics: Statistics, *, level: float = 0.95, cluster: Any = None
) -> xr.Dataset:
    r"""Report whether the levels of a run's maps follow the scores that they explain.

    `consistency` and `auroc` of the sum of each map and the score of its target, over the samples
    whose map is finite.

    Parameters
    ----------
    statistics
        A run, from `ifa.analyze` or `ifa.open`, with its samples.
    level
        Of the two-sided intervals of `pearson` and `auroc`, see `correlation_interval` and
        `auroc_interval`: each for itself, not for all layers and targets at once.
    cluster : (sample,), optional
        Labels of samples that belong together, such as their patients; None for those that the run
        has kept, or else for samples that are independent.

    Returns
    -------
    xarray.Dataset
        `pearson`, its `low` and `high`, `spearman` and `count`, of each layer; where all samples
        were explained for the same targets, (layer, target), and then, but for a regression,
        `auroc`: how well the level tells samples that are predicted as the target from others, with
        `auroc_low` and `auroc_high`. NaN where there are too few samples, or one of the two is
        constant.

    Raises
    ------
    ValueError
        If the run kept no samples, the level is not between 0 and 1, or there is not a cluster for
        each sample.

    Warns
    -----
    DependentSamples
        If ids look like samples that belong together, and no cluster is given.

    References
    ----------
    Li et al. 2024, "Integrated feature analysis". arXiv:2407.01142
    """
    where = "ifa.evaluate.consistency_report"
    check_level(where, level)
    table, layers = _samples(where, statistics), statistics.attrs["layers"]
    listed = "target" in table["score"].dims
    scores = table["score"].values if listed else table["score"].values[None]
    positive = _positive(table, json.loads(statistics.attrs["spec"])["task"]) if listed else None
    codes = table_codes(where, table, cluster, column=statistics.attrs.get("shared"))
    rows = []
    for layer in layers:
        maps = statistics[f"samples/{layer}"].to_dataset()
        sums, finite = (maps[name].values.reshape(scores.shape) for name in ("map_sum", "finite"))
        for place, known in enumerate(finite & np.isfinite(scores)):
            yes = np.zeros_like(known) if positive is None else positive[place]
            parts = sums[place, known], scores[place, known], yes[known], codes[known]
            rows.append(_consistent(*parts, level))
    coords = {"layer": list(layers)} | ({"target": table["target"].values} if listed else {})
    shape = tuple(map(len, coords.values()))
    areas = ["auroc", "auroc_low", "auroc_high"]
    names = ["pearson", "low", "high", "spearman", *areas, "count"]
    values = np.array(rows, dtype=float).T.reshape(len(names), *shape)
    variables = {name: (tuple(coords), part) for name, part in zip(names, values, strict=True)}
    variables["count"] = (tuple(coords), values[-1].astype(np.int64))
    if positive is None:
        variables = {name: part for name, part in variables.items() if name not in areas}
    return xr.Dataset(variables, coords, {"level": level})


def _positive(table: xr.Dataset, task: str) -> np.ndarray | None:
    """Tell which samples are predicted as each target: (target, sample); None of a regression."""
    prediction = table["prediction"].values
    if task == "regression":
        return None
    if task in ("classification", "scored"):
        return prediction == table["target"].values[:, None]
    return prediction.reshape(table.sizes["sample"], -1).T[table["target"].values] == 1


def _consistent(
    sums: np.ndarray, scores: np.ndarray, positive: np.ndarray, codes: np.ndarray, level: float
) -> tuple[float, ...]:
    """Return Pearson's r and its interval, Spearman's, the AUROC and its interval, the count."""
    count, nothing = len(sums), float("nan")
    if count < 2:
        return (*(nothing,) * 7, count)
    sizes, given = torch.from_numpy(sums).double(), torch.from_numpy(scores).double()
    found = consistency(sizes, given)
    low, high = correlation_interval(sums, scores, codes=codes, level=level)
    area = float(auroc(sizes, torch.from_numpy(positive)))
    ends = auroc_interval(sums, positive, codes=codes, level=level)
    spearman = float(found.spearman)
    return (float(found.pearson), float(low), float(high), spearman, area, *map(float, ends), count)


def _samples(where: str, statistics: Statistics) -> xr.Dataset:
    """Return the table of a run's samples."""
    if "samples" not in getattr(statistics, "children", {}):
        raise ValueError(
            f"{where}: expected a run with its samples, from ifa.analyze or ifa.open, got "
            f"{type(statistics).__name__} without. Run ifa.analyze(..., keep_samples='summary')."
        )
    return statistics["samples"].to_dataset()
