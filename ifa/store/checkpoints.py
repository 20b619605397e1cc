"""Weights from files, of which nothing is executed: found in checkpoints, and fitted strictly."""

import pickle
import zipfile
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

State = Mapping[str, Any]

# of nn.DataParallel, torch.compile, and modules that hold a network as an attribute
PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
SHOWN = 3  # names of each kind in an error


class Found(NamedTuple):
    """A state dictionary in a file."""

    place: str  # key in a checkpoint, empty for the whole file
    prefix: str  # that was taken off its names
    state: State


def load_weights(model: nn.Module, file: str) -> tuple[str, ...]:
    """Load weights that fit exactly into a network, and say what was done to find them.

    `file` is a path, or ``"path#key"`` for one of several that a checkpoint holds.
    """
    path, key = _place(file)
    found = list(_found(path, _read(path), key))
    expected = model.state_dict()
    fits = [each for each in found if not any(_differences(each.state, expected))]
    if len({each.place for each in fits}) > 1:
        places = [each.place for each in fits]
        raise ValueError(
            f"ifa.ModelRef: expected {path} to hold one state dictionary that fits, got "
            f"{len(places)}: {', '.join(map(repr, places))}. Choose one: "
            f"weights={f'{path.name}#{places[-1]}'!r}."
        )
    closest = max(found, key=lambda each: _agreement(each.state, expected))
    best = fits[0] if fits else closest
    try:
        model.load_state_dict(best.state, strict=True)
    except (RuntimeError, TypeError, AttributeError) as error:  # the last two: no tensors
        raise ValueError(_misfit(model, path, closest, expected)) from error
    taken_off = [f"{best.prefix!r} taken off the names of its weights"] if best.prefix else []
    chosen = [f"{best.place!r} of the checkpoint taken"] if best.place and not key else []
    return tuple(f"{path}: {note}" for note in (*chosen, *taken_off))


def _place(file: str) -> tuple[Path, str]:
    path, _, key = file.rpartition("#")
    if Path(file).exists() or not path:
        path, key = file, ""
    if not Path(path).is_file():
        raise FileNotFoundError(f"ifa.ModelRef: expected a file of weights, got {path}.")
    return Path(path), key


def _found(path: Path, content: Any, key: str) -> Iterator[Found]:
    """Give all state dictionaries of a file, also with prefixes taken off."""
    parts = {"": content}
    if isinstance(content, Mapping):
        parts |= {str(name): part for name, part in content.items() if _is_state(part)}
    if key not in parts or not any(map(_is_state, parts.values())):
        several = f"of {', '.join(map(repr, [name for name in parts if name]))}" if key else ""
        raise ValueError(
            f"ifa.ModelRef: expected {path} to hold a state dictionary{f' {key!r}' * bool(key)}, "
            f"got {several or _said(content)}. Save model.state_dict()."
        )
    for place, state in parts.items():
        if _is_state(state) and (not key or place == key):
            yield from _without_prefixes(Found(place, "", state))


def _said(content: Any) -> str:
    if not isinstance(content, Mapping):
        return type(content).__name__
    holding = ", ".join(map(repr, islice(content, SHOWN))) or "nothing"
    return f"a mapping without tensors, of {holding}"


def _is_state(part: Any) -> bool:
    return isinstance(part, Mapping) and any(isinstance(value, Tensor) for value in part.values())


def _without_prefixes(found: Found) -> Iterator[Found]:
    yield found
    names = [str(name) for name in found.state]
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in names):
            state = {str(name)[len(prefix) :]: value for name, value in found.state.items()}
            yield from _without_prefixes(Found(found.place, found.prefix + prefix, state))


def _differences(state: State, expected: State) -> tuple[list[str], list[str], list[str]]:
    """Return the names that a network has alone, those of a file alone, and other shapes."""
    # counters that torch itself lets files of old versions leave out
    counted = [name for name in expected if not name.endswith("num_batches_tracked")]
    both = [
        (name, _shape(state[name]), _shape(expected[name])) for name in expected if name in state
    ]
    return (
        [name for name in counted if name not in state],
        [str(name) for name in state if name not in expected],
        [
            f"size mismatch for {name}: {theirs} in the file, {ours} in the network"
            for name, theirs, ours in both
            if theirs != ours
        ],
    )


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None


def _agreement(state: State, expected: State) -> int:
    return sum(name in state and _shape(state[name]) == _shape(expected[name]) for name in expected)


def _misfit(model: nn.Module, path: Path, closest: Found, expected: State) -> str:
    kinds = ("missing", "not in the network", "")
    differing = zip(kinds, _differences(closest.state, expected), strict=True)
    wrong = "; ".join(f"{kind} {some(names)}".strip() for kind, names in differing if names)
    place = f" (its {closest.place!r})" if closest.place else ""
    return (
        f"ifa.ModelRef: expected weights for {type(model).__name__}, but those in {path}{place} do "
        f"not fit it: {wrong or 'values that are no tensors'}. Give the configuration they were "
        "trained with."
    )


def some(names: list[str]) -> str:
    """Write the first of some names, and how many more there are."""
    more = [f"and {len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return ", ".join([*names[:SHOWN], *more])


def _read(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    check_state_file(path)
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
            f"({said(error)}). "
            "Save model.state_dict() again, best as safetensors."
        ) from error


def said(error: Exception) -> str:
    """Write an error of another library in one line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or ['empty'])[0]}"


def check_state_file(path: Path) -> None:
    """Refuse files of whole programs, which are executed when they are read."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        parts = {name.partition("/")[2] for name in archive.namelist()}
    if "constants.pkl" in parts:
        kind, save = "torch.jit", "torch.jit.load(file).state_dict()"
    elif "models/model.json" in parts or "archive_format" in parts:
        kind, save = "torch.export", "torch.export.load(file).state_dict"
    else:
        return
    raise ValueError(
        f"ifa.ModelRef: expected weights, got {path}, a program of {kind}. Reading it can run its "
        "code, and its layers cannot be observed as those of the module it was made of. If you "
        f"trust it: torch.save({save}, 'weights.pt'), and give that with the network's own code."
    )
