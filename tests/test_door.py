"""The door: what comes from outside is right, or refused by name."""

import datetime
import os
import pathlib
import re
import sys
import warnings
from collections import OrderedDict
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
from populations import digits_like, measured, net

import ifa
from ifa.cli import main
from ifa.clusters import names_of
from ifa.store.items import numbers_of


@pytest.fixture(scope="module")
def model():
    return net(1)


@pytest.fixture(scope="module")
def data(model):
    return digits_like(model, 6)


# Ids


class Wordless:
    def __str__(self):
        raise ValueError("no words")


NO_ID = "expected the id of sample 1 to be text or a number, got "


IDS = [
    ("case 1", "case 1"),
    ("", ""),
    ("a\0", "a\0"),
    ("a\nb é", "a\nb é"),
    ("twice", "twice"),
    ("twice", "twice"),
    (b"a\xc3\xa9", "aé"),
    (np.bytes_(b"a"), "a"),
    (np.str_("a"), "a"),
    (7, "7"),
    (np.int64(7), "7"),
    (0.5, "0.5"),
    (torch.tensor(7), "7"),
    (np.array("a"), "a"),
    (pathlib.PurePosixPath("a/b.png"), "a/b.png"),
    (datetime.date(2020, 1, 2), "2020-01-02"),
]


