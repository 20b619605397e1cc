"""Volumes: three planes through a point, and slices side by side, as they lie in the body."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ifa.checks import check_choice, check_count
from ifa.data.volumetric import Geometry
from ifa.plot.grids import Inches, laid_out
from ifa.plot.layout import fit
from ifa.plot.overlays import How, draw_flat
from ifa.plot.pictures import Channels, Denormalize, Look, middle_of, numbers, picture_of
from ifa.plot.shades import Shades, draw_bar, exceeds, shades_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PLANES = ("axial", "coronal", "sagittal")
# of the body's axes 0 left to right, 1 back to front, 2 bottom to top: across, up, through
_SEEN = {"axial": (0, 1, 2), "coronal": (0, 2, 1), "sagittal": (1, 2, 0)}
_LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))
_NAMES = "zyx"  # of the input's axes
_LEAST = 1.3  # inches of a slice's side
_SIZE = 8  # of words above slices, in points


class Frame(NamedTuple):
    """How the axes of an input (z, y, x) lie in the body."""

    affine: np.ndarray | None  # from (x, y, z) to millimetres; None where it is not known
    axes: tuple[int, int, int]  # of the input, for left-right, back-front, bottom-top
    radiological: bool


class Volume(NamedTuple):
    """What is drawn of a volume, and how."""

    picture: np.ndarray | None  # (z, y, x) or (z, y, x, 3), from 0 to 1
    values: np.ndarray  # (z, y, x), of any grid over the same field of view
    shape: tuple[int, ...]  # of the input
    frame: Frame
    shades: Shades
    gray: bool
    how: How


def planes(
    image: Any,
    values: Any,
    *,
    at: tuple[int, int, int] | None = None,
    mm: tuple[float, float, float] | None = None,
    geometry: Any = None,
    radiological: bool = False,
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
    width: float = 9.0,
    axes: Any = None,
) -> np.ndarray:
    r"""Draw the axial, coronal and sagittal plane of a volume through a point, with its map.

    With a geometry axes are in millimetres of the body, voxels are as wide and high as they are,
    and letters say where left, right, front (A), back (P), top (S) and bottom (I) lie. Without one
    axes count voxels, and the planes are named by the axis that is fixed.

    Parameters
    ----------
    image : (z, y, x) or (channel, z, y, x)
        The input, or None for the map alone, over the gray of the bar.
    values : (z, y, x)
        A map, of any grid over the same field of view.
    at : (z, y, x)
        The point, as an index of the input. Where the map is largest (of a signed map, in absolute
        value) if None.
    mm : (x, y, z)
        The point in millimetres, instead.
    geometry : ifa.data.Geometry or (4, 4)
        Where the input's voxels lie, such as ``data.geometry(index)``; or the affine from an index
        (x, y, z) to millimetres from left to right, back to front and bottom to top, as NIfTI has
        it.
    radiological
        Whether the body's right side is on the left, as radiologists look at it.
    scale, low, high, signed, unit, how, channels, denormalize, window, gray
        As in `ifa.plot.overlay`.
    width
        Of the figure, in inches: the planes are one above the other below 5.
    axes
        An array of 3 axes; made if None.

    Returns
    -------
    numpy.ndarray
        The 3 axes.

    Raises
    ------
    ValueError
        If image, map and geometry do not fit, or the point lies outside.
    """
    where = "ifa.plot.planes"
    shades = shades_of(where, scale=scale, low=low, high=high, signed=signed, unit=unit)
    look = Look(channels, denormalize, window, gray)
    volume = _volume(where, image, values, geometry, radiological, shades, look, how)
    point = _point(where, volume, at, mm)
    if axes is None:
        axes = _three(volume, width)
    axes = np.asarray(axes, dtype=object).reshape(-1)
    if len(axes) != 3:
        raise ValueError(f"{where}: expected 3 axes, got {len(axes)}.")
    for one, plane in zip(axes, PLANES, strict=True):
        _draw_plane(one, volume, plane, point)
        one.set_title("\n".join(_said(volume, plane, point)), fontsize="medium")
        _number(one, volume, plane)
        _cross(one, volume, plane, point)
    fit(*axes, bar=_bar(axes, volume))
    return axes


def slices(
    image: Any,
    values: Any,
    *,
    plane: str = "axial",
    count: int = 12,
    indices: Sequence[int] | None = None,
    geometry: Any = None,
    radiological: bool = False,
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
    width: float = 9.0,
    axes: Any = None,
) -> np.ndarray:
    """Draw slices of a volume side by side, each with its map, its index and its millimetres.

    Parameters
    ----------
    image, values, geometry, radiological
        As in `planes`.
    plane
        ``"axial"``, ``"coronal"`` or ``"sagittal"``; without a geometry these are the slices of one
        z, y and x.
    count
        How many slices, evenly spaced from end to end; all where there are fewer.
    indices
        Which slices, instead, along the input's own axis.
    scale, low, high, signed, unit, how, channels, denormalize, window, gray
        As in `ifa.plot.overlay`.
    width
        Of the figure, in inches: as many slices are side by side as there is room for.
    axes
        An array of axes, one for each slice or more; made if None.

    Returns
    -------
    numpy.ndarray
        The axes of the slices, (slice,), in the order of the body: from the bottom, the back or the
        left.

    Raises
    ------
    ValueError
        If image, map and geometry do not fit, or there is no such slice.
    """
    where = "ifa.plot.slices"
    check_choice(where, "plane", plane, PLANES)
    check_count(where, "count", count)
    shades = shades_of(where, scale=scale, low=low, high=high, signed=signed, unit=unit)
    look = Look(channels, denormalize, window, gray)
    volume = _volume(where, image, values, geometry, radiological, shades, look, how)
    places = _places(where, volume, plane, count, indices)
    place = None
    if axes is None:
        axes, place = _many(volume, plane, len(places), width)
    axes = np.asarray(axes, dtype=object).reshape(-1)
    if len(axes) < len(places):
        raise ValueError(f"{where}: expected {len(places)} axes, got {len(axes)}.")
    for spare in axes[len(places) :]:
        spare.set_axis_off()
    axes = axes[: len(places)]
    fixed = volume.frame.axes[_SEEN[plane][2]]
    for one, index in zip(axes, places, strict=True):
        point = [size // 2 for size in volume.shape]
        point[fixed] = index
        _draw_plane(one, volume, plane, point)
        one.set_title("\n".join(_said(volume, plane, point)[1:]), fontsize=_SIZE, pad=3)
    _bar(axes, volume, place)
    return axes


def frame_of(where: str, geometry: Any, shape: tuple[int, ...], radiological: bool) -> Frame:
    """Find which axis of an input (z, y, x) goes where in the body."""
    from scipy.optimize import linear_sum_assignment

    if geometry is None:
        return Frame(None, (2, 1, 0), radiological)
    if isinstance(geometry, Geometry) and tuple(geometry.shape) != tuple(shape):
        raise ValueError(
            f"{where}: expected an input of the geometry's shape {tuple(geometry.shape)}, got "
            f"{tuple(shape)}. Give the geometry of what the network saw."
        )
    affine = np.asarray(getattr(geometry, "affine", geometry), dtype=float)
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or not np.linalg.det(affine[:3, :3]):
        raise ValueError(
            f"{where}: expected geometry to be an ifa.data.Geometry or an affine (4, 4) that can "
            f"be inverted, got {np.array2string(affine, precision=3)}."
        )
    share = np.abs(affine[:3, :3]) / np.linalg.norm(affine[:3, :3], axis=0)
    first, second, third = (2 - linear_sum_assignment(-share)[1]).tolist()  # x y z to z y x
    return Frame(affine, (first, second, third), radiological)


class Upright(NamedTuple):
    """A volume turned so that slices are axial, front on top and the right side on the right."""

    order: tuple[int, int, int]  # of the input's axes
    flips: tuple[int, ...]  # axes that are reversed, after that
    aspect: float  # height of a voxel over its width
    says: Callable[[int], str]  # what is said of a slice

    def turned(self, array: np.ndarray) -> np.ndarray:
        """Turn (z, y, x) or (z, y, x, 3)."""
        return np.flip(array.transpose(*self.order, *range(3, array.ndim)), self.flips)


def upright(where: str, geometry: Geometry) -> Upright:
    """Find how to turn a volume so that it is seen as it lies in the body."""
    frame = frame_of(where, geometry, geometry.shape, False)
    affine: Any = frame.affine
    across, back, up = frame.axes
    order, bodies = (up, back, across), (2, 1, 0)
    signs = [affine[body, 2 - axis] > 0 for axis, body in zip(order, bodies, strict=True)]
    flips = tuple(n for n, rises in enumerate(signs) if rises == (n == 1))
    spacing = [float(np.linalg.norm(affine[:3, 2 - axis])) for axis in (back, across)]
    middle = [(size - 1) / 2 for size in geometry.shape]

    def says(place: int) -> str:
        size = geometry.shape[up]
        index = size - 1 - place if 0 in flips else place
        point = np.array(middle)
        point[up] = index
        mm = f"{affine[2] @ [*point[::-1], 1.0]:.1f} mm (S)".replace("-", "−")
        return f"{_NAMES[up]} = {index} of 0 … {size - 1}, {mm}; A on top, R on the right"

    return Upright(order, flips, spacing[0] / spacing[1], says)


def ends_of(volume: Volume, body: int, point: Sequence[int]) -> tuple[float, float]:
    """Return where the input begins and ends along an axis of the body, through a point."""
    axis = volume.frame.axes[body]
    first, last = -0.5, volume.shape[axis] - 0.5
    return _along(volume, body, point, first), _along(volume, body, point, last)


def _along(volume: Volume, body: int, point: Sequence[int], place: float) -> float:
    """Return the millimetres, or the index, of a place on the axis that goes along the body's."""
    axis = volume.frame.axes[body]
    if volume.frame.affine is None:
        return float(place)
    index = np.array([*point, 1.0])[[2, 1, 0, 3]]
    index[2 - axis] = place
    return float(volume.frame.affine[body] @ index)


