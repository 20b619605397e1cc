"""Attributions: signed, in parts, next to a map and their product; and many side by side."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ifa.plot.overlays import draw
from ifa.plot.shades import Shades


def attribution(
    image: Any,
    values: Any,
    *,
    map: Any = None,
    quantile: float = 1.0,
    axes: Any = None,
) -> Any:
    r"""Draw an input, its attribution, what of it is positive and negative, a map and the product.

    Colours are symmetric about zero, red for the target and blue against it, and alike in the three
    panels of the attribution, so that they can be compared. Channels are summed.

    Parameters
    ----------
    image : (y, x), (1, y, x), (3, y, x), (1, z, y, x), (1, t) or (t,)
        As in `ifa.plot.overlay`. Of a volume the slice is drawn in which the attribution is
        largest.
    values : (\*space) or (channel, \*space)
        The attribution, at the input's size.
    map : (\*space), optional
        A class activation map at the input's size: drawn over the input, in two-sided colours if
        it is signed, and multiplied with the attribution, which is drawn with limits of its own.
    quantile
        Of the sizes of the values, where colours end; 1 is the largest. Below it what is larger
        is clipped to the last colour, and the titles say so.
    axes
        An array of 4 axes, or 6 with a map; made if None.

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
        image = image.reshape(image.shape[-3:])[strongest]
        values, maps = values[strongest], [one[strongest] for one in maps]
    axes = _row(4 + 2 * len(maps), axes, "attribution")
    _only_image(image, values, axes[0], "input")
    limit = _limit(values, quantile)
    for panel, part, name in zip(
        axes[1:4],
        (values, values.clip(min=0), values.clip(max=0)),
        ("attribution", "positive", "negative"),
        strict=True,
    ):
        _signed(image, part, limit, panel, f"{name}\n{_said(limit, quantile)}")
    for one in maps:
        two_sided, high = bool((one < 0).any()), _limit(one, 1.0)
        draw("ifa.plot", axes[4], image, one, Shades(high=high, signed=two_sided))
        axes[4].set_title(f"map\n{'±' if two_sided else '0 …'} {high:.2g}", fontsize=8)
        product = values * one
        own = _limit(product, quantile)
        _signed(image, product, own, axes[5], f"attribution × map\n{_said(own, quantile)}")
    return axes


def attributions(
    image: Any, values: Mapping[str, Any], *, quantile: float = 1.0, axes: Any = None
) -> Any:
    r"""Draw an input and several attributions of it in one row, each with limits of its own.

    Parameters
    ----------
    image : (y, x), (1, y, x), (3, y, x), (1, t) or (t,)
        As in `ifa.plot.overlay`.
    values
        Name -> attribution (\*space) or (channel, \*space), whose channels are summed.
    quantile
        As in `ifa.plot.attribution`.
    axes
        An array of axes, one more than there are attributions; made if None.

    Returns
    -------
    numpy.ndarray
        The axes.
    """
    image = np.asarray(image)
    named = {name: np.asarray(one) for name, one in values.items()}
    axes = _row(1 + len(named), axes, "attributions")
    for panel, (name, one) in zip(axes[1:], named.items(), strict=True):
        one = _summed(one, one.ndim - (one.ndim > 1 and one.shape == image.shape))
        _only_image(image, one, axes[0], "input")
        limit = _limit(one, quantile)
        _signed(image, one, limit, panel, f"{name}\n{_said(limit, quantile)}")
    return axes


def _summed(values: np.ndarray, space: int) -> np.ndarray:
    return values.sum(0) if values.ndim > space else values


def _row(count: int, axes: Any, name: str) -> np.ndarray:
    from matplotlib import pyplot as plt

    if axes is None:
        size = (1.45 * count, 1.8)
        axes = plt.subplots(1, count, figsize=size, squeeze=False, layout="constrained")[1][0]
    axes = np.asarray(axes).reshape(-1)
    if len(axes) != count:
        raise ValueError(f"ifa.plot.{name}: expected {count} axes, got {len(axes)}.")
    return axes


def _only_image(image: np.ndarray, values: np.ndarray, axes: Any, title: str) -> None:
    axes.clear()
    draw("ifa.plot", axes, image, values, None)
    axes.set_title(f"{title}\n", fontsize=8)


def _signed(image: Any, values: np.ndarray, limit: float, axes: Any, title: str) -> None:
    beneath = image if values.ndim == 1 else None
    draw("ifa.plot", axes, beneath, values, Shades(high=limit, signed=True))
    axes.set_title(title, fontsize=8)


def _limit(values: np.ndarray, quantile: float) -> float:
    if not 0 < quantile <= 1:
        raise ValueError(f"ifa.plot: expected quantile in (0, 1], got {quantile}.")
    # of values that are all zero any limit shows nothing
    return float(np.nanquantile(np.abs(values), quantile)) or 1.0


def _said(limit: float, quantile: float) -> str:
    return f"± {limit:.2g}" + ("" if quantile == 1 else f" ({100 * quantile:g} %)")
