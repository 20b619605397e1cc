"""Who a network or a function is: other ones are told apart by name, harmless changes are not."""

import contextlib
import copy
import enum
import functools
import importlib
import io
import json
import os
import pathlib
import pickle
import shutil
import subprocess
import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import ifa
from ifa.network.identity import (
    model_token,
    network_difference,
    network_digest,
    remembered_token,
)
from ifa.network.tokens import callable_token
from ifa.population.passes import Engine, Recipe
from ifa.store.references import ModelRef
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
    basis=None,
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


def test_gradients_of_one_network_may_flip_paths(token):
    """Where rounding moved an input of a ReLU over 0, a run was refused on another machine."""
    later = known(net())
    gradients = later["behaviour"]["layers"]["block.conv"]["gradients"]
    before, norm = gradients[3], gradients[1]
    gradients[3] = before + 0.02 * norm
    assert network_difference(token, later) == (None, None)
    gradients[3] = before + 0.08 * norm
    assert "layer 'block.conv' differs" in network_difference(token, later)[0]
    other = known(net(Sub))
    other["behaviour"]["layers"]["block.conv"]["gradients"][3] += 0.02 * norm
    assert "layer 'block.conv' differs" in network_difference(token, other)[0]
    activations = known(net())
    activations["behaviour"]["layers"]["block.conv"]["activations"][3] += 0.02 * norm
    assert "layer 'block.conv' differs" in network_difference(token, activations)[0]


# What no code names


class Accuracy(nn.Module):
    def __init__(self, right):
        super().__init__()
        self.right = torch.tensor(right)
        self.register_buffer("total", torch.tensor(right))

    def forward(self, inputs):
        raise RuntimeError


class Thing:
    def __init__(self, number):
        self.number = number


ASIDE = {
    "t0": (1.5, 2.5),
    "epoch": (1, 2),
    "lr": (0.1, 0.01),
    "log_dir": (pathlib.Path("/a"), pathlib.Path("/b")),
    "history": ([1], [1, 2]),
    "classes": (["a", "b"], ["a", "c"]),
    "criterion": (nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.1)),
    "accuracy": (Accuracy(0), Accuracy(5)),
    "trainer": (Thing(1), 3),
}


@pytest.mark.parametrize("name", ASIDE)
def test_what_no_code_names_is_noted(name, token):
    models = [net() for _ in ASIDE[name]]
    for model, value in zip(models, ASIDE[name], strict=True):
        setattr(model, name, value)
    one, other = map(known, models)
    module = isinstance(ASIDE[name][0], nn.Module)
    what = f"settings of module '{name}'" if module else f"attribute '{name}' of module ''"
    noted = f"{what} is other than the run's; on 16 samples it computes the same"
    assert network_difference(one, other) == (None, noted)
    assert network_difference(token, other) == (None, noted)  # nor need it be there
    assert network_digest(one) == network_digest(other) == network_digest(token)


class Computed(nn.Module):
    """Reads attributes by names that do not stand in its code."""

    def __init__(self, gain, how):
        super().__init__()
        self.gain_0, self.how, self.names = gain, how, ["gain_0"]
        self.conv = nn.Conv2d(1, 2, 1)
        with torch.no_grad():
            self.conv.weight.fill_(1), self.conv.bias.zero_()

    def forward(self, inputs):
        return self.conv(inputs) * getattr(self, f"gain_{0}")


class Listed(Computed):
    def forward(self, inputs):
        for name in self.names:
            inputs = self.conv(inputs) * getattr(self, name, 1.0)
        return inputs


class Parent(nn.Module):
    def __init__(self, gain):
        super().__init__()
        self.child = nn.Identity()
        self.child.gain_0 = gain

    def forward(self, inputs):
        return inputs * self.child.gain_0


@pytest.mark.parametrize(
    "made",
    [partial(Computed, how=1), partial(Listed, how=1), Parent],
    ids=["formatted", "listed", "of a child"],
)
def test_an_attribute_of_a_name_that_is_computed_counts(made):
    one, other = (model_token(made(gain)) for gain in (1.0, 2.0))
    assert network_difference(one, other)[0] in (
        "attribute 'gain_0' of module ''",
        "settings of module 'child'",
    )
    assert network_digest(one) != network_digest(other)


class Configured(nn.Module):
    def __init__(self, dtype):
        super().__init__()
        self.config = types.SimpleNamespace(dtype=dtype)

    def forward(self, inputs):
        return inputs.to(self.config.dtype)


