"""Sensitivity: how much a map changes when the input hardly does."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ifa.checks import check_noise
from ifa.declared import declare
from ifa.evaluate.masking import check_inputs, chunk_of, drawn
from ifa.network.inputs import refuse_inference_mode
from ifa.network.targets import as_targets
from ifa.noise import chunks


class Sensitivity(NamedTuple):
    """Relative change of a map over noisy inputs; (sample,) or (target, sample), float64."""

    mean: Tensor
    max: Tensor


@declare(takes="attribution")
def sensitivity(
    attribution: Callable[[Tensor, Any], Tensor],
    inputs: Tensor,
    target: Any = None,
    *,
    radius: float = 0.02,
    draws: int = 10,
    seed: int = 0,
    chunk: int | None = None,
) -> Sensitivity:
    r"""Measure the relative change of maps over inputs with a little noise.

    .. math:: \frac{\lVert \Phi(x + \delta) - \Phi(x) \rVert_F}{\lVert \Phi(x) \rVert_F}, \qquad
              \delta \sim \mathcal U(-r, r) \text{ in every entry}

    and of it the mean and the maximum over draws; the maximum bounds from below that over the whole
    ball :math:`\lVert \delta \rVert_\infty \le r`.

    Parameters
    ----------
    attribution
        ``(inputs, target) -> maps``, (sample, ...) or (target, sample, ...): a method of ours with
        its model bound, or anyone's. It gets the inputs in portions, with their targets.
    inputs : (sample, \*input)
        A batch.
    target
        An int, (sample,) or (target, sample). None is left to the attribution: it may then explain
        another output of a noisy input, whose map then differs for that reason alone.
    radius
        r, in the inputs' unit.
    draws
        How many noisy inputs are drawn.
    seed
        Of the noise, which depends on it and on the number of the draw alone: it is the same for
        every sample.
    chunk
        How many inputs are explained at once: bounds the memory and changes no result.

    Returns
    -------
    Sensitivity
        At least 0, without unit: low is stable. NaN where the map of the input is zero, or one of
        the maps is not finite.

    Raises
    ------
    ValueError
        If inputs, target or an option are not as above, or maps are not one for each input.
    TypeError
        If inputs are not of a floating dtype.

    References
    ----------
    Yeh et al. 2019, "On the (in)fidelity and sensitivity of explanations", definition 3.1.
    arXiv:1901.09392. Bhatt, Weller & Moura 2020 (the mean). arXiv:2005.00631

    Examples
    --------
    >>> import torch
    >>> found = sensitivity(lambda inputs, target: 3 * inputs, torch.ones(1, 4), radius=0.1)
    >>> bool(0 < found.mean < found.max <= 0.1)
    True
    """
    where = "ifa.evaluate.sensitivity"
    refuse_inference_mode(where)
    check_inputs(where, inputs)
    check_noise(where, draws, 0.0, seed)
    if not 0 < radius < math.inf:
        raise ValueError(f"{where}: expected a positive, finite radius, got {radius!r}.")
    size, count, inputs = chunk_of(where, chunk, inputs), len(inputs), inputs.detach()
    targets = as_targets(where, target, count, None, inputs.device)
    many = targets is not None and targets.ndim == 2

    def explained(rows: Tensor, values: Tensor) -> Tensor:
        maps = attribution(values, None if targets is None else targets[..., rows])
        lead = (len(targets), len(rows)) if targets is not None and many else (len(rows),)
        if not isinstance(maps, Tensor) or tuple(maps.shape[: len(lead)]) != lead:
            came = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
            raise ValueError(
                f"{where}: expected maps with the axes {lead} first from the attribution, one for "
                f"each input{' and target' if many else ''}, got {came}."
            )
        return maps.detach().flatten(len(lead)).double()

    every = torch.arange(count, device=inputs.device)
    clean = torch.cat([explained(rows, inputs[rows]) for rows in every.split(size)], -2)
    norm = torch.linalg.vector_norm(clean, dim=-1)
    changes = []
    for span in chunks(count * draws, size):
        place = torch.arange(span.start, span.stop, device=inputs.device)
        rows, numbers = place % count, place // count
        # normal to uniform on (-1, 1)
        noise = torch.erf(drawn(inputs, seed, numbers) / 2**0.5)
        moved = explained(rows, inputs[rows] + radius * noise)
        change = torch.linalg.vector_norm(moved - clean[..., rows, :], dim=-1)
        changes.append(change / norm[..., rows])  # 0 / 0 where both are zero
    found = torch.cat(changes, -1).unflatten(-1, (draws, count))
    found = torch.where(norm[..., None, :] > 0, found, torch.nan)
    return Sensitivity(found.mean(-2), found.amax(-2))
