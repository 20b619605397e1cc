"""The population's statistics against their definitions, and what must not change them."""

import numpy as np
import pytest
import torch
import xarray as xr
from naming import plain
from populations import QUANTILES, brute, digits_like, measured, net, noise

import ifa

F32 = {"rtol": 2e-5, "atol": 2e-6}
F64 = {"rtol": 1e-9, "atol": 1e-12}


def assert_statistics(dataset, expected, tolerance):
    assert set(dataset.data_vars) == set(expected)
    for name, values in expected.items():
        found = dataset[name].values
        assert found.shape == values.shape, name
        np.testing.assert_allclose(found, values, **tolerance, err_msg=name)


def assert_same(a, b, rtol=1e-6):
    """Two trees have the same groups, variables, dimensions, labels and values."""
    assert set(a.groups) == set(b.groups)
    for path in a.groups:
        left, right = a[path].to_dataset(inherit=False), b[path].to_dataset(inherit=False)
        assert set(left.variables) == set(right.variables), path
        assert set(left.coords) == set(right.coords), path
        for name in left.variables:
            where = f"{path}/{name}"
            assert left[name].dims == right[name].dims, where
            x, y = left[name].values, right[name].values
            if x.dtype.kind in "OTU":
                assert x.tolist() == y.tolist(), where
                continue
            assert x.dtype == y.dtype, where
            scale = np.nanmax(np.abs(y), initial=0) if y.dtype.kind == "f" else 0
            np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol * scale, err_msg=where)


CLASSIFICATION = [
    {},
    {"targets": "label"},
    {"targets": (3, 0)},
    {"targets": (2,)},
    {"weight": "gradcam"},
    {"weight": "layercam", "targets": "label"},
    {"reduction": "mean", "targets": (3, 1, 0)},
    {"quantiles": (0.9, 0.0, 1.0, 0.5)},
]


