"""How tokens and channels-last layers are laid out: said, or inferred where only one way fits."""

import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ifa
from ifa.taps import patches
from ifa.taps.layouts import fitting


def seeded(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


# and back ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grid", "shape", "laid"),
    [
        (ifa.tokens(1, (2, 3)), (4, 7, 5), (4, 5, 2, 3)),
        (ifa.tokens(0, (7,)), (4, 7, 5), (4, 5, 7)),
        (ifa.tokens(2, (2, 2, 3)), (4, 14, 5), (4, 5, 2, 2, 3)),
        (ifa.channels_last(), (4, 2, 3, 5), (4, 5, 2, 3)),
        (patches(3, (2, 4)), (4, 3, 8, 5), (4, 15, 2, 4)),
        (patches(2, (8,)), (4, 2, 8, 5), (4, 10, 8)),
    ],
)
def test_there_and_back(grid, shape, laid):
    values = seeded(*shape)
    assert grid(values).shape == laid
    assert torch.equal(grid.back(grid(values), values), values)
    assert pickle.loads(pickle.dumps(grid)) == grid
    assert repr(grid).startswith(type(grid).__name__)


def test_the_order_of_channels_of_a_patch():
    values = seeded(2, 3, 8, 5)
    laid = patches(pixels=3, grid=(2, 4))(values)
    for pixel, channel, row, column in [(0, 0, 0, 0), (2, 4, 1, 3), (1, 3, 1, 0)]:
        expected = values[:, pixel, row * 4 + column, channel]
        assert torch.equal(laid[:, pixel * 5 + channel, row, column], expected)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda: patches(0, (2,)), "ifa.patches: expected pixels >= 1"),
        (lambda: patches(2, ()), "ifa.patches: expected pixels >= 1"),
        (lambda: patches(2, (2, 2))(seeded(1, 3, 4, 5)), r"ifa.patches: expected \(sample, 2, 4"),
        (lambda: patches(2, (2, 2))(seeded(1, 2, 4)), r"ifa.patches: expected \(sample, 2, 4"),
        (lambda: ifa.tokens(1, (2,)).back(seeded(1, 5, 2)), "take 1 prefix tokens from, got none"),
    ],
)
def test_wrong_use_says_what_to_do(wrong, text):
    with pytest.raises(ValueError, match=text):
        wrong()


# inferred ----------------------------------------------------------------------------------------


class Embedded(nn.Module):
    """Patches of any size as tokens, with some before them, and blocks above: a small ViT."""

    def __init__(self, space: int, patch: Any, prefix: int = 1, width: int = 6, cut: bool = True):
        super().__init__()
        conv: Any = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[space - 1]
        # without `cut`, nothing on the model tells the size of a patch
        self.patch = conv(2, width, patch, stride=patch) if cut else _Cut(space, patch, width)
        self.prefix = nn.Parameter(torch.randn(1, prefix, width))
        self.block1, self.drop = self.block(width), nn.Dropout(0.1)
        self.block2 = self.block(width)
        self.head = nn.Linear(width, 4)

    def block(self, width: int) -> nn.Module:
        return nn.TransformerEncoderLayer(width, 2, 5, batch_first=True, dropout=0.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.prefix.expand(len(x), -1, -1), x], 1)
        return self.head(self.block2(self.drop(self.block1(x))).mean(1))


