"""Maps over images: as an array, one drawn, or a gallery of several kinds side by side."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ifa.checks import check_choice
from ifa.plot.grids import Inches, laid_out
from ifa.plot.pictures import (
    PLAIN,
    Channels,
    Denormalize,
    Look,
    desaturated,
    middle_of,
    numbers,
    picture_of,
)
from ifa.plot.shades import (
    GRAY,
    Shades,
    draw_bar,
    eight_bits,
    exceeds,
    opaque,
    over,
    shades_of,
)
from ifa.plot.signals import draw_lanes, lanes_of
from ifa.plot.texts import fitted, inches

if TYPE_CHECKING:
    from matplotlib.axes import Axes

How = Literal["opacity", "contours"]

_LINES = 1.5  # width of contours, in points


def blend(
    image: Any,
    values: Any,
    *,
    scale: Any = None,
    low: float = 0.0,
    high: float = 1.0,
    signed: bool = False,
    channels: Channels = None,
    denormalize: Denormalize = None,
    window: tuple[float, float] | None = None,
    gray: bool = True,
    contrast: float = 0.5,
) -> np.ndarray:
    r"""Lay a map over its input, as an array: for web pages, PIL, or any other program.

    A value is as opaque as it is large, between the limits:

    .. math:: c = (1 - a) g + a \, C(a), \qquad a = \min(1, \max(0, (v - low) / (high - low)))

    over the gray :math:`g` of the image, in the colors :math:`C` of `ifa.plot.bar`, which shows
    them over a mid gray. No color is farther from the bar's than :math:`(1 - a) / 2` times the
    contrast. A signed map has a second side of colors, with :math:`a = \min(1, |v| / high)`.

    Parameters
    ----------
    image
        As in `overlay`; None for the map's colors alone, to be laid over something else.
    values : (\*space)
        A map, or maps' slices, of one, two or three axes. What is no number is not drawn.
    scale, low, high, signed, channels, denormalize, window, gray, contrast
        As in `overlay`.

    Returns
    -------
    numpy.ndarray : (\*space, 3) or, without an image, (\*space, 4)
        RGB or RGBA, uint8; of the finer of both grids along each axis.

    Examples
    --------
    >>> import ifa, torch
    >>> image, values = torch.rand(3, 4, 4), torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    >>> picture = ifa.plot.blend(image, values)
    >>> picture.shape, picture[0, -1]
    ((4, 4, 3), array([255, 232,  96], dtype=uint8))
    """
    where = "ifa.plot.blend"
    shades = shades_of(where, scale=scale, low=low, high=high, signed=signed, contrast=contrast)
    values = numbers(where, "values", values)
    if image is None:
        colors, share = opaque(values, shades)
        return eight_bits(np.concatenate([colors, share[..., None]], axis=-1))
    look = Look(channels, denormalize, window, gray)
    return blended(picture_of(where, image, values.ndim, look), values, shades, gray)


def blended(
    picture: np.ndarray | None, values: np.ndarray, shades: Shades, gray: bool = True
) -> np.ndarray:
    """Lay a map over a picture, or over the gray of the bar where there is none: RGB, uint8."""
    if picture is None:
        return eight_bits(over(GRAY, values, shades))
    space = values.ndim
    picture = desaturated(picture, space) if gray else picture
    size = tuple(map(max, picture.shape[:space], values.shape))
    return eight_bits(over(_enlarged(picture, size), _enlarged(values, size), shades))


def overlay(
    image: Any,
    values: Any,
    *,
    scale: Any = None,
    low: float = 0.0,
    high: float = 1.0,
    signed: bool = False,
    unit: str = "",
    how: How = "opacity",
    bar: bool = False,
    channels: Channels = None,
    denormalize: Denormalize = None,
    window: tuple[float, float] | None = None,
    gray: bool = True,
    contrast: float = 0.5,
    axes: "Axes | None" = None,
) -> "Axes":
    r"""Draw a map over its input, in colors that are those of the bar.

    A value is as opaque as it is large: where it is at the lower limit, or at zero of a signed map,
    the image is seen, and from the upper limit on the bar's last color. See `blend`.

    Parameters
    ----------
    image : (\*space) or (channel, \*space)
        An array, tensor or picture of PIL, or None for the map alone, over the gray of the bar. Of
        a volume the slice is drawn in which the map is largest, and the title says which: see
        `planes` and `slices`. A signal is a line over its map, and of several channels each has a
        lane, one above the other: see `signal`.
    values : (\*space)
        A map, of any grid with the same aspect; on the common scale it lies about [0, 1].
    scale : Scale or statistics, optional
        The common scale that the map *is on*, as `ifa.rescale` and ``ifa.explain(scale=)`` put it
        there: the bar goes from 0 to 1 and says what these are.
    low, high
        The limits of the colors, otherwise.
    signed
        Two-sided colors, clear at zero: `high` is then the limit of both sides.
    unit
        Of the values, or of what the scale's ends are; that of the scale's score if left out.
    how
        ``"opacity"``, or ``"contours"``: lines at five levels, which leave the image as it is and
        have the bar's colors over any image.
    bar
        Whether to draw the bar; `ifa.plot.bar` draws one for several axes.
    channels
        Which of the input's are drawn: one, three as RGB, ``"mean"``, or ``"principal"``, their
        first principal component. If None, three of an image are RGB, and of other numbers the mean
        is drawn.
    denormalize : (mean, deviation) or callable, optional
        What takes the network's normalization back: image ↦ image × deviation + mean, or a
        function.
    window : (float, float), optional
        Which values are black and white. If None, 0 and 1 for RGB and what was denormalized, or the
        smallest and largest value where these are beyond; 0 and 255 for uint8; for all else the
        smallest and the largest.
    gray
        Whether the image beneath is gray, so that hues are the map's alone.
    contrast
        Of the image beneath, about the gray of the bar: the smaller, the nearer colors are to those
        of the bar over any image; 1 leaves it as it is. Contours do.
    axes
        Where to draw; the current axes if None.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If image and map do not fit, or an option is unknown.
    """
    from ifa.plot.layout import axes_or_current

    where = "ifa.plot.overlay"
    check_choice(where, "how", how, ("opacity", "contours"))
    limits: Any = {"scale": scale, "low": low, "high": high, "signed": signed}
    shades = shades_of(where, **limits, unit=unit, contrast=contrast)
    axes = axes_or_current(axes)
    values = numbers(where, "values", values)
    draw(where, axes, image, values, shades, Look(channels, denormalize, window, gray), how)
    if values.ndim == 3:
        count = len(values) if image is None else np.shape(image)[-3]
        place = _strongest(values, shades, count)
        axes.set_title(f"z = {place} of 0 … {count - 1}", fontsize="medium")
    if bar:
        draw_bar(axes.figure, shades, how=how, extend=exceeds(shades, values), ax=axes)
    return axes


def draw(
    where: str,
    axes: "Axes",
    image: Any,
    values: np.ndarray,
    shades: Shades | None,
    look: Look = PLAIN,
    how: How = "opacity",
) -> None:
    r"""Draw an input and, where `shades` says what its colors mean, its map (\*space) over it."""
    if values.ndim not in _DRAWN:
        raise ValueError(
            f"{where}: expected a map (t), (y, x) or (z, y, x), got {values.shape}. Take the map "
            "of one sample."
        )
    _DRAWN[values.ndim](where, axes, image, values, shades, look, how)


def _draw_signal(
    where: str,
    axes: "Axes",
    image: Any,
    values: np.ndarray,
    shades: Shades | None,
    look: Look,
    how: How,
) -> None:
    """Draw a signal's channels, the first on top, over its map."""
    if how != "opacity":
        raise ValueError(f"{where}: expected how='opacity' for the map of a signal, got {how!r}.")
    lanes, across = None, len(values)
    if image is not None:
        signals = numbers(where, "image", image)
        signals = signals[None] if signals.ndim == 1 else signals
        if signals.ndim != 2:
            raise ValueError(
                f"{where}: expected a signal (t) or (channel, t), as the map (t), got "
                f"{signals.shape}."
            )
        lanes, across = lanes_of(signals, common=False), signals.shape[1]
    draw_lanes(axes, lanes, values, shades, (0, across))
    axes.set_yticks([])


