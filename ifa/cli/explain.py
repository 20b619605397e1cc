"""The command `ifa explain`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import typer

from ifa.cli.arguments import (
    Config,
    Deviation,
    Drawn,
    Mean,
    Model,
    Prepare,
    Weights,
    basis_of,
    dictionaries,
    look_of,
    network_of,
    text_of,
)

_WHERE = "ifa explain"


def explain(
    model: Model,
    images: Annotated[list[Path], typer.Argument(help="Pictures, .npy, or NIfTI: see ifa.data")],
    out: Annotated[Path, typer.Option("--out", help="Directory for maps and overlays; new")],
    weights: Weights = None,
    config: Config = None,
    prepare: Prepare = None,
    layer: Annotated[
        list[str] | None,
        typer.Option("--layer", help="See `ifa layers`; the runs' if left out; may be given again"),
    ] = None,
    weight: Annotated[
        str | None,
        typer.Option(
            "--weight", help="Weightings by name, with commas; the runs', or fullcam, if left out"
        ),
    ] = None,
    target: Annotated[
        int | None, typer.Option(help="Output to explain; each image's prediction if left out")
    ] = None,
    basis: Annotated[
        list[str] | None,
        typer.Option(
            "--basis",
            help="What `ifa basis` wrote, of several layers LAYER=PATH; with --run where the run "
            "is in it; may be given again",
        ),
    ] = None,
    run: Annotated[
        list[str] | None,
        typer.Option("--run", help="A run, on whose common scale maps are; may be given again"),
    ] = None,
    target_names: Annotated[
        str | None, typer.Option(help="Of the classes: a,b,c or a file, one on a line")
    ] = None,
    expected: Annotated[
        str | None, typer.Option(help="What each image is, with commas: names or outputs")
    ] = None,
    channels: Drawn = None,
    mean: Mean = None,
    std: Deviation = None,
    form: Annotated[str, typer.Option(help="Of the pictures: png, svg or pdf")] = "png",
    dpi: Annotated[int, typer.Option(help="Dots per inch of png")] = 150,
) -> None:
    """Explain images: a picture of each, by layers and methods, and the raw signed maps as Zarr.

    Without --run the colours of a method reach as far as in any of these images. A run of another
    network, layer or weighting is refused. What is drawn, and the size of the maps, is what the
    network sees: with --prepare, the prepared pictures, with their mean and deviation put back.
    """
    import ifa
    from ifa.checks import check_choice
    from ifa.data import read_inputs
    from ifa.data.lists import listed_names
    from ifa.network.scorers import Scorer

    if out.exists():
        raise FileExistsError(f"{_WHERE}: expected nothing at {out}. Nothing was touched.")
    reference = network_of(model, weights, config)
    check_choice(_WHERE, "--form", form, ("png", "svg", "pdf"))
    look = look_of(_WHERE, channels, mean, std)
    asked = _asked(layer, weight, run, basis)
    given = reference.preparation(prepare) if prepare else None
    inputs = read_inputs(images, mode="RGB" if prepare else _mode(asked), prepare=given)
    look["denormalize"] = look["denormalize"] or getattr(given, "normalization", None)
    network = reference.load()
    names = None if target_names is None else listed_names(_WHERE, target_names)
    scorer = Scorer(_WHERE, network, ifa.score.logit)
    targets = scorer.targets(inputs, target)
    task = _task(asked)
    unit = "output" if task == "regression" else "logit"
    made = [_made(network, inputs, targets, one, len(asked) > 1, unit) for one in asked]
    lines = _lines(images, scorer, inputs, targets, names, expected, task, unit)
    by = {"model": model, "ifa": ifa.__version__}
    ids = [path.name for path in images]
    _write_maps(out, made, ids, targets, by, unit)
    _write_pictures(out / "overlays", inputs, made, lines, ids, look, form, dpi)


def _task(asked: "list[_Asked]") -> str:
    """Say what the outputs of the network are, as the runs say; without one, logits of classes."""
    if not asked[0].run:
        return "classification"
    return json.loads(asked[0].statistics.attrs["spec"])["task"]


def _mode(asked: "list[_Asked]") -> Literal["RGB", "L"] | None:
    """Take pictures with as many channels as those that the runs are of."""
    if not asked[0].run:
        return None
    shape = json.loads(asked[0].statistics.attrs["spec"])["input_shape"]
    return "RGB" if shape.startswith("(3, ") else "L" if shape.startswith("(1, ") else None


class _Asked(NamedTuple):
    """A method at a layer, on the scale of a run where there is one."""

    weight: str
    layer: str | None
    statistics: Any
    run: str | None
    basis: Any = None


class _Made(NamedTuple):
    maps: Any  # raw and signed
    shown: Any  # on the scale, where there is one
    panel: Any  # of the picture
    said: dict[str, Any]  # what the maps were made of


def _asked(
    layers: list[str] | None,
    weight: str | None,
    runs: list[str] | None,
    basis: list[str] | None,
) -> list[_Asked]:
    """List what is to be made: of each run, or of each weighting, every layer."""
    from ifa.contest.bases import bases_of
    from ifa.contest.from_run import layer_of
    from ifa.contest.mapped import statistics_of, weighting_of

    given = [one.strip() for one in weight.split(",")] if weight else []
    if not runs:
        turned = _turned(layers or [None], basis_of(_WHERE, basis))
        return [
            _Asked(w, one, None, None, turned[one])
            for w in given or ["fullcam"]
            for one in layers or [None]
        ]
    found = []
    own = bases_of(_WHERE, runs, layers, dictionaries(basis))
    for run, turned in zip(runs, own, strict=True):
        statistics = statistics_of(_WHERE, run)
        every = statistics.attrs["layers"]
        for one in [layer_of(_WHERE, every, name) for name in layers or every]:
            of = given or [weighting_of(_WHERE, statistics, one)]
            found += [
                _Asked(name, one, statistics, run, None if turned is None else turned[one])
                for name in of
            ]
    names = [f"{_title(one)} at {one.layer}" for one in found]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{_WHERE}: expected each --run to be another, got {name} twice.")
    return found


def _turned(layers: Sequence[str | None], basis: Any) -> dict[str | None, Any]:
    """Give each layer its dictionary, of one or of a mapping by layers."""
    named = basis if isinstance(basis, dict) else dict.fromkeys(layers[:1], basis)
    if basis is not None and {*named} != {*layers}:
        raise ValueError(
            f"{_WHERE}: expected --basis LAYER=PATH for each --layer, "
            f"{', '.join(map(str, layers))}, got {', '.join(map(str, named))}."
        )
    return dict.fromkeys(layers) | named


def _title(asked: _Asked) -> str:
    """Name a method: files are called so, and pictures."""
    return asked.weight if asked.basis is None else f"{asked.weight}-basis"


def _made(
    network: Any, inputs: Any, targets: Any, asked: _Asked, several: bool, unit: str
) -> _Made:
    import ifa
    from ifa.basis.projections import weights_in
    from ifa.contest.methods import weighting
    from ifa.explanation import common_scale
    from ifa.network.identity import model_token, origin_of
    from ifa.plot.portraits import Panel
    from ifa.plot.shades import Shades, on_scale
    from ifa.store.exports import ends_of
    from ifa.taps.weighings import Weighing

    method, logit = weighting(_WHERE, asked.weight), ifa.score.logit
    layer = Weighing(_WHERE, network, asked.layer, inputs[:2], method, remember=True).layers[0]
    token = model_token(network, inputs[:2])
    (whole,) = weights_in(method, asked.basis, (layer,))
    origin = origin_of(_WHERE, token, layer, whole, logit, None, None)
    scale, _ = common_scale(_WHERE, asked.statistics, origin, False)
    options: Any = {"layer": layer, "weight": method, "basis": asked.basis}
    maps = ifa.explain(network, inputs, targets, **options, rectify=False, size=inputs.shape[2:])
    said: dict[str, Any] = {"layer": layer, "weight": _title(asked), "network": origin.network}
    said |= {"run": text_of(asked.run), "limits": None}
    said |= {} if asked.basis is None else {"basis": ifa.basis.digest(asked.basis)}
    title = f"{_title(asked)}, {layer}" if several else layer
    if scale is None:
        most = float(maps.abs().nan_to_num(0.0).amax()) or 1.0
        return _Made(maps, maps, Panel(title, Shades(0.0, most, True, f"map ({unit})")), said)
    said["limits"] = [limit.tolist() for limit in scale]
    shown = ifa.batched(ifa.rescale(scale))(ifa.Map(maps, targets)).values
    ends = ends_of(said)
    assert ends is not None  # because there are limits
    return _Made(maps, shown, Panel(title, on_scale(ends, unit)), said)


def _lines(
    images: Sequence[Path],
    scorer: Any,
    inputs: Any,
    targets: Any,
    names: Sequence[str] | None,
    expected: str | None,
    task: str,
    unit: str = "logit",
) -> list[list[str]]:
    """Say of each image what it is called, what was predicted, and what was expected."""
    import torch

    given = [None] * len(images) if expected is None else expected.split(",")
    if len(given) != len(images):
        raise ValueError(
            f"{_WHERE}: expected --expected with a name for each of {len(images)} images, got "
            f"{len(given)}."
        )
    with torch.no_grad():
        logits = scorer.run(inputs).reshape(len(images), -1)
    # of labels each has a probability of its own, of numbers there is none
    parts = logits.softmax(1) if task == "classification" else logits.sigmoid()
    shares = task != "regression" and (task == "binary" or logits.shape[1] > 1)
    first = "predicted" if task in ("classification", "binary") else "largest"

    def named(output: int) -> str:
        return str(output) if names is None or output >= len(names) else str(names[output])

    lines = []
    for place, (path, was) in enumerate(zip(images, given, strict=True)):
        predicted, target = int(logits[place].argmax()), int(targets[place])
        said = [path.name]
        for word, output in ((first, predicted), ("explained", target)):
            if word == first or target != predicted:
                p, value = float(parts[place, output]), float(logits[place, output])
                share = f"probability {p:.3g}, " if shares else ""
                said.append(f"{word}: {int(value > 0) if task == 'binary' else named(output)}")
                said.append(f"  {share}{value:.3g} {unit}")
        if was is not None:
            was = was.strip()
            said.append(f"expected: {named(int(was)) if was.isdigit() else was}")
        lines.append(said)
    return lines


def _write_maps(
    out: Path, made: list[_Made], ids: list[str], targets: Any, by: dict[str, Any], unit: str
) -> None:
    from ifa.store import save_maps

    for one in made:
        name = "maps" if len(made) == 1 else f"maps-{one.said['weight']}-{one.said['layer']}"
        attrs = {**by, **one.said}
        home = out / f"{name}.zarr"
        save_maps(home, one.maps, ids=ids, target=targets, units=unit, attrs=attrs)
        typer.echo(f"maps: {home}")


def _write_pictures(
    home: Path,
    inputs: Any,
    made: list[_Made],
    lines: list[list[str]],
    ids: list[str],
    look: dict[str, Any],
    form: Any,
    dpi: int,
) -> None:
    from ifa.plot.pictures import Look
    from ifa.plot.portraits import card, drawn_of
    from ifa.plot.saving import content_of
    from ifa.store.exports import file_names
    from ifa.store.files import write_atomically

    home.mkdir()
    panels = [one.panel for one in made]
    for place, name in enumerate(file_names(ids)):
        shown = [one.shown[place].numpy(force=True) for one in made]
        drawn = drawn_of(_WHERE, inputs[place], shown, panels, lines[place], Look(**look))
        content = content_of(card([drawn], panels), form, dpi)
        write_atomically(home / f"{name}.{form}", lambda file, content=content: file.write(content))
    typer.echo(f"overlays: {home}")
