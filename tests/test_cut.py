"""What lies above a layer, by replay: equal to the whole network, or refused with a reason."""

import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import ifa

KINDS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


class Counted:
    """Counts the forward passes of convolutions and linear layers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.calls = 0
        for kind in KINDS:
            monkeypatch.setattr(kind, "forward", self._counting(kind.forward))

    def _counting(self, forward: Any) -> Any:
        def counted(module: nn.Module, *args: Any) -> Tensor:
            self.calls += 1
            return forward(module, *args)

        return counted

    def of(self, function: Any) -> int:
        before = self.calls
        function()
        return self.calls - before


@pytest.fixture
def counted(monkeypatch):
    return Counted(monkeypatch)


def batch(samples: int = 3) -> Tensor:
    return torch.randn(samples, 2, 9, 7, generator=torch.Generator().manual_seed(1))


def build(make: Any) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().eval()


def overridden(net: nn.Module, layer: str, inputs: Tensor, activations: Tensor) -> Tensor:
    """Run the whole network with a hook of our own that replaces the layer's output."""
    name, _, wanted = layer.partition("#")
    calls = []

    def replace(module: nn.Module, args: Any, output: Any) -> Any:
        calls.append(name)
        if len(calls) != int(wanted or 1):
            return output
        new = activations.clone()
        return (new, *output[1:]) if isinstance(output, tuple) else new

    handle = net.get_submodule(name).register_forward_hook(replace)
    try:
        with torch.no_grad():
            return net(inputs.clone())
    finally:
        handle.remove()


def check(net: nn.Module, layer: str, inputs: Tensor) -> ifa.taps.Head:
    """Hold a head against the whole network: plain, changed, mapped and differentiated."""
    activations, head = ifa.cut(net, layer, inputs[:1])(inputs)
    with torch.no_grad():
        expected = net(inputs.clone())
    changed = 1.5 * activations.flip(0) - 0.2
    kept = changed.clone()
    for _ in range(2):
        torch.testing.assert_close(head(activations), expected)
        torch.testing.assert_close(head(changed), overridden(net, layer, inputs, changed))
    assert torch.equal(changed, kept)
    mapped = torch.func.vmap(head)(torch.stack([activations, changed]))
    torch.testing.assert_close(mapped, torch.stack([head(activations), head(changed)]))
    gradient = torch.func.grad(lambda a: head(a)[:, 1].sum())(activations)
    torch.testing.assert_close(gradient, ifa.tap(net, layer, inputs)(inputs, 1).gradients)
    return head


class Block(nn.Module):
    """As in torchvision: one in-place ReLU for everything, and an in-place sum."""

    def __init__(self, channels: int = 4):
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(self.relu(self.conv1(x)))
        out += x
        return self.relu(out)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(True)
        self.pool = nn.MaxPool2d(2)
        self.layer1 = nn.Sequential(Block(), Block())
        self.layer2 = nn.Sequential(Block(), Block())
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.norm(self.conv(x))))
        return self.fc(self.layer2(self.layer1(x)).mean((2, 3)))


@pytest.mark.parametrize(
    ("layer", "above"),
    [
        ("conv", 9),
        ("relu", 9),
        ("layer1.0", 7),
        ("layer1.1.conv1", 6),
        ("layer2.0.relu#1", 4),
        ("layer2.0.relu#2", 3),
        ("layer2.1.conv2", 1),
        ("layer2", 1),
        ("fc", 0),
    ],
)
def test_nothing_below_the_layer_runs(counted, layer, above):
    net = build(Residual)
    head = check(net, layer, batch())
    assert "by replay" in repr(head)
    split = ifa.cut(net, layer, batch(1))
    activations, head = split(batch())
    assert repr(split) == f"cut(Residual, {layer!r}), by replay"
    assert counted.of(lambda: split(batch())) == 10
    assert counted.of(lambda: head(activations)) == above
    assert counted.of(lambda: torch.func.vmap(head)(torch.stack([activations] * 4))) == above


# networks that a careless replay gets wrong ------------------------------------------------------


