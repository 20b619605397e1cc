"""Run a network beside itself on a finer grid: strides become dilation, with the same weights."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn

from ifa.checks import check_choice
from ifa.dense.calls import Options
from ifa.dense.densities import check_graph, cleared
from ifa.dense.running import Ends, Running
from ifa.network.outputs import every_tensor, map_tensors
from ifa.network.replicas import check_module, plain

_WHERE = "ifa.dense.densify"


class Densified(nn.Module):
    """A network on a finer grid, which holds the network as ``net``. Build it with `densify`."""

    on_finer_grid = True  # what is made of its layers is looked at for gaps

    def __init__(self, net: nn.Module, stride: int | tuple[int, ...], pool: str):
        super().__init__()
        self.net, self.stride, self.pool = net, stride, pool
        self.training = net.training
        self._ends = Ends()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the network; an output that has a grid is on the finer one."""
        running = Running(Options(self.stride, self.pool))
        if torch.is_inference_mode_enabled():  # whose tensors do not tell what writes to them
            with torch.inference_mode(False), torch.no_grad():
                return self._run(running, args, kwargs)
        return self._run(running, args, kwargs)

    def _run(self, running: Running, args: Any, kwargs: Any) -> Any:
        with running:
            output = self.net(*args, **kwargs)
        self._ends.write(running.told(self.net))
        for one in every_tensor(output):
            check_graph(one, "the output")
        same = all(cleared(one) is one for one in every_tensor(output))
        return output if same else map_tensors(output, cleared)

    def extra_repr(self) -> str:
        """Say with what it was made, and what ended the density in the last run."""
        ends = self._ends.read()
        said = "it is seen in the first run where density ends" if ends is None else "dense"
        said = f"density ends at {', '.join(ends)}" if ends else said
        return f"stride={self.stride}, pool={self.pool!r}; {said}"


def densify(
    model: nn.Module,
    *,
    stride: int | Sequence[int] = 1,
    pool: Literal["exact", "dense"] = "exact",
) -> Densified:
    r"""Run a network beside itself on a finer grid: strides become dilation, with the same weights.

    A convolution or pool with stride s whose stride would be dropped is taken at every position,
    and what comes above it looks as many times further apart: with a factor r per axis,

    .. math:: \hat A(r \, p) = A(p)

    at every position p of every layer, borders and odd sizes included. The network itself runs just
    as it always did, and the finer grid beside it: its outputs, and every layer at its own
    positions, are the same to the bit. What a layer returns for `ifa.tap`, `ifa.trace`,
    `ifa.positions`, `ifa.explain` and all else here is the finer grid. It is no sharper for it: see
    the page on high resolution.

    Known are convolutions, pools, pads, whatever acts on each position by itself, norms, channels
    joined, cut, shuffled and moved, in one, two and three axes of space. After any other operation
    (attention, interpolation, a transposed convolution, what mixes positions otherwise) the network
    is as fine as it always was: never wrong, at worst not denser. What ended the density is in the
    ``repr``, after a run.

    Parameters
    ----------
    model
        The network; held, not copied: its tensors are the same, with names under ``net.``.
    stride
        Total stride that is kept at most, in input pixels: of every axis of space, or of each. 1 is
        the input's own grid. The cost grows with the number of positions.
    pool
        Where a global average is taken: ``"exact"``, at the network's own positions, so that
        outputs are its own and gradients are zero between these; or ``"dense"``, at all, so that
        gradients are everywhere, as HiResCAM and LayerCAM need them, and the outputs are those of
        another network. Averages are known as adaptive pools, pools of the whole grid, and means.

    Returns
    -------
    torch.nn.Module
        With the arguments and outputs of the network; an output that has a grid is on the finer
        one. Hooks that others register see the network as it always was.

    Raises
    ------
    TypeError, ValueError
        If the model is no module of Python code, an option is out of range, or part of the model is
        such a network already.

    References
    ----------
    Long, Shelhamer & Darrell 2015, "Fully convolutional networks for semantic segmentation",
    section 3.2. arXiv:1411.4038. Yu & Koltun 2016, "Multi-scale context aggregation by dilated
    convolutions". arXiv:1511.07122

    Examples
    --------
    >>> import ifa, torch
    >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 1, 3, stride=2), torch.nn.ReLU())
    >>> signal = torch.rand(1, 1, 9)
    >>> fine = ifa.dense.densify(net)
    >>> net(signal).shape, fine(signal).shape
    (torch.Size([1, 1, 4]), torch.Size([1, 1, 7]))
    >>> torch.equal(fine(signal)[..., ::2], net(signal))
    True
    >>> ifa.positions(fine, "net.1", signal)
    Positions(start=tensor([1.], dtype=torch.float64), step=tensor([1.], dtype=torch.float64))
    """
    check_module(_WHERE, model)
    check_choice(_WHERE, "pool", pool, ("exact", "dense"))
    strides = tuple(stride) if isinstance(stride, Sequence) else (stride,)
    if not strides or not all(type(one) is int and one >= 1 for one in strides):
        raise ValueError(
            f"{_WHERE}: expected stride to be a whole number from 1 on, or one for each axis of "
            f"space, got {stride!r}. 1 is the input's own grid."
        )
    if any(isinstance(one, Densified) for one in plain(model).modules()):
        raise ValueError(
            f"{_WHERE}: expected a network as it was, got one that is on a finer grid already, or "
            "has a part that is. Give the network it was made of: fine.net."
        )
    return Densified(plain(model), strides if isinstance(stride, Sequence) else stride, pool)
