"""Principal features: one pass below the layer, a choice that keeps its promise, two fills."""

import subprocess
import sys
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
import torch
import xarray as xr
from populations import contents
from scipy.stats import binom
from torch import nn

import ifa
from ifa.diagnose.performances import values_of
from ifa.diagnose.sufficiency import candidates, folds_of, smallest
from ifa.intervals import auroc_interval, correlation_interval, crossed_interval, loss_bound

CHANNELS, TARGETS = 16, 4
SEEN = []


class Below(torch.nn.Module):
    """Counts the samples that go through what lies below the layer."""

    def forward(self, values):
        SEEN.append(len(values))
        return 1 * values


def planted(seed=0, below=torch.nn.Identity):
    """A network of which ever later channels say ever less."""
    head = torch.nn.Linear(CHANNELS, TARGETS, bias=False)
    weights = np.random.default_rng(seed).normal(size=(TARGETS, CHANNELS))
    head.weight.data.copy_(torch.tensor(weights * np.exp(-np.arange(CHANNELS) / 4)))
    parts = (below(), torch.nn.ReLU(), torch.nn.Flatten(), head)
    return torch.nn.Sequential(*parts).eval().requires_grad_(False)


def drawn(net, samples, seed=0, noise=0.5):
    """Data of which the network predicts most; every channel has another mean."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(samples, CHANNELS, 2)) + np.linspace(0.5, 2, CHANNELS)[:, None]
    inputs = torch.tensor(values, dtype=torch.float32)[..., :1]
    logits = net(inputs).numpy()
    labels = (logits + noise * rng.gumbel(size=logits.shape)).argmax(1).tolist()
    return [
        (one, label, f"s{n}") for n, (one, label) in enumerate(zip(inputs, labels, strict=True))
    ]


def ranked():
    """Importances in the order of the channels."""
    values = np.arange(CHANNELS, 0, -1.0)[None]
    return xr.Dataset({"importance": (("target", "channel"), values)}, {"target": [0]})


principal = partial(ifa.diagnose.principal_features, by="importance")
FEW = {"ratio": (0.25, 0.5), "seeds": range(3)}


def passes(net, data, **options):
    SEEN.clear()
    principal(net, "1", data, ranked(), **FEW, **options)
    return sum(SEEN)


@pytest.mark.parametrize("fill", ["zero", "mean"])
def test_what_lies_below_the_layer_runs_once(fill):
    net = planted(below=Below)
    few, many = (drawn(net, n) for n in (600, 1500))
    assert passes(net, many, fill=fill) - passes(net, few, fill=fill) == 900
    # two to begin with, and the sixteen that identify the network
    assert passes(net, many, fill="zero") < 1500 + 60


def test_each_set_is_what_feature_perturbation_makes_of_it():
    net = planted()
    data = drawn(net, 300)
    found = principal(net, "1", data, ranked(), **FEW, batch_size=64, shard=128)
    images = torch.stack([one for one, *_ in data])
    labels = torch.tensor([label for _, label, _ in data])
    means = images.relu().double().mean((0, 2))
    for fill, baseline in (("zero", 0.0), ("mean", means)):
        row = found.sel(fill=fill)
        for ratio in FEW["ratio"]:
            masks = {
                "common, importance": [ifa.select.largest(ranked()["importance"][0], ratio=ratio)],
                "common, random": [
                    ifa.select.random(ranked()["importance"][0], ratio=ratio, seed=seed)
                    for seed in FEW["seeds"]
                ],
            }
            for rule, several in masks.items():
                right = [
                    ifa.evaluate.feature_perturbation(net, "1", images, one, baseline=baseline)
                    .argmax(1)
                    .eq(labels)
                    for one in several
                ]
                expected = torch.stack(right).double().mean()
                assert float(row["performance"].sel(rule=rule, ratio=ratio)) == pytest.approx(
                    float(expected)
                )
    assert found["candidate"].values.tolist() == list(range(1, CHANNELS + 1))
    assert (found["candidate_bound"] > found["candidate_loss"]).all()


def test_a_run_that_was_killed_goes_on_with_the_same_bits(tmp_path):
    net = planted()
    data = drawn(net, 200)
    options = {**FEW, "shard": 50, "batch_size": 25, "fill": "zero", "data_version": "1"}
    whole = principal(net, "1", data, ranked(), store=tmp_path / "whole", **options)
    xr.testing.assert_identical(whole, principal(net, "1", data, ranked(), **options))
    with pytest.raises(RuntimeError, match="got KeyboardInterrupt from the data set"):
        principal(net, "1", Stopping(data), ranked(), store=tmp_path / "run", **options)
    assert 0 < len(list((tmp_path / "run" / "shards").glob("*.npz"))) < 4
    again = principal(net, "1", data, ranked(), store=tmp_path / "run", **options)
    xr.testing.assert_identical(again, whole)
    made = [contents(tmp_path / name) for name in ("run", "whole")]
    assert [files.pop("COMMIT.json") for files in made]  # which says when
    assert made[0] == made[1]


class Stopping(torch.utils.data.Dataset):
    """Data that are switched off after so many were read."""

    def __init__(self, items, last=190):
        self.items, self.last, self.read = items, last, 0

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        self.read += 1
        if self.read > self.last:
            raise KeyboardInterrupt
        return self.items[index]


def test_another_tolerance_reads_the_run_and_another_ratio_is_refused(tmp_path):
    net = planted()
    data = drawn(net, 200)
    options = {**FEW, "store": tmp_path / "run", "fill": "zero"}
    strict = principal(net, "1", data, ranked(), **options)
    before = contents(tmp_path / "run")
    loose = principal(net, "1", data, ranked(), tolerance=0.3, folds=3, alpha=0.2, **options)
    assert contents(tmp_path / "run") == before
    assert loose["chosen_count"] < strict["chosen_count"]
    with pytest.raises(ValueError, match=r"got another: fills\.zero"):
        principal(net, "1", data, ranked(), **{**options, "ratio": (0.3,)})


# what sets truly lose, the last that of every channel: the adversary is just above the tolerance
LOSSES = np.array([0.2, 0.08, 0.04, 0.021, 0.019, 0.012, 0.004, 0.0])
TOLERANCE = 0.02


def chosen_places(draws, codes, told):
    """Places of the sets that are chosen; samples of a cluster lose together."""
    found, every = [], np.arange(len(codes))
    for seed in range(draws):
        drawn = np.random.default_rng([seed, len(codes)]).random(codes.max() + 1)[codes]
        lost = (drawn < LOSSES[:, None] + 0.02).astype(float) - (drawn > 0.98)
        losses = [(row, 1.0) for row in lost]
        loss = partial(lambda losses, place, some: losses[place], losses)
        found.append(smallest(loss, len(LOSSES), every, codes if told else every, TOLERANCE, 0.05))
    return np.array(found)


def lose_more(places):
    return int((LOSSES[places] > TOLERANCE).sum())


@pytest.mark.parametrize("samples", [100, 1000, pytest.param(3000, marks=pytest.mark.deep)])
def test_chosen_sets_that_lose_more_are_at_most_alpha(samples):
    places = chosen_places(400, np.arange(samples), True)
    assert lose_more(places) <= binom.ppf(0.999, 400, 0.05)
    if samples > 100:  # and it is no empty promise
        assert (places < len(LOSSES) - 1).mean() > 0.5


def test_of_clusters_too_if_they_are_told():
    codes = np.repeat(np.arange(100), 10)
    assert lose_more(chosen_places(400, codes, True)) <= binom.ppf(0.999, 400, 0.05)
    assert lose_more(chosen_places(400, codes, False)) > 2 * binom.ppf(0.999, 400, 0.05)


@pytest.mark.parametrize("samples", [30, 300])
@pytest.mark.parametrize("gain", [0.0, 0.05])
def test_a_bound_on_a_loss_is_too_low_as_seldom_as_it_says(samples, gain):
    rng, true = np.random.default_rng(samples), 0.05
    chances = [true + gain, gain, 1 - true - 2 * gain]
    draws = rng.choice([1.0, -1.0, 0.0], (600, samples), p=chances)
    low = sum(loss_bound(row, most=1.0) < true for row in draws)
    assert low <= binom.ppf(0.999, 600, 0.05)
    assert loss_bound(np.zeros(10), most=1.0) > 0.2
    assert np.isnan(loss_bound(np.zeros(1)))
    assert np.isnan(loss_bound(np.zeros(4), codes=np.zeros(4, int)))


@pytest.mark.deep
@pytest.mark.parametrize("metric", ["accuracy", "auroc"])
def test_the_choice_on_a_network_keeps_its_promise_on_new_samples(metric):
    """The winner's curse: by the best estimate alone 30 to 65 % of sets lose more."""
    net = planted()
    options = {**FEW, "metric": metric, "tolerance": TOLERANCE, "fill": "zero", "batch_size": 4096}
    truth = principal(net, "1", drawn(net, 40_000, seed=99), ranked(), **options)
    true = truth["candidate_loss"].sel(fill="zero").values
    found = [
        principal(net, "1", drawn(net, 200, seed=seed), ranked(), **options)
        .sel(fill="zero")["chosen_count"]
        .item()
        for seed in range(100)
    ]
    assert (true[np.array(found) - 1] > TOLERANCE).sum() <= binom.ppf(0.999, 100, 0.05)


