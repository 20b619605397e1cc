"""Reading labelled statistics: one layer of a tree, all of its groups, what sets a target apart."""

import json
from typing import Any

import numpy as np

from ifa.clusters import heed_dependence, names_of
from ifa.types import Statistics


def one_layer(statistics: Statistics, where: str) -> Any:
    """Return one layer's dataset, given it or a tree with one layer; `where` is named in errors."""
    names, dims = (getattr(statistics, name, ()) for name in ("data_vars", "dims"))
    layers = [name for name in getattr(statistics, "children", {}) if name != "samples"]
    came = f"layers {layers}" if layers else type(statistics).__name__
    if "sample" in dims:
        came = "a table of samples"
    elif "map_max_overall" in names or "importance" in names:
        return statistics.to_dataset() if hasattr(statistics, "children") else statistics
    elif len(layers) == 1:
        return statistics[layers[0]].to_dataset()
    raise ValueError(
        f"{where}: expected one layer's dataset, or a tree with one layer, got {came}. "
        "Take a layer: statistics['layer4']."
    )


def feature_of(values: Any) -> str:
    """Name the axis of a layer's features: its channels, or the atoms of a basis."""
    return "atom" if "atom" in values.dims else "channel"


def tells_apart(dataset: Any) -> bool:
    """Tell whether there is something that a target could differ from."""
    return dataset.sizes["target"] > 1 or "target" in dataset["importance_overall"].dims


def over_groups(values: Any, count: Any) -> Any:
    """Return the mean of values (group, target, channel) over groups, each by its `count`."""
    if "group" not in values.dims:
        return values
    heavy = count.where(values.notnull(), 0)
    total = heavy.sum("group")
    mean = (values.fillna(0) * heavy).sum("group") / total.where(total > 0)
    return mean.rename(values.name).assign_attrs(values.attrs)


def difference(statistics: Statistics) -> Any:
    r"""Importance of each channel for a target, less what is expected whatever a sample's class.

    .. math:: D_{tk} = \bar I_{tk} - \bar I_k

    where the second is ``importance_overall``: the mean over all accepted samples, or with a list
    of targets that of target t over all correctly predicted samples.

    Parameters
    ----------
    statistics
        One layer's dataset as `ifa.analyze` returns it, or a tree with one layer.

    Returns
    -------
    xarray.DataArray
        (target, channel), after the groups if there are any, in the score's unit; positive where a
        channel speaks for this target more than for the average one. NaN for targets without an
        accepted sample, and where there is no sample but the target's own to set it apart from.

    Raises
    ------
    ValueError
        If the difference is zero by construction, as for the only output of a regression.

    References
    ----------
    Li et al. 2024, "Integrated feature analysis". arXiv:2407.01142

    Examples
    --------
    >>> import ifa, xarray as xr
    >>> statistics = xr.Dataset(
    ...     {"importance": (("target", "channel"), [[1.0, 0.0], [0.0, 3.0]]),
    ...      "importance_overall": ("channel", [0.5, 1.5])}
    ... )
    >>> ifa.difference(statistics).values.tolist()
    [[0.5, -1.5], [-0.5, 1.5]]
    """
    dataset = one_layer(statistics, "ifa.difference")
    importance, overall = dataset["importance"], dataset["importance_overall"]
    if not tells_apart(dataset):
        raise ValueError(
            "ifa.difference: expected targets that can be told apart, got the only output of a "
            "network, whose importance is that over all samples: the difference is zero by "
            "construction. Select from the importance: statistics['importance']."
        )
    # where both are means of the same samples they agree to the bit
    feature = feature_of(importance)
    same = ((importance == overall) | importance.isnull()).all(feature)
    alone = same & importance.any(feature)
    result = (importance - overall).where(~alone).transpose(*importance.dims)
    attrs = {"long_name": "importance less importance over all targets"}
    return result.rename("difference").assign_attrs({**dataset["importance"].attrs, **attrs})


def clusters_of(
    statistics: Statistics, cluster: Any, where: str, *, heed: bool = True
) -> tuple[tuple[str, ...], np.ndarray | None]:
    """Return the names of a run's clusters, and which each sample is of; None if none are known.

    They are those given, one label for each sample of the run, or else those that it has kept. With
    `heed` it is warned of a run that has none and seems to need them.
    """
    samples = statistics["samples"]
    if cluster is None and "cluster" in samples:
        cluster = samples["cluster"].values
    if cluster is not None:
        names, codes = names_of(where, "cluster", cluster, len(samples["id"]))
        # by their text, as they are kept: the same draws of clusters that are given again
        found, places = np.unique(np.array(names, dtype=object)[codes], return_inverse=True)
        return tuple(found.tolist()), places.astype(np.int64)
    if heed:
        task = json.loads(statistics.attrs.get("spec", "{}")).get("task", "classification")
        classes = samples["label"].values if task in ("classification", "scored") else None
        shared = statistics.attrs.get("shared")
        heed_dependence(where, samples["id"].values, classes, column=shared)
    return (), None
