"""Find and replace the tensor inside what a model or a layer returns."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

Output = Callable[[Any], Any] | str | int | None


def pick(raw: Any, output: Output = None) -> Any:
    """Take the output out of what a model returned.

    Parameters
    ----------
    raw
        What the model returned: a tensor, tuple, list, mapping or HuggingFace output.
    output
        A callable applied to it, a key or an index. `None` takes a tensor as it is, otherwise what
        is called ``logits``, otherwise the first tensor.

    Raises
    ------
    LookupError
        If there is no such key or index, or no tensor.

    Examples
    --------
    >>> import torch
    >>> pick({"features": torch.zeros(1), "logits": torch.ones(1)})
    tensor([1.])
    """
    if callable(output):
        return output(raw)
    if output is not None:
        try:
            return raw[output]
        except (KeyError, IndexError, TypeError):
            raise LookupError(
                f"ifa.tap: expected output={output!r} to be a key or an index of what the model "
                f"returns, got {_contents(raw)}. Name one of these, or give a callable."
            ) from None
    if isinstance(raw, Mapping) and "logits" in raw:
        return raw["logits"]
    found = first_tensor(raw)
    if found is None:
        raise LookupError(
            f"ifa.tap: expected a model that returns a tensor, got {_contents(raw)}. "
            "Say with output= how to take one out of it: a callable, a key or an index."
        )
    return found


def first_tensor(raw: Any) -> Tensor | None:
    """Return the tensor itself, or the first one in a tuple, list or mapping; None if none."""
    if isinstance(raw, Tensor):
        return raw
    parts = raw.values() if isinstance(raw, Mapping) else raw if _sequence(raw) else ()
    return next((part for part in parts if isinstance(part, Tensor)), None)


def replace_first_tensor(raw: Any, new: Tensor) -> Any:
    """Return `raw` with its first tensor replaced by `new`; `raw` itself is left alone."""
    if isinstance(raw, Tensor):
        return new
    old = first_tensor(raw)
    if isinstance(raw, Mapping):
        return type(raw)(**{k: new if v is old else v for k, v in raw.items()})
    parts = [new if part is old else part for part in raw]
    return type(raw)(*parts) if hasattr(raw, "_fields") else type(raw)(parts)


def _sequence(raw: Any) -> bool:
    return isinstance(raw, tuple | list)


def _contents(raw: Any) -> str:
    if isinstance(raw, Mapping):
        return f"{type(raw).__name__} with keys {list(raw)}"
    if _sequence(raw):
        return f"{type(raw).__name__} of {[type(part).__name__ for part in raw]}"
    return type(raw).__name__
