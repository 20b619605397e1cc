"""The records that cross a transform boundary, and the protocol of a reduction."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

# Names of the space axes in labelled data, by how many there are.
SPACE: dict[int, tuple[str, ...]] = {1: ("t",), 2: ("y", "x"), 3: ("z", "y", "x")}


class Features(NamedTuple):
    """One layer as seen by one target: what a tap returns and `ifa.weigh` reads.

    Shapes are those of one example. A tap returns them with a leading sample axis; with many
    targets, `gradients` and `target` have a target axis before it, and `activations` does not.
    """

    activations: Tensor  # (channel, *space), the layer's own unit
    gradients: Tensor  # (channel, *space), score unit per activation unit
    target: Tensor  # (), int64, index of the explained output


class Weighted(NamedTuple):
    """Activations with what multiplies them: what `ifa.weigh` returns and `ifa.combine` reads."""

    weights: Tensor  # (channel,) or (channel, *space), score unit per activation unit
    activations: Tensor  # (channel, *space)
    target: Tensor  # ()


class Map(NamedTuple):
    """A class activation map, with the target it belongs to."""

    values: Tensor  # (*space), or (group, *space) after `ifa.combine_groups`; signed
    target: Tensor  # ()


class Reduction(NamedTuple):
    """Four pure functions that fold batches into one statistic, and merge exactly.

    States are records of tensors. `merge` is associative and `init(like)` is its identity, so that
    one pass, a resumed run and a cluster give the same statistic. See `ifa.reduce`.
    """

    init: Callable[[Any], Any]  # example batch -> empty state
    update: Callable[[Any, Any], Any]  # state, batch -> state
    merge: Callable[[Any, Any], Any]  # state, state -> state
    finalize: Callable[[Any], Any]  # state -> statistic