def test_what_is_measured_had_no_part_in_the_choice():
    codes = np.random.default_rng(0).integers(40, size=200)
    folds = list(folds_of(codes, 5))
    assert sorted(np.concatenate([held for _, held in folds])) == list(range(200))
    for choosing, held in folds:
        assert not {*codes[choosing]} & {*codes[held]}
    assert len(list(folds_of(np.zeros(3, int), 5))) == 1
    found = principal(planted(), "1", drawn(planted(), 400), ranked(), tolerance=0.05, **FEW)
    assert found["chosen_count_fold"].shape == (2, 5)
    assert (found["chosen_low"] <= found["chosen_performance"]).all()
    # a set that too few samples choose is larger
    assert (found["chosen_count_fold"].max("fold") >= found["chosen_count"]).all()


def test_too_few_samples_keep_every_channel_and_say_so():
    net = planted()
    found = principal(net, "1", drawn(net, 50), ranked(), **FEW)
    assert found.attrs["least_tolerance"] > 0.05
    assert (found["chosen_count"] == CHANNELS).all()
    assert (found["least_count"] < CHANNELS).all()
    assert "50 samples cannot exclude a loss of" in ifa.diagnose.summary(found)


def test_fewer_than_the_least_count_are_shown_to_lose_more_and_no_others():
    net = planted()
    found = principal(net, "1", drawn(net, 400), ranked(), tolerance=0.05, alpha=0.05, **FEW)
    images, labels, _ = zip(*drawn(net, 400), strict=True)
    images, labels = torch.stack(images), torch.tensor(labels)
    full = (net(images).argmax(1) == labels).double()
    for fill, baseline in (("zero", 0.0), ("mean", images.relu().double().mean((0, 2)))):
        row, low = found.sel(fill=fill), []
        for count in range(1, CHANNELS + 1):
            mask = ifa.select.largest(ranked()["importance"][0], ratio=count / CHANNELS)
            kept = ifa.evaluate.feature_perturbation(net, "1", images, mask, baseline=baseline)
            gain = (kept.argmax(1) == labels).double() - full
            low.append(-loss_bound(gain.numpy(), most=1.0) > 0.05)
        assert 1 <= row["least_count"] <= row["chosen_count"]
        assert int(row["least_count"]) == 1 + low.index(False)


