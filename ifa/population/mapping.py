"""The maps of a whole population: data set to tap to scaled maps, streamed to a resumable run."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import nn

from ifa.basis.projections import check_features
from ifa.chains import Chain
from ifa.explanation import after_weighing, common_scale, onto_input
from ifa.network.identity import Origin
from ifa.network.inputs import moved, shapes_of, take
from ifa.network.tokens import callable_token
from ifa.population.driver import Advance, Cuts, Job, Versions, drive
from ifa.population.options import (
    FREE,
    Options,
    above_zero,
    count_or_none,
    one_of,
    which_outputs,
)
from ifa.population.passes import Engine, Question, question_of, ready, spec_of
from ifa.progress import Progress
from ifa.reduce.verdicts import Task
from ifa.scaling import How, Scale
from ifa.score import logit
from ifa.stages import by_output
from ifa.store.datasets import MAPS, array_of, joined, statistics_tree
from ifa.store.items import Batch, data_set
from ifa.store.markers import Arrays
from ifa.store.references import ModelRef
from ifa.store.specs import Spaced
from ifa.store.tables import Column, Rows, Schema
from ifa.taps.cautions import heed_gaps
from ifa.taps.weighings import noted
from ifa.types import SPACE, Grid, Inputs, Method, Output, Score
from ifa.weight import fullcam

_WHERE = "ifa.maps"


@dataclass(frozen=True, kw_only=True)
class Mapped(Options):
    """What `ifa.maps` takes besides."""

    mask: Annotated[Any, FREE]
    scale: Annotated[Any, FREE]  # a spec has the limits that were read
    how: Annotated[How, one_of("affine", "tanh")]
    widen: Annotated[float, above_zero]
    rectify: Annotated[bool | None, FREE]
    blocks: Annotated[int | None, count_or_none]
    size: Annotated[Any, FREE]  # a spec has the space of the maps
    placing: Annotated[str, one_of("centers", "even")]

    def check(self, where: str) -> None:
        """Raise where an option is not as it should be."""
        super().check(where)
        if self.scale is None and (self.how, self.widen) != ("affine", 1.0):
            raise ValueError(
                f"{where}: expected a scale with how={self.how!r}, widen={self.widen}, got none. "
                "Give scale=, the statistics or the run of this population."
            )


def maps(
    model: nn.Module | ModelRef,
    data: Any,
    *,
    layer: str | nn.Module | Sequence[str] | None = None,
    example: Inputs | None = None,
    weight: Method = fullcam,
    basis: Any = None,
    mask: Any = None,
    scale: Any = None,
    how: How = "affine",
    widen: float = 1.0,
    rectify: bool | None = None,
    blocks: int | None = None,
    size: Sequence[int] | Literal["input"] | None = "input",
    placing: Literal["centers", "even"] = "centers",
    score: Score = logit,
    grid: Grid | None = None,
    output: Output = None,
    grid_of: str | int | None = None,
    targets: Literal["predicted", "label"] | Sequence[int] = "predicted",
    task: Task = "classification",
    store: str | os.PathLike[str] | None = None,
    data_version: str | None = None,
    versions: Versions = "same",
    shard: int = 64,
    batch_size: int = 32,
    compile: bool = False,
    workers: int | None = None,
    device: str | torch.device | None = None,
    map: Any = None,
    progress: Progress = True,
) -> xr.DataTree:
    r"""Make the maps of a whole population, selected and on a common scale, streamed to Zarr.

    What `ifa.explain` makes of every sample; memory holds one shard, and a run that is killed
    continues where it was, with the same bits.

    Parameters
    ----------
    model, data, example, targets, task, data_version, versions, workers, device, map, progress
        As in `ifa.analyze`.
    layer, weight, rectify, size, placing, score, grid, output, grid_of
        As in `ifa.explain`; several layers may be named.
    basis
        As in `ifa.analyze`; `mask` is then of atoms.
    mask
        Channels to keep, see `ifa.keep`, such as ``ifa.select.largest(statistics["conv2"]
        ["importance"], ratio=0.1)``; of several layers a mapping by their names.
    scale
        As in `ifa.explain`: a `Scale`, statistics or a run of these very maps; of several layers
        statistics or a run.
    how, widen
        How maps are brought to the scale, as in `ifa.rescale`.
    blocks
        One map for each of so many blocks of channels, see `ifa.combine_blocks`; None for one map
        of all.
    store
        Folder or URL of the run, as in `ifa.analyze`. None keeps all maps in memory.
    shard
        How many samples are committed at once.
    batch_size, compile
        As in `ifa.analyze`.

    Returns
    -------
    xarray.DataTree
        ``id, label, prediction, score, target(sample)``, where `target` is the explained output,
        and a group for each layer with ``map(sample, *space)``, without unit on a scale, otherwise
        in the score's, ``zero_gradient`` and ``cancelled(sample)``: see `ifa.ZeroGradient` and
        `ifa.Cancellation`. Of blocks `map` has an axis ``block`` before space. With a list of
        targets `score` and `map` have a target axis first, and `target` is its coordinate.
        Each layer says in its attributes what it was made of (``origin``) and the limits of its
        scale. Of a store it is read when it is used.

    Raises
    ------
    LookupError, ValueError
        As `ifa.explain` and `ifa.analyze`.

    Examples
    --------
    >>> import ifa, torch
    >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 2, 3), torch.nn.Flatten())
    >>> data = [(torch.rand(1, 8), 0) for _ in range(3)]
    >>> statistics = ifa.analyze(net, data, layer="0", progress=False)
    >>> found = ifa.maps(net, data, layer="0", scale=statistics, progress=False)
    >>> dict(found["0"]["map"].sizes)
    {'sample': 3, 't': 8}
    """
    options = Mapped(
        layer=layer,
        weight=weight,
        basis=basis,
        score=score,
        grid=grid,
        output=output,
        targets=targets,
        task=task,
        shard=shard,
        batch_size=batch_size,
        compile=compile,
        workers=workers,
        data_version=data_version,
        mask=mask,
        scale=scale,
        how=how,
        widen=widen,
        rectify=rectify,
        blocks=blocks,
        size=size,
        placing=placing,
        grid_of=grid_of,
    )
    options.check(_WHERE)
    source, data = data, data_set(_WHERE, data)
    job = _job(model, data, options, example, device)
    return drive(job, store=store, map=map, progress=progress, versions=versions, source=source)


def _job(
    model: nn.Module | ModelRef,
    data: Any,
    options: Mapped,
    example: Inputs | None,
    device: str | torch.device | None,
) -> Job:
    engine, label, like = ready(_WHERE, model, data, options, example, device)
    layers = engine.layers
    masks = _masks(options.mask, layers)
    for mask in masks.values():
        check_features(_WHERE, "a mask", mask, options.basis)
    scales = {layer: _scale(options, engine.origins[layer], len(layers)) for layer in layers}
    placed = options.size, options.placing, options.grid_of
    last = onto_input(_WHERE, engine.made, moved(like, engine.device), *placed)
    ways: Any = {"how": options.how, "widen": options.widen, "blocks": options.blocks}
    steps = tuple(
        after_weighing(masks[layer], *scales[layer], end, **ways)
        for layer, end in zip(layers, last, strict=True)
    )
    rows = which_outputs(_WHERE, options.targets, engine.outputs)
    question = question_of(engine, options, rows, label)
    spaces = _spaces(engine, take(like, slice(1)), steps)
    schema = _schema(question, spaces, scales, len(data), options)
    found = {layer: _said(engine.origins[layer], *scales[layer], options) for layer in layers}
    items = Spaced(_WHERE, data, shapes_of(like))
    spec = {
        **spec_of(question, items, options),
        "maps": 1,
        "masks": [_mask_token(masks[layer]) for layer in layers],
        "limits": [found[layer].get("limits") for layer in layers],
        "rectify": [scales[layer][1] for layer in layers],
        "placed": options.size is not None,
        "space": [list(space) for space in spaces],
    }
    target = np.array(rows, dtype=np.int64)
    question.heed(items)
    return Job(
        probe=partial(question.probe, items),
        where=_WHERE,
        label="maps",
        cuts=Cuts(data, shapes_of(like), options.shard, options.batch_size, options.workers),
        spec=spec,
        schema=schema,
        coords={"target": target},
        work=partial(_reduced, question, steps, schema),
        finish=partial(_finished, spec=spec, layers=found),
        check=question.labels,
        record={"driver": "maps", "layers": found},
    )


def finishing(record: Mapping[str, Any], spec: Mapping[str, Any]) -> Any:
    """Return what finishes the maps of a run, as its spec says."""
    return partial(_finished, spec=spec, layers=record["layers"])


def _mask_token(mask: Any) -> Any:
    """Identify a mask by its factors, however they are given."""
    return None if mask is None else callable_token(by_output(_WHERE, "a mask", mask).double())


def _masks(mask: Any, layers: Sequence[str]) -> dict[str, Any]:
    if isinstance(mask, Mapping) and not hasattr(mask, "dims"):
        if {*mask} != {*layers}:
            raise ValueError(
                f"{_WHERE}: expected a mask for each of {', '.join(layers)}, got masks for "
                f"{', '.join(map(str, mask))}."
            )
        return dict(mask)
    if mask is not None and len(layers) > 1:
        raise ValueError(
            f"{_WHERE}: expected a mapping of masks by layer for {', '.join(layers)}, got one mask."
        )
    return dict.fromkeys(layers, mask)


def _scale(options: Mapped, origin: Origin, layers: int) -> tuple[Scale | None, bool]:
    if layers > 1 and isinstance(options.scale, Scale):
        raise ValueError(
            f"{_WHERE}: expected statistics or a run to read a scale for each of {layers} layers, "
            "got one scale."
        )
    return common_scale(_WHERE, options.scale, origin, options.rectify)


def _spaces(engine: Engine, one: Inputs, steps: tuple[Chain, ...]) -> list[tuple[int, ...]]:
    """Return the space of each layer's maps, as one sample shows it."""
    seen = engine.observe(one, 0, steps)
    return [tuple(each.values.shape[1:]) for each in seen.result]


