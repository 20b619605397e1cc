"""What several commands take, and what is made of it: a network, data."""

import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
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
Basis = Annotated[
    list[str] | None,
    typer.Option(
        "--basis", help="What `ifa basis` wrote, where the run is in it; may be given again"
    ),
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
Mean = Annotated[
    str | None,
    typer.Option(
        "--mean",
        help="What was taken off inputs, with commas, to draw them; that of --prepare if left out",
    ),
]
Deviation = Annotated[
    str | None, typer.Option("--std", help="What inputs were divided by then, with commas")
]
Drawn = Annotated[
    str | None,
    typer.Option(
        "--channels", help="Of inputs that are drawn: 3, or 3,2,1 as RGB, or mean, or principal"
    ),
]
Limit = Annotated[
    int | None,
    typer.Option("--limit", help="So many samples of the data, evenly spaced; all if left out"),
]
DataVersion = Annotated[
    str | None, typer.Option(help="Your word for what the data are; they are not read again")
]
Versions = Annotated[str, typer.Option(help="any continues a run of another ifa, torch or numpy")]
Shard = Annotated[int, typer.Option(help="Samples committed at once")]
BatchSize = Annotated[int, typer.Option(help="Samples computed at once")]
Workers = Annotated[
    int | None, typer.Option(help="Processes that read the data; 0 reads in this thread")
]
Shards = Annotated[
    str | None,
    typer.Option(
        "--shards",
        help="A part of the shards, 3/16 for every sixteenth from the third: jobs do the others, "
        "and `ifa commit` finishes",
    ),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, …; the model's own if left out")]


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


def data_of(
    where: str,
    reference: str,
    network: Any,
    prepare: str | None,
    limit: int | None = None,
    columns: Mapping[str, str] | None = None,
    names: Sequence[str | None] | None = None,
) -> Any:
    """Take pictures of a folder or a table, or a data set that a callable returns.

    `columns` are those of groups and clusters, of a table; `names` are those of the outputs, which
    classes that are among them are numbered by.
    """
    from ifa.data import folder, table
    from ifa.data.samples import check_order
    from ifa.store.items import data_set, spaced
    from ifa.store.sources import called

    ready = network.preparation(prepare) if prepare else None
    of: dict[str, Any] = dict(columns or {})
    if Path(reference).is_dir():
        data = _numbered(partial(folder, reference, prepare=ready, **of), names)
    elif is_table(reference):
        data = _numbered(partial(table, reference, prepare=ready, **of), names)
    else:
        data = _prepared(where, called(reference, where), ready)
    check_order(where, data, names)
    if limit is None:
        return data
    chosen = spaced(where, "--limit", data_set(where, data), limit)
    note(f"{len(chosen)} of {len(data)} samples, evenly spaced")
    return chosen


def dictionaries(paths: list[str] | None) -> dict[str, Any]:
    """Read what `ifa basis` wrote, by path."""
    import ifa

    return {path: ifa.basis.load(path) for path in paths or ()}


def basis_of(where: str, paths: list[str] | None) -> Any:
    """Read a dictionary, or one for each layer that is named: LAYER=PATH."""
    if not paths:
        return None
    if len(paths) == 1 and "=" not in paths[0]:
        return dictionaries(paths)[paths[0]]
    named = dict(path.split("=", 1) for path in paths if "=" in path)
    if len(named) < len(paths):
        raise ValueError(
            f"{where}: expected --basis LAYER=PATH for each of several layers, got "
            f"{', '.join(paths)}."
        )
    found = dictionaries([*named.values()])
    return {layer: found[path] for layer, path in named.items()}


def look_of(where: str, channels: str | None, mean: str | None, std: str | None) -> Any:
    """Take how inputs are drawn: which of their channels, and what is put back onto them."""
    if (mean is None) != (std is None):
        raise ValueError(f"{where}: expected --mean and --std, or neither, got one of them.")
    given = None
    if mean is not None and std is not None:
        given = tuple(_numbers(where, *one, float) for one in (("--mean", mean), ("--std", std)))
    if channels is None or channels in ("mean", "principal"):
        return {"channels": channels, "denormalize": given}
    places = _numbers(where, "--channels", channels, int)
    return {"channels": places[0] if len(places) == 1 else places, "denormalize": given}


def _numbers(where: str, option: str, text: str, kind: Any) -> list[Any]:
    try:
        return [kind(one) for one in text.split(",")]
    except ValueError:
        raise ValueError(
            f"{where}: expected {option} to be numbers with commas between, got {text!r}."
        ) from None


def _numbered(make: Callable[..., Any], names: Sequence[str | None] | None) -> Any:
    """Make data whose labels are outputs, where their classes are named as outputs are."""
    if names is None:
        return make()
    try:
        data = make()
    except ValueError:  # such as a class without a picture, which names may have
        return make(names=names)
    if not data.names:
        return data
    if names[0] is None and names[1] in data.names:  # 0 or 1 of the one output
        others = [name for name in data.names if name != names[1]] or [f"not {names[1]}"]
        return make(names=[*others, names[1]])
    if data.names[: len(names)] == tuple(names):  # a run of the first outputs has their names only
        return data
    if {*data.names} & {*names}:
        return make(names=names)
    first = ", ".join(f"{name} {place}" for place, name in enumerate(data.names[:3]))
    note(f"no class of the data is the name of an output; labels are their places: {first}, …")
    return data


def is_table(reference: str) -> bool:
    """Tell whether data are a table's."""
    return Path(reference).suffix in (".csv", ".tsv")


def _prepared(where: str, data: Any, ready: Any) -> Any:
    from ifa.data import Samples

    if ready is None:
        return data
    if not isinstance(data, Samples):
        raise TypeError(
            f"{where}: expected --prepare with a folder, a table or data of ifa.data, whose "
            f"pictures it can be given, got {type(data).__name__}. Prepare them in the data set."
        )
    return replace(data, prepare=ready)


def part_of(where: str, shards: str | None) -> Any:
    """Take which part of the shards is done; None for all."""
    from ifa.engines import shards as part

    if shards is None:
        return None
    number, _, of = shards.partition("/")
    if not (number.isdecimal() and of.isdecimal()):
        raise ValueError(f"{where}: expected --shards as PART/PARTS, such as 3/16, got {shards!r}.")
    return part(int(number), int(of))


def is_unfinished(tree: Any) -> bool:
    """Tell whether a run is one that others do too."""
    from ifa.population.driver import UNFINISHED

    return tree.attrs.get("title") == UNFINISHED


def said_of_part(tree: Any, run: str) -> str | None:
    """Say how far a run is that others do too; None of one that is finished."""
    if not is_unfinished(tree):
        return None
    done, count = tree.attrs["done"], tree.attrs["shards"]
    next_ = "" if done < count else f"\nnext:\n  ifa commit {shlex.quote(run)}"
    return f"run: {run}, {done} of {count} shards done{next_}"


def targets_of(where: str, targets: str) -> Any:
    """Take which outputs are explained: by name, or listed."""
    if targets in ("predicted", "label"):
        return targets
    try:
        return [int(target) for target in targets.split(",")]
    except ValueError:
        raise ValueError(
            f"{where}: expected --targets to be predicted, label, or output indices such "
            f"as 0,2,5, got {targets!r}."
        ) from None


def note(text: str) -> None:
    """Say on standard error what was done unasked."""
    typer.echo(f"Note: {text}", err=True)


def typed(context: typer.Context, *names: str) -> list[str]:
    """Give again what was typed of these, for the next command; the rest is found as it was."""
    words: list[str] = []
    for name in names:
        value = context.params.get(name)
        source = context.get_parameter_source(name)
        if value is None or source is None or source.name != "COMMANDLINE":
            continue
        option = [] if name in ("model", "data") else [f"--{name.replace('_', '-')}"]
        for one in value if isinstance(value, list) else [value]:
            words += [*option, shlex.quote(str(one))]
    return words


def path_beside(run: str, ending: str) -> Path:
    """Name what is written next to a run; of a run elsewhere it is written here."""
    if "://" in run:
        return Path(run.rstrip("/").rsplit("/", 1)[-1] + ending)
    return Path(run).with_name(Path(run).name + ending)


def text_of(path: Path | str | None) -> str | None:
    """Write a path, where there is one."""
    return None if path is None else str(path)
