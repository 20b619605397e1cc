"""Options of the analysis beyond importances: reductions, perturbations, confidence, workers."""

import functools
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from naming import plain
from populations import brute, digits_like, measured, net
from test_analysis import F32, assert_same

import ifa
from ifa.reduce import extras

EXTRAS = tuple(extras.EXTRAS)

QUIET = {"progress": False, "shard": 9, "batch_size": 4}


def accepted(rows, target, group=None, groups=None):
    """Importances and indices of the accepted samples of a target."""
    mine = [
        row
        for row in rows
        if row["accepted"]
        and target in (None, row["target"])
        and (group is None or groups[row["sample"]] == group)
    ]
    return np.array([r["importance"] for r in mine]), np.array([r["sample"] for r in mine])


def check(dataset, rows, targets, group=None, groups=None):
    for position, target in enumerate(targets):
        values, sample = accepted(rows, target, group, groups)
        count = dataset["importance_histogram"][position]
        assert (count.sum("bin") == len(values)).all()
        top_value, top_sample = dataset["top_value"][position], dataset["top_sample"][position]
        for channel in range(5):
            ranked = np.argsort(-values[:, channel], kind="stable")[:10] if len(values) else []
            best = sample[ranked].tolist() if len(ranked) else []
            assert top_sample[channel].values.tolist() == best + [-1] * (10 - len(best))
            if len(best):
                np.testing.assert_allclose(
                    top_value[channel][: len(best)], values[ranked, channel], **F32
                )
                exact = np.quantile(values[:, channel], dataset["quantile"])
                read = dataset["importance_quantiles"][position, channel]
                bound = np.abs(values[:, channel]).max() / 32
                np.testing.assert_allclose(read, exact, rtol=1 / 32, atol=bound)
        assert top_value.isnull().values.sum() == (top_sample == -1).values.sum()
    every, _ = accepted(rows, None, group, groups)
    np.testing.assert_allclose(dataset["importance_covariance"], np.cov(every.T), rtol=1e-4)
    expected = np.zeros((5, 5), dtype=int)
    for row in every:
        expected[row.argmax(), row.argmax()] += 1  # a tenth of 5 channels is one
    np.testing.assert_array_equal(dataset["cooccurrence"], expected)


@pytest.mark.parametrize("targets", ["predicted", (3, 1)], ids=str)
@pytest.mark.parametrize("grouped", [False, True], ids=["all", "grouped"])
def test_extra_reductions_equal_their_definition(targets, grouped, tmp_path):
    model = net(dtype=torch.float64)
    data = digits_like(model, 60)
    groups = ["a", "b", "a", "b", "b", "a"] * 10 if grouped else None
    options = {**QUIET, "layer": "conv2", "targets": targets, "groups": groups}
    tree = ifa.analyze(model, data, reductions=EXTRAS, store=tmp_path / "run", **options)
    _, (_, rows) = brute(model, data, ["conv2"], targets=targets)
    listed = range(4) if targets == "predicted" else targets
    dataset = tree["conv2"].to_dataset()
    for position, group in enumerate(["a", "b"] if grouped else [None]):
        part = dataset.isel(group=position) if grouped else dataset
        check(part, rows, listed, group, groups)
    assert dataset["importance_histogram"].dtype == np.int64
    assert dataset["bin"].attrs["units"] == "logit"
    assert dataset["importance_covariance"].attrs["units"] == "logit**2"
    memory = ifa.analyze(model, data, reductions=EXTRAS, **options)
    assert_same(memory, tree, rtol=0)
    plain = ifa.analyze(model, data, **options)["conv2"].to_dataset()
    assert plain.identical(dataset[list(plain.data_vars)].drop_vars("bin", errors="ignore"))


def test_extra_reductions_without_an_accepted_sample_and_of_a_regression():
    model = net(1)
    nothing = ifa.analyze(
        model, digits_like(model, right=-1), layer="conv2", reductions=EXTRAS, **QUIET
    )["conv2"]
    assert nothing["importance_histogram"].sizes["bin"] == 1
    assert not nothing["importance_histogram"].any()
    assert nothing["importance_covariance"].isnull().all()
    assert (nothing["top_sample"] == -1).all()
    model = net(1, 43)
    data = measured(model)
    options = {"layer": "conv2", "task": "regression", **QUIET}
    found = ifa.analyze(model, data, reductions="histogram", **options)["conv2"]
    assert (found["importance_histogram"].sum("bin") == len(data)).all()


