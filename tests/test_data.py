"""Data sets of `ifa.data`: what all of them keep, each source end to end, and errors by name."""

import dataclasses
import pickle
import re
import runpy
import sys
import textwrap
import warnings
from collections import UserDict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import nibabel
import numpy as np
import pandas
import pytest
import torch
import xarray as xr
import zarr
from PIL import Image
from skimage import data as pictures
from torch import nn

import ifa
from ifa.data import (
    arrays,
    folder,
    huggingface,
    keyed,
    read_inputs,
    signals,
    table,
    volumes,
)

QUIET = {"progress": False, "shard": 64}


def network(space, channels=1, outputs=2):
    """Build a tiny network of one, two or three axes."""
    torch.manual_seed(0)
    convolution = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[space]
    body = convolution(channels, 4, 3, padding=1), nn.ReLU(), nn.Flatten(2)
    return nn.Sequential(*body, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, outputs)).eval()


def analyzed(data, space, channels=1, outputs=2, **options):
    """Analyze data with a network that was not trained; return the table of samples."""
    statistics = ifa.analyze(network(space, channels, outputs), data, layer="0", **QUIET, **options)
    return statistics["samples"].to_dataset()


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.fixture
def crops(tmp_path):
    """Write crops of scikit-image's pictures, as class folders, beside what is no picture."""
    for name in ("coins", "page"):
        whole = getattr(pictures, name)()
        for index in range(4):
            home = tmp_path / name / ("more" if index == 3 else "")
            home.mkdir(parents=True, exist_ok=True)
            Image.fromarray(whole[9 * index :, 11 * index :][:10, :12]).save(home / f"{index}.png")
    (tmp_path / "coins" / "notes.txt").write_text("")
    (tmp_path / "coins" / "._1.png").write_text("")
    (tmp_path / ".hidden").mkdir()
    return tmp_path


def write_volume(path, values, affine=None):
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine), path)
    return str(path)


@pytest.fixture
def scans(tmp_path):
    """Write 40 simulated volumes of 8³, half with a lesion, and the table of them."""
    rows = []
    for index in range(40):
        values = noise(8, 8, 8, seed=index).astype(np.float32)
        values[2:4, 3:6, 4:7] += 3 * (index % 2)
        write_volume(tmp_path / f"{index}.nii.gz", values)
        rows.append((f"{index}.nii.gz", ("healthy", "lesion")[index % 2], f"site{index % 3}"))
    frame = pandas.DataFrame(rows, columns=["path", "label", "site"])
    frame.to_csv(tmp_path / "scans.csv", index=False)
    return tmp_path


def of_huggingface(**columns):
    datasets = pytest.importorskip("datasets")
    return datasets.Dataset.from_dict(columns)


def every_source(crops):
    """One of each, of eight samples."""
    grey = np.stack([noise(5, 6, seed=i) for i in range(8)])
    labels = ["a", "b"] * 4
    frame = pandas.DataFrame({"path": [f"{i}.npy" for i in range(8)], "label": labels})
    paths = [str(crops / f"{i}.npy") for i in range(8)]
    for path, one in zip(paths, grey, strict=True):
        np.save(path, one)
    scans = [write_volume(crops / f"{i}.nii", noise(4, 5, 6, seed=i)) for i in range(8)]
    items = [{"x": one, "y": label} for one, label in zip(grey, labels, strict=True)]
    return {
        "folder": folder(crops),
        "table": table(frame, root=crops),
        "volumes": volumes(scans, labels),
        "arrays": arrays(grey, labels),
        "signals": signals(grey, labels),
        "signals of files": signals(paths, labels),
        "keyed": keyed(items, "x", "y"),
        "huggingface": huggingface(of_huggingface(image=list(grey), label=labels)),
    }


def same(one, other):
    assert one[1:] == other[1:]
    torch.testing.assert_close(one[0], other[0], rtol=0, atol=0)


# What all of them keep


def test_all_are_sized_indexable_and_stop(crops):
    for name, data in every_source(crops).items():
        assert len(data) == len(list(data)) == 8, name
        same(data[-1], data[7])
        same(data[np.int64(2)], data[2])
        assert data.names == (("coins", "page") if name == "folder" else ("a", "b"))
        image, label, text = data[3]
        assert (image.dtype, type(label), type(text)) == (torch.float32, int, str), name
        assert label == data.labels[3]
        for wrong in (8, -9):
            with pytest.raises(IndexError, match=f"{re.escape(data.source)}.*below 8"):
                data[wrong]
        with pytest.raises(TypeError, match="Subset"):
            data[2:4]


