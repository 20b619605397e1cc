"""Metrics against scipy and against a forward pass written by hand."""

import numpy as np
import pytest
import torch
from scipy import stats

import ifa
from ifa import evaluate
from ifa.evaluate import consistency, correlation_interval, feature_perturbation


def pairs(shape, seed=0):
    random = torch.Generator().manual_seed(seed)
    level = torch.randn(*shape, generator=random, dtype=torch.float64)
    return level, (level + 2 * torch.randn(*shape, generator=random)).round(decimals=1)


@pytest.mark.parametrize("shape", [(2,), (31,), (3, 17), (2, 3, 9), (1, 200)])
def test_consistency_equals_scipy(shape):
    level, score = pairs(shape)
    found = consistency(level, score)
    for name, oracle in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr)):
        flat = zip(level.reshape(-1, shape[-1]), score.reshape(-1, shape[-1]), strict=True)
        want = np.array([oracle(a, b).statistic for a, b in flat]).reshape(shape[:-1])
        value = getattr(found, name)
        assert value.dtype == torch.float64
        np.testing.assert_allclose(value, want, rtol=1e-10)


def test_ties_share_their_rank():
    level, score = torch.tensor([1.0, 1, 2, 3, 3, 3]), torch.tensor([0.0, 5, 5, 5, 7, 1])
    want = stats.spearmanr(level, score).statistic
    np.testing.assert_allclose(consistency(level, score).spearman, want, rtol=1e-12)


@pytest.mark.parametrize("constant", [0.0, 1.1, 1e8])
def test_what_is_constant_correlates_with_nothing(constant):
    """Also where the mean of equal numbers is not that number in floating point."""
    level, score = pairs((3, 7))
    level[1] = constant
    for found in (*consistency(level, score), *consistency(score, level)):
        assert found.isnan().tolist() == [False, True, False]


def test_consistency_does_not_depend_on_unit_and_zero():
    level, score = pairs((40,))
    moved = consistency(1e6 + 3 * level.float(), -2 * score.float())
    # float32 at 1e6 keeps one digit of the level
    torch.testing.assert_close(moved.pearson, -consistency(level, score).pearson, atol=0.02, rtol=0)


def test_a_perfect_correlation_is_not_above_one():
    level, _ = pairs((1000,))
    assert consistency(level, 3 * level + 1).pearson <= 1
    assert consistency(level, -3 * level + 1).pearson >= -1


@pytest.mark.parametrize("shapes", [((3,), (4,)), ((), ()), ((1,), (1,)), ((2, 3), (3,))], ids=str)
def test_wrong_shapes_are_refused(shapes):
    with pytest.raises(
        ValueError, match=r"ifa\.evaluate\.consistency: expected level and score of"
    ):
        consistency(*(torch.zeros(shape) for shape in shapes))


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
@pytest.mark.parametrize("samples", [4, 25, 900])
def test_the_interval_equals_scipy(samples, confidence):
    level, score = pairs((samples,), seed=samples)
    oracle = stats.pearsonr(level.numpy(), score.numpy())
    want = oracle.confidence_interval(confidence)
    found = correlation_interval(float(oracle.statistic), samples, level=confidence)
    np.testing.assert_allclose(found, want, rtol=1e-9)
    assert found[0] < oracle.statistic < found[1]


@pytest.mark.parametrize("r", [-1.0, 1.0])
def test_the_interval_of_a_perfect_correlation_is_a_point(r):
    assert correlation_interval(r, 10) == (r, r)


def test_too_few_samples_have_no_interval():
    with pytest.raises(ValueError, match=r"ifa\.evaluate\.correlation_interval: expected at least"):
        correlation_interval(0.5, 3)


# Only some channels of a layer


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(2, 5, 3)
        self.head = torch.nn.Linear(5, 3)

    def above(self, features):
        return self.head(features.relu().mean((2, 3)).tanh())

    def forward(self, inputs):
        return self.above(self.conv(inputs))


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Net().eval()


@pytest.fixture(scope="module")
def inputs():
    return torch.randn(6, 2, 7, 9, generator=torch.Generator().manual_seed(1))


MASK = torch.tensor([True, False, True, True, False])
ROWS = torch.tensor([[1, 0, 1, 1, 0], [0, 0, 0, 0, 1], [1, 1, 0, 1, 1]]).bool()
FILLS = [0.0, 0.7, torch.linspace(-1, 1, 5)]


def by_hand(model, inputs, mask, fill):
    """Replace channels outside a mask, sample by sample; mask is (sample, channel)."""
    features = model.conv(inputs).detach()
    fill = torch.as_tensor(fill).expand(5)
    for sample in range(len(inputs)):
        for channel in range(5):
            if not mask[sample, channel]:
                features[sample, channel] = fill[channel]
    return model.above(features).detach()


@pytest.mark.parametrize("fill", FILLS, ids=["zero", "number", "channel"])
@pytest.mark.parametrize("keep", [True, False], ids=["keep", "drop"])
def test_one_mask_for_all(model, inputs, keep, fill):
    found = feature_perturbation(model, "conv", inputs, MASK, keep=keep, baseline=fill)
    mask = (MASK if keep else ~MASK).expand(6, -1)
    torch.testing.assert_close(found, by_hand(model, inputs, mask, fill))