@pytest.mark.parametrize("options", CLASSIFICATION, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_statistics_equal_their_definition(options, dtype):
    model = net(dtype=dtype)
    data, layers = digits_like(model), ["conv1", "conv2"]
    kernel = options.get("weight", "fullcam")
    analyzed = {**options, "weight": getattr(ifa.weight, kernel)}
    tree = ifa.analyze(model, data, layer=layers, progress=False, batch_size=5, shard=9, **analyzed)
    defined = {name: value for name, value in options.items() if name != "weight"}
    expected, _ = brute(model, data, layers, kernel=kernel, **defined)
    assert tree.attrs["layers"] == layers
    for name in layers:
        tolerance = F64 if dtype == torch.float64 else F32
        assert_statistics(tree[name].to_dataset(), expected[name], tolerance)
        targets = options.get("targets", "predicted")
        listed = [0, 1, 2, 3] if isinstance(targets, str) else list(targets)
        assert tree[name]["target"].values.tolist() == listed
        assert tree[name]["quantile"].values.tolist() == list(options.get("quantiles", QUANTILES))


@pytest.mark.parametrize("space", [1, 3])
def test_statistics_over_one_and_three_space_axes(space):
    model = net(space)
    data = digits_like(model)
    tree = ifa.analyze(model, data, layer="conv2", progress=False)
    expected, _ = brute(model, data, ["conv2"])
    assert_statistics(tree["conv2"].to_dataset(), expected["conv2"], F32)


@pytest.mark.parametrize(
    ("outputs", "squeeze", "targets"),
    [
        (1, True, "predicted"),
        (1, False, "predicted"),
        (43, False, "predicted"),
        (43, False, (41, 0, 7)),
    ],
)
def test_statistics_of_a_regression(outputs, squeeze, targets):
    model = net(1, outputs, squeeze=squeeze)
    data = measured(model)
    options = {"targets": targets, "task": "regression"}
    tree = ifa.analyze(model, data, layer="conv2", progress=False, batch_size=4, shard=6, **options)
    expected, _ = brute(model, data, ["conv2"], **options)
    assert_statistics(tree["conv2"].to_dataset(), expected["conv2"], F32)
    assert (tree["conv2"]["count"] == len(data)).all()


@pytest.mark.parametrize("targets", ["predicted", (2, 0)], ids=str)
def test_groups_add_a_leading_dimension(targets):
    model = net(dtype=torch.float64)
    data = digits_like(model)
    sites = np.array(["b", "a", "c"])[np.arange(len(data)) % 3]
    tree = ifa.analyze(
        model, data, layer="conv2", targets=targets, groups=sites, progress=False, shard=8
    )
    expected, _ = brute(model, data, ["conv2"], targets=targets, groups=sites.tolist())
    dataset = tree["conv2"].to_dataset()
    assert_statistics(dataset, expected["conv2"], F64)
    assert dataset["group"].values.tolist() == ["a", "b", "c"]
    assert dataset["importance"].dims == ("group", "target", "channel")
    overall = ("group", "channel") if targets == "predicted" else ("group", "target", "channel")
    assert dataset["importance_overall"].dims == overall
    assert ifa.difference(dataset).dims == ("group", "target", "channel")


def test_groups_weigh_together_to_the_whole():
    model = net(dtype=torch.float64)
    data = digits_like(model)
    whole = ifa.analyze(model, data, layer="conv2", progress=False)["conv2"]
    apart = ifa.analyze(
        model, data, layer="conv2", progress=False, groups=np.arange(len(data)) % 2
    )["conv2"]
    assert apart["group"].values.tolist() == ["0", "1"]
    weighed = (apart["importance"] * apart["count"]).sum("group") / apart["count"].sum("group")
    np.testing.assert_allclose(weighed, whole["importance"], **F64)


def table_of(table, rows, layer, many):
    """Stack a brute-force table as ifa.analyze stores it: (target, sample) for many targets."""
    mine = [row for row in rows if row["layer"] == layer]
    per = len(mine) // len(table)
    found = {}
    for name in ("map_max", "map_min", "map_sum", "finite", "importance"):
        values = np.array([row[name] for row in mine])
        values = values.reshape(len(table), per, *values.shape[1:])
        found[name] = values.swapaxes(0, 1) if many else values[:, 0]
    score = np.array([row["score"] for row in table])
    found["score"] = score.T if many else score[:, 0]
    return found


@pytest.mark.parametrize(
    ("task", "targets", "outputs"),
    [
        ("classification", "predicted", 4),
        ("classification", "label", 4),
        ("classification", (3, 1), 4),
        ("regression", "predicted", 1),
        ("regression", "predicted", 43),
        ("regression", (5, 2), 43),
    ],
)
def test_the_sample_table_equals_its_definition(task, targets, outputs):
    model = net(1, outputs, dtype=torch.float64)
    classes = task == "classification"
    data = digits_like(model, named=True) if classes else measured(model)
    tree = ifa.analyze(
        model,
        data,
        layer=["conv1", "conv2"],
        task=task,
        targets=targets,
        keep_samples="full",
        progress=False,
        batch_size=4,
        shard=6,
    )
    _, (table, rows) = brute(model, data, ["conv1", "conv2"], task=task, targets=targets)
    many = not classes or not isinstance(targets, str)
    samples = tree["samples"]
    ids = [item[2] if len(item) == 3 else str(n) for n, item in enumerate(data)]
    assert samples["id"].values.tolist() == ids
    dims = ("sample", "output") if not classes and outputs > 1 else ("sample",)
    for name in ("label", "prediction"):
        values = np.array([row[name] for row in table]).reshape(samples[name].shape)
        np.testing.assert_allclose(samples[name].values, values, **F64)
        assert samples[name].dims == dims
    for layer in ("conv1", "conv2"):
        expected = table_of(table, rows, layer, many)
        np.testing.assert_allclose(samples["score"], expected.pop("score"), **F64)
        group = samples[layer]
        assert set(group.data_vars) == {"map_max", "map_min", "map_sum", "finite", "importance"}
        for name, values in expected.items():
            tolerance = F32 if name == "importance" else F64
            np.testing.assert_allclose(group[name].values, values, **tolerance, err_msg=name)
        lead = ("target", "sample") if many else ("sample",)
        assert group["map_max"].dims == lead
        assert group["importance"].dims == (*lead, "channel")


def test_what_is_kept_of_samples():
    model = net()
    data = digits_like(model)
    trees = {
        kind: ifa.analyze(model, data, layer="conv2", keep_samples=kind, progress=False)
        for kind in ("none", "summary", "full")
    }
    assert "samples" not in trees["none"].children
    assert "importance" not in trees["summary"]["samples/conv2"]
    assert "importance" in trees["full"]["samples/conv2"]
    assert set(trees["summary"]["samples"].data_vars) == {"id", "label", "prediction", "score"}
    for kind in ("none", "full"):
        xr.testing.assert_identical(
            trees[kind]["conv2"].to_dataset(), trees["summary"]["conv2"].to_dataset()
        )


@pytest.mark.parametrize(("batch_size", "shard"), [(1, 512), (23, 23), (7, 5), (3, 1), (512, 22)])
@pytest.mark.parametrize("targets", ["predicted", (3, 0)], ids=str)
def test_batch_and_shard_size_change_nothing(batch_size, shard, targets):
    model = net()
    data = digits_like(model)
    options = {"layer": ["conv1", "conv2"], "targets": targets, "keep_samples": "full"}
    usual = ifa.analyze(model, data, progress=False, **options)
    other = ifa.analyze(model, data, progress=False, batch_size=batch_size, shard=shard, **options)
    assert_same(other, usual)


@pytest.mark.parametrize(
    "options",
    [
        {"keep_samples": "full"},
        {"targets": (3, 0), "target_names": ["zero", "one", "two", "three"]},
        {"groups": ["a", "b"] * 11 + ["a"], "keep_samples": "none"},
        {"task": "regression", "score": ifa.score.log_probability},
        {"cluster": np.arange(23) // 4, "targets": (1, 2), "keep_samples": "full"},
    ],
    ids=plain,
)
def test_on_disk_and_in_memory_agree(options, tmp_path):
    model = net()
    data = digits_like(model, named=True)
    if options.get("task") == "regression":
        data = [(item, [0.5, 1.5, float(label), -1.0], name) for item, label, name in data]
    options = {"layer": ["conv2", "conv1"], "shard": 9, "progress": False, **options}
    memory = ifa.analyze(model, data, **options)
    disk = ifa.analyze(model, data, store=tmp_path / "run", **options)
    assert_same(disk, memory, rtol=0)
    assert dict(disk.attrs) == dict(memory.attrs)
    for path in memory.groups:
        for name, variable in memory[path].data_vars.items():
            stored = disk[path][name].attrs
            assert {key: stored[key] for key in variable.attrs} == variable.attrs, name


def test_clusters_are_kept_with_the_samples_and_change_nothing_else(tmp_path):
    model = net()
    data = digits_like(model, named=True)
    cluster = [f"patient {sample % 7}" for sample in range(23)]
    options = {"layer": "conv2", "shard": 9, "progress": False}
    plain = ifa.analyze(model, data, **options)
    run = {**options, "cluster": cluster, "store": tmp_path / "run"}
    for _ in range(2):  # the second time it is the finished one
        tree = ifa.analyze(model, data, **run)
        assert tree["samples"]["cluster"].values.tolist() == cluster
    assert ifa.open(tmp_path / "run")["samples"]["cluster"].values.tolist() == cluster
    tree["samples"] = tree["samples"].to_dataset().drop_vars("cluster")
    assert_same(tree["conv2"], plain["conv2"], rtol=0)


@pytest.mark.parametrize("other", [None, ["one"] * 23, [str(k) for k in range(23)]], ids=plain)
def test_a_run_of_other_clusters_is_refused(other, tmp_path):
    model = net()
    data = digits_like(model, named=True)
    options = {"layer": "conv2", "progress": False, "store": tmp_path / "run"}
    ifa.analyze(model, data, cluster=np.arange(23) // 2, **options)
    with pytest.raises(ValueError, match=r"cluster: '12: \w+' in the run, .* now"):
        ifa.analyze(model, data, cluster=other, **options)


def test_clusters_that_data_know_are_taken():
    model = net()
    items = digits_like(model, 8)
    inputs, labels = np.stack([item[0] for item in items]), [item[1] for item in items]
    data = ifa.data.arrays(inputs, labels, cluster=[5, 5, 6, 6, 7, 7, 7, 7])
    tree = ifa.analyze(model, data, layer="conv2", progress=False)
    assert tree["samples"]["cluster"].values.tolist() == list("55667777")
    part = torch.utils.data.Subset(data, [4, 0])
    tree = ifa.analyze(model, part, layer="conv2", progress=False)
    assert tree["samples"]["cluster"].values.tolist() == ["7", "5"]
    tree = ifa.analyze(model, data, layer="conv2", progress=False, cluster=list("aabbccdd"))
    assert tree["samples"]["cluster"].values.tolist() == list("aabbccdd")
    none = ifa.analyze(model, data, layer="conv2", progress=False, keep_samples="none")
    assert "samples" not in none.children


def test_the_unit_is_the_score_s():
    model = net()
    tree = ifa.analyze(
        model, digits_like(model), layer="conv2", score=ifa.score.probability, progress=False
    )
    assert tree["conv2"]["importance"].attrs["units"] == "probability"
    assert tree["conv2"]["importance_variance"].attrs["units"] == "probability**2"
    assert tree["conv2"]["count"].attrs["units"] == "1"
    assert tree["samples/conv2"]["map_max"].attrs["units"] == "probability"


# A class that no sample qualifies for


def test_a_class_without_an_accepted_sample_is_nan_and_its_extremes_still_count():
    model = net(dtype=torch.float64)
    data = digits_like(model, without=(2,))
    dataset = ifa.analyze(model, data, layer="conv2", progress=False)["conv2"].to_dataset()
    expected, _ = brute(model, data, ["conv2"])
    assert_statistics(dataset, expected["conv2"], F64)
    assert dataset["count"].dtype == np.int64
    assert int(dataset["count"].sel(target=2)) == 0
    assert dataset["importance"].sel(target=2).isnull().all()
    assert dataset["importance"].drop_sel(target=2).notnull().all()
    assert dataset["importance_overall"].notnull().all()
    # it was predicted, wrongly: its maps count for the scale
    assert dataset["map_max"].sel(target=2).notnull().all()
    with pytest.raises(
        ValueError, match=r"ifa\.select\.largest: expected numbers, got NaN in row 2"
    ):
        ifa.select.largest(dataset["importance"], ratio=0.5)
    with pytest.raises(ValueError, match="row 2"):
        ifa.select.largest_absolute(ifa.difference(dataset), ratio=0.5)


def test_a_population_without_any_accepted_sample():
    model = net()
    data = digits_like(model, right=-1)
    dataset = ifa.analyze(model, data, layer="conv2", progress=False)["conv2"].to_dataset()
    assert int(dataset["count"].sum()) == 0
    assert dataset["importance_overall"].isnull().all()
    assert dataset["map_max_overall"].notnull().all()


def test_one_accepted_sample_has_a_mean_and_no_variance():
    model = net()
    item = noise(model, 1)[0]
    label = int(model(item[None]).argmax())
    dataset = ifa.analyze(model, [(item, label)], layer="conv2", progress=False)["conv2"]
    assert dataset["importance"].sel(target=label).notnull().all()
    assert dataset["importance_variance"].isnull().all()


def test_the_labels_of_samples_outside_a_list_are_not_accepted_but_their_extremes_count():
    model = net(dtype=torch.float64)
    data = digits_like(model)
    dataset = ifa.analyze(model, data, layer="conv2", targets=[1], progress=False)["conv2"]
    maps = ifa.tap(model, "conv2", noise(model, 2))(torch.stack([x for x, _ in data]), target=1)
    product = maps.activations * maps.gradients
    right = [int(model(x[None]).argmax()) == y == 1 for x, y in data]
    assert 0 < sum(right) < sum(y == 1 for _, y in data) + 1 < len(data)
    assert int(dataset["count"].sel(target=1)) == sum(right)
    want = product.flatten(2).sum(2)[torch.tensor(right)].mean(0).numpy()
    np.testing.assert_allclose(dataset["importance"].sel(target=1), want, **F64)
    tops = product.sum(1).flatten(1).amax(1).numpy()
    np.testing.assert_allclose(dataset["map_max"][0], np.quantile(tops, QUANTILES), **F64)


# Maps that are not finite


class Fragile(torch.nn.Module):
    """Divides by the mean of its input: 0/0 and 1/0 are no maps."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Identity()
        self.head = torch.nn.Linear(2, 3)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[1.0, -1], [-1, 1], [0.5, 0.5]]))

    def forward(self, inputs):
        return self.head(self.layer(inputs / inputs[:, :, :1]).mean(2))


@pytest.mark.parametrize("targets", ["label", (2, 0)], ids=str)
@pytest.mark.parametrize("bad", [[0.0, 0.0, 0.0], [0.0, 1.0, 2.0], [float("nan"), 1, 2]], ids=str)
def test_samples_whose_map_is_not_finite_are_counted_and_left_out(targets, bad, tmp_path):
    model = Fragile().eval()
    items = [torch.tensor([[1.0, n, 2], [2, 1, n]]) for n in (0.5, 2, 3, 5, 8)]
    broken = items[0].clone()
    broken[1] = torch.tensor(bad)
    inputs = [*items[:2], broken, *items[2:], broken]
    data = [(x, index % 3) for index, x in enumerate(inputs)]
    options = {"targets": targets, "layer": "layer", "progress": False, "batch_size": 2, "shard": 4}
    tree = ifa.analyze(model, data, store=tmp_path / "run", **options)
    lost = np.isin(np.arange(len(data)), (2, 6))
    finite = tree["samples/layer"]["finite"].values
    assert (finite == ~lost).all()  # for each target, where there are several
    kept = [item for item, gone in zip(data, lost, strict=True) if not gone]
    good = ifa.analyze(model, kept, **options)["layer"].to_dataset()
    dataset = tree["layer"].to_dataset()
    want = [1, 0, 1] if targets == "label" else [2, 2]
    assert dataset["nonfinite"].values.tolist() == want
    for name in good.data_vars:
        if name != "nonfinite":
            np.testing.assert_allclose(dataset[name], good[name], **F32, err_msg=str(name))


# What is read off the statistics


def test_the_difference_is_to_the_mean_over_accepted_samples():
    model = net()
    tree = ifa.analyze(model, digits_like(model), layer="conv2", progress=False)
    found = ifa.difference(tree)
    dataset = tree["conv2"].to_dataset()
    np.testing.assert_array_equal(
        found, dataset["importance"].values - dataset["importance_overall"].values
    )
    assert found.dims == ("target", "channel")
    assert found.attrs["units"] == "logit"
    weighed = (dataset["importance"].fillna(0) * dataset["count"]).sum("target")
    np.testing.assert_allclose(
        weighed / dataset["count"].sum(), dataset["importance_overall"], rtol=1e-6
    )


@pytest.mark.parametrize("targets", [[2], [3, 1]], ids=str)
def test_what_sets_a_target_apart_does_not_depend_on_the_other_targets(targets):
    model = net(dtype=torch.float64)
    data = digits_like(model)
    options = {"layer": "conv2", "progress": False}
    every = ifa.difference(ifa.analyze(model, data, targets=range(4), **options))
    found = ifa.difference(ifa.analyze(model, data, targets=targets, **options))
    np.testing.assert_allclose(found, every.sel(target=targets), **F64)
    assert (abs(found) > 1e-4).any("channel").all()


def test_a_difference_that_is_zero_by_construction_is_an_error():
    model = net(1, 1)
    data = measured(model)
    options = {"layer": "conv2", "progress": False}
    tree = ifa.analyze(model, data, task="regression", **options)
    with pytest.raises(ValueError, match=r"ifa\.difference: expected targets .* zero by constr"):
        ifa.difference(tree)
    with pytest.raises(ValueError, match=r"ifa\.difference: expected targets .* zero by constr"):
        ifa.diagnose.principal_features(model, "conv2", data, tree, metric="r")
    one = ifa.analyze(net(1, 3), measured(net(1, 3)), task="regression", targets=[1], **options)
    with pytest.raises(ValueError, match="zero by construction"):
        ifa.difference(one)


@pytest.mark.parametrize("targets", ["predicted", "label", [1], [2, 1]], ids=str)
@pytest.mark.parametrize("grouped", [False, True])
def test_where_there_is_nothing_to_be_told_apart_from_the_difference_is_nan(targets, grouped):
    model = net()
    data = [item for item in digits_like(model, 60, right=1) if item[1] == 1]
    groups = np.arange(len(data)) % 2 if grouped else None
    tree = ifa.analyze(
        model, data, layer="conv2", targets=targets, groups=groups, batch_size=3, progress=False
    )
    assert tree["conv2"]["count"].sum() == len(data) > 3
    assert ifa.difference(tree).isnull().all()


@pytest.mark.parametrize("read", [ifa.scale_from, ifa.difference], ids=["scale_from", "difference"])
def test_several_layers_are_refused_with_advice(read):
    model = net()
    tree = ifa.analyze(model, digits_like(model), layer=["conv1", "conv2"], progress=False)
    said = rf"ifa\.{read.__name__}: expected one layer's dataset.*got layers \['conv1', 'conv2'\]"
    with pytest.raises(ValueError, match=rf"{said}.*Take a layer: statistics\['"):
        read(tree)
    read(tree["conv1"])
    read(tree["conv2"].to_dataset())


def test_the_common_scale_is_read_off_the_right_rows():
    model = net(dtype=torch.float64)
    data = digits_like(model)
    statistics = ifa.analyze(model, data, layer="conv2", targets=(3, 0), progress=False)
    expected, _ = brute(model, data, ["conv2"], targets=(3, 0))
    high, low = expected["conv2"]["map_max"][:, 3], expected["conv2"]["map_min"][:, 1]
    scale = ifa.scale_from(statistics, over="target")
    assert scale.low.isnan().tolist() == [False, True, True, False]
    np.testing.assert_allclose(scale.high[[3, 0]], high, **F64)
    np.testing.assert_allclose(scale.low[[3, 0]], low, **F64)
    pooled = ifa.scale_from(statistics)
    np.testing.assert_allclose(pooled.high, expected["conv2"]["map_max_overall"][3], **F64)
    np.testing.assert_allclose(pooled.low, expected["conv2"]["map_min_overall"][1], **F64)
    widest = ifa.scale_from(statistics, over="widest")
    np.testing.assert_allclose([widest.low, widest.high], [low.min(), high.max()], **F64)
    values = ifa.Map(torch.tensor([low[0], high[0]]), torch.tensor(3))
    np.testing.assert_allclose(ifa.rescale(scale)(values).values, [0, 1], atol=1e-12)
    for over in ("all", "target", "widest"):
        rectified = ifa.scale_from(statistics, over=over, rectified=True).low
        assert (rectified[~rectified.isnan()] == 0).all()


@pytest.mark.parametrize("how", ["affine", "tanh"])
def test_a_limit_of_exactly_zero_is_honored(how):
    """Rectified features and Layer-CAM weights give a minimum of exactly 0: no missing value."""
    model = torch.nn.Sequential(
        torch.nn.Conv1d(1, 2, 1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8, 2)
    ).eval()
    rng = torch.Generator().manual_seed(0)
    inputs = torch.randn(20, 1, 4, generator=rng)
    data = [(x, int(model(x[None]).argmax())) for x in inputs]
    tree = ifa.analyze(model, data, layer="1", weight=ifa.weight.layercam, progress=False)
    scale = ifa.scale_from(tree)
    assert scale.low == 0 < scale.high
    values = ifa.rescale(scale, how)(
        ifa.Map(torch.tensor([0.0, float(scale.high)]), torch.tensor(0))
    )
    torch.testing.assert_close(
        values.values, torch.tensor([0.0, 1.0] if how == "affine" else [0.05, 0.95])
    )


# Names, models and reports


def test_names_of_targets_label_the_rows():
    model = net()
    names = ["zero", "one", "two", "three"]
    data = digits_like(model, without=(2,))
    dataset = ifa.analyze(model, data, layer="conv2", target_names=names, progress=False)["conv2"]
    assert dataset["target_name"].values.tolist() == names
    with pytest.raises(ValueError, match=r"row 2 \(two\)"):
        ifa.select.largest(dataset["importance"], ratio=0.5)
    few = ifa.analyze(
        model, data, layer="conv2", targets=[3, 1], target_names=names, progress=False
    )
    assert few["conv2"]["target_name"].values.tolist() == ["three", "one"]


def test_the_model_and_global_random_state_are_left_alone():
    model = net()
    data = digits_like(model)
    with ifa.testing.assert_leaves_model_untouched(model):
        ifa.analyze(model, data, layer="conv2", progress=False, device="cpu")


def test_the_last_layer_with_a_grid_is_the_default():
    model = net()
    tree = ifa.analyze(model, digits_like(model), progress=False)
    assert tree.attrs["layers"] == ["conv2"]


def test_a_step_does_as_a_kernel():
    model = net()
    data = digits_like(model)
    kernel = ifa.analyze(model, data, layer="conv2", weight=ifa.weight.gradcam, progress=False)
    step = ifa.weigh(ifa.weight.gradcam)
    as_step = ifa.analyze(model, data, layer="conv2", weight=step, progress=False)
    assert_same(kernel, as_step, rtol=0)


def test_keeping_channels_is_a_step_too():
    model = net()
    mask = torch.tensor([True, False, True, False, True])
    step = ifa.chain(ifa.weigh(ifa.weight.fullcam), ifa.keep(mask))
    tree = ifa.analyze(model, digits_like(model), layer="conv2", weight=step, progress=False)
    assert (tree["conv2"]["importance_overall"].values[[1, 3]] == 0).all()


@pytest.mark.parametrize("shard", [4, 100])
@pytest.mark.parametrize("mapper", [None, map], ids=["own", "map"])
def test_progress_ends_at_the_total(shard, mapper, tmp_path):
    model = net()
    data = digits_like(model)
    reported = []
    ifa.analyze(
        model,
        data,
        layer="conv2",
        shard=shard,
        batch_size=3,
        map=mapper,
        store=tmp_path / "run",
        progress=lambda done, total: reported.append((done, total)),
    )
    done = [part for part, _ in reported]
    assert {total for _, total in reported} == {len(data)}
    assert done == sorted(done)
    assert done[-1] == len(data)


def test_more_samples_than_sixteen_bits_hold_are_counted():
    """D0-6: the original's counter overflowed above 32 767 accepted samples."""
    net = torch.nn.Sequential(torch.nn.Conv1d(1, 2, 1), torch.nn.Flatten(), torch.nn.Linear(4, 2))
    with torch.no_grad():
        net[2].bias.copy_(torch.tensor([-100.0, 100.0]))
    data = [(torch.full((1, 2), n / 1000), 1) for n in range(40_000)]
    options = {"layer": "0", "keep_samples": "none", "batch_size": 4096, "shard": 8192}
    statistics = ifa.analyze(net, data, progress=False, **options)["0"].to_dataset()
    assert statistics["count"].values.tolist() == [0, 40_000]
    inputs = torch.stack([x for x, _ in data])
    features = ifa.tap(net, "0", inputs[:2])(inputs, 1)
    importance = (features.activations * features.gradients).double().sum(2)
    np.testing.assert_allclose(
        statistics["importance"].sel(target=1), importance.mean(0), rtol=1e-6
    )
