"""Do few features suffice? Accuracy with the first k features of every kind, k by k.

Features are fitted and ranked on the training half of the digits, accuracy is that on the held-out
half, where all but the first k are filled: channels with zero or with their mean, the others with
their mean.
"""

from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

import ifa
from ifa.basis import Dictionary

KS = (3, 6, 10, 16, 32)
DRAWS = 5  # of what is at random, for each seed
# Networks, and layers of each.
NETWORKS = {
    "cnn": (ifa.nets.digits_cnn, ("conv3", "conv2")),
    "vit": (ifa.nets.digits_vit, ("blocks.1.norm1",)),
}
TITLES = {
    "conv3": "`conv3` of the digits' CNN: 64 channels, linear above",
    "conv2": "`conv2` of it: 64 channels, a block of convolutions and a linear layer above",
    "blocks.1.norm1": "`blocks.1.norm1` of a small ViT for digits, laid out: 48 channels",
}
# What a prototype gave, mean ± standard deviation over five seeds.
BEFORE = {
    "conv3": {
        "channels, zero fill": "0.329±0.036 0.599±0.082 0.635±0.096 0.752±0.133 0.949±0.019",
        "channels, mean fill": "0.297±0.058 0.512±0.174 0.744±0.134 0.906±0.070 0.986±0.005",
        "channels, mean fill, centred": "0.275±0.056 0.487±0.162 0.730±0.133 0.908±0.050 "
        "0.986±0.003",
        "random channels, zero fill": "0.282±0.017 0.485±0.024 0.682±0.058 0.831±0.039 0.968±0.006",
        "random channels, mean fill": "0.276±0.077 0.478±0.131 0.716±0.093 0.915±0.034 0.986±0.004",
        "random rotation": "0.296±0.082 0.477±0.113 0.692±0.078 0.878±0.045 0.978±0.010",
        "pca by variance": "0.683±0.037 0.982±0.010 0.991±0.002 0.991±0.003 0.992±0.003",
        "pca by importance": "0.661±0.076 0.948±0.037 0.991±0.002 0.991±0.003 0.992±0.004",
        "gradient": "0.705±0.051 0.962±0.040 0.991±0.003 0.991±0.003 0.991±0.003",
        "balanced": "0.702±0.055 0.986±0.004 0.991±0.003 0.991±0.003 0.991±0.003",
        "pca of A ⊙ G": "0.571±0.051 0.967±0.022 0.991±0.002 0.991±0.003 0.991±0.003",
    },
    "conv2": {
        "channels, zero fill": "0.123±0.028 0.235±0.141 0.267±0.093 0.426±0.129 0.675±0.070",
        "channels, mean fill": "0.367±0.039 0.583±0.058 0.769±0.087 0.902±0.067 0.982±0.003",
        "channels, mean fill, centred": "0.374±0.030 0.572±0.070 0.764±0.118 0.914±0.037 "
        "0.982±0.002",
        "random channels, zero fill": "0.122±0.024 0.147±0.024 0.167±0.046 0.218±0.058 0.483±0.033",
        "random channels, mean fill": "0.313±0.042 0.502±0.048 0.670±0.044 0.826±0.021 0.963±0.004",
        "random rotation": "0.298±0.038 0.477±0.040 0.672±0.039 0.836±0.032 0.964±0.009",
        "pca by variance": "0.373±0.080 0.488±0.085 0.665±0.099 0.879±0.044 0.988±0.005",
        "pca by importance": "0.464±0.077 0.744±0.032 0.901±0.013 0.956±0.033 0.988±0.005",
        "gradient": "0.660±0.050 0.951±0.034 0.991±0.003 0.991±0.003 0.991±0.003",
        "balanced": "0.654±0.056 0.967±0.028 0.990±0.003 0.991±0.003 0.991±0.003",
        "pca of A ⊙ G": "0.558±0.064 0.883±0.043 0.986±0.004 0.989±0.005 0.990±0.002",
    },
}


def measured(network: str, seed: int) -> dict[str, Any]:
    """Train a network, and return the accuracy with the first k of each kind of features."""
    make, layers = NETWORKS[network]
    net = ifa.nets.train_digits(network=make, seed=seed)
    data, held_out = (_stacked(split) for split in ("train", "held-out"))
    found: dict[str, Any] = {}
    for layer in layers:
        kinds = _kinds(net, layer, *data)
        found[layer] = {
            name: np.mean([_accuracies(net, layer, *held_out, *one) for one in several], 0).tolist()
            for name, several in kinds.items()
        }
        order, mean, _ = kinds["channels, mean fill"][0]
        dropped = ifa.evaluate.feature_perturbation(
            net, layer, held_out[0], torch.zeros(len(order), dtype=torch.bool), baseline=mean
        )
        found[layer]["none"] = _accuracy(dropped, held_out[1])
    return {"all": _accuracy(net(held_out[0]), held_out[1]), "layers": found}


