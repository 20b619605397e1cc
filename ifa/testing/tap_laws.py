"""Laws of (model, layer, example), and what autograd says of them."""

import copy
import inspect
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from torch import Tensor, nn

import ifa
from ifa.network.inputs import call, clone, count, over, take, tensors_of
from ifa.network.outputs import first_tensor, map_tensors, pick, replace_first_tensor
from ifa.network.standins import behind, in_front
from ifa.score.rows import classes_at, output_of, rows_of
from ifa.testing import strategies
from ifa.testing.assertions import (
    assert_leaves_model_untouched,
    assert_trees_close,
    map_leaves,
)
from ifa.testing.holding import Drawn, assert_same, either, hold
from ifa.types import Features, Inputs, Target


def a_tap_equals_autograd(
    model: nn.Module,
    layer: str,
    example: Inputs,
    *,
    tap: Any = ifa.tap,
    examples: int | None = None,
    **options: Any,
) -> None:
    """Activations and gradients are those of ordinary autograd, to the bit.

    For many targets, whose backward passes are mapped together, gradients are so to rounding.
    """
    tapped = tap(model, layer, example, **options)

    @given(*_calls(model, example, options))
    def law(seed: int, samples: int, draw_target: Callable[[int], Any]) -> None:
        inputs, target = _noise(example, samples, seed), draw_target(samples)
        actual = tapped(inputs, target)
        assert not any(field.requires_grad for field in actual), "expected no graph in the results"
        expected = _by_autograd(model, layer, inputs, target, options)
        if expected.target.ndim == 2:
            rounding = 1e-5 * float(expected.gradients.abs().max())
            assert_trees_close(actual.gradients, expected.gradients, rtol=1e-5, atol=rounding)
            actual = actual._replace(gradients=expected.gradients)
        assert_same(actual, expected)

    hold(law, examples)


def a_tap_equals_finite_differences(
    model: nn.Module,
    layer: str,
    example: Inputs,
    *,
    tap: Any = ifa.tap,
    examples: int | None = None,
    **options: Any,
) -> None:
    """In float64, moving the layer's output by a little moves the score as the gradient says."""
    precise, blank = copy.deepcopy(model).double(), over(Tensor.double, example)
    tapped = tap(precise, layer, blank, **options)
    grid, step = options.get("grid") or (lambda values: values), 1e-6

    @given(st.integers(0, 2**31 - 1), st.integers(0, _outputs(precise, blank, options) - 1))
    def law(seed: int, index: int) -> None:
        inputs = _noise(blank, 3, seed)
        target = torch.full((3,), index)
        with torch.no_grad():
            caught, _ = _forward(precise, layer, inputs, target, options)
            # what the grid leaves out, such as a class token, must not move
            pull = torch.func.vjp(grid, caught)[1]
            direction = pull(_noise(grid(caught), 3, seed + 1))[0]
            scores = [
                _forward(precise, layer, inputs, target, options, add=part * direction)[1]
                for part in (-step, 0.0, step)
            ]
        left, right = ((b - a) / step for a, b in pairwise(scores))
        predicted = (tapped(inputs, target).gradients * grid(direction)).flatten(1)
        size = predicted.abs().sum(1) + 1e-6
        # where the two sides differ there is a kink between, such as a rectifier's
        assume(bool(((left - right).abs() < 1e-5 * size).all()))
        error = (predicted.sum(1) - (left + right) / 2).abs()
        assert (error < 1e-4 * size).all(), f"expected slopes {left}, got {predicted.sum(1)}"

    hold(law, examples)


def a_tap_treats_each_sample_alone(
    model: nn.Module,
    layer: str,
    example: Inputs,
    *,
    tap: Any = ifa.tap,
    examples: int | None = None,
    **options: Any,
) -> None:
    """In float64, cutting the batch anywhere or taking it in another order changes nothing."""
    precise, blank = copy.deepcopy(model).double(), over(Tensor.double, example)
    tapped = tap(precise, layer, blank, **options)

    @given(st.integers(0, 2**31 - 1), st.integers(2, 5), st.data())
    def law(seed: int, samples: int, data: st.DataObject) -> None:
        inputs = _noise(blank, samples, seed)
        order = data.draw(st.permutations(range(samples)), label="order")
        cut = data.draw(st.integers(1, samples - 1), label="cut")
        target = None  # the prediction, or a row
        if rows_of(options.get("score")) is not None:
            target = torch.arange(samples) % _outputs(precise, blank, options)
        whole = tapped(inputs, target)
        mixed, asked = take(inputs, order), None if target is None else target[order]
        parts = [
            tapped(take(mixed, part), None if asked is None else asked[part])
            for part in (slice(cut), slice(cut, None))
        ]
        joined = Features(*(torch.cat(fields) for fields in zip(*parts, strict=True)))
        expected = map_leaves(lambda field: field[order], whole)
        assert_trees_close(joined, expected, rtol=1e-9, atol=1e-12)

    hold(law, examples)


