"""What ifa.analyze says of wrong input: where, what was expected, what came, what to do."""

import re
from functools import partial

import numpy as np
import pytest
import torch
import xarray as xr
from populations import digits_like, measured, net

import ifa


@pytest.fixture(scope="module")
def model():
    return net(1)


@pytest.fixture(scope="module")
def data(model):
    return digits_like(model, 8, named=True)


def refused(error, text, model, data, tmp_path, **options):
    """Check the error's text, and that the store was not even begun or only holds a spec."""
    options = {"layer": "conv2", "progress": False, **options}
    with pytest.raises(error, match=re.escape(text)) as caught:
        ifa.analyze(model, data, store=tmp_path / "run", **options)
    assert str(caught.value).startswith("ifa.")
    return str(caught.value)


OPTIONS = [
    ({"targets": "truth"}, "targets to be one of 'predicted', 'label', got 'truth'."),
    ({"targets": []}, "distinct targets in 0..3, at least one, got []."),
    ({"targets": [1, 1]}, "distinct targets in 0..3, at least one, got [1, 1]."),
    ({"targets": [0, 4]}, "distinct targets in 0..3, at least one, got [0, 4]."),
    ({"targets": [-1]}, "distinct targets in 0..3, at least one, got [-1]."),
    ({"keep_samples": "all"}, "keep_samples to be one of 'summary', 'full', 'none', got 'all'."),
    ({"keep_samples": None}, "keep_samples to be one of"),
    ({"task": "ranking"}, "task to be one of 'classification', 'binary', 'multilabel', 'regr"),
    ({"reduction": "max"}, "reduction to be one of 'sum', 'mean', got 'max'."),
    ({"task": "regression", "targets": "label"}, "its labels are values, not outputs."),
    ({"shard": 0}, "shard to be a whole number, at least 1, got 0."),
    ({"shard": 2.5}, "shard to be a whole number, at least 1, got 2.5."),
    ({"batch_size": -3}, "batch_size to be a whole number, at least 1, got -3."),
    ({"quantiles": [0.5, 1.5]}, "distinct quantiles in [0, 1], at least one, such as (0.5, 0.9)"),
    ({"quantiles": [0.5, 0.5]}, "got [0.5, 0.5]."),
    ({"quantiles": []}, "got []."),
    ({"quantiles": 0.5}, "got 0.5."),
    ({"quantiles": [float("nan")]}, "got [nan]."),
    ({"target_names": ["a", "b"]}, "a target name for each of 4 outputs, got 2."),
    ({"groups": ["a"] * 7}, "one group label for each of 8 samples, got shape (7,)."),
    ({"groups": np.zeros((8, 2))}, "got shape (8, 2)."),
    ({"cluster": ["a"] * 7}, "one cluster label for each of 8 samples, got shape (7,)."),
    ({"cluster": ["a", None] * 4}, "a cluster label for each sample, got None for sample 1"),
    ({"cluster": ["a", "b"] * 4, "keep_samples": "none"}, "keep_samples='summary' or 'full' with"),
]


@pytest.mark.parametrize(("options", "text"), OPTIONS, ids=lambda value: str(value)[:40])
def test_wrong_options(options, text, model, data, tmp_path):
    said = refused(ValueError, text, model, data, tmp_path, **options)
    assert said.startswith("ifa.analyze: expected ")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("targets", [3, [0.5], ["zero"], None], ids=str)
def test_targets_that_are_no_indices(targets, model, data, tmp_path):
    text = "expected targets to be 'predicted', 'label' or a list of output indices, got "
    refused(TypeError, text + repr(targets), model, data, tmp_path, targets=targets)
    assert not (tmp_path / "run").exists()


def test_indices_of_any_kind_are_taken(model, data):
    for targets in (np.array([2, 0]), torch.tensor([2, 0]), (2, 0), range(2, -1, -2)):
        tree = ifa.analyze(model, data, layer="conv2", targets=targets, progress=False)
        assert tree["conv2"]["target"].values.tolist() == [2, 0]


def test_a_weight_that_is_neither_kernel_nor_step(model, data, tmp_path):
    with pytest.raises(TypeError, match=r"ifa\.analyze: expected weight to be a kernel"):
        ifa.analyze(model, data, layer="conv2", weight="fullcam", progress=False)


def test_an_unknown_layer(model, data, tmp_path):
    said = refused(LookupError, "'conv3'", model, data, tmp_path, layer="conv3")
    assert "conv2" in said
    assert "ifa.trace" in said
    assert not (tmp_path / "run").exists()


