"""What a function says of itself, so that nothing is guessed from the names of its arguments."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def declare(**facts: Any) -> Callable[[F], F]:
    """Make a decorator that writes facts on a function, for `declared` to read.

    Examples
    --------
    >>> @declare(kind="step")
    ... def double(features):
    ...     return features
    >>> declared(partial(double), "kind")
    'step'
    """

    def decorate(function: F) -> F:
        for name, fact in facts.items():
            setattr(function, name, fact)
        return function

    return decorate


def declared(function: Any, fact: str, default: Any = None) -> Any:
    """Read a fact that a function, or the one inside a `functools.partial`, was declared with."""
    while isinstance(function, partial):
        function = function.func
    return getattr(function, fact, default)
