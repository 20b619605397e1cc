"""The stages of a map: lift array kernels to steps from `Features` to `Weighted` to `Map`."""

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ifa.chains import Chain, describe
from ifa.checks import takes
from ifa.declared import declare, declared
from ifa.types import Builder, Features, Kernel, Map, Method, Step, Weighted


def weigh(kernel: Kernel) -> Step:
    r"""Make a step that weighs the channels of `Features` with an array kernel.

    Parameters
    ----------
    kernel
        ``(activations, gradients) -> weights`` for one example, as in `ifa.weight`: arrays of shape
        (channel, \*space) in, weights (channel,) or (channel, \*space) out. Bind options with
        `functools.partial`.

    Returns
    -------
    callable
        `Features` -> `Weighted`.

    Raises
    ------
    TypeError
        If it is no kernel.

    Examples
    --------
    >>> import ifa, torch
    >>> ones = torch.ones(2, 4, 4)
    >>> ifa.weigh(ifa.weight.gradcam)(ifa.Features(ones, 3 * ones, torch.tensor(0))).weights
    tensor([3., 3.])
    """
    if not callable(kernel):
        raise TypeError(
            f"ifa.weigh: expected a kernel (activations, gradients) -> weights, got {kernel!r}. "
            "Take one of ifa.weight, e.g. ifa.weight.gradcam."
        )
    kind = declared(kernel, "kind", "kernel")
    if kind != "kernel":
        advice = {
            "step": "It weighs already: put it in the chain as it is.",
            "builder": "It needs the network: give it as weight= of ifa.explain or ifa.analyze.",
            "built": "It has its network: call it with inputs.",
            "projection": "It weighs nothing: put it in the chain before ifa.weigh(...).",
        }[kind]
        raise TypeError(
            "ifa.weigh: expected a kernel (activations, gradients) -> weights, got the "
            f"{kind} {describe(kernel)}. {advice}"
        )
    _check_kernel("ifa.weigh", "kernel", kernel)
    return partial(_weigh, kernel=kernel)


@declare(kind="step")
def _weigh(features: Features, *, kernel: Kernel) -> Weighted:
    expect("ifa.weigh", features, Features, "Give it what a tap returns.")
    activations, gradients, target = features
    weights = kernel(activations, gradients)
    shape = weights.shape if isinstance(weights, Tensor) else None
    if shape not in (activations.shape, activations.shape[:1]):
        raise ValueError(
            f"ifa.weigh: expected weights of shape {tuple(activations.shape[:1])} or "
            f"{tuple(activations.shape)}, got "
            f"{type(weights).__name__ if shape is None else tuple(shape)} from {describe(kernel)}. "
            "A kernel sees one example; lift the chain with ifa.batched."
        )
    return Weighted(weights, activations, target)


def step(function: Step) -> Step:
    """Declare a function `Features` -> `Weighted` a step, so that ``weight=`` takes it as one.

    What `ifa.weigh`, `ifa.chain` and `ifa.weight.cam` return is declared already. A function that
    is not declared is a kernel.

    Parameters
    ----------
    function
        ``Features -> Weighted`` of one example.

    Examples
    --------
    >>> import ifa
    >>> @ifa.step
    ... def evenly(features):
    ...     return ifa.Weighted(*features._replace(gradients=features.activations * 0 + 1))
    """
    return declare(kind="step")(function)


def builder(function: Builder) -> Builder:
    """Declare a function a builder, so that ``weight=`` gives it the network.

    It is called once with ``(model, layer, example, *, score, grid, output)`` and returns
    ``(inputs, target) -> Weighted``, of a batch, as those of `ifa.perturb` do.

    Parameters
    ----------
    function
        Takes the network, and returns the weighting of a batch.

    Examples
    --------
    >>> import ifa
    >>> @ifa.builder
    ... def mine(model, layer, example, *, score, grid, output):
    ...     return ifa.perturb.scorecam(model, layer, example, score=score, softmax=False)
    """
    return declare(kind="builder", reads="inputs")(function)


