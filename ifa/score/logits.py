"""Scores of logits: the outputs of classes, of labels, or of a regression."""

import torch
from torch import Tensor

from ifa.declared import declare


@declare(picks=True, reads="logits")
def logit(output: Tensor, target: Tensor) -> Tensor:
    r"""Take the target's own output: a class logit, or a regression's value.

    .. math:: y = z_t

    Parameters
    ----------
    output : (output,) or ()
        Output z of one example.
    target : ()
        Index t; ignored if there is one output only, of shape ().

    Returns
    -------
    ()
        The score, in the output's unit.

    Raises
    ------
    ValueError
        If the output has more axes than one.

    Examples
    --------
    >>> import torch
    >>> logit(torch.tensor([0.5, -2.0]), torch.tensor(1))
    tensor(-2.)
    """
    if output.ndim == 0:
        return output
    one_axis("logit", output)
    return output.index_select(0, target.reshape(1)).squeeze(0)


@declare(reads="logits", exclusive=True)
def probability(output: Tensor, target: Tensor) -> Tensor:
    r"""Take the target's softmax probability.

    .. math:: y = e^{z_t} / \sum_j e^{z_j}

    The output must be logits of classes of which one is right: a network that ends in a softmax
    would be squashed twice, for which take `value`; for one logit, or several labels, `sigmoid`.

    Parameters
    ----------
    output : (output,)
        Logits z of one example.
    target : ()
        Index t.

    Returns
    -------
    ()
        Probability in [0, 1].

    Examples
    --------
    >>> import torch
    >>> probability(torch.zeros(4), torch.tensor(2))
    tensor(0.2500)
    """
    return _log_share("probability", output, target).exp()


@declare(reads="logits", exclusive=True)
def log_probability(output: Tensor, target: Tensor) -> Tensor:
    r"""Take the logarithm of the target's softmax probability, safe for extreme logits.

    .. math:: y = z_t - \log \sum_j e^{z_j}

    Parameters
    ----------
    output : (output,)
        Logits z of one example.
    target : ()
        Index t.

    Returns
    -------
    ()
        Log probability, at most 0.

    Examples
    --------
    >>> import torch
    >>> log_probability(torch.tensor([0.0, -1e6]), torch.tensor(1))
    tensor(-1000000.)
    """
    return _log_share("log_probability", output, target)


def _log_share(name: str, output: Tensor, target: Tensor) -> Tensor:
    if output.numel() == 1 and output.ndim < 2:
        raise ValueError(
            f"ifa.score.{name}: expected the logits of at least 2 classes, got one output, whose "
            "softmax is always 1. Take ifa.score.sigmoid, the probability of one logit, or "
            "ifa.score.value, the output as it is."
        )
    one_axis(name, output)
    return logit(torch.log_softmax(output, 0), target)


@declare(reads="logits", exclusive=False)
def sigmoid(output: Tensor, target: Tensor) -> Tensor:
    r"""Take the target's own probability, whatever the other outputs: of one logit, or of labels.

    .. math:: y = 1 / (1 + e^{-z_t})

    Parameters
    ----------
    output : (output,) or ()
        Logits z of one example.
    target : ()
        Index t.

    Returns
    -------
    ()
        Probability in [0, 1].

    Examples
    --------
    >>> import torch
    >>> sigmoid(torch.tensor([0.0, 40.0]), torch.tensor(0))
    tensor(0.5000)
    """
    return logit(output, target).sigmoid()


def one_axis(name: str, output: Tensor) -> None:
    """Raise unless an output has one axis; `name` is the score."""
    if output.ndim != 1:
        raise ValueError(
            f"ifa.score.{name}: expected an output of shape (output,) for each example, got "
            f"{tuple(output.shape)}. Pick the tensor with output=, or give a callable "
            "(output of one example, target) -> scalar as score."
        )
