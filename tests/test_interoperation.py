"""Interoperation with captum and Quantus, and what is read from a run's stored table.

Quantus is not among our test requirements: its signature is held to as documented, and its own
metrics run where it is installed.
"""

from functools import partial

import numpy as np
import pytest
import torch
from captum import attr
from scipy import stats
from sklearn import metrics as sklearn_metrics
from torch import nn

import ifa
from ifa import evaluate, interop
from ifa.testing import assert_leaves_model_untouched, models

# ---- captum


@pytest.fixture(name="net")
def _net():
    return models.batch_norm()


# regions of a picture (2, 7, 11), in captum's words a feature mask: six, alike in both channels
SEGMENTS = (torch.arange(7)[:, None] // 4 * 3 + torch.arange(11) // 4).repeat(1, 2, 1, 1)


def fixed(net, inputs):
    return {
        "Saliency": (attr.Saliency(net), {"abs": False}),
        "InputXGradient": (attr.InputXGradient(net), {}),
        "IntegratedGradients": (attr.IntegratedGradients(net), {"n_steps": 7}),
        "DeepLift": (attr.DeepLift(net), {}),
        "Occlusion": (attr.Occlusion(net), {"sliding_window_shapes": (2, 3, 3)}),
        "FeatureAblation": (attr.FeatureAblation(net), {"feature_mask": SEGMENTS}),
        "LayerConductance": (attr.LayerConductance(net, net.conv), {"n_steps": 5}),
        "LayerGradCam": (attr.LayerGradCam(net, net.conv), {}),
        "LayerActivation": (attr.LayerGradientXActivation(net, net.norm), {}),
    }


NAMES = list(fixed(models.batch_norm(), None))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks")
def test_captum_gives_what_captum_gives_and_leaves_everything(net, name):
    # captum cannot run an in-place rectifier under hooks
    net.relu = nn.ReLU()
    inputs, target = models.inputs(net, 3), torch.tensor([1, 0, 3])
    method, options = fixed(net, inputs)[name]
    expected = method.attribute(inputs.clone().requires_grad_(), target=target, **options).detach()
    before = inputs.clone()
    with assert_leaves_model_untouched(net), torch.no_grad():
        found = interop.captum(method, **options)(inputs, target)
        by_method = interop.captum(method.attribute, **options)(inputs, target)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(by_method, expected)
    assert torch.equal(inputs, before)
    assert not inputs.requires_grad
    assert not found.requires_grad


def test_captum_targets(net):
    inputs = models.inputs(net, 3)
    attribution = interop.captum(attr.InputXGradient(net))
    predicted = net(inputs).argmax(1)
    torch.testing.assert_close(attribution(inputs), attribution(inputs, predicted))
    torch.testing.assert_close(attribution(inputs, 2), attribution(inputs, torch.tensor([2, 2, 2])))
    both = attribution(inputs, torch.tensor([[0, 0, 0], [3, 1, 2]]))
    assert both.shape == (2, *inputs.shape)
    torch.testing.assert_close(both[1], attribution(inputs, torch.tensor([3, 1, 2])))
    with pytest.raises(ValueError, match=r"ifa\.interop\.captum: expected targets in 0\.\.3"):
        attribution(inputs, 4)
    volumes = models.regression()
    examples = models.inputs(volumes, 2)
    assert interop.captum(attr.Saliency(volumes))(examples).shape == examples.shape


@pytest.mark.parametrize("function", [False, True])
def test_captum_draws_from_a_seed(net, function):
    forward = (lambda inputs: net(inputs)) if function else net
    inputs = models.inputs(net, 3)
    method = attr.GradientShap(forward)
    options = {"n_samples": 4, "stdevs": 0.3, "baselines": torch.randn(5, *inputs.shape[1:])}
    one = interop.captum(method, seed=1, **options)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    with assert_leaves_model_untouched(net):
        found = one(inputs, 1)
    assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002
    torch.rand(1)
    assert torch.equal(found, one(inputs, 1))
    assert not torch.equal(found, interop.captum(method, seed=2, **options)(inputs, 1))


@pytest.mark.parametrize("method", ["KernelShap", "Lime", "ShapleyValueSampling"])
@pytest.mark.filterwarnings("ignore:You are providing multiple inputs")
def test_captum_of_regions_is_known_of_a_linear_network(method):
    """What each region adds: what captum has and we have not, through captum."""
    linear = nn.Sequential(nn.Flatten(), nn.Linear(2 * 7 * 11, 3)).eval()
    inputs, target = torch.randn(2, 2, 7, 11), torch.tensor([2, 0])
    options = {"feature_mask": SEGMENTS, "n_samples": 100}
    if method == "Lime":
        from captum._utils.models.linear_model import SkLearnLinearRegression

        made = attr.Lime(linear, interpretable_model=SkLearnLinearRegression())
    else:
        made = getattr(attr, method)(linear)
    found = interop.captum(made, **options)(inputs, target)
    parts = inputs * linear[1].weight[target].reshape(inputs.shape)
    for region in range(6):
        here = (region == SEGMENTS).expand_as(inputs)
        expected = (parts * here).sum((1, 2, 3)).detach()
        torch.testing.assert_close(found[here].reshape(2, -1).mean(1), expected)
        assert (found[here].reshape(2, -1).std(1) < 1e-4).all()


def test_captum_smoothed_is_captum(net):
    method = attr.NoiseTunnel(attr.Saliency(net))
    options = {"nt_samples": 3, "stdevs": 0.1}
    inputs = models.inputs(net, 2)
    found = interop.captum(method, seed=5, **options)(inputs, 1)
    torch.manual_seed(5)
    expected = method.attribute(inputs.clone().requires_grad_(), target=1, **options)
    torch.testing.assert_close(found, expected.detach())


def test_what_captum_cannot_do_is_refused(net):
    for wrong in (net, torch.relu, None, attr.Saliency):
        with pytest.raises(TypeError, match=r"captum: expected an attribution of captum"):
            interop.captum(wrong)
    inputs = models.inputs(net, 2)
    pair = interop.captum(attr.IntegratedGradients(net), return_convergence_delta=True)
    with pytest.raises(TypeError, match="captum: expected one tensor from IntegratedGradients"):
        pair(inputs)
    saliency = interop.captum(attr.Saliency(net))
    with torch.inference_mode(), pytest.raises(RuntimeError, match="captum"):
        saliency(inputs)
    net.train()
    with assert_leaves_model_untouched(net), pytest.raises(ValueError, match=r"Call model\.eval"):
        saliency(inputs)


def test_an_attribution_of_captum_is_judged_like_ours(net):
    inputs = models.inputs(net, 3)

    def explain(model, inputs, target):
        maps = interop.captum(attr.Saliency(model))(inputs, target)
        return maps.sum(1)

    with assert_leaves_model_untouched(net):
        found = evaluate.randomization(net, explain, inputs)
    assert found.spearman.shape == (4, 3)
    assert (found.spearman[1:] < 0.999).all()


# ---- Quantus

LAYERS = {1: "conv2", 2: "relu2", 3: "conv2"}


@pytest.mark.parametrize(("space", "layer"), LAYERS.items())
def test_quantus_is_given_arrays_of_its_shape(space, layer):
    net = models.pooled_linear(space)
    inputs, target = models.inputs(net, 3), torch.tensor([1, 0, 3])
    explain_func = interop.quantus(partial(ifa.explain, weight=ifa.weight.hirescam))
    # called as Quantus calls it: by keyword, with a device and `explain_func_kwargs`
    with assert_leaves_model_untouched(net):
        found = explain_func(
            model=net, inputs=inputs.numpy(), targets=target.numpy(), device="cpu", layer=layer
        )
    expected = ifa.explain(net, inputs, target, layer=layer, weight=ifa.weight.hirescam)
    assert isinstance(found, np.ndarray)
    assert found.shape == (3, 1, *inputs.shape[2:])
    np.testing.assert_array_equal(found[:, 0], expected)
    # Quantus hands over float64 images and float targets at times
    again = explain_func(net, inputs.double().numpy(), target.double().numpy(), layer=layer)
    np.testing.assert_allclose(again, found)


def test_quantus_takes_attributions_of_channels_and_half_precision():
    net = models.pooled_linear()
    inputs = models.inputs(net, 3).numpy()
    explain_func = interop.quantus(lambda model, x, target: x.bfloat16())
    found = explain_func(net, inputs, np.zeros(3))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, inputs, rtol=0.01)
    small = interop.quantus(partial(ifa.explain, layer="conv2", size=None))
    with pytest.raises(ValueError, match=r"quantus: expected maps at the size of inputs"):
        small(net, inputs, np.zeros(3))