class Patches(nn.Module):
    """As the embedding of a ViT: a convolution only."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 6, 4, stride=4)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).flatten(2).transpose(1, 2)


def test_the_embedding_of_patches():
    net, inputs = nn.Sequential(Patches(), nn.Flatten()).eval(), seeded(2, 2, 16, 12)
    assert ifa.tap(net, "0", inputs).grids == (ifa.tokens(0, (4, 3)),)
    assert ifa.tap(net, "0.conv", inputs).grids == (None,)


class _Cut(nn.Module):
    def __init__(self, space: int, patch: Any, width: int):
        super().__init__()
        self.patch = (patch,) * space if isinstance(patch, int) else patch
        self.weight = nn.Parameter(torch.randn(width, 2, *self.patch))

    def forward(self, x: Tensor) -> Tensor:
        convolve: Any = (torch.conv1d, torch.conv2d, torch.conv3d)[len(self.patch) - 1]
        return convolve(x, self.weight, stride=self.patch)


@pytest.mark.parametrize(
    ("space", "patch", "prefix", "shape", "grid"),
    [
        (2, 4, 1, (2, 16, 16), ifa.tokens(1, (4, 4))),
        (2, 4, 0, (2, 16, 16), ifa.tokens(0, (4, 4))),
        (2, 4, 2, (2, 12, 20), ifa.tokens(2, (3, 5))),
        (2, 2, 5, (2, 8, 6), ifa.tokens(5, (4, 3))),
        (3, 4, 0, (2, 8, 12, 12), ifa.tokens(0, (2, 3, 3))),
        (3, (2, 4, 4), 1, (2, 8, 8, 12), ifa.tokens(1, (4, 2, 3))),
    ],
)
@pytest.mark.parametrize("layer", ["block1", "drop", "block2", "block1.norm1", "block1.linear2"])
def test_tokens_of_a_transformer(space, patch, prefix, shape, grid, layer):
    net, inputs = Embedded(space, patch, prefix).eval(), seeded(2, *shape)
    tap = ifa.tap(net, layer, inputs)
    assert tap.grids == (grid,)
    assert tap.shapes == ((6, *grid.grid),)
    assert f"grid={grid}" in repr(tap)
    said = ifa.tap(net, layer, inputs, grid=grid)
    for target in (1, torch.tensor([[0, 1], [2, 2], [3, 0]])):
        for one, other in zip(tap(inputs, target), said(inputs, target), strict=True):
            assert torch.equal(one, other)


def test_each_layer_has_the_grid_of_its_own():
    net, inputs = Embedded(2, 4).eval(), seeded(2, 2, 16, 16)
    tap = ifa.tap(net, ("patch", "block1"), inputs)
    assert tap.grids == (None, ifa.tokens(1, (4, 4)))
    assert tap.shapes == ((6, 4, 4), (6, 4, 4))


def test_several_fits_are_listed_unless_the_network_shows_its_patches():
    inputs = seeded(2, 2, 8, 24, 24)  # 32 tokens: 2 × 4 × 4, or 8 × 2 × 2
    fits = [ifa.tokens(0, (2, 4, 4)), ifa.tokens(0, (8, 2, 2))]
    assert set(fits) == set(fitting(32, (2, 8, 24, 24)))
    tap = ifa.tap(Embedded(3, (4, 6, 6), 0).eval(), "block1", inputs)
    assert tap.grids == (fits[0],)
    silent = Embedded(3, (4, 6, 6), 0, cut=False).eval()
    with pytest.raises(ValueError, match=r"found 2\. Say how they lie with grid=") as caught:
        ifa.tap(silent, "block1", inputs)
    for grid in fits:
        assert f"ifa.tokens(prefix=0, grid={grid.grid})" in str(caught.value)
        assert ifa.tap(silent, "block1", inputs, grid=grid).grids == (grid,)


def test_no_fit_says_so():
    inputs = seeded(2, 2, 16, 16)  # a border of 1 is cut off
    net = Embedded(2, 5, cut=False).eval()
    with pytest.raises(ValueError, match=r"tokens of layer 'block1'.*found 0.*grid=\(10,\)"):
        ifa.tap(net, "block1", inputs)
    assert ifa.tap(net, "block1", inputs, grid=ifa.tokens(1, (3, 3))).shapes == ((6, 3, 3),)


def test_a_convolution_shows_the_grid_of_what_is_no_whole_patch():
    for prefix in (0, 1, 5):
        net, inputs = Embedded(2, 5, prefix).eval(), seeded(2, 2, 16, 21)
        assert ifa.tap(net, "block1", inputs).grids == (ifa.tokens(prefix, (3, 4)),)


class Signal(nn.Module):
    """Tokens over time, of inputs (channel, time)."""

    def __init__(self, cut: nn.Module, above: nn.Module):
        super().__init__()
        self.cut, self.above = cut, above

    def forward(self, x: Tensor) -> Tensor:
        x = self.above(self.cut(x).mT)
        return (x if isinstance(x, Tensor) else x[0]).flatten(1)[:, :3]


def encoder() -> nn.Module:
    return nn.TransformerEncoderLayer(16, 2, 20, 0.0, batch_first=True)


@pytest.mark.parametrize(
    ("cut", "above", "time", "tokens"),
    [
        (lambda: nn.Conv1d(2, 16, 4, 4), encoder, 80, 20),
        (lambda: nn.Conv1d(2, 16, 9, 4), encoder, 80, 18),  # 2 + 16 would be whole patches
        (lambda: nn.Conv1d(2, 16, 3, 2, 1), encoder, 100, 50),
        (lambda: nn.Conv1d(2, 16, 3), lambda: nn.LayerNorm(16), 22, 20),
        (lambda: nn.Conv1d(2, 16, 3), lambda: nn.Linear(16, 7), 22, 20),
        (lambda: nn.Conv1d(2, 16, 3), lambda: nn.GRU(16, 5, batch_first=True), 22, 20),
        (lambda: nn.Conv1d(2, 16, 3), lambda: nn.LSTM(16, 5, 1, True, True, 0, True), 22, 20),
    ],
)
def test_tokens_of_a_signal(cut, above, time, tokens):
    net, inputs = Signal(cut(), above()).eval(), seeded(2, 2, time)
    tap = ifa.tap(net, "above", inputs)
    assert tap.grids == (ifa.tokens(0, (tokens,)),)
    assert tap.shapes[0][1:] == (tokens,)
    assert ifa.tap(net, "cut", inputs).grids == (None,)


@pytest.mark.parametrize(
    ("make", "layer", "shape"),
    [
        # (time, feature), or channels that attend to each other
        (lambda: nn.Sequential(encoder(), nn.Flatten()), "0", (20, 16)),
        # as many channels as patches
        (lambda: Signal(nn.Conv1d(2, 16, 4, 4), encoder()), "above", (2, 64)),
    ],
)
def test_rows_that_may_be_channels_or_tokens_must_be_said(make, layer, shape):
    net, inputs = make().eval(), seeded(2, *shape)
    with pytest.raises(ValueError, match=r"Say how they lie with grid=, one of ") as caught:
        ifa.tap(net, layer, inputs)
    rows = ifa.trace(net, inputs)[layer].shape
    assert f"ifa.tokens(prefix=0, grid=({rows[0]},))" in str(caught.value)
    assert "torch.nn.Identity() for channels first" in str(caught.value)
    assert ifa.tap(net, layer, inputs, grid=nn.Identity()).shapes == (rows,)


class Text(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(9, 6)
        self.block = nn.TransformerEncoderLayer(6, 2, 5, 0.0, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.embed(x)).mean(1))


def test_one_token_for_each_element():
    ids = torch.arange(12).reshape(2, 6) % 9
    tap = ifa.tap(Text().eval(), "block", ids)
    assert tap.grids == (ifa.tokens(0, (6,)),)
    assert ifa.tap(Text().eval(), "head", ids).grids == (None,)
    assert tap(ids, 1).activations.shape == (2, 6, 6)


class Last(nn.Module):
    """Channels last, as in Swin and in torchvision's ConvNeXt."""

    def __init__(self, width: int = 6):
        super().__init__()
        self.patch, self.norm = nn.Conv2d(2, width, 4, stride=4), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 9), nn.GELU(), nn.Linear(9, width))
        self.conv, self.head = nn.Conv2d(width, 5, 1), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.patch(x).permute(0, 2, 3, 1))
        x = x + self.mlp(x)
        return self.head(self.conv(x.permute(0, 3, 1, 2)).mean((2, 3)))


