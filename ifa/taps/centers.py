"""Where the units of a layer lie in the input, by arithmetic over the operations that ran."""

import contextlib
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from ifa.network.inputs import Place, at, clone, grid_place, space_of, take
from ifa.network.outputs import every_tensor, map_tensors
from ifa.network.replicas import Replica
from ifa.taps.carrying import rule_of
from ifa.taps.features import Prepared, prepare
from ifa.taps.lattices import Lattice, Lost, absorbed, axes, blank, extent_of, whole
from ifa.types import Grid, Inputs, Output, Positions


class EvenTiling(UserWarning):
    """It is not known where a layer's units lie; they are taken to tile the input evenly."""


def positions(
    model: nn.Module,
    layer: str | nn.Module | None,
    example: Inputs,
    *,
    grid: Grid | None = None,
    output: Output = None,
    grid_of: str | int | None = None,
) -> Positions:
    r"""Find out where each unit of a layer lies in the input: its receptive field's centre.

    .. math:: c_i = \text{start} + \text{step} \cdot i

    on each axis of space, in input pixels, where the centre of the first pixel is 0. A window of
    extent k, stride s, padding p and dilation d on units of step :math:`q` has step :math:`s q` and
    starts by :math:`(d (k - 1) / 2 - p) q` further on. The example runs through a private copy, and
    every operation on the way moves these figures along: convolutions, also transposed, pools,
    pads, interpolation, slices, reshapes and permutations, rolls, whatever acts on each element by
    itself or on channels only. Attention lies where its query does. Branches that meet have the
    centre of all they see. Borders are not looked at: units there see less, on one side.

    Where an operation is not known, the units are taken to tile the input evenly, as
    `ifa.resize` does: ``start = (extent / units - 1) / 2, step = extent / units``, and a warning
    of category `ifa.EvenTiling` names the operation.

    Parameters
    ----------
    model, layer, grid, output, grid_of
        As in `ifa.tap`; of one layer.
    example : (sample, channel, \*space) or (sample, space)
        A batch, of which the first sample runs, or a tree of tensors. Places are those in the
        tensor with the grid.

    Returns
    -------
    Positions
        ``start`` and ``step``, each (axis,) float64.

    Raises
    ------
    LookupError, ValueError
        As `ifa.tap`; also if the layer has not as many axes of space as the input.

    References
    ----------
    Araujo, Norris & Sim 2019, "Computing receptive fields of convolutional neural networks",
    Distill. doi:10.23915/distill.00021

    Examples
    --------
    >>> import ifa, torch
    >>> padded = torch.nn.Conv2d(1, 3, 3, stride=2, padding=1)
    >>> net = torch.nn.Sequential(padded, torch.nn.ReLU(), torch.nn.Flatten())
    >>> where = ifa.positions(net, "1", torch.zeros(1, 1, 8, 8))
    >>> where.start.tolist(), where.step.tolist()
    ([0.0, 0.0], [2.0, 2.0])
    """
    if not (layer is None or isinstance(layer, str | nn.Module)):
        raise TypeError(
            f"ifa.positions: expected one layer, got {type(layer).__name__}. Call it for each."
        )
    prepared = prepare(model, layer, example, grid=grid, output=output, grid_of=grid_of)
    return centers(prepared, example, "ifa.positions", grid_of)[0]


def centers(
    prepared: Prepared, example: Inputs, where: str, grid_of: str | int | None = None
) -> tuple[Positions, ...]:
    """Return the positions of every layer of a tap; its replica keeps them."""
    replica = prepared.replicas.get()
    key = f"positions, {grid_of}"
    if key not in replica.known:
        wanted = dict(zip(prepared.calls, prepared.grids, strict=True))
        place = grid_place(where, example, grid_of)
        inputs = take(map_tensors(example, Tensor.detach), slice(1))
        replica.known[key] = _located(replica, wanted, inputs, place, where)
    return replica.known[key]