def test_a_model_in_training_mode(data, tmp_path):
    model = torch.nn.Sequential(
        torch.nn.Conv1d(2, 3, 3), torch.nn.Dropout(), torch.nn.Flatten(), torch.nn.Linear(27, 4)
    )
    said = refused(ValueError, "in training mode", model, data, tmp_path, layer="0")
    assert "model.eval()" in said


# A layer's group stands beside the variables of the sample table


@pytest.mark.parametrize("name", ["samples", "score", "label", "target", "a/b"])
def test_a_layer_whose_name_is_taken(name, data, tmp_path):
    model = torch.nn.Sequential()
    model.add_module(name, torch.nn.Conv1d(2, 4, 3))
    model.add_module("pool", torch.nn.AdaptiveAvgPool1d(1))
    model.add_module("flat", torch.nn.Flatten())
    text = f"expected a layer whose name can be that of a group, got {name!r}"
    said = refused(ValueError, text, model, data, tmp_path, layer=name)
    assert "Rename the module, or wrap the model in torch.nn.Sequential." in said
    wrapped = torch.nn.Sequential(model)
    if "/" not in name:
        tree = ifa.analyze(wrapped, data, layer=f"0.{name}", store=tmp_path, progress=False)
        assert tree.attrs["layers"] == [f"0.{name}"]


# Data


class Unsized:
    def __getitem__(self, index):
        raise AssertionError("never read")


@pytest.mark.parametrize("make", [iter, lambda data: Unsized(), lambda data: None])
def test_data_that_are_not_sized_and_indexable(make, model, data, tmp_path):
    text = "a sized, indexable data set of (input, label)"
    said = refused(TypeError, text, model, make(data), tmp_path)
    assert "ifa.data makes one of a folder, a table, arrays, or another library's data set." in said


def test_of_a_data_loader_its_data_set_is_taken_and_said(model, data):
    loader = torch.utils.data.DataLoader(data, batch_size=3, shuffle=True)
    with pytest.warns(ifa.LoaderTaken, match="its data set is taken, list. Its batches"):
        found = ifa.analyze(model, loader, layer="conv2", progress=False)
    expected = ifa.analyze(model, data, layer="conv2", progress=False)
    xr.testing.assert_identical(found["conv2"].to_dataset(), expected["conv2"].to_dataset())
    methods = {"a": partial(ifa.explain, layer="conv2")}
    metrics = {"drop": ifa.evaluate.confidence}
    with pytest.warns(ifa.LoaderTaken):
        ifa.contest.table(model, loader, methods, metrics, progress=False)
    with pytest.warns(ifa.LoaderTaken):
        ifa.maps(model, loader, layer="conv2", size=None, progress=False)
    with pytest.warns(ifa.LoaderTaken):
        ifa.diagnose.principal_features(model, "conv2", loader, expected)


