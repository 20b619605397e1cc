"""Baselines and imputations, against numpy and scipy."""

import itertools

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.ndimage import gaussian_filter
from scipy.sparse.linalg import spsolve

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


# ---- imputations

# As pytorch-grad-cam has them, in two dimensions.
NEIGHBOURS = {
    (1, 1): 1 / 12, (0, 1): 1 / 6, (-1, 1): 1 / 12, (1, -1): 1 / 12,
    (0, -1): 1 / 6, (-1, -1): 1 / 12, (1, 0): 1 / 6, (-1, 0): 1 / 6,
}  # fmt: skip


def neighbours(space):
    """Weights of ours in any number of dimensions: halved for each axis of a displacement."""
    offsets = [one for one in itertools.product((-1, 0, 1), repeat=space) if any(one)]
    weights = {one: 0.5 ** np.count_nonzero(one) for one in offsets}
    return {one: weight / sum(weights.values()) for one, weight in weights.items()}


def solved(values, shown, weights):
    """Fill (channel, *space) by the sparse system of the source, with its direct solver."""
    hidden = np.argwhere(~shown)
    number = {tuple(place): row for row, place in enumerate(hidden)}
    system = sparse.lil_matrix((len(hidden), len(hidden)))
    right = np.zeros((len(hidden), len(values)))
    for row, place in enumerate(hidden):
        for offset, weight in weights.items():
            at = tuple(place + offset)
            if min(at) < 0 or any(i >= n for i, n in zip(at, shown.shape, strict=True)):
                continue
            system[row, row] += weight
            if at in number:
                system[row, number[at]] -= weight
            else:
                right[row] += weight * values[(slice(None), *at)]
    found = values.copy()
    found[:, ~shown] = spsolve(sparse.csc_matrix(system), right).reshape(len(hidden), -1).T
    return found


def holes(shape, share, seed=0):
    shown = np.random.default_rng((seed, *shape)).random(shape) >= share
    shown.flat[-2] = True  # at least one
    return shown


def test_the_weights_are_those_of_the_source():
    assert neighbours(2) == pytest.approx(NEIGHBOURS)
    assert sorted(set(np.round(1 / np.array([*neighbours(3).values()])))) == [14, 28, 56]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(17,), (9, 12), (5, 4, 6)], ids=str)
def test_linear_imputation_is_the_sources_system(shape, share):
    inputs = torch.randn(2, 3, *shape, dtype=torch.float64)
    shown = torch.stack([torch.from_numpy(holes(shape, share, seed)) for seed in range(2)])
    given = shown[:, None].expand(inputs.shape)
    found = ifa.baseline.linear(noise=0.0)(inputs, given)
    for one, mask, got in zip(inputs, shown, found, strict=True):
        want = solved(one.numpy(), mask.numpy(), neighbours(len(shape)))
        np.testing.assert_allclose(got, want, atol=1e-8)


def test_every_channel_is_imputed_by_what_is_shown_of_it():
    inputs = torch.randn(1, 2, 7, 8, dtype=torch.float64)
    shown = torch.from_numpy(holes((1, 2, 7, 8), 0.4))
    found = ifa.baseline.linear(noise=0.0)(inputs, shown)
    for channel in range(2):
        want = solved(inputs[0, [channel]].numpy(), shown[0, channel].numpy(), NEIGHBOURS)
        np.testing.assert_allclose(found[0, channel], want[0], atol=1e-8)


@pytest.mark.parametrize("space", [1, 2, 3])
def test_what_is_linear_is_imputed_as_it_was_away_from_borders(space):
    places = torch.meshgrid(*[torch.arange(7.0).double()] * space, indexing="ij")
    inputs = sum(slope * place for slope, place in zip((3.0, -2.0, 0.5), places, strict=False))
    shown = torch.ones_like(inputs, dtype=torch.bool)
    shown[(slice(1, -1),) * space] = False
    found = ifa.baseline.linear(noise=0.0)(inputs[None, None], shown[None, None])[0, 0]
    torch.testing.assert_close(found, inputs, rtol=0, atol=1e-8)
    single = ifa.baseline.linear(noise=0.0)(inputs[None, None].float(), shown[None, None])[0, 0]
    torch.testing.assert_close(single, inputs.float(), rtol=0, atol=1e-4)


