"""Command line: parse, call one public function, say where the result went."""

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ifa.types import Statistics

app = typer.Typer(
    name="ifa",
    help="Integrated Feature Analysis: what a trained network uses, over a population of samples.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Model = Annotated[
    str,
    typer.Argument(
        help="The network: package.module:factory, path/to/net.py:factory, hf:FOLDER, or timm:NAME"
    ),
]
Data = Annotated[
    str,
    typer.Argument(
        help="A folder of class folders, a .csv or .tsv with columns path and label, or a callable "
        "returning a data set: package.module:dataset, path/to/data.py:dataset"
    ),
]
Weight = Annotated[
    str, typer.Option("--weight", help="A weighting by name, such as gradcam or scorecam, or noise")
]
Weights = Annotated[
    Path | None,
    typer.Option("--weights", help="Its state dictionary: .safetensors, .pt, or CHECKPOINT#KEY"),
]
Config = Annotated[
    list[str] | None,
    typer.Option("--config", help="Option of the network: name=value; may be given again"),
]
Prepare = Annotated[
    str | None,
    typer.Option(
        "--prepare", help="Picture -> input: hf or timm, as of the network, or module:function"
    ),
]


@app.command()
def demo(
    directory: Annotated[Path, typer.Argument(help="Where everything goes")] = Path("ifa-demo"),
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars")] = False,
) -> None:
    """Analyze a small network on real handwritten digits, offline, in about a minute.

    Trains a convolutional network on half of scikit-learn's 1 797 digits; analyzes the other half
    at its last convolutional layer with fullcam; makes maps on the common scale and one by one;
    keeps 5, 10, 25 and 50 % of the channels and measures the accuracy; correlates the level of maps
    with the logit. Writes weights, a verified run, and pictures. Running it again continues, or
    says that it is done; it never destroys a run.
    """
    from ifa.demo import analyze_digits, report

    done = (directory / "findings.json").exists()
    findings = analyze_digits(directory, progress=not quiet)
    if done:
        typer.echo(f"Already done in {directory}; the run is as it was committed.\n")
    typer.echo(report(findings, directory))


@app.command()
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

    network = _network(model, weights, config)
    dataset = _data("ifa layers", data, network, prepare)
    example = collate("ifa layers", dataset, range(min(2, len(dataset)))).inputs
    typer.echo(repr(ifa.trace(network.load(), example)))


@app.command()
def analyze(
    model: Model,
    data: Data,
    out: Annotated[
        Path, typer.Option("--out", help="Directory of the run; continued if it is there")
    ],
    weights: Weights = None,
    config: Config = None,
    prepare: Prepare = None,
    layer: Annotated[
        list[str] | None, typer.Option("--layer", help="See `ifa layers`; may be given again")
    ] = None,
    weight: Weight = "fullcam",
    targets: Annotated[str, typer.Option(help="predicted, label, or outputs: 0,2,5")] = "predicted",
    task: Annotated[str, typer.Option(help="classification or regression")] = "classification",
    keep_samples: Annotated[str, typer.Option(help="summary, full or none")] = "summary",
    shard: Annotated[int, typer.Option(help="Samples committed at once")] = 512,
    batch_size: Annotated[int, typer.Option(help="Samples computed at once")] = 32,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, …; the model's own if left out")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar")] = False,
) -> None:
    """Analyze which features a network uses over a data set, and print a summary.

    Killed at any moment, it continues where it was when it is run again.
    """
    import ifa
    from ifa.contest.methods import weighting

    network = _network(model, weights, config)
    chosen: Any = targets
    if targets not in ("predicted", "label"):
        try:
            chosen = [int(target) for target in targets.split(",")]
        except ValueError:
            raise ValueError(
                "ifa analyze: expected --targets to be predicted, label, or output indices such "
                f"as 0,2,5, got {targets!r}."
            ) from None
    tree = ifa.analyze(
        network,
        _data("ifa analyze", data, network, prepare),
        layer=layer,
        weight=weighting("ifa analyze", weight),
        targets=chosen,
        task=task,  # pyright: ignore[reportArgumentType]
        keep_samples=keep_samples,  # pyright: ignore[reportArgumentType]
        store=out,
        shard=shard,
        batch_size=batch_size,
        device=device,
        progress=not quiet,
    )
    typer.echo(_summary(tree, out))


