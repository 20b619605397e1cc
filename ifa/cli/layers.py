"""The command `ifa layers`."""

from typing import Annotated

import typer

from ifa.cli.arguments import (
    Config,
    Data,
    Model,
    Prepare,
    Weights,
    data_of,
    network_of,
)


def layers(
    model: Model,
    data: Data,
    weights: Weights = None,
    config: Config = None,
    prepare: Prepare = None,
    every: Annotated[bool, typer.Option("--all", help="Every layer, not blocks alone")] = False,
) -> None:
    """List the layers of a network to choose among, in order of execution; * is the default.

    Blocks alone, with channels and grid; what is coarse or has no grid is said.
    """
    from ifa.store.items import collate, data_set
    from ifa.taps import blocks

    network = network_of(model, weights, config)
    dataset = data_set("ifa layers", data_of("ifa layers", data, network, prepare))
    example = collate("ifa layers", dataset, range(min(2, len(dataset)))).inputs
    typer.echo(blocks(network.load(), example).table(every))
