"""Half and full networks: what is transferred, frozen, tied, trained, and continued."""

import copy
import pickle
import types
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch._C._profiler import _EventType
from torch.func import functional_call, vmap
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

import ifa
from ifa import refine
from ifa.testing import assert_leaves_model_untouched, models

X = torch.linspace(0, 1, 2 * 19 * 23).reshape(2, 1, 19, 23).sin()


@pytest.fixture(scope="module")
def data():
    return ifa.nets.enlarged(ifa.nets.digits("train")[:60], size=(16, 16))


@pytest.fixture(scope="module")
def bumps():
    return ifa.nets.simulated(2, samples=96)


@pytest.fixture(scope="module")
def trained_half(bumps):
    net, example = ifa.nets.simulated_cnn(2).eval(), bumps[0][0][None]
    half, params = refine.half(net, None, "conv2", example, outputs=3, channels=4)
    done = refine.trained(half, params, bumps, keys=lambda name: True, epochs=6, batch_size=16)
    return half, done.params


def decoded(half, params, data, **options):
    full, joined = refine.full(half, params, data[0][0][None], width=8, **options)
    return full, refine.trained(full, joined, data, epochs=25, batch_size=16).params


@pytest.fixture(scope="module")
def pair(trained_half, bumps):
    return trained_half, decoded(*trained_half, bumps)


def made(space=2, **options):
    net = ifa.nets.simulated_cnn(space).eval()
    example = torch.stack([x for x, _, _ in ifa.nets.simulated(space, samples=4)])
    return net, example, *refine.half(net, None, "conv2", example, outputs=3, **options)


# ---- the half


@pytest.mark.parametrize("space", [1, 2, 3])
def test_the_mean_of_the_low_map_is_the_logit_less_its_bias(space):
    _, example, model, params = made(space)
    logits = functional_call(model, params, (example,))
    targets = torch.arange(3)[:, None].expand(3, len(example))
    low = refine.low(model, params, example, targets)
    assert torch.equal(low.target, targets)
    expected = logits.T - params["head.linear.bias"][:, None]
    torch.testing.assert_close(low.values.flatten(2).mean(-1), expected)
    one = refine.low(model, params, example)
    assert torch.equal(one.target, logits.argmax(1))
    torch.testing.assert_close(one.values, vmap(lambda t, v: v[t], (0, 1))(one.target, low.values))


def test_a_half_is_what_a_plain_loop_computes():
    net, example, model, params = made()
    below = net.conv2(net.conv1(example))
    channels = torch.einsum("ck,nkyx->ncyx", params["head.conv.weight"][..., 0, 0], below)
    weights, bias = params["head.linear.weight"], params["head.linear.bias"]
    logits = channels.mean((2, 3)) @ weights.T + bias
    torch.testing.assert_close(model(example), logits)
    low = torch.einsum("j,njyx->nyx", weights[1], channels)
    torch.testing.assert_close(refine.low(model, params, example, 1).values, low)


def test_nothing_above_the_layer_runs_and_the_network_is_left():
    class Above(nn.Module):
        ran = 0

        def forward(self, values):
            Above.ran += 1
            return values.mean((2, 3))

    net = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), Above()).eval()
    with assert_leaves_model_untouched(net):
        model, params = refine.half(net, None, "1", X, outputs=3)
        Above.ran = 0
        model(X)
        refine.low(model, params, X)
        full, joined = refine.full(model, params, X)
        refine.high(full, joined, X)
        refine.trained(full, joined, [(x, 0) for x in X], epochs=1)
    assert Above.ran == 0


def test_a_half_is_a_network_like_any_other():
    _, example, model, params = made()
    low = refine.low(model, params, example, 2)
    # its low map is CAM's
    maps = ifa.explain(
        model,
        example,
        2,
        layer="head.conv",
        weight=ifa.weight.cam(model, classifier="head.linear"),
        size=low.values.shape[1:],
        rectify=False,
        placing="even",
    )
    torch.testing.assert_close(maps, low.values)
    features = ifa.tap(model, "head.conv", example)(example, 2, params=params)
    total = (features.activations * features.gradients).sum((1, 2, 3))
    torch.testing.assert_close(total, low.values.mean((1, 2)))
    # the layer itself, below the head
    assert ifa.tap(model, "net.conv2", example)(example).activations.shape[1] == 16
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(example), model(example))


