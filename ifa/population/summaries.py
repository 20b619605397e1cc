"""What a run says, in words: how often the network is right, which channels it uses, the scale."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ifa.intervals import share_interval
from ifa.reduce.statistics import clusters_of, difference, feature_of, over_groups, tells_apart
from ifa.reduce.verdicts import FLAGS
from ifa.scaling import scale_from
from ifa.types import Statistics

_WHERE = "ifa.population.summary"

# What may be wrong with a map, and what to do of it.
_CAUTIONS = {
    "zero_gradient": "their maps are zero: a saturated score or a dead layer; take another layer",
    "cancelled": "their maps are rounding: take a layer that no normalization reads",
    "nonfinite": "left out: look at these inputs, and at the range of the network's numbers",
}


def summary(statistics: Statistics, *, channels: int = 5, targets: int = 12) -> str:
    """Say what a run found: accuracy, channels of each target, the common scale, cautions.

    Parameters
    ----------
    statistics
        A tree, as `ifa.analyze`, `ifa.merge` or `ifa.open` returns it. Of a run by groups, the mean
        over groups by their accepted samples is said.
    channels
        How many of the largest are named, by absolute value: those of `importance`, which are used
        for the target, and those of `ifa.difference`, which set it apart.
    targets
        At most so many are listed, those of the most accepted samples.

    Returns
    -------
    str
        Several lines. The accuracies are those of the sample table, over all samples and over those
        of each label, with Wilson's 95 % intervals, by cluster where the run keeps whose samples
        are; of several labels that of each, and how many of those with it and of those without it
        are predicted so; for regression, Pearson's r of each output.

    Raises
    ------
    ValueError
        If these are no statistics of `ifa.analyze`.

    Examples
    --------
    >>> import ifa, torch
    >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 2, 3), torch.nn.Flatten())
    >>> data = [(torch.ones(1, 4), int(net(torch.ones(1, 1, 4)).argmax()))] * 3
    >>> statistics = ifa.analyze(net, data, layer="0", progress=False)
    >>> ifa.population.summary(statistics).splitlines()[1]
    'accuracy: 1.000 (95 % interval 0.439 … 1.000), 3 of 3'
    """
    known = json.loads(statistics.attrs.get("spec", "{}"))
    if "keep_samples" not in known or "layers" not in statistics.attrs:
        came = getattr(statistics, "attrs", {}).get("title", type(statistics).__name__)
        raise ValueError(
            f"{_WHERE}: expected the tree of a run of ifa.analyze, got {came!r}. Of a single layer "
            "read the dataset itself."
        )
    lines = [f"{_samples(known['data'])} samples, {known['task']}"]
    names = _names(statistics)
    lines += _right(statistics, known["task"], names, targets)
    for layer in statistics.attrs["layers"]:
        lines += _layer(statistics[layer].to_dataset(), layer, channels, targets)
    return "\n".join(lines)


def _samples(data: Any) -> int:
    """Count the samples that a spec is of; a merged run's lists those of its parts."""
    return sum(map(_samples, data)) if isinstance(data, list) else int(data["samples"])


def _names(statistics: Any) -> dict[int, str]:
    dataset = statistics[statistics.attrs["layers"][0]].to_dataset()
    return dict(zip(dataset["target"].values.tolist(), _written(dataset), strict=True))


def _written(dataset: Any) -> list[str]:
    named = dataset["target_name"] if "target_name" in dataset.coords else dataset["target"]
    return [str(name) for name in named.values]


def _right(statistics: Any, task: str, names: dict[int, str], most: int) -> Iterator[str]:
    if "samples" not in statistics.children:
        yield "accuracy: not known, no sample was kept (keep_samples='none'); 'summary' keeps it"
        return
    table = statistics["samples"].to_dataset()
    label, prediction = table["label"].values, table["prediction"].values
    if task == "regression":
        columns = (values.reshape(len(label), -1).T for values in (label, prediction))
        pairs = list(zip(*columns, strict=True))
        for output, (truth, found) in enumerate(pairs[:most]):
            yield f"output {names.get(output, output)}: r = {_correlation(truth, found):.3f}"
        if len(pairs) > most:
            yield f"  and {len(pairs) - most} outputs more"
        return
    clusters, codes = clusters_of(statistics, None, _WHERE, heed=False)
    codes = np.arange(len(label)) if codes is None else codes
    if clusters:
        yield f"{len(clusters)} clusters of samples, which intervals count"
    if task in FLAGS:
        yield from _flags(label, prediction, codes, names, most)
        return
    right = label == prediction
    yield f"{'found' if task == 'scored' else 'accuracy'}: {_share(right, codes)}"
    classes, counts = np.unique(label, return_counts=True)
    shown = np.sort(np.argsort(-counts, kind="stable")[:most])
    written = [names.get(int(of), str(of)) for of in classes[shown]]
    wide = max(map(len, written), default=0)
    for of, name in zip(classes[shown], written, strict=True):
        yield f"  {name:{wide}}  {_share(right[label == of], codes[label == of])}"
    if len(classes) > most:
        yield f"  and {len(classes) - most} classes more"


