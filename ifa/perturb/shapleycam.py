"""Shapley-CAM: Grad-CAM with the second order of what each channel adds to the score."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ifa.perturb.perturbation import Advance, Network, Perturbation, Running, Samples, each_layer
from ifa.progress import Progress
from ifa.score import logit
from ifa.stages import builder
from ifa.types import Grid, Inputs, Layer, Output, Score


@builder
def shapleycam(
    model: nn.Module,
    layer: Any,
    example: Inputs,
    *,
    score: Score = logit,
    chunk: int | None = None,
    output: Output = None,
    grid: Grid | None = None,
    grid_of: str | int | None = None,
    progress: Progress = False,
) -> Any:
    r"""Weigh each channel by its gradient less half of how the gradient changes along A.

    .. math:: w_k = \frac{1}{Z} \sum_p \bigl(G - \tfrac{1}{2} H A\bigr)_k(p)

    with the gradient G and the Hessian H of the score by the layer's activations A, whose product
    is one more backward pass. Of a score that is quadratic in A, :math:`G - \tfrac{1}{2} H A` are
    the Shapley values of the activations, by unit of each: it times A sums to y(A) − y(0).

    Where the score is linear in A, or piecewise so, as the logits of a network with ReLU are, H is
    0 and this is `ifa.weight.gradcam`. It differs where something above the layer bends: attention,
    normalization, GELU, or the score itself, such as `ifa.score.probability`.

    Parameters
    ----------
    model, layer, example, score, output, grid, grid_of
        As in `ifa.tap`. Several layers are run one after the other and give a tuple. The paper's
        score is the logit plus `ifa.score.log_probability`.
    chunk
        How many samples run at once: bounds the memory and changes no result. None takes what fits
        in the cache, on a GPU what fits in 1 GiB.
    progress
        True draws a bar, a callable gets ``(done, total)``, counted in samples.

    Returns
    -------
    callable
        ``(inputs, target=None) -> Weighted`` with weights (sample, channel), or (target, sample,
        channel) for targets (target, sample), which share the forward pass; signed, in score units
        per activation unit.

    Raises
    ------
    LookupError, ValueError, TypeError
        As `ifa.tap`; also if something above the layer has no second derivative in torch.

    References
    ----------
    Cai 2025, "CAMs as Shapley value-based explainers". arXiv:2501.06261, whose code this agrees
    with.

    Examples
    --------
    >>> import ifa, torch
    >>> squares = torch.nn.Bilinear(2, 2, 1, bias=False)
    >>> _ = squares.weight.data.copy_(torch.tensor([[[1.0, 0.0], [0.0, 3.0]]]))
    >>> class Net(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.first = torch.nn.Identity()
    ...     def forward(self, x):
    ...         a = self.first(x)
    ...         return squares(a, a)
    >>> inputs = torch.tensor([[3.0, 1.0]])
    >>> ifa.perturb.shapleycam(Net(), "first", inputs)(inputs).weights  # Grad-CAM has 6 and 6
    tensor([[3., 3.]])
    """
    how = Running(score, chunk, output, grid, grid_of, above=True)

    def build(one: Layer | None) -> Perturbation:
        network = Network("shapleycam", model, one, example, how)
        weigh = partial(_second_order, network=network)
        weigh(network.first(example), _silent)  # so that what cannot be is refused here
        return Perturbation(network, weigh, 1, progress, "")

    return each_layer(build, layer)


def _silent(done: int) -> None:
    del done


def _second_order(samples: Samples, advance: Advance, *, network: Network) -> Tensor:
    raw = samples.raw.detach().requires_grad_()
    # fused attention has no second derivative
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        scores = network.scores_of(samples.head(raw), samples.targets)
        if not scores.requires_grad:
            raise ValueError(
                f"{network.where}: expected a score that depends on layer {network.layer!r}, got "
                "one that nothing connects to it, such as past a detach() or no_grad. Choose a "
                "layer above that."
            )
        slopes = [_slope(network, one.sum(), raw) for one in scores]
    advance(len(raw))
    laid = torch.stack([network.laid_out(slope) for slope in slopes])
    return laid.flatten(3).mean(3) if laid.ndim > 3 else laid


def _slope(network: Network, total: Tensor, raw: Tensor) -> Tensor:
    r"""Return :math:`G - \tfrac{1}{2} H A` of a sum over samples, which is that of each."""
    (gradient,) = torch.autograd.grad(
        total, raw, create_graph=True, retain_graph=True, materialize_grads=True
    )
    if not gradient.requires_grad:  # the score is linear
        return gradient
    try:
        (bent,) = torch.autograd.grad(
            gradient, raw, raw.detach(), retain_graph=True, materialize_grads=True
        )
    except RuntimeError as error:
        if "not implemented" not in str(error):
            raise
        raise ValueError(
            f"{network.where}: expected operations with second derivatives above layer "
            f"{network.layer!r}, got one without: {str(error).splitlines()[0]} Choose a layer "
            "above it, or take ifa.weight.gradcam."
        ) from error
    return gradient.detach() - bent / 2