def test_performances_are_means_over_samples():
    rng = np.random.default_rng(0)
    outputs, labels = rng.normal(size=(60, 3)).round(1), rng.integers(3, size=60)
    flags = labels[:, None] == np.arange(3)
    found = values_of("auroc", outputs, flags.astype(float))
    low, high = auroc_interval(outputs, flags)
    assert low < found.each.mean() < high
    areas = [
        np.mean(np.sign(a[y][:, None] - a[~y]) / 2 + 0.5)
        for a, y in zip(outputs.T, flags.T, strict=True)
    ]
    assert found.each.mean() == pytest.approx(np.mean(areas))
    real = outputs + rng.normal(size=outputs.shape)
    found = values_of("r", outputs, real).each
    expected = [np.corrcoef(a, b)[0, 1] for a, b in zip(outputs.T, real.T, strict=True)]
    assert found.mean() == pytest.approx(np.mean(expected))
    # its variance is that of the coefficient, to first order
    low, high = correlation_interval(outputs[:, 0], real[:, 0])
    one = values_of("r", outputs[:, :1], real[:, :1]).each
    assert one.std() / 60**0.5 == pytest.approx((high - low) / 3.92, rel=0.3)
    assert values_of("r", np.ones((60, 1)), real[:, :1]).each.mean() == 0
    assert np.isnan(values_of("auroc", outputs, np.zeros(60, int)).each).all()


