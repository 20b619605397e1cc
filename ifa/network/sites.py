"""Where a network can be tapped: every call of every layer, as one traced example shows it."""

import difflib
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ifa.markup import html_table
from ifa.network.inputs import (
    came,
    check_batch,
    clone,
    count,
    refuse_inference_mode,
    tensors_of,
)
from ifa.network.outputs import map_tensors, pick
from ifa.network.replicas import (
    Edit,
    Replica,
    check_module,
    named_tensors,
    plain,
    refuse_random_or_coupled,
)
from ifa.types import Inputs, Output


@dataclass(frozen=True)
class Site:
    """One call of a layer, as seen in a traced pass."""

    layer: str  # dotted module name; "name#2" for the second of several calls
    shape: tuple[int, ...]  # of one example, without the batch
    dtype: torch.dtype

    def _row(self, name: str) -> tuple[str, str, str]:
        shape = " × ".join(map(str, self.shape)) or "scalar"
        return name, shape, str(self.dtype).split(".")[-1]

    def _repr_html_(self) -> str:
        return html_table(_HEADS, [self._row(self.layer)])


_HEADS = ("layer", "shape of one example", "dtype")


class Sites(dict[str, Site]):
    """Sites by name, in order of execution; prints as a table."""

    def __repr__(self) -> str:
        rows = [_HEADS, *(site._row(name) for name, site in self.items())]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )

    def _repr_html_(self) -> str:
        return html_table(_HEADS, [site._row(name) for name, site in self.items()])


@dataclass(frozen=True)
class Traced:
    """What one forward pass of the example tells about a model."""

    sites: Sites
    output: tuple[int, ...] | None  # shape of one example's output; None where it is no tensor
    writes_input: bool  # whether the model works in place on its input
    among: frozenset[str]  # layers that returned more than the tensor


def trace(model: nn.Module, example: Inputs) -> Sites:
    r"""List every place of a network that can be tapped, in order of execution.

    Runs the example once, on a private copy of the model, without a graph.

    Parameters
    ----------
    model
        The network, in evaluation mode.
    example : (sample, \*input)
        A batch, used for shapes only; or a tuple (positional arguments) or mapping (by keyword) of
        tensors with the samples first.

    Returns
    -------
    dict
        Layer name -> `Site(layer, shape, dtype)`; the shape is that of one example. Only layers
        that ran and returned a floating tensor with the batch as its first axis are listed. A layer
        that ran several times is listed by call: ``"relu#1"``, ``"relu#2"``. Prints as a table.

    Raises
    ------
    ValueError
        If the model is in training mode with dropout or batch norm, normalizes with the statistics
        of the batch, draws random numbers, or changes its own buffers in a forward pass.

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 2, 3), torch.nn.ReLU())
    >>> trace(net, torch.zeros(1, 1, 8))
    layer  shape of one example  dtype
    0      2 × 6                 float32
    1      2 × 6                 float32
    """
    return examine(plain(model), example, None, "ifa.trace").sites


def examine(model: nn.Module, example: Inputs, output: Output, where: str) -> Traced:
    """Trace, and also find out how many outputs there are and whether the input is written to."""
    check_module(where, model)
    check_batch(where, example, "example")
    refuse_inference_mode(where)
    refuse_random_or_coupled(model, where)
    replica = Replica(model, private=True, where=where)
    samples, inputs = count(example), clone(map_tensors(example, Tensor.detach))
    versions = [tensor._version for tensor in tensors_of(inputs)]
    calls: list[Site] = []
    runs: dict[str, int] = {}
    among: set[str] = set()

    def record(call: str, tensor: Tensor) -> Tensor:
        name, _, number = call.rpartition("#")
        runs[name] = int(number)
        if name and tensor.shape[:1] == (samples,) and tensor.is_floating_point():
            calls.append(Site(call, tuple(tensor.shape[1:]), tensor.dtype))
            if not replica.running.alone:
                among.add(call)
        return tensor

    state = [
        (f"{path}.{key}".lstrip("."), tensor, tensor._version)
        for path, module in replica.module.named_modules()
        for key, tensor in named_tensors(vars(module))
    ]
    buffers = dict(replica.module.named_buffers())
    try:
        with _NoNoise(), torch.no_grad():
            raw = _run(replica, inputs, record, where)
    except _Drawn as drawn:
        raise ValueError(
            f"{where}: expected a forward pass that draws no random numbers, got one of "
            f"{type(model).__name__} that does ({drawn}). Call model.eval(), or switch the noise "
            "off."
        ) from None
    changed = [name for name, tensor, version in state if tensor._version != version]
    after = replica.module.named_buffers()
    changed += [name for name, buffer in after if buffers.get(name) is not buffer]
    if changed:
        raise ValueError(
            f"{where}: expected a forward pass that changes nothing on the model, got one that "
            f"writes to {changed[0]!r}. Call model.eval(), or switch the update off."
        )
    sites = Sites()
    for site in calls:
        layer = site.layer.rpartition("#")[0]
        name = layer if runs[layer] == 1 else site.layer
        sites[name] = replace(site, layer=name)
    shape = _output_shape(pick(raw, output), samples)
    wrote = versions != [tensor._version for tensor in tensors_of(inputs)]
    return Traced(sites, shape, wrote, frozenset(name for name in sites if address(name) in among))


