"""Boxes of a detector: the score by its definition, and a network that returns a list."""

import importlib
import pickle
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import ifa
from ifa.network.tokens import callable_token

box = ifa.score.box


def found(count: int, seed: int, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Make detections of three classes near (2, 2, 8, 9)."""
    rng = torch.Generator().manual_seed(seed)
    corners = torch.tensor([2.0, 2.0, 8.0, 9.0], dtype=dtype)
    return {
        "boxes": corners + 1.5 * torch.randn(count, 4, generator=rng, dtype=dtype),
        "scores": torch.rand(count, generator=rng, dtype=dtype),
        "labels": torch.randint(3, (count,), generator=rng),
    }


def overlap(a: Any, b: Any) -> float:
    """Write intersection over union from its definition."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return width * height / (sum(areas) - width * height)


def best(output: dict[str, Tensor], wanted: Any, label: int, threshold: float) -> float:
    """Write the score from its definition."""
    each = [
        overlap(wanted, place.tolist()) * float(score)
        for place, score, one in zip(*(output[name] for name in output), strict=True)
        if int(one) == label and overlap(wanted, place.tolist()) > threshold
    ]
    return max(each, default=0.0)


WANTED = [[2, 2, 8, 9], [1, 3, 7, 8], [20, 20, 21, 30], [2.5, 1, 9, 9]]
CLASSES = [0, 2, 1, 1]


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.8])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_equals_its_definition(count, threshold):
    score, values = box(boxes=WANTED, classes=CLASSES, threshold=threshold), []
    for seed in range(8):
        output = found(count, seed)
        for row, (wanted, label) in enumerate(zip(WANTED, CLASSES, strict=True)):
            value = score(output, torch.tensor(row))
            assert value.shape == ()
            assert value.dtype == torch.float64
            expected = best(output, wanted, label, threshold)
            np.testing.assert_allclose(value.item(), expected, rtol=1e-12)
            values.append(expected)
    assert any(values) or count < 7
    assert not all(values)


def test_mapped_equals_a_loop_and_gradients_equal_differences():
    score, outputs = box(boxes=WANTED, classes=CLASSES, threshold=0.1), found(7, 3)
    every = torch.arange(4)
    mapped = torch.func.vmap(score, (None, 0))(outputs, every)
    assert torch.equal(mapped, torch.stack([score(outputs, row) for row in every]))
    assert mapped.count_nonzero() >= 2
    labels = outputs.pop("labels")
    step = {name: 1e-6 * torch.randn_like(part) for name, part in outputs.items()}

    def at(sign: float, row: Tensor) -> Tensor:
        moved = {name: part + sign * step[name] for name, part in outputs.items()}
        return score({**moved, "labels": labels}, row)

    for row in every:
        of = lambda parts, row=row: score({**parts, "labels": labels}, row)  # noqa: E731
        gradient = torch.func.grad(of)(outputs)
        slope = sum((gradient[name] * step[name]).sum() for name in outputs)
        torch.testing.assert_close(slope, (at(1, row) - at(-1, row)) / 2, rtol=1e-5, atol=1e-12)


def test_of_the_detected_box_itself_the_gradient_is_that_of_its_score_alone():
    output = found(1, 0)
    score = box(boxes=output["boxes"], classes=output["labels"])
    assert torch.equal(score(output, torch.tensor(0)), output["scores"][0])
    of = lambda boxes, scores: score({**output, "boxes": boxes, "scores": scores}, torch.tensor(0))  # noqa: E731
    coordinates, scores = torch.func.grad(of, (0, 1))(output["boxes"], output["scores"])
    assert coordinates.count_nonzero() == 0
    assert scores.tolist() == [1.0]


def test_pytorch_grad_cams_target_adds_where_ours_multiplies():
    """Re-stated from its source, as its package needs torchvision. It looks at one detection only,
    that of the largest overlap, and misses the box where this is of another class."""

    def theirs(output: dict[str, Tensor], wanted: Any, label: int) -> float:
        overlaps = [overlap(wanted, place.tolist()) for place in output["boxes"]]
        place = int(np.argmax(overlaps))
        right = overlaps[place] > 0.5 and int(output["labels"][place]) == label
        return overlaps[place] + float(output["scores"][place]) if right else 0.0

    score, missed = box(boxes=WANTED[:1], classes=1), 0
    for seed in range(30):
        one = found(1, seed)
        ours, other = float(score(one, torch.tensor(0))), theirs(one, WANTED[0], 1)
        assert (ours > 0) == (other > 0)
        if ours:
            assert ours == pytest.approx((other - float(one["scores"])) * float(one["scores"]))
        several = found(5, seed)
        missed += float(score(several, torch.tensor(0))) > 0 == theirs(several, WANTED[0], 1)
    assert missed > 0


