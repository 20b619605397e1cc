"""What was seen of a network is kept for it, so that explaining in a loop costs a tap's call.

No network is kept alive, and nothing of one that has changed since is used; what was seen of it is
dropped when it is next explained.
"""

import threading
from collections import OrderedDict
from functools import partial
from types import FunctionType
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from ifa.network.inputs import leaves_of
from ifa.network.replicas import plain
from ifa.network.snapshots import holds_others, snapshot
from ifa.taps.features import Prepared, prepare
from ifa.types import Grid, Inputs, Output

# How many are kept for each network.
MOST = 8

# Of each network its snapshot, and by what was asked what was seen of it.
_KEPT: WeakKeyDictionary[nn.Module, tuple[list[Any], OrderedDict[Any, tuple[Any, Prepared]]]]
_KEPT = WeakKeyDictionary()
_LOCK = threading.Lock()


def remembered(
    model: nn.Module,
    layers: Any,
    example: Inputs,
    *,
    grid: Grid | None,
    output: Output,
    grid_of: str | int | None = None,
) -> Prepared:
    """Return what `prepare` returns; not made anew for a network that is as it was."""
    model = plain(model)
    if isinstance(layers, nn.Module):  # by its name, so that a key does not hold it
        names = (name for name, module in model.named_modules() if module is layers)
        layers = next(names, layers)
    key = _key(layers, example, grid, output, grid_of)
    options: Any = {"grid": grid, "output": output, "grid_of": grid_of}
    state = None if key is None else snapshot(model)
    # which layer is taken by default is asked of the weights
    held = snapshot(model, contents=True) if state is not None and layers is None else None
    if state is None:
        return prepare(model, layers, example, **options)
    with _LOCK:
        before, kept = _KEPT.get(model, (None, OrderedDict()))
        found = kept.get(key) if before == state else None
    if found is not None and found[0] == held:
        return found[1]
    prepared = prepare(model, layers, example, **options, weak=True)
    with _LOCK:
        before, kept = _KEPT.get(model, (None, OrderedDict()))
        if before != state:  # nothing of a network that was is kept
            kept = OrderedDict()
            _KEPT[model] = state, kept
        kept[key] = held, prepared
        kept.move_to_end(key)
        while len(kept) > MOST:
            kept.popitem(last=False)
    return prepared


def _key(layers: Any, example: Inputs, *options: Any) -> Any:
    """Make a key that holds nothing alive; None where that cannot be."""
    if not all(map(_holds_nothing, (layers, *options))):
        return None
    layers = tuple(layers) if isinstance(layers, list) else layers
    return layers, tuple(map(_like, leaves_of(example))), *options


def _like(leaf: tuple[Any, Any]) -> Any:
    place, value = leaf
    if isinstance(value, Tensor):
        return place, tuple(value.shape[1:]), value.dtype, value.device
    return place, type(value), value


def _holds_nothing(value: Any) -> bool:
    if isinstance(value, FunctionType):  # of ours: another's may read what changes
        return value.__globals__.get("__name__", "").startswith("ifa.") and not holds_others(value)
    if isinstance(value, tuple | list):
        return all(map(_holds_nothing, value))
    if isinstance(value, partial):
        return False
    if isinstance(value, str | int | float | bool | None):
        return True
    # frozen records of numbers, such as ifa.tokens makes
    frozen = getattr(type(value), "__dataclass_params__", None)
    return frozen is not None and frozen.frozen and all(map(_holds_nothing, vars(value).values()))
