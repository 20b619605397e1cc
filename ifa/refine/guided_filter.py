"""The guided filter: in every window the map is a linear function of the image."""

import math
from functools import partial

import torch
from torch import Tensor

from ifa.checks import check_count
from ifa.refine.windows import guide_of, inner_mean, map_of
from ifa.stages import wide
from ifa.types import Map, Step


def guided(image: Tensor, *, radius: int = 4, epsilon: float = 1e-2) -> Step:
    r"""Make a step that smooths a map along the edges of its image.

    In every window k of ``2 radius + 1`` positions on each axis, cut at the borders, the map p is
    fitted by the image I, and each position is given the mean of the fits of its windows:

    .. math::

        a_k = (\operatorname{cov}_k I + \varepsilon)^{-1} \operatorname{cov}_k(I, p), \qquad
        b_k = \bar p_k - a_k \cdot \bar I_k, \qquad q = \bar a \cdot I + \bar b

    Where the image varies by much less than :math:`\sqrt\varepsilon`, this is a box filter. It is
    linear in the map, signed, and keeps constants; it may overshoot. NaN spreads to its windows. It
    adds no evidence: what it gains in sharpness is the image's.

    Parameters
    ----------
    image : (channel, \*space)
        One example's, of one to three axes; all channels guide.
    radius
        In positions.
    epsilon
        Variance of the image, in its unit squared, that is not yet an edge; the default is that of
        images in [0, 1].

    Returns
    -------
    callable
        `Map` -> `Map` with values (\*space) or (block, \*space), of the image's size and the map's
        dtype.

    Raises
    ------
    TypeError, ValueError
        If the image is not (channel, \*space) of floating numbers, an option is out of range, or
        the map is of another size.

    References
    ----------
    He et al. 2013, "Guided image filtering". doi:10.1109/TPAMI.2012.213

    Examples
    --------
    >>> import ifa, torch
    >>> image = torch.tensor([[0.0, 0.0, 0.0, 1.0, 1.0, 1.0]])
    >>> ramp = ifa.Map(torch.linspace(0, 1, 6), torch.tensor(0))
    >>> ifa.refine.guided(image, radius=2, epsilon=1e-6)(ramp).values
    tensor([0.2000, 0.2250, 0.2600, 0.7400, 0.7750, 0.8000])
    """
    where = "ifa.refine.guided"
    image = guide_of(where, image)
    check_count(where, "radius", radius)
    if not 0 < epsilon < math.inf:
        raise ValueError(f"{where}: expected epsilon to be positive and finite, got {epsilon!r}.")
    return partial(_guided, image=image, radius=radius, epsilon=epsilon)


def _guided(values: Map, *, image: Tensor, radius: int, epsilon: float) -> Map:
    axes = image.ndim - 1
    given = map_of("ifa.refine.guided", values, image.shape[1:])
    guide, filtered = wide(image), wide(given)
    # the filter does not depend on the image's offset, of which squares would lose digits
    guide = guide - guide.mean(tuple(range(1, guide.ndim)), keepdim=True)
    mean = partial(inner_mean, axes=axes, radius=radius)
    guides, fits = mean(guide), mean(filtered)
    variance = mean(guide[:, None] * guide[None]) - guides[:, None] * guides[None]
    covariance = mean(guide * filtered.unsqueeze(-axes - 1)) - guides * fits.unsqueeze(-axes - 1)
    floor = epsilon * torch.eye(len(guide), dtype=guide.dtype, device=guide.device)
    slope = torch.linalg.solve(
        variance.movedim((0, 1), (-2, -1)) + floor, covariance.movedim(-axes - 1, -1)[..., None]
    )
    slope = slope[..., 0].movedim(-1, -axes - 1)  # (..., channel, *space)
    offset = fits - (slope * guides).sum(-axes - 1)
    result = (mean(slope) * guide).sum(-axes - 1) + mean(offset)
    return values._replace(values=result.to(given.dtype))
