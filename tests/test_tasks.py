"""Binary networks of one logit, several labels, networks that end in a sigmoid, several heads."""

import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from populations import brute, contents, digits_like, flagged, measured, net, noise
from test_analysis import F32, F64, assert_same, assert_statistics, table_of
from test_extras import EXTRAS, check
from torch import nn

import ifa
from ifa.diagnose.rows import table_of as table_of_run
from ifa.evaluate import deletion
from ifa.plot.sheets import _words
from ifa.population.proposals import propose

QUIET = {"progress": False, "batch_size": 5, "shard": 9}

# task, options of the network, which outputs are explained
FLAGGED = [
    ("binary", {"outputs": 1, "squeeze": True}, "predicted"),
    ("binary", {"outputs": 1}, "label"),
    ("multilabel", {"outputs": 4}, "predicted"),
    ("multilabel", {"outputs": 4}, "label"),
    ("multilabel", {"outputs": 4}, (3, 0)),
    ("multilabel", {"outputs": 1}, (0,)),
]
IDS = [f"{task}-{made['outputs']}-{targets}" for task, made, targets in FLAGGED]


@pytest.mark.parametrize("grouped", [False, True], ids=["all", "grouped"])
@pytest.mark.parametrize(("task", "made", "targets"), FLAGGED, ids=IDS)
def test_statistics_equal_their_definition(task, made, targets, grouped):
    model = net(dtype=torch.float64, **made)
    data, layers = flagged(model), ["conv1", "conv2"]
    groups = ["b", "a", "b"] * 7 + ["a", "b"] if grouped else None
    options = {"targets": targets, "task": task, "groups": groups}
    tree = ifa.analyze(model, data, layer=layers, **options, **QUIET)
    expected, _ = brute(model, data, layers, **options)
    for name in layers:
        assert_statistics(tree[name].to_dataset(), expected[name], F64)
        listed = range(made["outputs"]) if isinstance(targets, str) else targets
        assert tree[name]["target"].values.tolist() == list(listed)
        lead = ("group",) if grouped else ()
        assert tree[name]["importance_overall"].dims == (*lead, "target", "channel")


@pytest.mark.parametrize(("task", "made", "targets"), FLAGGED, ids=IDS)
def test_the_sample_table_equals_its_definition(task, made, targets):
    model = net(1, dtype=torch.float64, **made)
    data = flagged(model, named=True)
    options = {"targets": targets, "task": task}
    tree = ifa.analyze(model, data, layer="conv2", keep_samples="full", **options, **QUIET)
    _, (table, rows) = brute(model, data, ["conv2"], **options)
    samples = tree["samples"]
    assert samples["id"].values.tolist() == [name for _, _, name in data]
    dims = ("sample",) if made["outputs"] == 1 else ("sample", "output")
    for name in ("label", "prediction"):
        values = np.array([row[name] for row in table]).reshape(samples[name].shape)
        np.testing.assert_array_equal(samples[name].values, values)
        assert (samples[name].dims, samples[name].dtype) == (dims, np.int64)
    expected = table_of(table, rows, "conv2", True)
    np.testing.assert_allclose(samples["score"], expected.pop("score"), **F64)
    for name, values in expected.items():
        tolerance = F32 if name == "importance" else F64
        np.testing.assert_allclose(samples["conv2"][name].values, values, **tolerance, err_msg=name)


@pytest.mark.parametrize(("task", "outputs"), [("binary", 1), ("multilabel", 4)])
def test_a_resumed_run_has_the_bits_of_an_undisturbed_one(task, outputs, tmp_path):
    model = net(outputs=outputs)
    data = flagged(model)
    options = {"layer": "conv2", "task": task, "keep_samples": "full", "reductions": EXTRAS}
    whole = ifa.analyze(model, data, store=tmp_path / "whole", **options, **QUIET)

    class Killed(list):
        def __getitem__(self, index):
            if index == 21 and killed:
                raise KeyError("killed")
            return super().__getitem__(index)

    killed = True
    broken = Killed(data)
    places = set(np.linspace(0, 22, 16).astype(int).tolist())
    assert 21 not in places  # which identify the data, and are read first
    with pytest.raises(RuntimeError, match="killed"):
        ifa.analyze(model, broken, store=tmp_path / "half", **options, **QUIET)
    assert (tmp_path / "half/shards/00000.npz").exists()
    assert not (tmp_path / "half/COMMIT.json").exists()
    killed = False
    found = ifa.analyze(model, broken, store=tmp_path / "half", **options, **QUIET)
    runs = [contents(tmp_path / name) for name in ("half", "whole")]
    for run in runs:
        del run["COMMIT.json"]  # which has the time
    assert runs[0] == runs[1]
    assert_same(found, whole, rtol=0)
    assert_same(found, ifa.analyze(model, data, **options, **QUIET), rtol=0)


