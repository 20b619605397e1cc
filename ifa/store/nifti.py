"""Maps of volumes as NIfTI, where the volumes lie."""

import gzip
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch.utils.data import Subset

from ifa.checks import check_choice
from ifa.network.identity import read_origin
from ifa.progress import Progress
from ifa.store.exports import (
    Export,
    check_ids,
    ends_of,
    file_names,
    identity_of,
    maps_of,
    shard_of,
)

_WHERE = "ifa.store.write_nifti"


def write_nifti(
    run: Any,
    data: Any,
    folder: str | os.PathLike[str],
    *,
    grid: Literal["file", "input"] = "file",
    progress: Progress = True,
) -> list[Path]:
    r"""Write the maps of volumes as NIfTI, one file for each sample, to be laid over the volumes.

    Memory holds the maps of one shard. A call that is killed continues when it is made again: files
    that are there are kept. ``made_by.json`` in the folder says of which maps they are, and which
    file is which sample's.

    Parameters
    ----------
    run
        What `ifa.maps` returned, or the folder of its run; maps of the size of the inputs.
    data
        The data that they are of, which know where voxels lie: `ifa.data.volumes`, a Subset of it,
        or whatever else has ``geometry(index)`` -> `ifa.data.Geometry`.
    folder
        Where to write: new, empty, or begun with the same maps.
    grid
        ``"file"``: the grid and the affine of the sample's own file, also where it was turned or
        resampled when it was read; of volumes that were only turned the values are the same.
        ``"input"``: that of the network's input.
    progress
        Whether to draw a bar, or a function of ``(done, total)``.

    Returns
    -------
    list of pathlib.Path
        The files, float32, in millimetres; of several layers or targets one for each, named so.
        Maps of blocks are the fourth axis. The header's ``descrip`` says the unit and the limits of
        the scale, and ``cal_max`` where the scale ends, as viewers take it.

    Raises
    ------
    ValueError
        If the folder holds anything else, or maps and data are not of one another.
    TypeError
        If the data have no geometry.
    ImportError
        If nibabel is missing.
    """
    from ifa.data.reading import needed

    check_choice(_WHERE, "grid", grid, ("file", "input"))
    tree = maps_of(_WHERE, run)
    needed(_WHERE, "nibabel", "volumes")
    where_voxels_lie(data, 0)
    panels = _panels(tree)
    check_ids(_WHERE, tree, data)
    ids = tree["id"].values.tolist()
    names = [[f"{name}{each}.nii.gz" for each in panels] for name in file_names(ids)]
    made_by = {"what": "ifa: maps as NIfTI", "maps": identity_of(tree), "grid": grid, "ids": ids}
    export = Export(_WHERE, Path(folder), made_by, names, "nifti")
    make = partial(_made, tree=tree, data=data, names=names, panels=panels, grid=grid)
    return export.write(make, shard_of(tree), progress)


def where_voxels_lie(data: Any, index: int) -> Any:
    """Return the geometry of a sample's input."""
    if isinstance(data, Subset):
        return where_voxels_lie(data.dataset, data.indices[index])
    if not hasattr(data, "geometry"):
        raise TypeError(
            f"{_WHERE}: expected data that know where voxels lie, got {type(data).__name__}. Make "
            "them with ifa.data.volumes, or give them geometry(index) -> ifa.data.Geometry."
        )
    return data.geometry(index)


def _panels(tree: Any) -> dict[str, tuple[str, int | None]]:
    """List the maps of a sample: what their files' names end with, and layer and row of target."""
    layers = tree.attrs["layers"]
    found = {}
    for layer in layers:
        values = tree[layer]["map"]
        name = f".{layer}" if len(layers) > 1 else ""
        if values.ndim - ("block" in values.dims) - ("target" in values.dims) != 4:
            raise ValueError(
                f"{_WHERE}: expected maps of volumes, (sample, z, y, x), got {values.dims}. For "
                "images and signals use ifa.plot.write_overlays."
            )
        if "target" not in values.dims:
            found[name] = layer, None
            continue
        for row, target in enumerate(tree["target"].values.tolist()):
            found[f"{name}.target-{target}"] = layer, row
    return found


