"""Ablation-CAM without a pass for each channel: the same numbers, at a cost that is linear."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import ifa

CHANNELS, SAMPLES = 6, 3


class Then(nn.Module):
    """A layer, and a function of its output above it."""

    def __init__(self, function, channels=CHANNELS):
        super().__init__()
        self.layer, self.function = nn.Conv2d(2, channels, 3), function
        self.linear, self.flat = nn.Linear(channels, 5), nn.Linear(16 * channels, 5)
        self.hidden, self.norm = nn.Linear(5, 4), nn.BatchNorm2d(channels)
        self.rows, self.mixed = nn.BatchNorm1d(5), nn.LayerNorm(channels)
        self.narrow = nn.Conv2d(channels, channels, 1)
        self.counts: Tensor
        self.register_buffer("counts", torch.arange(1.0, 1 + channels))

    def forward(self, images):
        return self.function(self, self.layer(images))


def pooled(net, x):
    return net.linear(x.mean((2, 3)))


def in_rows(net, x):
    return net.hidden(net.rows(net.linear(x.amax((2, 3)))).relu()).softmax(-1)


def gated(net, x):
    return net.linear((x * x.mean((2, 3), keepdim=True).sigmoid()).mean((-1, -2)))


def normed(net, x):
    return net.linear(nn.functional.avg_pool2d(nn.functional.relu_(net.norm(x)), 4).flatten(1))


def scaled(net, x):
    return net.linear((1 - nn.functional.hardswish(x)).mean((2, 3)) * net.counts)


ONE_PASS = {
    "pooled": pooled,
    "in rows": in_rows,
    "gated": gated,
    "normed": normed,
    "scaled": scaled,
    "flat": lambda net, x: net.flat(nn.functional.gelu(x).flatten(1)),
    "without an offset": lambda net, x: x.sum((2, 3)) @ net.linear.weight.T,
}


def branching(net, x):
    return net.linear(x.mean((2, 3)) if x[0, 0].mean() > 0.1 else x.amax((2, 3)))


def counting(net, x):
    total = torch.zeros(len(x), CHANNELS, dtype=x.dtype)
    return net.linear(total.add_(x.mean((2, 3))))


def by_neighbors(net, x):
    return net.linear(x.mean((2, 3)) - x.mean((2, 3)).flip(1).cumsum(1))


EACH = {
    "a convolution": lambda net, x: net.linear(net.narrow(x).mean((2, 3))),
    "a norm over channels": lambda net, x: net.linear(net.mixed(x.mean((2, 3)))),
    "channels last": lambda net, x: net.linear(x.permute(0, 2, 3, 1).mean((1, 2))),
    "channels turned": lambda net, x: net.flat(x.permute(0, 2, 3, 1).flatten(1)),
    "a mean over channels": lambda net, x: net.linear((x - x.mean(1, keepdim=True)).mean((2, 3))),
    "a share of channels": lambda net, x: net.linear(x.softmax(1).mean((2, 3))),
    "neighbors": by_neighbors,
    "a branch": branching,
    "a sum in place": counting,
    "two ways": lambda net, x: net.linear(x.mean((2, 3))) + x.mean((1, 2, 3))[:, None],
    "a product of rows": lambda net, x: net.linear(x.mean((2, 3))) * net.linear(x.amax((2, 3))),
    "samples": lambda net, x: net.linear(x.mean((2, 3))) + x[:, :1, 0, 0],
}


def made(function, channels=CHANNELS):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        net = Then(function, channels).eval().double()
        net.norm.running_mean.normal_()
        return net, torch.randn(SAMPLES, 2, 6, 6, dtype=torch.float64)


def by_hand(net, images, target, baseline):
    with torch.no_grad():
        layer = net.layer(images)
        before = net.function(net, layer.clone()).gather(1, target[:, None])[:, 0]
        lost = []
        for channel in range(CHANNELS):
            changed = layer.clone()
            new = layer[:, channel].mean((1, 2)) if baseline == "mean" else torch.tensor(baseline)
            changed[:, channel] = new.reshape(-1, 1, 1).double()
            lost.append(before - net.function(net, changed).gather(1, target[:, None])[:, 0])
    return torch.stack(lost, 1)


@pytest.mark.parametrize(
    ("name", "baseline"), [*((name, -0.5) for name in (*ONE_PASS, *EACH)), ("flat", "mean")]
)
def test_each_channel_is_left_out(name, baseline):
    function = (ONE_PASS | EACH)[name]
    net, images = made(function)
    target = torch.tensor([0, 3, 2])
    build = ifa.perturb.ablationcam
    found = build(net, "layer", images, baseline=baseline, normalize=False)(images, target)
    torch.testing.assert_close(found.weights, by_hand(net, images, target, baseline))


class _Written(TorchDispatchMode):
    """Counts the elements of all that is made."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        first = out[0] if isinstance(out, tuple) and out else out
        if isinstance(first, Tensor) and func.overloadpacket.__name__ not in ("view", "expand"):
            self.elements += first.numel()
        return out


def written(function, channels):
    net, images = made(function, channels)
    explain = ifa.perturb.ablationcam(net, "layer", images[:1])
    with _Written() as mode:
        explain(images[:1], 0)
    return mode.elements


@pytest.mark.parametrize("name", ONE_PASS)
def test_what_is_made_grows_with_the_channels_and_not_with_their_square(name):
    assert written(ONE_PASS[name], 256) < 5 * written(ONE_PASS[name], 64)


def test_the_chunk_bounds_how_many_channels_are_left_out_at_once():
    net, images = made(in_rows)
    widest = []

    class Rows(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if func.overloadpacket.__name__ == "addmm":
                widest.append(len(out))
            return out

    explain = ifa.perturb.ablationcam(net, "layer", images, chunk=2 * SAMPLES)
    with Rows():
        explain(images, 0)
    assert max(widest) == 2 * SAMPLES
