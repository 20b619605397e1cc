"""Methods against metrics: the driver, its store, what it says, and the command."""

import re
import sys
from functools import partial

import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib import pyplot as plt
from naming import plain
from populations import contents
from safetensors.torch import save_file
from scipy import stats
from torch.func import vmap

import ifa
from ifa import contest, evaluate
from ifa.cli import main
from ifa.contest.summaries import written
from ifa.testing import models

MODEL = models.pooled_linear(1)
INPUTS = models.inputs(MODEL, 7)
LABELS = [0, 3, 1, 1, 2, 0, 3]
DATA = [(x, label, f"s{n}") for n, (x, label) in enumerate(zip(INPUTS, LABELS, strict=True))]


def flat(inputs, target):
    """Explain every sample by the same constant, but the last of the batch by its own input."""
    maps = torch.ones(len(inputs), *inputs.shape[2:])
    maps[inputs[:, 0, 0] == INPUTS[6, 0, 0]] = torch.nan
    return maps


def noisy(inputs, target=None, seed=0):
    weight = partial(contest.noise, seed=seed)
    return ifa.explain(MODEL, inputs, target, layer="conv1", weight=weight)


METHODS = {
    "gradcam": partial(ifa.explain, layer="conv1", rectify=False),
    "noise": partial(ifa.explain, layer="conv1", weight=contest.noise),
    "flat": contest.with_model(flat),
}
NOISE = {"noise": contest.noise}
METRICS = {
    "deletion": partial(evaluate.deletion, steps=3),
    "confidence": evaluate.confidence,
    "complexity": evaluate.complexity,
    "sensitivity": partial(evaluate.sensitivity, draws=2),
}
COLUMNS = [
    "deletion",
    *(f"confidence.{name}" for name in evaluate.Confidence._fields),
    "complexity",
    "sensitivity.mean",
    "sensitivity.max",
]
table = partial(contest.table, MODEL, DATA, METHODS, METRICS, shard=3, progress=False)


@pytest.fixture(scope="module")
def found():
    return table()


def test_every_value_is_what_the_metric_says_of_the_method(found):
    assert found["value"].dims == ("method", "metric", "sample")
    assert found["metric"].values.tolist() == COLUMNS
    target = MODEL(INPUTS).argmax(1)
    assert found["target"].values.tolist() == found["prediction"].values.tolist() == target.tolist()
    assert found["label"].values.tolist() == LABELS
    assert found["id"].values.tolist() == [f"s{n}" for n in range(7)]
    for name, method in METHODS.items():
        explain = partial(method, MODEL)
        maps = explain(INPUTS, target)
        want = [
            evaluate.deletion(MODEL, INPUTS, maps, target, steps=3).auc,
            *evaluate.confidence(MODEL, INPUTS, maps, target),
            vmap(evaluate.complexity)(maps),
            *evaluate.sensitivity(explain, INPUTS, target, draws=2),
        ]
        np.testing.assert_allclose(
            found["value"].sel({"method": name}), torch.stack(want), rtol=1e-4
        )


def test_maps_that_say_nothing_are_counted(found):
    assert found["blank"].sum("sample").values.tolist() == [0, 0, 6]
    assert found["nonfinite"].sel({"method": "flat"}).values.tolist() == [False] * 6 + [True]
    silent = found["value"].sel({"method": "flat", "metric": ["deletion", "confidence.drop"]})
    assert silent.isnull().all()
    assert found["value"].sel({"method": "gradcam"}).notnull().all()


def test_which_way_is_better_is_known_of_ours_and_can_be_said():
    assert table()["better"].values.tolist() == [
        "lower", "", "", "lower", "higher", "higher", "higher", "lower", "lower", "lower"
    ]  # fmt: skip
    named = contest.table(
        MODEL, DATA, METHODS, {"mine": evaluate.complexity}, better={"mine": "higher"},
        progress=False,
    )  # fmt: skip
    assert named["better"].values.tolist() == ["higher"]


@pytest.mark.parametrize("targets", ["label", 2])
def test_targets_are_labels_or_one_output(targets):
    found = table(targets=targets)
    want = LABELS if targets == "label" else [2] * 7
    assert found["target"].values.tolist() == want
    before = found["value"].sel({"method": "gradcam", "metric": "confidence.before"})
    shares = MODEL(INPUTS).softmax(1)[range(7), want].detach()
    np.testing.assert_allclose(before, shares, rtol=1e-5)


