"""A network with its weights randomized, layer by layer from the output: parameters as data."""

import math
from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from ifa.checks import check_choice, check_noise
from ifa.network.inputs import clone
from ifa.network.replicas import Replica, plain, refuse_random_or_coupled
from ifa.noise import noise
from ifa.types import Inputs

Order = Literal["cascade", "independent"]
Parameters = dict[str, Tensor]

_WHERE = "ifa.evaluate.randomized"


def randomized(
    model: nn.Module, example: Inputs, *, order: Order = "cascade", seed: int = 0
) -> dict[str, Parameters]:
    r"""Draw the parameters of a network anew, one module after the other from output to input.

    A module is any with parameters of its own; they come in the order in which they ran last, from
    the output. What is drawn, for a parameter of shape (n, m, ...) with r further positions:

    .. math:: w \sim \mathcal N\left(0, \frac{2}{(n + m) \, r}\right)

    as by Xavier for two or more axes. Of one axis or none, biases, by their name, are 0 and scales,
    such as those of norm layers, 1. Buffers, such as the running statistics of batch norm, stay as
    they are. The model is never touched: parameters are data, for `params` of a tap.

    Parameters
    ----------
    model
        The network, in evaluation mode.
    example : (sample, \*input)
        A batch, run once to see in which order modules run.
    order
        ``"cascade"``: each step randomizes one more module. ``"independent"``: one module alone.
    seed
        The numbers depend on the seed and on which parameter of the model it is.

    Returns
    -------
    dict
        Name of the step -> the parameters that replace the model's, by name. The first step is
        ``"none"``, without any; the others are modules, each named as randomized by that step, the
        model itself by its type. A parameter that modules share belongs to the one nearest to the
        output, and is replaced in all of them.

    Raises
    ------
    ValueError
        If the model has no parameters or is in training mode, or an option is out of range.

    References
    ----------
    Adebayo et al. 2018, "Sanity checks for saliency maps". arXiv:1810.03292. Glorot & Bengio 2010,
    "Understanding the difficulty of training deep feedforward neural networks", equation 12.

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    >>> steps = randomized(net, torch.zeros(1, 3))
    >>> {name: list(params) for name, params in steps.items()}
    {'none': [], '2': ['2.weight', '2.bias'], '0': ['2.weight', '2.bias', '0.weight', '0.bias']}
    """
    check_choice(_WHERE, "order", order, ("cascade", "independent"))
    check_noise(_WHERE, draws=1, stdev=0.0, seed=seed)
    model = plain(model)
    places = {name: place for place, (name, _) in enumerate(_parameters(model))}
    steps: dict[str, Parameters] = {"none": {}}
    before: Parameters = {}
    for module, names in _owners(model, example).items():
        drawn = {
            name: _drawn(name, model.get_parameter(name), seed, places[name]) for name in names
        }
        before = {**before, **drawn} if order == "cascade" else drawn
        steps[module or type(model).__name__] = before
    if len(steps) == 1:
        raise ValueError(
            f"{_WHERE}: expected a model with parameters, got {type(model).__name__} without."
        )
    return steps


def replaced(model: nn.Module, params: Mapping[str, Tensor], where: str) -> nn.Module:
    """Copy a model, nothing shared with it, with some parameters replaced; ties stay ties."""
    twin = Replica(plain(model), (), private=True, where=where).module
    own = dict(_parameters(twin))
    new = {id(own[name]): tensor for name, tensor in params.items()}
    flags = {name: parameter.requires_grad for name, parameter in _parameters(plain(model))}
    made: dict[int, nn.Parameter] = {}
    for name, parameter in own.items():
        tensor = new.get(id(parameter), parameter).detach().clone()
        parameter = made.setdefault(id(parameter), nn.Parameter(tensor, flags[name]))
        path, _, leaf = name.rpartition(".")
        # not into the dictionary: recurrent layers keep a list of their weights as well
        setattr(twin.get_submodule(path), leaf, parameter)
    return twin


def _parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return model.named_parameters(remove_duplicate=False)


def _owners(model: nn.Module, example: Inputs) -> dict[str, list[str]]:
    """Give the modules with parameters of their own, from output to input, and these names."""
    refuse_random_or_coupled(model, _WHERE)
    replica = Replica(model, (), private=True, where=_WHERE)
    calls: list[str] = []
    for name, module in replica.module.named_modules():
        # a hook, which also keeps transformers from their fused path, where layers do not run
        module.register_forward_pre_hook(lambda module, args, name=name: calls.append(name))
    with torch.no_grad():
        replica.run(clone(example), lambda call, tensor: tensor)
    ran = {name: when for when, name in enumerate(calls)}
    found: dict[str, list[str]] = {}
    seen: set[int] = set()
    names = [name for name, _ in model.named_modules()]
    for name in sorted(names, key=lambda name: (_when(name, ran), names.index(name)), reverse=True):
        own = model.get_submodule(name).named_parameters(recurse=False)
        mine = [(f"{name}.{leaf}".lstrip("."), parameter) for leaf, parameter in own]
        fresh = [full for full, parameter in mine if id(parameter) not in seen]
        seen |= {id(parameter) for _, parameter in mine}
        if fresh:
            found[name] = fresh
    return found


def _when(name: str, ran: Mapping[str, int]) -> int:
    """Return when a module ran last; one whose parent reads its parameters, when that did."""
    while name and name not in ran:
        name = name.rpartition(".")[0]
    return ran.get(name, -1)


def _drawn(name: str, parameter: Tensor, seed: int, place: int) -> Tensor:
    if not parameter.is_floating_point():
        raise TypeError(
            f"{_WHERE}: expected parameters of a floating dtype, got {name!r} of "
            f"{parameter.dtype}, which Xavier's rule does not say how to draw."
        )
    if parameter.ndim > 1:
        fans = sum(parameter.shape[:2]) * math.prod(parameter.shape[2:])
        return noise(parameter.shape, parameter.detach(), seed, place) * math.sqrt(2 / fans)
    filled = torch.zeros_like if "bias" in name.rpartition(".")[2] else torch.ones_like
    return filled(parameter.detach())
