"""The command `ifa evaluate`."""

from typing import Annotated

import typer

from ifa.cli.arguments import (
    Basis,
    Config,
    Data,
    Device,
    Limit,
    Model,
    Prepare,
    Shard,
    Weights,
    data_of,
    dictionaries,
    network_of,
    path_beside,
)


def evaluate(
    run: Annotated[str, typer.Argument(help="A run of `ifa analyze`: its layer is explained")],
    model: Model,
    data: Data,
    weights: Weights = None,
    config: Config = None,
    prepare: Prepare = None,
    limit: Limit = None,
    out: Annotated[
        str | None,
        typer.Option("--out", help="Folder or URL of the table; RUN-evaluation if left out"),
    ] = None,
    layer: Annotated[
        str | None, typer.Option("--layer", help="Where the run has several, which one")
    ] = None,
    basis: Basis = None,
    methods: Annotated[
        str | None, typer.Option(help="Names with commas; every CAM and noise if left out")
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            help="Names with commas; all but road, sensitivity, randomization if left out"
        ),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(help="How many samples, evenly spaced; all if left out")
    ] = None,
    targets: Annotated[str, typer.Option(help="predicted, label, or an output: 2")] = "predicted",
    signed: Annotated[
        bool, typer.Option("--signed", help="Keep in maps what speaks against the target")
    ] = False,
    shard: Shard = 64,
    device: Device = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar")] = False,
) -> None:
    """Tell which method to trust: methods against metrics over the run's population.

    Prints the table, and writes it per sample as labelled Zarr next to the run, and as a picture.
    Killed at any moment, it continues where it was when it is run again.
    """
    from ifa.contest.from_run import table_of_run
    from ifa.contest.mapped import names_of, statistics_of
    from ifa.contest.summaries import summary, written
    from ifa.plot import methods as draw
    from ifa.plot import save

    network = network_of(model, weights, config)
    names = names_of(statistics_of("ifa evaluate", run))
    found = table_of_run(
        run,
        network,
        data_of("ifa evaluate", data, network, prepare, limit, names=names),
        out=out,
        layer=layer,
        given=dictionaries(basis),
        methods=methods.split(",") if methods else None,
        metrics=metrics.split(",") if metrics else None,
        samples=samples,
        targets=int(targets) if targets.isdigit() else targets,
        rectify=not signed,
        shard=shard,
        device=device,
        progress=not quiet,
    )
    # scores before and after are kept in the table; neither way is better
    ranked = summary(found.table.isel(metric=found.table["better"].values != ""))
    picture = path_beside(found.path, ".png")
    save(draw(ranked), picture)
    typer.echo("\n".join([*found.left_out, written(ranked)]))
    typer.echo(f"table: {found.path}\npicture: {picture}")