@pytest.mark.parametrize(
    ("layer", "grid", "shape"),
    [
        ("patch", None, (6, 4, 5)),
        ("norm", ifa.channels_last(), (6, 4, 5)),
        ("mlp", ifa.channels_last(), (6, 4, 5)),
        ("mlp.0", ifa.channels_last(), (9, 4, 5)),
        ("mlp.1", ifa.channels_last(), (9, 4, 5)),
        ("conv", None, (5, 4, 5)),
        ("head", None, (4,)),
    ],
)
def test_channels_last(layer, grid, shape):
    net, inputs = Last().eval(), seeded(2, 2, 16, 20)
    tap = ifa.tap(net, layer, inputs)
    assert tap.grids == (grid,)
    assert tap.shapes == (shape,)


def test_channels_last_with_as_many_channels_as_rows_must_be_said():
    net, inputs = Last(width=5).eval(), seeded(2, 2, 20, 20)
    assert ifa.tap(net, "norm", inputs).grids == (None,)


# what stays as it is -----------------------------------------------------------------------------


class Lambda(nn.Module):
    def __init__(self, function: Any):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


AS_IT_IS = {
    "a convolution over time": (lambda: nn.Conv1d(2, 4, 3), (2, 16), (4, 14)),
    "a linear layer over time": (lambda: nn.Linear(16, 8), (2, 16), (2, 8)),
    "normalized time": (lambda: nn.LayerNorm(16), (2, 16), (2, 16)),
    "one vector": (lambda: nn.Linear(16, 8), (16,), (8,)),
    "a signal": (lambda: nn.Sequential(nn.Unflatten(1, (1, -1)), nn.Conv1d(1, 4, 3)), (16,), None),
    "an image": (lambda: nn.Conv2d(2, 4, 3), (2, 9, 7), (4, 7, 5)),
    "channels, then places": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 1), nn.Flatten(2)),
        (2, 4, 4),
        (4, 16),
    ),
    "places flattened alone": (lambda: nn.Flatten(2), (2, 4, 4), (2, 16)),
    "squeeze and excitation": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 8, 1), Lambda(lambda x: x), nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4)
        ),
        (2, 4, 4),
        (4, 4, 4),
    ),
    "time after frequencies": (
        lambda: nn.Sequential(nn.Conv2d(2, 16, 1), Lambda(lambda x: x.mean(2)), nn.GELU()),
        (2, 8, 8),
        (16, 8),
    ),
    "half of the channels": (
        lambda: nn.Sequential(nn.Conv2d(2, 8, 1), nn.GLU(1), Lambda(lambda x: x.mean(2))),
        (2, 8, 8),
        (4, 8),
    ),
    "patches, flattened": (
        lambda: nn.Sequential(nn.Conv2d(2, 16, 2, stride=2), nn.Flatten(2)),
        (2, 8, 8),
        (16, 16),
    ),
    "a volume": (lambda: nn.Conv3d(2, 4, 3), (2, 5, 6, 7), (4, 3, 4, 5)),
}


