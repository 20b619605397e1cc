"""RISE: the mean score of inputs in which a position is shown, over random masks."""

from collections.abc import Iterator
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
from ifa.checks import check_noise
from ifa.network.inputs import Place, at, baselines_of, real_grid_place, take, varied
from ifa.network.scorers import Scorer
from ifa.noise import chunks
from ifa.resizing import resized
from ifa.score import logit
from ifa.stages import wide
from ifa.types import Output, Score


def rise(
    model: nn.Module,
    *,
    score: Score = logit,
    output: Output = None,
    draws: int = 4000,
    cells: Extent = 7,
    fraction: float = 0.5,
    baseline: Baseline = 0.0,
    seed: int = 0,
    chunk: int | None = None,
    grid_of: str | int | None = None,
) -> Attribution:
    r"""Give each position the mean score of randomly masked inputs that show it.

    .. math::

        a(p) = \frac{1}{f N} \sum_{i=1}^{N} y\bigl(M_i \odot x + (1 - M_i) \odot x'\bigr) \, M_i(p)

    A mask is a small grid of cells, each 1 with probability f and 0 otherwise, enlarged linearly to
    a cell more than the input along each axis, and cut to its size at a random place. It covers all
    channels. The masks depend on the seed alone and are the same for every sample. No gradient is
    computed.

    As :math:`E[M_i(p)] = f`, a(p) tends to the mean score of inputs weighed by how much they show
    p: positions that matter to nothing get the mean score of masked inputs, and not 0. Its error
    falls as :math:`1/\sqrt{N}`.

    Parameters
    ----------
    model, score, output
        As in `ifa.tap`. The model is never touched. The paper takes `ifa.score.probability`.
    draws
        Number N of masks, each a forward pass.
    cells
        Cells of the small grid along every space axis, or along each; at most the extent.
    fraction
        Probability f that a cell is shown.
    baseline
        What :math:`x'` is, where nothing is shown: a number, a tensor like the inputs, or a
        function of them, see `ifa.baseline`.
    seed
        Of the masks.
    chunk
        How many masked inputs run at once: bounds the memory and changes no result. None: as many
        as are fast.
    grid_of
        Which tensor of a tree is masked, as in `ifa.attribute.occlusion`.

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
    Petsiuk et al. 2018, "RISE: randomized input sampling for explanation of black-box models".
    arXiv:1806.07421. Masks are made as by the authors' code, but that at the border a cell goes on
    where theirs is mirrored.

    Examples
    --------
    >>> import ifa, torch
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 1, bias=False))
    >>> _ = net[1].weight.data.copy_(torch.tensor([[0.0, 0.0, 8.0, 0.0]]))
    >>> found = ifa.attribute.rise(net, cells=4, draws=2000)(torch.ones(1, 1, 4), target=0)
    >>> found.argmax().item()
    2
    """
    scorer = scorer_of("rise", model, score, output)
    check_noise(scorer.where, draws, 0.0, seed)
    if not 0 < fraction <= 1:
        raise ValueError(
            f"{scorer.where}: expected fraction to be above 0 and at most 1, got {fraction!r}."
        )
    options = {"draws": draws, "cells": cells, "fraction": fraction, "seed": seed}
    method = partial(_rise, **options, baseline=baseline, chunk=chunk, grid_of=grid_of)
    written = f"{draws=}, {cells=}, {fraction=}, baseline={describe(baseline)}, {seed=}"
    return Attribution(scorer, method, written, chunked=True, chunk=chunk)


def _rise(
    scorer: Scorer,
    inputs: Any,
    targets: Tensor,
    *,
    draws: int,
    cells: Extent,
    fraction: float,
    seed: int,
    baseline: Baseline,
    chunk: int | None,
    grid_of: str | int | None,
) -> Any:
    place = real_grid_place(scorer.where, inputs, grid_of)
    image = at(inputs, place)
    space = [image.shape[axis] for axis in space_axes(image)]
    sizes = per_axis(scorer.where, "cells", cells, space)
    hidden = at(baselines_of(scorer.where, baseline, inputs), place)
    rows = at_once(scorer, inputs, chunk)
    found = []
    for span in chunks(len(image), rows):
        here = slice(span.start, span.stop)
        # the same masks for every portion of the samples
        masks = _masks(draws, max(1, rows // len(span)), space, sizes, fraction, seed, image)
        some = take(inputs, here)
        found.append(_sums(scorer, some, place, hidden[here], targets[..., here], masks))
    means = torch.cat(found, targets.ndim - 1) / (draws * fraction)
    return alike_over_channels(inputs, place, means.unflatten(-1, space))


def _sums(
    scorer: Scorer,
    inputs: Any,
    place: Place,
    hidden: Tensor,
    targets: Tensor,
    masks: Iterator[Tensor],
) -> Tensor:
    """Return the sum over masks of score times mask: (*target, sample, position)."""
    image, axis = at(inputs, place), targets.ndim - 1
    sums: Any = 0
    for some in masks:  # (mask, *space)
        lead = (1,) * (image.ndim - some.ndim + 1)
        shown = torch.lerp(hidden, image, some.reshape(len(some), *lead, *some.shape[1:]))
        asked = targets.repeat(*(1,) * axis, len(some))
        scores = wide(scorer.scores(varied(inputs, place, shown.flatten(0, 1)), asked))
        scores = scores.unflatten(axis, (len(some), len(image)))
        sums = sums + scores.transpose(axis, axis + 1) @ wide(some).flatten(1)
    return sums


def _masks(
    draws: int,
    size: int,
    space: list[int],
    cells: list[int],
    fraction: float,
    seed: int,
    like: Tensor,
) -> Iterator[Tensor]:
    """Yield masks (mask, *space), so many at a time; what they are does not depend on that."""
    random = np.random.default_rng(seed)
    extents = [-(-extent // count) for extent, count in zip(space, cells, strict=True)]
    whole = tuple((count + 1) * extent for count, extent in zip(cells, extents, strict=True))
    inner = int(np.prod(cells))
    for span in chunks(draws, size):
        drawn = random.random((len(span), inner + len(space)))
        small = torch.from_numpy(drawn[:, :inner] < fraction).to(like)
        large = resized(small.reshape(-1, *cells), whole)
        starts = (drawn[:, inner:] * extents).astype(int)
        yield torch.stack(
            [
                one[tuple(slice(a, a + n) for a, n in zip(start, space, strict=True))]
                for one, start in zip(large, starts, strict=True)
            ]
        )
