"""Metrics of maps alone: closed forms, brute force in numpy, scikit-image and scikit-learn."""

import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats
from skimage.metrics import structural_similarity
from sklearn import metrics as sklearn_metrics
from torch.func import grad, vmap

from ifa import evaluate

SHAPES = [(11,), (5, 7), (3, 5, 4), (2, 3, 4, 5)]
HIT_RATE = {255: 3, 128: 2, 64: 1, 32: 0, 0: -1}


def case(shape, seed=0, ties=True):
    """Make a map in which values coincide, and a mask."""
    random = np.random.default_rng((seed, *shape))
    values = random.normal(size=shape)
    return (np.round(values, 1) if ties else values), random.random(shape) < 0.4


def tensors(*arrays):
    return tuple(map(torch.from_numpy, arrays))


# ---- hit rate


def brute_hit_rate(values, levels, weights):
    at_top = [weights[level] for value, level in zip(values.flat, levels.flat, strict=True)
              if value == values.max()]  # fmt: skip
    return sum(at_top) / len(at_top)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_hit_rate_equals_brute_force(shape):
    values, _ = case(shape)
    values = np.round(values)  # so that several positions share the maximum
    levels = np.random.default_rng(1).choice(list(HIT_RATE), shape)
    expected = brute_hit_rate(values, levels, HIT_RATE)
    assert evaluate.hit_rate(*tensors(values, levels), HIT_RATE) == pytest.approx(expected)
    index = np.searchsorted(sorted(HIT_RATE), levels)
    weights = [HIT_RATE[level] for level in sorted(HIT_RATE)]
    for given in (weights, torch.tensor(weights), torch.tensor(weights, dtype=torch.float32)):
        assert evaluate.hit_rate(*tensors(values, index), given) == pytest.approx(expected)


def test_the_bounds_of_the_hit_rate():
    levels = torch.tensor([[0, 32, 64], [128, 255, 0]])
    best, worst = (levels == 255).double(), (levels == 0).double()
    assert evaluate.hit_rate(best, levels, HIT_RATE) == 3
    assert evaluate.hit_rate(worst, levels, HIT_RATE) == -1
    assert evaluate.hit_rate(torch.full((2, 3), 0.3), levels, HIT_RATE).isnan()


def test_all_maximal_positions_count_also_after_rounding():
    map = torch.tensor([1.0, 1.0 - 1e-7, 0.5, 0.0])
    levels = torch.tensor([0, 1, 1, 1])
    assert evaluate.hit_rate(map, levels, [0.0, 1.0]) == 0.5
    assert evaluate.hit_rate(map, levels, [0.0, 1.0], tolerance=0) == 0
    assert evaluate.hit_rate(map, levels, [0.0, 1.0], tolerance=0.5) == pytest.approx(2 / 3)


def test_a_level_without_a_weight_is_unknown_only_where_it_is_hit():
    levels = torch.tensor([0, 7, -1])
    hits = [torch.eye(3)[position] for position in range(3)]
    found = [evaluate.hit_rate(map, levels, {0: 5.0}) for map in hits]
    assert found[0] == 5
    assert found[1].isnan()
    assert found[2].isnan()
    assert evaluate.hit_rate(hits[1], levels, [5.0, 6.0]).isnan()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_levels_that_are_not_listed_may_be_worth_something(shape):
    """As in the source: any other level is -1."""
    values = np.round(case(shape)[0])
    levels = np.random.default_rng(1).choice([*HIT_RATE, 7, 200], shape)
    listed = {level: weight for level, weight in HIT_RATE.items() if level}
    every = {level: listed.get(level, -1) for level in np.unique(levels).tolist()}
    found = evaluate.hit_rate(*tensors(values, levels), listed, unlisted=-1)
    assert found == pytest.approx(brute_hit_rate(values, levels, every))
    assert evaluate.hit_rate(torch.eye(3)[1], torch.arange(3), [5.0], unlisted=2.0) == 2


# ---- regions


GRADES = {255: 1, 128: 0.5, 64: 0.25}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_graded_coverage_is_that_of_the_source(shape):
    """Half and a quarter of the heat in deeper layers, over the positions of all three."""
    values, _ = case(shape)
    levels = np.random.default_rng(2).choice([255, 128, 64, 32, 0], shape)
    found = evaluate.coverage(*tensors(values, levels), weights=GRADES)
    graded = sum(weight * values[levels == level].sum() for level, weight in GRADES.items())
    np.testing.assert_allclose(found.inside, graded / np.isin(levels, [*GRADES]).sum())
    np.testing.assert_allclose(found.outside, values[np.isin(levels, [0, 32])].mean())
    index = torch.from_numpy(np.searchsorted([255, 128, 64, 32, 0][::-1], levels))
    turned = evaluate.coverage(torch.from_numpy(values), 4 - index, weights=[1, 0.5, 0.25])
    torch.testing.assert_close(turned, found)


