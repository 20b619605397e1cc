"""Claims measured on one's own network: by algebra, against brute force, and what is said."""

import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib import pyplot as plt
from torch import nn

import ifa
from ifa import evidence
from ifa.intervals import Interval


def net(head):
    torch.manual_seed(0)
    pooled = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), *pooled, *head).eval()


LINEAR = (nn.Linear(8, 3),)
BENT = (nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))


def data_of(model, samples=48, seed=1):
    draws = torch.Generator().manual_seed(seed)
    inputs = (
        torch.randn(samples, 1, 6, 7, generator=draws) + torch.arange(samples).view(-1, 1, 1, 1) % 3
    )
    with torch.no_grad():
        labels = model(inputs).argmax(1).tolist()
    return [
        (one, label, f"s{n}") for n, (one, label) in enumerate(zip(inputs, labels, strict=True))
    ]


def claimed(**options):
    model = net(options.pop("head", LINEAR))
    return ifa.claims(model, data_of(model), "1", progress=False, **options)


@pytest.fixture(scope="module")
def found():
    return claimed()


def test_a_level_over_a_linear_head_follows_its_score_by_algebra(found):
    row = found.sel(claim="level")
    assert "by algebra" in row["sentence"].item()
    assert found.attrs["samples"] == 24


def test_over_a_bent_head_nothing_is_said_of_algebra():
    assert "by algebra" not in claimed(head=BENT).sel(claim="level")["sentence"].item()


def test_levels_are_those_of_maps_that_are_made():
    model = net(BENT)
    fit, rest = data_of(model), data_of(model, 30, seed=2)
    run = ifa.analyze(model, fit, layer="1", progress=False)
    found = ifa.claims(model, rest, "1", statistics=run, ratio=0.5, progress=False)
    inputs = torch.stack([one for one, *_ in rest])
    target = model(inputs).argmax(1)
    seen = run["1"]["importance"].dropna("target")
    known = torch.from_numpy(np.isin(target.numpy(), seen["target"].values))
    inputs, target = inputs[known], target[known]
    score = model(inputs).gather(1, target[:, None])[:, 0].detach().double().numpy()
    mask = ifa.select.largest(seen, ratio=0.5)
    whole, part = (
        ifa.explain(model, inputs, target, layer="1", mask=one, rectify=False, size=None).double()
        for one in (None, mask)
    )
    alone = (whole - whole.amin((1, 2), True)) / (
        whole.amax((1, 2), True) - whole.amin((1, 2), True)
    )
    r = [np.corrcoef(one.sum((1, 2)).numpy(), score)[0, 1] for one in (whole, alone, part)]
    rows = found["estimate"].sel(claim=["level", "per-map scale", "kept level"]).values
    np.testing.assert_allclose(rows, [r[0], r[0] - r[1], r[2] - r[0]], atol=1e-5)
    same = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(whole, part, strict=True)]
    np.testing.assert_allclose(found["estimate"].sel(claim="same map"), np.mean(same), atol=1e-5)


def test_a_share_of_channels_lies_between_those_shown_to_lose_and_one_shown_not_to(found):
    for fill in ("zero", "mean"):
        row = found.sel(claim=f"few channels, {fill} fill")
        assert 1 / 8 <= row["low"] <= row["estimate"] <= row["high"] <= 1
        assert row["estimate"] * 8 == round(float(row["estimate"] * 8))


def test_of_so_few_samples_no_share_can_be_said(found):
    """24 samples cannot show that nothing is lost: that few channels are not enough neither."""
    row = found.sel(claim="few atoms, mean fill")
    assert row["estimate"] <= 0.5
    assert row["high"] == 1
    assert row["verdict"] == "cannot be said"
    assert "24 samples cannot exclude" in row["sentence"].item()


def test_few_directions_are_enough_for_three_classes_and_a_run_without_moments_says_so(found):
    row = found.sel(claim="few atoms, mean fill")
    channels = found.sel(claim="few channels, mean fill")
    assert row["estimate"] <= channels["estimate"]
    model = net(LINEAR)
    run = ifa.analyze(model, data_of(model), layer="1", progress=False)
    again = ifa.claims(model, data_of(model, seed=2), "1", statistics=run, progress=False)
    row = again.sel(claim="few atoms, mean fill")
    assert row["verdict"] == "cannot be said"
    assert "reductions=['second_moments']" in row["sentence"].item()


@pytest.mark.parametrize(
    ("low", "high", "above", "said"),
    [
        (0.6, 0.7, True, "holds"),
        (0.1, 0.5, True, "does not hold"),
        (0.4, 0.6, True, "cannot be said"),
        (0.1, 0.5, False, "holds"),
        (0.6, 0.7, False, "does not hold"),
        (0.4, 0.6, False, "cannot be said"),
        (np.nan, np.nan, True, "cannot be said"),
        (0.6, np.nan, False, "cannot be said"),
    ],
)
def test_a_claim_holds_where_all_of_its_interval_says_so(low, high, above, said):
    interval = Interval(np.array(low), np.array(high))
    assert evidence.verdict(evidence.Claim("a", "b", 0.5, interval, 0.5, above)) == said


