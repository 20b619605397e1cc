"""Compile what runs below the tapped layers, its weights folded in as constants."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ifa.network.inputs import clone
from ifa.network.outputs import every_tensor
from ifa.network.replicas import Replica
from ifa.taps.replays import Script
from ifa.types import Inputs

Shapes = list[tuple[int, ...]]


def pieces(model: nn.Module, calls: Sequence[str], example: Inputs) -> dict[str, Shapes]:
    """Find the outermost modules that have ended when the first layer has, and what they are given.

    Those without parameters are left out: there is little to gain.
    """
    script, given = Script(), {}

    def visit(name: str, forward: Any, args: Any, kwargs: Any) -> Any:
        given[name] = _shapes(args, kwargs)
        return script.visit(name, forward, args, kwargs)

    def edit(call: str, tensor: Tensor) -> Tensor:
        if call in calls and script.layer is None:
            script.reach()
        return tensor

    layers = {call.rpartition("#")[0] for call in calls}
    replica = Replica(model, layers, private=True, watched=True)
    with torch.no_grad():
        replica.run(clone(example), edit, visit=visit)
    modules = dict(model.named_modules())
    ended = [call.name for call in script.calls if call.skipped]
    return {name: given[name] for name in ended if any(True for _ in modules[name].parameters())}


def compile_pieces(replica: Replica, wanted: Mapping[str, Shapes]) -> None:
    """Compile modules of a replica for inputs of the given shapes; on others they run as before."""
    modules = dict(replica.module.named_modules())
    for name, shapes in wanted.items():
        vars(modules[name])["forward"] = _frozen(name, modules[name], shapes)


def _frozen(name: str, module: nn.Module, shapes: Shapes) -> Callable[..., Any]:
    from torch._dynamo import config as tracing
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor import config as compiling

    # a module wrapped by itself has a forward of its own
    plain = vars(module).get("forward") or partial(type(module).forward, module)
    made: list[Callable[..., Any]] = []

    def forward(*args: Any, **kwargs: Any) -> Any:
        graph = any(tensor.requires_grad for tensor in every_tensor((args, kwargs)))
        if graph or _shapes(args, kwargs) != shapes:
            return plain(*args, **kwargs)
        if not made:
            made.append(torch.compile(plain, fullgraph=True, dynamic=False))
        # modules of one class share a limit of compilations
        with (
            torch.no_grad(),
            compiling.patch(freezing=True),
            tracing.patch(recompile_limit=2**10, accumulated_recompile_limit=2**12),
        ):
            try:
                return made[0](*args, **kwargs)
            except TorchDynamoException as error:
                raise RuntimeError(
                    f"ifa.tap: expected torch.compile to take {name!r} ({type(module).__name__}), "
                    f"got {type(error).__name__}: {str(error).splitlines()[0]} "
                    "Leave compile=False."
                ) from error

    return forward


def _shapes(args: Any, kwargs: Any) -> Shapes:
    return [tuple(tensor.shape) for tensor in every_tensor((args, kwargs))]
