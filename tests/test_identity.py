"""Who a network or a function is: other ones are told apart by name, harmless changes are not."""

import copy
import functools
import json
import pickle
import shutil
import types
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import ifa
from ifa.network.identity import network_difference
from ifa.population.passes import Engine, Recipe
from ifa.store.specs import Spaced

GAIN = 1.0
CONFIG = types.SimpleNamespace(alpha=1.0, epochs=3)


def helper(values):
    return values * 1.0


def other_helper(values):
    return values * 5.0 - 1


class Block(nn.Module):
    """All that an identity must see: functions, lists, private attributes, globals, helpers."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)
        self.act = F.relu
        self.scales = [1.0, 2.0, 0.5]
        self._power = 1.0
        self._unread = 0
        self.options = {"shift": 0.1}
        self.seen = 0

    def forward(self, inputs):
        self.seen += 1
        values = self.act(self.conv(inputs)) + self.options["shift"]
        values = values * torch.tensor(self.scales)[:, None, None]
        return helper(values) ** self._power * GAIN * CONFIG.alpha


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = Block()
        self.quiet = nn.Identity()
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.head = nn.Linear(12, 4)

    def forward(self, inputs):
        return self.head(self.quiet(self.pool(self.block(inputs))).flatten(1))


def net(kind=Net):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return kind().eval()


DATA = [
    (torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(n)), n % 4) for n in range(20)
]
OPTIONS = types.SimpleNamespace(
    layer="block.conv",
    weight=ifa.weight.fullcam,
    score=ifa.score.logit,
    grid=None,
    output=None,
    grid_of=None,
    compile=False,
    batch_size=5,
)


def known(model):
    """Give the token of a network with its behaviour, as a run on disk has it."""
    example = torch.stack([DATA[0][0], DATA[1][0]])
    engine = Engine(Recipe("ifa.analyze", model, example, OPTIONS, None), model)
    return json.loads(
        json.dumps({**engine.token, "behaviour": engine.behaviour(Spaced("ifa.analyze", DATA), 0)})
    )


@pytest.fixture(scope="module")
def token():
    return known(net())


# Changes that are another network


def put(name, value):
    def change(model):
        setattr(model.block, name, value)

    return change


def rehook(model):
    model.block.register_forward_hook(lambda module, args, output: -3 * output)


def rehook_in_place(model):
    def triple(module, args, output):
        output.data.mul_(-3)

    model.block.conv.register_forward_hook(triple)


def pre_hook(model):
    model.head.register_forward_pre_hook(lambda module, args: (args[0] * 2,))


def own_forward(model):
    model.quiet.forward = lambda values: -values


def own_method(model):
    model.block.forward = types.MethodType(lambda self, inputs: self.conv(inputs), model.block)


def wrapping(model):
    inner = model.quiet.forward

    @functools.wraps(inner)
    def scaled(values):
        return 2 * inner(values)

    model.quiet.forward = scaled


def changed_weight(model):
    with torch.no_grad():
        model.head.bias[0] += 1e-6


CHANGES = {
    "function": (put("act", F.gelu), "attribute 'act' of module 'block'"),
    "list": (put("scales", [5.0, -1.0, 2.0]), "attribute 'scales' of module 'block'"),
    "dict": (put("options", {"shift": 0.2}), "attribute 'options' of module 'block'"),
    "private": (put("_power", 2.0), "attribute '_power' of module 'block'"),
    "hook": (rehook, "a hook on module 'block'"),
    "hook in place": (rehook_in_place, "a hook on module 'block.conv'"),
    "pre-hook": (pre_hook, "a hook on module 'head'"),
    "own forward": (own_forward, "other code: Identity.forward of its own at 'quiet'"),
    "own method": (own_method, "other code: Block.forward of its own at 'block'"),
    "wraps": (wrapping, "other code: Identity.forward of its own at 'quiet'"),
    "weight": (changed_weight, "weights of the network"),
    "stride": (
        lambda model: setattr(model.block.conv, "padding", (1, 1)),
        "settings of module 'block.conv'",
    ),
    "pool": (lambda model: setattr(model.pool, "output_size", (2, 2)), "settings of module 'pool'"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_another_network_is_told_by_name(name, token):
    change, named = CHANGES[name]
    model = net()
    change(model)
    refused, noted = network_difference(token, known(model))
    assert named in refused
    assert noted is None
    static = {key: part for key, part in known(model).items() if key != "behaviour"}
    assert network_difference(token, static)[0]


GLOBALS = {
    "global": ("GAIN", 3.0),
    "helper": ("helper", other_helper),
    "object": ("CONFIG", types.SimpleNamespace(alpha=-2.0, epochs=3)),
}


@pytest.mark.parametrize("name", GLOBALS)
def test_what_a_forward_names_is_part_of_it(name, token, monkeypatch):
    monkeypatch.setitem(globals(), *GLOBALS[name])
    refused, _ = network_difference(token, known(net()))
    assert "behaviour: the output" in refused
    assert "other code: Block.forward" in refused
    monkeypatch.undo()
    assert network_difference(token, known(net())) == (None, None)


def test_behaviour_sees_what_no_token_does(token):
    model = net()
    model.block.act = torch.special.expit  # what is read of an attribute behind a descriptor
    later = known(model)
    later["settings"] = token["settings"]
    refused, _ = network_difference(token, later)
    assert refused == "behaviour: the output and layer 'block.conv' differ on the 16 probed samples"


# Changes that are none


class Sub(Net):
    def forward(self, inputs):
        return super().forward(inputs)


class Renamed(Net):
    pass


def counting(model):
    calls = []
    model.block.register_forward_hook(lambda module, args, output: calls.append(1))
    model.head.register_forward_pre_hook(lambda module, args: calls.append(2))


def counting_attribute(model):
    def count(module, args, output):
        module.calls += 1

    model.block.calls = 7
    model.block.register_forward_hook(count)


def timed(model):
    inner = model.quiet.forward

    @functools.wraps(inner)
    def wrapped(*args, **kwargs):
        return inner(*args, **kwargs)

    model.quiet.forward = wrapped


def in_place(change):
    def made():
        model = net()
        change(model)
        return model

    return made


def reloaded():
    model = Net().eval()
    model.load_state_dict(net().state_dict())
    return model


def used():
    model = net()
    model(DATA[0][0][None])
    return model


def unread_private():
    model = net()
    model.block._unread = 5
    return model


def flagged():
    model = net()
    model.pool.training = True
    return model


SAME = {
    "deep copy": lambda: copy.deepcopy(net()),
    "pickled": lambda: pickle.loads(pickle.dumps(net())),
    "state dictionary": reloaded,
    "compiled": lambda: torch.compile(net(), backend="eager"),
    "counting hook": in_place(counting),
    "hook that writes": in_place(counting_attribute),
    "wrapped forward": in_place(timed),
    "used": used,
    "private": unread_private,
    "training flag": flagged,
    "renamed": partial(net, Renamed),
}


@pytest.mark.parametrize("name", SAME)
def test_a_harmless_change_is_the_same_network(name, token):
    assert network_difference(token, known(SAME[name]())) == (None, None)


def test_other_code_that_computes_the_same_is_noted(token):
    refused, noted = network_difference(token, known(net(Sub)))
    assert refused is None
    assert noted == (
        "the code of Sub.forward, Net.forward is other than the run's; on 16 samples it computes "
        "the same"
    )
    without = {key: part for key, part in token.items() if key != "behaviour"}
    refused, noted = network_difference(without, known(net(Sub)))
    assert refused == "the code of Sub.forward, Net.forward"
    assert noted is None


# As runs on disk meet them

RUN = {"layer": "block.conv", "shard": 7, "batch_size": 5, "progress": False}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("finished") / "run"
    return path, ifa.analyze(net(), DATA, store=path, **RUN)


@pytest.fixture
def interrupted(finished, tmp_path):
    """Give a copy of the run without its end and a shard."""
    path = shutil.copytree(finished[0], tmp_path / "run")
    (path / "COMMIT.json").unlink()
    shutil.rmtree(path / "statistics.zarr")
    next(path.glob("shards/00001*")).unlink()
    return path


@pytest.mark.parametrize("name", ["function", "list", "private", "hook", "own forward"])
@pytest.mark.parametrize("state", ["finished", "interrupted"])
def test_a_run_of_another_network_is_refused(name, state, finished, interrupted):
    change, named = CHANGES[name]
    model = net()
    change(model)
    path = finished[0] if state == "finished" else interrupted
    with pytest.raises(ValueError, match=r"ifa\.analyze: expected .* this very analysis") as caught:
        ifa.analyze(model, DATA, store=path, **RUN)
    assert named in str(caught.value)


@pytest.mark.parametrize("name", SAME)
def test_a_run_of_the_same_network_is_returned(name, finished):
    path, tree = finished
    found = ifa.analyze(SAME[name](), DATA, store=path, **RUN)
    assert found["block.conv"].to_dataset().identical(tree["block.conv"].to_dataset())


def test_a_run_of_other_code_that_computes_the_same_is_returned_with_a_word(finished):
    with pytest.warns(UserWarning, match=r"code of Sub\.forward, Net\.forward is other than"):
        ifa.analyze(net(Sub), DATA, store=finished[0], **RUN)