def steps_known(
    model: nn.Module,
    layer: str | nn.Module | None,
    example: Inputs,
    *,
    grid: Grid | None = None,
    output: Output = None,
    grid_of: str | int | None = None,
) -> tuple[float, ...] | None:
    """Return how far apart the units of a layer lie on each axis; None where that is not known."""
    prepared = prepare(model, layer, example, grid=grid, output=output, grid_of=grid_of)
    wanted = dict(zip(prepared.calls, prepared.grids, strict=True))
    place = grid_place("ifa.positions", example, grid_of)
    inputs = take(map_tensors(example, Tensor.detach), slice(1))
    replica = prepared.replicas.get()
    spaces = _spaces(at(inputs, place).ndim)
    read = (_looked(replica, wanted, inputs, place, space) for space in spaces)
    each = [_read(*seen[call]) for seen in read for call in wanted]
    found = next((one for one in each if isinstance(one, Positions)), None)
    return None if found is None else tuple(found.step.tolist())


def _spaces(rank: int) -> list[tuple[int, ...]]:
    """Return which axes may be those of space."""
    # (channel, *space), or (space,) alone, or (frame, channel, *space)
    return [tuple(range(min(2, rank - 1), rank)), *([(1, 3, 4)] if rank == 5 else [])]


def _located(
    replica: Replica, wanted: Mapping[str, Grid | None], inputs: Inputs, place: Place, where: str
) -> tuple[Positions, ...]:
    origin = at(inputs, place)
    extents = list(space_of(origin))
    found = [_looked(replica, wanted, inputs, place, space) for space in _spaces(origin.ndim)]
    out = []
    for call in wanted:
        read = [_read(*seen[call]) for seen in found]
        known = [each for each in read if isinstance(each, Positions)]
        out += known[:1] or [_even(call, *found[0][call], extents, where)]
    return tuple(out)


_Seen = tuple[Lattice | str | None, tuple[int, ...]]  # where a layer's output lies, and its shape


def _looked(
    replica: Replica,
    wanted: Mapping[str, Grid | None],
    inputs: Inputs,
    place: Place,
    space: tuple[int, ...],
) -> dict[str, _Seen]:
    found: dict[str, _Seen] = {}
    inputs = clone(inputs)  # which the network may write to

    def look(call: str, tensor: Tensor) -> Tensor:
        if call in wanted and call not in found:
            lay = wanted[call]
            laid = tensor if lay is None else lay(tensor)
            found[call] = carrier.known.get(laid), tuple(laid.shape)
            if len(found) == len(wanted):
                raise _Done
        return tensor

    with torch.no_grad(), _Carrier() as carrier, contextlib.suppress(_Done):
        origin = at(inputs, place)
        carrier.known[origin] = whole(origin.shape, space)
        replica.run(inputs, look)
    return found


def _read(lattice: Lattice | str | None, shape: tuple[int, ...]) -> Positions | str:
    """Return where a laid out layer lies, or what is in the way of knowing it."""
    if not isinstance(lattice, Lattice):
        return lattice or "one that makes a tensor anew"
    lattice = absorbed(
        lattice, *lattice.dims[:2]
    )  # a patch that was merged into channels sees all of its pixels
    starts, steps = [], []
    for axis, dim in enumerate(lattice.dims[2:]):
        if len(dim) != 1 or dim[0].axis != axis or lattice.rolled[axis]:
            return "one that mixes the axes of space"
        starts.append((lattice.low[axis] + lattice.high[axis]) / 2)
        steps.append(dim[0].step)
    if len(steps) != len(lattice.low):
        return "one that mixes the axes of space"
    return Positions(*(torch.tensor(values, dtype=torch.float64) for values in (starts, steps)))


