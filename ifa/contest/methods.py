"""The methods of a table: every class activation map of a layer, and a map of noise as control."""

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ifa import perturb, weight
from ifa.chains import batched, chain
from ifa.explanation import explain
from ifa.noise import noise
from ifa.resizing import resize
from ifa.stages import combine, relu

Method = Callable[[nn.Module, Tensor, Any], Tensor]

# `fullcam` is `hirescam` by another name; `cam` is made for a model
_KERNELS = [name for name in weight.__all__ if name not in ("cam", "fullcam")]


def cam_methods(
    layer: str | None = None, *, rectify: bool = True, seed: int = 0
) -> dict[str, Method]:
    r"""List every class activation map of a layer as a method for `table`, and noise as control.

    Parameters
    ----------
    layer
        Name of a layer, or None for the last with a grid, as in `ifa.explain`.
    rectify
        Set what speaks against the target to zero.
    seed
        Of the noise.

    Returns
    -------
    dict
        Name -> ``(model, inputs, target) -> maps`` at the inputs' size: the kernels of
        `ifa.weight`; `cam`, for networks with one linear classifier; what `ifa.perturb` makes, with
        its defaults; and ``"noise"``, see `noise_map`.

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
    kernels = {
        name: partial(explain, layer=layer, weight=getattr(weight, name), rectify=rectify)
        for name in _KERNELS
    }
    perturbed = {
        name: partial(_perturbed, layer=layer, build=getattr(perturb, name), rectify=rectify)
        for name in perturb.__all__
    }
    own = {"cam": partial(_classified, layer=layer, rectify=rectify)}
    return {**kernels, **own, **perturbed, "noise": partial(noise_map, seed=seed)}


def noise_map(model: nn.Module, inputs: Tensor, target: Any = None, *, seed: int = 0) -> Tensor:
    r"""Draw a map of noise that knows nothing of the network: the control of a comparison.

    Parameters
    ----------
    model
        Not used.
    inputs : (sample, \*input)
        A batch.
    target
        None, an int, (sample,), or (target, sample), of which all targets get the same map.
    seed
        The noise of a sample depends on it and on the numbers of its input alone.

    Returns
    -------
    (sample, \*space) or (target, sample, \*space)
        Uniform in [0, 1).

    Examples
    --------
    >>> import torch
    >>> inputs = torch.rand(3, 1, 5)
    >>> maps = noise_map(torch.nn.Identity(), inputs)
    >>> torch.equal(noise_map(torch.nn.Identity(), inputs[1:2]), maps[1:2])
    True
    """
    del model
    space = tuple(inputs.shape[min(2, inputs.ndim - 1) :])
    like = torch.empty((), device=inputs.device)
    maps = torch.stack([noise(space, like, seed, *_digest(one)) for one in inputs])
    maps = torch.special.ndtr(maps).to(inputs.dtype)
    many = isinstance(target, Tensor) and target.ndim == 2
    return maps.expand(len(target), *maps.shape) if many else maps


def _digest(values: Tensor) -> tuple[int, ...]:
    """Give four numbers that identify what an input holds."""
    read = values.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    digest = hashlib.sha256(read).digest()
    return tuple(int.from_bytes(digest[at : at + 4], "little") for at in range(0, 16, 4))


def _classified(
    model: nn.Module, inputs: Tensor, target: Any, *, layer: str | None, rectify: bool
) -> Tensor:
    return explain(model, inputs, target, layer=layer, weight=weight.cam(model), rectify=rectify)


def _perturbed(
    model: nn.Module,
    inputs: Tensor,
    target: Any,
    *,
    layer: str | None,
    build: Callable[..., Any],
    rectify: bool,
) -> Tensor:
    steps = chain(combine, *([relu] if rectify else []), resize(inputs.shape[2:]))
    return batched(steps)(build(model, layer, inputs[:1])(inputs, target)).values