def check_method(where: str, name: str, method: Any) -> None:
    """Raise unless a weighting can be called."""
    if not callable(method) or isinstance(method, type):
        named = f" For a method by name: ifa.weight.{method}." if isinstance(method, str) else ""
        raise TypeError(
            f"{where}: expected {name} to be a kernel of ifa.weight, a step or a builder of "
            f"ifa.perturb, got {method!r}.{named or ' Take ifa.weight.fullcam, for one.'}"
        )
    kind = declared(method, "kind", "kernel")
    if kind == "built":
        raise TypeError(
            f"{where}: expected {name} to be a builder, got {method!r}, which has its network "
            "already. Give the builder itself, its options bound with functools.partial."
        )
    if kind == "projection":
        raise TypeError(
            f"{where}: expected {name} to be a kernel, a step or a builder, got "
            f"{describe(method)}, which weighs nothing. Chain it before one: "
            "ifa.chain(ifa.project(dictionary), ifa.weigh(ifa.weight.fullcam))."
        )
    if kind == "kernel":
        _check_kernel(where, name, method)


def _check_kernel(where: str, name: str, kernel: Any) -> None:
    if not takes(kernel, 2):
        raise TypeError(
            f"{where}: expected {name} to be a kernel (activations, gradients) -> weights, as it "
            f"is not declared, got {describe(kernel)}, which takes other arguments. Declare a "
            "function Features -> Weighted with @ifa.step, one that takes the network with "
            "@ifa.builder; bind options with functools.partial."
        )


def reads_gradients(method: Method) -> bool:
    """Tell whether a weighting looks at gradients: those that do not are declared."""
    if isinstance(method, Chain):
        return any(map(reads_gradients, method.steps))
    if isinstance(method, partial) and method.func is _weigh:
        return reads_gradients(method.keywords["kernel"])
    return declared(method, "gradients", True)


def weighing(weight: Any, where: str) -> Step:
    """Make a step of a kernel; a step is one already."""
    check_method(where, "weight", weight)
    step = declared(weight, "kind", "kernel") == "step"
    return weight if step else partial(_weigh, kernel=weight)


def keep(mask: Any) -> Step:
    """Make a step that keeps the channels a mask selects and sets the weights of others to zero.

    Parameters
    ----------
    mask : (channel,) or (target, channel)
        Boolean, or real factors. With a target axis, each example takes the row of its own target.
        A tensor, array or DataArray; of one with a coordinate `target` the rows are found by it,
        and an example whose target has none gets NaN.

    Returns
    -------
    callable
        `Weighted` -> `Weighted`.

    Raises
    ------
    ValueError
        If the mask has no channel axis, or (when called) its channels are not the layer's.

    Examples
    --------
    >>> import ifa, torch
    >>> two = ifa.Weighted(torch.tensor([5.0, 7.0]), torch.ones(2, 3), torch.tensor(1))
    >>> ifa.keep(torch.tensor([[True, True], [False, True]]))(two).weights
    tensor([0., 7.])
    """
    mask = by_output("ifa.keep", "a mask", mask)
    if mask.ndim not in (1, 2):
        raise ValueError(
            "ifa.keep: expected a mask of shape (channel,) or (target, channel), "
            f"got {tuple(mask.shape)}. Make one with ifa.select."
        )
    return partial(_keep, mask=mask)


def _keep(weighted: Weighted, *, mask: Tensor) -> Weighted:
    expect("ifa.keep", weighted, Weighted, "Put ifa.weigh(...) before it.")
    weights, activations, target = weighted
    if mask.shape[-1] != activations.shape[0]:
        raise ValueError(
            f"ifa.keep: expected a mask for the layer's {activations.shape[0]} channels, got one "
            f"for {mask.shape[-1]}. Select from the importance of this very layer."
        )
    mask = mask.to(weights.device, weights.dtype)
    if mask.ndim == 2:
        mask = row("ifa.keep", mask, target)
    return Weighted(_spread(mask, weights) * weights, activations, target)


def combine(weighted: Weighted) -> Map:
    r"""Sum the weighted activations over channels: the map of one example, signed.

    .. math:: L = \sum_k w_k \odot A_k

    Parameters
    ----------
    weighted
        `Weighted` of one example.

    Returns
    -------
    Map
        Values (\*space), in the score's unit.

    Examples
    --------
    >>> import ifa, torch
    >>> ifa.combine(
    ...     ifa.Weighted(torch.tensor([1.0, -2.0]), torch.eye(2), torch.tensor(0))
    ... ).values
    tensor([ 1., -2.])
    """
    expect("ifa.combine", weighted, Weighted, "Put ifa.weigh(...) before it.")
    weights, activations, target = weighted
    if weights.ndim == 1:
        return Map(torch.tensordot(weights, activations, dims=1), target)
    return Map((weights * activations).sum(0), target)


