"""What becomes of the network when only some channels of a layer are kept."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ifa import select
from ifa.basis import Dictionary
from ifa.basis.projections import check_features
from ifa.checks import check_choice
from ifa.evaluate.channels import Channels, Hidden, in_basis
from ifa.network.inputs import take
from ifa.types import Grid, Inputs, Output

_CURVE = "ifa.evaluate.feature_curve"


class FeatureCurve(NamedTuple):
    """Outputs of a network of which a layer has only a share of its channels."""

    ratio: Tensor  # (ratio,), float64
    outputs: Tensor  # (ratio, sample, output)


def feature_perturbation(
    model: nn.Module,
    layer: str | None,
    inputs: Inputs,
    mask: Any,
    target: Tensor | None = None,
    *,
    keep: bool = True,
    baseline: Hidden = 0.0,
    basis: Dictionary | None = None,
    output: Output = None,
    grid: Grid | None = None,
    grid_of: str | int | None = None,
) -> Tensor:
    r"""Run a network with only some channels of a layer; the others are set to a value.

    For many masks of one layer see `feature_curve`.

    Parameters
    ----------
    model
        The network, in evaluation mode.
    layer
        Name of a layer, as `ifa.trace` lists it.
    inputs : (sample, \*input)
        A batch.
    mask : (channel,) or (output, channel)
        Boolean, a tensor or as a rule of `ifa.select` returns it; the rows of a labeled one are
        found by `target`. With one row for each output and no `target`, every output is computed
        with its own channels: neither a label nor the unmasked prediction chooses the mask.
    target : (sample,), optional
        With one row for each output, the row each sample takes, for all its outputs.
    keep
        Keep the selected channels, or drop them and keep the others.
    baseline
        What other channels are set to: a number; one for each channel, such as their means over the
        population; or ``"mean"``, each channel's over these inputs and space.
    basis
        An `ifa.basis.Dictionary`: the mask is of its atoms, and a baseline of their codes, such as
        `ifa.basis.fill`. What no atom holds stays at its mean.
    output, grid, grid_of
        As in `ifa.tap`. Tokens that the grid leaves out, such as a class token, are not masked.

    Returns
    -------
    (sample, output)
        The network's outputs.

    Raises
    ------
    ValueError
        If the mask is not boolean, its channels are not the layer's, its rows not the outputs, or
        an output has no row.

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
    where, laid = "ifa.evaluate.feature_perturbation", (output, grid, grid_of)
    check_features(where, "a mask", mask, basis)
    run = Channels(where, model, layer, take(inputs, slice(1)), *laid)
    activations, head = in_basis(where, *run.below(inputs), basis)
    return run.masked(activations, head, mask, target, keep=keep, baseline=baseline)


def feature_curve(
    model: nn.Module,
    layer: str | None,
    inputs: Inputs,
    importance: Any,
    target: Tensor | None = None,
    *,
    ratio: Sequence[float] = (0.05, 0.10, 0.25, 0.50, 1.0),
    keep: Literal["selected", "dropped", "random"] = "selected",
    absolute: bool = False,
    baseline: Hidden = 0.0,
    basis: Dictionary | None = None,
    seed: int = 0,
    output: Output = None,
    grid: Grid | None = None,
    grid_of: str | int | None = None,
) -> FeatureCurve:
    r"""Run a network with ever more channels of a layer, the most important first.

    The network is cut and run up to the layer once, and from there on for each ratio. From the
    outputs follow the accuracy, ``(outputs.argmax(-1) == label).double().mean(-1)``, and scores,
    such as ``outputs.softmax(-1)``; over a data set, with intervals, both are found by
    `ifa.diagnose.feature_curve`. The level of fullcam maps with these channels is the sum of the
    sample's importances, as a run keeps them with ``keep_samples="full"``, over the channels kept.

    Parameters
    ----------
    model, layer, inputs, target, baseline, basis, output, grid, grid_of
        As in `feature_perturbation`.
    importance : (channel,) or (target, channel)
        What ranks the channels, such as ``statistics["importance_overall"]`` or `ifa.difference`.
        With one row for each output, every output, or with `target` every sample, has its own
        channels; rows of a DataArray are found by its coordinate `target`. Of a basis, what ranks
        its atoms.
    ratio
        Shares of the channels, in (0, 1], counted as in `ifa.select`.
    keep
        Keep the ``"selected"`` channels, those of the largest importance; or the others, the
        selected ones ``"dropped"``; or as many at ``"random"``.
    absolute
        Rank by absolute value.
    seed
        Of the random channels.

    Returns
    -------
    FeatureCurve
        `ratio` (ratio,) as asked for, and `outputs` (ratio, sample, output).

    Raises
    ------
    ValueError
        If an option is none of its choices, importances are not of the layer's channels, or an
        output has none.
    TypeError
        If `inputs` are a data set and not a batch.

    References
    ----------
    Li et al. 2024, "Integrated feature analysis". arXiv:2407.01142

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Linear(4, 1, bias=False))
    >>> _ = net[1].weight.data.copy_(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    >>> curve = feature_curve(net, "0", torch.ones(1, 4), net[1].weight[0], ratio=(0.25, 0.5))
    >>> curve.outputs.flatten()
    tensor([4., 7.])
    """
    check_choice(_CURVE, "keep", keep, ("selected", "dropped", "random"))
    _refuse_data(inputs)
    check_features(_CURVE, "importance", importance, basis)
    if not len(ratio):
        raise ValueError(f"{_CURVE}: expected at least one ratio, got none.")
    run = Channels(_CURVE, model, layer, take(inputs, slice(1)), output, grid, grid_of)
    activations, head = in_basis(_CURVE, *run.below(inputs), basis)
    outputs = []
    for one in ratio:
        if keep == "random":
            mask = select.random(importance, ratio=one, seed=seed)
        elif absolute:
            mask = select.largest_absolute(importance, ratio=one)
        else:
            mask = select.largest(importance, ratio=one)
        outputs.append(
            run.masked(activations, head, mask, target, keep=keep != "dropped", baseline=baseline)
        )
    return FeatureCurve(torch.tensor(ratio, dtype=torch.float64), torch.stack(outputs))


def _refuse_data(inputs: Any) -> None:
    """Raise if a data set is given where a batch is taken."""
    first = inputs[0] if isinstance(inputs, list) and inputs else None
    labelled = isinstance(first, tuple) and any(
        isinstance(one, int | float | np.generic) for one in first[1:2]
    )
    if labelled or not isinstance(inputs, Tensor | Mapping | tuple | list):
        raise TypeError(
            f"{_CURVE}: expected a batch of inputs (sample, *input), got a data set, "
            f"{type(inputs).__name__}. Call ifa.diagnose.feature_curve(model, layer, data, "
            "statistics), which streams it."
        )