def test_a_sample_does_not_depend_on_its_shard(found):
    for shard in (1, 7):
        xr.testing.assert_allclose(table(shard=shard), found, rtol=1e-4)


def test_a_method_of_a_model_can_be_randomized_and_one_without_it_not():
    @contest.metric(takes="explain")
    def spearman(model, explain, inputs, target):
        return evaluate.randomization(model, explain, inputs, target).spearman[-1]

    methods = {"gradcam": METHODS["gradcam"]}
    found = contest.table(MODEL, DATA, methods, {"random": spearman}, progress=False)
    target = MODEL(INPUTS).argmax(1)
    want = evaluate.randomization(MODEL, METHODS["gradcam"], INPUTS, target).spearman[-1]
    np.testing.assert_allclose(found["value"][0, 0], want, rtol=1e-6)
    with pytest.raises(TypeError, match=r"expected methods that explain any network"):
        contest.table(MODEL, DATA, {"flat": METHODS["flat"]}, {"random": spearman}, progress=False)


# ---- on disk


class Killed(Exception):
    pass


def test_a_table_on_disk_is_that_in_memory_and_can_be_verified(found, tmp_path):
    stored = table(store=tmp_path / "table")
    xr.testing.assert_identical(stored.drop_attrs(), found.drop_attrs())
    assert stored.attrs == found.attrs
    ifa.verify(tmp_path / "table")
    before = contents(tmp_path)
    xr.testing.assert_identical(table(store=tmp_path / "table"), stored)
    assert contents(tmp_path) == before


def test_a_table_keeps_whose_samples_are_and_its_summary_counts_owners(found, tmp_path):
    whose = ["ann", "ann", "bob", "bob", "eve", "eve", "eve"]
    kept = table(cluster=whose, store=tmp_path / "table")
    assert kept["cluster"].values.tolist() == whose
    xr.testing.assert_identical(kept.drop_vars("cluster").drop_attrs(), found.drop_attrs())
    again = table(cluster=whose, store=tmp_path / "table")
    xr.testing.assert_identical(again, kept)
    assert contest.summary(kept).attrs["clusters"] == 3
    known = ifa.data.signals(INPUTS.numpy(), LABELS, channels="first", cluster=whose)
    own = contest.table(MODEL, known, METHODS, METRICS, shard=3, progress=False)
    assert own["cluster"].values.tolist() == whose


def test_an_interrupted_table_continues_with_the_same_bits(tmp_path):
    def killed_after(limit):
        def progress(done, total):
            assert total == 7 * 3 * 4
            if done > limit:
                raise Killed

        return progress

    done = []
    for limit in (40, 40):  # in the second shard, and there again
        with pytest.raises(Killed):
            table(store=tmp_path / "table", progress=killed_after(limit))
        done.append(sorted(path.name for path in (tmp_path / "table/shards").iterdir()))
    assert done == [["00000.npz"]] * 2
    resumed = table(store=tmp_path / "table")
    xr.testing.assert_identical(resumed, table(store=tmp_path / "whole"))
    ifa.verify(tmp_path / "table")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"metrics": METRICS | {"deletion": evaluate.deletion}}, "metrics.deletion"),
        (
            {
                "methods": METHODS
                | contest.cam_methods("conv1", weightings=NOISE, rectify=False, seed=1)
            },
            "methods.noise",
        ),
        ({"methods": dict(reversed(METHODS.items()))}, "order"),
        ({"model": models.pooled_linear(1, seed=1)}, "weights of the network"),
        ({"data": DATA[:6]}, "data.samples"),
        ({"targets": "label"}, "targets"),
        ({"shard": 4}, "shard"),
        ({"cluster": list("aabbccc")}, "cluster"),
        ({"better": {"complexity": "higher"}}, "better.complexity"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_another_evaluation_is_refused_by_name(change, named, tmp_path):
    table(store=tmp_path / "table")
    before = contents(tmp_path)
    asked = {"model": MODEL, "data": DATA, "methods": METHODS, "metrics": METRICS, "shard": 3}
    with pytest.raises(ValueError, match=rf"ifa\.contest\.table: expected .* another: {named}"):
        contest.table(**asked | change, store=tmp_path / "table", progress=False)
    assert contents(tmp_path) == before


def test_a_directory_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(ValueError, match=r"ifa\.contest\.table: expected .* new, empty or a run"):
        table(store=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"methods": {}}, ValueError, "expected at least one method by name"),
        ({"metrics": {}}, ValueError, "expected at least one metric by name"),
        ({"methods": {"a": 3}}, TypeError, "expected method 'a' to be"),
        ({"metrics": {"a": len}}, TypeError, "expected a metric that is declared"),
        (
            {"metrics": {"a": contest.metric(takes="map")(lambda map: map)}},
            ValueError,
            "expected one number for each of 3",
        ),
        (
            {"methods": {"a": lambda m, x, t: x[0]}},
            ValueError,
            r"expected maps \(sample, ...\) of 3",
        ),
        ({"targets": "every"}, ValueError, "expected targets to be one of"),
        ({"targets": 9}, ValueError, "expected targets in 0..3"),
        ({"shard": 0}, ValueError, "expected shard to be a whole number"),
        ({"better": {"deletion": "up"}}, ValueError, "to be one of 'higher', 'lower', got 'up'"),
    ],
    ids=plain,
)
def test_wrong_calls_are_refused_by_name(change, error, text):
    asked = {"methods": METHODS, "metrics": METRICS, "shard": 3, "progress": False} | change
    with pytest.raises(error, match=rf"ifa\.contest\.table: .*{text}"):
        contest.table(MODEL, DATA, **asked)