def _schema(
    question: Question,
    spaces: Sequence[tuple[int, ...]],
    scales: Mapping[str, tuple[Scale | None, bool]],
    samples: int,
    options: Mapped,
) -> Schema:
    block = () if options.blocks is None else ("block",)
    schema, tap = question.schema(samples), question.engine.tap
    each = question.each(samples)
    if not question.many:  # otherwise the coordinate of this name says it
        schema[""]["target"] = Column(*each, "<i8", "explained output")
    for site, space in zip(tap.sites, spaces, strict=True):
        scaled = scales[site.layer][0] is not None
        schema[site.layer] = {
            "map": Column(
                (*each[0], *block, *SPACE[len(space) - len(block)]),
                (*each[1], *space),
                "<f8" if site.dtype == torch.float64 else "<f4",
                "map on the common scale" if scaled else "map",
                "1" if scaled else question.unit,
            ),
            "zero_gradient": Column(*each, "|b1", "whether no gradient reaches the layer"),
            "cancelled": Column(*each, "|b1", "whether the map is what rounding left"),
        }
    return schema


def _said(origin: Origin, scale: Scale | None, rectify: bool, options: Mapped) -> dict[str, Any]:
    """Say what a layer's maps are, as attributes."""
    said: dict[str, Any] = {"origin": origin.written(), "rectified": int(rectify)}
    if scale is not None:
        said["limits"] = [np.asarray(limit).tolist() for limit in scale]
        said |= {"how": options.how, "widen": options.widen}
    return said


