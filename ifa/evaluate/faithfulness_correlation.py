"""Faithfulness correlation: whether what a map gives to a set of positions is what they change."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from ifa.baseline import Baseline
from ifa.checks import check_noise
from ifa.declared import declare
from ifa.evaluate.coefficients import correlation
from ifa.evaluate.masking import Case
from ifa.noise import noise
from ifa.score import probability
from ifa.types import Inputs, Output, Score, Target


@declare(takes="maps")
def faithfulness_correlation(
    model: nn.Module,
    inputs: Inputs,
    maps: Any,
    target: Target = None,
    *,
    draws: int = 100,
    size: int | None = None,
    seed: int = 0,
    score: Score = probability,
    baseline: Baseline = 0.0,
    chunk: int | None = None,
    output: Output = None,
    grid_of: str | int | None = None,
) -> Tensor:
    r"""Correlate a map's sum over random positions with the drop of the score without them.

    .. math:: \operatorname{corr}_S \left( \sum_{p \in S} h_p,\ y(x) - y(x_{S \leftarrow b}) \right)

    Parameters
    ----------
    model, inputs, maps, target, score, chunk, output, grid_of
        As in `deletion`.
    draws
        How many sets of positions are drawn, at least 2.
    size
        How many positions a set has, of all groups together; None for a tenth of them.
    seed
        Of the sets, which depend on it and on their number alone: they are the same for every
        sample.
    baseline
        What the positions of a set become: as in `deletion`.

    Returns
    -------
    (sample,) or (target, sample)
        Pearson's r over the sets, in [−1, 1]: high is good. Float64. NaN where the map is constant
        or not finite, where it gives the same to all sets, or where the score does not change.

    Raises
    ------
    ValueError
        If maps, target, baseline or an option do not fit.
    TypeError
        If inputs are not of a floating dtype.

    References
    ----------
    Bhatt, Weller & Moura 2020, "Evaluating and aggregating feature-based model explanations",
    definition 2. arXiv:2005.00631

    Examples
    --------
    >>> import ifa, torch
    >>> net = torch.nn.Linear(5, 1)
    >>> inputs = torch.rand(1, 5)
    >>> maps = net.weight.detach() * inputs  # what each position adds
    >>> found = faithfulness_correlation(net, inputs, maps, 0, size=2, score=ifa.score.logit)
    >>> found.round(decimals=4)
    tensor([1.], dtype=torch.float64)
    """
    where = "ifa.evaluate.faithfulness_correlation"
    check_noise(where, draws, 0.0, seed)
    case = Case(where, model, inputs, maps, target, score, baseline, chunk, output, grid_of)
    shape = tuple(case.maps.shape[1:])
    flat = case.maps.flatten(1)
    positions = flat.shape[1]
    size = max(1, positions // 10) if size is None else size
    if not isinstance(size, int) or not 1 <= size < positions or draws < 2:
        raise ValueError(
            f"{where}: expected at least 2 sets, of at least 1 position and less than all "
            f"{positions}, got draws={draws} and size={size!r}."
        )
    sets, without = case.hidden(
        "sets", shape, draws, size, seed, make=lambda: _sets(case, shape, draws, size, seed)
    )
    given = torch.stack([flat[:, chosen].double().sum(1) for chosen in sets], 1)
    return case.known(correlation(given, case.before()[:, None] - without))


def _sets(
    case: Case, shape: tuple[int, ...], draws: int, size: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Draw sets of positions, (draw, size), and score the inputs without them: (row, draw)."""
    like, positions = torch.empty((), device=case.inputs.device), math.prod(shape)
    sets = torch.stack(
        [noise((positions,), like, seed, draw).topk(size).indices for draw in range(draws)]
    )

    def left(rows: Tensor, draws: Tensor) -> Tensor:
        mask = torch.ones(len(rows), positions, dtype=torch.bool, device=like.device)
        return mask.scatter_(1, sets[draws], False).reshape(-1, *shape)

    return sets, case.shown(draws, left)