def _volume(
    where: str,
    image: Any,
    values: Any,
    geometry: Any,
    radiological: bool,
    shades: Shades,
    look: Look,
    how: How,
) -> Volume:
    check_choice(where, "how", how, ("opacity", "contours"))
    values = numbers(where, "values", values)
    if values.ndim != 3 or not values.size:
        raise ValueError(
            f"{where}: expected a map (z, y, x), got {values.shape}. Take the map of one sample."
        )
    picture = None if image is None else picture_of(where, image, 3, look)
    shape = values.shape if picture is None else picture.shape[:3]
    if isinstance(geometry, Geometry) and picture is None:
        shape = tuple(geometry.shape)
    frame = frame_of(where, geometry, shape, radiological)
    return Volume(picture, values, shape, frame, shades, look.gray, how)


def _point(
    where: str,
    volume: Volume,
    at: tuple[int, int, int] | None,
    mm: tuple[float, float, float] | None,
) -> list[int]:
    if at is not None and mm is not None:
        raise ValueError(f"{where}: expected at= or mm=, got both. One point is enough.")
    if at is not None:
        point = [int(one) for one in at]
    elif mm is not None:
        if volume.frame.affine is None:
            raise ValueError(f"{where}: expected geometry= with mm=, got none. Or give at=.")
        index = np.linalg.solve(volume.frame.affine, [*mm, 1.0])[2::-1]
        point = np.rint(index).astype(int).tolist()
    else:
        sizes = np.abs(volume.values) if volume.shades.signed else volume.values
        largest = np.nan_to_num(sizes.astype(float), nan=-np.inf).argmax()
        cell = np.unravel_index(int(largest), volume.values.shape)
        point = [
            middle_of(int(one), count, size)
            for one, size, count in zip(cell, volume.shape, volume.values.shape, strict=True)
        ]
    if len(point) != 3 or any(not 0 <= p < n for p, n in zip(point, volume.shape, strict=True)):
        raise ValueError(
            f"{where}: expected a point within {tuple(volume.shape)}, got {at or mm}, which is the "
            f"index {point}."
        )
    return point