def test_the_name_of_a_dtype_in_a_configuration_is_the_dtype():
    one, other, wide = map(model_token, map(Configured, (torch.float32, "float32", torch.float64)))
    assert network_difference(one, other) == (None, None)
    assert network_difference(one, wide)[0] == "attribute 'config' of module ''"


class Shifted(nn.Module):
    def __init__(self, offset):
        super().__init__()
        self.offset = torch.tensor(offset)
        self.seen = []

    def forward(self, inputs):
        self.seen.append(1)
        return self.offset.add(inputs)


def test_adding_to_a_tensor_does_not_set_it():
    one, other, used = Shifted(1.0), Shifted(2.0), Shifted(1.0)
    used(torch.ones(2))
    assert network_difference(*map(model_token, (one, used))) == (None, None)
    found = network_difference(*map(model_token, (one, other)))
    assert found == ("attribute 'offset' of module ''", None)


# Hooks that act, and count


class Doubles:
    def __init__(self):
        self.calls = 0

    def __call__(self, module, args, output):
        self.calls += 1
        self.last = output.detach()
        return output * 2


def counts_outside():
    calls = 0

    def hook(module, args, output):
        nonlocal calls
        calls += 1
        return output * 2

    return hook


def counts_by_name():
    calls = {"hook": 0}

    def hook(module, args, output):
        calls["hook"] += 1
        return output * 2

    return hook


@pytest.mark.parametrize("hook", [Doubles, counts_outside, counts_by_name])
def test_what_an_acting_hook_counts_is_state(hook):
    models, example = [net(), net()], torch.stack([DATA[0][0], DATA[1][0]])
    for model in models:
        model.block.register_forward_hook(hook())
    models[1](example)
    models[1](DATA[5][0][None])
    models[1](example)
    one, other = (model_token(model, example) for model in models)
    assert one["hooks"]
    assert network_difference(one, other) == (None, None)
    assert network_difference(one, model_token(net(), example))[0] == "a hook on module 'block'"


# What is remembered of a network


class Acting(nn.Module):
    def __init__(self, act):
        super().__init__()
        self.conv, self.act = nn.Conv2d(1, 2, 1), act

    def forward(self, inputs):
        return self.act(self.conv(inputs))


def test_another_function_at_the_same_place_in_memory_is_another_network():
    def made(gain):
        return eval(f"lambda values: values * {gain}")

    model, example = Acting(made(2)), torch.stack([DATA[0][0], DATA[1][0]])
    before, place = network_digest(remembered_token(model, example)), id(model.act)
    del model.act
    for _ in range(200):
        model.act = made(3)
        if id(model.act) == place:
            break
        del model.act
    model.act = getattr(model, "act", None) or made(3)
    assert network_digest(remembered_token(model, example)) != before


@pytest.mark.parametrize("channels", [4, 256])
@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_weights_put_in_another_order_are_other_weights(channels, axis):
    model = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()).eval()
    example = torch.zeros(1, channels, 3, 3)
    before = network_digest(remembered_token(model, example))
    weight = model[0].weight.data
    weight.numpy()[:] = weight.flip(axis).numpy()
    assert network_digest(remembered_token(model, example)) != before


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


# A scale, which has no behaviour to go by


