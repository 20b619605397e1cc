"""Attributions against closed forms, and references written out as loops, in float64."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from test_architectures import CASES, ONE, batch, made
from torch import Tensor, nn
from torch.nn import functional

import ifa
from ifa import attribute
from ifa.noise import noise
from ifa.testing import assert_leaves_model_untouched, models

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
SPACES = {"1-D": (9,), "2-D": (6, 5), "3-D": (4, 5, 3)}


def seeded(build):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return build().eval().double()


def smooth_network(space: str) -> nn.Sequential:
    conv, size = CONV[len(SPACES[space])], math.prod(SPACES[space])
    return seeded(
        lambda: nn.Sequential(
            conv(2, 3, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(3 * size, 4)
        )
    )


def images(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


TARGET = torch.tensor([2, 0, 3])


def gradient_of(net: nn.Module, inputs: Tensor, target: int) -> Tensor:
    start = inputs.clone().requires_grad_()
    return torch.autograd.grad(net(start)[:, target].sum(), start)[0]


# paths -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits() -> Tensor:
    return torch.stack([image for image, _, _ in ifa.nets.digits()[:24]])


def silu_digits_cnn() -> nn.Sequential:
    net = ifa.nets.digits_cnn()
    for block in (net.conv1, net.conv2, net.conv3):
        block[2] = nn.SiLU()
    return net


def relative_gap(attribution, inputs) -> Tensor:
    seen = attribution.observe(inputs)
    return seen.gap.abs() / seen.total.abs()


def test_integrated_gradients_are_complete_on_digits(digits):
    """50 Gauss-Legendre points: to rounding where y is smooth, to 1/n where it has kinks."""
    net = ifa.nets.train(silu_digits_cnn, ifa.nets.digits("train"), epochs=4)
    assert relative_gap(attribute.integrated_gradients(net), digits).max() < 1e-4
    kinked = ifa.nets.train_digits(epochs=4)
    few, many = (
        relative_gap(attribute.integrated_gradients(kinked, steps=steps), digits[:8]).median()
        for steps in (50, 1600)
    )
    assert few < 0.02
    assert many < few / 10
    # the other paths by their own end points
    assert relative_gap(attribute.blur_integrated_gradients(net), digits).median() < 1e-3
    guided = partial(attribute.guided_integrated_gradients, net)
    few, many = (relative_gap(guided(steps=steps), digits[:8]).median() for steps in (16, 128))
    assert many < 0.03
    assert many < few / 3


@pytest.mark.parametrize("space", SPACES)
def test_the_total_is_that_of_the_end_points(space):
    net, inputs = smooth_network(space), images(3, 2, *SPACES[space])
    rows = torch.arange(3)
    ends = {
        "integrated_gradients": {"baseline": ifa.baseline.white},
        "blur_integrated_gradients": {"sigma": 1.5},
        "guided_integrated_gradients": {"baseline": 0.5, "steps": 2},
    }
    starts = {
        "integrated_gradients": ifa.baseline.white(inputs),
        "blur_integrated_gradients": ifa.baseline.blur(1.5)(inputs),
        "guided_integrated_gradients": torch.full_like(inputs, 0.5),
    }
    for name, options in ends.items():
        seen = getattr(attribute, name)(net, **options).observe(inputs, TARGET)
        with torch.no_grad():
            expected = (net(inputs) - net(starts[name]))[rows, TARGET]
        torch.testing.assert_close(seen.total, expected)
        torch.testing.assert_close(seen.gap, seen.values.flatten(1).sum(1) - expected)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("rule", ["gauss-legendre", "trapezoid", "riemann"])
def test_integrated_gradients_by_a_loop(space, rule):
    net, inputs = smooth_network(space), images(3, 2, *SPACES[space])
    nodes, weights = (
        {
            "gauss-legendre": [0.5 + part for part in (-math.sqrt(0.15), 0, math.sqrt(0.15))],
            "trapezoid": [0, 0.5, 1],
            "riemann": [1 / 3, 2 / 3, 1],
        }[rule],
        {
            "gauss-legendre": [5 / 18, 8 / 18, 5 / 18],
            "trapezoid": [0.25, 0.5, 0.25],
            "riemann": [1 / 3, 1 / 3, 1 / 3],
        }[rule],
    )
    found = attribute.integrated_gradients(
        net, steps=3, rule=rule, baseline=[ifa.baseline.black, 0.5]
    )(inputs, TARGET)
    for image, target, values in zip(inputs, TARGET, found, strict=True):
        expected = torch.zeros_like(image)
        for start in (torch.full_like(image, float(image.min())), torch.full_like(image, 0.5)):
            for node, weight in zip(nodes, weights, strict=True):
                point = start + node * (image - start)
                slope = gradient_of(net, point[None], int(target))[0]
                expected += weight * (image - start) * slope / 2
        torch.testing.assert_close(values, expected)


@pytest.mark.parametrize("space", SPACES)
def test_the_blur_moves_as_its_derivative_says(space):
    """Of a linear network every small piece of the path gives weights times the change."""
    inputs, size = images(2, 2, *SPACES[space]), 2 * math.prod(SPACES[space])
    net = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(size, 1)))
    row = net[1].weight.reshape(1, *inputs.shape[1:]).detach()
    found = attribute.blur_integrated_gradients(net, steps=60, sigma=3.0)(inputs, 0)
    torch.testing.assert_close(found, row * (inputs - ifa.baseline.blur(3.0)(inputs)))


def guided_by_a_loop(net, image, target, steps, fraction, distance, start):
    """Follow algorithm 1 of the paper, for one sample, coordinate by coordinate."""
    whole = np.abs(image - start).sum()
    here, found = start.copy(), np.zeros_like(image)
    for step in range(steps):
        point = torch.tensor(here)[None]
        slope = gradient_of(net, point, target)[0].numpy()
        part = (step + 1) / steps
        low_part, high_part = max(part - distance, 0), min(part + distance, 1)
        low, high = (start + p * (image - start) for p in (low_part, high_part))
        aim = whole * (1 - part)
        while True:
            old = here.copy()
            for place in np.ndindex(image.shape):
                way = image[place] - start[place]
                position = (here[place] - start[place]) / way if way else high_part
                if position < low_part:
                    here[place] = low[place]
            left = np.abs(here - image).sum()
            if math.isclose(left, aim, rel_tol=1e-9, abs_tol=1e-9):
                found += slope * (here - old)
                break
            size = np.where(here == high, np.inf, np.abs(slope))
            limit = np.quantile(size, fraction, method="lower")
            chosen = (size <= limit) & np.isfinite(size)
            gap = np.abs(here - high)[chosen].sum()
            share = (left - aim) / gap if gap > 0 else np.inf
            if share > 1:
                here[chosen] = high[chosen]
            else:
                here[chosen] += share * (high - here)[chosen]
            found += slope * (here - old)
            if share <= 1:
                break
    return found


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize(("fraction", "distance"), [(0.25, 0.02), (0.1, 0.3), (1.0, 0.0)])
def test_guided_integrated_gradients_by_a_loop(space, fraction, distance):
    net, inputs = smooth_network(space), images(3, 2, *SPACES[space])
    inputs[0, 0].flatten()[:2] = 0.25  # does not move
    options = {"steps": 7, "fraction": fraction, "distance": distance}
    found = attribute.guided_integrated_gradients(net, baseline=0.25, **options)(inputs, TARGET)
    for image, target, values in zip(inputs, TARGET, found, strict=True):
        start = np.full(image.shape, 0.25)
        expected = guided_by_a_loop(net, image.numpy(), int(target), 7, fraction, distance, start)
        torch.testing.assert_close(values, torch.tensor(expected), rtol=1e-6, atol=1e-9)


def test_gradient_shap_draws_alike_for_every_sample():
    net, inputs = smooth_network("1-D"), images(1, 2, 9).expand(3, 2, 9)
    shap = attribute.gradient_shap(net, baselines=images(5, 2, 9), draws=4, stdev=0.2, seed=2)
    first, *others = shap(inputs, 1)
    assert all(torch.equal(first, other) for other in others)
    again = attribute.gradient_shap(net, baselines=images(5, 2, 9), draws=4, stdev=0.2, seed=3)
    assert not torch.allclose(again(inputs, 1)[0], first)


class Limited(nn.Module):
    """Runs no more than so many inputs at once."""

    def __init__(self, most: int):
        super().__init__()
        self.most, self.linear = most, nn.Linear(12, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        assert len(inputs) <= self.most
        return self.linear(inputs.flatten(1)).tanh()


@pytest.mark.parametrize(
    "build",
    [
        attribute.integrated_gradients,
        partial(attribute.blur_integrated_gradients, sigma=1.0),
        attribute.gradient_shap,
        partial(attribute.guided_integrated_gradients, steps=3),
        partial(attribute.occlusion, window=2),
        partial(attribute.rise, draws=7, cells=2),
    ],
)
@pytest.mark.parametrize("chunk", [1, 3])
def test_no_more_than_a_chunk_runs_at_once(build, chunk):
    attribution, inputs = build(Limited(chunk), chunk=chunk), torch.randn(7, 2, 6)
    attribution(inputs)
    attribution(inputs, torch.arange(4)[:, None].expand(4, 7))
    if hasattr(attribution, "observe"):
        attribution.observe(inputs)


# rectifiers --------------------------------------------------------------------------------------

FORMS = {
    "module": nn.ReLU(),
    "module, in place": nn.ReLU(inplace=True),
    "functional": functional.relu,
    "functional, in place": partial(functional.relu, inplace=True),
    "functional, positional": lambda x: functional.relu(x, True),
    "torch": torch.relu,
    "torch, in place": torch.relu_,
    "method": lambda x: x.relu(),
    "method, in place": lambda x: x.relu_(),
    "in place, by its effect": lambda x: (x.relu_(), x)[1],
}


class Rectified(nn.Module):
    def __init__(self, form):
        super().__init__()
        self.first, self.second = nn.Linear(5, 7), nn.Linear(7, 3)
        self.form = form

    def forward(self, inputs: Tensor) -> Tensor:
        return self.second(self.form(self.first(inputs)))


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("rule", ["guided_backprop", "deconvnet"])
def test_every_form_of_relu_follows_the_rule(form, rule):
    net, inputs = seeded(lambda: Rectified(form)), images(3, 5)
    active = net.first(inputs) > 0
    for target in (TARGET.clamp(max=2), torch.tensor([[0, 1, 2], [2, 2, 1]])):
        with assert_leaves_model_untouched(net):
            found = getattr(attribute, rule)(net)(inputs, target)
        slope = net.second.weight[target].relu()
        slope = slope * active if rule == "guided_backprop" else slope
        torch.testing.assert_close(found, slope @ net.first.weight)


def test_rectifiers_leave_the_forward_pass():
    net = made(CASES["DenseNet"])
    inputs = batch(CASES["DenseNet"])
    guided = attribute.guided_backprop(net)
    with torch.no_grad():
        assert torch.equal(guided._scorer.run(inputs), net(inputs))
    # what is rectified in place, by whatever name, is more than a module
    assert not torch.allclose(guided(inputs, ONE), attribute.gradient(net)(inputs, ONE))


@pytest.mark.parametrize("rule", ["guided_backprop", "deconvnet"])
def test_a_network_without_relu_is_refused(rule):
    net = nn.Sequential(nn.Linear(3, 2), nn.GELU())
    refused = f"ifa.attribute.{rule}: .*none ran, but GELU: {rule} equals the gradient"
    with pytest.raises(ValueError, match=refused):
        getattr(attribute, rule)(net)(torch.ones(1, 3))


# occlusion ---------------------------------------------------------------------------------------


def occlusion_by_a_loop(net, image, target, window, stride, value):
    score = lambda one: float(net(one[None])[0, target].detach())  # noqa: E731
    space = image.shape[1:]
    total, cover = torch.zeros(space).double(), torch.zeros(space).double()
    counts = [
        math.ceil((extent - w) / s) + 1 for extent, w, s in zip(space, window, stride, strict=True)
    ]
    for place in np.ndindex(*counts):
        inside = tuple(
            slice(p * s, p * s + w) for p, s, w in zip(place, stride, window, strict=True)
        )
        covered = image.clone()
        covered[(slice(None), *inside)] = value[(slice(None), *inside)]
        total[inside] += score(image) - score(covered)
        cover[inside] += 1
    return (total / cover).expand_as(image)


@pytest.mark.parametrize(
    ("space", "window", "stride"),
    [
        ("1-D", (4,), (2,)),
        ("1-D", (9,), (1,)),
        ("2-D", (3, 2), (2, 2)),
        ("2-D", (4, 3), (3, 1)),
        ("3-D", (2, 3, 2), (2, 2, 1)),
    ],
)
def test_occlusion_by_a_loop(space, window, stride):
    net, inputs = smooth_network(space), images(3, 2, *SPACES[space])
    value = ifa.baseline.mean
    found = attribute.occlusion(net, window=window, stride=stride, baseline=value)(inputs, TARGET)
    for one, fill, target, values in zip(inputs, value(inputs), TARGET, found, strict=True):
        expected = occlusion_by_a_loop(net, one, int(target), window, stride, fill)
        torch.testing.assert_close(values, expected)


def test_occlusion_of_a_uniform_network_is_uniform():
    """D4-5: summed over windows instead, corners would have the least."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 1, bias=False))
    nn.init.constant_(net[1].weight, 1.0)
    found = attribute.occlusion(net, window=3)(torch.ones(1, 1, 6, 6), 0)
    torch.testing.assert_close(found, torch.full((1, 1, 6, 6), 9.0))


