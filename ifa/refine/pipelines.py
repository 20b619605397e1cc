"""The refinement pipeline of high-res-mapping: a coarse map cut to the edges of a fine one."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from ifa.checks import check_choice, check_count
from ifa.reduce import quantiles
from ifa.refine.contours import steepness
from ifa.refine.given import back, check_fraction, numbers
from ifa.refine.growing import checked_seeds, in_band, joined
from ifa.refine.holes import filled
from ifa.refine.interest import region_of_interest
from ifa.refine.merging import Merge, check_crop, cropped, merged, stretched
from ifa.refine.peaks import Areas, Scope, focal_points
from ifa.refine.windows import box_mean
from ifa.resizing import resized


class Refined(NamedTuple):
    """All that the pipeline computes, in the order in which it does; maps are float64."""

    blurred: Tensor  # (*space), the fine map in [0, 1], averaged over boxes
    low: Tensor  # (*grid), the coarse map as it was given
    low_resized: Tensor  # (*space), in the coarse map's unit
    edges: Tensor  # (*space), in [0, 1]
    roi: Tensor  # (*space), bool, the region of interest
    bounds: Tensor  # (2,), the band of edges that regions grow in
    focal_points: Tensor  # (point, axis), int64, what they grow from
    segmented: Tensor  # (*space), bool, the regions that have grown
    full_segment: Tensor  # (*space), bool, with the strong edges, holes filled
    merged: Tensor  # (*space), in [0, 1], the segment and the coarse map
    result: Tensor  # (channel, *space), the image where `merged` is largest
    seeds: Tensor  # (), int64, how many focal points are seeds: have their edge in the band
    snapped: Tensor  # (), int64, how many of them were moved there


class Seeded(NamedTuple):
    """Over samples, how often regions had something to grow from."""

    samples: Tensor  # (), int64
    seedless: Tensor  # (), int64, samples without a seed in the band
    share: Tensor  # (), float64, of samples without; NaN without a sample
    snapped: Tensor  # (), int64, samples whose seeds were moved into the band


def pipeline(
    image: Tensor,
    low: Tensor,
    high: Tensor,
    *,
    region: float = 0.15,
    band: Sequence[float] = (0.25, 0.75),
    scope: Scope = "global",
    areas: Areas = "small",
    count: int | None = None,
    least: float | None = None,
    points: Tensor | None = None,
    snap: bool = False,
    how: Merge = "blend",
    alpha: float = 0.5,
    fraction: float | None = None,
    threshold: float | None = None,
    window: int | None = None,
    hole: int | None = None,
    faithful: bool = False,
) -> Refined:
    r"""Refine a coarse map by the edges of a fine one, and crop the image to it.

    1. blurred = N(high), averaged over boxes; edges = N(Sobel(blurred)).
    2. roi = where the resized low map is above its quantile; bounds = the quartiles of edges there.
    3. segmented = what the band of edges joins to a focal point of the low map.
    4. full_segment = segmented and the strong edges of the region, holes filled.
    5. merged = :math:`\alpha N(full\_segment) + (1 - \alpha) N(low)`; result = image where it is
       largest.

    A heuristic: no step knows the class but through `low`, and `high` serves as edges only.
    `merged` is the refined map. Runs on the host, in float64, for one example; it can be neither
    differentiated nor lifted with `vmap`.

    Parameters
    ----------
    image : (channel, \*space)
        One to three axes, any dtype.
    low : (\*grid)
        The coarse map, signed; resized linearly. To have its units at their true centres give it
        at the image's size, as `ifa.explain` returns it.
    high : (\*space)
        The fine map, signed, or a channel of the image itself; resized where it has another size.
    region
        Share of positions in the region of interest, see `region_of_interest`.
    band
        Quantiles of the region's edges between which regions grow.
    scope, areas, count, least
        Of `focal_points`; `least` is its threshold.
    points : (point, axis)
        To grow from these instead.
    snap
        Where no focal point has its edge in the band, move each to the nearest position of the
        region that has.
    how, alpha
        Of `blended`.
    fraction, threshold
        Of `cropped`.
    window
        Extent of the box, odd; if None 5 of 224 positions, at least 3, on each axis.
    hole
        Holes of so many positions are left; if None 256 of 224 × 224.
    faithful
        As the public code computes where that is another rule and no mistake: a window of 5, holes
        of 256, and maps in 256 steps before they are merged. Its small areas are skeletons by
        scikit-image, whose rule is not the one that it cites: give such as `points`.

    Returns
    -------
    Refined
        On the image's device.

    Raises
    ------
    TypeError, ValueError
        If a map is not finite and of one example, the axes of space differ, or an option is out of
        range.

    References
    ----------
    Tagaris, Sdraka & Stafylopatis 2019, "High-resolution class activation mapping", ICIP, by its
    public code high-res-mapping. What was mended in it is listed in the tests, by number.

    Examples
    --------
    >>> import ifa, torch
    >>> image = torch.tensor([[0.0, 0.0, 1.0, 3.0, 4.0, 4.0, 4.0, 3.0, 1.0, 0.0, 0.0, 0.0]])
    >>> low = torch.tensor([0.0, 2.0, 1.0, 0.0])
    >>> refined = ifa.refine.pipeline(image, low, image[0], region=0.4)
    >>> refined.focal_points.flatten().tolist(), int(refined.seeds)
    ([4, 5, 6], 2)
    >>> refined.segmented.int().tolist()
    [0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0]
    """
    where = "ifa.refine.pipeline"
    coarse, fine, size = _checked_maps(where, image, low, high)
    _check_options(where, region, band, how, alpha, fraction, threshold, window, hole)
    boxes, most = _extents(size, window, hole, faithful)
    blurred = box_mean(stretched(resized(fine, size)), boxes)
    edges = stretched(steepness(blurred))
    large = resized(coarse, size)
    roi = region_of_interest(large, fraction=region)
    bounds = quantiles(edges[roi].numpy(), band)
    if points is None:
        points = focal_points(
            coarse, size=size, scope=scope, areas=areas, count=count, threshold=least
        )
    else:
        points = torch.from_numpy(checked_seeds(where, points, size))
    segmented, seeds, snapped = _segmented(edges, roi, bounds, points, snap)
    full = filled(segmented | ((edges >= bounds[1]) & roi), size=most)
    steps = _in_steps(coarse, size) if faithful else large
    blend = merged(full.double(), steps, how, alpha)
    host = (blurred, coarse, large, edges, roi, torch.from_numpy(bounds), points)
    after = segmented, full, blend
    result = cropped(image.cpu(), blend, fraction=fraction, threshold=threshold)
    counts = torch.tensor(seeds), torch.tensor(snapped)
    return Refined(*(one.to(image.device) for one in (*host, *after, result, *counts)))


def seeded(refined: Iterable[Refined]) -> Seeded:
    """Count the samples of which no focal point had its edge in the band: nothing has grown there.

    Parameters
    ----------
    refined
        Of each sample, what `pipeline` returned; what is needed of it is kept, and no more.

    Returns
    -------
    Seeded
        Numbers of samples, and the share without a seed.

    Examples
    --------
    >>> import ifa, torch
    >>> place = torch.arange(12.0) - 5.5
    >>> bump = torch.exp(-(place**2 + place[:, None] ** 2) / 8)
    >>> coarse = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    >>> results = [ifa.refine.pipeline(bump[None], coarse, bump, snap=snap) for snap in (0, 1)]
    >>> ifa.refine.seeded(results).share  # edges are not where the coarse map peaks
    tensor(0.5000, dtype=torch.float64)
    """
    found = [(int(one.seeds), int(one.snapped)) for one in refined]
    table = torch.tensor(found, dtype=torch.int64).reshape(-1, 2)
    none = table[:, 0] == 0
    return Seeded(
        torch.tensor(len(table)), none.sum(), none.double().mean(), (table[:, 1] > 0).sum()
    )


def _checked_maps(
    where: str, image: Any, low: Any, high: Any
) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    if not isinstance(image, Tensor) or not 2 <= image.ndim <= 4 or not image.numel():
        shape = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise ValueError(
            f"{where}: expected one image (channel, *space) with one to three axes of space, got "
            f"{shape}. It runs on the host: call it for each example."
        )
    size = tuple(image.shape[1:])
    maps = [
        torch.from_numpy(numbers(where, name, one)) for name, one in (("low", low), ("high", high))
    ]
    if any(one.ndim != len(size) for one in maps):
        raise ValueError(
            f"{where}: expected maps with the image's {len(size)} axes of space, got "
            f"{[tuple(one.shape) for one in maps]} for an image {tuple(image.shape)}. The image's "
            "first axis is its channels."
        )
    return maps[0], maps[1], size


def _check_options(
    where: str,
    region: float,
    band: Sequence[float],
    how: str,
    alpha: float,
    fraction: float | None,
    threshold: float | None,
    window: int | None,
    hole: int | None,
) -> None:
    check_fraction(where, "region", region)
    if len(band) != 2 or not 0 <= band[0] <= band[1] <= 1:
        raise ValueError(
            f"{where}: expected band to be two quantiles from 0 to 1, the lower first, got {band}."
        )
    check_choice(where, "how", how, ("blend", "multiply"))
    if not 0 <= alpha <= 1:
        raise ValueError(f"{where}: expected alpha from 0 to 1, got {alpha!r}.")
    check_crop(where, fraction, threshold)
    if window is not None and (not isinstance(window, int) or window < 1 or window % 2 == 0):
        raise ValueError(f"{where}: expected window to be an odd number, got {window!r}.")
    if hole is not None:
        check_count(where, "hole", hole)


def _extents(
    size: Sequence[int], window: int | None, hole: int | None, faithful: bool
) -> tuple[list[int], int]:
    """Return the window on every axis, and the size of holes that are left."""
    if window is None:
        odd = [max(3, 2 * round((extent * 5 / 224 - 1) / 2) + 1) for extent in size]
        boxes = [5] * len(size) if faithful else odd
    else:
        boxes = [window] * len(size)
    usual = 256 if faithful else max(1, round(float(np.prod(size)) * 256 / 224**2))
    return boxes, usual if hole is None else hole


def _segmented(
    edges: Tensor, roi: Tensor, bounds: np.ndarray, points: Tensor, snap: bool
) -> tuple[Tensor, int, int]:
    """Grow regions; with them how many points are seeds, and how many of these were moved."""
    band = in_band(edges.numpy(), *bounds)
    seeds = points.numpy()
    inside = band[tuple(seeds.T)]
    snapped = 0
    if snap and not inside.any() and len(seeds):
        there = np.argwhere(band & roi.numpy())
        if len(there):
            seeds = there[KDTree(there).query(seeds)[1]]
            inside, snapped = np.ones(len(seeds), bool), len(seeds)
    return back(joined(band, seeds), edges), int(inside.sum()), snapped


def _in_steps(values: Tensor, size: tuple[int, ...]) -> Tensor:
    """Resize a map as a picture of 256 greys is; one that is nowhere positive stays as it is."""
    if not (values > 0).any():
        return resized(values, size)
    return resized((255 * stretched(values)).floor(), size).round() / 255
