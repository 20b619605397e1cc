"""The command `ifa explain`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ifa.cli.arguments import (
    Config,
    Model,
    Prepare,
    Weights,
    network_of,
    text_of,
)
from ifa.types import Statistics


def explain(
    model: Model,
    images: Annotated[list[Path], typer.Argument(help="Pictures, .npy, or NIfTI: see ifa.data")],
    out: Annotated[Path, typer.Option("--out", help="Directory for maps.zarr and overlays; new")],
    weights: Weights = None,
    config: Config = None,
    prepare: Prepare = None,
    layer: Annotated[
        str | None, typer.Option("--layer", help="See `ifa layers`; the run's if left out")
    ] = None,
    weight: Annotated[
        str | None,
        typer.Option("--weight", help="A weighting by name; the run's, or fullcam, if left out"),
    ] = None,
    target: Annotated[
        int | None, typer.Option(help="Output to explain; each image's prediction if left out")
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option("--run", help="A run, whose common scale the overlays are drawn on"),
    ] = None,
) -> None:
    """Explain images: overlays to look at, and the raw signed maps as labelled Zarr.

    Without --run each overlay is scaled by its own extremes: maps are then not comparable. A run of
    another network, layer or weighting is refused. What is drawn, and the size of the maps, is what
    the network sees: with --prepare, the prepared pictures, each from its darkest to its brightest.
    """
    import ifa
    from ifa.contest.methods import weighting
    from ifa.data import read_inputs
    from ifa.explanation import common_scale
    from ifa.network.identity import model_token, origin_of
    from ifa.network.scorers import Scorer
    from ifa.plot import save_overlays
    from ifa.store import save_maps
    from ifa.taps.weighings import Weighing

    where = "ifa explain"
    if out.exists():
        raise FileExistsError(f"{where}: expected nothing at {out}. Nothing was touched.")
    reference = network_of(model, weights, config)
    inputs = read_inputs(images, prepare=reference.preparation(prepare) if prepare else None)
    network = reference.load()
    statistics = None if run is None else ifa.open(run)
    layer, weight = _of_run(statistics, layer, weight)
    method, logit = weighting(where, weight), ifa.score.logit
    layer = Weighing(where, network, layer, inputs[:2], method, remember=True).layers[0]
    token = model_token(network, inputs[:2])
    origin = origin_of(where, token, layer, method, logit, None, None)
    scale, _ = common_scale(where, statistics, origin, False)
    targets = Scorer(where, network, logit).targets(inputs, target)
    maps = ifa.explain(
        *(network, inputs, targets),
        layer=layer,
        weight=method,
        rectify=False,
        size=inputs.shape[2:],
    )
    ids = [path.name for path in images]
    limits = None if scale is None else [limit.tolist() for limit in scale]
    made_by = {"model": model, "layer": layer, "weight": weight, "network": origin.network}
    made_by |= {"run": text_of(run), "limits": limits, "ifa": ifa.__version__}
    save_maps(out / "maps.zarr", maps, ids=ids, target=targets, units="logit", attrs=made_by)
    draw = ifa.minmax if scale is None else ifa.rescale(scale)
    shown = ifa.batched(draw)(ifa.Map(maps, targets)).values
    titles = [f"{name}: target {t}" for name, t in zip(ids, targets.tolist(), strict=True)]
    seen = _visible(inputs) if prepare else inputs
    save_overlays(out / "overlays", seen, shown, titles)
    typer.echo(f"maps: {out / 'maps.zarr'}\noverlays: {out / 'overlays'}")


def _visible(inputs: Any) -> Any:
    """Bring each input to 0 … 1."""
    flat = inputs.flatten(1)
    low, high = flat.amin(1), flat.amax(1)
    shape = (-1, *[1] * (inputs.ndim - 1))
    return (inputs - low.reshape(shape)) / (high - low).clamp(min=1e-12).reshape(shape)


def _of_run(
    statistics: Statistics, layer: str | None, weight: str | None
) -> tuple[str | None, str]:
    """Take the layer and the weighting of a run, where they are not named."""
    from ifa.contest.from_run import layer_of
    from ifa.contest.methods import WEIGHTINGS
    from ifa.network.identity import read_origin

    if statistics is None:
        return layer, weight or "fullcam"
    if "layers" not in statistics.attrs:
        raise ValueError(
            "ifa explain: expected --run to be a run of `ifa analyze`, got "
            f"{statistics.attrs.get('title', 'something else')!r}, which has no scale."
        )
    layer = layer_of("ifa explain", statistics.attrs["layers"], layer)
    theirs = read_origin(statistics[layer].attrs["origin"]).names[1]
    if weight is None and theirs not in WEIGHTINGS:
        raise ValueError(
            f"ifa explain: expected a run of a weighting that has a name, got {theirs}. Its maps "
            "are made in Python: ifa.explain(..., weight=..., scale=run)."
        )
    return layer, weight or theirs
