"""The scores of a region: for segmentation."""

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from ifa.checks import check_choice
from ifa.score.rows import Rows, rows_from
from ifa.types import Score


def region(
    *,
    mask: Tensor | None = None,
    classes: Any = None,
    reduction: Literal["mean", "sum"] = "mean",
) -> Score:
    r"""Take the mean or sum of the target's scores over a region: for segmentation.

    .. math:: y = \frac{1}{|R|} \sum_{x \in R} z_{t x}

    Parameters
    ----------
    mask : (\*space) or (row, \*space), optional
        Boolean, the region R of every sample, or with `classes` one for each row. None takes the
        predicted region of each sample: where the target's score is the largest. It is a constant
        for the gradient.
    classes : (row,), optional
        The class t that each row is about, one for each or one for all: the target is then the
        number of a row, so that every sample can have a mask of its own.
    reduction
        ``"mean"`` over the region, so that large and small ones can be compared, or ``"sum"``.

    Returns
    -------
    callable
        ``(output, target) -> score``, the output being (class, \*space); in the unit of the scores.
        NaN, and so is its gradient, where the target is predicted nowhere: there is nothing to
        explain, and a gradient of zero would look like an explanation.

    Raises
    ------
    ValueError
        If a mask is empty, not boolean, or not shaped like the output's space.

    Examples
    --------
    >>> import torch
    >>> scores = torch.tensor([[3.0, 1.0, 5.0], [2.0, 2.0, 2.0]])  # two classes, three places
    >>> region()(scores, torch.tensor(0)), region()(scores, torch.tensor(1))
    (tensor(4.), tensor(2.))
    >>> region(mask=torch.tensor([True, True, False]))(scores, torch.tensor(0))
    tensor(2.)

    A mask for each sample, the target being the row:

    >>> masks = torch.tensor([[True, True, False], [False, False, True]])
    >>> own = region(mask=masks, classes=[0, 1], reduction="sum")
    >>> own(scores, torch.tensor(0)), own(scores, torch.tensor(1))
    (tensor(4.), tensor(2.))
    """
    where = "ifa.score.region"
    check_choice(where, "reduction", reduction, ("mean", "sum"))
    if mask is None:
        if classes is not None:
            raise ValueError(f"{where}: expected a mask for each of the classes, got no mask.")
        return partial(_region, mask=None, reduction=reduction)
    each = mask.flatten(1) if classes is not None and mask.ndim > 1 else mask.reshape(1, -1)
    if mask.dtype != torch.bool or not each.numel() or not each.any(1).all():
        raise ValueError(
            f"{where}: expected a boolean mask that is somewhere true, got {mask.dtype} "
            f"{tuple(mask.shape)} with {int(mask.count_nonzero())} places"
            f"{' of which one row has none' if mask.any() else ''}."
        )
    if classes is None:
        return partial(_region, mask=mask, reduction=reduction)
    rows = rows_from(where, classes, len(mask), mask)
    return partial(_region, mask=None, reduction=reduction, rows=rows)


def _region(
    output: Tensor,
    target: Tensor,
    *,
    mask: Tensor | None,
    reduction: str,
    rows: Rows | None = None,
) -> Tensor:
    if rows is not None:
        target, mask = rows.at(target)
    if output.ndim < 2 or (mask is not None and mask.shape != output.shape[1:]):
        wanted = "*space" if mask is None else ", ".join(map(str, mask.shape))
        raise ValueError(
            f"ifa.score.region: expected an output of shape (class, {wanted}) for each example, "
            f"got {tuple(output.shape)}. Pick the tensor with output=; give a mask at the space of "
            "the output, and one for each row with classes=."
        )
    if rows is not None:
        rows.check_outputs("ifa.score.region", len(output))
    scores = output.index_select(0, target.reshape(1)).squeeze(0)
    inside = output.detach().argmax(0) == target if mask is None else mask.to(output.device)
    count = inside.sum()
    weights = inside.to(output.dtype) / count  # NaN if there is no place, also for the gradient
    mean = (torch.where(inside | (count == 0), scores, 0) * weights).sum()
    return mean if reduction == "mean" else mean * count