def _draw_picture(
    where: str,
    axes: "Axes",
    image: Any,
    values: np.ndarray,
    shades: Shades | None,
    look: Look,
    how: How,
) -> None:
    """Draw an image (y, x) or of channels (channel, y, x)."""
    picture = None if image is None else picture_of(where, image, 2, look)
    draw_flat(axes, picture, values, shades, look.gray, how)


def _draw_volume(
    where: str,
    axes: "Axes",
    image: Any,
    values: np.ndarray,
    shades: Shades | None,
    look: Look,
    how: How,
) -> None:
    """Draw the slice in which the map is largest."""
    picture, count = None, len(values)
    if image is not None:
        picture = picture_of(where, image, 3, look)
        count = len(picture)
    place = _strongest(values, shades, count)
    picture = None if picture is None else picture[place]
    flat = values[int((place + 0.5) * len(values) / count)]
    draw_flat(axes, picture, flat, shades, look.gray, how)


def _strongest(values: np.ndarray, shades: Shades | None, count: int) -> int:
    """Return which of so many slices lies in the middle of the one in which a map is largest."""
    sizes = np.abs(values) if shades is not None and shades.signed else values
    strongest = int(np.nan_to_num(sizes, nan=-np.inf).max((1, 2)).argmax())
    return middle_of(strongest, len(values), count)


