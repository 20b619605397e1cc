r"""The scalar being explained: ``(output of one example, target) -> score``.

Any callable of that signature can be given as `score`; it is lifted over samples by `vmap`. The
output of one example is (output,), or () for a model with one unnamed output.
"""

import torch
from torch import Tensor

__all__ = ["log_probability", "logit", "probability"]


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
    _one_axis("logit", output)
    return output.index_select(0, target.reshape(1)).squeeze(0)


def probability(output: Tensor, target: Tensor) -> Tensor:
    r"""Take the target's softmax probability.

    .. math:: y = e^{z_t} / \sum_j e^{z_j}

    The output must be logits: a network that ends in a softmax would be squashed twice.

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
    return log_probability(output, target).exp()


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
    _one_axis("log_probability", output)
    return logit(torch.log_softmax(output, 0), target)


def _one_axis(name: str, output: Tensor) -> None:
    if output.ndim != 1:
        raise ValueError(
            f"ifa.score.{name}: expected an output of shape (output,) for each example, got "
            f"{tuple(output.shape)}. Pick the tensor with output=, or give a callable "
            "(output of one example, target) -> scalar as score."
        )
