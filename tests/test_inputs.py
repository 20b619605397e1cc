"""Inputs are trees: what a tap, a method or a metric says of several tensors at once.

What holds for every network is in the laws (`test_laws.py`, on `models.image_and_age`, `siamese`
and `masked_text`); here are real models, and what a tree may look like.
"""

import copy
import importlib
import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.utils import _pytree as pytree

import ifa
from ifa.testing import assert_trees_close, models

SMALL = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20}
VIT = {"hidden_size": 16, "num_labels": 5, "image_size": 8, "patch_size": 2, "num_channels": 1}
exactly = partial(assert_trees_close, rtol=0, atol=0)


def hugging_face(name: str, kind: str, **config: Any) -> nn.Module:
    module = importlib.import_module(f"transformers.models.{name.lower()}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return getattr(module, name + kind)(getattr(module, f"{name}Config")(**config)).eval()


def vit() -> nn.Module:
    return hugging_face("ViT", "ForImageClassification", **SMALL, **VIT)


def resnet() -> nn.Module:
    sizes: dict[str, Any] = {"embedding_size": 4, "hidden_sizes": [4, 6], "depths": [1, 1]}
    sizes |= {"layer_type": "basic", "num_channels": 2, "num_labels": 5}
    return hugging_face("ResNet", "ForImageClassification", **sizes)


def bert() -> nn.Module:
    sizes = {"vocab_size": 30, "hidden_size": 16, "num_labels": 5, **SMALL}
    return hugging_face("Bert", "ForSequenceClassification", **sizes)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def text(samples: int = 3) -> dict[str, Tensor]:
    ids = torch.arange(samples * 7).reshape(samples, 7) % 30
    return {"input_ids": ids, "attention_mask": (ids % 5 > 0).long()}


class Real(NamedTuple):
    """A real model, its inputs, and a layer with a grid."""

    model: nn.Module
    inputs: dict[str, Tensor]
    layer: str


REAL = {
    "ViT": Real(vit(), {"pixel_values": noise(3, 1, 8, 8)}, "vit.layers.0"),
    "ResNet": Real(resnet(), {"pixel_values": noise(3, 2, 24, 32)}, "resnet.encoder.stages.1"),
    "BERT": Real(bert(), text(), "bert.encoder.layer.0"),
}


def by_autograd(model, layer, inputs, target):
    """Activations of a layer and the gradient there, with a hook on the model itself."""
    seen = []

    def keep(module, args, output):
        seen.append(output[0] if isinstance(output, tuple) else output)
        seen[0].retain_grad()

    with torch.enable_grad():
        handle = model.get_submodule(layer).register_forward_hook(keep)
        model(**inputs).logits[:, target].sum().backward()
        handle.remove()
    model.zero_grad()
    return seen[0].detach(), seen[0].grad


@pytest.mark.parametrize("name", REAL)
def test_a_tap_of_a_real_model_equals_autograd(name):
    model, inputs, layer = REAL[name]
    features = ifa.tap(model, layer, inputs)(inputs, 3)
    activations, gradients = by_autograd(model, layer, inputs, 3)
    if name == "ViT":
        grid = ifa.tokens(prefix=1, grid=(4, 4))
        activations, gradients = grid(activations), grid(gradients)
    elif name == "BERT":
        activations, gradients = activations.mT, gradients.mT
    assert_trees_close(features.activations, activations)
    assert_trees_close(features.gradients, gradients, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", REAL)
def test_a_head_of_a_real_model_replays(name):
    model, inputs, layer = REAL[name]
    activations, head = ifa.cut(model, layer, inputs)(inputs)
    assert "by replay" in repr(head)
    with torch.no_grad():
        assert_trees_close(head(activations), model(**inputs).logits)


def test_a_tokenizers_batch_is_a_mapping():
    from transformers import BatchEncoding

    model, inputs, layer = REAL["BERT"]
    tapped = ifa.tap(model, layer, BatchEncoding(inputs))
    exactly(tapped(BatchEncoding(inputs), 1), ifa.tap(model, layer, inputs)(inputs, 1))


class Nested(nn.Module):
    """Views in a dictionary of a list, a flag and something that may be missing."""

    def __init__(self):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(1, 3, 3), nn.Linear(3, 4)

    def forward(self, views, *, age=None, twice=False, mode="mean"):
        maps = self.conv(views["all"][0] + views["all"][1]).square()
        pooled = maps.mean((2, 3)) if mode == "mean" else maps.amax((2, 3))
        pooled = pooled if age is None else pooled * age[:, None]
        return self.linear(2 * pooled if twice else pooled)


NESTED = Nested().eval()


def nested(samples: int = 3, **options: Any) -> dict[str, Any]:
    views = [noise(samples, 1, 6, 5, seed=seed) for seed in (1, 2)]
    return {"views": {"all": views}, **options}


def test_tensors_may_be_nested_and_flags_are_passed_on():
    features = ifa.tap(NESTED, "conv", nested())(nested(), 2)
    exactly(
        features.activations,
        NESTED.conv(nested()["views"]["all"][0] + noise(3, 1, 6, 5, seed=2)).detach(),
    )
    tapped = ifa.tap(NESTED, "conv", nested(twice=True, age=None, mode="max"))
    other = tapped(nested(twice=True, age=None, mode="max"), 2)
    assert not torch.equal(other.gradients, features.gradients)
    # one number for each sample has the sample axis only
    aged = ifa.tap(NESTED, "conv", nested(age=torch.ones(3)))
    doubled = aged(nested(age=torch.full((3,), 2.0)), 2)
    exactly(doubled.gradients, 2 * features.gradients)
    activations, head = ifa.cut(NESTED, "conv", nested(age=torch.ones(2), samples=2))(
        nested(age=torch.arange(3.0))
    )
    exactly(head(activations)[0], NESTED.linear.bias.detach())


def test_tokens_are_laid_out_as_the_convolution_that_makes_them_whatever_tensor_is_first():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.vit = models.small_vit()

        def forward(self, age, small, image):
            return self.vit(image) + age + small.mean((1, 2, 3))[:, None]

    model = Both().eval()
    inputs = {"age": noise(2, 1), "small": noise(2, 1, 5, 7), "image": noise(2, 1, 10, 15)}
    tapped = ifa.tap(model, "vit.blocks.0", inputs, grid_of="image")
    assert tapped.grids == (ifa.tokens(prefix=1, grid=(2, 3)),)
    assert ifa.tap(model, "vit.blocks.0", inputs).grids == tapped.grids
    make = partial(
        ifa.explain,
        model,
        inputs,
        1,
        layer="vit.blocks.0",
        placing="even",
        weight=ifa.weight.gradcam,
    )
    assert make().shape == (2, 5, 7)
    assert make(grid_of="image").shape == (2, 10, 15)
    with pytest.raises(LookupError, match="got 'mri' for age, small, image"):
        make(grid_of="mri")


@pytest.mark.parametrize("build", [models.image_and_age, models.siamese, models.masked_text])
def test_taps_of_trees_pickle_run_in_threads_and_take_parameters(build):
    model = build()
    inputs, layer = models.inputs(model, 4), "conv#1" if build is models.siamese else "conv"
    tapped = ifa.tap(model, layer, inputs)
    expected = tapped(inputs, 1)
    exactly(pickle.loads(pickle.dumps(tapped))(inputs, 1), expected)
    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(lambda _: tapped(inputs, 1), range(4)):
            exactly(found, expected)
    params = {name: tensor.detach() for name, tensor in model.named_parameters()}
    stacked = {name: torch.stack([tensor, 2 * tensor]) for name, tensor in params.items()}
    found = vmap(lambda one: tapped(inputs, 1, one).gradients)(stacked)
    doubled = {name: 2 * tensor for name, tensor in params.items()}
    assert_trees_close(found[0], expected.gradients)
    assert_trees_close(found[1], tapped(inputs, 1, doubled).gradients)
    twice = pytree.tree_map(lambda tensor: torch.stack([tensor, tensor]), inputs)
    mapped = vmap(partial(tapped, target=1))(twice)
    assert_trees_close(mapped.gradients[1], expected.gradients)


def test_a_model_that_writes_to_its_inputs_gets_copies():
    class Writing(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(1, 2, 3)

        def forward(self, image, age):
            return self.conv(image).mean(2) * age.mul_(2.0)

    inputs = (noise(2, 1, 5), noise(2, 1))
    before = tuple(tensor.clone() for tensor in inputs)
    model = Writing().eval()
    features = ifa.tap(model, "conv", inputs)(inputs, 0)
    activations, head = ifa.cut(model, "conv", inputs)(inputs)
    head(activations)
    exactly(inputs, before)
    exactly(features.gradients[:, 0], (2 * before[1] / 3).expand(2, 3))


# maps, with and without gradients -----------------------------------------------------------------

PERTURBATIONS = {
    "ablationcam": {},
    "iscam": {"draws": 2},
    "reciprocam": {},
    "scorecam": {},
    "shapleycam": {},
    "smooth_gradcam_plus_plus": {"draws": 2},
    "sscam": {"draws": 2},
}


def test_every_perturbation_has_a_row():
    assert set(PERTURBATIONS) == set(ifa.perturb.__all__)


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_a_perturbation_takes_a_tuple_as_it_takes_a_tensor(name):
    build, model = partial(getattr(ifa.perturb, name), **PERTURBATIONS[name]), models.batch_norm()
    inputs = models.inputs(model, 3)
    expected = build(model, "conv", inputs)(inputs)
    exactly(build(model, "conv", (inputs,))((inputs,)), expected)


@pytest.mark.parametrize("name", PERTURBATIONS)
@pytest.mark.parametrize("build", [models.image_and_age, models.siamese])
def test_a_perturbation_of_several_tensors_is_that_of_the_others_held(name, build):
    model, layer = build(), "conv#2" if build is models.siamese else "conv"
    inputs = models.inputs(model, 3)
    key, others = ("image", {"age"}) if isinstance(inputs, dict) else (0, {1})
    if name == "smooth_gradcam_plus_plus":  # noise is for all of them
        others = set()
    make = partial(getattr(ifa.perturb, name), **PERTURBATIONS[name])
    found = make(model, layer, inputs)(inputs, 1)

    class Held(nn.Module):
        """The network of one of its inputs, of one sample, the others as they are."""

        def __init__(self, held: Any):
            super().__init__()
            self.model, self.held = model, held

        def forward(self, image: Tensor) -> Tensor:
            rest = {name: one.expand(len(image), *one.shape[1:]) for name, one in self.held.items()}
            if isinstance(inputs, dict):
                return self.model(image=image, **rest)
            return self.model(image, rest[1])

    for sample in range(3 if others else 0):
        held = {name: inputs[name][sample : sample + 1] for name in others}
        one = inputs[key][sample : sample + 1]
        alone = make(Held(held).eval(), f"model.{layer}", one)(one, 1)
        assert_trees_close(found.weights[sample], alone.weights[0])
    assert found.weights.shape[:2] == (3, 5)
    assert found.weights.isfinite().all()
    first = make(model, layer, inputs)(take(inputs, slice(1)), 1)
    assert_trees_close(first.weights, found.weights[:1])


def take(inputs: Any, index: Any) -> Any:
    return pytree.tree_map(lambda tensor: tensor[index], inputs)


def test_noise_of_several_tensors_is_drawn_for_each():
    model = models.siamese()
    left, _ = models.inputs(model, 1)
    make = partial(ifa.perturb.smooth_gradcam_plus_plus, model, "conv#1", draws=2)
    apart = make((left, left), stdev=1.0)((left, left), 1).weights
    plain = make((left, left), stdev=0.0)((left, left), 1).weights
    assert not torch.equal(apart, plain)


@pytest.mark.parametrize("weight", [ifa.weight.fullcam, ifa.weight.gradcam, ifa.perturb.scorecam])
def test_explain_takes_trees(weight):
    for build, layer in ((models.image_and_age, "conv"), (models.siamese, "conv#1")):
        model = build()
        inputs = models.inputs(model, 3)
        maps = ifa.explain(model, inputs, 1, layer=layer, weight=weight)
        assert maps.shape == (3, 7, 11)
        single = ifa.explain(model, take(inputs, slice(1)), 1, layer=layer, weight=weight)
        assert_trees_close(single, maps[:1])
    model = models.batch_norm()
    inputs = models.inputs(model, 3)
    expected = ifa.explain(model, inputs, layer="conv", weight=weight)
    exactly(ifa.explain(model, (inputs,), layer="conv", weight=weight), expected)


@pytest.mark.parametrize("name", REAL)
def test_explain_takes_the_inputs_of_real_models(name):
    model, inputs, layer = REAL[name]
    maps = ifa.explain(model, inputs, 2, layer=layer, weight=ifa.weight.gradcam)
    space = (7,) if name == "BERT" else inputs["pixel_values"].shape[2:]
    assert maps.shape == (3, *space)
    assert maps.any()
    weights = ifa.perturb.ablationcam(model, layer, inputs)(inputs, 2).weights
    assert weights.isfinite().all()
    assert weights.any()


def test_words_cannot_be_masked():
    model = models.masked_text()
    inputs = models.inputs(model)
    with pytest.raises(
        TypeError, match=r"ifa\.perturb\.scorecam: expected inputs of a floating dtype"
    ):
        ifa.perturb.scorecam(model, "conv", inputs)


def test_explain_does_not_remember_what_another_flag_showed():
    class Switched(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.other = nn.Conv1d(1, 2, 3), nn.Conv1d(1, 2, 5)

        def forward(self, signal, wide=False):
            return (self.other if wide else self.conv)(signal).square().mean(2)

    model = Switched().eval()
    narrow, wide = ({"signal": noise(2, 1, 9), "wide": wide} for wide in (False, True))
    assert ifa.explain(model, narrow, 0, layer="conv", size=None).shape == (2, 7)
    assert ifa.explain(model, wide, 0, layer="other", size=None).shape == (2, 5)
    with pytest.raises(LookupError):
        ifa.explain(model, wide, 0, layer="conv")


# attributions -------------------------------------------------------------------------------------

attribute = ifa.attribute
WALKED = {
    "integrated_gradients": partial(attribute.integrated_gradients, steps=40),
    "integrated_gradients-many": partial(
        attribute.integrated_gradients, steps=40, baseline=[0.0, ifa.baseline.black]
    ),
    "blur_integrated_gradients": partial(attribute.blur_integrated_gradients, sigma=2.0),
    "guided_integrated_gradients": partial(attribute.guided_integrated_gradients, steps=100),
    "gradient_shap": partial(attribute.gradient_shap, draws=500, stdev=0.01),
}
TREES = {
    "image_and_age": models.image_and_age(),
    "siamese": models.siamese(),
    "nested": NESTED,
    "ViT": vit(),
}


def tree(name: str, samples: int = 2) -> Any:
    if name == "nested":
        return nested(samples, age=1 + torch.arange(samples) / 2, twice=True)
    if name == "ViT":
        return {"pixel_values": noise(samples, 1, 8, 8)}
    return models.inputs(TREES[name], samples)


def run(model, inputs):
    with torch.no_grad():
        found = model(**inputs) if isinstance(inputs, dict) else model(*inputs)
    return getattr(found, "logits", found)


def tensors(found):
    return [leaf for leaf in pytree.tree_leaves(found) if isinstance(leaf, Tensor)]


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("walk", WALKED)
def test_a_path_through_all_tensors_is_complete(name, walk):
    model, inputs = TREES[name], tree(name)
    found = WALKED[walk](model).observe(inputs, 1)
    shapes = [one.shape for one in tensors(inputs)]
    assert [one.shape for one in tensors(found.values)] == shapes
    total = sum(one.flatten(1).sum(1) if one.ndim > 1 else one for one in tensors(found.values))
    assert_trees_close(total, found.total + found.gap)
    part = 0.2 if walk == "gradient_shap" else 0.05  # draws, or a rule
    assert (found.gap.abs() < part * found.total.abs().max()).all()
    if walk == "integrated_gradients":
        blank = pytree.tree_map(lambda one: 0 * one if isinstance(one, Tensor) else one, inputs)
        expected = run(model, inputs)[:, 1] - run(model, blank)[:, 1]
        assert_trees_close(total, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", TREES)
def test_gradients_of_all_tensors_equal_autograd(name):
    model, inputs = TREES[name], tree(name, 3)
    found = attribute.gradient(model)(inputs, 2)
    starts = pytree.tree_map(
        lambda one: one.clone().requires_grad_() if isinstance(one, Tensor) else one, inputs
    )
    with torch.enable_grad():
        output = model(**starts) if isinstance(inputs, dict) else model(*starts)
        scores = getattr(output, "logits", output)[:, 2].sum()
        expected = torch.autograd.grad(scores, tensors(starts))
    for one, other in zip(tensors(found), expected, strict=True):
        assert_trees_close(one, other, rtol=1e-5, atol=1e-7)
    many = torch.tensor([[2, 2, 2], [0, 1, 2]])
    rows = attribute.gradient(model)(inputs, many)
    assert_trees_close([one[0] for one in tensors(rows)], tensors(found), rtol=1e-5, atol=1e-7)
    saliency = attribute.saliency(model)(inputs, 2)
    exactly(tensors(saliency), [one.abs() for one in tensors(found)])


def test_what_is_not_real_has_no_attribution():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.linear = nn.Conv1d(2, 3, 3, padding=1), nn.Linear(3, 4)

        def forward(self, signal, mask, names=None):
            return self.linear((self.conv(signal).square() * mask[:, None]).mean(2))

    model = Masked().eval()
    inputs = {
        "mask": torch.arange(14).reshape(2, 7) % 3 > 0,
        "signal": noise(2, 2, 7),
        "names": "a",
    }
    for name, build in {**WALKED, "occlusion": partial(attribute.occlusion, window=2)}.items():
        found = build(model)(inputs, 1)
        assert list(found) == ["mask", "signal", "names"], name
        assert found["mask"] is None
        assert found["names"] is None
        assert found["signal"].shape == (2, 2, 7)
    smooth = attribute.smooth(attribute.gradient(model), draws=2)(inputs, 1)
    assert smooth["mask"] is None
    exactly(
        attribute.times_input(attribute.gradient(model))(inputs, 1)["signal"],
        attribute.input_times_gradient(model)(inputs, 1)["signal"],
    )
    parts = attribute.split(attribute.gradient(model))(inputs, 1)
    assert (parts.positive["signal"] >= 0).all()
    assert attribute.collapse(attribute.gradient(model))(inputs, 1)["signal"].shape == (2, 7)
    with pytest.raises(
        TypeError, match=r"ifa\.attribute\.gradient: expected inputs of a floating dtype"
    ):
        attribute.gradient(models.masked_text())(models.inputs(models.masked_text()), 1)


def test_methods_of_a_grid_speak_of_one_tensor():
    model, inputs = TREES["image_and_age"], tree("image_and_age")
    occlude, mask = (
        partial(attribute.occlusion, window=3, stride=2),
        partial(attribute.rise, draws=3),
    )
    for build in (occlude, mask, attribute.fullgrad):
        found = build(model)(inputs, 1)
        assert found["age"] is None
        assert found["image"].shape == inputs["image"].shape
    hidden = {**inputs, "image": inputs["image"] * 0}
    lost = run(model, inputs)[:, 1] - run(model, hidden)[:, 1]
    whole = attribute.occlusion(model, window=(7, 11), stride=(7, 11))(inputs, 1)["image"]
    assert_trees_close(whole[:, 0, 0, 0], lost)
    left = attribute.occlusion(TREES["siamese"], window=3, grid_of=1)(tree("siamese"), 1)
    assert left[0] is None
    explain = partial(ifa.explain, model, layer="conv", rectify=False)
    guided = attribute.times_map(attribute.gradient(model), explain)(inputs, 1)
    maps, slopes = explain(inputs, 1), attribute.gradient(model)(inputs, 1)
    exactly(guided["image"], slopes["image"] * maps[:, None])
    vision = REAL["ViT"]
    for build in (attribute.legrad, attribute.attention_rollout):
        found = build(vision.model)(vision.inputs, 1)["pixel_values"]
        assert found.shape == (3, 1, 8, 8)


def test_full_gradients_of_a_tree_are_complete():
    class Rectified(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.hidden, self.linear = (
                nn.Conv1d(2, 3, 3),
                nn.Linear(1, 3),
                nn.Linear(3, 4),
            )

        def forward(self, signal, age):
            return self.linear(self.conv(signal).relu().mean(2) + self.hidden(age).relu())

    found = attribute.fullgrad(Rectified().eval()).observe((noise(3, 2, 9), noise(3, 1)), 2)
    assert (found.gap.abs() < 1e-6).all()


def test_baselines_may_be_trees_and_grids_are_in_the_same_units():
    model, inputs = TREES["image_and_age"], tree("image_and_age")
    baseline = {"image": ifa.baseline.mean, "age": torch.full((1,), 0.5)}
    found = attribute.integrated_gradients(model, baseline=baseline).observe(inputs, 1)
    start = {"image": ifa.baseline.mean(inputs["image"]), "age": torch.full((2, 1), 0.5)}
    assert_trees_close(found.total, run(model, inputs)[:, 1] - run(model, start)[:, 1])
    drawn = {"image": noise(4, 2, 7, 11), "age": noise(4, 1)}
    shap = attribute.gradient_shap(model, baselines=drawn, draws=5).observe(inputs, 1)
    assert shap.gap.isfinite().all()
    with pytest.raises(ValueError, match=r"expected a baseline .* \(2, 1\), .* got None"):
        attribute.integrated_gradients(model, baseline={"image": 0.0})(inputs, 1)


# metrics ------------------------------------------------------------------------------------------

evaluate = ifa.evaluate
MASKING = {
    "confidence": lambda *a, **k: evaluate.confidence(*a, **k).after,
    "deletion": lambda *a, **k: evaluate.deletion(*a, steps=3, **k).score,
    "faithfulness_correlation": partial(evaluate.faithfulness_correlation, draws=5),
    "infidelity": partial(evaluate.infidelity, draws=5),
    "insertion": lambda *a, **k: evaluate.insertion(*a, steps=3, **k).score,
    "retention": lambda *a, **k: evaluate.retention(*a, fraction=(0.3,), **k).score,
    "road": lambda *a, **k: evaluate.road(*a, fraction=(0.3,), **k).least,
}


class Beside(nn.Module):
    """The network of an image, with the other tensor of one sample held."""

    def __init__(self, name: str, held: Tensor):
        super().__init__()
        self.model, self.name, self.held = copy.deepcopy(TREES[name]).double(), name, held

    def forward(self, image: Tensor) -> Tensor:
        held = self.held.expand(len(image), *self.held.shape[1:])
        return self.model(image, held) if self.name == "image_and_age" else self.model(held, image)


@pytest.mark.parametrize("name", MASKING)
@pytest.mark.parametrize("on", ["image_and_age", "siamese"])
def test_a_metric_masks_one_tensor_and_holds_the_others(name, on):
    metric, model = MASKING[name], copy.deepcopy(TREES[on]).double()
    inputs = pytree.tree_map(Tensor.double, tree(on, 3))
    key, other = ("image", "age") if on == "image_and_age" else (1, 0)
    maps = noise(3, 7, 11, seed=5)
    found = metric(model, inputs, maps, 1, grid_of=key)
    for sample in range(3):
        one = slice(sample, sample + 1)
        alone = metric(Beside(on, inputs[other][one]).eval(), inputs[key][one], maps[one], 1)
        if name == "infidelity":  # noise of the second tensor is another
            assert alone.isfinite().all()
        else:
            assert_trees_close(found[one], alone)
    trees = {key: maps, other: None} if on == "image_and_age" else (None, maps)
    exactly(metric(model, inputs, trees, 1, grid_of=key), found)


def test_words_beside_an_image_stay_and_words_alone_cannot_be_masked():
    model, inputs, _ = REAL["BERT"]
    with pytest.raises(
        TypeError, match=r"deletion: expected inputs of a floating dtype, got torch\.int64"
    ):
        evaluate.deletion(model, inputs, torch.ones(3, 7), 1)
    model, inputs, _ = REAL["ViT"]
    curve = evaluate.deletion(model, inputs, noise(3, 8, 8), 1, steps=4)
    assert curve.score.shape == (3, 5)
    blank = {"pixel_values": 0 * inputs["pixel_values"]}
    with torch.no_grad():
        expected = model(**blank).logits.softmax(1)[:, 1].double()
    assert_trees_close(curve.score[:, -1], expected, rtol=1e-5, atol=1e-7)


def test_gradients_of_a_tree_foretell_a_linear_network():
    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(3, 4), nn.Linear(2, 4)

        def forward(self, left, right):
            return self.left(left) + self.right(right)

    model, inputs = Linear().eval(), {"left": noise(5, 3), "right": noise(5, 2)}
    slopes = attribute.gradient(model)(inputs, 1)
    options = {"score": ifa.score.logit, "draws": 20}
    assert (evaluate.infidelity(model, inputs, slopes, 1, **options) < 1e-10).all()
    wrong = {**slopes, "right": 0 * slopes["right"]}
    assert (evaluate.infidelity(model, inputs, wrong, 1, **options) > 1e-4).all()
    found = evaluate.sensitivity(attribute.input_times_gradient(model), inputs, 1, radius=0.1)
    assert (found.max > 0).all()
    assert (evaluate.sensitivity(attribute.gradient(model), inputs, 1).max < 1e-6).all()


def test_randomization_and_channels_of_trees():
    model, inputs = TREES["image_and_age"], tree("image_and_age", 3)
    found = evaluate.randomization(model, partial(ifa.explain, layer="conv"), inputs, 1)
    assert found.spearman.shape == (4, 3)
    assert_trees_close(found.spearman[0], torch.ones(3, dtype=torch.float64))

    def slopes(network, given, target):
        return attribute.collapse(attribute.gradient(network))(given, target)

    assert evaluate.randomization(model, slopes, inputs, 1).spearman.shape == (4, 3)
    mask = torch.tensor([True, False, True, True, True])
    outputs = evaluate.feature_perturbation(model, "conv", inputs, mask)
    activations, head = ifa.cut(model, "conv", inputs)(inputs)
    exactly(outputs, head(activations * mask[:, None, None]))


# populations --------------------------------------------------------------------------------------


def items(inputs: Any, labels: Any) -> list[Any]:
    """Give each sample as (input, label, id), a mapping in another order each time."""
    rows = []
    for number, label in enumerate(labels.tolist()):
        one = take(inputs, number)
        if isinstance(one, dict) and number % 2:
            one = dict(reversed(one.items()))
        rows.append((one, label, f"case {number}"))
    return rows


@pytest.mark.parametrize("workers", [None, 0, 1])
@pytest.mark.parametrize("name", ["image_and_age", "siamese", "masked_text"])
def test_a_population_of_trees(name, workers, tmp_path):
    model = getattr(models, name)()
    layer = "conv#1" if name == "siamese" else "conv"
    inputs = models.inputs(model, 7)
    labels = run(model, inputs).argmax(1)
    options = {"layer": layer, "progress": False, "batch_size": 3, "shard": 5, "workers": workers}
    statistics = ifa.analyze(model, items(inputs, labels), store=tmp_path, **options)
    features = ifa.tap(model, layer, inputs)(inputs)
    assert statistics["samples"]["id"].values.tolist() == [f"case {n}" for n in range(7)]
    importance = (features.activations * features.gradients).flatten(2).sum(2).double()
    of_class = statistics[layer]["importance"].values
    for target in labels.unique().tolist():
        expected = importance[labels == target].mean(0)
        assert_trees_close(torch.as_tensor(of_class[target]), expected, rtol=1e-5, atol=1e-7)
    again = ifa.analyze(model, items(inputs, labels), store=tmp_path, **options)
    assert again.attrs == statistics.attrs
    changed = pytree.tree_map(lambda one: one.roll(1, 0), inputs)
    with pytest.raises(ValueError, match="data"):
        ifa.analyze(model, items(changed, labels), store=tmp_path, **options)


def test_maps_of_a_population_of_trees():
    model = models.siamese()
    inputs = models.inputs(model, 5)
    data = items(inputs, run(model, inputs).argmax(1))
    options = {"layer": "conv#2", "targets": [1], "rectify": False, "batch_size": 2}
    found = ifa.maps(model, data, grid_of=1, progress=False, **options)["conv#2"]["map"]
    expected = ifa.explain(model, inputs, 1, layer="conv#2", rectify=False, grid_of=1)
    assert_trees_close(torch.as_tensor(found.values[0]), expected)


def test_items_of_trees_are_checked_by_name():
    model = models.image_and_age()
    inputs = models.inputs(model, 2)
    data = items(inputs, torch.tensor([0, 1]))
    data[1] = ({**data[1][0], "image": torch.zeros(2, 7, 9)}, 1, "odd")
    with pytest.raises(
        ValueError, match=r"\{age: \(1,\), image: \(2, 7, 11\)\} .* sample 1 \(id 'odd'\)"
    ):
        ifa.analyze(model, data, layer="conv", progress=False)
    data[1] = ({**data[0][0], "age": "old"}, 1)
    with pytest.raises(TypeError, match="tensors or arrays of numbers, got str for sample 1"):
        ifa.analyze(model, data, layer="conv", progress=False)


def test_numbers_beside_an_image_become_a_tensor():
    class Aged(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.linear = nn.Conv1d(1, 2, 3), nn.Linear(2, 2)

        def forward(self, signal, age):
            return self.linear(self.conv(signal).square().mean(2) * age[:, None])

    model, signals, ages = Aged().eval(), noise(4, 1, 9), torch.tensor([1.0, 2.0, 3.0, 4.0])
    labels = run(model, (signals, ages)).argmax(1)
    data = [
        ((one.numpy(), age.item()), int(label))
        for one, age, label in zip(signals, ages, labels, strict=True)
    ]
    statistics = ifa.analyze(model, data, layer="conv", progress=False)
    assert int(statistics["conv"]["count"].sum()) == 4


def test_a_table_of_methods_on_trees():
    model = models.image_and_age()
    inputs = models.inputs(model, 4)
    data = items(inputs, run(model, inputs).argmax(1))
    weightings = ifa.contest.usable(model, "conv", inputs).weightings
    methods = ifa.contest.cam_methods("conv", weightings=weightings)
    metrics = {"deletion": evaluate.deletion, "insertion": evaluate.insertion}
    found = ifa.contest.table(model, data, methods, metrics, progress=False)
    assert found["value"].dims == ("method", "metric", "sample")
    assert found["value"].sel(method="noise").notnull().all()
    assert found["value"].sel(method="scorecam").notnull().all()


def test_augmented_flips_the_tensor_with_the_grid():
    model, inputs = TREES["image_and_age"], tree("image_and_age")
    explain = partial(ifa.explain, model, layer="conv", rectify=False)
    plain = ifa.augmented(explain, flips=[()], scales=[1.0])(inputs, 1)
    exactly(plain, explain(inputs, 1))
    assert ifa.augmented(explain)(inputs, 1).shape == (2, 7, 11)


def test_the_page_on_inputs_runs():
    page = Path(__file__).parents[1] / "docs" / "how-to" / "inputs.md"
    exec("\n".join(re.findall(r"```python\n(.*?)```", page.read_text(), re.S)), {})
