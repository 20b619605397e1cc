"""Checks of options that every room shares; an error says where, expected, came, what to do."""

import inspect
import math
import sys
from collections.abc import Mapping, Sequence, Set
from types import FunctionType
from typing import Any

import numpy as np
import torch


def check_count(where: str, name: str, count: int, most: float = math.inf) -> None:
    """Raise unless an option is a whole number from 1 to `most`."""
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= most:
        limit = "" if most == math.inf else f" and at most {most}, the layer's channels"
        raise ValueError(
            f"{where}: expected {name} to be a whole number, at least 1{limit}, got {count!r}."
        )


def check_choice(where: str, name: str, value: str, choices: Sequence[str]) -> None:
    """Raise unless an option is one of its choices."""
    if value not in choices:
        listed = ", ".join(map(repr, choices))
        raise ValueError(f"{where}: expected {name} to be one of {listed}, got {value!r}.")


def check_size(where: str, name: str, value: float) -> None:
    """Raise unless an option is a finite number, at least 0."""
    if not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f"{where}: expected {name} to be finite and not negative, got {value!r}.")


def check_level(where: str, level: float) -> None:
    """Raise unless the level of an interval or a test is a share, and not a percentage."""
    if not isinstance(level, int | float) or not 0 < level < 1:
        raise ValueError(f"{where}: expected a level between 0 and 1, such as 0.95, got {level!r}.")


def takes(function: Any, arguments: int) -> bool:
    """Tell whether a function can be called with so many arguments and no options."""
    if type(function) is FunctionType and not vars(function).keys() & {
        "__wrapped__",
        "__signature__",
    }:
        code = function.__code__  # read as it is: a signature takes long, in each call
        least = code.co_argcount - len(function.__defaults__ or ())
        most = math.inf if code.co_flags & inspect.CO_VARARGS else code.co_argcount
        asked = code.co_kwonlyargcount - len(function.__kwdefaults__ or ())
        return least <= arguments <= most and asked == 0
    try:
        inspect.signature(function).bind(*range(arguments))
    except TypeError:
        return False
    except ValueError:  # one of C, which does not say
        return True
    return True


def outside() -> int:
    """Count the frames from the caller's up to the first outside of the library, for a warning."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).startswith("ifa."):
        level, frame = level + 1, frame.f_back
    return level


def check_text(where: str, name: str, text: str) -> None:
    """Raise unless a text can be written."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"{where}: expected {name} to be text that UTF-8 can write, got {text!r}. Of the name "
            "of a file take os.fsencode(name).decode(errors='replace')."
        ) from None


def text_of(where: str, name: str, value: Any) -> str:
    """Write a name as text: one that is text, bytes of it, or a number; raise for all else."""
    if isinstance(value, torch.Tensor | np.ndarray) and value.ndim == 0:
        value = value.item()
    several = isinstance(value, torch.Tensor | np.ndarray | Mapping | Sequence | Set)
    several = several and not isinstance(value, str | bytes)
    try:
        text = value.decode() if isinstance(value, bytes) else str(value)
        named = not several and value is not None and bool(value == value)
    except Exception:  # pandas' NA is neither true nor false; and whatever another class does
        text, named = "", False
    if not named or f" at {hex(id(value))}" in text:
        shown = f"{type(value).__name__} {text[:40]}".strip()
        raise TypeError(
            f"{where}: expected {name} to be text or a number, got {shown}. Write it as text, "
            "the same for the same sample each time."
        )
    check_text(where, name, text)
    return text


def check_device(where: str, device: Any) -> None:
    """Raise unless a device is None or can be computed on."""
    try:
        torch.empty(0, device=device)
    except Exception as error:
        raise ValueError(
            f"{where}: expected device to be one of this machine, such as 'cpu' or 'cuda:0', or "
            f"None for the model's own, got {device!r} ({str(error).splitlines()[0]})."
        ) from error


def check_progress(where: str, progress: Any) -> None:
    """Raise unless progress is a flag, or can be told how far it is."""
    if not isinstance(progress, bool) and not callable(progress):
        raise TypeError(
            f"{where}: expected progress to be True, False, or a function of (done, total), got "
            f"{progress!r}."
        )


def check_noise(where: str, draws: int, stdev: float, seed: int) -> None:
    """Raise unless the options of noise are usable."""
    check_count(where, "draws", draws)
    check_size(where, "stdev", stdev)
    if not isinstance(seed, int) or seed < 0:
        raise ValueError(f"{where}: expected seed to be a whole number, at least 0, got {seed!r}.")