def test_coverage_with_weights_of_one_is_that_of_a_mask():
    values, mask = tensors(*case((4, 6)))
    expected = evaluate.coverage(values, mask)
    assert evaluate.coverage(values, mask.long(), weights={1: 1.0}) == expected
    many = vmap(partial(evaluate.coverage, weights={1: 1.0}))(values[None], mask.long()[None])
    assert [float(part) for part in many] == [float(part) for part in expected]
    blocks = evaluate.coverage(values.expand(3, 4, 6), mask.long(), weights={1: 1.0})
    torch.testing.assert_close(blocks, expected)
    with pytest.raises(ValueError, match=r"ifa\.evaluate\.coverage: expected levels as whole"):
        evaluate.coverage(values, mask, weights=[1.0])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_coverage_and_mass_equal_brute_force(shape):
    values, mask = case(shape)
    found = evaluate.coverage(*tensors(values, mask))
    np.testing.assert_allclose(found.inside, values[mask].mean())
    np.testing.assert_allclose(found.outside, values[~mask].mean())
    positive = values.clip(0)
    expected = positive[mask].sum() / positive.sum()
    np.testing.assert_allclose(evaluate.relevance_mass(*tensors(values, mask)), expected)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_iou_equals_scikit_learn(shape):
    values, mask = case(shape)
    thresholds = np.array([0.0, 0.05, 0.5, 0.95, 1.0])
    for of in ("maximum", "quantile"):
        limits = thresholds * values.max() if of == "maximum" else np.quantile(values, thresholds)
        expected = [
            sklearn_metrics.jaccard_score(mask.ravel(), (values >= limit).ravel())
            for limit in limits
        ]
        found = evaluate.iou(*tensors(values, mask), thresholds.tolist(), of=of)
        np.testing.assert_allclose(found, expected)
        one = evaluate.iou(*tensors(values, mask), 0.5, of=of)
        torch.testing.assert_close(one, found[2])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rank_and_pointing_game_average_over_the_orders_of_ties(shape):
    """Against the mean over many random orders of equal values."""
    values, mask = case(shape)
    values = np.round(values)
    random = np.random.default_rng(2)
    flat, inside, places = values.ravel(), mask.ravel(), mask.sum()
    hits, kept = [], []
    for _ in range(4000):
        order = np.lexsort((random.random(len(flat)), -flat))
        hits.append(inside[order[0]])
        kept.append(inside[order[:places]].mean())
    # exact where nothing is tied; five standard errors elsewhere
    error = 5 * np.std(hits) / 4000**0.5
    assert abs(evaluate.pointing_game(*tensors(values, mask)) - np.mean(hits)) <= error + 1e-12
    error = 5 * np.std(kept) / 4000**0.5
    assert abs(evaluate.relevance_rank(*tensors(values, mask)) - np.mean(kept)) <= error + 1e-12


def test_relevance_rank_without_ties_equals_brute_force():
    values, mask = case((6, 7), ties=False)
    top = np.argsort(-values.ravel())[: mask.sum()]
    expected = mask.ravel()[top].mean()
    assert evaluate.relevance_rank(*tensors(values, mask)) == pytest.approx(expected)


def values_of(map, mask):
    """Every metric of a map against a mask, by name."""
    found = evaluate.coverage(map, mask)
    return {
        "inside": found.inside,
        "outside": found.outside,
        "iou": evaluate.iou(map, mask, 0.5),
        "quantile": evaluate.iou(map, mask, 0.8, of="quantile"),
        "pointing": evaluate.pointing_game(map, mask),
        "mass": evaluate.relevance_mass(map, mask),
        "rank": evaluate.relevance_rank(map, mask),
    }


MASK = torch.tensor([[False, True, False], [False, True, False]])


