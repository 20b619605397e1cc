"""Classification report: how often the network is right, from the stored table of samples."""

import json
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from ifa.types import Statistics

_WHERE = "ifa.evaluate.classification_report"


def classification_report(statistics: Statistics) -> xr.Dataset:
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

    Returns
    -------
    xarray.Dataset
        `accuracy`; `precision`, `recall`, `f1` (average) with the averages ``"macro"`` and
        ``"weighted"``; the same of each target, `precision_of`, `recall_of`, `f1_of` and `count`
        (target); `confusion` (target, predicted). All in [0, 1], but for counts. Targets are the
        labels and predictions that occur, of a binary task 0 and 1; one that is never predicted has
        the precision 0.

    Raises
    ------
    ValueError
        If the run kept no samples, or is of a regression or several labels.

    References
    ----------
    Pedregosa et al. 2011, "Scikit-learn: machine learning in Python". JMLR 12:2825–2830
    """
    from sklearn import metrics

    if "samples" not in getattr(statistics, "children", {}):
        raise ValueError(
            f"{_WHERE}: expected a run with its samples, from ifa.analyze or ifa.open, got "
            f"{type(statistics).__name__} without. Run ifa.analyze(..., keep_samples='summary')."
        )
    task = json.loads(statistics.attrs["spec"])["task"]
    if task not in ("classification", "binary"):
        cure = (
            "Use ifa.evaluate.consistency of level and score."
            if task == "regression"
            else "Of each label ifa.population.summary says how often it is found."
        )
        raise ValueError(
            f"{_WHERE}: expected a run of a classification or a binary task, got task={task!r}. "
            f"{cure}"
        )
    table = statistics["samples"].to_dataset()
    label, prediction = (table[name].values for name in ("label", "prediction"))
    targets = np.union1d(label, prediction)
    confusion = metrics.confusion_matrix(label, prediction, labels=targets)
    names, averages = ("precision", "recall", "f1"), ("macro", "weighted")
    options: dict[str, Any] = {"labels": targets, "zero_division": 0.0}
    scores = partial(metrics.precision_recall_fscore_support, label, prediction, **options)
    averaged, each = [scores(average=average) for average in averages], scores()
    variables: dict[str, Any] = {
        "accuracy": ((), np.trace(confusion) / len(label), {"units": "1"}),
        "count": ("target", confusion.sum(1), {"long_name": "labels"}),
        "confusion": (("target", "predicted"), confusion, {"long_name": "samples"}),
    }
    for index, name in enumerate(names):
        variables[name] = ("average", [row[index] for row in averaged], {"units": "1"})
        variables[f"{name}_of"] = ("target", each[index], {"units": "1"})
    coords = {"average": list(averages), "target": targets, "predicted": targets}
    return xr.Dataset(variables, coords, {"samples": len(label)})
