"""Reading labelled statistics: one layer of a tree, and what sets a target apart."""

from typing import Any


def one_layer(statistics: Any, where: str) -> Any:
    """Return one layer's dataset, given it or a tree with one layer; `where` is named in errors."""
    if "map_max_overall" in statistics or "importance" in statistics:
        return statistics.to_dataset() if hasattr(statistics, "children") else statistics
    layers = [name for name in getattr(statistics, "children", {}) if name != "samples"]
    if len(layers) == 1:
        return statistics[layers[0]].to_dataset()
    came = f"layers {layers}" if layers else type(statistics).__name__
    raise ValueError(
        f"{where}: expected one layer's dataset, or a tree with one layer, got {came}. "
        "Take a layer: statistics['layer4']."
    )


def difference(statistics: Any) -> Any:
    r"""Importance of each channel for a target, less its importance over all samples.

    .. math:: D_{tk} = \bar I_{tk} - \bar I_k

    Parameters
    ----------
    statistics
        One layer's dataset as `ifa.analyze` returns it, or a tree with one layer.

    Returns
    -------
    xarray.DataArray
        (target, channel), in the score's unit; positive where a channel speaks for this target more
        than for the average one. NaN for targets without an accepted sample.

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
    result = dataset["importance"] - dataset["importance_overall"]
    attrs = {"long_name": "importance less importance over all targets"}
    return result.rename("difference").assign_attrs({**dataset["importance"].attrs, **attrs})
