"""What colors of a map mean, how opaque they are, and the bar that says so.

A value is as opaque as it is large, so that where nothing is the image is seen, and where the map
is strong the bar's color. Over a mid gray equal steps of a value are equal steps to the eye, light
rises with it, and both also without red, green or blue cones: see ``tests/test_plot_shades.py``.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ifa.plot.texts import fitted
from ifa.scaling import Scale, scale_from
from ifa.stages import as_tensor
from ifa.store.exports import Ends

GRAY = 128 / 255  # beneath a bar, and beneath a map alone
# opaque colors of values from 0 to 1, evenly spaced: for the target, and against it
_WARM = "e2724a e2724a f17c3b f88a2e fc9823 ffb030 ffc641 ffd851 ffe860"
_COLD = "5894dc 5894dc 4e9fea 43acf3 3cbaf7 54cbfd 6ad8ff 7ee3ff 90ecff"
_LEVELS = 5  # of contours, on each side
_STEPS = 1024  # of a bar


class Shades(NamedTuple):
    """What colors of a map mean."""

    low: float = 0.0
    high: float = 1.0
    signed: bool = False
    label: str = "intensity"  # of the bar
    contrast: float = 0.5  # of what is beneath, about the bar's gray

    def limits(self) -> tuple[float, float]:
        """Return the values at both ends of the bar."""
        return (-self.high if self.signed else self.low), self.high

    def exponent(self) -> int:
        """Return the power of ten that the bar's ticks leave to its label."""
        power = int(np.floor(np.log10(max(map(abs, self.limits())))))
        return 0 if -3 <= power < 5 else power

    def said(self) -> str:
        """Return what stands beside the bar."""
        exponent = self.exponent()
        return f"{self.label} × 1e{exponent}" if exponent else self.label

    def levels(self) -> np.ndarray:
        """Return the values at which contours are drawn, rising."""
        parts = np.arange(1, _LEVELS + 1) / _LEVELS
        if self.signed:
            return self.high * np.r_[-parts[::-1], parts]
        return self.low + (self.high - self.low) * parts


def shades_of(
    where: str,
    *,
    scale: Any = None,
    low: float = 0.0,
    high: float = 1.0,
    signed: bool = False,
    unit: str = "",
    contrast: float = 0.5,
) -> Shades:
    """Take what colors mean from the options that pictures share."""
    if not 0 <= contrast <= 1:
        raise ValueError(f"{where}: expected contrast in [0, 1], got {contrast}.")
    if scale is not None:
        scale = scale_from(scale) if hasattr(scale, "data_vars") else scale
        if not isinstance(scale, Scale) or signed or (low, high) != (0.0, 1.0):
            raise TypeError(
                f"{where}: expected scale to be a Scale or statistics, without low, high and "
                f"signed, got {type(scale).__name__} with low={low}, high={high}, signed={signed}. "
                "Colors of maps on a scale go from its 0 to its 1."
            )
        ends = Ends(*(np.atleast_1d(np.asarray(limit)) for limit in scale), at=(0.0, 1.0))
        unit = unit or (scale.origin.names[2] if scale.origin else "")
        return on_scale(ends, unit)._replace(contrast=contrast)
    if not (0 if signed else low) < high:
        raise ValueError(
            f"{where}: expected low < high, and high above 0 where signed, got low={low} and "
            f"high={high}. Colors need a range."
        )
    label = f"intensity ({unit})" if unit else "intensity"
    return Shades(float(low), float(high), signed, label, contrast)


def on_scale(ends: Ends, unit: str) -> Shades:
    """Take the colors of the common scale, and say what its ends are."""
    low, high = (f"{one[0]:.3g}" if len(one) == 1 else "that of its target" for one in ends[:2])
    first, last = ends.at
    label = f"common scale: {first:g} = {low}, {last:g} = {high} {unit}".rstrip()
    return Shades(0.0, 1.0, False, label)


def opaque(values: np.ndarray, shades: Shades) -> tuple[np.ndarray, np.ndarray]:
    r"""Return the color of each value (\*space, 3) and its opacity (\*space), from 0 to 1."""
    low, high = (0.0, shades.high) if shades.signed else shades.limits()
    share = (np.abs(values) if shades.signed else values).astype(float)
    share = np.nan_to_num(((share - low) / (high - low)).clip(0, 1))  # what is no number: nothing
    colors = _between(_WARM, share)
    if shades.signed:
        colors = np.where((values < 0)[..., None], _between(_COLD, share), colors)
    return colors, share


