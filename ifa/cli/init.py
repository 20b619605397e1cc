"""The command `ifa init`."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from ifa.cli.arguments import (
    Config,
    Data,
    Model,
    Prepare,
    Weights,
    data_of,
    is_table,
    network_of,
    note,
)
from ifa.cli.files import FILE

_WHERE = "ifa init"


def init(
    model: Model,
    data: Data,
    weights: Weights = None,
    config: Config = None,
    prepare: Prepare = None,
    run: Annotated[Path, typer.Option("--run", help="Where the analysis is to go")] = Path("run"),
    out: Annotated[Path, typer.Option("--out", help="The file of options")] = FILE,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Where there is one")] = False,
) -> None:
    """Inspect a network and data, and write ifa.toml, the options that all commands read.

    It proposes the layer, names of targets, preparation and batch size, with comments; edit it. No
    other command writes to it.
    """
    from ifa.population.proposals import propose

    if out.exists() and not overwrite:
        raise FileExistsError(
            f"{_WHERE}: expected nothing at {out}, got a file. Nothing was touched. Give "
            "--overwrite, or another --out."
        )
    network = network_of(model, weights, config)
    pictures = Path(data).is_dir() or is_table(data)
    ready = _preparation(model) if prepare is None and pictures else prepare
    samples = data_of(_WHERE, data, network, ready)
    proposal = propose(_WHERE, network.load(), samples)
    shared = {"model": model, "weights": weights and str(weights), "config": config}
    shared |= {"data": data, "prepare": ready, "run": str(run)}
    out.write_text("\n".join(_written(shared, proposal)) + "\n", encoding="utf-8")
    if ready and prepare is None:
        note(f"pictures are prepared as those of {model}")
    for caution in proposal.cautions:
        note(caution)
    options = [] if out == FILE else ["--options", shlex.quote(str(out))]
    typer.echo(f"layer: {proposal.layer}, {proposal.grid}\noptions: {out}\nnext:")
    typer.echo(f"  {' '.join(['ifa', *options, 'analyze'])}")


def _preparation(model: str) -> str | None:
    """Name the preparation that comes with a network."""
    library, _, place = model.partition(":")
    if library == "hf":
        return "hf" if (Path(place) / "preprocessor_config.json").is_file() else None
    return "timm" if library == "timm" else None


def _written(shared: dict[str, Any], found: Any) -> Iterator[str]:
    yield "# Options of ifa: every command in this directory reads them for what is not typed."
    yield "# Written by `ifa init`; paths start in the directory where one works.\n"
    told = {
        "data": f"{found.samples} samples, inputs {found.inputs}",
        "run": "what `ifa analyze` makes and the others read",
    }
    for name, value in shared.items():
        yield _line(name, value or None, told.get(name, ""), _EXAMPLES.get(name, ""))
    yield "\n[analyze]"
    names = None if found.target_names is None else list(found.target_names)
    classes = f"{found.outputs} outputs"
    yield _line("out", shared["run"])
    yield _line("layer", [found.layer], f"{found.grid}; others: ifa layers")
    yield _line("target_names", names, classes if names else f"of {classes}", '["a", "b"]')
    yield _line("task", found.task)
    yield _line("weight", "fullcam", "or gradcam, layercam, scorecam, …")
    yield _line("targets", "predicted", 'or "label", or [0, 2]')
    yield _line("keep_samples", found.keep_samples, '"full" is for `ifa diagnose`')
    yield _line("batch_size", found.batch_size)
    yield "\n[evaluate]"
    yield _line("samples", None, "all, if left out", "200")


_EXAMPLES = {"weights": '"network.safetensors"', "config": '["name=value"]', "prepare": '"hf"'}


def _line(name: str, value: Any, told: str = "", example: str = "") -> str:
    text = example if value is None else json.dumps(value, ensure_ascii=False)
    off = "# " if value is None else ""
    return f"{off}{name} = {text}" + (f"  # {told}" if told else "")
