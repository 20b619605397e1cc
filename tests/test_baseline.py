"""Baselines, against numpy and scipy."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

import ifa
from ifa.baseline import baseline_of, diffused, heat_kernel

SHAPES = [(3, 2, 17), (2, 3, 12, 19), (2, 1, 7, 8, 9)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sigma", [2.0, 3.5])
def test_blur_is_scipys_gaussian_with_mirrored_borders(shape, sigma):
    inputs = torch.randn(shape, dtype=torch.float64)
    space = range(2, len(shape))
    sigmas = [sigma if axis in space else 0 for axis in range(len(shape))]
    expected = gaussian_filter(inputs.numpy(), sigmas, mode="reflect", truncate=12)
    # frequencies near Nyquist are those of the sampled Gaussian up to exp(-σ² π² / 2): 3e-9 at 2
    np.testing.assert_allclose(ifa.baseline.blur(sigma)(inputs), expected, atol=1e-7)


@pytest.mark.parametrize("shape", [(4, 6), *SHAPES])
def test_blur_keeps_the_mean_from_the_identity_to_the_mean(shape):
    inputs = torch.randn(shape, dtype=torch.float64)
    assert torch.allclose(ifa.baseline.blur(0.0)(inputs), inputs)
    assert torch.allclose(ifa.baseline.mean(ifa.baseline.blur(3.0)(inputs)), _mean(inputs))
    assert torch.allclose(ifa.baseline.blur(1e4)(inputs), ifa.baseline.mean(inputs))


def _mean(inputs):
    space = tuple(range(min(2, inputs.ndim - 1), inputs.ndim))
    return inputs.mean(space, keepdim=True).expand_as(inputs)


def test_blurs_compose_as_variances_add():
    kernel = heat_kernel(9, torch.tensor(3.0)) @ heat_kernel(9, torch.tensor(4.0))
    assert torch.allclose(kernel, heat_kernel(9, torch.tensor(5.0)))


def test_blur_is_differentiated_by_sigma():
    inputs = torch.randn(1, 1, 6, 5, dtype=torch.float64)
    sigma = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: diffused(inputs, s), sigma)


@pytest.mark.parametrize("name", ["black", "white", "mean"])
@pytest.mark.parametrize("shape", [(4, 6), *SHAPES])
def test_baselines_treat_each_sample_alone(name, shape):
    inputs = torch.randn(shape)
    whole = getattr(ifa.baseline, name)(inputs)
    singles = torch.cat([getattr(ifa.baseline, name)(one) for one in inputs.split(1)])
    assert whole.shape == inputs.shape
    assert torch.equal(whole, singles)
    extreme = {"black": np.min, "white": np.max}.get(name)
    if extreme:
        assert float(whole[1].flatten()[0]) == extreme(inputs[1].numpy())


def test_a_baseline_is_a_number_a_tensor_or_a_function():
    inputs = torch.randn(3, 2, 5)
    for baseline in (0.5, torch.tensor(0.5), torch.full((2, 5), 0.5), lambda x: x * 0 + 0.5):
        assert torch.equal(baseline_of("here", baseline, inputs), torch.full((3, 2, 5), 0.5))


@pytest.mark.parametrize("baseline", [None, "black", torch.zeros(7), lambda x: x[0, 0, :3]])
def test_what_is_no_baseline_is_refused_by_name(baseline):
    with pytest.raises(ValueError, match=r"^here: expected a baseline"):
        baseline_of("here", baseline, torch.randn(3, 2, 5))


@pytest.mark.parametrize("sigma", [-1.0, float("nan"), float("inf")])
def test_a_sigma_that_blurs_nothing_is_refused(sigma):
    with pytest.raises(ValueError, match=r"ifa\.baseline\.blur: expected a finite sigma"):
        ifa.baseline.blur(sigma)