def test_parameters_given_are_those_that_are_run():
    net, example, model, params = made()
    other = {name: tensor * 1.5 for name, tensor in net.state_dict().items()}
    _, changed = refine.half(net, other, "conv2", example, outputs=3)
    assert all(torch.equal(changed[f"net.{name}"], tensor) for name, tensor in other.items())
    assert not torch.equal(
        refine.low(model, changed, example).values, refine.low(model, params, example).values
    )
    heads = [refine.half(net, None, "conv2", example, outputs=3, seed=s)[1] for s in (0, 0, 1)]
    assert torch.equal(heads[0]["head.conv.weight"], heads[1]["head.conv.weight"])
    assert not torch.equal(heads[0]["head.conv.weight"], heads[2]["head.conv.weight"])


def test_folds_are_a_vmap_away():
    _, example, model, params = made()
    folds = {
        name: torch.stack([tensor, 2 * tensor])
        for name, tensor in params.items()
        if tensor.is_floating_point()
    }
    rest = {name: tensor for name, tensor in params.items() if name not in folds}
    both = vmap(lambda fold: functional_call(model, {**fold, **rest}, (example,)))(folds)
    torch.testing.assert_close(both[0], functional_call(model, params, (example,)))


def test_layers_that_run_twice_and_tokens():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 3, stride=2, padding=1)

        def forward(self, values):
            return self.conv(self.conv(values)).mean((2, 3))

    net = Twice().eval()
    model, params = refine.half(net, None, "conv#2", X, outputs=2)
    assert refine.low(model, params, X).values.shape == (2, 5, 6)
    full, joined = refine.full(model, params, X)
    assert full.calls == ("conv#1", "conv#2")
    assert refine.high(full, joined, X).values.shape == (2, 19, 23)
    vit, digits = ifa.nets.digits_vit().eval(), torch.rand(2, 1, 8, 8)
    model, params = refine.half(vit, None, "blocks.1.norm1", digits, outputs=3)
    assert refine.low(model, params, digits).values.shape == (2, 4, 4)
    full, joined = refine.full(model, params, digits)
    assert refine.high(full, joined, digits).values.shape == (2, 8, 8)


def test_threads_run_the_same_half_at_once():
    _, example, model, params = made()
    batches = [torch.randn_like(example) for _ in range(24)]
    alone = [refine.low(model, params, one, 0).values for one in batches]
    with ThreadPoolExecutor(8) as threads:
        beside = list(threads.map(lambda one: refine.low(model, params, one, 0).values, batches))
    assert all(torch.equal(a, b) for a, b in zip(alone, beside, strict=True))


# ---- the full


def test_skips_with_channels_last_are_laid_out():
    import transformers

    config = transformers.SwinConfig(
        image_size=32, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4, num_labels=3
    )
    net, x = transformers.SwinForImageClassification(config).eval(), torch.rand(2, 3, 32, 32)
    half, params = refine.half(net, None, "swin.layernorm", x, outputs=3)
    full, joined = refine.full(half, params, x, width=4)
    assert full.grids == (ifa.tokens(0, (8, 8)), ifa.tokens(0, (4, 4)))
    assert refine.low(half, params, x).values.shape == (2, 4, 4)
    assert refine.high(full, joined, x).values.shape == (2, 32, 32)


def test_skips_are_the_last_layers_of_larger_grids():
    net = ifa.nets.strided_cnn().eval()
    model, params = refine.half(net, None, "conv3", X, outputs=3)
    full, _ = refine.full(model, params, X)
    assert full.calls == ("conv1#1", "conv2#1", "conv3#1")


