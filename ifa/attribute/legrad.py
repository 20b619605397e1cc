"""LeGrad: how the score answers to the attention that forms each block's tokens."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ifa.attribute.attentions import Attentions, no_attention
from ifa.attribute.attributions import Attribution, scorer_of, spoilt
from ifa.attribute.patches import Laid, check_grid, enlarged, laid_out
from ifa.chains import describe
from ifa.network.gradients import Graph, differentiable, joined, pulled
from ifa.network.inputs import clone, count, over, shapes_of, take
from ifa.network.outputs import first_tensor, replace_first_tensor
from ifa.network.replicas import Replica, Replicas, replicas
from ifa.network.scorers import Scorer
from ifa.score import logit
from ifa.stages import wide
from ifa.taps.grids import Tokens
from ifa.taps.heads import Cut, cut
from ifa.types import Output, Score

_CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.Sequential)


def legrad(
    model: nn.Module,
    *,
    score: Score = logit,
    output: Output = None,
    blocks: Sequence[int] | None = None,
    grid: Tokens | None = None,
    grid_of: str | int | None = None,
) -> Attribution:
    r"""Average the positive gradients of each block's own score by its attention probabilities.

    .. math::

        a_j = \frac{1}{L} \sum_{l=1}^{L} \frac{1}{H Q} \sum_{h, i}
        \max\left(0, \frac{\partial y^l}{\partial A^l_{h i j}}\right),
        \qquad y^l = y\bigl(\bar Z^l\bigr)

    over L blocks, H heads and Q queries i, for the key j of each patch; laid out on the grid and
    interpolated to the input's size. The score :math:`y^l` is what the network above the last
    block, such as its norm and classifier, makes of the mean over tokens of what block l returns,
    put in every token's place: so a network that reads its class token and one that reads the mean
    read the same.

    Parameters
    ----------
    model, score, output
        As in `ifa.tap`. The model is never touched. Attention may be a softmax, as HuggingFace's
        ``"eager"``, `torch.nn.functional.scaled_dot_product_attention`, or
        ``nn.MultiheadAttention``; every token attends to every token. Each is inside of a block, a
        module that returns the tokens it is added to.
    blocks
        Which blocks, by their number in order of execution, such as ``range(-4, 0)`` for the last
        four; None for all. The authors' code takes the last two.
    grid
        How the tokens lie, an `ifa.tokens`; None: on the one grid that fits the input.
    grid_of
        Which tensor of a tree the tokens are of, as in `ifa.tap`; nothing is said of the others.

    Returns
    -------
    callable
        ``(inputs, target=None) -> attribution`` shaped like the inputs, the same for every channel,
        with a target axis first for targets (target, sample); not negative, in the score's unit.
        The paper scales each map by its extremes, see `ifa.minmax`.

    Raises
    ------
    TypeError, ValueError
        As `ifa.attribute.gradient`; also, when called, if no attention ran, if it is in windows, of
        other tokens (cross-attention) or in no block, or if not exactly one grid fits. Keys of
        other tokens, as many as the queries, are seen in ``nn.MultiheadAttention`` only.

    References
    ----------
    Bousselham et al. 2024, "LeGrad: an explainability method for vision transformers via feature
    formation sensitivity". arXiv:2404.03214. Agrees with torch-cam 0.5, before its scaling.

    Examples
    --------
    >>> import ifa
    >>> net, digit = ifa.nets.digits_vit().eval(), ifa.nets.digits()[0][0]
    >>> ifa.attribute.legrad(net, blocks=[-1])(digit[None], target=3).shape
    torch.Size([1, 1, 8, 8])
    """
    scorer = scorer_of("legrad", model, score, output)
    check_grid(scorer.where, grid)
    chosen = None if blocks is None else tuple(blocks)
    if chosen is not None and not (chosen and all(isinstance(one, int) for one in chosen)):
        raise TypeError(
            f"{scorer.where}: expected blocks as their numbers, at least one, got {blocks!r}. Give "
            "e.g. range(-4, 0) for the last four."
        )
    copies = replicas(scorer.model, (), watched=True, where=scorer.where)
    method = _LeGrad(copies, chosen, grid, grid_of)
    return Attribution(scorer, method, f"blocks={chosen}, grid={describe(grid)}")


class _LeGrad(NamedTuple):
    """The method, with what it needs of a network besides its scores."""

    copies: Replicas  # whose modules can be visited
    blocks: tuple[int, ...] | None
    grid: Tokens | None
    grid_of: str | int | None

    def __call__(self, scorer: Scorer, inputs: Any, targets: Tensor) -> Any:
        many = targets if targets.ndim == 2 else targets[None]
        copy = self.copies.get()
        formed = _formations(scorer.where, copy, inputs)
        laid = laid_out(scorer, inputs, formed[0].probabilities, self.grid, self.grid_of)
        _, head = _above(scorer, copy, formed[-1].call, inputs)(inputs)
        found = [
            _said(scorer, one, head, many, laid) for one in _chosen(scorer, formed, self.blocks)
        ]
        said = torch.stack(found).mean(0)
        return enlarged(inputs, laid, said if targets.ndim == 2 else said[0])


class _Formed(NamedTuple):
    """What a block returned, and the attention in it; both in one graph."""

    call: str  # of the block, as a tap takes it
    tokens: Tensor  # (sample, token, feature)
    probabilities: Tensor  # (sample, head, query, key)


def _said(
    scorer: Scorer, formed: _Formed, head: Callable[[Tensor], Any], targets: Tensor, laid: Laid
) -> Tensor:
    """Return the positive slopes of a block's own score, (target, sample, patch)."""
    with torch.enable_grad():
        mean = formed.tokens.mean(1, keepdim=True).expand_as(formed.tokens)
        output = head(mean)
    weights = formed.probabilities
    pull = Graph(differentiable(output), [weights])
    size = weights.numel() * weights.element_size()
    parts = pulled(scorer.where, scorer.score, output, targets, pull, size)
    # (target, sample, head, query, key): over heads and queries
    return joined(
        [
            spoilt(wide(part.gradients[0]).relu().mean((2, 3)), part.scores).detach()
            for part in parts
        ]
    )[..., laid.tokens.prefix :]