def test_all_pickle_to_the_same_data(crops):
    for data in every_source(crops).values():
        again = pickle.loads(pickle.dumps(data))
        assert repr(again) == repr(data)
        assert again.ids == data.ids
        for one, other in zip(again, data, strict=True):
            same(one, other)


def test_paths_pickle_and_not_contents(crops, tmp_path):
    np.save(tmp_path / "large.npy", np.zeros((50, 1, 100, 100), dtype=np.float32))
    mapped = np.load(tmp_path / "large.npy", mmap_mode="r")
    for data in (arrays(mapped), folder(crops), every_source(crops)["volumes"]):
        assert len(pickle.dumps(data)) < 3000
    # a part has the offset of the whole: it is sent as it is
    part = arrays(np.load(tmp_path / "0.npy", mmap_mode="r")[2:], channels="first")
    same(pickle.loads(pickle.dumps(part))[0], part[0])
    again = pickle.loads(pickle.dumps(arrays(mapped)))
    assert isinstance(again.read.values, np.memmap)
    same(again[49], arrays(mapped)[49])


def test_eight_threads_read_the_same(crops):
    with ThreadPoolExecutor(8) as threads:
        for data in every_source(crops).values():
            for read in threads.map(lambda i, data=data: (i, data[i]), [*range(8)] * 8):
                same(read[1], data[read[0]])


def test_a_loader_reads_them_in_processes(crops):
    read = ifa.analyze(network(2, 3), folder(crops), layer="0", workers=1, **QUIET)
    here = ifa.analyze(network(2, 3), folder(crops), layer="0", workers=0, **QUIET)
    xr.testing.assert_identical(read["0"].to_dataset(), here["0"].to_dataset())


def test_inputs_are_copies():
    values = np.zeros((2, 3, 4), dtype=np.float32)
    for data in (arrays(values), arrays(torch.from_numpy(values)), signals(values)):
        data[0][0].fill_(7)
    assert not values.any()


def test_a_repr_says_classes_rule_and_what_was_skipped(crops):
    text = repr(folder(crops))
    assert text.startswith(f"ifa.data.folder({str(crops)!r}): 8 samples\n")
    assert "coins: 4, page: 4" in text
    assert "RGB pictures, float32 in 0 … 1, (channel, y, x)" in text
    assert "skipped: 1 that are no pictures, 1 hidden" in text
    assert "divided by 255" in repr(arrays(np.zeros((2, 4, 5), np.uint8)))
    assert "real values 0.5 … 2" in repr(arrays(np.zeros((2, 4, 5)), [0.5, 2.0]))
    assert "prepared by torch.nn.functional.relu" in repr(
        arrays(torch.zeros(2, 4, 5), prepare=nn.functional.relu)
    )


# The rule


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([0, 51, 255], np.uint8), [0, 0.2, 1]),
        (np.array([0, 13107, 65535], np.uint16), [0, 0.2, 1]),
        (np.array([-3, 0, 300], np.int16), [-3, 0, 300]),
        (np.array([False, True, True]), [0, 1, 1]),
        (np.array([-0.5, 0.1, 9.0]), [-0.5, 0.1, 9.0]),
        (np.array([-0.5, 0.25, 9.0], ">f4"), [-0.5, 0.25, 9.0]),
        (np.array([-0.5, 0.25, 9.0], np.float16), [-0.5, 0.25, 9.0]),
        (torch.tensor([0, 51, 255], dtype=torch.uint8), [0, 0.2, 1]),
        (torch.tensor([0.5, 0.25, 9.0], dtype=torch.bfloat16), [0.5, 0.25, 9.0]),
    ],
)
def test_numbers_become_float32_by_one_rule(values, expected):
    found = arrays(values[None, None, None])[0][0]
    torch.testing.assert_close(
        found, torch.tensor(expected, dtype=torch.float32)[None, None], rtol=1e-6, atol=0
    )


def test_channels_come_first():
    assert arrays(np.zeros((2, 5, 6)))[0][0].shape == (1, 5, 6)
    assert arrays(np.zeros((2, 3, 5, 6)))[0][0].shape == (3, 5, 6)
    assert arrays(np.zeros((2, 5, 6, 3)), channels="last")[0][0].shape == (3, 5, 6)
    assert arrays(np.zeros((2, 5, 6)), channels="first")[0][0].shape == (5, 6)
    assert signals(np.zeros((2, 9)))[0][0].shape == (1, 9)
    assert signals(np.zeros((2, 6, 9)))[0][0].shape == (6, 9)
    assert signals(np.zeros((2, 9, 6)), channels="last")[0][0].shape == (6, 9)
    named = xr.DataArray(np.zeros((2, 5, 6, 3)), dims=("sample", "y", "x", "channel"))
    assert arrays(named)[0][0].shape == (3, 5, 6)
    assert arrays(named[..., 0].expand_dims("z", 1))[0][0].shape == (1, 1, 5, 6)
    with pytest.raises(ValueError, match=r"expected channels before space.*channels='last'"):
        arrays(np.zeros((2, 5, 6, 3)))[0]