@pytest.mark.parametrize("space", [1, 2, 3])
@pytest.mark.parametrize("tied", [True, False])
def test_transfer_is_a_union(space, tied):
    _, example, half, params = made(space)
    full, joined = refine.full(half, params, example, tied=tied)
    assert {name for name in joined if not name.startswith("decoder.")} == set(params)
    assert all(
        joined[name] is params[name] or torch.equal(joined[name], params[name]) for name in params
    )
    first, second = (functional_call(m, p, (example,)) for m, p in ((half, params), (full, joined)))
    assert torch.equal(first, second)
    assert torch.equal(
        refine.low(half, params, example).values, refine.low(full, joined, example).values
    )
    assert refine.high(full, joined, example).values.shape == example.shape[:1] + example.shape[2:]


def test_the_high_map_is_what_a_plain_loop_computes(pair):
    _, (full, params) = pair
    x = torch.rand(3, 1, 16, 16)
    seen = refine.class_maps.whole(full, params, x)
    expected = sum(
        params["head.linear.weight"][2, j] * seen.high[:, j] for j in range(seen.high.shape[1])
    )
    torch.testing.assert_close(refine.high(full, params, x, 2).values, expected)


def about_centers(values, grid, positions):
    """Average over one step about each unit's center, pixel by pixel."""
    found = np.zeros((len(values), *grid))
    for unit in np.ndindex(*grid):
        share = np.ones(values.shape[1:])
        for axis, (index, start, step) in enumerate(zip(unit, *positions, strict=True)):
            center, places = float(start + index * step), np.arange(values.shape[1 + axis])
            ends = np.clip([center - step / 2, center + step / 2], -0.5, len(places) - 0.5)
            part = np.clip(ends[1], places - 0.5, places + 0.5)
            part = part - np.clip(ends[0], places - 0.5, places + 0.5)
            share = share * np.expand_dims(part, [a for a in range(share.ndim) if a != axis])
        found[(slice(None), *unit)] = (values * share).sum((1, 2)) / share.sum()
    return torch.from_numpy(found)


class Placing(nn.Module):
    """A decoder that only puts the head's channels where they belong."""

    def __init__(self, convolution, placed):
        super().__init__()
        self.convolution, self.placed = convolution, placed

    def forward(self, below, skips, size):
        del skips
        found = self.convolution(below)
        placed = vmap(vmap(lambda one: self.placed(size)(ifa.Map(one, torch.tensor(0))).values))
        return placed(found)


def resnet():
    import transformers

    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
    config = transformers.ResNetConfig(layer_type="basic", num_channels=1, **sizes)
    return transformers.ResNetForImageClassification(config).eval()


@pytest.mark.parametrize(
    ("build", "layer", "start", "step"),
    [(ifa.nets.strided_cnn, "conv3", 0.0, 8.0), (resnet, "resnet.encoder", 0.0, 8.0)],
    ids=["strided", "resnet"],
)
def test_d3_1_of_padded_strides_the_high_map_is_tied_where_units_lie(build, layer, start, step):
    rows, columns = torch.arange(97.0)[:, None], torch.arange(83.0)
    x = torch.stack([(rows / 15).sin() * (columns / 12).cos(), ((rows + columns) / 14).sin()])
    net, x = build().eval(), x[:, None]
    half, params = refine.half(net, None, layer, x, outputs=3, channels=2)
    where = ifa.positions(half, "head.conv", x)
    residuals = {}
    for name, placed in (
        ("placed", lambda size: ifa.place(where, size)),
        ("even", lambda size: ifa.resize(size)),
    ):
        decoder = Placing(copy.deepcopy(half.head.conv), placed)
        full, joined = refine.full(half, params, x, decoder=decoder)
        assert full.positions.start.tolist() == [start] * 2
        assert full.positions.step.tolist() == [step] * 2
        residuals[name] = refine.residual(full, joined, x, 1)
        seen = refine.class_maps.whole(full, joined, x)
        pooled = about_centers(seen.high[:, 1].double().numpy(), seen.low.shape[2:], where)
        torch.testing.assert_close(seen.pooled[:, 1], pooled.float(), rtol=1e-4, atol=1e-5)
    assert (residuals["placed"] < 0.9 * residuals["even"]).all(), residuals


