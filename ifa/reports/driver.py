"""From a run, its data and its network to one file."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ifa.checks import check_count
from ifa.data.samples import normalization_of
from ifa.network.identity import read_origin
from ifa.plot.pictures import Look
from ifa.population.passes import loaded
from ifa.progress import Progress
from ifa.reports import features, overview
from ifa.reports.choosing import order_of
from ifa.reports.comparing import comparison
from ifa.reports.packing import packed
from ifa.reports.pages import inlined, page_of
from ifa.reports.showing import Asked, shown_part
from ifa.reports.sources import Rows, Source, check_data, rows_of, source_of
from ifa.store.files import write_atomically
from ifa.store.items import data_set
from ifa.store.references import ModelRef
from ifa.types import Grid, Method, Output, Score, Statistics

_WHERE = "ifa.report"
MOST_BYTES = 25 * 10**6
_ROWS = 20_000  # of the sample table


@dataclass(frozen=True)
class Report:
    """A page about a run. In a notebook it shows itself; `save` writes it to a file."""

    html: str = field(repr=False)
    notes: tuple[str, ...]  # what is missing on it, and why
    path: Path | None = None

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return len(self.html.encode())

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it to a file; what is there is replaced."""
        content = self.html.encode()
        write_atomically(Path(path), lambda file: file.write(content))
        return Path(path)

    def _repr_html_(self) -> str:
        return inlined(self.html)


def report(
    run: Statistics | str | os.PathLike[str],
    data: Any = None,
    out: str | os.PathLike[str] | None = None,
    *,
    model: nn.Module | ModelRef | None = None,
    other: Statistics | str | os.PathLike[str] | None = None,
    claims: Any = None,
    table: Any = None,
    methods: Sequence[str] = ("gradcam", "layercam"),
    samples: int = 1000,
    title: str | None = None,
    channels: Any = None,
    denormalize: Any = None,
    weight: Method | None = None,
    basis: Any = None,
    score: Score | None = None,
    grid: Grid | None = None,
    output: Output = None,
    grid_of: str | int | None = None,
    device: str | torch.device | None = None,
    progress: Progress = True,
) -> Report:
    """Make one page about a run: a file that is opened offline, mailed, searched and printed.

    It has what was analyzed and how often the network is right; the common scale; features with
    their importance for each class; samples with their maps, on the common scale and one by one,
    and with only some of the features kept; classes; layers side by side. It asks for nothing but
    itself, and what it does not have, it says.

    Parameters
    ----------
    run
        What `ifa.analyze` returned, or the folder that was its ``store=``. One with
        ``keep_samples="full"`` has distributions, top samples, outliers and copies of features.
    data
        The run's data. None for a page without pictures. Others than the run's are refused.
    out
        The file, such as ``"report.html"``. None keeps the page in memory.
    model
        The run's network, for maps; None for a page without. Another than the run's is refused.
    other
        Another run, to compare with: of another split, site or training.
    claims
        What `ifa.claims` returned.
    table
        What `ifa.contest.table` returned, to say whether any method beats noise.
    methods
        Names of weightings that maps are drawn by beside the run's own, each on the scale of the
        maps that the page shows.
    samples
        How many are shown at most, with their inputs and maps. Fewer where they are large: a page
        has less than 25 MB. Shown first are the strangest, the surest and least sure of each class,
        those predicted wrongly, and those that speak most for a feature.
    title
        Of the page.
    channels, denormalize
        How inputs are drawn, as in `ifa.plot.overlay`; by default what the data's preparation says.
    weight, basis, score, grid, output, grid_of
        As they were given to `ifa.analyze`; `weight` need not be if it has a name.
    device
        Where maps are made; the model's own by default.
    progress
        As in `ifa.analyze`.

    Returns
    -------
    Report
        Its `path`, `size` and `notes`, which say what is missing. In a notebook it shows itself.

    Raises
    ------
    ValueError
        If data or network are not the run's, or `model` is given without `data`.

    Examples
    --------
    >>> import ifa, torch
    >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 2, 3), torch.nn.Flatten())
    >>> data = [(torch.ones(1, 4), int(net(torch.ones(1, 1, 4)).argmax()))] * 3
    >>> run = ifa.analyze(net, data, layer="0", progress=False)
    >>> ifa.report(run).notes[0]
    'No inputs and maps: the page was made without data.'
    """
    check_count(_WHERE, "samples", samples)
    if model is not None and data is None:
        raise ValueError(f"{_WHERE}: expected data= with model=, got none. Maps are of samples.")
    source = source_of(_WHERE, run)
    rows = rows_of(source)
    parts = [features.layer_part(source, layer, len(source.layers)) for layer in source.layers]
    diagnoses = [features.diagnosed(source, part) for part in parts]
    network, pictured = None, None
    if data is not None:
        data = data_set(_WHERE, data)
        network = None if model is None else loaded(_WHERE, model, device)
        check_data(_WHERE, run, source, network, data)
    if data is not None and rows is not None:
        order = order_of(rows, [one.strange for one in diagnoses], [one.tops for one in parts])
        named = {"score": score, "grid": grid, "output": output, "grid_of": grid_of}
        named = {name: value for name, value in named.items() if value is not None}
        look = Look(channels, normalization_of(data) if denormalize is None else denormalize)
        asked = Asked(_WHERE, network, weight, basis, tuple(methods), named, look, progress)
        pictured = shown_part(source, rows, parts, data, order, samples, asked)
    content, notes = _content(source, rows, parts, diagnoses, pictured)
    content |= {"title": title or f"{source.name}: a report", "claims": overview.evidence(claims)}
    content |= {"methods": overview.methods(table, rows), "other": None}
    if other is not None:
        content["other"] = comparison(source, source_of(_WHERE, other))
    content["notes"] = [*_missing(source, data, model, rows), *notes]
    made = Report(page_of(content), tuple(content["notes"]))
    if made.size > MOST_BYTES:
        raise ValueError(
            f"{_WHERE}: expected a page of less than {MOST_BYTES / 1e6:g} MB, got "
            f"{made.size / 1e6:.1f} MB. Give fewer samples=, or a run of fewer layers."
        )
    return made if out is None else Report(made.html, made.notes, made.save(out))


