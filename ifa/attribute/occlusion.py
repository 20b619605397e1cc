"""Occlusion: what the score loses where a window is covered."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ifa.attribute.attributions import (
    Attribution,
    Extent,
    alike_over_channels,
    at_once,
    per_axis,
    scorer_of,
)
from ifa.baseline import Baseline, space_axes
from ifa.chains import describe
from ifa.network.inputs import (
    Place,
    at,
    baselines_of,
    real_grid_place,
    take,
    varied,
)
from ifa.network.scorers import Scorer
from ifa.noise import chunks
from ifa.score import logit
from ifa.stages import wide
from ifa.types import Output, Score


def occlusion(
    model: nn.Module,
    *,
    score: Score = logit,
    output: Output = None,
    window: Extent,
    stride: Extent = 1,
    baseline: Baseline = 0.0,
    chunk: int | None = None,
    grid_of: str | int | None = None,
) -> Attribution:
    r"""Give each position the mean loss of score over the windows that cover it.

    .. math::

        a(p) = \frac{1}{|\{\omega \ni p\}|} \sum_{\omega \ni p} y(x) - y(x_{\omega \leftarrow v})

    A window covers all channels. The first lies at the origin, the next ones a stride further; the
    last along an axis is cut off where the input ends. No gradient is computed.

    Parameters
    ----------
    model, score, output
        As in `ifa.tap`. The model is never touched.
    window
        Extent in positions, of every space axis or of each.
    stride
        From one window to the next, likewise; at most the window.
    baseline
        v: a number, a tensor like the inputs, or a function of them, see `ifa.baseline`.
    chunk
        How many covered inputs run at once: bounds the memory and changes no result. None: as many
        as are fast.
    grid_of
        Which tensor of a tree is covered, by its key or index; None for the first (sample, channel,
        \*space). The others stay as they are, and nothing is attributed to them.

    Returns
    -------
    callable
        ``(inputs, target=None) -> attribution`` shaped like the inputs, with a target axis first
        for targets (target, sample), which share the passes; the same for every channel; signed, in
        the score's unit.

    Raises
    ------
    TypeError, ValueError
        As `ifa.attribute.gradient`; also if an option is out of range, or not for each space axis.

    References
    ----------
    Zeiler & Fergus 2014, "Visualizing and understanding convolutional networks". arXiv:1311.2901

    Examples
    --------
    >>> import ifa, torch
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3, 1, bias=False))
    >>> _ = net[1].weight.data.copy_(torch.tensor([[1.0, 2.0, 6.0]]))
    >>> ifa.attribute.occlusion(net, window=2, stride=2)(torch.ones(1, 1, 3), target=0)
    tensor([[[3., 3., 6.]]])
    """
    scorer = scorer_of("occlusion", model, score, output)
    method = partial(_occlusion, window=window, stride=stride, baseline=baseline)
    method = partial(method, chunk=chunk, grid_of=grid_of)
    options = f"{window=}, {stride=}, baseline={describe(baseline)}"
    return Attribution(scorer, method, options, chunked=True, chunk=chunk)


def _occlusion(
    scorer: Scorer,
    inputs: Any,
    targets: Tensor,
    *,
    window: Extent,
    stride: Extent,
    baseline: Baseline,
    chunk: int | None,
    grid_of: str | int | None,
) -> Any:
    place = real_grid_place(scorer.where, inputs, grid_of)
    image = at(inputs, place)
    space = [image.shape[axis] for axis in space_axes(image)]
    windows = per_axis(scorer.where, "window", window, space)
    strides = per_axis(scorer.where, "stride", stride, windows)
    covers = [
        _covers(*extents).to(image.device) for extents in zip(space, windows, strides, strict=True)
    ]
    hidden = at(baselines_of(scorer.where, baseline, inputs), place)
    rows = at_once(scorer, inputs, chunk)
    found = [
        _losses(scorer, take(inputs, here), place, hidden[here], targets[..., here], covers, rows)
        for here in (slice(span.start, span.stop) for span in chunks(len(image), rows))
    ]
    losses = torch.cat(found, targets.ndim - 1)
    for axis, cover in enumerate(covers, start=targets.ndim):
        mean = wide(cover) / wide(cover).sum(0)
        losses = torch.movedim(torch.movedim(losses, axis, -1) @ mean, -1, axis)
    return alike_over_channels(inputs, place, losses)


def _losses(
    scorer: Scorer,
    inputs: Any,
    place: Place,
    hidden: Tensor,
    targets: Tensor,
    covers: Sequence[Tensor],
    rows: int,
) -> Tensor:
    """Return what the score loses at every window: (*target, sample, *window)."""
    counts = tuple(len(cover) for cover in covers)
    image, axis, scores = at(inputs, place), targets.ndim - 1, []
    for span in chunks(int(np.prod(counts)), max(1, rows // len(image))):
        places = np.unravel_index(span, counts)
        masks = covers[0][places[0]]
        for cover, start in zip(covers[1:], places[1:], strict=True):
            masks = masks[..., None] & cover[start].reshape(
                len(span), *(1,) * (masks.ndim - 1), cover.shape[1]
            )
        # (window, sample, *input), the same for every channel
        lead = (1,) * (image.ndim - len(counts))
        covered = torch.where(masks.reshape(len(span), *lead, *masks.shape[1:]), hidden, image)
        asked = targets.repeat(*(1,) * axis, len(span))
        scored = scorer.scores(varied(inputs, place, covered.flatten(0, 1)), asked)
        scores.append(wide(scored).unflatten(axis, (len(span), len(image))))
    losses = wide(scorer.scores(inputs, targets)).unsqueeze(axis) - torch.cat(scores, axis)
    return losses.transpose(axis, axis + 1).unflatten(axis + 1, counts)


def _covers(extent: int, window: int, stride: int) -> Tensor:
    """Return which positions each window covers along an axis: (window, extent)."""
    starts = torch.arange(0, max(extent - window, 0) + stride, stride)[:, None]
    place = torch.arange(extent)
    return (place >= starts) & (place < starts + window)