# random masks ------------------------------------------------------------------------------------


def masks_of_the_authors(draws, space, cells, fraction, seed):
    """Enlarge with skimage and cut at random, as their generate_masks, which mirrors at edges."""
    transform = pytest.importorskip("skimage.transform")
    random = np.random.default_rng(seed)
    extents = [math.ceil(n / c) for n, c in zip(space, cells, strict=True)]
    for _ in range(draws):
        grid = (random.random(math.prod(cells)) < fraction).astype(float).reshape(cells)
        whole = [(c + 1) * e for c, e in zip(cells, extents, strict=True)]
        large = transform.resize(grid, whole, order=1, mode="edge", anti_aliasing=False)
        starts = [int(u * e) for u, e in zip(random.random(len(space)), extents, strict=True)]
        yield torch.from_numpy(
            large[tuple(slice(a, a + n) for a, n in zip(starts, space, strict=True))]
        )


@pytest.mark.parametrize(
    ("space", "cells"), [("1-D", (4,)), ("2-D", (3, 2)), ("3-D", (2, 3, 3)), ("2-D", 5)]
)
def test_rise_by_a_loop(space, cells):
    net, inputs = smooth_network(space), images(3, 2, *SPACES[space])
    each = (cells,) * len(SPACES[space]) if isinstance(cells, int) else cells
    expected = torch.zeros(2, 3, 1, *SPACES[space], dtype=torch.float64)
    many = torch.stack([TARGET, TARGET.flip(0)])
    for mask in masks_of_the_authors(9, SPACES[space], each, 0.3, 5):
        with torch.no_grad():
            output = net(mask * inputs + (1 - mask) * 0.5)
        for row, targets in zip(expected, many, strict=True):
            scores = output.gather(1, targets[:, None]).squeeze(1)
            row += scores.reshape(3, 1, *(1,) * mask.ndim) * mask / 9 / 0.3
    options = {"draws": 9, "cells": cells, "fraction": 0.3, "baseline": 0.5, "seed": 5}
    found = attribute.rise(net, **options, chunk=4)(inputs, many)
    torch.testing.assert_close(found, expected.expand(2, *inputs.shape))
    assert expected.std() > 1e-3