class Lightning(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model
        self._trainer = object()

    def forward(self, inputs):
        return self.model(inputs)


class Doubling(Lightning):
    def forward(self, inputs):
        return 2 * self.model(inputs)


INPUTS = torch.stack([item[0] for item in DATA[:6]])


@pytest.fixture(scope="module")
def scale(finished):
    return ifa.scale_from(finished[1]["block.conv"])


@pytest.mark.parametrize(
    ("wrapper", "layer"),
    [
        (lambda model: model, "block.conv"),
        (nn.DataParallel, "module.block.conv"),
        (Lightning, "model.block.conv"),
        (nn.Sequential, "0.block.conv"),
        (lambda model: Lightning(nn.DataParallel(model)), "model.module.block.conv"),
    ],
    ids=["none", "DataParallel", "own", "Sequential", "two"],
)
def test_a_network_in_a_wrapper_is_the_network(wrapper, layer, scale):
    expected = ifa.explain(net(), INPUTS, layer="block.conv", scale=scale)
    found = ifa.explain(wrapper(net()).eval(), INPUTS, layer=layer, scale=scale)
    assert torch.equal(found, expected)


def test_a_wrapper_that_changes_something_is_another_network(scale):
    with pytest.raises(ValueError, match="network Net instead of Doubling"):
        ifa.explain(Doubling(net()).eval(), INPUTS, layer="model.block.conv", scale=scale)


@pytest.mark.parametrize("name", ["deep copy", "counting hook", "wrapped forward", "training flag"])
def test_a_scale_is_of_the_same_network(name, scale):
    ifa.explain(SAME[name](), INPUTS, layer="block.conv", scale=scale)


@pytest.mark.parametrize("name", [*CHANGES, *GLOBALS])
def test_a_scale_of_another_network_is_refused(name, scale, monkeypatch):
    model = net()
    ifa.explain(model, INPUTS, layer="block.conv", scale=scale)  # what is remembered is no excuse
    if name in GLOBALS:
        monkeypatch.setitem(globals(), *GLOBALS[name])
    else:
        CHANGES[name][0](model)
    with pytest.raises(ValueError, match="network Net with other weights or options"):
        ifa.explain(model, INPUTS, layer="block.conv", scale=scale)


@pytest.mark.filterwarnings("ignore")  # of torch, on its quantization
def test_packed_weights_are_weights():
    if set(torch.backends.quantized.supported_engines) <= {"none"}:
        pytest.skip("no quantized kernels")

    def packed(seed):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 4)).eval()
        return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)

    with torch.random.fork_rng(devices=[]):
        one, other, again = packed(0), packed(1), packed(0)
        other[0].load_state_dict(one[0].state_dict())
    assert network_difference(model_token(one), model_token(again)) == (None, None)
    assert network_difference(model_token(one), model_token(other))[0].startswith("weights")


SCRIPT = """
import torch
from torch import nn

def activation(values):
    return values * 2

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.act, self.kinds = activation, {"a", "b", "c"}
        self.conv = nn.Conv2d(1, 2, 1)
        nn.init.ones_(self.conv.weight), nn.init.zeros_(self.conv.bias)

    def extra_repr(self):
        return str({"a", "b", "c"})

    def forward(self, inputs):
        return self.act(self.conv(inputs)) if "a" in {"a", "b", "c"} else inputs

class Kernel:
    def __init__(self):
        self.kinds = {"a", "b", "c"}

    def __call__(self, activations, gradients, kinds=frozenset("abc")):
        return gradients
"""

TOLD = """
import json
from ifa.network.identity import model_token
from ifa.network.tokens import callable_token
print(json.dumps([model_token(Net()), callable_token(Kernel()), callable_token(Kernel.__call__)]))
"""


def test_a_script_a_module_and_any_hash_seed_are_the_same(tmp_path, monkeypatch):
    (tmp_path / "trained.py").write_text(SCRIPT)
    monkeypatch.syspath_prepend(tmp_path)
    trained = importlib.import_module("trained")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT + TOLD],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    network, *functions = json.loads(done.stdout)
    here = model_token(trained.Net())
    assert (network["class"], here["class"]) == ("__main__.Net", "trained.Net")
    assert network_difference(network, here) == (None, None)
    kernels = trained.Kernel(), trained.Kernel.__call__
    assert functions == json.loads(json.dumps([callable_token(one) for one in kernels]))


# Functions

OPTION = {"power": 1.0}
NUMBERS = [1.0, 2.0]
NOISE = (number for number in range(3))


class Setting:
    gain = 2.0

    def __init__(self, kinds=("a", "b")):
        self.kinds = {*kinds}

    def __call__(self, activations, gradients):
        return gradients * self.gain


SETTING = Setting()


def by_dict(activations, gradients):
    return gradients ** OPTION["power"]


def by_list(activations, gradients):
    return gradients * NUMBERS[0]


def by_object(activations, gradients):
    return SETTING(activations, gradients)


def by_class(activations, gradients):
    return gradients * Setting.gain


def by_module(activations, gradients):
    return gradients * config.alpha


def by_generator(activations, gradients):
    return gradients * next(NOISE)


config = types.ModuleType("config_of_a_user")
config.alpha, config.beta = 1.0, 1.0