@pytest.mark.parametrize(
    ("map", "expected"),
    [
        (MASK.double(), [1, 0, 1, 1, 1, 1, 1]),  # best
        ((~MASK).double(), [0, 1, 0, 0, 0, 0, 0]),  # worst
        (torch.eye(3)[:2], [0.5, 0.25, 1 / 3, 1 / 3, 0.5, 0.5, 0.5]),
        (torch.eye(6)[1].reshape(2, 3), [0.5, 0, 0.5, 1 / 3, 1, 1, 0.6]),
        (torch.full((2, 3), 0.5), [0.5, 0.5, *[math.nan] * 3, 1 / 3, math.nan]),
        (-torch.ones(2, 3), [-1, -1, *[math.nan] * 5]),
        (torch.zeros(2, 3), [math.nan] * 7),
        (torch.tensor([[0, 1.0, 0], [0, math.nan, 0]]), [math.nan] * 7),
    ],
    ids=["best", "worst", "diagonal", "one-hot", "constant", "negative", "zero", "NaN"],
)
def test_the_bounds_of_localisation(map, expected):
    found = values_of(map, MASK)
    np.testing.assert_allclose(torch.stack(list(found.values())), expected, err_msg=str(found))


def test_an_empty_mask_is_no_hit_and_a_full_one_has_no_outside():
    map, nothing = torch.arange(6.0).reshape(2, 3), torch.zeros(2, 3, dtype=torch.bool)
    found = values_of(map, nothing)
    assert {name for name, value in found.items() if not value.isnan()} == {"outside"}
    assert found["outside"] == 2.5
    full = values_of(map, ~nothing)
    assert {name for name, value in full.items() if value.isnan()} == {"outside"}
    assert full["pointing"] == full["mass"] == full["rank"] == 1


def test_one_mask_serves_every_group():
    map, mask = torch.rand(2, 4, 5), torch.rand(4, 5) < 0.5
    both = values_of(map, mask)
    apart = values_of(map, mask.expand(2, 4, 5))
    assert both == apart
    levels = torch.randint(0, 3, (4, 5))
    weights = [0.0, 1.0, 2.0]
    one = evaluate.hit_rate(map, levels, weights)
    assert one == evaluate.hit_rate(map, levels.expand(2, 4, 5), weights)


def test_a_quantile_of_many_positions():
    """`torch.quantile` refuses more than 2**24."""
    map = torch.arange(2**24 + 2, dtype=torch.float32)
    found = evaluate.iou(map, map > 2**23, 0.5, of="quantile")
    assert found == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    "name", ["coverage", "iou", "pointing_game", "relevance_mass", "relevance_rank"]
)
@pytest.mark.parametrize(
    "mask",
    [torch.ones(3, 5), torch.ones(5, 3, dtype=torch.bool), torch.tensor(True)],
    ids=["float", "turned", "scalar"],
)
def test_what_is_no_mask_is_refused(name, mask):
    metric = getattr(evaluate, name)
    metric = partial(metric, thresholds=0.5) if name == "iou" else metric
    with pytest.raises(ValueError, match=rf"ifa\.evaluate\.{name}: expected a boolean mask"):
        metric(torch.ones(3, 5), mask)


def test_options_of_localisation_are_checked():
    map, mask = torch.rand(3), torch.tensor([True, False, True])
    for thresholds in (50, [-0.1, 0.5], torch.tensor([0.5, math.nan])):
        with pytest.raises(ValueError, match=r"iou: expected thresholds in \[0, 1\]"):
            evaluate.iou(map, mask, thresholds)
    with pytest.raises(ValueError, match=r"iou: expected of to be one of"):
        evaluate.iou(map, mask, 0.5, of="max")
    for levels in (torch.rand(3), mask, torch.zeros(4, dtype=torch.int64)):
        with pytest.raises(ValueError, match=r"hit_rate: expected levels as whole numbers"):
            evaluate.hit_rate(map, levels, [1.0, 2.0])
    for weights in ([], [[1.0, 2.0]], 3.0):
        with pytest.raises(ValueError, match=r"hit_rate: expected weights \(level,\)"):
            evaluate.hit_rate(map, torch.tensor([0, 1, 0]), weights)


# ---- complexity


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sparseness_and_complexity_equal_their_definitions(shape):
    values, _ = case(shape)
    sizes = np.abs(values).ravel()
    pairs = np.abs(sizes[:, None] - sizes).sum() / (2 * len(sizes) * sizes.sum())
    np.testing.assert_allclose(evaluate.sparseness(torch.from_numpy(values)), pairs)
    entropy = stats.entropy(sizes / sizes.sum())
    np.testing.assert_allclose(evaluate.complexity(torch.from_numpy(values)), entropy)


@pytest.mark.parametrize("size", [1, 2, 17])
def test_the_bounds_of_complexity(size):
    one_hot, constant = torch.eye(size)[0], torch.full((size,), -3.0)
    assert evaluate.sparseness(one_hot) == pytest.approx(1 - 1 / size)
    assert evaluate.complexity(one_hot) == 0
    assert evaluate.sparseness(constant) == pytest.approx(0, abs=1e-12)
    assert evaluate.complexity(constant) == pytest.approx(math.log(size))
    assert evaluate.sparseness(0 * constant).isnan()
    assert evaluate.complexity(0 * constant).isnan()