def test_pictures_of_sixteen_bits_are_not_clipped(tmp_path):
    pixels = np.array([[0, 300], [40000, 65535]], np.uint16)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = read_inputs([tmp_path / "a.png"])[0]
    np.testing.assert_allclose(image[0], pixels / 65535, rtol=1e-6)
    frame = pandas.DataFrame({"path": ["a.png"]})
    assert table(frame, root=tmp_path, label=None)[0][0].shape == (3, 2, 2)
    given = table(frame, root=tmp_path, label=None, prepare=np.asarray)[0][0]
    assert given.tolist() == pixels.tolist()


def test_modes(crops):
    assert folder(crops)[0][0].shape == (3, 10, 12)
    grey = folder(crops, mode="L")[0][0]
    assert grey.shape == (1, 10, 12)
    torch.testing.assert_close(grey, read_inputs([crops / "coins" / "0.png"])[0])


def test_labels_are_indices_by_names_or_stay_real():
    images = np.zeros((3, 4, 4))
    found = arrays(images, ["b", "a", "b"])
    assert (found.labels.tolist(), found.names) == ([1, 0, 1], ("a", "b"))
    found = arrays(images, ["b", "a", "b"], names=["b", "z", "a"])
    assert (found.labels.tolist(), found.names) == ([0, 2, 0], ("b", "z", "a"))
    for values in ([0, 1, 1], np.array([0, 1, 1], np.uint8), torch.tensor([0, 1, 1])):
        assert arrays(images, values).labels.tolist() == [0, 1, 1]
    assert type(arrays(images, [False, True, True])[1][1]) is int
    assert arrays(images, [0.0, 1.0, 2.0], task="classification").labels.dtype == np.int64
    real = arrays(images, pandas.Series([0.1, 1.0, -2.0]))
    assert real[2][1] == -2.0
    assert arrays(images, [3, -1, 2], task="regression")[1][1] == -1.0
    assert arrays(images, noise(3, 2))[0][1].shape == (2,)
    assert arrays(images)[0][1] is None


# prepare


def test_prepare_is_given_what_was_read_and_its_result_is_the_input(crops):
    given = []

    def keep(value):
        given.append(value)
        return torch.ones(1, 2, 2, dtype=torch.float64)

    def first(data):
        return data[0][0]

    sources = every_source(crops)
    for name in ("folder", "table", "volumes", "arrays", "huggingface"):
        assert first(replaced(sources[name], keep)).dtype == torch.float32
    kinds = [type(value).__name__ for value in given]
    assert kinds == ["Image", "ndarray", "Tensor", "ndarray", "ndarray"]
    assert given[0].mode == "RGB"
    assert given[2].shape == (1, 6, 5, 4)
    assert (
        first(replaced(sources["arrays"], lambda a: (a > 0).astype(np.int64))).dtype == torch.int64
    )
    small = first(folder(crops, prepare=partial(Image.Image.resize, size=(4, 3))))
    assert small.shape == (3, 3, 4)
    assert small.max() <= 1


def replaced(data, prepare):
    return dataclasses.replace(data, prepare=prepare)


@pytest.mark.deep  # for its import
def test_a_processor_of_transformers_prepares(crops):
    from transformers import ViTImageProcessor

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        processor = ViTImageProcessor(size={"height": 6, "width": 6})
        image = folder(crops, prepare=processor)[0][0]
        tensors = folder(crops, prepare=partial(processor, return_tensors="pt"))[0][0]
    assert image.shape == tensors.shape == (3, 6, 6)


def test_what_a_processor_returns_of_one_picture_is_taken(crops):
    def processor(picture):  # as that of transformers, which returns such a mapping
        return UserDict(pixel_values=[np.moveaxis(np.asarray(picture), -1, 0)])

    assert folder(crops, prepare=processor)[0][0].shape == (3, 10, 12)
    several = folder(crops, prepare=lambda _: {"pixel_values": [np.zeros(3)], "mask": [[1, 0]]})
    assert {key: len(part) for key, part in several[0][0].items()} == {"pixel_values": 3, "mask": 2}
    with pytest.raises(ValueError, match="pixel_values of one picture"):
        folder(crops, prepare=lambda _: {"pixel_values": np.zeros((2, 3, 6, 6))})[0]


