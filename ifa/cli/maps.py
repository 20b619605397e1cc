"""The command `ifa maps`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ifa.cli.arguments import (
    Basis,
    BatchSize,
    Config,
    Data,
    DataVersion,
    Deviation,
    Device,
    Drawn,
    Limit,
    Mean,
    Model,
    Prepare,
    Shard,
    Shards,
    Versions,
    Weights,
    Workers,
    data_of,
    dictionaries,
    is_unfinished,
    look_of,
    network_of,
    part_of,
    path_beside,
    said_of_part,
    targets_of,
)

_WHERE = "ifa maps"
_FORMS = ("zarr", "png", "svg", "pdf", "nifti")


def maps(
    run: Annotated[
        str, typer.Argument(help="A run of `ifa analyze`: its layers, weighting and scale")
    ],
    model: Model,
    data: Data,
    weights: Weights = None,
    config: Config = None,
    prepare: Prepare = None,
    out: Annotated[
        str | None,
        typer.Option("--out", help="Folder of it all; RUN-maps if left out; of a URL the maps"),
    ] = None,
    form: Annotated[
        str,
        typer.Option(help="zarr, which is always written; and png, svg, pdf, nifti, with commas"),
    ] = "zarr,png",
    montage: Annotated[
        int | None, typer.Option(help="So many samples on a sheet; a picture of each if left out")
    ] = None,
    beside: Annotated[
        list[str] | None,
        typer.Option(help="A run by another weighting, drawn beside; may be given again"),
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option("--layer", help="Of the run's; all if left out; may be given again"),
    ] = None,
    basis: Basis = None,
    targets: Annotated[
        str | None, typer.Option(help="predicted, label, or outputs: 0,2,5; the run's if left out")
    ] = None,
    mask: Annotated[
        str | None,
        typer.Option(help="Channels to keep: largest, largest_absolute or smallest_absolute"),
    ] = None,
    ratio: Annotated[float, typer.Option(help="Share of channels that --mask keeps, or drops")] = (
        0.1
    ),
    of: Annotated[
        str | None,
        typer.Option(
            help="What --mask goes by: importance (of the target), overall, or difference; "
            "difference for the absolute ones, otherwise importance"
        ),
    ] = None,
    how: Annotated[str, typer.Option(help="affine or tanh: see ifa.rescale")] = "affine",
    widen: Annotated[float, typer.Option(help="Stretches the scale about its centre")] = 1.0,
    rectify: Annotated[
        bool, typer.Option("--rectify/--signed", help="Leave out what speaks against the target")
    ] = False,
    blocks: Annotated[
        int | None, typer.Option(help="One map for each of so many blocks of channels")
    ] = None,
    channels: Drawn = None,
    mean: Mean = None,
    std: Deviation = None,
    dpi: Annotated[int, typer.Option(help="Dots per inch of png")] = 150,
    limit: Limit = None,
    data_version: DataVersion = None,
    versions: Versions = "same",
    shard: Shard = 64,
    shards: Shards = None,
    batch_size: BatchSize = 32,
    workers: Workers = None,
    device: Device = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars")] = False,
) -> None:
    """Make the maps of a population on a run's common scale: labelled Zarr, pictures, NIfTI.

    The population may be another than the run's. Memory holds one shard. Killed at any moment, it
    continues where it was when it is run again.
    """
    from ifa.contest.bases import bases_of
    from ifa.contest.mapped import maps_of_run, names_of, statistics_of, weighting_of

    forms, look = _forms(form), look_of(_WHERE, channels, mean, std)
    network = network_of(model, weights, config)
    names = names_of(statistics_of(_WHERE, run))
    samples = data_of(_WHERE, data, network, prepare, limit, names=names)
    home = out or f"{run.rstrip('/')}-maps"
    trees: dict[str, Any] = {}
    runs = [run, *(beside or ())]
    for one, own in zip(runs, bases_of(_WHERE, runs, layer, dictionaries(basis)), strict=True):
        statistics = statistics_of(_WHERE, one)
        name = weighting_of(_WHERE, statistics, statistics.attrs["layers"][0])
        name += "" if own is None else "-basis"
        if name in trees:
            raise ValueError(
                f"{_WHERE}: expected --beside to be a run by another weighting, got two by {name}."
            )
        trees[name] = maps_of_run(
            *(_WHERE, one, network, samples),
            layers=layer,
            basis=own,
            mask=mask,
            ratio=ratio,
            of=of,
            targets=None if targets is None else targets_of(_WHERE, targets),
            how=how,
            widen=widen,
            rectify=rectify,
            blocks=blocks,
            store=f"{home}/maps/{name}",
            data_version=data_version,
            versions=versions,
            shard=shard,
            batch_size=batch_size,
            workers=workers,
            device=device,
            map=part_of(_WHERE, shards),
            progress=not quiet,
        )
        unfinished = said_of_part(trees[name], f"{home}/maps/{name}")
        typer.echo(unfinished or f"maps: {home}/maps/{name}")
    if any(is_unfinished(tree) for tree in trees.values()):
        return
    drawn = {**look, "montage": montage, "dpi": dpi, "progress": not quiet}
    _write(trees, samples, path_beside(home, ""), forms, drawn)


def _write(
    trees: dict[str, Any],
    samples: Any,
    home: Path,
    forms: list[str],
    drawn: dict[str, Any],
) -> None:
    from ifa.plot import write_overlays
    from ifa.store import write_nifti

    for form in ("png", "svg", "pdf"):
        if form in forms:
            write_overlays(trees, samples, home / form, form=form, **drawn)
            typer.echo(f"pictures: {home / form}")
    if "nifti" in forms:
        for name, tree in trees.items():
            write_nifti(tree, samples, home / "nifti" / name, progress=drawn["progress"])
            typer.echo(f"nifti: {home / 'nifti' / name}")


def _forms(form: str) -> list[str]:
    forms = [one.strip() for one in form.split(",")]
    for one in forms:
        if one not in _FORMS:
            raise ValueError(f"{_WHERE}: expected --form from {', '.join(_FORMS)}, got {one!r}.")
    return forms