def chances(model, data):
    """Sigmoid of every output, (sample, output), in float64."""
    with torch.no_grad():
        outputs = model(torch.stack([values for values, *_ in data]))
    return 1 / (1 + np.exp(-outputs.reshape(len(data), -1).double().numpy()))


@pytest.mark.parametrize(("task", "outputs"), [("binary", 1), ("multilabel", 4)])
def test_extra_reductions_and_weights_equal_their_definition(task, outputs):
    model = net(outputs=outputs, dtype=torch.float64)
    data = flagged(model, 60)
    options = {"layer": "conv2", "task": task, "probability_weighted": True}
    tree = ifa.analyze(model, data, reductions=EXTRAS, **options, **QUIET)
    _, (_, rows) = brute(model, data, ["conv2"], task=task)
    dataset = tree["conv2"].to_dataset()
    check(dataset, rows, range(outputs))
    p = chances(model, data)
    for target in range(outputs):
        for name, flag in (("importance", "accepted"), ("importance_overall", "correct")):
            mine = [row for row in rows if row["target"] == target and row[flag]]
            values = np.array([row["importance"] for row in mine])
            # of the predicted value, 1 or 0: that it is 1 among the accepted
            weight = np.array([max(q, 1 - q) for q in p[[row["sample"] for row in mine], target]])
            mean = (weight[:, None] * values).sum(0) / weight.sum()
            np.testing.assert_allclose(dataset[name][target], mean, **F64)
        assert (p[[r["sample"] for r in mine if r["accepted"]], target] > 0.5).all()


def test_a_label_that_nobody_has_is_nan_and_its_extremes_still_count():
    model = net(outputs=3)
    data = flagged(model, never=[1])
    tree = ifa.analyze(model, data, layer="conv2", task="multilabel", **QUIET)
    dataset = tree["conv2"].to_dataset()
    assert dataset["count"][1] == 0
    assert dataset["importance"][1].isnull().all()
    assert dataset["importance_overall"][1].notnull().all()  # of those that rightly lack it
    assert dataset["map_max"][1].notnull().all()
    assert ifa.difference(dataset)[1].isnull().all()


@pytest.mark.parametrize(("task", "outputs"), [("binary", 1), ("multilabel", 4)])
def test_what_sets_an_output_apart_does_not_depend_on_the_others(task, outputs):
    model = net(outputs=outputs)
    data = flagged(model)
    options = {"layer": "conv2", "task": task, **QUIET}
    every, one = (
        ifa.difference(ifa.analyze(model, data, targets=which, **options))
        for which in ("predicted", [0])
    )
    assert one.notnull().all()
    np.testing.assert_array_equal(every[0], one[0])


class Ended(nn.Module):
    def __init__(self, body, end):
        super().__init__()
        self.body, self.end = body, end
        self.input_shape = body.input_shape

    def forward(self, inputs):
        return self.end(self.body(inputs))


@pytest.mark.parametrize(("task", "outputs"), [("binary", 1), ("multilabel", 4)])
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
def test_log_odds_of_a_sigmoid_are_the_logits(task, outputs, weighted):
    model = net(outputs=outputs, dtype=torch.float64)
    data = flagged(model)
    options = {"task": task, "probability_weighted": weighted, "keep_samples": "full", **QUIET}
    of_logits = ifa.analyze(model, data, layer="conv2", **options)
    options["score"] = ifa.score.log_odds
    found = ifa.analyze(Ended(model, nn.Sigmoid()), data, layer="body.conv2", **options)
    for name, want in of_logits["conv2"].data_vars.items():
        np.testing.assert_allclose(found["body.conv2"][name], want, rtol=1e-9, err_msg=name)
    np.testing.assert_array_equal(
        found["samples"]["prediction"], of_logits["samples"]["prediction"]
    )
    assert found["body.conv2"]["importance"].attrs["units"] == "log_odds"


