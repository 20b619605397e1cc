"""Real handwritten digits and a small network for them: the population that ships with `ifa`."""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from ifa.nets.training import Network, train
from ifa.progress import Progress

Item = tuple[Tensor, int, str]


def digits(split: Literal["train", "held-out", "all"] = "held-out") -> list[Item]:
    """Load scikit-learn's 1 797 handwritten digits, 8 × 8 pixels in [0, 1].

    The split is fixed, stratified by digit, half and half.

    Parameters
    ----------
    split
        ``"train"``, ``"held-out"`` or ``"all"``.

    Returns
    -------
    list of (image, label, id)
        Image (1, 8, 8) float32, label 0 … 9, and an id such as ``"digit-0042"``, by the position
        in scikit-learn's set.

    References
    ----------
    Alpaydin & Kaynak 1998, "Optical recognition of handwritten digits", UCI repository.
    doi:10.24432/C50P49

    Examples
    --------
    >>> image, label, name = digits("held-out")[0]
    >>> image.shape, len(digits("train")), len(digits("held-out"))
    (torch.Size([1, 8, 8]), 898, 899)
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    if split not in ("train", "held-out", "all"):
        raise ValueError(f"ifa.nets.digits: expected 'train', 'held-out' or 'all', got {split!r}.")
    images, labels = (np.asarray(part) for part in load_digits(return_X_y=True))
    indices = range(len(labels))
    train, held_out = train_test_split(indices, test_size=0.5, stratify=labels, random_state=0)
    chosen = {"train": sorted(train), "held-out": sorted(held_out), "all": indices}[split]
    pixels = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    # a view of all pixels would be pickled with all of them
    return [(pixels[index].clone(), int(labels[index]), f"digit-{index:04d}") for index in chosen]


def digits_cnn() -> nn.Sequential:
    """Build a network of three convolutional blocks, global average pooling and a linear layer.

    Layers ``conv1``, ``conv2`` and ``conv3`` keep the 8 × 8 grid; ``conv3`` has 64 channels. What
    lies above it is linear, so that the map of `ifa.weight.fullcam` there sums to the logit less
    its bias. Not trained: see `train_digits`.

    Returns
    -------
    torch.nn.Sequential
        (sample, 1, 8, 8) -> logits (sample, 10).

    Examples
    --------
    >>> digits_cnn()(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """
    return nn.Sequential(
        OrderedDict(
            conv1=_block(1, 32),
            conv2=_block(32, 64),
            conv3=_block(64, 64),
            pool=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            head=nn.Linear(64, 10),
        )
    )


class DigitsViT(nn.Module):
    """A vision transformer of 4 × 4 patches and a class token. Build it with `digits_vit`."""

    def __init__(self, width: int = 48, depth: int = 2):
        super().__init__()
        self.embed = nn.Conv2d(1, width, 2, stride=2)
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.position = nn.Parameter(0.02 * torch.randn(1, 17, width))
        block = partial(nn.TransformerEncoderLayer, width, 4, 2 * width, dropout=0.0)
        self.blocks = nn.ModuleList(block(batch_first=True, norm_first=True) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.embed(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(images), -1, -1), patches], 1) + self.position
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens)[:, 0])


def digits_vit() -> DigitsViT:
    """Build a small vision transformer: 4 × 4 patches of 2 × 2 pixels, a class token, two blocks.

    Tap ``blocks.1.norm1``: after the last attention, only the class token matters to the output.
    Not trained: see `train_digits`.

    Returns
    -------
    torch.nn.Module
        (sample, 1, 8, 8) -> logits (sample, 10).

    Examples
    --------
    >>> digits_vit()(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """
    return DigitsViT()


def train_digits(
    *,
    network: Callable[[], Network] = digits_cnn,
    epochs: int = 40,
    batch_size: int = 64,
    seed: int = 0,
    progress: Progress = False,
) -> Network:
    """Train a network on the training half of `digits`, in some seconds on a CPU.

    Parameters
    ----------
    network
        Makes what is trained: `digits_cnn`, `digits_vit`, or one of your own.
    epochs, batch_size
        How long and in what portions.
    seed
        Of the weights and of the order of samples. Global random state is left as it was.
    progress
        True draws a bar, a callable gets ``(done, total)`` epochs.

    Returns
    -------
    torch.nn.Module
        The trained network in evaluation mode.
    """
    data = digits("train")
    return train(network, data, epochs=epochs, batch_size=batch_size, seed=seed, progress=progress)


def _block(channels_in: int, channels_out: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels_out), nn.ReLU())
