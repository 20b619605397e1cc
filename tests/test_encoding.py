"""What is written without zarr is what zarr and xarray write, byte for byte."""

import warnings

import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.codecs import ZstdCodec

from ifa.store.tables import Column, filled, laid_out
from ifa.store.trees import in_memory, read_tree, tree_files

CHECKED = ZstdCodec(level=3, checksum=True)


def files_of(folder):
    every = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in every}


def consolidated(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(folder, zarr_format=3)
    return files_of(folder)


def by_xarray(tree, folder):
    encoding = {
        node.path: {
            str(name): {"compressors": [CHECKED], "chunks": variable.shape, "_FillValue": None}
            | ({"fill_value": float("nan")} if variable.dtype.kind == "f" else {})
            for name, variable in node.to_dataset(inherit=False).variables.items()
        }
        for node in tree.subtree
    }
    options = {"zarr_format": 3, "consolidated": False, "write_empty_chunks": True}
    tree.to_zarr(folder, mode="w-", encoding=encoding, **options)
    return consolidated(folder)


def test_a_tree_has_the_bytes_that_xarray_writes(tmp_path):
    layer = xr.Dataset(
        {
            "importance": (("target", "channel"), np.arange(6.0).reshape(2, 3), {"units": "é"}),
            "count": ("target", np.array([1, 2])),
            "finite": ("target", np.array([True, False])),
            "narrow": (("target", "channel"), np.asfortranarray(np.ones((2, 3), np.float32))),
            "short": ("target", np.array([3, 4], dtype=np.int16)),
            "alone": ((), np.float64(np.nan)),
        },
        coords={
            "target": np.array([0, 1]),
            "target_name": ("target", np.array(["é", "b"], dtype=object)),
            "elsewhere": ("other", np.array(["x"], dtype=object)),
        },
        attrs={"origin": "o", "levels": [0.5, 1.0], "number": np.float64(2)},
    )
    root = xr.Dataset(attrs={"title": "a tree", "layers": ["a.b"], "nested": {"one": [1]}})
    tree = xr.DataTree.from_dict({"/": root, "a.b": layer, "deep/er": layer[["count"]]})
    found = tree_files(tree)
    expected = by_xarray(tree, tmp_path / "run")
    assert found.keys() == expected.keys()
    assert {name: found[name] for name in found if found[name] != expected[name]} == {}
    xr.testing.assert_identical(read_tree(in_memory(found)).load(), tree)


def test_a_table_has_the_bytes_that_zarr_writes(tmp_path):
    schema = {
        "": {
            "id": Column(("sample",), (5,), "str", "identity"),
            "score": Column(("target", "sample"), (2, 5), "<f8", "score", "logit"),
        },
        "conv": {
            "finite": Column(("sample",), (5,), "|b1", "finite"),
            "importance": Column(("sample", "channel"), (5, 3), "<f4", "importance"),
            "label": Column(("sample",), (5,), "<i8", "label"),
        },
    }
    rows = {
        "": {"id": np.array(["a", "é"], dtype=object), "score": np.arange(4.0).reshape(2, 2)},
        "conv": {
            "finite": np.array([True, False]),
            "importance": np.ones((2, 3)),  # cast to what the column is
            "label": np.array([7, 0]),
        },
    }
    names = {"target": np.array([3, 4]), "target_name": np.array(["p", "q"], dtype=object)}
    found = laid_out(schema, names, 3, {"title": "samples"})
    found |= dict(filled(found["zarr.json"], schema, rows, 1, 3))  # the last shard, of two
    folder = tmp_path / "samples.zarr"
    for path, columns in schema.items():
        group = zarr.open_group(folder, mode="a", path=path, zarr_format=3)
        if not path:
            group.attrs.update({"title": "samples"})
        for name, column in columns.items():
            written(group, name, column, 3, rows[path][name], slice(3, 5))
        if not path:  # only its columns have targets
            for name, values in names.items():
                kind = "str" if values.dtype == object else values.dtype.str
                column = Column(("target",), (2,), kind, name.replace("_", " "))
                written(group, name, column, 2, values, slice(None))
            group.attrs["coordinates"] = "target_name"
    expected = consolidated(folder)
    assert found.keys() == expected.keys()
    assert {name: found[name] for name in found if found[name] != expected[name]} == {}


def written(group, name, column, size, values, span):
    pairs = zip(column.dims, column.shape, strict=True)
    fill = {"f": np.nan, "i": -1, "b": False}.get(np.dtype(column.dtype).kind, "")
    array = group.create_array(
        name,
        shape=column.shape,
        chunks=tuple(size if dim == "sample" else extent for dim, extent in pairs),
        dtype=str if column.dtype == "str" else column.dtype,
        compressors=CHECKED,
        fill_value=fill,
        dimension_names=column.dims,
        attributes={"long_name": column.long_name, "units": column.units},
    ).with_config({"write_empty_chunks": True})
    axis = next((axis for axis, dim in enumerate(column.dims) if dim == "sample"), 0)
    array[(slice(None),) * axis + (span,)] = values


def test_a_variable_without_any_value_is_written():
    tree = xr.DataTree(xr.Dataset({"empty": (("none", "target"), np.zeros((0, 2)))}))
    xr.testing.assert_identical(read_tree(in_memory(tree_files(tree))).load(), tree)


def test_what_zarr_has_no_common_type_for_is_refused():
    with pytest.raises(TypeError, match=r"ifa\.store: expected numbers, booleans or text"):
        tree_files(xr.DataTree(xr.Dataset({"when": ("t", np.array([1 + 1j]))})))
