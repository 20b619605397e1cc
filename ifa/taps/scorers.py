"""A network as a function of its inputs alone: their scores, and the gradients of these."""

import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import debug_unwrap, vjp, vmap

from ifa.chains import describe
from ifa.taps.outputs import Output, pick
from ifa.taps.replicas import plain, replicas
from ifa.taps.requests import as_targets, predicted
from ifa.taps.sites import refuse_inference_mode

# Gradients of this many bytes at once are fastest on a CPU: they fit in the cache.
CHUNK_BYTES = 16 * 2**20

Score = Callable[[Any, Tensor], Tensor]


class Scorer:
    """Scores of a network's inputs, on a private copy of it: one for each thread.

    Parameters
    ----------
    where
        What an error names: the public function.
    model
        The network, in evaluation mode. Never touched.
    score
        ``(output of one example, target) -> scalar``.
    output
        Picks the output out of what the model returns, as in `ifa.tap`.
    """

    def __init__(self, where: str, model: nn.Module, score: Score, output: Output = None):
        check_score(where, score)
        self.where, self.score, self.output = where, score, output
        self.model = plain(model)
        self._replicas = replicas(self.model, (), where=where)

    def __repr__(self) -> str:
        return f"{type(self.model).__name__}, score={describe(self.score)}"

    def run(self, inputs: Tensor) -> Any:
        """Return the output, `inputs` left as they are even by a model that writes to them."""
        return pick(self._replicas.get().run(inputs.clone(), _untouched), self.output)

    def scores(self, inputs: Tensor, target: Tensor) -> Tensor:
        """Return the scores of targets (sample,) or (target, sample), in the same shape."""
        return score_all(self.where, self.score, self.run(inputs), target)

    def targets(self, inputs: Tensor, target: Any) -> Tensor:
        """Return checked targets, (sample,) or (target, sample); None is the prediction."""
        refuse_inference_mode(self.where)
        with torch.no_grad():
            output = self.run(inputs if target is None else inputs[:1])
        outputs = output.shape[1:] if isinstance(output, Tensor) else None
        count = None if outputs is None else (*outputs, 1)[0]
        chosen = as_targets(self.where, target, len(inputs), count, inputs.device)
        return predicted(self.where, output) if chosen is None else chosen

    def gradients(self, inputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return gradients with respect to the inputs, and the scores they are of.

        Of targets (target, sample) both have the target axis first; there is one forward pass.
        """
        scores, pull = vjp(partial(self.scores, target=target), inputs)[:2]
        (gradients,) = pull_all(pull, scores, (inputs,))
        return gradients, scores


def check_score(where: str, score: Any) -> None:
    """Raise unless a score can be called."""
    if not callable(score):
        raise TypeError(
            f"{where}: expected a score (output, target) -> scalar, got {score!r}. "
            "Take one of ifa.score, e.g. ifa.score.logit."
        )


def score_all(where: str, score: Score, output: Any, target: Tensor) -> Tensor:
    """Score every example's output for its target, (sample,), or for many, (target, sample)."""
    over_samples = vmap(score)
    if target.ndim == 1:
        scores = over_samples(output, target)
    else:
        scores = vmap(over_samples, in_dims=(None, 0))(output, target)
    if scores.shape != target.shape:
        raise ValueError(
            f"{where}: expected a score (output of one example, target) -> scalar, got shape "
            f"{tuple(scores.shape[target.ndim :])} for each example from {describe(score)}."
        )
    return scores


def pull_all(pull: Any, scores: Tensor, like: Sequence[Tensor]) -> Sequence[Tensor]:
    """Pull every score back to what it was differentiated by, which is `like`."""
    # a graph of the gradients themselves only where the caller differentiates through us
    graph = scores.requires_grad or debug_unwrap(scores) is not scores
    if scores.ndim == 1:
        return pull(torch.ones_like(scores), retain_graph=graph, create_graph=graph)
    targets = len(scores)
    one_hot = torch.eye(targets, dtype=scores.dtype, device=scores.device)
    cotangents = one_hot[:, :, None].expand(-1, -1, scores.shape[1])
    size = sum(tensor.numel() * tensor.element_size() for tensor in like)
    chunk = max(1, min(targets, CHUNK_BYTES // size))
    with warnings.catch_warnings():
        # operations that vmap must loop over, such as fused attention and LSTM, are right as well
        warnings.filterwarnings("ignore", message="There is a performance drop")
        # what vmap cannot do at all, such as batch norm under autocast, is done one by one; an
        # error of another cause comes again
        with suppress(RuntimeError):
            return vmap(partial(pull, create_graph=graph), chunk_size=chunk)(cotangents)
        each = [pull(cotangent, True, graph) for cotangent in cotangents]
        return [torch.stack(gradients) for gradients in zip(*each, strict=True)]


def _untouched(call: str, tensor: Tensor) -> Tensor:
    return tensor
