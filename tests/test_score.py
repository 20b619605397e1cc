"""Scores against float64 references, under vmap, and through a tap."""

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ifa
from ifa import score

ROWS = [5, 0, 0, 3, 1, 2]
CONTRASTED = [[4, 2], [1], [5, 3, 1, 2, 4], [2, 1], [0], [2, 4]]
MASKS = torch.randn(6, 4, 5, generator=torch.Generator().manual_seed(4)) > 0.4
REFERENCES = torch.randn(6, 6, generator=torch.Generator().manual_seed(5))

CHOICES: dict[str, tuple[Any, tuple[int, ...]]] = {
    "logit": (score.logit, (6,)),
    "probability": (score.probability, (6,)),
    "log_probability": (score.log_probability, (6,)),
    "contrast": (score.contrast(), (6,)),
    "contrast, one": (score.contrast(gamma=0.3, references=1), (6,)),
    "contrast, all": (score.contrast(references=99), (6,)),
    "contrast, given": (score.contrast(references=[4, 2]), (6,)),
    "sigmoid": (score.sigmoid, (6,)),
    "value": (score.value, (6,)),
    "log_value": (score.log_value, (6,)),
    "log_odds": (score.log_odds, (6,)),
    "region": (score.region(), (6, 4, 5)),
    "region, 3-D": (score.region(), (6, 2, 3, 4)),
    "region, mask": (score.region(mask=torch.arange(7) % 3 == 1), (6, 7)),
    "region, sum": (score.region(mask=torch.arange(7) % 3 == 1, reduction="sum"), (6, 7)),
    "similarity": (score.similarity(reference=torch.linspace(-1, 2, 6)), (6,)),
    "similarity, dot": (score.similarity(reference=torch.linspace(-1, 2, 6), how="dot"), (6,)),
    "similarity, difference": (
        score.similarity(reference=torch.linspace(-1, 2, 6), how="difference"),
        (6,),
    ),
    # tables, whose target is the number of a row
    "contrast, rows": (
        score.contrast(gamma=0.3, references=CONTRASTED, classes=ROWS),
        (6,),
    ),
    "region, rows": (score.region(mask=MASKS, classes=ROWS), (6, 4, 5)),
    "region, rows, sum": (score.region(mask=MASKS, classes=2, reduction="sum"), (6, 4, 5)),
    "similarity, rows": (score.similarity(reference=REFERENCES), (6,)),
    "similarity, rows, dot": (
        score.similarity(reference=REFERENCES, classes=[0, 1, 1, 0, 1, 0], how="dot"),
        (6,),
    ),
}


PROBABILITIES = ("value", "log_value", "log_odds")


def outputs(shape: tuple[int, ...], samples: int = 5, name: str = "") -> Tensor:
    generator = torch.Generator().manual_seed(3)
    found = 3 * torch.randn(samples, *shape, generator=generator, dtype=torch.float64)
    return found.sigmoid() if name in PROBABILITIES else found


def reference(name: str, z: np.ndarray, t: int) -> float:
    """Write each score from its formula, in numpy."""
    if name in ("logit", "value"):
        return z[t]
    if name == "sigmoid":
        return 1 / (1 + np.exp(-z[t]))
    if name in ("log_value", "log_odds"):
        return np.log(z[t] if name == "log_value" else z[t] / (1 - z[t]))
    if name in ("probability", "log_probability"):
        p = np.exp(z[t]) / np.exp(z).sum()
        return p if name == "probability" else np.log(p)
    if name == "contrast, rows":
        chosen = [d for d in CONTRASTED[t] if d != ROWS[t]]
        return z[ROWS[t]] - 0.3 * np.mean([z[d] for d in chosen])
    if name.startswith("region, rows"):
        total = np.sum if name.endswith("sum") else np.mean
        return total(z[2 if name.endswith("sum") else ROWS[t]][MASKS[t].numpy()])
    if name.startswith("similarity, rows"):
        r = REFERENCES[t].double().numpy()
        return z @ r / (1 if name.endswith("dot") else np.linalg.norm(z) * np.linalg.norm(r))
    if name.startswith("contrast"):
        others = sorted((d for d in range(len(z)) if d != t), key=lambda d: abs(z[d] - z[t]))
        gamma = 0.3 if name == "contrast, one" else 0.6
        chosen = others[: {"contrast, one": 1, "contrast": 3}.get(name, 99)]
        if name == "contrast, given":
            chosen = [d for d in (4, 2) if d != t]
        return z[t] - gamma * np.mean([z[d] for d in chosen])
    if name in ("region, mask", "region, sum"):
        inside = z[t][np.arange(7) % 3 == 1]
        return inside.mean() if name == "region, mask" else inside.sum()
    if name.startswith("region"):
        inside = z[t][z.argmax(0) == t]
        return inside.mean() if inside.size else np.nan
    r = np.linspace(-1, 2, 6)
    cosine = z @ r / np.linalg.norm(z) / np.linalg.norm(r)
    return {"similarity, dot": z @ r, "similarity, difference": 1 - cosine}.get(name, cosine)


