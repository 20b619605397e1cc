"""One call of an operation, as a rule sees it."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from ifa.dense.densities import Density, carry, density_of, note


class Options(NamedTuple):
    """What a network is run with."""

    stride: int | tuple[int, ...]  # the most that is kept: of every axis of space, or of each
    pool: str  # "exact" or "dense": where global averages are taken

    def limits(self, axes: int) -> tuple[int, ...] | None:
        """Return what is kept at most of each of so many axes; None where that is not said."""
        if isinstance(self.stride, int):
            return (self.stride,) * axes
        return self.stride if len(self.stride) == axes else None


class Call(NamedTuple):
    """A function, what the network gives it, and what was known of these tensors."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    known: Mapping[int, Density]  # by identity
    first: Any  # of the arguments
    density: Density | None  # of the first one; None if something is known of others as well

    def given(self, place: int, name: str, default: Any = None) -> Any:
        """Return an argument by its place or name."""
        return self.args[place] if len(self.args) > place else self.kwargs.get(name, default)

    def named(self, **defaults: Any) -> dict[str, Any]:
        """Return all arguments by the names of the parameters, which come in their order."""
        return {**defaults, **dict(zip(defaults, self.args, strict=False)), **self.kwargs}

    def finer(self, tensor: Tensor) -> Tensor:
        """Return the finer tensor, or the tensor where none is known."""
        density = self.known.get(id(tensor))
        return tensor if density is None or density.finer is None else density.finer

    def run(self, change: Callable[[Tensor], Tensor]) -> Any:
        """Call it with other tensors."""
        args = [change(one) if isinstance(one, Tensor) else one for one in self.args]
        named = self.kwargs.items()
        kwargs = {key: change(one) if isinstance(one, Tensor) else one for key, one in named}
        return self.function(*args, **kwargs)

    def on(self, first: Any) -> Any:
        """Call it with another first argument."""
        if self.args:
            return self.function(first, *self.args[1:], **self.kwargs)
        return self.function(**{**self.kwargs, next(iter(self.kwargs)): first})

    def alone(self, found: Any) -> Any:
        """Run it on what is behind the first argument, of which it keeps the grid."""
        density = self.density
        if density is None:
            return found
        if density.finer is None:
            return carry(found, density)
        return note(found, self.on(density.finer), density.factors, density.kept)


# (options, call, what the network computed) -> what it is to have: that, with its density noted
Rule = Callable[[Options, Call, Any], Any]


def called(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
    """Look up what is known of the tensors that a function is given."""
    given = (*args, *kwargs.values()) if kwargs else args
    known = {}
    for one in given:
        # a tensor, or several, as of `torch.cat`
        for part in one if isinstance(one, tuple | list) else (one,):
            density = density_of(part) if isinstance(part, Tensor) else None
            if density is not None:
                known[id(part)] = density
    first = given[0] if given else None
    density = known.get(id(first)) if len(known) == 1 else None
    return Call(function, args, kwargs, known, first, density)


def finer_in(density: Density, dims: Iterable[int]) -> bool:
    """Tell whether any of some dimensions is finer."""
    return any(density.factors[dim] > 1 for dim in dims)
