"""A segment and a map made one, and an image cropped to where that is largest."""

import math
from typing import Literal

import torch
from torch import Tensor

from ifa.checks import check_choice
from ifa.refine.given import check_fraction
from ifa.resizing import resized
from ifa.stages import wide

Merge = Literal["blend", "multiply"]


def stretched(values: Tensor) -> Tensor:
    """Scale to [0, 1] by the extremes; a constant becomes zero."""
    low, high = values.amin(), values.amax()
    width = torch.where(high > low, high - low, torch.ones_like(high))
    return (values - low) / width


def blended(segment: Tensor, values: Tensor, *, how: Merge = "blend", alpha: float = 0.5) -> Tensor:
    r"""Merge a segment with a map, each scaled to [0, 1] by its own extremes.

    .. math:: \alpha\, N(s) + (1 - \alpha)\, N(L) \qquad \text{or} \qquad N(s) \cdot N(L)

    Where one of them has no positive value it says nothing, and the other is returned, scaled
    alike; zeros where neither has. Per example: lift it with `torch.func.vmap`.

    Parameters
    ----------
    segment : (\*space)
        Boolean or real.
    values : (\*grid)
        A map, resized linearly to the segment's size where it has another.
    how
        ``"blend"`` or ``"multiply"``.
    alpha
        Share of the segment in a blend, from 0 to 1; 0 is the scaled map.

    Returns
    -------
    (\*space), float64
        In [0, 1].

    Raises
    ------
    ValueError
        If an option is none of these, or the numbers of axes differ.

    Examples
    --------
    >>> import ifa, torch
    >>> segment = torch.tensor([False, True, True])
    >>> ifa.refine.blended(segment, torch.tensor([0.0, 1.0, 4.0]))
    tensor([0.0000, 0.6250, 1.0000], dtype=torch.float64)
    """
    where = "ifa.refine.blended"
    check_choice(where, "how", how, ("blend", "multiply"))
    if not 0 <= alpha <= 1:
        raise ValueError(f"{where}: expected alpha from 0 to 1, got {alpha!r}.")
    if segment.ndim != values.ndim or not 1 <= segment.ndim <= 3:
        raise ValueError(
            f"{where}: expected a segment and a map of one example, with as many axes, one to "
            f"three, got {tuple(segment.shape)} and {tuple(values.shape)}."
        )
    cut, seen = wide(segment), resized(wide(values), tuple(segment.shape))
    return merged(cut, seen, how, alpha)


def merged(segment: Tensor, values: Tensor, how: Merge, alpha: float) -> Tensor:
    """Merge two maps of one size."""
    one, other = stretched(segment), stretched(values)
    # a segment that is one everywhere has no extremes, and is no less a segment
    one = torch.where((segment.amin() == segment.amax()) & (segment.amax() > 0), 1.0, one)
    both = one * other if how == "multiply" else alpha * one + (1 - alpha) * other
    says, shows = (segment > 0).any(), (values > 0).any()
    one, other = torch.where(says, one, 0.0), torch.where(shows, other, 0.0)
    return torch.where(says & shows, both, one + other)


def cropped(
    image: Tensor,
    values: Tensor,
    *,
    fraction: float | None = None,
    threshold: float | None = None,
) -> Tensor:
    r"""Keep an image where a map is largest, and zero elsewhere.

    By `fraction`, exactly :math:`\lceil fraction \cdot N \rceil` positions are kept, by rank, of
    equal ones the first. By `threshold`, those at which the map, scaled to [0, 1] by its own
    extremes, is above it. Per example: lift it with `torch.func.vmap`.

    Parameters
    ----------
    image : (channel, \*space)
        Any dtype.
    values : (\*space)
        A map of the image's size.
    fraction
        Of positions, above 0 and below 1; 0.15 where no threshold is given.
    threshold
        From 0 to 1, instead of a fraction.

    Returns
    -------
    (channel, \*space)
        In the image's dtype.

    Raises
    ------
    ValueError
        If both are given, one is out of range, or the sizes differ.

    Examples
    --------
    >>> import ifa, torch
    >>> image, values = torch.tensor([[5.0, 6.0, 7.0, 8.0]]), torch.tensor([0.1, 0.4, 0.2, 0.1])
    >>> ifa.refine.cropped(image, values, fraction=0.5)
    tensor([[0., 6., 7., 0.]])
    """
    where = "ifa.refine.cropped"
    check_crop(where, fraction, threshold)
    if image.shape[1:] != values.shape or not 1 <= values.ndim <= 3:
        raise ValueError(
            f"{where}: expected an image (channel, *space) and a map (*space) of its size, got "
            f"{tuple(image.shape)} and {tuple(values.shape)}. Put ifa.resize before it."
        )
    if threshold is not None:
        kept = stretched(wide(values)) > threshold
    else:
        count = math.ceil(round((0.15 if fraction is None else fraction) * values.numel(), 9))
        order = values.flatten().sort(descending=True, stable=True).indices
        kept = torch.zeros_like(order, dtype=torch.bool)
        kept = kept.scatter(0, order[:count], torch.ones_like(kept[:count])).reshape(values.shape)
    return torch.where(kept, image, torch.zeros_like(image))


def check_crop(where: str, fraction: float | None, threshold: float | None) -> None:
    """Raise unless one of two options, at most, is given and in range."""
    if fraction is not None and threshold is not None:
        raise ValueError(
            f"{where}: expected a fraction or a threshold, got both, {fraction!r} and "
            f"{threshold!r}. Leave one out."
        )
    if fraction is not None:
        check_fraction(where, "fraction", fraction)
    if threshold is not None and not 0 <= threshold <= 1:
        raise ValueError(f"{where}: expected threshold from 0 to 1, got {threshold!r}.")
