"""Metrics that run the network: closed forms, brute force sample by sample, and captum."""

import itertools
import math
from functools import partial

import captum.metrics
import numpy as np
import pytest
import torch
from test_baseline import NEIGHBOURS, neighbours, solved
from torch import nn

import ifa
from ifa import evaluate
from ifa.evaluate.masking import drawn
from ifa.noise import noise

SPACES = {1: (7,), 2: (5, 4), 3: (3, 2, 4)}
CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
MASKING = {
    "confidence": evaluate.confidence,
    "deletion": partial(evaluate.deletion, steps=4),
    "insertion": partial(evaluate.insertion, steps=4),
    "retention": partial(evaluate.retention, fraction=(0.3, 0.6)),
    "road": partial(evaluate.road, fraction=(0.3, 0.6)),
    "infidelity": partial(evaluate.infidelity, draws=4),
    "faithfulness_correlation": partial(evaluate.faithfulness_correlation, draws=5),
}


def network(space=2, dtype=torch.float64):
    """Four channels in, three outputs, nothing alike on any axis."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if not space:
            layers = [nn.Linear(9, 5), nn.Tanh(), nn.Linear(5, 3)]
        else:
            convolution = CONV[space](4, 5, 3, padding=1)
            count = 5 * math.prod(SPACES[space])
            layers = [convolution, nn.Tanh(), nn.Flatten(), nn.Linear(count, 3)]
        return nn.Sequential(*layers).to(dtype).eval()


def case(space=2, groups=None, samples=3, seed=0):
    """Inputs of a network, and maps: of each position, or of groups of channels."""
    size = SPACES[space] if space else (9,)
    random = torch.Generator().manual_seed(seed)
    lead = (samples,) if groups is None else (samples, groups)
    inputs = torch.randn(samples, *((4,) if space else ()), *size, generator=random)
    maps = torch.randn(*lead, *size, generator=random).round(decimals=1)  # so that some are equal
    return inputs.double(), maps.double()


def probability(model, inputs, target):
    return float(model(inputs[None]).detach().softmax(1)[0, target])


def shown(inputs, mask, baseline):
    """Leave the inputs of one sample where a mask (group, *space) says, channel by channel."""
    left = baseline.clone()
    block = len(inputs) // len(mask) if inputs.ndim > 1 else None
    for channel in range(len(inputs) if block else 1):
        place = channel if block else slice(None)
        part = mask[channel // block] if block else mask[0]
        left[place] = torch.where(part, inputs[place], left[place])
    return left


def tiles(shape, window):
    """List windows of each group as lists of positions, in order."""
    group, *space = shape
    starts = [range(0, extent, side) for extent, side in zip(space, window, strict=True)]
    found = []
    for corner in itertools.product(range(group), *starts):
        spans = [
            range(start, min(start + side, extent))
            for start, side, extent in zip(corner[1:], window, space, strict=True)
        ]
        found.append([(corner[0], *place) for place in itertools.product(*spans)])
    return found


def brute_curve(model, inputs, maps, target, baseline, steps, window, insert):
    """Follow the score of one sample in Python."""
    maps = maps if inputs.ndim > 1 and maps.ndim == inputs.ndim else maps[None]
    pieces = tiles(maps.shape, window or (1,) * (maps.ndim - 1))
    sums = [round(sum(float(maps[place]) for place in piece), 9) for piece in pieces]
    order = sorted(range(len(pieces)), key=lambda index: (-sums[index], index))
    fractions, scores = [], []
    for step in range(steps + 1):
        taken = [place for index in order[: math.ceil(step * len(pieces) / steps)]
                 for place in pieces[index]]  # fmt: skip
        mask = torch.full(maps.shape, not insert)
        for place in taken:
            mask[place] = insert
        fractions.append(len(taken) / maps.numel())
        scores.append(probability(model, shown(inputs, mask, baseline), target))
    return fractions, scores


@pytest.mark.parametrize("name", ["deletion", "insertion"])
@pytest.mark.parametrize("window", [None, 2, "sides"])
@pytest.mark.parametrize("groups", [None, 1, 2, 4])
@pytest.mark.parametrize("space", [1, 2, 3])
def test_curves_equal_brute_force(space, groups, window, name):
    model, (inputs, maps) = network(space), case(space, groups)
    window = (3, 2, 3)[:space] if window == "sides" else window
    baseline = torch.linspace(-1, 1, inputs[0].numel()).double().reshape(inputs.shape[1:])
    found = getattr(evaluate, name)(
        model, inputs, maps, 1, baseline=baseline, steps=6, window=window, chunk=5
    )
    sides = (window,) * space if isinstance(window, int) else window
    for sample in range(len(inputs)):
        fractions, scores = brute_curve(
            model, inputs[sample], maps[sample], 1, baseline, 6, sides, name == "insertion"
        )
        np.testing.assert_allclose(found.fraction[sample], fractions, rtol=1e-12)
        np.testing.assert_allclose(found.score[sample], scores, rtol=1e-9)
        np.testing.assert_allclose(found.auc[sample], np.trapezoid(scores, fractions), rtol=1e-9)


@pytest.mark.parametrize("name", ["deletion", "insertion"])
def test_curves_of_features_equal_brute_force(name):
    model, (inputs, maps) = network(0), case(0)
    found = getattr(evaluate, name)(model, inputs, maps, 2, steps=4)
    for sample, want in enumerate(
        brute_curve(model, x, h, 2, torch.zeros(9).double(), 4, None, name == "insertion")[1]
        for x, h in zip(inputs, maps, strict=True)
    ):
        np.testing.assert_allclose(found.score[sample], want, rtol=1e-9)


def test_the_ends_of_curves_are_the_scores_of_inputs_and_baseline():
    model, (inputs, maps) = network(), case()
    with torch.no_grad():
        target = model(inputs).argmax(1)
        whole = ifa.score.probability
        ends = [torch.stack([whole(o, t) for o, t in zip(model(x), target, strict=True)])
                for x in (inputs, ifa.baseline.blur(2.0)(inputs))]  # fmt: skip
    deleted, inserted = (
        metric(model, inputs, maps, baseline=ifa.baseline.blur(2.0), steps=3)
        for metric in (evaluate.deletion, evaluate.insertion)
    )
    torch.testing.assert_close(deleted.score[:, [0, -1]], torch.stack(ends, 1))
    torch.testing.assert_close(inserted.score[:, [-1, 0]], torch.stack(ends, 1))
    assert deleted.fraction[0].tolist() == [0.0, 7 / 20, 14 / 20, 1.0]


def additive():
    """A network whose logit 0 is the sum of the inputs times 1 … 5."""
    model = nn.Linear(5, 2, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.stack([torch.arange(1.0, 6), torch.zeros(5)]))
    return model


def test_best_and_worst_map_are_the_bounds_of_deletion_and_insertion():
    options = {"score": ifa.score.logit, "steps": 5}
    every = torch.tensor(list(itertools.permutations(range(5)))).double()
    inputs, best = torch.ones(len(every), 5).double(), torch.arange(1.0, 6).double()
    low = evaluate.deletion(additive(), inputs, every, 0, **options).auc
    high = evaluate.insertion(additive(), inputs, every, 0, **options).auc
    ranked = [int((every == one).all(1).nonzero()) for one in (best - 1, (best - 1).flip(0))]
    assert [int(low.argmin()), int(high.argmax())] == [ranked[0]] * 2
    assert [int(low.argmax()), int(high.argmin())] == [ranked[1]] * 2
    # what is deleted first is inserted first: the two are mirror images here
    torch.testing.assert_close(low + high, torch.full_like(low, 15.0))
    # logits 15, 10, 6, 3, 1, 0 at fifths
    assert float(low.amin()) == pytest.approx((15 / 2 + 10 + 6 + 3 + 1) / 5)


def test_a_one_hot_map_shows_its_position_first_and_the_others_in_order():
    hot = torch.zeros(1, 5).double()
    hot[0, 3] = 1
    found = evaluate.insertion(
        additive(), torch.ones(1, 5).double(), hot, 0, score=ifa.score.logit, steps=5
    )
    assert found.score[0].tolist() == [0, 4, 5, 7, 10, 15]


@pytest.mark.parametrize("steps", [1, 3, 5, 8, 40])
def test_a_curve_has_as_many_points_as_was_asked_for(steps):
    found = evaluate.deletion(
        additive(), torch.ones(1, 5).double(), torch.arange(5.0)[None], 0, steps=steps
    )
    assert found.score.shape == found.fraction.shape == (1, steps + 1)
    assert found.fraction[0, 0] == 0
    assert found.fraction[0, -1] == 1
    assert (found.fraction.diff() >= 0).all()


# ---- keep and remove by sign


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("by", ["positive", "negative", "absolute"])
@pytest.mark.parametrize("groups", [None, 2])
def test_retention_equals_brute_force(groups, by, keep):
    model, (inputs, maps) = network(), case(groups=groups)
    shares = [0.1, 0.35, 0.8]
    found = evaluate.retention(model, inputs, maps, 0, by=by, keep=keep, fraction=shares, chunk=4)
    value = {"positive": maps, "negative": -maps, "absolute": maps.abs()}[by]
    value = value[:, None] if groups is None else value
    points = [0.0, *shares, 1.0]
    for sample, x in enumerate(inputs):
        flat = value[sample].flatten().tolist()
        order = sorted(range(len(flat)), key=lambda index: (-flat[index], index))
        want = []
        for share in points:
            taken = order[: math.ceil(round(share * len(flat), 6))]
            taken = [i for i in taken if by == "absolute" or flat[i] > 0]
            mask = torch.full((len(flat),), not keep)
            mask[taken] = keep
            mask = mask.reshape(value[sample].shape)
            want.append(probability(model, shown(x, mask, torch.zeros_like(x)), 0))
        np.testing.assert_allclose(found.score[sample], want, rtol=1e-9)
        np.testing.assert_allclose(found.auc[sample], np.trapezoid(want, points), rtol=1e-9)


def test_retention_by_a_sign_that_is_not_there_is_nan():
    inputs, maps = torch.ones(2, 5).double(), torch.tensor([[1.0, 2, 3, 4, 5], [-1, 1, 0, 0, 0]])
    found = evaluate.retention(additive(), inputs, maps, 0, by="negative")
    assert found.auc.isnan().tolist() == [True, False]
    assert found.score[0].isnan().all()
    assert found.fraction.isfinite().all()


def test_retention_takes_accuracy_as_its_score():
    model, (inputs, maps) = network(), case()
    label = torch.tensor([0, 1, 2])

    def right(output, target):
        return (output.argmax() == target).double()

    found = evaluate.retention(model, inputs, maps, label, by="absolute", score=right)
    assert set(found.score.unique().tolist()) <= {0.0, 1.0}
    assert found.score[:, -1].tolist() == (model(inputs).argmax(1) == label).double().tolist()


@pytest.mark.parametrize("shares", [(), (0.5, 0.2), (0.0, 1.0), (0.5, 1.2)])
def test_retention_refuses_shares_out_of_order(shares):
    with pytest.raises(ValueError, match=r"ifa\.evaluate\.retention: expected fraction to rise"):
        evaluate.retention(network(), *case(), fraction=shares)


# ---- remove and debias


def gradcams_road(model, inputs, cams, target, percentiles):
    """ROADMostRelevantFirst, ROADLeastRelevantFirst and ROADCombined as pytorch-grad-cam has them.

    Without noise, by its thresholds on percentiles and its system for the neighbours of a pixel.
    """

    def removed(percentile, cams):
        scores = []
        for x, cam in zip(inputs.numpy(), cams, strict=True):
            shown = cam < np.percentile(cam, percentile)
            filled = torch.from_numpy(solved(x, shown, NEIGHBOURS))
            before, after = (probability(model, one, target) for one in (torch.tensor(x), filled))
            scores.append(after - before)
        return np.array(scores)

    most = np.stack([removed(percentile, cams) for percentile in percentiles])
    least = np.stack([removed(percentile, 1 - cams) for percentile in percentiles])
    return most, least, (least.mean(0) - most.mean(0)) / 2


def test_road_equals_that_of_pytorch_grad_cam():
    model, (inputs, _) = network(), case()
    maps = torch.rand(3, 5, 4, dtype=torch.float64)  # 20 positions: whole shares of them
    found = evaluate.road(model, inputs, maps, 1, baseline=ifa.baseline.linear(noise=0.0), chunk=4)
    most, least, combined = gradcams_road(model, inputs, maps.numpy(), 1, [80, 60, 40, 20])
    assert found.fraction.tolist() == [[0, 0.2, 0.4, 0.6, 0.8]] * 3
    before = found.most[:, :1]
    np.testing.assert_allclose(before, [[probability(model, x, 1)] for x in inputs], rtol=1e-12)
    np.testing.assert_allclose((found.most - before)[:, 1:].T, most, atol=1e-9)
    np.testing.assert_allclose((found.least - before)[:, 1:].T, least, atol=1e-9)
    np.testing.assert_allclose(found.combined, combined, atol=1e-9)
    assert np.abs(combined).min() > 1e-5


@pytest.mark.parametrize(("space", "groups"), [(1, None), (1, 4), (2, 2), (3, None), (3, 2)])
def test_road_equals_brute_force(space, groups):
    model, (inputs, maps) = network(space), case(space, groups)
    shares = (0.25, 0.7)
    found = evaluate.road(
        model, inputs, maps, 2, fraction=shares, baseline=ifa.baseline.linear(noise=0.0), chunk=4
    )
    for sample, (x, h) in enumerate(zip(inputs, maps, strict=True)):
        grouped = h[None] if groups is None else h
        flat = grouped.flatten().tolist()
        order = sorted(range(len(flat)), key=lambda index: (-flat[index], index))
        for way, ranking in (("most", order), ("least", order[::-1])):
            want = [probability(model, x, 2)]
            for share in shares:
                mask = torch.ones(len(flat), dtype=torch.bool)
                mask[ranking[: math.ceil(share * len(flat))]] = False
                mask = mask.reshape(grouped.shape).repeat_interleave(4 // len(grouped), 0)
                filled = [
                    solved(c[None], m, neighbours(space))[0] if m.any() else np.zeros(c.shape)
                    for c, m in zip(x.numpy(), mask.numpy(), strict=True)
                ]
                want.append(probability(model, torch.from_numpy(np.stack(filled)), 2))
            np.testing.assert_allclose(getattr(found, way)[sample], want, rtol=1e-7)
    combined = ((found.least - found.most) / 2)[:, 1:].mean(1)
    torch.testing.assert_close(found.combined, combined)


def test_road_of_a_turned_map_is_turned():
    model, (inputs, maps) = network(), case()
    maps = maps + torch.linspace(0, 1e-3, 20).reshape(5, 4)  # no two alike
    found, turned = (evaluate.road(model, inputs, m, 1) for m in (maps, -maps))
    torch.testing.assert_close(turned.combined, -found.combined)
    torch.testing.assert_close(turned.most, found.least)


def test_road_removes_the_best_first_of_the_best_map():
    inputs, every = torch.ones(120, 5), torch.tensor(list(itertools.permutations(range(5))))
    options = {"score": ifa.score.logit, "baseline": 0.0}
    found = evaluate.road(additive(), inputs.double(), every.double(), 0, **options)
    assert every[found.combined.argmax()].tolist() == [0, 1, 2, 3, 4]
    assert every[found.combined.argmin()].tolist() == [4, 3, 2, 1, 0]
    # 15 less the first of 5, 4, 3, 2, 1 against those of 1, 2, 3, 4, 5
    assert float(found.combined.max()) == pytest.approx((4 + 6 + 6 + 4) / 2 / 4)
    assert float(found.combined.mean()) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("shares", "text"),
    [((), "to rise"), ((0.5, 0.2), "to rise"), ((0.5, 1.0), r"in \(0, 1\), of at least 2")],
)
def test_road_refuses_shares_that_leave_nothing(shares, text):
    with pytest.raises(ValueError, match=rf"ifa\.evaluate\.road: expected fraction {text}"):
        evaluate.road(network(), *case(), fraction=shares)


def test_road_leaves_one_position():
    found = evaluate.road(
        additive(), torch.ones(1, 5).double(), torch.arange(5.0)[None], 0, fraction=(0.9,),
        score=ifa.score.logit, baseline=0.0,
    )  # fmt: skip
    assert (found.most.tolist(), found.least.tolist()) == ([[15.0, 1.0]], [[15.0, 5.0]])


# ---- confidence


def brute_mask(values, threshold, of, scaled):
    if threshold is None:
        return np.clip(values, 0, 1) if scaled else (values - values.min()) / np.ptp(values)
    limit = threshold * values.max() if of == "maximum" else np.quantile(values, threshold)
    return (values >= limit).astype(float)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize(
    ("threshold", "of"), [(None, "maximum"), (0.5, "maximum"), (0.3, "quantile"), (1, "quantile")]
)
@pytest.mark.parametrize(("space", "groups"), [(0, None), (1, None), (2, 2), (3, 4)])
def test_confidence_equals_brute_force(space, groups, threshold, of, scaled, keep):
    model, (inputs, maps) = network(space), case(space, groups)
    found = evaluate.confidence(
        model, inputs, maps, 2, keep=keep, threshold=threshold, of=of, scaled=scaled, baseline=0.3
    )
    for sample, (x, h) in enumerate(zip(inputs, maps.numpy(), strict=True)):
        mask = torch.from_numpy(brute_mask(h, threshold, of, scaled))
        mask = mask if keep else 1 - mask
        if space:
            mask = mask[None] if groups is None else mask
            mask = mask.repeat_interleave(4 // len(mask), 0)
        before, after = (probability(model, i, 2) for i in (x, mask * x + (1 - mask) * 0.3))
        choice = model((mask * x + (1 - mask) * 0.3)[None]).argmax(1)
        want = (before, after, max(0, before - after) / before, float(after > before),
                max(0, after - before) / (1 - before), float(choice == 2))  # fmt: skip
        np.testing.assert_allclose([part[sample] for part in found], want, rtol=1e-9, atol=1e-12)


def test_confidence_counts_predictions_that_stay_and_accuracy_after_masking():
    model, (inputs, maps) = network(), case(samples=40)
    label = torch.arange(40) % 3
    masked = (maps >= 0.5 * maps.amax((1, 2), keepdim=True))[:, None] * inputs
    with torch.no_grad():
        before, after = model(inputs).argmax(1), model(masked).argmax(1)
    stays = evaluate.confidence(model, inputs, maps, threshold=0.5).predicted
    right = evaluate.confidence(model, inputs, maps, label, threshold=0.5).predicted
    assert stays.tolist() == (before == after).double().tolist()
    assert right.tolist() == (after == label).double().tolist()
    assert 0 < float(right.mean()) < 1
    many = evaluate.confidence(
        model, inputs, maps.expand(2, -1, -1, -1), torch.stack([label, before]), threshold=0.5
    )
    assert torch.equal(many.predicted, torch.stack([right, stays]))


def test_what_a_score_with_a_table_is_about_is_its_class():
    """Its target is the number of a row."""
    model, (inputs, maps) = network(), case(samples=6)
    classes = torch.tensor([2, 0, 1, 1, 2, 0])
    score = ifa.score.contrast(gamma=1.0, references=[[0, 1]] * 6, classes=classes)
    found = evaluate.confidence(model, inputs, maps, torch.arange(6), score=score, threshold=0.5)
    plain = evaluate.confidence(model, inputs, maps, classes, threshold=0.5)
    assert torch.equal(found.predicted, plain.predicted)
    assert 0 < plain.predicted.mean() < 1


def test_a_network_of_one_output_predicts_no_target():
    model = nn.Sequential(nn.Flatten(), nn.Linear(80, 1)).double()
    found = evaluate.confidence(model, *case(), score=ifa.score.logit)
    assert found.predicted.isnan().all()
    assert found.after.isfinite().all()
    assert (
        found.after.tolist()
        == evaluate.confidence(
            nn.Sequential(model, nn.Flatten(0)), *case(), score=lambda output, target: output
        ).after.tolist()
    )


def test_confidence_is_nan_where_a_score_has_no_share():
    """Logits below 0 cannot lose a share, those above 1 cannot gain what is missing to 1."""
    inputs = torch.tensor([[1.0, 0, 0, 0, 1], [-1, 0, 0, 0, 1], [-1, 0, 0, 0, -1]]).double()
    maps = torch.tensor([[1.0, 0, 0, 0, 0]] * 3)
    found = evaluate.confidence(additive(), inputs, maps, 0, score=ifa.score.logit)
    assert found.before.tolist() == [6, 4, -6]
    assert found.after.tolist() == [1, -1, -1]
    assert found.drop.tolist() == [5 / 6, 5 / 4, 0]
    assert found.increase.tolist() == [0, 0, 1]
    assert found.gain.tolist() == [0, 0, 5 / 7]
    turned = evaluate.confidence(additive(), inputs, maps, 0, score=ifa.score.logit, keep=False)
    assert turned.after.tolist() == [5, 5, -5]
    assert turned.gain[1].isnan()
    barely = evaluate.confidence(additive(), inputs / 4, maps, 0, score=ifa.score.logit, keep=False)
    assert barely.before.tolist() == [1.5, 1, -1.5]
    assert barely.gain.isnan().tolist() == [False, True, False]
    lost = evaluate.confidence(additive(), -inputs, maps, 0, score=ifa.score.logit)
    assert lost.before.tolist() == [-6, -4, 6]
    assert lost.drop[[0, 1]].tolist() == [0, 0]


def test_a_map_that_is_nowhere_positive_has_no_share_of_its_maximum():
    inputs, maps = torch.ones(2, 5).double(), torch.tensor([[-1.0, -2, -3, -4, -5]] * 2)
    maps[1, 0] = 1
    found = evaluate.confidence(additive(), inputs, maps, 0, threshold=0.5)
    assert found.after.isnan().tolist() == [True, False]
    assert found.before.isfinite().all()
    assert (
        evaluate.confidence(additive(), inputs, maps, 0, threshold=0.5, of="quantile").after[0] > 0
    )


# ---- infidelity


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize(("space", "groups"), [(0, None), (1, 4), (2, 4), (3, 4)])
def test_infidelity_equals_captum_for_the_same_perturbations(space, groups, normalized):
    model, (inputs, maps) = network(space), case(space, groups, seed=3)
    target, samples = torch.tensor([2, 0, 1]), 7
    draws = torch.arange(samples)
    shifts = inputs[:, None] - 0.2 - 0.3 * drawn(inputs, 5, draws)[None]  # (sample, draw, *input)

    def perturb(repeated):
        moved = shifts.flatten(0, 1)
        return moved, repeated - moved

    want = captum.metrics.infidelity(
        lambda x: model(x).softmax(1),
        perturb,
        inputs,
        maps,
        target=target,
        n_perturb_samples=samples,
        normalize=normalized,
    )
    found = evaluate.infidelity(
        model, inputs, maps, target, draws=samples, stdev=0.3, seed=5, baseline=0.2,
        normalized=normalized, chunk=4,
    )  # fmt: skip
    torch.testing.assert_close(found, want.detach())


def test_a_gradient_is_faithful_to_a_linear_network_up_to_scale_when_normalized():
    model, inputs = additive(), torch.randn(3, 5).double()
    gradient = model.weight.detach()[:1].expand(3, 5)
    measure = partial(evaluate.infidelity, model, inputs, score=ifa.score.logit, stdev=0.5)
    assert (measure(gradient, 0) < 1e-12).all()
    assert (measure(7 * gradient, 0) > 1).all()
    assert (measure(7 * gradient, 0, normalized=True) < 1e-12).all()
    assert (measure(-7 * gradient, 0, normalized=True) < 1e-12).all()


def test_a_map_for_all_channels_counts_for_each():
    model, (inputs, maps) = network(), case()
    spread = maps[:, None].expand(-1, 4, -1, -1)
    same = [evaluate.infidelity(model, inputs, one, draws=5) for one in (maps, spread)]
    torch.testing.assert_close(*same)


# ---- faithfulness correlation


@pytest.mark.parametrize("groups", [None, 2])
def test_faithfulness_correlation_equals_brute_force(groups):
    model, (inputs, maps) = network(), case(groups=groups)
    found = evaluate.faithfulness_correlation(
        model, inputs, maps, 1, draws=12, size=3, seed=4, baseline=0.5, chunk=5
    )
    maps = maps[:, None] if groups is None else maps
    count = maps[0].numel()
    for sample, x in enumerate(inputs):
        sums, drops = [], []
        for draw in range(12):
            chosen = noise((count,), torch.empty(()), 4, draw).topk(3).indices
            mask = torch.ones(count, dtype=torch.bool)
            mask[chosen] = False
            sums.append(float(maps[sample].flatten()[chosen].sum()))
            left = shown(x, mask.reshape(maps[sample].shape), torch.full_like(x, 0.5))
            drops.append(probability(model, x, 1) - probability(model, left, 1))
        np.testing.assert_allclose(found[sample], np.corrcoef(sums, drops)[0, 1], rtol=1e-7)


def test_faithfulness_correlation_reaches_both_bounds():
    model, inputs = additive(), torch.randn(3, 5).double()
    added = model.weight.detach()[:1] * inputs
    measure = partial(
        evaluate.faithfulness_correlation, model, inputs, score=ifa.score.logit, size=2
    )
    torch.testing.assert_close(measure(added, 0), torch.ones(3).double())
    torch.testing.assert_close(measure(-3 * added, 0), -torch.ones(3).double())


@pytest.mark.parametrize("options", [{"size": 20}, {"size": 0}, {"draws": 1}], ids=str)
def test_faithfulness_correlation_refuses_sets_that_cannot_differ(options):
    with pytest.raises(ValueError, match="expected at least 2 sets, of at least 1 position"):
        evaluate.faithfulness_correlation(network(), *case(), **options)


# ---- sensitivity


def test_sensitivity_of_a_linear_map_is_the_relative_size_of_the_noise():
    inputs = case()[0]
    found = evaluate.sensitivity(lambda x, t: -3 * x, inputs, radius=0.1, draws=6, seed=2, chunk=4)
    noise = 0.1 * torch.erf(drawn(inputs, 2, torch.arange(6)) / 2**0.5)
    assert 0.09 < noise.abs().amax() <= 0.1
    assert abs(float(noise.abs().mean()) - 0.05) < 0.003  # uniform
    want = noise.flatten(1).norm(dim=1) / inputs.flatten(1).norm(dim=1)[:, None]
    torch.testing.assert_close(found.mean, want.mean(1))
    torch.testing.assert_close(found.max, want.amax(1))


def test_sensitivity_is_zero_for_a_map_that_does_not_move_and_nan_for_one_that_is_zero():
    inputs = case()[0]
    still = evaluate.sensitivity(lambda x, t: torch.ones_like(x), inputs)
    assert still.max.tolist() == [0, 0, 0]
    silent = evaluate.sensitivity(lambda x, t: torch.zeros_like(x), inputs)
    assert silent.mean.isnan().all()
    assert silent.max.isnan().all()
    moved = evaluate.sensitivity(lambda x, t: x.where(x == inputs[1], 0 * x), inputs, chunk=1)
    assert moved.mean.isnan().tolist() == [True, False, True]
    broken = evaluate.sensitivity(lambda x, t: x.where(x == inputs[0], math.nan), inputs[:1])
    assert broken.max.isnan().all()


def test_sensitivity_hands_each_input_its_own_targets():
    inputs, weights = case()[0], torch.tensor([1.0, 2.0, -5.0]).double()

    def attribution(x, target):
        factor = weights[target].reshape(*target.shape, 1, 1, 1)
        return (factor * x).square()

    every = torch.tensor([[0, 1, 2], [2, 1, 0]])
    found = evaluate.sensitivity(attribution, inputs, every, chunk=4)
    for index, row in enumerate(every):
        alone = evaluate.sensitivity(attribution, inputs, row)
        torch.testing.assert_close(found.mean[index], alone.mean)
        torch.testing.assert_close(found.max[index], alone.max)


def test_sensitivity_refuses_maps_that_are_not_one_for_each_input():
    with pytest.raises(ValueError, match=r"ifa\.evaluate\.sensitivity: expected maps with the"):
        evaluate.sensitivity(lambda x, t: x.sum(0), case()[0])
    with pytest.raises(ValueError, match="expected a positive, finite radius, got 0"):
        evaluate.sensitivity(lambda x, t: x, case()[0], radius=0)


# ---- what holds for all


@pytest.mark.parametrize("name", MASKING)
@pytest.mark.parametrize(("space", "groups"), [(0, None), (1, None), (2, 2), (3, 4)])
def test_many_targets_are_each_target(space, groups, name):
    model, (inputs, maps) = network(space), case(space, groups)
    target = torch.tensor([[0, 1, 2], [2, 2, 0]])
    both = torch.stack([maps, -maps.flip(-1) + 0.05])
    found = MASKING[name](model, inputs, both, target, chunk=4)
    alone = [MASKING[name](model, inputs, m, t) for m, t in zip(both, target, strict=True)]
    if isinstance(found, torch.Tensor):
        found, alone = (found,), [(one,) for one in alone]
    for parts in zip(found, *alone, strict=True):
        torch.testing.assert_close(parts[0], torch.stack(parts[1:]))


@pytest.mark.parametrize("name", MASKING)
def test_no_target_is_the_prediction(name):
    model, (inputs, maps) = network(), case()
    found = MASKING[name](model, inputs, maps)
    named = MASKING[name](model, inputs, maps, model(inputs).argmax(1))
    ifa.testing.assert_trees_close(found, named)


@pytest.mark.parametrize("name", MASKING)
def test_nothing_changes_and_seeds_are_private(name):
    model, (inputs, maps) = network(), case()
    before, state = (inputs.clone(), maps.clone()), torch.random.get_rng_state()
    with ifa.testing.assert_leaves_model_untouched(model):
        MASKING[name](model, inputs, maps)
    assert torch.equal(inputs, before[0])
    assert torch.equal(maps, before[1])
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("name", MASKING)
def test_maps_that_say_nothing_have_no_value_and_do_not_spoil_others(name):
    model, (inputs, maps) = network(), case(samples=5)
    spoilt = maps.clone()
    spoilt[1] = 0.7
    spoilt[2, 0, 0], spoilt[3, 1, 1] = math.nan, math.inf
    spoilt = MASKING[name](model, inputs, spoilt, 1)
    whole = MASKING[name](model, inputs, maps, 1)
    kind = {
        "confidence": "after drop increase gain predicted",
        "road": "most least combined",
        "infidelity": "",
        "faithfulness_correlation": "",
    }
    fields = kind.get(name, "score auc").split()
    for field in fields or [None]:
        part, want = (one if field is None else getattr(one, field) for one in (spoilt, whole))
        assert part[1:4].isnan().all()
        torch.testing.assert_close(part[[0, 4]], want[[0, 4]])


@pytest.mark.parametrize("name", MASKING)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_float32_and_autocast_are_near(dtype, name):
    inputs, maps = case()
    want = MASKING[name](network(), inputs, maps, 1)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        found = MASKING[name](network(dtype=torch.float32), inputs.float(), maps, 1)
    tolerance = 1e-4 if dtype == torch.float32 else 0.1
    if name == "faithfulness_correlation":  # of differences of nearly equal scores
        tolerance = 1e-3 if dtype == torch.float32 else 1.0
    if name == "confidence":  # a rise of nearly nothing may be none
        found, want = found._replace(increase=want.increase), want
    ifa.testing.assert_trees_close(found, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", MASKING)
@pytest.mark.parametrize(
    "shape", [(3, 5), (3, 4, 5), (2, 5, 4), (3, 3, 5, 4), (3, 8, 5, 4), (1, 3, 5, 4), (3, 0, 5, 4)]
)
def test_maps_that_do_not_fit_are_refused(shape, name):
    where = rf"ifa\.evaluate\.{name}: expected maps \(3, 5, 4\) at the inputs' size"
    with pytest.raises(ValueError, match=where):
        MASKING[name](network(), case()[0], torch.rand(shape), 0)


@pytest.mark.parametrize("name", MASKING)
def test_wrong_calls_are_refused_by_name(name):
    model, (inputs, maps) = network(), case()
    call, where = partial(MASKING[name], model), rf"ifa\.evaluate\.{name}: expected "
    with pytest.raises(TypeError, match=where + "inputs of a floating dtype"):
        call(inputs.long(), maps)
    with pytest.raises(ValueError, match=where + r"inputs \(sample, \*input\)"):
        call(inputs[:0], maps[:0])
    with pytest.raises(ValueError, match=where + "targets in 0..2"):
        call(inputs, maps, 3)
    with pytest.raises(ValueError, match=where + "a baseline that is a number"):
        call(inputs, maps, baseline=torch.zeros(7))
    with pytest.raises(ValueError, match=where + "chunk to be a whole number"):
        call(inputs, maps, chunk=0)
    with pytest.raises(TypeError, match=where + r"a score \(output, target\)"):
        call(inputs, maps, score="logit")
    with pytest.raises(ValueError, match=where + r"maps \(2, 3, 5, 4\)"):
        call(inputs, maps, torch.zeros(2, 3, dtype=torch.int64))
    with torch.inference_mode(), pytest.raises(RuntimeError, match=rf"ifa\.evaluate\.{name}"):
        call(inputs, maps)


@pytest.mark.parametrize("name", MASKING)
def test_the_output_is_picked_and_the_score_ours_to_choose(name):
    model = ifa.testing.models.two_heads().double()
    inputs = ifa.testing.models.inputs(model, 3)
    maps = torch.randn(3, 7, 11).double()
    found = MASKING[name](model, inputs, maps, output="value", score=ifa.score.logit)

    class Value(nn.Module):
        def __init__(self):
            super().__init__()
            self.whole = model

        def forward(self, inputs):
            return self.whole(inputs)["value"]

    alone = Value().eval()
    want = MASKING[name](alone, inputs, maps, alone(inputs).argmax(1), score=ifa.score.logit)
    ifa.testing.assert_trees_close(found, want)


def test_wrong_options_are_refused_by_name():
    model, (inputs, maps) = network(), case()
    for options, text in (
        ({"steps": 0}, "expected steps to be a whole number"),
        ({"window": 0}, "expected window to be None, a positive side"),
        ({"window": (2, 2, 2)}, "or one for each of the 2 space axes"),
    ):
        for name in ("deletion", "insertion"):
            with pytest.raises(ValueError, match=rf"ifa\.evaluate\.{name}: .*{text}"):
                getattr(evaluate, name)(model, inputs, maps, **options)
    for options, text in (
        ({"threshold": 1.5}, "expected threshold to be None or a share"),
        ({"of": "mean"}, "expected of to be one of 'maximum', 'quantile'"),
    ):
        with pytest.raises(ValueError, match=rf"ifa\.evaluate\.confidence: {text}"):
            evaluate.confidence(model, inputs, maps, **options)
    with pytest.raises(ValueError, match=r"ifa\.evaluate\.retention: expected by to be one of"):
        evaluate.retention(model, inputs, maps, by="sum")
    with pytest.raises(ValueError, match=r"ifa\.evaluate\.infidelity: expected stdev"):
        evaluate.infidelity(model, inputs, maps, stdev=-1)


# ---- channels of a layer


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("keep", ["selected", "dropped", "random"])
def test_a_feature_curve_is_one_perturbation_for_each_ratio(keep, rows):
    model, (inputs, _) = network(), case()
    importance = torch.tensor([0.1, -3.0, 0.2, 0.7, 0.3])
    importance = torch.stack([importance, importance.flip(0), -importance]) if rows else importance
    with ifa.testing.assert_leaves_model_untouched(model):
        found = evaluate.feature_curve(
            model, "0", inputs, importance, ratio=(0.2, 0.6), keep=keep, baseline=0.1, seed=3
        )
    assert found.ratio.tolist() == [0.2, 0.6]
    for ratio, outputs in zip((0.2, 0.6), found.outputs, strict=True):
        mask = ifa.select.largest(importance, ratio=ratio)
        if keep == "random":
            mask = ifa.select.random(importance, ratio=ratio, seed=3)
        want = evaluate.feature_perturbation(
            model, "0", inputs, mask, keep=keep != "dropped", baseline=0.1
        )
        torch.testing.assert_close(outputs, want)


def test_a_feature_curve_ranks_by_absolute_value_when_asked():
    model, importance = network(), torch.tensor([0.1, -3.0, 0.2, 0.7, 0.3])
    found = [
        evaluate.feature_curve(
            model, "0", case()[0], importance, ratio=(0.2,), absolute=absolute
        ).outputs[0]
        for absolute in (False, True)
    ]
    kept = [torch.arange(5) == index for index in (3, 1)]
    want = [evaluate.feature_perturbation(model, "0", case()[0], mask) for mask in kept]
    torch.testing.assert_close(found, want)


def test_a_feature_curve_refuses_unknown_options_by_name():
    call = partial(evaluate.feature_curve, network(), "0", case()[0])
    with pytest.raises(ValueError, match=r"ifa\.evaluate\.feature_curve: expected keep to be one"):
        call(torch.rand(5), keep="all")
    with pytest.raises(ValueError, match="expected at least one ratio, got none"):
        call(torch.rand(5), ratio=())
    with pytest.raises(ValueError, match=r"expected a boolean mask \(5,\) or \(output, 5\)"):
        call(torch.rand(4))
