"""IS-CAM: Score-CAM, integrated over the strength of its masks."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ifa.checks import check_choice, check_count
from ifa.perturb.perturbation import Network, Perturbation, Running, each_layer
from ifa.perturb.scorecam import masked
from ifa.progress import Progress
from ifa.score import logit
from ifa.stages import builder
from ifa.types import Grid, Inputs, Layer, Output, Score

_SCHEDULES = {
    "linear": lambda i, n: i / n,
    "paper": lambda i, n: i * (i - 1) / (2 * n),
    "torchcam": lambda i, n: i * (i + 1) / (2 * n),
}


@builder
def iscam(
    model: nn.Module,
    layer: Any,
    example: Inputs,
    *,
    score: Score = logit,
    chunk: int | None = None,
    draws: int = 10,
    schedule: Literal["linear", "paper", "torchcam"] = "linear",
    softmax: bool = True,
    top: int | None = None,
    output: Output = None,
    grid: Grid | None = None,
    grid_of: str | int | None = None,
    progress: Progress = False,
) -> Any:
    r"""Weigh each channel by the mean score of the input behind ever stronger masks.

    .. math::

        S_k = \frac{1}{N} \sum_{i=1}^{N} y(a_i \, x \odot M_k) - y(x),
        \qquad w_k = \frac{e^{S_k}}{\sum_j e^{S_j}}

    with the masks :math:`M_k` of `scorecam`.

    Parameters
    ----------
    model, layer, example, score, output, grid, grid_of
        As in `ifa.tap` and `scorecam`.
    chunk
        How many masked inputs run at once: bounds the memory and changes no result. None
        takes what fits in the cache, on a GPU what fits in 1 GiB.
    draws
        Number N of strengths. The network runs N times as often as in `scorecam`.
    schedule
        Strengths :math:`a_i` for i = 1 … N: ``"linear"`` is i/N, a Riemann sum over [0, 1];
        ``"paper"`` the nested sum as printed, i(i − 1)/2N; ``"torchcam"`` that library's
        i(i + 1)/2N (defect D1-3). The last two go far beyond the input: to 4.5 and 5.5 times for N
        = 10.
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
    Naidu et al. 2020, "IS-CAM: integrated Score-CAM for axiomatic-based explanations".
    arXiv:2010.03023. The default departs from it: the strengths of an integral end at 1.

    Examples
    --------
    >>> import ifa, torch
    >>> net = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Flatten())
    >>> signals = torch.tensor([[[1.0, 3.0]]])
    >>> explain = ifa.perturb.iscam(net, "0", signals, draws=2, softmax=False)
    >>> explain(signals, target=1).weights  # (3/2 + 3) / 2 - 3
    tensor([[-0.7500]])
    """
    how = Running(score, chunk, output, grid, grid_of)

    def build(one: Layer | None) -> Perturbation:
        network = Network("iscam", model, one, example, how)
        network.check_real(example)
        check_count(network.where, "draws", draws)
        check_choice(network.where, "schedule", schedule, list(_SCHEDULES))
        strengths = [_SCHEDULES[schedule](i, draws) for i in range(1, draws + 1)]
        alter = partial(_stronger, strengths=strengths)
        options = f"{draws=}, {schedule=}, "
        return masked(network, alter, draws, softmax, top, progress, options)

    return each_layer(build, layer)


def _stronger(
    masks: Tensor,
    channels: Sequence[Sequence[int]],
    draws: Sequence[range],
    *,
    strengths: Sequence[float],
) -> Tensor:
    each = [strengths[draw] for some in draws for draw in some]
    strength = torch.tensor(each, dtype=torch.float64).to(masks)
    return masks * strength.reshape(-1, *(1,) * (masks.ndim - 2))
