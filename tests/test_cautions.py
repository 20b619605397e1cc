"""What is no map is named: no gradient reaches the layer, or what is summed cancels."""

import warnings
from typing import Any

import pytest
import torch
from test_default_layers import HUGGING_FACE, IMAGE, Vit, made
from torch import Tensor, nn

import ifa
from ifa.network.probabilities import are_shares
from ifa.stages import cancellation, cancels


def seeded(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


class Net(nn.Module):
    """What lies between layer and score is the question."""

    def __init__(self, above: Any):
        super().__init__()
        self.above = above
        self.conv, self.linear = nn.Conv2d(1, 3, 3), nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.above(self.conv(x)).mean((2, 3)))


def built(above: Any) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net(above).eval()


INPUTS = seeded(3, 1, 6, 5)


# no gradient -------------------------------------------------------------------------------------


def frozen(x: Tensor) -> Tensor:
    with torch.no_grad():
        return x.relu()


def constant(output: Tensor, target: Tensor) -> Tensor:
    return output.detach().sum()


@pytest.mark.parametrize(
    ("above", "score"),
    [(Tensor.detach, ifa.score.logit), (frozen, ifa.score.logit), (Tensor.relu, constant)],
    ids=["detach", "no_grad", "score"],
)
@pytest.mark.parametrize("target", [1, torch.tensor([[0, 1, 2], [3, 3, 0]])], ids=["one", "many"])
def test_without_a_path_to_the_score(above, score, target):
    net = built(above)
    text = "expected a layer that the score depends on, got 'conv', from where no gradient reaches"
    for where, call in (
        ("tap", lambda: ifa.tap(net, "conv", INPUTS, score=score)(INPUTS, target)),
        ("explain", lambda: ifa.explain(net, INPUTS, target, layer="conv", score=score)),
    ):
        with pytest.raises(ValueError, match=rf"^ifa\.{where}: {text}"):
            call()


def test_analyses_refuse_it_too():
    data = [(one, 0) for one in INPUTS]
    with pytest.raises(ValueError, match="expected a layer that the score depends on, got 'conv'"):
        ifa.analyze(built(Tensor.detach), data, layer="conv", progress=False)


@pytest.mark.parametrize("above", [torch.round, lambda x: (x - 100).relu()], ids=["step", "dead"])
def test_a_gradient_of_zero_is_named_once(above):
    net = built(above)
    with pytest.warns(ifa.ZeroGradient) as caught:
        ifa.explain(net, INPUTS, 1, layer="conv")
    assert len(caught) == 1
    assert "ifa.explain: the gradient of the score is zero at every position of layer 'conv' " in (
        text := str(caught[0].message)
    )
    assert "for 3 of 3 samples, and so are maps made of it. Take a layer further below" in text
    assert caught[0].filename == __file__


def test_only_the_samples_concerned_are_counted():
    net = built(lambda x: (x - 100).relu())
    inputs = torch.cat([INPUTS, 1e4 * INPUTS])
    tap = ifa.tap(net, "conv", inputs)
    with pytest.warns(ifa.ZeroGradient, match=r"for 3 of 6 samples"):
        tap(inputs, 1)
    with pytest.warns(ifa.ZeroGradient, match=r"for 6 of 12 targets and samples"):
        tap(inputs, torch.tensor([[0] * 6, [1] * 6]))
    with warnings.catch_warnings():  # runs keep the flags instead
        warnings.simplefilter("error")
        assert tap.observe(inputs, 1).zero[0].tolist() == [True] * 3 + [False] * 3
        assert tap(inputs[3:], 1).gradients.any()
        assert not tap.observe(inputs[3:], 1).zero[0].any()


def test_several_layers_have_flags_of_their_own():
    net, inputs = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten()).eval(), INPUTS
    with torch.no_grad():
        net[0].bias.fill_(-100)
    seen = ifa.tap(net, ("0", "1"), inputs).observe(inputs, 1)
    assert [flags.tolist() for flags in seen.zero] == [[True] * 3, [False] * 3]


