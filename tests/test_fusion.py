"""Several maps to one, against what the formulas say, and the one call."""

from functools import partial

import numpy as np
import pytest
import torch

import ifa

SPACES = {"1-D": ((4,), (7,)), "2-D": ((3, 5), (6, 4)), "3-D": ((2, 3, 4), (3, 5, 2))}


def record(values, target=0):
    return ifa.Map(values, torch.tensor(target))


@pytest.mark.parametrize("how", ["max", "mean", "product"])
@pytest.mark.parametrize(("small", "large"), SPACES.values(), ids=SPACES)
def test_fuse_is_pointwise_on_the_largest_grid(how, small, large):
    torch.manual_seed(0)
    a, b = record(torch.randn(small)), record(torch.randn(large))
    resized = ifa.resize(large)(a).values
    pair = torch.stack([resized, b.values])
    expected = {"max": pair.amax(0), "mean": pair.mean(0), "product": pair.prod(0)}[how]
    torch.testing.assert_close(ifa.fuse([a, b], how=how).values, expected)
    torch.testing.assert_close(ifa.fuse([b, a], how=how).values, expected)


def test_fuse_can_be_told_the_grid():
    assert ifa.fuse([record(torch.ones(2, 3))], size=(5, 7)).values.shape == (5, 7)


def test_fuse_places_each_map_at_its_centers():
    torch.manual_seed(0)
    maps = [record(torch.randn(3, 4)), record(torch.randn(6, 8))]
    where = [
        ifa.Positions(torch.tensor([start] * 2), torch.tensor([step] * 2))
        for start, step in ((1.5, 4.0), (0.0, 2.0))
    ]
    expected = torch.stack(
        [ifa.place(at, (12, 16))(one).values for at, one in zip(where, maps, strict=True)]
    )
    found = ifa.fuse(maps, how="product", size=(12, 16), positions=where)
    assert torch.equal(found.values, expected.prod(0))
    assert not torch.equal(found.values, ifa.fuse(maps, how="product", size=(12, 16)).values)
    with pytest.raises(ValueError, match="positions of 2 maps"):
        ifa.fuse(maps, size=(12, 16), positions=where[:1])
    with pytest.raises(ValueError, match="size of the input"):
        ifa.fuse(maps, positions=where)


@pytest.fixture
def strided():
    torch.manual_seed(0)
    convs = [torch.nn.Conv2d(1, 3, 3, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(3, 4, 3, 2, 1)]
    head = [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 3)]
    return torch.nn.Sequential(*convs, torch.nn.ReLU(), *head), torch.rand(2, 1, 16, 18)


@pytest.mark.parametrize("how", ["product", "mean", "max"])
@pytest.mark.parametrize("placing", ["centers", "even"])
def test_fine_is_every_layers_map_from_least_to_most(strided, how, placing):
    net, images = strided
    layers, target = ("1", "3"), torch.tensor([[0, 1], [2, 0]])
    maps = [
        ifa.explain(net, images, target, layer=one, weight=ifa.weight.layercam, placing=placing)
        for one in layers
    ]
    flat = [one.flatten(2) for one in maps]
    scaled = torch.stack(
        [(f - f.amin(2, True)) / (f.amax(2, True) - f.amin(2, True)).clamp(min=1e-30) for f in flat]
    ).unflatten(3, maps[0].shape[2:])
    expected = {"product": scaled.prod(0), "mean": scaled.mean(0), "max": scaled.amax(0)}[how]
    options = {"layers": layers, "how": how, "placing": placing}
    torch.testing.assert_close(ifa.fine(net, images, target, **options), expected)


def test_fine_finds_the_last_layer_of_every_grid(strided):
    net, images = strided
    by_name = ifa.fine(net, images, 0, layers=("1", "3"))
    assert torch.equal(ifa.fine(net, images, 0), by_name)
    dense = ifa.dense.densify(net, stride=2, pool="dense")
    assert ifa.fine(dense, images, 0, layers=("net.1", "net.3")).shape == by_name.shape
    with pytest.raises(ValueError, match="how"):
        ifa.fine(net, images, 0, how="sum")


