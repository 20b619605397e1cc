"""Small networks and populations for tests, and all statistics from their definitions."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import nn

QUANTILES = (0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
SPACE = {1: (11,), 2: (7, 9), 3: (5, 4, 6)}
_CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class Net(nn.Module):
    """Two convolutions and a curved head; no two axes have the same extent."""

    def __init__(self, space, outputs, squeeze):
        super().__init__()
        self.input_shape = (2, *SPACE[space])
        self.conv1 = _CONV[space](2, 3, 3, padding=1)
        self.conv2 = _CONV[space](3, 5, 3, stride=2)
        self.hidden = nn.Linear(5, 6)
        self.head = nn.Linear(6, outputs)
        self.squeeze = squeeze

    def forward(self, inputs):
        features = nn.functional.silu(self.conv2(self.conv1(inputs).tanh()))
        output = self.head(self.hidden(features.flatten(2).mean(2)).tanh())
        return output.squeeze(1) if self.squeeze else output


def noise(model, samples, seed=1):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(samples, *model.input_shape, generator=generator, dtype=torch.float64)
    loudness = torch.rand(samples, generator=generator, dtype=torch.float64) * 3
    values = values * loudness.reshape(-1, *[1] * len(model.input_shape))
    return values.to(next(model.parameters()).dtype)


def net(space=2, outputs=4, *, squeeze=False, dtype=torch.float32, seed=0):
    """Make a network that predicts every class about equally often, without a trace in torch."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Net(space, outputs, squeeze).eval()
        with torch.no_grad():
            model.head.weight *= 5
            model.head.bias -= model(noise(model, 200, seed=2)).reshape(200, -1).mean(0)
    return model.to(dtype)


def digits_like(model, samples=23, *, right=0.7, without=(), named=False):
    """Make a classification population; classes in `without` are never predicted rightly."""
    inputs = noise(model, samples)
    rng = np.random.default_rng(0)
    with torch.no_grad():
        logits = model(inputs)
    data = []
    for index, (values, row) in enumerate(zip(inputs, logits, strict=True)):
        label = int(row.argmax())
        if label in without or rng.random() > right:
            label = (label + 1) % len(row)
        data.append((values, label, f"case {index:02d} é") if named else (values, label))
    return data


def measured(model, samples=13):
    """Make a regression population with one real label for each output."""
    inputs = noise(model, samples)
    with torch.no_grad():
        outputs = model(inputs).reshape(samples, -1)
    labels = outputs.double() + torch.linspace(-1, 1, samples, dtype=torch.float64)[:, None]
    flat = labels.shape[1] == 1
    return [
        (value, float(row[0]) if flat else row.numpy())
        for value, row in zip(inputs, labels, strict=True)
    ]


def flagged(model, samples=23, *, right=0.7, never=(), named=False):
    """Make a population with a label of 0 or 1 for each output; those in `never` are never 1."""
    inputs = noise(model, samples)
    rng = np.random.default_rng(0)
    with torch.no_grad():
        predicted = (model(inputs).reshape(samples, -1) > 0).numpy()
    labels = np.where(rng.random(predicted.shape) > right, ~predicted, predicted).astype(int)
    labels[:, list(never)] = 0
    data = []
    for index, (values, row) in enumerate(zip(inputs, labels, strict=True)):
        label = int(row[0]) if len(row) == 1 else row
        data.append((values, label, f"case {index:02d}") if named else (values, label))
    return data


def weights_of(kernel, gradients):
    """Weights (channel, position), by the method's formula."""
    if kernel == "gradcam":
        return np.broadcast_to(gradients.mean(1, keepdims=True), gradients.shape)
    return {"fullcam": gradients, "layercam": np.maximum(gradients, 0)}[kernel]


