"""Scores of outputs that are probabilities: of networks that end in a softmax or a sigmoid."""

from torch import Tensor

from ifa.declared import declare
from ifa.score.logits import logit


@declare(picks=True, reads="probabilities")
def value(output: Tensor, target: Tensor) -> Tensor:
    r"""Take the target's own output as it is: the probability that a network ends in, or a value.

    .. math:: y = p_t

    What `probability` is of logits, for metrics and maps of a network that ends in a softmax or a
    sigmoid. Its gradient vanishes where the network is sure: for maps take `log_value` or
    `log_odds`.

    Parameters
    ----------
    output : (output,) or ()
        Outputs p of one example.
    target : ()
        Index t; ignored if there is one output only, of shape ().

    Returns
    -------
    ()
        The output, in its own unit.

    Examples
    --------
    >>> import torch
    >>> value(torch.tensor([0.25, 0.75]), torch.tensor(1))
    tensor(0.7500)
    """
    return logit(output, target)


@declare(reads="probabilities")
def log_value(output: Tensor, target: Tensor) -> Tensor:
    r"""Take the logarithm of the target's own output, a probability that the network ends in.

    .. math:: y = \ln p_t, \qquad \frac{\partial y}{\partial z_j} = [j = t] - p_j

    For a network that ends in a softmax of logits z it is `log_probability` of these, with the same
    gradient, also where the network is sure.

    Parameters
    ----------
    output : (output,) or ()
        Probabilities p of one example.
    target : ()
        Index t; ignored if there is one output only, of shape ().

    Returns
    -------
    ()
        Log probability, at most 0; -inf, and a map that is not finite, where the probability is too
        small for its dtype: below 1e-45 in float32.

    Examples
    --------
    >>> import torch
    >>> from ifa.score import log_probability
    >>> logits, target = torch.tensor([1.0, -2.0, 0.5]), torch.tensor(0)
    >>> torch.allclose(log_value(logits.softmax(0), target), log_probability(logits, target))
    True
    """
    return logit(output, target).log()


@declare(reads="probabilities")
def log_odds(output: Tensor, target: Tensor) -> Tensor:
    r"""Take the log-odds of the target's own output, a probability that the network ends in.

    .. math:: y = \ln \frac{p_t}{1 - p_t}

    For a network that ends in a sigmoid it is the logit, with its gradient. For one that ends in a
    softmax, the logit less the log-sum-exp of the others.

    Parameters
    ----------
    output : (output,) or ()
        Probabilities p of one example.
    target : ()
        Index t; ignored if there is one output only, of shape ().

    Returns
    -------
    ()
        Log-odds; infinite, and a map that is not finite, where the probability is rounded to 0 or
        1: in float32 from odds of 2e7 to 1. As exact as the probability: at odds of 1e4 to 1 to
        about 1e-3. Where the network can be asked for its logits, these are better.

    Examples
    --------
    >>> import torch
    >>> log_odds(torch.tensor([0.5, 0.9]).double(), torch.tensor(1))
    tensor(2.1972, dtype=torch.float64)
    """
    chance = logit(output, target)
    return chance.log() - (-chance).log1p()
