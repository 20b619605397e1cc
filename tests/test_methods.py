"""Every weighting and perturbation, in every number of dimensions, in every way of asking.

One table without holes: adding a method adds its name to `__all__`, and a test here fails until the
method has a row.
"""

from functools import partial

import pytest
import torch
from torch import nn

import ifa
from ifa.declared import declared

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
SPACES = {"1-D": (11,), "2-D square": (9, 9), "2-D non-square": (7, 10), "3-D": (5, 6, 7)}
OUTPUTS, SAMPLES = 3, 4


def kernel(name):
    """Make a kernel of `ifa.weight` look like a perturbation: inputs to `Weighted`."""

    def build(model, layer, example, *, score=ifa.score.logit):
        tap = ifa.tap(model, layer, example, score=score)
        weight = getattr(ifa.weight, name)
        step = weight(model) if declared(weight, "reads") == "model" else ifa.weigh(weight)

        def explain(inputs, target=None):
            features = tap(inputs, target)
            single = isinstance(features, ifa.Features)
            weighted = [ifa.batched(step)(one) for one in ((features,) if single else features)]
            return weighted[0] if single else tuple(weighted)

        return explain

    return build


METHODS = {
    **{name: kernel(name) for name in ifa.weight.__all__},
    "scorecam": ifa.perturb.scorecam,
    "sscam": partial(ifa.perturb.sscam, draws=2),
    "iscam": partial(ifa.perturb.iscam, draws=2),
    "ablationcam": ifa.perturb.ablationcam,
    "reciprocam": ifa.perturb.reciprocam,
    "shapleycam": ifa.perturb.shapleycam,
    "smooth_gradcam_plus_plus": partial(ifa.perturb.smooth_gradcam_plus_plus, draws=2),
}


def test_every_public_method_has_a_row():
    assert set(METHODS) == {*ifa.weight.__all__, *ifa.perturb.__all__}


class Net(nn.Module):
    """Two layers of four channels, in two groups, and a linear classifier of pooled features."""

    def __init__(self, space):
        super().__init__()
        convolution = CONVOLUTIONS[space]
        self.first = nn.Sequential(convolution(2, 4, 3, padding=1), nn.ReLU())
        self.second = nn.Sequential(convolution(4, 4, 3, stride=2, groups=2), nn.ReLU())
        self.classifier = nn.Linear(4, OUTPUTS)

    def forward(self, inputs):
        return self.classifier(self.second(self.first(inputs)).flatten(2).mean(2))


@pytest.fixture(params=SPACES.values(), ids=SPACES, scope="module")
def case(request):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Net(len(request.param)).eval()
        return net, torch.randn(SAMPLES, 2, *request.param)


def contrast(output, target):
    """Score a target against the mean of all outputs: a score of the user's own."""
    return output.index_select(0, target.reshape(1)).squeeze(0) - output.mean()


def maps(weighted, combine=ifa.combine):
    return ifa.batched(combine)(weighted).values


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
class TestMethod:
    def test_different_targets_in_a_batch_are_those_of_singles(self, method, case):
        net, inputs = case
        explain, target = method(net, "second", inputs), torch.tensor([0, 2, 1, 1])
        batch = explain(inputs, target)
        assert torch.equal(batch.target, target)
        singles = [explain(inputs[n : n + 1], target[n : n + 1]) for n in range(SAMPLES)]
        expected = torch.cat([maps(one) for one in singles])
        torch.testing.assert_close(maps(batch), expected, rtol=1e-5, atol=1e-6)

    def test_many_targets_are_those_of_one_at_a_time(self, method, case):
        net, inputs = case
        explain = method(net, "second", inputs)
        every = torch.arange(OUTPUTS)[:, None].expand(OUTPUTS, SAMPLES)
        found = maps(explain(inputs, every))
        expected = torch.stack([maps(explain(inputs, target)) for target in range(OUTPUTS)])
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)

    def test_two_layers_are_those_of_one_at_a_time(self, method, case):
        net, inputs = case
        both = method(net, ("first", "second"), inputs)(inputs, 1)
        for layer, found in zip(("first", "second"), both, strict=True):
            expected = maps(method(net, layer, inputs)(inputs, 1))
            torch.testing.assert_close(maps(found), expected, rtol=1e-5, atol=1e-6)

    def test_groups_sum_to_the_whole(self, method, case):
        net, inputs = case
        weighted = method(net, "second", inputs)(inputs)
        grouped = maps(weighted, ifa.combine_blocks(2))
        assert grouped.shape[:2] == (SAMPLES, 2)
        torch.testing.assert_close(grouped.sum(1), maps(weighted), rtol=1e-5, atol=1e-6)

    def test_a_score_of_ones_own(self, method, case, request):
        net, inputs = case
        own = maps(method(net, "second", inputs, score=contrast)(inputs, 1))
        assert own.isfinite().all()
        by_hand = maps(method(_Contrasted(net), "net.second", inputs)(inputs, 1))
        if "-cam]" not in request.node.name and "[cam-" not in request.node.name:
            torch.testing.assert_close(own, by_hand, rtol=1e-5, atol=1e-6)

    def test_float64_agrees_with_float32(self, method, case):
        net, inputs = case
        found = maps(method(_double(net), "second", inputs.double())(inputs.double(), 2))
        assert found.dtype == torch.float64
        single = maps(method(net, "second", inputs)(inputs, 2))
        torch.testing.assert_close(found.float(), single, rtol=1e-3, atol=1e-5)

    def test_the_network_and_the_inputs_are_left_alone(self, method, case):
        net, inputs = case
        before = inputs.clone()
        with ifa.testing.assert_leaves_model_untouched(net):
            method(net, "second", inputs)(inputs)
        assert torch.equal(inputs, before)


class _Contrasted(nn.Module):
    """The same contrast as outputs of a network, to compare a score of one's own with."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, inputs):
        output = self.net(inputs)
        return output - output.mean(1, keepdim=True)


def _double(net):
    copy = Net(next(iter(net.first)).weight.ndim - 2).double().eval()
    copy.load_state_dict(net.state_dict())
    return copy
