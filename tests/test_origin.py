"""A scale knows what it was made of, and no map is put on another's (F-A1, F-A2)."""

import copy
import functools
import pickle
from functools import partial

import numpy as np
import pytest
import torch
import xarray as xr

import ifa
from ifa.network.tokens import callable_token
from ifa.testing import models

QUIET = {"progress": False}
MODEL = models.pooled_linear(2)
INPUTS = models.inputs(MODEL, 12)
DATA = [(one, int(MODEL(one[None]).argmax())) for one in INPUTS]


@pytest.fixture(scope="module")
def statistics():
    return ifa.analyze(MODEL, DATA, layer=["conv1", "conv2"], **QUIET)


def test_a_scale_says_where_it_is_from(statistics):
    scale = ifa.scale_from(statistics["conv2"])
    assert scale.origin.layer == "conv2"
    assert scale.origin.names == ("PooledLinear", "fullcam", "logit")
    assert scale.rectified is False
    again = pickle.loads(pickle.dumps(scale))
    assert (again.origin, again.rectified) == (scale.origin, False)
    assert ifa.Scale(scale.low, scale.high).origin is None


def other_network():
    return models.pooled_linear(2, seed=1)


def changed_weight():
    model = copy.deepcopy(MODEL)
    with torch.no_grad():
        list(model.parameters())[-2][0, 0] += 0.5
    return model


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"layer": "conv1"}, "layer 'conv2' instead of 'conv1'"),
        ({"weight": ifa.weight.gradcam}, "weighting fullcam instead of gradcam"),
        ({"weight": ifa.perturb.ablationcam}, "weighting fullcam instead of ablationcam"),
        ({"score": ifa.score.probability}, "score logit instead of probability"),
        ({"model": other_network}, "network PooledLinear with other weights"),
        ({"model": changed_weight}, "network PooledLinear with other weights"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
@pytest.mark.parametrize("call", ["explain", "maps"])
def test_a_scale_of_other_maps_is_refused_by_name(call, options, named, statistics):
    options = {"layer": "conv2", **options}
    model = options.pop("model", lambda: MODEL)()
    scale = ifa.scale_from(statistics["conv2"])
    with pytest.raises(ValueError, match=rf"ifa\.{call}: expected a scale of these") as caught:
        made(call, model, scale, options)
    assert named in str(caught.value)


def made(call, model, scale, options):
    if call == "explain":
        return ifa.explain(model, INPUTS, scale=scale, **options)
    return ifa.maps(model, DATA, scale=scale, **options, **QUIET)


def test_the_same_maps_are_taken_however_the_network_comes(statistics):
    scale = ifa.scale_from(statistics["conv2"])
    expected = ifa.explain(MODEL, INPUTS, layer="conv2", scale=scale)
    same = [
        copy.deepcopy(MODEL),
        pickle.loads(pickle.dumps(MODEL)),
        torch.compile(MODEL, backend="eager"),
    ]
    for model in same:
        assert torch.equal(ifa.explain(model, INPUTS, layer="conv2", scale=scale), expected)
    hires = ifa.explain(MODEL, INPUTS, layer="conv2", weight=ifa.weight.hirescam, scale=scale)
    assert torch.equal(hires, expected)


def test_statistics_and_runs_are_scales_too(statistics, tmp_path):
    ifa.analyze(MODEL, DATA, layer=["conv1", "conv2"], store=tmp_path / "run", **QUIET)
    explain = partial(ifa.explain, MODEL, INPUTS, layer="conv2")
    expected = explain(scale=ifa.scale_from(statistics["conv2"]))
    for scale in (statistics, statistics["conv2"], tmp_path / "run", str(tmp_path / "run")):
        assert torch.equal(explain(scale=scale), expected)
    with pytest.raises(ValueError, match="instead of 'conv1'"):
        ifa.explain(MODEL, INPUTS, layer="conv1", scale=statistics["conv2"])


def test_a_scale_made_by_hand_is_taken_as_it_is():
    scale = ifa.Scale(torch.tensor(0.0), torch.tensor(2.0))
    signed = ifa.explain(MODEL, INPUTS, layer="conv1", rectify=False)
    torch.testing.assert_close(ifa.explain(MODEL, INPUTS, layer="conv1", scale=scale), signed / 2)


def test_one_rule_of_rectifying(statistics):
    explain = partial(ifa.explain, MODEL, INPUTS, layer="conv2", size=None)
    signed, rectified = explain(rectify=False), explain(rectify=True)
    assert (signed < 0).any()
    assert torch.equal(explain(), rectified)
    for given, maps in ((False, signed), (True, signed.relu())):
        scale = ifa.scale_from(statistics["conv2"], rectified=given)
        on_scale = (maps - scale.low) / (scale.high - scale.low)
        close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)
        close(explain(scale=scale), on_scale.float())
        close(explain(scale=scale, rectify=given), on_scale.float())
        close(explain(scale=statistics, rectify=given), on_scale.float())
        with pytest.raises(ValueError, match=f"expected rectify={given} as the scale is"):
            explain(scale=scale, rectify=not given)


