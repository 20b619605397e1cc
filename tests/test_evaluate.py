"""Metrics against scipy and against a forward pass written by hand."""

import numpy as np
import pytest
import torch
from scipy import stats

import ifa
from ifa import evaluate
from ifa.evaluate import (
    auroc,
    auroc_interval,
    consistency,
    correlation_interval,
    feature_perturbation,
)


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
def test_the_interval_of_normal_pairs_is_about_scipys_and_no_narrower(confidence):
    level, score = pairs((2, 900), seed=3)
    found = correlation_interval(level, score, level=confidence)
    for row in range(2):
        want = stats.pearsonr(level[row], score[row]).confidence_interval(confidence)
        np.testing.assert_allclose([part[row] for part in found], want, atol=0.02)
        assert found.low[row] <= want[0] + 1e-12
        assert want[1] - 1e-12 <= found.high[row]


def test_a_skewed_pair_has_a_wider_interval_than_fishers():
    """His covers .65 to .78 of lognormal pairs (F-S9)."""
    level = pairs((200,), seed=1)[0].exp()
    score = level * pairs((200,), seed=2)[0].exp()
    low, high = correlation_interval(level, score)
    want = stats.pearsonr(level, score).confidence_interval()
    assert high - low > 1.3 * (want.high - want.low)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_the_interval_of_a_perfect_correlation_is_a_point(sign):
    level = pairs((10,), seed=0)[0]
    low, high = correlation_interval(level, sign * level)
    assert float(low) == float(high) == pytest.approx(sign)


def test_what_has_no_interval():
    level, score = pairs((2, 3), seed=0)
    assert all(end.isnan().all() for end in correlation_interval(level, score))
    rising = torch.arange(9.0)
    assert all(end.isnan().all() for end in auroc_interval(rising, rising > 9))
    assert all(end.isnan().all() for end in auroc_interval(rising.log() * torch.nan, rising > 3))
    for interval in (correlation_interval, auroc_interval):
        with pytest.raises(ValueError, match=r"_interval: expected a level between 0 and 1"):
            interval(rising, rising > 3, level=95)
    with pytest.raises(ValueError, match="correlation_interval: expected two tensors of one shape"):
        correlation_interval(rising, rising[1:])
    with pytest.raises(TypeError, match="auroc_interval: expected positive to be boolean"):
        auroc_interval(rising, rising)
    with pytest.raises(ValueError, match="expected one cluster label for each of 9 samples"):
        auroc_interval(rising, rising > 3, cluster=["a"])


def test_the_interval_of_an_area_holds_it_and_has_a_width():
    """One positive sample gave NaN, an area of 1 no width (F-S10)."""
    values, rest = pairs((3, 40), seed=5)
    positive = torch.stack([rest[0] > 0, values[1] > 1, values[2] == values[2].max()])
    area = auroc(values, positive)
    low, high = auroc_interval(values, positive)
    assert ((low <= area) & (area <= high)).all()
    assert (high - low > 0.05).all()
    assert area.tolist()[1:] == high.tolist()[1:] == [1, 1]


def test_patients_make_intervals_wider():
    level, score = pairs((2, 20), seed=6)
    five = level.repeat_interleave(5, -1), score.repeat_interleave(5, -1)
    patient = np.arange(20).repeat(5)
    for one in (correlation_interval, lambda a, b, **more: auroc_interval(a, b > 0, **more)):
        low, high = one(*five, cluster=patient)
        alone = one(*five)
        assert (high - low > 1.6 * (alone.high - alone.low)).all()
        np.testing.assert_allclose(
            high - low, one(level, score).high - one(level, score).low, rtol=0.2
        )


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
