"""Deep feature factorization: activations as sums of few concepts, each with a map and a vector."""

import warnings
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ifa.checks import check_count
from ifa.network.inputs import check_batch, count, split, take
from ifa.taps.laid_heads import LaidCut, lay
from ifa.types import Grid, Inputs, Layer, Output

_WHERE = "ifa.basis.factorize"


class Factors(NamedTuple):
    """Concepts of a layer, of all samples at once; the strongest first."""

    maps: Tensor  # (sample, concept, *space), from 0 to 1, which each reaches in some sample
    vectors: Tensor  # (concept, channel), not negative: what a concept is where its map is 1
    offset: Tensor  # (channel,), what the vectors are beside; 0 where a channel is never negative
    outputs: Tensor  # (concept, ...), of the network where the concept is everywhere
    unexplained: Tensor  # (), share of the sum of squares that is in no concept


def factorize(
    model: nn.Module,
    layer: Layer | None,
    inputs: Inputs,
    *,
    concepts: int = 5,
    seed: int = 0,
    iterations: int = 1000,
    chunk: int | None = None,
    output: Output = None,
    grid: Grid | None = None,
    grid_of: str | int | None = None,
) -> Factors:
    r"""Write the activations of a layer as sums of concepts, none of which takes anything away.

    .. math::

        A_{nk}(p) \approx a_k + \sum_c L_{nc}(p) \, v_{ck}, \qquad L, v \ge 0,
        \qquad a_k = \min\bigl(0, \min_{n, p} A_{nk}(p)\bigr)

    by non-negative matrix factorization over all positions of all samples together, so that a
    concept is the same in every sample and shows where they have it in common. Of a factorization
    one factor may be scaled at the other's cost: here each map reaches 1. What a concept speaks for
    is what the network above the layer makes of :math:`a + v_c` at every position, on average over
    the samples, which matters only where it reads more of them than this layer.

    Parameters
    ----------
    model, layer, output, grid, grid_of
        As in `ifa.tap`. Tokens that the grid leaves out, such as a class token, stay each sample's.
    inputs : (sample, \*input)
        A batch of what may have something in common; its activations are in memory at once.
    concepts
        How many.
    seed
        Of the first guess. The factors found depend on it; those that many seeds find are sure.
    iterations
        At most; with a warning of scikit-learn's ``ConvergenceWarning`` if that is not enough.
    chunk
        How many samples run at once: bounds the memory of the network. None: all of them.

    Returns
    -------
    Factors
        Of tensors: maps (sample, concept, \*space) on the layer's grid, vectors (concept, channel)
        in the layer's unit, outputs (concept, …) as the network's, e.g. logits. Concepts are in
        order of their share in the sum of squares. ``ifa.resize(size)(ifa.Map(maps[n], target))``
        brings the maps of a sample to the input's size.

    Raises
    ------
    LookupError, ValueError, TypeError
        As `ifa.tap`; also if there are more concepts than channels, or an output is no tensor.

    References
    ----------
    Collins et al. 2018, "Deep feature factorization for concept discovery". arXiv:1806.10206.
    The same factors as pytorch-grad-cam's with the same seed, but that those are not scaled, and
    of a channel that is never 0 it takes away the minimum as well.

    Examples
    --------
    >>> import ifa, torch
    >>> net = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Flatten(), torch.nn.Linear(6, 1))
    >>> _ = net[2].weight.data.fill_(1.0), net[2].bias.data.fill_(0.0)
    >>> signals = torch.tensor([[[0.0, 2.0, 4.0], [0.0, 1.0, 2.0]]])  # (sample, channel, t)
    >>> found = ifa.basis.factorize(net, "0", signals, concepts=1)
    >>> found.maps.round(decimals=3)
    tensor([[[0.0000, 0.5000, 1.0000]]])
    >>> found.vectors.round(decimals=3), found.outputs.round(decimals=2)
    (tensor([[4., 2.]]), tensor([[18.]]))
    """
    check_batch(_WHERE, inputs)
    check_count(_WHERE, "iterations", iterations)
    if chunk is not None:
        check_count(_WHERE, "chunk", chunk)
    laid: Any = {"output": output, "grid": grid, "grid_of": grid_of}
    cutting = lay(_WHERE, model, layer, take(inputs, slice(2)), **laid)
    parts = list(split(inputs, chunk or count(inputs)))
    with torch.no_grad():
        activations = torch.cat([cutting(part)[0] for part in parts])
        check_count(_WHERE, "concepts", concepts, activations.shape[1])
        maps, vectors, offset, unexplained = _factors(activations, concepts, seed, iterations)
        outputs = [_outputs(cutting, part, vectors + offset) for part in parts]
    return Factors(maps, vectors, offset, torch.cat(outputs, 1).mean(1), unexplained)


def _factors(
    activations: Tensor, concepts: int, seed: int, iterations: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Factorize activations (sample, channel, *space): maps, vectors, offset, unexplained."""
    from sklearn.decomposition import NMF
    from sklearn.exceptions import ConvergenceWarning

    if not activations.isfinite().all():
        raise ValueError(
            f"{_WHERE}: expected finite activations, got NaN or infinity. Leave out the samples "
            "that have them."
        )
    table = activations.movedim(1, 0).flatten(1).double().cpu().numpy()  # (channel, position)
    offset = np.minimum(table.min(1, keepdims=True), 0)
    options: dict[str, Any] = {"n_components": concepts, "init": "random"}
    model = NMF(**options, random_state=seed, max_iter=iterations)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        vectors, maps = model.fit_transform(table - offset), model.components_
    if model.n_iter_ >= iterations:
        message = f"{_WHERE}: the factors still change after {iterations} iterations. Allow more."
        warnings.warn(message, ConvergenceWarning, stacklevel=3)
    left = np.square(table - offset - vectors @ maps).sum()
    whole = np.square(table - offset).sum()
    order = np.argsort(-np.square(vectors).sum(0) * np.square(maps).sum(1), kind="stable")
    highest = maps.max(1, keepdims=True)
    vectors, maps = vectors * highest.T, maps / np.where(highest > 0, highest, 1)
    samples, _, *space = activations.shape
    shaped = maps[order].reshape(concepts, samples, *space).swapaxes(0, 1).copy()
    share = left / whole if whole > 0 else 0.0
    found = (shaped, vectors.T[order].copy(), offset[:, 0], np.float64(share))
    return tuple(torch.as_tensor(one).to(activations) for one in found)  # pyright: ignore


def _outputs(cutting: LaidCut, inputs: Inputs, vectors: Tensor) -> Tensor:
    """Return the outputs where the layer is a vector at every position: (concept, sample, ...)."""
    seen, head = cutting(inputs)
    found = []
    for vector in vectors:
        everywhere = vector.reshape(1, -1, *(1,) * (seen.ndim - 2)).expand(seen.shape)
        output = head(everywhere)
        if not isinstance(output, Tensor) or len(output) != len(seen):
            raise TypeError(
                f"{_WHERE}: expected an output that is a tensor with a row for each sample, got "
                f"{type(output).__name__}. Say with output= how to take one out of it."
            )
        found.append(output)
    return torch.stack(found)