ANALYSES = [
    lambda model, data, **o: ifa.analyze(model, data, progress=False, **o),
    lambda model, data, **o: ifa.maps(model, data, progress=False, **o),
]


@pytest.mark.parametrize("call", ANALYSES, ids=["analyze", "maps"])
@pytest.mark.parametrize(
    ("end", "task", "outputs", "cure"),
    [
        (nn.Softmax(1), "classification", 4, "log_value"),
        (nn.Sigmoid(), "binary", 1, "log_odds"),
        (nn.Sigmoid(), "multilabel", 4, "log_odds"),
    ],
    ids=["classification", "binary", "multilabel"],
)
def test_a_network_that_ends_in_probabilities_is_named_once(call, end, task, outputs, cure):
    body = net(outputs=outputs)
    data = digits_like(body) if task == "classification" else flagged(body)
    model = Ended(body, end)
    options = {"layer": "body.conv2", "task": task}
    with pytest.warns(ifa.ProbabilityOutput, match=rf"^ifa\.\w+: .*score=ifa\.score\.{cure}") as w:
        call(model, data, **options)
    assert len(w) == 1
    assert w[0].filename == __file__
    call(model, data, score=getattr(ifa.score, cure), **options)
    call(body, data, **{**options, "layer": "conv2"})


def test_a_regression_from_zero_to_one_is_not_warned_of():
    body = net(1, 3)
    for end in (nn.Sigmoid(), nn.Softmax(1)):
        model = Ended(body, end)
        ifa.analyze(model, measured(model), layer="body.conv2", task="regression", progress=False)


def test_outputs_that_are_no_probabilities_are_refused_under_a_score_of_these():
    model = net(outputs=4)
    options = {"layer": "conv2", "score": ifa.score.log_odds, "progress": False}
    text = r"expected outputs from 0 to 1, which the score log_odds takes for probabilities, got -"
    with pytest.raises(ValueError, match=text):
        ifa.analyze(model, flagged(model), task="multilabel", **options)
    with pytest.raises(ValueError, match=text):
        ifa.analyze(model, digits_like(model), probability_weighted=True, **options)


REFUSED = [
    (1, 0, {}, "2 outputs for task='classification', .* If it is a logit, .* say task='binary'"),
    (4, 1, {"task": "binary"}, "one output for task='binary', got 4. Say task='classification'"),
    (4, [1, 0, 0, 1], {}, r"labels in 0\.\.3, .*0 or 1 for each output, say task='multilabel'"),
    (4, 2, {"task": "multilabel"}, "0 or 1 for each of the model's 4 outputs, got 2 for sample 0"),
    (4, [0, 1], {"task": "multilabel"}, r"each of the model's 4 outputs, got \[0, 1\] for sample"),
    (1, 2, {"task": "binary"}, "labels that are 0 or 1, got 2 for sample 0 .* Write what is there"),
    (1, np.nan, {"task": "binary"}, "labels that are 0 or 1, got nan for sample 0"),
    (
        1,
        1,
        {"task": "binary", "score": ifa.score.probability},
        "score of each output by itself for task='binary', got probability, .*ifa.score.sigmoid",
    ),
]


@pytest.mark.parametrize(("outputs", "label", "options", "text"), REFUSED)
@pytest.mark.parametrize("call", ANALYSES, ids=["analyze", "maps"])
def test_what_is_refused(call, outputs, label, options, text):
    model = net(1, outputs)
    data = [(values, label) for values in noise(model, 3)]
    with pytest.raises(ValueError, match=text):
        call(model, data, layer="conv2", **options)


@pytest.mark.parametrize("kind", [bool, float, torch.tensor, lambda n: torch.tensor([n]), np.bool_])
def test_labels_of_any_kind_are_flags(kind):
    model = net(1, 1)
    data = flagged(model)
    options = {"layer": "conv2", "task": "binary", **QUIET}
    want = ifa.analyze(model, data, **options)["conv2"].to_dataset()
    items = [(values, kind(label)) for values, label in data]
    assert ifa.analyze(model, items, **options)["conv2"].to_dataset().identical(want)


def test_vectors_of_labels_of_any_kind_are_flags():
    model = net(1, 3)
    data = flagged(model)
    options = {"layer": "conv2", "task": "multilabel", **QUIET}
    want = ifa.analyze(model, data, **options)["conv2"].to_dataset()
    for kind in (list, tuple, torch.tensor, lambda row: row.astype(bool), np.float32):
        items = [(values, kind(label)) for values, label in data]
        assert ifa.analyze(model, items, **options)["conv2"].to_dataset().identical(want)


