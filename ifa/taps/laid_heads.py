"""A network cut at a layer that is laid out as (channel, *space): what lies above it, of that."""

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ifa.network.inputs import at, grid_place
from ifa.network.replicas import plain
from ifa.network.sites import examine
from ifa.taps.defaults import choose
from ifa.taps.grids import check_grid
from ifa.taps.heads import Cut, Head
from ifa.taps.layouts import infer_grid
from ifa.types import Grid, Inputs, Layer, Output


class LaidCut(NamedTuple):
    """``inputs -> (activations (sample, channel, *space), head of such)``. Build it with `lay`."""

    cut: Cut
    grid: Grid | None  # what lays the layer out; None where it is as it should be

    @property
    def layer(self) -> str:
        """Name of the layer."""
        return self.cut.layer

    def __call__(self, inputs: Inputs) -> tuple[Tensor, Any]:
        """Return the layer's activations of the inputs, and the network above it for them."""
        raw, head = self.cut(inputs)
        if self.grid is None:
            return raw, head
        places = self.grid(torch.arange(raw.numel(), device=raw.device).reshape(raw.shape))
        return self.grid(raw), partial(_above, head, raw, places.flatten())


def lay(
    where: str,
    model: nn.Module,
    layer: Layer | None,
    example: Inputs,
    *,
    output: Output = None,
    grid: Grid | None = None,
    grid_of: str | int | None = None,
) -> LaidCut:
    """Cut a network at a layer, laid out as a tap of it is.

    What the grid leaves out, such as a class token, stays each sample's. Options are as in
    `ifa.tap`; errors name `where`.
    """
    model = plain(model)
    traced = examine(model, example, output, where)
    check_grid(where, grid)
    place = grid_place(where, example, grid_of)
    options: dict[str, Any] = {"place": place, "grid": grid, "output": output}
    name = choose(model, traced, layer, example, where, **options)
    shape = tuple(at(example, place).shape[1:])
    laid = grid or infer_grid(model, traced.sites, traced.sites[name], shape, where)
    return LaidCut(Cut(model, name, example, output, grid_of), laid)


def _above(head: Head, raw: Tensor, places: Tensor, activations: Tensor) -> Any:
    """Run what lies above, with the laid-out activations in their places of the layer's output."""
    values = activations.flatten().to(raw)
    return head(raw.flatten().index_copy(0, places, values).reshape(raw.shape))
