"""Histograms, covariance, co-occurrence and top samples against their definitions."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ifa import reduce
from ifa.reduce.moments import WeightedValues
from ifa.reduce.tops import Ranked
from ifa.stages import long_sum

LEVELS = [0.0, 0.01, 0.25, 0.5, 0.77, 0.99, 1.0]


def statistic(reduction, *batches):
    return reduction.finalize(reduce.fold(reduction, batches))


@pytest.mark.parametrize("bits", [0, 2, 4, 6])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_quantiles_of_a_histogram_keep_their_bound(bits, sign, dtype):
    rng = np.random.default_rng(bits)
    values = torch.from_numpy(sign * rng.lognormal(sigma=2, size=(4001, 3))).to(dtype)
    found = statistic(reduce.histogram(bits=bits), *values.split(1000))
    read = reduce.histogram_quantiles(found, LEVELS).numpy()
    exact = np.quantile(values.double().numpy(), LEVELS, axis=0).T
    assert read.shape == exact.shape == (3, len(LEVELS))
    off = np.abs(read / exact - 1)
    assert off.max() <= 2.0 ** -(bits + 1)
    assert off.max() > 2.0 ** -(bits + 4)  # the bound is not idle


def test_quantiles_across_zero_keep_their_bound():
    values = torch.randn(999, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values[::5] = 0
    read = reduce.histogram_quantiles(statistic(reduce.histogram(), values), LEVELS).numpy()
    np.testing.assert_allclose(read, np.quantile(values, LEVELS), rtol=1 / 32, atol=2.0**-20)
    assert read[3] == 0  # a real zero stays one


@given(st.floats(-1e6, 1e6, allow_nan=False).filter(lambda x: abs(x) >= 2.0**-20))
def test_a_value_is_close_to_the_middle_of_its_bin(value):
    found = statistic(reduce.histogram(), torch.tensor([value], dtype=torch.float64))
    (middle,) = found.value[found.count == 1]
    assert abs(float(middle) - value) <= abs(value) / 32
    assert torch.equal(found.value, found.value.sort().values)


def test_what_is_out_of_range_or_no_number_is_counted_apart():
    values = torch.tensor([0.0, -0.0, 0.1, 9.0, -1e30, torch.inf, torch.nan, -torch.inf])
    found = statistic(reduce.histogram(bits=0, low=0, high=2), values)
    assert found.count.tolist() == [1, 0, 3, 0, 1]
    assert int(found.nonfinite) == 3
    nothing = statistic(reduce.histogram(), torch.empty(0, 2))
    assert reduce.histogram_quantiles(nothing, [0.5]).isnan().all()


def test_a_histogram_by_target():
    reduction = reduce.grouped(reduce.histogram(), size=3)
    values, group = torch.randn(50, 4).double(), torch.arange(50) % 2
    found = statistic(reduction, (values[:20], group[:20]), (values[20:], group[20:]))
    read = reduce.histogram_quantiles(found, [0.1, 0.5])
    assert read.shape == (3, 4, 2)
    assert read[2].isnan().all()
    one = reduce.histogram_quantiles(statistic(reduce.histogram(), values[1::2]), [0.1, 0.5])
    assert torch.equal(read[1], one)


def test_covariance_is_numpy_s_far_from_zero():
    rng = np.random.default_rng(3)
    data = rng.normal(size=(200, 4)) @ rng.normal(size=(4, 4)) + 1e6
    found = statistic(reduce.covariance(), *torch.from_numpy(data).split(7))
    np.testing.assert_allclose(found.covariance, np.cov(data.T), rtol=1e-8)
    assert torch.equal(found.covariance, found.covariance.T)
    variance = statistic(reduce.moments(), torch.from_numpy(data)).variance
    torch.testing.assert_close(found.covariance.diagonal(), variance)
    assert statistic(reduce.covariance(), torch.ones(1, 2)).covariance.isnan().all()


def test_cooccurrence_counts_pairs_at_the_top():
    data = np.random.default_rng(4).integers(0, 3, (40, 6)).astype(float)  # ties are common
    found = statistic(reduce.cooccurrence(top=3), *torch.from_numpy(data).split(9))
    expected = np.zeros((6, 6), dtype=int)
    for row in data:
        top = sorted(range(6), key=lambda k: (-row[k], k))[:3]
        expected[np.ix_(top, top)] += 1
    assert found.together.tolist() == expected.tolist()
    assert int(found.count) == 40


def test_top_samples_with_ties_and_too_few():
    data = np.random.default_rng(5).integers(0, 4, (30, 3)).astype(float)
    order = np.random.default_rng(6).permutation(30)  # whatever order they come in
    batches = [
        Ranked(torch.from_numpy(data[part]), torch.from_numpy(part))
        for part in np.array_split(order, 4)
    ]
    found = statistic(reduce.top_samples(5), *batches)
    for channel in range(3):
        best = sorted(range(30), key=lambda n: (-data[n, channel], n))[:5]
        assert found.sample[channel].tolist() == best
        assert found.value[channel].tolist() == data[best, channel].tolist()
    few = statistic(reduce.top_samples(2), Ranked(torch.ones(1, 1), torch.tensor([8])))
    assert few.sample.tolist() == [[8, -1]]
    assert few.value.tolist() == [[1.0, -torch.inf]]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: reduce.histogram(bits=11), "ifa.reduce.histogram: expected 0 <= bits <= 10"),
        (lambda: reduce.histogram(low=3, high=3), "got bits=4, low=3, high=3."),
        (lambda: reduce.top_samples(0), "expected at least one rank, got 0."),
        (lambda: statistic(reduce.covariance(), torch.ones(3)), "(sample, channel), got (3,)."),
        (
            lambda: statistic(reduce.cooccurrence(top=4), torch.ones(2, 3)),
            "expected top in 1..3, the channels, got 4.",
        ),
        (
            lambda: reduce.histogram_quantiles(statistic(reduce.histogram(), torch.ones(2)), [1.5]),
            "expected levels in [0, 1], got [1.5].",
        ),
    ],
)
def test_wrong_options(make, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        make()


def test_weighted_moments_are_their_definition():
    rng = np.random.default_rng(7)
    data, weight = rng.normal(size=(50, 3)) + 1e5, rng.random(50)
    batches = zip(torch.from_numpy(data).split(9), torch.from_numpy(weight).split(9), strict=True)
    found = statistic(reduce.weighted_moments(), *batches)
    np.testing.assert_allclose(found.mean, np.average(data, axis=0, weights=weight), rtol=1e-14)
    np.testing.assert_allclose(found.variance, np.cov(data.T, aweights=weight).diagonal())
    ones = torch.ones(50)
    plain = statistic(reduce.moments(), torch.from_numpy(data))
    same = statistic(reduce.weighted_moments(), (torch.from_numpy(data), ones))
    assert all(torch.equal(a, b) for a, b in zip(plain, same, strict=True))


@pytest.mark.parametrize("size", [3, 50], ids=["all groups at once", "touched groups"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_groups_of_a_batch_are_updated_together_as_one_by_one(size, dtype):
    generator = torch.Generator().manual_seed(size)
    plain = reduce.weighted_moments()
    grouped = reduce.grouped(plain, size=size)
    state: Any = None
    own = [plain.init((torch.zeros(0, 4), torch.zeros(0)))] * size
    for _ in range(3):
        values = 1e3 + torch.randn(17, 4, generator=generator, dtype=dtype)
        weight = torch.rand(17, generator=generator)
        group = torch.randint(0, size, (17,), generator=generator)
        taken = torch.rand(17, generator=generator) < 0.7
        values[~taken] = torch.nan  # what is left out counts for nothing
        batch = WeightedValues(values, weight), group, taken
        state = grouped.init(batch) if state is None else state
        state = grouped.update(state, batch)
        for index in range(size):
            mask = taken & (group == index)
            own[index] = plain.update(own[index], (values[mask], weight[mask]))
    for found, fields in zip(state, zip(*own, strict=True), strict=True):
        torch.testing.assert_close(found, torch.stack(fields), rtol=1e-12, atol=1e-9)


def test_a_fold_over_groups_leaves_a_state_that_was_handed_out_alone():
    grouped = reduce.grouped(reduce.moments(), size=40)
    batches = [(torch.randn(5, 2), torch.arange(5)), (torch.randn(5, 2), torch.arange(5))]
    state = reduce.fold(grouped, batches[:1])
    before = [field.clone() for field in state]
    grouped.update(state, batches[1])
    assert all(torch.equal(one, other) for one, other in zip(state, before, strict=True))


@pytest.mark.parametrize("positions", [9, 256, 257, 40_000])
def test_long_sums_keep_their_bound(positions):
    values = 100 + torch.randn(5, positions, generator=torch.Generator().manual_seed(positions))
    error = (long_sum(values) - values.sum(1, dtype=torch.float64)).abs()
    assert (error <= 1e-6 * values.abs().sum(1, dtype=torch.float64)).all()
    assert torch.equal(long_sum(values.double()), values.double().sum(1))