@pytest.mark.parametrize("targets", ["predicted", (3, 1)], ids=str)
def test_a_builder_is_a_weighting_like_others(targets, tmp_path):
    model = net()
    data = digits_like(model, 12)
    perturb = functools.partial(ifa.perturb.ablationcam, chunk=3)
    layers = ["conv1", "conv2"]
    options = {**QUIET, "layer": layers, "targets": targets, "keep_samples": "full"}
    tree = ifa.analyze(model, data, weight=perturb, store=tmp_path / "run", **options)
    weighed = ifa.analyze(model, data, **options)
    inputs = torch.stack([values for values, _ in data])
    prediction = model(inputs).argmax(1)
    wanted = prediction if targets == "predicted" else torch.tensor(targets)[:, None].expand(-1, 12)
    for layer in layers:
        found = perturb(model, layer, inputs[:2])(inputs, wanted)
        product = found.weights[..., None, None] * found.activations
        table = tree["samples"][layer]
        np.testing.assert_allclose(table["importance"], product.sum((-1, -2)), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(
            table["map_max"], product.sum(-3).amax((-1, -2)), rtol=1e-4, atol=1e-5
        )
    for name in ("score", "prediction", "label"):
        np.testing.assert_array_equal(tree["samples"][name], weighed["samples"][name])
    other = functools.partial(ifa.perturb.ablationcam, chunk=2)
    with pytest.raises(ValueError, match=r"weight\.options\.chunk: 3 in the run, 2 now"):
        ifa.analyze(model, data, weight=other, store=tmp_path / "run", **options)


def test_probability_weighs_the_mean():
    model = net(dtype=torch.float64)
    data = digits_like(model, 40)
    options = {"layer": "conv2", "keep_samples": "full", **QUIET}
    plain, tree = (
        ifa.analyze(model, data, probability_weighted=flag, **options) for flag in (False, True)
    )
    inputs = torch.stack([values for values, _ in data])
    confidence = model(inputs).softmax(1).amax(1).detach().numpy()
    _, (_, rows) = brute(model, data, ["conv2"])
    for target in range(4):
        values, sample = accepted(rows, target)
        weight = confidence[sample]
        np.testing.assert_allclose(
            tree["conv2"]["importance"][target], np.average(values, axis=0, weights=weight)
        )
        np.testing.assert_allclose(
            tree["conv2"]["importance_variance"][target],
            np.cov(values.T, aweights=weight).diagonal(),
        )
    values, sample = accepted(rows, None)
    overall = np.average(values, axis=0, weights=confidence[sample])
    np.testing.assert_allclose(tree["conv2"]["importance_overall"], overall)
    for name in ("count", "map_max", "map_min_overall"):
        assert plain["conv2"][name].equals(tree["conv2"][name])
    with pytest.raises(ValueError, match="probability_weighted"):
        ifa.population.bootstrap(tree)


class Shapes(torch.utils.data.Dataset):
    """Items that another process can read; the one of index `odd` has another shape."""

    def __init__(self, odd=-1):
        self.odd = odd

    def __len__(self):
        return 11

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        values = torch.randn(2, 11 + (index == self.odd), generator=generator)
        return values, index % 4, f"case {index}"


class Bound(Shapes):
    """Data that only the thread that opened them can read, as those of sqlite."""

    def __init__(self):
        super().__init__()
        self.thread = threading.get_ident()

    def __getitem__(self, index):
        assert threading.get_ident() == self.thread
        return super().__getitem__(index)


def test_no_workers_read_in_the_callers_thread():
    options = {"layer": "conv2", "batch_size": 2, "progress": False}
    model = net(1)
    here = ifa.analyze(model, Bound(), workers=0, **options)
    assert_same(ifa.analyze(model, Shapes(), **options), here, rtol=0)
    with pytest.raises(RuntimeError, match="sample 0 to be read, got AssertionError"):
        ifa.analyze(model, Bound(), **options)


def test_workers_read_the_same_bits_in_the_same_order(tmp_path):
    model = net(1)
    options = {"layer": "conv2", "progress": False, "shard": 6, "batch_size": 2}
    state = torch.get_rng_state()
    here = ifa.analyze(model, Shapes(), store=tmp_path / "run", **options)
    there = ifa.analyze(model, Shapes(), workers=2, **options)
    assert torch.equal(torch.get_rng_state(), state)
    assert_same(there, here, rtol=0)
    assert_same(ifa.analyze(model, Shapes(), workers=1, store=tmp_path / "run", **options), here, 0)
    with pytest.raises(ValueError, match=r"ifa\.analyze: expected inputs of one shape.*sample 7"):
        ifa.analyze(model, Shapes(odd=7), workers=2, **options)


def made(seed):
    """Make a network by reference, and say in a file that it was made."""
    import os

    with open(os.environ["IFA_TEST_MADE"], "a") as file:
        file.write(f"{os.getpid()}\n")
    return net(1, seed=seed)


def test_a_reference_is_loaded_once_in_each_worker_process(tmp_path, monkeypatch):
    monkeypatch.setenv("IFA_TEST_MADE", str(tmp_path / "made"))
    reference = ifa.ModelRef("test_extras:made", config={"seed": 3})
    options = {"layer": "conv2", "progress": False, "shard": 3}
    here = ifa.analyze(net(1, seed=3), Shapes(), **options)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        there = ifa.analyze(reference, Shapes(), map=pool.map, **options)
    assert_same(there, here, rtol=1e-6)
    processes = (tmp_path / "made").read_text().split()
    assert len(processes) == len(set(processes)) == 2  # this one and the worker, four shards


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"reductions": ("moments",)}, "distinct reductions of ('histogram', 'top_samples',"),
        ({"reductions": ("histogram", "histogram")}, "got ['histogram', 'histogram']."),
        ({"workers": -1}, "workers to be None or 0 or more, got -1."),
        (
            {"probability_weighted": True, "task": "regression"},
            "probability_weighted=True for outputs that are probabilities",
        ),
    ],
    ids=plain,
)
def test_wrong_options(options, said, tmp_path):
    model = net(1)
    with pytest.raises(ValueError, match=r"ifa\.analyze: expected ") as caught:
        ifa.analyze(model, Shapes(), store=tmp_path / "run", layer="conv2", **options)
    assert said in str(caught.value)
    assert not (tmp_path / "run").exists()
    with pytest.raises(TypeError, match=r"weight to be a kernel of .* a step or a builder"):
        ifa.analyze(model, Shapes(), layer="conv2", weight="scorecam")