# ---- methods


@pytest.mark.parametrize("name", contest.cam_methods("conv1"))
@pytest.mark.parametrize("rectify", [True, False])
def test_every_method_maps_each_sample_alone(rectify, name):
    method = contest.cam_methods("conv1", rectify=rectify)[name]
    if name == "cam":  # reads the channels of the last layer
        method = contest.cam_methods("conv2", rectify=rectify)[name]
    target = torch.tensor([1, 3, 0])
    with ifa.testing.assert_leaves_model_untouched(MODEL):
        maps = method(MODEL, INPUTS[:3], target)
    assert maps.shape == (3, 13)
    assert not rectify or (maps >= 0).all()
    alone = [method(MODEL, one[None], t[None])[0] for one, t in zip(INPUTS, target, strict=False)]
    torch.testing.assert_close(maps, torch.stack(alone), rtol=1e-4, atol=1e-6)


def test_every_weighting_and_perturbation_is_a_method():
    kernels = {name for name in ifa.weight.__all__ if name != "fullcam"}  # hirescam's other name
    assert {*contest.cam_methods()} == kernels | {*ifa.perturb.__all__} | {"noise"}


class Flattened(torch.nn.Module):
    """Features, and a head of several linear layers that reads every position, as of VGG."""

    def __init__(self):
        super().__init__()
        self.features = torch.nn.Sequential(torch.nn.Conv1d(2, 4, 3, padding=1), torch.nn.ReLU())
        linear = torch.nn.Linear(4 * 13, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4)
        self.classifier = torch.nn.Sequential(torch.nn.Flatten(), *linear)

    def forward(self, inputs):
        return self.classifier(self.features(inputs))


def test_what_a_network_cannot_be_asked_for_is_left_out_of_its_table_and_said():
    net = Flattened().eval()
    methods = contest.cam_methods("features")
    methods = {name: methods[name] for name in ("cam", "gradcam", "noise")}
    metrics = {"complexity": evaluate.complexity}
    with pytest.warns(contest.LeftOut, match="cam is left out: ifa.weight.cam: expected one lin"):
        found = contest.table(net, DATA, methods, metrics, progress=False)
    assert found["method"].values.tolist() == ["gradcam", "noise"]
    assert found["value"].sel({"method": "noise"}).notnull().all()
    (reason,) = found.attrs["left_out"]
    assert reason.startswith("cam is left out: ifa.weight.cam: expected one linear layer")
    asked = contest.cam_methods("features", weightings={"cam": ifa.weight.cam})
    with pytest.raises(LookupError, match=r"ifa\.weight\.cam: expected one linear layer"):
        contest.table(net, DATA, asked, metrics, progress=False)


