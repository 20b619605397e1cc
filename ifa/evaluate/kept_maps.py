"""What is left of a map when only some channels of its layer are kept."""

from functools import partial
from typing import Any

from torch import nn

from ifa.basis.projections import check_basis, check_features, heed_basis, projections
from ifa.evaluate.similarity import Similarity, similarity
from ifa.network.inputs import check_batch, take
from ifa.score import logit
from ifa.stages import combine, keep
from ifa.taps.weighings import Weighing
from ifa.types import Grid, Inputs, Output, Score, Target, Weighted
from ifa.weight import fullcam


def map_similarity(
    model: nn.Module,
    layer: str | nn.Module | None,
    inputs: Inputs,
    mask: Any,
    target: Target = None,
    *,
    weight: Any = fullcam,
    basis: Any = None,
    score: Score = logit,
    grid: Grid | None = None,
    output: Output = None,
    grid_of: str | int | None = None,
) -> Similarity:
    r"""Compare maps of only some channels of a layer with those of all.

    .. math:: \rho\left(\sum_{k \in S} w_k a_k, \; \sum_k w_k a_k\right)

    signed, on the layer's own grid: where maps are compared at the inputs' size, what is between
    the layer's positions is counted as agreement.

    Parameters
    ----------
    model, layer, inputs, target, weight, basis, score, grid, output, grid_of
        As in `ifa.explain`.
    mask : (channel,) or (target, channel)
        Channels or atoms that are kept, see `ifa.keep`: as a rule of `ifa.select` returns it, whose
        rows are found by the target, or a tensor.

    Returns
    -------
    Similarity
        `pearson`, `spearman` and `ssim`, (sample,), or (target, sample). NaN where one of the two
        maps is constant or not finite.

    Raises
    ------
    LookupError, ValueError
        As `ifa.tap` and `ifa.keep`.

    References
    ----------
    Li et al. 2024, "Integrated feature analysis". arXiv:2407.01142

    Examples
    --------
    >>> import ifa, torch
    >>> head = torch.nn.Flatten(), torch.nn.Linear(21, 2)
    >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 3, 3), *head)
    >>> mask = ifa.select.largest(torch.tensor([3.0, 1.0, 2.0]), ratio=0.6)
    >>> map_similarity(net, "0", torch.rand(5, 1, 9), mask).pearson.shape
    torch.Size([5])
    """
    where = "ifa.evaluate.map_similarity"
    check_batch(where, inputs)
    check_basis(where, "basis", basis)
    check_features(where, "a mask", mask, basis)
    heed_basis(where, weight, basis)
    laid: Any = {"score": score, "grid": grid, "output": output, "grid_of": grid_of}
    if basis is not None:
        laid["basis"] = partial(projections, where=where, basis=basis)
    made = Weighing(where, model, layer, take(inputs, slice(2)), weight, **laid, remember=True)
    kept = keep(mask)

    def compared(weighted: Weighted) -> Similarity:
        return similarity(combine(kept(weighted)).values, combine(weighted).values)

    return made.observe(inputs, target, step=compared, warn=where).result[0]
