"""The methods of a table: every class activation map of a layer, and a map of noise as control."""

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ifa import perturb, weight
from ifa.basis.projections import projections
from ifa.checks import takes
from ifa.declared import declare, declared
from ifa.explanation import explain
from ifa.network.inputs import at, grid_place, space_of, take
from ifa.noise import noise as normal
from ifa.score import logit
from ifa.stages import builder, combine
from ifa.taps.weighings import Weighing
from ifa.types import Explain, Inputs, Score, Target, Weighted


class Method(NamedTuple):
    """A method of a table."""

    explain: Callable[..., Tensor]  # (model, inputs, target) -> maps
    has_model: bool  # it explains a network of its own, whatever it is given


@builder
def noise(model: nn.Module, layer: Any, example: Inputs, *, seed: int = 0, **options: Any) -> Any:
    r"""Weigh nothing: a builder whose map is noise that knows nothing of the network, the control.

    Parameters
    ----------
    model, layer, example, options
        Not used.
    seed
        The noise of a sample depends on it and on the numbers of its input alone.

    Returns
    -------
    callable
        ``(inputs, target) -> Weighted`` with one channel at the inputs' size, uniform in [0, 1),
        the same for every target.

    Examples
    --------
    >>> import ifa, torch
    >>> net, inputs = torch.nn.Sequential(torch.nn.Conv1d(1, 3, 3)), torch.rand(3, 1, 5)
    >>> of_inputs = noise(net, "0", inputs)
    >>> maps = of_inputs(inputs, torch.zeros(3, dtype=torch.int64)).activations
    >>> one = of_inputs(inputs[1:2], torch.zeros(1, dtype=torch.int64)).activations
    >>> torch.equal(maps[1:2], one)
    True
    """
    del model, layer, example, options
    return partial(_noise, seed=seed)


def _noise(inputs: Inputs, target: Tensor, *, seed: int) -> Weighted:
    image = at(inputs, grid_place("ifa.contest.noise", inputs))
    like = torch.empty((), device=image.device)
    maps = torch.stack([normal(space_of(image), like, seed, *_digest(one)) for one in image])
    maps = torch.special.ndtr(maps).to(image.dtype)[:, None]
    maps = maps.expand(*target.shape[:-1], *maps.shape)
    return Weighted(maps.new_ones(()).expand(*target.shape, 1), maps, target)


def _digest(values: Tensor) -> tuple[int, ...]:
    """Give four numbers that identify what an input holds."""
    read = values.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    digest = hashlib.sha256(read).digest()
    return tuple(int.from_bytes(digest[at : at + 4], "little") for at in range(0, 16, 4))


# Every weighting by name, as the command line takes it.
WEIGHTINGS: dict[str, Any] = {
    **{name: getattr(weight, name) for name in weight.__all__},
    **{name: getattr(perturb, name) for name in perturb.__all__},
    "noise": noise,
}


def weighting(where: str, name: str) -> Any:
    """Return a weighting by its name."""
    if name not in WEIGHTINGS:
        listed = ", ".join(WEIGHTINGS)
        raise LookupError(f"{where}: expected a weighting, one of {listed}, got {name!r}.")
    return WEIGHTINGS[name]


def cam_methods(
    layer: str | None = None,
    *,
    weightings: Mapping[str, Any] | None = None,
    rectify: bool = True,
    score: Score = logit,
    basis: Any = None,
    seed: int = 0,
) -> dict[str, Explain]:
    r"""List class activation maps of a layer as methods for `table`, and noise as control.

    Parameters
    ----------
    layer
        Name of a layer, or None for the last with a grid, as in `ifa.explain`.
    weightings
        Name -> what ``weight=`` takes. None takes every kernel and builder of `ifa.weight` and
        `ifa.perturb`, with its defaults (`fullcam` is `hirescam` and stands there once), and
        `noise`.
    rectify
        Set what speaks against the target to zero.
    score
        What is explained, as in `ifa.explain`.
    basis
        An `ifa.basis.Dictionary` that the layer is read in, as in `ifa.explain`; maps of methods
        that are no kernels cannot be made in one.
    seed
        Of the noise.

    Returns
    -------
    dict
        Name -> ``(model, inputs, target) -> maps`` at the inputs' size. Without `weightings`, those
        that a network cannot be asked for are left out by `table`, which says so.

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 3, 3), torch.nn.Flatten())
    >>> methods = cam_methods("0")
    >>> sorted(methods)[:4]
    ['ablationcam', 'bagcam', 'cam', 'eigencam']
    >>> methods["gradcam"](net, torch.rand(2, 1, 9), None).shape
    torch.Size([2, 9])
    """
    every = explain if weightings is not None else _listed
    return {
        name: partial(
            every,
            layer=layer,
            weight=partial(noise, seed=seed) if one is noise else one,
            rectify=rectify,
            score=score,
            **({} if basis is None or one is noise else {"basis": basis}),
        )
        for name, one in _weightings(weightings).items()
    }


