"""Concepts against another library's definition, planted ones, and closed forms, in float64."""

import numpy as np
import pytest
import torch
from torch import nn

import ifa
from ifa.testing import assert_leaves_model_untouched, models

SPACES = {"1-D": (13,), "2-D": (9, 7), "3-D": (5, 7, 6)}
CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def network(space: str, channels: int = 6) -> nn.Sequential:
    conv = CONV[len(SPACES[space])]
    pool = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)[
        len(SPACES[space]) - 1
    ]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        layers = conv(2, channels, 3, stride=2), nn.ReLU(), pool(1), nn.Flatten()
        return nn.Sequential(*layers, nn.Linear(channels, 4)).eval().double()


def images(space: str, samples: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(samples, 2, *SPACES[space], generator=generator, dtype=torch.float64)


def of_pytorch_grad_cam(activations, concepts, seed):
    """Follow its `dff`: (concept, channel) with the offset, and (sample, concept, *space)."""
    from sklearn.decomposition import NMF

    samples, channels, *space = activations.shape
    table = np.moveaxis(activations, 1, 0).reshape(channels, -1)
    offset = table.min(1)
    model = NMF(n_components=concepts, init="random", random_state=seed, max_iter=1000)
    vectors = model.fit_transform(table - offset[:, None])
    maps = model.components_.reshape(concepts, samples, *space)
    return (vectors + offset[:, None]).T, np.moveaxis(maps, 0, 1), offset


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("layer", ["0", "1"])
def test_factors_are_those_of_pytorch_grad_cam(space, layer):
    """Up to the scale that each product leaves open, and the order."""
    net, inputs = network(space), images(space)
    with assert_leaves_model_untouched(net):
        found = ifa.basis.factorize(net, layer, inputs, concepts=3, seed=2, chunk=3)
    with torch.no_grad():
        activations = net[: int(layer) + 1](inputs).numpy()
    vectors, maps, offset = of_pytorch_grad_cam(activations, 3, 2)
    highest = maps.max((0, *range(2, maps.ndim)))
    products = ((vectors - offset) * highest[:, None]) ** 2
    strength = products.sum(1) * ((maps / highest.reshape(1, 3, *(1,) * (maps.ndim - 2))) ** 2).sum(
        (0, *range(2, maps.ndim))
    )
    order = np.argsort(-strength)
    np.testing.assert_allclose(found.offset, offset)
    scaled = (maps / highest.reshape(1, 3, *(1,) * (maps.ndim - 2)))[:, order]
    np.testing.assert_allclose(found.maps, scaled, rtol=1e-7, atol=1e-9)
    own = ((vectors - offset) * highest[:, None])[order]
    np.testing.assert_allclose(found.vectors, own, rtol=1e-7, atol=1e-9)
    # pooled and linear: what a concept speaks for is what the classifier says of its vector
    logits = net[-1](torch.from_numpy(own + offset).relu())
    np.testing.assert_allclose(found.outputs, logits.detach(), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("space", SPACES)
def test_planted_concepts_are_found(space):
    """Each has a channel and places of its own, so that there is one factorization."""
    generator = torch.Generator().manual_seed(4)
    samples, channels = 5, 6
    maps = torch.rand(samples, 3, *SPACES[space], generator=generator, dtype=torch.float64)
    vectors = torch.rand(3, channels, generator=generator, dtype=torch.float64)
    for concept in range(3):
        vectors[:, concept] = 0.0
        vectors[concept, concept] = 3.0 - concept
        maps.flatten(2)[concept, :, concept] = 0.0
        maps.flatten(2)[concept, concept, concept] = 1.0
    activations = torch.einsum("nc...,ck->nk...", maps, vectors)
    net = nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(activations[0].numel(), 2)).double()
    found = ifa.basis.factorize(net.eval(), "0", activations, concepts=3, iterations=5000)
    assert found.unexplained < 1e-4
    assert found.maps.amax((0, *range(2, maps.ndim))).tolist() == pytest.approx([1, 1, 1])
    assert min(part.min() for part in found[:2]) >= 0
    alike = torch.corrcoef(torch.cat([found.vectors, vectors]))[:3, 3:]
    pairs = alike.argmax(1)
    assert pairs.sort().values.tolist() == [0, 1, 2]
    torch.testing.assert_close(found.vectors, vectors[pairs], rtol=0.1, atol=0.1)
    torch.testing.assert_close(found.maps, maps[:, pairs], rtol=0.1, atol=0.15)
    strength = found.vectors.square().sum(1) * found.maps.square().sum((0, *range(2, maps.ndim)))
    assert (strength.diff() <= 0).all()


def test_a_class_token_stays_that_of_each_sample():
    model = models.small_vit().double()
    inputs, grid = models.inputs(model, 3), ifa.tokens(prefix=1, grid=(2, 3))
    found = ifa.basis.factorize(model, "blocks.0", inputs, concepts=2, grid=grid, chunk=2)
    assert found.maps.shape == (3, 2, 2, 3)
    assert found.vectors.shape == (2, 8)
    with torch.no_grad():
        raw, head = ifa.cut(model, "blocks.0", inputs)(inputs)
        for vector, output in zip(found.vectors, found.outputs, strict=True):
            tokens = raw.clone()
            tokens[:, 1:] = vector + found.offset
            torch.testing.assert_close(output, head(tokens).mean(0))
    approximate = torch.einsum("nc...,ck->nk...", found.maps, found.vectors)
    approximate += found.offset[:, None, None]
    whole = raw[:, 1:].movedim(2, 1).unflatten(2, (2, 3))
    left = (whole - approximate).square().sum()
    share = left / (whole - found.offset[:, None, None]).square().sum()
    torch.testing.assert_close(found.unexplained, share)
    assert share < 0.5


def test_the_seed_is_all_there_is_to_chance():
    net, inputs = network("2-D"), images("2-D")
    first = ifa.basis.factorize(net, "1", inputs, concepts=3)
    np.random.rand(3)  # noqa: NPY002
    torch.rand(3)
    again = ifa.basis.factorize(net, "1", inputs, concepts=3)
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    other = ifa.basis.factorize(net, "1", inputs, concepts=3, seed=1)
    assert not torch.equal(first.maps, other.maps)
    single = ifa.basis.factorize(net.float(), "1", inputs.float(), concepts=3)
    assert single.maps.dtype == torch.float32
    torch.testing.assert_close(single.maps.double(), first.maps, rtol=1e-2, atol=1e-3)


def test_of_nothing_there_is_nothing():
    net, inputs = network("1-D"), images("1-D")
    with torch.no_grad():
        net[0].bias.fill_(-100.0)
    found = ifa.basis.factorize(net, "1", inputs, concepts=2)
    assert not found.vectors.any()
    assert all(part.isfinite().all() for part in found)
    assert found.unexplained == 0


def test_what_is_wrong_is_refused_by_name():
    net, inputs = network("1-D"), images("1-D")
    with pytest.raises(ValueError, match=r"^ifa.basis.factorize: .*concepts .* at most 6.*got 7"):
        ifa.basis.factorize(net, "1", inputs, concepts=7)
    with pytest.raises(LookupError, match=r"^.?ifa.basis.factorize: .*got '9'"):
        ifa.basis.factorize(net, "9", inputs)
    with pytest.raises(ValueError, match=r"^ifa.basis.factorize: expected finite activations"):
        ifa.basis.factorize(net, "1", inputs / 0)
    with pytest.raises(ValueError, match=r"^ifa.basis.factorize: expected iterations"):
        ifa.basis.factorize(net, "1", inputs, iterations=0)

    class Listed(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network("1-D")

        def forward(self, batch):
            return [{"score": one} for one in self.net(batch)]

    with pytest.raises(TypeError, match=r"^ifa.basis.factorize: .*got list. Say with output="):
        ifa.basis.factorize(Listed(), "net.1", inputs)


def test_too_few_iterations_are_told():
    from sklearn.exceptions import ConvergenceWarning

    net, inputs = network("2-D"), images("2-D")
    with pytest.warns(ConvergenceWarning, match=r"ifa.basis.factorize: .*after 2 iterations"):
        ifa.basis.factorize(net, "1", inputs, concepts=3, iterations=2)
