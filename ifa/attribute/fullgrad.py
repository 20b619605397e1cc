"""Full gradients: what the input and every bias contribute."""

from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from ifa.attribute.attributions import Attributed, Complete, scorer_of, spoilt, total
from ifa.baseline import space_axes
from ifa.checks import check_choice
from ifa.network.gradients import Graph, differentiable, joined, pulled
from ifa.network.inputs import (
    Place,
    at,
    clone,
    count,
    filled,
    floating,
    put,
    real_grid_place,
    take,
)
from ifa.network.outputs import map_tensors, pick
from ifa.network.replicas import Replicas, replicas
from ifa.network.scorers import Scorer
from ifa.resizing import resized
from ifa.score import logit
from ifa.stages import wide
from ifa.types import Output, Score


class _Term(NamedTuple):
    """Gradients at what a layer returned, (target, sample, ...), and the bias it added there."""

    gradient: Tensor
    bias: Tensor  # as it broadcasts against what the layer returned
    channel: int  # which axis of what it returned is the channels'


def fullgrad(
    model: nn.Module,
    *,
    score: Score = logit,
    output: Output = None,
    rescale: Literal["tensor", "channel"] = "tensor",
    grid_of: str | int | None = None,
) -> Complete:
    r"""Add what the input contributes to what every bias contributes.

    .. math::

        a(p) = \sum_c \psi\left(x \odot \nabla_x y\right)_c(p)
        + \sum_l \sum_c \psi\left(b_{l} \odot G_{l}\right)_c(p),
        \qquad y = \sum x \odot \nabla_x y + \sum_l \sum b_l \odot G_l

    with the gradient G at the output of each convolution, linear layer, batch, group and layer
    norm, and its bias b: of a batch norm :math:`\beta - \mu \gamma / \sqrt{\sigma^2 + \epsilon}`.
    :math:`\psi` takes the absolute value, scales it to [0, 1] and interpolates to the input's
    size, as `ifa.resize`. A layer without the input's grid, such as a linear one after pooling,
    counts for the sum only.

    The sum on the right is exact where the network is piecewise linear: ReLU, maximum and average
    pooling, norms with running statistics. A layer or group norm is not: it does not change when
    its input is scaled, so that what comes from below it adds up to nothing (up to its ε), and only
    the biases from there on are in the sum. Nor is a softmax, GELU, or a parameter that no layer
    adds, such as a class token. The gap says so. Of any network each bias's term is
    :math:`b \cdot \partial y / \partial b`.

    Parameters
    ----------
    model, score, output
        As in `ifa.tap`. The model is never touched.
    rescale
        What is scaled to [0, 1]: ``"tensor"``, all channels of a layer together, as the paper's
        code does, or ``"channel"``, each by itself.
    grid_of
        Which tensor of a tree the map is of, by its key or index; None for the first (sample,
        channel, \*space). The others count for the sum only.

    Returns
    -------
    callable
        ``(inputs, target=None) -> attribution`` shaped like the inputs, the same for every channel,
        with a target axis first for targets (target, sample); not negative, without unit. Its
        method ``observe`` returns ``Attributed(values, total, gap)``: the score y, and what the sum
        on the right, before :math:`\psi`, has more than that.

    Raises
    ------
    TypeError, ValueError
        As `ifa.attribute.gradient`.

    References
    ----------
    Srinivas & Fleuret 2019, "Full-gradient representation for neural network visualization".
    arXiv:1905.00780

    Examples
    --------
    >>> import ifa, torch
    >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 2, 1), torch.nn.ReLU(), torch.nn.Flatten())
    >>> seen = ifa.attribute.fullgrad(net).observe(torch.tensor([[[1.0, 2.0]]]), target=0)
    >>> seen.values.shape, seen.gap
    (torch.Size([1, 1, 2]), tensor([0.]))
    """
    scorer = scorer_of("fullgrad", model, score, output)
    check_choice(scorer.where, "rescale", rescale, ("tensor", "channel"))
    layers = [name for name, module in scorer.model.named_modules() if _adds(module)]
    observe = partial(_fullgrad, copies=replicas(scorer.model, layers, where=scorer.where))
    observe = partial(observe, rescale=rescale, grid_of=grid_of)
    method = partial(_values, observe=observe)
    return Complete(scorer, method, observe, f"{rescale=}")


def _values(scorer: Scorer, inputs: Any, targets: Tensor, *, observe: Any) -> Any:
    return observe(scorer, inputs, targets).values


def _fullgrad(
    scorer: Scorer,
    inputs: Any,
    targets: Tensor,
    *,
    copies: Replicas,
    rescale: str,
    grid_of: str | int | None,
) -> Attributed:
    place = real_grid_place(scorer.where, inputs, grid_of)
    found = _mapped(scorer, inputs, place, targets, copies, rescale)
    return found._replace(values=put(inputs, place, found.values, blank=True))