def test_windows_outside_of_the_input_are_its_border():
    values, where = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([[-4.0], [2.0]])
    found = refine.pooling.pooled(values, (6,), ifa.types.Positions(*where.double()))
    # centers -4, -2, 0, 2, 4, 6; windows of two positions
    torch.testing.assert_close(found, torch.tensor([1.0, 1.0, 4 / 3, 3.0, 4.0, 4.0]))


def test_d3_1_a_tied_high_map_pools_to_the_low_map_and_an_untied_one_does_not(pair, bumps):
    (half, params), (full, tied) = pair
    x = torch.stack([item[0] for item in ifa.nets.simulated(2, samples=48, seed=1)])
    loose, untied = decoded(half, params, bumps, tied=False)
    residuals = {
        "tied": refine.residual(full, tied, x).median(),
        "untied": refine.residual(loose, untied, x).median(),
    }
    assert residuals["tied"] < 0.5, residuals
    assert residuals["untied"] > 0.75, residuals
    # and it is what it says
    coarse, fine = refine.low(full, tied, x).values, refine.high(full, tied, x).values
    pooled = about_centers(fine.double().numpy(), coarse.shape[1:], full.positions)
    expected = (pooled - coarse).flatten(1).norm(dim=1) / coarse.flatten(1).norm(dim=1)
    torch.testing.assert_close(
        refine.residual(full, tied, x), expected.double(), rtol=1e-4, atol=1e-5
    )


def test_d3_15_training_the_decoder_leaves_logits_trunk_and_buffers_bit_for_bit(pair):
    (half, before), (full, after) = pair
    x = torch.rand(5, 1, 16, 16)
    assert any("running_mean" in name for name in before)
    assert refine.differing(before, {name: after[name] for name in before}) == []
    logits = [
        functional_call(m, p, (x,))
        for m, p in ((half, before), (full, before | after), (full, after))
    ]
    assert torch.equal(logits[0], logits[1])
    assert torch.equal(logits[0], logits[2])
    fresh = refine.full(half, before, x)[1]
    changed = refine.differing(fresh, after)
    assert all(name.startswith("decoder.") for name in changed)
    assert any("running_mean" in name for name in changed)  # those of the decoder do move


def test_d3_19_the_best_epoch_is_that_of_samples_held_out_of_training(data):
    _, half, params = (
        None,
        *refine.half(ifa.nets.strided_cnn().eval(), None, "conv3", data[0][0][None], outputs=10),
    )
    # steps so large that it gets worse, so that the best epoch is not the last
    worse = partial(refine.trained, half, params, data, rate=1000.0, recipe="plateau", held_out=0.3)
    done = worse(epochs=3)
    assert int(done.best) == int(done.held_out.argmin()) < 2
    assert done.losses.shape == done.held_out.shape == (3,)
    first = worse(epochs=int(done.best) + 1)
    assert refine.differing(done.params, first.params) == []
    none = refine.trained(half, params, data, epochs=2, held_out=0)
    assert int(none.best) == 1
    assert none.held_out.isnan().all()


def test_training_learns_and_says_how_far(data):
    net = ifa.nets.strided_cnn().eval()
    half, params = refine.half(net, None, "conv3", data[0][0][None], outputs=10)
    told = []
    done = refine.trained(
        half, params, data, epochs=3, keys=lambda name: True, progress=lambda *one: told.append(one)
    )
    assert told[-1] == (3, 3)
    assert done.losses[-1] < done.losses[0]
    assert "net.conv1.1.running_mean" in refine.differing(params, done.params)
    frozen = refine.trained(half, params, data, epochs=1)
    assert all(name.startswith("head.") for name in refine.differing(params, frozen.params))
    assert frozen.params["net.conv1.0.weight"] is params["net.conv1.0.weight"]


class Killed(Exception):
    pass


