"""The command `ifa report`."""

from pathlib import Path
from typing import Annotated

import typer

from ifa.cli.arguments import (
    Config,
    Data,
    Deviation,
    Device,
    Drawn,
    Limit,
    Mean,
    Prepare,
    Weights,
    data_of,
    look_of,
    network_of,
)
from ifa.cli.runs import Run

_WHERE = "ifa report"


def report(
    run: Run,
    data: Data,
    out: Annotated[Path, typer.Option("--out", help="The page")] = Path("report.html"),
    model: Annotated[
        str | None, typer.Option("--model", help="The run's network, for maps; without, none")
    ] = None,
    weights: Weights = None,
    config: Config = None,
    prepare: Prepare = None,
    limit: Limit = None,
    other: Annotated[
        str | None, typer.Option("--other", help="Another run, to compare with this one")
    ] = None,
    table: Annotated[
        str | None,
        typer.Option("--table", help="A table of `ifa evaluate`; RUN-evaluation if it is there"),
    ] = None,
    methods: Annotated[
        str, typer.Option(help="Weightings beside the run's, with commas; '' for none")
    ] = "gradcam,layercam",
    samples: Annotated[int, typer.Option(help="How many are shown at most")] = 1000,
    title: Annotated[str | None, typer.Option(help="Of the page")] = None,
    channels: Drawn = None,
    mean: Mean = None,
    std: Deviation = None,
    device: Device = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar")] = False,
) -> None:
    """Make one page about a run: accuracy, features, classes, samples with their maps.

    It is one file, which is opened in a browser, offline, and can be mailed. The network is named
    here and not taken from the run: to load one is to run its code.
    """
    import ifa
    from ifa.contest.mapped import names_of, statistics_of

    network = None if model is None else network_of(model, weights, config)
    names = names_of(statistics_of(_WHERE, run))
    found = ifa.report(
        run,
        data_of(_WHERE, data, network, prepare, limit, names=names),
        out,
        model=network,
        other=other,
        table=_table(run, table),
        methods=[name for name in methods.split(",") if name],
        samples=samples,
        title=title,
        device=device,
        progress=not quiet,
        **look_of(_WHERE, channels, mean, std),
    )
    for note in found.notes:
        typer.echo(f"Note: {note}", err=True)
    typer.echo(f"report: {out} ({found.size / 1e6:.1f} MB)")


def _table(run: str, table: str | None) -> object:
    """Open a table of `ifa evaluate`: the one named, or the run's if it is there."""
    import xarray as xr

    import ifa
    from ifa.store.runs import Run

    path = table or f"{run.rstrip('/')}-evaluation"
    if table is None and Run.at(path, _WHERE).begins:
        return None
    tree = ifa.open(path)
    found = tree.to_dataset()
    if not isinstance(found, xr.Dataset) or "value" not in found:
        raise ValueError(f"{_WHERE}: expected a table of `ifa evaluate` at {path}, got none.")
    return found
