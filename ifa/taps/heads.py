"""What lies above a layer, as a function of the layer's output."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ifa.taps.outputs import Output, pick
from ifa.taps.replicas import replicas
from ifa.taps.sites import address, examine, find


class Head:
    """``head(activations) -> outputs`` for given inputs. Build it with `cut`."""

    def __init__(self, run: Callable[..., Any], inputs: Tensor, layer: str):
        self._run, self._inputs, self._layer = run, inputs, layer

    def __repr__(self) -> str:
        return f"head above {self._layer!r}, by running the whole network with its output replaced"

    def __call__(self, activations: Tensor) -> Any:
        """Return the model's outputs with the layer's output replaced by `activations`."""
        if activations.shape[0] != self._inputs.shape[0]:
            raise ValueError(
                f"ifa.cut: expected activations of the {self._inputs.shape[0]} inputs the cut was "
                f"called with, got {activations.shape[0]}. For many variants of the activations "
                "map the head over them: torch.func.vmap(head)(variants)."
            )
        return self._run(self._inputs, activations)


def cut(
    model: nn.Module, layer: str | None, example: Tensor, *, output: Output = None
) -> Callable[[Tensor], tuple[Tensor, Head]]:
    r"""Cut a network at a layer: its activations, and what lies above as a function of them.

    Parameters
    ----------
    model
        The network, in evaluation mode.
    layer
        Name of a layer, as `ifa.trace` lists it, or None for the last with a grid.
    example : (sample, \*input)
        A batch, used once, for shapes.
    output
        Picks the output out of what the model returns, as in `ifa.tap`.

    Returns
    -------
    callable
        ``inputs -> (activations, head)``. ``head(activations) -> outputs`` is the network above the
        layer for these very inputs: a pure function, that can be differentiated and mapped. The
        whole network runs, with the layer's output replaced, and the repr of `head` says so.

    Raises
    ------
    LookupError, ValueError
        As `ifa.tap`.

    Examples
    --------
    >>> import ifa, torch
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    >>> inputs = torch.ones(4, 2)
    >>> activations, head = ifa.cut(net, "1", inputs)(inputs)
    >>> torch.equal(head(activations), net(inputs))
    True
    """
    model = getattr(model, "_orig_mod", model)
    traced = examine(model, example, output, "ifa.cut")
    name = find(model, traced, layer, example, "ifa.cut")
    copies = replicas(model, (address(name),))

    def run(inputs: Tensor, edit: Callable[[Tensor], Tensor]) -> Any:
        def at_layer(call: str, tensor: Tensor) -> Tensor:
            return edit(tensor) if call == address(name) else tensor

        inputs = inputs.clone() if traced.writes_input else inputs
        return pick(copies.get().run(inputs, at_layer), output)

    def replaced(inputs: Tensor, activations: Tensor) -> Any:
        # a clone, because a later in-place layer must not edit the caller's activations
        return run(inputs, lambda tensor: activations.to(tensor).clone())

    def split(inputs: Tensor) -> tuple[Tensor, Head]:
        if tuple(inputs.shape[1:]) != tuple(example.shape[1:]):
            raise ValueError(
                f"ifa.cut: expected inputs shaped like the example, (sample, "
                f"{', '.join(map(str, example.shape[1:]))}), got {tuple(inputs.shape)}."
            )
        seen: list[Tensor] = []

        def record(tensor: Tensor) -> Tensor:
            seen.append(tensor)
            return tensor.clone()

        with torch.no_grad():
            run(inputs, record)
        return seen[0], Head(replaced, inputs, name)

    return split