@pytest.mark.parametrize("stored", [True, False])
def test_ids_are_written_as_text(stored, model, data, tmp_path):
    items = [(*data[0], name) for name, _ in IDS]
    store = tmp_path / "run" if stored else None
    tree = ifa.analyze(model, items, layer="conv2", store=store, progress=False)
    assert tree["samples"]["id"].values.tolist() == [text for _, text in IDS]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"\xff", NO_ID + "bytes"),
        (None, NO_ID + "NoneType None. Write it as text, the same for the same sample each time."),
        (float("nan"), NO_ID + "float nan."),
        (pd.NA, NO_ID + "NAType"),
        (("a", 1), NO_ID + "tuple ('a', 1)."),
        ({"a": 1}, NO_ID + "dict {'a': 1}."),
        ({1}, NO_ID + "set {1}."),
        (torch.tensor([7]), NO_ID + "Tensor tensor([7])."),
        (np.array([7, 8]), NO_ID + "ndarray [7 8]."),
        (object(), NO_ID + "object <object object at"),
        (Wordless(), NO_ID + "Wordless."),
        ("\udcff", "expected the id of sample 1 to be text that UTF-8 can write, got '\\udcff'."),
    ],
    ids=lambda value: f"{type(value).__name__} {ascii(value)[:12]}",
)
def test_ids_that_are_no_text(name, text, model, data, tmp_path):
    items = [(*item, name if index == 1 else "a") for index, item in enumerate(data)]
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(f'ifa.analyze: {text}')}"):
        ifa.analyze(model, items, layer="conv2", store=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


# Groups


MISSING = "expected a group label for each sample, got "
NO_LABEL = "expected the group label of sample "


@pytest.mark.parametrize(
    ("groups", "want"),
    [
        ([10, 9] * 3, ["9", "10"]),
        ([1.5, 2] * 3, ["1.5", "2.0"]),
        ([True, False] * 3, ["False", "True"]),
        ([2, "a"] * 3, ["2", "a"]),
        (["a\0", "a"] * 3, ["a", "a\0"]),
        (["", "a "] * 3, ["", "a "]),
        ([b"b", b"a"] * 3, ["a", "b"]),
        (np.array([b"b", b"a"] * 3), ["a", "b"]),
        (np.array([1, 0] * 3, ">i4"), ["0", "1"]),
        (np.array(["b", "a"] * 3, ">U1"), ["a", "b"]),
        (np.array(["b", "a"] * 3, object)[::-1], ["a", "b"]),
        (torch.tensor([1, 0] * 3), ["0", "1"]),
        ([torch.tensor(1), torch.tensor(0)] * 3, ["0", "1"]),
        (pd.Categorical(["b", "a"] * 3), ["a", "b"]),
        (pd.Series(["b", "a"] * 3, index=range(6, 0, -1)), ["a", "b"]),
        (np.array(["2021", "2020"] * 3, "M8[Y]"), ["2020", "2021"]),
        (
            [1, "1"] * 3,
            "expected group labels that can be told apart in text, got '1' for sample 1",
        ),
        (
            ["a", b"a"] * 3,
            "expected group labels that can be told apart in text, got b'a' for",
        ),
        ([None, "a"] * 3, f"{MISSING}None for sample 0. Give"),
        ([np.nan, 1.0] * 3, f"{MISSING}nan for sample 0. Give"),
        (["a", np.nan] * 3, f"{NO_LABEL}1 to be text or a number, got float nan."),
        (pd.Categorical(["b", None] * 3), f"{MISSING}nan for sample 1. Give"),
        (pd.array(["a", pd.NA] * 3), f"{MISSING}<NA> for sample 1. Give"),
        (np.array(["2020", "NaT"] * 3, "M8[D]"), f"{MISSING}NaT for sample 1. Give"),
        ([{}, {}] * 3, f"{NO_LABEL}0 to be text or a number, got dict {{}}."),
        (np.array([("a", 1)] * 6, "U1,i4"), f"{NO_LABEL}0 to be text or a number, got tuple"),
        ([b"a", b"\xff"] * 3, f"{NO_LABEL}1 to be text or a number, got bytes"),
        (
            [("a", 1), ("b", 2)] * 3,
            "expected one group label for each of 6 samples, got shape (6",
        ),
        ("ababab", "expected one group label for each of 6 samples, got shape ()."),
        (dict.fromkeys(range(6), "a"), "expected one group label for each of 6 samples, got sha"),
    ],
    ids=lambda value: f"{type(value).__name__} {ascii(value)[:24]}",
)
def test_groups(groups, want):
    if isinstance(want, str):
        with pytest.raises((TypeError, ValueError), match=f"^{re.escape(f'ifa.analyze: {want}')}"):
            names_of("ifa.analyze", "group", groups, 6)
        return
    names, index = names_of("ifa.analyze", "group", groups, 6)
    assert list(names or ()) == want
    assert index.tolist() in ([0, 1] * 3, [1, 0] * 3)


def test_groups_are_in_the_run(model, data, tmp_path):
    groups = ["a\0", b"b"] * 3
    tree = ifa.analyze(
        *(model, data), layer="conv2", groups=groups, store=tmp_path / "run", progress=False
    )
    assert tree["conv2"]["group"].values.tolist() == ["a\0", "b"]


# Labels


@pytest.mark.parametrize(
    ("make", "right"),
    [
        (torch.tensor, True),
        (lambda n: torch.tensor(n, dtype=torch.uint16), True),
        (lambda n: torch.tensor(n, dtype=torch.uint64), True),
        (lambda n: torch.tensor(n, dtype=torch.bfloat16), True),
        (lambda n: torch.tensor(float(n), requires_grad=True), True),
        (np.uint32, True),
        (lambda n: np.array([n], ">i8"), True),
        (lambda n: np.array([n, 0, n])[::-2][:1], True),
        (lambda n: np.frombuffer(np.array([n]).tobytes(), int), True),
        (Fraction, True),
        (lambda n: pd.Series([n]), True),
        (str, False),
        (lambda n: str(n).encode(), False),
        (np.str_, False),
        (lambda n: [str(n)], False),
        (complex, False),
        (lambda n: torch.tensor(complex(n)), False),
        (lambda n: np.datetime64(n, "D"), False),
        (lambda n: [None], False),
        (lambda n: {n}, False),
        (lambda n: 10**400, False),
    ],
)
def test_labels(make, right):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert numbers_of(make(3)).tolist() == ([3.0] if right else [])


@pytest.mark.parametrize("make", [str, lambda x: str(x).encode(), complex, lambda x: [None]])
def test_real_labels(make, tmp_path):
    real = net(1, 1)
    items = [(values, make(label)) for values, label in measured(real, 6)]
    with pytest.raises(ValueError, match=r"^ifa\.analyze: expected one real label, or one for"):
        ifa.analyze(real, items, layer="conv2", task="regression", progress=False)


def test_labels_of_objects_are_numbers_where_they_are():
    assert numbers_of(np.array([1, 2.5], object)).tolist() == [1, 2.5]
    assert not len(numbers_of(np.array([1, "2.5"], object)))


# Inputs


@pytest.mark.parametrize("dtype", [">f4", "<f4", torch.float32])
def test_arrays_of_any_byte_order(dtype, model, data):
    want = ifa.analyze(model, data, layer="conv2", progress=False)["conv2"]
    items = [(x.numpy().astype(dtype) if isinstance(dtype, str) else x, y) for x, y in data]
    assert ifa.analyze(model, items, layer="conv2", progress=False)["conv2"].identical(want)


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x.numpy().astype(object),
        lambda x: x.numpy().astype(np.longdouble),
        lambda x: np.zeros(x.shape, "f4,f4"),
        lambda x: x.numpy().astype("U8"),
        lambda x: pd.DataFrame({"a": ["b"]}),
        lambda x: {1},
    ],
    ids=["object", "long double", "records", "text", "table", "set"],
)
def test_inputs_that_torch_does_not_take(make, model, data):
    items = [*data[:4], (make(data[4][0]), 0)]
    text = r"^ifa\.analyze: expected inputs that are tensors or arrays of numbers, got .* sample 4"
    with pytest.raises(TypeError, match=text):
        ifa.analyze(model, items, layer="conv2", progress=False)