def a_tap_leaves_the_model(
    model: nn.Module,
    layer: str,
    example: Inputs,
    *,
    tap: Any = ifa.tap,
    examples: int | None = None,
    **options: Any,
) -> None:
    """The model, the inputs and the random state stay as they were; also after an exception."""
    original = model

    @given(*_calls(model, example, options))
    def law(seed: int, samples: int, draw_target: Callable[[int], Any]) -> None:
        inputs, target = _noise(example, samples, seed), draw_target(samples)
        before = clone(inputs)
        model = copy.deepcopy(original)  # what one call changed must not hide what the next does
        breaking = _Breaking(model)
        with assert_leaves_model_untouched(breaking):
            tap(model, layer, example, **options)(inputs, target)
            # one exception inside the network, and one after it
            broken = tap(breaking, f"model.{layer}", example, **options)
            with breaking.switch:
                _assert_interrupted(broken, inputs, target)
            failing = tap(model, layer, example, **{**options, "score": _interrupt})
            _assert_interrupted(failing, inputs, target)
        assert_same(inputs, before)
        graphs = [tensor.requires_grad for tensor in tensors_of(inputs)]
        assert not any(graphs), "expected inputs without a graph, as they were"

    hold(law, examples)


def a_tap_takes_a_tuple_as_it_takes_a_tensor(
    model: nn.Module,
    layer: str,
    example: Inputs,
    *,
    tap: Any = ifa.tap,
    examples: int | None = None,
    **options: Any,
) -> None:
    """To the bit; and so for inputs by name, of whatever order, if the network takes several."""
    several = not isinstance(example, Tensor)
    names = list(inspect.signature(model.forward).parameters)

    def same(inputs: Any) -> Any:
        if not several:
            return (inputs,)
        if isinstance(inputs, tuple):
            return dict(reversed([*zip(names, inputs, strict=False)]))
        return tuple(inputs[name] for name in names if name in inputs)

    tapped, other = (
        tap(model, layer, example, **options),
        tap(model, layer, same(example), **options),
    )

    @given(*_calls(model, example, options))
    def law(seed: int, samples: int, draw_target: Callable[[int], Any]) -> None:
        inputs, target = _noise(example, samples, seed), draw_target(samples)
        assert_same(other(same(inputs), target), tapped(inputs, target))

    hold(law, examples)


TAP = (
    a_tap_equals_autograd,
    a_tap_equals_finite_differences,
    a_tap_treats_each_sample_alone,
    a_tap_leaves_the_model,
    a_tap_takes_a_tuple_as_it_takes_a_tensor,
)


def positions_are_centers_of_what_units_see(
    positions: Any, *, networks: Drawn = None, examples: int | None = None
) -> None:
    """Each unit lies amid the pixels that change it, away from borders: found by one NaN each.

    `networks`, if given, draws (model, layer, example, options of a tap) in which no operation sees
    all of the input at once, as attention does.
    """

    @given(either(networks, strategies.windowed_networks()))
    def law(drawn: tuple[nn.Module, str, Tensor, dict[str, Any]]) -> None:
        model, layer, example, options = drawn
        start, step = positions(model, layer, example, **options)
        tapped = ifa.tap(model, layer, example, **options)
        for axis, extent in enumerate(example.shape[2:]):
            spoiled = _spoiled(tapped, example, axis)
            counts = spoiled.sum(0)
            checked = 0
            for unit in (counts == counts.max()).nonzero().flatten().tolist():
                first, last = spoiled[:, unit].nonzero().flatten()[[0, -1]].tolist()
                if first > 0 and last < extent - 1:
                    checked += 1
                    center = float(start[axis] + unit * step[axis])
                    assert abs(center - (first + last) / 2) < 1e-9, (axis, unit, center)
            assert checked, f"expected units that see no border on axis {axis}, got none"

    hold(law, examples)


def _spoiled(tapped: Any, example: Tensor, axis: int) -> Tensor:
    """Return (pixel, unit): which units along an axis a NaN at each place of it reaches."""
    inputs = example[:1].repeat_interleave(example.shape[axis + 2], 0)
    for pixel, sample in enumerate(inputs):
        sample.select(axis + 1, pixel).fill_(torch.nan)
    seen = tapped(inputs, 0).activations.isnan()
    return seen.movedim(axis + 2, 1).flatten(2).any(2)