def combination_cancels(weighted: Weighted) -> Tensor:
    """Tell whether what `combine` sums cancels at every position, to rounding; as a bool, ().

    Where a channel has one weight, the products themselves are not made.
    """
    weights, activations, target = weighted
    sizes = combine(Weighted(weights.abs(), activations.abs(), target)).values
    return _is_rounding(combine(weighted).values.abs(), sizes, sizes.dtype)


def _is_rounding(left: Tensor, sizes: Tensor, dtype: torch.dtype) -> Tensor:
    # sums of hundreds of numbers, and what is added to a variance, leave more than one rounding
    most = max(1e-3, 4 * torch.finfo(dtype).eps)
    # what is not finite does not cancel
    return ((left <= most * sizes) & sizes.isfinite()).all() & (sizes > 0).any()


def product(weighted: Weighted) -> Tensor:
    r"""Return weights times activations of one example, (channel, \*space)."""
    weights, activations, _ = weighted
    return _spread(weights, activations) * activations


def cancellation(parts: Tensor) -> Tensor:
    r"""Measure what is left of an example's weighted activations when they are summed.

    .. math:: c = \max_p \frac{|\sum_k w_k(p) A_k(p)|}{\sum_k |w_k(p) A_k(p)|}

    Where nothing is summed at all, it is 1. Safe under `vmap`.

    Parameters
    ----------
    parts : (channel, \*space)
        Weights times activations.

    Returns
    -------
    (), float64
        From 0, where all positions cancel, to 1.
    """
    sizes = parts.abs().sum(0, dtype=torch.float64)
    left = parts.sum(0, dtype=torch.float64).abs()
    ratio = torch.where(sizes > 0, left / sizes.where(sizes > 0, 1), 0).amax()
    return torch.where((sizes > 0).any(), ratio, 1)


def cancels(parts: Tensor, values: Tensor | None = None) -> Tensor:
    """Tell whether weighted activations cancel at every position, to rounding; as a bool, ().

    `values` is their sum over channels, where that is known.
    """
    wider = torch.promote_types(parts.dtype, torch.float32)  # what decides is no rounding of it
    values = parts.sum(0, dtype=wider) if values is None else values
    sizes = parts.abs().sum(0, dtype=wider)
    return _is_rounding(values.abs(), sizes, parts.dtype)


# Numbers that are summed in their own precision, before float64 goes on.
_RUN = 256


def long_sum(values: Tensor) -> Tensor:
    r"""Sum the last axis in float64, where it is long in runs that are summed in float32 first.

    The error is at most :math:`10^{-6} \sum_i |x_i|`; half the memory passes by. What is not
    float32 is summed in float64 from the first. Safe under `vmap`.

    Parameters
    ----------
    values : (row, position)

    Returns
    -------
    (row,), float64
    """
    if values.dtype != torch.float32:
        return values.sum(-1, dtype=torch.float64)
    whole = values.shape[-1] // _RUN * _RUN
    rest = values[..., whole:].sum(-1).double()
    if not whole:
        return rest
    return rest + values[..., :whole].unflatten(-1, (-1, _RUN)).sum(-1).sum(-1, dtype=torch.float64)


def combine_blocks(blocks: int) -> Step:
    r"""Make a step like `combine` that gives one map for each contiguous block of channels.

    Block b holds the channels b·K/blocks to (b+1)·K/blocks − 1 of K, as grouped convolutions lay
    them out.

    Parameters
    ----------
    blocks
        How many blocks. Must divide the number of channels.

    Returns
    -------
    callable
        `Weighted` -> `Map` with values (block, \*space).

    Examples
    --------
    >>> import ifa, torch
    >>> four = ifa.Weighted(torch.arange(4.0), torch.ones(4, 2), torch.tensor(0))
    >>> ifa.combine_blocks(2)(four).values
    tensor([[1., 1.],
            [5., 5.]])
    """
    if not isinstance(blocks, int) or blocks < 1:
        raise ValueError(f"ifa.combine_blocks: expected a positive number of blocks, got {blocks}.")
    return partial(_combine_blocks, blocks=blocks)


def _combine_blocks(weighted: Weighted, *, blocks: int) -> Map:
    expect("ifa.combine_blocks", weighted, Weighted, "Put ifa.weigh(...) before it.")
    weights, activations, target = weighted
    channels = activations.shape[0]
    if channels % blocks:
        raise ValueError(
            f"ifa.combine_blocks: expected channels divisible by {blocks} blocks, got {channels}. "
            "Use a number of blocks that the layer was built with."
        )
    values = (_spread(weights, activations) * activations).unflatten(0, (blocks, -1)).sum(1)
    return Map(values, target)


