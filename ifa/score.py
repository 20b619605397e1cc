r"""The scalar being explained: ``(output of one example, target) -> score``.

Any callable of that signature can be given as `score`; it is lifted over samples by `vmap`. The
output of one example is (output,), or () for a model with one unnamed output. `logit`,
`probability`, `log_probability`, `sigmoid` and `contrast` read logits; `value`, `log_value` and
`log_odds` read the outputs of a network that ends in a softmax or a sigmoid.
"""

from collections.abc import Callable, Sequence
from functools import partial
from operator import index

import torch
from torch import Tensor

from ifa.checks import check_size
from ifa.declared import declare

__all__ = [
    "contrast",
    "log_odds",
    "log_probability",
    "log_value",
    "logit",
    "probability",
    "region",
    "sigmoid",
    "similarity",
    "value",
]

Score = Callable[[Tensor, Tensor], Tensor]


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
    _one_axis("logit", output)
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
    _one_axis(name, output)
    return logit(torch.log_softmax(output, 0), target)


@declare(reads="logits")
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


def contrast(*, gamma: float = 0.6, references: int | Sequence[int] = 3) -> Score:
    r"""Take what the target's logit has over those of similar classes, as Finer-CAM does.

    .. math:: y = z_t - \gamma \frac{1}{|D|} \sum_{d \in D} z_d

    The gradient of this score finds what tells the target from the references D, not what they
    share.

    Parameters
    ----------
    gamma
        How much of the references is taken away: 0 is the logit itself.
    references
        How many classes D has, those of the smallest :math:`|z_d - z_t|`, without the target, the
        first of equal ones; all others if there are fewer. Or the indices of D themselves, for
        every target; where the target is one of them it is left out.

    Returns
    -------
    callable
        ``(output, target) -> score``, the output being logits (output,); in their unit. Which
        classes are nearest is a constant for the gradient. NaN if the target is the only reference.

    Raises
    ------
    ValueError
        If there is no reference, or one is given twice or out of range, or gamma is not finite or
        negative.

    References
    ----------
    Zhang et al. 2025, "Finer-CAM: spotting the difference reveals finer details for visual
    explanation". arXiv:2501.11309

    Examples
    --------
    >>> import torch
    >>> logits, target = torch.tensor([4.0, 1.0, 3.0, 0.0]), torch.tensor(0)
    >>> contrast(gamma=0.5, references=2)(logits, target)
    tensor(3.)
    >>> contrast(gamma=0.5, references=[3])(logits, target)
    tensor(4.)
    """
    check_size("ifa.score.contrast", "gamma", gamma)
    if isinstance(references, int):
        if references < 1:
            raise ValueError(
                f"ifa.score.contrast: expected references >= 1, got {references}. "
                "For no reference take ifa.score.logit."
            )
        return partial(_contrast, gamma=gamma, references=references)
    try:
        given = tuple(map(index, references))
    except TypeError:  # rows, or real numbers
        given = ()
    if not given or len(set(given)) < len(given) or min(given) < 0:
        raise ValueError(
            "ifa.score.contrast: expected distinct indices of outputs as references, got "
            f"{references!r}. They are the same for every sample: where each has its own, explain "
            "the samples of each reference by themselves."
        )
    return partial(_contrast, gamma=gamma, references=given)


@declare(reads="logits")
def _contrast(
    output: Tensor, target: Tensor, *, gamma: float, references: int | tuple[int, ...]
) -> Tensor:
    _one_axis("contrast", output)
    logit_of_target = logit(output, target)
    indices = torch.arange(len(output), device=output.device)
    if isinstance(references, int):
        if len(output) < 2:
            raise ValueError(
                f"ifa.score.contrast: expected at least 2 outputs, got {len(output)}. "
                "Take ifa.score.logit."
            )
        # infinitely far from itself; the sort keeps equal ones in order
        distance = (
            (output - logit_of_target).detach().abs().masked_fill(indices == target, torch.inf)
        )
        nearest = distance.argsort(stable=True)[: min(references, len(output) - 1)]
        return logit_of_target - gamma * output.gather(0, nearest).mean()
    if max(references) >= len(output):
        raise ValueError(
            f"ifa.score.contrast: expected references in 0..{len(output) - 1}, the model's "
            f"{len(output)} outputs, got {max(references)}."
        )
    chosen = torch.tensor(references, device=output.device)
    weights = (chosen != target).to(output.dtype)
    return logit_of_target - gamma * (output[chosen] * weights).sum() / weights.sum()