def test_the_interval_of_random_sets_covers_sets_and_samples():
    covered = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        sets, samples = rng.normal(size=(8, 1)), rng.normal(size=(1, 40))
        low, high = crossed_interval(sets + samples + rng.normal(size=(8, 40)))
        covered.append(low < 0 < high)
    assert 0.92 <= np.mean(covered) <= 0.985
    low, high = crossed_interval(np.eye(1, 30))
    assert low < 1 / 30 < high


def test_atoms_that_are_channels_are_channels_and_rotations_are_none():
    net = planted()
    data = drawn(net, 300)
    images = torch.stack([one for one, *_ in data])
    mean = images.relu().double().mean((0, 2))
    moments = xr.Dataset({"activation_mean": ("channel", mean.numpy())})
    channels = ranked().merge(moments)
    options = {**FEW, "tolerance": 0.05}
    expected = principal(net, "1", data, channels, **options)
    atoms = ranked().rename(channel="atom").assign(moments)
    eye = ifa.basis.identity(SecondMoments(mean))
    found = principal(net, "1", data, atoms, basis=eye, rotations=(0, 1), **options)
    for name in ("performance", "low", "high"):
        np.testing.assert_array_equal(found[name][:, :2], expected[name])
    assert found["chosen"].dims == ("fill", "atom")
    np.testing.assert_array_equal(found["candidate_bound"], expected["candidate_bound"])
    np.testing.assert_array_equal(found["chosen_count_fold"], expected["chosen_count_fold"])
    assert found["enough"].all()
    # the first of a rotation, by hand
    turned = [ifa.basis.rotation(SecondMoments(mean), seed=seed) for seed in (0, 1)]
    labels = torch.tensor([label for _, label, _ in data])
    right = []
    for basis in turned:
        held = basis.atoms[:8].T @ basis.atoms[:8]
        near = mean + (images.relu()[..., 0].double() - mean) @ held
        right.append((net[3](near.float()).argmax(1) == labels).double().mean())
    row = {"fill": "mean", "rule": "common, random rotation", "ratio": 0.5}
    assert float(found["performance"].sel(row)) == pytest.approx(float(sum(right) / 2))


def test_a_basis_that_is_not_enough_says_so():
    net = planted()
    data = drawn(net, 400)
    mean = torch.stack([one for one, *_ in data]).relu().double().mean((0, 2))
    basis = ifa.basis.rotation(SecondMoments(mean), atoms=2)
    values = {"importance": (("target", "atom"), [[2.0, 1.0]])}
    statistics = xr.Dataset(values, {"target": [0]})
    found = principal(net, "1", data, statistics, basis=basis, ratio=(0.5, 1.0), seeds=range(2))
    assert not found["enough"].any()
    assert (found["chosen_count"] == 2).all()
    assert "not even all of them are shown to be enough" in ifa.diagnose.summary(found)
    mask = torch.tensor([True, True])
    images = torch.stack([one for one, *_ in data])
    outputs = ifa.evaluate.feature_perturbation(net, "1", images, mask, basis=basis)
    labels = torch.tensor([label for _, label, _ in data])
    right = float((outputs.argmax(1) == labels).double().mean())
    assert float(found["performance"][0, 0, 1]) == pytest.approx(right)
    curve = ifa.evaluate.feature_curve(net, "1", images, [2.0, 1.0], basis=basis, ratio=(1.0,))
    assert torch.equal(curve.outputs[0], outputs)
    with pytest.raises(ValueError, match="dictionary for the layer's 16 channels, got one for 3"):
        principal(
            net, "1", data, statistics, basis=ifa.basis.identity(SecondMoments(torch.ones(3)))
        )


class SecondMoments(NamedTuple):
    """What a rotation and the identity read of a layer."""

    activation_mean: torch.Tensor


def test_sizes_are_spaced_and_hold_those_asked_for():
    assert candidates(10, [3], 64).tolist() == list(range(1, 11))
    sizes = candidates(2048, [100, 700], 64)
    assert {1, 100, 700, 2048} <= {*sizes.tolist()}
    assert len(sizes) < 66
    assert (sizes[20:] / sizes[19:-1]).max() < 1.2


