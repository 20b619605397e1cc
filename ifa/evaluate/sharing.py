"""What no map changes: computed once of a batch, however many maps of it are measured."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar

from torch import nn

from ifa.types import Inputs, Target

T = TypeVar("T")


class Batch(NamedTuple):
    """What a metric is asked of, but for the maps."""

    model: nn.Module
    inputs: Inputs
    target: Target


_SHARED: ContextVar[tuple[Batch, dict[Any, Any]] | None] = ContextVar("shared", default=None)


@contextmanager
def sharing(batch: Batch) -> Iterator[None]:
    """Keep what is asked for by `once` of this very batch, until the end.

    No number depends on it: what is kept would be computed alike, in the same portions.

    Examples
    --------
    >>> import torch
    >>> batch = Batch(torch.nn.Identity(), torch.ones(1, 2), None)
    >>> with sharing(batch):
    ...     [once(batch, ("drawn",), object) is once(batch, ("drawn",), object) for _ in range(2)]
    [True, True]
    """
    token = _SHARED.set((batch, {}))
    try:
        yield
    finally:
        _SHARED.reset(token)


def once(batch: Batch, what: tuple[Any, ...], make: Callable[[], T]) -> T:
    """Return what is made of a batch alone; `what` says which it is, with all its options."""
    shared = _SHARED.get()
    if shared is None or any(a is not b for a, b in zip(batch, shared[0], strict=True)):
        return make()
    known, key = shared[1], _same(what)
    if key not in known:
        known[key] = what, make()  # with the options: others cannot come to have their identities
    return known[key][1]


def _same(option: Any) -> Any:
    """Return what is equal of equal numbers and text, and of anything else of the same object."""
    if isinstance(option, tuple):
        return tuple(map(_same, option))
    plain = isinstance(option, str | int | float | None)
    return (type(option), option) if plain else ("object", id(option))