# ---- similarity


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_correlations_equal_scipy(shape):
    (a, _), (b, _) = case(shape), case(shape, seed=1)
    b = a + 2 * b.round()
    for name, oracle in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr)):
        found = getattr(evaluate, name)(*tensors(a, b))
        np.testing.assert_allclose(found, oracle(a.ravel(), b.ravel()).statistic, rtol=1e-10)


GAUSSIAN = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)


@pytest.mark.parametrize("shape", [(23,), (13, 17), (11, 12, 13), (12, 1, 11)], ids=str)
def test_ssim_equals_scikit_image(shape):
    a, _ = case(shape, ties=False)
    b = a + 0.5 * case(shape, seed=1)[0]
    for extent in (1.0, 7.5):
        for window in (3, 7) if min(shape) > 1 else ():
            expected = structural_similarity(a, b, win_size=window, data_range=extent)
            found = evaluate.ssim(*tensors(a, b), window=window, extent=extent)
            assert found == pytest.approx(expected, abs=1e-9)
        if min(shape) > 1:
            expected = structural_similarity(
                a, b, gaussian_weights=True, use_sample_covariance=False, data_range=extent
            )
            found = evaluate.ssim(*tensors(a, b), window=GAUSSIAN.tolist(), extent=extent)
            assert found == pytest.approx(expected, abs=1e-6)
    together = np.stack([a, b])
    extent = together.max() - together.min()
    usual = evaluate.ssim(*tensors(a, b))
    flat = [one.squeeze() for one in (a, b)]  # an axis of one position changes nothing
    expected = structural_similarity(*flat, win_size=7, data_range=extent)
    assert usual == pytest.approx(expected, abs=1e-9)


def test_ssim_of_a_small_map_takes_the_whole_of_it():
    a, b = torch.rand(2, 4, 5, dtype=torch.float64)
    flat = torch.stack([a.flatten(), b.flatten()])
    cov = flat.cov()
    mean = flat.mean(1)
    c1, c2 = (0.01 * (flat.max() - flat.min())) ** 2, (0.03 * (flat.max() - flat.min())) ** 2
    expected = (2 * mean.prod() + c1) * (2 * cov[0, 1] + c2)
    expected /= (mean.square().sum() + c1) * (cov[0, 0] + cov[1, 1] + c2)
    torch.testing.assert_close(evaluate.ssim(a, b), expected)


@pytest.mark.parametrize("name", ["pearson", "spearman", "ssim"])
def test_the_bounds_of_similarity(name):
    metric = getattr(evaluate, name)
    map = torch.rand(8, 9) + 0.1
    assert metric(map, map) == pytest.approx(1)
    if name != "ssim":
        assert metric(map, -3 * map + 1) == pytest.approx(-1)
    for silent in (
        torch.zeros(8, 9),
        torch.full((8, 9), 2.0),
        map.log().where(map > 0.5, math.nan),
    ):
        assert metric(map, silent).isnan()
        assert metric(silent, map).isnan()
    assert metric(map, torch.where(map < map.max(), map, math.inf)).isnan()
    with pytest.raises(ValueError, match=rf"ifa\.evaluate\.{name}: expected two maps of one shape"):
        metric(map, map.T)


@pytest.mark.parametrize("shape", [(9,), (7, 8), (3, 5, 4)], ids=str)
def test_similarity_is_by_values_ranks_and_structure(shape):
    a, b = (torch.from_numpy(case(shape, seed=seed)[0]) for seed in range(2))
    found = evaluate.similarity(a, 5 * b - 2)
    unit = [(one - one.min()) / (one.max() - one.min()) for one in (a, b)]
    assert found.pearson == pytest.approx(stats.pearsonr(a.flatten(), b.flatten()).statistic)
    assert found.spearman == pytest.approx(stats.spearmanr(a.flatten(), b.flatten()).statistic)
    torch.testing.assert_close(found.ssim, evaluate.ssim(*unit))
    assert all(value.isnan() for value in evaluate.similarity(a, torch.ones(shape)))