def _made(
    samples: range,
    wanted: Sequence[str],
    *,
    tree: Any,
    data: Any,
    names: list[list[str]],
    panels: dict[str, tuple[str, int | None]],
    grid: str,
) -> Iterator[tuple[str, bytes]]:
    of = slice(samples.start, samples.stop)
    for place, (layer, row) in enumerate(panels.values()):
        if not {names[index][place] for index in samples} & {*wanted}:
            continue
        values = tree[layer]["map"].isel({"sample": of} | ({} if row is None else {"target": row}))
        values = values.values  # of one shard, read at once
        for index, one in zip(samples, values, strict=True):
            name = names[index][place]
            if name in wanted:
                geometry = where_voxels_lie(data, index)
                yield name, _file(one, geometry, grid, *_said(tree, layer, index, row))


def _said(
    tree: Any, layer: str, index: int, row: int | None
) -> tuple[str, tuple[float, float] | None]:
    """Describe a map in 79 letters of ASCII; return where its scale begins and ends, too."""
    attrs, unit = tree[layer].attrs, tree["score"].attrs.get("units", "score")
    weighting = read_origin(attrs["origin"]).names[1]
    ends = ends_of(attrs)
    if ends is None:
        return _short(f"ifa map, unit {unit}; {weighting} of {layer}"), None
    target = tree["target"].values[index if row is None else row]
    place = int(target) if len(ends.low) > 1 else 0
    limits = f"{ends.low[place]:.4g}..{ends.high[place]:.4g}"
    scale = f"{ends.at[0]:g}..{ends.at[1]:g} = {limits} {unit}"
    return _short(f"ifa map, {scale}; {weighting} of {layer}"), ends.at


def _short(text: str) -> str:
    return text.encode("ascii", "replace").decode()[:79]


def _file(
    values: np.ndarray,
    geometry: Any,
    grid: str,
    said: str,
    ends: tuple[float, float] | None,
) -> bytes:
    """Make a file of a map (z, y, x), or (block, z, y, x)."""
    import nibabel

    if values.shape[-3:] != tuple(geometry.shape):
        raise ValueError(
            f"{_WHERE}: expected maps of the inputs' size, {tuple(geometry.shape)}, as voxels lie, "
            f"got {values.shape[-3:]}. Make maps with size='input', of data whose prepare= "
            "leaves the grid."
        )
    blocks = values.reshape(-1, *values.shape[-3:])
    if grid == "file":
        blocks = np.stack([_on_the_files_grid(block, geometry) for block in blocks])
    affine = geometry.file_affine if grid == "file" else geometry.affine
    stored = blocks[0].T if values.ndim == 3 else blocks.T
    image = nibabel.Nifti1Image(np.ascontiguousarray(stored, dtype=np.float32), affine)
    image.set_qform(affine, code=2)  # some viewers read this one only; sheared grids have none
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = said.encode()
    if ends is not None:
        image.header["cal_min"], image.header["cal_max"] = 0.0, ends[1]
    return gzip.compress(image.to_bytes(), 6, mtime=0)  # without the time: the same bits again


def _on_the_files_grid(values: np.ndarray, geometry: Any) -> np.ndarray:
    """Bring (z, y, x) back to the grid of its file, linearly where it was resampled."""
    from scipy.ndimage import affine_transform

    matrix = np.linalg.inv(geometry.affine) @ geometry.file_affine  # of indices x y z
    whole = np.rint(matrix)
    turned = bool(np.abs(matrix - whole).max() < 1e-3)  # a header holds float32
    matrix = whole if turned else matrix
    shape: Any = geometry.file_shape[::-1]
    back = affine_transform(
        values.T.astype(np.float32),
        matrix[:3, :3],
        matrix[:3, 3],
        output_shape=shape,
        order=0 if turned else 1,
        mode="nearest",
    )
    return back.T