def _formations(where: str, copy: Replica, inputs: Any) -> list[_Formed]:
    """Run, and return every attention with the block that it is in, in order of execution."""
    calls: Counter[str] = Counter()
    around: dict[int, list[tuple[str, Tensor]]] = defaultdict(list)

    def visit(name: str, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        calls[name] += 1
        call, before = f"{name}#{calls[name]}", len(attentions.seen)
        result = forward(*args, **kwargs)
        tokens = first_tensor(result)
        if len(attentions.seen) != before + 1 or tokens is None:
            return result
        samples, *_, count = attentions.seen[before].shape
        if tokens.ndim != 3 or tokens.shape[:2] != (samples, count):
            return result
        around[before].append((call, tokens))
        return replace_first_tensor(result, tokens.clone())  # so that nothing edits what we keep

    # a graph from the input on, whatever of the network is frozen
    start = over(lambda one: one.detach().requires_grad_(), inputs)
    with torch.enable_grad(), Attentions(where, count(inputs)) as attentions:
        copy.run(clone(start), lambda call, tensor: tensor, visit=visit)
    if not attentions.seen:
        raise no_attention(where, copy.module)
    formed = []
    for number, probabilities in enumerate(attentions.seen):
        call, tokens = _block(where, copy.module, around[number])
        name = call.partition("#")[0]
        formed.append(_Formed(name if calls[name] == 1 else call, tokens, probabilities))
    if len({one.tokens.shape for one in formed}) > 1:
        raise ValueError(
            f"{where}: expected blocks that return tokens of one shape, got "
            f"{[tuple(one.tokens.shape) for one in formed]}. Take a CAM of a block."
        )
    return formed


def _block(where: str, module: nn.Module, around: list[tuple[str, Tensor]]) -> tuple[str, Tensor]:
    """Choose the outermost module around an attention, one of a list of them where there is one."""

    def of(call: str) -> nn.Module:
        return module.get_submodule(call.partition("#")[0])

    outer = [one for one in reversed(around) if not isinstance(of(one[0]), nn.MultiheadAttention)]
    if not outer:
        raise ValueError(
            f"{where}: expected every attention inside of a block, a module that returns the "
            "tokens (sample, token, feature) which it is added to, got one in none. Put it into "
            "one, or take ifa.attribute.attention_rollout."
        )
    listed = [one for one in outer if isinstance(of(one[0].rpartition(".")[0]), _CONTAINERS)]
    return (listed or outer)[0]


def _chosen(
    scorer: Scorer, formed: Sequence[_Formed], blocks: tuple[int, ...] | None
) -> list[_Formed]:
    if blocks is None:
        return list(formed)
    try:
        numbers = [range(len(formed))[one] for one in blocks]
    except IndexError:
        numbers = []
    if not numbers or len({*numbers}) < len(numbers):
        raise ValueError(
            f"{scorer.where}: expected distinct blocks among {len(formed)}, numbered from 0, or "
            f"from -1 for the last, got {blocks}."
        )
    return [formed[number] for number in numbers]


def _above(scorer: Scorer, copy: Replica, call: str, inputs: Any) -> Cut:
    """Return the cut above a block; found out once for a network and shape of inputs."""
    key = f"above {call}, {shapes_of(inputs)}"
    if key not in copy.known:
        example = take(inputs, slice(2))
        copy.known[key] = cut(scorer.model, call, example, output=scorer.output)
    return copy.known[key]