def test_the_unit_of_an_output_is_its_own():
    model = net(1, 3)
    options = {"layer": "conv2", "progress": False}
    tree = ifa.analyze(model, measured(model), task="regression", **options)
    assert tree["conv2"]["importance"].attrs["units"] == "output"
    assert tree["conv2"]["importance_variance"].attrs["units"] == "output**2"
    assert tree["samples"]["score"].attrs["units"] == "output"
    found = ifa.maps(model, measured(model), task="regression", **options)
    assert found["conv2"]["map"].attrs["units"] == "output"
    flags = ifa.analyze(model, flagged(model), task="multilabel", **options)
    assert flags["conv2"]["importance"].attrs["units"] == "logit"


@pytest.mark.parametrize(("task", "outputs"), [("binary", 1), ("multilabel", 4)])
def test_maps_are_those_of_every_output(task, outputs):
    model = net(outputs=outputs, dtype=torch.float64)
    data = flagged(model)
    statistics = ifa.analyze(model, data, layer="conv2", task=task, **QUIET)
    found = ifa.maps(model, data, layer="conv2", task=task, scale=statistics, progress=False)
    inputs = torch.stack([values for values, *_ in data])
    every = torch.arange(outputs)[:, None].expand(-1, len(data))
    want = ifa.explain(model, inputs, every, layer="conv2", scale=statistics)
    np.testing.assert_allclose(found["conv2"]["map"], want, **F64)
    assert found["target"].values.tolist() == list(range(outputs))


def full(task, outputs, samples=60, **options):
    """A run with all importances, and the rows of its definition."""
    model = net(outputs=outputs, dtype=torch.float64)
    data = flagged(model, samples)
    options = {"layer": "conv2", "task": task, "keep_samples": "full", **QUIET, **options}
    return ifa.analyze(model, data, **options), brute(model, data, ["conv2"], task=task)[1][1]


@pytest.mark.parametrize(("task", "outputs"), [("binary", 1), ("multilabel", 4)])
def test_what_reads_the_sample_table_reads_each_output(task, outputs):
    tree, rows = full(task, outputs)
    interval = ifa.population.bootstrap(tree, draws=50)
    assert (interval.low <= tree["conv2"]["importance"]).all()
    assert (interval.high >= tree["conv2"]["importance"]).all()
    stable = ifa.population.stability(tree, ifa.select.strongest, of="difference", draws=5)
    assert stable.to_array().notnull().all()
    table = table_of_run(tree, None, "test")
    right = {(row["sample"], row["target"]): row["correct"] for row in rows}
    pairs = zip(table.sample.tolist(), table.target.tolist(), strict=True)
    assert [right[pair] for pair in pairs] == table.right.tolist()
    shifted = ifa.diagnose.shift(tree, tree)
    samples = [all(right[n, t] for t in range(outputs)) for n in range(60)]
    assert shifted["right_a"] == np.mean(samples)
    found = ifa.diagnose.outliers(tree)
    assert set(found["target"].values.tolist()) <= set(range(outputs))
    assert ifa.diagnose.redundancy(tree).attrs["diagnosis"] == "redundancy"
    assert ifa.plot.summary(tree).axes


def test_the_summary_counts_each_label():
    tree, rows = full("multilabel", 3, target_names=["a", "b", "c"])
    said = ifa.population.summary(tree).splitlines()
    assert said[0] == "60 samples, multilabel"
    assert said[1].startswith("all labels of a sample: 0.")
    for target, name in enumerate("abc"):
        mine = [row for row in rows if row["target"] == target]
        correct = sum(row["correct"] for row in mine)
        found = sum(row["accepted"] for row in mine)
        (line,) = [line for line in said if line.startswith(f"accuracy of {name}: ")]
        assert f", {correct} of 60; with it {found} of " in line
    one, rows = full("binary", 1)
    line = ifa.population.summary(one).splitlines()[1]
    assert line.startswith(f"accuracy: {sum(row['correct'] for row in rows) / 60:.3f} (95 % ")


def test_reports_are_of_one_label():
    tree, rows = full("binary", 1)
    report = ifa.evaluate.classification_report(tree)
    assert report["target"].values.tolist() == [0, 1]
    assert report["confusion"][1, 1] == sum(row["accepted"] for row in rows)
    several, _ = full("multilabel", 3)
    with pytest.raises(ValueError, match=r"got task='multilabel'\. Of each label ifa\.population"):
        ifa.evaluate.classification_report(several)