def _run(replica: Replica, inputs: Inputs, record: Edit, where: str) -> Any:
    try:
        return replica.run(inputs, record)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError) as error:
        text = str(error).splitlines()[0].rstrip(".") if str(error) else ""
        raise ValueError(
            f"{where}: expected an example that {type(replica.module).__name__} takes, got "
            f"{came(inputs)}, at which it fails: {type(error).__name__}: {text}. The samples come "
            "first, also of one; a tuple is several arguments, a mapping arguments by name."
        ) from error


def find(model: nn.Module, traced: Traced, layer: Any, where: str) -> str:
    """Return the site a user means by a name or a submodule, or say which are near."""
    sites = traced.sites
    if isinstance(layer, nn.Module):
        layer = _name_of(model, layer, where)
    if not isinstance(layer, str):
        raise TypeError(
            f"{where}: expected the dotted name of a layer or a module of the model, got "
            f"{type(layer).__name__}. List the names with ifa.trace(model, example)."
        )
    first = {module: name for name, module in model.named_modules()}
    # a module has one name here, and may have aliases
    names = {alias: first[m] for alias, m in model.named_modules(remove_duplicate=False)}
    base, _, call = layer.partition("#")
    calls = [name for name in sites if base in names and name.split("#")[0] == names[base]]
    for site in calls:
        if (layer == base and site == names[base]) or (
            call and address(site) == f"{names[base]}#{call}"
        ):
            return site
    if calls:
        times = "once" if len(calls) == 1 else f"{len(calls)} times"
        reason = f"which runs {times}; name the call you mean: {', '.join(calls)}"
    elif base in names:
        reason = (
            "which did not run on the example or did not return a floating tensor with one row a "
            "sample"
        )
    else:
        near = difflib.get_close_matches(layer, sites, n=3, cutoff=0.3)
        reason = f"which it does not have. Closest: {', '.join(near) or 'none'}"
    raise LookupError(
        f"{where}: expected a layer of {type(model).__name__} that can be tapped, got {layer!r}, "
        f"{reason}. List every candidate with ifa.trace(model, example)."
    )


def _name_of(model: nn.Module, module: nn.Module, where: str) -> str:
    for name, part in model.named_modules():
        if name and part is plain(module):
            return name
    raise LookupError(
        f"{where}: expected a layer of {type(model).__name__}, got a {type(module).__name__} that "
        "is no module of it. Take it of this very model, or its name of ifa.trace(model, example)."
    )


def address(site: str) -> str:
    """Return the call that a site's name stands for: "relu" is the first call of "relu"."""
    return site if "#" in site else f"{site}#1"


class _Drawn(BaseException):
    """Random numbers would be drawn; no model's own `except Exception` should keep it."""


class _NoNoise(TorchDispatchMode):
    """Stops this thread, and no other, where it would draw from the global random state."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in getattr(func, "tags", ()):
            given = {one.name: one.default_value for one in func._schema.arguments}
            given |= dict(zip(given, args, strict=False)) | (kwargs or {})
            if _draws(given):
                raise _Drawn(func)
        return func(*args, **(kwargs or {}))


def _draws(given: dict[str, Any]) -> bool:
    """Whether an operation that may draw does so with these arguments."""
    rates = [given[name] for name in ("p", "dropout_p", "dropout") if name in given]
    modes = [given[name] for name in ("train", "training") if name in given]
    if given.get("generator") is not None:  # not the global one
        return False
    return all(rate != 0 for rate in rates) and all(mode is not False for mode in modes)


def _output_shape(output: Any, samples: int) -> tuple[int, ...] | None:
    if not isinstance(output, Tensor) or output.shape[:1] != (samples,):
        return None
    return tuple(output.shape[1:])
