"""Scores of an output, and their gradients pulled back through the network, chunk by chunk.

The graph of a pass starts at leaves in the places of layers, or at zeros added to them. Both give
the same numbers. Zeros make a pure function, which any transform of torch.func can be applied to;
leaves cost nothing, where no transform is at work.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C._functorch import peek_interpreter_stack
from torch.autograd import forward_ad
from torch.autograd.graph import GradientEdge
from torch.func import debug_unwrap, vjp, vmap
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from ifa.chains import describe
from ifa.checks import takes
from ifa.declared import declared
from ifa.network.budgets import budget
from ifa.network.inputs import count, device_of
from ifa.network.outputs import listed, map_tensors
from ifa.network.replicas import Edit
from ifa.types import Inputs, Score

# (cotangents of the outputs, retain_graph, create_graph) -> gradients
Pull = Callable[[list[Tensor], bool, bool], Sequence[Tensor]]


class Pulled(NamedTuple):
    """What is known of a chunk of targets."""

    span: slice  # of the targets; of (sample,) all, without an axis for it
    scores: Tensor
    gradients: Sequence[Tensor]


def check_score(where: str, score: Any) -> None:
    """Raise unless a score can be called."""
    if not callable(score):
        raise TypeError(
            f"{where}: expected a score (output, target) -> scalar, got {score!r}. "
            "Take one of ifa.score, e.g. ifa.score.logit."
        )
    if not takes(score, 2):
        raise TypeError(
            f"{where}: expected a score (output, target) -> scalar, got {describe(score)}, which "
            "takes other arguments. If it makes a score call it: ifa.score.contrast()."
        )


def score_all(where: str, score: Score, output: Any, target: Tensor) -> Tensor:
    """Score every example's output for its target, (sample,), or for many, (target, sample)."""
    if listed(output, target.shape[-1]):
        one = _checked(where, score)
        found = [
            torch.stack([one(part, asked) for asked in target[..., place].reshape(-1)])
            for place, part in enumerate(output)
        ]
        return torch.stack(found, -1).reshape(target.shape)
    return _lifted(_checked(where, score), target)(output, target)


def differentiable(output: Any) -> list[Tensor]:
    """List the tensors of an output that a score can be differentiated by."""
    return [leaf for leaf in tree_flatten(output)[0] if _is_smooth(leaf)]


class Graph(NamedTuple):
    """A graph: pulls cotangents of its leaves back to where it starts; zeros off the path."""

    leaves: Sequence[Tensor]
    starts: Sequence[Tensor]
    refusal: str | None = None  # what to say where activation checkpointing forgot it

    def __call__(
        self, cotangents: list[Tensor], retain_graph: bool, create_graph: bool
    ) -> Sequence[Tensor]:
        reached = [place for place, leaf in enumerate(self.leaves) if leaf.requires_grad]
        ends = [self.leaves[place] for place in reached]
        return self._from(ends, [cotangents[one] for one in reached], retain_graph, create_graph)

    def from_rows(self) -> tuple[Pull, Tensor] | None:
        """Where all ends in one linear map: pull cotangents of its input, and its (output, input).

        That of one output is a row of it. None elsewhere, also where the matrix or the offset has a
        graph of its own: what reaches the start through it would be lost.
        """
        node = self.leaves[0].grad_fn if len(self.leaves) == 1 else None
        place = {"AddmmBackward0": 1, "MmBackward0": 0}.get(node.name() if node else "")
        if node is None or place is None or getattr(node, "_saved_alpha", 1) != 1:
            return None
        (below, number), matrix = node.next_functions[place], node._saved_mat2  # pyright: ignore
        others = [one for at, (one, _) in enumerate(node.next_functions) if at != place]
        if below is None or matrix is None or any(one is not None for one in others):
            return None
        return partial(self._from, [GradientEdge(below, number)]), matrix.detach().T

    def _from(
        self, ends: Any, cotangents: list[Tensor], retain_graph: bool, create_graph: bool
    ) -> Sequence[Tensor]:
        if not ends:
            return [torch.zeros_like(start) for start in self.starts]
        with _said("checkpoint", self.refusal):
            return torch.autograd.grad(
                ends, self.starts, cotangents, retain_graph, create_graph, materialize_grads=True
            )