class Streamed(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter([])


def test_a_stream_is_refused_also_in_a_data_loader(model, tmp_path):
    loader = torch.utils.data.DataLoader(Streamed())
    with pytest.warns(ifa.LoaderTaken):
        refused(
            TypeError, "data set of (input, label), got Streamed. ifa.d", model, loader, tmp_path
        )


def test_data_that_ifa_data_can_take_are_told_so(model, tmp_path):
    refused(TypeError, "got str. ifa.data makes one of a folder", model, "photos/val", tmp_path)
    arrays = IMAGE[None].numpy(), np.zeros(1)
    refused(TypeError, "got ndarray for sample 0. Of arrays ifa.data.arra", model, arrays, tmp_path)
    items = [{"image": IMAGE, "label": 0}]
    refused(TypeError, "got dict for sample 0. Of dictionaries ifa.dat", model, items, tmp_path)


def test_empty_data(model, tmp_path):
    refused(ValueError, "at least one sample, got an empty data set.", model, [], tmp_path)


@pytest.mark.parametrize(
    ("item", "came"),
    [
        (torch.zeros(2, 11), "got Tensor for sample"),
        ((torch.zeros(2, 11),), "got tuple of length 1 for sample"),
        ([torch.zeros(2, 11), 1, "a", 0], "got list of length 4 for sample"),
        ({"image": 1, "label": 1}, "got dict for sample"),
        ("ab", "got str for sample"),
    ],
    ids=["tensor", "one", "four", "dict", "text"],
)
@pytest.mark.parametrize("position", [0, 5])
def test_an_item_that_is_no_pair(item, came, position, model, data, tmp_path):
    items = [*data[:position], item, *data[position:]]
    text = "expected every item of the data to be (input, label) or (input, label, id)"
    said = refused(TypeError, text, model, items, tmp_path)
    assert f"{came} {position}." in said


def test_inputs_of_different_shapes(model, data, tmp_path):
    items = [*data[:5], (torch.zeros(2, 12), 1, "wide"), *data[5:]]
    text = "one shape, (2, 11) like the example's, got (2, 12) for sample 5 (id 'wide')."
    refused(ValueError, text, model, items, tmp_path / "whole")
    refused(ValueError, text, model, items, tmp_path / "alone", batch_size=1, shard=1)


@pytest.mark.parametrize("value", ["a file name", None, object()], ids=["text", "none", "object"])
def test_inputs_that_are_no_numbers(value, model, data, tmp_path):
    items = [*data[:5], (value, 1), *data[5:]]
    text = "expected inputs that are tensors or arrays of numbers, got"
    said = refused(TypeError, text, model, items, tmp_path)
    assert f"{type(value).__name__} for sample 5" in said


@pytest.mark.parametrize(
    "spoil",
    [
        lambda values: values.numpy()[:, ::-1][:, ::-1],
        lambda values: np.frombuffer(values.numpy().tobytes(), np.float32).reshape(values.shape),
        lambda values: values.tolist(),
        lambda values: values.clone().requires_grad_(),
    ],
    ids=["reversed", "read-only", "list", "with a gradient"],
)
def test_arrays_of_any_kind_are_inputs(spoil, model, data):
    want = ifa.analyze(model, data, layer="conv2", progress=False)["conv2"].to_dataset()
    items = [(spoil(values), label) for values, label, _ in data]
    tree = ifa.analyze(model, items, layer="conv2", progress=False)
    assert tree["conv2"].to_dataset().identical(want)


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        (4, "4"),
        (-1, "-1"),
        (1.5, "1.5"),
        (float("nan"), "nan"),
        ("cat", "'cat'"),
        ("1", "'1'"),
        (None, "None"),
        ([0, 1], "[0, 1]"),
    ],
    ids=str,
)
@pytest.mark.parametrize("targets", ["predicted", "label", [0]], ids=str)
def test_a_label_that_is_no_output_names_the_sample(label, shown, targets, model, data, tmp_path):
    items = [*data[:5], (data[0][0], label, "the odd one"), *data[5:]]
    text = (
        "ifa.analyze: expected labels in 0..3, the model's outputs, got "
        f"{shown} for sample 5 (id 'the odd one'). "
    )
    text += (
        "Of several labels for each sample, 0 or 1 for each output, say task='multilabel'; of real "
        "values task='regression'."
        if isinstance(label, list)
        else "Map the labels to outputs; if they are real values, ask for a regression."
    )
    refused(ValueError, text, model, items, tmp_path, targets=targets)
    # what was begun can go on once the data are mended, and is no finished run
    assert not (tmp_path / "run" / "COMMIT.json").exists()


@pytest.mark.parametrize("kind", [int, np.int64, torch.tensor, lambda n: torch.tensor([n]), float])
def test_labels_of_any_kind_are_indices(kind, model, data):
    want = ifa.analyze(model, data, layer="conv2", progress=False)["conv2"].to_dataset()
    items = [(values, kind(label), name) for values, label, name in data]
    tree = ifa.analyze(model, items, layer="conv2", progress=False)
    assert tree["conv2"].to_dataset().identical(want)


@pytest.mark.parametrize("position", [0, 5])
def test_a_real_label_of_the_wrong_length_names_the_sample(position, tmp_path):
    model = net(1, 3)
    data = measured(model, 8)
    items = [*data[:position], (data[0][0], [1.0, 2.0]), *data[position:]]
    text = "one for each of 3 outputs, got [1.0, 2.0] for sample 0"
    text = "has outputs, 3, got 2 numbers for sample 5 (id '5')" if position else text
    refused(ValueError, text, model, items, tmp_path, task="regression", batch_size=5)


@pytest.mark.parametrize("label", ["tall", None], ids=str)
def test_a_real_label_that_is_no_number(label, tmp_path):
    model = net(1, 1)
    data = measured(model, 8)
    items = [*data[:5], (data[0][0], label), *data[5:]]
    text = f"has outputs, 1, got {label!r} for sample 5"
    refused(ValueError, text, model, items, tmp_path, task="regression")


def test_an_output_that_is_no_table(data, tmp_path):
    model = torch.nn.Sequential(torch.nn.Conv1d(2, 3, 3))
    with pytest.raises(ValueError, match=r"expected a model with outputs \(sample, output\), got"):
        ifa.analyze(model, data, layer="0", progress=False)


