"""The layers of a network as one chooses among them: blocks, their grids, the default marked."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from ifa.network.inputs import at, grid_place
from ifa.network.replicas import plain
from ifa.network.sites import Site, Traced, examine
from ifa.taps.defaults import choose
from ifa.taps.layouts import infer_grid
from ifa.types import Inputs, Output

_WHERE = "ifa.taps.blocks"

# A grid with an axis shorter than this shows little.
COARSE = 4
# Layers are listed down to the depth at which so many have a grid.
_ENOUGH = 6


class Block(NamedTuple):
    """A layer as one chooses among them."""

    layer: str
    shape: tuple[int, ...]  # of one example's output
    laid: tuple[int, ...] | None  # (channel, *grid) as `ifa.tap` has it; None where it has none
    why: str  # there is none
    listed: bool  # as a block, not only among all layers

    @property
    def coarse(self) -> bool:
        """Whether the grid shows little."""
        return self.laid is not None and min(self.laid[1:]) < COARSE


@dataclass(frozen=True, repr=False)
class Blocks(Mapping[str, Block]):
    """Layer -> `Block`, in order of execution; prints as a table of those that are blocks."""

    found: dict[str, Block]
    default: str | None  # the layer that `ifa.tap` takes where none is named
    why: str  # there is none
    output: tuple[int, ...] | None  # shape of one example's; None where it is no tensor

    def __getitem__(self, layer: str) -> Block:
        return self.found[layer]

    def __iter__(self):
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)

    def table(self, every: bool = False) -> str:
        """Write blocks, or every layer, as a table."""
        shown = [block for block in self.found.values() if every or block.listed]
        rows = [(" ", "layer", "shape of one example", "channels", "grid", "")]
        rows += [self._row(block) for block in shown]
        widths = [max(len(row[column]) for row in rows) for column in range(6)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        default = "the layer that is taken where none is named"
        lines.append(f"* {default}" if self.default else f"No default: {self.why}")
        if len(shown) < len(self.found):
            lines.append(f"{len(self.found) - len(shown)} layers inside of these are not listed.")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return self.table()

    def _row(self, block: Block) -> tuple[str, ...]:
        channels, grid = ("", "") if block.laid is None else _sizes(block.laid)
        told = f"coarse: below {COARSE} × {COARSE}" if block.coarse else block.why
        mark = "*" if block.layer == self.default else " "
        return mark, block.layer, _times(block.shape) or "scalar", channels, grid, told


def blocks(model: nn.Module, example: Inputs) -> Blocks:
    r"""List the layers of a network to choose among, with their grids and the default.

    Blocks are modules with others inside, and what lies in no layer that is listed itself; down to
    the depth among the modules at which there are six with a grid. The default is one in any case.

    Parameters
    ----------
    model
        The network, in evaluation mode.
    example : (sample, \*input)
        As for `ifa.trace`; best two samples.

    Returns
    -------
    Blocks
        Every layer's name -> `Block(layer, shape, laid, why, listed)`; `default`; prints as a table
        of the blocks, ``table(every=True)`` of all.

    Raises
    ------
    ValueError
        As `ifa.trace`.

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten())
    >>> blocks(net, torch.zeros(2, 1, 8))
       layer  shape of one example  channels  grid
       0      4 × 6                 4         6
    *  1      4 × 6                 4         6
       2      24                                    no grid
    * the layer that is taken where none is named
    """
    model = plain(model)
    traced = examine(model, example, None, _WHERE)
    place = grid_place(_WHERE, example, None)
    shape = tuple(at(example, place).shape[1:])
    default, why = None, ""
    try:
        default = choose(model, traced, None, example, _WHERE, place=place)
    except LookupError as error:
        why = str(error).removeprefix(f"{_WHERE}: ")
    laid = {name: _laid(model, traced, site, shape) for name, site in traced.sites.items()}
    outer = [name for name in laid if _is_outer(model, traced, name)]
    depth = _depth([name for name in outer if laid[name][0] is not None])
    listed = {name for name in outer if _deep(name) <= depth} | {default}
    found = {
        name: Block(name, site.shape, *laid[name], name in listed)
        for name, site in traced.sites.items()
    }
    return Blocks(found, default, why, traced.output)


def last_of_each_grid(
    model: nn.Module,
    example: Inputs,
    where: str,
    *,
    output: Output = None,
    grid_of: str | int | None = None,
) -> tuple[str, ...]:
    """Return the last layer of each grid on the way to the default layer, and that one."""
    model = plain(model)
    traced = examine(model, example, output, where)
    place = grid_place(where, example, grid_of)
    shape = tuple(at(example, place).shape[1:])
    default = choose(model, traced, None, example, where, place=place, output=output)
    last: dict[tuple[int, ...], str] = {}
    for name, site in traced.sites.items():
        laid, _ = _laid(model, traced, site, shape)
        if laid is not None and laid[0] > 1:  # of one channel is a gate, or a map
            last.pop(laid[1:], None)
            last[laid[1:]] = name
        if name == default:
            break
    return (*(name for name in last.values() if name != default), default)


def _is_outer(model: nn.Module, traced: Traced, name: str) -> bool:
    """Tell whether a layer has others inside, or is inside of none."""
    module = name.partition("#")[0]
    inside = any(True for _ in model.get_submodule(module).children())
    return inside or module.rpartition(".")[0] not in traced.sites


def _laid(
    model: nn.Module, traced: Traced, site: Site, inputs: tuple[int, ...]
) -> tuple[tuple[int, ...] | None, str]:
    """Return (channel, *grid), or why there is none."""
    try:
        lay = infer_grid(model, traced.sites, site, inputs, _WHERE)
    except ValueError:
        return None, "tokens: how they lie must be said with grid= in Python"
    shape = site.shape
    if lay is not None:
        shape = tuple(lay(torch.empty(1, *site.shape, device="meta")).shape[1:])
    if math.prod(shape[1:]) == 1:
        return None, "no grid"
    axes = max(1, len(inputs) - 1)
    return (shape, "") if len(shape) - 1 == axes else (None, "no grid: other axes than the input's")


def _depth(names: list[str]) -> int:
    """Return the depth down to which enough of these layers are."""
    counts = Counter(map(_deep, names))
    total = 0
    for depth in sorted(counts):
        total += counts[depth]
        if total >= _ENOUGH:
            return depth
    return max(counts, default=1)


def _deep(name: str) -> int:
    return name.count(".") + 1


def _sizes(laid: tuple[int, ...]) -> tuple[str, str]:
    return str(laid[0]), _times(laid[1:])


def _times(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))