def region(*, mask: Tensor | None = None) -> Score:
    r"""Take the mean of the target's scores over a region: for segmentation.

    .. math:: y = \frac{1}{|R|} \sum_{x \in R} z_{t x}

    Parameters
    ----------
    mask : (\*space), optional
        Boolean, the region R of every sample. None takes the predicted region of each: where the
        target's score is the largest. It is a constant for the gradient.

    Returns
    -------
    callable
        ``(output, target) -> score``, the output being (class, \*space); in the unit of the scores.
        NaN, and so is its gradient, where the target is predicted nowhere: there is nothing to
        explain, and a gradient of zero would look like an explanation.

    Raises
    ------
    ValueError
        If the mask is empty, not boolean, or not shaped like the output's space.

    Examples
    --------
    >>> import torch
    >>> scores = torch.tensor([[3.0, 1.0, 5.0], [2.0, 2.0, 2.0]])  # two classes, three places
    >>> region()(scores, torch.tensor(0)), region()(scores, torch.tensor(1))
    (tensor(4.), tensor(2.))
    >>> region(mask=torch.tensor([True, True, False]))(scores, torch.tensor(0))
    tensor(2.)
    """
    if mask is None:
        return partial(_region, mask=None)
    if mask.dtype != torch.bool or not mask.any():
        raise ValueError(
            f"ifa.score.region: expected a boolean mask that is somewhere true, got {mask.dtype} "
            f"{tuple(mask.shape)} with {int(mask.count_nonzero())} places."
        )
    return partial(_region, mask=mask)


def _region(output: Tensor, target: Tensor, *, mask: Tensor | None) -> Tensor:
    if output.ndim < 2 or (mask is not None and mask.shape != output.shape[1:]):
        wanted = "*space" if mask is None else ", ".join(map(str, mask.shape))
        raise ValueError(
            f"ifa.score.region: expected an output of shape (class, {wanted}) for each example, "
            f"got {tuple(output.shape)}. Pick the tensor with output=."
        )
    scores = output.index_select(0, target.reshape(1)).squeeze(0)
    inside = output.detach().argmax(0) == target if mask is None else mask.to(output.device)
    count = inside.sum()
    weights = inside.to(output.dtype) / count  # NaN if there is no place, also for the gradient
    return (torch.where(inside | (count == 0), scores, 0) * weights).sum()


def similarity(*, reference: Tensor) -> Score:
    r"""Take the cosine between the output, an embedding, and a reference.

    .. math:: y = \frac{z \cdot r}{\|z\| \, \|r\|}

    Parameters
    ----------
    reference : (feature,)
        Embedding r to compare with, such as that of another image or of a text.

    Returns
    -------
    callable
        ``(output, target) -> score``, the output being (feature,); in [-1, 1], without unit. The
        target is ignored: give 0. NaN for an embedding of length 0, which has no direction.

    Raises
    ------
    ValueError
        If the reference is not one vector of finite length above 0, or the output not of its shape.

    Examples
    --------
    >>> import torch
    >>> like = similarity(reference=torch.tensor([0.0, 2.0]))
    >>> like(torch.tensor([0.0, 5.0]), torch.tensor(0))
    tensor(1.)
    """
    if reference.ndim != 1 or not reference.isfinite().all() or not reference.any():
        raise ValueError(
            "ifa.score.similarity: expected a reference (feature,) of finite length above 0, got "
            f"shape {tuple(reference.shape)}."
        )
    return partial(_similarity, reference=reference)


def _similarity(output: Tensor, target: Tensor, *, reference: Tensor) -> Tensor:
    if output.shape != reference.shape:
        raise ValueError(
            f"ifa.score.similarity: expected an output of shape {tuple(reference.shape)} for each "
            f"example, as the reference, got {tuple(output.shape)}. Pick the embedding with "
            "output=."
        )
    return _direction(output) @ _direction(reference.detach().to(output))


def _direction(vector: Tensor) -> Tensor:
    # scaled first, so that squares neither overflow nor vanish
    scaled = vector / vector.detach().abs().amax()
    return scaled / scaled.square().sum().sqrt()


def _one_axis(name: str, output: Tensor) -> None:
    if output.ndim != 1:
        raise ValueError(
            f"ifa.score.{name}: expected an output of shape (output,) for each example, got "
            f"{tuple(output.shape)}. Pick the tensor with output=, or give a callable "
            "(output of one example, target) -> scalar as score."
        )