@pytest.mark.parametrize("fill", FILLS, ids=["zero", "number", "channel"])
@pytest.mark.parametrize("keep", [True, False], ids=["keep", "drop"])
def test_every_output_with_its_own_channels(model, inputs, keep, fill):
    found = feature_perturbation(model, "conv", inputs, ROWS, keep=keep, baseline=fill)
    for output, row in enumerate(ROWS if keep else ~ROWS):
        want = by_hand(model, inputs, row.expand(6, -1), fill)[:, output]
        torch.testing.assert_close(found[:, output], want)


@pytest.mark.parametrize("keep", [True, False], ids=["keep", "drop"])
def test_every_sample_with_the_row_of_its_target(model, inputs, keep):
    target = torch.tensor([2, 0, 1, 1, 0, 2])
    found = feature_perturbation(model, "conv", inputs, ROWS, target, keep=keep)
    want = by_hand(model, inputs, (ROWS if keep else ~ROWS)[target], 0.0)
    torch.testing.assert_close(found, want)


def test_every_channel_kept_is_the_model_itself(model, inputs):
    with ifa.testing.assert_leaves_model_untouched(model):
        kept = feature_perturbation(model, "conv", inputs, torch.ones(5, dtype=torch.bool))
    torch.testing.assert_close(kept, model(inputs).detach())
    assert not kept.requires_grad


@pytest.mark.parametrize(
    "mask",
    [torch.ones(4).bool(), torch.ones(5), torch.ones(2, 3, 5).bool(), torch.ones(3, 4).bool()],
    ids=["channels", "dtype", "axes", "rows"],
)
def test_a_mask_that_does_not_fit_is_refused(mask, model, inputs):
    with pytest.raises(ValueError, match=r"expected a boolean mask \(5,\) or \(output, 5\), got"):
        feature_perturbation(model, "conv", inputs, mask)


def test_rows_that_are_not_the_outputs_are_refused(model, inputs):
    with pytest.raises(
        ValueError, match="expected one row of the mask for each output, got 2 rows"
    ):
        feature_perturbation(model, "conv", inputs, ROWS[:2])


def test_an_unknown_layer_is_refused(model, inputs):
    with pytest.raises(LookupError, match="'conv2'"):
        feature_perturbation(model, "conv2", inputs, MASK)


def test_a_baseline_of_means_is_each_channels_over_the_batch(model, inputs):
    means = model.conv(inputs).transpose(0, 1).flatten(1).mean(1)
    found = feature_perturbation(model, "conv", inputs, MASK, baseline="mean")
    torch.testing.assert_close(found, by_hand(model, inputs, MASK.expand(6, -1), means))


@pytest.mark.parametrize("baseline", ["median", torch.zeros(4)], ids=["word", "channels"])
def test_a_baseline_that_is_none_is_refused(model, inputs, baseline):
    with pytest.raises(ValueError, match=r"feature_perturbation: expected baseline to be .*'mean'"):
        feature_perturbation(model, "conv", inputs, MASK, baseline=baseline)


# Only some channels of a map


KERNELS = [ifa.weight.fullcam, ifa.weight.gradcam, ifa.perturb.ablationcam]


@pytest.mark.parametrize("weight", KERNELS, ids=lambda one: one.__name__)
@pytest.mark.parametrize("mask", [MASK, ROWS], ids=["one", "rows"])
def test_what_is_left_of_a_map_is_its_likeness_to_the_whole(model, inputs, mask, weight):
    target = torch.tensor([2, 0, 1, 1, 0, 2])
    found = evaluate.map_similarity(model, "conv", inputs, mask, target, weight=weight)
    options = {"layer": "conv", "weight": weight, "rectify": False, "size": None}
    whole = ifa.explain(model, inputs, target, **options)
    left = ifa.explain(model, inputs, target, mask=mask, **options)
    for sample, pair in enumerate(zip(left, whole, strict=True)):
        wanted = evaluate.similarity(*pair)
        for value, want in zip(found, wanted, strict=True):
            assert value[sample] == pytest.approx(want.item(), rel=1e-5)
    assert 0.1 < found.pearson.abs().mean() < 0.99


def test_every_channel_leaves_the_map_and_none_nothing(model, inputs):
    target = torch.tensor([[2, 0, 1, 1, 0, 2], [0, 0, 0, 1, 1, 1]])
    every, none = torch.ones(5).bool(), torch.zeros(5).bool()
    with ifa.testing.assert_leaves_model_untouched(model):
        found = evaluate.map_similarity(model, "conv", inputs, every, target)
    for value in found:
        torch.testing.assert_close(value, torch.ones(2, 6, dtype=torch.float64))
    nothing = evaluate.map_similarity(model, "conv", inputs, none, target)
    assert all(value.isnan().all() for value in nothing)
    each = [evaluate.map_similarity(model, "conv", inputs, MASK, row) for row in target]
    both = evaluate.map_similarity(model, "conv", inputs, MASK, target)
    torch.testing.assert_close(both.pearson, torch.stack([one.pearson for one in each]))
    alone = evaluate.map_similarity(model, "conv", inputs[2:3], MASK, target[0, 2:3])
    torch.testing.assert_close(alone.ssim, each[0].ssim[2:3])