def draw_flat(
    axes: "Axes",
    picture: np.ndarray | None,
    values: np.ndarray,
    shades: Shades | None,
    gray: bool = True,
    how: How = "opacity",
    extent: tuple[float, float, float, float] | None = None,
    aspect: float = 1.0,
) -> None:
    """Draw what `picture_of` made, (y, x) or (y, x, 3): alone, or with a map over it.

    `extent` is where it begins and ends along x, and where it ends and begins along y.
    """
    from ifa.plot.rasters import draw_raster

    axes.set_axis_off()
    rows, columns = values.shape if picture is None else picture.shape[:2]
    extent = (0, columns, rows, 0) if extent is None else extent
    if shades is not None and how == "opacity":
        return draw_raster(axes, blended(picture, values, shades, gray), extent, aspect)
    if picture is None:
        picture = np.full(values.shape, GRAY)
    elif shades is not None and gray:
        picture = desaturated(picture, 2)
    if picture.ndim == 2:
        picture = np.repeat(picture[..., None], 3, axis=2)
    draw_raster(axes, eight_bits(picture), extent, aspect)
    if shades is not None:
        _draw_contours(axes, values, shades, extent)


_DRAWN = {1: _draw_signal, 2: _draw_picture, 3: _draw_volume}


def _draw_contours(
    axes: "Axes", values: np.ndarray, shades: Shades, extent: tuple[float, float, float, float]
) -> None:
    """Draw a line at each level, up to the borders of the image."""
    finite = values[np.isfinite(values)]
    levels = shades.levels()
    levels = levels[(levels > finite.min(initial=np.inf)) & (levels < finite.max(initial=-np.inf))]
    if not len(levels):
        return
    left, right, bottom, top = extent  # the first row is on top
    y, x = (
        first + np.r_[0, np.arange(count) + 0.5, count] * (last - first) / count
        for count, first, last in zip(values.shape, (top, left), (bottom, right), strict=True)
    )
    axes.contour(
        *(x, y, np.pad(values, 1, mode="edge")),
        levels=levels, colors=opaque(levels, shades)[0], linewidths=_LINES, linestyles="solid",
    )  # fmt: skip