def brute(
    model,
    data,
    layers,
    *,
    kernel="fullcam",
    targets="predicted",
    task="classification",
    groups=None,
    reduction="sum",
    quantiles=QUANTILES,
):
    """Compute all that ifa.analyze does, in float64, one sample and one target at a time."""
    seen = {}
    hooks = [
        model.get_submodule(name).register_forward_hook(
            lambda module, args, output, name=name: seen.update({name: output})
        )
        for name in layers
    ]
    rows, table = [], []
    outputs = None
    for item in data:
        output = model(torch.as_tensor(item[0])[None]).reshape(-1)
        outputs = len(output)
        prediction = int(output.argmax())
        flags = task in ("binary", "multilabel")
        if flags:
            prediction = [int(value > 0) for value in output]
            truth = np.reshape(item[1], -1)
        if not isinstance(targets, str):
            explained = list(targets)
        elif task == "regression" or flags:
            explained = list(range(outputs))
        else:
            explained = [prediction if targets == "predicted" else int(item[1])]
        table.append(
            {
                "label": item[1],
                "prediction": output.detach().numpy() if task == "regression" else prediction,
                "score": [output[t].item() for t in explained],
            }
        )
        for target in explained:
            for name in layers:
                (slope,) = torch.autograd.grad(output[target], seen[name], retain_graph=True)
                slope = slope[0].flatten(1).double().numpy()
                product = (
                    weights_of(kernel, slope) * seen[name].detach()[0].flatten(1).double().numpy()
                )
                whole = product.sum(0)
                if flags:
                    correct = truth[target] == prediction[target]
                    right = truth[target] == prediction[target] == 1
                else:
                    correct = task == "regression" or int(item[1]) == prediction
                    right = task == "regression" or int(item[1]) == prediction == target
                rows.append(
                    {
                        "sample": len(table) - 1,
                        "layer": name,
                        "target": target,
                        "accepted": right,
                        "correct": correct,
                        "importance": product.sum(1) if reduction == "sum" else product.mean(1),
                        "map_max": whole.max(),
                        "map_min": whole.min(),
                        "map_sum": whole.sum(),
                        "finite": bool(np.isfinite(whole).all()),
                        "zero": not slope.any(),
                        "cancelled": _cancelled(product),
                    }
                )
    for hook in hooks:
        hook.remove()
    listed = list(range(outputs)) if isinstance(targets, str) else list(targets)
    return {
        name: _statistics(
            [r for r in rows if r["layer"] == name],
            listed,
            groups,
            quantiles,
            flags or (task == "classification" and not isinstance(targets, str)),
        )
        for name in layers
    }, (table, rows)


def _cancelled(product):
    size = np.abs(product).sum(0)
    left = np.abs(product.sum(0))[size > 0] / size[size > 0]
    return bool(len(left) and left.max() < 1e-3)


def _statistics(rows, targets, groups, levels, by_target):
    good = [row for row in rows if row["finite"]]
    channels = len(rows[0]["importance"])

    def over(chosen, statistic, fewest=1):
        values = np.array([row["importance"] for row in chosen]).reshape(-1, channels)
        return statistic(values) if len(values) >= fewest else np.full(channels, np.nan)

    def extremes(name, chosen):
        values = [row[name] for row in chosen]
        return np.quantile(values, levels) if values else np.full(len(levels), np.nan)

    labels = [None] if groups is None else sorted(set(groups))
    found = {name: [] for name in ("importance", "importance_variance", "count", "overall")}
    for label in labels:
        here = [row for row in good if label is None or groups[row["sample"]] == label]
        mine = [row for row in here if row["accepted"]]
        each = [[row for row in mine if row["target"] == t] for t in targets]
        found["importance"].append([over(cell, lambda v: v.mean(0)) for cell in each])
        found["importance_variance"].append([over(c, lambda v: v.var(0, ddof=1), 2) for c in each])
        found["count"].append([len(cell) for cell in each])
        right = [row for row in here if row["correct"]]
        pools = [[row for row in right if row["target"] == t] for t in targets]
        overall = [over(pool, lambda v: v.mean(0)) for pool in (pools if by_target else [mine])]
        found["overall"].append(overall if by_target else overall[0])
    found["importance_overall"] = found.pop("overall")
    result = {k: np.array(v) if groups is not None else np.array(v)[0] for k, v in found.items()}
    lost = [row for row in rows if not row["finite"]]
    result["nonfinite"] = np.array([sum(row["target"] == t for row in lost) for t in targets])
    for name, flag in (("zero_gradient", "zero"), ("cancelled", "cancelled")):
        flagged = [row["target"] for row in rows if row[flag]]
        result[name] = np.array([flagged.count(t) for t in targets])
    for name in ("map_max", "map_min"):
        cells = [[row for row in good if row["target"] == t] for t in targets]
        result[name] = np.array([extremes(name, cell) for cell in cells])
        result[f"{name}_overall"] = extremes(name, good)
    return result


def contents(directory):
    """Every file below a directory with the digest of its bytes."""
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(directory).rglob("*"))
        if path.is_file()
    }


class Counted:
    """A data set that counts how often it is read."""

    def __init__(self, items):
        self.items, self.reads = items, 0

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        self.reads += 1
        return self.items[index]
