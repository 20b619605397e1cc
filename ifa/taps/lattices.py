"""Where the elements of a tensor lie in the input: arithmetic on strides.

Element (i, j, …) of a tensor lies, on an axis of the input's space, at a start plus the sum of
step · index over what its dimensions hold of that axis. A dimension may hold a whole axis, several
(a sequence of patches), a part of one (the windows of an axis, and the places in a window), or
nothing (channels).
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple


class Lost(Exception):
    """An operation after which it is not known where elements lie; says which."""


class Factor(NamedTuple):
    """What one index counts."""

    extent: int
    axis: int | None = None  # of the input's space; None where it counts no positions
    step: float = 0.0  # input pixels
    # of a sequence that begins or ends with entries that lie nowhere, such as a class token
    before: int = 0
    parts: tuple["Factor", ...] = ()


Dim = tuple[Factor, ...]  # outermost first


class Lattice(NamedTuple):
    """Where the elements of one tensor lie."""

    dims: tuple[Dim, ...]
    low: tuple[float, ...]  # first pixel that element 0 depends on, for each axis of space
    high: tuple[float, ...]  # last one
    rolled: tuple[int, ...]  # by how many elements the axis was rolled


def whole(shape: Sequence[int], space: Sequence[int]) -> Lattice:
    """Return the lattice of the input itself, of which the dimensions `space` are its space."""
    dims = [blank(extent) for extent in shape]
    for axis, index in enumerate(space):
        dims[index] = (Factor(shape[index], axis, 1.0),)
    none = (0,) * len(space)
    return Lattice(tuple(dims), none, none, none)


def blank(extent: int) -> Dim:
    """Return a dimension that holds no positions."""
    return () if extent == 1 else (Factor(extent),)


def leaves(dim: Dim) -> Iterator[Factor]:
    """Yield what a dimension holds of the input's axes."""
    for factor in dim:
        if factor.parts:
            yield from factor.parts
        elif factor.axis is not None:
            yield factor


def holds(dim: Dim) -> bool:
    """Tell whether a dimension holds positions."""
    return any(True for _ in leaves(dim))


def axes(lattice: Lattice) -> set[int | None]:
    """Return the axes of which a tensor has positions."""
    return {factor.axis for dim in lattice.dims for factor in leaves(dim)}


def extent_of(dim: Dim) -> int:
    """Return how many elements a dimension has."""
    return math.prod(factor.extent for factor in dim)


def tidy(factors: Sequence[Factor]) -> Dim:
    """Join neighbours that count on in one another, so that equal dimensions compare equal."""
    out: list[Factor] = []
    for factor in factors:
        if factor.extent == 1 and factor.axis is None and not factor.parts:
            continue
        last = out[-1] if out else None
        if last is None or last.parts or factor.parts or last.axis != factor.axis:
            out.append(factor)
        elif math.isclose(last.step, factor.step * factor.extent) or last.axis is None:
            out[-1] = factor._replace(extent=last.extent * factor.extent)
        else:
            out.append(factor)
    return tuple(out)


def absorbed(lattice: Lattice, *dims: Dim) -> Lattice:
    """Let every element depend on all of some dimensions, which are summed over or merged."""
    low, high = list(lattice.low), list(lattice.high)
    for factor in (leaf for dim in dims for leaf in leaves(dim)):
        reach = factor.step * (factor.extent - 1)
        low[factor.axis or 0] += min(0.0, reach)
        high[factor.axis or 0] += max(0.0, reach)
    return lattice._replace(low=tuple(low), high=tuple(high))


def with_dim(lattice: Lattice, index: int, dim: Dim) -> Lattice:
    """Replace one dimension."""
    dims = list(lattice.dims)
    dims[index] = dim
    return lattice._replace(dims=tuple(dims))


def slid(
    lattice: Lattice, index: int, extent: int, first: float, last: float, stride: float
) -> Lattice:
    """Let element j of a dimension depend on elements j · stride + first … + last of it."""
    dim = lattice.dims[index]
    if not holds(dim):
        return with_dim(lattice, index, blank(extent))
    if (first, last, stride, extent) == (0, 0, 1, extent_of(dim)):
        return lattice
    (factor, *others), axis = dim, dim[0].axis
    if others or axis is None or lattice.rolled[axis]:
        raise Lost("over what is not one axis of the input")
    low, high = list(lattice.low), list(lattice.high)
    ends = first * factor.step, last * factor.step
    low[axis], high[axis] = low[axis] + min(ends), high[axis] + max(ends)
    lattice = lattice._replace(low=tuple(low), high=tuple(high))
    return with_dim(lattice, index, (Factor(extent, axis, factor.step * stride),))


