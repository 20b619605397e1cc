"""Networks that end in a softmax or a sigmoid, which scores of logits misread: seen by outputs."""

import warnings
from typing import Any

import torch
from torch import Tensor

from ifa.chains import describe
from ifa.checks import outside
from ifa.declared import declared
from ifa.types import ProbabilityOutput, Score


def reads(score: Score) -> str | None:
    """Return what a score is declared to take outputs for; None where it is not known."""
    return declared(score, "reads")


def are_shares(output: Any) -> Tensor | None:
    """Tell whether every row is of shares that sum to 1: a scalar, None where it cannot be told.

    Of a single row, or of a single output, it may be by chance.
    """
    if not isinstance(output, Tensor) or output.ndim != 2 or min(output.shape) < 2:
        return None
    if not output.is_floating_point():
        return None
    output = output.detach()
    near = (output.sum(1, dtype=torch.float64) - 1).abs() <= torch.finfo(output.dtype).eps ** 0.5
    return (near & (output >= 0).all(1)).all()


def are_chances(output: Tensor) -> bool:
    """Tell whether all outputs of several samples lie between 0 and 1, as those of a sigmoid."""
    output = output.detach()
    return len(output) > 1 and bool(((output >= 0) & (output <= 1)).all())


def heed_shares(where: str, score: Score, output: Any) -> bool:
    """Warn of outputs that are shares under a score of logits; tell whether there was a look."""
    shares = are_shares(output) if reads(score) == "logits" else None
    if shares:
        warn_of_shares(where, score)
    return shares is not None


def heed_outputs(where: str, score: Score, output: Tensor, *, flags: bool) -> None:
    """Warn of outputs that a score takes for logits: chances of labels, or shares of classes."""
    if not flags:
        heed_shares(where, score, output)
    elif are_chances(output):
        warn_of_chances(where, score, len(output))


def warn_of_shares(where: str, score: Score) -> None:
    """Name a network that ends in a softmax under a score of logits."""
    twice = declared(score, "exclusive", False)
    what = "takes their softmax again" if twice else "is itself a probability there"
    _warn(
        f"{where}: the outputs of every sample are shares that sum to 1, as of a network that ends "
        f"in a softmax. The score {describe(score)} takes them for logits, and so it {what}. Give "
        "score=ifa.score.log_value for maps, whose gradient does not vanish where the network is "
        "sure, and score=ifa.score.value for metrics; or pick the logits with output=."
    )


def warn_of_chances(where: str, score: Score, samples: int) -> None:
    """Name a network that ends in a sigmoid under a score of logits."""
    _warn(
        f"{where}: all outputs of {samples} samples lie between 0 and 1, as of a network that ends "
        f"in a sigmoid. They are taken for logits, above 0 of which a label is predicted, as the "
        f"score {describe(score)} does. Give score=ifa.score.log_odds, which takes them for "
        "probabilities, above .5; or pick the logits with output=."
    )


def _warn(text: str) -> None:
    warnings.warn(text, ProbabilityOutput, stacklevel=outside())