class Based(nn.Module):
    """Some layers to take from."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = (nn.Conv2d(2, 2, 3, padding=1) for _ in range(3))
        self.relu, self.same, self.fc = nn.ReLU(inplace=True), nn.Identity(), nn.Linear(2, 4)

    def head(self, x: Tensor) -> Tensor:
        return self.fc(x.tanh().mean((2, 3)))


class AddsBelow(Based):
    """What a module returned is changed in place by code outside modules, then read."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        x += 1
        return self.head(self.two(x) * x)


class AddsAbove(Based):
    """The layer's output is added in place to what a module below it returned."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        x += self.two(x)
        return self.head(x)


class ReadsBetween(Based):
    """Reads a tensor before and after a module changes it in place."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        before = x.sum((2, 3), keepdim=True)
        y = self.relu(x)
        return self.head(self.two(y) + before * x)


class Aliases(Based):
    """A module returns its input, which is then changed under its other name."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x) * 1
        y = self.same(x)
        y -= 2
        return self.head(self.two(y) + x)


class Shared(Based):
    """One module runs inside what is skipped, at the layer, and above it."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(self.one, self.relu, self.one, self.relu)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.one(self.two(self.relu(self.stem(x)))) + self.stem(x))


class Lists(Based):
    """A backbone returns a list, which the code above edits."""

    class Backbone(Based):
        def forward(self, x: Tensor) -> list[Any]:
            one = self.one(x)
            return [one, {"two": self.two(one), "none": None, "number": 2}]

    def __init__(self):
        super().__init__()
        self.backbone = Lists.Backbone()

    def forward(self, x: Tensor) -> Tensor:
        found = self.backbone(x)
        found.append(self.three(found[0]))
        found[1]["two"] = found[1]["two"] * found[1].pop("number")
        return self.head(found[2] + found[1]["two"])


class Twice(Based):
    """The whole block runs twice; the layer is inside the second run."""

    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(self.one, nn.GELU(), self.two)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.block(x)))


class Keywords(Based):
    """A module that is called with keywords, and one called without its hooks."""

    class Named(Based):
        def forward(self, *, image: Tensor, scale: float = 1.0) -> tuple[Tensor, Tensor]:
            return self.one.forward(image) * scale, image

    def __init__(self):
        super().__init__()
        self.named = Keywords.Named()

    def forward(self, x: Tensor) -> Tensor:
        y, image = self.named(image=x, scale=2.0)
        return self.head(self.two(y) + image)


class Objects(Based):
    """A module returns an object that is no data, and that holds state."""

    class Bag:
        def __init__(self, tensor: Tensor):
            self.tensor = tensor

    class Packs(Based):
        def forward(self, x: Tensor) -> "Objects.Bag":
            return Objects.Bag(self.one(x))

    def __init__(self):
        super().__init__()
        self.packs = Objects.Packs()

    def forward(self, x: Tensor) -> Tensor:
        bag = self.packs(x)
        bag.tensor = bag.tensor + 1
        return self.head(self.two(bag.tensor) + bag.tensor)


RIGHT = [
    (AddsBelow, "two", 1),
    (AddsAbove, "two", 1),
    (ReadsBetween, "two", 1),
    (Aliases, "two", 1),
    (Shared, "relu#3", 5),
    (Shared, "two", 4),
    (Lists, "three", 1),
    (Twice, "one#2", 2),
    (Twice, "two#2", 1),
    (Keywords, "two", 1),
    (Objects, "two", 1),
]


@pytest.mark.parametrize(("make", "layer", "above"), RIGHT)
def test_replay_is_right_in_spite_of(counted, make, layer, above):
    net, inputs = build(make), batch()
    head = check(net, layer, inputs)
    assert "by replay" in repr(head)
    activations, head = ifa.cut(net, layer, inputs)(inputs)
    assert counted.of(lambda: head(activations)) == above


class LeavesBehind(Based):
    """A module leaves on itself what a later one reads."""

    class Encoder(Based):
        def forward(self, x: Tensor) -> Tensor:
            self.skip = self.one(x)
            return self.two(self.skip)

    def __init__(self):
        super().__init__()
        self.encoder = LeavesBehind.Encoder()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.two(self.encoder(x)) + self.encoder.skip)