@pytest.mark.filterwarnings("ignore")
def test_metrics_of_quantus_run():
    library = pytest.importorskip("quantus")
    net = models.pooled_linear()
    inputs = models.inputs(net, 3).numpy()
    labels = np.array([1, 0, 3])

    def explain(model, x, target):
        # in another unit, because Quantus adds 1e-7 to every value before its Gini index
        return 1e4 * ifa.explain(model, x, target, layer="conv2", rectify=False)

    explain_func = interop.quantus(explain)
    call = {"model": net, "x_batch": inputs, "y_batch": labels, "a_batch": None, "device": "cpu"}
    call["explain_func"] = explain_func
    quiet = {"disable_warnings": True, "display_progressbar": False}
    gini = library.Sparseness(abs=True, normalise=False, **quiet)(**call)
    maps = torch.from_numpy(explain_func(net, inputs, labels))
    ours = torch.func.vmap(evaluate.sparseness)(maps)
    np.testing.assert_allclose(gini, ours, rtol=1e-5)
    entropy = library.Complexity(abs=True, normalise=False, **quiet)(**call)
    np.testing.assert_allclose(entropy, torch.func.vmap(evaluate.complexity)(maps), rtol=1e-5)
    masks = np.random.default_rng(0).random((3, 1, *inputs.shape[2:])) < 0.3
    mass = library.RelevanceMassAccuracy(abs=True, normalise=False, **quiet)(**call, s_batch=masks)
    ours = torch.func.vmap(evaluate.relevance_mass)(maps.abs(), torch.from_numpy(masks))
    np.testing.assert_allclose(mass, ours, rtol=1e-5)
    rank = library.RelevanceRankAccuracy(abs=True, normalise=False, **quiet)(**call, s_batch=masks)
    ours = torch.func.vmap(evaluate.relevance_rank)(maps.abs(), torch.from_numpy(masks))
    np.testing.assert_allclose(rank, ours, rtol=1e-5)
    game = library.PointingGame(abs=True, normalise=False, **quiet)(**call, s_batch=masks)
    ours = torch.func.vmap(evaluate.pointing_game)(maps.abs(), torch.from_numpy(masks))
    np.testing.assert_array_equal(game, ours.bool())
    # this one asks for new explanations of changed inputs
    lipschitz = library.AvgSensitivity(nr_samples=2, abs=False, normalise=False, **quiet)(**call)
    assert np.isfinite(lipschitz).all()


