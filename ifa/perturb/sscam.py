"""SS-CAM: Score-CAM, smoothed over noise on its masks."""

from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from ifa.checks import check_noise
from ifa.noise import repeated_noise
from ifa.perturb.perturbation import Network, Perturbation, Running, each_layer
from ifa.perturb.scorecam import masked
from ifa.progress import Progress
from ifa.score import logit
from ifa.stages import builder
from ifa.types import Grid, Inputs, Layer, Output, Score


@builder
def sscam(
    model: nn.Module,
    layer: Any,
    example: Inputs,
    *,
    score: Score = logit,
    chunk: int | None = None,
    draws: int = 35,
    stdev: float = 2.0,
    seed: int = 0,
    softmax: bool = True,
    top: int | None = None,
    output: Output = None,
    grid: Grid | None = None,
    grid_of: str | int | None = None,
    progress: Progress = False,
) -> Any:
    r"""Weigh each channel by the mean score of the input behind that channel with noise.

    .. math::

        S_k = \frac{1}{N} \sum_{i=1}^{N} y\bigl(x \odot (M_k + \delta_{ki})\bigr) - y(x),
        \qquad w_k = \frac{e^{S_k}}{\sum_j e^{S_j}}

    with the masks :math:`M_k` of `scorecam`, which are in [0, 1], and at the input's resolution
    noise :math:`\delta_{ki}(p) \sim N(0, \sigma^2)`. The noise of a channel and draw depends on the
    seed alone and is the same for every example.

    Parameters
    ----------
    model, layer, example, score, output, grid, grid_of
        As in `ifa.tap` and `scorecam`.
    chunk
        How many masked inputs run at once: bounds the memory and changes no result. None
        takes what fits in the cache, on a GPU what fits in 1 GiB.
    draws
        Number N of draws for each channel. The network runs N times as often as in `scorecam`.
    stdev
        Standard deviation σ of the noise. The default, the paper's, is large beside the masks.
    seed
        Of the noise.
    softmax, top, progress
        As in `scorecam`.

    Returns
    -------
    callable
        ``(inputs, target=None) -> Weighted``, as from `scorecam`.

    Raises
    ------
    LookupError, ValueError, TypeError
        As `scorecam`.

    References
    ----------
    Wang et al. 2020, "SS-CAM: smoothed Score-CAM for sharper visual feature localization", section
    3, the variant with noise on the feature map. arXiv:2006.14255

    Examples
    --------
    >>> import ifa, torch
    >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 3, 3), torch.nn.Flatten())
    >>> signals = torch.linspace(-1, 1, 7).reshape(1, 1, 7)
    >>> ifa.perturb.sscam(net, "0", signals, draws=2)(signals, target=0).weights.shape
    torch.Size([1, 3])
    """
    how = Running(score, chunk, output, grid, grid_of)

    def build(one: Layer | None) -> Perturbation:
        network = Network("sscam", model, one, example, how)
        network.check_real(example)
        check_noise(network.where, draws, stdev, seed)
        alter = partial(_noisy, stdev=stdev, seed=seed)
        options = f"{draws=}, {stdev=}, {seed=}, "
        return masked(network, alter, draws, softmax, top, progress, options)

    return each_layer(build, layer)


def _noisy(
    masks: Tensor,
    channels: Sequence[Sequence[int]],
    draws: Sequence[range],
    *,
    stdev: float,
    seed: int,
) -> Tensor:
    # by channel and draw, so that neither the chunk nor the choice of channels moves it
    @cache
    def drawn(channel: int, some: range) -> Tensor:
        return repeated_noise(masks.shape[2:], masks, seed, channel, draws=some)

    rows = [torch.cat(list(map(drawn, row, draws))) for row in dict.fromkeys(map(tuple, channels))]
    if len(rows) > 1:  # not every sample has the same channels
        rows = [torch.cat(list(map(drawn, row, draws))) for row in channels]
    return masks + stdev * torch.stack(rows)