def relu(values: Map) -> Map:
    """Keep what speaks for the target: set negative values of a `Map` to zero; NaN stays NaN.

    Parameters
    ----------
    values : Map
        Of one example.

    Examples
    --------
    >>> import ifa, torch
    >>> ifa.relu(ifa.Map(torch.tensor([-1.0, 2.0]), torch.tensor(0))).values
    tensor([0., 2.])
    """
    expect("ifa.relu", values, Map, "Put ifa.combine before it.")
    return values._replace(values=values.values.relu())


def clip(low: float, high: float) -> Step:
    """Make a step that limits a `Map` to [low, high]; NaN stays NaN.

    Parameters
    ----------
    low, high
        Limits in the map's unit, each a number; low at most high.

    Examples
    --------
    >>> import ifa, torch
    >>> ifa.clip(0, 1)(ifa.Map(torch.tensor([-1.0, 0.5, 2.0]), torch.tensor(0))).values
    tensor([0.0000, 0.5000, 1.0000])
    """
    if not low <= high:
        raise ValueError(f"ifa.clip: expected low <= high, got {low} and {high}.")
    return partial(_clip, low=low, high=high)


def _clip(values: Map, *, low: float, high: float) -> Map:
    expect("ifa.clip", values, Map, "Put ifa.combine before it.")
    return values._replace(values=values.values.clamp(low, high))


def native(values: Any) -> Any:
    """Copy an array, in this machine's byte order, as torch takes it; all else is as it is."""
    if not isinstance(values, np.ndarray):
        return values
    return np.array(values, dtype=values.dtype.newbyteorder("="))


def wide(values: Tensor) -> Tensor:
    """Take float64, or float32 where the device has none, for long sums and high powers."""
    return values.to(torch.float32 if values.device.type == "mps" else torch.float64)


def as_tensor(where: str, name: str, values: Any) -> Tensor:
    """Take a tensor as it is, and anything else (list, array, DataArray) as a copy."""
    if isinstance(values, Tensor):
        return values
    try:
        return torch.tensor(native(np.asarray(values)))
    except (TypeError, ValueError):  # numpy's and torch's own words for what is no table of numbers
        called = "Call it" if callable(values) else "Take one of its variables, or convert it"
        raise TypeError(
            f"{where}: expected {name} as a tensor, array or DataArray of numbers, got "
            f"{describe(values) if callable(values) else type(values).__name__}. {called} first."
        ) from None


def by_output(where: str, name: str, values: Any) -> Tensor:
    """Take values as a tensor with one row for each output up to the last, NaN where none is given.

    Only what is labeled by `target` is put in order; all else is taken as it is.
    """
    table = as_tensor(where, name, values)
    if getattr(values, "dims", ())[:1] != ("target",) or "target" not in values.coords:
        return table
    targets = as_tensor(where, "target", values["target"]).long()
    if torch.equal(targets, torch.arange(len(targets))):
        return table
    shape = (int(targets.max()) + 1, *table.shape[1:])
    rows = torch.full(shape, torch.nan, dtype=torch.float64)
    return rows.index_copy(0, targets, table.double())


def row(where: str, table: Tensor, target: Tensor) -> Tensor:
    """Row of one example's target in a (target, ...) table; safe under vmap and compile."""
    try:
        return table.index_select(0, target.reshape(1)).squeeze(0)
    except (IndexError, RuntimeError) as error:  # the second under vmap
        if "out of" not in str(error):
            raise
        raise IndexError(
            f"{where}: expected targets below {len(table)}, the number of rows given, "
            "got a larger or negative one. Give one row for every output of the model."
        ) from None


def _spread(factor: Tensor, like: Tensor) -> Tensor:
    """Append axes of length one until `factor` broadcasts over the space of `like`."""
    return factor.reshape(factor.shape + (1,) * (like.ndim - factor.ndim))


def expect(where: str, record: Any, kind: type, advice: str) -> None:
    """Raise unless a record is of the kind a stage reads, of one example; advice ends the error."""
    if not isinstance(record, kind):
        raise TypeError(f"{where}: expected {kind.__name__}, got {type(record).__name__}. {advice}")
    target = getattr(record, "target", None)
    if isinstance(target, Tensor) and target.ndim:
        raise ValueError(
            f"{where}: expected {kind.__name__} of one example, got a batch with targets "
            f"{tuple(target.shape)}. Lift the chain over samples: ifa.batched(chain)(features)."
        )
