"""The records that cross a transform boundary, and the protocol of a reduction."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

# (output of one example, target) -> scalar
Score = Callable[[Any, Tensor], Tensor]
# lays a layer's output out as (sample, channel, *space)
Grid = Callable[[Tensor], Tensor]
# picks the output out of what a model returns: a callable, a key or an index
Output = Callable[[Any], Any] | str | int | None
# one record to the next; composed by `ifa.chain`
Step = Callable[[Any], Any]
# (activations, gradients) of one example -> weights
Kernel = Callable[[Tensor, Tensor], Tensor]
# (model, layer, example, *, score, grid, output) -> (inputs, target) -> Weighted
Builder = Callable[..., Any]
# what `weight=` takes: a kernel, or what is declared a step or a builder
Method = Kernel | Step | Builder
# a layer: its dotted name, or the module itself
Layer = str | nn.Module
# a population's result: an xarray Dataset of one layer, or a DataTree; xarray is not imported here
Statistics = Any
# what is explained: None for the prediction, an int, (sample,), or (target, sample)
Target = Tensor | Sequence[int] | int | None
# (inputs, target) -> maps at the inputs' size
Explain = Callable[..., Tensor]
# a tensor, or any tree of tensors, with one leading sample axis
Inputs = Tensor | Sequence[Any] | Mapping[str, Any]

# Names of the space axes in labelled data, by how many there are.
SPACE: dict[int, tuple[str, ...]] = {1: ("t",), 2: ("y", "x"), 3: ("z", "y", "x")}


class RunNote(UserWarning):
    """A run is returned or continued though something about it, which is said, is other now."""


class LoaderTaken(UserWarning):
    """A DataLoader was given as data: its data set is taken, and not its batches."""


class ProbabilityOutput(UserWarning):
    """A network ends in a softmax or sigmoid, and its outputs are taken for logits."""


class ZeroGradient(UserWarning):
    """The gradient of a score is exactly zero at every channel and position of a sample's layer."""


class Cancellation(UserWarning):
    """What is summed to a map cancels at every position: the map is what rounding left."""


class DependentSamples(UserWarning):
    """Samples seem to belong together, and an interval or p-value takes them for independent."""


class BasisDependent(UserWarning):
    """A weighting is asked for in a basis though its maps are other ones in every basis."""


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

    values: Tensor  # (*space), or (block, *space) after `ifa.combine_blocks`; signed
    target: Tensor  # ()


class Positions(NamedTuple):
    """Where the units of a layer lie in the input: unit i at ``start + step · i``, on each axis.

    In input pixels, the centre of the first of which is 0. See `ifa.positions` and `ifa.place`.
    """

    start: Tensor  # (axis,), float64, one entry for each axis of space
    step: Tensor  # (axis,), float64


class Reduction(NamedTuple):
    """Four pure functions that fold batches into one statistic, and merge exactly.

    States are records of tensors. `merge` is associative and `init(like)` is its identity, so that
    one pass, a resumed run and a cluster give the same statistic. See `ifa.reduce`.
    """

    init: Callable[[Any], Any]  # example batch -> empty state
    update: Callable[[Any, Any], Any]  # state, batch -> state
    merge: Callable[[Any, Any], Any]  # state, state -> state
    finalize: Callable[[Any], Any]  # state -> statistic
