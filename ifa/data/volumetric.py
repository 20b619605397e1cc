"""Volumes of NIfTI, with their geometry."""

import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ifa.data.folders import found_in
from ifa.data.labels import Task, check_ids, grouped, labelled
from ifa.data.listed import is_path, rows_of, written
from ifa.data.reading import VOLUMES, Decoder, Files, Spacing, absolute, is_kind, needed
from ifa.data.samples import Samples


@dataclass(frozen=True, eq=False)
class Geometry:
    """Where the voxels of a volume lie.

    Parameters
    ----------
    affine : (4, 4)
        From an index (x, y, z), which is NIfTI's order and the reverse of ours, to millimetres: a
        map (z, y, x) is written as ``nibabel.Nifti1Image(map.T, affine)``.
    shape
        Extents (z, y, x) of the input.
    spacing
        Millimetres between voxels (z, y, x).
    orientation
        Where x, y and z go, such as ``"RAS"``.
    file_affine, file_shape : (4, 4), (z, y, x)
        Those of the file, where it was turned or resampled.
    """

    affine: np.ndarray
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    orientation: str
    file_affine: np.ndarray
    file_shape: tuple[int, int, int]


def volumes(
    source: Any,
    labels: Any = None,
    *,
    orient: str | None = "RAS",
    spacing: Spacing = None,
    names: Sequence[str] | None = None,
    prepare: Callable[[Any], Any] | None = None,
    root: str | os.PathLike[str] | None = None,
    path: str = "path",
    label: str | Sequence[str] | None = "label",
    id: str | None = None,
    ids: Sequence[str] | None = None,
    groups: Any = None,
    cluster: Any = None,
    task: Task | None = None,
) -> Samples:
    """Take volumes of NIfTI: from a list, a folder of class folders, or a table.

    Parameters
    ----------
    source
        Paths; or a folder, as of `folder`; or a CSV, TSV or data frame, as of `table`.
    labels
        Of a list: one for each. Of a folder: by path, as of `folder`. Of a table: its column.
    orient
        Where x, y and z go: volumes are turned so, by axes and without resampling. None leaves each
        as its file has it, whatever the others'.
    spacing
        Millimetres between voxels, for all axes or (z, y, x): volumes are interpolated linearly to
        it, over the same field of view. None leaves them.
    names
        The classes in the order of the network's outputs, as of `folder` and `table`.
    prepare
        What makes an input of the tensor (channel, z, y, x), instead of the tensor itself.
    root
        Where relative paths of a list or a table start.
    path, label, id
        Columns of a table.
    ids
        Of a list: one for each; by default the paths.
    groups, cluster
        Of a list or a folder: one for each. Of a table: its column. What samples share a cluster,
        such as a patient, belong together, as of `table`.
    task
        As of `table`.

    Returns
    -------
    Samples
        Inputs (channel, z, y, x) float32: one channel, or those of the file's fourth axis. Values
        are the file's, by its slope and intercept. `Samples.geometry` says where voxels lie.

    Raises
    ------
    ValueError
        If an option or a label is not as above, or, when it is read, a file is no such volume.
    FileNotFoundError
        If files are missing.
    ImportError
        If nibabel is missing.
    """
    where = "ifa.data.volumes"
    needed(where, "nibabel", "volumes")
    _check_options(where, orient, spacing)
    if is_path(source) and is_kind(source, VOLUMES):
        raise ValueError(
            f"{where}: expected a list of volumes, got one, {os.fspath(source)!r}. Give [path]."
        )
    tables = hasattr(source, "columns") or (is_path(source) and os.path.isfile(source))
    if tables:
        if labels is not None or ids is not None:
            raise ValueError(
                f"{where}: expected labels and ids of a table in its columns, got them beside it. "
                "Name the columns: label=, id=."
            )
        rows = rows_of(where, source, VOLUMES, root, path, label, id, groups, cluster, names, task)
        paths, home, fields, notes = rows.paths, rows.root, rows.fields, ()
    else:
        paths, home, fields, notes = _files(where, source, labels, root, ids, names, task)
        for name, what, values in (("groups", "group", groups), ("cluster", "cluster", cluster)):
            fields[name] = grouped(where, values, len(paths), what)
    return Samples(
        source=written(where, source),
        count=len(paths),
        read=Files(paths, home, Decoder(where, None, orient, spacing)),
        plain=_as_it_is,
        rule=_rule(orient, spacing),
        prepare=prepare,
        notes=notes,
        **fields,
    )


class Header(NamedTuple):
    """A volume whose values were not read."""

    image: Any
    turn: np.ndarray  # of nibabel's orientations: how the file's axes go to those of the input
    geometry: Geometry
    ratio: np.ndarray  # new over old spacing, z y x


def read_volume(where: str, orient: str | None, spacing: Spacing, path: str) -> Tensor:
    """Read a volume: (channel, z, y, x) float32."""
    header = opened(where, orient, spacing, path)
    from nibabel.orientations import apply_orientation

    try:
        values = np.asarray(header.image.dataobj, dtype=np.float32)
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise _unreadable(where, path, error) from error
    # NIfTI's axes are x y z channel; ours are channel z y x
    turned = apply_orientation(values, header.turn).T
    turned = turned[None] if turned.ndim == 3 else turned
    if spacing is not None:
        turned = np.stack([_resampled(channel, header) for channel in turned])
    return torch.from_numpy(np.array(turned, dtype=np.float32, order="C"))


