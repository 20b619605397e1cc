"""What lies above a layer, as a function of the layer's output."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ifa.taps.outputs import Output, pick
from ifa.taps.replicas import plain, replicas
from ifa.taps.sites import address, examine, find, refuse_inference_mode


class Head:
    """``head(activations) -> outputs`` for given inputs. Build it with `cut`."""

    def __init__(self, run: Callable[..., Any], inputs: Tensor, layer: str, shape: tuple[int, ...]):
        self._run, self._inputs, self._layer, self._shape = run, inputs, layer, shape

    def __repr__(self) -> str:
        return f"head above {self._layer!r}, by running the whole network with its output replaced"

    def __call__(self, activations: Tensor) -> Any:
        """Return the model's outputs with the layer's output replaced by `activations`."""
        if tuple(activations.shape) != self._shape:
            raise ValueError(
                f"ifa.cut: expected activations {self._shape} of layer {self._layer!r}, for the "
                f"{len(self._inputs)} inputs the cut was called with, got "
                f"{tuple(activations.shape)}. For many variants of the activations map the head "
                "over them: torch.func.vmap(head)(variants)."
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
    model = plain(model)
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
        refuse_inference_mode("ifa.cut")
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
        if not seen:
            raise ValueError(
                f"ifa.cut: expected layer {name!r} to run whatever the inputs, as on the example, "
                "got inputs on which it does not. Cut at a layer that always runs."
            )
        return seen[0], Head(replaced, inputs, name, tuple(seen[0].shape))

    return split