# ---- reports from a run


@pytest.fixture(name="run", scope="module")
def _run(tmp_path_factory):
    net = models.pooled_linear(1)
    inputs = models.inputs(net, 40)
    # classes 0 ... 3, of which one is never a label; some labels are wrong
    labels = np.random.default_rng(0).choice([0, 1, 3], 40)
    data = [(one, int(label)) for one, label in zip(inputs, labels, strict=True)]
    store = tmp_path_factory.mktemp("report") / "run"
    ifa.analyze(net, data, layer="conv2", store=store, progress=False)
    return ifa.open(store), labels, net(inputs).argmax(1).numpy()


def test_the_report_equals_scikit_learns_own(run):
    tree, labels, predictions = run
    found = evaluate.classification_report(tree)
    oracle = sklearn_metrics.classification_report(
        labels, predictions, output_dict=True, zero_division=0.0
    )
    assert float(found["accuracy"]) == pytest.approx(np.mean(labels == predictions))
    for average in ("macro", "weighted"):
        for name, key in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
            value = float(found[name].sel(average=average))
            assert value == pytest.approx(oracle[f"{average} avg"][key])
    for target in found["target"].values:
        one = found.sel(target=target)
        row = oracle[str(target)]
        assert float(one["recall_of"]) == pytest.approx(row["recall"])
        assert float(one["precision_of"]) == pytest.approx(row["precision"])
        assert float(one["f1_of"]) == pytest.approx(row["f1-score"])
        assert int(one["count"]) == row["support"] == (labels == target).sum()
        for other in found["predicted"].values:
            both = (labels == target) & (predictions == other)
            assert int(one["confusion"].sel(predicted=other)) == both.sum()
    assert found.attrs["samples"] == 40


