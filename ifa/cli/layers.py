"""The command `ifa layers`."""

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
) -> None:
    """List the layers of a network that can be analyzed, in order of execution."""
    import ifa
    from ifa.store.items import collate

    network = network_of(model, weights, config)
    dataset = data_of("ifa layers", data, network, prepare)
    example = collate("ifa layers", dataset, range(min(2, len(dataset)))).inputs
    typer.echo(repr(ifa.trace(network.load(), example)))
