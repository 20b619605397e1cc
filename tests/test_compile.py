"""The option `compile`: what lies below a layer, compiled with its weights as constants."""

import shutil
from types import MethodType

import numpy as np
import pytest
import torch
from torch import nn

import ifa

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler"),
    # of torch's own, where it compiles
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.last = nn.Sequential(nn.Conv2d(4, 3, 3), nn.ReLU())
        self.head = nn.Linear(3, 5)

    def forward(self, x):
        return self.head(self.last(self.body(x)).mean((2, 3)))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    net = Net().eval()
    net.body[1].running_var.uniform_(0.5, 2.0)
    return net


def test_a_compiled_tap_sees_what_the_plain_one_sees(net):
    inputs = torch.randn(3, 2, 9, 8)
    plain, compiled = ifa.tap(net, "last", inputs), ifa.tap(net, "last", inputs, compile=True)
    many = torch.arange(5)[:, None].expand(5, 3)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}

    def agree(*arguments):
        for one, other in zip(plain(*arguments), compiled(*arguments), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)

    agree(inputs)
    agree(inputs, many)
    agree(torch.cat([inputs, inputs]))  # another batch runs as it is
    halved = {name: tensor / 2 for name, tensor in net.named_parameters()}
    agree(inputs, None, halved)  # and so do other weights

    def derived(tap):
        return torch.func.grad(lambda x: tap(x).activations.sum())(inputs)

    torch.testing.assert_close(derived(plain), derived(compiled))  # as do transforms
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    with torch.no_grad():
        net.body[0].weight.mul_(2.0)  # the constants are made anew
    agree(inputs)


def test_only_what_ends_below_the_layer_is_compiled(net):
    inputs = torch.randn(3, 2, 9, 8)
    tap = ifa.tap(net, ("body.2", "last"), inputs, compile=True)
    assert list(tap._prepared.compiled.prepare.keywords["wanted"]) == ["body.0", "body.1"]


def test_a_compiled_analysis_is_the_plain_one_but_for_rounding(net, tmp_path):
    data = [(torch.randn(2, 9, 8), index % 5) for index in range(7)]
    options = {"layer": "last", "targets": "label", "batch_size": 3, "shard": 3, "progress": False}
    plain = ifa.analyze(net, data, **options)
    compiled = ifa.analyze(net, data, **options, compile=True, store=tmp_path / "run")
    for name in ("map_max", "map_sum"):
        found = compiled["samples/last"][name]
        np.testing.assert_allclose(found, plain["samples/last"][name], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="compile"):
        ifa.analyze(net, data, **options, store=tmp_path / "run")


def test_a_module_with_a_forward_of_its_own_is_compiled_with_it():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten()).eval()
    net[0].forward = MethodType(lambda self, x: 5 * nn.Conv2d.forward(self, x), net[0])
    inputs = torch.randn(2, 1, 5, 5)
    plain, compiled = ifa.tap(net, "1", inputs), ifa.tap(net, "1", inputs, compile=True)
    torch.testing.assert_close(plain(inputs, 0).activations, compiled(inputs, 0).activations)


class Untraceable(nn.Conv2d):
    def forward(self, x):
        torch._dynamo.graph_break()
        return super().forward(x)


def test_what_cannot_be_compiled_is_refused_by_name():
    net = nn.Sequential(Untraceable(1, 2, 3), nn.Flatten()).eval()
    inputs = torch.randn(2, 1, 5, 5)
    with pytest.raises(RuntimeError, match=r"torch\.compile to take '0' \(Untraceable\)"):
        ifa.tap(net, "0", inputs, compile=True)(inputs)