def test_a_layer_that_a_weighting_does_not_read_leaves_it_out():
    """The classifier reads the channels of the last layer."""
    found = contest.usable(MODEL, "conv1", INPUTS[:2])
    assert [reason[:27] for reason in found.left_out] == ["cam is left out: ifa.weight"]
    assert contest.usable(MODEL, "conv2", INPUTS[:2]).left_out == []
    with pytest.raises(ValueError, match=r"ifa\.tap: expected a model in evaluation mode"):
        contest.usable(torch.nn.Sequential(MODEL, torch.nn.Dropout()), None, INPUTS[:2])
    with pytest.raises(LookupError, match="conv7"):
        contest.usable(MODEL, "conv7", INPUTS[:2])


def test_what_is_usable_is_asked_of_an_output_by_the_score():
    """Of an output for each position there is no prediction."""
    dense = torch.nn.Sequential(torch.nn.Conv1d(2, 3, 3), torch.nn.Conv1d(3, 4, 1)).eval()

    def mean(output, target):
        return output.mean(-1)[target]

    found = contest.usable(dense, "0", INPUTS[:2], score=mean)
    assert found.left_out == []
    with pytest.raises(ValueError, match=r"ifa\.score\.logit: expected an output"):
        contest.usable(dense, "0", INPUTS[:2])


def test_noise_depends_on_the_seed_and_the_sample_alone():
    maps = noisy(INPUTS)
    assert maps.shape == (7, 13)
    assert torch.equal(noisy(INPUTS[[4, 2]]), maps[[4, 2]])
    assert 0 <= maps.min() < 0.1 < 0.9 < maps.max() <= 1
    assert not torch.equal(noisy(INPUTS, seed=1), maps)
    assert len(maps.unique(dim=0)) == 7
    both = noisy(INPUTS, torch.zeros(2, 7, dtype=torch.int64))
    assert torch.equal(both[1], maps)


# ---- what a table says


def made_up():
    """Three methods and three metrics: the first two methods differ in the second only."""
    random = np.random.default_rng(0)
    value = random.normal(size=(3, 3, 40))
    value[1] = value[0] + 0.3 * random.normal(size=(3, 40))
    value[1, 1] = value[0, 1] + 1 + 0.3 * random.normal(size=40)
    value[2] = value[0] + 2
    value[2, :, ::4] = np.nan
    return xr.Dataset(
        {
            "value": (("method", "metric", "sample"), value),
            "blank": (("method", "sample"), np.isnan(value[:, 0])),
            "nonfinite": (("method", "sample"), np.zeros((3, 40), bool)),
        },
        {
            "method": list("abc"),
            "metric": ["up", "down", "neither"],
            "better": ("metric", ["higher", "lower", ""]),
        },
    )


@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_means_and_intervals_equal_scipy(confidence):
    made = made_up()
    said = contest.summary(made, level=confidence)
    for method in range(3):
        for metric in range(3):
            one = made["value"].values[method, metric]
            one = one[np.isfinite(one)]
            cell = said.isel({"method": method, "metric": metric})
            low, high = stats.t.interval(confidence, len(one) - 1, one.mean(), stats.sem(one))
            np.testing.assert_allclose(
                [cell["mean"], cell["low"], cell["high"]], [one.mean(), low, high], rtol=1e-10
            )
            assert cell["count"] == len(one) == (30 if method == 2 else 40)
    assert said["blank"].values.tolist() == [0, 0, 10]


def test_the_best_is_marked_and_who_is_not_told_apart_from_it():
    said = contest.summary(made_up())
    assert said["best"].values.tolist() == [[0, 1, 0], [0, 0, 0], [1, 0, 0]]
    assert said["tied"].values.tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 0]]
    near = contest.summary(made_up().isel(method=[0, 1]))
    assert (near["best"] | near["tied"]).values.tolist() == [[1, 1, 0], [1, 0, 0]]


def test_what_differs_by_rounding_is_not_told_apart():
    made = made_up().isel(method=[0, 1])
    made["value"][1] = made["value"][0] * (1 + 1e-6)
    said = contest.summary(made)
    assert (said["best"] | said["tied"]).values.tolist() == [[1, 1, 0]] * 2


def test_a_column_without_a_value_has_no_best():
    made = made_up().isel(sample=[0, 1])
    made["value"][:, 0] = np.nan
    said = contest.summary(made)
    assert not said["best"].values[:, 0].any()
    assert said["mean"].values[:, 0].tolist() == pytest.approx([np.nan] * 3, nan_ok=True)
    assert "nan" in written(said)
    with pytest.raises(ValueError, match=r"ifa\.contest\.summary: expected a level between"):
        contest.summary(made, level=95)


