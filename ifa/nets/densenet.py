"""The fully convolutional DenseNet of high-res-mapping, and its decoder, by configuration."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ifa.resizing import resized

_EPSILON = 1.1e-5


class DenseBlock(nn.Module):
    """Layers that each read all before them; returns all, or only what is new."""

    def __init__(self, channels: int, growth: int, layers: int, *, only_new: bool = False):
        super().__init__()
        self.only_new = only_new
        self.layers = nn.ModuleList(
            _normed(channels + growth * i, growth, 3) for i in range(layers)
        )

    def forward(self, values: Tensor) -> Tensor:
        """Return (sample, channels + layers · growth, y, x), or without the first channels."""
        parts = [values]
        for layer in self.layers:
            parts.append(layer(torch.cat(parts, 1)))
        return torch.cat(parts[1:] if self.only_new else parts, 1)


def _normed(channels_in: int, channels: int, kernel: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels_in, channels, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(nn.BatchNorm2d(channels_in, _EPSILON), nn.ReLU(), convolution)


def _down(channels: int) -> nn.Sequential:
    return nn.Sequential(*_normed(channels, channels, 1), nn.MaxPool2d(2))


class Up(nn.Module):
    """A transposed convolution of stride 2, then a dense block of it and a skip."""

    def __init__(self, below: int, skip: int, growth: int, layers: int, *, only_new: bool = True):
        super().__init__()
        width = growth * layers
        self.raise_ = nn.ConvTranspose2d(below, width, 3, stride=2, padding=1)
        self.block = DenseBlock(width + skip, growth, layers, only_new=only_new)

    def forward(self, below: Tensor, skip: Tensor) -> Tensor:
        """Return the block's channels at the skip's size."""
        raised = _raised(self.raise_, below, skip.shape[2:]).relu()
        return self.block(torch.cat([raised, skip], 1))


def _raised(convolution: nn.ConvTranspose2d, below: Tensor, size: Sequence[int]) -> Tensor:
    """Double a grid; of a skip that was odd, one more is interpolated."""
    twice = [2 * extent for extent in below.shape[2:]]
    return resized(convolution(below, output_size=twice), tuple(size))


class DenseNetFCN(nn.Module):
    """The trunk, up to the first block on the way up. Build it with `densenet_fcn`."""

    def __init__(self, channels: int, growth: int, layers: int, blocks: int, filters: int):
        super().__init__()
        self.stem = nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(channels, filters, 3, padding=1, bias=False),
                norm=nn.BatchNorm2d(filters, _EPSILON),
                relu=nn.ReLU(),
                down=_down(filters),
            )
        )
        self.blocks, self.down, width = nn.ModuleList(), nn.ModuleList(), filters
        for _ in range(blocks):
            self.blocks.append(DenseBlock(width, growth, layers))
            width += growth * layers
            self.down.append(_down(width))
        self.bottleneck = DenseBlock(width, growth, layers, only_new=True)
        self.up = Up(growth * layers, width, growth, layers)

    def forward(self, images: Tensor) -> Tensor:
        """Return the activations that a half is cut at, (sample, layers · growth, y, x)."""
        values, skip = self.stem(images), images
        for block, down in zip(self.blocks, self.down, strict=True):
            skip = block(values)
            values = down(skip)
        return self.up(self.bottleneck(values), skip)


def densenet_fcn(
    *, channels: int = 3, growth: int = 16, layers: int = 4, blocks: int = 4, filters: int = 48
) -> DenseNetFCN:
    """Build the trunk of high-res-mapping's networks: a fully convolutional DenseNet.

    Cut it with ``ifa.refine.half(net, None, "up.block", example, outputs=398)``: the public code's
    half network, with its 1 056 638 parameters. Decode it with `densenet_decoder`, from the skips
    ``["blocks.0", "blocks.1", "blocks.2"]``. Not trained.

    Parameters
    ----------
    channels
        Of the input.
    growth, layers, blocks, filters
        New channels of a layer, layers of a block, blocks on the way down, channels of the first
        convolution.

    Returns
    -------
    torch.nn.Module
        (sample, channels, y, x) -> (sample, layers · growth, y / 2^blocks, x / 2^blocks): 64 × 14 ×
        14 of 224 × 224.

    References
    ----------
    Jégou et al. 2016, "The one hundred layers tiramisu". arXiv:1611.09326; Tagaris, Sdraka &
    Stafylopatis 2019, by its public code high-res-mapping.

    Examples
    --------
    >>> net = densenet_fcn(growth=2, layers=2, blocks=2, filters=4).eval()
    >>> net(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 4, 8, 8])
    """
    return DenseNetFCN(channels, growth, layers, blocks, filters)


class DenseDecoder(nn.Module):
    """The way up. Build it with `densenet_decoder`."""

    def __init__(
        self, below: int, skips: Sequence[int], growth: int, layers: int, channels: int, tied: bool
    ):
        super().__init__()
        self.up, width = nn.ModuleList(), growth * layers
        for index, skip in enumerate(skips):
            last = index == len(skips) - 1
            self.up.append(Up(below, skip, growth, layers, only_new=not last))
            below = 2 * width + skip if last else width
        self.last = nn.ConvTranspose2d(below, channels, 3, stride=2, padding=1)
        self.tied = tied

    def forward(self, below: Tensor, skips: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """Return channels at the input's size; rectified unless they are tied."""
        for up, skip in zip(self.up, skips, strict=True):
            below = up(below, skip)
        features = _raised(self.last, below, size)
        return features if self.tied else features.relu()


def densenet_decoder(
    *,
    below: int = 64,
    skips: Sequence[int] = (240, 176, 112),
    growth: int = 16,
    layers: int = 4,
    channels: int = 16,
    tied: bool = True,
) -> DenseDecoder:
    """Build the decoder of high-res-mapping's full network, for ``ifa.refine.full(decoder=...)``.

    With the image's convolution it has the 607 936 parameters of the public code's.

    Parameters
    ----------
    below
        Channels that it starts from.
    skips
        Channels of the skips, from the coarsest.
    growth, layers
        As in `densenet_fcn`.
    channels
        As many as the half's head has.
    tied
        False rectifies them, as the public code does.

    Returns
    -------
    torch.nn.Module
        (activations, skips, size) -> (sample, channels, y, x).

    References
    ----------
    As `densenet_fcn`.

    Examples
    --------
    >>> decoder = densenet_decoder(below=4, skips=[6], growth=2, layers=2, channels=3)
    >>> decoder(torch.zeros(1, 4, 4, 4), [torch.zeros(1, 6, 8, 8)], (16, 16)).shape
    torch.Size([1, 3, 16, 16])
    """
    return DenseDecoder(below, skips, growth, layers, channels, tied)