def test_rise_of_a_linear_network_is_its_expectation_within_chance():
    """All small grids and all places: of 2 cells in 4 positions there are 4 x 2 masks."""
    net, inputs = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 1))), images(1, 1, 4)
    masks = []
    for grid in ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)):
        whole = functional.interpolate(torch.tensor([[grid]]).double(), 6, mode="linear")[0, 0]
        masks += [whole[:4], whole[1:5]]
    masks = torch.stack(masks)
    torch.testing.assert_close(masks.mean(0), torch.full((4,), 0.5).double())
    terms = net(masks * inputs[0]).detach() * masks / 0.5
    exact, spread = terms.mean(0), terms.std(0, correction=0)
    found = attribute.rise(net, draws=4000, cells=2)(inputs, 0)[0, 0]
    error = (found - exact) / spread * 4000**0.5
    assert error.abs().max() < 4.5  # in standard errors
    assert spread.min() > 0.01


# full gradients ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["ResNet", "sleep staging", "3-D", "two scans", "DenseNet", "U-Net"]
)
def test_full_gradients_of_a_piecewise_linear_network_are_complete(name):
    case = CASES[name]
    net, inputs = made(case).double(), batch(case).double()
    seen = attribute.fullgrad(net, score=case.score).observe(inputs, ONE)
    torch.testing.assert_close(seen.gap, torch.zeros(3).double(), rtol=0, atol=1e-9)
    assert seen.total.abs().min() > 1e-3