def _enlarged(values: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Repeat values along each axis of space, up to a size that is no smaller."""
    for axis, (count, wanted) in enumerate(zip(values.shape, size, strict=False)):
        if count != wanted:
            places = ((np.arange(wanted) + 0.5) * count / wanted).astype(int)
            values = values.take(places, axis=axis)
    return values


def gallery(
    images: Any,
    maps: Mapping[str, Any],
    *,
    titles: Sequence[str] | None = None,
    scale: Any = None,
    low: float = 0.0,
    high: float = 1.0,
    signed: bool = False,
    unit: str = "",
    how: How = "opacity",
    channels: Channels = None,
    denormalize: Denormalize = None,
    window: tuple[float, float] | None = None,
    gray: bool = True,
    contrast: float = 0.5,
    width: float | None = None,
    axes: Any = None,
) -> Any:
    """Draw images in one row and, below, a row for each kind of map of them, with one bar.

    Parameters
    ----------
    images : (sample, ...)
        As in `overlay`.
    maps
        Name of the kind -> maps (sample, y, x), all drawn with the same limits.
    titles
        One above each image; broken to its width.
    scale, low, high, signed, unit, how, channels, denormalize, window, gray, contrast
        As in `overlay`.
    width
        Of the figure, in inches: where that is too little for all samples they are drawn in several
        bands. If None, as many are side by side as a page has room for.
    axes
        An array of axes (1 + kinds, sample); made if None.

    Returns
    -------
    numpy.ndarray
        The axes (1 + kinds, sample), wherever they are in the figure.
    """
    where = "ifa.plot.gallery"
    check_choice(where, "how", how, ("opacity", "contours"))
    lengths = {len(values) for values in maps.values()} if isinstance(maps, Mapping) else None
    if lengths != {len(images)}:
        raise TypeError(
            f"{where}: expected a mapping of names to maps, one for each of {len(images)} images, "
            f"got {type(maps).__name__ if lengths is None else f'{[*lengths] or 0} of them'}. "
            "Name the kind: {'fullcam': maps}."
        )
    limits: Any = {"scale": scale, "low": low, "high": high, "signed": signed}
    shades = shades_of(where, **limits, unit=unit, contrast=contrast)
    look = Look(channels, denormalize, window, gray)
    kinds = [[numbers(where, "maps", one) for one in values] for values in maps.values()]
    names = ["input", *maps]
    extend = exceeds(shades, *(one for values in kinds for one in values))
    if axes is None:
        shape = kinds[0][0].shape[-2:]
        aspect = 0.5 if len(shape) == 1 else shape[0] / shape[1]
        axes, place = _laid_out(
            names, list(map(str, [""] * len(images) if titles is None else titles)), width, aspect
        )
        cax = axes[0, 0].figure.add_axes(place)
        bar = {"cax": cax, "orientation": "horizontal"}
    else:
        axes = np.asarray(axes)
        side = 0.8 * axes[0, 0].get_window_extent().width / axes[0, 0].get_figure(root=True).dpi
        _write(
            axes,
            names,
            [fitted(str(title), side, _SIZE) for title in (() if titles is None else titles)],
        )
        bar = {"ax": [*axes[1:].ravel()], "shrink": 0.9, "aspect": 30}
    for column, image in enumerate(images):
        draw(where, axes[0, column], image, kinds[0][column], None, look)
        for row, values in enumerate(kinds, start=1):
            draw(where, axes[row, column], image, values[column], shades, look, how)
    draw_bar(axes[0, 0].figure, shades, how=how, extend=extend, **bar)
    return axes


_SIZE = 8  # of letters, in points
_LINE = 0.14  # inches
_LEAST, _MOST = 0.7, 3.0  # inches of a picture's side
_GAP = 0.06


def _laid_out(
    names: Sequence[str], titles: Sequence[str], width: float | None, aspect: float
) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """Make axes (row, sample), in as many bands as the width asks for, and a place for the bar."""
    from matplotlib import pyplot as plt

    count = len(titles)
    names = [fitted(name, 0.9, _SIZE) for name in names]
    lines = [line for name in names for line in name.split("\n")]
    margin = max(inches(line, _SIZE) for line in lines) + 0.2
    width = margin + _GAP + 1.1 * min(max(count, 2), 10) if width is None else width
    room = width - margin - _GAP
    columns = min(count, max(1, int(room / (_LEAST + _GAP))))
    side = min(max(room / columns - _GAP, 0.3), _MOST, 3.0 / aspect)
    titles = [fitted(title, side, _SIZE, most=6) for title in titles]
    above = 0.1 + _LINE * max(1 + title.count("\n") for title in titles) * any(titles)
    bands, below = -(-count // columns), 0.85
    right = width - margin - columns * (side + _GAP) + _GAP
    spaces = Inches(side, side * aspect, above, below, margin, right, _GAP)
    figure, grid = laid_out(plt.figure, len(names), columns, bands, spaces)
    axes = np.empty((len(names), bands * columns), dtype=object)
    for place, row in enumerate(grid):
        band, kind = divmod(place, len(names))
        axes[kind, band * columns : (band + 1) * columns] = row
    for spare in axes[:, count:].ravel():
        spare.remove()
    _write(axes[:, :count], names, titles, columns)
    height = figure.get_size_inches()[1]
    across = min(width - 0.6, 4.0)
    bar = (min(margin, width - 0.3 - across) / width, 0.6 / height, across / width, 0.12 / height)
    return axes[:, :count], bar


def _write(
    axes: np.ndarray, names: Sequence[str], titles: Sequence[str], columns: int | None = None
) -> None:
    """Write titles above, and the names of rows before the first of each band."""
    style: Any = {"fontsize": _SIZE, "parse_math": False}
    for one, title in zip(axes[0], titles, strict=False):
        one.set_title(title, pad=3, **style)
    for first in axes[:, :: columns or axes.shape[1]].T:
        for one, name in zip(first, names, strict=True):
            one.annotate(
                name, (0, 0.5), (-6, 0), xycoords="axes fraction", textcoords="offset points",
                ha="right", va="center", annotation_clip=False, **style,
            )  # fmt: skip
