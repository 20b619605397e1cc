"""The one call: model and inputs to maps."""

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn

from ifa.chains import chain
from ifa.resizing import resize
from ifa.scaling import Scale, rescale
from ifa.score import logit
from ifa.stages import combine, keep, relu, weighing
from ifa.taps import tap
from ifa.types import Grid, Output, Score, Step
from ifa.weight import gradcam


def explain(
    model: nn.Module,
    inputs: Tensor,
    target: Any = None,
    *,
    layer: str | None = None,
    weight: Any = gradcam,
    mask: Any = None,
    scale: Scale | None = None,
    rectify: bool = True,
    size: Sequence[int] | Literal["input"] | None = "input",
    score: Score = logit,
    grid: Grid | None = None,
    output: Output = None,
) -> Tensor:
    r"""Explain a batch in one call: tap, weigh, keep, combine, rectify, rescale, resize.

    A short composition of the public functions and nothing more; for maps that can be compared
    between samples, give the `scale` of a population.

    Parameters
    ----------
    model, layer, score, grid, output
        As in `ifa.tap`.
    inputs : (sample, \*input)
        A batch.
    target
        None for the prediction, an int, (sample,), or (target, sample).
    weight
        A kernel of `ifa.weight`, or a step `Features` -> `Weighted`.
    mask
        Channels to keep, see `ifa.keep`.
    scale
        A common scale, see `ifa.scale_from`. None leaves the score's unit.
    rectify
        Set what speaks against the target to zero.
    size
        ``"input"`` for the input's space, a tuple, or None for the layer's own grid.

    Returns
    -------
    (sample, \*space) or (target, sample, \*space)
        Maps.

    Raises
    ------
    LookupError, ValueError
        As `ifa.tap` and the steps.

    Examples
    --------
    >>> import ifa, torch
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3, stride=2), torch.nn.Flatten())
    >>> images = torch.rand(5, 1, 9, 7)
    >>> ifa.explain(net, images, layer="0").shape
    torch.Size([5, 9, 7])

    Every output of a regression (a regression activation map), signed, from one forward pass:

    >>> head = torch.nn.Sequential(net, torch.nn.Linear(36, 3))
    >>> every = torch.arange(3)[:, None].expand(3, 5)
    >>> ifa.explain(head, images, every, layer="0.0", rectify=False, size=None).shape
    torch.Size([3, 5, 4, 3])

    Why output 0, rather than output 2:

    >>> rather = ifa.score.contrast(gamma=1.0, references=[2])
    >>> ifa.explain(head, images, 0, layer="0.0", score=rather).shape
    torch.Size([5, 9, 7])
    """
    steps: list[Step] = [weighing(weight, "ifa.explain")]
    steps += [] if mask is None else [keep(mask)]
    steps += [combine]
    steps += [relu] if rectify else []
    steps += [] if scale is None else [rescale(scale)]
    steps += [] if size is None else [resize(inputs.shape[2:] if size == "input" else size)]
    maps = tap(model, layer, inputs[:1], score=score, grid=grid, output=output, step=chain(*steps))
    return maps(inputs, target).values