class Collects(Based):
    """A module writes to a list that it was given."""

    class Writes(Based):
        def forward(self, x: Tensor, found: list[Tensor]) -> Tensor:
            found.append(self.two(x))
            return self.one(x)

    def __init__(self):
        super().__init__()
        self.writes = Collects.Writes()

    def forward(self, x: Tensor) -> Tensor:
        found: list[Tensor] = []
        x = self.two(self.writes(x, found))
        return self.head(x + sum(found))


class AliasOutside(Based):
    """A tensor that a module returned is changed where only its memory tells."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        x.data.mul_(2)
        return self.head(self.two(x) + x)


@pytest.mark.parametrize(
    ("make", "layer", "why"),
    [
        (LeavesBehind, "two", "'Encoder' object has no attribute 'skip'"),
        (Collects, "two", "would not give the model's output"),
        (AliasOutside, "two", "would not give the model's output"),
    ],
)
@pytest.mark.parametrize("used", [False, True])
def test_where_replay_is_wrong_the_whole_network_runs(make, layer, why, used):
    net, inputs = build(make), batch()
    if used and make is LeavesBehind:
        net(torch.zeros(3, 2, 9, 7))  # now there is something, but it is old
        why = "would not give the model's output"
    head = check(net, layer, inputs)
    assert "by running the whole network with its output replaced: " in repr(head)
    assert why in repr(head)
    assert "by override" in repr(ifa.cut(net, layer, inputs))


class OneSize(Based):
    """A batch size that is baked in."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.two(self.one(x)).reshape(3, 2, 9, 7))


class OnlyOnes(Based):
    """Takes nothing but what it was made for."""

    def forward(self, x: Tensor) -> Tensor:
        if x.amin() < 1:
            raise ValueError("too dark")
        return self.head(self.two(self.one(x)))


def test_networks_for_one_size_of_batch_only():
    net, inputs = build(OneSize), batch()
    activations, head = ifa.cut(net, "two", inputs)(inputs)
    assert "by replay" in repr(head)
    assert torch.equal(head(activations), net(inputs))


def test_a_network_that_takes_only_its_example_is_not_verified():
    net, inputs = build(OnlyOnes), torch.ones(3, 2, 9, 7)
    activations, head = ifa.cut(net, "two", inputs)(inputs)
    assert repr(head).endswith("not verified on other inputs: ValueError: too dark")
    assert torch.equal(head(activations), net(inputs))


class Alternates(Based):
    """What runs depends on something outside: every second pass is longer."""

    passes: list[int] = []  # noqa: RUF012

    def forward(self, x: Tensor) -> Tensor:
        self.passes.append(1)
        x = self.one(x)
        if len(self.passes) % 2:
            x = self.same(x)
        return self.head(self.two(x))


def test_a_network_that_does_not_run_alike_twice():
    Alternates.passes.clear()
    net, inputs = build(Alternates), batch()
    split = ifa.cut(net, "two", inputs)
    activations, head = split(inputs)
    assert "did not run alike twice" in repr(head)
    torch.testing.assert_close(head(activations), net(inputs))
    split.why = ""  # as if it had only become so later
    activations, head = split(inputs)
    assert "by replay" in repr(head)
    torch.testing.assert_close(head(activations), net(inputs))
    assert "did not run alike twice" in repr(head)
    torch.testing.assert_close(head(activations), net(inputs))


class WritesForSome(Based):
    """Changes what a module returned in place, for bright inputs only."""

    def forward(self, x: Tensor) -> Tensor:
        bright = bool(x.mean() > 10)
        x = self.one(x)
        y = self.two(x)
        if bright:
            x += 1
        return self.head(y * x)


def test_in_place_changes_that_the_example_did_not_show():
    net, inputs = build(WritesForSome), batch()
    split = ifa.cut(net, "two", inputs)
    for each in (inputs, inputs + 20, inputs):
        activations, head = split(each)
        for _ in range(2):
            torch.testing.assert_close(head(activations), net(each))
            changed = activations * 2
            torch.testing.assert_close(head(changed), overridden(net, "two", each, changed))
        assert "by replay" in repr(head)


