"""Every weighting against a reference written from its formula, in float64 numpy."""

from functools import partial

import numpy as np
import pytest
import torch
from torch.func import vmap

import ifa
from ifa.declared import declared

SHAPES = {"1-D": (3, 7), "2-D": (3, 4, 4), "2-D wide": (5, 3, 6), "3-D": (4, 2, 3, 5)}


def flat(values):
    return np.asarray(values, dtype=np.float64).reshape(len(values), -1)


def maps_gradcam(a, g):
    return np.einsum("k,kp->p", g.mean(1), a)


def maps_gradcam_plus_plus(a, g):
    with np.errstate(divide="ignore", invalid="ignore"):
        alpha = g**2 / (2 * g**2 + g**3 * a.sum(1, keepdims=True))
    alpha = np.where(g == 0, 0, alpha)
    return np.einsum("k,kp->p", (alpha * np.maximum(g, 0)).sum(1), a)


def maps_xgradcam(a, g):
    return np.einsum("k,kp->p", (g * a).sum(1) / a.sum(1), a)


def maps_hirescam(a, g):
    return (g * a).sum(0)


def maps_layercam(a, g):
    return (np.maximum(g, 0) * a).sum(0)


def maps_elementwise_gradcam(a, g):
    return np.maximum(g * a, 0).sum(0)


def maps_bagcam(a, g):
    return np.maximum((1 + g * a).mean(1, keepdims=True) * g * a, 0).sum(0)


def projection(values, centered=True):
    rows = values.T - values.T.mean(0) if centered else values.T
    vectors = np.linalg.eigh(rows.T @ rows)[1]
    projected = rows @ vectors[:, -1]
    reference = values.sum(0) - values.sum(0).mean()
    return projected if projected @ reference >= 0 else -projected


REFERENCES = {
    "gradcam": maps_gradcam,
    "gradcam_plus_plus": maps_gradcam_plus_plus,
    "xgradcam": maps_xgradcam,
    "hirescam": maps_hirescam,
    "fullcam": maps_hirescam,
    "layercam": maps_layercam,
    "elementwise_gradcam": maps_elementwise_gradcam,
    "bagcam": maps_bagcam,
    "eigencam": lambda a, g: projection(a),
    "eigengradcam": lambda a, g: projection(a * g),
}
OTHERS = {"randomcam"}  # has no formula to write down
KERNELS = [
    n for n in ifa.weight.__all__ if declared(getattr(ifa.weight, n), "kind", "kernel") == "kernel"
]


def test_every_public_weighting_has_a_reference():
    assert set(REFERENCES) | OTHERS == set(KERNELS)


def features(shape, *, signed, seed=0):
    generator = torch.Generator().manual_seed(seed)
    activations = torch.randn(shape, generator=generator, dtype=torch.float64)
    gradients = torch.randn(shape, generator=generator, dtype=torch.float64)
    gradients[torch.rand(shape, generator=generator) < 0.2] = 0.0
    return activations if signed else activations.relu() + 0.01, gradients


def map_of(kernel, activations, gradients):
    step = ifa.chain(ifa.weigh(kernel), ifa.combine)
    return step(ifa.Features(activations, gradients, torch.tensor(0))).values


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("signed", [False, True], ids=["rectified", "signed"])
def test_the_map_is_that_of_the_formula(name, shape, signed):
    activations, gradients = features(shape, signed=signed)
    expected = REFERENCES[name](flat(activations), flat(gradients))
    found = flat(map_of(getattr(ifa.weight, name), activations, gradients)[None])[0]
    if name.startswith("eigen"):  # documented: equal up to the constant that centring takes away
        found, expected = found - found.mean(), expected - expected.mean()
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", ["eigencam", "eigengradcam"])
def test_the_uncentred_projection_is_the_map_itself(name):
    activations, gradients = features((4, 3, 5), signed=True)
    kernel = partial(getattr(ifa.weight, name), centered=False)
    values = activations * gradients if name == "eigengradcam" else activations
    expected = projection(flat(values), centered=False)
    np.testing.assert_allclose(flat(map_of(kernel, activations, gradients)[None])[0], expected)


@pytest.mark.parametrize("name", ["eigencam", "eigengradcam"])
def test_the_sign_does_not_depend_on_the_order_of_channels(name):
    activations, gradients = features((6, 3, 5), signed=True)
    kernel = getattr(ifa.weight, name)
    expected = map_of(kernel, activations, gradients)
    for seed in range(20):
        order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(map_of(kernel, activations[order], gradients[order]), expected)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("case", ["zero", "constant", "zero gradients", "denormal", "tiny", "huge"])
