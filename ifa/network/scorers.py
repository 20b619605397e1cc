"""A network as a function of its inputs alone: their scores, and the gradients of these."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vjp

from ifa.chains import describe
from ifa.network.budgets import fitting
from ifa.network.gradients import (
    check_score,
    differentiable,
    joined,
    pulled,
    puller,
    score_all,
    transformed,
)
from ifa.network.inputs import refuse_inference_mode
from ifa.network.outputs import map_tensors, pick
from ifa.network.replicas import plain, replicas
from ifa.network.sites import Site, examine
from ifa.network.targets import as_targets, predicted
from ifa.types import Output, Score


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
        if target is None:
            with torch.no_grad():
                return predicted(self.where, self.run(inputs))
        outputs = self.outputs(inputs)
        chosen = as_targets(self.where, target, len(inputs), outputs, inputs.device)
        assert chosen is not None  # because the target is not None
        return chosen

    def outputs(self, inputs: Tensor) -> int | None:
        """How many outputs an example has; asked of the network once, until it is changed."""
        known = self._replicas.get().known
        if "outputs" not in known:
            with torch.no_grad():
                output = self.run(inputs[:1])
            known["outputs"] = (*output.shape[1:], 1)[0] if isinstance(output, Tensor) else None
        return known["outputs"]

    def fitting(self, inputs: Tensor) -> int:
        """Return how many inputs like these run at once where nobody said."""
        known, like = self._replicas.get().known, str((inputs.shape[1:], inputs.dtype))
        if like not in known:
            sites = examine(self.model, inputs[:1], self.output, self.where).sites
            own = Site("", tuple(inputs.shape[1:]), inputs.dtype)
            known[like] = fitting([own, *sites.values()], inputs.device)
        return known[like]

    def gradients(self, inputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return gradients with respect to the inputs, and the scores they are of.

        Of targets (target, sample) both have the target axis first; there is one forward pass.
        """
        if transformed(inputs):
            leaves, pull, output = vjp(self._leaves, inputs, has_aux=True)  # pyright: ignore
        else:
            start = inputs.detach().requires_grad_()
            with torch.enable_grad():
                leaves, output = self._leaves(start)
            pull, output = puller(leaves, [start]), map_tensors(output, Tensor.detach)
        size = inputs.numel() * inputs.element_size()
        parts = list(pulled(self.where, self.score, output, target, pull, size))
        scores = joined([part.scores for part in parts])
        return joined([part.gradients[0] for part in parts]), scores

    def _leaves(self, inputs: Tensor) -> tuple[list[Tensor], Any]:
        output = self.run(inputs)
        return differentiable(output), output


def _untouched(call: str, tensor: Tensor) -> Tensor:
    return tensor