def _even(
    call: str,
    lattice: Lattice | str | None,
    shape: tuple[int, ...],
    space: list[int],
    where: str,
) -> Positions:
    """Return positions of units that tile the input evenly, and say so."""
    units, layer = shape[2:], call.removesuffix("#1")
    if len(units) != len(space):
        raise ValueError(
            f"{where}: expected layer {layer!r} to have the {len(space)} axes of space of the "
            f"input, got {shape}, of (sample, channel, *space). Take another layer, say with "
            "grid= how its output lies, or explain it with size=None."
        )
    step = torch.tensor(space, dtype=torch.float64) / torch.tensor(units, dtype=torch.float64)
    start = (step - 1) / 2
    if max(units) == 1:  # it sees everything
        return Positions(start, step)
    warnings.warn(
        f"{where}: expected only operations that keep track of places on the way to layer "
        f"{layer!r}, got {_read(lattice, shape)}. Its units are taken to tile the input evenly: "
        f"start {start.tolist()}, step {step.tolist()}, as ifa.resize does. With placing='even' "
        "ifa.explain does so without a word.",
        EvenTiling,
        stacklevel=4,
    )
    return Positions(start, step)


class _Done(Exception):
    """Every layer was seen."""


class _Carrier(TorchDispatchMode):
    """Carries along where the elements of every tensor lie, or which operation it was lost at."""

    def __init__(self) -> None:
        super().__init__()
        self.known: Any = WeakTensorKeyDictionary()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if any(tensor in self.known for tensor in every_tensor((args, kwargs))):
            self._note(func, args, kwargs, list(every_tensor(out)))
        return out

    def _note(self, func: Any, args: Any, kwargs: Any, outputs: list[Tensor]) -> None:
        schema = func._schema.arguments
        given = {argument.name: argument.default_value for argument in schema}
        given |= dict(zip(given, args, strict=False)) | kwargs
        name = func.overloadpacket.__name__
        name = name.rstrip("_") if not name.startswith("__") else name
        if name == "copy":  # what it overwrites does not matter
            given = {"src": given["src"]}
        try:
            lattices = self._carried(func, name, given, [tuple(t.shape) for t in outputs])
        except Lost as lost:
            lattices = [f"{name!r} {lost}".rstrip()] * len(outputs)
        for tensor, lattice in zip(outputs, lattices, strict=False):
            self._set(tensor, lattice)

    def _carried(self, func: Any, name: str, given: Any, shapes: Any) -> list[Any]:
        lost = [
            (self.known.get(tensor), tensor.shape)
            for tensor in every_tensor(given)
            if isinstance(self.known.get(tensor), str)
        ]
        rule = rule_of(func, name)
        if rule is None:
            raise Lost
        if lost and torch.Tag.pointwise not in func.tags:
            return [lost[0][0]] * len(shapes)

        def at(tensor: Any) -> Lattice | None:
            lattice = self.known.get(tensor) if isinstance(tensor, Tensor) else None
            return lattice if isinstance(lattice, Lattice) else None

        out = rule(given, at, shapes)
        for reason, shape in lost:  # a gate has no positions of its own to disturb
            if not isinstance(out, Lattice) or not _gates(shape, out):
                return [reason] * len(shapes)
        return out if isinstance(out, list) else [out] * len(shapes)

    def _set(self, tensor: Tensor, lattice: Lattice | str | None) -> None:
        if isinstance(lattice, Lattice):
            if not axes(lattice):
                lattice = None
            elif tuple(map(extent_of, lattice.dims)) != tuple(tensor.shape):
                return  # what comes with a result, such as a norm's mean
        if lattice is None:
            self.known.pop(tensor, None)
        else:
            self.known[tensor] = lattice


def _gates(shape: tuple[int, ...], lattice: Lattice) -> bool:
    """Tell whether a tensor is broadcast over every dimension that holds positions."""
    dims = lattice.dims[len(lattice.dims) - len(shape) :]
    return all(
        extent == 1 or dim == blank(extent_of(dim)) for extent, dim in zip(shape, dims, strict=True)
    )