@pytest.mark.parametrize(("task", "outputs"), [("binary", 1), ("multilabel", 3)])
def test_merged_runs_equal_one_run(task, outputs, tmp_path):
    model = net(outputs=outputs)
    data = flagged(model, 30, named=True)
    options = {"layer": "conv2", "task": task, "keep_samples": "full", **QUIET}
    whole = ifa.analyze(model, data, **options)
    for name, part in (("a", data[:17]), ("b", data[17:])):
        ifa.analyze(model, part, store=tmp_path / name, **options)
    assert_same(ifa.merge(tmp_path / "a", tmp_path / "b"), whole)


@pytest.mark.parametrize(
    ("outputs", "labels", "task"),
    [
        (1, [0, 1], "binary"),
        (1, [0.25, 1.0], "regression"),
        (3, [2, 0], "classification"),
        (3, [[0, 1, 1], [0, 0, 0]], "multilabel"),
        (3, [[0.0, 2.0, 1.0], [0, 0, 0]], "regression"),
    ],
)
def test_what_is_proposed(outputs, labels, task):
    model = net(1, outputs)
    data = list(zip(noise(model, 2), labels, strict=True))
    assert propose("test", model, data).task == task


def test_pictures_say_which_labels_are_there():
    said = {}
    for task, outputs in (("binary", 1), ("multilabel", 3)):
        model = net(outputs=outputs)
        data = [(values, np.eye(outputs)[0]) for values in noise(model, 4)]
        tree = ifa.maps(model, data, layer="conv2", task=task, progress=False)
        said[task] = [_words(tree, 0, names) for names in (None, ["cat", "dog", "owl"][:outputs])]
    assert [words[1] for words in said["binary"]] == ["expected: 1", "expected: cat"]
    assert [words[1] for words in said["multilabel"]] == ["expected: 0", "expected: cat"]
    assert any(line.startswith("for cat: ") for line in said["multilabel"][1])


def test_a_table_has_several_columns_of_labels(tmp_path):
    pandas = pytest.importorskip("pandas")
    model = net(outputs=2)
    rows = flagged(model, 5)
    for n, (values, _) in enumerate(rows):
        np.save(tmp_path / f"{n}.npy", values.numpy())
    labels = np.array([label for _, label in rows])
    frame = {"path": [f"{n}.npy" for n in range(5)], "edema": labels[:, 0], "mass": labels[:, 1]}
    names = ["edema", "mass"]
    data = ifa.data.table(pandas.DataFrame(frame), root=tmp_path, label=names, names=names)
    tree = ifa.analyze(model, data, layer="conv2", task="multilabel", progress=False)
    np.testing.assert_array_equal(tree["samples"]["label"], labels)


def entries(model, samples=4):
    """What a table is made of: two methods and a metric, for one logit or several labels."""
    score = {"score": ifa.score.sigmoid}
    methods = ifa.contest.cam_methods("conv2", weightings={"fullcam": ifa.weight.fullcam})
    metrics = {name: partial(metric, **score) for name, metric in (("deletion", deletion),)}
    return model, flagged(model, samples), methods, metrics


@pytest.mark.parametrize(("task", "outputs", "target"), [("binary", 1, 0), ("multilabel", 3, 2)])
def test_a_table_is_of_one_output(task, outputs, target):
    model, data, methods, metrics = entries(net(outputs=outputs, dtype=torch.float64))
    options = {"task": task, **({} if outputs == 1 else {"targets": target}), "progress": False}
    found = ifa.contest.table(model, data, methods, metrics, **options)
    inputs = torch.stack([values for values, _ in data])
    labels = np.array([np.reshape(label, -1)[target] for _, label in data])
    np.testing.assert_array_equal(found["label"], labels)
    np.testing.assert_array_equal(found["prediction"], chances(model, data)[:, target] > 0.5)
    assert (found["target"] == target).all()
    maps = ifa.explain(model, inputs, target, layer="conv2")
    want = deletion(model, inputs, maps, target, score=ifa.score.sigmoid).auc
    np.testing.assert_allclose(found["value"][0, 0], want, **F64)


