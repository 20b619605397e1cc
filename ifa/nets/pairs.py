"""A half and a full network of enlarged digits, at a size that trains in a minute or two."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ifa.nets.handwriting import digits
from ifa.progress import Progress
from ifa.refine.decoders import Full, full
from ifa.refine.halves import Half, half
from ifa.refine.training import trained
from ifa.resizing import resized

Params = dict[str, Tensor]


def enlarged(data: Sequence[Any], *, size: Sequence[int]) -> list[Any]:
    r"""Resize the inputs of a data set, linearly.

    Parameters
    ----------
    data
        ``(input, label, ...)`` with inputs (channel, \*space).
    size
        Extent of each axis of space.

    Returns
    -------
    list
        The same items with larger inputs.

    Examples
    --------
    >>> enlarged([(torch.ones(1, 2, 2), 0, "a")], size=(4, 4))[0][0].shape
    torch.Size([1, 4, 4])
    """
    return [(resized(item[0], tuple(size)), *item[1:]) for item in data]


def strided_cnn(
    *, channels: int = 1, outputs: int = 10, widths: Sequence[int] = (16, 32, 64)
) -> nn.Sequential:
    """Build a network of convolutions of stride 2, global average pooling and a linear layer.

    Layers ``conv1``, ``conv2`` … each halve the grid. Not trained.

    Parameters
    ----------
    channels, outputs
        Of the input and of the output.
    widths
        Channels of the layers.

    Returns
    -------
    torch.nn.Sequential
        (sample, channels, y, x) -> logits (sample, outputs).

    Examples
    --------
    >>> strided_cnn().eval()(torch.zeros(2, 1, 32, 32)).shape
    torch.Size([2, 10])
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, width in enumerate(widths, start=1):
        convolution = nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False)
        layers[f"conv{index}"] = nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU())
        channels = width
    pool = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(
        layers | {"pool": pool, "flat": nn.Flatten(), "head": nn.Linear(channels, outputs)}
    )


def train_pair(
    *,
    size: int = 32,
    tied: bool = True,
    epochs: tuple[int, int] = (20, 20),
    samples: int | None = None,
    seed: int = 0,
    progress: Progress = False,
) -> tuple[tuple[Half, Params], tuple[Full, Params]]:
    """Train a half of `strided_cnn` on enlarged digits, then the decoder of its full network.

    Parameters
    ----------
    size
        Extent of the enlarged digits; the low maps have an eighth of it.
    tied
        As in `ifa.refine.full`.
    epochs
        Of the half, all of which is trained, and of the decoder.
    samples
        How many of the digits; if None the training half.
    seed
        Of weights and order. Global random state is left as it was.
    progress
        True draws a bar for either, a callable gets ``(done, total)`` epochs.

    Returns
    -------
    (half, params), (full, params)
        The second are the union of the first with the decoder's.
    """
    data = enlarged(digits("train")[:samples], size=(size, size))
    example = data[0][0][None]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = strided_cnn().eval()
    options: Any = {"seed": seed, "progress": progress}
    first, params = half(net, None, "conv3", example, outputs=10, seed=seed)
    everything = trained(first, params, data, keys=_every, epochs=epochs[0], **options)
    second, joined = full(first, everything.params, example, tied=tied, seed=seed)
    decoded = trained(second, joined, data, epochs=epochs[1], **options)
    return (first, everything.params), (second, decoded.params)


def _every(name: str) -> bool:
    del name
    return True