def test_nan_is_not_taken_for_nothing():
    output = {"boxes": torch.tensor(WANTED[:1]), "scores": torch.ones(1), "labels": torch.zeros(1)}
    for name in ("boxes", "scores"):
        lost = {**output, name: output[name] * torch.nan}
        assert box(boxes=WANTED, classes=CLASSES)(lost, torch.tensor(0)).isnan()


def test_pickles_prints_and_is_another_with_other_boxes():
    score = box(boxes=WANTED, classes=CLASSES)
    again, output = pickle.loads(pickle.dumps(score)), found(7, 1)
    assert torch.equal(again(output, torch.tensor(0)), score(output, torch.tensor(0)))
    assert ifa.chains.describe(score) == (
        "box(threshold=0.5, activation='softmax', "
        "rows=Rows(classes=int64(4,), data=(float32(4, 4),)))"
    )
    assert callable_token(again) == callable_token(score)
    moved = box(boxes=torch.tensor(WANTED) + 1, classes=CLASSES)
    assert callable_token(moved) != callable_token(score)
    assert callable_token(box(boxes=WANTED, classes=0)) != callable_token(score)


@pytest.mark.parametrize(
    ("wrong", "error", "text"),
    [
        (lambda: box(boxes=[1, 2, 3, 4], classes=0), ValueError, r"boxes \(row, 4\)"),
        (lambda: box(boxes=[[4, 4, 2, 2]], classes=0), ValueError, "an area.*as row 0. Of .*width"),
        (lambda: box(boxes=[[0, 0, 2, np.nan]], classes=0), ValueError, "an area"),
        (lambda: box(boxes=WANTED, classes=[0]), ValueError, "one for each of 4 rows"),
        (lambda: box(boxes=WANTED, classes=0.5), TypeError, "classes as integers"),
        (lambda: box(boxes=WANTED, classes=0, threshold=1), ValueError, r"threshold in \[0, 1\)"),
        (lambda: box(boxes=WANTED, classes=0, activation="relu"), ValueError, "activation"),
    ],
)
def test_wrong_use_says_what_to_do(wrong, error, text):
    with pytest.raises(error, match=rf"ifa\.score\.box: expected .*{text}"):
        wrong()


# through a network -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def net() -> Any:
    return ifa.nets.train_scenes(data=ifa.nets.scenes(samples=320), epochs=14).double()


@pytest.fixture(scope="module")
def held_out() -> list[Any]:
    return ifa.nets.scenes(samples=24, seed=9)


@pytest.fixture(scope="module")
def images(held_out) -> Tensor:
    return torch.stack([image for image, _, _ in held_out]).double()


@pytest.fixture(scope="module")
def planted(held_out) -> Any:
    """Every box with the sample that it is in."""
    rows = [
        (sample, place, label)
        for sample, (_, objects, _) in enumerate(held_out)
        for place, label in zip(objects["boxes"], objects["labels"], strict=True)
    ]
    return [torch.stack([torch.as_tensor(row[i]) for row in rows]) for i in range(3)]


@pytest.fixture(scope="module")
def score(planted) -> Any:
    return box(boxes=planted[1], classes=planted[2])


@pytest.fixture(scope="module")
def first(planted) -> Tensor:
    """The first box of each sample."""
    return torch.from_numpy(np.unique(planted[0], return_index=True)[1])


def by_autograd(net: Any, layer: str, images: Tensor, score: Any, target: Tensor) -> Tensor:
    """Differentiate every sample's score by itself, without any transform."""
    each = []
    for image, row in zip(images, target, strict=True):
        seen: list[Tensor] = []

        def keep(module: Any, inputs: Any, output: Tensor, seen: Any = seen) -> Tensor:
            seen.append(output.detach().requires_grad_())
            return seen[0]

        hook = net.get_submodule(layer).register_forward_hook(keep)
        (output,) = net(image[None])
        hook.remove()
        value = score(output, row)
        each.append(torch.autograd.grad(value, seen[0])[0][0])
    return torch.stack(each)


def test_detections_are_of_various_numbers_and_mostly_right(net, images, score, planted):
    with torch.no_grad():
        output = net(images)
    assert len({len(one["boxes"]) for one in output}) > 1
    values = torch.stack([score(output[n], torch.tensor(r)) for r, n in enumerate(planted[0])])
    assert (values > 0).double().mean() > 0.6


