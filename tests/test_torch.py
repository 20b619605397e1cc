"""Silent behavior of torch that the library is built around, pinned as executable statements.

If one of these fails with another version of torch, the place that relies on it is to be seen to.
"""

import warnings

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, jacrev, vjp, vmap

import ifa
from ifa.testing import models


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_the_gradient_of_a_summed_score_is_that_of_each_sample():
    model, hidden = models.pooled_linear().double().linear, noise(3, 5, dtype=torch.float64)
    summed = grad(lambda h: model(h).tanh()[:, 1].sum())(hidden)
    alone = vmap(grad(lambda h: model(h).tanh()[1]))(hidden)
    torch.testing.assert_close(summed, alone)


def test_batch_norm_without_running_statistics_couples_samples_even_in_evaluation_mode():
    def crosstalk(norm):
        jacobian = jacrev(lambda x: norm(x)[0])(noise(3, 2, 5))
        return jacobian[..., 1:, :, :].detach().abs().max()

    assert crosstalk(nn.BatchNorm1d(2).eval()) == 0
    assert crosstalk(nn.BatchNorm1d(2, track_running_stats=False).eval()) > 1e-3
    coupled = nn.Sequential(nn.BatchNorm1d(2, track_running_stats=False), nn.Flatten()).eval()
    with pytest.raises(ValueError, match="running statistics"):
        ifa.trace(coupled, noise(3, 2, 5))


def test_no_grad_inside_a_model_is_respected_and_gives_zeros():
    def score(h):
        with torch.no_grad():
            part = h.square()
        return part.sum()

    assert not grad(score)(noise(4)).any()


def test_no_grad_around_does_not_stop_a_transform():
    with torch.no_grad():
        assert torch.equal(grad(lambda h: (3 * h).sum())(noise(4)), torch.full((4,), 3.0))


def test_a_new_tensor_made_of_scalars_cuts_the_gradient():
    def cut(h):
        return torch.tensor([h.sum(), 2.0]).sum()

    def kept(h):
        return torch.stack([h.sum(), h.new_tensor(2.0)]).sum()

    with warnings.catch_warnings():  # newer versions of torch say so, once
        warnings.simplefilter("ignore")
        assert not grad(lambda h: cut(h) + 0 * h.sum())(noise(4)).any()
    assert torch.equal(grad(kept)(noise(4)), torch.ones(4))


def test_an_in_place_layer_overwrites_what_a_hook_kept():
    model, kept = models.inplace(), []
    inputs = models.inputs(model, 3)
    model.conv2.register_forward_hook(lambda module, args, output: kept.append(output))
    with torch.no_grad():
        model(inputs)
    assert kept[0].min() == 0  # although a convolution's output is signed
    assert ifa.tap(models.inplace(), "conv2", inputs)(inputs).activations.min() < -0.1


def test_a_hook_on_a_reused_layer_fires_for_every_call():
    model, calls = models.reused_layer(), []
    model.relu.register_forward_hook(lambda module, args, output: calls.append(output.shape[1]))
    model(models.inputs(model))
    assert calls == [5, 5, 3]  # one delta for all of them would add up their gradients


def test_a_full_backward_hook_never_fires_under_vmap():
    layer, calls = nn.Linear(3, 2), []
    layer.register_full_backward_hook(lambda module, args, output: calls.append(1))
    inputs = noise(4, 3).requires_grad_()
    vmap(layer)(inputs).sum().backward()
    assert calls == []
    layer(inputs).sum().backward()
    assert calls == [1]


def test_weights_that_are_read_directly_run_no_hook():
    attention, calls = nn.MultiheadAttention(6, 2, batch_first=True).eval(), []
    attention.out_proj.register_forward_hook(lambda module, args, output: calls.append(1))
    tokens = noise(2, 5, 6)
    attention(tokens, tokens, tokens)
    assert calls == []  # so ifa.trace lists only what ran


def test_a_module_under_two_names_is_listed_once():
    shared = nn.ReLU()
    model = nn.Sequential(shared, nn.Linear(3, 2), shared)
    assert [name for name, _ in model.named_modules()] == ["", "0", "1"]
    every = [name for name, _ in model.named_modules(remove_duplicate=False)]
    assert every == ["", "0", "1", "2"]


def test_functional_call_ignores_names_it_does_not_know():
    layer, inputs = nn.Linear(3, 2), noise(4, 3)
    misspelt = {**dict(layer.named_parameters()), "wieght": torch.zeros(2, 3)}
    assert torch.equal(functional_call(layer, misspelt, (inputs,)), layer(inputs))
    with pytest.raises(LookupError, match="wieght"):
        ifa.tap(nn.Sequential(layer), "0", inputs)(inputs, params={"wieght": torch.zeros(2, 3)})


def test_functional_call_in_training_mode_writes_into_the_given_buffers():
    norm = nn.BatchNorm1d(2)
    buffers = {name: buffer.clone() for name, buffer in norm.named_buffers()}
    functional_call(norm, buffers, (noise(4, 2, 5),))
    assert buffers["running_mean"].any()
    assert not norm.running_mean.any()


def test_a_mapped_input_can_be_edited_in_place():
    values = noise(3, 4)
    vmap(torch.Tensor.relu_)(values)
    assert values.min() == 0  # the caller's data: hence the laws about inputs


def test_one_draw_serves_every_sample_or_each_its_own():
    def draw(value):
        return value + torch.rand(())

    same = vmap(draw, randomness="same")(torch.zeros(3))
    different = vmap(draw, randomness="different")(torch.zeros(3))
    assert len(same.unique()) == 1
    assert len(different.unique()) == 3


def test_float32_loses_a_variance_far_from_zero():
    values = noise(1000) + 1e4
    naive = values.square().mean() - values.mean().square()
    assert abs(float(naive) - 1) > 0.5
    state = ifa.reduce.fold(ifa.reduce.moments(), [values])
    assert abs(float(ifa.reduce.moments().finalize(state).variance) - 1) < 0.1


def test_integers_divide_to_float32():
    assert (torch.tensor(1) / torch.tensor(3)).dtype == torch.float32  # so counts are cast first


def test_adding_zero_changes_only_the_sign_of_zero():
    values = torch.tensor([-0.0, 1e-45, -3.0, torch.inf])
    added = values + torch.zeros(())
    assert torch.equal(added, values)
    assert not added[0].signbit()


def test_a_vjp_with_one_hot_cotangents_is_the_gradient_of_each_target():
    model, hidden = models.pooled_linear().double().linear, noise(3, 5, dtype=torch.float64)
    scores, pull = vjp(lambda h: model(h).tanh().T, hidden)
    one_hot = torch.eye(4, dtype=torch.float64)[:, :, None].expand(-1, -1, 3)
    together = vmap(pull)(one_hot)[0]
    alone = [grad(lambda h, t=t: model(h).tanh()[:, t].sum())(hidden) for t in range(len(scores))]
    torch.testing.assert_close(together, torch.stack(alone))


def test_records_pass_through_vmap_and_keep_their_type():
    maps = ifa.Map(noise(3, 4), torch.arange(3))
    assert type(vmap(ifa.relu)(maps)) is ifa.Map


def test_metadata_cannot_leave_vmap():
    with pytest.raises(ValueError, match="must only return Tensors"):
        vmap(lambda value: (value, "name"))(noise(3))