@app.command()
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
    reference = _network(model, weights, config)
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
    made_by |= {"run": _text(run), "limits": limits, "ifa": ifa.__version__}
    save_maps(out / "maps.zarr", maps, ids=ids, target=targets, units="logit", attrs=made_by)
    draw = ifa.minmax if scale is None else ifa.rescale(scale)
    shown = ifa.batched(draw)(ifa.Map(maps, targets)).values
    titles = [f"{name}: target {t}" for name, t in zip(ids, targets.tolist(), strict=True)]
    seen = _visible(inputs) if prepare else inputs
    save_overlays(out / "overlays", seen, shown, titles)
    typer.echo(f"maps: {out / 'maps.zarr'}\noverlays: {out / 'overlays'}")


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run of `ifa analyze`: its layer is explained")],
    model: Model,
    data: Data,
    weights: Weights = None,
    config: Config = None,
    prepare: Prepare = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Directory of the table; RUN-evaluation if left out"),
    ] = None,
    layer: Annotated[
        str | None, typer.Option("--layer", help="Where the run has several, which one")
    ] = None,
    methods: Annotated[
        str | None, typer.Option(help="Names with commas; every CAM and noise if left out")
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(help="Names with commas; all but sensitivity, randomization if left out"),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(help="How many samples, evenly spaced; all if left out")
    ] = None,
    targets: Annotated[str, typer.Option(help="predicted, label, or an output: 2")] = "predicted",
    signed: Annotated[
        bool, typer.Option("--signed", help="Keep in maps what speaks against the target")
    ] = False,
    shard: Annotated[int, typer.Option(help="Samples committed at once")] = 64,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, …; the model's own if left out")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar")] = False,
) -> None:
    """Tell which method to trust: methods against metrics over the run's population.

    Prints the table, and writes it per sample as labelled Zarr next to the run, and as a picture.
    Killed at any moment, it continues where it was when it is run again.
    """
    from matplotlib import pyplot as plt

    from ifa.contest.from_run import table_of_run
    from ifa.contest.summaries import summary, written
    from ifa.plot import methods as draw

    network = _network(model, weights, config)
    found = table_of_run(
        run,
        network,
        _data("ifa evaluate", data, network, prepare),
        out=out,
        layer=layer,
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
    picture = found.path.with_name(f"{found.path.name}.png")
    draw(ranked)
    plt.savefig(picture, dpi=150)
    plt.close()
    typer.echo("\n".join([*found.left_out, written(ranked)]))
    typer.echo(f"table: {found.path}\npicture: {picture}")


def main(argv: list[str] | None = None) -> int:
    """Run the command line; what a user can mend is one message on standard error."""
    try:
        with _log():
            app(argv)
    except SystemExit as done:  # of the parser: 0 at the end or after help, 2 for wrong usage
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    except (ValueError, LookupError, TypeError, OSError, ImportError, RuntimeError) as error:
        away = isinstance(error.__cause__, ImportError) and sys.flags.safe_path
        note = " This directory is not looked in: PYTHONSAFEPATH, or -P, is set." if away else ""
        typer.echo(f"Error: {error}{note}", err=True)
        return 1
    return 0


def _network(model: str, weights: Path | None, config: list[str] | None) -> Any:
    """Name a network; what `config` gives is JSON, or text where it is none."""
    import ifa

    _look_here()
    options: dict[str, Any] = {}
    for option in config or []:
        name, assigned, value = option.partition("=")
        if not name or not assigned or name in options:
            raise ValueError(
                f"ifa: expected each --config as name=value, once a name, got {option!r}."
            )
        try:
            options[name] = json.loads(value)
        except json.JSONDecodeError:
            options[name] = value
    return ifa.ModelRef(model, _text(weights), options)


def _look_here() -> None:
    """Let package.module:name lie where one works; what is installed comes first."""
    if not sys.flags.safe_path and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


@contextmanager
def _log() -> Iterator[None]:
    """Show on standard error what the library logs, such as how weights were found."""
    handler, log = logging.StreamHandler(), logging.getLogger("ifa")
    handler.setFormatter(logging.Formatter("Note: %(message)s"))
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def _data(where: str, reference: str, network: Any, prepare: str | None) -> Any:
    """Take pictures of a folder or a table, or a data set that a callable returns."""
    from ifa.data import Samples, folder, table
    from ifa.store.sources import called

    ready = network.preparation(prepare) if prepare else None
    if Path(reference).is_dir():
        return folder(reference, prepare=ready)
    if Path(reference).suffix in (".csv", ".tsv"):
        return table(reference, prepare=ready)
    data = called(reference, where)
    if ready is None:
        return data
    if not isinstance(data, Samples):
        raise TypeError(
            f"{where}: expected --prepare with a folder, a table or data of ifa.data, whose "
            f"pictures it can be given, got {type(data).__name__}. Prepare them in the data set."
        )
    return replace(data, prepare=ready)


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


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _summary(tree: Any, out: Path) -> str:
    import ifa

    lines = []
    for name in tree.attrs["layers"]:
        dataset = tree[name].to_dataset()
        scale = ifa.scale_from(dataset) if {0.5, 0.9} <= set(dataset["quantile"].values) else None
        accepted = dataset["count"].values
        counts = f"{dataset.sizes['channel']} channels, {dataset.sizes['target']} targets"
        left_out = int(dataset["nonfinite"].sum())
        lines += [
            f"layer {name}: {counts}, {int(accepted.sum())} accepted samples, {left_out} nonfinite",
            f"  strongest channels: {_strongest(dataset)}",
        ]
        for variable in ("zero_gradient", "cancelled"):
            if number := int(dataset[variable].sum()):
                lines.append(f"  {variable}: {number} {dataset[variable].attrs['long_name']}")
        if scale is not None:
            limits = f"{float(scale.low):.4g} … {float(scale.high):.4g}"
            lines.append(f"  common scale (median minimum … 90th percentile maximum): {limits}")
    return "\n".join([*lines, f"run: {out}"])


def _strongest(dataset: Any, count: int = 5) -> str:
    overall = dataset["importance_overall"].mean(
        [d for d in dataset["importance_overall"].dims if d != "channel"]
    )
    order = abs(overall).argsort().values[::-1][:count]
    return ", ".join(f"{channel} ({float(overall[channel]):+.3g})" for channel in order)
