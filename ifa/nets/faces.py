"""Real faces and patches of background, with their brightness, and a small network for them."""

from collections import OrderedDict
from typing import Literal

import numpy as np
import torch
from torch import nn

from ifa.nets.handwriting import Item
from ifa.nets.training import train
from ifa.progress import Progress


def faces(split: Literal["train", "held-out", "all"] = "all") -> list[Item]:
    """Load scikit-image's 100 faces and 100 non-faces, 25 × 25 pixels in [0, 1].

    They ship with scikit-image (``pip install scikit-image``): nothing is downloaded. The split is
    fixed, half and half of each class.

    Parameters
    ----------
    split
        ``"train"``, ``"held-out"`` or ``"all"``.

    Returns
    -------
    list of (image, label, id)
        Image (1, 25, 25) float32; label 0 for background, 1 for a face; an id such as
        ``"face-007"`` or ``"background-007"``.

    Raises
    ------
    ValueError
        If there is no such split.
    ImportError
        If scikit-image is not installed.

    References
    ----------
    Huang et al. 2007, "Labeled faces in the wild". University of Massachusetts, 07-49
    """
    if split not in ("train", "held-out", "all"):
        raise ValueError(f"ifa.nets.faces: expected 'train', 'held-out' or 'all', got {split!r}.")
    try:
        from skimage.data import lfw_subset
    except ImportError:
        raise ImportError(
            "ifa.nets.faces: expected scikit-image, which these pictures ship with, but it is not "
            "installed. pip install scikit-image"
        ) from None
    images = torch.from_numpy(np.asarray(lfw_subset(), dtype=np.float32))[:, None]
    names = ("face", "background")
    items = [
        (image.clone(), 1 - index // 100, f"{names[index // 100]}-{index % 100:03d}")
        for index, image in enumerate(images)
    ]
    start, step = {"train": (0, 2), "held-out": (1, 2), "all": (0, 1)}[split]
    return items[start::step]


def faces_cnn() -> nn.Sequential:
    """Build a network of three convolutions, global average pooling and a linear layer.

    ``conv3`` has 24 channels of 7 × 7, and what lies above it is linear. Not trained: see
    `train_faces`.

    Returns
    -------
    torch.nn.Sequential
        (sample, 1, 25, 25) -> logits (sample, 2).

    Examples
    --------
    >>> faces_cnn()(torch.zeros(3, 1, 25, 25)).shape
    torch.Size([3, 2])
    """

    def block(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
        convolution = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(channels_out), nn.ReLU())

    return nn.Sequential(
        OrderedDict(
            conv1=block(1, 12, 2),
            conv2=block(12, 24, 2),
            conv3=block(24, 24, 1),
            pool=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            head=nn.Linear(24, 2),
        )
    )


def train_faces(*, epochs: int = 30, seed: int = 0, progress: Progress = False) -> nn.Sequential:
    """Train `faces_cnn` on the training half of `faces`, in a second or two on a CPU.

    Parameters
    ----------
    epochs
        How long.
    seed
        Of the weights and of the order of samples. Global random state is left as it was.
    progress
        True draws a bar, a callable gets ``(done, total)`` epochs.

    Returns
    -------
    torch.nn.Sequential
        The trained network in evaluation mode.
    """
    data = faces("train")
    return train(faces_cnn, data, epochs=epochs, batch_size=20, seed=seed, progress=progress)