@pytest.mark.parametrize(
    ("kernel", "change"),
    [
        (by_dict, lambda patch: patch.setitem(OPTION, "power", 2.0)),
        (by_list, lambda patch: patch.setitem(globals(), "NUMBERS", [1, 2.0])),  # 1 is not 1.0
        (by_object, lambda patch: patch.setattr(SETTING, "kinds", {"a", "c"})),
        (by_class, lambda patch: patch.setattr(Setting, "gain", 3.0)),
        (by_module, lambda patch: patch.setattr(config, "alpha", 3.0)),
    ],
    ids=["dict", "list", "object", "class", "module"],
)
def test_what_a_kernel_names_is_part_of_it(kernel, change, monkeypatch):
    before = json.dumps(callable_token(kernel))
    assert json.dumps(callable_token(kernel)) == before
    monkeypatch.setattr(config, "beta", 7.0)  # which none of them names
    assert json.dumps(callable_token(kernel)) == before
    change(monkeypatch)
    assert json.dumps(callable_token(kernel)) != before


def scaled(activations, gradients, *, factor):
    return gradients * factor


@pytest.mark.parametrize("factor", [1, True])
def test_a_number_of_another_kind_is_another_option(factor, tmp_path):
    ifa.analyze(net(), DATA, weight=partial(scaled, factor=1.0), store=tmp_path, **RUN)
    with pytest.raises(ValueError, match=f"factor: 1.0 in the run, {factor} now"):
        ifa.analyze(net(), DATA, weight=partial(scaled, factor=factor), store=tmp_path, **RUN)


def test_a_global_that_cannot_be_identified_is_refused():
    with pytest.raises(ValueError, match=r"ifa\.analyze: expected .* got 'NOISE' \(generator\)"):
        ifa.analyze(net(), DATA, weight=by_generator, **RUN)


def drawing(activations, gradients, rng):
    return gradients * rng.normal()


def drawn_by_a_closure(rng):
    return lambda activations, gradients: gradients * rng.normal()


class Drawing:
    def __init__(self, rng):
        self.rngs = [rng]

    def __call__(self, activations, gradients):
        return gradients * self.rngs[0].normal()


@pytest.mark.parametrize("made", [partial(partial, drawing), drawn_by_a_closure, Drawing])
@pytest.mark.parametrize("kind", ["generator", "file", "iterator"])
def test_what_is_bound_and_cannot_be_identified_is_refused(made, kind):
    file = io.StringIO("1")
    value = {"generator": np.random.default_rng(0), "file": file, "iterator": iter([1.0])}[kind]
    weight = made(value) if made in (drawn_by_a_closure, Drawing) else made(rng=value)
    with pytest.raises(ValueError, match=r"ifa\.analyze: expected .*, got .* cannot be identified"):
        ifa.analyze(net(), DATA, weight=weight, **RUN)


def by_environment(activations, gradients):
    return gradients * float(os.environ["GAIN"])


def by_getenv(activations, gradients):
    from os import getenv

    return gradients * float(getenv("GAIN", "1"))


@pytest.mark.parametrize("kernel", [by_environment, by_getenv])
def test_what_reads_the_environment_is_refused(kernel, monkeypatch):
    monkeypatch.setenv("GAIN", "1")
    with pytest.raises(ValueError, match=r"nothing of the environment, got code that names os\."):
        ifa.analyze(net(), DATA, weight=kernel, **RUN)


def test_a_module_called_as_one_of_pythons_is_the_users(tmp_path, monkeypatch):
    (tmp_path / "wave.py").write_text("GAIN = 2.0\n\ndef by(a, g):\n    return g * GAIN\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wave", raising=False)
    wave = importlib.import_module("wave")
    monkeypatch.setitem(sys.modules, "wave", wave)
    before = callable_token(wave.by)
    monkeypatch.setattr(wave, "GAIN", 3.0)
    assert callable_token(wave.by) != before
    assert callable_token(os.path.join) == "posixpath.join"


def by_enum(value):
    mode = enum.Enum("Mode", {"A": value}).A
    return lambda activations, gradients: gradients * mode.value


def by_operator(gain):
    class Times:
        def __mul__(self, values):
            return values * gain

    return lambda activations, gradients: Times() * gradients


def by_manager(gain):
    class Manager:
        def __enter__(self):
            return gain

        def __exit__(self, *args):
            pass

    def kernel(activations, gradients):
        with Manager() as by:
            return gradients * by

    return kernel


def by_backward(gain):
    class Same(torch.autograd.Function):
        @staticmethod
        def forward(ctx, values):
            return values

        @staticmethod
        def backward(ctx, gradients):
            return gradients * gain

    return lambda output, target: Same.apply(output)[target]


@pytest.mark.parametrize("made", [by_enum, by_operator, by_manager, by_backward])
def test_what_a_kernel_calls_without_naming_it_is_part_of_it(made):
    one, other, again = (json.dumps(callable_token(made(gain))) for gain in (1.0, 2.0, 1.0))
    assert one == again
    assert one != other


