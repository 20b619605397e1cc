"""Randomization: what is drawn, in which order, and that maps notice."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import ifa
from ifa.declared import declared
from ifa.evaluate import randomization, randomized
from ifa.evaluate.randomized import replaced
from ifa.stages import reads_gradients
from ifa.testing import assert_leaves_model_untouched, assert_trees_close, models

MODELS = ["pooled_linear", "inplace", "reused_layer", "batch_norm", "small_vit", "recurrent"]


def unchanged(model):
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


# ---- what is drawn


def test_modules_come_from_output_to_input_whatever_their_registration():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.unused = nn.Linear(3, 2), nn.Linear(1, 1)
            self.scale = nn.Parameter(torch.ones(()))
            self.twice, self.first = nn.Linear(3, 3), nn.Linear(4, 3)

        def forward(self, inputs):
            return self.scale * self.last(self.twice(self.twice(self.first(inputs))))

    steps = randomized(Backwards().eval(), torch.zeros(1, 4))
    assert list(steps) == ["none", "last", "twice", "first", "unused", "Backwards"]


def test_a_transformer_is_unfolded_although_its_fused_path_runs_no_layers():
    model = models.small_vit()
    steps = list(randomized(model, models.inputs(model)))
    assert steps[:5] == ["none", "head", "norm", "blocks.1.linear2", "blocks.1.linear1"]
    assert steps[-2:] == ["patches", "SmallVit"]
    assert steps.index("blocks.1.norm1") < steps.index("blocks.0.linear2")


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_is_replaced_once_in_order(name):
    model = getattr(models, name)()
    every = dict(model.named_parameters())
    cascade = list(randomized(model, models.inputs(model)).values())
    alone = list(randomized(model, models.inputs(model), order="independent").values())
    assert set(cascade[-1]) == set(every)
    assert sum(map(len, alone)) == len(every)
    for index, (together, one) in enumerate(zip(cascade, alone, strict=True)):
        merged = {key: value for step in alone[: index + 1] for key, value in step.items()}
        assert_trees_close(together, merged, rtol=0, atol=0)
        assert all(one[key] is not every[key] for key in one)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_are_drawn_as_by_xavier_and_norms_are_reset(dtype):
    model = nn.Sequential(nn.Conv2d(30, 50, 3, bias=True), nn.BatchNorm2d(50), nn.PReLU(50))
    model = model.eval().to(dtype)
    drawn = randomized(model, torch.zeros(1, 30, 5, 5, dtype=dtype))["0"]
    weight = drawn["0.weight"]
    assert weight.dtype == dtype
    expected = math.sqrt(2 / ((30 + 50) * 9))
    assert weight.std() == pytest.approx(expected, rel=0.03)
    assert stats.kstest(weight.double().flatten() / expected, "norm").pvalue > 0.01
    assert abs(weight.mean()) < 5 * expected / math.sqrt(weight.numel())
    for name, value in {"0.bias": 0, "1.weight": 1, "1.bias": 0, "2.weight": 1}.items():
        assert (drawn[name] == value).all(), name
    assert set(drawn) == set(dict(model.named_parameters()))  # and no buffer


def test_numbers_depend_on_the_seed_and_the_parameter_alone():
    model, example = models.pooled_linear(), models.inputs(models.pooled_linear())
    before = torch.get_rng_state()
    one, again = randomized(model, example, seed=3), randomized(model, example[:1], seed=3)
    assert torch.equal(before, torch.get_rng_state())
    assert_trees_close(one, again, rtol=0, atol=0)
    other = randomized(model, example, seed=4)["conv1"]
    for name, value in one["conv1"].items():
        assert value.ndim == 1 or not torch.equal(value, other[name])
    half = randomized(models.pooled_linear().double(), example.double(), seed=3)["conv1"]
    assert_trees_close(half, {name: value.double() for name, value in one["conv1"].items()})
    # two parameters of one shape are not the same numbers
    pair = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)).eval()
    drawn = randomized(pair, torch.zeros(1, 3))["0"]
    assert not torch.equal(drawn["0.weight"], drawn["1.weight"])


def tied():
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3), nn.Linear(3, 2)).eval()
    model[2].weight = model[0].weight
    return model


def test_a_shared_parameter_belongs_to_the_module_nearest_to_the_output():
    model, inputs = tied(), torch.rand(4, 3)
    steps = randomized(model, inputs, order="independent")
    assert list(steps["2"]) == ["2.weight", "2.bias"]
    assert list(steps["0"]) == ["0.bias"]
    model[2].bias = model[0].bias
    steps = randomized(model, inputs, order="independent")
    assert list(steps) == ["none", "3", "2"]
    with assert_leaves_model_untouched(model):
        twin = replaced(model, steps["2"], "test")
    assert twin[0].weight is twin[2].weight
    assert torch.equal(twin[0].weight, steps["2"]["2.weight"])
    torch.testing.assert_close(twin(inputs), torch.func.functional_call(model, steps["2"], inputs))
    assert not torch.equal(twin(inputs), model(inputs))


@pytest.mark.parametrize("name", MODELS)
def test_a_copy_with_other_parameters_equals_a_functional_call(name):
    model = getattr(models, name)()
    for parameter in list(model.parameters())[::2]:
        parameter.requires_grad_(False)
    inputs = models.inputs(model, 3)
    for params in randomized(model, inputs, seed=1).values():
        with assert_leaves_model_untouched(model):
            twin = replaced(model, params, "test")
            expected = torch.func.functional_call(model, params, (inputs.clone(),))
            torch.testing.assert_close(twin(inputs.clone()), expected)
        flags = [parameter.requires_grad for parameter in model.parameters()]
        assert [parameter.requires_grad for parameter in twin.parameters()] == flags
        mine = {tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())}
        assert not mine & {tensor.data_ptr() for tensor in (*twin.parameters(), *twin.buffers())}


# ---- similarity of maps


def signed(layer, kernel="hirescam", **options):
    weight = getattr(ifa.weight, kernel)
    return partial(ifa.explain, layer=layer, weight=weight, rectify=False, size=None, **options)


def tapped(model, layer, inputs):
    tap = ifa.tap(model, layer, inputs[:1])
    step = ifa.batched(ifa.chain(ifa.weigh(ifa.weight.hirescam), ifa.combine))

    def explain(inputs, target, params):
        return step(tap(inputs, target, params)).values

    return explain


@pytest.mark.parametrize("order", ["cascade", "independent"])
def test_randomization_equals_a_loop_by_hand(order):
    model, inputs = models.pooled_linear(), models.inputs(models.pooled_linear(), 3)
    target = model(inputs).argmax(1)
    maps = [
        signed("conv2")(replaced(model, params, "test"), inputs, target).flatten(1)
        for params in randomized(model, inputs, order=order, seed=2).values()
    ]
    expected = [
        [stats.spearmanr(one, other).statistic for one, other in zip(maps[0], step, strict=True)]
        for step in maps
    ]
    found = randomization(model, signed("conv2"), inputs, order=order, seed=2)
    np.testing.assert_allclose(found.spearman, expected, rtol=1e-9)
    assert found.spearman.dtype == found.ssim.dtype == torch.float64
    torch.testing.assert_close(found.spearman[0], torch.ones(3).double())
    torch.testing.assert_close(found.ssim[0], torch.ones(3).double())
    assert (found.ssim[1:] < 0.999).all()


@pytest.mark.parametrize(
    ("model", "layer"),
    [
        (models.pooled_linear(1), "relu2"),
        (models.pooled_linear(3), "conv1"),
        (models.inplace(), "conv2"),
        (models.batch_norm(), "conv"),
        (models.reused_layer(), "conv2"),
        (tied().append(nn.Unflatten(1, (2,))), None),
    ],
    ids=["1-D", "3-D", "in-place", "batch norm", "reused", "tied"],
)
@pytest.mark.parametrize("order", ["cascade", "independent"])
def test_copies_and_stacked_parameters_agree(model, layer, order):
    if layer is None:  # maps of vectors, so that a tied layer is explained
        inputs = torch.rand(3, 3)
        explain = gradient

        def stacked(inputs, target, params):
            def score(one, index):
                outputs = torch.func.functional_call(model, params, (one[None],))
                return outputs[0].gather(0, index[None])[0]

            return torch.func.vmap(torch.func.grad(score))(inputs, target)
    else:
        inputs = models.inputs(model, 3)
        explain, stacked = signed(layer), tapped(model, layer, inputs)
    with assert_leaves_model_untouched(model):
        expected = randomization(model, explain, inputs, order=order)
        found = [
            randomization(model, stacked, inputs, order=order, chunk=chunk)
            for chunk in (None, 1, 2)
        ]
    for one in found:
        # ranks of nearly equal values may change places
        assert_trees_close(one, expected, rtol=0, atol=2e-3)
    assert expected.spearman[1:].abs().max() > 0.01


def gradient(model, inputs, target):
    inputs = inputs.requires_grad_()
    scores = model(inputs).gather(1, target[:, None]).sum()
    return torch.autograd.grad(scores, inputs)[0]


def test_recurrent_networks_one_by_one():
    model = models.recurrent()
    inputs, grid = models.inputs(model, 3), ifa.channels_last()
    explain = signed("gru", grid=grid)
    tap = ifa.tap(model, "gru", inputs, grid=grid)
    step = ifa.batched(ifa.chain(ifa.weigh(ifa.weight.hirescam), ifa.combine))

    def by_params(inputs, target, params):
        return step(tap(inputs, target, params)).values

    expected = randomization(model, explain, inputs)
    assert_trees_close(
        randomization(model, by_params, inputs, chunk=1), expected, rtol=0, atol=1e-6
    )
    assert (expected.spearman[1:] < 0.999).all()


def test_a_sample_is_alone_and_targets_have_an_axis():
    model = models.pooled_linear()
    inputs = models.inputs(model, 4)
    together = randomization(model, signed("conv2"), inputs)
    apart = [randomization(model, signed("conv2"), inputs[n : n + 1]) for n in range(4)]
    for name in ("spearman", "ssim"):
        joined = torch.cat([getattr(one, name) for one in apart], 1)
        torch.testing.assert_close(getattr(together, name), joined, rtol=0, atol=1e-6)
    many = torch.tensor([[0] * 4, [3] * 4])
    both = randomization(model, signed("conv2"), inputs, many)
    assert both.spearman.shape == (len(apart[0].spearman), 2, 4)
    for index, target in enumerate((0, 3)):
        one = randomization(model, signed("conv2"), inputs, target)
        torch.testing.assert_close(both.spearman[:, index], one.spearman, rtol=0, atol=1e-6)


def test_the_target_is_that_of_the_trained_network():
    seen = []

    def explain(model, inputs, target):
        seen.append(target)
        return signed("conv2")(model, inputs, target)

    model = models.pooled_linear()
    inputs = models.inputs(model, 5)
    randomization(model, explain, inputs)
    assert all(torch.equal(target, model(inputs).argmax(1)) for target in seen)
    assert len(seen) == 4


def test_a_blank_or_broken_map_is_nan_and_the_others_are_not():
    model = models.pooled_linear()
    inputs = models.inputs(model, 3)

    def explain(model, inputs, target):
        maps = signed("conv2")(model, inputs, target)
        maps[1] = 0.5
        maps[2, 0, 0] = torch.inf
        return maps

    for part in randomization(model, explain, inputs):
        assert part.isnan().tolist() == [[False, True, True]] * 4


def test_an_explanation_may_write_to_what_it_is_given():
    model = models.batch_norm()
    inputs = models.inputs(model, 3)
    before = inputs.clone()

    def careless(model, inputs, target):
        maps = signed("conv")(model, inputs, target)
        inputs.zero_()
        model.train()(torch.rand(2, *inputs.shape[1:]))
        for parameter in model.parameters():
            parameter.detach().zero_()
        return maps

    with assert_leaves_model_untouched(model), torch.random.fork_rng():
        found = randomization(model, careless, inputs)
    assert torch.equal(inputs, before)
    assert_trees_close(found, randomization(model, signed("conv"), inputs), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("explain", "error", "text"),
    [
        ("gradcam", TypeError, "expected explain to be"),
        (lambda inputs, target: inputs, TypeError, "expected explain to be"),
        (lambda inputs, params: inputs, TypeError, "expected explain to be"),
        (lambda model, inputs, target: None, TypeError, "return a tensor of maps"),
        (lambda model, inputs, target: inputs[:1], ValueError, "return maps"),
        (lambda model, inputs, target: target, ValueError, "return maps"),
    ],
    ids=["no function", "no model", "no target", "no tensor", "fewer samples", "no space"],
)
def test_what_gives_no_maps_is_refused(explain, error, text):
    model = models.pooled_linear()
    with pytest.raises(error, match=rf"ifa\.evaluate\.randomization: expected .*{text[9:]}"):
        randomization(model, explain, models.inputs(model))


def test_options_of_randomization_are_checked():
    model = models.pooled_linear()
    inputs, explain = models.inputs(model), signed("conv2")
    for options, text in (
        ({"order": "top-down"}, "expected order to be one of"),
        ({"seed": -1}, "expected seed to be a whole number"),
        ({"chunk": 0}, "expected chunk to be a whole number"),
        ({"target": 4}, r"expected targets in 0\.\.3"),
    ):
        with pytest.raises(ValueError, match=text):
            randomization(model, explain, inputs, **options)
    with pytest.raises(ValueError, match="expected a model with parameters"):
        randomized(nn.Sequential(nn.Flatten()), torch.rand(2, 3))
    with pytest.raises(ValueError, match=r"call model\.eval|Call model\.eval"):
        randomization(models.batch_norm().train(), explain, torch.rand(2, 2, 7, 11))
    with torch.inference_mode(), pytest.raises(RuntimeError, match="randomization"):
        randomization(model, explain, inputs)
    sizes = iter([5, 6, 7, 8])
    with pytest.raises(ValueError, match="expected maps of one shape at every step"):
        randomization(model, lambda m, x, t: torch.rand(2, next(sizes)), inputs)


def test_progress_counts_steps():
    said = []
    model = models.pooled_linear()
    inputs = models.inputs(model)
    randomization(model, signed("conv2"), inputs, progress=lambda *step: said.append(step))
    assert said == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_line_is_the_median_and_what_has_no_value_is_said():
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    similarity = torch.tensor([[1.0, 1.0, 1.0], [0.2, 0.5, 0.3], [0.1, torch.nan, torch.nan]])
    silent = torch.full((3, 3), torch.nan)
    drawn = {"one": similarity, "silent": silent, "minus": -similarity}
    ifa.plot.randomization(drawn, ["none", "head", "conv"], axes=axes)
    first = axes.lines[0]
    np.testing.assert_allclose(first.get_ydata(), [1, 0.3, 0.1])
    assert np.isnan(axes.lines[1].get_ydata()).all()
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "one (22.2% without a value)",
        "silent (100.0% without a value)",
        "minus (22.2% without a value)",
    ]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["none", "head", "conv"]
    assert axes.get_ylim()[0] < -1
    with pytest.raises(ValueError, match=r"ifa\.plot\.randomization: expected a similarity"):
        ifa.plot.randomization({"one": similarity[:2]}, ["none", "head", "conv"], axes=axes)


# ---- on a trained network

KERNELS = {name: getattr(ifa.weight, name) for name in ifa.weight.__all__}
GRADIENT = {n for n, f in KERNELS.items() if not declared(f, "kind") and reads_gradients(f)}


def test_maps_of_gradient_methods_change_when_digits_are_forgotten(trained):
    """Spearman falls, and falls to nothing when everything is randomized."""
    net = trained(epochs=12)
    images = torch.stack([image for image, _, _ in ifa.nets.digits("held-out")[:60]])
    for name in sorted(GRADIENT):
        layer = "conv2" if name == "xgradcam" else "conv3"
        found = randomization(net, signed(layer, name), images).spearman
        medians = found.nanmedian(1).values
        assert medians[0] == 1
        assert (medians[1:] < 0.9).all(), (name, medians)
        assert medians[-1] < 0.5, (name, medians)