def _mapped(
    scorer: Scorer, inputs: Any, place: Place, targets: Tensor, copies: Replicas, rescale: str
) -> Attributed:
    many = targets if targets.ndim == 2 else targets[None]
    samples, image = count(inputs), at(inputs, place)
    replica, seen = copies.get(), {}
    modules = dict(replica.module.named_modules())

    def edit(call: str, tensor: Tensor) -> Tensor:
        seen[call] = tensor
        return tensor.clone()  # so that a later in-place layer cannot edit what it returned

    starts = [one.detach().requires_grad_() for one in floating(inputs)]
    with torch.enable_grad():
        raw = pick(replica.run(clone(filled(inputs, starts)), edit), scorer.output)
        leaves = differentiable(raw)
    # where not surely the first axis is the samples', as with tokens first or windows, one by one
    if samples > 1 and any(len(s) != samples or samples in s.shape[1:] for s in seen.values()):
        spans = (slice(n, n + 1) for n in range(samples))
        each = [
            _mapped(scorer, take(inputs, n), place, targets[..., n], copies, rescale) for n in spans
        ]
        return Attributed(*(torch.cat(part, targets.ndim - 1) for part in zip(*each, strict=True)))
    biases = {
        call: _bias(modules[call.rpartition("#")[0]], tensor)
        for call, tensor in seen.items()
        if tensor.requires_grad  # what does not depend on the input is a constant of its own
    }
    pull = Graph(leaves, [*starts, *(seen[call] for call in biases)])
    made, output = [], map_tensors(raw, Tensor.detach)
    size = sum(tensor.numel() * tensor.element_size() for tensor in (*starts, *seen.values()))
    for part in pulled(scorer.where, scorer.score, output, many, pull, size):
        own, rest = part.gradients[: len(starts)], part.gradients[len(starts) :]
        terms = [
            _Term(gradient, bias, channel)
            for gradient, (bias, channel) in zip(rest, biases.values(), strict=True)
        ]
        products = filled(
            inputs, [one * slope for one, slope in zip(floating(inputs), own, strict=True)]
        )
        made.append(
            (*_added(image, at(products, place), terms, rescale, total(products, 2)), part.scores)
        )
    values, sums, scores = joined(made)
    gap = (sums - wide(scores)).to(image.dtype)
    values = spoilt(values, scores).to(image.dtype)
    found = Attributed(values, scores.to(image.dtype), gap)
    return found if targets.ndim == 2 else Attributed(*(part[0] for part in found))


def _added(
    inputs: Tensor, product: Tensor, terms: list[_Term], rescale: str, sums: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the map of every target, and what the inputs add and the sum of all terms."""
    shape = product.shape
    space = tuple(inputs.shape[axis] for axis in space_axes(inputs))
    has_channels = len(space) < inputs.ndim - 1
    found = _psi(product if has_channels else product.unsqueeze(2), space, rescale)
    for term in terms:
        product = term.gradient * term.bias
        # of one sample, whatever the axes
        sums = sums + total(product.reshape(*sums.shape, -1), 2)
        laid_out = product.movedim(term.channel + 1, 2)
        if laid_out.ndim == 3 + len(space) and laid_out.shape[1] == len(inputs):
            found = found + _psi(laid_out, space, rescale)
    found = found.unsqueeze(2) if has_channels else found
    return found.expand(*shape).clone(), sums


def _psi(product: Tensor, space: tuple[int, ...], rescale: str) -> Tensor:
    """Rectify, scale and enlarge (target, sample, channel, *space), and sum over channels."""
    size = product.abs()
    axes = tuple(range(2 if rescale == "tensor" else 3, size.ndim))
    low, high = size.amin(axes, keepdim=True), size.amax(axes, keepdim=True)
    width = torch.where(high > low, high - low, torch.ones_like(high))
    scaled = (size - low) / width
    # a sum is enlarged as well as its parts are, and faster
    return resized(wide(scaled).sum(2), space)


def _adds(module: nn.Module) -> bool:
    """Tell whether a layer adds a bias: one of its own, or that of its running statistics."""
    if isinstance(module, _NormBase):
        return module.running_mean is not None or module.bias is not None
    kinds = _ConvNd | nn.Linear | nn.GroupNorm | nn.LayerNorm
    return isinstance(module, kinds) and module.bias is not None


def _bias(module: Any, returned: Tensor) -> tuple[Tensor, int]:
    """Return what a layer adds, as it broadcasts against what it returned, and the channel axis."""
    bias = module.bias
    if isinstance(module, _NormBase) and module.running_mean is not None:
        deviation = torch.sqrt(module.running_var + module.eps)  # pyright: ignore
        shift = -module.running_mean / deviation
        bias = shift if bias is None else bias + module.weight * shift
    last = isinstance(module, nn.Linear) or (
        isinstance(module, nn.LayerNorm)
        # a convolutional network's norm of channels, which come first
        and getattr(module, "data_format", "channels_last") != "channels_first"
    )
    if last:
        return bias.detach(), returned.ndim - 1
    # of one example without a batch axis there is none to explain
    return bias.detach().reshape(-1, *(1,) * (returned.ndim - 2)), 1
