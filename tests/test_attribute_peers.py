"""Attributions agree with captum's on real architectures; what differs is said here."""

from functools import partial

import pytest
import torch
from test_architectures import CASES, ONE, batch, made
from torch import Tensor, nn

import ifa
from ifa.network.outputs import pick

attr = pytest.importorskip("captum.attr")
pytest.importorskip("transformers")
# their own code, not ours
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:(captum|torch|matplotlib).*"),
    pytest.mark.filterwarnings("ignore:Setting (forward, )?backward hooks:UserWarning"),
    pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require:UserWarning"),
]

NETWORKS = ["ResNet", "ConvNeXt", "ViT", "ViT, fused attention", "sleep staging", "3-D", "DenseNet"]
WITH_MODULES_OF_RELU = ["ResNet", "sleep staging", "3-D"]


class Logits(nn.Module):
    """What captum wants: a module that returns a tensor."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, inputs: Tensor) -> Tensor:
        return pick(self.net(inputs))


def network(name: str) -> tuple[nn.Module, Tensor]:
    # an in-place ReLU is a backward hook's end in captum
    net = made(CASES[name])
    return Logits(net), batch(CASES[name])


def without_in_place(net: nn.Module) -> nn.Module:
    for module in net.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return net


def close(ours: Tensor, theirs: Tensor) -> None:
    theirs = theirs.detach()
    assert theirs.any()
    size = float(theirs.abs().max())
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * size)


@pytest.mark.parametrize("name", NETWORKS)
def test_gradient_saliency_and_product(name):
    net, inputs = network(name)
    close(ifa.attribute.saliency(net)(inputs, ONE), attr.Saliency(net).attribute(inputs, ONE))
    signed = attr.Saliency(net).attribute(inputs, ONE, abs=False)
    close(ifa.attribute.gradient(net)(inputs, ONE), signed)
    product = attr.InputXGradient(net).attribute(inputs, ONE)
    close(ifa.attribute.input_times_gradient(net)(inputs, ONE), product)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    ("rule", "theirs", "times_input"),
    [
        ("gauss-legendre", "gausslegendre", True),
        ("riemann", "riemann_right", True),
        ("riemann-left", "riemann_left", False),
    ],
)
def test_integrated_gradients(name, rule, theirs, times_input):
    net, inputs = network(name)
    peers_agree(net, inputs, rule, theirs, times_input)


@pytest.mark.parametrize("times_input", [True, False])
@pytest.mark.parametrize(
    ("rule", "theirs"),
    [
        ("gauss-legendre", "gausslegendre"),
        ("riemann", "riemann_right"),
        ("riemann-left", "riemann_left"),
        ("riemann-middle", "riemann_middle"),
    ],
)
def test_every_rule_with_and_without_the_input(rule, theirs, times_input):
    net, inputs = network("sleep staging")
    peers_agree(net, inputs, rule, theirs, times_input)


def peers_agree(net, inputs, rule, theirs, times_input):
    peer = attr.IntegratedGradients(net, multiply_by_inputs=times_input)
    options = {"baselines": 0.25, "n_steps": 10, "method": theirs}
    expected = peer.attribute(inputs, target=ONE, **options)
    ours = ifa.attribute.integrated_gradients(
        net, steps=10, rule=rule, baseline=0.25, chunk=7, times_input=times_input
    )
    close(ours(inputs, ONE), expected)


@pytest.mark.parametrize("times_input", [True, False])
def test_captums_trapezoid_loses_a_step(times_input):
    """Its weights sum to (n − 1) / n; ours are the trapezoid rule, and sum to 1."""
    net, inputs = network("ResNet")
    options = {"n_steps": 10, "method": "riemann_trapezoid"}
    peer = attr.IntegratedGradients(net, multiply_by_inputs=times_input)
    theirs = peer.attribute(inputs, target=ONE, **options)
    ours = ifa.attribute.integrated_gradients(
        net, steps=10, rule="trapezoid", times_input=times_input
    )
    close(ours(inputs, ONE) * 9 / 10, theirs)


@pytest.mark.parametrize("name", WITH_MODULES_OF_RELU)
@pytest.mark.parametrize(
    ("ours", "theirs"), [("guided_backprop", "GuidedBackprop"), ("deconvnet", "Deconvolution")]
)
def test_rectifiers(name, ours, theirs):
    net, inputs = network(name)
    # captum cannot hook an in-place ReLU, nor a module that runs twice
    found = getattr(ifa.attribute, ours)(net)(inputs, ONE)
    close(found, getattr(attr, theirs)(without_in_place(net)).attribute(inputs, ONE))


@pytest.mark.parametrize("name", NETWORKS)
def test_occlusion(name):
    net, inputs = network(name)
    channels, *space = inputs.shape[1:]
    window = [max(2, extent // 3) for extent in space]
    stride = [max(1, extent // 4) for extent in space]
    expected = attr.Occlusion(net).attribute(
        inputs,
        sliding_window_shapes=(channels, *window),
        strides=(channels, *stride),
        baselines=0.5,
        target=ONE,
    )
    ours = ifa.attribute.occlusion(net, window=window, stride=stride, baseline=0.5, chunk=5)
    close(ours(inputs, ONE), expected)


def test_gradient_shap_in_expectation():
    """Both draw at random: their means lie within the scatter of many draws of each other."""
    net, inputs = network("sleep staging")
    baselines = 0.5 * torch.randn(6, *inputs.shape[1:])
    draws = {"n_samples": 400, "stdevs": 0.1}
    theirs = attr.GradientShap(net).attribute(inputs, baselines, target=ONE, **draws)
    ours = partial(ifa.attribute.gradient_shap, net, baselines=baselines, draws=400, stdev=0.1)
    several = torch.stack([ours(seed=seed)(inputs, ONE) for seed in range(5)])
    scatter = several.std(0)
    offset = (several.mean(0) - theirs) / (scatter * (1 + 1 / 5) ** 0.5).clamp(min=1e-9)
    # a t statistic of 4 degrees of freedom for each element: its median size is 0.74
    assert offset.abs().median() < 1.2
    exact = ifa.attribute.integrated_gradients(net, baseline=list(baselines), steps=200)(
        inputs, ONE
    )
    assert torch.corrcoef(torch.stack([several.mean(0).flatten(), exact.flatten()]))[0, 1] > 0.98
