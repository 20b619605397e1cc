"""Statistics of the user's own, kept by an analysis: resumed, merged, identified and pickled."""

import pickle
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from populations import brute, digits_like, net
from test_analysis import F64, assert_same

import ifa
from ifa.reduce import Statistic, Variable
from ifa.reduce.extras import EXTRAS

QUIET = {"layer": "conv2", "progress": False, "shard": 9, "batch_size": 4}


def read(batch):
    """Importances of accepted entries."""
    return batch.importance[batch.accepted]


def by_group(batch):
    return batch.importance, batch.group


def with_sample(batch):
    return batch.importance, batch.sample


def largest(shape):
    grouped = ifa.reduce.grouped(ifa.reduce.extrema(), size=shape.groups)
    return ifa.reduce.mapped(by_group, grouped)


def whose(shape):
    return ifa.reduce.mapped(with_sample, ifa.reduce.top_samples(2))


def spread(ddof=1):
    return ifa.reduce.mapped(read, ifa.reduce.moments(ddof=ddof))


LARGEST = Statistic(
    largest,
    {"largest": Variable("maximum", ("group", "channel"), "largest importance", "score")},
    by="group",
)
WHOSE = Statistic(
    whose,
    {"whose": Variable("sample", ("channel", "rank"), "samples of the largest importances")},
    samples=("sample",),
)


@pytest.fixture(scope="module")
def case():
    model = net(dtype=torch.float64)
    return model, digits_like(model)


def test_a_reduction_of_ones_own_names_its_variables_and_equals_its_definition(case, tmp_path):
    model, data = case
    own = {"spread": spread(), "total": summed}
    tree = ifa.analyze(model, data, reductions=own, store=tmp_path / "run", **QUIET)
    dataset = tree["conv2"].to_dataset()
    _, (_, rows) = brute(model, data, ["conv2"])
    values = np.array([row["importance"] for row in rows if row["accepted"]])
    assert dataset["spread_mean"].dims == ("channel",)
    np.testing.assert_allclose(dataset["spread_mean"], values.mean(0), **F64)
    np.testing.assert_allclose(dataset["spread_variance"], values.var(0, ddof=1), **F64)
    assert dataset["spread_count"].dims == ()
    assert int(dataset["spread_count"]) == len(values)
    np.testing.assert_allclose(dataset["total"], [[values.sum()] * 2], **F64)
    assert dataset["total"].dims == ("total_0", "total_1")
    assert_same(ifa.analyze(model, data, reductions=own, **QUIET), tree, rtol=0)
    plain = ifa.analyze(model, data, **QUIET)["conv2"].to_dataset()
    assert plain.identical(dataset[list(plain.data_vars)])


summed = ifa.Reduction(
    lambda like: torch.zeros(1, 2, dtype=torch.float64),
    lambda state, batch: state + read(batch).sum(),
    torch.add,
    lambda state: state,
)


def test_a_statistic_that_is_declared_has_its_names_and_units(case):
    model, data = case
    groups = np.arange(len(data)) % 2
    tree = ifa.analyze(model, data, reductions={"own": LARGEST}, groups=groups, **QUIET)
    found = tree["conv2"]["largest"]
    assert found.dims == ("group", "channel")
    assert found.attrs == {"long_name": "largest importance", "units": "logit"}
    _, (_, rows) = brute(model, data, ["conv2"])
    values = np.array([row["importance"] for row in rows])
    np.testing.assert_allclose(found, [values[::2].max(0), values[1::2].max(0)], **F64)
    pooled = ifa.analyze(model, data, reductions={"own": LARGEST}, **QUIET)["conv2"]["largest"]
    assert pooled.dims == ("channel",)


def test_a_run_is_continued_with_the_same_reduction_only(case, tmp_path):
    model, data = case
    run = tmp_path / "run"
    whole = ifa.analyze(model, data, reductions={"spread": spread()}, store=run, **QUIET)
    (run / "COMMIT.json").unlink()
    (run / "shards" / "00001.npz").unlink()
    again = ifa.analyze(model, data, reductions={"spread": spread()}, store=run, **QUIET)
    assert_same(again, whole, rtol=0)
    for other in (
        {"spread": spread(ddof=0)},
        {"spread": spread()._replace(finalize=spread(ddof=0).finalize)},
        {"spread": ifa.reduce.mapped(lambda batch: batch.importance, ifa.reduce.moments())},
        {"other": spread()},
        {"spread": spread(), "own": LARGEST},
        (),
    ):
        with pytest.raises(ValueError, match="reductions"):
            ifa.analyze(model, data, reductions=other, store=run, **QUIET)