def test_an_example_of_another_shape_than_the_data(data, tmp_path):
    model = torch.nn.Sequential(
        torch.nn.Conv1d(2, 4, 3), torch.nn.AdaptiveAvgPool1d(1), torch.nn.Flatten()
    )
    text = "one shape, (2, 13) like the example's, got (2, 11) for sample 0"
    refused(ValueError, text, model, data, tmp_path, layer="0", example=torch.zeros(1, 2, 13))


# Names in errors: the function that was called


IMAGE = torch.zeros(2, 11)


def conv(*more):
    return torch.nn.Sequential(torch.nn.Conv1d(2, 4, 3), torch.nn.AdaptiveAvgPool1d(1), *more)


@pytest.mark.parametrize(
    ("items", "text"),
    [
        ([IMAGE], "expected every item of the data to be (input, label) or"),
        ([(IMAGE, 0), (IMAGE[:, :9], 0)], "expected inputs of one shape, (2, 11) like the"),
        ([("a.png", 0)], "expected inputs that are tensors or arrays of numbers, got str"),
        ([(IMAGE, 9)], "expected labels in 0..3, the model's outputs, got 9 for sample 0"),
        ([], "expected at least one sample, got an empty data set."),
        (iter([]), "expected a sized, indexable data set of (input, label), got list_iterator"),
        ({"train": [(IMAGE, 0)]}, "expected a sized, indexable data set of (input, label), got di"),
    ],
    ids=["no pair", "shapes", "text", "label", "empty", "iterator", "splits"],
)
def test_errors_of_data_name_the_function_that_was_called(items, text, model, data):
    tree = ifa.analyze(model, data, layer="conv2", progress=False)
    methods = {"a": partial(ifa.explain, layer="conv2")}
    metrics = {"drop": ifa.evaluate.confidence}
    for where, call in {
        "ifa.analyze": lambda: ifa.analyze(model, items, layer="conv2", progress=False),
        "ifa.maps": lambda: ifa.maps(model, items, layer="conv2", size=None, progress=False),
        "ifa.contest.table": lambda: ifa.contest.table(
            model, items, methods, metrics, progress=False
        ),
        "ifa.diagnose.principal_features": lambda: ifa.diagnose.principal_features(
            model, "conv2", items, tree
        ),
    }.items():
        with pytest.raises((TypeError, ValueError), match=f"^{re.escape(f'{where}: {text}')}"):
            call()


def test_principal_features_with_its_arguments_in_another_order(model, data):
    tree = ifa.analyze(model, data, layer="conv2", progress=False)
    for arguments, came in (
        ((tree, data), "expected a sized, indexable data set of (input, label), got DataTree."),
        ((data, None), "expected one layer's dataset, or a tree with one layer, got NoneType."),
    ):
        text = f"^{re.escape(f'ifa.diagnose.principal_features: {came}')}"
        with pytest.raises((TypeError, ValueError, LookupError), match=text):
            ifa.diagnose.principal_features(model, "conv2", *arguments)


def test_a_run_that_is_not_there_is_named_by_who_asked(tmp_path):
    for name, call in {"open": ifa.open, "verify": ifa.verify}.items():
        with pytest.raises(
            ValueError, match=rf"^ifa\.{name}: expected a run at .* Give the folder"
        ):
            call(tmp_path / "none")


# What cannot be written


@pytest.mark.parametrize(
    ("options", "items", "text"),
    [
        ({}, "id", r"the id of sample 2 to be text that UTF-8 can write, got '\udcff.png'."),
        ({"target_names": ["a", "\udcff", "c", "d"]}, "", "every target name to be text that"),
        ({"groups": ["a", "\udcff"] * 4}, "", "the group label of sample 1 to be text that UTF-8"),
    ],
    ids=["id", "target name", "group"],
)
@pytest.mark.parametrize("stored", [True, False])
def test_text_that_no_file_can_hold(options, items, text, stored, model, data, tmp_path):
    if items:
        data = [(*item[:2], "\udcff.png" if index == 2 else "a") for index, item in enumerate(data)]
    store = tmp_path / "run" if stored else None
    with pytest.raises(ValueError, match=re.escape(f"ifa.analyze: expected {text}")) as caught:
        ifa.analyze(model, data, layer="conv2", store=store, progress=False, **options)
    assert "os.fsencode(name).decode(errors='replace')" in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("groups", "text"),
    [
        ([None, "a"] * 4, "a group label for each sample, got None for sample 0. Give those with"),
        (
            [1.0, float("nan")] * 4,
            "a group label for each sample, got nan for sample 1. Give those",
        ),
        ([[1], [1, 2]] * 4, "one group label for each of 8 samples, got shape (8, 0)."),
    ],
    ids=["none", "nan", "ragged"],
)
def test_groups_that_are_missing(groups, text, model, data, tmp_path):
    said = refused(ValueError, text, model, data, tmp_path, groups=groups)
    assert said.startswith("ifa.analyze: expected ")
    assert not (tmp_path / "run").exists()