def test_transforms_are_not_disturbed():
    net = built(lambda x: (x - 100).relu())
    tap = ifa.tap(net, "conv", INPUTS)
    many = torch.stack([INPUTS, INPUTS])
    gradients = torch.func.vmap(lambda x: tap(x, 1).gradients)(many)
    assert not gradients.any()
    assert not torch.func.jacrev(lambda x: tap(x, 1).gradients.sum())(INPUTS).any()


def test_what_reads_no_gradient_needs_none():
    net = built(Tensor.detach)
    maps = ifa.explain(net, INPUTS, 1, layer="conv", weight=ifa.perturb.ablationcam)
    assert maps.any()


# cancellation ------------------------------------------------------------------------------------


def vision_transformer() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Vit("mean").eval()


def left(net: nn.Module, layer: str, inputs: Tensor) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ifa.Cancellation)
        features = ifa.tap(net, layer, inputs)(inputs, 0)
    each = torch.func.vmap(cancellation)(features.gradients * features.activations)
    return float(each.max())


def test_what_a_layer_norm_reads_cancels():
    net, inputs = vision_transformer().double(), seeded(3, *IMAGE).double()
    assert left(net, "blocks.1", inputs) < 1e-3
    assert left(net, "norm", inputs) > 0.05
    assert left(net, "blocks.1.mlp", inputs) > 0.05
    net.norm.eps = 0.0
    assert left(net, "blocks.1", inputs) < 1e-10  # Euler's theorem


def test_what_the_stages_of_a_convnext_give_cancels():
    pytest.importorskip("transformers")
    row = HUGGING_FACE["ConvNeXt"]
    net, inputs = made(row), 30 * seeded(2, *row.shape)
    with torch.no_grad():
        for parameter in net.parameters():  # large beside what is added to a variance
            if parameter.ndim > 1:
                parameter.mul_(30)
    for stage in (0, 1):
        assert left(net, f"convnext.encoder.stages.{stage}", inputs) < 1e-3
    assert left(net, "convnext.encoder.stages.3", inputs) > 0.05


def test_cancellation_names_the_norm_to_take():
    net, inputs = vision_transformer(), seeded(3, *IMAGE)
    with pytest.warns(ifa.Cancellation) as caught:
        ifa.explain(net, inputs, 0, layer="blocks.1", weight=ifa.weight.fullcam)
    assert len(caught) == 1
    text = str(caught[0].message)
    assert text.startswith("ifa.explain: weights times activations of layer 'blocks.1' cancel")
    assert "for 3 of 3 samples" in text
    assert "Take the output of the norm, 'norm', or an inner layer of the block" in text
    assert caught[0].filename == __file__


@pytest.mark.parametrize("layer", ["norm", "blocks.1.mlp", None])
def test_what_to_take_instead_does_not(layer):
    maps = ifa.explain(vision_transformer(), inputs := seeded(3, *IMAGE), 0, layer=layer)
    assert maps.shape == (3, *inputs.shape[2:])


def test_runs_count_what_they_do_not_warn_of():
    net, inputs = vision_transformer(), seeded(3, *IMAGE)
    data = [(one, int(label)) for one, label in zip(inputs, net(inputs).argmax(1), strict=True)]
    tree = ifa.analyze(net, data, layer=("blocks.1", "norm"), progress=False)
    assert int(tree["blocks.1"]["cancelled"].sum()) == 3
    assert int(tree["norm"]["cancelled"].sum()) == 0
    assert int(tree["blocks.1"]["zero_gradient"].sum()) == 0
    dead = built(lambda x: (x - 100).relu())
    data = [(one, 0) for one in torch.cat([INPUTS, 1e4 * INPUTS])]
    several = ifa.analyze(dead, data, layer="conv", targets=[0, 2], progress=False)["conv"]
    assert several["zero_gradient"].values.tolist() == [3, 3]
    assert several["cancelled"].values.tolist() == [0, 0]


