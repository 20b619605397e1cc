"""Maps that are known in closed form: under a global average pool and a linear layer."""

import pytest
import torch

import ifa
from ifa.testing import models

SPACES = pytest.mark.parametrize("space", [1, 2, 3])


def assert_close(actual, expected):
    """Compare to 1e-5 of the largest value: maps get small where there are many positions."""
    assert expected.any()  # zeros would agree with too much
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def explained(space, kernel, dtype=torch.float32):
    """Explain every output of three samples: model, outputs, activations, gradients, maps."""
    model = models.pooled_linear(space).to(dtype)
    inputs = models.inputs(model, 3)
    every = torch.arange(4)[:, None].expand(-1, 3)
    features = ifa.tap(model, "relu2", inputs)(inputs, every)
    maps = ifa.batched(ifa.chain(ifa.weigh(kernel), ifa.combine))(features)
    with torch.no_grad():
        outputs = model(inputs)
    return model, outputs, features, maps.values


def slopes(model, activations):
    """q_ck = W_ck / n, the gradient of output c at any of the n positions of channel k."""
    return model.linear.weight.detach() / activations[0, 0].numel()


@SPACES
def test_the_gradient_is_the_classifier_over_the_number_of_positions(space):
    model, _, features, _ = explained(space, ifa.weight.gradcam)
    expected = slopes(model, features.activations)[:, None]
    expected = expected.reshape(4, 1, 5, *(1,) * space).expand_as(features.gradients)
    assert_close(features.gradients, expected)


@SPACES
@pytest.mark.parametrize("name", ["gradcam", "hirescam", "fullcam"])
def test_linear_methods_agree_with_the_class_activation_map(space, name):
    model, _, features, maps = explained(space, getattr(ifa.weight, name))
    cam = torch.einsum("ck,nk...->cn...", slopes(model, features.activations), features.activations)
    assert_close(maps, cam)


@SPACES
@pytest.mark.parametrize("name", ["gradcam", "hirescam", "fullcam"])
def test_their_maps_sum_to_the_output_less_its_bias(space, name):
    model, outputs, _, maps = explained(space, getattr(ifa.weight, name))
    expected = (outputs - model.linear.bias.detach()).T
    assert_close(maps.flatten(2).sum(2), expected)


@SPACES
def test_layercam_drops_channels_of_negative_weight(space):
    model, _, features, maps = explained(space, ifa.weight.layercam)
    positive = slopes(model, features.activations).relu()
    assert 0 < int((positive > 0).sum()) < positive.numel()  # or there is nothing to drop
    expected = torch.einsum("ck,nk...->cn...", positive, features.activations)
    assert_close(maps, expected)


@SPACES
def test_gradients_equal_finite_differences(space):
    model, _, features, _ = explained(space, ifa.weight.gradcam, torch.float64)
    inputs = models.inputs(model, 3)
    activations, head = ifa.cut(model, "relu2", inputs)(inputs)
    torch.testing.assert_close(activations, features.activations, rtol=0, atol=0)
    step = 1e-4
    for channel in range(5):
        moved = torch.zeros_like(activations)
        moved[(slice(None), channel, *(2,) * space)] = step
        with torch.no_grad():
            slope = (head(activations + moved) - head(activations - moved)) / (2 * step)
        found = features.gradients[(slice(None), slice(None), channel, *(2,) * space)]
        torch.testing.assert_close(found, slope.T, rtol=1e-8, atol=1e-10)


@SPACES
def test_gradients_below_rectifiers_equal_finite_differences(space):
    model = models.pooled_linear(space).double()
    inputs = models.inputs(model, 3)
    features = ifa.tap(model, "conv1", inputs)(inputs, 1)
    activations, head = ifa.cut(model, "conv1", inputs)(inputs)
    step = 1e-6
    for channel in range(3):
        moved = torch.zeros_like(activations)
        moved[(slice(None), channel, *(3,) * space)] = step
        with torch.no_grad():
            slope = (head(activations + moved) - head(activations - moved))[:, 1] / (2 * step)
        found = features.gradients[(slice(None), channel, *(3,) * space)]
        torch.testing.assert_close(found, slope, rtol=1e-6, atol=1e-9)