def test_what_is_imputed_lies_between_what_is_shown_and_turns_with_it():
    inputs = torch.rand(3, 1, 9, 11, dtype=torch.float64)
    shown = torch.from_numpy(holes((3, 1, 9, 11), 0.95)).clone()
    shown[:, 0, 4, 5] = True
    fill = ifa.baseline.linear(noise=0.0)
    found = fill(inputs, shown)
    for one, mask, got in zip(inputs, shown, found, strict=True):
        assert one[mask].min() - 1e-9 <= got.min() <= got.max() <= one[mask].max() + 1e-9
    turned = fill(inputs.mT.flip(-1), shown.mT.flip(-1))
    torch.testing.assert_close(turned, found.mT.flip(-1), rtol=0, atol=1e-8)
    alone = torch.cat([fill(*one) for one in zip(inputs.split(1), shown.split(1), strict=True)])
    assert torch.equal(alone, found)
    assert torch.equal(found[shown], inputs[shown])


def test_noise_is_added_where_something_is_hidden():
    inputs, shown = torch.zeros(2, 3, 40, 40), torch.from_numpy(holes((2, 3, 40, 40), 0.5))
    first, second = (ifa.baseline.linear(noise=0.1, seed=seed)(inputs, shown) for seed in (0, 1))
    assert not first[shown].any()
    assert first[~shown].std() == pytest.approx(0.1, rel=0.05)
    assert first[~shown].mean() == pytest.approx(0, abs=0.01)
    assert torch.equal(first, ifa.baseline.linear(noise=0.1)(inputs, shown))
    assert not torch.equal(first, second)
    both = ~shown[0] & ~shown[1]
    assert torch.equal(first[0][both], first[1][both])  # whatever the sample


def test_where_nothing_is_shown_is_zero_and_noise():
    inputs = torch.full((1, 2, 5, 5), 7.0)
    shown = torch.zeros(1, 2, 5, 5, dtype=torch.bool)
    shown[0, 1, 2, 2] = True
    found = ifa.baseline.linear(noise=0.0)(inputs, shown)
    assert not found[0, 0].any()
    torch.testing.assert_close(found[0, 1], inputs[0, 1])


def test_an_imputation_is_no_baseline_where_nothing_is_hidden():
    model, inputs = torch.nn.Linear(5, 2), torch.rand(2, 5)
    fill = ifa.baseline.linear()
    with pytest.raises(ValueError, match=r"integrated_gradients: expected a baseline that does"):
        ifa.attribute.integrated_gradients(model, baseline=fill)(inputs, 0)
    with pytest.raises(ValueError, match=r"infidelity: expected a baseline that does not depend"):
        ifa.evaluate.infidelity(model, inputs, inputs, 0, baseline=fill)
    with pytest.raises(
        ValueError, match=r"confidence: expected positions that are shown or hidden"
    ):
        ifa.evaluate.confidence(model, inputs, inputs, 0, baseline=fill)
    with pytest.raises(ValueError, match=r"ifa\.baseline\.linear: expected stdev"):
        ifa.baseline.linear(noise=-1.0)


def test_an_imputation_of_ones_own_is_told_what_is_shown():
    @ifa.baseline.imputation
    def mean_of_shown(inputs, shown):
        return torch.stack([one[mask].mean() for one, mask in zip(inputs, shown, strict=True)])[
            :, None
        ].expand_as(inputs)

    model, inputs = torch.nn.Linear(4, 1, bias=False), torch.tensor([[1.0, 2.0, 3.0, 6.0]])
    _ = torch.nn.init.ones_(model.weight)
    found = ifa.evaluate.deletion(
        model, inputs, inputs, 0, score=ifa.score.logit, baseline=mean_of_shown, steps=4
    )
    torch.testing.assert_close(found.score[0, :-1], torch.tensor([12.0, 8.0, 6.0, 4.0]).double())
    wrong = ifa.baseline.imputation(lambda inputs, shown: inputs[:, :2])
    with pytest.raises(ValueError, match=r"deletion: expected the imputation .* to return inputs"):
        ifa.evaluate.deletion(model, inputs, inputs, 0, score=ifa.score.logit, baseline=wrong)
