"""Two sites' runs merged are one run over both; two runs side by side."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from naming import plain
from populations import contents, digits_like, measured, net
from test_analysis import assert_same

import ifa
from ifa.diagnose.rows import table_of
from ifa.reduce import extras

EXTRAS = tuple(extras.EXTRAS)

OPTIONS = {"layer": ["conv2", "conv1"], "progress": False, "shard": 4, "batch_size": 3}


def runs(tmp_path, model, data, cut, groups=None, cluster=None, **options):
    """Analyze two parts on disk, and the whole in memory."""
    options = {**OPTIONS, **options}
    parts = (slice(0, cut), slice(cut, None))
    for name, part in zip("ab", parts, strict=True):
        labels = {"groups": groups, "cluster": cluster}
        mine = {key: None if each is None else each[part] for key, each in labels.items()}
        ifa.analyze(model, data[part], store=tmp_path / name, **mine, **options)
    return ifa.analyze(model, data, groups=groups, cluster=cluster, **options)


MODES = [
    {"keep_samples": "full", "reductions": EXTRAS},
    {"keep_samples": "none", "targets": (3, 0), "reductions": ("top_samples", "histogram")},
    {"targets": "label", "target_names": ["zero", "one", "two", "three"]},
    {"probability_weighted": True, "keep_samples": "full", "targets": (1, 2)},
]


@pytest.mark.parametrize("options", MODES, ids=str)
@pytest.mark.parametrize("store", [True, False], ids=["disk", "memory"])
def test_merged_halves_are_the_whole(options, store, tmp_path):
    model = net()
    data = digits_like(model, named=True)
    whole = runs(tmp_path, model, data, 10, **options)
    before = contents(tmp_path / "a"), contents(tmp_path / "b")
    home = tmp_path / "both" if store else None
    merged = ifa.merge(tmp_path / "a", tmp_path / "b", store=home)
    # maps of one sample depend on its batch in the last bits of float32
    assert_same(merged, whole, rtol=1e-6)
    assert before == (contents(tmp_path / "a"), contents(tmp_path / "b"))
    if store:
        ifa.verify(home)
        assert_same(ifa.open(home), merged, rtol=0)
        spec = json.loads((home / "spec.json").read_text())
        assert [parent["data"]["samples"] for parent in spec["parents"]] == [10, 13]
        again = ifa.merge(tmp_path / "a", tmp_path / "b", store=home)
        assert_same(again, merged, rtol=0)


def test_merging_agrees_to_1e_12_and_quantiles_are_exact(tmp_path):
    """Batches are cut alike, so that the samples themselves are the same bits."""
    model = net()
    data = digits_like(model, named=True)
    whole = runs(tmp_path, model, data, 12, shard=12, reductions=EXTRAS)
    merged = ifa.merge(tmp_path / "a", tmp_path / "b")
    assert_same(merged, whole, rtol=1e-12)
    for name, values in whole["conv2"].data_vars.items():
        if not name.startswith("importance") or "histogram" in name or "quantiles" in name:
            np.testing.assert_array_equal(merged["conv2"][name], values, err_msg=name)


def test_groups_of_the_same_name_are_one(tmp_path):
    model = net()
    data = digits_like(model, named=True)
    sites = np.array(["north"] * 6 + ["west"] * 8 + ["east"] * 9)
    whole = runs(tmp_path, model, data, 10, groups=sites, reductions=EXTRAS)
    merged = ifa.merge(tmp_path / "a", tmp_path / "b", store=tmp_path / "both")
    assert_same(merged, whole, rtol=1e-6)
    assert merged["conv2"]["group"].values.tolist() == ["east", "north", "west"]
    numbers = runs(tmp_path / "n", model, data, 10, groups=np.arange(23) // 2 % 12)
    merged = ifa.merge(tmp_path / "n" / "a", tmp_path / "n" / "b")
    assert_same(merged, numbers, rtol=1e-6)


def test_clusters_are_kept_and_those_of_the_same_name_are_one(tmp_path):
    model = net()
    data = digits_like(model, named=True)
    cluster = [f"patient {sample // 3}" for sample in range(23)]  # one of them in both
    whole = runs(tmp_path, model, data, 10, cluster=cluster, keep_samples="full")
    merged = ifa.merge(tmp_path / "a", tmp_path / "b", store=tmp_path / "both")
    assert merged["samples"]["cluster"].values.tolist() == cluster
    assert_same(merged, whole, rtol=1e-6)
    ifa.verify(tmp_path / "both")
    assert table_of(merged, "conv2", "here").clusters == tuple(sorted(set(cluster)))


def test_regressions_and_merged_runs_merge(tmp_path):
    model = net(1, 5)
    data = [(*item, f"case {index}") for index, item in enumerate(measured(model))]
    options = {"task": "regression", "keep_samples": "full", "reductions": ("top_samples",)}
    whole = runs(tmp_path, model, data, 5, **options)
    ifa.analyze(model, data[5:9], store=tmp_path / "c", **OPTIONS, **options)
    ifa.analyze(model, data[9:], store=tmp_path / "d", **OPTIONS, **options)
    ifa.merge(tmp_path / "c", tmp_path / "d", store=tmp_path / "cd")
    merged = ifa.merge(tmp_path / "a", tmp_path / "cd", store=tmp_path / "all")
    assert_same(merged, whole, rtol=1e-6)
    ifa.verify(tmp_path / "all")


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"targets": "label"}, "targets: 'predicted' in the first, 'label' in the second"),
        ({"reduction": "mean"}, "reduction: 'sum' in the first, 'mean' in the second"),
        ({"weight": ifa.weight.gradcam}, "weight: 'ifa.weight.hirescam.hirescam' in the first"),
        ({"quantiles": (0.5,)}, "quantiles: "),
        ({"groups": ["x"] * 8}, "groups: no groups in the first, groups in the second"),
        ({"cluster": ["x"] * 8}, "cluster: no clusters in the first, clusters in the second"),
        ({"layer": "conv1"}, "layers: ['conv2', 'conv1'] in the first, ['conv1'] in the second"),
        ({"keep_samples": "none"}, "keep_samples: 'summary' in the first"),
    ],
    ids=plain,
)
def test_runs_of_another_analysis_are_refused(other, said, tmp_path):
    model = net(1)
    data = digits_like(model, 16)
    ifa.analyze(model, data[:8], store=tmp_path / "a", **OPTIONS)
    ifa.analyze(model, data[8:], store=tmp_path / "b", **{**OPTIONS, **other})
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        ifa.merge(tmp_path / "a", tmp_path / "b", store=tmp_path / "both")
    assert str(caught.value).startswith("ifa.merge: expected two runs of the same analysis")
    assert not (tmp_path / "both").exists()


def test_another_network_and_an_unfinished_run_are_refused(tmp_path):
    data = digits_like(net(1), 8)
    for name, seed in (("a", 0), ("b", 1)):
        ifa.analyze(net(1, seed=seed), data, store=tmp_path / name, **OPTIONS)
    with pytest.raises(ValueError, match=r"got weights of the network"):
        ifa.merge(tmp_path / "a", tmp_path / "b")
    shutil.copytree(tmp_path / "a", tmp_path / "c")
    (tmp_path / "c" / "COMMIT.json").unlink()
    with pytest.raises(ValueError, match="expected a finished run"):
        ifa.merge(tmp_path / "a", tmp_path / "c")


# Side by side


def test_two_runs_are_compared_on_common_labels(tmp_path):
    data = digits_like(net(1), 16)
    options = {**OPTIONS, "target_names": list("abcd")}
    ifa.analyze(net(1), data, store=tmp_path / "a", targets=(3, 0), **options)
    b = ifa.analyze(net(1, seed=1), data, targets=(1, 3), **{**options, "layer": "conv2"})
    both = ifa.compare(tmp_path / "a", b)
    assert list(both.children) == ["conv2"]
    found = both["conv2"].to_dataset()
    assert found["run"].values.tolist() == ["a", "b"]
    assert found["target"].values.tolist() == [0, 1, 3]
    assert found["target_name"].values.tolist() == ["a", "b", "d"]
    assert found["importance"].dims == ("run", "target", "channel")
    a = ifa.open(tmp_path / "a")["conv2"]
    np.testing.assert_array_equal(found["importance"][0, 2], a["importance"][0])
    np.testing.assert_array_equal(found["importance"][1, 2], b["conv2"]["importance"][1])
    assert found["importance"][0, 1].isnull().all()
    assert found["importance"].attrs == a["importance"].attrs
    assert both.attrs["first_difference"].startswith("layers: ")


def test_runs_without_a_common_layer_or_with_other_channels_are_refused():
    model = net(1)
    data = digits_like(model, 8)
    one, two = (ifa.analyze(model, data, layer=name, progress=False) for name in ("conv1", "conv2"))
    with pytest.raises(ValueError, match=r"a layer in common, got \['conv1'\] and \['conv2'\]"):
        ifa.compare(one, two)
    two["conv1"] = two["conv2"]
    with pytest.raises(ValueError, match="'conv1' with the same features in both runs, got 3"):
        ifa.compare(one, two)


def test_what_samples_share_is_kept(tmp_path):
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.Flatten()).eval()
    for name, column in (("a", None), ("b", "patient")):
        inputs, ids = np.ones((3, 1, 4), np.float32), [f"{name}{n}" for n in range(3)]
        data = replace(ifa.data.arrays(inputs, [0, 1, 0], ids=ids), shared=column)
        ifa.analyze(net, data, layer="0", store=tmp_path / name, progress=False)
    merged = ifa.merge(tmp_path / "a", tmp_path / "b")
    assert merged.attrs["shared"] == "patient"
    kept = ifa.merge(tmp_path / "a", tmp_path / "b", store=tmp_path / "both")
    assert kept.attrs["shared"] == "patient"
