"""Perturbations against references that are written as loops from the formulas, in float64."""

import itertools
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ifa
from ifa.noise import noise, repeated_noise
from ifa.testing import assert_leaves_model_untouched, assert_trees_close, models

SPACES = {"1-D": (13,), "square": (9, 9), "non-square": (8, 11), "3-D": (5, 7, 6)}
CLASSES, SAMPLES = 5, 3
TARGET = torch.tensor([2, 0, 4])
MANY = torch.tensor([[0, 1, 2], [4, 4, 1]])
CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def seeded(build):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return build().eval().double()


def network(space: str) -> nn.Sequential:
    """Make a network with 4 channels at layers "0", signed, and "1", with flat channels."""
    conv = CONV[len(SPACES[space])]
    pooled = int(np.prod([(extent - 3) // 2 + 1 for extent in SPACES[space]])) * 3

    def layers():
        yield from (conv(2, 4, 3, stride=2), nn.ReLU(), conv(4, 3, 3, padding=1), nn.Tanh())
        yield from (nn.Flatten(), nn.Linear(pooled, CLASSES))

    net = seeded(lambda: nn.Sequential(*layers()))
    with torch.no_grad():
        net[0].bias[1] = -100.0  # a dead channel: no contrast after the ReLU
        net[-1].weight *= 5
    return net


def images(space: str, samples: int = SAMPLES) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(samples, 2, *SPACES[space], generator=generator, dtype=torch.float64)


# --- the references: one sample, one target, loops ------------------------------------------------


def enlarge(values: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Interpolate linearly with aligned pixel centres, axis by axis, position by position."""
    for axis, extent in enumerate(size):
        old = values.shape[axis]
        rows = []
        for position in range(extent):
            place = min(max((position + 0.5) * old / extent - 0.5, 0), old - 1)
            low = int(place)
            high = min(low + 1, old - 1)
            part = place - low
            rows.append((1 - part) * values.take(low, axis) + part * values.take(high, axis))
        values = np.stack(rows, axis)
    return values


def layer_output(net, layer, image):
    with torch.no_grad():
        return net[: int(layer) + 1](image[None])[0]


def score_of(net, image, target, score):
    with torch.no_grad():
        return score(net(image[None])[0], target).item()


def softmax_of(values):
    powers = [np.exp(value - max(values)) for value in values]
    return [power / sum(powers) for power in powers]


def masked_reference(net, layer, image, target, *, score, softmax=True, top=None, alter):
    activations = layer_output(net, layer, image).numpy()
    size = tuple(image.shape[1:])
    clean = score_of(net, image, target, score)
    ranked = sorted(range(4), key=lambda k: (-activations[k].var(), k))[: top or 4]
    gains = {}
    for k in sorted(ranked):
        low, high = activations[k].min(), activations[k].max()
        mask = (activations[k] - low) / (high - low) if high > low else 0 * activations[k]
        variants = alter(torch.tensor(enlarge(mask, size)), k)
        gains[k] = np.mean([score_of(net, image * mask, target, score) for mask in variants])
        gains[k] -= clean
    found = softmax_of(list(gains.values())) if softmax else list(gains.values())
    weights = torch.zeros(4, dtype=torch.float64)
    for k, weight in zip(gains, found, strict=True):
        weights[k] = weight
    return weights


def scorecam(*args, **options):
    return masked_reference(*args, alter=lambda mask, k: [mask], **options)


def sscam(*args, draws=35, stdev=2.0, seed=0, **options):
    def alter(mask, k):
        each = repeated_noise(mask.shape, mask, seed, k, draws=range(draws))
        return [mask + stdev * one for one in each]

    return masked_reference(*args, alter=alter, **options)


def iscam(*args, draws=10, schedule="linear", **options):
    def alter(mask, k):
        strengths = {"linear": [], "paper": [], "torchcam": []}
        for i in range(1, draws + 1):
            strengths["linear"].append(i / draws)
            strengths["paper"].append(sum(j / draws for j in range(i)))
            strengths["torchcam"].append(sum(j / draws for j in range(i + 1)))
        return [strength * mask for strength in strengths[schedule]]

    return masked_reference(*args, alter=alter, **options)


def ablationcam(net, layer, image, target, *, score, normalize=True, baseline=0.0):
    activations = layer_output(net, layer, image)
    clean = score_of(net, image, target, score)
    weights = []
    for k in range(4):
        without = activations.clone()
        without[k] = activations[k].mean() if baseline == "mean" else baseline
        without_score = score_of(net[int(layer) + 1 :], without, target, score)
        weights.append((clean - without_score) / (abs(clean) if normalize else 1))
    return torch.tensor(weights, dtype=torch.float64)


def smooth(net, layer, image, target, *, score, draws=4, stdev=0.3, seed=0, numerator="second"):
    activations = layer_output(net, layer, image)
    gradients = []
    for i in range(draws):
        noisy = image + stdev * noise(image.shape, image, seed, i)
        inner = layer_output(net, layer, noisy).requires_grad_()
        value = score(net[int(layer) + 1 :](inner[None])[0], target)
        gradients.append(torch.autograd.grad(value, inner)[0])
    first, second, third = (sum(g**m for g in gradients) / draws for m in (1, 2, 3))
    weights = []
    for k in range(4):
        total = 0.0
        for place in np.ndindex(*activations.shape[1:]):
            d1, d2, d3 = (d[k][place].item() for d in (first, second, third))
            if d2 == 0:
                continue
            below = 2 * d2 + d3 * activations[k].sum().item()
            total += (d2 if numerator == "second" else d1) / below * max(0.0, d1)
        weights.append(total)
    return torch.tensor(weights, dtype=torch.float64)


def reciprocam(net, layer, image, target, *, score, gaussian=False):
    """Follow the authors' mosaics: one for each position, with its features at it and beside it."""
    activations, head = layer_output(net, layer, image), net[int(layer) + 1 :]
    nothing = score_of(head, 0 * activations, target, score)
    weights = torch.zeros_like(activations)
    for place in np.ndindex(*activations.shape[1:]):
        mosaic = torch.zeros_like(activations)
        for step in itertools.product((-1, 0, 1), repeat=len(place)):
            at = tuple(np.add(place, step))
            inside = all(0 <= p < n for p, n in zip(at, activations.shape[1:], strict=True))
            share = np.prod([0.25 if s else 0.5 for s in step]) if gaussian else not any(step)
            if inside:
                mosaic[(slice(None), *at)] = share * activations[(slice(None), *place)]
        here = activations[(slice(None), *place)]
        if here.any():
            gained = score_of(head, mosaic, target, score) - nothing
            weights[(slice(None), *place)] = gained * here / here.square().sum()
    return weights


def shapleycam(net, layer, image, target, *, score):
    """By the Hessian itself."""
    activations, head = layer_output(net, layer, image), net[int(layer) + 1 :]

    def y(flat):
        return score(head(flat.reshape(1, *activations.shape))[0], target)

    flat = activations.flatten()
    slope = torch.autograd.functional.jacobian(y, flat)
    bent = torch.autograd.functional.hessian(y, flat) @ flat
    return (slope - bent / 2).reshape(len(activations), -1).mean(1)


REFERENCES = {
    "ablationcam": ablationcam,
    "iscam": iscam,
    "reciprocam": reciprocam,
    "scorecam": scorecam,
    "shapleycam": shapleycam,
    "smooth_gradcam_plus_plus": smooth,
    "sscam": sscam,
}


def contrast(output: Tensor, target: Tensor) -> Tensor:
    return ifa.score.logit(output, target) - 0.5 * output.logsumexp(0)


# the options are few draws, for speed; the defaults are in the signatures
FEW = {"sscam": {"draws": 2}, "iscam": {"draws": 3}}
OPTIONS = [
    *((name, FEW.get(name, {})) for name in REFERENCES),
    *((name, {"score": contrast} | FEW.get(name, {})) for name in REFERENCES),
    ("scorecam", {"score": ifa.score.probability}),
    ("scorecam", {"softmax": False}),
    ("scorecam", {"top": 2}),
    ("scorecam", {"top": 2, "softmax": False}),
    ("sscam", {"draws": 3, "stdev": 0.2, "seed": 7, "softmax": False}),
    ("sscam", {"draws": 2, "top": 2, "softmax": False}),
    ("iscam", {"draws": 4, "schedule": "paper", "softmax": False}),
    ("iscam", {"draws": 4, "schedule": "torchcam", "softmax": False, "top": 3}),
    ("reciprocam", {"gaussian": True}),
    ("reciprocam", {"score": ifa.score.probability}),
    ("shapleycam", {"score": ifa.score.probability}),
    ("ablationcam", {"normalize": False}),
    ("ablationcam", {"baseline": "mean"}),
    ("smooth_gradcam_plus_plus", {"numerator": "first", "seed": 5}),
    ("smooth_gradcam_plus_plus", {"draws": 7, "stdev": 2.0}),
]


def label(value):
    if not isinstance(value, dict):
        return str(value)
    return "-".join(f"{k}={getattr(v, '__name__', v)}" for k, v in value.items()) or "defaults"


ALL = pytest.mark.parametrize("name", sorted(REFERENCES))
SPACE = pytest.mark.parametrize("space", list(SPACES))


def build(name, net, layer, example, **options):
    return getattr(ifa.perturb, name)(net, layer, example, **{**FEW.get(name, {}), **options})


def test_every_perturbation_has_a_reference():
    assert sorted(REFERENCES) == ifa.perturb.__all__


@SPACE
@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=label)
def test_weights_are_those_of_the_formula(name, options, space):
    """A batch with different targets, and a layer with signed and one with flat channels."""
    net, inputs = network(space), images(space)
    reference = partial(REFERENCES[name], score=ifa.score.logit)
    for layer in ("0", "1"):
        found = getattr(ifa.perturb, name)(net, layer, inputs, **options)(inputs, TARGET)
        expected = torch.stack(
            [reference(net, layer, *pair, **options) for pair in zip(inputs, TARGET, strict=True)]
        )
        activations = torch.stack([layer_output(net, layer, image) for image in inputs])
        assert_trees_close(
            found, ifa.Weighted(expected, activations, TARGET), rtol=1e-8, atol=1e-10
        )
        assert expected.abs().amax() > 1e-4


@SPACE
@ALL
def test_many_targets_share_a_pass_and_equal_single_ones(name, space):
    net, inputs = network(space), images(space)
    explain = build(name, net, "1", inputs)
    found = explain(inputs, MANY)
    single = [explain(inputs, target) for target in MANY]
    expected = ifa.Weighted(*(torch.stack(part) for part in zip(*single, strict=True)))
    assert_trees_close(found, expected, rtol=1e-12, atol=1e-12)
    assert found.activations.stride(0) == 0  # a view
    maps = ifa.batched(ifa.chain(ifa.combine, ifa.relu, ifa.resize(SPACES[space])))(found)
    assert maps.values.shape == (2, SAMPLES, *SPACES[space])


@SPACE
@ALL
def test_groups_of_channels(name, space):
    net, inputs = network(space), images(space)
    weighted = build(name, net, "1", inputs)(inputs, MANY)
    maps = ifa.batched(ifa.combine_blocks(2))(weighted).values
    spatial = weighted.weights.ndim == weighted.activations.ndim
    spread = weighted.weights
    spread = spread if spatial else spread.reshape(*spread.shape, *(1,) * len(SPACES[space]))
    product = spread * weighted.activations
    expected = torch.stack([product[:, :, :2].sum(2), product[:, :, 2:].sum(2)], 2)
    torch.testing.assert_close(maps, expected)


@SPACE
@ALL
def test_two_layers(name, space):
    net, inputs = network(space), images(space)
    found = build(name, net, ("1", "0"), inputs)(inputs, TARGET)
    expected = tuple(build(name, net, layer, inputs)(inputs, TARGET) for layer in ("1", "0"))
    assert_trees_close(found, expected, rtol=0, atol=0)


@SPACE
@ALL
def test_a_batch_is_the_stack_of_its_singles(name, space):
    net, inputs = network(space), images(space)
    explain = build(name, net, "1", inputs)
    order = torch.tensor([2, 0, 1, 2])
    whole = explain(inputs[order], TARGET[order])
    parts = [explain(inputs[i : i + 1], TARGET[i : i + 1]) for i in order]
    expected = ifa.Weighted(*(torch.cat(part) for part in zip(*parts, strict=True)))
    assert_trees_close(whole, expected, rtol=1e-10, atol=1e-12)


@ALL
@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_the_chunk_changes_nothing(name, chunk):
    net, inputs = network("non-square"), images("non-square")
    expected = build(name, net, "1", inputs, chunk=5)(inputs, TARGET).weights
    found = build(name, net, "1", inputs, chunk=chunk)(inputs, TARGET).weights
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


class Counting(nn.Sequential):
    """Notes how many inputs run at once."""

    sizes: list[int] = []  # noqa: RUF012

    def forward(self, inputs):
        Counting.sizes.append(len(inputs))
        return super().forward(inputs)


@pytest.mark.parametrize("name", sorted(set(REFERENCES) - {"ablationcam", "reciprocam"}))
def test_the_chunk_bounds_how_many_inputs_run_at_once(name):
    net, inputs = Counting(*network("non-square")), images("non-square")
    explain = build(name, net, "1", inputs[:1], chunk=2)
    Counting.sizes.clear()
    explain(inputs, TARGET)
    assert max(Counting.sizes) == 2


@pytest.mark.parametrize("chunk", [3, 6, 7, 24, 1000])
def test_samples_and_variants_fill_the_chunk_together(chunk):
    """They went sample by sample: of 3 samples of 4 channels no forward had more than 4."""
    net, inputs = Counting(*network("non-square")), images("non-square")
    explain = build("scorecam", net, "1", inputs[:1], chunk=chunk)
    Counting.sizes.clear()
    explain(inputs, TARGET)
    at_once = min(4, chunk // SAMPLES)  # channels of all three
    last = SAMPLES * (4 % at_once or at_once)
    masked = Counting.sizes[-(4 // at_once + (4 % at_once > 0)) :]
    assert sum(masked) == SAMPLES * 4
    assert masked[0] == SAMPLES * at_once
    assert masked[-1] == last


@ALL
def test_the_prediction_is_explained_by_default(name):
    net, inputs = network("non-square"), images("non-square")
    explain = build(name, net, "1", inputs)
    predicted = net(inputs).argmax(1)
    assert len(predicted.unique()) > 1
    assert_trees_close(explain(inputs), explain(inputs, predicted))
    assert_trees_close(explain(inputs, 3), explain(inputs, torch.full((SAMPLES,), 3)))


@pytest.mark.parametrize("name", ["sscam", "smooth_gradcam_plus_plus"])
def test_the_seed_is_all_there_is_to_the_noise(name):
    net, inputs = network("non-square"), images("non-square")
    first = build(name, net, "1", inputs, seed=1)(inputs, TARGET)
    torch.rand(3)
    assert_trees_close(build(name, net, "1", inputs, seed=1)(inputs, TARGET), first, rtol=0, atol=0)
    other = build(name, net, "1", inputs, seed=2)(inputs, TARGET)
    assert (other.weights - first.weights).abs().amax() > 1e-4


def test_noise_is_normal_and_differs_by_place():
    like = torch.zeros(())
    drawn = torch.stack([noise((50, 40), like, 0, k, i) for k in range(3) for i in range(3)])
    assert abs(drawn.mean()) < 0.03
    assert abs(drawn.std() - 1) < 0.03
    correlation = torch.corrcoef(drawn.flatten(1)) - torch.eye(9)
    assert correlation.abs().amax() < 0.1


@ALL
def test_the_model_and_the_random_state_are_left_alone(name):
    net, inputs = network("non-square"), images("non-square")
    before = inputs.clone()
    with assert_leaves_model_untouched(net):
        found = build(name, net, "1", inputs)(inputs, TARGET)
    assert torch.equal(inputs, before)
    assert not any(part.requires_grad for part in found)


DIFFERENTIATING = {"shapleycam", "smooth_gradcam_plus_plus"}


@pytest.mark.parametrize("name", sorted(set(REFERENCES) - DIFFERENTIATING))
def test_no_gradient_is_computed_where_none_is_needed(name):
    class NoGradient(nn.Module):
        def forward(self, inputs):
            assert not torch.is_grad_enabled()
            return inputs * 1

    net, inputs = network("non-square"), images("non-square")
    net.append(NoGradient())
    build(name, net, "1", inputs)(inputs.requires_grad_(), TARGET)


@SPACE
@pytest.mark.parametrize("baseline", [0.0, "mean"])
def test_ablation_is_known_in_closed_form_under_pooling_and_a_linear_layer(space, baseline):
    model = models.pooled_linear(len(SPACES[space])).double()
    inputs = models.inputs(model, SAMPLES)
    every = torch.arange(4)[:, None].expand(-1, SAMPLES)
    found = ifa.perturb.ablationcam(model, "relu2", inputs, baseline=baseline)(inputs, every)
    pooled = found.activations[0].flatten(2).mean(2)
    expected = model.linear.weight[:, None] * pooled / model(inputs).T.abs()[..., None]
    expected = expected if baseline == 0.0 else torch.zeros_like(expected)
    torch.testing.assert_close(found.weights, expected, rtol=1e-10, atol=1e-10)


@SPACE
def test_under_pooling_and_a_linear_layer_one_position_alone_is_grad_cam(space):
    model = models.pooled_linear(len(SPACES[space])).double()
    inputs = models.inputs(model, SAMPLES)
    every = torch.arange(4)[:, None].expand(-1, SAMPLES)
    features = ifa.tap(model, "relu2", inputs)(inputs, every)
    gradcam = ifa.batched(ifa.weigh(ifa.weight.gradcam))(features)
    maps = ifa.batched(ifa.combine)
    alone = ifa.perturb.reciprocam(model, "relu2", inputs)(inputs, every)
    torch.testing.assert_close(maps(alone).values, maps(gradcam).values)
    # what is spread inside of the grid has the same mean
    spread = ifa.perturb.reciprocam(model, "relu2", inputs, gaussian=True)(inputs, every)
    inner = (..., *(slice(1, -1),) * len(SPACES[space]))
    torch.testing.assert_close(maps(spread).values[inner], maps(gradcam).values[inner])
    bent = ifa.perturb.shapleycam(model, "relu2", inputs)(inputs, every)
    torch.testing.assert_close(bent.weights, gradcam.weights)


def test_of_a_quadratic_score_the_second_order_is_all_there_is():
    """Values of Shapley in closed form: over all subsets of four activations."""

    class Quadratic(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Identity()
            self.bent, self.straight = nn.Bilinear(4, 4, 2), nn.Linear(4, 2)

        def forward(self, inputs):
            inner = self.first(inputs)
            return self.bent(inner, inner) + self.straight(inner)

    net, inputs = seeded(Quadratic), torch.linspace(-1, 2, 8).double().reshape(2, 4)
    found = ifa.perturb.shapleycam(net, "first", inputs)(inputs, 1)
    values = torch.zeros(2, 4).double()
    with torch.no_grad():
        for order in itertools.permutations(range(4)):
            kept, before = torch.zeros_like(inputs), net(torch.zeros_like(inputs))[:, 1]
            for place in order:
                kept[:, place] = inputs[:, place]
                after = net(kept)[:, 1]
                values[:, place] += (after - before) / 24
                before = after
        whole = net(inputs)[:, 1] - net(torch.zeros_like(inputs))[:, 1]
    torch.testing.assert_close(found.weights * found.activations, values)
    torch.testing.assert_close(values.sum(1), whole)


def test_a_bend_of_fused_attention_is_seen():
    """It has a first derivative only; written out it has all."""
    model = models.small_vit().double()
    inputs, grid = models.inputs(model), ifa.tokens(prefix=1, grid=(2, 3))
    found = ifa.perturb.shapleycam(model, "blocks.0", inputs, grid=grid)(inputs, 1).weights
    raw, head = ifa.cut(model, "blocks.0", inputs)(inputs)
    raw.requires_grad_()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        (slope,) = torch.autograd.grad(head(raw)[:, 1].sum(), raw, create_graph=True)
        (bent,) = torch.autograd.grad(slope, raw, raw)
    expected = (slope - bent / 2)[:, 1:].mean(1)
    torch.testing.assert_close(found, expected)
    plain = ifa.tap(model, "blocks.0", inputs, grid=grid)(inputs, 1).gradients.flatten(2).mean(2)
    assert (found - plain).abs().amax() > 0.1 * plain.abs().amax()


@pytest.mark.parametrize("detached", [True, False])
def test_a_score_without_first_or_second_derivative_is_named(detached):
    class Head(nn.Module):
        def forward(self, inputs):
            inner = inputs.detach() if detached else inputs
            return torch.cdist(inner, inner.flip(1)).mean(2)

    net, inputs = nn.Sequential(nn.Conv1d(1, 3, 3), Head()).eval(), torch.rand(2, 1, 9)
    message = "score that depends on layer '0'" if detached else "second derivatives above layer"
    with pytest.raises(ValueError, match=f"^ifa.perturb.shapleycam: .*{message}"):
        ifa.perturb.shapleycam(net, "0", inputs)
    (why,) = ifa.contest.usable(net, "0", inputs, weightings={"s": ifa.perturb.shapleycam}).left_out
    assert "s is left out" in why


def test_a_negative_score_turns_no_sign():
    """D4-7: divided by the score itself, evidence for a class below zero would count against it."""
    net = nn.Sequential(nn.Identity(), nn.Linear(2, 1))
    nn.init.constant_(net[1].weight, 1.0)
    nn.init.constant_(net[1].bias, -10.0)
    weights = ifa.perturb.ablationcam(net, "0", torch.ones(1, 2))(torch.ones(1, 2)).weights
    torch.testing.assert_close(weights, torch.full((1, 2), 1 / 8))


@SPACE
def test_without_noise_the_smoothed_method_is_the_plain_one(space):
    net, inputs = network(space), images(space)
    found = ifa.perturb.smooth_gradcam_plus_plus(net, "1", inputs, stdev=0.0)(inputs, MANY)
    features = ifa.tap(net, "1", inputs)(inputs, MANY)
    plain = ifa.batched(ifa.weigh(ifa.weight.gradcam_plus_plus))(features)
    torch.testing.assert_close(found.weights, plain.weights)


@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e15])
def test_smoothing_holds_for_gradients_of_any_size(scale):
    net, inputs = network("non-square").float(), images("non-square").float()
    explain = ifa.perturb.smooth_gradcam_plus_plus

    def weights(factor):
        def score(output, target):
            return factor * ifa.score.logit(output, target)

        return explain(net, "1", inputs, score=score)(inputs, TARGET).weights

    found = weights(scale)
    assert found.isfinite().all()
    assert (found > 0).any()
    if scale < 1:  # 2 + G ΣA is 2 there
        features = [ifa.tap(net, "1", inputs)(inputs + 0.3 * noise_of(i), TARGET) for i in range(4)]
        mean = sum(part.gradients for part in features) / 4
        expected = scale * mean.relu().flatten(2).sum(2) / 2
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)


def noise_of(draw):
    return noise((2, *SPACES["non-square"]), torch.zeros(()), 0, draw)


@ALL
def test_a_flat_layer_gives_finite_weights(name):
    """D0-10: a channel without contrast has the mask 0, not 0/0."""
    net, inputs = network("non-square"), images("non-square")
    with torch.no_grad():
        net[0].bias.fill_(-100.0)
    weights = build(name, net, "1", inputs)(inputs, TARGET).weights
    assert weights.isfinite().all()
    if name in ("scorecam", "iscam"):  # every mask is the same
        torch.testing.assert_close(weights, torch.full_like(weights, 0.25))
        top = build(name, net, "1", inputs, top=1)(inputs, TARGET).weights
        assert top.tolist() == [[1, 0, 0, 0]] * SAMPLES  # ties to the lower channel


# --- networks of other kinds ----------------------------------------------------------------------


@ALL
def test_tokens_are_laid_out_on_their_grid(name):
    model = models.small_vit()
    inputs, grid = models.inputs(model), ifa.tokens(prefix=1, grid=(2, 3))
    weighted = build(name, model, "blocks.0", inputs, grid=grid)(inputs)
    assert weighted.weights.shape[:2] == (2, 8)
    assert weighted.activations.shape == (2, 8, 2, 3)
    assert weighted.weights.isfinite().all()


def test_ablation_leaves_tokens_that_the_grid_leaves_out():
    model = models.small_vit().double()
    inputs = models.inputs(model)
    explain = ifa.perturb.ablationcam(
        model, "blocks.0", inputs, grid=ifa.tokens(1, (2, 3)), normalize=False
    )
    found = explain(inputs, 1).weights
    with torch.no_grad():
        raw, head = ifa.cut(model, "blocks.0", inputs)(inputs)
        for k in range(8):
            without = raw.clone()
            without[:, 1:, k] = 0
            expected = (head(raw) - head(without))[:, 1]
            torch.testing.assert_close(found[:, k], expected)


@ALL
def test_recurrent_layers_that_vmap_does_not_know(name):
    model = models.recurrent().double()
    inputs = models.inputs(model)
    explain = build(name, model, "conv", inputs)
    assert explain(inputs).weights.isfinite().all()
    if name == "ablationcam":
        assert "one ablation at a time" in repr(explain)
        with torch.no_grad():
            raw, head = ifa.cut(model, "conv", inputs)(inputs)
            without = raw.clone()
            without[:, 2] = 0
            expected = (head(raw) - head(without))[:, 1] / head(raw)[:, 1].abs()
        torch.testing.assert_close(explain(inputs, 1).weights[:, 2], expected)


@ALL
@pytest.mark.parametrize(
    ("build_model", "layer", "output"),
    [
        (models.inplace, "conv1", None),
        (models.batch_norm, "norm", None),
        (models.reused_layer, "relu#2", None),
        (models.tuple_output, "conv", 1),
        (models.dict_output, "body.conv", "logits"),
        (models.regression, "conv", None),
    ],
)
def test_many_kinds_of_networks(name, build_model, layer, output):
    model = build_model()
    inputs = models.inputs(model)
    with assert_leaves_model_untouched(model):
        weighted = build(name, model, layer, inputs, output=output)(inputs)
    assert weighted.weights.isfinite().all()
    assert weighted.weights.abs().amax() > 0


@ALL
def test_an_input_without_a_channel_axis(name):
    class Signal(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.linear = nn.Conv1d(1, 3, 3), nn.Linear(3, 2)

        def forward(self, inputs):
            return self.linear(self.conv(inputs[:, None]).relu().mean(2))

    inputs = torch.linspace(-1, 1, 18).reshape(2, 9)
    net = seeded(Signal).float()
    assert build(name, net, "conv", inputs)(inputs, 1).weights.shape[:2] == (2, 3)


# --- options and errors ---------------------------------------------------------------------------


@ALL
def test_progress_counts_to_the_total(name):
    net, inputs = network("non-square"), images("non-square")
    seen: list[tuple[int, int]] = []
    explain = build(
        name, net, "1", inputs, chunk=3, progress=lambda done, total: seen.append((done, total))
    )
    explain(inputs, TARGET)
    # 4 channels, or 4 noisy inputs
    total = SAMPLES * {"reciprocam": 3 * 5, "shapleycam": 1}.get(name, 4)
    assert seen[-1] == (total, total)
    assert all(a <= b for (a, _), (b, _) in itertools.pairwise(seen))


@ALL
def test_the_description_names_the_options(name):
    net, inputs = network("non-square"), images("non-square")
    text = repr(build(name, net, "1", inputs, chunk=7))
    assert text.startswith(f"{name}(Sequential, '1', score=logit, chunk=7")
    assert text.endswith("chunk=7)") == (name == "shapleycam")  # which has no other


@ALL
def test_it_pickles(name):
    net, inputs = network("1-D"), images("1-D")
    explain = build(name, net, "1", inputs)
    again = pickle.loads(pickle.dumps(explain))
    assert repr(again) == repr(explain)
    assert_trees_close(again(inputs, MANY), explain(inputs, MANY), rtol=0, atol=0)


REFUSED = [
    ("scorecam", {"chunk": 0}, ValueError, "chunk to be a whole number, at least 1, got 0"),
    ("scorecam", {"top": 5}, ValueError, "top .* at most 4, the layer's channels, got 5"),
    ("scorecam", {"score": "logit"}, TypeError, "a score .* got 'logit'"),
    ("scorecam", {"score": lambda o, t: o}, ValueError, r"got shape \(5,\) for each example"),
    ("scorecam", {"layer": "9"}, LookupError, "can be tapped, got '9'"),
    ("scorecam", {"layer": ()}, ValueError, "distinct layers"),
    ("scorecam", {"layer": "4"}, ValueError, r"Choose a layer with a grid"),
    ("reciprocam", {"layer": "4"}, ValueError, "45 channels and no space. Choose a layer with"),
    ("sscam", {"draws": 0}, ValueError, "draws to be a whole number"),
    ("sscam", {"stdev": -1.0}, ValueError, "stdev to be finite and not negative, got -1.0"),
    ("sscam", {"seed": -1}, ValueError, "seed to be a whole number"),
    ("iscam", {"draws": 1.5}, ValueError, "draws to be a whole number"),
    ("iscam", {"schedule": "cubic"}, ValueError, "schedule to be one of 'linear', .*'cubic'"),
    ("ablationcam", {"baseline": "nan"}, ValueError, "baseline to be one of 'mean', got 'nan'"),
    ("smooth_gradcam_plus_plus", {"numerator": 3}, ValueError, "numerator to be one of"),
]


@pytest.mark.parametrize(("name", "options", "kind", "message"), REFUSED)
def test_what_is_wrong_is_refused_by_name(name, options, kind, message):
    net, inputs = network("non-square"), images("non-square")
    options = {"layer": "1", **options}
    where = "ifa.perturb" if options["layer"] == () else f"ifa.perturb.{name}:"
    with pytest.raises(kind, match=f"^(.{{0,2}}){where}.*{message}"):
        getattr(ifa.perturb, name)(net, options.pop("layer"), inputs, **options)(inputs, TARGET)


@ALL
@pytest.mark.parametrize(
    ("inputs", "target", "kind", "message"),
    [
        (slice(0, 0), None, ValueError, r"expected inputs \(sample, 2, 8, 11\) like the example"),
        (slice(None), 5, ValueError, r"targets in 0..4, the model's 5 outputs, got 5"),
        (slice(None), -1, ValueError, "got -1"),
        (slice(None), [0, 1], ValueError, r"an int, \(3,\) or \(target, 3\) for 3 inputs"),
        (slice(None), 0.5, TypeError, "expected integer targets, got torch.float32"),
    ],
)
def test_inputs_and_targets_are_checked(name, inputs, target, kind, message):
    net, batch = network("non-square"), images("non-square")
    with pytest.raises(kind, match=f"^ifa.perturb.{name}: .*{message}"):
        build(name, net, "1", batch)(batch[inputs], target)


def test_token_ids_cannot_be_masked():
    net = nn.Sequential(nn.Embedding(7, 3), nn.Flatten(), nn.Linear(12, 2))
    ids = torch.tensor([[1, 2, 3, 4]])
    for name in REFERENCES:
        if name in ("ablationcam", "reciprocam", "shapleycam"):
            grid = ifa.channels_last()
            weighted = getattr(ifa.perturb, name)(net, "0", ids, grid=grid)(ids, 0)
            assert weighted.weights.shape[:2] == (1, 3)
        else:
            with pytest.raises(TypeError, match=f"ifa.perturb.{name}: .*floating dtype"):
                build(name, net, "0", ids)


def test_a_model_that_drops_the_axis_of_one_sample_is_refused():
    class Dropping(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(1, 3, 3)

        def forward(self, inputs):
            return self.conv(inputs).mean(2).squeeze()

    inputs = torch.zeros(2, 1, 9)
    explain = ifa.perturb.scorecam(Dropping().eval(), "conv", inputs)
    assert explain(inputs, 1).weights.isfinite().all()
    with pytest.raises(ValueError, match=r"one row for each of 1 inputs, got .*squeeze a dim"):
        explain(inputs[:1], 1)


def test_inference_mode_is_refused():
    net, inputs = network("non-square"), images("non-square")
    explain = ifa.perturb.scorecam(net, "1", inputs)
    with (
        torch.inference_mode(),
        pytest.raises(RuntimeError, match=r"ifa.perturb.scorecam: refused"),
    ):
        explain(inputs, TARGET)


# --- other libraries ------------------------------------------------------------------------------

PEER = pytest.mark.filterwarnings("ignore::DeprecationWarning:(torchcam|torch).*")


def theirs(name, net, inputs, **options):
    methods = pytest.importorskip("torchcam.methods")
    with getattr(methods, name)(
        net, "2", input_shape=tuple(inputs.shape[1:]), **options
    ) as extract:
        scores = net(inputs)
        (maps,) = extract(TARGET.tolist(), scores, normalized=False)
    return maps


def ours(name, net, inputs, **options):
    weighted = getattr(ifa.perturb, name)(net, "2", inputs, **options)(inputs, TARGET)
    return ifa.batched(ifa.chain(ifa.combine, ifa.relu))(weighted).values


@PEER
@pytest.mark.parametrize(
    ("name", "options", "peer", "their_options"),
    [
        ("scorecam", {}, "ScoreCAM", {}),
        # their distribution refuses a deviation of zero
        ("sscam", {"draws": 2, "stdev": 0.0}, "SSCAM", {"num_samples": 2, "std": 1e-9}),
        ("iscam", {"draws": 3, "schedule": "torchcam"}, "ISCAM", {"num_samples": 3}),
    ],
)
def test_torchcam_agrees(name, options, peer, their_options):
    net, inputs = network("non-square"), images("non-square")
    found = ours(name, net, inputs, **options)
    torch.testing.assert_close(found, theirs(peer, net, inputs, **their_options))
    assert found.amax() > 0


@PEER
def test_torchcam_smooths_alike_within_chance():
    net, inputs = network("non-square"), images("non-square", 3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        expected = theirs("SSCAM", net, inputs, num_samples=300, std=0.3)
    found = ours("sscam", net, inputs, draws=300, stdev=0.3, chunk=100)
    torch.testing.assert_close(found, expected, rtol=0.1, atol=0.02)


@PEER
def test_torchcam_draws_from_the_global_random_state():
    """D1-13. Ours is left alone in every test of the model's purity above."""
    net, inputs = network("non-square"), images("non-square")
    with torch.random.fork_rng():
        before = torch.get_rng_state()
        theirs("SSCAM", net, inputs, num_samples=1)
        assert not torch.equal(torch.get_rng_state(), before)


@PEER
def test_torchcam_does_not_follow_the_printed_schedule():
    """D1-3: its strengths are i(i + 1)/2N, where the paper prints i(i − 1)/2N."""
    net, inputs = network("non-square"), images("non-square")
    expected = theirs("ISCAM", net, inputs, num_samples=3)
    found = ours("iscam", net, inputs, draws=3, schedule="paper")
    assert (found - expected).abs().amax() > 1e-3


@PEER
def test_torchcam_has_no_masks_in_one_dimension():
    """D1-5: nearest interpolation with aligned corners, which torch refuses."""
    net, inputs = network("1-D"), images("1-D")
    with pytest.raises(ValueError, match="align_corners"):
        theirs("ScoreCAM", net, inputs)


@PEER
@pytest.mark.filterwarnings("ignore:.*non-full backward hook:FutureWarning")
def test_torchcam_smooth_grad_cam_weighs_noisy_activations():
    """D1-2: equal without noise, where gradients are constant over space; with it they differ."""
    model = models.pooled_linear().double()
    with torch.no_grad():
        model.linear.weight *= 1000  # their epsilon of 1e-8 is large beside squares of gradients
    inputs = models.inputs(model, SAMPLES)
    methods = pytest.importorskip("torchcam.methods")
    targets = torch.tensor([2, 0, 3])

    def peer(stdev):
        with methods.SmoothGradCAMpp(
            model, "relu2", std=stdev, input_shape=model.input_shape
        ) as extract:
            scores = model(inputs)
            return extract(targets.tolist(), scores, normalized=False)[0]

    def own(stdev):
        explain = ifa.perturb.smooth_gradcam_plus_plus(model, "relu2", inputs, stdev=stdev)
        step = ifa.batched(ifa.chain(ifa.combine, ifa.relu))
        return step(explain(inputs, targets)).values

    with torch.random.fork_rng():
        torch.testing.assert_close(own(0.0), peer(1e-9), rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(own(1.0), own(0.0))  # above, the network is linear
        assert (own(1.0) - peer(1.0)).abs().amax() > 0.01 * own(1.0).abs().amax()
