"""CAM: the row of the classifier's own matrix, where a linear classifier reads pooled features."""

from functools import partial

from torch import Tensor, nn

from ifa.declared import declare
from ifa.stages import expect, row
from ifa.types import Features, Step, Weighted


@declare(kind="builder", reads="model")
def cam(model: nn.Module, *, classifier: str | None = None) -> Step:
    r"""Make a step that weighs each channel by the classifier's weight for the example's target.

    .. math:: w_k = W_{tk}

    Used in place of ``weigh(...)``, on the layer that global average pooling reads.

    Parameters
    ----------
    model
        A network with one linear layer, or, if it has none, whose last convolution has kernels of
        one pixel.
    classifier
        Name of the layer with the matrix, where there are several.

    Returns
    -------
    callable
        `Features` -> `Weighted`; weights (channel,), in the score's unit per unit of pooled
        activation. Signed; nothing is rectified.

    Raises
    ------
    LookupError
        If there is no such layer, or several; the message lists what there is.
    ValueError
        When called, if the layer tapped has another number of channels than the matrix reads.

    References
    ----------
    Zhou et al. 2016, "Learning deep features for discriminative localization", equation 2.
    arXiv:1512.04150

    Examples
    --------
    >>> import ifa, torch
    >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 2, 3), torch.nn.Linear(2, 3))
    >>> features = ifa.Features(torch.ones(2, 5), torch.zeros(2, 5), torch.tensor(1))
    >>> torch.equal(ifa.weight.cam(net)(features).weights, net[1].weight[1].detach())
    True
    """
    linear = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    convolutions = {n: m for n, m in model.named_modules() if isinstance(m, _CONVOLUTIONS)}
    last = dict(list(convolutions.items())[-1:])
    pointwise = {n: m for n, m in last.items() if set(m.kernel_size) == {1} and m.groups == 1}
    found = linear or pointwise
    if classifier is not None:
        found = {n: m for n, m in {**linear, **convolutions}.items() if n == classifier}
    if len(found) != 1:
        names = ", ".join({**linear, **last}) or "none"
        raise LookupError(
            "ifa.weight.cam: expected one linear layer, or a last convolution with kernels of one "
            f"pixel, in {type(model).__name__}, got {names}"
            f"{f' and no {classifier!r}' if classifier else ''}. "
            "Name the one that makes the outputs: cam(model, classifier=...)."
        )
    (module,) = found.values()
    matrix = module.weight.detach().flatten(1)
    if matrix.shape[1] != module.weight.shape[1]:
        raise LookupError(
            f"ifa.weight.cam: expected kernels of one pixel, got {classifier!r} with "
            f"{tuple(module.weight.shape)}."
        )
    return partial(_cam, matrix=matrix)


_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@declare(kind="step", gradients=False)
def _cam(features: Features, *, matrix: Tensor) -> Weighted:
    expect("ifa.weight.cam", features, Features, "Give it what a tap returns.")
    activations, _, target = features
    if len(activations) != matrix.shape[1]:
        raise ValueError(
            f"ifa.weight.cam: expected a layer with the {matrix.shape[1]} channels that the "
            f"classifier reads, got {len(activations)}. Tap the layer before the pooling."
        )
    weights = row("ifa.weight.cam", matrix, target)
    return Weighted(weights.to(activations.dtype), activations, target)