def test_weights_are_finite_for_any_input(name, case, dtype):
    activations, gradients = (values.to(dtype) for values in features((3, 4, 5), signed=False))
    small = torch.finfo(dtype).tiny / 8
    factors = {"zero": (0, 0), "zero gradients": (1, 0), "denormal": (small, small)}
    factors |= {"tiny": (1e-20, 1e-20), "huge": (1e18, 1e18)}
    if case == "constant":
        activations, gradients = torch.full_like(activations, 2.0), torch.full_like(gradients, 3.0)
    else:
        activations, gradients = activations * factors[case][0], gradients * factors[case][1]
    kernel = getattr(ifa.weight, name)
    weights = kernel(activations, gradients)
    if (name, case, dtype) == ("bagcam", "huge", torch.float32):
        assert not weights.isnan().any()  # its weights grow as G²·A: more than float32 can hold
        return
    assert weights.isfinite().all()
    if case in ("zero", "zero gradients") and name not in ("eigencam", "randomcam"):
        assert (weights == 0).all()


@pytest.mark.parametrize("name", ["gradcam_plus_plus", "xgradcam", "eigencam"])
def test_formulas_hold_at_any_scale(name):
    """An absolute epsilon would drown small gradients and activations; there is none."""
    activations, gradients = features((3, 4, 5), signed=False)
    for scale in (1e-20, 1e20):
        scaled = map_of(getattr(ifa.weight, name), activations * scale, gradients / scale)
        # A -> cA with G -> G/c leaves the maps as they are; eigencam's are in A's unit
        expected = map_of(getattr(ifa.weight, name), activations, gradients)
        factor = scale if name == "eigencam" else 1.0
        torch.testing.assert_close(scaled, expected * factor)


@pytest.mark.parametrize("name", KERNELS)
def test_a_batch_is_a_stack_of_singles(name):
    pairs = [features((3, 4, 5), signed=True, seed=seed) for seed in range(5)]
    batch = [torch.stack(values).float() for values in zip(*pairs, strict=True)]
    kernel = getattr(ifa.weight, name)
    singles = torch.stack([kernel(a.float(), g.float()) for a, g in pairs])
    torch.testing.assert_close(vmap(kernel)(*batch), singles, rtol=1e-5, atol=1e-6)


def test_random_weights_depend_on_the_seed_only():
    ones = torch.ones(50, 2)
    before = torch.random.get_rng_state()
    weights = ifa.weight.randomcam(ones, ones)
    assert torch.equal(weights, ifa.weight.randomcam(2 * ones, -ones))
    assert not torch.equal(weights, ifa.weight.randomcam(ones, ones, seed=1))
    assert weights.min() < -0.5
    assert weights.max() > 0.5
    assert torch.equal(before, torch.random.get_rng_state())


class TestClassifier:
    def test_row_of_the_linear_layer(self):
        net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Linear(4, 3))
        batch = ifa.Features(torch.ones(2, 4, 5, 6), torch.zeros(2, 4, 5, 6), torch.tensor([2, 0]))
        weights = ifa.batched(ifa.weight.cam(net))(batch).weights
        assert torch.equal(weights, net[1].weight.detach()[[2, 0]])

    def test_row_of_the_last_pointwise_convolution(self):
        net = torch.nn.Sequential(torch.nn.Conv3d(1, 4, 3), torch.nn.Conv3d(4, 3, 1))
        single = ifa.Features(torch.ones(4, 2, 3, 4), torch.zeros(4, 2, 3, 4), torch.tensor(1))
        weights = ifa.weight.cam(net)(single).weights
        assert torch.equal(weights, net[1].weight.detach()[1, :, 0, 0, 0])

    def test_several_linear_layers_are_refused_by_name(self):
        net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
        with pytest.raises(LookupError, match=r"got 0, 2\. Name the one that makes the outputs"):
            ifa.weight.cam(net)
        single = ifa.Features(torch.ones(3, 2), torch.zeros(3, 2), torch.tensor(1))
        assert ifa.weight.cam(net, classifier="2")(single).weights.shape == (3,)

    def test_a_network_without_classifier_is_refused(self):
        with pytest.raises(LookupError, match="got 0"):
            ifa.weight.cam(torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3)))

    def test_another_layer_is_refused(self):
        net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Linear(4, 3))
        single = ifa.Features(torch.ones(5, 2), torch.zeros(5, 2), torch.tensor(1))
        with pytest.raises(ValueError, match="the 4 channels that the classifier reads, got 5"):
            ifa.weight.cam(net)(single)
