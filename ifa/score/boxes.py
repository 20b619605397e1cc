"""The score of a box: how well a detector finds it."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from ifa.checks import check_choice, check_size
from ifa.declared import declare
from ifa.score.rows import Rows, rows_from
from ifa.types import Score

# Of torchvision's detectors, and of transformers'.
_DETECTED = ("boxes", "scores", "labels")
_QUERIED = ("pred_boxes", "logits")


def detections(raw: Any) -> Any:
    """Take what `box` reads out of what a detector returned, and nothing else."""
    if isinstance(raw, list):
        return [detections(one) for one in raw]
    for names in (_DETECTED, _QUERIED):
        if isinstance(raw, Mapping) and all(name in raw for name in names):
            return {name: raw[name] for name in names}
    came = f"{type(raw).__name__}{f' with {list(raw)}' if isinstance(raw, Mapping) else ''}"
    raise LookupError(
        f"ifa.score.box: expected a detector that returns a list with {', '.join(_DETECTED)} for "
        f"each sample, or one mapping with {' and '.join(_QUERIED)}, got {came}. Make one of these "
        "of it with output=, a callable."
    )


def box(
    *,
    boxes: Any,
    classes: Any,
    threshold: float = 0.5,
    activation: Literal["softmax", "sigmoid"] = "softmax",
) -> Score:
    r"""Take how well a detector finds a box: overlap times class score of the best detection.

    .. math:: y = \max_{d:\, c_d = c,\; \mathrm{IoU}(b, b_d) > \tau} \mathrm{IoU}(b, b_d) \, s_d

    and 0 where there is none. IoU is the area that both boxes share over the area that either has.

    Parameters
    ----------
    boxes : (row, 4)
        Boxes b to be explained, ``(left, top, right, bottom)`` in the unit of the detector's own:
        pixels for torchvision's, shares of the image, from 0 to 1, for those with ``pred_boxes``.
        The target is the number of a row: (sample,) gives each sample a box of its own, (target,
        sample) several from one forward pass.
    classes : (row,)
        Class c of each box, or one for all.
    threshold
        The overlap :math:`\tau` that a detection needs to count. Of a perturbed input, as in
        deletion, a lower one follows a box for longer.
    activation
        What makes scores of ``logits``: ``"softmax"`` as for DETR and YOLOS, or ``"sigmoid"`` as
        for conditional and deformable DETR and RT-DETR. Not used for ``scores``.

    Returns
    -------
    callable
        ``(output, target) -> score`` in [0, 1]. The output is a mapping with ``boxes`` (box, 4),
        ``scores`` and ``labels`` (box,), as of torchvision's detectors, which return a list of one
        for each sample; or with ``pred_boxes`` (box, 4), which are ``(center x, center y, width,
        height)``, and ``logits`` (box, class), as of transformers'. Both are found without
        ``output=``.

        The gradient is that of the best detection, through its score and through its coordinates:
        :math:`s \, \nabla \mathrm{IoU} + \mathrm{IoU} \, \nabla s`. The first is zero where the box
        asked for is the detected one itself, whose overlap cannot be larger. Which detection is the
        best is a constant. Of a box that is not found it is zero, which `ifa.ZeroGradient` names.

    Raises
    ------
    LookupError
        If the model returns neither.
    ValueError
        If a box has no area or is not finite, there are not as many classes, or the threshold is
        not in [0, 1); or if boxes are in pixels and those of the detector are not.

    Notes
    -----
    It is the similarity of D-RISE, without its comparison of all class scores. The
    FasterRCNNBoxScoreTarget of pytorch-grad-cam adds IoU and score, looks at the detection of
    largest IoU only, whatever its class, and sums over all boxes.

    References
    ----------
    Petsiuk et al. 2021, "Black-box explanation of object detectors via saliency maps".
    arXiv:2006.03204

    Examples
    --------
    >>> import torch
    >>> found = {
    ...     "boxes": torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 3.0]]),
    ...     "scores": torch.tensor([0.5, 0.8]),
    ...     "labels": torch.tensor([1, 1]),
    ... }
    >>> asked = box(boxes=[[0, 0, 4, 4], [5, 5, 6, 6]], classes=1)
    >>> asked(found, torch.tensor(0)), asked(found, torch.tensor(1))
    (tensor(0.6000), tensor(0.))
    """
    where = "ifa.score.box"
    check_choice(where, "activation", activation, ("softmax", "sigmoid"))
    check_size(where, "threshold", threshold)
    if threshold >= 1:
        raise ValueError(f"{where}: expected threshold in [0, 1), got {threshold}.")
    given = torch.as_tensor(boxes)
    given = given if given.is_floating_point() else given.float()
    if given.ndim != 2 or given.shape[1] != 4 or len(given) == 0:
        raise ValueError(
            f"{where}: expected boxes (row, 4), at least one, got {tuple(given.shape)}."
        )
    wrong = ~(given[:, 2:] > given[:, :2]).all(1) | ~given.isfinite().all(1)
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise ValueError(
            f"{where}: expected boxes (left, top, right, bottom) with an area, got "
            f"{given[row].tolist()} as row {row}. Of (left, top, width, height) add the first two "
            "to the last two."
        )
    rows = rows_from(where, classes, len(given), given)
    return partial(_box, threshold=threshold, activation=activation, rows=rows)


@declare(output=detections)
def _box(output: Any, target: Tensor, *, threshold: float, activation: str, rows: Rows) -> Tensor:
    wanted, place = rows.at(target)
    if "pred_boxes" in output:
        if float(rows.data[0].max()) > 2:
            raise ValueError(
                "ifa.score.box: expected boxes as shares of the image, from 0 to 1, as the "
                f"detector's pred_boxes are, got {float(rows.data[0].max()):.6g}. Divide them by "
                "its width and height."
            )
        center, size = output["pred_boxes"].split(2, -1)
        found = torch.cat([center - size / 2, center + size / 2], -1)
        logits = output["logits"]
        rows.check_outputs("ifa.score.box", logits.shape[-1])
        scores = logits.softmax(-1) if activation == "softmax" else logits.sigmoid()
        scores = scores.index_select(-1, wanted.reshape(1)).squeeze(-1)
        other = torch.zeros_like(scores, dtype=torch.bool)
    else:
        found, scores = output["boxes"], output["scores"]
        other = output["labels"] != wanted
    overlap = _overlap(place.to(found), found)
    value = torch.where(other | (overlap <= threshold), 0, overlap * scores)
    return torch.cat([value.new_zeros(1), value]).max(0).values  # also of no detection


def _overlap(box: Tensor, boxes: Tensor) -> Tensor:
    """Return intersection over union of a box, (4,), with others, (box, 4)."""
    least, most = torch.maximum(box[:2], boxes[:, :2]), torch.minimum(box[2:], boxes[:, 2:])
    shared = (most - least).clamp(min=0).prod(-1)
    areas = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(-1)
    return shared / ((box[2:] - box[:2]).prod() + areas - shared)
