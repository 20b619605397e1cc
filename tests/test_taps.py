"""Taps against plain autograd, on networks that broke other libraries."""

import copy
import dataclasses
import gc
import pickle
import threading
from collections import OrderedDict
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

import ifa

CONV: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class Pooled(nn.Module):
    """Mean over space, then a linear layer."""

    def __init__(self, channels: int, outputs: int = 4):
        super().__init__()
        self.linear = nn.Linear(channels, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(2).tanh().mean(2))


class Dense(nn.Module):
    """DenseNet-style: a functional ReLU reads what concatenation keeps."""

    def __init__(self):
        super().__init__()
        self.stem, self.grow, self.head = nn.Conv2d(2, 3, 3), nn.Conv2d(3, 2, 1), Pooled(5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(torch.cat([x, self.grow(functional.relu(x))], 1).relu_())


class Reused(nn.Module):
    """One in-place ReLU, run twice, also as the tapped layer."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(2, 3, 3), nn.Conv2d(3, 3, 1)
        self.relu, self.unused, self.head = nn.ReLU(inplace=True), nn.Linear(2, 2), Pooled(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.relu(self.conv2(self.relu(self.conv1(x)))))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]):
        super().__init__()
        self.conv, self.rnn = nn.Conv1d(2, 3, 3), kind(3, 5, batch_first=True)
        self.head = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(self.conv(x).transpose(1, 2))[0][:, -1])


class Both(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * 2, x.sum((2, 3))


class TupleLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.both, self.head = nn.Conv2d(2, 3, 3), Both(), Pooled(3)

    def forward(self, x: Tensor) -> Tensor:
        x, extra = self.both(self.conv(x))
        return self.head(x) + extra.mean(1, keepdim=True)


class FrozenBelow(nn.Module):
    """A backbone under no_grad, as users freeze it."""

    def __init__(self):
        super().__init__()
        self.first, self.last, self.head = nn.Conv2d(2, 3, 3), nn.Conv2d(3, 5, 1), Pooled(5)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.last(self.first(x))
        return self.head(x)


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.one, self.other = nn.Conv2d(2, 3, 3), Pooled(3), Pooled(3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.conv(x)
        return self.one(x), self.other(x)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.head = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1), Pooled(2)
        self.two.weight = self.one.weight
        self.alias = self.two

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.two(self.one(x)))


def small(space: int = 2, channels: int = 3) -> nn.Sequential:
    return nn.Sequential(
        CONV[space](2, channels, 3, stride=2), nn.ReLU(inplace=True), Pooled(channels)
    )


def normed() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(inplace=True), Pooled(3))


def old_weight_norm() -> nn.Module:
    net = small()
    with pytest.warns(FutureWarning):
        net[0] = nn.utils.weight_norm(net[0])
    net(batch())  # now the weight is a computed tensor, which deepcopy refuses
    return net


def weight_normed() -> nn.Module:
    net = small()
    net[0] = parametrizations.weight_norm(net[0])
    return net


def batch(space: int = 2, samples: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(samples, 2, *(9, 7, 8)[:space], generator=generator)


def build(make: Any, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make().eval()


def oracle(net: nn.Module, layer: str, inputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Activations and gradients by a hooked leaf and plain autograd, one sample and target each."""
    name, _, wanted = layer.partition("#")
    seen: list[tuple[Tensor, Tensor]] = []
    calls = []

    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        calls.append(output)
        if len(calls) != int(wanted or 1):
            return None
        tensor = output[0] if isinstance(output, tuple) else output
        leaf = tensor.detach().clone().requires_grad_()
        with torch.enable_grad():
            on = leaf.clone()
        seen.append((leaf.detach().clone(), leaf))
        return (on, *output[1:]) if isinstance(output, tuple) else on

    handle = net.get_submodule(name).register_forward_hook(hook)
    try:
        gradients = []
        for row in torch.atleast_2d(target):
            calls.clear()
            output = net(inputs.clone())
            output = output[0] if isinstance(output, tuple) else output
            score = output[torch.arange(len(inputs)), row].sum()
            (gradient,) = torch.autograd.grad(score, seen[-1][1], allow_unused=True)
            gradients.append(torch.zeros_like(seen[-1][0]) if gradient is None else gradient)
    finally:
        handle.remove()
    stacked = torch.stack(gradients)
    return seen[0][0], stacked if target.ndim == 2 else stacked[0]


def check(
    net: nn.Module, layer: str, inputs: Tensor, target: Tensor, grid: Any = None, **close: float
) -> None:
    features = ifa.tap(net, layer, inputs[:2], grid=grid)(inputs, target)
    activations, gradients = oracle(net, layer, inputs, target)
    torch.testing.assert_close(features.activations, activations, **close)
    torch.testing.assert_close(features.gradients, gradients, **close)
    assert torch.equal(features.target, target)
    assert not any(tensor.requires_grad for tensor in features)


ONE = torch.tensor([2, 0, 3])
MANY = torch.tensor([[2, 0, 3], [1, 1, 0]])

NETS = [
    pytest.param(small, "0", id="in-place relu after"),
    pytest.param(small, "1", id="in-place relu itself"),
    pytest.param(normed, "1", id="batch norm"),
    pytest.param(Dense, "stem", id="functional relu, concatenation"),
    pytest.param(Dense, "grow", id="in-place after concatenation"),
    pytest.param(Reused, "relu#1", id="reused, first"),
    pytest.param(Reused, "relu#2", id="reused, second"),
    pytest.param(Reused, "conv1", id="below a reused in-place relu"),
    pytest.param(TupleLayer, "both", id="layer returns a tuple"),
    pytest.param(FrozenBelow, "last", id="end of a no_grad backbone"),
    pytest.param(TwoHeads, "conv", id="model returns a tuple"),
    pytest.param(Tied, "one", id="tied weights"),
    pytest.param(old_weight_norm, "0", id="old-style weight norm"),
    pytest.param(weight_normed, "0", id="parametrization"),
]


@pytest.mark.parametrize("target", [ONE, MANY], ids=["one", "many"])
@pytest.mark.parametrize(("make", "layer"), NETS)
def test_equals_autograd(make, layer, target):
    check(build(make), layer, batch(), target)


@pytest.mark.parametrize("target", [ONE, MANY], ids=["one", "many"])
@pytest.mark.parametrize(("make", "layer"), [(FrozenBelow, "first"), (TwoHeads, "other")])
def test_a_layer_that_no_path_connects_to_the_score_is_refused(make, layer, target):
    net, inputs = build(make), batch()
    tap = ifa.tap(net, layer, inputs)
    text = rf"^ifa\.tap: expected a layer that the score depends on, got '{layer}', from where no"
    for call in (tap, tap.observe):
        with pytest.raises(ValueError, match=text):
            call(inputs, target)


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
@pytest.mark.parametrize("target", [ONE, MANY], ids=["one", "many"])
def test_a_recurrent_layer_above(kind, target):
    check(build(lambda: Recurrent(kind)), "conv", batch(1), target)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("space", [1, 2, 3])
def test_every_number_of_space_axes_and_float64(space, dtype):
    net, inputs = build(lambda: small(space)).to(dtype), batch(space).to(dtype)
    features = ifa.tap(net, "0", inputs)(inputs, MANY)
    assert features.activations.ndim == space + 2
    assert features.activations.dtype == features.gradients.dtype == dtype
    check(net, "0", inputs, MANY)


def transformer() -> nn.Module:
    block = nn.TransformerEncoderLayer(6, 2, 5, batch_first=True, dropout=0.0)
    encoder = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
    return nn.Sequential(encoder, nn.Flatten(), nn.Linear(6 * 7, 4))


@pytest.mark.parametrize("layer", ["0.layers.0", "0.layers.0.norm1", "0.layers.1", "0"])
@pytest.mark.parametrize("target", [ONE, MANY], ids=["one", "many"])
def test_attention_above_in_spite_of_its_fused_path(layer, target):
    # rows may be tokens, or channels: it must be said
    inputs, as_it_is = torch.randn(3, 7, 6), nn.Identity()
    check(build(transformer), layer, inputs, target, as_it_is, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("make", [small, normed])
def test_bfloat16_autocast(make):
    net, inputs = build(make), batch()
    outside = ifa.tap(net, "0", inputs)
    with torch.autocast("cpu", torch.bfloat16):
        inside = ifa.tap(net, "0", inputs)
        check(net, "0", inputs, ONE)
        features, late = inside(inputs, ONE), outside(inputs, ONE)
    assert features.activations.dtype == features.gradients.dtype == torch.bfloat16
    for one, other in zip(features, late, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other)
    assert outside(inputs, ONE).gradients.dtype == torch.float32


@pytest.mark.parametrize("names", [("conv1", "relu#2", "conv2"), ["relu#1", "conv1"]])
@pytest.mark.parametrize("target", [ONE, MANY], ids=["one", "many"])
def test_several_layers_in_the_order_asked(names, target):
    net, inputs = build(Reused), batch()
    found = ifa.tap(net, names, inputs)(inputs, target)
    assert isinstance(found, tuple)
    for name, features in zip(names, found, strict=True):
        alone = ifa.tap(net, name, inputs)(inputs, target)
        for one, other in zip(features, alone, strict=True):
            torch.testing.assert_close(one, other)


def test_a_sample_does_not_depend_on_its_batch():
    net, inputs = build(normed), batch()
    tap = ifa.tap(net, "1", inputs)
    whole = tap(inputs, MANY)
    parts = [tap(inputs[i : i + 1], MANY[:, i : i + 1]) for i in range(3)]
    for axis, field in enumerate(["activations", "gradients", "target"]):
        joined = torch.cat([getattr(part, field) for part in parts], 0 if axis == 0 else 1)
        torch.testing.assert_close(getattr(whole, field), joined)


def test_observe_returns_output_and_score_of_the_same_pass():
    net, inputs = build(normed), batch()
    seen = ifa.tap(net, ("0", "2"), inputs).observe(inputs, MANY)
    with torch.no_grad():
        output = net(inputs)
    torch.testing.assert_close(seen.output, output)
    torch.testing.assert_close(seen.score, output[torch.arange(3), MANY])
    assert len(seen.result) == 2
    assert not seen.output.requires_grad
    assert not seen.score.requires_grad


class Poison(torch.autograd.Function):
    """Harmless forward; a backward pass that must not happen."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        return None

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise AssertionError("differentiated below the layer")


class Poisoned(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.conv, self.head = nn.Conv2d(2, 3, 3), nn.Conv2d(3, 5, 1), Pooled(5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(Poison.apply(self.stem(x))))


def test_nothing_below_the_layer_is_differentiated():
    net, inputs = build(Poisoned), batch()
    check(net, "conv", inputs, MANY)
    with pytest.raises(AssertionError, match="below the layer"):
        ifa.tap(net, "stem", inputs)(inputs, 0)


def test_no_gradient_of_a_parameter_is_computed():
    net, inputs = build(small), batch()
    asked = []
    for parameter in net.parameters():
        parameter.register_hook(asked.append)
    features = ifa.tap(net, "0", inputs)(inputs, MANY)
    assert not asked
    assert all(parameter.grad is None for parameter in net.parameters())
    assert all(tensor.grad_fn is None for tensor in features)
    replica = ifa.tap(net, "0", inputs)._prepared.replicas.get().module
    assert not any(parameter.requires_grad for parameter in replica.parameters())


def snapshot(net: nn.Module) -> dict[str, Any]:
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    tensors = [*net.parameters(), *net.buffers()]
    return {
        "values": [(id(t), t.detach().clone(), t._version, t.requires_grad) for t in tensors],
        "grads": [None if p.grad is None else p.grad.clone() for p in net.parameters()],
        "modules": [(id(m), m.training, sorted(vars(m))) for m in net.modules()],
        "hooks": [len(getattr(m, name)) for m in net.modules() for name in hooks],
        "random": torch.get_rng_state(),
    }


def assert_untouched(net: nn.Module, before: dict[str, Any]) -> None:
    after = snapshot(net)
    for one, other in zip(before["values"], after["values"], strict=True):
        assert one[0] == other[0]
        assert torch.equal(one[1], other[1])
        assert one[2:] == other[2:]
    for one, other in zip(before["grads"], after["grads"], strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one, other)
    assert before["modules"] == after["modules"]
    assert before["hooks"] == after["hooks"]
    assert torch.equal(before["random"], after["random"])


def used_net() -> nn.Module:
    """A network in the middle of training: gradients, a frozen part, a hook, mixed modes."""
    net = build(normed)
    net(batch()).sum().backward()
    net[0].weight.requires_grad_(False)
    net[2].train()
    return net


def test_the_model_is_left_exactly_as_it_was():
    net, inputs = used_net(), batch()
    handle = net[0].register_full_backward_hook(lambda *_: None)
    before, images = snapshot(net), inputs.clone()
    ifa.trace(net, inputs)
    ifa.tap(net, "0", inputs)(inputs, MANY)
    activations, head = ifa.cut(net, "1", inputs)(inputs)
    head(activations)
    assert_untouched(net, before)
    assert torch.equal(inputs, images)
    handle.remove()


def test_the_model_is_left_as_it_was_by_an_error():
    net, inputs = used_net(), batch()

    def broken(output: Tensor, target: Tensor) -> Tensor:
        raise ZeroDivisionError("in the score")

    before = snapshot(net)
    with pytest.raises(ZeroDivisionError):
        ifa.tap(net, "0", inputs, score=broken)(inputs, 0)
    tap = ifa.tap(net, "0", inputs)
    net[3].linear.weight.data = torch.zeros(4, 7)  # does not fit
    before = snapshot(net)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            tap(inputs, 0)
    assert_untouched(net, before)


def test_three_hundred_taps_leave_nothing_behind():
    net, inputs = used_net(), batch()
    ifa.tap(net, "0", inputs)(inputs, MANY)
    before = snapshot(net)

    def tensors() -> int:
        return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())

    gc.collect()
    count = tensors()
    gc.disable()  # nothing may wait for the collector of cycles
    try:
        for _ in range(300):
            tap = ifa.tap(net, ("0", "2"), inputs)
            tap(inputs, MANY)
            tap(inputs, 1)
        del tap
        assert tensors() <= count + 3
    finally:
        gc.enable()
    assert_untouched(net, before)


def test_right_under_no_grad():
    net, inputs = build(normed), batch()
    expected = ifa.tap(net, "0", inputs)(inputs, MANY)
    with torch.no_grad():
        found = ifa.tap(net, "0", inputs)(inputs, MANY)
        assert not torch.is_grad_enabled()
    for one, other in zip(expected, found, strict=True):
        assert torch.equal(one, other)
    assert torch.is_grad_enabled()


def test_refused_under_inference_mode_by_name():
    net, inputs = build(small), batch()
    tap, split = ifa.tap(net, "0", inputs), ifa.cut(net, "0", inputs)
    for refused in (tap, split, lambda x: ifa.tap(net, "0", x), lambda x: ifa.trace(net, x)):
        with torch.inference_mode(), pytest.raises(RuntimeError, match=r"torch.inference_mode\(\)"):
            refused(inputs)


def test_updates_of_the_model_are_seen():
    net, inputs = build(normed), batch()
    tap = ifa.tap(net, "0", inputs)
    tap(inputs, ONE)

    def same() -> None:
        features = tap(inputs, ONE)
        fresh = ifa.tap(net, "0", inputs)(inputs, ONE)
        for one, other in zip(features, fresh, strict=True):
            assert one.dtype == other.dtype
            assert torch.equal(one, other)

    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    net(inputs).square().sum().backward()
    optimizer.step()
    same()
    net.load_state_dict(build(normed).state_dict())
    same()
    net[0].weight = nn.Parameter(torch.randn(3, 2, 3, 3))
    same()
    net[0].weight.data = net[0].weight.data.transpose(2, 3)  # the same memory, laid out otherwise
    same()
    net[1].running_mean = torch.ones(3)
    same()
    del net[2]  # its identity may be given to the next module
    net.insert(2, nn.GELU())
    same()
    net[3] = nn.Sequential(Pooled(3), nn.Linear(4, 4))
    same()
    inputs = inputs.double()
    net.to(torch.float64)
    same()


def test_modes_are_those_of_when_the_tap_was_made():
    net, inputs = build(normed), batch()
    tap = ifa.tap(net, "0", inputs)
    expected = tap(inputs, ONE)
    net.train()
    net[0].weight = nn.Parameter(net[0].weight.detach().clone())  # a new replica is needed
    before = snapshot(net)
    assert torch.equal(tap(inputs, ONE).gradients, expected.gradients)
    assert_untouched(net, before)


def test_four_threads_at_once():
    net, inputs = build(normed), batch()
    tap = ifa.tap(net, ("0", "2"), inputs)
    expected = tap(inputs, MANY)
    results: list[Any] = []

    def work() -> None:
        for _ in range(5):
            results.append(tap(inputs, MANY))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 20
    for result in results:
        for one, other in zip(expected, result, strict=True):
            assert torch.equal(one.activations, other.activations)
            assert torch.equal(one.gradients, other.gradients)


@pytest.mark.parametrize("layer", ["0", "1"])
def test_inputs_are_not_modified_by_a_first_layer_in_place(layer):
    net = build(lambda: nn.Sequential(nn.ReLU(inplace=True), *small()))
    inputs = batch()
    images = inputs.clone()
    features = ifa.tap(net, layer, inputs)(inputs, MANY)
    split, head = ifa.cut(net, layer, inputs)(inputs)
    output = head(split)
    assert torch.equal(inputs, images)
    assert torch.equal(split, features.activations)
    torch.testing.assert_close(output, net(images.clone()))
    leaf = images.clone().requires_grad_()
    assert torch.equal(ifa.tap(net, layer, inputs)(leaf, MANY).gradients, features.gradients)


def test_vmap_over_parameters_equals_a_loop():
    nets = [normed().eval() for _ in range(3)]
    inputs = batch()
    params, buffers = torch.func.stack_module_state(nets)
    tap = ifa.tap(nets[0], "0", inputs)
    for target in (None, ONE, MANY):
        stacked = torch.func.vmap(lambda p, t=target: tap(inputs, t, p))({**params, **buffers})
        loop = [ifa.tap(net, "0", inputs)(inputs, target) for net in nets]
        for field in ("activations", "gradients", "target"):
            expected = torch.stack([getattr(features, field) for features in loop])
            torch.testing.assert_close(getattr(stacked, field), expected)


def test_vmap_over_targets_and_inputs_equals_a_loop():
    net = build(normed)
    inputs, targets = torch.stack([batch(), batch() + 1]), torch.stack([ONE, ONE.flip(0)])
    tap = ifa.tap(net, "0", inputs[0])
    mapped = torch.func.vmap(tap)(inputs, targets)
    for i in range(2):
        alone = tap(inputs[i], targets[i])
        torch.testing.assert_close(mapped.activations[i], alone.activations)
        torch.testing.assert_close(mapped.gradients[i], alone.gradients)


def test_derivatives_through_a_tap():
    net, inputs = build(lambda: small()).double(), batch(samples=1).double()
    tap = ifa.tap(net, "0", inputs)

    def penalty(x: Tensor) -> Tensor:
        seen = tap.observe(x, 1)
        features = seen.result
        return (features.gradients.square() * features.activations).sum() + seen.score.sum()

    gradient = torch.func.grad(penalty)(inputs)
    step = 1e-6 * torch.randn(inputs.shape, dtype=inputs.dtype)
    difference = penalty(inputs + step) - penalty(inputs - step)
    torch.testing.assert_close((gradient * step).sum(), difference / 2, atol=0, rtol=1e-4)
    leaf = inputs.clone().requires_grad_()
    torch.testing.assert_close(torch.autograd.grad(penalty(leaf), leaf)[0], gradient)
    jacobian = torch.func.jacrev(lambda x: tap(x, 1).activations.mean((2, 3)))(inputs)
    plain = torch.func.jacrev(lambda x: net[0](x).mean((2, 3)))(inputs)
    torch.testing.assert_close(jacobian, plain)


def test_derivatives_through_what_a_score_closes_over():
    net, inputs = build(small), batch()

    def mean_square(weights: Tensor) -> Tensor:
        score = lambda output, target: (output * weights).sum()  # noqa: E731
        return ifa.tap(net, "0", inputs, score=score)(inputs, 0).gradients.square().sum()

    weights = torch.tensor([1.0, -2.0, 0.5, 3.0])
    # quadratic in the weights, so w · grad is twice the value
    value, gradient = mean_square(weights), torch.func.grad(mean_square)(weights)
    torch.testing.assert_close((gradient * weights).sum(), 2 * value)
    leaf = weights.clone().requires_grad_()
    torch.testing.assert_close(torch.autograd.grad(mean_square(leaf), leaf)[0], gradient)


def test_params_replace_by_name_and_are_constants():
    net, other, inputs = build(normed), build(normed, seed=1), batch()
    tap, expected = ifa.tap(net, "0", inputs), ifa.tap(other, "0", inputs)(inputs, MANY)
    given = dict(other.named_parameters()) | dict(other.named_buffers())
    found = tap(inputs, MANY, given)
    for one, another in zip(found, expected, strict=True):
        assert torch.equal(one, another)
    assert not found.gradients.requires_grad
    before = tap(inputs, MANY)
    assert not torch.equal(before.gradients, found.gradients)
    part = tap(inputs, MANY, {"0.weight": other[0].weight})
    assert torch.equal(
        part.activations, ifa.tap(net, "0", inputs)(inputs, MANY, part_of(net, other)).activations
    )
    assert torch.equal(tap(inputs, MANY).gradients, before.gradients)


def part_of(net: nn.Module, other: nn.Module) -> dict[str, Tensor]:
    return {**dict(net.named_parameters()), "0.weight": other.get_parameter("0.weight")}


def test_a_tap_pickles():
    net, inputs = build(normed), batch()
    tap = ifa.tap(net, ("0", "2"), inputs, score=ifa.score.probability, grid=ifa.channels_last())
    again = pickle.loads(pickle.dumps(tap))
    assert repr(again) == repr(tap)
    for one, other in zip(tap(inputs, ONE), again(inputs, ONE), strict=True):
        assert torch.equal(one.gradients, other.gradients)


class Hostile(nn.Module):
    """Computed tensors in plain attributes, which deepcopy refuses."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(2, 3, 3), Pooled(3)
        self.scale = self.conv.weight.sum()
        self.kept = {"list": [self.scale * 2], "free": [nn.Parameter(torch.ones(3, 1, 1))]}

    def forward(self, x: Tensor) -> Tensor:
        self.last = self.conv(x) * self.scale + self.kept["list"][0]
        return self.head(self.last * self.kept["free"][0])


def test_computed_tensors_in_plain_attributes():
    net, inputs = build(Hostile), batch()
    check(net, "conv", inputs, MANY)
    tap = ifa.tap(net, "conv", inputs)
    del net.last
    net.kept["free"][0].data *= 3
    assert torch.equal(tap(inputs, 1).gradients, ifa.tap(net, "conv", inputs)(inputs, 1).gradients)
    assert not hasattr(net, "last")


def test_a_model_that_cannot_be_copied_is_refused():
    net, inputs = build(small), batch()
    net.lock = threading.Lock()
    with pytest.raises(
        TypeError, match=r"ifa\.trace: expected a model that copy.deepcopy can copy"
    ):
        ifa.trace(net, inputs)


def test_a_compiled_model_is_taken_plain():
    net, inputs = build(small), batch()
    compiled = torch.compile(net, backend="eager")
    assert list(ifa.trace(compiled, inputs)) == list(ifa.trace(net, inputs))
    found = ifa.tap(compiled, "0", inputs)(inputs, ONE)
    assert torch.equal(found.gradients, ifa.tap(net, "0", inputs)(inputs, ONE).gradients)
    activations, head = ifa.cut(compiled, "0", inputs)(inputs)
    assert torch.equal(head(activations), net(inputs))


# outputs ---------------------------------------------------------------------------------------


class Named(NamedTuple):
    aux: Tensor
    logits: Tensor


@dataclasses.dataclass
class Data:
    aux: Tensor
    logits: Tensor


class ModelOutput(OrderedDict):
    """As in transformers: a dict with attributes, indexed also by position."""

    def __init__(self, aux: Tensor, logits: Tensor):
        super().__init__(aux=aux, logits=logits)

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else tuple(self.values())[key]

    def __reduce__(self) -> Any:
        return ModelOutput, tuple(self.values())


class Wrapped(nn.Module):
    def __init__(self, kind: Any):
        super().__init__()
        self.kind, self.body, self.head = kind, small()[:2], Pooled(3)

    def forward(self, x: Tensor) -> Any:
        x = self.body(x)
        return self.kind(x.mean((2, 3)), self.head(x))


def as_dict(aux: Tensor, logits: Tensor) -> dict[str, Tensor]:
    return {"aux": aux, "logits": logits}


@pytest.mark.parametrize(
    ("kind", "outputs"),
    [
        (Named, [None, "logits", 1]),
        (Data, [None, "logits", lambda raw: raw.logits]),
        (ModelOutput, [None, "logits", 1]),
        (as_dict, [None, "logits", lambda raw: raw["logits"]]),
        (lambda aux, logits: (logits, aux), [None, 0]),
        (lambda aux, logits: [None, aux, logits], [2, -1]),
        (lambda aux, logits: (("nested", logits), aux), [lambda raw: raw[0][1]]),
    ],
)
def test_outputs_of_every_kind(kind, outputs):
    net, inputs = build(lambda: Wrapped(kind)), batch()
    plain = nn.Sequential(net.body, net.head).eval()
    expected = ifa.tap(plain, "0.0", inputs).observe(inputs, MANY)
    for output in outputs:
        seen = ifa.tap(net, "body.0", inputs, output=output).observe(inputs, MANY)
        assert torch.equal(seen.output, expected.output)
        assert torch.equal(seen.result.gradients, expected.result.gradients)
        activations, head = ifa.cut(net, "body.0", inputs, output=output)(inputs)
        assert torch.equal(head(activations), expected.output)


@pytest.mark.parametrize("kind", [Named, Data, ModelOutput, as_dict])
def test_layers_that_return_records_are_tapped_at_their_first_tensor(kind):
    class Records(nn.Module):
        def __init__(self):
            super().__init__()
            self.wrapped = Wrapped(kind)

        def forward(self, x: Tensor) -> Tensor:
            raw = self.wrapped(x)
            aux, logits = (raw.aux, raw.logits) if kind in (Named, Data) else raw.values()
            return aux.square().sum(1, keepdim=True) + logits

    net, inputs = build(Records), batch()
    features = ifa.tap(net, "wrapped", inputs)(inputs, 1)
    torch.testing.assert_close(features.gradients, 2 * features.activations)


@pytest.mark.parametrize("flat", [True, False])
def test_regression(flat):
    net = build(lambda: nn.Sequential(small(), nn.Linear(4, 1)))
    if flat:
        net.append(nn.Flatten(0))
    inputs = batch()
    tap = ifa.tap(net, "0.0", inputs)
    assert tap.outputs == 1
    for target in (None, 0, torch.zeros(3, dtype=torch.int64)):
        features = tap(inputs, target)
        assert features.target.tolist() == [0, 0, 0]
        _, gradients = oracle(nn.Sequential(*net[:2]), "0.0", inputs, torch.zeros(3).long())
        torch.testing.assert_close(features.gradients, gradients)
    many = tap(inputs, torch.zeros(2, 3, dtype=torch.int64))
    assert torch.equal(many.gradients[0], many.gradients[1])
    with pytest.raises(ValueError, match=r"expected targets in 0\.\.0"):
        tap(inputs, 1)


@pytest.mark.parametrize(
    "target",
    [1, [1, 1, 1], (1, 1, 1), torch.tensor(1), torch.tensor([1, 1, 1], dtype=torch.uint8)],
)
def test_target_forms(target):
    net, inputs = build(small), batch()
    tap = ifa.tap(net, "0", inputs)
    features = tap(inputs, target)
    assert features.target.dtype == torch.int64
    assert features.target.tolist() == [1, 1, 1]
    assert torch.equal(features.gradients, tap(inputs, torch.ones(3).long()).gradients)


def test_no_target_is_the_prediction():
    net, inputs = build(small), batch()
    tap = ifa.tap(net, "0", inputs)
    found = tap(inputs)
    assert torch.equal(found.target, net(inputs).argmax(1))
    assert torch.equal(found.gradients, tap(inputs, found.target).gradients)


def test_many_targets_are_done_in_chunks_that_change_nothing(monkeypatch):
    net, inputs = build(normed), batch()
    tap = ifa.tap(net, "0", inputs)
    target = torch.arange(4)[:, None].expand(4, 3)
    whole = tap(inputs, target)
    for size in (1, 3 * whole.gradients[0].nbytes):
        monkeypatch.setattr("ifa.network.budgets.CACHE_BYTES", size)
        torch.testing.assert_close(tap(inputs, target).gradients, whole.gradients)


# trace -----------------------------------------------------------------------------------------


def test_trace_lists_calls_in_order():
    sites = ifa.trace(build(Reused), batch())
    names = ["conv1", "relu#1", "conv2", "relu#2", "head.linear", "head"]
    assert list(sites) == names
    assert sites["relu#2"] == ifa.Site("relu#2", (3, 7, 5), torch.float32)
    assert repr(sites).splitlines()[:3] == [
        "layer        shape of one example  dtype",
        "conv1        3 × 7 × 5             float32",
        "relu#1       3 × 7 × 5             float32",
    ]


class Counting(nn.Module):
    """Changes a buffer in evaluation mode: in place, by replacement, or a plain attribute."""

    def __init__(self, how: str):
        super().__init__()
        self.body, self.how, self.plain = small(), how, torch.zeros(())
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "replaced":
            self.count = self.count + 1
        else:
            (self.count if self.how == "in place" else self.plain).add_(1)
        return self.body(x)


@pytest.mark.parametrize(
    ("how", "name"), [("in place", "count"), ("replaced", "count"), ("plain", "plain")]
)
def test_a_model_that_changes_itself_is_refused(how, name):
    net, inputs = build(lambda: Counting(how)), batch()
    before = snapshot(net)
    for refused in (ifa.trace, lambda n, x: ifa.tap(n, "body.0", x)):
        with pytest.raises(ValueError, match=f"changes nothing on the model.*{name!r}"):
            refused(net, inputs)
    assert_untouched(net, before)
    assert net.count == net.plain == 0


class Noise(nn.Module):
    def __init__(self, always: bool):
        super().__init__()
        self.body, self.always = small(), always

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        return x + torch.randn_like(x) if self.always or self.training else x


@pytest.mark.parametrize(
    ("make", "train", "text"),
    [
        (normed, True, r"'1' \(BatchNorm2d\) in training mode.*model.eval\(\)"),
        (lambda: nn.Sequential(small(), nn.Dropout(0.5)), True, r"'1' \(Dropout\).*model.eval\(\)"),
        (lambda: Recurrent(nn.GRU), True, None),
        (small, True, None),
        (lambda: nn.Sequential(nn.Dropout(0.0), *small()), True, None),
        (lambda: nn.Sequential(nn.InstanceNorm2d(2), *small()), True, None),
        (
            lambda: nn.Sequential(nn.InstanceNorm2d(2, track_running_stats=True), *small()),
            True,
            r"InstanceNorm2d.*model.eval\(\)",
        ),
        (lambda: nn.Sequential(nn.InstanceNorm2d(2), *small()), False, None),
        (
            lambda: nn.Sequential(nn.InstanceNorm2d(2, track_running_stats=True), *small()),
            False,
            None,
        ),
        (
            lambda: nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False), *small()),
            False,
            "without running statistics",
        ),
        (lambda: Noise(False), False, None),
        (lambda: Noise(False), True, r"draws no random numbers.*model.eval\(\)"),
        (lambda: Noise(True), False, "draws no random numbers"),
        (lambda: nn.Sequential(nn.RReLU(), *small()), True, "draws no random numbers"),
    ],
)
def test_what_couples_samples_or_draws_is_refused(make, train, text):
    net = build(make).train(train)
    inputs = batch(1 if isinstance(net, Recurrent) else 2)
    before = snapshot(net)
    if text is None:
        assert ifa.trace(net, inputs)
    else:
        with pytest.raises(ValueError, match=text):
            ifa.trace(net, inputs)
    assert_untouched(net, before)


