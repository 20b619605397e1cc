"""Hypothesis strategies for what the library works on: examples, batches, importances, maps.

No two axes of one tensor have the same extent, so that a mixed-up axis is an error of shape.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from hypothesis import reject
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from hypothesis.strategies import SearchStrategy
from torch import Tensor, nn

from ifa.reduce.kept import Observed
from ifa.scaling import Scale
from ifa.types import Features, Map

__all__ = [
    "batches",
    "features",
    "grouped_batches",
    "importances",
    "maps",
    "observations",
    "scales",
    "strided_networks",
    "tensors",
    "windowed_networks",
]

Draw = Any


def tensors(
    shape: Sequence[int],
    *,
    bound: float = 8.0,
    subnormal: bool = False,
    generic: bool = False,
    dtype: torch.dtype = torch.float64,
) -> SearchStrategy[Tensor]:
    """Draw a tensor: either number by number, which shrinks well, or as generic noise.

    Parameters
    ----------
    shape
        Extent of each axis.
    bound
        No value is larger in size.
    subnormal
        Whether numbers too small for a normal float32 may be drawn.
    generic
        Whether to draw noise only, for what is not defined where values coincide.
    dtype
        Of the tensor. The numbers themselves are all exact in float32.
    """
    numbers = st.floats(-bound, bound, width=32, allow_subnormal=subnormal)
    chosen = arrays.arrays(np.float32, tuple(shape), elements=numbers)

    def noise(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(*shape, generator=generator).clamp(-bound, bound).to(dtype)

    noisy = st.integers(0, 2**31 - 1).map(noise)
    if generic:
        return noisy
    return st.one_of(chosen.map(lambda array: torch.from_numpy(array.copy()).to(dtype)), noisy)


@st.composite
def features(
    draw: Draw,
    *,
    space: int | None = None,
    samples: bool = False,
    bound: float = 8.0,
    subnormal: bool = False,
    generic: bool = False,
    dtype: torch.dtype = torch.float64,
) -> Features:
    r"""Draw the features of one example: (channel, \*space), all extents different.

    Parameters
    ----------
    space
        How many space axes: 1, 2 or 3; any of them if None.
    samples
        Whether there is a leading sample axis.
    bound, subnormal, generic, dtype
        As in `tensors`.
    """
    axes = space or draw(st.integers(1, 3), label="space axes")
    shape = draw(_extents(axes + 1 + samples), label="shape")
    values = tensors(shape, bound=bound, subnormal=subnormal, generic=generic, dtype=dtype)
    target = draw(arrays.arrays(np.int64, shape[:samples], elements=st.integers(0, 4)))
    return Features(draw(values), draw(values), torch.from_numpy(np.array(target)))


@st.composite
def batches(
    draw: Draw,
    *,
    samples: tuple[int, int] = (1, 12),
    offsets: Sequence[float] = (0.0, 1e4, -1e6),
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    r"""Draw a batch (sample, \*feature) to be cut anywhere, also before its first sample.

    Parameters
    ----------
    samples
        Fewest and most samples.
    offsets
        Values lie about one of these. Far from zero is where sums of squares lose a variance.
    dtype
        Of the batch.
    """
    count = draw(st.integers(*samples), label="samples")
    shape = draw(_extents(draw(st.integers(0, 2)), at_most=4), label="feature axes")
    return draw(tensors((count, *shape), dtype=dtype)) + draw(st.sampled_from(offsets))


@st.composite
def grouped_batches(draw: Draw, *, size: int, **options: Any) -> tuple[Tensor, Tensor]:
    """Draw ``(values, group)``: a batch of `batches` with the group, of `size`, of each sample."""
    values = draw(batches(**options))
    group = draw(arrays.arrays(np.int64, len(values), elements=st.integers(0, size - 1)))
    return values, torch.from_numpy(group)


@st.composite
def observations(draw: Draw, *, targets: int, groups: int = 1) -> Observed:
    """Draw a batch for `ifa.reduce.population`, in which some maps are not finite."""
    count = draw(st.integers(1, 10), label="entries")

    def whole(high: int) -> Tensor:
        drawn = draw(arrays.arrays(np.int64, count, elements=st.integers(0, high)))
        return torch.from_numpy(drawn)

    importance = draw(tensors((count, 3)))
    low, high = draw(tensors((2, count), dtype=torch.float32)).sort(0).values
    broken = whole(4) == 4
    high = torch.where(broken, torch.inf, high)
    cells = whole(targets - 1), whole(groups - 1)
    weight = 0.25 + whole(3) / 4
    taken = whole(1).bool(), whole(1).bool()
    flags = whole(1).bool(), whole(1).bool()
    residual = draw(tensors((count,)))
    entries = weight, torch.arange(len(high))
    return Observed(importance, high, low, *cells, *taken, *entries, *flags, residual)


@st.composite
def importances(draw: Draw, *, rows: bool | None = None) -> Tensor:
    """Draw importances (channel,) or (target, channel), in which ties are common.

    Parameters
    ----------
    rows
        Whether there is a target axis; either if None.
    """
    tabular = draw(st.booleans(), label="rows") if rows is None else rows
    shape = draw(_extents(2 if tabular else 1, at_most=9), label="shape")
    few = st.sampled_from([-2.0, -1.0, 0.0, 1.0, 2.0])
    tied = arrays.arrays(np.float64, tuple(shape), elements=few, fill=few)
    return draw(st.one_of(tied.map(lambda array: torch.from_numpy(array.copy())), tensors(shape)))


@st.composite
def maps(draw: Draw, *, space: int | None = None, samples: bool = False) -> Map:
    r"""Draw a map of one example: (\*space), signed; with `samples` a batch of them."""
    drawn = draw(features(space=space, samples=samples))
    return Map(drawn.activations.select(int(samples), 0), drawn.target)


@st.composite
def scales(draw: Draw, *, targets: int | None = None) -> Scale:
    """Draw an intensity scale of some width, often with a limit of exactly zero.

    Parameters
    ----------
    targets
        None for one scale, a number for one of each target.
    """
    pairs = [draw(_limits()) for _ in range(targets or 1)]
    low, high = torch.tensor(pairs, dtype=torch.float64).unbind(1)
    return Scale(low, high) if targets else Scale(low[0], high[0])


@st.composite
def _limits(draw: Draw) -> tuple[float, float]:
    width = draw(st.floats(0.125, 64.0, width=32), label="width of the scale")
    start = draw(st.floats(-64.0, 64.0, width=32, allow_subnormal=False))
    low = draw(st.sampled_from([0.0, -width, start]), label="low")
    return low, low + width


def _extents(axes: int, at_most: int = 6) -> SearchStrategy[list[int]]:
    return st.lists(st.integers(1, at_most), min_size=axes, max_size=axes, unique=True)


@st.composite
def windowed_networks(draw: Draw) -> tuple[nn.Module, str, Tensor, dict[str, Any]]:
    r"""Draw a network of convolutions, pools and pads, with its last layer and an example.

    Some units of every axis of the example see none of its borders.

    Returns
    -------
    (model, layer, example, options)
        The network, the name of its last layer, an example, and no options.
    """
    space = draw(st.integers(1, 3), label="axes of space")
    layers = draw(st.lists(_windows(space), min_size=1, max_size=4 - space // 2))
    step = sees = 1
    for _, reach, stride in layers:
        sees += reach * step
        step *= stride
    parts = [part for part, _, _ in layers]
    net = nn.Sequential(*parts, nn.ReLU(), nn.Flatten()).eval().requires_grad_(False)
    extents = (sees + 3 * step + 3 + axis for axis in range(space))
    return net, str(len(parts)), torch.zeros(1, 2, *extents), {}


@st.composite
def _windows(draw: Draw, space: int) -> tuple[nn.Module, int, int]:
    """Draw a layer, with the reach of its windows and their stride."""
    kind = draw(st.sampled_from(["Conv", "Conv, same", "MaxPool", "AvgPool", "ConstantPad"]))
    make = getattr(nn, f"{kind.partition(',')[0]}{space}d")
    if kind == "ConstantPad":
        sides = st.lists(st.integers(0, 2), min_size=2 * space, max_size=2 * space)
        return make(tuple(draw(sides)), 0.0), 0, 1
    kernel, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 2))
    options: dict[str, Any] = {"kernel_size": kernel, "padding": draw(st.integers(0, kernel // 2))}
    options["stride"] = draw(st.integers(1, 3))
    if kind == "Conv, same":
        options |= {"padding": "same", "stride": 1}
    if kind == "AvgPool":
        dilation = 1
    else:
        options["dilation"] = dilation
    options |= {"ceil_mode": draw(st.booleans())} if "Pool" in kind else {}
    channels = (2, 2) if "Conv" in kind else ()
    return make(*channels, **options), dilation * (kernel - 1), options["stride"]


@st.composite
def strided_networks(draw: Draw) -> tuple[nn.Module, Tensor]:
    r"""Draw a network of layers with strides and branches that meet again, and an example for it.

    Returns
    -------
    (model, example)
        In float64; the output lies on a grid, (sample, channel, \*space).
    """
    space = draw(st.integers(1, 3), label="axes of space")
    parts = draw(st.lists(_strided(space), min_size=1, max_size=4 - space // 3))
    sizes = st.integers(5, (61, 23, 13)[space - 1])
    extents = draw(st.lists(sizes, min_size=space, max_size=space, unique=True), label="space")
    seed = draw(st.integers(0, 2**31 - 1), label="seed")
    generator = torch.Generator().manual_seed(seed)
    net = nn.Sequential(*parts).double().eval().requires_grad_(False)
    for values in (*net.parameters(), *net.buffers()):
        if values.is_floating_point():  # of batch norms the variance as well
            values.copy_(torch.rand(values.shape, generator=generator, dtype=values.dtype) - 0.3)
    for one in net.modules():
        if isinstance(one, nn.modules.batchnorm._BatchNorm) and one.running_var is not None:
            one.running_var.abs_().add_(0.1)
    example = torch.zeros(2, 4, *extents, dtype=torch.float64)
    try:
        net(example)
    except (RuntimeError, ValueError):  # the example is too small for the windows
        reject()
    return net, example


class Branches(nn.Module):
    """Two ways that meet again: added, or joined and mixed."""

    def __init__(self, left: nn.Module, right: nn.Module, space: int, joined: bool):
        super().__init__()
        self.left, self.right, self.joined = left, right, joined
        self.mix = getattr(nn, f"Conv{space}d")(8, 4, 1) if joined else nn.Identity()

    def forward(self, inputs: Tensor) -> Tensor:
        left, right = self.left(inputs), self.right(inputs)
        return self.mix(torch.cat([left, right], 1)) if self.joined else left.add_(right)


@st.composite
def _strided(draw: Draw, space: int) -> nn.Module:
    """Draw a layer, or two in branches, that keeps the number of channels."""
    kind = draw(st.sampled_from(["Conv", "Conv, same", "MaxPool", "AvgPool", "pad", "norm", "two"]))
    if kind == "pad":
        mode = draw(st.sampled_from(["Constant", "Reflection", "Replication"]))
        sides = st.lists(st.integers(0, 2), min_size=2 * space, max_size=2 * space)
        options = (0.5,) if mode == "Constant" else ()
        return getattr(nn, f"{mode}Pad{space}d")(tuple(draw(sides)), *options)
    if kind == "norm":
        norms = [nn.GroupNorm(2, 4), getattr(nn, f"BatchNorm{space}d")(4)]
        norms += [getattr(nn, f"InstanceNorm{space}d")(4, affine=True), nn.GELU()]
        return nn.Sequential(draw(st.sampled_from(norms)), nn.ReLU(inplace=True))
    if kind == "two":
        stride, joined = draw(st.integers(1, 3)), draw(st.booleans())
        left = getattr(nn, f"Conv{space}d")(4, 4, 3, stride=stride, padding=1)
        if draw(st.booleans()):
            right = getattr(nn, f"AvgPool{space}d")(stride, ceil_mode=True)
        else:
            right = getattr(nn, f"Conv{space}d")(4, 4, 1, stride=stride)
        return Branches(left, right, space, joined)
    return draw(_sliding(space, kind))


@st.composite
def _sliding(draw: Draw, space: int, kind: str) -> nn.Module:
    """Draw a convolution or a pool, each axis with options of its own."""

    def each(values: SearchStrategy[int]) -> tuple[int, ...]:
        return tuple(draw(st.lists(values, min_size=space, max_size=space)))

    kernel = each(st.integers(1, 5 if space < 3 else 3))
    options: dict[str, Any] = {"kernel_size": kernel, "stride": each(st.integers(1, 3))}
    options["padding"] = tuple(draw(st.integers(0, extent // 2)) for extent in kernel)
    if kind != "AvgPool":
        options["dilation"] = each(st.integers(1, 2))
    if kind == "Conv, same":
        options |= {"padding": "same", "stride": 1}
    if "Pool" in kind:
        options["ceil_mode"] = draw(st.booleans())
    if kind == "AvgPool":
        options["count_include_pad"] = draw(st.booleans())
        if space > 1 and draw(st.booleans()):
            options["divisor_override"] = draw(st.integers(1, 5))
    channels = (4, 4) if "Conv" in kind else ()
    options |= {"groups": draw(st.sampled_from([1, 2, 4]))} if channels else {}
    return getattr(nn, f"{kind.partition(',')[0]}{space}d")(*channels, **options)