def test_what_prepare_raises_names_the_sample(crops):
    with pytest.raises(ZeroDivisionError) as caught:
        folder(crops, prepare=lambda _: 1 / 0)[2]
    assert "sample 2 (id 'coins/2.png')" in caught.value.__notes__[0]


def test_a_processor_whose_axis_is_off_is_taken_as_it_is(crops):
    parts = {"pixel_values": torch.zeros(1, 6, 6), "pixel_mask": torch.ones(6, 6)}
    found = folder(crops, prepare=lambda _: parts)[0][0]
    assert {key: tuple(part.shape) for key, part in found.items()} == {
        "pixel_values": (1, 6, 6),
        "pixel_mask": (6, 6),
    }


# One line each


def test_a_folder_in_one_line(crops):
    rows = analyzed(folder(crops), 2, channels=3)
    assert rows["id"].values.tolist()[3:5] == ["coins/more/3.png", "page/0.png"]
    assert rows["label"].values.tolist() == [0] * 4 + [1] * 4


def test_forty_volumes_in_one_line(scans):
    data = volumes(scans / "scans.csv", groups="site")
    rows = analyzed(data, 3, groups=data.groups)
    assert len(rows["id"]) == 40
    assert data.names == ("healthy", "lesion")
    assert data.geometry(3).shape == data[3][0].shape[1:] == (8, 8, 8)


def test_two_hundred_signals_in_one_line():
    rows = analyzed(signals(noise(200, 6, 30), np.arange(200) % 2, rate=100.0), 1, channels=6)
    assert len(rows["id"]) == 200


def test_a_regression_of_a_csv_in_one_line(crops):
    paths = [f"coins/{i}.png" for i in range(3)]
    frame = pandas.DataFrame({"file": paths, "age": [31.5, 40, 22], "iq": [90, 101, 110.0]})
    frame.to_csv(crops / "ages.csv", index=False)
    rows = analyzed(
        table(crops / "ages.csv", path="file", label=["age", "iq"], mode="L"), 2, task="regression"
    )
    assert rows["label"].values.tolist() == [[31.5, 90], [40, 101], [22, 110]]
    frame.to_csv(crops / "ages.tsv", index=False, sep="\t")
    assert table(crops / "ages.tsv", path="file", label="age")[1][1] == 40.0


def test_a_data_set_of_huggingface_in_one_line():
    datasets = pytest.importorskip("datasets")
    images = [Image.fromarray(pictures.coins()[i : i + 6, :7]) for i in range(4)]
    features = {
        "image": datasets.Image(),
        "label": datasets.ClassLabel(names=["no", "yes"]),
        "name": datasets.Value("string"),
    }
    columns = {"image": images, "label": [1, 0, 1, 1], "name": list("abcd")}
    whole = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    rows = analyzed(huggingface(whole, id="name", mode="L"), 2)
    assert rows["label"].values.tolist() == [1, 0, 1, 1]
    assert rows["id"].values.tolist() == list("abcd")
    assert huggingface(whole).names == ("no", "yes")
    expected = huggingface(whole)[2][0]
    for kind in ("torch", "numpy"):  # one of them has channels last
        found = huggingface(whole.with_format(kind))[2]
        torch.testing.assert_close(found[0], expected, rtol=0, atol=0)
        assert found[1:] == (1, "2")

    def transform(batch):
        return {"pixel_values": [torch.ones(1, 2, 2) for _ in batch["image"]]}

    own = huggingface(whole.with_transform(transform), input="pixel_values")
    assert (own[0][0].shape, own[0][1]) == ((1, 2, 2), 1)
    with pytest.raises(TypeError, match=r"got a set of them, 'test'. Take one: dataset\['test'\]"):
        huggingface(datasets.DatasetDict(test=whole))
    with pytest.raises(TypeError, match="without streaming"):
        huggingface(whole.to_iterable_dataset())
    with pytest.raises(LookupError, match=r"expected a column 'pixels', got 'image', 'label'"):
        huggingface(whole, input="pixels")


class Subject(dict):
    """As torchio's: a dictionary of images that have a tensor as `data`."""


class Volume:
    def __init__(self, data):
        self.data = data


