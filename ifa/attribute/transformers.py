"""LeGrad and attention rollout: which patches the attention of a transformer brings together."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor, nn

from ifa.attribute.attentions import observed
from ifa.attribute.attributions import (
    Attribution,
    alike_over_channels,
    scorer_of,
    spoilt,
    wide,
)
from ifa.baseline import space_axes
from ifa.chains import describe
from ifa.network.gradients import joined, pulled
from ifa.network.inputs import at, real_grid_place
from ifa.network.scorers import Scorer
from ifa.network.sites import Site
from ifa.resizing import resized
from ifa.score import logit
from ifa.taps.grids import Tokens
from ifa.taps.layouts import only_grid
from ifa.types import Output, Score

# (probabilities (sample, head, query, key) and gradients (target, ...) of a block) -> what the
# block says of (target, sample, query, key)
Block = Callable[[Tensor, Tensor], Tensor]


def legrad(
    model: nn.Module,
    *,
    score: Score = logit,
    output: Output = None,
    grid: Tokens | None = None,
    grid_of: str | int | None = None,
) -> Attribution:
    r"""Average the positive gradients of the attention probabilities.

    .. math::

        a_j = \frac{1}{L} \sum_{l=1}^{L} \frac{1}{H Q} \sum_{h, i}
        \max\left(0, \frac{\partial y}{\partial A^l_{h i j}}\right)

    over L blocks, H heads and Q queries i, for the key j of each patch; laid out on the grid and
    interpolated to the input's size. The score y is that of the whole network; the paper takes, for
    each block, the classifier applied to that block's own output, which only some models define.

    Parameters
    ----------
    model, score, output
        As in `ifa.tap`. The model is never touched. Attention may be a softmax, as HuggingFace's
        ``"eager"``, `torch.nn.functional.scaled_dot_product_attention`, or
        ``nn.MultiheadAttention``; every token attends to every token.
    grid
        How the tokens lie, an `ifa.tokens`; None: on the one grid that fits the input.
    grid_of
        Which tensor of a tree the tokens are of, as in `ifa.tap`; nothing is said of the others.

    Returns
    -------
    callable
        ``(inputs, target=None) -> attribution`` shaped like the inputs, the same for every channel,
        with a target axis first for targets (target, sample); not negative, in the score's unit.

    Raises
    ------
    TypeError, ValueError
        As `ifa.attribute.gradient`; also, when called, if no attention ran, if it is in windows, or
        if not exactly one grid fits.

    References
    ----------
    Bousselham et al. 2024, "LeGrad: an explainability method for vision transformers via feature
    formation sensitivity". arXiv:2404.03214

    Examples
    --------
    >>> import ifa
    >>> net, digit = ifa.nets.digits_vit().eval(), ifa.nets.digits()[0][0]
    >>> ifa.attribute.legrad(net)(digit[None], target=3).shape
    torch.Size([1, 1, 8, 8])
    """
    scorer = scorer_of("legrad", model, score, output)
    _check_grid(scorer.where, grid)
    method = partial(_explained, relate=_sensitivities, grid=grid, grid_of=grid_of)
    return Attribution(scorer, method, f"grid={describe(grid)}")


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
        As in `ifa.attribute.legrad`.
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
    _check_grid(scorer.where, grid)
    relate = partial(_rolled_out, block=_weighted if gradients else _plain)
    method = partial(_explained, relate=relate, grid=grid, grid_of=grid_of)
    return Attribution(scorer, method, f"{gradients=}, grid={describe(grid)}")


def _check_grid(where: str, grid: Any) -> None:
    if grid is not None and not isinstance(grid, Tokens):
        raise TypeError(
            f"{where}: expected grid to be an ifa.tokens, which says how many tokens come before "
            f"the grid's, got {grid!r}. Give e.g. ifa.tokens(prefix=1, grid=(14, 14))."
        )


# (probabilities and gradients of every block, how many tokens come before the grid's) -> what is
# said of every token, (target, sample, token)
Relate = Callable[[Sequence[Tensor], Sequence[Tensor], int], Tensor]


def _explained(
    scorer: Scorer,
    inputs: Any,
    targets: Tensor,
    *,
    relate: Relate,
    grid: Tokens | None,
    grid_of: str | int | None,
) -> Any:
    place = real_grid_place(scorer.where, inputs, grid_of)
    image = at(inputs, place)
    many = targets if targets.ndim == 2 else targets[None]
    seen, output, pull = observed(scorer, inputs)
    tokens = seen[0].shape[-1]
    site = Site("attention", (tokens, seen[0].shape[1]), image.dtype)
    lay = grid or only_grid(scorer.model, site, tuple(image.shape[1:]), scorer.where)
    if lay.prefix + math.prod(lay.grid) != tokens:
        raise ValueError(
            f"{scorer.where}: expected a grid of {tokens} tokens, got {lay}. "
            "Change prefix or grid so that they add up."
        )
    size = sum(probabilities.numel() * probabilities.element_size() for probabilities in seen)
    parts = pulled(scorer.where, scorer.score, output, many, pull, size)
    said = joined([spoilt(relate(seen, part.gradients, lay.prefix), part.scores) for part in parts])
    space = tuple(image.shape[axis] for axis in space_axes(image))
    maps = resized(said[..., lay.prefix :].unflatten(2, lay.grid), space)
    return alike_over_channels(inputs, place, maps if targets.ndim == 2 else maps[0])


def _sensitivities(seen: Sequence[Tensor], gradients: Sequence[Tensor], _: int) -> Tensor:
    # (target, sample, head, query, key): over heads and queries
    return torch.stack([wide(one).relu().mean((2, 3)) for one in gradients]).mean(0)


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
