"""Laws of what runs a network on a finer grid."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import ifa
from ifa.network.replicas import Replica
from ifa.testing import strategies
from ifa.testing.holding import Drawn, assert_same, either, hold

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
            assert any(
                torch.equal(finer[steps(factors)], own) for factors in _factors(shape, extents)
            ), f"{layer}: expected {shape} within {extents}, bit for bit"
        output = model(inputs)
        assert torch.equal(fine(inputs)[_shrunk(fine(inputs), output)], output)

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
            at = _shrunk(finer.activations, wanted.activations)
            assert_same(finer.gradients[at], wanted.gradients)
            between = finer.gradients.clone()
            between[at] = 0
            assert not between.any(), "expected no gradient between the network's own positions"

    hold(law, examples)


def a_finer_grid_is_made_of_shifts(
    densify: Densify, *, stitched: Any = ifa.dense.stitched, examples: int | None = None
) -> None:
    """Beyond the reach of the border it is shift-and-stitch, to rounding."""

    @given(_SEEDS, st.integers(1, 2))
    def law(seed: int, space: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        conv, pool = (getattr(nn, f"{kind}{space}d") for kind in ("Conv", "MaxPool"))
        layers = conv(1, 3, 3, stride=2, padding=1), nn.ReLU(), pool(2), conv(3, 2, 3, padding=1)
        model = nn.Sequential(*layers).double().eval().requires_grad_(False)
        for values in model.parameters():
            values.copy_(torch.randn(values.shape, generator=generator, dtype=values.dtype))
        inputs = torch.randn(1, 1, *(40, 44)[:space], generator=generator, dtype=torch.float64)
        found = stitched(lambda inputs, target: model(inputs), stride=4)(inputs, 0)
        wanted = densify(model, stride=1)(inputs)
        inner = (..., *[slice(12, 28)] * space)
        torch.testing.assert_close(found[inner], wanted[inner], rtol=1e-12, atol=1e-12)

    hold(law, examples)


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


def _shrunk(finer: Tensor, own: Tensor) -> tuple[Any, ...]:
    """Return what takes the network's own positions out of a finer tensor, or else all of it."""
    shapes = tuple(own.shape), tuple(finer.shape)
    return next(
        (steps(one) for one in _factors(*shapes) if torch.equal(finer[steps(one)], own)), (...,)
    )


# laws of (densify), which draw networks
DENSE = (
    a_finer_grid_is_exact,
    a_finer_grid_lies_where_the_network_does,
    a_finer_grid_has_the_networks_own_gradients,
)
