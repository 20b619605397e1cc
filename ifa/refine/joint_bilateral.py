"""Joint bilateral filtering and upsampling: means over what is near, and alike in the image."""

import math
from collections.abc import Iterator, Sequence
from functools import partial, reduce
from itertools import product

import torch
from torch import Tensor

from ifa.checks import check_count
from ifa.refine.windows import guide_of, map_of
from ifa.resizing import resized
from ifa.stages import wide
from ifa.types import Map, Step


def bilateral(image: Tensor, *, radius: int = 2, space: float = 1.0, tone: float = 0.1) -> Step:
    r"""Make a step that brings a map to its image's grid, by the units that are alike there.

    .. math::

        q_p = \frac{\sum_u w_{pu} L_u}{\sum_u w_{pu}}, \qquad
        w_{pu} = \exp\Bigl(-\frac{\|p - u\|^2}{2 \, space^2}
                           - \frac{\|I_p - I_u\|^2}{2 \, tone^2}\Bigr)

    over the units u of the map about pixel p, distances in units. Of a map with the image's grid it
    is the joint bilateral filter, of a coarser one joint bilateral upsampling, for which the image
    at a unit is read by linear interpolation at its centre; units tile the image evenly. Linear in
    the map, signed, within the map's own extremes; NaN spreads to where its unit counts.

    Parameters
    ----------
    image : (channel, \*space)
        One example's, of one to three axes; the distance of tones is over all channels.
    radius
        How many units to each side count, on every axis.
    space
        Standard deviation of places, in the map's units.
    tone
        Standard deviation of tones, in the image's unit; the default is that of images in [0, 1].

    Returns
    -------
    callable
        `Map` -> `Map` with values (\*space) or (block, \*space), of the image's size and the map's
        dtype.

    Raises
    ------
    TypeError, ValueError
        If the image is not (channel, \*space) of floating numbers, or an option is out of range.

    References
    ----------
    Kopf et al. 2007, "Joint bilateral upsampling". doi:10.1145/1276377.1276497

    Examples
    --------
    >>> import ifa, torch
    >>> image = torch.tensor([[0.0, 0.0, 0.0, 1.0, 1.0, 1.0]])
    >>> coarse = ifa.Map(torch.tensor([0.0, 1.0]), torch.tensor(0))
    >>> ifa.refine.bilateral(image)(coarse).values
    tensor([8.3823e-23, 1.1698e-22, 1.6327e-22, 1.0000e+00, 1.0000e+00, 1.0000e+00])
    """
    where = "ifa.refine.bilateral"
    image = guide_of(where, image)
    check_count(where, "radius", radius)
    for name, spread in (("space", space), ("tone", tone)):
        if not 0 < spread < math.inf:
            raise ValueError(f"{where}: expected {name} to be positive and finite, got {spread!r}.")
    return partial(_bilateral, image=image, radius=radius, space=space, tone=tone)


def _bilateral(values: Map, *, image: Tensor, radius: int, space: float, tone: float) -> Map:
    axes = image.ndim - 1
    given = map_of("ifa.refine.bilateral", values, image.shape[1:], coarse=True)
    guide, source = wide(image), wide(given)
    grid = tuple(source.shape[-axes:])
    coarse = resized(guide, grid)

    def exponents() -> Iterator[tuple[list[Tensor], Tensor]]:
        for units, far in _near(guide.shape[1:], grid, radius, guide):
            unlike = (guide - _taken(coarse, units)).square().sum(0)
            yield units, -far / (2 * space**2) - unlike / (2 * tone**2)

    # twice over the window: weights may all be too small for a number, which their ratio is not
    peak = reduce(torch.maximum, (exponent for _, exponent in exponents()))
    total, weights = torch.zeros_like(guide[0]), torch.zeros_like(guide[0])
    for units, exponent in exponents():
        weight = torch.exp(exponent - peak)
        total, weights = total + weight * _taken(source, units), weights + weight
    return values._replace(values=(total / weights).to(given.dtype))


def _near(
    size: Sequence[int], grid: Sequence[int], radius: int, like: Tensor
) -> Iterator[tuple[list[Tensor], Tensor]]:
    """Yield each offset's units, their index on every axis, and squared distances, (*size)."""
    places = [
        (torch.arange(extent).to(like) + 0.5) * (units / extent) - 0.5
        for extent, units in zip(size, grid, strict=True)
    ]
    for offset in product(range(-radius, radius + 1), repeat=len(grid)):
        found, far = [], like.new_zeros(())
        for axis, (place, units, by) in enumerate(zip(places, grid, offset, strict=True)):
            unit = place.round().clamp(0, units - 1) + by
            outside = (unit < 0) | (unit >= units)
            apart = (place - unit).square().masked_fill(outside, torch.inf)
            far = far + apart.reshape(-1, *[1] * (len(grid) - axis - 1))
            found.append(unit.clamp(0, units - 1).long())
        yield found, far


def _taken(values: Tensor, units: Sequence[Tensor]) -> Tensor:
    """Read the last axes at an index on each."""
    for axis, index in enumerate(units, -len(units)):
        values = values.index_select(axis, index)
    return values