class Unseen:
    """Behind a function in C, whose constants no token reads."""

    def __init__(self, gain):
        factor = torch.tensor(gain)
        self.call = torch.jit.trace(lambda values: values * factor, torch.zeros(3))

    def __call__(self, activations, gradients):
        return self.call(gradients)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_weights_that_differ_are_seen_whatever_a_weighting_reads(tmp_path):
    ifa.analyze(net(), DATA, weight=Unseen(1.0), store=tmp_path / "run", **RUN)
    ifa.analyze(net(), DATA, weight=Unseen(1.0), store=tmp_path / "run", **RUN)
    with pytest.raises(ValueError, match=r"behaviour: layer 'block\.conv' differs"):
        ifa.analyze(net(), DATA, weight=Unseen(2.0), store=tmp_path / "run", **RUN)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (partial(ifa.weight.fullcam), ifa.weight.fullcam),
        (ifa.weigh(ifa.weight.fullcam), ifa.weight.fullcam),
        (ifa.chain(ifa.weigh(ifa.weight.fullcam)), ifa.weight.hirescam),
        (np.array([1.0, 2.0], dtype=">f4"), torch.tensor([1.0, 2.0])),
        (np.array([True, False]), torch.tensor([True, False])),
        ({"b": 1, "a": 2}, {"a": 2, "b": 1}),
        (Setting(), copy.deepcopy(SETTING)),
    ],
    ids=["partial", "weigh", "chain", "order of bytes", "mask", "order of keys", "object"],
)
def test_the_same_in_other_words_has_the_same_token(one, other):
    assert json.dumps(callable_token(one), sort_keys=True) == json.dumps(
        callable_token(other), sort_keys=True
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (1, True),
        (b"a", "a"),
        (2j, 3j),
        (range(3), range(4)),
        ({1, 2}, {1, 3}),
        ({1: 2}, {"1": 2}),
        (slice(1), slice(2)),
        (torch.float32, torch.float64),
        (np.array(["a", 1], dtype=object), np.array(["a", 2], dtype=object)),
    ],
    ids=str,
)
def test_other_values_have_other_tokens(one, other):
    assert json.dumps(callable_token(one)) != json.dumps(callable_token(other))


DOCUMENTED = """
def score(output, target):
    {}
    return output[target]
"""


def test_what_a_function_says_of_itself_is_no_part_of_it():
    made = []
    for text in ('"""a"""', '"""Other words."""'):
        there = {}
        exec(DOCUMENTED.format(text), there)
        made.append(callable_token(there["score"]))
    assert made[0] == made[1]


@pytest.mark.parametrize("kind", [list, np.asarray, torch.tensor])
def test_a_mask_is_its_values(kind, tmp_path):
    options = {"store": tmp_path / "run", "scale": None, **RUN}
    first = ifa.maps(net(), DATA, mask=torch.tensor([True, False, True]), **options)
    again = ifa.maps(net(), DATA, mask=kind([True, False, True]), **options)
    assert again["block.conv"].to_dataset().identical(first["block.conv"].to_dataset())


# One process, several threads


def test_engines_are_made_at_once_while_others_draw():
    stop = threading.Event()

    def draw():
        while not stop.is_set():
            torch.rand(3)

    with torch.random.fork_rng(devices=[]), ThreadPoolExecutor(5) as pool:
        noise = pool.submit(draw)
        try:
            made = list(pool.map(lambda n: ifa.trace(net_of(n), DATA[0][0][None]), range(20)))
        finally:
            stop.set()
        noise.result()
    assert all(list(sites) == list(made[0]) for sites in made)


MODELS = [nn.Sequential(net(), nn.Dropout()).eval() for _ in range(4)]


def net_of(number):
    return MODELS[number % len(MODELS)]


def test_noise_of_its_own_is_still_refused():
    class Noisy(nn.Module):
        def forward(self, inputs):
            return inputs + torch.randn_like(inputs)

    model, state = nn.Sequential(nn.Conv2d(1, 2, 3), Noisy()), torch.get_rng_state()
    with pytest.raises(ValueError, match="draws no random numbers"):
        ifa.trace(model, DATA[0][0][None])
    assert torch.equal(torch.get_rng_state(), state)


STATE = net().state_dict()


def loaded():
    model = Net()
    model.load_state_dict(STATE)
    return model.eval()