def drawn(random, methods, samples, **moved):
    """A table of one metric by which all methods are equal, but for those that are moved."""
    value = random.normal(size=(methods, 1, samples)) + random.normal(size=samples)
    for place, by in moved.items():
        value[int(place[1:])] += by
    none = np.zeros((methods, samples), bool)
    return xr.Dataset(
        {
            "value": (("method", "metric", "sample"), value),
            "blank": (("method", "sample"), none),
            "nonfinite": (("method", "sample"), none),
        },
        {"method": [f"m{n}" for n in range(methods)], "metric": ["one"],
         "better": ("metric", ["higher"])},
    )  # fmt: skip


def worse(said):
    return ~(said["best"] | said["tied"] | said["unknown"]).values[:, 0]


@pytest.mark.parametrize("methods", [2, 12])
def test_equal_methods_are_seldom_called_worse(methods):
    """One of 10 was in .62 of tables (F-S3); one better method is found all the same."""
    random = np.random.default_rng(4)
    said = [contest.summary(drawn(random, methods, 25)) for _ in range(50)]
    assert sum(worse(one).any() for one in said) <= 8  # .05 + 4 sd
    found = contest.summary(drawn(random, methods, 100, m1=1.2))
    assert found["best"].values[:, 0].tolist() == [place == 1 for place in range(methods)]
    assert worse(found).sum() == methods - 1


def test_the_best_two_of_many_are_not_called_worse():
    random = np.random.default_rng(5)
    said = [contest.summary(drawn(random, 8, 40, m0=2.0, m1=2.0)) for _ in range(40)]
    assert sum(worse(one)[:2].any() for one in said) <= 7
    assert all(worse(one)[2:].all() for one in said)


def test_samples_that_belong_together_are_compared_together():
    """Of 10 equal methods one is called worse in most tables of 5 copies of each sample."""
    random, count = np.random.default_rng(6), 0
    codes = np.repeat(np.arange(12), 5)
    for _ in range(30):
        made = drawn(random, 10, 12).isel(sample=codes)
        count += worse(contest.summary(made, cluster=codes)).any()
        made["cluster"] = "sample", [f"patient {code:02d}" for code in codes]
    assert count <= 6
    own = contest.summary(made)
    assert own.attrs["clusters"] == 12
    np.testing.assert_array_equal(own["p"], contest.summary(made, cluster=codes)["p"])
    apart = contest.summary(made, cluster=range(60))
    assert (apart["high"] - apart["low"] < 0.6 * (own["high"] - own["low"])).all()
    with pytest.raises(ValueError, match="expected one cluster label for each of 60 samples"):
        contest.summary(made, cluster=[1, 2])
    ids = made.drop_vars("cluster").assign(id=("sample", [f"a-{code}" for code in codes]))
    with pytest.warns(ifa.DependentSamples, match=r"contest\.summary: .*60 samples have 12 ids"):
        contest.summary(ids)


def test_what_no_sample_tells_is_unknown():
    """A NaN compares false: such methods were called worse (F-S3)."""
    random = np.random.default_rng(7)
    for samples in (1, 5):
        said = contest.summary(drawn(random, 4, samples))
        assert said["best"].values.sum() == 1
        assert said["unknown"].values.sum() == 3
        assert not worse(said).any()
        assert "?" in written(said)
    made = drawn(random, 4, 40, m3=9.0)
    made["value"][1, :, :20] = np.nan
    made["value"][3, :, 20:] = np.nan  # nothing in common with the second
    made["value"][2] = np.nan
    said = contest.summary(made)
    assert said["best"].values[:, 0].tolist() == [False, False, False, True]
    assert said["unknown"].values[:, 0].tolist() == [False, True, True, False]
    assert worse(said).tolist() == [True, False, False, False]
    assert np.isnan(said["p"].values[2, 0])