@pytest.mark.parametrize("recipe", ["cosine", "plateau"])
def test_a_training_that_is_continued_gives_the_same_bits(data, tmp_path, recipe):
    example = data[0][0][None]
    half, params = refine.half(ifa.nets.strided_cnn().eval(), None, "conv3", example, outputs=10)
    full, params = refine.full(half, params, example, width=4)
    run = partial(
        refine.trained, full, params, data, epochs=4, recipe=recipe, augment=refine.affine()
    )

    def stop(done, total):
        if done == 2:
            raise Killed

    file = tmp_path / "decoder.pt"
    with pytest.raises(Killed):
        run(checkpoint=file, progress=stop)
    resumed, undisturbed = run(checkpoint=file), run()
    assert refine.differing(resumed.params, undisturbed.params) == []
    assert torch.equal(resumed.losses, undisturbed.losses)
    assert torch.equal(resumed.held_out, undisturbed.held_out)
    again = run(checkpoint=file)
    assert refine.differing(again.params, undisturbed.params) == []
    for change in ({"seed": 1}, {"epochs": 5}, {"batch_size": 8}, {"augment": None}):
        with pytest.raises(ValueError, match="of another network"):
            run(checkpoint=file, **change)
    with pytest.raises(ValueError, match="of another network"):
        refine.trained(
            full,
            params,
            data[:50],
            epochs=4,
            recipe=recipe,
            augment=refine.affine(),
            checkpoint=file,
        )


def entropy(factor):
    return lambda seen, inputs, labels: factor * functional.cross_entropy(seen.logits, labels)


def brighter(factor):
    return lambda inputs, seed: (inputs[0] * factor, inputs[1])


class Two(nn.Module):
    """A network of two inputs, with a step that is no parameter."""

    def __init__(self, step):
        super().__init__()
        self.conv, self.drop, self.step = nn.Conv1d(1, 2, 3, padding=1), nn.Dropout(), step

    def forward(self, values, more):
        return self.drop(self.conv(values)) + self.step * more.mean(-1, keepdim=True)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("loss", entropy(2)),
        ("augment", brighter(2)),
        ("second", torch.ones(1, 9)),
        ("label", 1),
        ("id", "b"),
        ("step", 2),
        ("keys", lambda name: name.startswith("head.") or name == "net.drop."),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(option, value, tmp_path):
    def run(*, second=None, label=0, id="a", step=1, **options):
        torch.manual_seed(0)
        net = Two(step).eval()
        more = torch.zeros(1, 9) if second is None else second
        data = [((torch.ones(1, 9), more), label, id), ((torch.ones(1, 9), more), 0, "c")]
        example = (torch.ones(1, 1, 9), torch.zeros(1, 1, 9))
        model, params = refine.half(net, None, "conv", example, outputs=2)
        usual = {"loss": entropy(1), "augment": brighter(1), "epochs": 1, "checkpoint": file}
        return refine.trained(model, params, data, **(usual | options))

    file = tmp_path / "head.pt"
    first = run()
    assert refine.differing(first.params, run().params) == []  # made anew, it is the same
    with pytest.raises(ValueError, match="of another network"):
        run(**{option: value})


def test_a_held_out_loss_that_is_not_known_does_not_choose_the_first_epoch(data):
    model, params = refine.half(
        ifa.nets.strided_cnn().eval(), None, "conv3", data[0][0][None], outputs=10
    )

    def held_out_only(seen, inputs, labels):
        loss = functional.cross_entropy(seen.logits, labels)
        return loss if loss.requires_grad else loss * torch.nan

    with pytest.raises(ValueError, match="expected a finite loss, got nan in epoch 0"):
        refine.trained(model, params, data, epochs=2, loss=held_out_only)


