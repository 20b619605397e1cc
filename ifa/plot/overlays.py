"""Maps over images: one, or a gallery of several kinds side by side."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def overlay(
    image: Any,
    values: Any,
    *,
    low: float = 0.0,
    high: float = 1.0,
    signed: bool = False,
    alpha: float = 0.7,
    axes: "Axes | None" = None,
) -> "Axes":
    r"""Draw a map over its input; values outside the limits take the outermost colours.

    Parameters
    ----------
    image : (y, x), (1, y, x), (3, y, x), (1, z, y, x), (channel, t) or (t,)
        Grey or RGB; grey is stretched to its own extremes, RGB must be in [0, 1]. Of a volume the
        slice is drawn in which the map is largest; a signal is a line over its map, and of several
        channels each has a line, one above the other.
    values : (\*space)
        A map, of any grid with the same aspect; on the common scale it lies about [0, 1].
    low, high
        The limits of the colours.
    signed
        Two-sided colours, centred at zero: `high` is then the limit of both sides.
    alpha
        Opacity of the map.
    axes
        Where to draw; the current axes if None.

    Returns
    -------
    matplotlib.axes.Axes
    """
    from matplotlib import pyplot as plt

    axes = axes if axes is not None else plt.gca()
    colours: dict[str, Any] = {"cmap": "inferno", "vmin": low, "vmax": high}
    if signed:
        colours = {"cmap": "RdBu_r", "vmin": -high, "vmax": high}
    image, values = _slice(np.asarray(image), np.asarray(values))
    if values.ndim == 1:
        axes.plot(np.arange(len(image)) + 0.5, image, color="black", linewidth=1)
        bottom, top = axes.get_ylim()
        extent = (0, len(image), bottom, top)
        axes.imshow(values[None], alpha=alpha, extent=extent, aspect="auto", **colours)
        axes.set_yticks([])
        return axes
    extent = (0, image.shape[1], image.shape[0], 0)
    axes.imshow(image, cmap="gray", extent=extent, interpolation="nearest")
    axes.imshow(values, alpha=alpha, extent=extent, interpolation="nearest", **colours)
    axes.set_axis_off()
    return axes


def _slice(image: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bring an input and its map to what can be drawn: (y, x), (y, x, 3), (t,) or (t, channel)."""
    space = values.ndim
    if space == 1 and image.ndim == 2 and len(image) > 1:
        spread = np.ptp(image, axis=1).max() or 1.0
        return (image - spread * np.arange(len(image))[:, None]).T, values  # the first on top
    if image.ndim == space + 1 and len(image) in (1, 3):
        image = image[0] if len(image) == 1 or space == 3 else np.moveaxis(image, 0, -1)
    colour = int(image.ndim == 3 and image.shape[-1] == 3 and space == 2)
    if space not in (1, 2, 3) or image.ndim - colour != space:
        raise ValueError(
            "ifa.plot.overlay: expected an input (*space), (1, *space) or (3, y, x) and a map with "
            f"as many axes of space, got {image.shape} and {values.shape}."
        )
    if space == 3:
        strongest = int(values.max((1, 2)).argmax())
        image = image[round(strongest * len(image) / len(values))]
        values = values[strongest]
    return image, values


def gallery(
    images: Any,
    maps: Mapping[str, Any],
    *,
    titles: Sequence[str] | None = None,
    low: float = 0.0,
    high: float = 1.0,
    axes: Any = None,
) -> Any:
    """Draw images in one row and, below, a row for each kind of map of them.

    Parameters
    ----------
    images : (sample, ...)
        As in `overlay`.
    maps
        Name of the kind -> maps (sample, y, x), all drawn with the same limits.
    titles
        One above each image.
    low, high
        The limits of the colours.
    axes
        An array of axes (1 + kinds, sample); made if None.

    Returns
    -------
    numpy.ndarray
        The axes.
    """
    from matplotlib import pyplot as plt

    lengths = {len(values) for values in maps.values()} if isinstance(maps, Mapping) else None
    if lengths != {len(images)}:
        raise TypeError(
            "ifa.plot.gallery: expected a mapping of names to maps, one for each of "
            f"{len(images)} images, got "
            f"{type(maps).__name__ if lengths is None else f'{[*lengths] or 0} of them'}. "
            "Name the kind: {'fullcam': maps}."
        )
    rows = 1 + len(maps)
    if axes is None:
        size = (0.9 * len(images) + 1.2, 1.0 * rows)
        _, axes = plt.subplots(rows, len(images), figsize=size, squeeze=False, layout="constrained")
    for column, image in enumerate(images):
        picture = np.asarray(image)
        picture = picture[0] if picture.ndim == 3 and len(picture) == 1 else picture
        axes[0, column].imshow(
            np.moveaxis(picture, 0, -1) if picture.ndim == 3 else picture, cmap="gray"
        )
        axes[0, column].set_axis_off()
        if titles is not None:
            axes[0, column].set_title(titles[column], fontsize=8)
        for row, values in enumerate(maps.values(), start=1):
            overlay(image, values[column], low=low, high=high, axes=axes[row, column])
    for row, name in enumerate(("input", *maps)):
        axes[row, 0].text(
            -0.15, 0.5, name, ha="right", va="center", fontsize=9, transform=axes[row, 0].transAxes
        )
    _colour_bar(axes[0, 0].figure, axes[1, 0].images[-1], axes[1:, :])
    return axes


def _colour_bar(figure: Any, picture: Any, axes: Any) -> None:
    bar = figure.colorbar(picture, ax=axes, label="intensity", extend="both", shrink=0.9)
    bar.solids.set_alpha(1.0)  # the colours of the scale, not of the scale over a picture