def _noise(like: Any, samples: int, seed: int) -> Any:
    """Draw normal numbers, and where a tensor of a tree has integers some of these."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(tensor: Tensor) -> Tensor:
        shape = (samples, *tensor.shape[1:])
        if tensor.is_floating_point():
            return torch.randn(shape, generator=generator, dtype=tensor.dtype)
        return tensor.flatten()[torch.randint(tensor.numel(), shape, generator=generator)]

    return map_tensors(like, drawn)


def _calls(
    model: nn.Module, example: Inputs, options: dict[str, Any]
) -> tuple[SearchStrategy[Any], ...]:
    """Draw seed, number of samples, and a function from that number to any allowed target."""
    seeds, outputs = st.integers(0, 2**31 - 1), _outputs(model, example, options)

    def each(lead: tuple[int, ...], seed: int) -> Callable[[int], Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return lambda samples: torch.randint(outputs, (*lead, samples), generator=generator)

    predicted = [st.builds(lambda: lambda samples: None)]
    target = st.one_of(
        *(predicted if rows_of(options.get("score")) is None else []),
        st.builds(lambda index: lambda samples: index, st.integers(0, outputs - 1)),
        st.builds(each, st.sampled_from([(), (1,), (3,)]), seeds),
    )
    return seeds, st.integers(1, 4), target


def _outputs(model: nn.Module, example: Inputs, options: dict[str, Any]) -> int:
    rows = rows_of(options.get("score"))
    if rows is not None:
        return len(rows.classes)
    with torch.no_grad():
        output = pick(call(copy.deepcopy(model), clone(example)), options.get("output"))
    return 1 if output.ndim == 1 else output.shape[1]


def _forward(
    model: nn.Module,
    layer: str,
    inputs: Inputs,
    target: Target,
    options: dict[str, Any],
    *,
    add: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the output of one call of a layer, and the scores with `add` added to it.

    The graph, unless gradients are off, starts at that output.
    """
    twin = copy.deepcopy(model).requires_grad_(False)
    name, _, number = layer.partition("#")
    outputs: list[Any] = []
    caught: list[Tensor] = []

    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        outputs.append(output)
        if len(outputs) != int(number or 1):
            return None
        own = first_tensor(output)
        assert own is not None
        tensor = behind(own).detach().requires_grad_(torch.is_grad_enabled())
        caught.append(tensor)
        # a copy goes on, so that what was caught is safe from layers that work in place
        moved = tensor.clone() if add is None else tensor + add
        return replace_first_tensor(output, in_front(moved, own))

    twin.get_submodule(name).register_forward_hook(hook)
    score = options.get("score", ifa.score.logit)
    output = pick(call(twin, clone(inputs)), output_of(score, options.get("output")))
    if target is None:
        target = output.argmax(1) if output.ndim == 2 else torch.zeros(count(inputs)).long()
    chosen = torch.as_tensor(target)
    chosen = chosen.expand(count(inputs)) if chosen.ndim == 0 else chosen
    rows = [
        torch.stack([score(*pair) for pair in zip(output, row, strict=True)])
        for row in torch.atleast_2d(chosen)
    ]
    return caught[0], torch.stack(rows).reshape(chosen.shape)


def _by_autograd(
    model: nn.Module, layer: str, inputs: Inputs, target: Target, options: dict[str, Any]
) -> Features:
    with torch.enable_grad():
        caught, scores = _forward(model, layer, inputs, target, options)
        rows = [
            torch.autograd.grad(
                row.sum() + 0 * caught.sum(),  # also where the score does not depend on it
                caught,
                retain_graph=True,
            )[0]
            for row in torch.atleast_2d(scores)
        ]
    grid = options.get("grid") or (lambda values: values)
    gradients = torch.stack([grid(row) for row in rows])
    if target is None:
        target = _predicted(model, inputs, options)
    chosen = torch.as_tensor(target)
    chosen = chosen.expand(count(inputs)) if chosen.ndim == 0 else chosen
    shape = scores.shape[:-1] + gradients.shape[1:]
    explained = classes_at(options.get("score"), chosen)
    return Features(grid(caught.detach()), gradients.reshape(shape), explained)


def _predicted(model: nn.Module, inputs: Inputs, options: dict[str, Any]) -> Tensor:
    with torch.no_grad():
        output = pick(call(copy.deepcopy(model), clone(inputs)), options.get("output"))
    return output.argmax(1) if output.ndim == 2 else torch.zeros(count(inputs)).long()


class _Interrupted(Exception):
    pass


def _interrupt(output: Tensor, target: Tensor) -> Tensor:
    raise _Interrupted


class _Switch:
    """Something that copies of a model share."""

    on = False

    def __deepcopy__(self, memo: Any) -> "_Switch":
        return self

    def __enter__(self) -> None:
        self.on = True

    def __exit__(self, *error: Any) -> None:
        self.on = False


class _Breaking(nn.Module):
    """A model that raises while its switch is on, after its inputs went through it."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, self.switch = model, _Switch()
        self.train(model.training)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = self.model(*args, **kwargs)
        if self.switch.on:
            raise _Interrupted
        return output


def _assert_interrupted(tapped: Any, inputs: Inputs, target: Target) -> None:
    try:
        tapped(inputs, target)
    except _Interrupted:
        return
    raise AssertionError("expected the exception raised inside the tapped pass to come out")