def test_a_training_is_continued_in_another_process(data, tmp_path, monkeypatch):
    model, params = refine.half(
        ifa.nets.strided_cnn().eval(), None, "conv3", data[0][0][None], outputs=10
    )
    run = partial(refine.trained, model, params, data, epochs=1, checkpoint=tmp_path / "head.pt")
    first = run(augment=refine.affine())
    function = refine.augmenting._affine
    again = types.FunctionType(function.__code__, function.__globals__, function.__name__)
    again.__kwdefaults__ = function.__kwdefaults__  # the same function at another address
    monkeypatch.setattr(refine.augmenting, "_affine", again)
    assert refine.differing(run(augment=refine.affine()).params, first.params) == []


def test_dropout_of_a_frozen_part_is_off():
    net = nn.Sequential(nn.Conv1d(1, 4, 3, padding=1), nn.Dropout(0.5), nn.Conv1d(4, 4, 3)).eval()
    x = [(torch.rand(1, 9), 0) for _ in range(4)]
    half, params = refine.half(net, None, "2", x[0][0][None], outputs=2)
    first, second = (
        refine.trained(half, params, x, epochs=1, batch_size=4, held_out=0, rate=0.0, keys=keys)
        for keys in (None, lambda name: True)
    )
    still = torch.nn.functional.cross_entropy(
        half(torch.stack([a for a, _ in x])), torch.zeros(4).long()
    )
    torch.testing.assert_close(float(first.losses[0]), float(still))
    assert abs(float(second.losses[0]) - float(still)) > 1e-6


# ---- the networks of the public code


def test_the_densenet_has_the_parameters_of_the_public_code():
    net, example = ifa.nets.densenet_fcn().eval(), torch.zeros(1, 3, 32, 32)
    half, params = refine.half(net, None, "up.block", example, outputs=398)

    def size(model):
        return sum(tensor.numel() for tensor in model.parameters())

    assert size(half) == 1_056_638
    assert size(half.head) == 7_790
    full, joined = refine.full(
        half,
        params,
        example,
        tied=False,
        skips=[f"blocks.{i}" for i in range(3)],
        decoder=ifa.nets.densenet_decoder(tied=False),
    )
    assert size(full) == 1_664_574
    assert size(full.decoder) == 607_936
    assert refine.low(full, joined, example).values.shape == (1, 2, 2)
    high = refine.class_maps.whole(full, joined, example).high
    assert high.shape == (1, 16, 32, 32)
    assert high.min() >= 0  # rectified, as there


def test_the_densenet_takes_odd_sizes():
    net = ifa.nets.densenet_fcn(growth=2, layers=2, blocks=2, filters=4).eval()
    x = torch.rand(1, 3, 37, 42)
    half, params = refine.half(net, None, "up.block", x, outputs=3, channels=2)
    decoder = ifa.nets.densenet_decoder(below=4, skips=[8], growth=2, layers=2, channels=2)
    with pytest.warns(ifa.EvenTiling, match="different grids"):  # an odd skip, interpolated to
        full, joined = refine.full(half, params, x, skips=["blocks.0"], decoder=decoder)
    assert refine.high(full, joined, x).values.shape == (1, 37, 42)


# ---- augmentation


def test_affine_without_change_is_the_identity_and_flips_flip():
    x = torch.rand(4, 2, 7, 9)
    still = refine.affine(probability=1, scale=(1, 1), shift=0, rotation=0, shear=0, flip=0)
    torch.testing.assert_close(still(x, 0), x)
    assert torch.equal(refine.affine(probability=0, flip=1)(x, 0), x.flip(-1))
    change = refine.affine()
    assert torch.equal(change(x, 3), change(x, 3))
    assert not torch.equal(change(x, 3), change(x, 4))
    for shape in ((3, 1, 20), (3, 1, 6, 7, 8)):
        moved = change(torch.rand(shape), 1)
        assert moved.shape == shape
        assert moved.isfinite().all()