@pytest.mark.parametrize("window", [0, 1, 9, [1.0], [[1.0, 1.0]], [0.1] * 9], ids=str)
def test_a_window_that_does_not_fit_is_refused(window):
    with pytest.raises(ValueError, match=r"ssim: expected a window of at least 2 that fits"):
        evaluate.ssim(torch.rand(8, 12), torch.rand(8, 12), window=window)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_target_specificity_equals_scipy(shape):
    maps = np.stack([case(shape, seed)[0] for seed in range(4)])
    flat = maps.reshape(4, -1)
    expected = [
        np.mean([stats.spearmanr(flat[t], flat[u]).statistic for u in range(4) if u != t])
        for t in range(4)
    ]
    np.testing.assert_allclose(evaluate.target_specificity(torch.from_numpy(maps)), expected)


def test_a_blank_map_of_one_target_makes_the_others_unknown():
    maps = torch.rand(3, 4, 5)
    same = maps[:1].expand(3, 4, 5)
    torch.testing.assert_close(evaluate.target_specificity(same), torch.ones(3).double())
    maps[1] = 0
    assert evaluate.target_specificity(maps).isnan().all()
    for wrong in (torch.rand(1, 4, 5), torch.rand(4)):
        with pytest.raises(ValueError, match=r"expected maps \(target, \*space\)"):
            evaluate.target_specificity(wrong)


# ---- over a population


@pytest.mark.parametrize("shape", [(31,), (3, 17), (2, 3, 9)], ids=str)
def test_auroc_equals_scikit_learn(shape):
    values, positive = case(shape, seed=3)
    found = evaluate.auroc(*tensors(values, positive))
    flat = zip(positive.reshape(-1, shape[-1]), values.reshape(-1, shape[-1]), strict=True)
    expected = np.reshape([sklearn_metrics.roc_auc_score(*one) for one in flat], shape[:-1])
    np.testing.assert_allclose(found, expected)
    torch.testing.assert_close(evaluate.auroc(*tensors(values, positive.astype(int))), found)
    torch.testing.assert_close(evaluate.auroc(*tensors(-values, positive)), 1 - found)


def test_auroc_of_two_targets_is_not_turned_around():
    """What the original did for class 0 of a binary task."""
    prediction = torch.tensor([0, 0, 0, 1, 1])
    level = torch.tensor([[5.0, 4.0, 3.0, 2.0, 1.0], [1.0, 2.0, 3.0, 4.0, 5.0]])
    found = evaluate.auroc(level, prediction == torch.arange(2)[:, None])
    assert found.tolist() == [1, 1]


def test_auroc_is_unknown_with_one_class_and_refused_without_classes():
    level = torch.rand(3, 4)
    positive = torch.tensor([[0, 1, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0]], dtype=torch.bool)
    assert evaluate.auroc(level, positive).isnan().tolist() == [False, True, True]
    level[0, 2] = math.nan
    assert evaluate.auroc(level, positive).isnan().all()
    assert evaluate.auroc(torch.zeros(4), positive[0]) == 0.5
    with pytest.raises(TypeError, match=r"auroc: expected positive to be boolean"):
        evaluate.auroc(level, torch.rand(3, 4))
    with pytest.raises(ValueError, match=r"auroc: expected positive to hold 0 and 1 only"):
        evaluate.auroc(torch.rand(4), torch.tensor([0, 1, 2, 1]))
    with pytest.raises(ValueError, match=r"auroc: expected level and positive of one shape"):
        evaluate.auroc(torch.rand(3), positive[0])


# ---- how they are used


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64])
def test_maps_of_any_dtype(dtype):
    map = (8 * torch.rand(6, 5)).round().to(dtype)
    mask = torch.rand(6, 5) < 0.5
    for name, value in values_of(map, mask).items():
        assert value.dtype == torch.float64
        assert value == values_of(map.double(), mask)[name]


def test_metrics_of_targets_and_samples_are_two_vmaps():
    maps, masks = torch.rand(2, 3, 6, 5), torch.rand(3, 6, 5) < 0.5
    over_samples = vmap(evaluate.relevance_mass)
    found = vmap(over_samples, in_dims=(0, None))(maps, masks)
    for target, sample in itertools.product(range(2), range(3)):
        alone = evaluate.relevance_mass(maps[target, sample], masks[sample])
        torch.testing.assert_close(found[target, sample], alone)
    ious = vmap(partial(evaluate.iou, thresholds=[0.2, 0.5, 0.9]))(maps[0], masks)
    assert ious.shape == (3, 3)


@pytest.mark.parametrize("name", ["sparseness", "complexity"])
def test_smooth_metrics_have_gradients(name):
    maps = torch.rand(3, 4, 5, dtype=torch.float64) + 0.1
    found = vmap(grad(getattr(evaluate, name)))(maps)
    assert found.isfinite().all()
    assert found.abs().amax() > 0
    assert torch.autograd.gradcheck(getattr(evaluate, name), maps[0].requires_grad_())
