"""The command `ifa analyze`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ifa.cli.arguments import (
    Config,
    Data,
    Model,
    Prepare,
    Weight,
    Weights,
    data_of,
    network_of,
)


def analyze(
    model: Model,
    data: Data,
    out: Annotated[
        Path, typer.Option("--out", help="Directory of the run; continued if it is there")
    ],
    weights: Weights = None,
    config: Config = None,
    prepare: Prepare = None,
    layer: Annotated[
        list[str] | None, typer.Option("--layer", help="See `ifa layers`; may be given again")
    ] = None,
    weight: Weight = "fullcam",
    targets: Annotated[str, typer.Option(help="predicted, label, or outputs: 0,2,5")] = "predicted",
    task: Annotated[str, typer.Option(help="classification or regression")] = "classification",
    keep_samples: Annotated[str, typer.Option(help="summary, full or none")] = "summary",
    shard: Annotated[int, typer.Option(help="Samples committed at once")] = 512,
    batch_size: Annotated[int, typer.Option(help="Samples computed at once")] = 32,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, …; the model's own if left out")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar")] = False,
) -> None:
    """Analyze which features a network uses over a data set, and print a summary.

    Killed at any moment, it continues where it was when it is run again.
    """
    import ifa
    from ifa.contest.methods import weighting

    network = network_of(model, weights, config)
    chosen: Any = targets
    if targets not in ("predicted", "label"):
        try:
            chosen = [int(target) for target in targets.split(",")]
        except ValueError:
            raise ValueError(
                "ifa analyze: expected --targets to be predicted, label, or output indices such "
                f"as 0,2,5, got {targets!r}."
            ) from None
    tree = ifa.analyze(
        network,
        data_of("ifa analyze", data, network, prepare),
        layer=layer,
        weight=weighting("ifa analyze", weight),
        targets=chosen,
        task=task,  # pyright: ignore[reportArgumentType]
        keep_samples=keep_samples,  # pyright: ignore[reportArgumentType]
        store=out,
        shard=shard,
        batch_size=batch_size,
        device=device,
        progress=not quiet,
    )
    typer.echo(_summary(tree, out))


def _summary(tree: Any, out: Path) -> str:
    import ifa

    lines = []
    for name in tree.attrs["layers"]:
        dataset = tree[name].to_dataset()
        scale = ifa.scale_from(dataset) if {0.5, 0.9} <= set(dataset["quantile"].values) else None
        accepted = dataset["count"].values
        counts = f"{dataset.sizes['channel']} channels, {dataset.sizes['target']} targets"
        left_out = int(dataset["nonfinite"].sum())
        lines += [
            f"layer {name}: {counts}, {int(accepted.sum())} accepted samples, {left_out} nonfinite",
            f"  strongest channels: {_strongest(dataset)}",
        ]
        for variable in ("zero_gradient", "cancelled"):
            if number := int(dataset[variable].sum()):
                lines.append(f"  {variable}: {number} {dataset[variable].attrs['long_name']}")
        if scale is not None:
            limits = f"{float(scale.low):.4g} … {float(scale.high):.4g}"
            lines.append(f"  common scale (median minimum … 90th percentile maximum): {limits}")
    return "\n".join([*lines, f"run: {out}"])


def _strongest(dataset: Any, count: int = 5) -> str:
    overall = dataset["importance_overall"].mean(
        [d for d in dataset["importance_overall"].dims if d != "channel"]
    )
    order = abs(overall).argsort().values[::-1][:count]
    return ", ".join(f"{channel} ({float(overall[channel]):+.3g})" for channel in order)
