"""A run at a glance: what sets each target apart, and where its maps lie."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ifa.plot.layout import fit
from ifa.plot.populations import extremes, importance
from ifa.reduce.statistics import difference, over_groups, tells_apart
from ifa.scaling import scale_from
from ifa.types import Statistics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# So many targets can be told apart on a page.
_MOST = 40


def summary(statistics: Statistics, *, figure: "Figure | None" = None) -> "Figure":
    """Draw a run at a glance, a row for each layer: `ifa.difference`, and the extremes of maps.

    Of a single target the importance is drawn; of more than 40, those of the most accepted samples;
    of groups, their mean by accepted samples.

    Parameters
    ----------
    statistics
        A tree, as `ifa.analyze` or `ifa.open` returns it. Extremes need its sample table.
    figure
        Where to draw, both side by side from 7 inches of width on; made if None.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    layers = list(statistics.attrs["layers"])
    tables = "samples" in statistics.children
    if figure is None:
        size = (11 if tables else 6.5, 3.8 * len(layers))
        figure = Figure(figsize=size, layout="constrained")
    wide = figure.bbox.width / figure.dpi >= 7
    rows, columns = (len(layers), 1 + tables) if wide else (len(layers) * (1 + tables), 1)
    pairs = figure.subplots(rows, columns, squeeze=False).reshape(len(layers), -1)
    for layer, row in zip(layers, pairs, strict=True):
        dataset = statistics[layer].to_dataset()
        values = _shown(dataset)
        if np.isfinite(values.values).any():
            importance(values, axes=row[0])
        else:
            _only(row[0], "no target has an accepted sample")
        row[0].set_title(f"layer {layer}: {row[0].get_title()}")
        if tables:
            _extremes(statistics[f"samples/{layer}"], dataset, row[1])
        fit(*row)
    return figure


def _shown(dataset: Any) -> Any:
    values = difference(dataset) if tells_apart(dataset) else dataset["importance"]
    values = over_groups(values, dataset["count"])
    accepted = dataset["count"].values.reshape(-1, dataset.sizes["target"]).sum(0)
    return values.isel(target=np.sort(np.argsort(-accepted, kind="stable")[:_MOST]))


def _extremes(samples: Any, dataset: Any, axes: Any) -> None:
    known = {0.5, 0.9} <= set(dataset["quantile"].values.tolist())
    if known and samples["finite"].values.any():
        extremes(samples, scale_from(dataset), axes=axes)
        return
    _only(axes, "no common scale: its quantiles were not kept, or no map")


def _only(axes: Any, words: str) -> None:
    axes.set_axis_off()
    axes.set_title(words)
