"""Maps on disk: labelled, raw and signed, with what they were made from."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor

from ifa.store.files import build_atomically
from ifa.store.trees import write_tree
from ifa.types import SPACE


def save_maps(
    path: str | os.PathLike[str],
    maps: Tensor,
    *,
    ids: Sequence[str],
    target: Tensor,
    units: str = "score",
    attrs: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    r"""Write maps of several samples as a labelled Zarr store, which must not be there yet.

    Parameters
    ----------
    path
        Directory to make.
    maps : (sample, \*space) or (target, sample, \*space)
        As a chain returns them; one to three axes of space, named t, y x, or z y x.
    ids : (sample,)
        Identity of each sample.
    target : (sample,) or (target, sample)
        The explained output.
    units
        What the maps are measured in.
    attrs
        How they were made: anything JSON can hold.

    Returns
    -------
    xarray.Dataset
        What was written: ``map``, ``target`` and ``id``.

    Raises
    ------
    FileExistsError
        If there is something already; it is left alone.

    Examples
    --------
    >>> import tempfile, torch
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     maps = save_maps(
    ...         folder + "/m.zarr", torch.ones(1, 4), ids=["a"], target=torch.tensor([3])
    ...     )
    >>> maps["map"].dims
    ('sample', 't')
    """
    home = Path(path)
    if home.exists():
        raise FileExistsError(
            f"ifa.store.save_maps: expected nothing at {home}. Nothing was touched."
        )
    lead = ("sample",) if target.ndim == 1 else ("explained", "sample")
    if maps.shape[: len(lead)] != target.shape or maps.ndim - len(lead) not in SPACE:
        raise ValueError(
            "ifa.store.save_maps: expected maps (sample, *space) or (target, sample, *space), with "
            f"1 to 3 axes of space, got {tuple(maps.shape)} and targets {tuple(target.shape)}."
        )
    dims = (*lead, *SPACE[maps.ndim - len(lead)])
    dataset = xr.Dataset(
        {
            "map": (dims, maps.numpy(force=True), {"long_name": "map", "units": units}),
            "target": (lead, target.numpy(force=True), {"long_name": "explained output"}),
            "id": (
                "sample",
                np.array(list(ids), dtype=object),
                {"long_name": "identity of the sample"},
            ),
        },
        attrs={"title": "ifa: maps", "made_by": json.dumps(dict(attrs or {}), sort_keys=True)},
    )
    build_atomically(home, lambda temporary: write_tree(xr.DataTree(dataset), temporary))
    return dataset
