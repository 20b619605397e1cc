"""The commands of runs: `ifa commit`, `ifa open`, `ifa verify`, `ifa merge`."""

from typing import Annotated

import typer

from ifa.cli.arguments import Versions

Run = Annotated[str, typer.Argument(help="A run of `ifa analyze`: a folder or a URL")]


def commit(
    run: Annotated[str, typer.Argument(help="A run whose parts --shards have done")],
    versions: Versions = "same",
) -> None:
    """Finish a run that several jobs did the shards of; neither network nor data are needed."""
    from ifa.contest.driver import TITLE
    from ifa.engines import commit as finish
    from ifa.population import summary
    from ifa.store.datasets import MAPS

    tree = finish(run, versions=versions)  # pyright: ignore[reportArgumentType]
    if tree.attrs["title"] not in (MAPS, TITLE):
        typer.echo(summary(tree))
    typer.echo(f"run: {run}")


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