class Transformed:
    """A data set whose labels are known only when an item is read."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        image = torch.full((1, 4, 4, 4), float(index))
        return Subject(t1=Volume(image), label=("a", "b")[index % 2], name=f"s{index}")


def test_dictionaries_in_one_line():
    data = keyed(Transformed(), "t1", "label", id="name", names=["b", "a"])
    rows = analyzed(data, 3)
    assert rows["id"].values.tolist() == ["s0", "s1", "s2", "s3"]
    assert rows["label"].values.tolist() == [1, 0, 1, 0]
    assert "not known before samples are read (classes: b, a)" in repr(data)
    with pytest.raises(ValueError, match=r"named by names=, got 'a' of sample '0'"):
        keyed(Transformed(), "t1", "label")[0]
    both = keyed([{"image": np.zeros((1, 2, 2)), "age": [3.5], "y": 1}], ["image", "age"], "y")
    assert {key: tuple(part.shape) for key, part in both[0][0].items()} == {
        "image": (1, 2, 2),
        "age": (1,),
    }
    with pytest.raises(LookupError, match=r"expected items with 'pet', got 't1', 'label', 'name'"):
        keyed(Transformed(), "pet", "label")[0]


def test_arrays_in_one_line():
    rows = analyzed(arrays(noise(5, 6, 7), [0, 1, 1, 0, 1], ids="abcde"), 2)
    assert rows["id"].values.tolist() == list("abcde")


# Volumes


def test_volumes_are_turned_to_ras_with_their_affine(tmp_path):
    values = noise(4, 5, 6).astype(np.float32)
    affine = np.array([[0, 0, 2.0, 1], [-3, 0, 0, 5], [0, 1.5, 0, -4], [0, 0, 0, 1]])
    path = write_volume(tmp_path / "a.nii", values, affine)
    data, stored = volumes([path]), volumes([path], orient=None)
    canonical = nibabel.as_closest_canonical(nibabel.load(path))
    np.testing.assert_array_equal(data[0][0][0].numpy(), canonical.get_fdata().T)
    space = data.geometry(0)
    np.testing.assert_array_equal(space.affine, canonical.affine)
    assert (space.shape, space.spacing, space.orientation) == ((5, 4, 6), (1.5, 3, 2), "RAS")
    np.testing.assert_array_equal(stored[0][0][0].numpy(), values.T)
    np.testing.assert_array_equal(stored.geometry(0).affine, affine)
    assert space.file_shape == stored.geometry(0).shape == (6, 5, 4)
    # written back, each voxel is where it was
    place = nibabel.Nifti1Image(data[0][0][0].numpy().T, space.affine)
    again = nibabel.as_closest_canonical(place)
    np.testing.assert_array_equal(again.affine, canonical.affine)
    for code in ("LPS", "PIR"):
        turned = volumes([path], orient=code)
        assert turned.geometry(0).orientation == code
        assert turned.geometry(0).shape == turned[0][0].shape[1:]


def test_spacing_keeps_the_field_of_view_and_places(tmp_path):
    affine = np.diag([-2.0, 1, 3, 1])
    affine[:3, 3] = 7, -5, 2
    x = np.arange(8.0)[:, None, None] * np.ones((8, 6, 4))
    data = volumes([write_volume(tmp_path / "a.nii", x, affine)], spacing=(3, 2, 1))
    image, space = data[0][0][0], data.geometry(0)
    assert image.shape == space.shape == (4, 3, 16)
    assert space.spacing == (3, 2, 1)
    # the value is the file's index x: where the new affine says, it is what the old one says
    inner = np.array([5, 1, 2, 1])  # x y z
    expected = np.linalg.inv(affine) @ space.affine @ inner
    assert image[2, 1, 5].item() == pytest.approx(expected[0], abs=1e-5)
    edge = space.affine @ [15.5, 2.5, 3.5, 1]
    # turned to RAS, the file's first edge along x is the last
    np.testing.assert_allclose(edge, affine @ [-0.5, 5.5, 3.5, 1], atol=1e-9)


def test_a_fourth_axis_is_that_of_channels(tmp_path):
    values = noise(4, 5, 6, 2)
    data = volumes([write_volume(tmp_path / "a.nii", values)], ["x"], spacing=1)
    np.testing.assert_allclose(data[0][0], values.T.astype(np.float32))


def test_volumes_of_class_folders_and_by_path(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_volume(tmp_path / name / "1.nii", noise(2, 2, 2))
    assert volumes(tmp_path).labels.tolist() == [0, 1]
    by_path = volumes(tmp_path, {"a/1.nii": 3.5, "b/1.nii": 1.0})
    assert by_path.labels.tolist() == [3.5, 1.0]
    with pytest.raises(TypeError, match="by path, such as"):
        volumes(tmp_path, [0, 1])


# What folders and tables may hold


def test_a_link_to_its_own_folder_is_not_followed(crops):
    (crops / "coins" / "again").symlink_to(crops)
    (crops / "page" / "linked").symlink_to(crops / "coins" / "more")
    assert len(folder(crops)) == 9
    assert "page/linked/3.png" in folder(crops).ids


def test_extensions_are_endings(crops):
    (crops / "coins" / "0.png").rename(crops / "coins" / "0.PNG")
    assert len(folder(crops, extensions=".Png")) == 8
    assert len(folder(crops, labels={"0.png": "a"} | dict.fromkeys(folder(crops).ids, "b"))) == 8


@pytest.mark.parametrize(
    ("values", "kind", "missing"),
    [
        (pandas.array([1, 0, 2], dtype="Int64"), "i", False),
        (pandas.array([1, None, 2], dtype="Int64"), "f", True),
        (pandas.array([1.5, 0, 2], dtype="Float64"), "f", False),
        (pandas.Series(["a", "b", "a"], dtype="category"), "i", False),
        (pandas.array(["a", None, "b"], dtype="string"), "i", True),
        (np.array([True, False, True], dtype=object), "i", False),
        ([0, None, 1], "f", True),
        ([float("nan"), "a", "b"], "i", True),
        ([[0.5, 1], [2, None], [1, 1]], "f", True),
    ],
)
def test_columns_of_every_kind_are_labels(values, kind, missing):
    images = np.zeros((3, 4, 4))
    if missing:
        with pytest.raises(ValueError, match="expected a finite label for every sample, got none"):
            arrays(images, values)
    else:
        assert arrays(images, values).labels.dtype.kind == kind


def test_arrays_on_disk_are_read_row_by_row(tmp_path):
    values = noise(3, 2, 5, 6).astype(np.float32)
    stored = zarr.create_array(tmp_path / "a", data=values)
    data = pickle.loads(pickle.dumps(arrays(stored, [0, 1, 0])))
    assert len(pickle.dumps(data)) < 5000
    np.testing.assert_array_equal(data[2][0], values[2])


def test_named_axes_say_where_samples_and_channels_are():
    values = xr.DataArray(np.zeros((3, 2, 5, 6)), dims=("channel", "sample", "y", "x"))
    data = arrays(values)
    assert (len(data), data[0][0].shape) == (2, (3, 5, 6))


# Errors by name


def test_whose_samples_are(tmp_path, crops):
    for patient in ("one", "two"):
        for name in ("coins", "page"):
            (tmp_path / "by" / name / patient).mkdir(parents=True)
            for picture in (0, 1):
                source, goal = crops / name / f"{picture}.png", tmp_path / "by" / name / patient
                (goal / f"{picture}.png").write_bytes(source.read_bytes())
    data = folder(tmp_path / "by", cluster="parent")
    folders = [name.rpartition("/")[0] for name in data.ids]
    assert data.cluster.tolist() == folders
    assert "clusters: 4" in repr(data)
    frame = frame_of(crops, Patient_ID=[7, 7, 8])
    data = table(frame, root=crops)
    assert data.cluster is None
    assert data.shared == "Patient_ID"
    assert "several samples share a 'Patient_ID' (cluster=)" in repr(data)
    data = table(frame, root=crops, cluster="Patient_ID")
    assert data.shared is None
    assert data.cluster.tolist() == [7, 7, 8]
    assert table(frame, root=crops, cluster="parent").cluster.tolist() == ["coins"] * 3
    for one in ({"patient": [1, 2, 3]}, {"patient": [1, 1, 1]}, {"inpatient": [1, 1, 2]}):
        assert table(frame_of(crops, **one), root=crops).shared is None


def frame_of(crops, **columns):
    paths = [f"coins/{i}.png" for i in range(3)]
    return pandas.DataFrame({"path": paths, "label": ["a", "b", "a"], **columns})


ERRORS = {
    "a flat folder": (
        lambda crops: folder(crops / "page" / "more"),
        ValueError,
        "1 pictures and no such folder. For labels in a table use ifa.data.table, or give labels=",
    ),
    "no folder": (lambda crops: folder(crops / "x"), FileNotFoundError, "expected a folder, got"),
    "an unknown class": (
        lambda crops: folder(crops, names=["page", "cells"]),
        ValueError,
        "expected class folders among names, page, cells, got 'coins'",
    ),
    "names twice": (lambda crops: folder(crops, names=["page"] * 2), ValueError, "each class once"),
    "a mode": (lambda crops: folder(crops, mode="CMYK"), ValueError, "'RGB' or 'L', got 'CMYK'"),
    "a column": (
        lambda crops: table(frame_of(crops), root=crops, label="age"),
        LookupError,
        "expected a column 'age', got 'path', 'label'",
    ),
    "missing files": (
        lambda crops: table(frame_of(crops), root=crops / "page"),
        FileNotFoundError,
        "got 3 of 3 that are not there, such as 'coins/0.png'. Say where paths start by root=",
    ),
    "a kind of file": (
        lambda crops: table(frame_of(crops).replace("coins/1.png", "a.docx"), root=crops),
        ValueError,
        "got 'a.docx'",
    ),
    "labels that are missing": (
        lambda crops: table(frame_of(crops, age=[1, None, 2]), root=crops, label="age"),
        ValueError,
        "expected a finite label for every sample, got none for 1: 'coins/1.png'",
    ),
    "texts that are missing": (
        lambda crops: table(frame_of(crops, of=["a", None, "b"]), root=crops, label="of"),
        ValueError,
        "got none for 1: 'coins/1.png'",
    ),
    "ids twice": (
        lambda crops: table(frame_of(crops, who=["k", "l", "k"]), root=crops, id="who"),
        ValueError,
        "an id of its own for each sample, got 'k' more than once",
    ),
    "paths twice": (
        lambda crops: table(frame_of(crops).assign(path="coins/0.png"), root=crops),
        ValueError,
        "Name a column of ids: id=.",
    ),
    "a text that is no name": (
        lambda crops: table(frame_of(crops), root=crops, names=["a", "c"]),
        ValueError,
        "expected labels among names, 'a', 'c', got 'b' of sample 'coins/1.png'",
    ),
    "a number that is no name": (
        lambda crops: arrays(np.zeros((2, 3, 3)), [0, 2], names=["a", "b"]),
        ValueError,
        "whole numbers, below 2, the number of names, got 2 of sample '1'",
    ),
    "text for a regression": (
        lambda crops: table(frame_of(crops), root=crops, task="regression"),
        ValueError,
        "expected labels that are numbers, got text",
    ),
    "mixed labels": (
        lambda crops: arrays(np.zeros((2, 3, 3)), ["a", 1]),
        ValueError,
        "got 1 beside text",
    ),
    "no table": (
        lambda crops: table([1, 2]),
        TypeError,
        "a CSV or TSV file or a pandas data frame, got list. For arrays use ifa.data.arrays",
    ),
    "lengths": (
        lambda crops: arrays(np.zeros((2, 3, 3)), [0]),
        ValueError,
        "expected a label for each of 2 samples, got 1",
    ),
    "groups": (
        lambda crops: arrays(np.zeros((2, 3, 3)), groups=["a"]),
        ValueError,
        "expected one group for each of 2 samples",
    ),
    "examples that differ": (
        lambda crops: arrays([np.zeros((2, 2)), np.zeros((3, 3))]),
        ValueError,
        "expected examples of one shape",
    ),
    "complex numbers": (
        lambda crops: arrays(np.zeros((2, 3, 3), complex))[0],
        TypeError,
        "expected real numbers, got torch.complex128",
    ),
    "missing groups": (
        lambda crops: table(frame_of(crops, site=["a", None, "b"]), root=crops, groups="site"),
        ValueError,
        "expected a group for every sample, got none for 1, such as sample 1",
    ),
    "missing clusters": (
        lambda crops: table(frame_of(crops, who=["a", None, "b"]), root=crops, cluster="who"),
        ValueError,
        "expected a cluster for every sample, got none for 1, such as sample 1",
    ),
    "the folders of classes as clusters": (
        lambda crops: folder(crops, cluster="parent"),
        ValueError,
        "expected folders below those of classes for cluster='parent', got 'coins/0.png'",
    ),
    "one volume": (
        lambda crops: volumes("a.nii.gz"),
        ValueError,
        "expected a list of volumes, got one, 'a.nii.gz'. Give [path]",
    ),
    "an array of volumes": (
        lambda crops: volumes(np.zeros((2, 3, 3, 3))),
        TypeError,
        "got ndarray. For arrays use ifa.data.arrays",
    ),
    "no text": (
        lambda crops: table(crops / "page" / "0.png"),
        ValueError,
        "For other files give a data frame",
    ),
    "a data frame of pixels": (
        lambda crops: arrays(frame_of(crops)),
        TypeError,
        "Of a data frame take frame.to_numpy()",
    ),
    "an id that cannot be written": (
        lambda crops: arrays(np.zeros((1, 2, 2)), ids=["\udcff"]),
        ValueError,
        "expected an id to be text that UTF-8 can write",
    ),
    "a rate": (lambda crops: signals(np.zeros((2, 9)), rate=0), ValueError, "expected rate to be"),
    "an orientation": (
        lambda crops: volumes([], orient="RAL"),
        ValueError,
        "where x, y and z go, such as 'RAS', got 'RAL'",
    ),
    "a spacing": (lambda crops: volumes([], spacing=-1), ValueError, "millimetres above 0"),
    "no volume": (
        lambda crops: volumes(["coins/0.png"], root=crops),
        FileNotFoundError,
        "expected NIfTI files, got no such file 'coins/0.png'",
    ),
    "no geometry": (
        lambda crops: folder(crops).geometry(0),
        TypeError,
        "expected a volume, which has a geometry, got ",
    ),
    "no items": (lambda crops: keyed(iter([]), "a", "b"), TypeError, "got list_iterator"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_is_wrong_is_named(crops, name):
    make, kind, text = ERRORS[name]
    with pytest.raises(kind, match=re.escape(text)) as caught:
        make(crops)
    assert str(caught.value).startswith("ifa.data.")


def test_a_class_without_a_picture_does_not_move_the_others(crops):
    (crops / "empty").mkdir()
    with pytest.raises(ValueError, match="expected pictures in every class folder, got none in 'e"):
        folder(crops)
    found = folder(crops, names=["page", "empty", "coins"])
    assert sorted(set(found.labels.tolist())) == [0, 2]
    assert "page: 4, empty: 0, coins: 4" in repr(found)


def test_files_that_cannot_be_read_are_named(crops, tmp_path):
    whole = (crops / "coins" / "0.png").read_bytes()
    (crops / "coins" / "0.png").write_bytes(whole[: len(whole) // 2])
    (crops / "coins" / "1.png").write_text("no picture")
    data = folder(crops)
    for index in (0, 1):
        with pytest.raises(ValueError, match=rf"a picture that can be read, got .*{index}\.png"):
            data[index]
    (tmp_path / "a.nii").write_bytes(b"no volume")
    (tmp_path / "a.npy").write_bytes(b"no array")
    with pytest.raises(ValueError, match=r"a volume that can be read, got .*a\.nii"):
        volumes([tmp_path / "a.nii"])[0]
    with pytest.raises(ValueError, match=r"an array of numbers, .*got .*a\.npy"):
        signals([tmp_path / "a.npy"])[0]
    write_volume(tmp_path / "b.nii.gz", noise(30, 30, 30))
    whole = (tmp_path / "b.nii.gz").read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"a volume that can be read, got .*b\.nii\.gz"):
        volumes([tmp_path / "b.nii.gz"])[0]
    frames = [Image.new("L", (3, 3)), Image.new("L", (3, 3))]
    frames[0].save(tmp_path / "stack.tif", save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match=r"expected one picture in each file, got 2"):
        read_inputs([tmp_path / "stack.tif"])


@pytest.mark.parametrize("missing", ["nibabel", "PIL", "pandas"])
def test_what_is_not_installed_is_named(crops, monkeypatch, missing):
    frame_of(crops).to_csv(crops / "t.csv", index=False)
    monkeypatch.setitem(sys.modules, missing, None)
    make = {
        "nibabel": lambda: volumes([]),
        "PIL": lambda: folder(crops)[0],
        "pandas": lambda: table(crops / "t.csv"),
    }[missing]
    with pytest.raises(ImportError, match=rf"expected {missing} to read .*pip install 'ifa\[io\]'"):
        make()


def test_labels_and_ids_of_tables_stay_text(tmp_path):
    np.save(tmp_path / "007.npy", np.zeros((1, 2, 2)))
    (tmp_path / "t.csv").write_text("path,label,who\n007.npy,3,007\n")
    assert table(tmp_path / "t.csv", id="who")[0][1:] == (3, "007")


def test_the_page_on_own_data_runs(tmp_path, monkeypatch, capsys):
    pytest.importorskip("datasets")
    docs = Path(__file__).parents[1] / "docs"
    runpy.run_path(str(docs / "make_crops.py"))["main"](tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    text = (docs / "how-to" / "own-data.md").read_text()
    exec("\n".join(re.findall(r"```python\n(.*?)```", text, re.S)), {})
    shown = re.search(r"\n\n((?:    .*\n)+)", text.partition("print(data)")[2]).group(1)
    assert textwrap.dedent(shown) in capsys.readouterr().out