def test_a_method_of_few_samples_hides_no_other_and_is_not_the_best_by_them():
    random = np.random.default_rng(8)
    made = drawn(random, 4, 60, m0=1.5)
    made["value"][3, :, 2:] = np.nan
    assert worse(contest.summary(made))[1:3].all()
    # its samples are the easy ones, of which it is worse than the first
    easy = drawn(random, 3, 60, m0=1.0)
    easy["value"][:, :, :15] += 9
    easy["value"][2, :, 15:] = np.nan
    easy["value"][2] -= 2
    said = contest.summary(easy)
    assert said["mean"].values[:, 0].argmax() == 2
    assert said["best"].values[:, 0].tolist() == [True, False, False]


def test_what_a_summary_could_have_told_apart():
    random = np.random.default_rng(9)
    made = drawn(random, 2, 50)
    least = contest.summary(made)["detectable"].values[:, 0]
    best = int(np.isnan(least).argmax())
    other = 1 - best
    gap = float(made["value"][best].mean() - made["value"][other].mean())
    for by, told in ((1.02, True), (0.95, False)):
        moved = made.copy(deep=True)
        moved["value"][other] += gap - by * least[other]
        assert worse(contest.summary(moved))[other] == told
    assert written(contest.summary(made)).splitlines()[3].startswith("told apart from")


def test_means_of_flags_have_wilsons_interval():
    """Student's covered .40 to .88 (F-S3)."""
    made = drawn(np.random.default_rng(10), 3, 20)
    made["value"] = (made["value"] > 1).astype(float)
    made["value"][2] = 1.0
    said = contest.summary(made)
    for place in range(3):
        hits = int(made["value"][place].sum())
        want = stats.binomtest(hits, 20).proportion_ci(method="wilson")
        found = said.isel(method=place, metric=0)
        np.testing.assert_allclose([found["low"], found["high"]], want)


def test_noise_is_called_beaten_seldom_and_with_power():
    random = np.random.default_rng(11)
    names = {"method": [*"abcdefg", "noise"]}
    quiet = [drawn(random, 8, 20).assign_coords(names) for _ in range(40)]
    assert sum(float(contest.summary(one)["p_noise"].min()) <= 0.05 for one in quiet) <= 7
    loud = [drawn(random, 8, 20, m3=1.6).assign_coords(names) for _ in range(20)]
    found = [contest.summary(one)["p_noise"].values[:, 0] <= 0.05 for one in loud]
    assert sum(one[3] for one in found) >= 15
    assert sum(one[:3].any() | one[4:].any() for one in found) <= 4  # the others are noise too
    assert "p_noise" not in contest.summary(drawn(random, 3, 9))


def test_ranks_are_those_of_friedman_and_nemenyi():
    made = drawn(np.random.default_rng(12), 5, 30, m3=0.8, m1=0.8)
    made["value"][0, 0, :4] = made["value"][1, 0, :4]  # ties
    found = contest.ranks(made, "one")
    chi = stats.friedmanchisquare(*made["value"].values[:, 0]).statistic
    assert found.attrs["p"] == pytest.approx(stats.f.sf(29 * chi / (30 * 4 - chi), 4, 4 * 29))
    assert found.attrs["critical"] == pytest.approx(
        2.728 * (30 / 180) ** 0.5, rel=1e-3
    )  # his table
    want = stats.rankdata(-made["value"].values[:, 0], axis=0).mean(1)
    np.testing.assert_allclose(found["rank"].sel({"method": made["method"]}), want)
    groups = [set(found["method"].values[one]) for one in found["group"].values]
    gaps = {(a, b): abs(want[int(a[1])] - want[int(b[1])]) for a in ["m0", "m1", "m2", "m3", "m4"]
            for b in ["m0", "m1", "m2", "m3", "m4"]}  # fmt: skip
    joined = {pair for pair, gap in gaps.items() if gap <= found.attrs["critical"]}
    assert joined == {(a, b) for one in groups for a in one for b in one}
    assert {"m1", "m3"} <= groups[0] != set(found["method"].values)


