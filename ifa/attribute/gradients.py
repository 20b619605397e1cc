"""The gradient of the score with respect to the input, and two readings of it."""

from typing import Any

import torch
from torch import Tensor, nn

from ifa.attribute.attributions import Attribution, scorer_of, slopes
from ifa.network.inputs import over
from ifa.network.scorers import Scorer
from ifa.score import logit
from ifa.types import Output, Score


def gradient(model: nn.Module, *, score: Score = logit, output: Output = None) -> Attribution:
    r"""Differentiate the score by the input.

    .. math:: a = \partial y / \partial x

    Parameters
    ----------
    model, score, output
        As in `ifa.tap`. The model is never touched.

    Returns
    -------
    callable
        ``(inputs, target=None) -> attribution`` shaped like the inputs, signed, in the score's unit
        per unit of the input. Inputs are a tensor, a tuple of them (positional arguments) or a
        mapping (by keyword), and so is the attribution, with None in the place of what is not of
        real numbers. `target` is None for the prediction, an int, (sample,), or (target,
        sample): many targets from one forward pass, which have their axis first. What the network
        runs under ``no_grad`` is a constant; NaN where the score is.

    Raises
    ------
    TypeError, ValueError
        If the model is no module, or in training mode with dropout or batch norm; later, if inputs
        are no batch of real numbers, or a target is out of range.

    References
    ----------
    Simonyan et al. 2014, "Deep inside convolutional networks". arXiv:1312.6034

    Examples
    --------
    >>> import ifa, torch
    >>> net = torch.nn.Linear(2, 1, bias=False)
    >>> _ = net.weight.data.copy_(torch.tensor([[3.0, -1.0]]))
    >>> ifa.attribute.gradient(net)(torch.tensor([[5.0, 7.0]]), target=0)
    tensor([[ 3., -1.]])
    """
    return Attribution(scorer_of("gradient", model, score, output), slopes)


def saliency(model: nn.Module, *, score: Score = logit, output: Output = None) -> Attribution:
    r"""Take the size of the gradient.

    .. math:: a = \left| \partial y / \partial x \right|

    Parameters
    ----------
    model, score, output
        As in `ifa.tap`. The model is never touched.

    Returns
    -------
    callable
        ``(inputs, target=None) -> attribution`` as of `ifa.attribute.gradient`, never negative.
        ``ifa.attribute.collapse(..., how="absmax")`` of it is the paper's map.

    Raises
    ------
    TypeError, ValueError
        As `ifa.attribute.gradient`.

    References
    ----------
    Simonyan et al. 2014, "Deep inside convolutional networks". arXiv:1312.6034

    Examples
    --------
    >>> import ifa, torch
    >>> net = torch.nn.Linear(2, 1, bias=False)
    >>> _ = net.weight.data.copy_(torch.tensor([[3.0, -1.0]]))
    >>> ifa.attribute.saliency(net)(torch.tensor([[5.0, 7.0]]), target=0)
    tensor([[3., 1.]])
    """
    return Attribution(scorer_of("saliency", model, score, output), _size)


def input_times_gradient(
    model: nn.Module, *, score: Score = logit, output: Output = None
) -> Attribution:
    r"""Multiply the input with its gradient.

    .. math:: a = x \odot \partial y / \partial x

    Parameters
    ----------
    model, score, output
        As in `ifa.tap`. The model is never touched.

    Returns
    -------
    callable
        ``(inputs, target=None) -> attribution`` as of `ifa.attribute.gradient`, signed, in the
        score's unit. Its sum is the score of a network that is linear without bias.

    Raises
    ------
    TypeError, ValueError
        As `ifa.attribute.gradient`.

    References
    ----------
    Shrikumar et al. 2016, "Not just a black box". arXiv:1605.01713

    Examples
    --------
    >>> import ifa, torch
    >>> net = torch.nn.Linear(2, 1, bias=False)
    >>> _ = net.weight.data.copy_(torch.tensor([[3.0, -1.0]]))
    >>> ifa.attribute.input_times_gradient(net)(torch.tensor([[5.0, 7.0]]), target=0)
    tensor([[15., -7.]])
    """
    return Attribution(scorer_of("input_times_gradient", model, score, output), _times_input)


def _size(scorer: Scorer, inputs: Any, targets: Tensor) -> Any:
    return over(torch.abs, slopes(scorer, inputs, targets))


def _times_input(scorer: Scorer, inputs: Any, targets: Tensor) -> Any:
    return over(torch.mul, slopes(scorer, inputs, targets), inputs)