def test_analyses_in_turns_do_not_make_their_engines_again():
    reference = ModelRef("test_identity:loaded")
    example = torch.stack([DATA[0][0], DATA[1][0]])
    recipe = Recipe("ifa.analyze", reference, example, OPTIONS, None)
    pickles = [pickle.dumps(Engine(recipe, loaded())) for _ in range(6)]
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(pickle.loads, pickles[:1] * 4))
    assert len({id(engine) for engine in made}) == 1
    one, other = (pickle.loads(pickles[number]) for number in (0, 1))
    assert pickle.loads(pickles[0]) is one
    assert pickle.loads(pickles[1]) is other
    for later in pickles[2:]:
        pickle.loads(later)
    assert pickle.loads(pickles[0]) is not one


# Modules without Python code


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("compiled", [torch.jit.script, lambda m: torch.jit.trace(m, INPUTS)])
def test_script_modules_are_refused_by_name(compiled):
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 4)).eval()
    model = compiled(model)
    for call in (
        lambda: ifa.explain(model, INPUTS, layer="0"),
        lambda: ifa.tap(model, "0", INPUTS),
        lambda: ifa.analyze(model, DATA, layer="0", progress=False),
        lambda: ifa.maps(model, DATA, layer="0", progress=False),
        lambda: ifa.attribute.integrated_gradients(model)(INPUTS),
        lambda: ifa.contest.table(model, DATA, {"a": ifa.explain}, {"b": ifa.evaluate.deletion}),
    ):
        with pytest.raises(TypeError, match=r"one compiled by torch\.jit.*Give the module that"):
            call()


def in_a_closure(net):
    forward, calls = net.forward, []

    def timed(values):
        calls.append(1)
        return timed.inner(values) if calls is None else forward(values)

    net.forward = timed


def of_functools(net):
    inner = net.forward

    @functools.wraps(inner)
    def timed(*args, **kwargs):
        return inner(*args, **kwargs)

    net.forward = timed


def of_a_script(net):
    code = "forward = net.forward\ndef timed(values):\n    return forward(values)\n"
    there = {"net": net}
    exec(code, there)  # its globals are those of a script
    net.forward = there["timed"]


@pytest.mark.parametrize("wrap", [in_a_closure, of_functools, of_a_script])
def test_a_forward_around_the_forward_of_a_network_is_harmless(wrap, tmp_path):
    """A copy of the network called the layers of the network itself, where no hook saw them."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)).eval()
    data = [(torch.randn(1, 6), index % 2) for index in range(6)]
    options = {"layer": "0", "store": tmp_path / "run", "progress": False}
    before = ifa.analyze(net, data, **options)
    wrap(net)
    noted = pytest.warns(ifa.RunNote, match="it computes the same")
    with contextlib.nullcontext() if wrap is of_functools else noted:
        again = ifa.analyze(net, data, **options)
    assert again["0"].to_dataset().identical(before["0"].to_dataset())
    maps = ifa.explain(net, data[0][0][None], layer="0")
    del net.forward
    torch.testing.assert_close(maps, ifa.explain(net, data[0][0][None], layer="0"))


class Handing(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, values):
        return self.module(values)


@pytest.mark.parametrize("around", [nn.DataParallel, Handing, nn.Sequential])
def test_a_network_in_a_wrapper_has_the_run_of_the_network(around, tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)).eval()
    data = [(torch.randn(1, 6), index % 2) for index in range(6)]
    options = {"store": tmp_path / "run", "progress": False}
    before = ifa.analyze(net, data, layer=["1", "0"], **options)
    outer = around(net).eval()
    name = next(iter(dict(outer.named_children())))
    again = ifa.analyze(outer, data, layer=[f"{name}.1", f"{name}.0"], **options)
    assert again.attrs["layers"] == [f"{name}.1", f"{name}.0"]
    for layer in ("0", "1"):
        for part in ("", "samples/"):
            found = again[f"{part}{name}.{layer}"].to_dataset()
            assert found.identical(before[f"{part}{layer}"].to_dataset())
    assert again["samples"]["id"].identical(before["samples"]["id"])
    with pytest.raises(ValueError, match="got another: layers"):
        ifa.analyze(outer, data, layer=f"{name}.1", **options)
    (tmp_path / "run" / "COMMIT.json").unlink()
    with pytest.raises(ValueError, match="got another: layers"):  # it would mix names
        ifa.analyze(outer, data, layer=[f"{name}.1", f"{name}.0"], **options)
