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
    """Draw a map over its image; values outside the limits take the outermost colours.

    Parameters
    ----------
    image : (y, x), (1, y, x) or (3, y, x)
        Grey or RGB; grey is stretched to its own extremes, RGB must be in [0, 1].
    values : (y, x)
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
    image, values = np.asarray(image), np.asarray(values)
    image = image[0] if image.ndim == 3 and len(image) == 1 else image
    if image.ndim == 3:
        image = np.moveaxis(image, 0, -1)
    if image.ndim not in (2, 3) or values.ndim != 2:
        raise ValueError(
            "ifa.plot.overlay: expected an image (y, x) or (3, y, x) and a map (y, x), got "
            f"{np.shape(image)} and {values.shape}. Draw volumes slice by slice."
        )
    extent = (0, image.shape[1], image.shape[0], 0)
    axes.imshow(image, cmap="gray", extent=extent, interpolation="nearest")
    colours: dict[str, Any] = {"cmap": "inferno", "vmin": low, "vmax": high}
    if signed:
        colours = {"cmap": "RdBu_r", "vmin": -high, "vmax": high}
    axes.imshow(values, alpha=alpha, extent=extent, interpolation="nearest", **colours)
    axes.set_axis_off()
    return axes


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
    bar = axes[0, 0].figure.colorbar(
        axes[1, 0].images[-1], ax=axes[1:, :], label="intensity", extend="both", shrink=0.9
    )
    bar.solids.set_alpha(1.0)
    return axes
