"""Attention probabilities of a network and their gradients, however it computes them.

While the private copy runs, the functions that turn scores into probabilities are seen: a softmax,
fused attention, and that of ``nn.MultiheadAttention``. The fused ones are written out.
"""

import inspect
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ifa.network.gradients import Graph, Pull, differentiable
from ifa.network.inputs import count, over
from ifa.network.outputs import map_tensors
from ifa.network.scorers import Scorer
from ifa.types import Inputs

_SOFTMAX = (functional.softmax, torch.softmax, Tensor.softmax)
_FUSED = functional.scaled_dot_product_attention
_MULTIHEAD = functional.multi_head_attention_forward
_PROJECTED = ("query", "key", "value")
_ARGUMENTS = inspect.signature(_MULTIHEAD)


class Attentions(TorchFunctionMode):
    """Keeps the probabilities of every self-attention that runs: (sample, head, query, key)."""

    def __init__(self, where: str, samples: int):
        super().__init__()
        self.where, self.samples, self.seen = where, samples, []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _SOFTMAX:
            return self._kept(func(*args, **kwargs))
        if func is _FUSED:
            return self._fused(*args, **kwargs)
        if func is _MULTIHEAD:
            return self._multihead(_ARGUMENTS.bind(*args, **kwargs))
        return func(*args, **kwargs)

    def _kept(self, probabilities: Tensor) -> Tensor:
        if probabilities.ndim < 3:  # of classes, or over the tokens that a head pools
            return probabilities
        shape = tuple(probabilities.shape)
        tokens = {shape[-1], *(seen.shape[-1] for seen in self.seen)}
        if len(shape) != 4 or shape[0] != self.samples or {shape[-2]} != tokens:
            raise ValueError(
                f"{self.where}: expected attention of every token to every token, (sample, head, "
                f"token, token), of as many tokens in each block, got a softmax of shape {shape} "
                f"for {self.samples} samples. Windows (Swin), pooled tokens and cross-attention "
                "have no such map; take a gradient, or a CAM of a block."
            )
        self.seen.append(probabilities)
        return probabilities.clone()  # so that nothing edits what we keep

    def _fused(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if enable_gqa or dropout_p:
            raise ValueError(
                f"{self.where}: expected attention without dropout or grouped queries, got "
                f"{dropout_p=}, {enable_gqa=}. Call model.eval(), or take a gradient."
            )
        scores = query @ key.transpose(-2, -1)
        scores = scores * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
        if is_causal:
            future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
            scores = scores.masked_fill(future, -math.inf)
        if attn_mask is not None:
            masked = attn_mask.dtype == torch.bool
            scores = scores.masked_fill(~attn_mask, -math.inf) if masked else scores + attn_mask
        return self._kept(scores.softmax(-1)) @ value

    def _multihead(self, bound: inspect.BoundArguments) -> tuple[Tensor, Tensor | None]:
        bound.apply_defaults()
        given = bound.arguments
        unusual = ("bias_k", "bias_v", "static_k", "static_v", "key_padding_mask", "attn_mask")
        odd = [name for name in unusual if given[name] is not None]
        odd += [name for name in ("add_zero_attn", "use_separate_proj_weight") if given[name]]
        if odd or given["query"].ndim != 3:
            raise ValueError(
                f"{self.where}: expected self-attention of nn.MultiheadAttention without masks and "
                f"added keys, on batches, got {', '.join(odd) or 'one sample without its axis'}. "
                "Take a gradient, or a CAM of a block."
            )
        if not _same(given["query"], given["key"]):
            raise ValueError(
                f"{self.where}: expected self-attention, got nn.MultiheadAttention whose keys are "
                "not its queries, of other tokens (cross-attention), which have no places among "
                "the patches. Take a gradient, or a CAM of a block."
            )
        heads, weight, bias = (given[n] for n in ("num_heads", "in_proj_weight", "in_proj_bias"))
        projected = [
            given[name] @ part.T for name, part in zip(_PROJECTED, weight.chunk(3), strict=True)
        ]
        if bias is not None:
            projected = [p + part for p, part in zip(projected, bias.chunk(3), strict=True)]
        # (token, sample, feature) -> (sample, head, token, feature)
        parts = [p.unflatten(2, (heads, -1)).permute(1, 2, 0, 3) for p in projected]
        query, key, value = parts
        probabilities = (query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])).softmax(-1)
        attended = self._kept(probabilities) @ value
        joined = attended.permute(2, 0, 1, 3).flatten(2)
        result = functional.linear(joined, given["out_proj_weight"], given["out_proj_bias"])
        if not given["need_weights"]:
            return result, None
        averaged = given["average_attn_weights"]
        return result, probabilities.mean(1) if averaged else probabilities


def no_attention(where: str, model: nn.Module) -> ValueError:
    """Make the error of a network without attention."""
    return ValueError(
        f"{where}: expected a transformer, got {type(model).__name__}, in which no attention ran. "
        "Take ifa.explain, or another attribution."
    )


def _same(one: Tensor, other: Tensor) -> bool:
    """Tell whether two tensors are the same memory, by whatever objects."""
    alike = one.shape == other.shape and one.stride() == other.stride()
    return one is other or (alike and one.data_ptr() == other.data_ptr())


def observed(scorer: Scorer, inputs: Inputs) -> tuple[list[Tensor], Any, Pull]:
    """Run and return every block's probabilities, the output, and how to differentiate by them."""
    # a graph from the input on, whatever of the network is frozen
    start = over(lambda one: one.detach().requires_grad_(), inputs)
    with torch.enable_grad(), Attentions(scorer.where, count(inputs)) as attentions:
        output = scorer.run(start)
        leaves = differentiable(output)
    if not attentions.seen:
        raise no_attention(scorer.where, scorer.model)
    pull = Graph(leaves, attentions.seen)
    seen = [probabilities.detach() for probabilities in attentions.seen]
    return seen, map_tensors(output, Tensor.detach), pull