def test_groups_of_several_kinds_are_text(model, data):
    mixed = np.array([1, "a"] * 4, dtype=object)
    tree = ifa.analyze(model, data, layer="conv2", groups=mixed, progress=False)
    assert tree["conv2"]["group"].values.tolist() == ["1", "a"]


class Module(torch.nn.Module):
    """A layer whose dotted name is that of the file which describes a Zarr group."""

    def __init__(self):
        super().__init__()
        self.zarr = torch.nn.Module()
        self.zarr.json = torch.nn.Conv1d(2, 4, 3)

    def forward(self, x):
        return self.zarr.json(x).mean(2)


def test_a_layer_named_like_a_file_of_the_store(data, tmp_path):
    text = "expected a layer whose name can be that of a group, got 'zarr.json'"
    refused(ValueError, text, Module().eval(), data, tmp_path, layer="zarr.json")
    assert not (tmp_path / "run").exists()


# Arrays of another byte order


def test_arrays_of_another_byte_order_are_taken(model, data, tmp_path):
    want = ifa.analyze(model, data, layer="conv2", progress=False)["conv2"].to_dataset()
    items = [(x.numpy().astype(">f4"), np.array(label, dtype=">i8")) for x, label, _ in data]
    tree = ifa.analyze(model, items, layer="conv2", store=tmp_path / "run", progress=False)
    assert tree["conv2"].to_dataset().identical(want)


# Data that change


class Shrinking:
    """Data of which three items go while they are read; or that only say so."""

    def __init__(self, data, gone):
        self.data, self.gone, self.reads = data, gone, 0

    def __len__(self):
        return len(self.data) if self.reads < 12 else len(self.data) - 3

    def __getitem__(self, index):
        self.reads += 1
        if self.gone and index >= 5:
            raise IndexError("list index out of range")
        return self.data[index]


@pytest.mark.parametrize("workers", [None, 0, 1])
def test_data_that_shrink(workers, model, data):
    text = "expected data that do not change while they are read, got no sample 5 of the"
    with pytest.raises(IndexError, match=f"^ifa.analyze: {text}"):
        ifa.analyze(model, Shrinking(data, True), layer="conv2", workers=workers, progress=False)


def test_how_many_samples_there_are_is_asked_once(model, data):
    options = {"layer": "conv2", "shard": 3, "progress": False}
    shrinking = Shrinking(data, False)
    tree = ifa.analyze(
        model, shrinking, **options, map=lambda one, shards: (one(shard) for shard in shards)
    )
    assert len(shrinking) < len(data)
    assert tree["conv2"].identical(ifa.analyze(model, data, **options)["conv2"])
    assert tree["samples"].sizes["sample"] == len(data)


# Networks that cannot be looked into


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("inside", [False, True])
def test_networks_compiled_by_jit(inside, data, tmp_path):
    eager = conv(torch.nn.Flatten()).eval()
    model = torch.jit.script(eager)
    model = torch.nn.Sequential(model, torch.nn.ReLU()) if inside else model
    at = " at '0'" if inside else ""
    text = (
        f"expected a torch.nn.Module of Python code, got one compiled by torch.jit{at}, whose "
        "layers cannot be observed. Give the module that it was made of, with the same weights."
    )
    refused(TypeError, text, model, data, tmp_path)
    for call in (ifa.tap, ifa.cut):
        with pytest.raises(TypeError, match=re.escape(text)):
            call(model, "0", IMAGE[None])
    with pytest.raises(TypeError, match=re.escape(f"ifa.trace: {text}")):
        ifa.trace(model, IMAGE[None])
    with pytest.raises(TypeError, match=re.escape(text)):
        ifa.explain(model, IMAGE[None], 0)


def test_a_network_that_is_no_module(data):
    with pytest.raises(TypeError, match=r"^ifa\.analyze: expected a torch\.nn\.Module, got functi"):
        ifa.analyze(lambda x: x, data, progress=False)  # pyright: ignore[reportArgumentType]


def test_maps_have_no_summary():
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.Flatten()).eval()
    tree = ifa.maps(net, [(torch.rand(1, 3, 3), 0)] * 2, layer="0", progress=False)
    with pytest.raises(ValueError, match=r"a run of ifa\.analyze, got 'ifa: maps of a population'"):
        ifa.population.summary(tree)