def _between(colors: str, share: np.ndarray) -> np.ndarray:
    anchors = np.array([[*bytes.fromhex(one)] for one in colors.split()]) / 255
    places = np.linspace(0, 1, len(anchors))
    return np.stack([np.interp(share, places, each) for each in anchors.T], axis=-1)


def over(beneath: Any, values: np.ndarray, shades: Shades) -> np.ndarray:
    r"""Lay a map over a picture (\*space) or (\*space, 3) of values from 0 to 1, or one gray."""
    colors, share = opaque(values, shades)
    beneath = GRAY + shades.contrast * (np.asarray(beneath) - GRAY)
    if beneath.ndim in (0, values.ndim):
        beneath = beneath[..., None]
    return (1 - share[..., None]) * beneath + share[..., None] * colors


def eight_bits(picture: np.ndarray) -> np.ndarray:
    """Round colors from 0 to 1 to eight bits."""
    return (255 * picture).round().astype(np.uint8)


def exceeds(shades: Shades, *maps: Any) -> str:
    """Say beyond which ends of the bar values go, as matplotlib's `extend` has it."""
    low, high = shades.limits()
    slack = 1e-6 * (high - low)  # of float32
    below = any(bool((np.asarray(values) < low - slack).any()) for values in maps)
    above = any(bool((np.asarray(values) > high + slack).any()) for values in maps)
    return {(1, 1): "both", (1, 0): "min", (0, 1): "max", (0, 0): "neither"}[below, above]


def draw_bar(
    figure: Any,
    shades: Shades,
    *,
    how: str = "opacity",
    extend: str = "neither",
    size: float = 8,
    **place: Any,
) -> Any:
    """Draw the bar over a mid gray: its colors, or a line for each contour.

    `place` is that of matplotlib, whose Colorbar is returned.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize
    from matplotlib.ticker import FuncFormatter

    low, high = shades.limits()
    values = low + (high - low) * (np.arange(_STEPS) + 0.5) / _STEPS
    alone = how == "contours"
    colors = np.full((2, 3), GRAY) if alone else over(GRAY, values, shades)
    colored = ScalarMappable(Normalize(low, high), ListedColormap(colors))  # pyright: ignore
    bar = figure.colorbar(colored, extend=extend, **place)
    bar.ax.tick_params(labelsize=size)
    bar.set_label(_fitted(shades.said(), bar, place, size), fontsize=size, parse_math=False)
    bar.solids.set_edgecolor("face")  # no seams in vector graphics
    one = 10.0 ** shades.exponent()
    bar.formatter = FuncFormatter(lambda value, _: f"{value / one:.6g}".replace("-", "−"))
    if alone:
        levels = shades.levels()
        bar.add_lines(levels, opaque(levels, shades)[0], [2.0] * len(levels))
        bar.set_ticks(levels)
    return bar


def _fitted(label: str, bar: Any, place: dict[str, Any], size: float) -> str:
    """Break a label to the length of the axes that the bar stands beside."""
    beside = np.atleast_1d(place.get("ax", bar.ax)).ravel()
    boxes = np.stack([one.get_window_extent().get_points() for one in beside])
    wide, tall = np.ptp(boxes.reshape(-1, 2), axis=0) / beside[0].get_figure(root=True).dpi
    return fitted(label, 0.9 * (tall if bar.orientation == "vertical" else wide), size, most=6)


def bar(
    axes: Any,
    *maps: Any,
    scale: Any = None,
    low: float = 0.0,
    high: float = 1.0,
    signed: bool = False,
    unit: str = "",
    how: str = "opacity",
    **place: Any,
) -> Any:
    """Draw the bar of maps beside the axes in which they are: their colors over a mid gray.

    Parameters
    ----------
    axes
        One, or an array or list of them, which the bar stands beside.
    *maps
        What is drawn, if it is to be seen where values go beyond the limits: the bar then ends in
        an arrow.
    scale, low, high, signed, unit, how
        As `ifa.plot.overlay` had them.
    **place
        Options of ``matplotlib.figure.Figure.colorbar``, such as ``shrink`` or ``orientation``.

    Returns
    -------
    matplotlib.colorbar.Colorbar
    """
    some: Sequence[Any] = np.asarray(axes, dtype=object).reshape(-1).tolist()
    shades = shades_of("ifa.plot.bar", scale=scale, low=low, high=high, signed=signed, unit=unit)
    arrays = [as_tensor("ifa.plot.bar", "maps", one).numpy(force=True) for one in maps]
    extend = exceeds(shades, *arrays)
    return draw_bar(some[0].figure, shades, how=how, extend=extend, ax=some, **place)
