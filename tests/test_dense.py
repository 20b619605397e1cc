"""The same network on a finer grid: exact, wherever it is used."""

import copy
import itertools
import pickle
import threading
import warnings
from functools import partial

import pytest
import torch
from torch import nn
from torch.func import stack_module_state, vmap
from torch.nn import functional

import ifa
from ifa.network.identity import model_token, network_digest
from ifa.testing import laws, models, strategies
from ifa.testing.dense_laws import a_finer_grid_is_exact

EVEN_KERNELS = "ignore:Using padding='same' with even kernel"
LAWS = [*laws.DENSE, laws.a_finer_grid_is_made_of_shifts, laws.a_dense_mean_makes_maps_complete]


@pytest.mark.filterwarnings(EVEN_KERNELS)
@pytest.mark.parametrize("law", LAWS)
def test_laws(law):
    law(ifa.dense.densify, examples=30)


@pytest.mark.deep
@pytest.mark.filterwarnings(EVEN_KERNELS)
@pytest.mark.parametrize("law", LAWS)
def test_laws_at_length(law):
    law(ifa.dense.densify, examples=200)


@pytest.mark.parametrize("law", laws.TAP)
def test_a_tap_of_a_finer_grid_obeys_the_laws_of_taps(law):
    fine = ifa.dense.densify(models.pooled_linear(2), stride=1)
    law(fine, "net.conv2", models.inputs(fine.net), examples=5)


class Dense(nn.Module):
    """Like DenseNet: channels are joined, rectifiers work in place."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 7, 2, 3), nn.MaxPool2d(3, 2, 1))
        self.norms = nn.ModuleList(nn.BatchNorm2d(4 + 3 * n) for n in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(4 + 3 * n, 3, 3, padding=1) for n in range(2))
        self.pool, self.head = nn.AvgPool2d(2), nn.Linear(10, 5)

    def forward(self, x):
        x = self.stem(x)
        for norm, conv in zip(self.norms, self.convs, strict=False):
            x = torch.cat([x, conv(functional.relu(norm(x), inplace=True))], 1)
        x = functional.relu(self.norms[2](self.pool(x)), inplace=True)
        return self.head(functional.adaptive_avg_pool2d(x, (1, 1)).flatten(1))


class Mobile(nn.Module):
    """Like MobileNet: depthwise, gated, residual."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Hardswish())
        self.wide, self.deep = nn.Conv2d(8, 8, 3, 2, 1, groups=8), nn.Conv2d(8, 8, 1)
        self.gate, self.head = nn.Conv2d(8, 8, 1), nn.Linear(8, 5)

    def forward(self, x):
        x = functional.relu6(self.wide(self.stem(x)))
        x = x * functional.hardsigmoid(self.gate(functional.adaptive_avg_pool2d(x, 1)))
        return self.head((x + self.deep(functional.silu(x))).mean((2, 3)))


class Volume(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv3d(1, 4, 3, 2, 1), nn.GroupNorm(2, 4), nn.GELU()),
            nn.AvgPool3d(3, 2, 1, ceil_mode=True, count_include_pad=False),
            *(nn.Conv3d(4, 6, 3, padding=2, dilation=2), nn.MaxPool3d(2, ceil_mode=True)),
        )
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3, 4)))