def test_clusters_are_not_torn_apart_and_count_once():
    model = net(BENT)
    data, whose = data_of(model), [f"patient {n // 4}" for n in range(48)]
    fit, rest, codes = evidence._parted(data, None, whose)
    owners = [{whose[at] for at in part.indices} for part in (fit, rest)]
    assert not owners[0] & owners[1]
    assert set(codes) == owners[1]
    assert [len(part) for part in owners] == [6, 6]
    alone, together = (claimed(head=BENT, cluster=one) for one in (None, whose))
    assert set(alone["claim"].values) == set(together["claim"].values)


def test_clusters_that_data_know_are_not_torn_apart_either():
    model, samples = net(BENT), data_of(net(BENT))
    inputs = np.stack([one.numpy() for one, *_ in samples])
    whose = [f"patient {n // 4}" for n in range(48)]
    labels = [label for _, label, _ in samples]
    data = ifa.data.arrays(inputs, labels, cluster=whose)
    fit, rest, codes = evidence._parted(data, None, None)
    owners = [{whose[at] for at in part.indices} for part in (fit, rest)]
    assert not owners[0] & owners[1]
    assert set(codes) == owners[1]
    own, given = (
        ifa.claims(model, one, "1", cluster=each, progress=False)
        for one, each in ((data, None), (samples, whose))
    )
    xr.testing.assert_identical(own, given)


def ranked_by(model, samples=None, **options):
    options = {"layer": "1", "progress": False} | options
    return ifa.analyze(model, samples or data_of(model, 60, seed=5), **options)


def own_channels(model):
    return ifa.basis.identity(ranked_by(model, reductions=["second_moments"]))


def other(head=BENT):
    model = net(head)
    with torch.no_grad():
        model[0].weight.neg_()
    return model


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda model: ranked_by(other()), "network Sequential with other weights or options"),
        (lambda model: ranked_by(model, layer="0")["0"].to_dataset(), "layer '0' instead of '1'"),
        (lambda model: ranked_by(model, weight=ifa.weight.gradcam), "weighting gradcam"),
        (lambda model: ranked_by(model, data_of(model)), "of the same data"),
        (lambda model: ranked_by(model, groups=["a", "b"] * 30), "'group'"),
        (lambda model: ranked_by(model, basis=own_channels(model)), "'atom'"),
    ],
    ids=["network", "layer", "weighting", "data", "groups", "basis"],
)
def test_statistics_that_cannot_rank_are_refused_by_name(made, said):
    model = net(BENT)
    with pytest.raises(ValueError, match=said):
        ifa.claims(model, data_of(model), "1", statistics=made(model), progress=False)


def test_the_same_data_are_found_by_a_version_and_in_merged_runs(tmp_path):
    model = net(BENT)
    data, others = data_of(model), data_of(model, 60, seed=5)
    versioned = ranked_by(model, data, data_version="1")
    assert evidence.of_same_data("here", versioned, data)
    assert not evidence.of_same_data("here", versioned, others)
    runs = [tmp_path / name for name in ("a", "b")]
    for run, samples in zip(runs, (data, others), strict=True):
        ranked_by(model, samples, store=run)
    merged = ifa.merge(*runs, store=tmp_path / "both")
    assert evidence.of_same_data("here", merged, data)
    assert not evidence.of_same_data("here", merged, data_of(model, seed=9))


def test_a_summary_says_every_claim(found):
    text = evidence.summary(found)
    for name, how in zip(found["claim"].values, found["verdict"].values, strict=True):
        assert any(line.startswith(name) and line.endswith(how) for line in text.splitlines())
    assert text.count("That ") == found.sizes["claim"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ratio": 1.0}, "expected ratio in"),
        ({"level": 95}, "expected level in"),
        ({"task": "detection"}, "expected task"),
        ({"maps": 0}, "expected maps"),
    ],
)
def test_options_out_of_range_are_refused(change, said):
    with pytest.raises(ValueError, match=said):
        claimed(**change)


def test_too_few_samples_to_part_are_refused():
    model = net(LINEAR)
    with pytest.raises(ValueError, match="at least eight samples"):
        ifa.claims(model, data_of(model, 6), "1", progress=False)


def test_the_figure_shows_every_claim(found):
    axes = ifa.plot.claims(found, axes=plt.figure().add_subplot())
    drawn = [getattr(one, "lines", None) for one in axes.containers]
    assert sum(len(lines[0].get_xdata()) for lines in drawn if lines) == found.sizes["claim"]
