"""Sensitivity: how much a map changes when the input hardly does."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ifa.checks import check_noise
from ifa.declared import declare
from ifa.evaluate.masking import check_inputs, chunk_of, drawn
from ifa.network.inputs import (
    came,
    count,
    device_of,
    over,
    refuse_inference_mode,
    take,
    tensors_of,
)
from ifa.network.outputs import map_tensors
from ifa.network.targets import as_targets
from ifa.noise import chunks
from ifa.types import Inputs, Target


class Sensitivity(NamedTuple):
    """Relative change of a map over noisy inputs; (sample,) or (target, sample), float64."""

    mean: Tensor
    max: Tensor


@declare(takes="attribution", known="maps")
def sensitivity(
    attribution: Callable[[Tensor, Any], Tensor],
    inputs: Inputs,
    target: Target = None,
    *,
    maps: Any = None,
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
        A batch; of a tuple or mapping of tensors all that are real numbers get noise, and maps of
        several are compared together.
    target
        An int, (sample,) or (target, sample). None is left to the attribution: it may then explain
        another output of a noisy input, whose map then differs for that reason alone.
    maps
        What the attribution gives of the inputs as they are and the target, where that is known: it
        is then not asked again.
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
    size, samples = chunk_of(where, chunk, inputs), count(inputs)
    inputs, device = map_tensors(inputs, Tensor.detach), device_of(inputs)
    targets = as_targets(where, target, samples, None, device)

    lead = () if targets is None else tuple(targets.shape[:-1])

    def explained(rows: Tensor, values: Any) -> Tensor:
        maps = attribution(values, None if targets is None else targets[..., rows])
        return _flat(where, maps, (*lead, len(rows)))

    every = torch.arange(samples, device=device)
    if maps is None:
        clean = torch.cat([explained(rows, take(inputs, rows)) for rows in every.split(size)], -2)
    else:
        clean = _flat(where, maps, (*lead, samples))
    norm = torch.linalg.vector_norm(clean, dim=-1)
    changes = []
    for span in chunks(samples * draws, size):
        place = torch.arange(span.start, span.stop, device=device)
        rows, numbers = place % samples, place // samples
        noisy = over(
            # normal to uniform on (-1, 1)
            lambda one, added: one + radius * torch.erf(added / 2**0.5),
            take(inputs, rows),
            drawn(inputs, seed, numbers),
        )
        change = torch.linalg.vector_norm(explained(rows, noisy) - clean[..., rows, :], dim=-1)
        changes.append(change / norm[..., rows])  # 0 / 0 where both are zero
    found = torch.cat(changes, -1).unflatten(-1, (draws, samples))
    found = torch.where(norm[..., None, :] > 0, found, torch.nan)
    return Sensitivity(found.mean(-2), found.amax(-2))


def _flat(where: str, maps: Any, lead: tuple[int, ...]) -> Tensor:
    """Return the values of a map, or of a tree of them, in one row for each input and target."""
    found = tensors_of(maps)
    if not found or any(tuple(one.shape[: len(lead)]) != lead for one in found):
        shapes = came(maps) if found else type(maps).__name__
        raise ValueError(
            f"{where}: expected maps with the axes {lead} first from the attribution, one for "
            f"each input{' and target' if len(lead) > 1 else ''}, got {shapes}."
        )
    return torch.cat([one.detach().reshape(*lead, -1).double() for one in found], -1)
