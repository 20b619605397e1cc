"""A network as a function of its inputs alone: their scores, and the gradients of these."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vjp

from ifa.chains import describe
from ifa.network.budgets import fitting
from ifa.network.gradients import (
    Graph,
    check_score,
    differentiable,
    joined,
    pulled,
    score_all,
    transformed,
)
from ifa.network.inputs import (
    clone,
    count,
    device_of,
    filled,
    floating,
    refuse_inference_mode,
    take,
    tensors_of,
)
from ifa.network.outputs import map_tensors, pick
from ifa.network.probabilities import heed_shares, reads
from ifa.network.replicas import plain, replicas
from ifa.network.sites import Site, examine
from ifa.network.targets import as_targets, predicted
from ifa.score.rows import output_of, rows_of
from ifa.types import Inputs, Output, Score, Target


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
        self.where, self.score, self.output = where, score, output_of(score, output)
        self.model = plain(model)
        self._replicas = replicas(self.model, (), where=where)
        self._looked = reads(score) != "logits"  # whether the outputs were, for what they are

    def __repr__(self) -> str:
        return f"{type(self.model).__name__}, score={describe(self.score)}"

    def run(self, inputs: Inputs) -> Any:
        """Return the output, `inputs` left as they are even by a model that writes to them."""
        return pick(self._replicas.get().run(clone(inputs), _untouched), self.output)

    def scores(self, inputs: Inputs, target: Tensor) -> Tensor:
        """Return the scores of targets (sample,) or (target, sample), in the same shape."""
        output = self.run(inputs)
        self._look(output)
        return score_all(self.where, self.score, output, target)

    def targets(self, inputs: Inputs, target: Target) -> Tensor:
        """Return checked targets, (sample,) or (target, sample); None is the prediction."""
        refuse_inference_mode(self.where)
        if target is None and rows_of(self.score) is None:
            with torch.no_grad():
                return predicted(self.where, self.run(inputs))
        outputs = self.outputs(inputs)
        device = device_of(inputs)
        chosen = as_targets(self.where, target, count(inputs), outputs, device, self.score)
        assert chosen is not None  # because the target is not None
        return chosen

    def outputs(self, inputs: Inputs) -> int | None:
        """How many outputs an example has; asked of the network once, until it is changed."""
        known = self._replicas.get().known
        if "outputs" not in known:
            with torch.no_grad():
                output = self.run(take(inputs, slice(1)))
            known["outputs"] = (*output.shape[1:], 1)[0] if isinstance(output, Tensor) else None
        return known["outputs"]

    def fitting(self, inputs: Inputs) -> int:
        """Return how many inputs like these run at once where nobody said."""
        own = [Site("", tuple(one.shape[1:]), one.dtype) for one in tensors_of(inputs)]
        known, like = self._replicas.get().known, str(own)
        if like not in known:
            example = take(inputs, slice(1))
            sites = examine(self.model, example, self.output, self.where).sites
            known[like] = fitting([*own, *sites.values()], device_of(inputs))
        return known[like]

    def gradients(self, inputs: Inputs, target: Tensor) -> tuple[Any, Tensor]:
        r"""Return gradients with respect to the inputs, and the scores they are of.

        Of targets (target, sample) both have the target axis first; there is one forward pass. Of a
        tree the gradients are one, with None where a tensor is not of real numbers.
        """
        given = floating(inputs)

        def run(*starts: Tensor) -> tuple[list[Tensor], Any]:
            output = self.run(filled(inputs, starts))
            return differentiable(output), output

        if transformed(*given):
            leaves, pull, output = vjp(run, *given, has_aux=True)  # pyright: ignore
        else:
            starts = [one.detach().requires_grad_() for one in given]
            with torch.enable_grad():
                leaves, output = run(*starts)
            pull, output = Graph(leaves, starts), map_tensors(output, Tensor.detach)
            self._look(output)
        size = sum(one.numel() * one.element_size() for one in given)
        parts = list(pulled(self.where, self.score, output, target, pull, size))
        scores = joined([part.scores for part in parts])
        gradients = joined([list(part.gradients) for part in parts])
        return filled(inputs, gradients, blank=True), scores

    def _look(self, output: Any) -> None:
        """Warn once of outputs that are no logits, though the score takes them for these."""
        if not self._looked and not transformed():
            self._looked = heed_shares(self.where, self.score, output)


def _untouched(call: str, tensor: Tensor) -> Tensor:
    return tensor