def _places(
    where: str, volume: Volume, plane: str, count: int, indices: Sequence[int] | None
) -> list[int]:
    body = _SEEN[plane][2]
    size = volume.shape[volume.frame.axes[body]]
    if indices is None:
        count = min(count, size)
        chosen = ((np.arange(count) + 0.5) * size / count).astype(int).tolist()
    else:
        chosen = [int(one) for one in indices]
    for one in chosen:
        if not 0 <= one < size:
            raise ValueError(f"{where}: expected indices below {size}, got {one}.")
    if not chosen:
        raise ValueError(f"{where}: expected a slice or more, got none.")
    start, end = ends_of(volume, body, [0, 0, 0])
    return chosen if indices is not None or start < end else chosen[::-1]


def _draw_plane(axes: "Axes", volume: Volume, plane: str, point: Sequence[int]) -> None:
    """Draw one plane, with letters where the body's sides are known."""
    across, up, through = _SEEN[plane]
    frame = volume.frame
    rows, columns, fixed = (frame.axes[body] for body in (up, across, through))

    def taken(array: np.ndarray) -> np.ndarray:
        place = int((point[fixed] + 0.5) * array.shape[fixed] / volume.shape[fixed])
        flat = array.take(place, axis=fixed)
        return flat if rows < columns else flat.swapaxes(0, 1)

    left, right = ends_of(volume, across, point)
    top, bottom = ends_of(volume, up, point)  # the first row is where the axis begins
    draw_flat(
        axes, None if volume.picture is None else taken(volume.picture), taken(volume.values),
        volume.shades, volume.gray, volume.how, (left, right, bottom, top),
        _aspect(frame, across, up),
    )  # fmt: skip
    axes.set_xlim(*sorted((left, right)))
    axes.set_ylim(*sorted((top, bottom)))
    if frame.affine is None:
        axes.invert_yaxis()  # as images are
        return
    if frame.radiological and across == 0:
        axes.invert_xaxis()
    _write_letters(axes, across, up)


