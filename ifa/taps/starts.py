"""Where the graph of a pass starts: at leaves in the layers' places, or at zeros added to them.

Both give the same numbers. Zeros make a pure function, which any transform of torch.func can be
applied to; leaves cost nothing, where no transform is at work.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import vjp

from ifa.taps.outputs import map_tensors
from ifa.taps.pulls import Pull, puller
from ifa.taps.replicas import Edit

_REFUSED = (
    "ifa.tap: expected a model that torch.func can differentiate above the layer, got one with "
    "activation checkpointing or an old-style autograd Function there. Switch checkpointing off, "
    "give the Function a setup_context, or tap a layer above it."
)
_CHECKPOINTED = (
    "ifa.tap: expected a model that does not forget what happens at the layer or above it, got one "
    "with activation checkpointing. Switch checkpointing off, or tap a layer above it."
)


class Seen(NamedTuple):
    """What a forward pass saw."""

    activations: tuple[Tensor, ...]  # of each layer, as the model has it
    output: Any
    target: Tensor


# (inputs, what goes on from each layer) -> what can be differentiated of the output, everything
Forward = Callable[[Tensor, Edit], tuple[list[Tensor], Seen]]


def by_leaves(inputs: Tensor, calls: Sequence[str], forward: Forward) -> tuple[Seen, Pull] | None:
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
        leaves, seen = forward(inputs.detach(), insert)
    # what the model runs under no_grad may be on the way to the score all the same
    if hidden or not any(leaf.requires_grad for leaf in leaves):
        return None
    back = puller(leaves, [points[call] for call in calls])

    def pull(cotangents: list[Tensor], retain_graph: bool, create_graph: bool) -> Sequence[Tensor]:
        with _said("checkpoint", _CHECKPOINTED):
            return back(cotangents, retain_graph, create_graph)

    return Seen(*map_tensors(tuple(seen), Tensor.detach)), pull


def by_perturbation(
    inputs: Tensor,
    calls: Sequence[str],
    shapes: Sequence[tuple[int, ...]],
    dtypes: list[torch.dtype],
    forward: Forward,
) -> tuple[Seen, Pull]:
    """Run as a function of zeros added to the layers. Mends the `dtypes` of these."""

    def run(*deltas: Tensor) -> Any:
        delta = dict(zip(calls, deltas, strict=True))

        def insert(call: str, tensor: Tensor) -> Tensor:
            # with a graph, so that the last layer of a backbone run under no_grad can be tapped
            with torch.enable_grad():
                return tensor + delta[call].to(tensor)

        return forward(inputs, insert)

    while True:
        zeros = [
            torch.zeros((), dtype=dtype, device=inputs.device).expand(len(inputs), *shape)
            for shape, dtype in zip(shapes, dtypes, strict=True)
        ]
        with _said("setup_context", _REFUSED), _said("saved tensor hooks", _REFUSED):
            _, pull, seen = vjp(run, *zeros, has_aux=True)  # pyright: ignore
        came = [activations.dtype for activations in seen.activations]
        if came == dtypes:
            return seen, pull
        dtypes[:] = came  # the model was cast since, or autocast: once more


@contextmanager
def _said(part: str, message: str) -> Iterator[None]:
    """Say what an error of torch means here."""
    try:
        yield
    except RuntimeError as error:
        if part in str(error):
            raise RuntimeError(message) from error
        raise
