"""Find and replace the tensor inside what a model or a layer returns."""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ifa.types import Output


def pick(raw: Any, output: Output = None) -> Any:
    """Take the output out of what a model returned.

    Parameters
    ----------
    raw
        What the model returned: a tensor, tuple, list, mapping, dataclass or HuggingFace output.
    output
        A callable applied to it, a key or an index. `None` takes a tensor as it is, and a list of
        mappings, such as a detector's, one for each sample; otherwise what is called ``logits``,
        otherwise the first tensor.

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
    parts = parts_of(raw)
    if output is None and listed(raw):
        return raw
    if output is not None:
        try:
            return parts[output] if isinstance(output, str) else raw[output]
        except (KeyError, IndexError, TypeError):
            raise LookupError(
                f"ifa.tap: expected output={output!r} to be a key or an index of what the model "
                f"returns, got {_contents(raw)}. Name one of these, or give a callable."
            ) from None
    found = parts["logits"] if "logits" in parts else first_tensor(raw)
    if not isinstance(found, Tensor):
        raise LookupError(
            f"ifa.tap: expected a model that returns a tensor, got {_contents(raw)}. "
            "Say with output= how to take one out of it: a callable, a key or an index."
        )
    return found


def listed(raw: Any, samples: int | None = None) -> bool:
    """Tell whether it is a list of mappings, one for each sample: their tensors have any sizes."""
    of_mappings = isinstance(raw, list) and all(isinstance(one, Mapping) for one in raw)
    return of_mappings and (len(raw) > 0 if samples is None else len(raw) == samples)


def first_tensor(raw: Any) -> Tensor | None:
    """Return the tensor itself, or the first of a sequence, mapping or dataclass; None if none."""
    if isinstance(raw, Tensor):
        return raw
    return next((part for part in parts_of(raw).values() if isinstance(part, Tensor)), None)


def replace_first_tensor(raw: Any, new: Tensor) -> Any:
    """Return `raw` with its first tensor replaced by `new`; `raw` itself is left alone."""
    if isinstance(raw, Tensor):
        return new
    old = first_tensor(raw)
    return rebuilt(raw, {key: new if part is old else part for key, part in parts_of(raw).items()})


def every_tensor(raw: Any) -> Iterator[Tensor]:
    """Yield every tensor in nested containers."""
    if isinstance(raw, Tensor):
        yield raw
    for part in parts_of(raw).values():
        yield from every_tensor(part)


def map_tensors(raw: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return `raw` with every tensor in it changed; containers are copied."""
    if isinstance(raw, Tensor):
        return change(raw)
    parts = {key: map_tensors(part, change) for key, part in parts_of(raw).items()}
    return rebuilt(raw, parts) if parts or isinstance(raw, Mapping | list) else raw


def is_data(raw: Any) -> bool:
    """Tell whether `raw` is nothing but tensors, numbers and text in containers we can copy."""
    if raw is None or isinstance(raw, Tensor | bool | int | float | str | torch.dtype):
        return True
    container = isinstance(raw, Mapping | list | tuple) or dataclasses.is_dataclass(raw)
    return container and all(map(is_data, parts_of(raw).values()))


def rebuilt(raw: Any, parts: Mapping[Any, Any]) -> Any:
    """Copy a container with other parts in it."""
    if isinstance(raw, Mapping):
        changed: Any = copy.copy(raw)  # whatever its constructor takes
        for key, part in parts.items():
            changed[key] = part
        return changed
    if isinstance(raw, tuple | list):
        named = hasattr(raw, "_fields")
        return type(raw)(*parts.values()) if named else type(raw)(parts.values())
    return dataclasses.replace(raw, **parts)


def parts_of(raw: Any) -> Mapping[Any, Any]:
    """Return what is in a container by key, index or name; nothing of what is none."""
    if isinstance(raw, Mapping):
        return raw
    if isinstance(raw, tuple | list):
        return dict(zip(getattr(raw, "_fields", range(len(raw))), raw, strict=True))
    if dataclasses.is_dataclass(raw) and not isinstance(raw, type):
        return {field.name: getattr(raw, field.name) for field in dataclasses.fields(raw)}
    return {}


def _contents(raw: Any) -> str:
    if isinstance(raw, tuple | list) and not hasattr(raw, "_fields"):
        return f"{type(raw).__name__} of {[type(part).__name__ for part in raw]}"
    parts = parts_of(raw)
    return type(raw).__name__ + (f" with {list(parts)}" if parts else "")