def _flags(
    label: np.ndarray, prediction: np.ndarray, codes: np.ndarray, names: dict[int, str], most: int
) -> Iterator[str]:
    """Say of each output how often its label is predicted rightly."""
    label, prediction = (values.reshape(len(values), -1) for values in (label, prediction))
    right = label == prediction
    if label.shape[1] > 1:
        yield f"all labels of a sample: {_share(right.all(1), codes)}"
    for output in range(min(label.shape[1], most)):
        there, hit = label[:, output] == 1, right[:, output]
        each = f"with it {_part(hit[there])}, without it {_part(hit[~there])}"
        name = f" of {names.get(output, output)}" if len(names) > 1 or label.shape[1] > 1 else ""
        yield f"accuracy{name}: {_share(hit, codes)}; {each}"
    if label.shape[1] > most:
        yield f"  and {label.shape[1] - most} outputs more"


def _part(right: np.ndarray) -> str:
    return f"{int(right.sum())} of {len(right)}"


def _share(right: np.ndarray, codes: np.ndarray) -> str:
    count, of = int(right.sum()), len(right)
    low, high = share_interval(right, codes=codes)
    return f"{count / of:.3f} (95 % interval {low:.3f} … {high:.3f}), {count} of {of}"


def _correlation(truth: np.ndarray, found: np.ndarray) -> float:
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.corrcoef(truth, found)[0, 1])


def _layer(dataset: Any, layer: str, channels: int, targets: int) -> Iterator[str]:
    count, unit = dataset["count"], dataset["importance"].attrs.get("units", "1")
    accepted = count.values.reshape(-1, dataset.sizes["target"]).sum(0)
    importance = over_groups(dataset["importance"], count).values
    feature = feature_of(dataset)
    sizes = f"{dataset.sizes[feature]} {feature}s, {dataset.sizes['target']} targets"
    yield f"layer {layer}: {sizes}, {int(accepted.sum())} accepted samples"
    apart = over_groups(difference(dataset), count).values if tells_apart(dataset) else None
    rows = _rows(_written(dataset), accepted, importance, apart, channels, targets)
    head = ["target", "accepted", f"strongest {feature}s ({unit})"]
    yield from _table([[*head, f"what sets it apart ({unit})"][: len(rows[0])], *rows])
    if feature == "atom":
        held = float(
            dataset["importance"].sum() / (dataset["importance"].sum() + dataset["residual"].sum())
        )
        yield f"  the atoms hold {held:.4g} of the importance of accepted samples"
    if dataset.sizes["target"] > targets:
        yield f"  and {dataset.sizes['target'] - targets} targets more"
    if {0.5, 0.9} <= set(dataset["quantile"].values.tolist()):
        scale = scale_from(dataset)
        limits = f"{float(scale.low):.4g} … {float(scale.high):.4g} {unit}"
        yield f"  common scale (median minimum … 90th percentile maximum): {limits}"
    numbers = {name: int(dataset[name].sum()) for name in _CAUTIONS}
    yield f"  cautions: {', '.join(f'{number} {name}' for name, number in numbers.items())}"
    for name, what in _CAUTIONS.items():
        if numbers[name]:
            yield f"    {name}: {dataset[name].attrs.get('long_name', 'samples')}; {what}"


def _rows(
    names: list[str],
    accepted: np.ndarray,
    importance: np.ndarray,
    apart: np.ndarray | None,
    channels: int,
    targets: int,
) -> list[list[str]]:
    shown = np.sort(np.argsort(-accepted, kind="stable")[:targets])
    tables = [importance] if apart is None else [importance, apart]
    return [
        [names[row], str(accepted[row]), *(_largest(one[row], channels) for one in tables)]
        for row in shown
    ]


def _largest(values: np.ndarray, channels: int) -> str:
    if not np.isfinite(values).all():
        return "-"
    order = np.argsort(-np.abs(values), kind="stable")[:channels]
    return ", ".join(f"{channel} ({values[channel]:+.3g})" for channel in order)


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield f"  {'  '.join(cells)}".rstrip()
