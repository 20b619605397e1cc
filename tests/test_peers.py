"""Agreement with other libraries on a small network; what differs by design is said here."""

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
@pytest.mark.parametrize(("theirs", "weight"), [("GradCAM", "gradcam"), ("LayerCAM", "layercam")])
def test_torchcam(net, images, layer, theirs, weight):
    methods = pytest.importorskip("torchcam.methods")
    with getattr(methods, theirs)(net, layer) as extract:
        scores = net(images)
        (expected,) = extract(TARGET.tolist(), scores, normalized=False)
    # torch-cam rectifies
    found = ours(net, layer, images, getattr(ifa.weight, weight), ifa.relu)
    torch.testing.assert_close(found, expected, **TOLERANCE)


def test_a_tap_works_beside_another_librarys_hooks(net, images):
    methods = pytest.importorskip("torchcam.methods")
    expected = ifa.tap(net, "3", images)(images, TARGET)
    with methods.GradCAM(net, "3") as extract:
        scores = net(images)
        found = ifa.tap(net, "3", images)(images, TARGET)
        assert len(extract(TARGET.tolist(), scores)) == 1
    assert torch.equal(found.gradients, expected.gradients)
