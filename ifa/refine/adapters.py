"""Learned upsamplers of features and segmenters of images, brought along, as steps of a chain."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from ifa.refine.windows import guide_of, map_of
from ifa.resizing import resized
from ifa.stages import expect, wide
from ifa.types import Features, Map, Step, Weighted

Record = TypeVar("Record", Features, Weighted)
# (features (1, channel, *grid), image (1, channel, *space)) -> (1, channel, *finer grid)
Upsampler = Callable[[Tensor, Tensor], Tensor]
# (image (channel, *space)) -> labels (*space), or masks (mask, *space), which may overlap
Segmenter = Callable[[Tensor], Tensor]


def upsampled(image: Tensor, upsampler: Upsampler) -> Step:
    r"""Make a step that brings activations to a finer grid by a learned upsampler of your own.

    Such as FeatUp's, LoftUp's or AnyUp's, for the network that it was trained for. Put it before or
    after `ifa.weigh`: weights of channels stay those of the network's own grid, and spatial weights
    or gradients are resized linearly to the finer one. What the map shows beyond the layer's grid
    is the upsampler's guess, not the network's evidence. Sums over positions grow with their
    number.

    Parameters
    ----------
    image : (channel, \*space)
        One example's, as the upsampler takes it.
    upsampler
        A function or module of ``(features, image)``, each with a leading axis of one, to features
        of as many channels.

    Returns
    -------
    callable
        `Features` -> `Features`, or `Weighted` -> `Weighted`.

    Raises
    ------
    TypeError, ValueError
        If the image is not (channel, \*space) of floating numbers; when called, if the upsampler
        changes the number of channels or of axes.

    References
    ----------
    Fu et al. 2024, "FeatUp". arXiv:2403.10516

    Examples
    --------
    >>> import ifa, torch
    >>> stand_in = lambda features, image: torch.nn.functional.interpolate(features, (8, 8))
    >>> finer = ifa.refine.upsampled(torch.rand(3, 8, 8), stand_in)
    >>> features = ifa.Features(torch.rand(5, 2, 2), torch.rand(5, 2, 2), torch.tensor(0))
    >>> ifa.chain(ifa.weigh(ifa.weight.gradcam), finer, ifa.combine)(features).values.shape
    torch.Size([8, 8])
    """
    where = "ifa.refine.upsampled"
    image = guide_of(where, image)
    if not callable(upsampler):
        raise TypeError(
            f"{where}: expected an upsampler that can be called with (features, image), got "
            f"{type(upsampler).__name__}."
        )
    return partial(_upsampled, image=image, upsampler=upsampler)


def _upsampled(record: Record, *, image: Tensor, upsampler: Upsampler) -> Record:
    where = "ifa.refine.upsampled"
    expect(where, record, (Features, Weighted)[isinstance(record, Weighted)], "Put it after a tap.")
    given = record.activations
    finer = upsampler(given[None], image[None].to(given))[0]
    if finer.ndim != given.ndim or finer.shape[0] != given.shape[0]:
        raise ValueError(
            f"{where}: expected the upsampler to return as many channels and axes as it was given, "
            f"(1, {given.shape[0]}, *space), got {tuple(finer.shape)} of {tuple(given.shape)} for "
            "one example. Wrap what returns another."
        )
    size = tuple(finer.shape[1:])
    if isinstance(record, Features):
        return record._replace(activations=finer, gradients=resized(record.gradients, size))
    spatial = record.weights.ndim > 1
    weights = resized(record.weights, size) if spatial else record.weights
    return record._replace(activations=finer, weights=weights)


def segmented(image: Tensor, segmenter: Segmenter) -> Step:
    r"""Make a step that gives each segment of the image the map's mean over it.

    .. math:: q_p = \frac{1}{|\{S \ni p\}|} \sum_{S \ni p} \langle L \rangle_S

    over the segments that hold p; what is in none is one more segment. Where segments do not
    overlap the mean of the map is kept. The segmenter runs once, when the step is made; it knows
    nothing of the class.

    Parameters
    ----------
    image : (channel, \*space)
        One example's.
    segmenter
        A function of the image to whole labels (\*space), or to boolean masks (mask, \*space),
        which may overlap: a wrapper of scikit-image's ``felzenszwalb``, or of a network that
        segments anything.

    Returns
    -------
    callable
        `Map` -> `Map` with values (\*space) or (block, \*space), of the image's size.

    Raises
    ------
    TypeError, ValueError
        If the image is not (channel, \*space) of floating numbers, the segmenter returns neither,
        or, when called, the map is of another size.

    Examples
    --------
    >>> import ifa, torch
    >>> image = torch.tensor([[0.1, 0.2, 0.9, 0.8]])
    >>> halves = ifa.refine.segmented(image, lambda image: (image[0] > 0.5).int())
    >>> halves(ifa.Map(torch.tensor([1.0, 3.0, 0.0, -4.0]), torch.tensor(0))).values
    tensor([ 2.,  2., -2., -2.])
    """
    where = "ifa.refine.segmented"
    image = guide_of(where, image)
    if not callable(segmenter):
        raise TypeError(
            f"{where}: expected a segmenter that can be called with the image, got "
            f"{type(segmenter).__name__}."
        )
    found = segmenter(image)
    size = tuple(image.shape[1:])
    if (
        not isinstance(found, Tensor)
        or found.is_floating_point()
        or found.shape[-len(size) :] != size
    ):
        got = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else type(found)
        raise ValueError(
            f"{where}: expected the segmenter to return whole labels {size} or boolean masks "
            f"(mask, {', '.join(map(str, size))}), got {got}. Wrap what returns another."
        )
    return partial(_segmented, masks=_masks(where, found, size))


def _masks(where: str, found: Tensor, size: tuple[int, ...]) -> Tensor:
    if found.shape == size and found.dtype != torch.bool:
        return torch.stack([found == label for label in found.unique()])
    masks = found.reshape(-1, *size)
    if found.dtype != torch.bool or found.ndim > len(size) + 1:
        raise ValueError(
            f"{where}: expected masks to be boolean, (mask, *space), got {found.dtype} "
            f"{tuple(found.shape)}. Compare them: masks > 0."
        )
    rest = ~masks.any(0)
    held = masks.flatten(1).any(1)
    return torch.cat([masks[held], rest[None]]) if rest.any() else masks[held]


def _segmented(values: Map, *, masks: Tensor) -> Map:
    axes = masks.ndim - 1
    given = map_of("ifa.refine.segmented", values, masks.shape[1:])
    held = wide(masks).flatten(1)  # (mask, position)
    means = wide(given).flatten(-axes) @ held.T / held.sum(1)
    result = means @ held / held.sum(0)
    return values._replace(values=result.reshape(given.shape).to(given.dtype))