def test_one_default_weighting(statistics):
    default = ifa.explain(MODEL, INPUTS, layer="conv1")
    named = ifa.explain(MODEL, INPUTS, layer="conv1", weight=ifa.weight.fullcam)
    assert torch.equal(default, named)
    assert not torch.equal(
        default, ifa.explain(MODEL, INPUTS, layer="conv1", weight=ifa.weight.gradcam)
    )
    assert ifa.scale_from(statistics["conv1"]).origin.names[1] == "fullcam"
    assert "fullcam" in repr(ifa.chain(ifa.weigh(ifa.weight.fullcam)))


@pytest.mark.parametrize("write", ["data", "numpy", "fused"])
def test_weights_written_behind_the_version_are_another_network(write, statistics):
    model = copy.deepcopy(MODEL)
    scale = ifa.scale_from(statistics["conv2"])
    ifa.explain(model, INPUTS, layer="conv2", scale=scale)
    weight = list(model.parameters())[-2]
    if write == "data":
        weight.data.mul_(-5)
    elif write == "numpy":
        weight.detach().numpy()[:] *= 2
    else:
        model(INPUTS).sum().backward()
        torch.optim.SGD(model.parameters(), lr=0.1, fused=True).step()
    with pytest.raises(ValueError, match="with other weights"):
        ifa.explain(model, INPUTS, layer="conv2", scale=scale)


def test_a_wrapper_of_ours_is_not_ours(statistics):
    @functools.wraps(ifa.weight.eigencam)
    def mine(activations, gradients):
        return gradients.mean((1, 2))

    @functools.wraps(ifa.score.logit)
    def cubed(output, target):
        return -(output[target] ** 3)

    @functools.wraps(ifa.weight.fullcam)
    def other(activations, gradients):
        return -100 * gradients

    explain = partial(ifa.explain, MODEL, INPUTS, 1, layer="conv2")
    assert torch.equal(explain(weight=mine), explain(weight=ifa.weight.gradcam))
    assert torch.equal(explain(score=cubed), explain(score=lambda o, t: -(o[t] ** 3)))
    with pytest.raises(ValueError, match="weighting"):
        explain(weight=other, scale=ifa.scale_from(statistics["conv2"]))


class Kernel:
    """An object whose attributes are called like what ours are declared with."""

    gradients = ()
    kind = "mine"

    def __call__(self, activations, gradients):
        return gradients.mean((1, 2))


def test_attributes_of_an_object_are_its_own():
    explain = partial(ifa.explain, MODEL, INPUTS, 1, layer="conv2")
    assert torch.equal(explain(weight=Kernel()), explain(weight=ifa.weight.gradcam))


def test_masks_that_print_alike_are_not_alike(tmp_path):
    channels = MODEL.conv2.out_channels
    wide = np.ones((4, 900), dtype=bool)
    first, second = (xr.DataArray(wide, dims=("target", "channel")) for _ in range(2))
    second = second.copy(data=np.where(np.arange(900) // 300 == 1, False, wide))
    assert repr(first) == repr(second)
    assert callable_token(first) != callable_token(second)
    assert channels


def test_an_origin_survives_replacing_a_limit(statistics):
    scale = ifa.scale_from(statistics["conv2"])
    assert scale._replace(low=torch.tensor(0.0)).origin == scale.origin


@pytest.mark.parametrize("no", [0, False, np.False_])
def test_false_is_false(no):
    signed = ifa.explain(MODEL, INPUTS, layer="conv2", rectify=no)
    assert (signed < 0).any()