@declare(listed=True)
def _listed(model: nn.Module, inputs: Inputs, target: Target, **options: Any) -> Tensor:
    """Explain by a method that was not asked for by name."""
    return explain(model, inputs, target, **options)


class LeftOut(UserWarning):
    """Methods of a list that a network cannot be asked for, and are not in its table."""


class Usable(NamedTuple):
    """Weightings that a network can be asked for, and why others are left out."""

    weightings: dict[str, Any]
    left_out: list[str]


def usable(
    model: nn.Module,
    layer: str | None,
    example: Inputs,
    *,
    weightings: Mapping[str, Any] | None = None,
    score: Score = logit,
    basis: Any = None,
) -> Usable:
    """Find out which weightings a network and a layer can be asked for.

    Builders, which may run the network many times, are made only; others map the first sample, for
    the first output.

    Parameters
    ----------
    model, layer, example, score, basis
        As in `ifa.explain`.
    weightings
        Name -> what ``weight=`` takes; None takes those of `cam_methods`.

    Returns
    -------
    Usable
        The weightings, by name, and a sentence for each that is left out, such as `cam` of a
        network with several linear layers.

    Raises
    ------
    LookupError, ValueError
        As `ifa.tap`, for what no weighting can be asked for.

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 3, 3), torch.nn.Flatten(),
    ...                           torch.nn.Linear(21, 4), torch.nn.Linear(4, 2))
    >>> usable(net, "0", torch.zeros(2, 1, 9)).left_out[0][:31]
    'cam is left out: ifa.weight.cam'
    """
    where, asked, left_out = "ifa.contest.usable", dict(_weightings(weightings)), []
    one = take(example, slice(1))
    make = partial(Weighing, where, model, layer, example, score=score, remember=True)
    turned = None if basis is None else partial(projections, where=where, basis=basis)
    make(weight.randomcam).observe(one, 0, step=combine)  # raises what is not a weighting's own
    for name, asked_for in list(asked.items()):
        try:
            made = make(asked_for, basis=None if asked_for is noise else turned)
            if declared(asked_for, "reads") != "inputs":
                made.observe(one, 0, step=combine)
        except (LookupError, ValueError, TypeError) as error:
            del asked[name]
            left_out.append(f"{name} is left out: {error}")
    return Usable(asked, left_out)


def possible(
    methods: Mapping[str, Any], model: nn.Module, example: Inputs
) -> tuple[dict[str, Any], list[str]]:
    """Leave out methods of the list of `cam_methods` that a network cannot be asked for."""
    kept, left_out = dict(methods), []
    for name, method in methods.items():
        if declared(method, "listed"):
            options = method.keywords
            found = usable(
                model,
                options["layer"],
                example,
                weightings={name: options["weight"]},
                score=options["score"],
                basis=options.get("basis"),
            )
            left_out += found.left_out
            if name not in found.weightings:
                del kept[name]
    return kept, left_out


def _weightings(given: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if given is not None:
        return given
    return {name: one for name, one in WEIGHTINGS.items() if name != "fullcam"}


def with_model(explain: Explain) -> Explain:
    """Make a method of a table of ``(inputs, target) -> maps``, which has its model already.

    Parameters
    ----------
    explain
        Such as an attribution of `ifa.attribute`, collapsed to one map for each sample.

    Returns
    -------
    callable
        ``(model, inputs, target) -> maps`` that leaves the model given alone. Metrics that explain
        other networks, such as `ifa.evaluate.randomization`, refuse it.

    Examples
    --------
    >>> import ifa, torch
    >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 3, 3), torch.nn.Flatten())
    >>> saliency = ifa.attribute.collapse(ifa.attribute.saliency(net))
    >>> with_model(saliency)(net, torch.rand(2, 1, 9), None).shape
    torch.Size([2, 9])
    """
    return partial(_with_model, explain=explain)


@declare(has_model=True)
def _with_model(model: nn.Module, inputs: Inputs, target: Target, *, explain: Explain) -> Tensor:
    del model
    return explain(inputs, target)


def explaining(where: str, name: str, method: Any) -> Method:
    """Take a method of a table."""
    if not callable(method) or not takes(method, 3):
        raise TypeError(
            f"{where}: expected method {name!r} to be (model, inputs, target) -> maps, got "
            f"{method!r}. Take one of ifa.contest.cam_methods, or ifa.contest.with_model(...)."
        )
    return Method(method, declared(method, "has_model", False))  # pyright: ignore
