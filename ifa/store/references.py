"""Models and data by reference: an import path, safe weights and a configuration."""

import importlib
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class ModelRef:
    """A model that a worker process can load by itself.

    Parameters
    ----------
    factory
        ``"package.module:factory"``, a callable that returns a `torch.nn.Module`. Importing it runs
        its code: use it as you would use the package.
    weights
        File of a state dictionary: safetensors, or one that ``torch.load(weights_only=True)``
        reads. None keeps what the factory returns.
    config
        Keyword arguments of the factory.

    Examples
    --------
    >>> import ifa
    >>> reference = ifa.ModelRef("torch.nn:Linear", config={"in_features": 2, "out_features": 1})
    >>> reference.load()
    Linear(in_features=2, out_features=1, bias=True)
    """

    factory: str
    weights: str | None = None
    config: dict[str, Any] = field(default_factory=dict)

    def load(self) -> nn.Module:
        """Build the model, load its weights strictly, and put it in evaluation mode."""
        model = called(self.factory, "ifa.ModelRef", **self.config)
        if not isinstance(model, nn.Module):
            raise TypeError(
                f"ifa.ModelRef: expected {self.factory} to return a torch.nn.Module, "
                f"got {type(model).__name__}."
            )
        if self.weights is not None:
            load_weights(model, Path(self.weights))
        return model.eval()


def imported(reference: str, where: str) -> Any:
    """Return the object that ``"package.module:name"`` names."""
    module_name, _, name = reference.partition(":")
    if not module_name or not name:
        raise ValueError(f"{where}: expected 'package.module:name', got {reference!r}.")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise LookupError(
            f"{where}: expected a module that can be imported, got {module_name!r} ({error}). "
            "Run where it is on the Python path, or install it."
        ) from error
    try:
        return getattr(module, name)
    except AttributeError:
        raise LookupError(
            f"{where}: expected {module_name!r} to define {name!r}, but it does not."
        ) from None


def called(reference: str, where: str, **options: Any) -> Any:
    """Call what ``"package.module:name"`` names, and return the result."""
    function = imported(reference, where)
    if not callable(function):
        raise TypeError(
            f"{where}: expected {reference!r} to be callable, got {type(function).__name__}. "
            "Write a function that returns it."
        )
    return function(**options)


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a state dictionary that fits exactly; nothing in the file is executed."""
    if not path.exists():
        raise FileNotFoundError(f"ifa.ModelRef: expected a file of weights, got {path}.")
    state = _read(path)
    if not isinstance(state, Mapping):
        raise ValueError(
            f"ifa.ModelRef: expected {path} to hold a state dictionary, got "
            f"{type(state).__name__}. Save model.state_dict()."
        )
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ValueError(
            f"ifa.ModelRef: expected weights for {type(model).__name__}, but those in {path} do "
            f"not fit it. {' '.join(str(error).split())} {_advice(state)}"
        ) from error


def _advice(state: Mapping[str, Any]) -> str:
    """Say what to do with a file whose names are not the model's."""
    nested = [name for name, part in state.items() if isinstance(part, Mapping) and part]
    if nested:
        return (
            f"It is a checkpoint, which has mappings of its own: {', '.join(map(repr, nested))}. "
            f"Save the weights alone: torch.save(torch.load(path)[{nested[0]!r}], new)."
        )
    for wrapper in ("module.", "_orig_mod."):
        if state and all(str(name).startswith(wrapper) for name in state):
            return (
                f"All names begin with {wrapper!r}: they are of a wrapped model. Save "
                f"model.{wrapper}state_dict()."
            )
    return "Give the configuration they were trained with."


def _read(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, weights_only=True, map_location="cpu")
    except (
        *(SafetensorError, pickle.UnpicklingError, zipfile.BadZipFile),
        *(EOFError, RuntimeError, ValueError, LookupError, AttributeError),
    ) as error:
        raise ValueError(
            "ifa.ModelRef: expected weights as safetensors, or as torch.save writes a state "
            f"dictionary, but {path} could not be read without running code from it "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'empty'}). "
            "Save model.state_dict() again, best as safetensors."
        ) from error
