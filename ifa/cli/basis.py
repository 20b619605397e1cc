"""The command `ifa basis`."""

from pathlib import Path
from typing import Annotated

import typer

_WHERE = "ifa basis"
_FITS = ("balanced", "pca", "gradient", "rotation")


def basis(
    run: Annotated[str, typer.Argument(help="A run of `ifa analyze --reductions second_moments`")],
    out: Annotated[
        Path, typer.Option("--out", help="What to write: NAME.safetensors or NAME.zarr")
    ],
    fit: Annotated[str, typer.Option(help=f"One of {', '.join(_FITS)}")] = "balanced",
    atoms: Annotated[
        int | None, typer.Option(help="How many features; as many as channels if left out")
    ] = None,
    layer: Annotated[
        str | None, typer.Option("--layer", help="Of the run's; may be left out if there is one")
    ] = None,
) -> None:
    """Find features beyond channels: a dictionary for `ifa analyze --basis`, from a run alone."""
    import ifa
    from ifa.checks import check_choice

    check_choice(_WHERE, "--fit", fit, _FITS)
    tree = ifa.open(run)
    layers = tree.attrs["layers"]
    if (layer or layers[0]) not in layers or (layer is None and len(layers) > 1):
        raise LookupError(
            f"{_WHERE}: expected --layer from the run's, {', '.join(layers)}, got {layer}."
        )
    chosen = layer or layers[0]
    found = getattr(ifa.basis, fit)(tree[chosen].to_dataset(), atoms=atoms)
    ifa.basis.save(found, out)
    count, channels = found.atoms.shape
    typer.echo(f"{fit} of {chosen}: {count} atoms of {channels} channels\nbasis: {out}")
    typer.echo(f"next:\n  ifa analyze --layer {chosen} --basis {out}, beside its other options")