def test_a_table_of_a_regression_is_of_one_output():
    model, _, methods, _ = entries(net(1, 3))
    metrics = ifa.contest.default_metrics(score=ifa.score.value)
    metrics = {name: metrics[name] for name in ("deletion", "sparseness")}
    data = measured(model, 4)
    options = {"task": "regression", "targets": 1, "progress": False}
    found = ifa.contest.table(model, data, methods, metrics, **options)
    np.testing.assert_array_equal(found["label"], [label[1] for _, label in data])
    assert found["prediction"].dtype == np.float64


def test_tables_refuse_what_is_not_one_output():
    model, data, methods, metrics = entries(net(1, 3))
    with pytest.raises(
        ValueError, match=r"an output for task='multilabel', one of 0\.\.2, got 'pre"
    ):
        ifa.contest.table(model, data, methods, metrics, task="multilabel", progress=False)
    model, data, methods, metrics = entries(net(1, 1))
    with pytest.raises(ValueError, match=r"contest\.table: .* say task='binary'"):
        ifa.contest.table(model, data, methods, metrics, progress=False)
    with pytest.raises(ValueError, match=r"at least 2 classes, got one output.*score\.sigmoid"):
        ifa.contest.table(
            model, data, methods, {"deletion": deletion}, task="binary", progress=False
        )


@pytest.mark.parametrize(
    ("end", "task", "outputs"),
    [(nn.Softmax(1), "classification", 4), (nn.Sigmoid(), "binary", 1)],
    ids=["softmax", "sigmoid"],
)
def test_a_table_names_a_network_that_ends_in_probabilities_once(end, task, outputs):
    body = net(1, outputs)
    model, data = Ended(body, end), digits_like(body, 5) if outputs > 1 else flagged(body, 5)
    options = {"task": task, "shard": 2, "progress": False}
    score = ifa.score.probability if outputs > 1 else ifa.score.sigmoid
    metrics = {"deletion": partial(deletion, score=score)}
    weightings = {name: getattr(ifa.weight, name) for name in ("fullcam", "gradcam")}
    methods = ifa.contest.cam_methods("body.conv2", weightings=weightings)
    with pytest.warns(ifa.ProbabilityOutput, match=r"^ifa\.contest\.table: ") as caught:
        ifa.contest.table(model, data, methods, metrics, **options)
    assert len(caught) == 1
    methods = ifa.contest.cam_methods("body.conv2", weightings=weightings, score=ifa.score.log_odds)
    metrics = {"deletion": ifa.contest.default_metrics(score=ifa.score.value)["deletion"]}
    found = ifa.contest.table(model, data, methods, metrics, **options)
    assert len(set(found["prediction"].values.tolist())) > 1


@pytest.mark.parametrize(("task", "outputs"), [("binary", 1), ("multilabel", 3)])
@pytest.mark.parametrize("by", ["difference", "greedy"])
def test_principal_features_keep_each_label(task, outputs, by):
    model = net(outputs=outputs, dtype=torch.float64)
    data = flagged(model, 40)
    statistics = ifa.analyze(model, data, layer="conv2", task=task, **QUIET)
    options = {"by": by, "ratio": (0.4, 1.0), "seeds": range(2)}
    found = ifa.diagnose.principal_features(model, "conv2", data, statistics, **options)
    if by == "greedy":  # what it looks at measures nothing
        looked = np.linspace(0, 39, 20).round().astype(int)
        data = [data[place] for place in np.setdiff1d(np.arange(40), looked)]
    labels = np.array([np.reshape(label, -1) for _, label in data])
    accuracy = (labels == (chances(model, data) > 0.5)).mean()
    assert found.attrs["reference"] == pytest.approx(accuracy)
    assert (found["performance"][:, 0, 1] == found.attrs["reference"]).all()
    assert (found["low"][:, 0] < found["performance"][:, 0]).all()
    auroc = ifa.diagnose.principal_features(
        model, "conv2", data, statistics, metric="auroc", **{**options, "by": "importance"}
    )
    by_pairs = [
        np.mean(p[y == 1][:, None] > p[y == 0])
        for p, y in zip(chances(model, data).T, labels.T, strict=True)
    ]
    assert auroc.attrs["reference"] == pytest.approx(np.mean(by_pairs))


def test_principal_features_refuse_a_sigmoid():
    body = net(outputs=1)
    data, model = flagged(body), Ended(body, nn.Sigmoid())
    statistics = ifa.analyze(
        model, data, layer="body.conv2", task="binary", score=ifa.score.log_odds, **QUIET
    )
    with pytest.raises(ValueError, match=r"expected logits, above 0 .* ends in a sigmoid"):
        ifa.diagnose.principal_features(model, "body.conv2", data, statistics)


