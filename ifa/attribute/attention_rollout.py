"""Attention rollout: which patches the attention of a transformer brings together."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor, nn

from ifa.attribute.attentions import observed
from ifa.attribute.attributions import Attribution, scorer_of, spoilt
from ifa.attribute.patches import check_grid, enlarged, laid_out
from ifa.chains import describe
from ifa.network.gradients import joined, pulled
from ifa.network.scorers import Scorer
from ifa.score import logit
from ifa.stages import wide
from ifa.taps.grids import Tokens
from ifa.types import Output, Score

# (probabilities (sample, head, query, key) and gradients (target, ...) of a block) -> what the
# block says of (target, sample, query, key)
Block = Callable[[Tensor, Tensor], Tensor]


def attention_rollout(
    model: nn.Module,
    *,
    score: Score = logit,
    output: Output = None,
    gradients: bool = True,
    grid: Tokens | None = None,
    grid_of: str | int | None = None,
) -> Attribution:
    r"""Follow the attention from the output through all blocks to the patches.

    .. math::

        R = \bar A^L \cdots \bar A^1, \qquad
        \bar A^l = 1 + \frac{1}{H} \sum_h \max\left(0, A^l_h \odot
        \frac{\partial y}{\partial A^l_h}\right)

    The map is the row of the class token, the first one; in a network without prefix tokens the
    mean over rows. It is laid out on the grid and interpolated to the input's size.

    Parameters
    ----------
    model, score, output
        As in `ifa.tap`. The model is never touched. Attention may be what `ifa.attribute.legrad`
        sees, and needs no block around it.
    gradients
        As above. Without them :math:`\bar A^l = \tfrac{1}{2} + \tfrac{1}{2H} \sum_h A^l_h`, the
        plain rollout, which is the same for every target.
    grid, grid_of
        As in `ifa.attribute.legrad`.

    Returns
    -------
    callable
        ``(inputs, target=None) -> attribution`` as of `ifa.attribute.legrad`, not negative, without
        a unit of its own.

    Raises
    ------
    TypeError, ValueError
        As `ifa.attribute.legrad`.

    References
    ----------
    Chefer et al. 2021, "Generic attention-model explainability for interpreting bi-modal and
    encoder-decoder transformers", equations 5 and 6. arXiv:2103.15679.
    Abnar & Zuidema 2020, "Quantifying attention flow in transformers". arXiv:2005.00928

    Examples
    --------
    >>> import ifa
    >>> net, digit = ifa.nets.digits_vit().eval(), ifa.nets.digits()[0][0]
    >>> ifa.attribute.attention_rollout(net)(digit[None], target=3).shape
    torch.Size([1, 1, 8, 8])
    """
    scorer = scorer_of("attention_rollout", model, score, output)
    check_grid(scorer.where, grid)
    block = _weighted if gradients else _plain
    method = partial(_explained, block=block, grid=grid, grid_of=grid_of)
    return Attribution(scorer, method, f"{gradients=}, grid={describe(grid)}")


def _explained(
    scorer: Scorer,
    inputs: Any,
    targets: Tensor,
    *,
    block: Block,
    grid: Tokens | None,
    grid_of: str | int | None,
) -> Any:
    many = targets if targets.ndim == 2 else targets[None]
    seen, output, pull = observed(scorer, inputs)
    laid = laid_out(scorer, inputs, seen[0], grid, grid_of)
    prefix = laid.tokens.prefix
    size = sum(probabilities.numel() * probabilities.element_size() for probabilities in seen)
    parts = pulled(scorer.where, scorer.score, output, many, pull, size)
    said = joined(
        [
            spoilt(_rolled_out(seen, part.gradients, prefix, block=block), part.scores)
            for part in parts
        ]
    )[..., prefix:]
    return enlarged(inputs, laid, said if targets.ndim == 2 else said[0])


def _rolled_out(
    seen: Sequence[Tensor], gradients: Sequence[Tensor], prefix: int, *, block: Block
) -> Tensor:
    def steps() -> Iterator[Tensor]:
        for probabilities, slope in zip(seen, gradients, strict=True):
            yield block(wide(probabilities), wide(slope))

    whole = reduce(lambda below, above: above @ below, steps())
    return whole[..., 0, :] if prefix else whole.mean(-2)


def _weighted(probabilities: Tensor, slope: Tensor) -> Tensor:
    return _identity(slope) + (probabilities * slope).relu().mean(2)


def _plain(probabilities: Tensor, slope: Tensor) -> Tensor:
    return (_identity(slope) + probabilities.mean(1).expand(len(slope), -1, -1, -1)) / 2


def _identity(like: Tensor) -> Any:
    return torch.eye(like.shape[-1], dtype=like.dtype, device=like.device)