class TokensFirst(nn.Module):
    """Works on (token, sample, feature): as many samples as tokens must not be mixed up."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 5), nn.Linear(5, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.second(self.first(inputs.transpose(0, 1)).relu()).mean(0)


@pytest.mark.parametrize("samples", [1, 2, 3, 4])
def test_full_gradients_where_samples_are_not_first(samples):
    net, inputs = seeded(TokensFirst), images(samples, 3, 4)
    seen = attribute.fullgrad(net).observe(inputs, 2)
    torch.testing.assert_close(seen.gap, torch.zeros(samples).double(), rtol=0, atol=1e-9)
    alone = [attribute.fullgrad(net)(one, 2) for one in inputs.split(1)]
    torch.testing.assert_close(seen.values, torch.cat(alone))


def test_each_biass_term_is_the_bias_times_its_gradient():
    """Of any network: of a transformer too, whose terms do not add up to the score."""
    net, inputs = models.small_vit().double(), models.inputs(models.small_vit(), 1).double()
    start = inputs.clone().requires_grad_()
    score = net(start)[0, 2]
    biases = [
        module.bias
        for name, module in net.named_modules()
        if getattr(module, "bias", None) is not None and not name.endswith("out_proj")
    ]
    slopes = torch.autograd.grad(score, [start, *biases])
    terms = [(a * b).sum() for a, b in zip([start, *biases], slopes, strict=True)]
    seen = attribute.fullgrad(net).observe(inputs, 2)
    torch.testing.assert_close(seen.gap[0], (sum(terms) - score).detach())
    assert seen.gap.abs() > 1e-2


def test_a_layer_norm_hides_what_is_below_it():
    net = seeded(lambda: nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5, eps=0.0), nn.Linear(5, 2)))
    net[0].bias.data.zero_()
    nn.init.normal_(net[1].bias)
    inputs = images(3, 6)
    seen = attribute.fullgrad(net).observe(inputs, 1)
    # only the biases from the norm on
    kept = net[2](net[1].bias)[1].detach()
    torch.testing.assert_close(seen.gap, (kept - net(inputs)[:, 1]).detach())


@pytest.mark.parametrize("rescale", ["tensor", "channel"])
@pytest.mark.parametrize("space", SPACES)
def test_full_gradients_by_a_loop(rescale, space):
    conv, extents = CONV[len(SPACES[space])], SPACES[space]
    size = 3 * math.prod((extent - 1) // 2 + 1 for extent in extents)

    def build():
        yield from (conv(2, 3, 3, stride=2, padding=1), nn.ReLU(), nn.GroupNorm(3, 3))
        yield from (nn.Flatten(), nn.Linear(size, 4))

    net, inputs = seeded(lambda: nn.Sequential(*build())), images(3, 2, *extents)
    nn.init.normal_(net[2].bias)
    found = attribute.fullgrad(net, rescale=rescale)(inputs, TARGET)
    for image, target, values in zip(inputs, TARGET, found, strict=True):
        start = image[None].clone().requires_grad_()
        convolved = net[0](start)
        normed = net[2](net[1](convolved))
        slopes = torch.autograd.grad(net[4](net[3](normed))[0, target], [start, convolved, normed])
        biases = [start.detach()] + [
            net[layer].bias.detach().reshape(1, 3, *(1,) * len(extents)) for layer in (0, 2)
        ]
        expected = torch.zeros(extents).double()
        for bias, slope in zip(biases, slopes, strict=True):
            term = (bias * slope).abs()[0]
            groups = [term] if rescale == "tensor" else [part[None] for part in term]
            scaled = torch.cat([(g - g.min()) / (g.max() - g.min()) for g in groups])
            mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(extents)]
            expected += functional.interpolate(scaled[None], extents, mode=mode)[0].sum(0)
        torch.testing.assert_close(values, expected.expand_as(image))


# transformers ------------------------------------------------------------------------------------


def attentions_of(net, inputs, target):
    """Attention probabilities and their gradients, as HuggingFace's own output gives them.

    Of the network's score, and of the scores of the means of every block's tokens.
    """
    output = net(inputs, output_attentions=True, output_hidden_states=True)
    score = output.logits.gather(1, target[:, None]).sum()
    slopes = torch.autograd.grad(score, output.attentions, retain_graph=True)
    own = []
    for tokens, attention in zip(output.hidden_states[1:], output.attentions, strict=True):
        logits = net.classifier(net.vit.layernorm(tokens.mean(1)))
        total = logits.gather(1, target[:, None]).sum()
        own += torch.autograd.grad(total, attention, retain_graph=True)
    return [a.detach() for a in output.attentions], slopes, own


def enlarged(tokens, grid, inputs):
    maps = tokens.reshape(len(tokens), 1, *grid)
    return functional.interpolate(maps, inputs.shape[2:], mode="bilinear").expand_as(inputs)


@pytest.mark.parametrize("name", ["ViT", "ViT, fused attention"])
def test_transformers_by_their_own_attentions(name):
    pytest.importorskip("transformers")
    inputs = batch(CASES["ViT"]).double()
    seen, slopes, own = attentions_of(made(CASES["ViT"]).double(), inputs, ONE)
    net = made(CASES[name]).double()
    for chosen in (None, [-1], [1, 0]):
        some = [own[number] for number in chosen or range(len(own))]
        positive = sum(slope.relu().mean((1, 2)) for slope in some) / len(some)
        expected = enlarged(positive[:, 1:], (4, 6), inputs)
        found = attribute.legrad(net, blocks=chosen)(inputs, ONE)
        torch.testing.assert_close(found, expected)
    one = torch.eye(25).double()
    weighted = [one + (a * g).relu().mean(1) for a, g in zip(seen, slopes, strict=True)]
    rolled = (weighted[1] @ weighted[0])[:, 0, 1:]
    found = attribute.attention_rollout(net)(inputs, ONE)
    torch.testing.assert_close(found, enlarged(rolled, (4, 6), inputs))
    plain = [(one + a.mean(1)) / 2 for a in seen]
    rolled = (plain[1] @ plain[0])[:, 0, 1:]
    found = attribute.attention_rollout(net, gradients=False)(inputs, ONE)
    torch.testing.assert_close(found, enlarged(rolled, (4, 6), inputs))


class Attending(nn.Module):
    """Tokens and what attention adds to them, of torch or the same written out."""

    def __init__(self, written_out: bool):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.written_out = written_out
        nn.init.normal_(self.attention.in_proj_bias)

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens + self.attend(tokens)

    def attend(self, tokens: Tensor) -> Tensor:
        own = self.attention
        if not self.written_out:
            return own(tokens, tokens, tokens)[0]
        parts = (tokens @ own.in_proj_weight.T + own.in_proj_bias).chunk(3, -1)
        query, key, value = (p.unflatten(-1, (2, 4)).transpose(1, 2) for p in parts)
        weights = torch.softmax(query @ key.mT / 2, -1)
        return own.out_proj((weights @ value).transpose(1, 2).flatten(2))


class Encoder(nn.Module):
    """Patches without a prefix, and a block."""

    def __init__(self, written_out: bool):
        super().__init__()
        self.patches, self.block = nn.Conv1d(2, 8, 3, stride=3), Attending(written_out)
        self.head = nn.Linear(8, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.block(self.patches(inputs).transpose(1, 2)).tanh().mean(1))


@pytest.mark.parametrize("method", ["legrad", "attention_rollout"])
def test_attention_of_torch_is_the_same_written_out(method):
    torchs, written = (seeded(partial(Encoder, flag)) for flag in (False, True))
    inputs = images(3, 2, 15)
    found, expected = (getattr(attribute, method)(net)(inputs, TARGET) for net in (torchs, written))
    torch.testing.assert_close(found, expected)
    assert found.std() > 0


class Block(nn.Module):
    """Attention and a small network, each added to the tokens; by the names torch-cam looks for."""

    def __init__(self, cross: bool = False):
        super().__init__()
        self.self_attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm, self.hidden, self.cross = nn.LayerNorm(8), nn.Linear(8, 8), cross

    def forward(self, tokens: Tensor) -> Tensor:
        normed = self.norm(tokens)
        keys = normed.roll(1, 1) if self.cross else normed
        tokens = tokens + self.self_attention(normed, keys, keys, need_weights=False)[0]
        added = functional.gelu(self.hidden(tokens))
        added += tokens
        return added


class Stack(nn.Module):
    """Tokens of prefix and pixels through blocks, which may be one and the same several times."""

    def __init__(self, prefix: int, *blocks: Block):
        super().__init__()
        self.patches, self.start = nn.Conv2d(3, 8, 1), nn.Parameter(torch.randn(1, prefix, 8))
        self.blocks, self.norm, self.head = nn.ModuleList(blocks), nn.LayerNorm(8), nn.Linear(8, 3)
        self.order = range(len(blocks))
        self.head.weight.data *= 1000  # beside which torch-cam's epsilon of 1e-8 is nothing

    def project(self, tokens: Tensor) -> Tensor:
        return self.head(self.norm(tokens.mean(1)))

    def forward(self, inputs: Tensor) -> Tensor:
        tokens = self.patches(inputs).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.start.expand(len(inputs), -1, -1), tokens], 1)
        for number in self.order:
            tokens = self.blocks[number](tokens)
        return self.project(tokens)


def legrad_by_hand(net: Stack, inputs: Tensor, target: Tensor, blocks, prefix: int) -> Tensor:
    tokens = net.patches(inputs).flatten(2).transpose(1, 2)
    tokens = torch.cat([net.start.expand(len(inputs), -1, -1), tokens], 1)
    maps = []
    for number in net.order:
        block, own = net.blocks[number], net.blocks[number].self_attention
        normed = block.norm(tokens)
        parts = functional.linear(normed, own.in_proj_weight, own.in_proj_bias).chunk(3, -1)
        query, key, value = (p.unflatten(-1, (2, 4)).transpose(1, 2) for p in parts)
        weights = (query @ key.mT / 2).softmax(-1)
        tokens = tokens + own.out_proj((weights @ value).transpose(1, 2).flatten(2))
        tokens = tokens + functional.gelu(block.hidden(tokens))
        score = net.project(tokens).gather(1, target[:, None]).sum()
        (slope,) = torch.autograd.grad(score, weights, retain_graph=True)
        maps.append(slope.relu().mean((1, 2))[:, prefix:])
    found = torch.stack([maps[number] for number in blocks]).mean(0)
    return found.reshape(len(inputs), *inputs.shape[2:])


# what torch-cam's own test of values has: one block of one sample, and two of two with two prefixes
ORACLES = [((2, 2), 1, [0], [1]), ((2, 3), 2, [0, 1], [0, 2])]


@pytest.mark.parametrize(("space", "prefix", "blocks", "targets"), ORACLES)
def test_legrad_has_the_values_of_the_definition_and_of_torchcam(space, prefix, blocks, targets):
    net = seeded(lambda: Stack(prefix, Block(), Block()))
    inputs, target = images(len(targets), 3, *space), torch.tensor(targets)
    legrad = attribute.legrad(net, blocks=blocks, grid=ifa.tokens(prefix, space))
    found = attribute.collapse(legrad, how="mean")(inputs, target)
    expected = legrad_by_hand(net, inputs, target, blocks, prefix)
    torch.testing.assert_close(found, expected)
    assert expected.std() > 1e-2
    methods = pytest.importorskip("torchcam.methods")
    with methods.LeGrad(
        net, [net.blocks[number] for number in blocks], score_projection=net.project,
        prefix_tokens=prefix, grid_shape=space,
    ) as extract:  # fmt: skip
        scores = net(inputs)
        (scaled,) = extract(targets, scores)
    low, high = (end(found, (1, 2), keepdim=True) for end in (torch.amin, torch.amax))
    torch.testing.assert_close((found - low) / (high - low), scaled, rtol=1e-6, atol=1e-6)


def test_legrad_of_one_block_that_runs_twice():
    net = seeded(lambda: Stack(1, Block()))
    net.order = [0, 0]
    inputs, target = images(3, 3, 2, 2), torch.tensor([2, 0, 1])
    for blocks in ([0, 1], [-1]):
        found = attribute.legrad(net, blocks=blocks)(inputs, target)
        expected = legrad_by_hand(net, inputs, target, blocks, 1)
        torch.testing.assert_close(found, expected[:, None].expand_as(inputs))


def test_attention_to_other_tokens_is_refused_by_name():
    """Cross-attention was taken for attention of every token to every token."""
    net, inputs = seeded(lambda: Stack(1, Block(cross=True))), images(1, 3, 2, 2)
    for method in (attribute.legrad, attribute.attention_rollout):
        with pytest.raises(ValueError, match=rf"^ifa.attribute.{method.__name__}: .*cross-attent"):
            method(net)(inputs, 1)


def test_blocks_that_are_none_are_refused_by_name():
    net, inputs = seeded(lambda: Stack(1, Block(), Block())), images(1, 3, 2, 2)
    for blocks in ([2], [0, 0], [0, -2], [-3]):
        with pytest.raises(ValueError, match=r"^ifa.attribute.legrad: .*blocks among 2, numbered"):
            attribute.legrad(net, blocks=blocks)(inputs, 1)
    for blocks in ([], ["blocks.0"]):
        with pytest.raises(TypeError, match=r"^ifa.attribute.legrad: expected blocks as their num"):
            attribute.legrad(net, blocks=blocks)

    class Bare(Encoder):
        def forward(self, inputs: Tensor) -> Tensor:
            tokens = self.patches(inputs).transpose(1, 2)
            return self.head((tokens + self.block.attend(tokens)).mean(1))

    bare, signals = seeded(lambda: Bare(False)), images(1, 2, 15)
    with pytest.raises(ValueError, match=r"^ifa.attribute.legrad: .*inside of a block.*got one in"):
        attribute.legrad(bare)(signals, 1)
    assert attribute.attention_rollout(bare)(signals, 1).std() > 0


def test_attention_seen_changes_no_output():
    net, inputs = models.small_vit(), models.inputs(models.small_vit())
    from ifa.attribute.attentions import observed

    seen, output, _ = observed(attribute.attention_rollout(net)._scorer, inputs)
    assert len(seen) == 2
    torch.testing.assert_close(output, net(inputs).detach())


def test_what_is_no_such_transformer_is_refused():
    pytest.importorskip("transformers")
    swin = CASES["Swin"]
    with pytest.raises(ValueError, match=r"ifa.attribute.legrad: .*token, token.*Swin"):
        attribute.legrad(made(swin))(batch(swin), ONE)
    with pytest.raises(ValueError, match=r"rollout: expected a transformer.*no attention ran"):
        attribute.attention_rollout(models.batch_norm())(models.inputs(models.batch_norm()))
    net = models.small_vit()
    with pytest.raises(ValueError, match="expected a grid of 7 tokens"):
        attribute.legrad(net, grid=ifa.tokens(1, (2, 2)))(models.inputs(net))


# transforms --------------------------------------------------------------------------------------


def itself(inputs: Tensor, target) -> Tensor:
    return inputs


def test_noise_is_a_part_of_each_samples_own_range():
    inputs = images(2, 2, 9) * torch.tensor([1.0, 100.0]).reshape(2, 1, 1)
    drawn = torch.stack([noise((2, 9), inputs, 4, draw) for draw in range(6)])[:, None]
    span = inputs.flatten(1)
    span = (span.amax(1) - span.amin(1)).reshape(2, 1, 1)
    noisy = inputs + 0.3 * span * drawn
    options = {"draws": 6, "stdev": 0.3, "seed": 4}
    for name, expected in {
        "smooth": noisy.mean(0),
        "squared": noisy.square().mean(0),
        "variance": noisy.var(0, correction=0),
    }.items():
        found = getattr(attribute, name)(itself, **options)(inputs, 0)
        torch.testing.assert_close(found, expected)


def test_noise_explains_the_prediction_without_it():
    net, inputs = smooth_network("1-D"), images(3, 2, 9)
    smooth = attribute.smooth(attribute.gradient(net), draws=4, stdev=3.0)
    assert torch.equal(smooth(inputs), smooth(inputs, net(inputs).argmax(1)))
    with pytest.raises(ValueError, match=r"ifa.attribute.smooth: expected a target.*itself"):
        attribute.smooth(itself)(inputs)


def test_collapse_and_split():
    values = torch.tensor([[[1.0, -4.0], [2.0, 3.0]]])
    assert attribute.collapse(itself)(values, 0).tolist() == [[2, 4]]
    assert attribute.collapse(itself, "sum")(values, 0).tolist() == [[3, -1]]
    assert attribute.collapse(itself, how="mean")(values, 0).tolist() == [[1.5, -0.5]]
    assert attribute.collapse(itself)(values[:, 0], 0).tolist() == [[1, 4]]
    assert attribute.collapse(itself, how="sum")(values[:, 0], 0).tolist() == [[1, -4]]
    positive, negative = attribute.split(itself)(values, 0)
    assert positive.tolist() == [[[1, 0], [2, 3]]]
    assert negative.tolist() == [[[0, -4], [0, 0]]]


def test_guided_grad_cam():
    net, inputs = models.batch_norm(), models.inputs(models.batch_norm(), 3)
    guided, explain = attribute.guided_backprop(net), partial(ifa.explain, net, layer="conv")
    both = attribute.times_map(guided, explain)
    for target in (TARGET, torch.stack([TARGET, 3 - TARGET]), None):
        expected = guided(inputs, target) * explain(inputs, target).unsqueeze(-3)
        torch.testing.assert_close(both(inputs, target), expected)
        flat = attribute.times_map(attribute.collapse(guided), explain)(inputs, target)
        torch.testing.assert_close(flat, expected.abs().amax(-3))
    small = attribute.times_map(guided, partial(explain, size=(3, 3)))
    with pytest.raises(ValueError, match=r"ifa.attribute.times_map: expected maps"):
        small(inputs)


# what all share ----------------------------------------------------------------------------------


def test_a_sample_that_is_no_number_spoils_only_itself():
    net, inputs = models.pooled_linear(1), models.inputs(models.pooled_linear(1), 3)
    spoilt = inputs.clone()
    spoilt[1, 0, 4] = math.nan
    for build in (
        attribute.gradient,
        attribute.guided_backprop,
        attribute.fullgrad,
        attribute.integrated_gradients,
        partial(attribute.guided_integrated_gradients, steps=3),
        partial(attribute.occlusion, window=3),
        partial(attribute.rise, draws=3, cells=2),
        lambda net: attribute.smooth(attribute.gradient(net), draws=2),
    ):
        before, after = build(net)(inputs, TARGET), build(net)(spoilt, TARGET)
        torch.testing.assert_close(after[[0, 2]], before[[0, 2]])
        assert after[1].isnan().all()


def test_autocast():
    net, inputs = made(CASES["3-D"]), batch(CASES["3-D"])
    for name in ("gradient", "guided_backprop", "fullgrad", "integrated_gradients"):
        attribution = getattr(attribute, name)(net)
        expected = attribution(inputs, ONE)
        with torch.autocast("cpu", torch.bfloat16):
            found = attribution(inputs, ONE)
        assert found.dtype == torch.float32
        # rectifiers near zero switch; the whole is alike
        pair = torch.stack([found.flatten(), expected.flatten()])
        assert torch.corrcoef(pair)[0, 1] > 0.95


def test_right_under_no_grad_and_refused_under_inference_mode():
    net, inputs = models.batch_norm(), models.inputs(models.batch_norm())
    expected = attribute.guided_backprop(net)(inputs)
    with torch.no_grad():
        assert torch.equal(attribute.guided_backprop(net)(inputs), expected)
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"ifa.attribute.gradient"):
        attribute.gradient(net)(inputs)


NET = nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
WRONG = {
    "a module": (lambda: attribute.gradient(len), r"gradient: expected a torch.nn.Module"),
    "a score": (lambda: attribute.gradient(NET, score=3), r"gradient: expected a score"),
    "a batch": (lambda: attribute.saliency(NET)(torch.ones(6)), r"saliency: expected a batch"),
    "real inputs": (
        lambda: attribute.gradient(NET)(torch.ones(1, 6, dtype=torch.int64)),
        r"gradient: expected inputs of a floating dtype",
    ),
    "a target": (lambda: attribute.gradient(NET)(torch.ones(1, 6), 3), r"targets in 0..2"),
    "steps": (lambda: attribute.integrated_gradients(NET, steps=0), r"expected steps to be"),
    "trapezoid": (
        lambda: attribute.integrated_gradients(NET, steps=1, rule="trapezoid"),
        r"integrated_gradients: expected steps of a trapezoid",
    ),
    "rule": (lambda: attribute.integrated_gradients(NET, rule="simpson"), r"expected rule to be"),
    "chunk": (lambda: attribute.integrated_gradients(NET, chunk=0), r"expected chunk to be"),
    "baselines": (lambda: attribute.integrated_gradients(NET, baseline=[]), r"at least one"),
    "a baseline": (
        lambda: attribute.integrated_gradients(NET, baseline="dark")(torch.ones(1, 6), 0),
        r"integrated_gradients: expected a baseline",
    ),
    "sigma": (lambda: attribute.blur_integrated_gradients(NET, sigma=0), r"expected sigma"),
    "fraction": (
        lambda: attribute.guided_integrated_gradients(NET, fraction=0),
        r"guided_integrated_gradients: expected fraction in",
    ),
    "draws": (lambda: attribute.gradient_shap(NET, draws=0), r"expected draws"),
    "no baseline": (
        lambda: attribute.gradient_shap(NET, baselines=torch.ones(0, 6)),
        r"at least one baseline",
    ),
    "window": (
        lambda: attribute.occlusion(NET, window=7)(torch.ones(1, 6), 0),
        r"occlusion: expected window to be .* at most \(6,\), got 7",
    ),
    "stride": (
        lambda: attribute.occlusion(NET, window=2, stride=3)(torch.ones(1, 6), 0),
        r"occlusion: expected stride to be .* at most \(2,\), got 3",
    ),
    "cells": (
        lambda: attribute.rise(NET)(torch.ones(1, 6), 0),
        r"rise: expected cells to be .* at most \(6,\), got 7",
    ),
    "a part of the cells": (lambda: attribute.rise(NET, fraction=0), r"rise: expected fraction to"),
    "masks": (lambda: attribute.rise(NET, draws=0), r"rise: expected draws"),
    "rescale": (lambda: attribute.fullgrad(NET, rescale="all"), r"expected rescale"),
    "grid": (lambda: attribute.legrad(NET, grid=(2, 3)), r"legrad: expected grid to be an"),
    "stdev": (lambda: attribute.smooth(itself, stdev=-1), r"smooth: expected stdev"),
    "how": (lambda: attribute.collapse(itself, how="max"), r"collapse: expected how"),
    "an attribution": (lambda: attribute.squared(3), r"squared: expected an attribution"),
    "a shape": (
        lambda: attribute.times_input(attribute.collapse(itself))(torch.ones(1, 2, 3), 0),
        r"times_input: expected an attribution shaped like the inputs",
    ),
    "a map": (lambda: attribute.times_map(itself, 3), r"times_map: expected explain"),
}


@pytest.mark.parametrize("case", WRONG)
def test_errors_name_what_was_expected(case):
    call, message = WRONG[case]
    with pytest.raises((ValueError, TypeError), match=message):
        call()
