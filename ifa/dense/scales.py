"""CAMERAS: activations and gradients averaged over sizes of the input."""

import math
from collections.abc import Sequence
from typing import Any

from torch import nn

from ifa.declared import declare
from ifa.network.inputs import at, check_inputs, grid_place, put, shapes_of, space_of, take
from ifa.network.scorers import Scorer
from ifa.resizing import resized
from ifa.score import logit
from ifa.stages import builder
from ifa.taps.features import Tap, tap
from ifa.types import Grid, Inputs, Layer, Output, Score, Target, Weighted

_WHERE = "ifa.dense.scaled"


@declare(kind="built")
class Scaled:
    """A pure function ``(inputs, target=None) -> Weighted``. Build it with `scaled`."""

    def __init__(
        self, scorer: Scorer, taps: Sequence[tuple[Tap, tuple[int, ...]]], like: Any, place: Any
    ):
        self._scorer, self._taps, self._like, self._place = scorer, taps, like, place

    def __repr__(self) -> str:
        sizes = ", ".join(str(size) for _, size in self._taps)
        return f"scaled({self._scorer}, {self._taps[0][0].sites[0].layer!r}, sizes={sizes})"

    def __call__(self, inputs: Inputs, target: Target = None) -> Weighted:
        """Return mean gradients as weights, and mean activations, at the input's size."""
        check_inputs(_WHERE, inputs, self._like, "weighting")
        chosen = self._scorer.targets(inputs, target)
        image = at(inputs, self._place)
        space, times = space_of(image), len(self._taps)
        activations: Any = 0
        gradients: Any = 0
        for tapped, size in self._taps:
            seen = tapped(put(inputs, self._place, resized(image, size)), chosen)
            activations = activations + resized(seen.activations, space) / times
            gradients = gradients + resized(seen.gradients, space) / times
        lead = gradients.shape[: gradients.ndim - activations.ndim]
        return Weighted(gradients, activations.expand(*lead, *activations.shape), chosen)


@builder
def scaled(
    model: nn.Module,
    layer: Layer | None,
    example: Inputs,
    *,
    factors: Sequence[float] = (1.0, 1.25, 1.5, 1.75, 2.0),
    score: Score = logit,
    output: Output = None,
    grid: Grid | None = None,
    grid_of: str | int | None = None,
) -> Scaled:
    r"""Weigh mean activations over several sizes of the input by their mean gradients: CAMERAS.

    .. math:: \bar A = \frac{1}{n} \sum_f \varphi\bigl(A(\varphi_f(x))\bigr), \qquad
        w = \bar G = \frac{1}{n} \sum_f \varphi\bigl(G(\varphi_f(x))\bigr)

    with :math:`\varphi_f` linear interpolation of the input to f times its size, and
    :math:`\varphi` that of the layer back to the input's. A larger input has more positions. But a
    network sees objects at sizes that it was not trained on: on planted digits this was the worst
    of all maps of high resolution that were measured.

    Parameters
    ----------
    model, score, output, grid, grid_of
        As in `ifa.tap`. The network must take inputs of every size.
    layer
        One layer, as in `ifa.tap`.
    example : (sample, \*input)
        As in `ifa.tap`; the factors are of its size.
    factors
        By how much the input is enlarged: one pass each.

    Returns
    -------
    callable
        ``(inputs, target=None) -> Weighted`` at the input's size: what ``weight=`` takes, e.g.
        ``ifa.explain(net, images, weight=ifa.dense.scaled)``. The prediction that is explained for
        ``target=None`` is that on the input as it is. With the one factor 1 it is HiResCAM, brought
        to the input's size before weighing.

    Raises
    ------
    TypeError, ValueError, LookupError
        As `ifa.tap`; or if there is no factor, or one that is not positive.

    References
    ----------
    Jalwana et al. 2021, "CAMERAS: enhanced resolution and sanity preserving class activation
    mapping for image saliency". arXiv:2106.10649

    Examples
    --------
    >>> import ifa, torch
    >>> head = torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(2, 3)
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3, stride=2), *head).eval()
    >>> images = torch.rand(2, 1, 9, 11)
    >>> ifa.dense.scaled(net, "0", images, factors=(1.0, 2.0))(images).weights.shape
    torch.Size([2, 2, 9, 11])
    """
    if not (layer is None or isinstance(layer, str | nn.Module)):
        raise TypeError(f"{_WHERE}: expected one layer, got {layer!r}. Build it for each.")
    factors = tuple(factors)
    if not factors or not all(0 < factor < math.inf for factor in factors):
        raise ValueError(
            f"{_WHERE}: expected factors above 0, at least one, got {factors}. 1.0 is the input as "
            "it is."
        )
    place = grid_place(_WHERE, example, grid_of)
    image, laid = at(example, place), {"output": output, "grid": grid, "grid_of": grid_of}
    taps = []
    for factor in factors:
        size = tuple(max(1, round(factor * extent)) for extent in space_of(image))
        larger = take(put(example, place, resized(image, size)), slice(2))
        taps.append((tap(model, layer, larger, score=score, **laid), size))
    scorer = Scorer(_WHERE, model, score, output)
    return Scaled(scorer, taps, shapes_of(example), place)