@pytest.mark.parametrize("name", AS_IT_IS)
def test_channels_first_stays_as_it_is(name):
    make, shape, expected = AS_IT_IS[name]
    net = nn.Sequential(make(), nn.Identity(), Lambda(lambda x: x.flatten(1)[:, :3])).eval()
    inputs = seeded(2, *shape)
    for layer in ("0", "1"):
        tap = ifa.tap(net, layer, inputs)
        assert tap.grids == (None,)
        assert expected is None or tap.shapes == (expected,)
        assert "grid" not in repr(tap)


@pytest.mark.parametrize(
    ("tokens", "inputs", "grids"),
    [
        (197, (3, 224, 224), [(1, (14, 14))]),
        (198, (3, 224, 224), [(2, (14, 14))]),
        (201, (3, 224, 224), [(5, (14, 14))]),
        (196, (3, 224, 224), [(0, (14, 14))]),
        (49, (3, 224, 224), [(0, (7, 7))]),
        (257, (3, 224, 224), [(1, (16, 16))]),
        (577, (3, 384, 384), [(1, (24, 24))]),
        (1025, (1, 512, 512), [(1, (32, 32))]),
        (1568, (16, 3, 224, 224), [(0, (8, 14, 14)), (0, (2, 28, 28))]),
        (785, (3, 224, 224), [(1, (28, 28))]),
        (50, (3, 224, 224), [(1, (7, 7))]),
        (601, (3, 160, 240), [(1, (20, 30))]),
        (3, (3, 224, 224), []),
    ],
)
def test_known_networks(tokens, inputs, grids):
    assert {(fit.prefix, fit.grid) for fit in fitting(tokens, inputs)} == set(grids)
