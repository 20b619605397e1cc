"""What stands behind a tensor that a network computes: the same on a finer grid.

The network itself runs just as it always does, and computes just what it always did. Beside it runs
the finer grid, as far as what happens is known.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_NAME = "_ifa_density"


@dataclass(frozen=True, slots=True)
class Density:
    """How much finer a tensor is known than the network has it.

    The tensor is ``finer[::factors[0], ::factors[1], ...]`` to rounding. Its extents are those of
    the finer one divided by the factors, rounded up, which every rule keeps: so borders are right.
    """

    finer: Tensor | None  # None of a tensor that is as fine as it gets
    factors: tuple[int, ...]  # of each dimension
    kept: tuple[int, ...]  # of each dimension, by how much strides have coarsened the finer one
    versions: tuple[int, int] | None = None  # when it was noted, of the finer one and the tensor

    def __reduce__(self) -> Any:  # a tensor that is read back counts its versions anew
        return Density, (self.finer, self.factors, self.kept)


def density_of(tensor: Any) -> Density | None:
    """Return what is known of a tensor; None of nothing, or where something has written to it."""
    found: Density | None = getattr(tensor, _NAME, None)
    if found is None or found.finer is None or found.versions is None:
        return found
    return found if found.versions == (found.finer._version, tensor._version) else None


def note(
    tensor: Tensor, finer: Tensor | None, factors: Sequence[int], kept: Sequence[int]
) -> Tensor:
    """Note how much finer a tensor of the network is known, and return the tensor."""
    factors, kept = tuple(factors), tuple(kept)
    if finer is not None and max(factors, default=1) > 1:
        versions = finer._version, tensor._version
        setattr(tensor, _NAME, Density(finer, factors, kept, versions))
    elif max(kept, default=1) > 1:
        setattr(tensor, _NAME, Density(None, factors, kept))
    return tensor


def carry(tensor: Tensor, density: Density) -> Tensor:
    """Note that a tensor is as fine as another that is as fine as it gets, and return it."""
    setattr(tensor, _NAME, density)
    return tensor


def check_graph(tensor: Tensor, what: str) -> None:
    """Raise where torch differentiates a tensor of the network, but not the finer one."""
    density = density_of(tensor)
    if density is None or density.finer is None or not torch.is_grad_enabled():
        return
    if tensor.requires_grad and not density.finer.requires_grad:
        raise ValueError(
            "ifa.dense.densify: expected operations that torch differentiates by itself, got one "
            f"with a gradient of its own before {what}, such as a torch.autograd.Function or a "
            "reentrant checkpoint: on the finer grid it has none. Write it in torch's operations, "
            "take pool='exact', or run under torch.no_grad()."
        )


def handed_out(tensor: Tensor) -> Tensor:
    """Return the finer tensor, just what the network computed at its own positions."""
    density = density_of(tensor)
    if density is None or density.finer is None:
        return tensor
    finer = density.finer.clone()
    finer[_own(density)] = tensor
    return finer


def taken_in(new: Tensor, tensor: Tensor) -> Tensor:
    """Return what the network is to have of a tensor that takes the finer one's place."""
    density = density_of(tensor)
    if density is None or density.finer is None or new.shape != density.finer.shape:
        return new
    # a copy, so that what writes to both does not write twice, that lies as the network's own does:
    # kernels choose by it, also along a dimension of one position
    dense = torch.contiguous_format if tensor.is_contiguous() else torch.preserve_format
    own = new[_own(density)].clone(memory_format=dense)
    return note(own, new, density.factors, density.kept)


def cleared(tensor: Tensor) -> Tensor:
    """Return the finer tensor, of which nothing is noted any more."""
    return forget(handed_out(tensor))


def forget(tensor: Tensor) -> Tensor:
    """Let nothing be known of a tensor, and return it."""
    if hasattr(tensor, _NAME):
        delattr(tensor, _NAME)
    return tensor


def _own(density: Density) -> tuple[slice, ...]:
    return tuple(slice(None, None, factor) for factor in density.factors)
