"""Randomization: does a map change when the network forgets what it has learned."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import vmap

from ifa.chains import describe
from ifa.checks import check_count
from ifa.declared import declare
from ifa.evaluate.randomized import Order, Parameters, randomized, replaced
from ifa.evaluate.similarity import similarity
from ifa.network.budgets import budget
from ifa.network.inputs import at, clone, device_of, grid_place, take
from ifa.network.scorers import Scorer
from ifa.noise import chunks
from ifa.progress import Progress, reporting
from ifa.score import logit
from ifa.types import Inputs, Output, Target

_WHERE = "ifa.evaluate.randomization"


class Randomization(NamedTuple):
    """Similarity to the trained network's map, step by step."""

    spearman: Tensor  # (step, sample), in [-1, 1]
    ssim: Tensor  # the same, of maps scaled to [0, 1] one by one


@declare(takes="explain")
def randomization(
    model: nn.Module,
    explain: Callable[..., Tensor],
    inputs: Inputs,
    target: Target = None,
    *,
    order: Order = "cascade",
    seed: int = 0,
    chunk: int | None = None,
    output: Output = None,
    progress: Progress = False,
) -> Randomization:
    r"""Compare maps with those of the network as its weights are randomized, from the output on.

    .. math:: \rho_s = \rho(h(x; \theta), h(x; \theta_s)), \qquad
              \theta_0 = \theta, \; \theta_s: s \text{ modules drawn anew}

    A map that stays alike does not show what the network has learned. The target is fixed: it is
    that of the trained network, also where it is the prediction.

    Parameters
    ----------
    model
        The network, in evaluation mode.
    explain
        Either ``(model, inputs, target) -> maps``, such as ``partial(ifa.explain, layer="conv3")``,
        which is called on private copies of the network, one for each step. Or, with an argument of
        that name, ``(inputs, target, params) -> maps``, such as a function of a tap: it is lifted
        by `torch.func.vmap` over stacked parameters. Maps are (sample, \*space), or (target,
        sample, \*space).
    inputs : (sample, \*input)
        A batch.
    target
        None for the prediction, an int, (sample,), or (target, sample).
    order, seed
        As in `ifa.evaluate.randomized`, whose keys are the names of the steps.
    chunk
        How many networks run at once where `explain` takes parameters: bounds the memory and
        changes results by rounding only. 1 needs nothing of `vmap`, for networks that it cannot
        map, such as recurrent ones. None chooses by the size of the parameters.
    output
        Picks the output that the prediction is read from, as in `ifa.tap`.
    progress
        True draws a bar, a callable gets ``(done, total)`` steps.

    Returns
    -------
    Randomization
        `spearman` and `ssim`, (step, sample) or (step, target, sample), float64. The first step is
        the trained network: 1. NaN where one of the two maps is constant or not finite.

    Raises
    ------
    ValueError
        If `explain` gives no maps of the samples, or an option is out of range.
    TypeError
        If `explain` cannot be called or does not give a tensor.
    RuntimeError
        Under `torch.inference_mode`.

    References
    ----------
    Adebayo et al. 2018, "Sanity checks for saliency maps". arXiv:1810.03292

    Examples
    --------
    >>> import ifa, torch
    >>> from functools import partial
    >>> head = torch.nn.Flatten(), torch.nn.Linear(24, 2)
    >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 3, 3), *head)
    >>> explain = partial(ifa.explain, layer="0", rectify=False)
    >>> ifa.evaluate.randomization(net, explain, torch.rand(5, 1, 10)).spearman.shape
    torch.Size([3, 5])
    """
    many = _takes_params(explain)
    targets = Scorer(_WHERE, model, logit, output).targets(inputs, target)
    steps = list(randomized(model, take(inputs, slice(1)), order=order, seed=seed).values())
    size = _fitting(model, chunk, device_of(inputs))
    run = partial(_stacked, size=size) if many else _copied
    found: list[Randomization] = []
    first: Tensor | None = None
    place = grid_place(_WHERE, inputs)
    with reporting(progress, "randomization", len(steps)) as advance:
        for made in run(model, explain, inputs, targets, steps):
            maps = made if isinstance(made, Tensor) else at(made, place)
            maps = _checked(maps, targets, first)
            first = maps if first is None else first
            alike = vmap(similarity)(first, maps)
            found.append(Randomization(alike.spearman, alike.ssim))
            advance(1)
    shape = (len(steps), *targets.shape)
    return Randomization(*(torch.stack(part).reshape(shape) for part in zip(*found, strict=True)))


def _takes_params(explain: Any) -> bool:
    """Tell which of its two forms an explanation has, or raise."""
    if callable(explain):
        asked = inspect.signature(explain)
        many = "params" in asked.parameters
        with suppress(TypeError):
            # as it will be called
            asked.bind("inputs", "target", params={}) if many else asked.bind(None, None, None)
            return many
    raise TypeError(
        f"{_WHERE}: expected explain to be (model, inputs, target) -> maps, or (inputs, target, "
        f"params) -> maps, got {describe(explain)}. Give e.g. partial(ifa.explain, layer=...)."
    )


def _copied(
    model: nn.Module,
    explain: Callable[..., Tensor],
    inputs: Inputs,
    targets: Tensor,
    steps: Sequence[Parameters],
) -> Iterator[Tensor]:
    """Explain a private copy of the network for each step."""
    for params in steps:
        yield explain(replaced(model, params, _WHERE), clone(inputs), targets)


def _stacked(
    model: nn.Module,
    explain: Callable[..., Tensor],
    inputs: Inputs,
    targets: Tensor,
    steps: Sequence[Parameters],
    *,
    size: int,
) -> Iterator[Tensor]:
    """Explain many networks at once, as one function of their stacked parameters."""

    def run(params: Parameters) -> Tensor:
        return explain(inputs, targets, params=params)

    for span in chunks(len(steps), size):
        several = steps[span.start : span.stop]
        if len(several) == 1:
            yield run(several[0])
            continue
        names = dict.fromkeys(name for params in several for name in params)
        own = {name: model.get_parameter(name).detach() for name in names}
        stacked = {
            name: torch.stack([params.get(name, own[name]) for params in several]) for name in names
        }
        yield from vmap(run)(stacked)


def _fitting(model: nn.Module, chunk: int | None, device: torch.device) -> int:
    if chunk is not None:
        check_count(_WHERE, "chunk", chunk)
        return chunk
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    return max(1, budget(device) // max(size, 1))


def _checked(maps: Any, targets: Tensor, first: Tensor | None) -> Tensor:
    """Return maps (sample, *space) of all targets, after each other."""
    if not isinstance(maps, Tensor):
        raise TypeError(
            f"{_WHERE}: expected explain to return a tensor of maps, got {type(maps).__name__}. "
            "Of a tap, take ifa.batched(explain)(features).values."
        )
    lead = targets.ndim
    if maps.shape[:lead] != targets.shape or maps.ndim == lead:
        raise ValueError(
            f"{_WHERE}: expected explain to return maps {(*targets.shape, '*space')}, got "
            f"{tuple(maps.shape)}."
        )
    flat = maps.detach().flatten(0, lead - 1)
    if first is not None and flat.shape != first.shape:
        raise ValueError(
            f"{_WHERE}: expected maps of one shape at every step, got {tuple(flat.shape[1:])} "
            f"after {tuple(first.shape[1:])}."
        )
    return flat
