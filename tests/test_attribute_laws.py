"""Every attribution and transform is held to its laws, by tables that a test keeps complete."""

import pickle
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch

import ifa
from ifa import attribute
from ifa.testing import laws, models

MODELS = {
    "1-D": models.pooled_linear(1),
    "2-D, in place": models.batch_norm(),
    "3-D": models.pooled_linear(3),
    "transformer": models.small_vit(),
}
CONVOLUTIONAL = ("1-D", "2-D, in place", "3-D")
SAMPLES = {"draws": 3, "stdev": 0.1, "seed": 5}


class Case(NamedTuple):
    """How an attribution is made, on what, and what it promises beyond the laws of all."""

    build: Any
    on: tuple = CONVOLUTIONAL
    chunk: bool = False
    linear: Any = None  # its closed form on W x


def product(row, inputs):
    return row * inputs


def window_means(row, inputs):
    """Window and stride are 1: what a position alone contributes, over all channels."""
    contributions = row * inputs
    return contributions.sum(1, keepdim=True) if inputs.ndim > 2 else contributions


ATTRIBUTIONS = {
    "attention_rollout": Case(attribute.attention_rollout, ("transformer",)),
    "blur_integrated_gradients": Case(
        partial(attribute.blur_integrated_gradients, steps=60, sigma=2.0),
        (*CONVOLUTIONAL, "transformer"),
        chunk=True,
        linear=lambda row, inputs: row * (inputs - ifa.baseline.blur(2.0)(inputs)),
    ),
    "deconvnet": Case(attribute.deconvnet),
    "fullgrad": Case(attribute.fullgrad),
    "fullgrad-channel": Case(partial(attribute.fullgrad, rescale="channel")),
    "gradient": Case(
        attribute.gradient,
        (*CONVOLUTIONAL, "transformer"),
        linear=lambda row, inputs: row.expand_as(inputs),
    ),
    "gradient_shap": Case(
        partial(attribute.gradient_shap, baselines=ifa.baseline.black, **SAMPLES),
        chunk=True,
    ),
    "gradient_shap-many": Case(
        partial(attribute.gradient_shap, baselines=[0.0, 1.0], draws=3),
        chunk=True,
    ),
    "gradient_shap-mean_gradient": Case(
        partial(attribute.gradient_shap, draws=3, stdev=0.1, times_input=False),
        chunk=True,
        linear=lambda row, inputs: row.expand_as(inputs),
    ),
    "gradient_shap-one": Case(
        partial(attribute.gradient_shap, baselines=0.5, draws=3),
        linear=lambda row, inputs: row * (inputs - 0.5),
    ),
    "guided_backprop": Case(attribute.guided_backprop),
    "guided_integrated_gradients": Case(
        partial(attribute.guided_integrated_gradients, steps=6), chunk=True, linear=product
    ),
    "input_times_gradient": Case(attribute.input_times_gradient, linear=product),
    "integrated_gradients": Case(
        partial(attribute.integrated_gradients, steps=5),
        (*CONVOLUTIONAL, "transformer"),
        chunk=True,
        linear=product,
    ),
    "integrated_gradients-riemann": Case(
        partial(
            attribute.integrated_gradients,
            steps=4,
            rule="riemann",
            baseline=[ifa.baseline.white, ifa.baseline.blur(1.5), 0.5],
        ),
        chunk=True,
    ),
    "integrated_gradients-mean_gradient": Case(
        partial(
            attribute.integrated_gradients,
            steps=4,
            rule="riemann-left",
            baseline=[ifa.baseline.white, 0.5],
            times_input=False,
        ),
        chunk=True,
        linear=lambda row, inputs: row.expand_as(inputs),
    ),
    "integrated_gradients-trapezoid": Case(
        partial(attribute.integrated_gradients, steps=4, rule="trapezoid", baseline=0.25),
        chunk=True,
        linear=lambda row, inputs: row * (inputs - 0.25),
    ),
    "legrad": Case(attribute.legrad, ("transformer",)),
    "occlusion": Case(
        partial(attribute.occlusion, window=4, stride=3, baseline=ifa.baseline.mean),
        (*CONVOLUTIONAL, "transformer"),
        chunk=True,
    ),
    "occlusion-pixels": Case(partial(attribute.occlusion, window=1), (), linear=window_means),
    "rise": Case(
        partial(attribute.rise, draws=20, cells=2, fraction=0.3, baseline=0.25, seed=3),
        (*CONVOLUTIONAL, "transformer"),
        chunk=True,
    ),
    "saliency": Case(attribute.saliency, linear=lambda row, inputs: row.abs().expand_as(inputs)),
}
RECORDS = {"Attributed", "Split"}


def on_gradient(transform):
    return lambda model: transform(attribute.gradient(model))


def guided_gradcam(model):
    explain = partial(ifa.explain, model, layer="conv" if hasattr(model, "conv") else "conv2")
    return attribute.times_map(attribute.guided_backprop(model), explain)