def test_affine_moves_as_it_says():
    x = torch.zeros(1, 1, 9, 21)
    x[..., 4, 15] = 1.0
    # a quarter turn in positions, whatever the extents: what lies right goes up or down
    turned = refine.augmenting._moved(
        x, np.ones((1, 2)), np.zeros((1, 2)), np.array([np.pi / 2]), np.zeros(1)
    )
    assert turned.sum() < 1e-5  # out of the picture
    shifted = refine.augmenting._moved(
        x, np.ones((1, 2)), np.array([[0.0, 5 / 21]]), np.zeros(1), np.zeros(1)
    )
    assert shifted[0, 0, 4].argmax() == 10
    near = torch.zeros(1, 1, 9, 21)
    near[..., 4, 13] = 1.0
    up = refine.augmenting._moved(
        near, np.ones((1, 2)), np.zeros((1, 2)), np.array([np.pi / 2]), np.zeros(1)
    )
    row, column = divmod(int(up[0, 0].argmax()), 21)
    assert (abs(row - 4), column) == (3, 10)
    larger = refine.augmenting._moved(
        near, np.array([[1.0, 2.0]]), np.zeros((1, 2)), np.zeros(1), np.zeros(1)
    )
    assert larger[0, 0, 4].argmax() == 16


# ---- refusals


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda net, half, p, x: refine.half(net, {}, "conv2", x, outputs=3), "other names"),
        (lambda net, half, p, x: refine.half(net, None, "conv9", x, outputs=3), "conv9"),
        (lambda net, half, p, x: refine.half(net, None, "head", x, outputs=3), "sample, channel"),
        (lambda net, half, p, x: refine.half(net, None, "conv2", x, outputs=0), "outputs to be"),
        (lambda net, half, p, x: refine.full(net, None, x), "what ifa.refine.half returned"),
        (lambda net, half, p, x: refine.full(half, p, x, skips=["flat"]), "flat"),
        (lambda net, half, p, x: refine.high(half, p, x), "what ifa.refine.full returned"),
        (lambda net, half, p, x: refine.low(half, p, x, 3), r"targets in 0\.\.2"),
        (lambda net, half, p, x: refine.trained(net, None, [(x[0], 0)]), "ifa.refine.half or"),
        (
            lambda net, half, p, x: refine.trained(half, p, [(x[0], 0)], keys=lambda name: False),
            "choose parameters to train, got none",
        ),
        (lambda net, half, p, x: refine.trained(half, p, [(x[0], 0)], held_out=1.0), "held_out"),
        (lambda net, half, p, x: refine.trained(half, p, []), "samples"),
        (lambda net, half, p, x: refine.trained(half, p, [(x[0], 3)]), r"numbers in 0\.\.2"),
        (lambda net, half, p, x: refine.trained(half, p, [(x[0], 0.5)]), r"numbers in 0\.\.2"),
        (lambda net, half, p, x: refine.trained(half, p, [(x[0] * torch.nan, 0)]), "in epoch 0"),
        (lambda net, half, p, x: refine.affine(flip=2.0), "flip from 0 to 1"),
        (lambda net, half, p, x: refine.affine(scale=(0.0, 1.0)), "two positive factors"),
    ],
)
def test_what_is_refused(call, says):
    net, example, model, params = made()
    with pytest.raises((TypeError, ValueError, LookupError, RuntimeError), match=says) as caught:
        call(net, model, params, example)
    assert str(caught.value).startswith("ifa.refine")


# ---- tools


def test_differing_looks_at_buffers_shapes_and_what_is_missing():
    norm, other = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    assert refine.differing(norm, other) == []
    other.running_var.add_(1e-6)
    assert refine.differing(norm, other) == ["running_var"]
    nan = {"a": torch.tensor(torch.nan), "b": torch.zeros(2)}
    assert refine.differing(nan, dict(nan)) == []
    assert refine.differing(
        nan, {"a": nan["a"].clone(), "b": torch.zeros(1, 2), "c": nan["a"]}
    ) == ["b", "c"]
    assert refine.differing({"z": torch.tensor(0.0)}, {"z": torch.tensor(-0.0)}) == ["z"]


def is_made_of_others(op):
    """Whether an operation is only a name for others, which run one after the other."""
    try:
        return torch._C._dispatch_has_kernel_for_dispatch_key(op, "CompositeImplicitAutograd")
    except RuntimeError:  # none of torch's
        return True


