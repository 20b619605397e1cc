"""The command `ifa diagnose`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from ifa.cli.arguments import (
    Basis,
    Config,
    Device,
    Limit,
    Prepare,
    Weights,
    data_of,
    dictionaries,
    network_of,
)
from ifa.cli.runs import Run

_WHERE = "ifa diagnose"
_BY_GROUPS = "not of a run by groups; analyze without --groups, to another --out"
_SCORED = "not of a task that is scored, which predicts nothing"
_LACKING = "not without the importance of every sample; `ifa analyze --keep-samples full` keeps it"

# What principal features are measured by, of each task that has them.
_METRICS = dict.fromkeys(("classification", "binary", "multilabel"), "accuracy") | {
    "regression": "r"
}


def diagnose(
    run: Run,
    model: Annotated[
        str | None, typer.Argument(help="Its network, to find the channels that are enough")
    ] = None,
    data: Annotated[
        str | None, typer.Argument(help="Data to measure these on: the run's, or better others")
    ] = None,
    weights: Weights = None,
    config: Config = None,
    prepare: Prepare = None,
    limit: Limit = None,
    device: Device = None,
    basis: Basis = None,
    other: Annotated[
        str | None, typer.Option("--other", help="Another run, to compare with this one")
    ] = None,
    nuisance: Annotated[
        str | None,
        typer.Option(
            help="What the network should not use, such as the site: TABLE.csv:COLUMN, or a file "
            "with a line for each sample"
        ),
    ] = None,
    layer: Annotated[
        str | None, typer.Option("--layer", help="One of the run's; all if left out")
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option("--pictures", help="Directory for a picture of each")
    ] = None,
) -> None:
    """Diagnose a run: outliers, redundant channels; with more given, shift, confounders and more.

    What the run did not keep is said. With --other: shift and agreement; with --nuisance:
    confounders; with MODEL and DATA: how few channels are enough.
    """
    import ifa
    from ifa.contest.bases import bases_of
    from ifa.contest.from_run import layer_of
    from ifa.plot import diagnosis, save

    tree = ifa.open(run)
    theirs = list(tree.attrs.get("layers", []))
    if not theirs:
        raise ValueError(f"{_WHERE}: expected a run of `ifa analyze`, got {run}, which has none.")
    if (model is None) != (data is None):
        raise ValueError(f"{_WHERE}: expected MODEL and DATA, or neither, got {model or data}.")
    chosen = theirs if layer is None else [layer_of(_WHERE, theirs, layer)]
    second = None if other is None else _other(other, chosen)
    values = None if nuisance is None else _nuisance(tree, nuisance)
    measured = None
    if model is not None and data is not None:
        (own,) = bases_of(_WHERE, [run], chosen, dictionaries(basis))
        measured = *_measured(run, tree, model, data, weights, config, prepare, limit), device, own
    elif basis:
        raise ValueError(f"{_WHERE}: expected MODEL and DATA with --basis, which they are read in.")
    for name in chosen:
        for kind, found in _all(tree, name, second, values, measured):
            typer.echo(found if isinstance(found, str) else ifa.diagnose.summary(found))
            if pictures is not None and not isinstance(found, str):
                pictures.mkdir(parents=True, exist_ok=True)
                prefix = "" if len(chosen) == 1 else f"{name}-"
                picture = pictures / f"{prefix}{kind}.png"
                save(diagnosis(found), picture)
                typer.echo(f"  picture: {picture}")
    for text in _not_asked(other, nuisance, model):
        typer.echo(text)


def _all(
    tree: Any, layer: str, other: Any, nuisance: Any, measured: Any
) -> Iterator[tuple[str, Any]]:
    """Make every diagnosis there is something for; the text why not, where the run lacks it."""
    from ifa import diagnose as room

    own = {"outliers": room.outliers, "redundancy": room.redundancy}
    if "samples" not in tree.children or "importance" not in tree[f"samples/{layer}"]:
        yield "", f"outliers, redundancy, shift and confounders of layer {layer}: {_LACKING}"
        own = {}
    for name, function in own.items():
        try:
            yield name, function(tree, layer)
        except ValueError as error:  # such as too few samples of every target
            yield name, f"{name} of layer {layer}: none. {error}"
    if other is not None:
        if own:
            yield "shift", room.shift(tree, other, layer)
        if any("group" in one[layer].dims for one in (tree, other)):
            yield "", f"agreement of layer {layer}: {_BY_GROUPS}"
        else:
            yield "agreement", room.agreement(tree, other, layer)
    if nuisance is not None and own:
        yield "confounders", room.confounders(tree, nuisance, layer)
    if measured is not None and "group" in tree[layer].dims:
        yield "", f"principal features of layer {layer}: {_BY_GROUPS}"
    elif measured is not None and measured[2] is None:
        yield "", f"principal features of layer {layer}: {_SCORED}"
    elif measured is not None:
        try:
            yield "principal-features", _principal(tree, layer, *measured)
        except ValueError as error:  # such as no accepted sample of any target
            yield "", f"principal features of layer {layer}: none. {error}"


def _principal(
    tree: Any, layer: str, network: Any, data: Any, metric: Any, device: Any, bases: Any
) -> Any:
    """Find the principal features; of one real output nothing tells it from others."""
    from ifa.diagnose import principal_features

    statistics = tree[layer].to_dataset()
    single = metric == "r" and statistics.sizes["target"] == 1
    by = "importance" if single else "difference"
    options: Any = {"by": by, "metric": metric, "device": device}
    basis = None if bases is None else bases[layer]
    return principal_features(network, layer, data, statistics, basis=basis, **options)


def _other(other: str, layers: list[str]) -> Any:
    import ifa

    tree = ifa.open(other)
    missing = [name for name in layers if name not in tree.children]
    if missing:
        raise LookupError(
            f"{_WHERE}: expected --other to be a run of layer {missing[0]!r} too, got {other} of "
            f"{', '.join(tree.attrs.get('layers', [])) or 'none'}. Give --layer, or another run."
        )
    return tree


def _nuisance(tree: Any, text: str) -> Any:
    """Read the nuisance, as numbers where all of it are real ones."""
    import numpy as np

    from ifa.data.lists import listed_column

    if "samples" not in tree.children:
        raise ValueError(
            f"{_WHERE}: expected a run that kept its samples for --nuisance, got one that kept "
            "none. Analyze with --keep-samples full."
        )
    ids = tree["samples"]["id"].values.tolist()
    values = listed_column(_WHERE, text, ids, len(ids))
    try:
        numbers = np.array(values, dtype=np.float64)
    except ValueError:
        return np.array(values)
    whole = np.isfinite(numbers).all() and (numbers % 1 == 0).all()
    return numbers.astype(np.int64) if whole and len(set(values)) <= 10 else numbers


def _measured(
    run: str,
    tree: Any,
    model: str,
    data: str,
    weights: Path | None,
    config: list[str] | None,
    prepare: str | None,
    limit: int | None,
) -> Any:
    from ifa.contest.from_run import check_same
    from ifa.contest.mapped import names_of

    reference = network_of(model, weights, config)
    samples = data_of(_WHERE, data, reference, prepare, limit, names=names_of(tree))
    network = reference.load()
    check_same(_WHERE, run, network, samples, other_data=True)
    return network, samples, _METRICS.get(json.loads(tree.attrs["spec"])["task"])


def _not_asked(other: Any, nuisance: Any, model: Any) -> Iterator[str]:
    for given, what, how in (
        (other, "shift, agreement", "--other RUN, of another site, split or training"),
        (nuisance, "confounders", "--nuisance TABLE.csv:COLUMN, such as the scanner"),
        (model, "principal features", "MODEL DATA"),
    ):
        if given is None:
            yield f"{what}: with {how}"
