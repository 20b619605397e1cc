r"""What stands for "nothing there": a number, a tensor, or a function of the inputs.

``baseline=`` of metrics and attributions takes any of them. A function gets (sample, \*input) and
returns the same shape; those here treat every sample, and every channel where one is averaged or
blurred, alone. Inputs of two axes or more are (channel, \*space), of one axis (space,).

An imputation, such as `linear`, is a function of the inputs and of what is shown of them: metrics
that hide positions take it.
"""

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from ifa.chains import describe
from ifa.checks import check_noise
from ifa.declared import declare, declared
from ifa.noise import noise as normal

__all__ = ["black", "blur", "imputation", "linear", "mean", "white"]

Baseline = float | Tensor | Callable[[Tensor], Tensor] | Callable[[Tensor, Tensor], Tensor]
F = TypeVar("F", bound=Callable[..., Any])


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


def imputation(function: F) -> F:
    r"""Declare a function that fills in what is hidden, for ``baseline=`` of metrics that hide.

    Parameters
    ----------
    function
        ``(inputs, shown) -> inputs``, all (sample, \*input): ``shown`` is boolean, and what is
        returned is the input where it is true.

    Returns
    -------
    callable
        The function. `functools.partial` binds its options.

    Examples
    --------
    >>> import torch
    >>> @imputation
    ... def mean_of_shown(inputs, shown):
    ...     return torch.where(shown, inputs, inputs[shown].mean())
    """
    return declare(takes="shown")(function)


def imputes(baseline: Any) -> bool:
    """Tell whether a baseline depends on what is shown."""
    return declared(baseline, "takes") == "shown"


def linear(*, noise: float = 0.01, seed: int = 0) -> Callable[[Tensor, Tensor], Tensor]:
    r"""Make an imputation: each hidden position is the mean of its neighbours, plus noise.

    .. math:: x_p = \sum_q w_{pq} \, x_q \Big/ \sum_q w_{pq} \quad \text{for hidden } p

    over the neighbours q in the grid, diagonal ones as well, shown or hidden themselves: a sparse
    linear system for each channel. An axis along which a neighbour is displaced halves its weight:
    those of ``[1, 2, 1]`` along every axis, without the centre. In two dimensions that is 1/6 and
    diagonally 1/12, as in the source; in one, 1/2; in three, 1/14, 1/28 and 1/56.

    Parameters
    ----------
    noise
        Standard deviation of the normal noise, in the inputs' unit. What is smooth tells a network
        where something was hidden; noise makes that harder.
    seed
        Of the noise, which depends on it and on the position alone.

    Returns
    -------
    callable
        ``(inputs, shown) -> inputs``, for ``baseline=`` of metrics that hide positions. Of a
        channel of which nothing is shown all is 0, plus noise.

    Raises
    ------
    ValueError
        If noise is negative or not finite.

    References
    ----------
    Rong et al. 2022, "A consistent and efficient evaluation strategy for attribution methods"
    (noisy linear imputation). arXiv:2202.00449

    Examples
    --------
    >>> import torch
    >>> shown = torch.tensor([[True, False, False, True, False]])
    >>> linear(noise=0.0)(torch.tensor([[0.0, 9.0, 9.0, 3.0, 9.0]]), shown)
    tensor([[0., 1., 2., 3., 3.]])
    """
    check_noise("ifa.baseline.linear", 1, noise, seed)
    return partial(_filled, stdev=noise, seed=seed)


@imputation
def _filled(inputs: Tensor, shown: Tensor, *, stdev: float, seed: int) -> Tensor:
    axes = space_axes(inputs)
    rows = inputs.flatten(0, axes[0] - 1).double()
    known = shown.flatten(0, axes[0] - 1)
    share = 1e-10 if inputs.dtype == torch.float64 else 1e-6
    found = _harmonic(rows, ~known, share).reshape(inputs.shape).to(inputs)
    added = stdev * normal(inputs.shape[1:], inputs, seed) if stdev else 0.0
    return torch.where(shown, inputs, found + added)


def _harmonic(rows: Tensor, hidden: Tensor, share: float) -> Tensor:
    r"""Fill what is hidden of (row, \*space) by conjugate gradients, each row by itself.

    A share of the right side may be left: errors are larger, by the width of what is hidden.
    """
    axes = range(1, rows.ndim)
    degree = _around(torch.ones_like(rows[:1]), axes)

    def laplacian(values: Tensor) -> Tensor:
        return torch.where(hidden, degree * values - _around(values, axes), 0.0)

    def product(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).flatten(1).sum(1).reshape(-1, *(1,) * len(axes))

    # the neighbours' weights are symmetric, so that the system is, and positive definite
    goal = share**2 * product(*[laplacian(torch.where(hidden, 0.0, rows))] * 2)
    found = _between(rows, hidden)
    residual = -laplacian(found)
    step, size = residual.clone(), product(residual, residual)
    for _ in range(rows[0].numel()):
        if not (far := size > goal).any():
            break
        change = laplacian(step)
        # a row that is there stays there, however long others of its batch take
        length = torch.where(far, size / product(step, change), 0.0)
        found.add_(length * step)
        residual.sub_(length * change)
        before, size = size, torch.where(far, product(residual, residual), size)
        step = residual + torch.where(far, size / before, 0.0) * step
    return found


def _around(values: Tensor, axes: Iterable[int]) -> Tensor:
    """Add to twice each value its two neighbours, along one axis after the other."""
    for axis in axes:
        count = values.shape[axis] - 1
        total = 2 * values
        total.narrow(axis, 0, count).add_(values.narrow(axis, 1, count))
        total.narrow(axis, 1, count).add_(values.narrow(axis, 0, count))
        values = total
    return values


def _between(rows: Tensor, hidden: Tensor) -> Tensor:
    """Interpolate along the last axis, which solves a line; the mean where no value is on it."""
    count = rows.shape[-1]
    place = torch.arange(count, device=rows.device).expand_as(rows)
    below = torch.where(hidden, -1, place).cummax(-1).values
    above = torch.where(hidden, count, place).flip(-1).cummin(-1).values.flip(-1)
    low, high = rows.gather(-1, below.clamp(min=0)), rows.gather(-1, above.clamp(max=count - 1))
    low, high = torch.where(below < 0, high, low), torch.where(above == count, low, high)
    between = low + (place - below) / (above - below) * (high - low)
    flat, gone = rows.flatten(1), hidden.flatten(1)
    mean = torch.where(gone, 0.0, flat).sum(1) / (~gone).sum(1).clamp(min=1)
    nothing = (below < 0) & (above == count)
    between = torch.where(nothing, mean.reshape(-1, *(1,) * (rows.ndim - 1)), between)
    return torch.where(hidden, between, rows)


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
    if imputes(baseline):
        raise ValueError(
            f"{where}: expected a baseline that does not depend on what is hidden, got the "
            f"imputation {describe(baseline)}. Take a number, or e.g. ifa.baseline.blur(4.0)."
        )
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