@pytest.mark.parametrize("space", [1, 2, 3])
def test_no_layer_is_the_last_with_a_grid(space):
    net, inputs = build(lambda: small(space)), batch(space)
    assert ifa.tap(net, None, inputs).sites[0].layer == "1"
    pooled = nn.Sequential(net[0], nn.Flatten(2), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    if space > 1:  # after flattening there are fewer axes than the input has
        assert ifa.tap(pooled, None, inputs).sites[0].layer == "0"
    assert isinstance(ifa.tap(net, None, inputs)(inputs, 0), ifa.Features)


class Backbone(nn.Module):
    """Returns its last feature map and, apart from it, the mean that the classifier reads."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.conv(x)
        return maps, maps.mean((2, 3))


class Classified(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone, self.linear = Backbone(), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.backbone(x)[1])


def test_the_last_grid_is_one_that_goes_on():
    net, inputs = build(Classified), batch()
    tap = ifa.tap(net, None, inputs)
    assert tap.sites[0].layer == "backbone.conv"
    assert tap(inputs, 0).gradients.any()


def test_module_aliases():
    net, inputs = build(Tied), batch()
    expected = ifa.tap(net, "two", inputs)(inputs, 1)
    for name in ("alias", "two#1", "alias#1"):
        found = ifa.tap(net, name, inputs)
        assert found.sites[0].layer == "two"
        assert torch.equal(found(inputs, 1).gradients, expected.gradients)


class Branching(nn.Module):
    """What runs depends on the inputs."""

    def __init__(self):
        super().__init__()
        self.conv, self.extra, self.head = nn.Conv2d(2, 3, 3), nn.ReLU(), Pooled(3)

    def forward(self, x: Tensor) -> Tensor:
        times = int(x.mean().round())
        x = self.conv(x)
        for _ in range(times):
            x = self.extra(x)
        return self.head(x)


def test_a_layer_that_runs_otherwise_than_on_the_example_is_refused():
    net, inputs = build(Branching), torch.ones(3, 2, 9, 7)
    tap, split = ifa.tap(net, "extra", inputs), ifa.cut(net, "extra", inputs)
    assert tap(inputs, 0).gradients.any()
    with pytest.raises(ValueError, match=r"'extra.*got none"):
        tap(inputs * 0, 0)
    with pytest.raises(ValueError, match=r"'extra'.*a second call"):
        tap(inputs * 2, 0)
    with pytest.raises(ValueError, match="'extra' to run whatever the inputs"):
        split(inputs * 0)


def test_parameters_of_another_shape_do_not_broadcast():
    net, inputs = build(small), batch()
    tap = ifa.tap(net, "0", inputs)
    params = {"0.weight": torch.ones(1, 2, 3, 3), "0.bias": torch.ones(1)}
    with pytest.raises(ValueError, match=r"got one of shape \(3, 1, 4, 3\)"):
        tap(inputs, 0, params)


# cut -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "layer"), [case for case in NETS if case.values[0] is not TwoHeads]
)
def test_cut_gives_the_model_back(make, layer):
    net, inputs = build(make), batch()
    activations, head = ifa.cut(net, layer, inputs[:1])(inputs)
    with torch.no_grad():
        expected = net(inputs)
        assert torch.equal(head(activations), expected)
        assert torch.equal(head(activations), expected)  # an in-place layer did not spoil it
    assert torch.equal(activations, ifa.tap(net, layer, inputs)(inputs, 0).activations)
    assert repr(head).startswith(f"head above {layer!r}, by replay: ")


@pytest.mark.parametrize("space", [1, 2, 3])
def test_a_head_is_a_function_of_activations(space):
    net, inputs = build(lambda: small(space)), batch(space)
    activations, head = ifa.cut(net, "1", inputs)(inputs)
    changed = activations.flip(1) + 1
    kept = changed.clone()
    torch.testing.assert_close(head(changed), net[2](changed))
    assert torch.equal(changed, kept)
    variants = torch.stack([activations, changed, 0 * changed])
    mapped = torch.func.vmap(head)(variants)
    torch.testing.assert_close(mapped, torch.stack([net[2](each) for each in variants]))
    gradient = torch.func.grad(lambda a: head(a)[:, 1].sum())(activations)
    tapped = ifa.tap(net, "1", inputs)(inputs, 1).gradients
    torch.testing.assert_close(gradient, tapped)


@pytest.mark.parametrize("shape", [(2, 3, 4, 3), (4, 3, 4, 3), (3, 1, 4, 3), (3, 3, 4)])
def test_activations_of_another_shape_are_refused(shape):
    net, inputs = build(small), batch()
    _, head = ifa.cut(net, "1", inputs)(inputs)
    with pytest.raises(ValueError, match=r"expected activations \(3, 3, 4, 3\) of layer '1'"):
        head(torch.zeros(shape))


# grids -----------------------------------------------------------------------------------------


class Tokens(nn.Module):
    """A class token and a grid of 2 × 3 tokens of 5 channels; attention above."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Linear(4, 5), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        weights = (x @ x.transpose(1, 2)).softmax(-1)
        return self.head((weights @ x)[:, 0])


@pytest.mark.parametrize("target", [ONE, MANY], ids=["one", "many"])
@pytest.mark.parametrize(
    ("grid", "shape", "lay"),
    [
        (ifa.tokens(1, (2, 3)), (5, 2, 3), lambda v: v[..., 1:, :].mT.unflatten(-1, (2, 3))),
        (ifa.tokens(0, (7,)), (5, 7), lambda v: v.mT),
        (
            ifa.tokens(3, (2, 2, 1)),
            (5, 2, 2, 1),
            lambda v: v[..., 3:, :].mT.unflatten(-1, (2, 2, 1)),
        ),
        (ifa.channels_last(), (5, 7), lambda v: v.movedim(-1, -2)),
    ],
)
def test_grids_with_one_and_many_targets(grid, shape, lay, target):
    net, inputs = build(Tokens), torch.randn(3, 7, 4)
    tap = ifa.tap(net, "embed", inputs, grid=grid)
    raw = ifa.tap(net, "embed", inputs)(inputs, target)
    found = tap(inputs, target)
    assert tap.shapes == (shape,)
    assert torch.equal(found.activations, lay(raw.activations))
    assert torch.equal(found.gradients, lay(raw.gradients))
    explain = ifa.batched(ifa.chain(ifa.weigh(ifa.weight.hirescam), ifa.combine))
    assert explain(found).values.shape == (*target.shape, *shape[1:])


def test_grids_compare_and_copy():
    assert copy.deepcopy(ifa.tokens(1, (2, 3))) == ifa.tokens(1, (2, 3)) != ifa.tokens(0, (2, 3))


class ComplexNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Conv1d(2, 3, 3), nn.Linear(3, 4)

    def above(self, activations):
        real = self.head(activations.mean(2))
        return {"complex": torch.complex(real, real**2), "real": real}

    def forward(self, x):
        return self.above(self.layer(x))


@pytest.mark.parametrize(
    "score",
    [
        lambda output, target: output["real"][target],
        lambda output, target: output["complex"].abs().sum() + output["real"][0],
    ],
)
def test_scores_that_index_by_the_target_or_read_complex_outputs(score):
    torch.manual_seed(0)
    net, inputs = ComplexNet().eval(), torch.randn(3, 2, 7)
    many = torch.tensor([[0, 1, 2], [3, 3, 3]])
    features = ifa.tap(net, "layer", inputs, score=score, output=lambda raw: raw)(inputs, many)
    for row, gradients in zip(many, features.gradients, strict=True):
        start = net.layer(inputs).detach().requires_grad_()
        output = net.above(start)
        each = [{name: part[i] for name, part in output.items()} for i in range(3)]
        total = torch.stack([score(one, t) for one, t in zip(each, row, strict=True)]).sum()
        torch.testing.assert_close(gradients, torch.autograd.grad(total, start)[0])


# of torch's own, where it first differentiates forward
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_forward_mode_goes_through_a_tap():
    torch.manual_seed(0)
    net, inputs = ComplexNet().eval(), torch.randn(3, 2, 7)
    tap = ifa.tap(net, "layer", inputs, output="real")
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(inputs, torch.ones_like(inputs))
        found = torch.autograd.forward_ad.unpack_dual(tap(dual, 1).activations).tangent
    assert found is not None
    expected = net.layer(inputs + 1) - net.layer(inputs)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-5)


