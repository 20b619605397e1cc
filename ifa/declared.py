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
        function._ifa_facts = _code(function), facts  # pyright: ignore[reportFunctionMemberAccess]
        return function

    return decorate


def declared(function: Any, fact: str, default: Any = None) -> Any:
    """Read a fact that a function, or the one inside a `functools.partial`, was declared with."""
    while isinstance(function, partial):
        function = function.func
    code, facts = getattr(function, "_ifa_facts", (None, {}))
    # `functools.wraps` copies what is written on a function to another one, of which it is not true
    return facts.get(fact, default) if _code(function) is code else default


def _code(function: Any) -> Any:
    return getattr(function, "__code__", None)