def test_a_target_without_accepted_samples_is_named():
    net = planted()
    data = drawn(net, 60)
    values = np.stack([np.arange(CHANNELS, 0, -1.0), np.full(CHANNELS, np.nan)])
    statistics = xr.Dataset({"importance": (("target", "channel"), values)}, {"target": [0, 3]})
    found = principal(net, "1", data, statistics, **FEW)
    assert found["candidate"].size == CHANNELS
    with pytest.raises(ValueError, match=r"importances of every target, got none of \[3\]"):
        principal(net, "1", data, statistics, per_target=True, **FEW)
    with pytest.raises(ValueError, match=r"importances of a target, got none of \[3\]"):
        principal(net, "1", data, statistics.isel(target=[1]), **FEW)


def test_samples_that_belong_together_are_heeded():
    net = planted()
    data = [
        (one, label, f"patient-{n // 5}/{n}") for n, (one, label, _) in enumerate(drawn(net, 60))
    ]
    with pytest.warns(ifa.DependentSamples, match="principal_features"):
        blind = principal(net, "1", data, ranked(), **FEW)
    told = principal(net, "1", data, ranked(), cluster=np.arange(60) // 5, **FEW)
    assert told.attrs["least_tolerance"] > 4 * blind.attrs["least_tolerance"]


def digits_net(trained):
    net, held = trained(epochs=12), ifa.nets.digits("held-out")
    return net, held, ifa.analyze(net, held, layer="conv3", progress=False)


@pytest.mark.parametrize("by", ["difference", "importance"])
def test_the_principal_set_is_enough_and_the_next_is_not_shown_to_be(trained, by):
    net, held, clean = digits_net(trained)
    few = held[::4]
    options = {"by": by, "tolerance": 0.05, "ratio": (0.1, 0.5, 0.75), "seeds": range(3)}
    found = ifa.diagnose.principal_features(net, "conv3", few, clean, fill="mean", **options)
    found = found.sel(fill="mean")
    count = int(found["chosen"].sum())
    assert count == found["chosen_count"] < 64
    assert float(found["candidate_bound"].sel(candidate=count)) <= 0.05
    assert float(found["candidate_bound"].sel(candidate=count - 1)) > 0.05
    importance = clean["conv3"]["importance"] if by == "importance" else ifa.difference(clean)
    ranked = np.abs(importance).max("target")
    images = torch.stack([image for image, *_ in few])
    labels = torch.tensor([label for _, label, _ in few])
    with torch.no_grad():
        means = net.conv3(net.conv2(net.conv1(images))).mean((0, 2, 3))
    outputs = ifa.evaluate.feature_perturbation(
        net, "conv3", images, ifa.select.largest(ranked, ratio=count / 64), baseline=means
    )
    loss = found.attrs["reference"] - float((outputs.argmax(1) == labels).double().mean())
    assert float(found["candidate_loss"].sel(candidate=count)) == pytest.approx(loss)
    assert (found["low"] <= found["performance"]).all()
    assert (found["performance"] <= found["high"]).all()


def test_greedy_beats_the_ranking():
    data = ifa.nets.simulated(1)
    net = ifa.nets.train(partial(ifa.nets.simulated_cnn, 1), data, epochs=5)
    tree = ifa.analyze(net, data, layer="conv2", progress=False)
    options = {"ratio": (0.25, 0.5), "seeds": range(3), "metric": "auroc", "fill": "zero"}
    greedy, ranked = (
        ifa.diagnose.principal_features(
            net, "conv2", data[::3] + data[1::3], tree, by=by, **options
        )
        for by in ("greedy", "difference")
    )
    row = {"ratio": 0.5, "fill": "zero"}
    assert greedy["performance"].sel(row)[0] >= ranked["performance"].sel(row)[0] - 0.05
    assert greedy["rule"].values.tolist() == ["common, greedy", "common, random"]
    assert greedy.attrs["samples"] == ranked.attrs["samples"] // 2


def test_the_one_channel_that_a_regression_reads_is_found():
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv1d(1, 6, 3), torch.nn.AdaptiveAvgPool1d(1), torch.nn.Flatten()
    ).eval()
    net.append(torch.nn.Linear(6, 1))
    with torch.no_grad():
        net[3].weight.zero_()
        net[3].weight[0, 4] = 2.0
        inputs = torch.randn(40, 1, 9)
        data = list(zip(inputs, net(inputs)[:, 0].tolist(), strict=True))
    tree = ifa.analyze(net, data, layer="0", task="regression", progress=False)
    for by in ("importance", "greedy"):
        found = ifa.diagnose.principal_features(net, "0", data, tree, by=by, metric="r")
        assert (found["chosen"].values == ([False] * 4 + [True, False])).all()
        assert found.attrs["reference"] == pytest.approx(1.0)