def test_merged_runs_are_the_whole(case, tmp_path):
    model, data = case
    own = {"spread": spread(), "own": LARGEST, "whose": WHOSE, "histogram": "histogram"}
    groups = np.array(["b"] * 6 + ["a", "c"] * 8 + ["c"])
    parts = (slice(0, 12), slice(12, None))
    for name, part in zip("ab", parts, strict=True):
        options = {**QUIET, "groups": groups[part], "reductions": own}
        ifa.analyze(model, data[part], store=tmp_path / name, **options)
    runs = tmp_path / "a", tmp_path / "b"
    merged = ifa.merge(*runs, reductions=own)
    whole = ifa.analyze(model, data, groups=groups, reductions=own, **QUIET)
    assert_same(merged["conv2"], whole["conv2"], rtol=1e-12)
    assert whole["conv2"]["whose"].max() > 12
    for wrong in (None, {**own, "spread": spread(ddof=0)}, {"spread": spread()}):
        with pytest.raises(ValueError, match=r"ifa\.merge: expected reductions= to have the red"):
            ifa.merge(*runs, reductions=wrong)


def test_workers_get_the_reductions_too(tmp_path):
    model = net()
    data = digits_like(model)
    own = {"spread": spread(), "own": LARGEST}
    serial = ifa.analyze(model, data, reductions=own, **QUIET)
    with ProcessPoolExecutor(2, get_context("fork")) as pool:
        found = ifa.analyze(model, data, reductions=own, map=pool.map, **QUIET)
    assert_same(found, serial, rtol=0)


MADE = [
    ifa.reduce.cooccurrence(top=2),
    ifa.reduce.covariance(ddof=0),
    ifa.reduce.extrema(),
    ifa.reduce.histogram(bits=2),
    ifa.reduce.mapped(torch.square, ifa.reduce.moments()),
    ifa.reduce.zipped(moments=ifa.reduce.moments(ddof=0), extrema=ifa.reduce.extrema()),
]


@pytest.mark.parametrize("reduction", MADE)
def test_a_reduction_pickles(reduction):
    batches = [torch.arange(6.0).reshape(2, 3), torch.ones(1, 3)]
    again = pickle.loads(pickle.dumps(reduction))
    found, expected = (made.finalize(ifa.reduce.fold(made, batches)) for made in (again, reduction))
    ifa.testing.assert_trees_close(found, expected, rtol=0, atol=0)


def test_ours_is_one_record_and_one_line(case, tmp_path, monkeypatch):
    """What is registered by a name has checks, files, merging and labels."""
    model, data = case
    monkeypatch.setitem(EXTRAS, "spread", LARGEST)
    for name, part in (("a", data[:12]), ("b", data[12:])):
        ifa.analyze(model, part, reductions="spread", store=tmp_path / name, **QUIET)
    merged = ifa.merge(tmp_path / "a", tmp_path / "b", store=tmp_path / "both")
    whole = ifa.analyze(model, data, reductions=["spread", "histogram"], **QUIET)["conv2"]
    np.testing.assert_array_equal(merged["conv2"]["largest"], whole["largest"])


def test_maps_that_are_not_finite_are_left_out():
    class Fragile(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Identity()

        def forward(self, inputs):
            return self.layer(inputs / inputs[:, :, :1]).mean(2)

    inputs = [torch.tensor([[1.0, 2], [1, 3]]), torch.zeros(2, 2)]
    data = [(x, 1) for x in inputs]
    own = {"largest": ifa.reduce.mapped(all_of, ifa.reduce.extrema())}
    tree = ifa.analyze(Fragile().eval(), data, **{**QUIET, "layer": "layer"}, reductions=own)
    assert tree["layer"]["largest_maximum"].notnull().all()


def all_of(batch):
    return batch.importance


def listing(shape):
    return ifa.Reduction(lambda like: [0.0], lambda a, b: a, lambda a, b: a, lambda state: 0.0)


@pytest.mark.parametrize(
    ("own", "error", "said"),
    [
        ({"importance": spread()}, ValueError, r"none of the statistics', got 'importance'"),
        ({"map": spread()}, ValueError, r"\['map_max', 'map_max_overall', 'map_min'"),
        ({"two words": spread()}, ValueError, "got 'two words'"),
        ({"histogram": spread()}, ValueError, "got 'histogram'"),
        ({"x": Statistic(largest, {"count": LARGEST.variables["largest"]})}, ValueError, "'count'"),
        ({"x": spread}, TypeError, r"reductions\['x'\] to be an ifa.Reduction or an"),
        ({"x": Statistic(listing, {})}, TypeError, r"reductions\['x'\] to be a tree of tensors"),
        (
            {"x": Statistic(largest, {"x": Variable("maximum", ("channel",), "")}, by="group")},
            ValueError,
            r"reductions\['x'\] to finalize the state of no sample to what its variables say",
        ),
        (
            {"x": Statistic(largest, {"x": Variable("greatest", ("group", "channel"), "")})},
            ValueError,
            "got KeyError: '.greatest'",
        ),
    ],
    ids=[
        "one of our variables",
        "a part of one",
        "no word",
        "one of our names",
        "declares one of ours",
        "no reduction",
        "a state of numbers",
        "other axes",
        "no such field",
    ],
)
def test_what_cannot_be_kept_is_refused_before_anything_is_done(case, own, error, said, tmp_path):
    model, data = case
    analyze = partial(ifa.analyze, model, data, store=tmp_path / "run", **QUIET)
    with pytest.raises(error, match=said) as caught:
        analyze(reductions=own)
    assert str(caught.value).startswith("ifa.analyze: expected")
    assert not (tmp_path / "run").exists()
