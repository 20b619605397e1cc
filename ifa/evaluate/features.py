"""What becomes of the network when only some channels of a layer are kept."""

import torch
from torch import Tensor, nn

from ifa.taps import cut


def feature_perturbation(
    model: nn.Module,
    layer: str | None,
    inputs: Tensor,
    mask: Tensor,
    target: Tensor | None = None,
    *,
    keep: bool = True,
    fill: float | Tensor = 0.0,
) -> Tensor:
    r"""Run a network with only some channels of a layer; the others are set to a value.

    Parameters
    ----------
    model
        The network, in evaluation mode.
    layer
        Name of a layer, as `ifa.trace` lists it.
    inputs : (sample, \*input)
        A batch.
    mask : (channel,) or (output, channel)
        Boolean. With one row for each output and no `target`, every output is computed with its own
        channels: neither a label nor the unmasked prediction chooses the mask.
    target : (sample,), optional
        With one row for each output, the row each sample takes, for all its outputs.
    keep
        Keep the selected channels, or drop them and keep the others.
    fill
        What other channels are set to: a number, or one for each channel, such as their mean.

    Returns
    -------
    (sample, output)
        The network's outputs.

    Raises
    ------
    ValueError
        If the mask is not boolean, its channels are not the layer's, or its rows not the outputs.

    References
    ----------
    Li et al. 2024, "Integrated feature analysis". arXiv:2407.01142

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Linear(3, 2, bias=False))
    >>> _ = net[1].weight.data.copy_(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
    >>> mask = torch.tensor([[True, False, False], [False, False, True]])
    >>> feature_perturbation(net, "0", torch.ones(1, 3), mask)
    tensor([[1., 6.]])
    """
    activations, head = cut(model, layer, inputs[:1])(inputs)
    channels = activations.shape[1]
    if mask.dtype != torch.bool or mask.ndim not in (1, 2) or mask.shape[-1] != channels:
        raise ValueError(
            f"ifa.evaluate.feature_perturbation: expected a boolean mask ({channels},) or (output, "
            f"{channels}), got {mask.dtype} {tuple(mask.shape)}. Make one with ifa.select."
        )
    space = (1,) * (activations.ndim - 2)
    chosen = (mask if keep else ~mask).to(activations.device)
    filled = torch.as_tensor(fill, device=activations.device).to(activations.dtype)
    filled = filled.reshape(filled.shape + space) if filled.ndim else filled

    def run(rows: Tensor) -> Tensor:
        with torch.no_grad():
            return head(torch.where(rows.reshape(*rows.shape, *space), activations, filled))

    if mask.ndim == 1:
        return run(chosen[None])
    if target is not None:
        return run(chosen[target.to(chosen.device)])
    outputs = [run(row[None]) for row in chosen]
    if outputs[0].ndim != 2 or outputs[0].shape[1] != len(mask):
        raise ValueError(
            "ifa.evaluate.feature_perturbation: expected one row of the mask for each output, got "
            f"{len(mask)} rows for outputs {tuple(outputs[0].shape)}. Give target=, or one mask."
        )
    return torch.stack([output[:, index] for index, output in enumerate(outputs)], dim=1)
