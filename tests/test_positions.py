"""Where the units of a layer lie in the input, and maps placed there."""

import pickle

import pytest
import torch
from hypothesis import strategies as st
from test_architectures import CASES, batch, hugging_face, made
from torch import nn

import ifa
from ifa import nets
from ifa.testing import laws, models

TOKENS = {  # of the patches that became tokens
    "ViT": ([1.5, 1.5], [4, 4]),
    "ViT, fused attention": ([1.5, 1.5], [4, 4]),
    "ViT, a norm inside": ([1.5, 1.5], [4, 4]),
    "DeiT": ([1.5, 1.5], [4, 4]),
    "Swin": ([1.5, 1.5], [4, 4]),
    "VideoMAE": ([0.5, 1.5, 1.5], [2, 4, 4]),
    # 7.5, and half a token less by the even kernel of its positions' convolution
    "Wav2Vec2": ([3.5], [8]),
}
SEE_ALL = {"sleep staging", "SegFormer"}  # every unit, as attention does
# a unit of the last layers sees more of the input than a test can afford
LAYERS = {"MobileNetV2": "mobilenet_v2.layer.4"}
EXTENTS = {1: (400,), 2: (96, 112), 3: (20, 16, 18)}


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def first(output, target):
    return output.flatten()[0]


def lists(positions):
    return tuple(field.tolist() for field in positions)


def test_positions_are_centers_of_what_units_see():
    laws.positions_are_centers_of_what_units_see(ifa.positions)


# an example of zeros lies below every threshold of a random network
@pytest.mark.filterwarnings("ignore::ifa.ZeroGradient")
@pytest.mark.parametrize("name", sorted({*CASES} - {*TOKENS} - SEE_ALL))
def test_architectures(name):
    case = CASES[name]
    if name in ("ResNet", "ConvNeXt", "MobileNetV2"):
        pytest.importorskip("transformers")
    example = torch.zeros(1, case.shape[0], *EXTENTS[case.space]).to(case.dtype)
    options = {"score": first}
    drawn = made(case), LAYERS.get(name, case.layer), example, options
    laws.positions_are_centers_of_what_units_see(
        lambda *given, score: ifa.positions(*given), networks=st.just(drawn), examples=1
    )


@pytest.mark.parametrize("name", TOKENS)
def test_tokens_lie_where_their_patches_do(name):
    pytest.importorskip("transformers")
    case = CASES[name]
    assert lists(ifa.positions(made(case), case.layer, batch(case), grid=case.lay)) == TOKENS[name]


# ---- truths known beforehand


def test_the_last_stage_of_a_resnet_begins_at_the_first_pixel():
    pytest.importorskip("transformers")
    sizes = {"embedding_size": 4, "hidden_sizes": [4, 4, 4, 4], "depths": [1, 1, 1, 1]}
    net = hugging_face("ResNet", layer_type="basic", **sizes).eval()
    images = torch.zeros(2, 3, 224, 192)
    for layer in (None, "resnet.encoder.stages.3"):
        assert lists(ifa.positions(net, layer, images)) == ([0, 0], [32, 32])  # resize: 15.5
    assert lists(ifa.positions(net, "resnet.embedder.pooler", images)) == ([0, 0], [4, 4])


def test_positions_of_our_own_networks():
    digits, image = nets.digits_cnn().eval(), torch.zeros(2, 1, 8, 8)
    assert lists(ifa.positions(digits, "conv3", image)) == ([0, 0], [1, 1])
    vit = nets.digits_vit().eval()
    assert lists(ifa.positions(vit, "blocks.1.norm1", image)) == ([0.5, 0.5], [2, 2])
    for space in (1, 2, 3):
        net = models.pooled_linear(space)
        expected = ([1.0] * space, [2.0] * space)
        assert lists(ifa.positions(net, "relu2", models.inputs(net))) == expected


def test_swin_rolls_windows_and_merges_patches():
    pytest.importorskip("transformers")
    options = {"image_size": 32, "patch_size": 2, "embed_dim": 8, "window_size": 4}
    net = hugging_face("Swin", depths=[2, 2], num_heads=[2, 2], **options).eval()
    for layer, step in (
        ("swin.encoder.layers.0.blocks.1", 2),
        ("swin.encoder.layers.1.blocks.1", 4),
    ):
        found = ifa.positions(net, layer, torch.zeros(1, 3, 32, 32))
        assert lists(found) == ([(step - 1) / 2] * 2, [step] * 2)