def test_a_report_of_a_single_class_says_so_without_a_warning():
    """scikit-learn warned of the shape of the confusion matrix."""
    net = models.pooled_linear(1)
    inputs = models.inputs(net, 20)
    predicted = net(inputs).argmax(1)
    only = int(predicted.mode().values)
    data = [(one, only) for one in inputs[predicted == only]]
    found = evaluate.classification_report(ifa.analyze(net, data, layer="conv2", progress=False))
    assert float(found["accuracy"]) == float(found["f1"].sel(average="macro")) == 1
    assert found["confusion"].values.tolist() == [[len(data)]]
    assert found["target"].values.tolist() == [only]


def test_a_report_needs_samples_and_classes(run):
    net = models.regression()
    inputs = models.inputs(net, 4)
    data = [(one, float(value)) for one, value in zip(inputs, net(inputs).tolist(), strict=True)]
    analyze = partial(ifa.analyze, layer="conv", progress=False)
    numbers = analyze(net, data, task="regression")
    with pytest.raises(ValueError, match="classification_report: expected a run of a classific"):
        evaluate.classification_report(numbers)
    classes = [(one, 0) for one in models.inputs(models.pooled_linear(1), 4)]
    none = ifa.analyze(
        models.pooled_linear(1), classes, layer="conv2", keep_samples="none", progress=False
    )
    for wrong in (none, none["conv2"].to_dataset(), None):
        with pytest.raises(ValueError, match="classification_report: expected a run with its samp"):
            evaluate.classification_report(wrong)