def opened(where: str, orient: str | None, spacing: Spacing, path: str) -> Header:
    """Read a header, and where voxels will lie."""
    nibabel = needed(where, "nibabel", path)
    from nibabel import orientations

    try:
        image: Any = nibabel.load(path)
        stored = orientations.io_orientation(image.affine)
        shape = image.shape
    except Exception as error:  # nibabel's own, of many kinds
        raise _unreadable(where, path, error) from error
    if len(shape) not in (3, 4) or np.isnan(stored).any():
        raise ValueError(
            f"{where}: expected a volume of three axes, or four with channels last, got "
            f"{tuple(shape)} with affine {image.affine.tolist()} in {path}."
        )
    goal = stored if orient is None else orientations.axcodes2ornt(tuple(orient))
    turn = orientations.ornt_transform(stored, goal)
    affine = image.affine @ orientations.inv_ornt_aff(turn, shape[:3])
    extents = np.array(shape[:3])[np.argsort(turn[:, 0])]
    affine, extents, ratio = _spaced(affine, extents, spacing)
    return Header(image, turn, _geometry(image, affine, extents), ratio)


def _geometry(image: Any, affine: np.ndarray, extents: np.ndarray) -> Geometry:
    from nibabel.orientations import aff2axcodes

    z, y, x = extents[::-1].tolist()
    far, near, across = np.linalg.norm(affine[:3, :3], axis=0)[::-1].tolist()
    i, j, k = image.shape[:3]
    return Geometry(
        affine=affine,
        shape=(z, y, x),
        spacing=(far, near, across),
        orientation="".join(map(str, aff2axcodes(affine))),
        file_affine=np.array(image.affine, dtype=np.float64),
        file_shape=(k, j, i),
    )


def _spaced(
    affine: np.ndarray, extents: np.ndarray, spacing: Spacing
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cover the same field of view by voxels of another size."""
    if spacing is None:
        return np.array(affine, dtype=np.float64), extents, np.ones(3)
    wanted = np.broadcast_to(np.asarray(spacing, dtype=np.float64), 3)[::-1]
    ratio = wanted / np.linalg.norm(affine[:3, :3], axis=0)
    step = np.diag([*ratio, 1.0])
    step[:3, 3] = (ratio - 1) / 2  # edges stay where they are, and so centres move
    return affine @ step, np.maximum(1, np.rint(extents / ratio).astype(int)), ratio[::-1]


def _resampled(values: np.ndarray, header: Header) -> np.ndarray:
    """Interpolate (z, y, x) linearly; beyond the outermost centres values stay as there."""
    from scipy.ndimage import affine_transform

    ratio, shape = header.ratio, header.geometry.shape
    offset: Any = (ratio - 1) / 2
    return affine_transform(values, ratio, offset, output_shape=shape, order=1, mode="nearest")


def _files(
    where: str,
    source: Any,
    labels: Any,
    root: str | os.PathLike[str] | None,
    ids: Sequence[str] | None,
    names: Sequence[str] | None,
    task: Task | None,
) -> tuple[tuple[str, ...], str, dict[str, Any], tuple[str, ...]]:
    """Find the files of a folder, or take those of a list."""
    notes: tuple[str, ...] = ()
    if is_path(source):
        if labels is not None and not isinstance(labels, Mapping):
            raise TypeError(
                f"{where}: expected labels of a folder by path, such as {{'a.nii.gz': 0}}, got "
                f"{type(labels).__name__}. Or list the paths, with labels in their order."
            )
        found = found_in(where, source, VOLUMES, names, labels, "volumes")
        paths, labels, notes, root = found.paths, found.labels, found.notes, source
    elif isinstance(source, Sequence) and all(map(is_path, source)):
        paths = tuple(map(os.fspath, source))
    else:
        raise TypeError(
            f"{where}: expected a list of paths, a folder, a CSV or TSV file or a data frame, got "
            f"{type(source).__name__}. For arrays use ifa.data.arrays."
        )
    named = paths if ids is None else tuple(map(str, ids))
    if not paths or len(named) != len(paths):
        raise ValueError(f"{where}: expected paths, and an id for each, got {len(paths)} paths.")
    check_ids(where, named, "Give ids=.")
    for one in paths:
        if not is_kind(one, VOLUMES) or not os.path.isfile(os.path.join(root or "", one)):
            raise FileNotFoundError(f"{where}: expected NIfTI files, got no such file {one!r}.")
    values, classes = labelled(where, labels, named, names=names, task=task)
    fields = {"labels": values, "ids": named, "names": classes}
    return paths, absolute(root or ""), fields, notes


def _check_options(where: str, orient: str | None, spacing: Spacing) -> None:
    axes = [set("RL"), set("AP"), set("SI")]
    letters = [letter for letter in orient or "RAS" if isinstance(letter, str)]
    used = [next((i for i, pair in enumerate(axes) if letter in pair), -1) for letter in letters]
    if sorted(used) != [0, 1, 2]:
        raise ValueError(
            f"{where}: expected orient to name where x, y and z go, such as 'RAS', got {orient!r}."
        )
    sizes = np.asarray(1.0 if spacing is None else spacing, dtype=np.float64)
    if sizes.shape not in ((), (3,)) or not (np.isfinite(sizes) & (sizes > 0)).all():
        raise ValueError(
            f"{where}: expected spacing to be millimetres above 0, one or (z, y, x), got "
            f"{spacing!r}."
        )


def _rule(orient: str | None, spacing: Spacing) -> str:
    turned = "as stored" if orient is None else orient
    spaced = "" if spacing is None else f", {spacing} mm"
    return f"volumes, {turned}{spaced}, float32 of the file's values, (channel, z, y, x)"


def _unreadable(where: str, path: str, error: Exception) -> ValueError:
    return ValueError(
        f"{where}: expected a volume that can be read, got {path}: {error}. Mend it, or leave it "
        "out."
    )


def _as_it_is(values: Tensor) -> Tensor:
    return values