class Awkward(nn.Module):
    """Reads shapes, moves dimensions, slices, shuffles, and goes up again."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1, groups=4)
        self.short = nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False)
        self.norm, self.c, self.head = nn.LayerNorm(8), nn.Conv2d(8, 8, 3, 2, 1), nn.Linear(8, 3)

    def forward(self, x):
        x = self.a(x)
        x = self.b(x) + self.short(x)
        b, c, h, w = x.shape
        x = x.view(b, 2, 4, h, w).transpose(1, 2).reshape(b, c, h, w)
        x = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = functional.pad(x * (x.sum((2, 3), keepdim=True) / (h * w)), (0, 1, 1, 0))[:, :, 1:, :-1]
        y = self.c(x) + functional.max_pool2d(x, 1, 2)
        x = x + functional.interpolate(y, size=(h, w))
        return self.head(x.sum((2, 3)) / (h * w))


class Signal(nn.Module):
    def __init__(self):
        super().__init__()
        layers = nn.Conv1d(2, 4, 5, 3), nn.SiLU(), nn.MaxPool1d(2)
        self.body = nn.Sequential(
            *layers, nn.Conv1d(4, 6, 3, 2, padding=2, padding_mode="reflect"), nn.Flatten()
        )
        self.head = nn.Linear(54, 3)

    def forward(self, x):
        return self.head(self.body(x))


class Logits(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x).logits


def resnet():
    from transformers import ResNetConfig, ResNetForImageClassification

    sizes = {"embedding_size": 8, "hidden_sizes": [8, 8, 12, 16]}
    config = ResNetConfig(num_channels=1, depths=[2, 2, 2, 2], layer_type="basic", **sizes)
    return Logits(ResNetForImageClassification(config))


def convnext():
    from transformers import ConvNextConfig, ConvNextForImageClassification

    config = ConvNextConfig(num_channels=1, hidden_sizes=[4, 8, 12, 16], depths=[1, 1, 1, 1])
    return Logits(ConvNextForImageClassification(config))


NETWORKS = {
    "digits": (ifa.nets.digits_cnn, (1, 16, 19)),
    "resnet": (resnet, (1, 65, 97)),
    "convnext": (convnext, (1, 64, 70)),
    "dense": (Dense, (1, 47, 53)),
    "mobile": (Mobile, (1, 33, 38)),
    "volume": (Volume, (1, 11, 19, 22)),
    "awkward": (Awkward, (1, 51, 66)),
    "signal": (Signal, (2, 101)),
}


def of(name, dtype=torch.float64, samples=2):
    build, shape = NETWORKS[name]
    net = build().eval().requires_grad_(False).to(dtype)
    for norm in net.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            norm.running_mean.normal_(std=0.3)
            norm.running_var.uniform_(0.5, 2.0)
    return net, torch.randn(samples, *shape, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_is_the_networks_own_to_the_bit(name, dtype):
    one = strategies.st.just(of(name, dtype))
    a_finer_grid_is_exact(ifa.dense.densify, networks=one, examples=1)
    net, inputs = of(name, dtype)
    assert torch.equal(ifa.dense.densify(net, stride=2)(inputs), net(inputs))


@pytest.mark.parametrize("name", NETWORKS)
def test_at_the_full_stride_it_is_the_network(name):
    net, inputs = of(name)
    fine = ifa.dense.densify(net, stride=64)
    own, found = ifa.trace(net, inputs), ifa.trace(fine, inputs)
    assert {f"net.{layer}": site.shape for layer, site in own.items()} == {
        layer: site.shape for layer, site in found.items() if layer != "net"
    }


def test_the_stride_is_what_is_kept():
    net, inputs = of("resnet", samples=1)
    last = "net.net.resnet.encoder.stages.3"
    for stride, extents in {1: (65, 97), 2: (33, 49), 8: (9, 13), 32: (3, 4)}.items():
        fine = ifa.dense.densify(net, stride=stride)
        assert ifa.trace(fine, inputs)[last].shape == (16, *extents)
        where = ifa.positions(fine, last, inputs)
        assert where.start.tolist() == [0, 0]
        assert where.step.tolist() == [stride, stride]
    fine = ifa.dense.densify(net, stride=(4, 16))
    assert ifa.positions(fine, last, inputs).step.tolist() == [4, 16]


def test_a_patch_of_four_is_kept_in_part():
    net, inputs = of("convnext", samples=1)
    where = ifa.positions(ifa.dense.densify(net, stride=2), "net.net.convnext.encoder", inputs)
    assert where.step.tolist() == [2, 2]


def test_the_repr_says_what_ended_the_density():
    net, inputs = of("awkward")
    fine = ifa.dense.densify(net)
    assert "first run" in repr(fine)
    ifa.trace(fine, inputs)  # which runs a copy
    assert "density ends at interpolate" in repr(fine)
    mobile, inputs = of("mobile")
    fine = ifa.dense.densify(mobile)
    fine(inputs)
    assert "density ends at mean)" in repr(fine).replace("\n", ")")  # a gate does not end it
    fine = ifa.dense.densify(nn.Conv1d(1, 1, 3, 2))
    fine(torch.ones(1, 1, 9))
    assert "dense" in repr(fine)
    assert "ends" not in repr(fine)


WRITES = {
    "one place": lambda x: x[:, :1].zero_(),
    "a part": lambda x: x.__setitem__((slice(None), 0), 0.0),
    "by index": lambda x: x.index_fill_(2, torch.tensor([0]), 3.0),
    "a part of another name": lambda x: x.data.mul_(0.5),
    "other data": lambda x: setattr(x, "data", x.detach().flip(2)),
    "from the network's own grid": lambda x: x.add_(torch.arange(x[0, 0].numel()).view_as(x[0, 0])),
    "of its own": lambda x: x.mul_(x.mean((2, 3), keepdim=True)),
}


class Writing(nn.Module):
    def __init__(self, write):
        super().__init__()
        self.write, self.conv, self.last = write, nn.Conv2d(1, 2, 3, 2), nn.Conv2d(2, 2, 3, 2)

    def forward(self, x):
        x = self.conv(x)
        self.write(x)
        return self.last(x).sum((2, 3))


@pytest.mark.parametrize("how", WRITES)
def test_what_writes_to_a_tensor_is_seen(how):
    net = Writing(WRITES[how]).eval().requires_grad_(False)
    inputs = torch.randn(2, 1, 13, 14)
    fine = ifa.dense.densify(net)
    assert torch.equal(fine(inputs), net(inputs))
    found, wanted = (
        ifa.tap(model, layer, inputs)(inputs, 0).activations
        for model, layer in ((fine, "net.last"), (net, "last"))
    )
    factor = {2: 1, 4: 2, 8: 4}[found.shape[-1]]
    assert torch.equal(found[..., ::factor, ::factor], wanted)
    assert (factor == 4) is (how == "of its own")


def test_windows_between_that_see_nothing_are_finite():
    net = nn.Sequential(nn.Conv1d(1, 1, 1, stride=9), nn.MaxPool1d(2, padding=1))
    assert ifa.dense.densify(net.eval())(torch.randn(1, 1, 4)).isfinite().all()


WHOLE = {
    "larger than the grid": nn.AvgPool2d(10**6, ceil_mode=True),
    "the largest of all": nn.MaxPool2d(10**6, ceil_mode=True),
    "a sum": nn.AvgPool2d((5, 6), divisor_override=1),
}


@pytest.mark.parametrize("pool", ["exact", "dense"])
@pytest.mark.parametrize("how", WHOLE)
def test_a_window_of_the_whole_grid_takes_no_more_of_the_finer_one(how, pool):
    net = nn.Sequential(nn.Conv2d(1, 2, 3, 2), WHOLE[how]).eval().requires_grad_(False)
    inputs = torch.randn(2, 1, 11, 13)
    found, wanted = ifa.dense.densify(net, pool=pool)(inputs), net(inputs)
    if pool == "dense" and how == "larger than the grid":
        wanted = functional.conv2d(inputs, *net[0].parameters()).mean((2, 3), keepdim=True)
    torch.testing.assert_close(found, wanted)


def test_a_grid_of_one_position_goes_on():
    net = nn.Sequential(nn.Conv1d(1, 2, 1, stride=2), nn.ReLU(), nn.Conv1d(2, 2, 1)).eval()
    inputs = torch.randn(2, 1, 1)
    assert torch.equal(ifa.dense.densify(net)(inputs), net(inputs))


def test_positions_that_only_one_of_two_has_are_left_out():
    net = Two().eval().requires_grad_(False)
    inputs = torch.randn(1, 1, 2)  # one position of both, of the finer grids two and one
    assert ifa.dense.densify(net)(inputs).shape == (1, 1, 1)


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv1d(1, 1, 1, stride=2), nn.Conv1d(1, 1, 2, stride=2)

    def forward(self, x):
        return self.one(x) + self.two(x)


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(x):
        return x * torch.sigmoid(x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        share = torch.sigmoid(x)
        return gradient * share * (1 + x * (1 - share))


def test_gradients_of_ones_own_are_exact_or_refused():
    net = Writing(lambda x: None).eval()
    inputs = torch.randn(2, 1, 13, 13)
    net.forward = lambda x: net.last(functional.silu(net.conv(x))).mean((2, 3))
    plain = ifa.attribute.gradient(net)(inputs, 0)
    net.forward = lambda x: net.last(Swish.apply(net.conv(x))).mean((2, 3))
    exact = ifa.attribute.gradient(ifa.dense.densify(net))(inputs, 0)
    torch.testing.assert_close(exact, plain)
    dense = ifa.dense.densify(net, pool="dense")
    with torch.no_grad():
        assert dense(inputs).shape == (2, 2)
    with pytest.raises(
        ValueError, match=r"ifa.dense.densify: .* gradient of its own before conv2d"
    ):
        ifa.attribute.gradient(dense)(inputs, 0)
    ends = ifa.dense.densify(nn.Sequential(net.conv, Own()).eval())
    with pytest.raises(ValueError, match="before the output"):
        ends(inputs)


class Own(nn.Module):
    def forward(self, x):
        return Swish.apply(x)


class Custom(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.flip(2)

    @staticmethod
    def backward(ctx, gradient):
        return gradient.flip(2)


UNKNOWN = {
    "a function of one's own": Custom.apply,
    "a transform inside": vmap(lambda one: one.flip(1)),
    "the shape": lambda x: x + torch.arange(x.shape[2], dtype=x.dtype)[:, None],
    "attention": lambda x: functional.scaled_dot_product_attention(x, x, x),
    "a transposed convolution": lambda x: functional.conv_transpose2d(x, x.new_ones(2, 2, 2, 2)),
    "strides of memory": lambda x: x.as_strided(x.shape, x.stride()),
    "a flat view": lambda x: x.view(len(x), -1).flip(1).view(x.shape),
    "an operator of torch": lambda x: torch.ops.aten.flip.default(x, [2]),
}


@pytest.mark.parametrize("how", UNKNOWN)
def test_what_is_not_known_is_as_it_always_was(how):
    net = Writing(lambda x: None).eval().requires_grad_(False)
    net.forward = lambda x: net.last(UNKNOWN[how](net.conv(x))).sum((2, 3))
    inputs = torch.randn(2, 1, 13, 13)
    assert torch.equal(ifa.dense.densify(net)(inputs), net(inputs))


def squeezed(x):
    return torch.sigmoid(x.mean((2, 3))).view(*x.shape[:2], 1, 1)


KNOWN = {
    "a gate like a tensor": lambda x: x * squeezed(x).expand_as(x),
    "a gate of a size": lambda x: x * squeezed(x).expand(-1, -1, *x.shape[2:]),
    "a gate that is written to": lambda x: x.mul(squeezed(x).expand_as(x)).add_(squeezed(x)),
    "zeros for channels": lambda x: torch.cat([x, torch.zeros_like(x)], 1)[:, 1:3],
    "ones": lambda x: x + torch.ones_like(x) + torch.full_like(x, 2.0),
    "an empty one": lambda x: torch.empty_like(x).copy_(x),
    "mirrored": lambda x: x.flip(2, 3) + x.flip([1]),
    "mirrored along one": lambda x: torch.flip(x, dims=(-1,)),
    "mirrored where it is coarse": lambda x: torch.flip(x[:1], (0,)) + x[:1],
}


@pytest.mark.parametrize("size", [(13, 14), (12, 15), (3, 4)])
@pytest.mark.parametrize("how", KNOWN)
def test_what_is_known_stays_dense(how, size):
    net = Writing(lambda x: None).eval().requires_grad_(False)
    net.forward = lambda x: KNOWN[how](net.conv(x))
    inputs = torch.randn(2, 1, *size)
    fine = ifa.dense.densify(net)
    found, wanted = fine(inputs), net(inputs)
    assert torch.equal(found[..., ::2, ::2], wanted)
    assert found.shape[2:] >= (size[0] - 3, size[1] - 3)
    assert "ends" not in repr(fine)
    coarse = ifa.dense.densify(net, stride=2)
    assert torch.equal(coarse(inputs), wanted)


def test_a_mirrored_grid_is_finer_between():
    net = Writing(lambda x: None).eval().requires_grad_(False)
    net.forward = lambda x: net.conv(x).flip(3)
    inputs = torch.randn(2, 1, 13, 15)
    found = ifa.dense.densify(net)(inputs)
    torch.testing.assert_close(found, functional.conv2d(inputs, *net.conv.parameters()).flip(3))


@pytest.mark.parametrize("size", [3, 4])  # with one finer position, and with two
def test_a_gate_is_written_to_once(size):
    net = Writing(lambda x: None).eval().requires_grad_(False)
    net.forward = lambda x: torch.full((len(x), 2, 1, 1), 3.0).mul_(net.conv(x))
    inputs = torch.randn(2, 1, size, size)
    assert torch.equal(ifa.dense.densify(net)(inputs), net(inputs))


def test_training_is_as_it_always_was():
    net = nn.Sequential(nn.Conv1d(1, 4, 3, 2), nn.BatchNorm1d(4), nn.Dropout(), nn.Flatten())
    inputs, twin = torch.randn(3, 1, 11), copy.deepcopy(net)
    torch.manual_seed(1)
    found = ifa.dense.densify(net)(inputs)
    torch.manual_seed(1)
    assert torch.equal(found, twin(inputs))
    assert torch.equal(net[1].running_var, twin[1].running_var)


def test_it_holds_the_very_network_and_leaves_it():
    net, inputs = of("dense")
    fine = ifa.dense.densify(net)
    with ifa.testing.assert_leaves_model_untouched(net):
        assert fine.net is net
        fine(inputs)
        ifa.explain(fine, inputs, 0, layer="net.pool", weight=ifa.weight.gradcam)
    net.head.bias.add_(1)
    assert torch.equal(fine(inputs), net(inputs))


def test_under_inference_mode_it_is_the_network():
    net = nn.Sequential(nn.Conv2d(1, 2, 3, 2), nn.ReLU(inplace=True), nn.Conv2d(2, 2, 3, 2)).eval()
    inputs = torch.randn(1, 1, 13, 13)
    wanted = ifa.dense.densify(net)(inputs)
    with torch.inference_mode():
        assert torch.equal(ifa.dense.densify(net)(inputs), wanted)


# ---- with everything else


@pytest.fixture
def pair():
    net, inputs = of("mobile")
    return net, ifa.dense.densify(net, stride=2), inputs


def test_gradcam_obeys_the_law_of_taps(pair):
    net, fine, inputs = pair
    coarse, dense = (
        ifa.tap(model, layer, inputs, step=ifa.chain(ifa.weigh(ifa.weight.gradcam), ifa.combine))
        for model, layer in ((net, "deep"), (fine, "net.deep"))
    )
    own, found = coarse(inputs, 1).values, dense(inputs, 1).values
    ratio = found[0].numel() / own[0].numel()
    torch.testing.assert_close(ratio * found[..., ::2, ::2], own, rtol=1e-12, atol=1e-15)


def test_many_targets_params_and_folds(pair):
    _, fine, inputs = pair
    tapped = ifa.tap(fine, "net.deep", inputs)
    targets = torch.arange(5)[:, None].expand(5, 2)
    many = tapped(inputs, targets)
    for target in range(5):
        alone = tapped(inputs, target)
        torch.testing.assert_close(many.gradients[target], alone.gradients)
    folds = [copy.deepcopy(fine) for _ in range(3)]
    for number, fold in enumerate(folds):
        for values in fold.parameters():
            values.mul_(1 + number / 4)
    params, buffers = stack_module_state(folds)
    mapped = vmap(lambda p: tapped(inputs, 1, p), randomness="error")({**params, **buffers})
    for number, fold in enumerate(folds):
        wanted = ifa.tap(fold, "net.deep", inputs)(inputs, 1)
        torch.testing.assert_close(mapped.activations[number], wanted.activations)
        torch.testing.assert_close(mapped.gradients[number], wanted.gradients)


def test_layers_that_are_tapped_together_have_the_networks_own_bits():
    body = nn.Conv1d(4, 4, 1, 3), nn.Conv1d(4, 4, 3, 2, 1), nn.Conv1d(4, 4, 3, 1, 1)
    net = nn.Sequential(*body, nn.Flatten()).double().eval().requires_grad_(False)
    fine = ifa.dense.densify(net)
    for inputs in torch.randn(20, 2, 4, 5, dtype=torch.float64):  # the second has one position
        found = ifa.tap(fine, ["net.1", "net.2"], inputs)(inputs, 0)
        assert torch.equal(found[1].activations[..., :1], net[:3](inputs))


def test_mapped_over_inputs(pair):
    _, fine, inputs = pair
    tapped = ifa.tap(fine, "net.deep", inputs)
    mapped = vmap(lambda one: tapped(one, 0).gradients)(torch.stack([inputs, inputs + 1]))
    torch.testing.assert_close(mapped[1], tapped(inputs + 1, 0).gradients)


def test_copied_pickled_and_in_threads(pair):
    _, fine, inputs = pair
    wanted = ifa.tap(fine, "net.deep", inputs)(inputs, 1).activations
    for other in (copy.deepcopy(fine), pickle.loads(pickle.dumps(fine))):
        assert torch.equal(ifa.tap(other, "net.deep", inputs)(inputs, 1).activations, wanted)
    tapped, found = ifa.tap(fine, "net.deep", inputs), []
    threads = [
        threading.Thread(target=lambda: found.append(tapped(inputs, 1).activations))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(one, wanted) for one in found)
    assert len(found) == 4


def test_a_cut_replays_on_the_finer_grid(pair):
    net, fine, inputs = pair
    activations, head = ifa.cut(fine, "net.deep", inputs)(inputs)
    assert "by replay" in repr(head)
    assert activations.shape == ifa.tap(fine, "net.deep", inputs)(inputs, 0).activations.shape
    assert torch.equal(head(activations), net(inputs))
    other = pickle.loads(pickle.dumps(head))
    assert torch.equal(other(2 * activations), head(2 * activations))
    own, own_head = ifa.cut(net, "deep", inputs)(inputs)
    assert torch.equal(head(2 * activations), own_head(2 * own))


def test_it_is_another_network_for_each_stride_and_pool(pair):
    net, fine, inputs = pair
    fines = [fine, ifa.dense.densify(net), ifa.dense.densify(net, pool="dense")]
    digests = [network_digest(model_token(one, inputs)) for one in (net, *fines)]
    assert len({*digests}) == 4
    again = pickle.loads(pickle.dumps(fine))
    again(inputs)
    assert network_digest(model_token(again, inputs)) == digests[1]
    without = [network_digest(model_token(one)) for one in (net, *fines)]
    assert len({*without}) == 4


def test_a_scale_of_the_plain_network_is_refused(tmp_path, pair):
    net, fine, inputs = pair
    data = [(one, n % 2, f"s{n}") for n, one in enumerate(torch.cat([inputs, -inputs]))]
    options = {"weight": ifa.weight.gradcam, "batch_size": 2, "progress": False}
    run = ifa.analyze(fine, data, store=tmp_path / "fine", layer="net.deep", **options)
    with pytest.raises(ValueError, match="network"):
        ifa.explain(net, inputs, 0, layer="deep", weight=ifa.weight.gradcam, scale=run)
    maps = ifa.explain(
        fine, inputs, 0, layer="net.deep", weight=ifa.weight.gradcam, scale=run, size=None
    )
    assert maps.shape == (2, 17, 19)


def test_guided_backprop_runs_through_it(pair):
    net, inputs = of("dense")
    fine = ifa.dense.densify(net)
    found, wanted = (ifa.attribute.guided_backprop(one)(inputs, 0) for one in (fine, net))
    assert torch.equal(found, wanted)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"stride": 0}, "from 1 on"),
        ({"stride": ()}, "from 1 on"),
        ({"stride": 1.5}, "from 1 on"),
        ({"pool": "max"}, "pool"),
    ],
)
def test_options_are_checked(options, match):
    with pytest.raises((ValueError, TypeError), match=match):
        ifa.dense.densify(nn.Flatten(), **options)


def test_a_network_is_made_finer_once():
    fine = ifa.dense.densify(nn.Conv1d(1, 1, 3))
    with pytest.raises(ValueError, match="already"):
        ifa.dense.densify(nn.Sequential(fine))
    with pytest.raises(TypeError, match="Module"):
        ifa.dense.densify(lambda x: x)


# ---- shifted inputs


def brightness(inputs, target=None):
    return inputs[:, 0]


def coarse(inputs, target=None):
    return functional.avg_pool2d(inputs, (2, 3))[:, 0]


def test_without_shifts_they_are_the_explanation():
    inputs = torch.randn(2, 3, 6, 9)
    assert torch.equal(ifa.dense.stitched(coarse, stride=1)(inputs), coarse(inputs))
    assert torch.equal(ifa.dense.shifted(brightness, shifts=1)(inputs), brightness(inputs))
    none = ifa.dense.shifted(brightness, shifts=[(0, 0)])
    assert torch.equal(none(inputs), brightness(inputs))


def test_stitching_has_a_map_for_every_offset():
    inputs = torch.randn(2, 3, 6, 9)
    found = ifa.dense.stitched(coarse, stride=(2, 3))(inputs)
    wanted = functional.avg_pool2d(inputs, (2, 3), stride=1)[:, 0]
    torch.testing.assert_close(found[:, :5, :7], wanted)
    many = ifa.dense.stitched(lambda x, t: torch.stack([coarse(x)] * 3), stride=(2, 3))
    assert torch.equal(many(inputs)[2], found)


def test_stitching_by_another_stride_than_the_layers_is_refused():
    net, inputs = of("mobile")
    explain = partial(ifa.explain, net, layer="deep", size=None, weight=ifa.weight.gradcam)
    assert ifa.dense.stitched(explain, stride=4)(inputs, 0).shape == (2, 36, 40)
    assert ifa.dense.stitched(explain, stride=1)(inputs, 0).shape == (2, 9, 10)
    for stride, layer in {2: "deep", 3: "deep", (4, 2): "deep", 8: "deep", 4: "stem"}.items():
        with pytest.raises(ValueError, match=r"stitched: .* layer, [24], [24] input pixels, got"):
            ifa.dense.stitched(partial(explain, layer=layer), stride=stride)(inputs, 0)
    with pytest.raises(ValueError, match="the layer, 4, 4 input pixels"):
        ifa.dense.stitched(partial(ifa.explain, net, size=None), stride=2)(inputs, 0)
    for stride in (2, 8):
        with pytest.raises(ValueError, match=r"stitched: .* maps \(9, 10\) of inputs \(33, 38\)"):
            ifa.dense.stitched(lambda x, t: explain(x, t), stride=stride)(inputs, 0)


def test_windows_that_see_much_are_stitched():
    net = nn.Sequential(nn.Conv1d(1, 2, 23, stride=2), nn.Flatten(), nn.Linear(8, 3)).eval()
    inputs = torch.randn(2, 1, 30)
    explain = partial(ifa.explain, net, layer="0", size=None)
    assert ifa.dense.stitched(explain, stride=2)(inputs, 0).shape == (2, 8)


def test_a_shifted_mean_of_what_moves_along_is_itself():
    inputs = torch.rand(2, 1, 8, 9)
    for shifts in (3, tuple(itertools.product((-4, 0), repeat=2)), [(0, 1), (7, -8)]):
        found = ifa.dense.shifted(brightness, shifts=shifts)(inputs)
        seen = found != 0
        torch.testing.assert_close(found[seen], brightness(inputs)[seen])
    assert ifa.dense.shifted(brightness, shifts=3)(inputs).ne(0).all()


def test_they_take_trees_compose_and_pickle():
    net, inputs = of("mobile")
    explain = partial(ifa.explain, net, layer="deep", weight=ifa.weight.gradcam)
    moved = ifa.dense.shifted(explain, shifts=2)
    both = ifa.augmented(moved, flips=((),), scales=(1.0,))
    assert torch.equal(both(inputs, 1), moved(inputs, 1))
    again = pickle.loads(pickle.dumps(ifa.dense.shifted(brightness, shifts=2)))
    assert repr(again) == "shifted(brightness, shifts=2)"
    tree = {"age": torch.ones(2, 1), "image": inputs}
    found = ifa.dense.shifted(lambda one, target: one["image"][:, 0], shifts=2)(tree)
    assert found.shape == inputs[:, 0].shape
    targets = torch.tensor([[0, 1], [2, 3]])
    assert moved(inputs, targets).shape == (2, *inputs[:, 0].shape)


def test_errors_of_shifted_inputs():
    inputs = torch.randn(2, 3, 6, 9)
    with pytest.raises(ValueError, match="size=None"):
        ifa.dense.stitched(brightness, stride=2)(inputs)
    with pytest.raises(ValueError, match="size='input'"):
        ifa.dense.shifted(coarse, shifts=2)(inputs)
    with pytest.raises(ValueError, match="2 axes"):
        ifa.dense.stitched(coarse, stride=(2,))(inputs)
    with pytest.raises(ValueError, match="smaller"):
        ifa.dense.shifted(brightness, shifts=[(6, 0)])(inputs)
    with pytest.raises(ValueError, match="none"):
        ifa.dense.shifted(brightness, shifts=[])
    with pytest.raises(ValueError, match="stride"):
        ifa.dense.stitched(coarse, stride=0)
    with pytest.raises(TypeError, match="explain"):
        ifa.dense.shifted(3, shifts=1)


# ---- scaled inputs


def hirescam_scaled(net, images, factors, target):
    total = [0, 0]
    for factor in factors:
        size = [round(factor * extent) for extent in images.shape[2:]]
        larger = functional.interpolate(images, size=size, mode="bilinear", align_corners=False)
        seen = ifa.tap(net, "deep", larger)(larger, target)
        back = [
            functional.interpolate(one, size=images.shape[2:], mode="bilinear", align_corners=False)
            for one in (seen.activations, seen.gradients)
        ]
        total = [old + new / len(factors) for old, new in zip(total, back, strict=True)]
    return (total[0] * total[1]).sum(1)


def test_cameras_is_the_mean_over_sizes():
    net, images = of("mobile")
    target, factors = torch.tensor([1, 3]), (1.0, 1.3, 0.7)
    weight = partial(ifa.dense.scaled, factors=factors)
    found = ifa.explain(net, images, target, layer="deep", weight=weight, rectify=False)
    wanted = hirescam_scaled(net, images, factors, target)
    torch.testing.assert_close(found, wanted)
    many = torch.stack([target, 1 + 0 * target])
    every = ifa.explain(net, images, many, layer="deep", weight=weight, rectify=False)
    torch.testing.assert_close(every[0], wanted)
    made = ifa.dense.scaled(net, "deep", images, factors=(1.0, 2.0))
    assert "sizes=(33, 38), (66, 76)" in repr(made)
    assert torch.equal(made(images).target, net(images).argmax(1))


def test_errors_of_scaled_inputs():
    net, images = of("mobile")
    with pytest.raises(ValueError, match="at least one"):
        ifa.dense.scaled(net, "deep", images, factors=())
    with pytest.raises(ValueError, match="factors"):
        ifa.dense.scaled(net, "deep", images, factors=(0.0,))
    with pytest.raises(TypeError, match="one layer"):
        ifa.dense.scaled(net, ("deep", "wide"), images)
    with pytest.raises(ValueError, match="like the example"):
        ifa.dense.scaled(net, "deep", images)(images[..., 1:])


# gaps ---------------------------------------------------------------------------------------


def pooled_by(*head) -> nn.Sequential:
    torch.manual_seed(3)
    body = nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU()
    body[0].bias.data += 1.0  # every unit is active
    return nn.Sequential(*body, *head, nn.Linear(4, 3)).eval()


AVERAGES = {
    "known": (nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    "unknown": (nn.Flatten(2), nn.AdaptiveAvgPool1d(1), nn.Flatten()),
}


@pytest.mark.parametrize(
    ("average", "pool", "dotted"),
    [("known", "exact", True), ("known", "dense", False), ("unknown", "dense", True)],
)
def test_maps_that_are_dots_are_named(average, pool, dotted):
    fine = ifa.dense.densify(pooled_by(*AVERAGES[average]), pool=pool)
    images = torch.rand(2, 1, 12, 12)
    for target in (None, torch.tensor([[0, 1], [2, 0]])):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            ifa.explain(fine, images, target, layer="net.1")
        assert [one.category for one in seen] == [ifa.ZeroGradient] * dotted
        assert all("every 2nd position" in str(one.message) for one in seen)
    ifa.explain(fine, images, layer="net.1", weight=ifa.weight.gradcam)  # of whole channels


@pytest.mark.parametrize(
    ("stride", "words"),
    [(3, "every 3rd"), (4, "every 4th"), (11, "every 11th"), (21, "every 21st")],
)
def test_every_so_manieth_position_is_named(stride, words):
    body = nn.Conv1d(1, 4, 3, stride=stride, padding=1), nn.AdaptiveAvgPool1d(1), nn.Flatten()
    fine = ifa.dense.densify(nn.Sequential(*body, nn.Linear(4, 3)).eval())
    with pytest.warns(ifa.ZeroGradient, match=f"zero but at {words} position: the score"):
        ifa.explain(fine, torch.rand(2, 1, 5 * stride), layer="net.0", rectify=False)


def test_a_population_of_dots_is_named():
    fine = ifa.dense.densify(pooled_by(*AVERAGES["known"]))
    data = [(image, 0) for image in torch.rand(3, 1, 12, 12)]
    with pytest.warns(ifa.ZeroGradient, match=r"ifa\.maps: on the finer grid of layer 'net\.1'"):
        ifa.maps(fine, data, layer="net.1", progress=False)