def test_fine_takes_one_layer(strided):
    net, images = strided
    wanted = ifa.fine(net, images, 0, layers=["3"])
    assert torch.equal(ifa.fine(net, images, 0, layers="3"), wanted)
    assert torch.equal(ifa.fine(net, images, 0, layers=net[3]), wanted)
    inner = torch.nn.Sequential(net[:4], net[4:])  # a module, and a name, that can be iterated
    assert torch.equal(ifa.fine(inner, images, 0, layers=inner[0]), wanted)
    with pytest.raises(LookupError, match="'01'"):
        ifa.fine(net, images, 0, layers="01")


def test_fuse_lifts_over_samples_and_targets():
    torch.manual_seed(0)
    maps = [
        ifa.Map(torch.randn(2, 3, *size), torch.zeros(2, 3).long()) for size in ((4, 5), (6, 7))
    ]
    fused = ifa.batched(partial(ifa.fuse, how="product"))(tuple(maps)).values
    assert fused.shape == (2, 3, 6, 7)
    single = ifa.fuse([record(one.values[1, 2]) for one in maps], how="product").values
    torch.testing.assert_close(fused[1, 2], single)


def test_layers_of_one_tap_fuse_in_one_step():
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU(), torch.nn.Conv2d(2, 3, 2, 2)
    )
    inputs, target = torch.randn(4, 1, 9, 7), torch.arange(2)[:, None].expand(2, 4)
    features = ifa.tap(net, ["1", "2"], inputs, output=lambda raw: raw.flatten(1))(inputs, target)
    one = ifa.chain(ifa.weigh(ifa.weight.layercam), ifa.combine, ifa.relu, ifa.saturate())
    fused = ifa.batched(lambda layers: ifa.fuse([one(layer) for layer in layers]))(features).values
    each = [ifa.batched(ifa.chain(one, ifa.resize((7, 5))))(layer).values for layer in features]
    torch.testing.assert_close(fused, torch.stack(each).amax(0))


@pytest.mark.parametrize(
    ("maps", "how", "text"),
    [
        ([], "max", r"expected maps .* got \[\]"),
        ([torch.ones(2), torch.ones(2, 2)], "max", "equally many axes"),
        ([torch.ones(2)], "median", "expected how to be one of"),
    ],
)
def test_fuse_says_what_is_wrong(maps, how, text):
    with pytest.raises(ValueError, match=text):
        ifa.fuse([record(values) for values in maps], how=how)


def test_saturate_is_the_papers_scaling_and_safe_without_a_maximum():
    values = torch.tensor([-1.0, 0.0, 2.0, 4.0])
    expected = torch.tanh(3 * values / 4)
    torch.testing.assert_close(ifa.saturate(gamma=3.0)(record(values)).values, expected)
    assert (ifa.saturate()(record(torch.zeros(3))).values == 0).all()


def test_the_principal_component_is_that_of_numpy():
    torch.manual_seed(0)
    weights, activations = torch.randn(4, 3, 5).double(), torch.randn(4, 3, 5).double()
    values = ifa.combine_principal(ifa.Weighted(weights, activations, torch.tensor(0))).values
    rows = (weights * activations).reshape(4, -1).T.numpy()
    centred = rows - rows.mean(0)
    direction = np.linalg.eigh(centred.T @ centred)[1][:, -1]
    expected = centred @ direction
    expected *= np.sign(expected @ rows.sum(1))
    found = values.flatten().numpy()
    np.testing.assert_allclose(found - found.mean(), expected, atol=1e-10)


def test_cluster_sums_targets():
    maps = torch.arange(30.0).reshape(5, 2, 3)
    expected = torch.stack([maps[0] + maps[3], maps[4]])
    assert torch.equal(ifa.cluster(maps, [[0, 3], [4]]), expected)
    record = ifa.Map(maps, torch.arange(5)[:, None].expand(5, 2))
    assert torch.equal(ifa.cluster(record, [[3, 0], [4]]), expected)


@pytest.mark.parametrize("clusters", [[[0, 5]], [[0], [0]], [[0], []], [], [[-1]]])
def test_cluster_refuses_what_is_no_partition(clusters):
    with pytest.raises(ValueError, match=r"expected clusters of distinct positions in 0\.\.4"):
        ifa.cluster(torch.ones(5, 2), clusters)