def _content(
    source: Source, rows: Rows | None, parts: Any, diagnoses: Any, pictured: Any
) -> tuple[dict[str, Any], list[str]]:
    """Gather what the page shows of a run, and what is to be said of it."""
    notes = [note for part in parts for note in part.notes]
    content: dict[str, Any] = {"run": _facts(source), "names": _names(source)}
    content |= {"accuracy": None, "confusion": None, "samples": None, "inputs": None}
    content |= {"words": overview.words(source), "shown": 0}
    if rows is not None:
        shown = np.zeros(0, np.int64) if pictured is None else pictured.chosen
        table = _table(len(rows.id), shown)
        if len(table) < len(rows.id):
            notes.append(f"{len(table)} of {len(rows.id)} samples are in the table of samples.")
        content["accuracy"] = overview.accuracy(source, rows)
        content["confusion"] = overview.confusion(source, rows)
        content["samples"] = overview.samples_part(source, rows, table)
        content["shown"] = len(shown)
    if pictured is not None:
        content["inputs"] = pictured.inputs
        notes += pictured.notes
    content["layers"] = [
        _layer(source, rows, part, found, place, pictured, content)
        for place, (part, found) in enumerate(zip(parts, diagnoses, strict=True))
    ]
    return content, notes


def _layer(
    source: Source, rows: Any, part: Any, found: Any, place: int, pictured: Any, content: Any
) -> dict[str, Any]:
    """Gather what the page shows of a layer."""
    said = part.content | {
        "scale": overview.scale_part(source, part.name, rows),
        "sentences": found.sentences,
        "partners": found.partners,
        "strange": None,
        "maps": None if pictured is None else pictured.maps[place],
        "tops": None,
    }
    if rows is None:
        return said
    table = _table(len(rows.id), np.zeros(0, np.int64) if pictured is None else pictured.chosen)
    strange = features.strange_part(found.strange, len(rows.id))
    if strange is not None:
        said["strange"] = {name: packed(values[table]) for name, values in strange.items()}
    row = np.full(len(rows.id), -1)
    row[table] = np.arange(len(table))
    if part.tops.size:
        said["tops"] = packed(row[part.tops])
        of = part.table
        largest = -np.sort(-of.importance, axis=0)[: part.tops.shape[1]].T
        said["top_values"] = packed(largest)
    return said


def _table(count: int, shown: np.ndarray) -> np.ndarray:
    """Choose the samples that are listed: those that are shown first, then others."""
    others = np.setdiff1d(np.arange(count), shown)
    left = max(0, _ROWS - len(shown))
    if len(others) > left:
        others = others[np.linspace(0, len(others) - 1, left).round().astype(int)]
    return np.concatenate([shown, others])


def _facts(source: Source) -> dict[str, Any]:
    origin = read_origin(source.tree[source.layers[0]].attrs["origin"])
    network, weighting, score = origin.names
    attrs = source.tree.attrs
    return {
        "name": source.name,
        "task": source.task,
        "targets": str(source.spec["targets"]),
        "network": network,
        "digest": origin.network[:16],
        "weighting": weighting,
        "score": score,
        "versions": f"ifa {attrs.get('ifa_version')}, torch {attrs.get('torch_version')}",
        "input": str(source.spec.get("input_shape", "")),
    }


def _names(source: Source) -> dict[str, str]:
    return {str(target): name for target, name in source.names.items()}


def _missing(source: Source, data: Any, model: Any, rows: Any) -> list[str]:
    """Say what is not on the page, and what would put it there."""
    if rows is None:
        return ["No samples: the run kept none (keep_samples='none')."]
    if data is None:
        return ["No inputs and maps: the page was made without data."]
    if model is None:
        return ["No maps: the page was made without the network (model=)."]
    return []
