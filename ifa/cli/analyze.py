"""The command `ifa analyze`."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ifa.cli.arguments import (
    BatchSize,
    Config,
    Data,
    DataVersion,
    Device,
    Limit,
    Model,
    Prepare,
    Shard,
    Shards,
    Versions,
    Weight,
    Weights,
    Workers,
    basis_of,
    data_of,
    is_table,
    network_of,
    note,
    part_of,
    path_beside,
    said_of_part,
    targets_of,
    typed,
)

_WHERE = "ifa analyze"


def analyze(
    context: typer.Context,
    model: Model,
    data: Data,
    out: Annotated[
        str, typer.Option("--out", help="Folder or URL of the run; continued if it is there")
    ],
    weights: Weights = None,
    config: Config = None,
    prepare: Prepare = None,
    layer: Annotated[
        list[str] | None, typer.Option("--layer", help="See `ifa layers`; may be given again")
    ] = None,
    weight: Weight = "fullcam",
    basis: Annotated[
        list[str] | None,
        typer.Option(
            "--basis",
            help="What `ifa basis` wrote; of several layers LAYER=PATH, and given again for each",
        ),
    ] = None,
    targets: Annotated[str, typer.Option(help="predicted, label, or outputs: 0,2,5")] = "predicted",
    target_names: Annotated[
        str | None, typer.Option(help="a,b,c or a file, one on a line; the data's if left out")
    ] = None,
    groups: Annotated[
        str | None,
        typer.Option(
            help="A column of the table DATA, TABLE.csv:COLUMN, or a file with a line for each "
            "sample; the data's if left out"
        ),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            help="Whose each sample is: as --groups, or 'parent', the folder that it lies in; the "
            "data's if left out"
        ),
    ] = None,
    task: Annotated[
        str,
        typer.Option(
            help="classification, regression, binary (one logit) or multilabel (0 or 1 of each "
            "output)"
        ),
    ] = "classification",
    keep_samples: Annotated[
        str, typer.Option(help="summary, full (for `ifa diagnose`) or none")
    ] = "summary",
    reductions: Annotated[
        str | None,
        typer.Option(
            help="Any of histogram, covariance, cooccurrence, top_samples, second_moments (for "
            "`ifa basis`), with commas"
        ),
    ] = None,
    subsample_positions: Annotated[
        int | None, typer.Option(help="Of each sample, that second_moments are of; all if left out")
    ] = None,
    limit: Limit = None,
    data_version: DataVersion = None,
    versions: Versions = "same",
    shard: Shard = 512,
    shards: Shards = None,
    batch_size: BatchSize = 32,
    workers: Workers = None,
    device: Device = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar")] = False,
) -> None:
    """Analyze which features a network uses over a data set, and print a summary.

    Killed at any moment, it continues where it was when it is run again.
    """
    import ifa
    from ifa.contest.methods import weighting
    from ifa.data.lists import listed_names
    from ifa.data.samples import label_names
    from ifa.plot import save, summary

    network = network_of(model, weights, config)
    columns = {
        name: given
        for name, given in (("groups", groups), ("cluster", cluster))
        if given and is_table(data) and _is_column(given)
    }
    if cluster == "parent" and Path(data).is_dir():
        columns["cluster"] = cluster
    names = None if target_names is None else listed_names(_WHERE, target_names)
    samples = data_of(_WHERE, data, network, prepare, limit, columns, label_names(task, names))
    tree = ifa.analyze(
        network,
        samples,
        layer=layer,
        weight=weighting(_WHERE, weight),
        basis=basis_of(_WHERE, basis),
        targets=targets_of(_WHERE, targets),
        task=task,  # pyright: ignore[reportArgumentType]
        keep_samples=keep_samples,  # pyright: ignore[reportArgumentType]
        target_names=_names(samples, names, task),
        groups=_groups(samples, None if "groups" in columns else groups),
        cluster=_clusters(samples, None if "cluster" in columns else cluster),
        reductions=[one.strip() for one in reductions.split(",")] if reductions else (),
        subsample_positions=subsample_positions,
        store=out,
        data_version=data_version,
        versions=versions,  # pyright: ignore[reportArgumentType]
        shard=shard,
        batch_size=batch_size,
        workers=workers,
        device=device,
        map=part_of(_WHERE, shards),
        progress=not quiet,
    )
    unfinished = said_of_part(tree, out)
    if unfinished:
        typer.echo(unfinished)
        return
    picture = path_beside(out, ".png")
    save(summary(tree), picture)
    typer.echo(ifa.population.summary(tree))
    typer.echo(f"run: {out}\npicture: {picture}\nnext:")
    known = typed(context, "model", "data", "weights", "config", "prepare", "limit")
    for line in _next(context, out, known, keep_samples):
        typer.echo(f"  {line}")


def _is_column(groups: str) -> bool:
    """Tell whether groups are named as a column alone, not as a file or a file's column."""
    return not (Path(groups).is_file() or is_table(groups.rpartition(":")[0]))


def _names(data: Any, given: Sequence[str] | None, task: str) -> Sequence[str] | None:
    from ifa.data.samples import known, output_names

    if given is not None:
        return given
    names = output_names(task, known(data).names)
    if names is not None:
        note(f"target names are the data's: {', '.join(names)}")
    return names


def _groups(data: Any, given: str | None) -> Any:
    from ifa.data.lists import listed_column
    from ifa.data.samples import known

    facts = known(data)
    if given is not None:
        return listed_column(_WHERE, given, facts.ids, len(data))
    if facts.groups is not None:
        note(f"groups are the data's: {', '.join(sorted(set(map(str, facts.groups))))}")
    return facts.groups


def _clusters(data: Any, given: str | None) -> Any:
    from ifa.data.labels import parents
    from ifa.data.lists import listed_column
    from ifa.data.samples import known

    facts = known(data)
    if given == "parent" and facts.ids is not None:
        return parents(_WHERE, facts.ids)
    if given is not None:
        return listed_column(_WHERE, given, facts.ids, len(data))
    if facts.cluster is not None:
        note(f"samples belong to the data's clusters, {len(set(facts.cluster.tolist()))}")
    elif facts.shared is not None:
        note(f"several samples share a {facts.shared!r}: --cluster {facts.shared} keeps that")
    return facts.cluster


def _next(context: typer.Context, run: str, known: list[str], keep: str) -> list[str]:
    """Name the commands that may follow, as they are to be typed."""
    there = context.parent.command.commands if context.parent else {}  # pyright: ignore
    rest = " ".join([shlex.quote(run), *known])
    ifa = f"ifa --options {shlex.quote(str(context.obj))}" if context.obj else "ifa"
    lines = [f"{ifa} {name} {rest}" for name in ("maps", "evaluate") if name in there]
    if keep == "full":
        return [*lines, f"{ifa} diagnose {shlex.quote(run)}"]
    return [*lines, "ifa diagnose needs a run with --keep-samples full, to another --out"]