def test_ranks_of_what_is_missing_tied_or_of_patients():
    random = np.random.default_rng(13)
    made = drawn(random, 4, 20)
    made["value"][3] = np.nan
    made["value"][0, 0, :5] = np.nan
    found = contest.ranks(made, "one")
    assert sorted(found["method"].values) == ["m0", "m1", "m2"]
    assert found.attrs["samples"] == 15
    copies = contest.ranks(made.isel(sample=np.arange(20).repeat(5)), "one",
                           cluster=np.arange(20).repeat(5))  # fmt: skip
    assert copies.attrs["p"] == pytest.approx(found.attrs["p"])
    assert copies.attrs["samples"] == 15
    assert copies.attrs["clusters"]
    made["value"][:3] = 1.0
    same = contest.ranks(made, "one")
    assert same["rank"].values.tolist() == [2, 2, 2]
    assert same.attrs["p"] == 1
    assert same["group"].values.tolist() == [[True] * 3]
    made["value"][1] = 2.0
    assert contest.ranks(made, "one")["method"].values[0] == "m1"
    with pytest.raises(
        LookupError, match=r"contest\.ranks: expected a metric of the table, one, got"
    ):
        contest.ranks(made, "two")
    with pytest.raises(
        ValueError, match="expected better\\['one'\\] to be one of 'higher', 'lower'"
    ):
        contest.ranks(made.assign_coords(better=("metric", [""])), "one")
    with pytest.raises(ValueError, match=r"expected at least two samples .* got 1 of 3"):
        contest.ranks(made.isel(sample=[9]), "one")


def test_a_picture_of_ranks_joins_what_is_not_told_apart():
    made = drawn(np.random.default_rng(14), 4, 40, m2=1.5)
    found = contest.ranks(made, "one")
    axes = ifa.plot.critical_differences(made, "one", axes=plt.subplots()[1])
    points, *bars, scale = axes.lines
    np.testing.assert_allclose(points.get_xdata(), found["rank"])
    assert np.ptp(scale.get_xdata()) == pytest.approx(found.attrs["critical"])
    spans = [np.flatnonzero(one) for one in found["group"].values if one.sum() > 1]
    np.testing.assert_allclose([bar.get_ydata() for bar in bars],
                               [(span[0] - 0.25, span[-1] + 0.25) for span in spans])  # fmt: skip
    plt.close(axes.figure)


def test_a_summary_in_writing_has_a_row_for_each_method():
    said = contest.summary(made_up())
    text = written(said).splitlines()
    assert text[0].split() == ["method", "^", "up", "v", "down", "neither", "blank/nonfinite"]
    assert [line.split()[0] for line in text[1:4]] == ["a", "b", "c"]
    assert text[3].split()[-1] == "10/0"
    assert len({len(line) for line in text[:4]}) == 1
    assert f"{float(said['mean'][0, 1]):.2f} ±" in text[1]


def test_a_summary_says_where_no_method_beats_noise():
    named = made_up().assign_coords(method=["gradcam", "noise", "cam"])
    few = named.isel(method=[0, 1])
    # by "up" both are alike, by "down" gradcam is better, by "neither" none is
    told = written(contest.summary(few))
    assert "No method is shown to beat noise by up (p 0." in told
    assert "shown to beat noise" not in written(contest.summary(named))  # cam does, by both
    assert "shown to beat noise" not in written(contest.summary(made_up()))
    few["value"][1] -= 3
    told = contest.summary(few)
    assert "No method is shown to beat noise by down (p 1)." in written(told)
    assert told["p_noise"].values[0] == pytest.approx([1 / 2001, 1, np.nan], nan_ok=True)
    assert np.isnan(told["p_noise"].values[1]).all()  # noise is not compared with itself


def test_a_summary_says_which_methods_beat_noise_and_when_none_does():
    random = np.random.default_rng(15)
    names = {"method": ["good", "fair", "poor", "noise"]}
    value = np.concatenate(
        [drawn(random, 4, 60, m0=3.0, m1=by)["value"].values for by in (3.0, -1.0)], 1
    )
    none = np.zeros((4, 60), bool)
    made = xr.Dataset(
        {
            "value": (("method", "metric", "sample"), value),
            "blank": (("method", "sample"), none),
            "nonfinite": (("method", "sample"), none),
        },
        names | {"metric": ["one", "two"], "better": ("metric", ["higher", "higher"])},
    )
    told = written(contest.summary(made)).splitlines()
    assert told[0].endswith("beats noise")
    assert [line.split("  ")[-1].strip() for line in told[1:5]] == [
        "2 of 2",
        "1 of 2",
        "0 of 2",
        "0/0",
    ]
    assert "Shown to beat noise by every metric: good. By none: poor." in told
    assert not any("No method" in line for line in told)
    told = written(contest.summary(made.isel(method=[2, 3])))
    assert "No method is shown to beat noise, by any metric. These maps" in told
    assert "0 of 2" in told


