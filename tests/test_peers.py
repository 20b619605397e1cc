"""Agreement with other libraries on a small network; what differs by design is said here."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

import ifa

# their own code, not ours
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:(captum|torchcam|torch|matplotlib).*"),
    pytest.mark.filterwarnings("ignore:.*non-full backward hook:FutureWarning"),
]
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture
def net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(2, 3, 3, stride=2),
            nn.BatchNorm2d(3),
            nn.ReLU(),
            nn.Conv2d(3, 5, 3, padding=1),
            nn.Tanh(),
            nn.AdaptiveAvgPool2d((2, 1)),
            nn.Flatten(),
            nn.Linear(10, 4),
        ).eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 2, 13, 17, generator=torch.Generator().manual_seed(1))


TARGET = torch.tensor([2, 0, 3])


def ours(net: nn.Module, layer: str, images: Tensor, weight, *more) -> Tensor:
    features = ifa.tap(net, layer, images)(images, TARGET)
    return ifa.batched(ifa.chain(ifa.weigh(weight), ifa.combine, *more))(features).values


@pytest.mark.parametrize("layer", ["0", "2", "3"])
def test_captum_grad_cam(net, images, layer):
    attr = pytest.importorskip("captum.attr")
    theirs = attr.LayerGradCam(net, net.get_submodule(layer)).attribute(
        images, TARGET, attribute_to_layer_input=False, relu_attributions=False
    )
    torch.testing.assert_close(
        ours(net, layer, images, ifa.weight.gradcam), theirs[:, 0], **TOLERANCE
    )


@pytest.mark.parametrize("layer", ["0", "2", "3"])
def test_captum_activations_and_gradients(net, images, layer):
    attr = pytest.importorskip("captum.attr")
    module, features = net.get_submodule(layer), ifa.tap(net, layer, images)(images, TARGET)
    product = attr.LayerGradientXActivation(net, module).attribute(images, TARGET)
    torch.testing.assert_close(features.activations * features.gradients, product, **TOLERANCE)


@pytest.mark.parametrize("layer", ["0", "2", "3"])
@pytest.mark.parametrize(
    ("theirs", "weight"),
    [("GradCAM", "gradcam"), ("LayerCAM", "layercam"), ("XGradCAM", "xgradcam")],
)
def test_torchcam(net, images, layer, theirs, weight):
    methods = pytest.importorskip("torchcam.methods")
    with getattr(methods, theirs)(net, layer) as extract:
        scores = net(images)
        (expected,) = extract(TARGET.tolist(), scores, normalized=False)
    # torch-cam rectifies
    found = ours(net, layer, images, getattr(ifa.weight, weight), ifa.relu)
    torch.testing.assert_close(found, expected, **TOLERANCE)


@pytest.fixture
def pooled() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = nn.Conv2d(2, 5, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        return nn.Sequential(*body, nn.Linear(5, 4)).eval()


def test_torchcam_gradcam_plus_plus_is_not_grad_cam_plus_plus(pooled, images):
    """D1-1: its weight is the sum of cubed positive gradients; ours is the paper's."""
    methods = pytest.importorskip("torchcam.methods")
    with methods.GradCAMpp(pooled, "1") as extract:
        (theirs,) = extract(TARGET.tolist(), pooled(images), normalized=False)

    def cubes(activations, gradients):
        del activations
        return gradients.relu().pow(3).sum((-2, -1))

    torch.testing.assert_close(ours(pooled, "1", images, cubes, ifa.relu), theirs, **TOLERANCE)
    features = ifa.tap(pooled, "1", images)(images, TARGET)
    total, slope = features.activations.sum((2, 3)), features.gradients[:, :, 0, 0]
    positions = features.activations[0, 0].numel()
    paper = positions * slope.relu() / (2 + total * slope)  # methods.md 2.2.6
    expected = torch.einsum("nk,nkyx->nyx", paper, features.activations)
    found = ours(pooled, "1", images, ifa.weight.gradcam_plus_plus)
    torch.testing.assert_close(found, expected, **TOLERANCE)
    assert not torch.allclose(found.relu(), theirs, rtol=0.1)


def test_torchcam_cam_takes_the_same_row(pooled, images):
    """D1-6: it is documented with a rectifier that it does not apply; nor do we."""
    methods = pytest.importorskip("torchcam.methods")
    with methods.CAM(pooled, "1") as extract:
        pooled(images)
        (theirs,) = extract(TARGET.tolist(), normalized=False)
    step = ifa.chain(ifa.weight.cam(pooled), ifa.combine)
    found = ifa.batched(step)(ifa.tap(pooled, "1", images)(images, TARGET)).values
    torch.testing.assert_close(found, theirs.detach(), **TOLERANCE)


@pytest.mark.parametrize("base", ["GradCAM", "LayerCAM"])
@pytest.mark.parametrize(
    "references", [None, 1, [1], [[1, 3], [2, 1], [0, 1]]], ids=["nearest", "one", "list", "each"]
)
def test_torchcam_finer_cam(net, images, base, references):
    """It refuses rows of several lengths and a target among its references; ours need not."""
    methods = pytest.importorskip("torchcam.methods")
    with methods.FinerCAM(net, "3", base_method=getattr(methods, base)) as extract:
        (expected,) = extract(TARGET.tolist(), net(images), references, normalized=False)
    if references is None:
        score, target = ifa.score.contrast(), TARGET
    elif references == [[1, 3], [2, 1], [0, 1]]:
        score = ifa.score.contrast(references=references, classes=TARGET)
        target = torch.arange(3)
    else:
        score, target = ifa.score.contrast(references=[1]), TARGET
    weight = getattr(ifa.weight, base.lower())
    found = ifa.explain(net, images, target, layer="3", weight=weight, score=score, size=None)
    torch.testing.assert_close(found, expected, **TOLERANCE)


def test_pytorch_grad_cams_epsilon_drowns_small_gradients(pooled, images):
    """Its definition of Grad-CAM++ adds 1e-6 to a denominator of squared gradients.

    Re-stated here in float64, because its package needs torchvision, which does not load here. It
    agrees where gradients are large, and fades where they are small, as they are after pooling.
    """

    def theirs(activations, gradients):
        squared, total = gradients**2, activations.sum((-2, -1), keepdim=True)
        alpha = squared / (2 * squared + total * gradients**3 + 1e-6)
        alpha = torch.where(gradients == 0, torch.zeros_like(alpha), alpha)
        return (gradients.relu() * alpha).sum((-2, -1))

    net, images = pooled.double(), images.double()
    for factor, agrees in ((1e3, True), (1e-3, False)):
        score = partial(_scaled, factor=factor)
        features = ifa.tap(net, "1", images, score=score)(images, TARGET)
        pairs = zip(features.activations / factor, features.gradients, strict=True)
        for activations, gradients in pairs:
            own = ifa.weight.gradcam_plus_plus(activations, gradients)
            assert torch.allclose(own, theirs(activations, gradients), rtol=1e-4) == agrees


def _scaled(output: Tensor, target: Tensor, *, factor: float) -> Tensor:
    return factor * ifa.score.logit(output, target)


def test_a_tap_works_beside_another_librarys_hooks(net, images):
    methods = pytest.importorskip("torchcam.methods")
    expected = ifa.tap(net, "3", images)(images, TARGET)
    with methods.GradCAM(net, "3") as extract:
        scores = net(images)
        found = ifa.tap(net, "3", images)(images, TARGET)
        assert len(extract(TARGET.tolist(), scores)) == 1
    assert torch.equal(found.gradients, expected.gradients)
