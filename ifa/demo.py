"""Integrated feature analysis of real handwritten digits, from training to pictures."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from torch import Tensor, nn

import ifa
from ifa import diagnose, evaluate, nets, plot
from ifa.population.analysis import analyze
from ifa.progress import Progress, reporting
from ifa.store.checkpoints import load_weights
from ifa.store.files import build_atomically, write_atomically
from ifa.store.runs import verify
from ifa.store.trees import write_tree

LAYER = "conv3"
RATIOS = (0.05, 0.10, 0.25, 0.50)
RANDOM_SEEDS = range(10)
FILLS = {"zero": "zero", "mean": "their mean"}
SETTINGS = {"demo": "ifa digits", "schema": 3, "seed": 0, "layer": LAYER}
TITLE = "Handwritten digits: what a small network uses"
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def analyze_digits(
    directory: str | os.PathLike[str], *, progress: Progress = True
) -> dict[str, Any]:
    """Train, analyze, select, measure and draw; continue what an earlier call left unfinished.

    Parameters
    ----------
    directory
        Where everything goes: a new or empty directory, or one of an earlier demo.
    progress
        As in `ifa.analyze`.

    Returns
    -------
    dict
        What was found: also in ``findings.json``, written last.

    Raises
    ------
    ValueError
        If the directory holds something else; it is then left untouched.
    """
    home = Path(directory)
    _claim(home)
    if (home / "findings.json").exists():
        verify(home / "run")
        return json.loads((home / "findings.json").read_bytes())
    model = _trained(home / "weights.safetensors", progress)
    held_out = nets.digits("held-out")
    tree = analyze(
        model,
        held_out,
        layer=LAYER,
        weight=ifa.weight.fullcam,
        target_names=NAMES,
        keep_samples="full",
        store=home / "run",
        progress=progress,
    )
    images = torch.stack([image for image, _, _ in held_out])
    labels = torch.tensor([label for _, label, _ in held_out])
    scale = ifa.scale_from(tree)
    maps, logits = _every_map(model, images, progress)
    levels = {
        "common scale": _levels(maps, ifa.rescale(scale)),
        "one by one": _levels(maps, ifa.minmax),
    }
    curves, smallest = _accuracy(model, held_out, tree, progress)
    if not (home / "accuracy.zarr").exists():
        build_atomically(home / "accuracy.zarr", lambda path: write_tree(xr.DataTree(curves), path))
    findings = {
        "samples": len(held_out),
        "accuracy": curves.attrs["reference"],
        "scale": {"low": float(scale.low), "high": float(scale.high)},
        "accepted": tree[LAYER].to_dataset()["count"].values.tolist(),
        "consistency": {name: _consistency(level, logits) for name, level in levels.items()},
        "kept": {
            str(fill): {
                str(rule): _cells(curves.sel(fill=fill, rule=rule))
                for rule in curves["rule"].values
            }
            for fill in curves["fill"].values
        },
        "smallest": smallest,
        "channels": tree[LAYER].sizes["channel"],
        "map_correlation": _map_correlation(model, images, tree, progress),
    }
    _draw(home / "pictures", model, images, labels, tree, maps, logits, levels, curves)
    page = home / "report.html"
    ifa.report(home / "run", held_out, page, model=model, title=TITLE, progress=progress)
    text = json.dumps(findings, indent=1).encode()
    write_atomically(home / "findings.json", lambda file: file.write(text))
    return findings


def report(findings: dict[str, Any], directory: str | os.PathLike[str]) -> str:
    """Write what was found, and where everything is, as a short text."""
    home, consistency = Path(directory), findings["consistency"]
    samples, scale = findings["samples"], findings["scale"]
    lines = [
        f"Held-out accuracy {findings['accuracy']:.4f} on {samples} digits; layer {LAYER}, fullcam",
        f"Common scale: {scale['low']:.3f} (low) to {scale['high']:.3f} (high), in logits.",
        "",
        "Does the level of a map follow the logit? Pearson r [95 % interval] over all samples",
        f"{'target':<8}{'on the common scale':>28}{'scaled one by one':>28}",
    ]
    for index, name in enumerate(NAMES):
        cells = (_interval(*consistency[kind][index]) for kind in ("common scale", "one by one"))
        lines.append(f"{name:<8}" + "".join(f"{cell:>28}" for cell in cells))
    lines += [
        "(What lies above this layer is linear, so that a fullcam map sums to the logit less its",
        "bias: 1.000 is what the formula promises. The other column is what scaling takes away.)",
        "",
    ]
    for fill in FILLS:
        lines += _kept(findings, fill)
    lines += [
        "(own: each target's score with its own channels; common: one set for all targets.",
        "difference: largest absolute difference of importance; random: mean over 10 seeds.)",
        "",
        "Mean correlation of a map of the kept channels with the whole map",
        f"{'kept':<6}{'difference':>12}{'random':>12}",
    ]
    for ratio in RATIOS:
        pair = (
            findings["map_correlation"][rule][f"{ratio:g}"] for rule in ("difference", "random")
        )
        lines.append(f"{ratio:<6.0%}" + "".join(f"{value:>12.3f}" for value in pair))
    lines += ["", f"weights     {home / 'weights.safetensors'}"]
    lines += [f"run         {home / 'run'}    (ifa.open reads it, ifa.verify checks it)"]
    lines += [f"accuracy    {home / 'accuracy.zarr'}", f"pictures    {home / 'pictures'}"]
    lines += [
        "",
        f"report: {home / 'report.html'}    (open it in a browser; it needs nothing else)",
    ]
    return "\n".join(lines)


_CURVE = ("performance", "low", "high")


def _cells(curve: xr.Dataset) -> dict[str, list[float]]:
    """Performance and limits of every ratio."""
    return {
        f"{ratio:g}": [float(curve[name].sel(ratio=ratio)) for name in _CURVE] for ratio in RATIOS
    }


def _kept(findings: dict[str, Any], fill: str) -> list[str]:
    """Write the table of kept channels, of one fill."""
    kept, channels = findings["kept"][fill], findings["channels"]
    lines = [
        f"Accuracy with only some channels of {LAYER} kept, others {FILLS[fill]} [95 % interval]",
        f"{'kept':<6}" + "".join(f"{rule:>24}" for rule in kept),
    ]
    for ratio in RATIOS:
        cells = (_interval(*rows[f"{ratio:g}"]) for rows in kept.values())
        lines.append(f"{ratio:<6.0%}" + "".join(f"{cell:>24}" for cell in cells))
    smallest = findings["smallest"][fill].items()
    named = ", ".join(f"{count} of {channels} ({kind})" for kind, count in smallest)
    return [*lines, f"Smallest set shown to be within one point of every channel: {named}", ""]


def _claim(home: Path) -> None:
    marker = home / "demo.json"
    if marker.exists():
        found = json.loads(marker.read_bytes())
        if found != SETTINGS:
            raise ValueError(
                f"ifa demo: expected {home} to be of this demo {SETTINGS}, got {found}. "
                "Nothing was touched. Give another directory."
            )
        return
    if home.exists() and (not home.is_dir() or any(home.iterdir())):
        raise ValueError(
            f"ifa demo: expected {home} to be new, empty or of an earlier demo, but it holds "
            "something else. Nothing was touched. Give another directory."
        )
    home.mkdir(parents=True, exist_ok=True)
    write_atomically(marker, lambda file: file.write(json.dumps(SETTINGS).encode()))


def _trained(weights: Path, progress: Progress) -> nn.Module:
    from safetensors.torch import save

    if not weights.exists():
        model = nets.train_digits(seed=SETTINGS["seed"], progress=progress)
        content = save({name: value.contiguous() for name, value in model.state_dict().items()})
        write_atomically(weights, lambda file: file.write(content))
    model = nets.digits_cnn().eval().requires_grad_(False)
    load_weights(model, str(weights))
    return model


def _every_map(model: nn.Module, images: Tensor, progress: Progress) -> tuple[ifa.Map, Tensor]:
    """Return the maps and logits of every sample for every target, (target, sample, ...)."""
    step = ifa.chain(ifa.weigh(ifa.weight.fullcam), ifa.combine)
    tap = ifa.tap(model, LAYER, images[:2], step=step)
    parts, logits = [], []
    with reporting(progress, "maps of every target", len(images)) as advance:
        for batch in images.split(128):
            target = torch.arange(len(NAMES))[:, None].expand(-1, len(batch))
            seen = tap.observe(batch, target)
            parts.append(seen.result)
            logits.append(seen.score)
            advance(len(batch))
    joined = ifa.Map(*(torch.cat(field, dim=1) for field in zip(*parts, strict=True)))
    return joined, torch.cat(logits, dim=1)


def _levels(maps: ifa.Map, step: Callable[[Any], Any]) -> Tensor:
    return ifa.batched(step)(maps).values.double().mean((-2, -1))


def _consistency(level: Tensor, logits: Tensor) -> list[tuple[float, float, float]]:
    pearson = evaluate.consistency(level, logits).pearson.tolist()
    low, high = evaluate.correlation_interval(level, logits)
    return list(zip(pearson, low.tolist(), high.tolist(), strict=True))


def _accuracy(
    model: nn.Module, data: Any, tree: xr.DataTree, progress: Progress
) -> tuple[xr.Dataset, dict[str, dict[str, int]]]:
    """Accuracy over kept channels, and how many keep it within one point; own and common sets."""
    found = {
        kind: diagnose.principal_features(
            model,
            LAYER,
            data,
            tree,
            per_target=kind == "own",
            fill=list(FILLS),
            ratio=RATIOS,
            seeds=RANDOM_SEEDS,
            sizes=32,
            batch_size=256,
            progress=progress,
        )
        for kind in ("own", "common")
    }
    rules = [f"{kind}, {by}" for by in ("difference", "random") for kind in found]
    curves = xr.concat([part[list(_CURVE)] for part in found.values()], "rule").sel(rule=rules)
    attrs = {"reference": found["own"].attrs["reference"], "layer": LAYER}
    smallest = {
        fill: {kind: int(part["chosen_count"].sel(fill=fill)) for kind, part in found.items()}
        for fill in FILLS
    }
    return curves.drop_attrs(deep=False).assign_attrs(attrs), smallest


def _map_correlation(
    model: nn.Module, images: Tensor, tree: xr.DataTree, progress: Progress
) -> dict[str, dict[str, float]]:
    """Mean over samples of the correlation between a map of the kept channels and the whole."""
    features = ifa.tap(model, LAYER, images[:2])(images)
    whole = _masked_maps(features, None).flatten(1)
    result: dict[str, dict[str, float]] = {"difference": {}, "random": {}}
    with reporting(progress, "maps of kept channels", len(RATIOS)) as advance:
        for ratio in RATIOS:
            for rule, masks in _choices(ifa.difference(tree), ratio).items():
                r = [
                    evaluate.consistency(_masked_maps(features, mask).flatten(1), whole).pearson
                    for mask in masks
                ]
                result[rule][f"{ratio:g}"] = float(torch.stack(r).nanmean())
            advance(1)
    return result


def _choices(difference: xr.DataArray, ratio: float) -> dict[str, list[Any]]:
    return {
        "difference": [ifa.select.largest_absolute(difference, ratio=ratio)],
        "random": [ifa.select.random(difference, ratio=ratio, seed=seed) for seed in RANDOM_SEEDS],
    }


def _masked_maps(features: ifa.Features, mask: Any, *steps: Any) -> Tensor:
    kept = () if mask is None else (ifa.keep(mask),)
    explain = ifa.chain(ifa.weigh(ifa.weight.fullcam), *kept, ifa.combine, *steps)
    return ifa.batched(explain)(features).values


def _draw(
    home: Path,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    tree: xr.DataTree,
    maps: ifa.Map,
    logits: Tensor,
    levels: dict[str, Tensor],
    curves: xr.Dataset,
) -> None:
    from matplotlib.figure import Figure

    home.mkdir(exist_ok=True)
    scale, features = ifa.scale_from(tree), ifa.tap(model, LAYER, images[:2])(images)

    def save(figure: Figure, name: str) -> None:
        figure.savefig(home / f"{name}.png", dpi=130)

    right = logits.argmax(0) == labels
    ranked = [
        torch.nonzero(right & (labels == digit))[:, 0][
            logits[digit, right & (labels == digit)].argsort(descending=True)
        ]
        for digit in range(len(NAMES))
    ]
    picks = {
        "largest": [int(order[0]) for order in ranked],
        "median": [int(order[len(order) // 2]) for order in ranked],
        "smallest": [int(order[-1]) for order in ranked],
    }
    common = _masked_maps(features, None, ifa.rescale(scale))
    single = _masked_maps(features, None, ifa.minmax)
    figure = Figure(figsize=(11, 10), layout="constrained")
    figure.suptitle("Maps of the predicted digit, for the largest, a median and the smallest logit")
    parts: Any = figure.subfigures(3, 1)
    for part, (name, chosen) in zip(parts, picks.items(), strict=True):
        part.suptitle(f"{name} logit of each digit", fontsize=9)
        plot.gallery(
            images[chosen],
            {"common\nscale": common[chosen], "one by\none": single[chosen]},
            titles=[f"{logits[labels[n], n]:.1f}" for n in chosen],
            axes=part.subplots(3, len(chosen)),
        )
    save(figure, "overlays")

    chosen = picks["median"]
    rows = {"every\nchannel": common[chosen]}
    for ratio in RATIOS:
        for rule, masks in _choices(ifa.difference(tree), ratio).items():
            kept = _masked_maps(features, masks[0], ifa.rescale(scale))
            rows[f"{ratio:.0%}\n{rule}"] = kept[chosen]
    figure = Figure(figsize=(11, 11), layout="constrained")
    figure.suptitle("The same maps from some of the channels only, on the common scale")
    grid = figure.subplots(1 + len(rows), len(chosen))
    plot.gallery(images[chosen], rows, scale=scale, unit="logit", axes=grid)
    save(figure, "kept-channels")

    figure = Figure(figsize=(10, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1)
    plot.importance(tree[LAYER], axes=upper)
    plot.importance(ifa.difference(tree), axes=lower)
    save(figure, "importance")

    figure = Figure(figsize=(7, 4), layout="constrained")
    plot.extremes(tree[f"samples/{LAYER}"], scale, axes=figure.subplots())
    save(figure, "extremes")

    figure = Figure(figsize=(6, 4.5), layout="constrained")
    plot.kept(curves, axes=figure.subplots()).set_title(
        f"accuracy with some channels of {LAYER} kept"
    )
    save(figure, "accuracy")

    figure = Figure(figsize=(10, 4.5), layout="constrained")
    for axes, (name, level) in zip(figure.subplots(1, 2), levels.items(), strict=True):
        plot.level(level, logits, names=NAMES, axes=axes)
        values = evaluate.consistency(level, logits).pearson
        axes.set_title(f"{name}: r from {values.min():.3f} to {values.max():.3f}")
    save(figure, "level")


def _interval(value: float, low: float, high: float) -> str:
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"
