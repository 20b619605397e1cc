"""The refinement pipeline in one figure: what each step made of the maps."""

from typing import Any

import numpy as np

from ifa.plot.layout import fit
from ifa.refine.pipelines import Refined

_COLUMNS, _ROWS = 4, 3


def refinement(refined: Refined, *, image: Any = None, axes: Any = None) -> Any:
    r"""Draw all that `ifa.refine.pipeline` computed of one example, step by step.

    The coarse map, resized, and its region of interest; the fine map, blurred, its edges, and the
    histogram of those in the region, with both bounds of the band that regions grow in; the focal
    points over the edges; what has grown from them, the whole segment, the merged map, and the
    image where that is largest. Below a name is the least and the largest value, of the histogram
    both bounds.
    Of a volume the slice is drawn in which the merged map is largest.

    Parameters
    ----------
    refined
        Of one example, as `ifa.refine.pipeline` returned it.
    image : (channel, \*space)
        What was refined, to be drawn first.
    axes
        An array of 12 axes; made if None.

    Returns
    -------
    numpy.ndarray
        The axes (3, 4); the first is not drawn without an image.

    Raises
    ------
    TypeError, ValueError
        If this is not what the pipeline returned, or there are not 12 axes.
    """
    from matplotlib import pyplot as plt

    where = "ifa.plot.refinement"
    if not isinstance(refined, Refined):
        raise TypeError(
            f"{where}: expected what ifa.refine.pipeline returned, got {type(refined).__name__}."
        )
    if axes is None:
        wide = 1.9 if refined.merged.ndim > 1 else 2.4
        _, axes = plt.subplots(
            _ROWS, _COLUMNS, figsize=(_COLUMNS * wide, _ROWS * 2.1), layout="constrained"
        )
    axes = np.asarray(axes, dtype=object)
    if axes.size != _ROWS * _COLUMNS:
        raise ValueError(f"{where}: expected {_ROWS * _COLUMNS} axes, got {axes.size}.")
    grid = axes.reshape(_ROWS, _COLUMNS)
    array = Refined(*(one.numpy(force=True) for one in refined))  # pyright: ignore
    panels = {
        "image": None if image is None else np.asarray(image),
        "low": array.low,
        "low, resized": array.low_resized,
        "region of interest": array.roi,
        "high, blurred": array.blurred,
        "edges": array.edges,
        "edges in the region": None,
        "focal points": array.edges,
        "grown": array.segmented,
        "full segment": array.full_segment,
        "merged": array.merged,
        "result": array.result,
    }
    for one, (name, values) in zip(grid.ravel(), panels.items(), strict=True):
        if name == "edges in the region":
            _histogram(one, array)
        elif values is None:
            one.set_axis_off()
        else:
            _panel(one, name, values, array)
    fit(*(one for one in grid.ravel() if one.axison or one.get_title()))
    return grid


def _written(value: float) -> str:
    return f"{value:.2g}".replace("-", "−")


def _panel(axes: Any, name: str, values: Any, array: Any) -> None:
    space = array.merged.ndim
    picture = values.ndim > space
    ends = "" if picture else f"\n{_written(values.min())} … {_written(values.max())}"
    if values.dtype == bool:
        ends = f"\n{values.mean():.1%} of positions"
    if name == "focal points":
        ends = f"\n{array.seeds} of {len(array.focal_points)} are seeds"
        ends += " (moved)" * bool(array.snapped)
    axes.set_title(name + ends)
    if space == 1:
        _signal(axes, name, values, array)
        return
    depth = None
    if space == 3:
        depth = int(array.merged.max((1, 2)).argmax())
        axis = int(picture)
        own = depth * values.shape[axis] // len(array.merged)
        values = values.take(own, axis)
    shown = _colours(values) if picture else values
    extent = (0, array.merged.shape[-1], array.merged.shape[-2], 0)
    heat = name in ("low", "low, resized", "merged")
    axes.imshow(shown, cmap="inferno" if heat else "gray", extent=extent, interpolation="nearest")
    if name == "focal points":
        points = array.focal_points
        if depth is not None:
            points = points[points[:, 0] == depth]
        axes.scatter(points[:, -1] + 0.5, points[:, -2] + 0.5, s=9, c="tab:cyan", marker="o")
    axes.set_axis_off()


def _signal(axes: Any, name: str, values: Any, array: Any) -> None:
    whole = array.merged.shape[-1]
    rows = values if values.ndim > 1 else values[None]
    places = (np.arange(rows.shape[1]) + 0.5) * whole / rows.shape[1]
    if values.dtype == bool:
        axes.fill_between(places, values.astype(float), step="mid", color="0.4")
        axes.set_ylim(0, 1.2)
    else:
        axes.plot(places, rows.T, linewidth=1)
    if name == "focal points":
        points = array.focal_points[:, 0]
        axes.plot(points + 0.5, values[points], "o", color="tab:cyan", markersize=4)
    axes.set_xlim(0, whole)
    axes.set_yticks([])


def _colours(image: np.ndarray) -> np.ndarray:
    """Bring (channel, y, x) to grey or RGB from 0 to 1; of other numbers of channels the first."""
    picture = np.moveaxis(image, 0, -1) if len(image) == 3 else image[0]
    picture = picture.astype(float)
    low, high = picture.min(), picture.max()
    outside = len(image) == 3 and (low < 0 or high > 1)
    return (picture - low) / (high - low) if outside and high > low else picture


def _histogram(axes: Any, array: Any) -> None:
    lower, upper = array.bounds
    edges = array.edges[array.roi]
    axes.hist(edges, bins=min(40, max(8, len(edges) // 8)), color="0.6")
    axes.axvspan(lower, upper, color="tab:cyan", alpha=0.25, linewidth=0)
    for bound in (lower, upper):
        axes.axvline(bound, color="tab:blue", linewidth=1)
    axes.set_title(f"edges in the region\n{_written(lower)} … {_written(upper)}")
    axes.set_yticks([])
