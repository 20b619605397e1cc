"""What is said of a transformer's patches, brought to the input's size."""

import math
from typing import Any, NamedTuple

from torch import Tensor

from ifa.attribute.attributions import alike_over_channels
from ifa.baseline import space_axes
from ifa.network.inputs import Place, at, real_grid_place
from ifa.network.scorers import Scorer
from ifa.network.sites import Site
from ifa.resizing import resized
from ifa.taps.grids import Tokens
from ifa.taps.layouts import only_grid


class Laid(NamedTuple):
    """How the tokens lie, and on which tensor of the inputs."""

    tokens: Tokens
    place: Place


def check_grid(where: str, grid: Any) -> None:
    """Raise unless a grid is None or says how many tokens come before it."""
    if grid is not None and not isinstance(grid, Tokens):
        raise TypeError(
            f"{where}: expected grid to be an ifa.tokens, which says how many tokens come before "
            f"the grid's, got {grid!r}. Give e.g. ifa.tokens(prefix=1, grid=(14, 14))."
        )


def laid_out(
    scorer: Scorer,
    inputs: Any,
    probabilities: Tensor,
    grid: Tokens | None,
    grid_of: str | int | None,
) -> Laid:
    """Find how the tokens of attention (sample, head, token, token) lie on the inputs."""
    place = real_grid_place(scorer.where, inputs, grid_of)
    image, (_, heads, _, tokens) = at(inputs, place), probabilities.shape
    site = Site("attention", (tokens, heads), image.dtype)
    lay = grid or only_grid(scorer.model, site, tuple(image.shape[1:]), scorer.where)
    if lay.prefix + math.prod(lay.grid) != tokens:
        raise ValueError(
            f"{scorer.where}: expected a grid of {tokens} tokens, got {lay}. "
            "Change prefix or grid so that they add up."
        )
    return Laid(lay, place)


def enlarged(inputs: Any, laid: Laid, said: Tensor) -> Any:
    """Bring what is said of patches (*target, sample, patch) to the shape of the inputs."""
    image = at(inputs, laid.place)
    space = tuple(image.shape[axis] for axis in space_axes(image))
    maps = resized(said.unflatten(-1, laid.tokens.grid), space)
    return alike_over_channels(inputs, laid.place, maps)