# Layers


@pytest.mark.parametrize("name", ["zarr.json", "samples", "id", "target_name"])
def test_layers_whose_name_is_that_of_a_file_or_a_group(name, data, tmp_path):
    first, *inside = name.split(".")
    layer = torch.nn.Conv1d(2, 4, 3)
    for part in inside:
        layer = torch.nn.Sequential(OrderedDict({part: layer}))
    rest = {"pool": torch.nn.AdaptiveAvgPool1d(1), "flat": torch.nn.Flatten()}
    outer = torch.nn.Sequential(OrderedDict({first: layer, **rest}))
    with pytest.raises(ValueError, match="expected a layer whose name can be that of a group"):
        ifa.analyze(outer, data, layer=name, store=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


# Options


def every(model, data, **options):
    methods = {"a": lambda model, inputs, target: torch.zeros(len(inputs), *inputs.shape[2:])}
    metrics = {"drop": ifa.evaluate.confidence}
    return {
        "ifa.analyze": lambda: ifa.analyze(model, data, layer="conv2", **options),
        "ifa.maps": lambda: ifa.maps(model, data, layer="conv2", size=None, **options),
        "ifa.contest.table": lambda: ifa.contest.table(model, data, methods, metrics, **options),
    }


@pytest.mark.parametrize("device", ["foo", "cuda:99", 99, 1.5])
def test_a_device_that_there_is_not(device, model, data):
    for where, call in every(model, data, device=device, progress=False).items():
        text = f"{where}: expected device to be one of this machine, such as 'cpu' or 'cuda:0', or"
        with pytest.raises(ValueError, match=f"^{re.escape(text)}"):
            call()


@pytest.mark.parametrize("progress", ["a", None, 1])
def test_a_progress_that_cannot_be_told(progress, model, data):
    for where, call in every(model, data, progress=progress).items():
        text = f"{where}: expected progress to be True, False, or a function of (done, total), got "
        with pytest.raises(TypeError, match=f"^{re.escape(text)}"):
            call()


# The command line


MODULE = """
import torch


def network():
    return torch.nn.Sequential(torch.nn.Conv1d(2, 4, 3), torch.nn.Flatten())


def data():
    return [(torch.zeros(2, 9), 0)] * 2
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A directory with a module of one's own, and one of a name that is taken."""
    (tmp_path / "mine_alone.py").write_text(MODULE)
    (tmp_path / "zarr.py").write_text("raise SystemExit('ran')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.setitem(sys.modules, "mine_alone", None)
    del sys.modules["mine_alone"]
    yield tmp_path
    sys.modules.pop("mine_alone", None)


def test_the_working_directory_is_looked_in_last_and_only_for_references(home, capsys):
    before = list(sys.path)
    assert main(["demo", "--help"]) == 0
    assert sys.path == before
    for _ in range(2):
        assert main(["layers", "mine_alone:network", "mine_alone:data"]) == 0
        assert sys.path == [*before, os.getcwd()]
    capsys.readouterr()


def test_the_working_directory_is_left_out_where_python_is_told_so(home, capsys, monkeypatch):
    class Flags:
        safe_path = True

        def __getattr__(self, name):
            return getattr(flags, name)

    flags, before = sys.flags, list(sys.path)
    monkeypatch.setattr(sys, "flags", Flags())
    assert main(["layers", "mine_alone:network", "mine_alone:data"]) == 1
    assert sys.path == before
    said = capsys.readouterr().err
    assert "This directory is not looked in: PYTHONSAFEPATH, or -P, is set." in said