MEMORY = """
import json, sys
from pathlib import Path
import torch
import ifa

kind, samples = sys.argv[1], int(sys.argv[2])


class Images(torch.utils.data.Dataset):
    def __len__(self):
        return samples

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return torch.randn(1, 64, 64, generator=generator), index % 4


torch.manual_seed(0)
torch.set_num_threads(1)
net = torch.nn.Sequential(
    torch.nn.Conv2d(1, 16, 3, stride=2), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(4),
    torch.nn.Flatten(), torch.nn.Linear(256, 4),
).eval()
first = torch.utils.data.Subset(Images(), range(64))
statistics = ifa.analyze(net, first, layer="1", progress=False, targets=range(4))
options = {"by": "importance", "seeds": range(2)}
ifa.diagnose.principal_features(net, "1", first, statistics, **options)  # libraries are loaded
Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
if kind == "analyze":
    ifa.analyze(net, Images(), layer="1", targets=range(4), progress=False)
else:
    ifa.diagnose.principal_features(net, "1", Images(), statistics, **options)
lines = Path("/proc/self/status").read_text().splitlines()
print(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024)
"""


@pytest.mark.deep
def test_memory_is_that_of_an_analysis():
    """Over 10 000 images of 64 by 64, which take 156 MiB: peak of the resident memory, MiB."""
    analysis, principal = (
        float(subprocess.check_output([sys.executable, "-c", MEMORY, kind, "10000"], text=True))
        for kind in ("analyze", "principal")
    )
    assert principal < analysis + 100


def vit_by_hand(net, images, mask, value):
    """Run a transformer of which the tokens of the grid have only some of their channels."""
    raw, head = ifa.cut(net, "blocks.0", images)(images)
    tokens = raw.clone()
    tokens[:, 1:] = torch.where(mask, raw[:, 1:], value)
    with torch.no_grad():
        return head(tokens)


@pytest.mark.parametrize("laid", [{}, {"grid": ifa.tokens(1, (2, 3))}])
def test_channels_of_tokens_are_those_of_maps_and_the_class_token_stays(laid):
    net = ifa.testing.models.small_vit()
    images = ifa.testing.models.inputs(net, 40)
    data = [(one, int(label)) for one, label in zip(images, net(images).argmax(1), strict=True)]
    mask = torch.arange(8) < 3
    outputs = ifa.evaluate.feature_perturbation(net, "blocks.0", images, mask, **laid)
    torch.testing.assert_close(outputs, vit_by_hand(net, images, mask, 0.0))
    importance = torch.arange(8, 0, -1.0)
    curve = ifa.evaluate.feature_curve(
        net, "blocks.0", images, importance, ratio=(0.375, 1.0), **laid
    )
    torch.testing.assert_close(curve.outputs, torch.stack([outputs, net(images)]))
    tree = ifa.analyze(
        net, data, layer="blocks.0", reductions="second_moments", progress=False, **laid
    )
    basis = ifa.basis.balanced(tree)
    atoms = ifa.analyze(net, data, layer="blocks.0", basis=basis, progress=False, **laid)
    assert atoms["blocks.0"].sizes["atom"] == 8
    found = principal(net, "blocks.0", data, tree, ratio=(0.375,), seeds=range(2), **laid)
    assert found["chosen"].sizes["channel"] == 8
    ranks = np.abs(tree["blocks.0"]["importance"]).max("target")
    kept = torch.tensor(ifa.select.largest(ranks, ratio=0.375).values)
    means = torch.tensor(tree["blocks.0"]["activation_mean"].values, dtype=torch.float32)
    for fill, value in (("zero", 0.0), ("mean", means)):
        right = vit_by_hand(net, images, kept, value).argmax(1) == net(images).argmax(1)
        expected = float(right.double().mean())
        assert float(found["performance"].sel(fill=fill)[0, 0]) == pytest.approx(expected)
    turned = principal(
        net, "blocks.0", data, atoms, basis=basis, ratio=(1.0,), seeds=(), rotations=[0], **laid
    )
    np.testing.assert_allclose(turned["performance"].sel(fill="mean")[::2], 1.0)