# made of an attribution; those after the first four change the shape or make a record
TRANSFORMS = {
    "smooth": on_gradient(partial(attribute.smooth, **SAMPLES)),
    "squared": on_gradient(partial(attribute.squared, **SAMPLES)),
    "times_input": on_gradient(attribute.times_input),
    "times_map": guided_gradcam,
    "variance": on_gradient(partial(attribute.variance, **SAMPLES)),
    "collapse": on_gradient(attribute.collapse),
    "collapse-mean": on_gradient(partial(attribute.collapse, how="mean")),
    "collapse-sum": on_gradient(partial(attribute.collapse, how="sum")),
    "split": on_gradient(attribute.split),
}
RESHAPING = ("collapse", "split")


def test_everything_public_has_a_row():
    rows = {name.split("-")[0] for name in (*ATTRIBUTIONS, *TRANSFORMS)}
    assert rows == set(attribute.__all__) - RECORDS


HELD = [
    pytest.param(case.build, on, law, id=f"{name}-{on}-{law.__name__}")
    for name, case in ATTRIBUTIONS.items()
    for on in case.on
    for law in laws.ATTRIBUTION
] + [
    pytest.param(build, on, law, id=f"{name}-{on}-{law.__name__}")
    for name, build in TRANSFORMS.items()
    for on in ("1-D", "2-D, in place")
    for law in laws.ATTRIBUTION
    if law is not laws.an_attribution_is_shaped_like_the_inputs or not name.startswith(RESHAPING)
]


@pytest.mark.parametrize(("build", "on", "law"), HELD)
def test_attribution(build, on, law):
    law(build, MODELS[on], examples=2)


@pytest.mark.parametrize("name", [name for name, case in ATTRIBUTIONS.items() if case.chunk])
def test_chunk(name):
    case = ATTRIBUTIONS[name]
    law = laws.an_attribution_does_not_depend_on_its_chunk
    law(case.build, MODELS[case.on[0]], examples=5)


# What sums to a difference of scores, on a network of kinks, and how well for so many steps.
COMPLETE = {
    "blur_integrated_gradients": ({"steps": 100, "sigma": 2.0}, 0.01),
    "gradient_shap": ({"draws": 400, "stdev": 0.2, "baselines": [0.0, 0.5]}, 0.1),
    "guided_integrated_gradients": ({"steps": 200}, 0.01),
    "integrated_gradients": ({"steps": 100}, 0.02),
}


@pytest.mark.parametrize("name", COMPLETE)
def test_complete(name):
    options, tolerance = COMPLETE[name]
    build = partial(getattr(attribute, name), **options)
    laws.an_attribution_is_complete(build, MODELS["1-D"], tolerance=tolerance, examples=3)


def test_what_says_whether_it_is_complete_has_a_row():
    seen = {name.split("-")[0] for name, case in ATTRIBUTIONS.items() if observes(case)}
    # its contributions are of biases too, and no part of the map: tests/test_attribute.py
    assert seen == set(COMPLETE) | {"fullgrad"}


def observes(case):
    return hasattr(case.build(MODELS["1-D"]), "observe")


@pytest.mark.parametrize("name", [name for name, case in ATTRIBUTIONS.items() if case.linear])
def test_linear(name):
    case = ATTRIBUTIONS[name]
    laws.a_linear_network_has_a_closed_form(case.build, case.linear, examples=8)


LIMITS = {
    "smooth": (attribute.smooth, lambda base: base),
    "squared": (attribute.squared, torch.square),
    "variance": (attribute.variance, torch.zeros_like),
}


@pytest.mark.parametrize("name", LIMITS)
def test_no_noise(name):
    transform, limit = LIMITS[name]
    still = partial(transform, draws=3, stdev=0.0)
    laws.a_transform_without_noise_is_its_limit(still, MODELS["1-D"], limit=limit, examples=5)


def bump(inputs, target):
    return inputs[:, 0].abs()


BUMPED = partial(attribute.times_map, explain=bump)
COMMUTING = {
    "times_input, times_map": (attribute.times_input, BUMPED),
    "times_map, sum": (BUMPED, partial(attribute.collapse, how="sum")),
    "times_map, mean": (BUMPED, partial(attribute.collapse, how="mean")),
    # a map that is not negative changes no sign and no order
    "times_map, absmax": (BUMPED, attribute.collapse),
}


@pytest.mark.parametrize("name", COMMUTING)
def test_commuting(name):
    laws.transforms_commute(*COMMUTING[name], MODELS["2-D, in place"], examples=5)


def test_chaining():
    steps = (
        partial(attribute.smooth, **SAMPLES),
        attribute.times_input,
        BUMPED,
        attribute.collapse,
    )
    laws.chaining_transforms_is_applying_them(steps, MODELS["2-D, in place"], examples=5)


@pytest.mark.parametrize("name", [*ATTRIBUTIONS, *TRANSFORMS])
def test_prints_and_pickles(name):
    case = ATTRIBUTIONS.get(name)
    model = MODELS[case.on[0] if case and case.on else "1-D"]
    made = (case.build if case else TRANSFORMS[name])(model)
    assert repr(made).startswith(name.split("-")[0])
    assert type(model).__name__ in repr(made)
    assert "<" not in repr(made)
    inputs, target = models.inputs(model), torch.tensor([1, 3])
    again = pickle.loads(pickle.dumps(made))(inputs, target)
    for one, other in zip(again, made(inputs, target), strict=True):
        assert torch.equal(one, other)