def _aspect(frame: Frame, across: int, up: int) -> float:
    """Return how high a unit along y is for one along x: of oblique axes their shadows are seen."""
    if frame.affine is None:
        return 1.0
    long = []
    for body in (across, up):
        column = frame.affine[:3, 2 - frame.axes[body]]
        long.append(np.linalg.norm(column) / abs(column[body]))
    return float(long[1] / long[0])


def _write_letters(axes: "Axes", across: int, up: int) -> None:
    before, after = _LETTERS[across] if not axes.xaxis_inverted() else _LETTERS[across][::-1]
    below, above = _LETTERS[up]
    box = {"facecolor": "black", "edgecolor": "none", "alpha": 0.5, "pad": 0.8}
    sides = ((0.03, 0.5, before), (0.97, 0.5, after), (0.5, 0.03, below), (0.5, 0.97, above))
    for x, y, letter in sides:
        axes.text(
            x, y, letter, transform=axes.transAxes, color="white", fontsize="small", bbox=box,
            ha={0.03: "left", 0.97: "right"}.get(x, "center"),
            va={0.03: "bottom", 0.97: "top"}.get(y, "center"),
        )  # fmt: skip


def _said(volume: Volume, plane: str, point: Sequence[int]) -> list[str]:
    """Say which plane it is: its name, index, and millimetres."""
    body = _SEEN[plane][2]
    axis = volume.frame.axes[body]
    index = f"{_NAMES[axis]} = {point[axis]} of 0 … {volume.shape[axis] - 1}"
    if volume.frame.affine is None:
        return [f"slice of {_NAMES[axis]}", index]
    place = f"{_along(volume, body, point, point[axis]):.1f} mm ({_LETTERS[body][1]})"
    return [plane, index, place.replace("-", "−")]


