"""The half of a network: all below a layer, with a head whose weights make a class map."""

from typing import Any

import torch
from torch import Tensor, nn

from ifa.checks import check_count
from ifa.network.sites import address
from ifa.refine.trunks import (
    Params,
    checked_params,
    found_layer,
    laid,
    private,
    reached,
    shape_at,
    state_of,
)
from ifa.types import Grid, Inputs, Layer

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class Head(nn.Module):
    """A convolution of one position, the mean over space, a linear layer."""

    def __init__(self, axes: int, channels_in: int, channels: int, outputs: int):
        super().__init__()
        self.conv = CONVOLUTIONS[axes](channels_in, channels, 1, bias=False)
        self.linear = nn.Linear(channels, outputs)

    def forward(self, activations: Tensor) -> Tensor:
        """Return logits (sample, outputs)."""
        return self.linear(self.conv(activations).flatten(2).mean(-1))


class Half(nn.Module):
    """A network up to a layer, and a head. Build it with `half`.

    Layers of the network are named as before, under ``net.``; the head's are ``head.conv``, whose
    channels its low map is made of, and ``head.linear``.
    """

    def __init__(self, net: nn.Module, call: str, grid: Grid | None, head: Head):
        super().__init__()
        self.net, self.head = net, head
        self.call, self.grid = call, grid

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return logits (sample, outputs); nothing above the layer runs."""
        return self.head(*laid(reached(self.net, [self.call], args, kwargs), [self.grid]))


def half(
    model: nn.Module,
    params: Params | None,
    layer: Layer | None,
    example: Inputs,
    *,
    outputs: int,
    channels: int = 16,
    grid: Grid | None = None,
    seed: int = 0,
) -> tuple[Half, dict[str, Tensor]]:
    r"""Cut a network at a layer, and put a head there whose weights make a class map.

    .. math::

        A_j = \textstyle\sum_k C_{jk} T_k, \qquad
        y_c = b_c + \textstyle\sum_j W_{cj} \langle A_j \rangle, \qquad
        low_c = \textstyle\sum_j W_{cj} A_j

    T are the layer's activations. The mean of the low map over space is the logit less its bias.

    Parameters
    ----------
    model
        Any network with grids. It is left as it was; nothing in the half is its module, all tensors
        are.
    params
        Its parameters and buffers by name; its own if None.
    layer
        As in `ifa.tap`; the default one if None. What lies above it never runs.
    example : (sample, \*input)
        A batch, for shapes.
    outputs
        How many classes.
    channels
        How many the class map is made of.
    grid
        How tokens lie, as in `ifa.tap`.
    seed
        Of the head's first weights. Global random state is left as it was.

    Returns
    -------
    model, params
        `Half`, and the parameters and buffers that it is run with: those given, bit for bit, under
        ``net.``, the head's under ``head.``.

    Raises
    ------
    LookupError, TypeError, ValueError
        As `ifa.tap`; also if the layer is not (channel, \*space), or `params` are of another
        network.

    References
    ----------
    Tagaris, Sdraka & Stafylopatis 2019, "High-resolution class activation mapping", ICIP, by its
    public code high-res-mapping, which cuts a DenseNet-FCN.

    Examples
    --------
    >>> import ifa, torch
    >>> net = ifa.nets.digits_cnn().eval()
    >>> example = torch.zeros(1, 1, 8, 8)
    >>> model, params = ifa.refine.half(net, None, "conv2", example, outputs=3)
    >>> torch.func.functional_call(model, params, (example,)).shape
    torch.Size([1, 3])
    >>> ifa.refine.low(model, params, example).values.shape
    torch.Size([1, 8, 8])
    """
    where = "ifa.refine.half"
    check_count(where, "outputs", outputs)
    check_count(where, "channels", channels)
    given = checked_params(where, model, params)
    site, lay = found_layer(where, model, layer, example, grid)
    net, call = private(where, model), address(site.layer)
    activations = shape_at(where, net, call, lay, example)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = Head(activations.ndim - 2, activations.shape[1], channels, outputs)
    head = head.to(activations).eval().requires_grad_(False)
    made = Half(net, call, lay, head).eval()
    trunk = {f"net.{name}": tensor for name, tensor in given.items()}
    return made, trunk | {f"head.{name}": tensor for name, tensor in state_of(head).items()}