class TestAugmented:
    @staticmethod
    def gradient_like(inputs, target=None):
        weights = torch.arange(inputs.shape[-1], dtype=inputs.dtype)
        return inputs[:, 0] ** 2 * weights  # neither flips with its input nor scales linearly

    def test_it_is_the_mean_over_all_passes(self):
        torch.manual_seed(0)
        inputs = torch.randn(2, 1, 3, 4)
        found = ifa.augmented(self.gradient_like, flips=[(), (-1,), (-1, -2)], scales=(0.5, 2.0))(
            inputs
        )
        passes = []
        for axes in ([], [-1], [-1, -2]):
            for scale in (0.5, 2.0):
                passes.append(self.gradient_like(inputs.flip(axes) * scale).flip(axes))
        torch.testing.assert_close(found, sum(passes) / 6)

    def test_nothing_to_do_is_the_explanation_itself(self):
        inputs = torch.rand(2, 1, 3, 4)
        found = ifa.augmented(self.gradient_like, flips=[()], scales=[1.0])(inputs)
        assert torch.equal(found, self.gradient_like(inputs))

    def test_an_explanation_that_flips_with_its_input_is_left_as_it_is(self):
        inputs = torch.rand(2, 1, 3, 4)
        found = ifa.augmented(lambda x, target: x[:, 0], scales=[1.0])(inputs)
        torch.testing.assert_close(found, inputs[:, 0])

    def test_axes_are_counted_from_the_last(self):
        with pytest.raises(ValueError, match="counted from the last"):
            ifa.augmented(self.gradient_like, flips=[(2,)])


class TestExplain:
    @pytest.fixture
    def net(self):
        torch.manual_seed(0)
        layers = torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1)
        return torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(4, 3))

    def test_it_is_the_composition(self, net):
        inputs = torch.randn(5, 1, 9, 7)
        mask, scale = (
            torch.tensor([1, 0, 1, 1]).bool(),
            ifa.Scale(torch.tensor(0.0), torch.tensor(2.0)),
        )
        options = {"weight": ifa.weight.hirescam, "mask": mask, "scale": scale, "rectify": True}
        found = ifa.explain(net, inputs, 1, **options)
        steps = ifa.chain(
            ifa.weigh(ifa.weight.hirescam),
            ifa.keep(mask),
            ifa.combine,
            ifa.relu,
            ifa.rescale(scale),
        )
        made = ifa.batched(steps)(ifa.tap(net, "1", inputs)(inputs, 1))
        placed = ifa.place(ifa.positions(net, "1", inputs), (9, 7))
        assert torch.equal(found, ifa.batched(placed)(made).values)
        even = ifa.explain(net, inputs, 1, placing="even", **options)
        assert torch.equal(even, ifa.batched(ifa.resize((9, 7)))(made).values)
        # units lie at 1 to 7 and 1 to 5; tiling evenly moves those at the border outwards
        assert not torch.equal(found, even)
        large = ifa.explain(net, inputs, 1, size=(27, 21), **options)
        torch.testing.assert_close(large[:, 1::3, 1::3], found)

    def test_many_targets_signed_at_the_layers_grid(self, net):
        inputs = torch.randn(5, 1, 9, 7)
        target = torch.arange(3)[:, None].expand(3, 5)
        maps = ifa.explain(net, inputs, target, rectify=False, size=None)
        assert maps.shape == (3, 5, 7, 5)
        assert maps.min() < 0

    def test_a_step_serves_as_weight(self, net):
        inputs = torch.randn(5, 1, 9, 7)
        found = ifa.explain(net, inputs, weight=ifa.weight.cam(net), size=None) / (7 * 5)
        torch.testing.assert_close(found, ifa.explain(net, inputs, size=None))

    def test_what_is_no_weight_is_refused(self, net):
        with pytest.raises(TypeError, match=r"ifa\.explain: expected weight to be a kernel"):
            ifa.explain(net, torch.randn(1, 1, 9, 7), weight="gradcam")