def test_of_a_binary_task_the_labels_may_be_named():
    model = net(1, 1)
    kinds = ["none", "tumor"]
    data = ifa.data.signals(noise(model, 6), kinds * 3, rate=1.0, names=kinds)
    options = {"layer": "conv2", "task": "binary", **QUIET}
    for names in (["none", "tumor"], ["tumor"]):
        tree = ifa.analyze(model, data, target_names=names, **options)
        assert tree["conv2"]["target_name"].values.tolist() == ["tumor"]
    with pytest.raises(ValueError, match="in the order of the outputs' names"):
        ifa.analyze(model, data, target_names=["tumor", "none"], **options)


# several heads ----------------------------------------------------------------------------------


class Heads(nn.Module):
    """Four classes, one real value and two labels, of one body."""

    def __init__(self):
        super().__init__()
        self.body, self.input_shape = net(1, 7), (2, 11)

    def forward(self, inputs):
        kind, age, flags = self.body(inputs).split([4, 1, 2], 1)
        return {"kind": kind, "age": age, "flags": flags}


HEADS = {
    "kind": ("classification", lambda n: n % 4),
    "age": ("regression", float),
    "flags": ("multilabel", lambda n: [n % 2, 1]),
}


def of_head(name, call=ifa.analyze, **options):
    model, (task, label) = Heads().eval(), HEADS[name]
    data = [(values, label(n)) for n, values in enumerate(noise(model, 9))]
    options = {"layer": "body.conv2", "output": name, "task": task, "progress": False, **options}
    return call(model, data, **options)


def test_every_head_is_analyzed_by_itself():
    whole = net(1, 7)
    for name, outputs in (("kind", [0, 1, 2, 3]), ("age", [4]), ("flags", [5, 6])):
        found = of_head(name, targets=list(range(len(outputs))))
        bare = [(values, [0.0] * 7) for values in noise(whole, 9)]
        of_all = ifa.analyze(
            whole, bare, layer="conv2", task="regression", targets=outputs, progress=False
        )
        np.testing.assert_allclose(found["samples"]["score"], of_all["samples"]["score"], rtol=1e-5)
        mine, all_of_it = found["samples/body.conv2"], of_all["samples/conv2"]
        np.testing.assert_allclose(mine["map_max"], all_of_it["map_max"], rtol=1e-4, atol=1e-6)
        assert json.loads(found.attrs["spec"])["output"] == name


@pytest.mark.parametrize("name", HEADS)
def test_a_scale_of_another_head_is_refused(name):
    statistics = {head: of_head(head) for head in HEADS}
    maps = of_head(name, ifa.maps, scale=statistics[name])
    assert maps["body.conv2"]["map"].notnull().all()
    inputs = noise(Heads(), 9)
    options = {"layer": "body.conv2", "output": name}
    ifa.explain(Heads().eval(), inputs, 0, scale=statistics[name], **options)
    for other in set(HEADS) - {name}:
        text = f'one of output "{other}" instead of "{name}"'
        with pytest.raises(ValueError, match=text):
            of_head(name, ifa.maps, scale=statistics[other])
        with pytest.raises(ValueError, match=text):
            ifa.explain(Heads().eval(), inputs, 0, scale=statistics[other], **options)


# the page ----------------------------------------------------------------------------------------


def test_the_recipes_find_what_was_planted():
    page = Path(__file__).parents[1] / "docs" / "how-to" / "tasks.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
    assert all(len([line for line in block.splitlines() if line]) <= 17 for block in blocks)
    found = {"__name__": "page"}
    exec(compile("\n".join(blocks), page.name, "exec"), found)
    for name in ("binary", "softmax", "volume", "head"):
        share, chance = found[name]
        assert share > 3 * chance, name
    share, chance = found["sleep"]  # of which a third is a wave
    assert 1 - share < (1 - chance) / 3
    assert all(share > 4 * chance for share, chance in [*found["several"], *found["every"]])
    assert found["right"][0][0] > found["right"][1][0] + 0.1  # selected and random channels
    assert found["wrist_found"] == 1
    assert found["said"][0].category is ifa.ProbabilityOutput
    assert all(run["3"]["count"].values.sum() > 70 for run in found["runs"])
