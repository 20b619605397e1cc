"""Hold a law to drawn examples: what the laws share."""

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import settings
from hypothesis.strategies import SearchStrategy
from torch import Tensor

from ifa.testing.assertions import (
    assert_trees_close,
    map_leaves,
)

Kernel = Callable[[Tensor, Tensor], Tensor]
Step = Callable[[Any], Any]
Select = Callable[..., Any]
Drawn = SearchStrategy[Any] | None


def hold(law: Any, examples: int | None) -> None:
    """Run a law that draws its inputs, as often as is asked for."""
    # torch's first calls are slow, and one counterexample at a time is enough
    chosen = settings(deadline=None, report_multiple_bugs=False)
    if examples is not None:
        chosen = settings(chosen, max_examples=examples)
    chosen(law)()


def either(chosen: Drawn, usual: SearchStrategy[Any]) -> SearchStrategy[Any]:
    """Take the strategy given, or the usual one."""
    return usual if chosen is None else chosen


def assert_same(actual: Any, expected: Any) -> None:
    """Assert that two trees are equal, bit for bit but for the sign of zero."""
    assert_trees_close(actual, expected, rtol=0, atol=0)


def copied(tree: Any) -> Any:
    """Copy a tree of tensors."""
    return map_leaves(torch.clone, tree)