def test_a_head_pickles():
    inputs = torch.randn(3, 2, 7)
    activations, head = ifa.cut(ComplexNet().eval(), "layer", inputs, output="real")(inputs)
    again = pickle.loads(pickle.dumps(head))
    torch.testing.assert_close(again(activations), head(activations))


class Made(nn.Module):
    """Ends in one linear map, whose offset or matrix is made of the layer as well."""

    def __init__(self, part):
        super().__init__()
        self.part, self.layer, self.made = part, nn.Conv2d(1, 4, 3), nn.Linear(4, 15)

    def forward(self, inputs):
        seen = self.layer(inputs).mean((2, 3))
        made = self.made(seen.mean(0))
        offset, matrix = made[:3], made[3:].reshape(4, 3)
        if self.part == "offset":
            return torch.addmm(offset, seen, matrix.detach())
        return seen @ matrix


@pytest.mark.parametrize("part", ["offset", "matrix"])
def test_many_targets_have_the_gradients_of_each_where_a_linear_map_is_made_of_the_layer(part):
    torch.manual_seed(0)
    net, inputs = Made(part).eval(), torch.randn(1, 1, 6, 6)
    seen = ifa.tap(net, "layer", inputs)
    each = torch.stack([seen(inputs, target).gradients for target in range(3)])
    torch.testing.assert_close(seen(inputs, torch.tensor([[0], [1], [2]])).gradients, each)