def test_a_grid_that_lays_nothing_out_is_refused():
    net = planted()
    data = drawn(net, 20)
    with pytest.raises(TypeError, match=r"principal_features: expected grid to lay out"):
        principal(net, "1", data, ranked(), grid=(2, 3))
    with pytest.raises(TypeError, match=r"feature_curve: expected grid to lay out"):
        ifa.evaluate.feature_curve(net, "1", data[0][0][None], torch.ones(16), grid=(2, 3))


def test_statistics_of_another_network_layer_or_basis_are_refused_by_name():
    torch.manual_seed(0)
    model, other = (
        nn.Sequential(
            nn.Conv2d(1, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 1)
        ).eval()
        for _ in range(2)
    )
    data = [(torch.randn(1, 6, 6), float(n % 3)) for n in range(24)]
    known = {"progress": False, "reductions": ["second_moments"], "task": "regression"}
    known["targets"] = [0]
    own = ifa.analyze(model, data, layer="1", **known)
    pca, turned = ifa.basis.pca(own), ifa.basis.identity(own)
    atoms = ifa.analyze(model, data, layer="1", basis=turned, **known)
    wrong = [
        (ifa.analyze(other, data, layer="1", **known), None, "with other weights or options"),
        (ifa.analyze(model, data, layer="0", **known)["0"].to_dataset(), None, "layer '0'"),
        (atoms, None, "atoms of another basis"),
        (atoms, pca, "atoms of another basis"),
        (own, pca, "importances of channels"),
    ]
    for statistics, basis, said in wrong:
        with pytest.raises(ValueError, match=said):
            ifa.diagnose.principal_features(
                model, "1", data, statistics, basis=basis, metric="r", by="importance", seeds=(0,)
            )
    options = {"basis": turned, "metric": "r", "by": "importance", "seeds": (0,), "fill": "mean"}
    ifa.diagnose.principal_features(model, "1", data, atoms, **options)


def test_clusters_that_data_know_are_theirs():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)
    ).eval()
    inputs = torch.randn(24, 1, 6, 6)
    labels, whose = model(inputs).argmax(1).tolist(), [f"p{n // 3}" for n in range(24)]
    data = ifa.data.arrays(inputs.numpy(), labels, cluster=whose)
    run = ifa.analyze(model, data, layer="1", progress=False)
    run = run["1"].to_dataset().dropna("target", subset=["importance"])
    own = ifa.diagnose.principal_features(model, "1", data, run, by="importance", seeds=(0,))
    bare = ifa.data.arrays(inputs.numpy(), labels)
    given = ifa.diagnose.principal_features(
        model, "1", bare, run, by="importance", seeds=(0,), cluster=whose
    )
    xr.testing.assert_identical(own, given)


curve = partial(ifa.diagnose.feature_curve, by="importance")


@pytest.mark.parametrize("per_target", [False, True])
def test_a_curve_is_that_of_one_batch(per_target):
    net, data = planted(), drawn(planted(), 150)
    images = torch.stack([one for one, *_ in data])
    labels = torch.tensor([label for _, label, _ in data])
    rng = np.random.default_rng(0)
    values = xr.DataArray(
        rng.normal(size=(TARGETS, CHANNELS)), {"target": range(TARGETS)}, ("target", "channel")
    )
    options = {"ratio": (0.5, 0.1, 1.0), "seeds": (3,), "per_target": per_target}
    found = curve(net, "1", data, values.to_dataset(name="importance"), **options, batch_size=64)
    ranking = abs(values) if per_target else abs(values).max("target")
    means = images.relu().double().mean((0, 2))
    for fill, baseline in (("zero", 0.0), ("mean", means)):
        for place, keep in enumerate(("selected", "random")):
            expected = ifa.evaluate.feature_curve(
                net, "1", images, ranking, keep=keep, seed=3, baseline=baseline,
                ratio=options["ratio"],
            )  # fmt: skip
            right = expected.outputs.argmax(-1).eq(labels).double().mean(-1).numpy()
            shown = found["performance"].sel(fill=fill)[place].values
            np.testing.assert_allclose(shown, right, atol=1e-6)
        masks = [ifa.select.largest(ranking, ratio=one) for one in options["ratio"]]
        np.testing.assert_array_equal(found["kept"].sel(fill=fill), np.stack(masks))
    assert found.attrs["reference"] == pytest.approx(
        net(images).argmax(1).eq(labels).double().mean()
    )
    assert (found["low"] <= found["performance"]).all()
    assert (found["performance"] <= found["high"]).all()
    assert "feature curve of layer 1: accuracy of 150 samples" in ifa.diagnose.summary(found)