def test_four_threads_with_heads_of_their_own_and_of_another():
    net, inputs = build(Residual), batch()
    split = ifa.cut(net, "layer1", inputs)
    batches = [inputs + i for i in range(4)]
    with torch.no_grad():
        expected = [net(each) for each in batches]
    shared, shared_head = split(inputs)
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(5):
            activations, head = split(batches[i])
            if not torch.equal(head(activations), expected[i]):
                wrong.append(i)
            if not torch.equal(shared_head(shared), expected[0]):
                wrong.append(-i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_heads_of_several_batches_do_not_mix():
    net, inputs = build(Residual), batch()
    split = ifa.cut(net, "layer1.1", inputs[:1])
    one, head_one = split(inputs)
    two, head_two = split(-inputs[:2])
    for _ in range(2):
        torch.testing.assert_close(head_one(one), net(inputs))
        torch.testing.assert_close(head_two(two), net(-inputs[:2]))


def test_what_is_remembered_is_of_the_model_as_it_was():
    net, inputs = build(Residual), batch()
    split = ifa.cut(net, "layer1", inputs)
    activations, head = split(inputs)
    expected = net(inputs)
    with torch.no_grad():
        net.conv.weight.add_(1)
    torch.testing.assert_close(head(activations), expected)
    activations, head = split(inputs)
    torch.testing.assert_close(head(activations), net(inputs))


def test_the_caller_may_change_the_activations():
    net, inputs = build(AddsAbove), batch()
    activations, head = ifa.cut(net, "two", inputs)(inputs)
    expected = head(activations)
    activations.mul_(3)
    torch.testing.assert_close(head(activations / 3), expected)


def test_mapping_a_cut_over_batches():
    net, inputs = build(AddsBelow), torch.stack([batch(), batch() + 1])
    split = ifa.cut(net, "two", inputs[0])

    def halved(each: Tensor) -> Tensor:
        activations, head = split(each)
        return head(activations / 2)

    expected = torch.stack([halved(each) for each in inputs])
    torch.testing.assert_close(torch.func.vmap(halved)(inputs), expected)


def test_a_layer_path_integral_is_complete():
    net, inputs = build(Residual).double(), batch().double()
    activations, head = ifa.cut(net, "layer1", inputs)(inputs)

    def scored(a: Tensor) -> Tensor:
        return head(a)[:, 2].sum()

    points = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    slopes = torch.stack([torch.func.grad(scored)(t * activations) for t in points]).mean(0)
    gained = scored(activations) - scored(0 * activations)
    torch.testing.assert_close((slopes * activations).sum(), gained, rtol=1e-4, atol=0)


def test_bfloat16_autocast_and_float64():
    net, inputs = build(Residual), batch()
    with torch.autocast("cpu", torch.bfloat16):
        activations, head = ifa.cut(net, "layer1", inputs)(inputs)
        assert "by replay" in repr(head)
        assert torch.equal(head(activations), net(inputs))
    head = check(net.double(), "layer1", inputs.double())
    assert "by replay" in repr(head)


def test_an_example_of_zeros_verifies_as_well():
    zeros = torch.zeros(1, 2, 9, 7)
    assert "by replay" in repr(ifa.cut(build(AddsBelow), "two", zeros))
    assert "by override" in repr(ifa.cut(build(AliasOutside), "two", zeros))


def test_integer_inputs():
    net = build(
        lambda: nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 4), nn.Flatten(), nn.Linear(24, 2))
    )
    ids = torch.tensor([[0, 1, 2, 3, 4, 0], [4, 4, 1, 0, 2, 2]])
    activations, head = ifa.cut(net, "1", ids)(ids)
    assert repr(head) == "head above '1', by replay: 1 call below it returns what it returned"
    assert torch.equal(head(activations), net(ids))


def test_functional_code_is_run_again():
    class Functional(Based):
        def forward(self, x: Tensor) -> Tensor:
            x = functional.conv2d(x, self.one.weight, padding=1)
            return self.head(self.two(x) + x)

    assert "by replay: 0 calls" in repr(check(build(Functional), "two", batch()))
