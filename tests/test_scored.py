"""Populations of detectors, segmenters and embeddings, against brute force."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ifa

QUIET: dict[str, Any] = {"task": "scored", "targets": "label", "progress": False}
pytestmark = pytest.mark.filterwarnings("ignore::ifa.ZeroGradient")


@pytest.fixture(scope="module")
def net() -> Any:
    return ifa.nets.train_scenes(data=ifa.nets.scenes(samples=192), epochs=14).double()


@pytest.fixture(scope="module")
def boxed() -> Any:
    """One item for each box of some scenes, labelled by its row; the boxes and their classes."""
    scenes = ifa.nets.scenes(samples=14, seed=9)
    rows = [
        (image.double(), place, label)
        for image, objects, _ in scenes
        for place, label in zip(objects["boxes"].double(), objects["labels"], strict=True)
    ]
    data = [(image, row, f"box {row}") for row, (image, _, _) in enumerate(rows)]
    return data, torch.stack([row[1] for row in rows]), torch.stack([row[2] for row in rows])


@pytest.fixture(scope="module")
def score(boxed) -> Any:
    return ifa.score.box(boxes=boxed[1], classes=boxed[2])


def by_hand(net: Any, layer: str, image: Tensor, score: Any, target: int) -> tuple[Tensor, Tensor]:
    """Return activations times gradients of one sample, by plain autograd, and its score."""
    seen: list[Tensor] = []

    def keep(module: Any, inputs: Any, output: Tensor) -> Tensor:
        seen.append(output.detach().requires_grad_())
        return seen[0]

    hook = net.get_submodule(layer).register_forward_hook(keep)
    value = score(net(image[None])[0], torch.tensor(target))
    hook.remove()
    (gradient,) = torch.autograd.grad(value, seen[0])
    return (seen[0] * gradient)[0].detach(), value.detach()


def test_statistics_of_boxes_equal_brute_force(net, boxed, score):
    data, _, classes = boxed
    options = {**QUIET, "batch_size": 5, "shard": 8, "keep_samples": "full"}
    tree = ifa.analyze(net, data, layer="conv2", score=score, target_names=["o", "x"], **options)
    found, samples = tree["conv2"], tree["samples"]
    each = [by_hand(net, "conv2", image, score, row) for image, row, _ in data]
    products = torch.stack([product for product, _ in each])
    values = torch.stack([value for _, value in each])
    maps, hit = products.sum(1).flatten(1), values > 0
    assert 0.3 < hit.double().mean() < 1
    np.testing.assert_allclose(samples["score"], values, rtol=1e-10)
    np.testing.assert_array_equal(samples["label"], classes)
    np.testing.assert_array_equal(samples["prediction"], torch.where(hit, classes, -1))
    importance = products.sum((2, 3))
    for target in (0, 1):
        chosen = hit & (classes == target)
        np.testing.assert_allclose(
            found["importance"][target], importance[chosen].mean(0), rtol=1e-9, atol=1e-12
        )
        assert int(found["count"][target]) == int(chosen.sum())
        extremes = maps[classes == target].amax(1).quantile(0.9)
        np.testing.assert_allclose(found["map_max"].sel(quantile=0.9)[target], extremes, rtol=1e-9)
        missed = int((~hit & (classes == target)).sum())
        assert int(found["zero_gradient"][target]) == missed
    np.testing.assert_allclose(found["importance_overall"], importance[hit].mean(0), rtol=1e-9)
    assert found["importance"].attrs["units"] == "box"
    share = f"found: {hit.double().mean():.3f}"
    assert share in ifa.population.summary(tree)


def test_a_run_continues_and_one_of_other_boxes_is_another(net, boxed, score, tmp_path):
    data, boxes, classes = boxed
    analyze = partial(ifa.analyze, net, data, layer="conv2", shard=4, **QUIET)
    whole = analyze(score=score)

    class Killed(Exception):
        pass

    def killed(done: int, total: int) -> None:
        if done >= 8:
            raise Killed

    with pytest.raises(Killed):
        analyze(score=score, store=tmp_path / "run", progress=killed)
    again = analyze(score=score, store=tmp_path / "run")
    assert again["conv2"].to_dataset().identical(whole["conv2"].to_dataset())
    for other, what in (
        (ifa.score.box(boxes=boxes + 1, classes=classes), "rows"),
        (ifa.score.box(boxes=boxes, classes=1 - classes), "rows"),
        (ifa.score.box(boxes=boxes, classes=classes, threshold=0.4), "score"),
    ):
        with pytest.raises(ValueError, match=f"to be of this very analysis, got another: {what}"):
            analyze(score=other, store=tmp_path / "run")
    analyze(score=score, store=tmp_path / "run")  # it was not touched


def test_parts_with_tables_of_their_own_are_merged(net, boxed, score, tmp_path):
    data, boxes, classes = boxed
    names = ["disc", "cross", "star"]  # there is none
    options = {"layer": "conv2", "shard": 4, **QUIET}
    analyze = partial(ifa.analyze, net, target_names=names, **options)
    whole, half = analyze(data, score=score), len(data) // 2
    for place, part in (("a", slice(half)), ("b", slice(half, None))):
        items = [(image, row, name) for row, (image, _, name) in enumerate(data[part])]
        own = ifa.score.box(boxes=boxes[part], classes=classes[part])
        analyze(items, score=own, store=tmp_path / place)
    merged = ifa.merge(tmp_path / "a", tmp_path / "b", store=tmp_path / "both")
    assert len(ifa.open(tmp_path / "both")["samples"]["id"]) == len(data)
    for name, values in whole["conv2"].data_vars.items():
        np.testing.assert_allclose(merged["conv2"][name], values, rtol=1e-11, err_msg=name)
    for place, label in (("one", 0), ("two", 1)):  # without names there are as many as occur
        own = ifa.score.box(boxes=boxes[:2], classes=label)
        items = [(data[row][0], row, f"{place} {row}") for row in range(2)]
        ifa.analyze(net, items, score=own, store=tmp_path / place, **options)
    with pytest.raises(ValueError, match=r"ifa\.merge: .*1 classes in the first, 2 in the second"):
        ifa.merge(tmp_path / "one", tmp_path / "two")


def test_a_scale_is_that_of_other_boxes_but_of_no_other_score(net, boxed, score):
    data, boxes, classes = boxed
    statistics = ifa.analyze(net, data, layer="conv2", score=score, **QUIET)
    one = ifa.score.box(boxes=boxes[3:4], classes=classes[3:4])
    explain = partial(ifa.explain, net, data[3][0][None], 0, layer="conv2", scale=statistics)
    every = ifa.maps(net, data, layer="conv2", score=score, scale=statistics, **QUIET)
    np.testing.assert_allclose(every["conv2"]["map"][3], explain(score=one)[0], rtol=1e-6)
    np.testing.assert_array_equal(every["target"], classes)
    with pytest.raises(ValueError, match=r"one of score box\(threshold=0\.5.* instead of box\(thr"):
        explain(score=ifa.score.box(boxes=boxes, classes=classes, threshold=0.1))


def test_a_picture_says_what_is_found(net, boxed, score, monkeypatch, tmp_path):
    from matplotlib.text import Text

    import ifa.plot.sheets as sheets

    data = boxed[0]
    tree = ifa.maps(net, data, layer="conv2", score=score, **QUIET)
    seen = tree["prediction"].values
    rows = [int((seen < 0).argmax()), int((seen == 0).argmax())]
    few = ifa.maps(net, [data[row] for row in rows], layer="conv2", score=score, **QUIET)
    assert few["prediction"].values.tolist() == [-1, 0]
    figures, card = [], sheets.card
    monkeypatch.setattr(sheets, "card", lambda *a: figures.append(card(*a)) or figures[-1])
    options = {"names": ["disc", "cross"], "dpi": 50, "progress": False}
    ifa.plot.write_overlays(few, [data[row] for row in rows], tmp_path / "out", **options)
    said = ["\n".join(text.get_text() for text in one.findobj(Text)) for one in figures]
    assert "predicted: nothing\n" in said[0]
    assert f"predicted: disc ({float(few['score'][1]):.3g} box)\nexpected: disc" in said[1]


def test_masks_and_scales_are_looked_up_by_class(net, boxed, score):
    data, _, classes = boxed
    mask = torch.stack([torch.arange(24) % 2 == 0, torch.arange(24) % 2 == 1])
    images = torch.stack([image for image, _, _ in data])
    rows = torch.arange(len(data))
    options = {"layer": "conv2", "score": score, "size": None}
    both = ifa.explain(net, images, rows, mask=mask, **options)
    for target in (0, 1):
        alone = ifa.explain(net, images, rows, mask=mask[target], **options)
        torch.testing.assert_close(both[classes == target], alone[classes == target])
    weighted = ifa.perturb.ablationcam(net, "conv2", images[:2], score=score)(images[:4], rows[:4])
    assert torch.equal(weighted.target, classes[:4])


def test_a_builder_and_no_gradient(net, boxed, score):
    data = boxed[0][:4]
    weight = partial(ifa.perturb.ablationcam, chunk=64)
    statistics = ifa.analyze(net, data, layer="conv2", weight=weight, score=score, **QUIET)
    images = torch.stack([image for image, _, _ in data])
    build = ifa.perturb.ablationcam(net, "conv2", images[:2], score=score)
    weighted = build(images, torch.arange(4))
    vectors = (weighted.weights[..., None, None] * weighted.activations).sum((2, 3))
    hit = torch.from_numpy(statistics["samples"]["prediction"].values >= 0)
    expected = vectors[hit].mean(0)
    np.testing.assert_allclose(statistics["conv2"]["importance_overall"], expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"task": "classification"}, r"task='scored' for the score box\(.*numbers of its rows"),
        ({"targets": "predicted"}, "targets='label', or a list of classes, for task='scored'"),
        ({"targets": [0, 1]}, "targets='label' for a score of which several rows are of one class"),
        ({"probability_weighted": True}, "probability_weighted=True for outputs that"),
        ({"target_names": ["a"]}, "a target name for each of 2 outputs"),
    ],
)
def test_wrong_use_says_what_to_do(net, boxed, score, options, text):
    with pytest.raises(ValueError, match=f"ifa.analyze: expected {text}"):
        ifa.analyze(net, boxed[0], layer="conv2", score=score, **{**QUIET, **options})


def test_a_label_that_is_no_row_is_named(net, boxed, score):
    data = [*boxed[0][:2], (boxed[0][2][0], 99, "odd")]
    with pytest.raises(
        ValueError, match=r"the rows of the score's table, got 99 for sample 2 \(id 'od"
    ):
        ifa.analyze(net, data, layer="conv2", score=score, **QUIET)


# segmenters and embeddings -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def segmenter() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 3, 1))
    return body.eval().double()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(7, 1, 6, 5, generator=torch.Generator().manual_seed(1)).double()


def importance(net: nn.Module, image: Tensor, score: Any, target: int, layer: str) -> Tensor:
    return by_hand(net, layer, image, score, target)[0].sum((-2, -1))


def test_classes_of_a_segmenter(segmenter, images):
    score, labels = ifa.score.region(), [0, 1, 2, 0, 1, 2, 0]
    data = [(image, label) for image, label in zip(images, labels, strict=True)]
    tree = ifa.analyze(segmenter, data, layer="0", score=score, **QUIET)
    every = ifa.analyze(segmenter, data, layer="0", score=score, **{**QUIET, "targets": [2, 0]})
    with torch.no_grad():
        seen = segmenter(images).argmax(1)
    there = [bool((part == label).any()) for part, label in zip(seen, labels, strict=True)]
    np.testing.assert_array_equal(tree["samples"]["prediction"] >= 0, there)
    vectors = [
        importance(segmenter, image, score, label, "0") if good else None
        for (image, label), good in zip(data, there, strict=True)
    ]
    for target in range(3):
        own = [v for v, one in zip(vectors, labels, strict=True) if one == target and v is not None]
        expected = torch.stack(own).mean(0) if own else np.full(4, np.nan)
        np.testing.assert_allclose(tree["0"]["importance"][target], expected, rtol=1e-9)
        assert int(tree["0"]["nonfinite"][target]) == labels.count(target) - len(own)
    for position, target in enumerate((2, 0)):
        np.testing.assert_allclose(
            every["0"]["importance"][position], tree["0"]["importance"][target], rtol=1e-9
        )


def test_a_mask_for_each_sample(segmenter, images):
    masks = torch.rand(7, 6, 5, generator=torch.Generator().manual_seed(3)) > 0.6
    score = ifa.score.region(mask=masks, classes=[0, 1, 2, 0, 1, 2, 0])
    data = [(image, row) for row, image in enumerate(images)]
    tree = ifa.analyze(segmenter, data, layer="0", score=score, **QUIET)
    vectors = torch.stack([importance(segmenter, x, score, row, "0") for x, row in data])
    np.testing.assert_allclose(tree["0"]["importance"][0], vectors[[0, 3, 6]].mean(0), rtol=1e-9)
    maps = ifa.maps(segmenter, data, layer="0", score=score, size=None, rectify=False, **QUIET)
    alone = ifa.score.region(mask=masks[4])
    expected = ifa.explain(
        segmenter, images[4:5], 1, layer="0", score=alone, size=None, rectify=False
    )
    np.testing.assert_allclose(maps["0"]["map"][4], expected[0], rtol=1e-9)


def test_embeddings_in_pairs_and_against_concepts(segmenter, images):
    net = nn.Sequential(*segmenter, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad():
        others = net(images.flip(0))
    data = [(image, row) for row, image in enumerate(images)]
    pairs = ifa.score.similarity(reference=others, classes=0)
    tree = ifa.analyze(net, data, layer="0", score=pairs, **QUIET)
    vectors = torch.stack([importance(net, x, pairs, row, "0") for x, row in data])
    np.testing.assert_allclose(tree["0"]["importance"][0], vectors.mean(0), rtol=1e-9)
    cosines = torch.cosine_similarity(net(images), others).detach()
    np.testing.assert_allclose(tree["samples"]["score"], cosines, rtol=1e-9)

    concepts = ifa.score.similarity(reference=others[:2], how="dot")
    labelled = [(image, 0) for image in images]
    options = {**QUIET, "targets": [1, 0]}
    tree = ifa.analyze(net, labelled, layer="0", score=concepts, **options)
    assert tree["samples"]["score"].shape == (2, 7)
    every = torch.stack([importance(net, x, concepts, 1, "0") for x in images])
    np.testing.assert_allclose(tree["0"]["importance_overall"][0], every.mean(0), rtol=1e-9)
    np.testing.assert_allclose(
        tree["samples"]["score"], (net(images) @ others[[1, 0]].T).T.detach(), rtol=1e-9
    )


def test_references_that_are_no_data_are_what_is_measured(segmenter, images, tmp_path):
    """Without classes, means of one concept and another are neither merged nor on one scale."""
    net = nn.Sequential(*segmenter, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    options: dict[str, Any] = {"layer": "0", **QUIET, "targets": [0]}
    for name, row in (("a", 0), ("b", 1)):
        score = ifa.score.similarity(reference=torch.eye(3)[row : row + 1].double())
        data = [(image, 0, f"{name} {n}") for n, image in enumerate(images)]
        tree = ifa.analyze(net, data, score=score, store=tmp_path / name, **options)
    with pytest.raises(ValueError, match=r"got score\.options\.reference"):
        ifa.merge(tmp_path / "a", tmp_path / "b")
    other = ifa.score.similarity(reference=torch.eye(3)[:1].double())
    with pytest.raises(ValueError, match="expected a scale of these very maps"):
        ifa.explain(net, images, 0, layer="0", score=other, scale=tree)


def test_consistency_is_of_what_is_found(segmenter, images):
    data = [(image, row % 2) for row, image in enumerate(images)]
    options: dict[str, Any] = {"layer": "0", "score": ifa.score.region(), **QUIET}
    every = ifa.analyze(segmenter, data, **{**options, "targets": [0, 1]})
    found = ifa.evaluate.consistency_report(every)["auroc"].values[0]
    predicted = every["samples"]["prediction"].values
    for target in (0, 1):
        sums = torch.as_tensor(every["samples/0"]["map_sum"].values[target])
        known = torch.as_tensor(every["samples/0"]["finite"].values[target])
        wanted = ifa.evaluate.auroc(sums[known], torch.as_tensor(predicted == target)[known])
        np.testing.assert_allclose(found[target], wanted)


def test_an_embedding_predicts_no_class_and_a_class_is_an_output(segmenter, images):
    net = nn.Sequential(*segmenter, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    score = ifa.score.similarity(reference=torch.eye(3).double())
    maps = ifa.explain(net, images, 0, layer="0", score=score)
    for one in (score, ifa.score.sigmoid):
        found = ifa.evaluate.confidence(net, images, maps, 0, score=one)
        assert found.predicted.isnan().all()
        assert found.after.isfinite().any()
    mask = torch.ones(1, *segmenter(images).shape[2:], dtype=torch.bool)
    wrong = ifa.score.region(mask=mask, classes=3)
    with pytest.raises(ValueError, match=r"region: expected classes in 0\.\.2, .* got 3 for row 0"):
        ifa.explain(segmenter, images, 0, layer="0", score=wrong)

    def own(output: Tensor, target: Tensor, rows: float) -> Tensor:
        return rows * output.mean()

    ifa.explain(segmenter, images, 0, layer="0", score=partial(own, rows=2.0))  # no table