def _reduced(
    question: Question,
    steps: tuple[Chain, ...],
    schema: Schema,
    batches: Iterable[tuple[range, Batch]],
    advance: Advance,
) -> tuple[Arrays, Rows]:
    """Make the maps of a shard."""
    tables: list[Rows] = []
    finer = question.engine.made.finer
    every = tuple(partial(noted, step, places=finer) for step in steps)
    for indices, batch in batches:
        looked = question.look(indices, batch, every)
        seen = looked.seen
        rows: Rows = {"": {**looked.row, "target": array_of(seen.explained)}}
        layers = zip(question.engine.layers, seen.result, seen.zero, strict=True)
        if finer:
            places = [some for *_, some in seen.result]
            heed_gaps("ifa.maps", question.engine.layers, places, seen.explained.ndim)
        for layer, (each, cancelled, _), zero in layers:
            flags = {"zero_gradient": array_of(zero), "cancelled": array_of(cancelled)}
            rows[layer] = {"map": array_of(each.values), **flags}
        tables.append(rows)
        advance(len(indices))
    rows = joined(tables, schema)
    return {"samples": np.array(len(rows[""]["id"]))}, rows


def _finished(shards: Iterable[Arrays], *, spec: Any, layers: Mapping[str, Any]) -> xr.DataTree:
    for _ in shards:  # every marker must be readable
        pass
    empty = {layer: xr.Dataset(attrs=said) for layer, said in layers.items()}
    origins = {layer: said["origin"] for layer, said in layers.items()}
    return statistics_tree(empty, spec, origins, MAPS)
