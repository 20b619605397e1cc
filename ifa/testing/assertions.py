"""Assertions that say where two nested results differ, or what was changed on a model."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree  # private: imported here only

__all__ = ["assert_leaves_model_untouched", "assert_trees_close", "leaves", "map_leaves", "rebuilt"]


def leaves(tree: Any) -> list[Any]:
    """List the leaves of nested tuples, lists, dictionaries and records."""
    return pytree.tree_leaves(tree)


def map_leaves(function: Callable[[Any], Any], tree: Any) -> Any:
    """Apply a function to every leaf and keep the nesting."""
    return pytree.tree_map(function, tree)


def rebuilt(like: Any, new: list[Any]) -> Any:
    """Nest new leaves as those of `like` are."""
    return pytree.tree_unflatten(new, pytree.tree_structure(like))


def assert_trees_close(
    actual: Any, expected: Any, *, rtol: float | None = None, atol: float | None = None
) -> None:
    """Check that two nested results have the same nesting, shapes, dtypes, and close values.

    Parameters
    ----------
    actual, expected
        Records, tuples, lists or dictionaries of tensors, arrays or numbers. NaN equals NaN.
    rtol, atol
        Relative and absolute tolerance, both or none; by default what `torch.testing.assert_close`
        allows for the dtype. Zeros ask for equality.

    Raises
    ------
    AssertionError
        Naming the first leaf that differs.

    Examples
    --------
    >>> assert_trees_close({"mean": torch.ones(2)}, {"mean": torch.ones(2) + 1e-9})
    """
    of_actual, of_expected = pytree.tree_structure(actual), pytree.tree_structure(expected)
    assert of_actual == of_expected, f"expected the nesting {of_expected}, got {of_actual}"
    paths = [pytree.keystr(path) for path, _ in pytree.tree_flatten_with_path(actual)[0]]
    for path, a, b in zip(paths, leaves(actual), leaves(expected), strict=True):

        def say(message: str, path: str = path) -> str:
            return f"leaf {path or '(the value itself)'}: {message}"

        torch.testing.assert_close(a, b, rtol=rtol, atol=atol, equal_nan=True, msg=say)


@contextmanager
def assert_leaves_model_untouched(model: nn.Module) -> Iterator[None]:
    """Check that a block leaves a model, and the global random state, as they were.

    Compared are, bit for bit, every parameter and buffer; their ``.grad`` and ``requires_grad``;
    the hooks and the training flag of every module; and torch's random state on the CPU. A block
    that raises is not checked: catch inside what is expected.

    Parameters
    ----------
    model
        Any network.

    Raises
    ------
    AssertionError
        Naming everything that was changed.

    Examples
    --------
    >>> net = torch.nn.Linear(2, 3)
    >>> with assert_leaves_model_untouched(net):
    ...     _ = net(torch.ones(1, 2))
    """
    before = _snapshot(model)
    yield
    after = _snapshot(model)
    changed = [name for name in before if before[name] != after.get(name)]
    changed += [name for name in after if name not in before]
    assert not changed, f"expected a model left as it was, got changes of: {', '.join(changed)}"


def _snapshot(model: nn.Module) -> dict[str, Any]:
    found: dict[str, Any] = {"the global random state": _bits(torch.get_rng_state())}
    for name, module in model.named_modules(remove_duplicate=False):
        found[f"module {name!r}"] = id(module)
        found[f"the training flag of {name!r}"] = module.training
        for kind, hooks in vars(module).items():
            if kind.endswith("_hooks"):
                found[f"{kind} of {name!r}"] = [(key, id(hook)) for key, hook in hooks.items()]
    for kind, named in (("parameter", model.named_parameters), ("buffer", model.named_buffers)):
        for name, tensor in named(remove_duplicate=False):
            grad = None if tensor.grad is None else _bits(tensor.grad)
            found[f"{kind} {name!r}"] = id(tensor), tensor.requires_grad, _bits(tensor)
            found[f"the .grad of {name!r}"] = grad
    return found


def _bits(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if len(flat) else b""