@pytest.mark.filterwarnings("ignore::ifa.ZeroGradient")
@pytest.mark.parametrize("layer", ["conv1", "conv2.0", "conv3"])
def test_a_tap_equals_autograd(net, images, score, first, layer):
    tap = ifa.tap(net, layer, images[:2], score=score)
    assert tap.unit == "box"
    several = torch.stack([first, first.flip(0)])
    features = tap(images, several)
    for asked, gradients in zip(several, features.gradients, strict=True):
        expected = by_autograd(net, layer, images, score, asked)
        torch.testing.assert_close(gradients, expected, rtol=1e-10, atol=1e-14)
    alone = tap(images, first)
    torch.testing.assert_close(alone.gradients, features.gradients[0])
    mapped = torch.func.vmap(lambda asked: tap(images, asked).gradients)(several)
    torch.testing.assert_close(mapped, features.gradients)
    # what goes on is the class, by which masks and scales are looked up
    assert torch.equal(features.target[0], score.keywords["rows"].classes[first])


def test_an_image_without_detections_has_no_gradient(net, images, score):
    empty = torch.stack([torch.zeros_like(images[0]), images[1]])
    tap = ifa.tap(net, "conv2", images[:2], score=score)
    with pytest.warns(ifa.ZeroGradient, match="2 of 2 samples"):
        features = tap(empty * 0, torch.tensor([0, 1]))
    assert features.gradients.count_nonzero() == 0


@pytest.mark.filterwarnings("ignore::ifa.ZeroGradient")
def test_the_default_layer_is_below_the_heads(net, images, score):
    assert ifa.tap(net, None, images[:2], score=score).sites[0].layer == "conv3"


def test_what_is_above_a_layer_is_replayed(net, images):
    activations, head = ifa.cut(net, "conv2", images[:3])(images[:3])
    assert "by replay" in repr(head)
    for one, other in zip(head(activations), net(images[:3]), strict=True):
        for name in other:
            torch.testing.assert_close(one[name], other[name])


def test_ablation_equals_a_loop(net, images, score, first):
    weigh = ifa.perturb.ablationcam(net, "conv2", images[:2], score=score, normalize=False)
    weighted = weigh(images[:2], first[:2])
    with torch.no_grad():
        for sample in range(2):
            raw = net.conv2(net.conv1(images[sample : sample + 1]))
            for channel in (0, 7, 23):
                without = raw.clone()
                without[:, channel] = 0
                hook = net.conv2.register_forward_hook(lambda *_, new=without: new)
                (output,) = net(images[sample : sample + 1])
                hook.remove()
                (clean,) = net(images[sample : sample + 1])
                lost = score(clean, first[sample]) - score(output, first[sample])
                torch.testing.assert_close(weighted.weights[sample, channel], lost)


@pytest.mark.filterwarnings("ignore::ifa.ZeroGradient")
def test_energy_is_inside_the_box(net, images, score, first, planted):
    """Against chance, the share of the image that the box has."""
    maps = ifa.explain(net, images, first, layer="conv2", score=score)
    at = torch.arange(32) + 0.5
    left, top, right, bottom = (side[:, None, None] for side in planted[1][first].T)
    inside = (at > left) & (at < right) & (at[:, None] > top) & (at[:, None] < bottom)
    mass = torch.func.vmap(ifa.evaluate.relevance_mass)(maps, inside)
    known = ~mass.isnan()
    assert known.double().mean() > 0.6
    chance = inside.double().mean((1, 2))
    assert mass[known].mean() > 4 * chance[known].mean()


def test_metrics_and_attributions_take_rows(net, images, score, first):
    kept = torch.tensor(
        [n for n in range(24) if score(net(images[n : n + 1])[0], first[n]) > 0][:2]
    )
    few, asked = images[kept], first[kept]
    maps = ifa.explain(net, few, asked, layer="conv2", score=score)
    curve = ifa.evaluate.deletion(net, few, maps, asked, score=score, steps=4)
    assert (curve.score[:, 0] > 0.3).all()
    assert curve.score[:, -1].tolist() == [0, 0]
    gradient = ifa.attribute.gradient(net, score=score)(few, asked)
    leaf = few.clone().requires_grad_()
    total = sum(score(one, row) for one, row in zip(net(leaf), asked, strict=True))
    torch.testing.assert_close(gradient, torch.autograd.grad(total, leaf)[0])


