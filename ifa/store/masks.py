"""Selections on disk: labeled masks, with what they were selected from and how."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ifa.chains import describe
from ifa.store.files import build_atomically
from ifa.store.trees import write_tree


def save_mask(
    path: str | os.PathLike[str],
    mask: Any,
    *,
    rule: Any,
    attrs: Mapping[str, Any] | None = None,
) -> xr.DataArray:
    """Write a mask of channels as a labeled Zarr store, which must not be there yet.

    Parameters
    ----------
    path
        Directory to make.
    mask : (channel,) or (target, channel)
        What a rule of `ifa.select` returned. Of a labeled one the labels are kept: `ifa.keep`
        finds the row of each target by them, also where only some were analyzed.
    rule
        The rule with its options, such as ``functools.partial(ifa.select.largest, ratio=0.25)``, or
        words that say what was done.
    attrs
        More of where it comes from, such as the run: anything JSON can hold.

    Returns
    -------
    xarray.DataArray
        What was written, boolean.

    Raises
    ------
    FileExistsError
        If there is something already; it is left alone.
    ValueError
        If the mask has another shape than these.

    Examples
    --------
    >>> import ifa, tempfile
    >>> from functools import partial
    >>> rule = partial(ifa.select.largest, ratio=0.5)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = save_mask(folder + "/mask.zarr", rule([3.0, 1.0]), rule=rule)
    ...     mask = open_mask(folder + "/mask.zarr")
    >>> mask.values.tolist(), mask.attrs["rule"]
    ([True, False], 'largest(ratio=0.5)')
    """
    home = Path(path)
    if home.exists():
        raise FileExistsError(
            f"ifa.store.save_mask: expected nothing at {home}. Nothing was touched."
        )
    values = np.asarray(mask).astype(bool)
    if values.ndim not in (1, 2):
        raise ValueError(
            "ifa.store.save_mask: expected a mask (channel,) or (target, channel), got "
            f"{values.shape}. Make one with ifa.select."
        )
    array = xr.DataArray(
        values,
        getattr(mask, "coords", None),
        getattr(mask, "dims", ("target", "channel")[-values.ndim :]),
        name="mask",
        attrs={
            "long_name": "channels that are kept",
            "rule": rule if isinstance(rule, str) else describe(rule),
            "made_by": json.dumps(dict(attrs or {}), sort_keys=True),
        },
    )
    tree = xr.DataTree(array.to_dataset().assign_attrs(title="ifa: a selection of channels"))
    build_atomically(home, lambda temporary: write_tree(tree, temporary))
    return array


def open_mask(path: str | os.PathLike[str]) -> xr.DataArray:
    """Open a mask that `save_mask` wrote, for `ifa.keep`.

    Parameters
    ----------
    path
        Its directory.

    Returns
    -------
    xarray.DataArray
        (channel,) or (target, channel), boolean, in memory; its attributes say where it comes from.

    Raises
    ------
    ValueError
        If there is no mask.
    """
    if not (Path(path) / "mask").exists():
        raise ValueError(
            f"ifa.store.open_mask: expected a mask made by ifa.store.save_mask at {path}, got none."
        )
    return xr.open_zarr(path, chunks=None, zarr_format=3)["mask"].load()
