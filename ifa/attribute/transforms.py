"""Transforms: functions of an attribution that are attributions again."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ifa.chains import describe
from ifa.checks import check_choice
from ifa.network.inputs import at, came, grid_place, named, over, put
from ifa.stages import wide
from ifa.types import Inputs, Target

Attribute = Callable[..., Any]

# (attribution, inputs, targets) -> the new one's values
Change = Callable[[Attribute, Any, Any], Any]


class Split(NamedTuple):
    """What speaks for the target, and what against; their sum is the attribution."""

    positive: Any
    negative: Any


class Transformed:
    """An attribution made of another one. Build it with `ifa.attribute`."""

    def __init__(self, name: str, attribution: Attribute, change: Change, options: str = ""):
        if not callable(attribution):
            raise TypeError(
                f"ifa.attribute.{name}: expected an attribution (inputs, target) -> tensor, got "
                f"{attribution!r}. Make one, e.g. ifa.attribute.gradient(model)."
            )
        self._name, self._base, self._change, self._options = name, attribution, change, options

    def __repr__(self) -> str:
        return f"{self._name}({describe(self._base)}{self._options and ', '}{self._options})"

    def __call__(self, inputs: Inputs, target: Target = None) -> Any:
        """Return the attribution of every sample, of every target where there are many."""
        return self._change(self._base, inputs, self.targets(inputs, target))

    def targets(self, inputs: Inputs, target: Target = None) -> Any:
        """Return what is explained: for None the prediction on the inputs as they are."""
        if hasattr(self._base, "targets"):
            return self._base.targets(inputs, target)  # pyright: ignore
        if target is None:
            raise ValueError(
                f"ifa.attribute.{self._name}: expected a target, because {describe(self._base)} "
                "does not say what it predicts, got None. Give target=."
            )
        return target


def times_input(attribution: Attribute) -> Transformed:
    r"""Multiply an attribution with the input.

    .. math:: b = x \odot a

    Parameters
    ----------
    attribution
        ``(inputs, target) -> attribution``, shaped like the inputs.

    Returns
    -------
    callable
        ``(inputs, target=None) -> attribution``, signed.

    Raises
    ------
    ValueError
        When called, if the attribution is not shaped like the inputs, such as a collapsed one.

    Examples
    --------
    >>> import ifa, torch
    >>> ifa.attribute.times_input(ifa.attribute.gradient(torch.nn.Linear(2, 1)))
    times_input(gradient(Linear, score=logit))
    """
    return Transformed("times_input", attribution, _times_input)


def collapse(
    attribution: Attribute, how: Literal["absmax", "sum", "mean"] = "absmax"
) -> Transformed:
    r"""Make one map of the channels.

    .. math:: b(p) = \max_c |a_c(p)| \quad\text{or}\quad \sum_c a_c(p)
        \quad\text{or}\quad \frac{1}{C} \sum_c a_c(p)

    Parameters
    ----------
    attribution
        ``(inputs, target) -> attribution``, shaped like the inputs.
    how
        ``"absmax"``, the largest size, which is not negative; ``"sum"``, which keeps what the
        attribution adds up to; or ``"mean"``. Both are signed.

    Returns
    -------
    callable
        ``(inputs, target=None) -> maps`` (sample, \*space), or (target, sample, \*space). Inputs
        (sample, space) have no channels, and each position is one: only its size is taken.

    Raises
    ------
    ValueError
        If `how` is none of these; later, if the attribution is not shaped like the inputs.

    Examples
    --------
    >>> import ifa, torch
    >>> flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(6, 1))
    >>> ifa.attribute.collapse(ifa.attribute.gradient(flat))(torch.ones(1, 2, 3)).shape
    torch.Size([1, 3])
    """
    check_choice("ifa.attribute.collapse", "how", how, ("absmax", "sum", "mean"))
    return Transformed("collapse", attribution, partial(_collapsed, how=how), f"{how=}")


def split(attribution: Attribute) -> Transformed:
    r"""Part an attribution into what speaks for the target and what against.

    .. math:: a^+ = \max(a, 0), \qquad a^- = \min(a, 0), \qquad a = a^+ + a^-

    Parameters
    ----------
    attribution
        ``(inputs, target) -> attribution``.

    Returns
    -------
    callable
        ``(inputs, target=None) -> Split(positive, negative)``, each shaped like the attribution;
        the second is not positive.

    Examples
    --------
    >>> import ifa, torch
    >>> net = torch.nn.Linear(2, 1, bias=False)
    >>> _ = net.weight.data.copy_(torch.tensor([[3.0, -1.0]]))
    >>> ifa.attribute.split(ifa.attribute.gradient(net))(torch.ones(1, 2), target=0)
    Split(positive=tensor([[3., 0.]]), negative=tensor([[ 0., -1.]]))
    """
    return Transformed("split", attribution, _split)


def times_map(
    attribution: Attribute,
    explain: Callable[..., Tensor],
    *,
    grid_of: str | int | None = None,
) -> Transformed:
    r"""Multiply an attribution with a map: Guided Grad-CAM, and every other such pair.

    .. math:: b_c(p) = a_c(p) \, M(p)

    Parameters
    ----------
    attribution
        ``(inputs, target) -> attribution``, with or without channels.
    explain
        ``(inputs, target) -> maps`` (sample, \*space) at the input's size, such as
        ``functools.partial(ifa.explain, model)``; it is called with the attribution's targets.
    grid_of
        Which tensor of a tree the maps are of, as in `ifa.explain`; nothing is said of the others.

    Returns
    -------
    callable
        ``(inputs, target=None) -> attribution``, in the unit of both multiplied; signed where one
        of them is. Of `ifa.attribute.guided_backprop` and a rectified Grad-CAM it is Guided
        Grad-CAM.

    Raises
    ------
    ValueError
        When called, if the maps do not have the attribution's space.

    References
    ----------
    Selvaraju et al. 2017, "Grad-CAM", section 3.2. arXiv:1610.02391

    Examples
    --------
    >>> import functools, ifa, torch
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU(), torch.nn.Flatten())
    >>> guided = ifa.attribute.guided_backprop(net)
    >>> guided_gradcam = ifa.attribute.times_map(guided, functools.partial(ifa.explain, net))
    >>> guided_gradcam(torch.rand(1, 1, 5, 6), target=0).shape
    torch.Size([1, 1, 5, 6])
    """
    if not callable(explain):
        raise TypeError(
            f"ifa.attribute.times_map: expected explain (inputs, target) -> maps, got {explain!r}. "
            "Take functools.partial(ifa.explain, model)."
        )
    change = partial(_times_map, explain=explain, grid_of=grid_of)
    return Transformed("times_map", attribution, change, describe(explain))


def _times_input(base: Attribute, inputs: Any, targets: Any) -> Any:
    return over(torch.mul, _like(inputs, base(inputs, targets), "times_input"), inputs)


def _collapsed(base: Attribute, inputs: Any, targets: Any, *, how: str) -> Any:
    values = _like(inputs, base(inputs, targets), "collapse")
    return over(partial(_one_map, how=how), values, inputs)


def _one_map(values: Tensor, inputs: Tensor, *, how: str) -> Tensor:
    if inputs.ndim < 3:
        lead = values.shape[: values.ndim - inputs.ndim + 1]
        values = values.reshape(*lead, 1, -1)
    channel = 1 - max(inputs.ndim, 3)
    if how == "absmax":
        return values.abs().amax(channel)
    summed = wide(values).sum(channel)
    return (summed if how == "sum" else summed / values.shape[channel]).to(values.dtype)


def _split(base: Attribute, inputs: Any, targets: Any) -> Split:
    values = base(inputs, targets)
    below = over(partial(torch.clamp, max=0), values)
    return Split(over(partial(torch.clamp, min=0), values), below)


def _times_map(
    base: Attribute,
    inputs: Any,
    targets: Any,
    *,
    explain: Callable[..., Tensor],
    grid_of: str | int | None,
) -> Any:
    place = grid_place("ifa.attribute.times_map", inputs, grid_of)
    found, maps, image = base(inputs, targets), explain(inputs, targets), at(inputs, place)
    values = at(found, place)
    channels = image.ndim > 2 and values.shape[-image.ndim :] == image.shape
    if channels:
        maps = maps.unsqueeze(maps.ndim + 2 - image.ndim)
    wanted = list(values.shape)
    if channels:
        wanted[1 - image.ndim] = 1
    if list(maps.shape) != wanted:
        raise ValueError(
            "ifa.attribute.times_map: expected maps of the attribution's samples and space, "
            f"{tuple(values.shape)}, got {tuple(maps.shape)}. Bring them to the input's size, "
            "e.g. with ifa.explain(..., size='input')."
        )
    return put(found, place, values * maps, blank=True)


def _like(inputs: Any, values: Any, name: str) -> Any:
    wanted, found = named(inputs), named(values)
    for place, given in found.items():
        like = wanted.get(place)
        if like is None or given.shape[given.ndim - like.ndim :] != like.shape:
            break
    else:
        if found:
            return values
    shapes = str(tuple(values.shape)) if isinstance(values, Tensor) else type(values).__name__
    raise ValueError(
        f"ifa.attribute.{name}: expected an attribution shaped like the inputs, {came(inputs)}, "
        f"got {shapes}. Apply it before collapse, split and the like."
    )