def profiled(work):
    """Measure by the allocator what is the most that was there at once, and what is left.

    Both with what kernels take for themselves while they run, and the first without as well.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        held = work()
    tree = seen.profiler.kineto_results.experimental_event_tree()
    found, open_ = [], [(event, None) for event in tree]
    while open_:
        event, kernel = open_.pop()
        if event.tag == _EventType.Allocation:
            fields = event.extra_fields
            found.append((event.start_time_ns, kernel, fields.ptr, fields.alloc_size))
        elif kernel is None and event.tag == _EventType.TorchOp:
            kernel = None if is_made_of_others(event.name) else event.id
        open_ += [(child, kernel) for child in event.children]
    found.sort()
    del held
    steps, made = np.zeros((2, len(found))), {}
    for step, (_, kernel, address, size) in enumerate(found):
        steps[:, step] = size
        if size > 0:
            made[address] = kernel, step
        elif kernel is not None and made.get(address, (None,))[0] == kernel:
            steps[1, [made[address][1], step]] = 0  # made and let go of inside of one kernel
    sums = steps.cumsum(1)
    return int(sums[0].max()), int(sums[1].max()), int(sums[0, -1])


NETWORKS = {
    "densenet": (
        lambda: ifa.nets.densenet_fcn(growth=4, layers=2, blocks=2, filters=8),
        (3, 40, 40),
    ),
    "strided": (ifa.nets.strided_cnn, (1, 96, 96)),
    "volumes": (lambda: ifa.nets.simulated_cnn(3), (1, 12, 12, 12)),
    "vit": (ifa.nets.digits_vit, (1, 8, 8)),
    "in place": (
        lambda: nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(True), nn.Flatten()),
        (1, 50, 50),
    ),
    "denser": (lambda: ifa.dense.densify(ifa.nets.strided_cnn().eval(), stride=2), (1, 24, 24)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_memory_is_what_the_allocator_says(name):
    build, shape = NETWORKS[name]
    net, x = build().eval(), torch.rand(8, *shape)
    found, output = refine.memory(net, x), 4 * net(x).numel()
    _, _, kept = profiled(lambda: net(x))
    assert abs(found.kept / kept - 1) < 0.15
    assert 0 <= kept - found.kept <= output  # which is there besides, if nothing else needs it
    for module in net.modules():  # seen, so that transformers run layer by layer
        module.register_forward_hook(lambda *seen: None)
    with torch.no_grad():
        whole, peak, _ = profiled(lambda: net(x))
    assert abs(found.peak / peak - 1) < 0.01
    assert peak <= whole  # of which kernels take the rest


def test_memory_of_parameters_is_not_multiplied_by_the_batch():
    net = ifa.nets.strided_cnn().eval()
    one, four = (refine.memory(net, torch.rand(n, 1, 32, 32)) for n in (1, 4))
    assert one.parameters == four.parameters
    tensors = (*net.parameters(), *net.buffers())
    assert sum(one.parameters.values()) == sum(t.numel() * t.element_size() for t in tensors)
    assert sum(four.activations.values()) == 4 * sum(one.activations.values())
    assert four.activations["conv1.0"] == 4 * 16 * 16 * 16 * 4
    assert "conv1.0" in repr(one)
    assert "kept for gradients" in repr(one)
    x = torch.rand(1, 1, 32, 32)
    with assert_leaves_model_untouched(net):
        refine.memory(net, x)


def test_models_of_the_suite_have_memory():
    net = models.batch_norm()
    assert refine.memory(net, models.inputs(net)).peak > 0


def test_a_pair_of_enlarged_digits_trains():
    (half, before), (full, after) = ifa.nets.train_pair(size=16, epochs=(1, 1), samples=20)
    assert refine.differing(before, {name: after[name] for name in before}) == []
    x = torch.rand(2, 1, 16, 16)
    assert refine.low(half, before, x).values.shape == (2, 2, 2)
    assert refine.high(full, after, x).values.shape == (2, 16, 16)
