"""Attributions: signed, in parts, next to a map and their product; and many side by side."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ifa.plot.grids import Inches, laid_out
from ifa.plot.overlays import draw
from ifa.plot.pictures import Channels, Denormalize, Look
from ifa.plot.shades import Shades, draw_bar
from ifa.plot.texts import fitted, tall

_SIZE = 8  # of letters, in points
_LEAST, _MOST = 0.85, 1.4  # inches of a picture's side


class _Panel(NamedTuple):
    title: str
    image: Any
    values: np.ndarray
    shades: Shades | None  # None draws the input


def attribution(
    image: Any,
    values: Any,
    *,
    map: Any = None,
    quantile: float = 1.0,
    channels: Channels = None,
    denormalize: Denormalize = None,
    window: tuple[float, float] | None = None,
    width: float | None = None,
    axes: Any = None,
) -> Any:
    r"""Draw an input, its attribution, what of it is positive and negative, a map and the product.

    Colors are symmetric about zero, warm for the target and cold against it, over the gray of the
    bar, and alike in the three panels of the attribution, so that they can be compared. What is
    above a panel says where its colors end. Channels are summed.

    Parameters
    ----------
    image : (\*space) or (channel, \*space)
        As in `ifa.plot.overlay`. Of a volume the slice is drawn in which the attribution is
        largest.
    values : (\*space) or (channel, \*space)
        The attribution, at the input's size.
    map : (\*space), optional
        A class activation map at the input's size: drawn over the input, in two-sided colors if
        it is signed, and multiplied with the attribution, which is drawn with limits of its own.
    quantile
        Of the sizes of the values, where colors end; 1 is the largest. Below it what is larger
        has the last color, and the titles say so.
    channels, denormalize, window
        As in `ifa.plot.overlay`.
    width
        Of the figure, in inches; panels go on below where they have no room.
    axes
        An array of 4 axes, or 6 with a map; made, with a bar, if None.

    Returns
    -------
    numpy.ndarray
        The axes.
    """
    image, values = np.asarray(image), np.asarray(values)
    space = values.ndim - (values.ndim > 1 and values.shape == image.shape)
    values = _summed(values, space)
    maps = [] if map is None else [np.asarray(map)]
    if any(one.shape != values.shape for one in maps):
        raise ValueError(
            f"ifa.plot.attribution: expected a map of the attribution's grid {values.shape}, got "
            f"{maps[0].shape}. Bring it to the input's size, e.g. with ifa.resize."
        )
    if space == 3:
        strongest = int(np.nanargmax(np.abs(values).max((1, 2))))
        image = image[..., strongest, :, :]
        values, maps = values[strongest], [one[strongest] for one in maps]
    limit = _limit(values, quantile)
    panels = [_Panel("input", image, values, None)]
    for part, name in (
        (values, "attribution"),
        (values.clip(min=0), "positive"),
        (values.clip(max=0), "negative"),
    ):
        panels.append(_signed(image, part, limit, f"{name}\n{_said(limit, quantile)}"))
    for one in maps:
        two_sided, high = bool((one < 0).any()), _limit(one, 1.0)
        title = f"map\n{'±' if two_sided else '0 …'} {high:.2g}"
        panels.append(_Panel(title, image, one, Shades(high=high, signed=two_sided)))
        product = values * one
        own = _limit(product, quantile)
        title = f"attribution × map\n{_said(own, quantile)}"
        panels.append(_signed(image, product, own, title))
    look = Look(channels, denormalize, window)
    return _drawn("ifa.plot.attribution", panels, look, width, axes)


def attributions(
    image: Any,
    values: Mapping[str, Any],
    *,
    quantile: float = 1.0,
    channels: Channels = None,
    denormalize: Denormalize = None,
    window: tuple[float, float] | None = None,
    width: float | None = None,
    axes: Any = None,
) -> Any:
    r"""Draw an input and several attributions of it side by side, each with limits of its own.

    Parameters
    ----------
    image : (\*space) or (channel, \*space), of one or two axes
        As in `ifa.plot.overlay`.
    values
        Name -> attribution (\*space) or (channel, \*space), whose channels are summed.
    quantile, channels, denormalize, window, width
        As in `ifa.plot.attribution`.
    axes
        An array of axes, one more than there are attributions; made, with a bar, if None.

    Returns
    -------
    numpy.ndarray
        The axes.
    """
    image = np.asarray(image)
    panels = []
    for name, given in values.items():
        one = np.asarray(given)
        one = _summed(one, one.ndim - (one.ndim > 1 and one.shape == image.shape))
        limit = _limit(one, quantile)
        panels.append(_signed(image, one, limit, f"{name}\n{_said(limit, quantile)}"))
    panels.insert(0, _Panel("input", image, panels[0].values, None))
    look = Look(channels, denormalize, window)
    return _drawn("ifa.plot.attributions", panels, look, width, axes)


def _summed(values: np.ndarray, space: int) -> np.ndarray:
    return values.sum(0) if values.ndim > space else values


def _signed(image: Any, values: np.ndarray, limit: float, title: str) -> _Panel:
    beneath = image if values.ndim == 1 else None  # the map alone, but with a signal's lines
    return _Panel(title, beneath, values, Shades(high=limit, signed=True))


def _drawn(
    where: str, panels: list[_Panel], look: Look, width: float | None, axes: Any
) -> np.ndarray:
    if axes is None:
        axes, titles = _laid_out(panels, width)
    else:
        axes = np.asarray(axes).reshape(-1)
        if len(axes) != len(panels):
            raise ValueError(f"{where}: expected {len(panels)} axes, got {len(axes)}.")
        side = 0.9 * axes[0].get_window_extent().width / axes[0].get_figure(root=True).dpi
        titles = [fitted(panel.title, side, _SIZE) for panel in panels]
    for one, panel, title in zip(axes, panels, titles, strict=True):
        one.clear()
        draw(where, one, panel.image, panel.values, panel.shades, look)
        one.tick_params(labelsize=6)
        one.set_title(title, fontsize=_SIZE, parse_math=False)
    return axes


def _laid_out(panels: list[_Panel], width: float | None) -> tuple[np.ndarray, list[str]]:
    """Make axes side by side, in several bands where there is no room, and the bar of all."""
    from matplotlib import pyplot as plt

    count, shape = len(panels), panels[0].values.shape
    flat = len(shape) == 1
    aspect, gap = (1.0, 0.25) if flat else (shape[0] / shape[1], 0.08)
    width = 0.2 + count * (_MOST + gap) if width is None else width
    columns = max(1, min(count, int((width - 0.2) / (_LEAST + gap))))
    side = min((width - 0.2) / columns - gap, _MOST, 2 * _MOST / aspect)
    titles = [fitted(panel.title, side, _SIZE, most=6) for panel in panels]
    above = 0.1 + max(tall(title, _SIZE) for title in titles) + 0.15 * flat
    right = width - 0.1 - columns * (side + gap) + gap
    across = min(width - 0.4, 2.5)
    shades = Shades(signed=True, label="part of the limit above each panel")
    below = 0.55 + tall(fitted(shades.label, 0.9 * across, _SIZE), _SIZE) + 0.15 * flat
    spaces = Inches(side, side * aspect, above, below, 0.1, right, gap)
    figure, grid = laid_out(plt.figure, 1, columns, -(-count // columns), spaces)
    axes = np.array([one for row in grid for one in row], dtype=object)
    for spare in axes[count:]:
        spare.remove()
    height = figure.get_size_inches()[1]
    box = 0.2 / width, (below - 0.3 - 0.15 * flat) / height, across / width, 0.1 / height
    draw_bar(figure, shades, cax=figure.add_axes(box), orientation="horizontal")
    return axes[:count], titles


def _limit(values: np.ndarray, quantile: float) -> float:
    if not 0 < quantile <= 1:
        raise ValueError(f"ifa.plot: expected quantile in (0, 1], got {quantile}.")
    # of values that are all zero any limit shows nothing
    return float(np.nanquantile(np.abs(values), quantile)) or 1.0


def _said(limit: float, quantile: float) -> str:
    return f"± {limit:.2g}" + ("" if quantile == 1 else f" ({100 * quantile:g} %)")
