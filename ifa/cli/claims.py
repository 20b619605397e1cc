"""The command `ifa claims`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ifa.cli.arguments import Config, Limit, Prepare, Weights, data_of, network_of
from ifa.cli.runs import Run

_WHERE = "ifa claims"


def claims(
    run: Run,
    model: Annotated[str, typer.Argument(help="The run's network")],
    data: Annotated[str, typer.Argument(help="Data to measure on: better others than the run's")],
    weights: Weights = None,
    config: Config = None,
    prepare: Prepare = None,
    limit: Limit = None,
    layer: Annotated[
        str | None, typer.Option("--layer", help="One of the run's; needed if it has several")
    ] = None,
    ratio: Annotated[float, typer.Option(help="Share of the channels that are kept")] = 0.25,
    picture: Annotated[Path | None, typer.Option("--picture", help="A file to draw it to")] = None,
) -> None:
    """Measure what the literature claims: levels follow scores, and few channels are enough.

    The run says which channels are important, DATA on what they are measured; of the run's own
    data every other sample ranks them anew, and the rest measure. Of each claim it is said whether
    it holds, does not hold, or cannot be said.
    """
    import ifa
    from ifa.contest.from_run import check_same, layer_of
    from ifa.contest.mapped import names_of
    from ifa.evidence import of_same_data
    from ifa.plot import claims as drawn
    from ifa.plot import save

    tree = ifa.open(run)
    name = layer_of(_WHERE, list(tree.attrs.get("layers", [])), layer)
    reference = network_of(model, weights, config)
    samples = data_of(_WHERE, data, reference, prepare, limit, names=names_of(tree))
    network = reference.load()
    check_same(_WHERE, run, network, samples, other_data=True)
    same = of_same_data(_WHERE, tree, samples)
    ranks = None if same else tree
    task = json.loads(tree.attrs["spec"])["task"]
    found = ifa.claims(network, samples, name, statistics=ranks, ratio=ratio, task=task)
    if same:
        typer.echo("These are the run's data: every other sample ranked, the rest measured.\n")
    typer.echo(ifa.evidence.summary(found))
    if picture is not None:
        axes = drawn(found)
        save(axes.figure, picture)
        typer.echo(f"\npicture: {picture}")