Kind = tuple[Tensor, Any, Dictionary | None]  # what ranks features, their fill, their basis


def _kinds(net: Any, layer: str, inputs: Tensor, labels: Tensor) -> dict[str, list[Kind]]:
    """Fit and rank each kind of features; of what is at random there are several."""
    data = list(zip(inputs, labels.tolist(), strict=True))
    run: Any = {"layer": layer, "progress": False}
    tree = ifa.analyze(net, data, targets=range(10), reductions="second_moments", **run)
    moments = tree[layer].to_dataset()
    pca, mean = ifa.basis.pca(moments), ifa.basis.identity(moments).mean
    own, turned = (
        ifa.analyze(net, data, targets="label", basis=basis, **run)[layer].to_dataset()
        for basis in (None, pca)
    )
    features = ifa.tap(net, layer, inputs)(inputs, labels)
    by, centred = _largest(own), _largest(_centred(features, labels, mean))
    overall = torch.from_numpy(own["importance_overall"].values)
    draws = [_shuffled(len(mean), seed) for seed in range(DRAWS)]
    found: dict[str, list[Kind]] = {
        "channels, zero fill": [(by, 0.0, None)],
        "channels, mean fill": [(by, mean, None)],
        "channels, zero fill, ranked over all": [(overall, 0.0, None)],
        "channels, mean fill, ranked over all": [(overall, mean, None)],
        "channels, mean fill, centred": [(centred, mean, None)],
        "random channels, zero fill": [(one, 0.0, None) for one in draws],
        "random channels, mean fill": [(one, mean, None) for one in draws],
    }
    bases = {
        "random rotation": [ifa.basis.rotation(moments, seed=seed) for seed in range(DRAWS)],
        "pca by variance": [pca],
        "gradient": [ifa.basis.gradient(moments)],
        "balanced": [ifa.basis.balanced(moments)],
        "pca of A ⊙ G": [_of_products(features, mean)],
    }
    first = torch.arange(len(mean), 0, -1)
    for name, several in bases.items():
        found[name] = [(first, ifa.basis.fill(one), one) for one in several]
    weighed = torch.from_numpy(turned["importance_overall"].values)
    return found | {"pca by importance": [(weighed, ifa.basis.fill(pca), pca)]}


def _accuracies(
    net: Any, layer: str, inputs: Tensor, labels: Tensor, order: Tensor, fill: Any, basis: Any
) -> list[float]:
    ratio = [k / len(order) for k in KS]
    options: Any = {"ratio": ratio, "baseline": fill, "basis": basis}
    found = ifa.evaluate.feature_curve(net, layer, inputs, order, **options)
    return [_accuracy(outputs, labels) for outputs in found.outputs]


def _accuracy(outputs: Tensor, labels: Tensor) -> float:
    return float((outputs.argmax(-1) == labels).double().mean())


def _largest(statistics: xr.Dataset) -> Tensor:
    """Rank channels as `ifa.diagnose.principal_features` does: by the target they differ for."""
    return torch.from_numpy(abs(ifa.difference(statistics)).max("target").values)


def _centred(features: ifa.Features, labels: Tensor, mean: Tensor) -> xr.Dataset:
    """Importances of activations less their mean, by target."""
    away = features.activations - mean.to(features.activations).reshape(-1, 1, 1)
    importance = (away * features.gradients).flatten(2).sum(2, dtype=torch.float64)
    rows = [importance[labels == one].mean(0).numpy() for one in range(10)]
    overall = ("channel", importance.mean(0).numpy())
    table = (("target", "channel"), np.stack(rows))
    return xr.Dataset({"importance": table, "importance_overall": overall})


def _of_products(features: ifa.Features, mean: Tensor) -> Dictionary:
    """Directions in which activation times gradient varies most."""
    rows = (features.activations * features.gradients).movedim(1, -1).flatten(0, -2)
    reduction = ifa.reduce.second_moments()
    moments = reduction.finalize(ifa.reduce.fold(reduction, [ifa.reduce.Rows(rows, rows)]))
    return ifa.basis.pca(moments)._replace(mean=mean)


def _shuffled(count: int, seed: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def _stacked(split: Any) -> tuple[Tensor, Tensor]:
    images, labels, _ = zip(*ifa.nets.digits(split), strict=True)
    return torch.stack(images), torch.tensor(labels)
