"""Pictures of the maps of a population: one of each sample, or so many on a sheet, as files."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ifa.chains import describe
from ifa.checks import check_choice, check_count
from ifa.data.samples import known, normalization_of, output_names
from ifa.network.inputs import at, grid_place
from ifa.plot.pictures import Channels, Denormalize, Look
from ifa.plot.portraits import Drawn, Panel, card, drawn_of, sheet
from ifa.plot.saving import FORMS, content_of
from ifa.plot.shades import Shades, on_scale
from ifa.progress import Progress
from ifa.reduce.verdicts import FLAGS
from ifa.store.exports import (
    Export,
    check_id,
    check_ids,
    ends_of,
    file_names,
    identity_of,
    maps_of,
    shard_of,
)
from ifa.store.items import collate

_WHERE = "ifa.plot.write_overlays"


def write_overlays(
    run: Any,
    data: Any,
    folder: str | os.PathLike[str],
    *,
    form: Literal["png", "svg", "pdf"] = "png",
    montage: int | None = None,
    names: Sequence[str] | None = None,
    channels: Channels = None,
    denormalize: Denormalize = None,
    window: tuple[float, float] | None = None,
    gray: bool = True,
    dpi: int = 150,
    progress: Progress = True,
) -> list[Path]:
    r"""Write a picture of each sample of a population with its maps, on their common scale.

    Above the input with the map laid over it, below the map alone, in the colors of the bar; of
    several layers, targets, blocks or methods one beside the other. Of a volume one slice is drawn,
    in which the maps reach highest. The bar says the unit and what the ends of the scale are. Maps
    without a scale have the limits of all of the population.

    Memory holds the maps of one shard. A call that is killed continues when it is made again: files
    that are there are kept. ``made_by.json`` in the folder says of which maps they are, and which
    file is which sample's.

    Parameters
    ----------
    run
        What `ifa.maps` returned, or the folder of its run; or a mapping of names to several of the
        same samples, such as one for each method.
    data
        The data that they are of. Of signals every channel is drawn.
    folder
        Where to write: new, empty, or begun with the same maps.
    form
        ``"png"``, ``"svg"`` or ``"pdf"``; vector graphics hold every pixel of inputs and maps,
        and texts as texts.
    montage
        None for one picture of each sample; otherwise so many samples on a sheet, each with its
        input and its maps alone.
    names
        Of the classes; those of the data if None.
    channels, denormalize, window, gray
        As in `ifa.plot.overlay`. What takes normalization back is taken from the data's
        ``prepare=``, if left out, where that says its mean and deviation.
    dpi
        Dots per inch of a PNG.
    progress
        Whether to draw a bar, or a function of ``(done, total)``.

    Returns
    -------
    list of pathlib.Path
        The files: named like the samples, or ``montage-00.png`` and so on.

    Raises
    ------
    ValueError
        If the folder holds anything else, or maps and data are not of one another.
    """
    check_choice(_WHERE, "form", form, FORMS)
    check_count(_WHERE, "dpi", dpi)
    several = isinstance(run, Mapping) and not hasattr(run, "attrs")
    trees = {name: maps_of(_WHERE, one) for name, one in (run if several else {"": run}).items()}
    for tree in trees.values():
        check_ids(_WHERE, tree, data)
    first = next(iter(trees.values()))
    ids = first["id"].values.tolist()
    names = known(data).names if names is None else list(names)
    names = output_names(json.loads(first.attrs["spec"])["task"], names)
    found = [each for name, tree in trees.items() for each in _panels(name, tree, names)]
    if montage is None:
        sheets = [range(index, index + 1) for index in range(len(ids))]
        stems, portion = file_names(ids), shard_of(first)
    else:
        check_count(_WHERE, "montage", montage)
        starts = range(0, len(ids), montage)
        sheets = [range(start, min(start + montage, len(ids))) for start in starts]
        width, portion = max(2, len(str(len(sheets) - 1))), 1
        stems = [f"montage-{number:0{width}d}" for number in range(len(sheets))]
    files = [[f"{stem}.{form}"] for stem in stems]
    made_by = {"what": "ifa: maps as pictures", "form": form, "montage": montage, "dpi": dpi}
    made_by |= {"maps": {name: identity_of(tree) for name, tree in trees.items()}}
    made_by |= {"names": names, "ids": ids}
    if denormalize is None:
        denormalize = normalization_of(data)
    look = Look(channels, denormalize, window, gray)
    made_by |= {"look": _written(look)}
    make = partial(
        _pictures, files=files, sheets=sheets, tree=first, found=found, data=data, names=names,
        look=look, draw=card if montage is None else sheet, form=form, dpi=dpi,
    )  # fmt: skip
    return Export(_WHERE, Path(folder), made_by, files, form).write(make, portion, progress)


def _written(look: Look) -> dict[str, Any]:
    """Write how inputs are drawn as JSON."""
    given = look.denormalize
    if callable(given):
        back: Any = describe(given)
    else:
        back = given and [np.asarray(one, float).tolist() for one in given]
    shown = look.channels if isinstance(look.channels, str) else np.asarray(look.channels).tolist()
    return {**look._asdict(), "channels": shown, "denormalize": back}


def _named(target: Any, names: Sequence[str] | None) -> str:
    """Write a class by its name, and a value as a number."""
    if np.ndim(target):
        return ", ".join(_named(one, names) for one in target)
    if float(target) != int(target) or not isinstance(target, int | np.integer):
        return f"{float(target):.4g}"
    if target < 0:  # of what is scored, where the score found nothing
        return "nothing"
    return str(names[int(target)]) if names and 0 <= target < len(names) else str(target)


def _flagged(flags: Any, names: Sequence[str] | None) -> str:
    """Write labels of 0 or 1 by the names of those that are there."""
    if not np.ndim(flags):
        return str(flags) if not names else names[0] if flags else f"not {names[0]}"
    return ", ".join(_named(one, names) for one in np.flatnonzero(flags)) or "none"


def _panels(method: str, tree: Any, names: Sequence[str] | None) -> list[tuple[Panel, Any]]:
    """List what is drawn of each sample, and the maps of all, which are not read yet."""
    found = []
    for layer in tree.attrs["layers"]:
        values, shades = tree[layer]["map"], _shades(tree, layer)
        some = {dim: range(values.sizes[dim]) for dim in ("target", "block") if dim in values.dims}
        for places in product(*some.values()):
            pick = dict(zip(some, places, strict=True))
            title = [method, layer]
            if "target" in pick:
                title.append(f"for {_named(tree['target'].values[pick['target']], names)}")
            title += [f"block {pick['block']}"] if "block" in pick else []
            found.append((Panel(", ".join(filter(None, title)), shades), values.isel(pick)))
    return found


def _shades(tree: Any, layer: str) -> Shades:
    attrs, unit = tree[layer].attrs, tree["score"].attrs.get("units", "score")
    ends = ends_of(attrs)
    if ends is not None:
        return on_scale(ends, unit)
    values, size = tree[layer]["map"], shard_of(tree)
    most = 0.0
    for start in range(0, values.sizes["sample"], size):
        some = np.abs(values.isel(sample=slice(start, start + size)).values)
        most = max(most, float(some.max(initial=0.0, where=np.isfinite(some))))
    return Shades(0.0, most or 1.0, not attrs["rectified"], f"map ({unit})")


def _pictures(
    places: range,
    wanted: Sequence[str],
    *,
    files: list[list[str]],
    sheets: list[range],
    tree: Any,
    found: list[tuple[Panel, Any]],
    data: Any,
    names: Sequence[str] | None,
    look: Look,
    draw: Any,
    form: Literal["png", "svg", "pdf"],
    dpi: int,
) -> Iterator[tuple[str, bytes]]:
    """Draw sheets; the maps of all of them are read at once."""
    of = range(sheets[places.start].start, sheets[places.stop - 1].stop)
    panels = [panel for panel, _ in found]
    values = [maps.isel(sample=slice(of.start, of.stop)).values for _, maps in found]
    for place in places:
        (name,) = files[place]
        if name not in wanted:
            continue
        drawn = [
            _sample(
                *(tree, data, index, [one[index - of.start] for one in values], panels, names, look)
            )
            for index in sheets[place]
        ]
        yield name, content_of(draw(drawn, panels), form, dpi)


def _sample(
    tree: Any,
    data: Any,
    index: int,
    maps: list[np.ndarray],
    panels: list[Panel],
    names: Sequence[str] | None,
    look: Look,
) -> Drawn:
    """Read a sample, and say what is known of it."""
    batch = collate(_WHERE, data, range(index, index + 1))
    check_id(_WHERE, index, tree["id"].values[index], batch.ids[0])
    grid_of = json.loads(tree.attrs["spec"]).get("grid_of")
    grid_of = grid_of if isinstance(grid_of, str | int) else None
    inputs = at(batch.inputs, grid_place(_WHERE, batch.inputs, grid_of))[0]
    lines = [str(batch.ids[0]), *_words(tree, index, names)]
    return drawn_of(_WHERE, inputs, maps, panels, lines, look, _geometry(data, index))


def _geometry(data: Any, index: int) -> Any:
    """Return the geometry of a sample, where the data have one."""
    if not hasattr(data, "geometry"):
        return None
    try:
        return data.geometry(index)
    except TypeError:  # pictures, or arrays
        return None


def _words(tree: Any, index: int, names: Sequence[str] | None) -> list[str]:
    """Say what was predicted, with its score, and what was expected."""
    unit = tree["score"].attrs.get("units", "score")
    predicted = tree["prediction"].values[index]
    score, target = tree["score"].isel(sample=index).values, tree["target"].values
    flags = json.loads(tree.attrs["spec"])["task"] in FLAGS
    written = _flagged if flags else _named
    words = [f"predicted: {written(predicted, names)}"]
    explained = target if target.ndim and score.ndim else [target[index]]
    scores = dict(zip(map(int, explained), np.atleast_1d(score).tolist(), strict=True))
    one_of = predicted.ndim == 0 and isinstance(predicted, np.integer) and not flags
    if one_of and int(predicted) in scores:
        words[0] += f" ({scores.pop(int(predicted)):.3g} {unit})"
        if score.ndim == 0:
            scores = {}
    words.append(f"expected: {written(tree['label'].values[index], names)}")
    return words + [
        f"for {_named(one, names)}: {value:.3g} {unit}" for one, value in [*scores.items()][:4]
    ]