def test_grad_cam_does_not_cancel():
    net, inputs = vision_transformer(), seeded(3, *IMAGE)
    assert ifa.explain(net, inputs, 0, layer="blocks.1", weight=ifa.weight.gradcam).any()


def test_cancellation_of_one_example():
    activations = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    none = torch.zeros(2, 2)
    opposed = torch.tensor([[3.0, 2.0], [-1.0, -1.0]])
    assert float(cancellation(opposed * activations)) == 0
    assert cancels(opposed * activations)
    assert float(cancellation(torch.tensor([1.0, -1.0])[:, None] * activations)) == 0.5
    assert float(cancellation(none)) == 1
    half = opposed.clone()
    half[:, 1] = 1.0  # one position that does not cancel is enough
    assert not cancels(half * activations)


# outputs that are no logits -----------------------------------------------------------------------


class Ended(nn.Module):
    """A network that ends in something else than logits."""

    def __init__(self, end: Any):
        super().__init__()
        self.body, self.end = built(Tensor.tanh), end

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.body(x) * 3)


def softmaxed() -> nn.Module:
    return Ended(nn.Softmax(1)).eval()


CALLS: dict[str, tuple[str, Any]] = {
    "tap": ("ifa.tap", lambda net, x, **o: ifa.tap(net, "body.conv", x, **o)(x)),
    "explain": ("ifa.explain", lambda net, x, **o: ifa.explain(net, x, layer="body.conv", **o)),
    "scorecam": (
        "ifa.explain",
        lambda net, x, **o: ifa.explain(
            net, x, layer="body.conv", weight=ifa.perturb.scorecam, **o
        ),
    ),
    "deletion": (
        "ifa.evaluate.deletion",
        lambda net, x, **o: ifa.evaluate.deletion(net, x, x[:, 0], 1, steps=2, **o),
    ),
    "saliency": ("ifa.attribute.saliency", lambda net, x, **o: ifa.attribute.saliency(net, **o)(x)),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_network_that_ends_in_a_softmax_is_named_once(name):
    where, call = CALLS[name]
    with pytest.warns(ifa.ProbabilityOutput, match=rf"^{where}: .*ifa\.score\.log_value") as caught:
        call(softmaxed(), INPUTS)
    assert len(caught) == 1
    assert caught[0].filename == __file__


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("score", ["value", "log_value", "log_odds"])
def test_scores_of_probabilities_are_not_warned_of(name, score):
    CALLS[name][1](softmaxed(), INPUTS, score=getattr(ifa.score, score))


@pytest.mark.parametrize(
    ("end", "samples"),
    [
        (nn.Identity(), 3),
        (nn.Sigmoid(), 3),
        (nn.LogSoftmax(1), 3),
        (nn.Softmax(1), 1),  # by chance a row may sum to 1
    ],
    ids=["logits", "sigmoid", "log", "one row"],
)
@pytest.mark.parametrize("name", ["tap", "explain", "saliency"])
def test_other_networks_are_not(name, end, samples):
    CALLS[name][1](Ended(end).eval(), INPUTS[:samples])


def test_shares_are_found_in_every_dtype_and_not_by_chance():
    z = seeded(4, 7).double()
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        assert are_shares(z.to(dtype).softmax(1)), dtype
    assert not are_shares(z)
    assert not are_shares(z.softmax(1) + 1e-2)
    nearly = z.softmax(1)
    nearly[2] += 0.01  # one row that is none
    assert not are_shares(nearly)
    for unknown in (z.softmax(1)[:1], torch.ones(4, 1), z.softmax(1)[..., None], [z]):
        assert are_shares(unknown) is None


def test_maps_of_a_softmax_by_its_log_are_those_of_the_logits():
    net = softmaxed()
    bare = Ended(nn.Identity()).eval()
    bare.load_state_dict(net.state_dict())
    both = [
        ifa.explain(one.double(), INPUTS.double(), 2, layer="body.conv", score=score)
        for one, score in ((net, ifa.score.log_value), (bare, ifa.score.log_probability))
    ]
    torch.testing.assert_close(*both)