def pulled(
    where: str, score: Score, output: Any, target: Tensor, pull: Pull, size: int
) -> Iterator[Pulled]:
    """Yield scores, and the gradients that `pull` makes of them, for chunks of the targets.

    A score is differentiated by the output of one example first, so that nothing is as
    large as targets times targets.

    Parameters
    ----------
    where, score
        What errors name, and what is differentiated.
    output
        Of a batch: any nesting of tensors.
    target : (sample,) or (target, sample)
        The first is one chunk.
    pull
        Its cotangents are of what `differentiable(output)` lists.
    size
        Bytes of the gradients of one target.
    """
    rows = None
    if _picks(score, output) and target.ndim == 2 and isinstance(pull, Graph):
        rows = pull.from_rows()
    for span in spans(target, size):
        if rows is None:
            scores, cotangents = _differentiated(where, score, output, target[span])
        else:  # of as many cotangents of all outputs, one is not zero in each
            (pull, matrix), index = rows, target[span]
            scores, cotangents = _of_targets(output, index), [matrix[index]]
        graph = _traced(scores)
        each = pull if target.ndim == 1 else partial(_mapped, pull)
        yield Pulled(span, scores, each(cotangents, graph, graph))


def spans(target: Tensor, size: int) -> Iterator[slice]:
    """Cut targets into chunks, of `size` bytes for each target; (sample,) is one chunk."""
    if target.ndim == 1:
        yield slice(None)
        return
    chunk = max(1, budget(target.device) // size)
    yield from (slice(start, start + chunk) for start in range(0, len(target), chunk))


def joined(parts: Sequence[Any]) -> Any:
    """Join what was made of chunks of targets along the target axis."""
    return parts[0] if len(parts) == 1 else tree_map(lambda *each: torch.cat(each), *parts)


def transformed(*tensors: Tensor) -> bool:
    """Tell whether torch.func is at work, or the caller differentiates by the tensors."""
    through = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    forward_mode = forward_ad._current_level >= 0
    return through or forward_mode or peek_interpreter_stack() is not None


def _differentiated(
    where: str, score: Score, output: Any, target: Tensor
) -> tuple[Tensor, list[Tensor]]:
    if _picks(score, output):
        return _picked(output, target)
    if listed(output, target.shape[-1]):
        return _one_by_one(_checked(where, score), output, target)
    leaves, structure = tree_flatten(output)
    if target.ndim == 2:  # each target has gradients of its own
        leaves = [leaf.expand(len(target), *leaf.shape) for leaf in leaves]
    places = [place for place, leaf in enumerate(leaves) if _is_smooth(leaf)]
    lifted = vmap(_checked(where, score))
    lifted = lifted if target.ndim == 1 else vmap(lifted)

    def of(*chosen: Tensor) -> Tensor:
        whole = list(leaves)
        for place, leaf in zip(places, chosen, strict=True):
            whole[place] = leaf
        return lifted(tree_unflatten(whole, structure), target)

    # the score is mapped inside: the other way round `output[target]` is refused by torch
    scores, back = vjp(of, *(leaves[place] for place in places))  # pyright: ignore
    return scores, list(back(torch.ones_like(scores)))


def _one_by_one(score: Score, output: Any, target: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Differentiate by outputs that cannot be stacked, as those of a detector, one by one."""
    lead = target.shape[:-1]
    found, cotangents = [], []
    for place, part in enumerate(output):
        each = [_of_one(score, part, asked) for asked in target[..., place].reshape(-1)]
        found.append(torch.stack([value for value, _ in each]).reshape(lead))
        for leaf in zip(*(gradients for _, gradients in each), strict=True):
            cotangents.append(torch.stack(leaf).reshape(*lead, *leaf[0].shape))
    return torch.stack(found, -1), cotangents


def _of_one(score: Score, output: Any, target: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
    leaves, structure = tree_flatten(output)
    places = [place for place, leaf in enumerate(leaves) if _is_smooth(leaf)]
    if not places:
        return score(output, target), ()

    def of(*chosen: Tensor) -> Tensor:
        whole = list(leaves)
        for place, leaf in zip(places, chosen, strict=True):
            whole[place] = leaf
        return score(tree_unflatten(whole, structure), target)

    value, back = vjp(of, *(leaves[place] for place in places))  # pyright: ignore
    return value, back(torch.ones_like(value))


def _picks(score: Score, output: Any) -> bool:
    return declared(score, "picks", False) and isinstance(output, Tensor) and output.ndim == 2


def _picked(output: Tensor, target: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Take each target's own output; its gradient is one there and zero elsewhere."""
    ones = torch.ones_like(target, dtype=output.dtype)[..., None]
    zeros = output.new_zeros(()).expand(*target.shape[:-1], *output.shape)
    return _of_targets(output, target), [zeros.scatter(-1, target[..., None], ones)]


def _of_targets(output: Tensor, target: Tensor) -> Tensor:
    wide = output.expand(*target.shape[:-1], *output.shape)
    return wide.gather(-1, target[..., None]).squeeze(-1)


def _lifted(function: Callable[..., Any], target: Tensor) -> Callable[..., Any]:
    """Map over the samples of output and targets; and the targets over the target axis."""
    over_samples = vmap(function)
    return over_samples if target.ndim == 1 else vmap(over_samples, (None, 0))


def _checked(where: str, score: Score) -> Score:
    def one(output: Any, target: Tensor) -> Tensor:
        found = score(output, target)
        if found.ndim:
            raise ValueError(
                f"{where}: expected a score (output of one example, target) -> scalar, got shape "
                f"{tuple(found.shape)} for each example from {describe(score)}."
            )
        return found

    return one


def _mapped(pull: Pull, cotangents: list[Tensor], _: bool, graph: bool) -> Sequence[Tensor]:
    with warnings.catch_warnings():
        # operations that vmap must loop over, such as fused attention and LSTM, are right as well
        warnings.filterwarnings("ignore", message="There is a performance drop")
        try:
            return vmap(lambda part: pull(part, True, graph))(cotangents)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            # what vmap cannot do at all, such as batch norm under autocast, is done one by one; an
            # error of another cause comes again
            pass
        each = [pull(list(one), True, graph) for one in zip(*cotangents, strict=True)]
        return [torch.stack(gradients) for gradients in zip(*each, strict=True)]


def _traced(scores: Tensor) -> bool:
    # a graph of the gradients themselves only where the caller differentiates through us
    return scores.requires_grad or debug_unwrap(scores) is not scores


def _is_smooth(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex())


_REFUSED = (
    "ifa.tap: expected a model that torch.func can differentiate above the layer, got one with "
    "activation checkpointing or an old-style autograd Function there. Switch checkpointing off, "
    "give the Function a setup_context, or tap a layer above it."
)
_CHECKPOINTED = (
    "ifa.tap: expected a model that does not forget what happens at the layer or above it, got one "
    "with activation checkpointing. Switch checkpointing off, or tap a layer above it."
)


class Pass(NamedTuple):
    """What a forward pass saw."""

    activations: tuple[Tensor, ...]  # of each layer, as the model has it
    output: Any
    target: Tensor


# (inputs, what goes on from each layer) -> what can be differentiated of the output, everything
Forward = Callable[[Inputs, Edit], tuple[list[Tensor], Pass]]


def by_leaves(inputs: Inputs, calls: Sequence[str], forward: Forward) -> tuple[Pass, Pull] | None:
    """Run, the graph starting at the layers; None where that could not see all of their effect."""
    points: dict[str, Tensor] = {}
    hidden: list[str] = []

    def insert(call: str, tensor: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            hidden.append(call)
            return tensor
        # a layer above another one is in its graph already
        points[call] = tensor if tensor.requires_grad else tensor.detach().requires_grad_()
        return points[call].clone()  # so that a later in-place layer cannot edit what we return

    with torch.enable_grad():
        leaves, seen = forward(map_tensors(inputs, Tensor.detach), insert)
    # what the model runs under no_grad may be on the way to the score all the same
    if hidden or not any(leaf.requires_grad for leaf in leaves):
        return None
    graph = Graph(leaves, [points[call] for call in calls], _CHECKPOINTED)
    return Pass(*map_tensors(tuple(seen), Tensor.detach)), graph


def by_perturbation(
    inputs: Inputs,
    calls: Sequence[str],
    shapes: Sequence[tuple[int, ...]],
    dtypes: list[torch.dtype],
    forward: Forward,
) -> tuple[Pass, Pull]:
    """Run as a function of zeros added to the layers. Mends the `dtypes` of these."""

    def run(*deltas: Tensor) -> Any:
        delta = dict(zip(calls, deltas, strict=True))

        def insert(call: str, tensor: Tensor) -> Tensor:
            # with a graph, so that the last layer of a backbone run under no_grad can be tapped
            with torch.enable_grad():
                return tensor + delta[call].to(tensor)

        return forward(inputs, insert)

    samples, device = count(inputs), device_of(inputs)
    while True:
        zeros = [
            torch.zeros((), dtype=dtype, device=device).expand(samples, *shape)
            for shape, dtype in zip(shapes, dtypes, strict=True)
        ]
        with _said("setup_context", _REFUSED), _said("saved tensor hooks", _REFUSED):
            _, pull, seen = vjp(run, *zeros, has_aux=True)  # pyright: ignore
        came = [activations.dtype for activations in seen.activations]
        if came == dtypes:
            return seen, pull
        dtypes[:] = came  # the model was cast since, or autocast: once more


@contextmanager
def _said(part: str, message: str | None) -> Iterator[None]:
    """Say what an error of torch means here."""
    try:
        yield
    except RuntimeError as error:
        if message and part in str(error):
            raise RuntimeError(message) from error
        raise
