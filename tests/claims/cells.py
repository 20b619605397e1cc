"""Populations and networks on which the claims are measured, by `ifa.claims`.

Of the planted networks the truth is known: `BOTTLENECK` of their features reach the output,
as channels of their own among others that nothing reads, or turned, so that every channel has some
of every feature. Both compute the same function.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

import ifa

BOTTLENECK, CHANNELS = 4, 24  # of the planted networks
CROP, TRAINED = 32, 200  # extent; crops of each picture to train on
PICTURES = ("brick", "coins", "grass", "gravel", "page")

Items = Sequence[tuple[Tensor, int, str]]


class Population(NamedTuple):
    title: str
    parts: Callable[[int], tuple[Items, Items]]  # seed -> (to train and rank, to measure)


class Cell(NamedTuple):
    population: str
    network: str  # as the tables call it
    make: Callable[[], nn.Module]
    layer: str
    epochs: int


def measured(key: str, seed: int) -> dict[str, Any]:
    """Train a network, and measure the claims on samples that it has not seen."""
    cell = CELLS[key]
    train, rest = POPULATIONS[cell.population].parts(seed)
    options: Any = {"epochs": cell.epochs, "batch_size": 32, "seed": seed}
    net = ifa.nets.train(cell.make, train, **options)
    run: Any = {"layer": cell.layer, "progress": False}
    statistics = ifa.analyze(net, train, reductions=["second_moments"], **run)
    found = ifa.claims(net, rest, cell.layer, statistics=statistics, progress=False)
    inputs, labels = torch.stack([one for one, *_ in rest]), torch.tensor([it[1] for it in rest])
    columns = ("estimate", "low", "high", "verdict", "sentence")
    return {
        "accuracy": float((_outputs(net(inputs)).argmax(1) == labels).double().mean()),
        "samples": len(rest),
        "channels": statistics[cell.layer].sizes["channel"],
        "claims": {
            name: {column: found[column].sel(claim=name).item() for column in columns}
            for name in found["claim"].values.tolist()
        },
    }


def _outputs(found: Any) -> Tensor:
    return getattr(found, "logits", found)


# populations -------------------------------------------------------------------------------------


def _digits(seed: int) -> tuple[Items, Items]:
    del seed
    return ifa.nets.digits("train"), ifa.nets.digits("held-out")


def _enlarged(seed: int) -> tuple[Items, Items]:
    train, rest = _digits(seed)
    return tuple(ifa.nets.enlarged(part, size=(24, 24)) for part in (train, rest))  # pyright: ignore


def _faces(seed: int) -> tuple[Items, Items]:
    del seed
    return ifa.nets.faces("train"), ifa.nets.faces("held-out")


def _simulated(seed: int, *, space: int) -> tuple[Items, Items]:
    make = partial(ifa.nets.simulated, space)
    return make(samples=300, seed=2 * seed), make(samples=600, seed=2 * seed + 1)


def _crops(seed: int) -> tuple[Items, Items]:
    """Crop the left halves of pictures anywhere, and cut the right ones into whole pieces."""
    from skimage import data

    rng = np.random.default_rng(seed)
    train, rest = [], []
    for label, name in enumerate(PICTURES):
        whole = getattr(data, name)()
        left, right = np.split(whole, [whole.shape[1] // 2], axis=1)
        corners = rng.integers(np.array(left.shape) - CROP + 1, size=(TRAINED, 2))
        train += [_crop(left, corner, label, name) for corner in corners]
        places = np.ndindex(*(extent // CROP for extent in right.shape))
        rest += [_crop(right, CROP * np.array(place), label, name) for place in places]
    return train, rest


def _crop(whole: np.ndarray, corner: np.ndarray, label: int, name: str) -> tuple[Tensor, int, str]:
    row, column = corner.tolist()
    values = whole[row : row + CROP, column : column + CROP].astype(np.float32)
    return torch.from_numpy(values / 64 - 2)[None], label, f"{name} at {row}, {column}"


POPULATIONS = {
    "digits": Population("Digits, 8 × 8", _digits),
    "enlarged": Population("Digits, enlarged to 24 × 24", _enlarged),
    "faces": Population("Faces and background, 25 × 25", _faces),
    "signals": Population("Simulated signals, 48 points", partial(_simulated, space=1)),
    "volumes": Population("Simulated volumes, 10 × 10 × 10", partial(_simulated, space=3)),
    "crops": Population("Pieces of five pictures, 32 × 32", _crops),
}


# networks ----------------------------------------------------------------------------------------


def _bent(make: Callable[[], nn.Sequential]) -> nn.Sequential:
    """Put two layers in the place of a linear head."""
    net = make()
    head: Any = net.head
    wide, outputs = head.in_features, head.out_features
    net.head = nn.Sequential(nn.Linear(wide, wide), nn.ReLU(), nn.Linear(wide, outputs))
    return net


class _Planted(nn.Module):
    """Few features among channels that nothing reads, or turned with them."""

    def __init__(self, space: int, turned: bool):
        super().__init__()
        small = ifa.nets.simulated_cnn(space)
        conv: Any = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[space - 1]
        norm: Any = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[space - 1]
        block = conv(8, BOTTLENECK, 5, 2, padding=2), norm(BOTTLENECK), nn.ReLU()
        self.features = nn.Sequential(small.conv1, *block)
        self.others = nn.Sequential(conv(1, CHANNELS - BOTTLENECK, 5, 2, padding=2), nn.ReLU())
        matrix = torch.linalg.qr(torch.randn(CHANNELS, CHANNELS)).Q
        self.register_buffer("matrix", matrix if turned else torch.eye(CHANNELS))
        self.layer, self.flat = nn.Identity(), small.flat
        self.head = nn.Linear(BOTTLENECK, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        both = torch.cat([self.features(inputs), self.others(inputs)], 1)
        seen = self.layer(torch.einsum("kc,nc...->nk...", self.matrix, both))
        read = torch.einsum("kc,nk...->nc...", self.matrix[:, :BOTTLENECK], seen)
        return self.head(self.flat(read))


class _Logits(nn.Module):
    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images).logits


def _resnet() -> nn.Module:
    from transformers import ResNetConfig, ResNetForImageClassification

    sizes: Any = {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1]}
    config = ResNetConfig(**sizes, num_channels=1, layer_type="basic", num_labels=len(PICTURES))
    return _Logits(ResNetForImageClassification(config))


def _vit() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    sizes: Any = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "image_size": CROP, "patch_size": 8, "num_channels": 1}
    return _Logits(ViTForImageClassification(ViTConfig(**sizes, num_labels=len(PICTURES))))


def _cells() -> dict[str, Cell]:
    digits, strided, faces = ifa.nets.digits_cnn, ifa.nets.strided_cnn, ifa.nets.faces_cnn
    crops = partial(ifa.nets.strided_cnn, outputs=len(PICTURES))
    cells = [
        Cell("digits", "CNN, linear head", digits, "conv3", 12),
        Cell("digits", "CNN, a block before the head", digits, "conv2", 12),
        Cell("digits", "CNN, two-layer head", partial(_bent, digits), "conv3", 12),
        Cell("enlarged", "CNN, linear head", strided, "conv3", 10),
        Cell("enlarged", "CNN, two-layer head", partial(_bent, strided), "conv3", 10),
        Cell("faces", "CNN, linear head", faces, "conv3", 20),
        Cell("faces", "CNN, two-layer head", partial(_bent, faces), "conv3", 20),
        Cell("crops", "ResNet", _resnet, "net.resnet.encoder.stages.1", 6),
        Cell("crops", "ViT", _vit, "net.vit.layers.1.layernorm_before", 25),
        Cell("crops", "CNN, two-layer head", partial(_bent, crops), "conv3", 6),
    ]
    for name, space, epochs in (("signals", 1, 60), ("volumes", 3, 12)):
        net = partial(ifa.nets.simulated_cnn, space)
        cells += [
            Cell(name, "CNN, linear head", net, "conv2", epochs),
            Cell(name, "CNN, two-layer head", partial(_bent, net), "conv2", epochs),
            Cell(name, "planted", partial(_Planted, space, False), "layer", epochs),
            Cell(name, "planted, turned", partial(_Planted, space, True), "layer", epochs),
        ]
    return {f"{cell.population}, {cell.network}": cell for cell in cells}


CELLS = OrderedDict(_cells())
