"""How much memory a network takes, by layer, counted in a run of the example."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from ifa.network.inputs import check_batch, clone
from ifa.network.outputs import every_tensor, map_tensors
from ifa.network.replicas import Replica, check_module, plain, refuse_random_or_coupled
from ifa.types import Inputs


@dataclass(frozen=True)
class Memory:
    """Bytes that a network takes for a batch; prints as a table."""

    parameters: Mapping[str, int]  # of each module's own, buffers too; whatever the batch
    activations: Mapping[str, int]  # made inside each module itself, not freed in between
    peak: int  # the most of activations between operations at once, without gradients
    kept: int  # activations that gradients of all parameters need

    def __repr__(self) -> str:
        names = [n for n in {**self.parameters, **self.activations} if self._of(n) != (0, 0)]
        rows = [(name or "(itself)", *map(_written, self._of(name))) for name in names]
        total = sum(self.parameters.values()), sum(self.activations.values())
        rows = [("layer", "parameters", "activations"), *rows, ("all", *map(_written, total))]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = [
            f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}" for row in rows
        ]
        ends = f"peak {_written(self.peak)}, kept for gradients {_written(self.kept)}"
        return "\n".join([*lines, ends])

    def _of(self, name: str) -> tuple[int, int]:
        return self.parameters.get(name, 0), self.activations.get(name, 0)


def _written(count: int) -> str:
    return f"{count / 2**20:.2f} MiB" if count >= 2**20 else f"{count / 2**10:.2f} KiB"


def memory(model: nn.Module, example: Inputs) -> Memory:
    r"""Count the memory of a network's parameters and activations, by layer.

    Runs the example on a private copy and counts every tensor that comes and goes, so that views,
    work in place and functional calls count as what they are. Activations grow with the batch, and
    parameters do not: for another batch take multiples of those. Counted is what operations give
    to each other, which is the same on every device; not the input, and not what a kernel takes for
    itself while it runs: on a CPU a convolution may lay out its input and output once more. Layers
    of transformers count operation by operation, also where they would run as one.

    Parameters
    ----------
    model
        Any network, in evaluation mode; left as it was.
    example : (sample, \*input)
        A batch.

    Returns
    -------
    Memory
        In bytes. While it runs without gradients it takes its parameters and `peak`; in training
        its parameters, as much for their gradients, `kept`, and what the optimizer keeps.

    Raises
    ------
    TypeError, ValueError
        As `ifa.trace`.

    Examples
    --------
    >>> import ifa, torch
    >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 4, 1, bias=False), torch.nn.ReLU(inplace=True))
    >>> ifa.refine.memory(net.eval(), torch.zeros(8, 1, 64))
    layer  parameters  activations
    0        0.02 KiB     8.00 KiB
    all      0.02 KiB     8.00 KiB
    peak 8.00 KiB, kept for gradients 8.00 KiB
    """
    where = "ifa.refine.memory"
    model = plain(model)
    check_module(where, model)
    check_batch(where, example, "example")
    refuse_random_or_coupled(model, where)
    counted = Counting()
    replica = Replica(model, (), private=True, watched=True, where=where)
    for module in replica.module.modules():  # where someone looks on, layers are not fused
        module.register_forward_hook(_looking_on)
    inputs = clone(map_tensors(example, Tensor.detach))
    with torch.no_grad(), counted:
        replica.run(inputs, _as_it_is, visit=counted.visit)
    parameters = {
        name: sum(_bytes(t) for t in (*module.parameters(False), *module.buffers(False)))
        for name, module in model.named_modules()
    }
    return Memory(parameters, dict(counted.made), counted.peak, _kept(where, model, example))


def _as_it_is(call: str, tensor: Tensor) -> Tensor:
    return tensor


def _looking_on(module: nn.Module, given: Any, output: Any) -> None:
    pass


def _bytes(tensor: Tensor) -> int:
    return tensor.untyped_storage().nbytes()


class Counting(TorchDispatchMode):
    """Counts the storages that operations make, while they are there, by the module running."""

    def __init__(self) -> None:
        super().__init__()
        self.stack, self.made, self.peak = [""], defaultdict(int), 0
        # by address, which is no other's as long as someone refers to it
        self.live: dict[int, tuple[StorageWeakRef, int]] = {}

    def visit(self, name: str, run: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Run a module as the one that makes what is made."""
        self.stack.append(name)
        try:
            return run(*args, **kwargs)
        finally:
            self.stack.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and count what is new of what it returns."""
        given = {t.untyped_storage()._cdata for t in every_tensor((list(args), kwargs or {}))}
        result = func(*args, **(kwargs or {}))
        for tensor in every_tensor(result if isinstance(result, tuple | list) else (result,)):
            storage = tensor.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key not in self.live and key not in given:  # not of a parameter or an input
                self.live[key] = StorageWeakRef(storage), size
                self.made[self.stack[-1]] += size
        self.peak = max(self.peak, self.now())
        return result

    def now(self) -> int:
        """Return how much is there."""
        self.live = {key: one for key, one in self.live.items() if not one[0].expired()}
        return sum(size for _, size in self.live.values())


def _kept(where: str, model: nn.Module, example: Inputs) -> int:
    """Count what a graph of all parameters holds, but for them and the input."""
    counted = Counting()
    with torch.enable_grad(), counted:
        replica = Replica(model, (), private=True, where=where)
        replica.module.requires_grad_(True)
        inputs = clone(map_tensors(example, Tensor.detach))
        counted.live.clear()
        output = list(every_tensor(replica.run(inputs, _as_it_is)))
    graph = [tensor.grad_fn for tensor in output]
    del output  # it counts where the graph needs it
    kept = counted.now()
    del graph
    return kept
