"""Laws of what runs a network on a finer grid."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from typing import Any

import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn

import ifa
from ifa.network.replicas import Replica
from ifa.testing import strategies
from ifa.testing.holding import Drawn, either, hold

# (network, *, stride) -> network on a finer grid, with layers named as "net." and their name
Densify = Callable[..., nn.Module]
_SEEDS = st.integers(0, 2**31 - 1)


def a_finer_grid_is_exact(
    densify: Densify, *, networks: Drawn = None, examples: int | None = None
) -> None:
    """Every layer, and the output, have at the network's own positions its own numbers, all bits.

    `networks`, if given, draws (model, example).
    """

    @given(either(networks, strategies.strided_networks()), st.sampled_from([1, 2, 4]), _SEEDS)
    def law(drawn: tuple[nn.Module, Tensor], stride: int, seed: int) -> None:
        model, inputs = drawn[0], _noise(drawn[1], seed)
        fine = densify(model, stride=stride)
        found, wanted = (_activations(one, inputs) for one in (fine, model))
        for layer, own in wanted.items():
            finer = found[f"net.{layer}"]
            shape, extents = tuple(own.shape), tuple(finer.shape)
            assert any(_shrinking(finer, own)), f"{layer}: expected {shape} within {extents}"
        assert any(_shrinking(fine(inputs), model(inputs))), "expected the network's own output"

    hold(law, examples)


def a_finer_grid_lies_where_the_network_does(
    densify: Densify, *, networks: Drawn = None, examples: int | None = None
) -> None:
    """Position 0 stays where it is, steps are divided by whole numbers, down to the stride asked.

    `networks`, if given, draws (model, layer, example, options) of which every operation is known.
    """

    @given(either(networks, strategies.windowed_networks()), st.sampled_from([1, 2, 3]))
    def law(drawn: tuple[nn.Module, str, Tensor, Any], stride: int) -> None:
        model, layer, inputs, _ = drawn
        fine = densify(model, stride=stride)
        own, finer = (
            ifa.positions(model, layer, inputs),
            ifa.positions(fine, f"net.{layer}", inputs),
        )
        assert torch.equal(own.start, finer.start), (own, finer)
        factors = own.step / finer.step
        assert torch.equal(factors, factors.round()), (own, finer)
        assert (finer.step <= own.step.clamp(max=stride)).all(), (own, finer)

    hold(law, examples)


def a_finer_grid_has_the_networks_own_gradients(
    densify: Densify, *, networks: Drawn = None, examples: int | None = None
) -> None:
    """Gradients at the network's own positions are its own, and zero between: outputs are its own.

    `networks`, if given, draws (model, example).
    """

    @given(either(networks, strategies.strided_networks()), st.sampled_from([1, 2]), _SEEDS)
    def law(drawn: tuple[nn.Module, Tensor], stride: int, seed: int) -> None:
        body, inputs = drawn[0], _noise(drawn[1], seed)
        model = nn.Sequential(body, nn.Flatten(2), _Mean())
        layers = [f"0.{name}" for name, _ in body.named_children()]
        fine = ifa.tap(densify(model, stride=stride), [f"net.{one}" for one in layers], inputs)
        own = ifa.tap(model, layers, inputs)
        for finer, wanted in zip(
            fine.look(inputs, 1).result, own.look(inputs, 1).result, strict=True
        ):
            assert any(
                torch.equal(finer.gradients[at], wanted.gradients)
                and finer.gradients.count_nonzero() == wanted.gradients.count_nonzero()
                for at in _shrinking(finer.activations, wanted.activations)
            ), "expected the network's own gradients, and none between its positions"

    hold(law, examples)


def a_finer_grid_has_the_networks_own_gradcam(
    densify: Densify, *, networks: Drawn = None, examples: int | None = None
) -> None:
    """Grad-CAM, by how many more positions there are, is the network's own: the tap law.

    Its weights are means over positions. `networks`, if given, draws (model, example).
    """

    @given(either(networks, strategies.strided_networks()), st.sampled_from([1, 2]), _SEEDS)
    def law(drawn: tuple[nn.Module, Tensor], stride: int, seed: int) -> None:
        body, inputs = drawn[0], _noise(drawn[1], seed)
        model = nn.Sequential(body, nn.Tanh(), nn.Flatten(2), _Mean())
        layers = [f"0.{name}" for name, _ in body.named_children()]
        fine = ifa.tap(densify(model, stride=stride), [f"net.{one}" for one in layers], inputs)
        own = ifa.tap(model, layers, inputs)
        for finer, wanted in zip(
            fine.look(inputs, 1).result, own.look(inputs, 1).result, strict=True
        ):
            maps, own_maps = map(ifa.batched(_GRADCAM), (finer, wanted))
            more = maps.values[0].numel() / own_maps.values[0].numel()
            # below a norm gradients sum to zero: what is rounded is what is summed
            mean = wanted.gradients.abs().flatten(2).mean(2)
            largest = (mean * wanted.activations.abs().flatten(2).amax(2)).sum(1).max()
            differences = (
                (more * maps.values[:, *at[2:]] - own_maps.values).abs().max()
                for at in _shrinking(finer.activations, wanted.activations)
            )
            difference = min(differences, default=math.inf)
            assert difference <= 1e-13 * largest, f"{difference / largest} of the largest value"

    hold(law, examples)


_GRADCAM = ifa.chain(ifa.weigh(ifa.weight.gradcam), ifa.combine)


def a_finer_grid_is_made_of_shifts(
    densify: Densify, *, stitched: Any = ifa.dense.stitched, examples: int | None = None
) -> None:
    """Where no window reaches a border it is shift-and-stitch, to rounding: the stitch law."""

    @given(strategies.windowed_networks(), _SEEDS)
    def law(drawn: tuple[nn.Module, str, Tensor, Any], seed: int) -> None:
        model, layer, example, _ = drawn
        model, inputs = model.double(), _noise(example.double(), seed)
        generator = torch.Generator().manual_seed(seed)
        for values in model.parameters():
            values.copy_(torch.randn(values.shape, generator=generator, dtype=values.dtype))
        where = ifa.positions(model, layer, inputs)
        strides = [round(step) for step in where.step.tolist()]
        assume(math.prod(strides) <= 64)
        explain = partial(_output_of, model, layer=layer)
        found = stitched(explain, stride=strides)(inputs, 0)
        wanted = _output_of(densify(model, stride=1), inputs, layer=f"net.{layer}")
        inner = []
        for axis, (start, step) in enumerate(zip(where.start.tolist(), strides, strict=True)):
            extent = inputs.shape[2 + axis]
            half = (extent - 3 * step - axis - 4) / 2  # of the windows together
            # as much as is cut off by the largest shift is left out as well
            inner.append(slice(math.ceil(half - start) + step - 1, int(extent - half - start)))
        largest, found, wanted = wanted.abs().max(), found[..., *inner], wanted[..., *inner]
        assert found.numel(), "expected some that see no border"
        assert found.shape == wanted.shape, f"expected {found.shape}, got {wanted.shape}"
        difference = (found - wanted).abs().max()
        assert difference <= 1e-13 * largest, f"{difference / largest} of the largest value"

    hold(law, examples)


def _output_of(model: nn.Module, inputs: Tensor, target: Any = None, *, layer: str) -> Tensor:
    return _activations(model, inputs)[layer]


def a_dense_mean_makes_maps_complete(densify: Densify, *, examples: int | None = None) -> None:
    """With the mean taken on the finer grid a HiResCAM map sums to the output less its bias.

    The gradient is the same at every position.
    """

    @given(strategies.strided_networks(), st.integers(0, 2), _SEEDS)
    def law(drawn: tuple[nn.Module, Tensor], target: int, seed: int) -> None:
        body, inputs = drawn[0], _noise(drawn[1], seed)
        head = nn.Linear(4, 3).double().requires_grad_(False)
        model = nn.Sequential(body, _Mean(), head).eval()
        fine = densify(model, stride=1, pool="dense")
        (last,) = ifa.tap(fine, ["net.0"], inputs).look(inputs, target).result
        assert torch.equal(last.gradients.flatten(2).amax(2), last.gradients.flatten(2).amin(2))
        sums = (last.activations * last.gradients).flatten(1).sum(1)
        wanted = fine(inputs)[:, target] - head.bias[target]
        torch.testing.assert_close(sums, wanted, rtol=1e-9, atol=1e-9)

    hold(law, examples)


def _noise(example: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(example.shape, generator=generator, dtype=example.dtype)


class _Mean(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return values.mean(tuple(range(2, values.ndim)))


def steps(factors: Sequence[int]) -> tuple[slice, ...]:
    """Return what takes every so manieth position."""
    return tuple(slice(None, None, factor) for factor in factors)


def _activations(model: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
    """Return what every layer returns, as whoever observes it sees it."""
    seen: dict[str, Tensor] = {}

    def look(call: str, tensor: Tensor) -> Tensor:
        seen[call.partition("#")[0]] = tensor.clone()
        return tensor

    with torch.no_grad():
        Replica(model).run(inputs.clone(), look)
    return {layer: tensor for layer, tensor in seen.items() if layer}


def _factors(own: Sequence[int], finer: Sequence[int]) -> Any:
    """Yield the factors by which extents may have been divided."""
    each = [
        [factor for factor in range(1, wide + 1) if -(-wide // factor) == extent]
        for extent, wide in zip(own, finer, strict=True)
    ]
    return product(*each)


def _shrinking(finer: Tensor, own: Tensor) -> Iterator[tuple[slice, ...]]:
    """Yield what takes the network's own positions out of a finer tensor; often it is the one."""
    for one in _factors(tuple(own.shape), tuple(finer.shape)):
        if torch.equal(finer[steps(one)], own):
            yield steps(one)


# laws of (densify), which draw networks
DENSE = (
    a_finer_grid_is_exact,
    a_finer_grid_lies_where_the_network_does,
    a_finer_grid_has_the_networks_own_gradients,
    a_finer_grid_has_the_networks_own_gradcam,
)