def _number(axes: "Axes", volume: Volume, plane: str) -> None:
    """Number the axes in millimetres of the body, or in voxels."""
    axes.set_axis_on()
    across, up, _ = _SEEN[plane]
    for axis, body in ((axes.xaxis, across), (axes.yaxis, up)):
        if volume.frame.affine is None:
            axis.set_label_text(f"{_NAMES[volume.frame.axes[body]]} (voxel)")
        else:
            axis.set_label_text(f"{' → '.join(_LETTERS[body])} (mm)")


def _cross(axes: "Axes", volume: Volume, plane: str, point: Sequence[int]) -> None:
    across, up, _ = _SEEN[plane]
    x, y = (_along(volume, b, point, point[volume.frame.axes[b]]) for b in (across, up))
    style: Any = {"color": "white", "linewidth": 0.6, "alpha": 0.7, "linestyle": "--"}
    axes.axvline(x, **style)
    axes.axhline(y, **style)


def _sizes(volume: Volume, plane: str) -> tuple[float, float]:
    """Return how wide and how high a plane is, in millimetres or voxels."""
    across, up, _ = _SEEN[plane]
    wide, high = (abs(np.subtract(*ends_of(volume, body, [0, 0, 0]))) for body in (across, up))
    return float(wide), float(high * _aspect(volume.frame, across, up))


def _three(volume: Volume, width: float) -> np.ndarray:
    """Make axes for three planes: side by side, or one above the other in narrow figures."""
    from matplotlib import pyplot as plt

    wide, high = np.array([_sizes(volume, plane) for plane in PLANES]).T
    if width < 5:
        height = float((high / wide).sum() * (width - 0.8) + 2.9)
        shape, ratios = (3, 1), {"height_ratios": (high / wide).tolist()}
    else:
        height = float((width - 2.2) * high.max() / wide.sum() + 2.0)
        shape, ratios = (1, 3), {"width_ratios": wide.tolist()}
    figure = plt.figure(figsize=(width, min(height, 3 * width)), layout="constrained")
    return figure.subplots(*shape, gridspec_kw=ratios, squeeze=False).reshape(-1)


def _many(
    volume: Volume, plane: str, count: int, width: float
) -> tuple[np.ndarray, dict[str, Any]]:
    """Make axes for slices by inches, and a place for the bar at the foot."""
    from matplotlib import pyplot as plt

    across, up = _sizes(volume, plane)
    edge, gap, below = 0.1, 0.08, 0.9
    columns = max(1, min(count, int(width / _LEAST)))
    wide = (width - 2 * edge - (columns - 1) * gap) / columns
    spaces = Inches(wide, wide * up / across, 0.42, below, edge, edge, gap)
    figure, grid = laid_out(plt.figure, 1, columns, -(-count // columns), spaces)
    height = figure.get_size_inches()[1]
    long = min(width - 0.8, 5.0)
    place = (width - long) / 2 / width, 0.7 / height, long / width, 0.13 / height
    axes = np.array([one for row in grid for one in row], dtype=object)
    return axes, {"cax": figure.add_axes(place), "orientation": "horizontal"}


def _bar(axes: np.ndarray, volume: Volume, place: dict[str, Any] | None = None) -> Any:
    if place is None:
        place = {"ax": axes.tolist(), "orientation": "horizontal", "aspect": 40, "shrink": 0.8}
    extend = exceeds(volume.shades, volume.values)
    return draw_bar(axes[0].figure, volume.shades, how=volume.how, extend=extend, **place)