def test_every_public_score_is_in_the_table():
    own = {"box"}  # in test_boxes.py: its output is a mapping
    assert {name.split(",")[0] for name in CHOICES} | own == set(score.__all__)


@pytest.mark.parametrize("name", CHOICES)
def test_equals_the_formula(name):
    function, shape = CHOICES[name]
    for z in outputs(shape, name=name):
        for t in range(6):
            found = function(z, torch.tensor(t))
            assert found.shape == ()
            assert found.dtype == torch.float64
            expected = reference(name, z.numpy(), t)
            np.testing.assert_allclose(found.item(), expected, rtol=1e-6)  # the float32 reference


@pytest.mark.parametrize("name", CHOICES)
def test_mapped_equals_a_loop_and_gradients_equal_differences(name):
    function, shape = CHOICES[name]
    z, targets = outputs(shape, name=name), torch.tensor([[0, 5, 2, 4, 1], [3, 3, 3, 0, 2]])
    mapped = torch.func.vmap(torch.func.vmap(function), in_dims=(None, 0))(z, targets)
    loop = [[function(one, t) for one, t in zip(z, row, strict=True)] for row in targets]
    torch.testing.assert_close(mapped, torch.tensor(loop, dtype=torch.float64))
    step = 1e-6 * outputs(shape, 6)[1:].flip(1)
    for t in range(6):
        target = torch.tensor(t)
        gradient = torch.func.grad(function)(z[0], target)
        difference = function(z[0] + step[0], target) - function(z[0] - step[0], target)
        torch.testing.assert_close((gradient * step[0]).sum(), difference / 2, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", CHOICES)
def test_scores_pickle_and_print(name):
    function, shape = CHOICES[name]
    again = pickle.loads(pickle.dumps(function))
    z, target = outputs(shape, name=name)[0], torch.tensor(1)
    assert torch.equal(again(z, target), function(z, target))
    assert ifa.chains.describe(function).startswith(name.split(",")[0])


@pytest.mark.parametrize(("read", "whole"), [("log_value", "softmax"), ("log_odds", "sigmoid")])
def test_scores_of_probabilities_have_the_gradients_of_scores_of_logits(read, whole):
    z, target = outputs((6,))[0], torch.tensor(2)
    end = getattr(torch, whole)
    of_logits = {"softmax": score.log_probability, "sigmoid": score.logit}[whole]
    function = getattr(score, read)
    ends = (lambda z: end(z, 0)) if whole == "softmax" else end
    found = torch.func.grad(lambda z: function(ends(z), target))(z)
    torch.testing.assert_close(found, torch.func.grad(of_logits)(z, target))
    torch.testing.assert_close(function(ends(z), target), of_logits(z, target))


@pytest.mark.parametrize("name", ["sigmoid", "value", "log_value", "log_odds"])
def test_the_only_output_may_have_no_axis(name):
    one = torch.tensor(0.25)
    assert getattr(score, name)(one, torch.tensor(0)) == getattr(score, name)(
        one[None], torch.tensor(0)
    )


def test_equal_distances_are_broken_by_index():
    z = torch.tensor([2.0, 1.0, 3.0, 1.0, 3.0])
    nearest = score.contrast(gamma=1.0, references=2)(z, torch.tensor(0))
    assert nearest == 2.0 - (1.0 + 3.0) / 2


def test_a_target_among_its_references_is_left_out():
    z = torch.tensor([2.0, 1.0, 3.0])
    found = score.contrast(gamma=1.0, references=[0, 2])
    assert found(z, torch.tensor(0)) == -1
    assert found(z, torch.tensor(1)) == -1.5
    assert score.contrast(references=[0])(z, torch.tensor(0)).isnan()


def test_a_region_that_is_predicted_nowhere_is_nan_as_is_its_gradient():
    z = torch.tensor([[3.0, 1.0], [0.0, 0.0], [0.0, 9.0]])
    assert score.region()(z, torch.tensor(1)).isnan()
    assert torch.func.grad(score.region())(z, torch.tensor(1))[1].isnan().all()
    lost = torch.tensor([[3.0, -torch.inf], [0.0, 0.0]])
    assert score.region()(lost, torch.tensor(0)) == 3
    assert torch.func.grad(score.region())(lost, torch.tensor(0)).tolist() == [[1, 0], [0, 0]]


def test_similarity_of_extreme_embeddings():
    reference = torch.tensor([3.0, 4.0])
    for size in (1e-38, 1e-20, 1.0, 1e20, 1e38):
        found = score.similarity(reference=reference)(size * torch.tensor([1.0, 0.0]), None)
        torch.testing.assert_close(found, torch.tensor(0.6))
    assert score.similarity(reference=reference)(torch.zeros(2), None).isnan()


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda z, t: score.contrast(references=0), "contrast: expected references >= 1"),
        (lambda z, t: score.contrast(references=[]), "contrast: expected distinct indices"),
        (lambda z, t: score.contrast(references=[1, 1]), "contrast: expected distinct indices"),
        (lambda z, t: score.contrast(references=[-1]), "contrast: expected distinct indices"),
        (lambda z, t: score.contrast(references=[[1], [2]]), "contrast: .*classes= which class"),
        (
            lambda z, t: score.contrast(references=[[1], []], classes=0),
            "contrast: expected a row of",
        ),
        (
            lambda z, t: score.contrast(references=[[1], [1, 1]], classes=0),
            "contrast: expected a ro",
        ),
        (lambda z, t: score.contrast(references=2, classes=[0]), "contrast: expected a row of"),
        (
            lambda z, t: score.contrast(references=[[1]], classes=[0, 1]),
            "contrast: .*each of 1 rows",
        ),
        (
            lambda z, t: score.contrast(references=[[1]], classes=-1),
            "contrast: .*classes of 0 or mo",
        ),
        (
            lambda z, t: score.contrast(references=[[6]], classes=0)(z, t),
            r"contrast: .*0\.\.5.*got 6",
        ),
        (lambda z, t: score.contrast(gamma=float("nan")), "contrast: expected gamma to be finite"),
        (lambda z, t: score.contrast(gamma=float("inf")), "contrast: expected gamma to be finite"),
        (lambda z, t: score.contrast(gamma=-0.1), "contrast: expected gamma to be finite"),
        (lambda z, t: score.contrast(references=[6])(z, t), r"contrast: .*in 0\.\.5.*got 6"),
        (lambda z, t: score.contrast()(z[:1], t), "contrast: expected at least 2 outputs"),
        (lambda z, t: score.contrast()(z[:, None], t), r"contrast: expected an output of shape"),
        (lambda z, t: score.probability(z[:1], t), "probability: .* at least 2 .*score.sigmoid"),
        (lambda z, t: score.log_probability(z[0], t), "log_probability: .* at least 2 classes"),
        (lambda z, t: score.region()(z, t), r"region: expected .* \(class, \*space\).*\(6,\)"),
        (
            lambda z, t: score.region(mask=torch.ones(2).bool())(z[:, None], t),
            r"region: expected an output of shape \(class, 2\)",
        ),
        (lambda z, t: score.region(mask=torch.ones(2)), "region: expected a boolean mask"),
        (lambda z, t: score.region(mask=torch.zeros(2).bool()), "region: .* with 0 places"),
        (lambda z, t: score.region(classes=[0]), "region: expected a mask for each"),
        (lambda z, t: score.region(reduction="max"), "region: expected reduction"),
        (
            lambda z, t: score.region(mask=MASKS & (torch.arange(6) > 0)[:, None, None], classes=0),
            "region: .*one row has none",
        ),
        (lambda z, t: score.region(mask=MASKS, classes=[0]), "region: .*each of 6 rows"),
        (
            lambda z, t: score.similarity(reference=z[None, None]),
            "similarity: expected a reference",
        ),
        (lambda z, t: score.similarity(reference=z, classes=[0]), "similarity: .*for classes"),
        (lambda z, t: score.similarity(reference=z, how="l2"), "similarity: expected how"),
        (
            lambda z, t: score.similarity(reference=0 * REFERENCES),
            "similarity: expected a reference",
        ),
        (lambda z, t: score.similarity(reference=0 * z), "similarity: expected a reference"),
        (lambda z, t: score.similarity(reference=z[1:])(z, t), "similarity: expected an output"),
    ],
)
def test_wrong_use_says_what_to_do(wrong, text):
    with pytest.raises(ValueError, match=text):
        wrong(outputs((6,))[0], torch.tensor(0))


@pytest.mark.parametrize(
    ("function", "dense", "name"),
    [
        (score.contrast(), False, "contrast"),
        (score.similarity(reference=torch.linspace(-1, 2, 4)), False, "similarity"),
        (score.region(), True, "region"),
        (score.region(mask=torch.arange(35).reshape(7, 5) > 9), True, "region"),
    ],
)
def test_through_a_tap(function, dense, name):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Conv2d(3, 4, 1)).eval()
    if not dense:
        net.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten()])
    inputs = torch.randn(3, 2, 9, 7, generator=torch.Generator().manual_seed(1))
    tap = ifa.tap(net, "0", inputs, score=function)
    assert tap.unit == name
    assert name in repr(tap)
    assert tap.outputs == 4
    with torch.no_grad():
        raw = net(inputs)
    targets = raw.flatten(2).argmax(1)[:, 0] if dense else torch.tensor([2, 0, 3])
    features = tap(inputs, targets[None].expand(2, 3))
    for i in range(3):
        leaf = net[0](inputs[i : i + 1]).detach().requires_grad_()
        function(net[1:](leaf)[0], targets[i]).backward()
        torch.testing.assert_close(features.gradients[1, i], leaf.grad[0])