def test_a_curve_of_outputs_is_that_of_one_batch():
    """To 1e-6 what Pearson's r is of the outputs, which have no steps as an accuracy has."""
    net, data = planted(), drawn(planted(), 100)
    data = [(one, net(one[None])[0].tolist(), name) for one, _, name in data]
    found = curve(net, "1", data, ranked(), metric="r", fill="zero", **FEW)
    images = torch.stack([one for one, *_ in data])
    expected = ifa.evaluate.feature_curve(
        net, "1", images, ranked()["importance"][0], ratio=FEW["ratio"]
    )
    whole = net(images).double()
    for kept, shown in zip(expected.outputs, found["performance"].values[0, 0], strict=True):
        pairs = zip(kept.T.double(), whole.T, strict=True)
        rs = [float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in pairs]
        assert shown == pytest.approx(np.mean(rs), abs=1e-6)


@pytest.mark.parametrize("in_basis", [False, True])
def test_a_curve_is_that_of_the_principal_features(in_basis):
    net, data = planted(), drawn(planted(), 120)
    options = {**FEW, "ratio": (0.5, 1.0), "rotations": (0,)}
    importance = ranked()
    if in_basis:
        mean = torch.stack([one for one, *_ in data]).relu().double().mean((0, 2))
        options["basis"] = ifa.basis.rotation(SecondMoments(mean), seed=1)
        importance = importance.rename(channel="atom")
    sized = partial(principal, sizes=4)
    found, whole = (of(net, "1", data, importance, **options) for of in (curve, sized))
    for name in ("performance", "low", "high"):
        xr.testing.assert_identical(found[name], whole[name])
    ifa.plot.diagnosis(found)


def test_a_curve_runs_below_the_layer_once_for_each_batch():
    net = planted(below=Below)
    counted = []
    for samples in (640, 1280):
        data = drawn(net, samples)
        SEEN.clear()
        curve(net, "1", data, ranked(), **FEW, batch_size=64, fill="zero")
        counted.append(len(SEEN))
    assert counted[1] - counted[0] == 10  # batches of 64, however many sets


def test_a_curve_that_was_killed_goes_on_with_the_same_bits(tmp_path):
    net, data = planted(), drawn(planted(), 200)
    options = {**FEW, "shard": 50, "batch_size": 25, "fill": "zero", "data_version": "1"}
    whole = curve(net, "1", data, ranked(), store=tmp_path / "whole", **options)
    with pytest.raises(RuntimeError, match="got KeyboardInterrupt from the data set"):
        curve(net, "1", Stopping(data), ranked(), store=tmp_path / "run", **options)
    assert 0 < len(list((tmp_path / "run" / "shards").glob("*.npz"))) < 4
    again = curve(net, "1", data, ranked(), store=tmp_path / "run", **options)
    xr.testing.assert_identical(again, whole)
    made = [contents(tmp_path / name) for name in ("run", "whole")]
    assert [files.pop("COMMIT.json") for files in made]  # which says when
    assert made[0] == made[1]


def test_a_curve_of_a_batch_refuses_a_data_set_by_name():
    data = drawn(planted(), 4)
    pairs = torch.utils.data.TensorDataset(torch.stack([one for one, *_ in data]), torch.zeros(4))
    for given in (data, pairs, torch.utils.data.DataLoader(pairs)):
        with pytest.raises(TypeError, match=r"got a data set, .*ifa\.diagnose\.feature_curve"):
            ifa.evaluate.feature_curve(planted(), "1", given, ranked()["importance"][0])


@pytest.mark.parametrize(
    ("option", "came"),
    [({"ratio": (0.0,)}, "ratio in"), ({"fill": "median"}, "fill"), ({"fill": ()}, "one fill")],
)
def test_a_curve_refuses_options_by_name(option, came):
    with pytest.raises(ValueError, match=rf"ifa\.diagnose\.feature_curve: expected .*{came}"):
        curve(planted(), "1", drawn(planted(), 4), ranked(), **option)
