"""Where a network can be tapped: every call of every layer, as one traced example shows it."""

import difflib
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ifa.taps.outputs import Output, pick
from ifa.taps.replicas import Replica, refuse_random_or_coupled


@dataclass(frozen=True)
class Site:
    """One call of a layer, as seen in a traced pass."""

    layer: str  # dotted module name; "name#2" for the second of several calls
    shape: tuple[int, ...]  # of one example, without the batch
    dtype: torch.dtype


class Sites(dict[str, Site]):
    """Sites by name, in order of execution; prints as a table."""

    def __repr__(self) -> str:
        rows = [
            (name, " × ".join(map(str, site.shape)) or "scalar", str(site.dtype).split(".")[-1])
            for name, site in self.items()
        ]
        rows.insert(0, ("layer", "shape of one example", "dtype"))
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )


@dataclass(frozen=True)
class Traced:
    """What one forward pass of the example tells about a model."""

    sites: Sites
    output: tuple[int, ...] | None  # shape of one example's output; None where it is no tensor
    writes_input: bool  # whether the model works in place on its input


def trace(model: nn.Module, example: Tensor) -> Sites:
    r"""List every place of a network that can be tapped, in order of execution.

    Runs the example once, on a private copy of the model, without a graph.

    Parameters
    ----------
    model
        The network, in evaluation mode.
    example : (sample, \*input)
        A batch, used for shapes only.

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
        of the batch, or changes its own buffers in a forward pass.

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 2, 3), torch.nn.ReLU())
    >>> trace(net, torch.zeros(1, 1, 8))
    layer  shape of one example  dtype
    0      2 × 6                 float32
    1      2 × 6                 float32
    """
    return examine(model, example, None, "ifa.trace").sites


def examine(model: nn.Module, example: Tensor, output: Output, where: str) -> Traced:
    """Trace, and also find out how many outputs there are and whether the input is written to."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"{where}: expected a torch.nn.Module, got {type(model).__name__}.")
    if not isinstance(example, Tensor) or example.ndim < 2 or len(example) == 0:
        came = tuple(example.shape) if isinstance(example, Tensor) else type(example).__name__
        raise ValueError(
            f"{where}: expected an example batch (sample, *input) of at least one sample, "
            f"got {came}. Add the batch axis: example[None]."
        )
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            f"{where}: refused under torch.inference_mode(), where gradients of a layer are not "
            "reliable. Use torch.no_grad(), or nothing: no gradient of a parameter is computed."
        )
    refuse_random_or_coupled(model, where)
    replica = Replica(model, private_buffers=True)
    state = [*replica.module.named_parameters(), *replica.module.named_buffers()]
    versions = [tensor._version for _, tensor in state]
    inputs = example.detach().clone()
    calls: list[tuple[str, int, Tensor]] = []

    def record(where: str, tensor: Tensor) -> Tensor:
        name, _, call = where.rpartition("#")
        calls.append((name, int(call), tensor))
        return tensor

    before = inputs._version
    with torch.no_grad():
        raw = replica.run(inputs, record)
    for (name, tensor), version in zip(state, versions, strict=True):
        if tensor._version != version:
            raise ValueError(
                f"{where}: expected a forward pass that changes nothing on the model, got one that "
                f"writes to {name!r}. Call model.eval(), or switch the update off."
            )
    runs = {name: call for name, call, _ in calls}
    sites = Sites()
    for name, call, tensor in calls:
        if name and tensor.shape[:1] == example.shape[:1] and tensor.is_floating_point():
            site = name if runs[name] == 1 else f"{name}#{call}"
            sites[site] = Site(site, tuple(tensor.shape[1:]), tensor.dtype)
    return Traced(sites, _output_shape(pick(raw, output), len(example)), inputs._version != before)


def find(model: nn.Module, traced: Traced, layer: Any, example: Tensor, where: str) -> str:
    """Return the site a user means by `layer`, or say which are near."""
    sites = traced.sites
    if layer is None:
        grids = [
            name
            for name, site in sites.items()
            if len(site.shape) == example.ndim - 1 >= 2 and math.prod(site.shape[1:]) > 1
        ]
        if not grids:
            raise LookupError(
                f"{where}: expected a layer whose output has a grid, found none in "
                f"{type(model).__name__}. Name the layer; list them with ifa.trace(model, example)."
            )
        return grids[-1]
    if not isinstance(layer, str):
        raise TypeError(
            f"{where}: expected the dotted name of a layer, got {type(layer).__name__}. "
            "List the names with ifa.trace(model, example)."
        )
    names = {
        alias: name
        for name, module in model.named_modules()
        for alias, other in model.named_modules(remove_duplicate=False)
        if other is module and alias == layer.split("#")[0]
    }
    base, _, call = layer.partition("#")
    site = names.get(base, base) + (f"#{call}" if call else "")
    if site in sites:
        return site
    calls = [name for name in sites if name.split("#")[0] == names.get(base, base)]
    if len(calls) > 1:
        reason = f"which runs {len(calls)} times; name the call you mean: {', '.join(calls)}"
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


def address(site: str) -> str:
    """Return the call that a site's name stands for: "relu" is the first call of "relu"."""
    return site if "#" in site else f"{site}#1"


def _output_shape(output: Any, samples: int) -> tuple[int, ...] | None:
    if not isinstance(output, Tensor) or output.shape[:1] != (samples,):
        return None
    return tuple(output.shape[1:])
