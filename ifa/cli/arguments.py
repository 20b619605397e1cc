"""What several commands take, and what is made of it: a network, data."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

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


def network_of(model: str, weights: Path | None, config: list[str] | None) -> Any:
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
    return ifa.ModelRef(model, text_of(weights), options)


def _look_here() -> None:
    """Let package.module:name lie where one works; what is installed comes first."""
    if not sys.flags.safe_path and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def data_of(where: str, reference: str, network: Any, prepare: str | None) -> Any:
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


def text_of(path: Path | None) -> str | None:
    """Write a path, where there is one."""
    return None if path is None else str(path)
