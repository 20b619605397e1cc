"""The commands of finished runs: `ifa open`, `ifa verify`, `ifa merge`."""

from typing import Annotated

import typer

Run = Annotated[str, typer.Argument(help="A run of `ifa analyze`: a folder or a URL")]


def open(run: Run) -> None:
    """Say again what a finished run found; neither network nor data are needed."""
    import ifa

    typer.echo(f"{ifa.population.summary(ifa.open(run))}\nrun: {run}")


def verify(run: Run) -> None:
    """Compare every file of a finished run with the digest it was committed with."""
    import ifa

    ifa.verify(run)
    typer.echo(f"{run}: every file is as it was committed")


def merge(
    run: Run,
    other: Annotated[str, typer.Argument(help="Another run, of the same analysis")],
    out: Annotated[str, typer.Option("--out", help="Folder or URL of the merged run")],
) -> None:
    """Merge two finished runs, such as those of two sites, to what one run over both gives."""
    import ifa

    tree = ifa.merge(run, other, store=out)
    typer.echo(f"{ifa.population.summary(tree)}\nrun: {out}")
