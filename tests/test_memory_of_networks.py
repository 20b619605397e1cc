"""What explain remembers of a network: never what is no longer so, nothing alive (F-P1)."""

import copy
import gc
import threading
import weakref
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

import ifa
from ifa.network.snapshots import snapshot
from ifa.taps import features


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 3, 3), nn.LeakyReLU(0.1), nn.Conv2d(3, 4, 3))
        self.head = nn.Linear(4, 2)
        self.act = functional.relu
        self.scales = [1.0, 2.0]
        self.table = {"shift": 0.0, "deep": [{"gain": 1.0}]}
        self._private = 1.0

    def forward(self, x):
        x = self.act(self.body(x)) * self.scales[0] + self.table["shift"]
        x = x * self.table["deep"][0]["gain"] * self._private
        return self.head(x.flatten(2).mean(2)) * self.scales[1]


def network():
    torch.manual_seed(3)
    return Net().eval()


INPUTS = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def weights_in_place(net):
    with torch.no_grad():
        net.head.weight.mul_(-2)


def weight_replaced(net):
    net.head.weight = nn.Parameter(-net.head.weight.detach())


def weight_data(net):
    net.body[0].weight.data = -net.body[0].weight.data


def module_replaced(net):
    net.body[1] = nn.GELU()


def plain_number(net):
    net.body[1].negative_slope = 0.9


def function(net):
    net.act = functional.gelu


def closure(net):
    net.act = (lambda factor: lambda x: x * factor)(-1.0)


def list_item(net):
    net.scales[0] = -3.0


def deep_item(net):
    net.table["deep"][0]["gain"] = -1.0


def private(net):
    net._private = -1.0


def hook(net):
    net.body[0].register_forward_hook(lambda module, args, output: -output)


def prehook(net):
    net.head.register_forward_pre_hook(lambda module, args: (-args[0],))


def own_forward(net):
    net.body[1].forward = torch.neg


def dtype(net):
    net.double()


CHANGES = [
    *(weights_in_place, weight_replaced, weight_data, module_replaced, plain_number, function),
    *(closure, list_item, deep_item, private, hook, prehook, own_forward),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("layer", ["body.0", None], ids=str)
def test_no_change_of_a_network_is_missed(layer, change):
    net = network()
    explain = partial(ifa.explain, inputs=INPUTS, target=1, layer=layer, rectify=False)
    before = explain(net)
    change(net)
    fresh = copy.deepcopy(net)
    assert torch.equal(explain(net), explain(fresh))
    assert not torch.equal(explain(net), before)


def test_training_mode_is_seen():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten()).eval()
    ifa.explain(net, INPUTS, layer="0")
    net.train()
    with pytest.raises(ValueError, match="in evaluation mode"):
        ifa.explain(net, INPUTS, layer="0")


def test_another_dtype_and_shape_are_seen():
    net = network()
    single = ifa.explain(net, INPUTS, layer="body.0")
    net.double()
    double = ifa.explain(net, INPUTS.double(), layer="body.0")
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single)
    assert ifa.explain(net, torch.rand(1, 1, 9, 7).double(), layer="body.0").shape == (1, 9, 7)


def test_a_network_that_is_as_it_was_is_traced_once(monkeypatch):
    net, traced = network(), []
    examine = features.examine
    monkeypatch.setattr(features, "examine", lambda *a, **k: traced.append(0) or examine(*a, **k))
    maps = [ifa.explain(net, INPUTS, 1, layer="body.0") for _ in range(3)]
    # of other weightings, masks, scores and batches too
    ifa.explain(net, INPUTS, layer="body.0", score=ifa.score.contrast())
    ifa.explain(net, INPUTS[:1], layer="body.0", weight=ifa.weight.gradcam)
    ifa.explain(net, INPUTS, layer="body.0", mask=torch.ones(3, dtype=torch.bool), rectify=False)
    assert len(traced) == 1
    assert torch.equal(maps[0], maps[2])


def test_nothing_is_kept_alive():
    net = network()
    score = (lambda kept: lambda output, target: output[target] + 0 * kept.head.bias[0])(net)
    ifa.explain(net, INPUTS, layer="body.0")
    ifa.explain(net, INPUTS, layer=net.body[0])
    ifa.explain(net, INPUTS, score=score)
    ifa.explain(net, INPUTS, output=lambda raw: raw[:, :2])
    dead = [weakref.ref(net), weakref.ref(net.head), weakref.ref(net.head.weight)]
    del net, score
    gc.collect()
    assert [ref() for ref in dead] == [None] * 3


def test_threads_share_what_was_seen():
    net = network()
    expected = ifa.explain(net, INPUTS, 1, layer="body.0")
    found = [None] * 4

    def work(place):
        for _ in range(5):
            found[place] = ifa.explain(net, INPUTS, 1, layer="body.0")

    threads = [threading.Thread(target=work, args=(place,)) for place in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert all(torch.equal(maps, expected) for maps in found)


class Opaque:
    __slots__ = ("gain",)

    def __init__(self):
        self.gain = 1.0


def test_what_cannot_be_compared_is_not_remembered():
    net = network()
    assert snapshot(net) is not None
    net.opaque = Opaque()
    assert snapshot(net) is None
    ifa.explain(net, INPUTS, layer="body.0")  # and works all the same


def test_what_a_hook_closes_over_is_not_kept_alive():
    net = network()
    net.body[0].register_forward_hook((lambda kept: lambda *given: kept and None)(net))
    ifa.explain(net, INPUTS, layer="body.0")
    dead = weakref.ref(net)
    del net
    gc.collect()
    assert dead() is None


def test_old_weights_are_dropped_at_the_next_explanation():
    net = network()
    for layer in ("body.0", "body.1", "body.2"):
        ifa.explain(net, INPUTS, layer=layer)
    old = weakref.ref(net.body[0].weight.untyped_storage())
    pointer = net.body[0].weight.data_ptr()
    net.double().float()
    ifa.explain(net, INPUTS, layer="body.0")
    gc.collect()
    assert net.body[0].weight.data_ptr() != pointer or old() is None


def test_the_default_layer_is_asked_of_the_weights_as_they_are():
    net = nn.Sequential(
        *(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    ).eval()
    before = ifa.explain(net, INPUTS, 0, rectify=False)
    with torch.no_grad():
        net[1].weight.data.mul_(-3.0)  # counts up no version of the parameter
    expected = ifa.explain(copy.deepcopy(net), INPUTS, 0, rectify=False)
    assert torch.equal(ifa.explain(net, INPUTS, 0, rectify=False), expected)
    assert not torch.equal(before, expected)


def test_equal_numbers_of_other_kinds_are_other_options():
    net = network()
    before = snapshot(net)
    net._private = True  # was 1.0
    assert snapshot(net) != before