@pytest.mark.parametrize("kind", ["strided", "pooled"])
def test_positions_are_centers_of_the_gradient(kind):
    """In a linear network of equal, positive weights."""
    pool = nn.AvgPool2d(3, stride=2, padding=1) if kind == "pooled" else nn.Identity()
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3, stride=2, padding=1, bias=False), pool,
        nn.Conv2d(2, 2, 4, stride=2, padding=1, groups=2, bias=False), nn.ReLU(),
        nn.Conv2d(2, 2, 3, padding="same", dilation=2, bias=False),
    ).double()  # fmt: skip
    for weight in net.parameters():
        weight.data.fill_(1)
    image = torch.ones(1, 1, 120, 128, dtype=torch.float64, requires_grad=True)
    output = net(image)
    row, column = (extent // 2 for extent in output.shape[2:])
    (gradient,) = torch.autograd.grad(output[0, :, row, column].sum(), image)
    start, step = ifa.positions(net, "4", image)
    for axis, unit in enumerate((row, column)):
        seen = gradient[0, 0].sum(1 - axis)
        pixels = torch.arange(len(seen), dtype=torch.float64)
        assert float((pixels * seen).sum() / seen.sum()) == pytest.approx(
            start[axis] + unit * step[axis]
        )


class Odd(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.how, self.conv, self.relu = how, nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.ReLU()

    def forward(self, x):
        return self.relu(self.how(self.conv(x))).mean((2, 3))


FOLLOWED = {
    "an embedding of each": lambda x: torch.nn.functional.embedding(
        (x[:, 0] > 0).long(), torch.ones(2, 2)
    ).permute(0, 3, 1, 2),
    "a gate": lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(),
    "a gate of an unknown operation": lambda x: x * x.cumsum(1).mean((2, 3), keepdim=True),
    "channels last and back": lambda x: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
    "an activation of MobileNetV3": nn.functional.hardswish,
    "shuffled channels": lambda x: nn.functional.channel_shuffle(x, 2),
    "patches of one pixel, as a product": lambda x: (torch.ones(2, 2) @ x.flatten(2)).unflatten(
        2, x.shape[2:]
    ),
    "there and back": lambda x: nn.functional.pixel_shuffle(nn.functional.pixel_unshuffle(x, 2), 2),
    "up and down": lambda x: nn.functional.avg_pool2d(
        nn.functional.interpolate(x, scale_factor=2, mode="bilinear"), 2
    ),
    "transposed": lambda x: nn.functional.max_pool2d(
        nn.functional.conv_transpose2d(x, torch.ones(2, 2, 2, 2), stride=2), 2
    ),
    "flipped twice": lambda x: x.flip(2).flip(2),
    "rolled and back": lambda x: x.roll((1, -1), (2, 3)).roll((-1, 1), (2, 3)),
    "attention": lambda x: nn.functional.scaled_dot_product_attention(
        *[x.flatten(2).mT] * 3
    ).mT.unflatten(2, x.shape[2:]),
    "written into": lambda x: torch.empty_like(x).copy_(x),
}


@pytest.mark.parametrize("name", FOLLOWED)
def test_operations_that_are_followed(name):
    found = ifa.positions(Odd(FOLLOWED[name]).eval(), "relu", torch.zeros(1, 1, 16, 12))
    assert lists(found) == ([0, 0], [2, 2])


UNKNOWN = {
    "cumsum": lambda x: x + x.cumsum(2),
    "on different grids": lambda x: x + x.mT.mT.flip(2),
    "rolled differently": lambda x: x + x.roll(1, 2),
    "grid_sampler_2d": lambda x: nn.functional.grid_sample(
        x, torch.zeros(1, 8, 6, 2), align_corners=False
    ),
    "does not divide": lambda x: nn.functional.adaptive_avg_pool2d(x, (3, 5)),
    "makes a tensor anew": lambda x: torch.ones(1, 2, 3, 4),
    "mixes the axes": lambda x: x.transpose(2, 3),
}


@pytest.mark.parametrize("reason", UNKNOWN)
def test_operations_that_are_not_known_are_named(reason):
    net, image = Odd(UNKNOWN[reason]).eval(), torch.zeros(1, 1, 16, 12)
    with pytest.warns(ifa.EvenTiling, match=reason):
        start, step = ifa.positions(net, "relu", image)
    units = torch.tensor(ifa.trace(net, image)["relu"].shape[1:])
    torch.testing.assert_close(step, torch.tensor([16.0, 12.0]).double() / units)
    torch.testing.assert_close(start, (step - 1) / 2)


def test_a_layer_is_named_as_for_a_tap():
    net = models.reused_layer()
    image = models.inputs(net)
    assert lists(ifa.positions(net, "relu#2", image)) == ([0, 0], [1, 1])
    assert lists(ifa.positions(net, net.conv2, image)) == ([0, 0], [1, 1])
    with pytest.raises(TypeError, match="one layer"):
        ifa.positions(net, ("conv1", "conv2"), image)
    with pytest.raises(LookupError, match="relu#1"):
        ifa.positions(net, "relu", image)
    with pytest.raises(ValueError, match="axes of space"):
        ifa.positions(net, "linear", image)


class Siamese(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.Linear(3, 2)

    def forward(self, age, image, other):
        apart = (self.conv(image) - self.conv(other)).mean((2, 3))
        return self.head(torch.cat([apart, age], 1))


def test_inputs_may_be_a_tree():
    inputs = {"age": torch.zeros(2, 1), "image": torch.ones(2, 1, 8, 6)}
    inputs["other"] = torch.zeros(2, 1, 8, 6)
    net = Siamese().eval()
    assert lists(ifa.positions(net, "conv#1", inputs)) == ([0, 0], [2, 2])
    assert lists(ifa.positions(net, "conv#2", inputs, grid_of="other")) == ([0, 0], [2, 2])
    with pytest.warns(ifa.EvenTiling, match="anew"):
        ifa.positions(net, "conv#2", inputs)


def test_the_model_is_left_as_it_was():
    net = models.inplace()
    image = models.inputs(net)
    before = image.clone()
    with ifa.testing.assert_leaves_model_untouched(net):
        ifa.positions(net, "conv2", image)
    assert torch.equal(image, before)


def test_explain_finds_positions_once_and_says_so_once():
    net, image = Odd(UNKNOWN["cumsum"]).eval(), torch.rand(2, 1, 16, 12)
    with pytest.warns(ifa.EvenTiling, match=r"ifa\.explain.*cumsum"):
        maps = ifa.explain(net, image, 0, layer="relu")
    torch.testing.assert_close(ifa.explain(net, image, 0, layer="relu"), maps)  # without a warning
    assert torch.equal(ifa.explain(net, image, 0, layer="relu", placing="even"), maps)
    with pytest.raises(ValueError, match="placing"):
        ifa.explain(net, image, 0, layer="relu", placing="middle")  # pyright: ignore


# ---- place


def test_placing_evenly_is_resizing():
    laws.placing_evenly_is_resizing(ifa.place)


def test_values_stand_at_their_centers_and_are_held_beyond():
    where = ifa.Positions(torch.tensor([1.0, -2.0]), torch.tensor([3.0, 2.0]))
    values = torch.arange(12.0).reshape(3, 4)
    placed = ifa.place(where, (9, 5))(ifa.Map(values, torch.tensor(0))).values
    assert torch.equal(placed[1::3, ::2], values[:, 1:])
    assert torch.equal(placed[0], placed[1])
    assert torch.equal(placed[8], placed[7])
    ramp = placed[1:8, 0].diff()
    torch.testing.assert_close(ramp, torch.full_like(ramp, 4 / 3))


def test_another_size_than_the_inputs():
    where = ifa.Positions(torch.tensor([0.5]), torch.tensor([2.0]))  # even tiling of 8 by 4
    value = ifa.Map(torch.rand(3, 4), torch.tensor(0))  # blocks are kept
    placed = ifa.place(where, (16,), input_size=(8,))(value).values
    torch.testing.assert_close(placed, ifa.resize((16,))(value).values)


def test_placing_goes_through_a_chain_vmap_pickle_and_compile():
    where = ifa.Positions(torch.zeros(2), torch.full((2,), 2.0))
    step = ifa.chain(ifa.relu, ifa.place(where, (8, 6)))
    batch = ifa.Map(torch.randn(5, 4, 3), torch.zeros(5, dtype=torch.int64))
    expected = torch.stack([step(ifa.Map(*one)).values for one in zip(*batch, strict=True)])
    assert torch.equal(ifa.batched(step)(batch).values, expected)
    assert torch.equal(ifa.batched(pickle.loads(pickle.dumps(step)))(batch).values, expected)
    compiled = torch.compile(ifa.batched(step), fullgraph=True, backend="eager")
    assert torch.equal(compiled(batch).values, expected)


@pytest.mark.parametrize(
    ("start", "step", "size", "match"),
    [
        ([0.0], [1.0], (4, 4), "as many axes"),
        ([0.0], [0.0], (4,), "other than 0"),
        ([float("nan")], [1.0], (4,), "finite"),
        ([0.0], [1.0], (0,), "positive extents"),
    ],
)
def test_what_cannot_be_placed_is_refused(start, step, size, match):
    with pytest.raises(ValueError, match=match):
        ifa.place(ifa.Positions(torch.tensor(start), torch.tensor(step)), size)


def test_a_map_of_too_few_axes_is_refused():
    step = ifa.place(ifa.Positions(torch.zeros(2), torch.ones(2)), (4, 4))
    with pytest.raises(ValueError, match="2 space axes"):
        step(ifa.Map(torch.zeros(3), torch.tensor(0)))
