r"""What stands for "nothing there": a number, a tensor, or a function of the inputs.

``baseline=`` of metrics and attributions takes any of them. A function gets (sample, \*input) and
returns the same shape; those here treat every sample, and every channel where one is averaged or
blurred, alone. Inputs of two axes or more are (channel, \*space), of one axis (space,).
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

__all__ = ["black", "blur", "mean", "white"]

Baseline = float | Tensor | Callable[[Tensor], Tensor]


def black(inputs: Tensor) -> Tensor:
    r"""Take each sample's smallest value.

    Parameters
    ----------
    inputs : (sample, \*input)
        A batch.

    Returns
    -------
    (sample, \*input)
        The baseline.

    Examples
    --------
    >>> import torch
    >>> black(torch.tensor([[1.0, 3.0], [5.0, 2.0]]))
    tensor([[1., 1.],
            [2., 2.]])
    """
    return inputs.amin(tuple(range(1, inputs.ndim)), keepdim=True).expand_as(inputs)


def white(inputs: Tensor) -> Tensor:
    r"""Take each sample's largest value.

    Parameters
    ----------
    inputs : (sample, \*input)
        A batch.

    Returns
    -------
    (sample, \*input)
        The baseline.

    Examples
    --------
    >>> import torch
    >>> white(torch.tensor([[1.0, 3.0], [5.0, 2.0]]))
    tensor([[3., 3.],
            [5., 5.]])
    """
    return inputs.amax(tuple(range(1, inputs.ndim)), keepdim=True).expand_as(inputs)


def mean(inputs: Tensor) -> Tensor:
    r"""Take the mean over space of each sample's channels.

    Parameters
    ----------
    inputs : (sample, \*input)
        A batch.

    Returns
    -------
    (sample, \*input)
        The baseline.

    Examples
    --------
    >>> import torch
    >>> mean(torch.tensor([[[1.0, 3.0], [5.0, 7.0]]]))
    tensor([[[2., 2.],
             [6., 6.]]])
    """
    return inputs.mean(space_axes(inputs), keepdim=True).expand_as(inputs)


def blur(sigma: float) -> Callable[[Tensor], Tensor]:
    r"""Make a baseline that blurs each channel: the heat equation's solution, borders mirrored.

    .. math::

        L(\sigma) = C^\top \operatorname{diag}\left(e^{-\sigma^2 (\pi k / n)^2 / 2}\right) C\, x

    along every space axis of length n, with C the orthonormal cosine transform and k = 0..n−1. It
    is the identity at 0, tends to the mean, and holds for any sigma, also beyond the image.

    Parameters
    ----------
    sigma
        Standard deviation of the Gaussian, in positions.

    Returns
    -------
    callable
        ``(sample, *input) -> (sample, *input)``.

    Raises
    ------
    ValueError
        If sigma is negative or not finite.

    Examples
    --------
    >>> import torch
    >>> blur(100.0)(torch.tensor([[[0.0, 2.0, 4.0]]]))
    tensor([[[2., 2., 2.]]])
    """
    if not 0 <= sigma < math.inf:
        raise ValueError(
            f"ifa.baseline.blur: expected a finite sigma that is not negative, got {sigma}."
        )
    return partial(_blurred, sigma=sigma)


def _blurred(inputs: Tensor, *, sigma: float) -> Tensor:
    return diffused(inputs, torch.tensor(sigma, dtype=torch.float64))


def diffused(inputs: Tensor, sigma: Tensor) -> Tensor:
    """Blur every channel of a batch by a sigma, (), that may be differentiated or mapped."""
    values = inputs
    for axis in space_axes(inputs):
        size = inputs.shape[axis]
        kernel = heat_kernel(size, sigma.to(inputs.device)).to(inputs.dtype)
        values = torch.movedim(torch.movedim(values, axis, -1) @ kernel, -1, axis)
    return values


def heat_kernel(size: int, sigma: Tensor) -> Tensor:
    """Return the symmetric (size, size) matrix that blurs an axis by sigma."""
    wave, frequency = _waves(size, sigma.device)
    return (wave.T * torch.exp(-0.5 * (sigma.double() * frequency).square())) @ wave


def diffusion(inputs: Tensor) -> Tensor:
    """Return the Laplacian of every channel: a blurred batch's derivative by sigma, over sigma."""
    found = torch.zeros_like(inputs)
    for axis in space_axes(inputs):
        wave, frequency = _waves(inputs.shape[axis], inputs.device)
        second = (-(wave.T * frequency.square()) @ wave).to(inputs.dtype)
        found = found + torch.movedim(torch.movedim(inputs, axis, -1) @ second, -1, axis)
    return found


def _waves(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the cosine transform of an axis, (frequency, place), orthonormal; and frequencies."""
    place = torch.arange(size, dtype=torch.float64, device=device)
    wave = torch.cos(torch.pi / size * (place[None] + 0.5) * place[:, None]) * (2 / size) ** 0.5
    return torch.cat([wave[:1] / 2**0.5, wave[1:]]), torch.pi * place / size


def baseline_of(where: str, baseline: Any, inputs: Tensor) -> Tensor:
    """Return the baseline of a batch: a number, a tensor or a function, as the inputs are."""
    value: Any = baseline
    if callable(baseline):  # one number for each sample is a space of one
        value = baseline(inputs.reshape(len(inputs), -1) if inputs.ndim < 2 else inputs)
        value = value.reshape(inputs.shape) if inputs.ndim < 2 else value
    try:
        value = torch.as_tensor(value, dtype=inputs.dtype, device=inputs.device)
        return value.expand_as(inputs)
    except (TypeError, ValueError, RuntimeError):
        came = tuple(value.shape) if isinstance(value, Tensor) else repr(value)
        raise ValueError(
            f"{where}: expected a baseline that is a number, a tensor like the inputs "
            f"{tuple(inputs.shape)}, or a function to one, got {came}. "
            "Take one of ifa.baseline, e.g. ifa.baseline.blur(4.0)."
        ) from None


def space_axes(inputs: Tensor) -> tuple[int, ...]:
    """Return the space axes of a batch: all but sample and channel, if it has channels."""
    return tuple(range(max(1, min(2, inputs.ndim - 1)), inputs.ndim))
