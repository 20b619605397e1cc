"""What an operation does to where elements lie: one small rule for each kind of operation."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ifa.taps.lattices import (
    Dim,
    Lattice,
    Lost,
    absorbed,
    blank,
    cut,
    extended,
    extent_of,
    holds,
    leaves,
    reshaped,
    slid,
    united,
    with_dim,
)

Shape = tuple[int, ...]
# what is known of an argument; None of one that does not stem from the input
At = Callable[[Any], Lattice | None]
# (arguments by name, at, shapes of the outputs) -> one lattice for all outputs, or one for each
Rule = Callable[[Mapping[str, Any], At, Sequence[Shape]], Lattice | list[Lattice | None] | None]


def _first(a: Mapping[str, Any], at: At, _: Sequence[Shape]) -> Lattice | None:
    return at(next(value for value in a.values() if isinstance(value, Tensor)))


def _pointwise(a: Mapping[str, Any], at: At, shapes: Sequence[Shape]) -> Lattice | None:
    found = [at(value) for value in a.values() if isinstance(value, Tensor)]
    # of `where`, `addcmul` and the like all; of lists, as for_each has them, none
    placed = [lattice for lattice in found if lattice is not None]
    return united(placed, shapes[0]) if placed else None


def _copy(a: Mapping[str, Any], at: At, shapes: Sequence[Shape]) -> Lattice | None:
    source = at(a["src"])
    return None if source is None else united([source], shapes[0])


def _nothing(a: Mapping[str, Any], at: At, _: Sequence[Shape]) -> None:
    """Of what looks at shapes only."""


def _reduction(a: Mapping[str, Any], at: At, shapes: Sequence[Shape]) -> Lattice:
    lattice = _self(a, at)
    dim, rank = a.get("dim"), len(lattice.dims)
    given = range(rank) if dim is None else [dim] if isinstance(dim, int) else dim
    gone = {index % rank for index in given or range(rank)}
    lattice = absorbed(lattice, *(lattice.dims[index] for index in gone))
    dims = [() if n in gone else dim for n, dim in enumerate(lattice.dims)]
    kept = [dim for n, dim in enumerate(dims) if a["keepdim"] or n not in gone]
    return lattice._replace(dims=tuple(kept))


# sliding windows ---------------------------------------------------------------------------------


def _windows(
    lattice: Lattice, shape: Shape, ends: Sequence[tuple[float, float]], strides: Sequence[float]
) -> Lattice:
    for index, ((first, last), stride) in enumerate(zip(ends, strides, strict=True), -len(ends)):
        lattice = slid(lattice, index, shape[index], first, last, stride)
    return lattice


def _convolution(a: Mapping[str, Any], at: At, shapes: Sequence[Shape]) -> Lattice:
    lattice, kernel = _only(a, at, "input"), a["weight"].shape[2:]
    axes = len(kernel)
    stride, padding, dilation = (_each(a[name], axes) for name in ("stride", "padding", "dilation"))
    ends = [(-p, d * (k - 1) - p) for k, p, d in zip(kernel, padding, dilation, strict=True)]
    steps: list[float] = list(stride)
    if a.get("transposed"):
        # output j depends on the inputs (j + p - d k) / s
        ends = [(-last / s, -first / s) for (first, last), s in zip(ends, stride, strict=True)]
        steps = [1 / s for s in stride]
    channels = -axes - 1
    lattice = absorbed(lattice, lattice.dims[channels])
    lattice = with_dim(lattice, channels, blank(shapes[0][channels]))
    return _windows(lattice, shapes[0], ends, steps)


def _pool(a: Mapping[str, Any], at: At, shapes: Sequence[Shape], axes: int) -> Lattice:
    kernel = _each(a["kernel_size"], axes)
    stride = _each(a["stride"] or kernel, axes)
    padding, dilation = _each(a["padding"], axes), _each(a.get("dilation", 1), axes)
    ends = [(-p, d * (k - 1) - p) for k, p, d in zip(kernel, padding, dilation, strict=True)]
    return _windows(_self(a, at), shapes[0], ends, stride)


def _adaptive(a: Mapping[str, Any], at: At, shapes: Sequence[Shape], axes: int) -> Lattice:
    lattice = _self(a, at)
    kernel = []
    for dim, extent in zip(lattice.dims[-axes:], shapes[0][-axes:], strict=True):
        size, odd = divmod(extent_of(dim), extent)
        if odd and holds(dim):
            raise Lost("to a size that does not divide its input's")
        kernel.append(max(size, 1))
    return _windows(lattice, shapes[0], [(0, k - 1) for k in kernel], kernel)


def _upsample(a: Mapping[str, Any], at: At, shapes: Sequence[Shape]) -> Lattice:
    lattice = _only(a, at, "self" if "self" in a else "input")
    axes = len(shapes[0]) - 2
    scales = a.get("scale_factors") or [v for name, v in a.items() if name.startswith("scales")]
    ends, steps = [], []
    for n, index in enumerate(range(-axes, 0)):
        before, after = extent_of(lattice.dims[index]), shapes[0][index]
        step = 1 / (scales[n] if scales and scales[n] else after / before)
        offset = (step - 1) / 2
        if a.get("align_corners"):
            step, offset = (before - 1) / max(after - 1, 1), 0.0
        ends.append((offset, offset))
        steps.append(step)
    return _windows(lattice, shapes[0], ends, steps)


def _pad(a: Mapping[str, Any], at: At, shapes: Sequence[Shape]) -> Lattice:
    lattice = _self(a, at)
    pads = a["pad"] if "pad" in a else a["padding"]
    for n, left in enumerate(pads[::2]):
        index = -1 - n
        lattice = slid(lattice, index, shapes[0][index], -left, -left, 1)
    return lattice


def _unfold(a: Mapping[str, Any], at: At, shapes: Sequence[Shape]) -> Lattice:
    """Tensor.unfold: windows along one dimension, their inside as a last one."""
    lattice = _self(a, at)
    index = a["dimension"] % len(lattice.dims)
    inside = lattice.dims[index]
    outer = slid(lattice, index, shapes[0][index], 0, 0, a["step"])
    inner = (inside[0]._replace(extent=a["size"]),) if holds(inside) else blank(a["size"])
    return outer._replace(dims=(*outer.dims, inner))


def _im2col(a: Mapping[str, Any], at: At, shapes: Sequence[Shape]) -> Lattice:
    lattice = _self(a, at)
    options = zip(
        *(_each(a[name], 2) for name in ("kernel_size", "stride", "padding", "dilation")),
        strict=True,
    )
    ends, steps, counts = [], [], []
    for dim, (kernel, stride, padding, dilation) in zip(lattice.dims[-2:], options, strict=True):
        reach = dilation * (kernel - 1)
        ends.append((-padding, reach - padding))
        steps.append(stride)
        counts.append((extent_of(dim) + 2 * padding - reach - 1) // stride + 1)
    lattice = _windows(lattice, tuple(counts), ends, steps)
    *lead, channels, rows, columns = lattice.dims
    lattice = absorbed(lattice, channels)
    return lattice._replace(dims=(*lead, blank(shapes[0][-2]), rows + columns))


# the same elements in other dimensions -----------------------------------------------------------


def _view(a: Mapping[str, Any], at: At, shapes: Sequence[Shape]) -> Lattice:
    return reshaped(_self(a, at), shapes[0])


def _permute(a: Mapping[str, Any], at: At, _: Sequence[Shape]) -> Lattice:
    lattice = _self(a, at)
    return lattice._replace(dims=tuple(lattice.dims[index] for index in a["dims"]))


def _transpose(a: Mapping[str, Any], at: At, _: Sequence[Shape]) -> Lattice:
    lattice = _self(a, at)
    dims, one, other = list(lattice.dims), a.get("dim0", 0), a.get("dim1", -1)
    dims[one], dims[other] = dims[other], dims[one]
    return lattice._replace(dims=tuple(dims))


def _unsqueeze(a: Mapping[str, Any], at: At, shapes: Sequence[Shape]) -> Lattice:
    lattice, index = _self(a, at), a["dim"] % len(shapes[0])
    return lattice._replace(dims=(*lattice.dims[:index], (), *lattice.dims[index:]))


def _squeeze(a: Mapping[str, Any], at: At, _: Sequence[Shape]) -> Lattice:
    lattice = _self(a, at)
    given, rank = a.get("dim", range(len(lattice.dims))), len(lattice.dims)
    asked = {index % rank for index in ([given] if isinstance(given, int) else given)}
    dims = enumerate(lattice.dims)
    kept = tuple(dim for n, dim in dims if n not in asked or extent_of(dim) > 1)
    return lattice._replace(dims=kept)


def _expand(a: Mapping[str, Any], at: At, shapes: Sequence[Shape]) -> Lattice:
    return united([_self(a, at)], shapes[0])


def _slice(a: Mapping[str, Any], at: At, shapes: Sequence[Shape]) -> Lattice:
    lattice = _self(a, at)
    index = a["dim"] % len(lattice.dims)
    extent = extent_of(lattice.dims[index])
    start, _, step = slice(a["start"], a["end"], a["step"]).indices(extent)
    return cut(lattice, index, start, step, shapes[0][index])


def _select(a: Mapping[str, Any], at: At, _: Sequence[Shape]) -> Lattice:
    return _selected(_self(a, at), a["dim"], a["index"])


def _selected(lattice: Lattice, dim: int, position: int) -> Lattice:
    index = dim % len(lattice.dims)
    lattice = cut(lattice, index, position % extent_of(lattice.dims[index]), 1, 1)
    return lattice._replace(dims=lattice.dims[:index] + lattice.dims[index + 1 :])


def _split(a: Mapping[str, Any], at: At, shapes: Sequence[Shape]) -> list[Lattice | None]:
    lattice, begin, parts = _self(a, at), 0, []
    index = a["dim"] % len(lattice.dims)
    for shape in shapes:
        parts.append(cut(lattice, index, begin, 1, shape[index]))
        begin += shape[index]
    return parts


def _unbind(a: Mapping[str, Any], at: At, shapes: Sequence[Shape]) -> list[Lattice | None]:
    lattice = _self(a, at)
    return [_selected(lattice, a["dim"], position) for position in range(len(shapes))]


def _roll(a: Mapping[str, Any], at: At, _: Sequence[Shape]) -> Lattice:
    lattice = _self(a, at)
    rolled = list(lattice.rolled)
    for shift, index in zip(a["shifts"], a["dims"], strict=True):
        dim = lattice.dims[index]
        here = [factor.axis for factor in leaves(dim)]
        everywhere = [factor.axis for other in lattice.dims for factor in leaves(other)]
        for axis in here:
            if len(dim) > 1 or dim[0].parts or everywhere.count(axis) > 1:
                raise Lost("over what is not one axis of the input")
            rolled[axis or 0] = (rolled[axis or 0] - shift) % extent_of(dim)
    return lattice._replace(rolled=tuple(rolled))


def _flip(a: Mapping[str, Any], at: At, _: Sequence[Shape]) -> Lattice:
    lattice = _self(a, at)
    for index in a["dims"]:
        extent = extent_of(lattice.dims[index])
        lattice = slid(lattice, index, extent, extent - 1, extent - 1, -1)
    return lattice


def _pixel_shuffle(a: Mapping[str, Any], at: At, shapes: Sequence[Shape]) -> Lattice:
    factor, lattice = a["upscale_factor"], _self(a, at)
    offset = (1 / factor - 1) / 2
    lattice = with_dim(lattice, -3, blank(shapes[0][-3]))
    return _windows(lattice, shapes[0], [(offset, offset)] * 2, [1 / factor] * 2)


def _pixel_unshuffle(a: Mapping[str, Any], at: At, shapes: Sequence[Shape]) -> Lattice:
    factor, lattice = a["downscale_factor"], _self(a, at)
    lattice = with_dim(lattice, -3, blank(shapes[0][-3]))
    return _windows(lattice, shapes[0], [(0, factor - 1)] * 2, [factor] * 2)


def _channels_only(a: Mapping[str, Any], at: At, shapes: Sequence[Shape]) -> Lattice:
    """Of what repeats, takes or halves along dimensions that hold no positions."""
    lattice = _self(a, at)
    lead = len(shapes[0]) - len(lattice.dims)
    dims: list[Dim] = [()] * lead + list(lattice.dims)
    for n, (dim, extent) in enumerate(zip(dims, shapes[0], strict=True)):
        if extent != extent_of(dim) or n == a.get("dim"):
            if holds(dim):
                raise Lost("of positions")
            dims[n] = blank(extent)
    return lattice._replace(dims=tuple(dims))


# several tensors ---------------------------------------------------------------------------------


def _cat(a: Mapping[str, Any], at: At, shapes: Sequence[Shape]) -> Lattice:
    tensors = [tensor for tensor in a["tensors"] if tensor.ndim == len(shapes[0])]
    index, shape = a["dim"] % len(shapes[0]), list(shapes[0])
    found = [(at(tensor), tensor.shape[index]) for tensor in tensors]
    along = [n for n, (lattice, _) in enumerate(found) if lattice and holds(lattice.dims[index])]
    placed = [lattice for lattice, _ in found if lattice is not None]
    if not along:  # channels
        shape[index] = 1
        flat = [with_dim(lattice, index, ()) for lattice in placed]
        return with_dim(united(flat, shape), index, blank(shapes[0][index]))
    if len(along) > 1:
        raise Lost("of positions")
    (n,) = along
    shape[index] = found[n][1]
    lattice = united([lattice for lattice in placed if lattice is found[n][0]], shape)
    return extended(lattice, index, sum(e for _, e in found[:n]), sum(e for _, e in found[n + 1 :]))


def _stack(a: Mapping[str, Any], at: At, shapes: Sequence[Shape]) -> Lattice:
    index, placed = a["dim"] % len(shapes[0]), [at(tensor) for tensor in a["tensors"]]
    shape = shapes[0][:index] + shapes[0][index + 1 :]
    lattice = united([each for each in placed if each is not None], shape)
    dims = (*lattice.dims[:index], blank(shapes[0][index]), *lattice.dims[index:])
    return lattice._replace(dims=dims)


def _product(a: Mapping[str, Any], at: At, shapes: Sequence[Shape]) -> Lattice:
    """Rows of the first by columns of the second; where both have places, those of the rows.

    So what attention gives lies where the query does.
    """
    names = [name for name in a if isinstance(a[name], Tensor)][-2:]
    left, right = (at(a[name]) for name in names)
    if left and (right is None or any(map(holds, left.dims[:-1]))):
        one, summed, kept = left, -1, -2
    elif right:
        one, summed, kept = right, -2, -1
    else:
        raise Lost("of tensors that lie nowhere")
    lattice, (rows, columns) = absorbed(one, one.dims[summed]), shapes[0][-2:]
    if kept == -2:
        return lattice._replace(dims=(*one.dims[:-1], blank(columns)))
    return lattice._replace(dims=(*one.dims[:-2], blank(rows), one.dims[-1]))


def _attention(a: Mapping[str, Any], at: At, shapes: Sequence[Shape]) -> Lattice | None:
    query = at(a["query"])
    return None if query is None else with_dim(query, -1, blank(shapes[0][-1]))


def _embedding(a: Mapping[str, Any], at: At, shapes: Sequence[Shape]) -> Lattice:
    lattice = _only(a, at, "indices")
    return lattice._replace(dims=(*lattice.dims, blank(shapes[0][-1])))


def _self(a: Mapping[str, Any], at: At) -> Lattice:
    return _only(a, at, "self" if "self" in a else "input")


def _only(a: Mapping[str, Any], at: At, name: str) -> Lattice:
    lattice = at(a[name])
    if lattice is None:  # such as a convolution whose weights were computed from the input
        raise Lost(f"in which not {name!r} but another argument stems from the input")
    return lattice


def _each(values: Any, axes: int) -> tuple[int, ...]:
    values = (values,) if isinstance(values, int) else tuple(values)
    return values * axes if len(values) == 1 else values


def _named(rule: Rule, names: str) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


RULES: dict[str, Rule] = {
    **_named(
        _first,
        "clone _to_copy alias detach lift_fresh contiguous native_layer_norm native_group_norm "
        "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training "
        "cudnn_batch_norm _fused_rms_norm native_dropout _softmax _log_softmax _safe_softmax "
        "_masked_softmax _transformer_encoder_layer_fwd native_channel_shuffle channel_shuffle "
        "_native_multi_head_attention masked_fill hardswish",
    ),
    **_named(
        _nothing,
        "empty_like zeros_like ones_like full_like rand_like randn_like new_empty new_zeros "
        "new_ones new_full new_empty_strided",
    ),
    **_named(_view, "view _unsafe_view _reshape_alias"),
    **_named(_permute, "permute"),
    **_named(_transpose, "transpose t"),
    **_named(_product, "mm addmm bmm baddbmm"),
    **_named(_channels_only, "repeat index_select glu"),
    **_named(_split, "split split_with_sizes"),
    **_named(
        _pad,
        "constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d "
        "replication_pad2d replication_pad3d",
    ),
    **_named(
        _attention,
        "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention "
        "_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention "
        "_scaled_dot_product_attention_math",
    ),
    **_named(
        _upsample,
        "upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d "
        "_upsample_nearest_exact2d _upsample_nearest_exact3d upsample_linear1d "
        "upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d",
    ),
    "convolution": _convolution,
    "embedding": _embedding,
    "copy": _copy,
    "unsqueeze": _unsqueeze,
    "squeeze": _squeeze,
    "expand": _expand,
    "slice": _slice,
    "select": _select,
    "unbind": _unbind,
    "unfold": _unfold,
    "im2col": _im2col,
    "roll": _roll,
    "flip": _flip,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    "cat": _cat,
    "stack": _stack,
}
for _axes in (1, 2, 3):
    for _name in ("max_pool{}d_with_indices", "avg_pool{}d"):
        RULES[_name.format(_axes)] = lambda a, at, s, n=_axes: _pool(a, at, s, n)
    for _name in ("_adaptive_avg_pool{}d", "adaptive_max_pool{}d"):
        RULES[_name.format(_axes)] = lambda a, at, s, n=_axes: _adaptive(a, at, s, n)


def rule_of(func: Any, name: str) -> Rule | None:
    """Return the rule of an operation, or None of one that is not known."""
    if name in RULES:
        return RULES[name]
    if torch.Tag.pointwise in func.tags:
        return _pointwise
    reduces = any(argument.name == "keepdim" for argument in func._schema.arguments)
    return _reduction if reduces else None
