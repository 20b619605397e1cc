"""Intersection over union: whether what is bright in a map has the shape of a region."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.func import debug_unwrap

from ifa.evaluate.regions import against, quantile, unless_constant


def iou(
    map: Tensor,
    mask: Tensor,
    thresholds: Tensor | Sequence[float] | float,
    *,
    of: Literal["maximum", "quantile"] = "maximum",
) -> Tensor:
    r"""Divide intersection by union of a mask and a map above thresholds (Jaccard's index).

    .. math:: \mathrm{IoU}_t = \frac{|M \cap H_t|}{|M \cup H_t|}, \qquad
              H_t = \{p : h_p \ge t \, h_{\max}\}
              \quad\text{or}\quad \{p : h_p \ge q_t(h)\}

    Per example: lift it over a batch with `torch.func.vmap`.

    Parameters
    ----------
    map : (\*space) or (block, \*space)
        Any number of axes.
    mask : (\*space)
        Boolean, of the map's shape or of its last axes.
    thresholds : (threshold,) or ()
        In [0, 1].
    of
        What thresholds are shares of: ``"maximum"``, or ``"quantile"``, linear between values:
        0.9 leaves the brightest tenth.

    Returns
    -------
    (threshold,) or ()
        In [0, 1]. NaN for an empty mask, a map that is constant or not finite, and, of the maximum,
        for a map without a positive value.

    Raises
    ------
    ValueError
        If the mask is not boolean or not of the map's shape, a threshold is outside of [0, 1], or
        `of` is another word.

    References
    ----------
    Jaccard 1912, "The distribution of the flora in the alpine zone".
    doi:10.1111/j.1469-8137.1912.tb05611.x

    Examples
    --------
    >>> import torch
    >>> map, mask = torch.tensor([0.2, 0.6, 1.0]), torch.tensor([False, False, True])
    >>> iou(map, mask, [0.5, 0.9])
    tensor([0.5000, 1.0000], dtype=torch.float64)
    """
    values, region = against("ifa.evaluate.iou", map, mask)
    shares = torch.as_tensor(thresholds, dtype=torch.float64, device=map.device)
    # unknown only where a transform maps over thresholds
    if debug_unwrap(shares) is shares and not bool(((shares >= 0) & (shares <= 1)).all()):
        raise ValueError(
            f"ifa.evaluate.iou: expected thresholds in [0, 1], got {thresholds}. Give shares."
        )
    if of == "maximum":
        high = values.amax()
        limits = torch.where(high > 0, shares * high, torch.nan)
    elif of == "quantile":
        limits = quantile(values, shares)
    else:
        raise ValueError(
            f"ifa.evaluate.iou: expected of to be one of 'maximum', 'quantile', got {of!r}."
        )
    bright = values >= limits[..., None]
    both, either = (bright & region).sum(-1), (bright | region).sum(-1)
    known = region.any() & ~limits.isnan()
    return unless_constant(values, torch.where(known, both.double() / either, torch.nan))