def test_states_too_large_to_keep_are_refused(monkeypatch):
    monkeypatch.setattr("ifa.population.analysis.MOST_BYTES", 1000)
    model = net(1)
    with pytest.raises(ValueError, match="Give fewer targets, groups or layers"):
        ifa.analyze(model, Shapes(), layer="conv2", reductions="histogram", progress=False)


@ifa.step
def first_two(features):
    """Another number of channels than the layer's."""
    activations, gradients, target = features
    return ifa.Weighted(gradients[:2], activations[:2], target)


@ifa.step
def halves(features):
    activations, gradients, target = features
    twice = activations.repeat_interleave(2, 0)
    return ifa.Weighted(gradients.repeat_interleave(2, 0) / 2, twice, target)


@pytest.mark.parametrize("targets", ["predicted", (3, 1)], ids=str)
@pytest.mark.parametrize(("weight", "channels"), [(first_two, 2), (halves, 10)])
def test_a_weighting_may_give_another_number_of_channels(weight, channels, targets, tmp_path):
    model = net(dtype=torch.float64)
    data = digits_like(model, named=True)
    options = {**QUIET, "targets": targets, "keep_samples": "full", "reductions": [*EXTRAS][:4]}
    options |= {"layer": ["conv2", "conv1"], "weight": weight}
    run = tmp_path / "run"
    tree = ifa.analyze(model, data, store=run, **options)
    assert tree["conv2"].sizes["channel"] == channels
    assert_same(ifa.analyze(model, data, **options), tree, rtol=0)
    plain = ifa.analyze(model, data, **{**options, "weight": ifa.weight.fullcam})
    factor, index = (1, [0, 1]) if channels == 2 else (2, np.arange(10) // 2)
    for path in ("conv2", "samples/conv2"):
        expected = plain[path]["importance"].isel(channel=index) / factor
        np.testing.assert_allclose(tree[path]["importance"], expected, rtol=1e-5, atol=1e-6)
    (run / "COMMIT.json").unlink()
    (run / "shards" / "00001.npz").unlink()
    assert_same(ifa.analyze(model, data, store=run, **options), tree, rtol=0)
    for name, part in (("a", data[:9]), ("b", data[9:])):
        ifa.analyze(model, part, store=tmp_path / name, **options)
    merged = ifa.merge(tmp_path / "a", tmp_path / "b", store=tmp_path / "both")
    assert_same(merged, tree, rtol=1e-6)