def test_a_target_is_asked_for_and_checked(net, images, score):
    tap = ifa.tap(net, "conv2", images[:2], score=score)
    rows = len(score.keywords["rows"].classes)
    with pytest.raises(ValueError, match=rf"the row of .* 0\.\.{rows - 1}, got None.*arange\(2\)"):
        tap(images[:2])
    with pytest.raises(
        ValueError, match=rf"targets in 0\.\.{rows - 1}, the {rows} rows of the sco"
    ):
        tap(images[:2], rows)
    with pytest.raises(ValueError, match=r"evaluate.*got None"):
        ifa.evaluate.deletion(net, images[:2], images[:2, 0], score=score)
    with pytest.raises(ValueError, match=r"scorecam.*got None"):
        ifa.perturb.scorecam(net, "conv2", images[:2], score=score)(images[:2])


def test_a_network_that_detects_nothing_is_refused(images):
    net = torch.nn.Conv2d(1, 3, 3).double()
    with pytest.raises(LookupError, match=r"ifa\.score\.box: expected a detector .*got Tensor"):
        ifa.explain(net, images, 0, layer="", score=box(boxes=WANTED, classes=0))


@pytest.mark.filterwarnings("ignore::ifa.ZeroGradient")
def test_any_score_of_one_samples_mapping_will_do(net, images):
    def boxes(output: dict[str, Tensor], target: Tensor) -> Tensor:
        return output["scores"][output["labels"] == int(target)].sum()  # nothing vmap could do

    features = ifa.tap(net, "conv2", images[:2], score=boxes)(images, torch.ones(24).long())
    expected = by_autograd(net, "conv2", images, boxes, torch.ones(24).long())
    torch.testing.assert_close(features.gradients, expected, rtol=1e-10, atol=1e-14)


# outputs of one size -----------------------------------------------------------------------------


def hugging_face(name: str, **config: Any) -> Any:
    module = importlib.import_module(f"transformers.models.{name.lower()}")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = getattr(module, f"{name}Config")(**config)
        return getattr(module, f"{name}ForObjectDetection")(made).eval().double()


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_transformers_queries(activation):
    pytest.importorskip("transformers")
    net = hugging_face(
        "Yolos",
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        image_size=(16, 24),
        patch_size=8,
        num_detection_tokens=5,
        num_labels=3,
    )
    images = torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(2)).double()
    with torch.no_grad():
        raw = net(images)
    center, size = raw.pred_boxes[:, 0].split(2, 1)  # the first query's, moved a little
    boxes = torch.cat([center - size / 2, center + size / 2.2], 1)
    score = box(boxes=boxes, classes=[1, 2], threshold=0.3, activation=activation)
    layer, lay = "vit.encoder.layer.0", {"grid": patches}  # tokens that ask follow those of patches
    features = ifa.tap(net, layer, images, score=score, **lay)(images, torch.arange(2))
    seen: list[Tensor] = []
    hook = net.vit.encoder.layer[0].register_forward_hook(
        lambda module, inputs, output: seen.append(output) or output.retain_grad()
    )
    raw = net(images)
    hook.remove()
    corners = raw.pred_boxes.split(2, -1)
    corners = torch.cat([corners[0] - corners[1] / 2, corners[0] + corners[1] / 2], -1)
    chances = raw.logits.softmax(-1) if activation == "softmax" else raw.logits.sigmoid()
    total = torch.zeros(())
    for sample, label in enumerate((1, 2)):
        overlaps = torch.stack(
            [torch.as_tensor(overlap_of(boxes[sample], one)) for one in corners[sample]]
        )
        total = total + (overlaps * (overlaps > 0.3) * chances[sample, :, label]).max()
    total.backward()
    torch.testing.assert_close(features.gradients, patches(seen[0].grad))
    assert features.gradients.any()
    in_pixels = partial(box, classes=0)(boxes=[[0, 0, 8, 8]])
    with pytest.raises(ValueError, match=r"shares of the image.*got 8. Divide"):
        ifa.tap(net, layer, images, score=in_pixels, **lay)(images, 0)


def patches(values: Tensor) -> Tensor:
    return values[:, 1:7].mT.unflatten(2, (2, 3))


def overlap_of(one: Tensor, other: Tensor) -> Tensor:
    sides = torch.minimum(one[2:], other[2:]) - torch.maximum(one[:2], other[:2])
    areas = (one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod()
    shared = sides.clamp(min=0).prod()
    return shared / (areas - shared)
