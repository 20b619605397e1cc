"""``python -m tests.claims``: do few features suffice? Accuracy with some, as Markdown tables.

A network for the digits is trained for each seed. Features are fitted and ranked on the training
half, accuracy is that on the held-out half, where all but the first k features are filled. Each
seed and layer is a file in the store: a killed run goes on where it was.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import ifa
from ifa.basis import Dictionary

KS = [3, 6, 10, 16, 32]
DRAWS = 5  # of what is at random, for each seed
# What a prototype gave, mean ± standard deviation over five seeds.
BEFORE = {
    "conv3": {
        "channels, zero fill": "0.329±0.036 0.599±0.082 0.635±0.096 0.752±0.133 0.949±0.019",
        "channels, mean fill": "0.297±0.058 0.512±0.174 0.744±0.134 0.906±0.070 0.986±0.005",
        "random channels, zero fill": "0.282±0.017 0.485±0.024 0.682±0.058 0.831±0.039 0.968±0.006",
        "random channels, mean fill": "0.276±0.077 0.478±0.131 0.716±0.093 0.915±0.034 0.986±0.004",
        "random rotation": "0.296±0.082 0.477±0.113 0.692±0.078 0.878±0.045 0.978±0.010",
        "pca by variance": "0.683±0.037 0.982±0.010 0.991±0.002 0.991±0.003 0.992±0.003",
        "pca by importance": "0.661±0.076 0.948±0.037 0.991±0.002 0.991±0.003 0.992±0.004",
        "gradient": "0.705±0.051 0.962±0.040 0.991±0.003 0.991±0.003 0.991±0.003",
        "balanced": "0.702±0.055 0.986±0.004 0.991±0.003 0.991±0.003 0.991±0.003",
    },
    "conv2": {
        "channels, zero fill": "0.123±0.028 0.235±0.141 0.267±0.093 0.426±0.129 0.675±0.070",
        "channels, mean fill": "0.367±0.039 0.583±0.058 0.769±0.087 0.902±0.067 0.982±0.003",
        "random channels, zero fill": "0.122±0.024 0.147±0.024 0.167±0.046 0.218±0.058 0.483±0.033",
        "random channels, mean fill": "0.313±0.042 0.502±0.048 0.670±0.044 0.826±0.021 0.963±0.004",
        "random rotation": "0.298±0.038 0.477±0.040 0.672±0.039 0.836±0.032 0.964±0.009",
        "pca by variance": "0.373±0.080 0.488±0.085 0.665±0.099 0.879±0.044 0.988±0.005",
        "pca by importance": "0.464±0.077 0.744±0.032 0.901±0.013 0.956±0.033 0.988±0.005",
        "gradient": "0.660±0.050 0.951±0.034 0.991±0.003 0.991±0.003 0.991±0.003",
        "balanced": "0.654±0.056 0.967±0.028 0.990±0.003 0.991±0.003 0.991±0.003",
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.claims", description=__doc__)
    parser.add_argument("--store", type=Path, default=Path("build/claims"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--layers", nargs="+", default=["conv3", "conv2"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    for seed in range(options.seeds):
        measured(options.store, seed, options.layers)
    for layer in options.layers:
        each = [measured(options.store, seed, [layer])[layer] for seed in range(options.seeds)]
        print(table(layer, each), flush=True)


def measured(store: Path, seed: int, layers: list[str]) -> dict[str, Any]:
    """Measure what is not in the store, and return all."""
    files = {layer: store / f"{layer}-{seed}.json" for layer in layers}
    missing = [layer for layer, file in files.items() if not file.exists()]
    if missing:
        store.mkdir(parents=True, exist_ok=True)
        net = ifa.nets.train_digits(seed=seed)
        for layer in missing:
            text = json.dumps(curves(net, layer))
            temporary = files[layer].with_suffix(".part")
            temporary.write_text(text)
            temporary.replace(files[layer])
    return {layer: json.loads(file.read_text()) for layer, file in files.items()}


def curves(net: torch.nn.Module, layer: str) -> dict[str, Any]:
    """Return the accuracy with the first k of each kind of features."""
    data = ifa.nets.digits("train")
    options: dict[str, Any] = {"layer": layer, "progress": False}
    found = ifa.analyze(net, data, targets=range(10), reductions="second_moments", **options)
    moments = found[layer].to_dataset()
    channels, pca = ifa.basis.identity(moments), ifa.basis.pca(moments)
    run = accuracy_of(net, layer)

    def ranked(basis: Dictionary) -> Tensor:
        tree = ifa.analyze(net, data, targets="label", basis=basis, **options)
        return torch.tensor(tree[layer]["importance_overall"].values).argsort(descending=True)

    order, count = ranked(channels), len(channels.atoms)
    draws = [
        torch.randperm(count, generator=torch.Generator().manual_seed(n)) for n in range(DRAWS)
    ]
    turned = [ifa.basis.rotation(moments, seed=n) for n in range(DRAWS)]
    inorder = torch.arange(count)
    kinds: dict[str, list[tuple[Dictionary, Tensor, bool]]] = {
        "channels, zero fill": [(channels, order, True)],
        "channels, mean fill": [(channels, order, False)],
        "random channels, zero fill": [(channels, one, True) for one in draws],
        "random channels, mean fill": [(channels, one, False) for one in draws],
        "random rotation": [(one, inorder, False) for one in turned],
        "pca by variance": [(pca, inorder, False)],
        "pca by importance": [(pca, ranked(pca), False)],
        "gradient": [(ifa.basis.gradient(moments), inorder, False)],
        "balanced": [(ifa.basis.balanced(moments), inorder, False)],
    }
    result = {
        name: [float(np.mean([run(*case, k) for case in cases])) for k in KS]
        for name, cases in kinds.items()
    }
    return {"all": run(channels, inorder, False, count), **result}


def accuracy_of(net: torch.nn.Module, layer: str) -> Callable[..., float]:
    """Make a function of (features, order, zeros, k): the accuracy with the first k features."""
    held_out = ifa.nets.digits("held-out")
    inputs = torch.stack([image for image, *_ in held_out])
    labels = torch.tensor([label for _, label, _ in held_out])
    activations, head = ifa.cut(net, layer, inputs)(inputs)

    def run(basis: Dictionary, order: Tensor, zeros: bool, k: int) -> float:
        kept = torch.zeros(len(order), dtype=torch.bool).index_fill(0, order[:k], True)
        hidden = ifa.basis.fill(basis) * (not zeros)
        codes = torch.vmap(ifa.basis.encode, (None, 0))(basis, activations)
        spread = (1, -1) + (1,) * (codes.ndim - 2)
        codes = torch.where(kept.reshape(spread), codes, hidden.to(codes).reshape(spread))
        made = torch.vmap(ifa.basis.decode, (None, 0))(basis, codes)
        with torch.no_grad():
            return float((head(made).argmax(1) == labels).double().mean())

    return run


def table(layer: str, each: list[dict[str, Any]]) -> str:
    """Write the curves of all seeds beside those of the prototype."""
    whole = np.mean([one["all"] for one in each])
    lines = [
        f"\n{layer}, {len(each)} seeds, all features {whole:.4f}; mean ± standard deviation, and "
        "in brackets the prototype's mean\n",
        "| features | " + " | ".join(f"{k}" for k in KS) + " |",
        "|---|" + "---|" * len(KS),
    ]
    for name in BEFORE[layer]:
        values = np.array([one[name] for one in each])
        deviation = values.std(0, ddof=1) if len(values) > 1 else np.zeros(len(KS))
        before = [cell.split("±")[0] for cell in BEFORE[layer][name].split()]
        cells = zip(values.mean(0), deviation, before, strict=True)
        lines.append(
            f"| {name} | " + " | ".join(f"{m:.3f} ± {s:.3f} ({b})" for m, s, b in cells) + " |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