def test_pictures_hold_what_was_given():
    said = contest.summary(made_up())
    (axes,) = ifa.plot.methods(said).axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a", "b", "c (10 silent)"]
    assert len(axes.texts) == 9
    bold = [text for text in axes.texts if text.get_fontweight() == "bold"]
    assert [text.get_position() for text in bold] == [(0, 2), (1, 0)]  # column, row
    assert all(text.get_text().endswith("*") for text in bold)
    assert np.isnan(axes.images[0].get_array().filled(np.nan)[:, 2]).all()
    maps = noisy(INPUTS)
    maps[0] = 1.0
    curve = evaluate.deletion(MODEL, INPUTS, maps, steps=4, window=5)
    axes = ifa.plot.relevance_curves({"noise": curve}, axes=plt.subplots()[1])
    line = axes.lines[0]
    assert line.get_xdata()[[0, -1]].tolist() == [0, 100]
    ends = curve.score[1:].mean(0)
    np.testing.assert_allclose(line.get_ydata()[[0, -1]], ends[[0, -1]])
    want = f"noise: AUC {curve.auc[1:].mean():.3f}, 1 without a value"
    assert line.get_label() == want
    plt.close(axes.figure)


# ---- the command

DIGITS = ("ifa.nets:digits_cnn", "ifa.nets:digits")
FAST = "gradcam,xgradcam,layercam,hirescam,cam,scorecam,noise"


@pytest.fixture(scope="module")
def home(tmp_path_factory, trained):
    """A run of a network that reads digits."""
    home = tmp_path_factory.mktemp("digits")
    network = trained()
    save_file(network.state_dict(), home / "weights.safetensors")
    reference = ifa.ModelRef("ifa.nets:digits_cnn", str(home / "weights.safetensors"))
    ifa.analyze(
        reference, ifa.nets.digits(), layer="conv3", store=home / "run", progress=False,
        keep_samples="none",
    )  # fmt: skip
    return home


def run(*arguments, capsys):
    code = main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_one_command_tells_every_map_from_noise(home, capsys, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    command = ("evaluate", home / "run", *DIGITS, "--weights", home / "weights.safetensors",
               "--samples", 60, "--methods", FAST, "--metrics", "deletion,insertion,confidence",
               "--quiet")  # fmt: skip
    code, out, err = run(*command, capsys=capsys)
    assert (code, err) == (0, "")
    assert "confidence.before" not in out
    place = home / "run-evaluation"
    assert f"table: {place}\npicture: {place}.png" in out
    assert place.with_name("run-evaluation.png").stat().st_size > 10_000
    ifa.verify(place)
    ifa.verify(home / "run")
    found = ifa.open(place).to_dataset()
    assert found.sizes == {"method": 7, "metric": 8, "sample": 60}
    value = found["value"].sel(metric=["deletion", "insertion"])
    behind = value.sel({"method": "noise"}) - value.drop_sel(method="noise")
    behind = behind.transpose("method", "metric", "sample").values
    behind[:, 1] *= -1
    low = [stats.ttest_1samp(one, 0).confidence_interval().low for one in behind.reshape(-1, 60)]
    assert min(low) > 0, low
    assert run(*command, capsys=capsys) == (code, out, err)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--methods", "gradcam,gradcamm"), "expected a weighting, one of .*, got 'gradcamm'"),
        (("--metrics", "deletions"), "expected --metrics from .*, got 'deletions'"),
        (("--layer", "conv1"), "expected --layer to be one of the run's, conv3, got 'conv1'"),
        (("--samples", "0"), "expected --samples to be a whole number"),
        ((), r"expected the network and data of the run .*, got others: weights of the network"),
    ],
    ids=str,
)
def test_wrong_commands_are_told_by_name(arguments, text, home, capsys, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    weights = ("--weights", home / "weights.safetensors") if arguments else ()
    code, out, err = run(
        "evaluate", home / "run", *DIGITS, *weights, *arguments, "--out", home / "no", "--quiet",
        capsys=capsys,
    )  # fmt: skip
    assert (code, out) == (1, "")
    assert re.search(f"ifa evaluate: {text}", err)
    assert not (home / "no").exists()