def cut(lattice: Lattice, index: int, start: int, step: int, extent: int) -> Lattice:
    """Keep elements start, start + step … of a dimension."""
    dim = lattice.dims[index]
    if (start, step, extent) == (0, 1, extent_of(dim)):
        return lattice
    if len(dim) != 1 or not dim[0].parts:
        return slid(lattice, index, extent, start, start, step)
    (factor,) = dim
    inside = math.prod(part.extent for part in factor.parts)
    if start + step * (extent - 1) < factor.before or start >= factor.before + inside:
        return with_dim(lattice, index, blank(extent))
    before = factor.before - start
    if step != 1 or before < 0 or extent < before + inside:
        raise Lost("of a part of a sequence")
    shorter = factor._replace(extent=extent, before=before)
    return with_dim(lattice, index, factor.parts if extent == inside else (shorter,))


def extended(lattice: Lattice, index: int, before: int, after: int) -> Lattice:
    """Add entries that lie nowhere to the ends of a sequence."""
    dim = lattice.dims[index]
    if not before and not after:
        return lattice
    if any(factor.axis is None and not factor.parts for factor in dim):
        raise Lost("of what is not only positions")
    extent = extent_of(dim) + before + after
    if len(dim) == 1 and dim[0].parts:
        before, dim = before + dim[0].before, dim[0].parts
    return with_dim(lattice, index, (Factor(extent, None, 0.0, before, dim),))


def reshaped(lattice: Lattice, shape: Sequence[int]) -> Lattice:
    """Cut the same elements, in their order, into other dimensions."""
    left = [factor for dim in lattice.dims for factor in dim][::-1]
    dims: list[Dim] = []
    for extent in shape:
        taken: list[Factor] = []
        missing = extent
        if extent == 1 and left and left[-1].extent == 1:
            taken.append(left.pop())
        while missing > 1:
            factor = left.pop()
            if missing % factor.extent:  # cut it in two
                inner, odd = divmod(factor.extent, missing)
                if odd or factor.parts:
                    raise Lost("of sizes that do not divide")
                left.append(factor._replace(extent=inner))
                factor = factor._replace(extent=missing, step=factor.step * inner)
            taken.append(factor)
            missing //= factor.extent
        dims.append(tidy(taken))
    return absorbed(lattice._replace(dims=tuple(dims)), tuple(left))


def united(lattices: Sequence[Lattice], shape: Sequence[int]) -> Lattice:
    """Broadcast tensors against one another: where they agree, an element depends on all."""
    dims: list[Dim] = []
    on: list[set[int]] = [set() for _ in lattices[0].low]  # which of them lie on an axis
    for index, extent in enumerate(shape, -len(shape)):
        here = {n: at.dims[index] for n, at in enumerate(lattices) if len(at.dims) >= -index}
        found = {n: dim for n, dim in here.items() if holds(dim) and extent_of(dim) == extent}
        dims.append(next(iter(found.values()), blank(extent)))
        if not all(agree(dims[-1], dim) for dim in found.values()):
            raise Lost("of tensors that lie on different grids")
        for factor in leaves(dims[-1]):
            on[factor.axis or 0].update(found)
    ends = [[lattices[n] for n in numbers] or [lattices[0]] for numbers in on]
    low = tuple(min(at.low[axis] for at in those) for axis, those in enumerate(ends))
    high = tuple(max(at.high[axis] for at in those) for axis, those in enumerate(ends))
    rolled = [{at.rolled[axis] for at in those} for axis, those in enumerate(ends)]
    if any(len(by) > 1 for by in rolled):
        raise Lost("of tensors that are rolled differently")
    return Lattice(tuple(dims), low, high, tuple(by.pop() for by in rolled))


def agree(one: Dim, other: Dim) -> bool:
    """Tell whether two dimensions hold the same, with steps equal to rounding."""
    return len(one) == len(other) and all(
        a._replace(step=0.0, parts=()) == b._replace(step=0.0, parts=())
        and math.isclose(a.step, b.step, rel_tol=1e-9)
        and agree(a.parts, b.parts)
        for a, b in zip(one, other, strict=True)
    )
