"""Infidelity: whether a map foretells by how much the score changes."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ifa.baseline import Baseline
from ifa.checks import check_noise
from ifa.declared import declare
from ifa.evaluate.masking import Case, drawn, says_nothing
from ifa.network.inputs import at, named, put, take, written
from ifa.score import probability
from ifa.types import Inputs, Output, Score, Target


@declare(takes="maps")
def infidelity(
    model: nn.Module,
    inputs: Inputs,
    maps: Any,
    target: Target = None,
    *,
    draws: int = 50,
    stdev: float = 0.1,
    seed: int = 0,
    normalized: bool = False,
    score: Score = probability,
    baseline: Baseline = 0.0,
    chunk: int | None = None,
    output: Output = None,
    grid_of: str | int | None = None,
) -> Tensor:
    r"""Compare the change of the score with what the map foretells, for noisy baselines.

    .. math:: \mathrm{E}_\epsilon \left[ \left( I^\top h - (y(x) - y(x - I)) \right)^2 \right],
              \qquad I = x - (b + \epsilon), \quad \epsilon \sim \mathcal N(0, \sigma^2)

    A map of fewer values than the input stands for all channels of its group. Of inputs that are a
    tree, the tensors that have a map get a noisy baseline, all at once.

    Parameters
    ----------
    model, inputs, target, score, chunk, output, grid_of
        As in `deletion`.
    maps : (sample, \*space) or (sample, block, \*space)
        At the inputs' size, in score units per input unit; see `deletion` for blocks and targets.
    draws
        How many noisy baselines are drawn.
    stdev
        Of the noise, in the inputs' unit.
    seed
        Of the noise, which depends on it and on the number of the draw alone: it is the same for
        every sample.
    normalized
        Scale each map by the factor that makes the result smallest, as suits maps without a unit,
        such as CAMs.
    baseline
        The middle of the noise: as in `deletion`.

    Returns
    -------
    (sample,) or (target, sample)
        Squared score units, at least 0: low is good. Float64. NaN where the map is constant or not
        finite: normalized, a map that foretells nothing has a factor of 0.

    Raises
    ------
    ValueError
        If maps, target, baseline or an option do not fit.
    TypeError
        If inputs are not of a floating dtype.

    References
    ----------
    Yeh et al. 2019, "On the (in)fidelity and sensitivity of explanations", definition 2.1 and
    section 2.2 (noisy baseline). arXiv:1901.09392

    Examples
    --------
    >>> import ifa, torch
    >>> net = torch.nn.Linear(3, 1)  # the gradient foretells every change of a linear network
    >>> inputs = torch.rand(2, 3)
    >>> found = infidelity(net, inputs, net.weight.expand(2, 3), 0, score=ifa.score.logit)
    >>> bool((found < 1e-10).all())
    True
    """
    where = "ifa.evaluate.infidelity"
    check_noise(where, draws, stdev, seed)
    case = Case(where, model, inputs, maps, target, score, baseline, chunk, output, grid_of)
    places = [] if isinstance(maps, Tensor) else [*named(maps)]
    cases = [case] + [
        Case(
            where, model, inputs, maps, case.target, score, baseline, chunk, output, written(place)
        )
        for place in places
        if place != case.place
    ]

    def noisy() -> Iterator[tuple[Tensor, list[Tensor]]]:
        for rows, numbers in case.spans(draws):
            noise = drawn(case.every, seed, numbers)
            yield rows, [at(noise, one.place) * stdev + one.baselines(rows) for one in cases]

    def scored() -> Tensor:
        found = []
        for rows, parts in noisy():
            whole = take(case.every, case.samples(rows))
            for one, part in zip(cases, parts, strict=True):
                whole = put(whole, one.place, part)
            found.append(case.score_all(whole, rows))
        return case.gathered(found, draws)

    drawn_as = draws, stdev, seed, *(one.place for one in cases)
    foretold = [_foretold(cases, *part) for part in noisy()]
    product = case.gathered(foretold, draws)
    change = case.before()[:, None] - case.hidden("noise", *drawn_as, make=scored)
    if normalized:
        power = product.square().sum(1, keepdim=True)
        factor = (product * change).sum(1, keepdim=True) / power
        product = torch.where(power > 0, factor, 0.0) * product
    return case.known(
        (product - change).square().mean(1), says_nothing(*(part.maps for part in cases))
    )


def _foretold(cases: Sequence[Case], rows: Tensor, parts: Sequence[Tensor]) -> Tensor:
    """Sum what maps foretell of the change to noisy inputs, of one or several tensors: (row,)."""
    total = torch.zeros((), dtype=torch.float64, device=rows.device)
    for case, noisy in zip(cases, parts, strict=True):
        change = (case.inputs[case.samples(rows)] - noisy).double()
        total = total + (change * case.expanded(case.maps[rows])).flatten(1).sum(1)
    return total