@pytest.mark.parametrize("targets", ["predicted", [3, 0]], ids=str)
def test_the_consistency_of_a_run_is_that_of_its_maps(targets):
    net = models.pooled_linear(1)
    inputs = models.inputs(net, 30)
    inputs[4] = float("nan")
    data = [(one, n % 4) for n, one in enumerate(inputs)]
    tree = ifa.analyze(net, data, layer=["conv1", "conv2"], targets=targets, progress=False)
    found = evaluate.consistency_report(tree, level=0.9)
    fine = [n for n in range(30) if n != 4]
    output = net(inputs[fine]).detach()
    prediction = output.argmax(1)
    asked = [prediction] if targets == "predicted" else [torch.full((29,), t) for t in targets]
    for layer in ("conv1", "conv2"):
        for place, target in enumerate(asked):
            sizes = {"size": None, "rectify": False}
            maps = ifa.explain(net, inputs[fine], target, layer=layer, **sizes)
            pair = maps.flatten(1).double().sum(1).numpy(), output[range(29), target].numpy()
            oracle = stats.pearsonr(*pair)
            ends = oracle.confidence_interval(0.9)
            one = found.sel(layer=layer)
            one = one.sel(target=targets[place]) if "target" in found.dims else one
            assert float(one["pearson"]) == pytest.approx(oracle.statistic, rel=1e-4)
            assert float(one["low"]) <= ends.low + 1e-3
            assert float(one["high"]) >= ends.high - 1e-3
            assert float(one["spearman"]) == pytest.approx(stats.spearmanr(*pair)[0])
            assert int(one["count"]) == 29
            if targets == "predicted":
                assert set(found.data_vars) == {"pearson", "low", "high", "spearman", "count"}
                own = evaluate.consistency_report(tree, level=0.9, cluster=np.arange(30) // 3)
                assert not np.allclose(own["low"], found["low"])
            elif 0 < (positive := (prediction == target).numpy()).sum() < 29:
                area = sklearn_metrics.roc_auc_score(positive, pair[0])
                assert float(one["auroc"]) == pytest.approx(area)
                assert one["auroc_low"] < area < one["auroc_high"]
            else:
                assert np.isnan(one["auroc"])


@pytest.mark.parametrize("task", ["binary", "multilabel"])
def test_the_consistency_of_labels_tells_those_that_are_predicted(task):
    outputs = 1 if task == "binary" else 3
    random = torch.Generator().manual_seed(3)
    head = nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(3, outputs)
    net = nn.Sequential(nn.Conv1d(2, 3, 3), nn.ReLU(), *head).eval()
    for one in net.parameters():
        one.data = torch.randn(one.shape, generator=random)
    inputs = torch.randn(25, 2, 9, generator=random)
    net[-1].bias.data -= net(inputs).median(0).values  # half are predicted
    label = (lambda n: n % 2) if outputs == 1 else (lambda n: torch.tensor([n % 2, 1, 0]))
    data = [(one, label(n)) for n, one in enumerate(inputs)]
    found = evaluate.consistency_report(
        ifa.analyze(net, data, layer="0", task=task, progress=False)
    )
    assert found["pearson"].shape == (1, outputs)
    for target in range(outputs):
        level = ifa.explain(net, inputs, target, layer="0", rectify=False, size=None).sum(1)
        yes = (net(inputs)[:, target] > 0).numpy()
        want = sklearn_metrics.roc_auc_score(yes, level.double())
        assert float(found["auroc"][0, target]) == pytest.approx(want)


def test_the_consistency_of_few_samples_is_not_known():
    net = models.regression()
    data = [(one, 0.5) for one in models.inputs(net, 3)]
    analyze = partial(ifa.analyze, net, layer="conv", task="regression", progress=False)
    few = evaluate.consistency_report(analyze(data))
    assert few["count"].values.tolist() == [[3]]
    assert few["pearson"].notnull().all()
    assert few["low"].isnull().all()
    assert "auroc" not in few
    assert evaluate.consistency_report(analyze(data[:1]))["pearson"].isnull().all()
    with pytest.raises(ValueError, match="consistency_report: expected a run with its samples"):
        evaluate.consistency_report(analyze(data, keep_samples="none"))


def test_decisions_cover_the_four_corners():
    accuracy = {"a": 0.95, "b": 0.95, "c": 0.5, "d": 0.5, "e": 0.9, "f": float("nan")}
    focus = {"b": 0.2, "a": 2.0, "c": 2.0, "d": 0.2, "e": 1.0, "f": 1.0}
    found = evaluate.decisions(accuracy, focus, accurate=0.9, focused=1.0)
    assert dict(zip(found["name"].values, found["decision"].values, strict=True)) == {
        "a": "trust",
        "b": "over-learned",
        "c": "find the error's source",
        "d": "insufficiently taught",
        "e": "trust",
        "f": "unknown",
    }
    assert float(found["focus"].sel(name="a")) == 2.0
    with pytest.raises(
        ValueError, match="decisions: expected accuracy and focus of the same names"
    ):
        evaluate.decisions(accuracy, {"a": 1.0}, accurate=0.9, focused=1.0)
