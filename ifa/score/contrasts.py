"""What a class has over those that are like it."""

from collections.abc import Sequence
from functools import partial
from operator import index
from typing import Any

import torch
from torch import Tensor

from ifa.checks import check_size
from ifa.declared import declare
from ifa.score.logits import logit, one_axis
from ifa.score.rows import Rows, rows_from
from ifa.types import Score


def contrast(
    *,
    gamma: float = 0.6,
    references: int | Sequence[int] | Sequence[Sequence[int]] | Tensor = 3,
    classes: Any = None,
) -> Score:
    r"""Take what the target's logit has over those of similar classes, as Finer-CAM does.

    .. math:: y = z_t - \gamma \frac{1}{|D|} \sum_{d \in D} z_d

    The gradient of this score finds what tells the target from the references D, not what they
    share.

    Parameters
    ----------
    gamma
        How much of the references is taken away: 0 is the logit itself.
    references
        How many classes D has, those of the smallest :math:`|z_d - z_t|`, without the target, the
        first of equal ones; all others if there are fewer. Or the indices of D themselves, for
        every target; where the target is one of them it is left out. Or, with `classes`, such a
        list for each row, of any length.
    classes : (row,), optional
        The class t that each row is about: the target is then the number of a row, so that every
        sample can have references of its own.

    Returns
    -------
    callable
        ``(output, target) -> score``, the output being logits (output,); in their unit. Which
        classes are nearest is a constant for the gradient. NaN if the target is the only reference.

    Raises
    ------
    ValueError
        If there is no reference, or one is given twice or out of range, or gamma is not finite or
        negative; or if there are not as many rows of references as classes.

    References
    ----------
    Zhang et al. 2025, "Finer-CAM: spotting the difference reveals finer details for visual
    explanation". arXiv:2501.11309

    Examples
    --------
    >>> import torch
    >>> logits, target = torch.tensor([4.0, 1.0, 3.0, 0.0]), torch.tensor(0)
    >>> contrast(gamma=0.5, references=2)(logits, target)
    tensor(3.)
    >>> contrast(gamma=0.5, references=[3])(logits, target)
    tensor(4.)

    Why class 0 rather than 1 and 3, and why 2 rather than 0:

    >>> own = contrast(gamma=1.0, references=[[1, 3], [0]], classes=[0, 2])
    >>> own(logits, torch.tensor(0)), own(logits, torch.tensor(1))
    (tensor(3.5000), tensor(-1.))
    """
    where = "ifa.score.contrast"
    check_size(where, "gamma", gamma)
    if classes is not None:
        rows = _contrasted(where, references, classes)
        return partial(_contrast, gamma=gamma, references=None, rows=rows)
    if isinstance(references, int):
        if references < 1:
            raise ValueError(
                f"ifa.score.contrast: expected references >= 1, got {references}. "
                "For no reference take ifa.score.logit."
            )
        return partial(_contrast, gamma=gamma, references=references)
    given = _distinct(references)
    if given is None:
        raise ValueError(
            "ifa.score.contrast: expected distinct indices of outputs as references, got "
            f"{references!r}. Where each sample has its own, say with classes= which class each "
            "row of them is about, and give the rows as target."
        )
    return partial(_contrast, gamma=gamma, references=given)


def _distinct(references: Any) -> tuple[int, ...] | None:
    """Read references; None where they are not distinct indices, at least one."""
    try:
        given = tuple(map(index, references))
    except TypeError:  # rows, or real numbers
        return None
    return given if given and len(set(given)) == len(given) and min(given) >= 0 else None


def _contrasted(where: str, references: Any, classes: Any) -> Rows:
    """Make a table of references: short rows are filled with their first, which does not count."""
    given = [_distinct(row) for row in references] if not isinstance(references, int) else [None]
    found = [row for row in given if row is not None]
    if not found or len(found) < len(given):
        raise ValueError(
            f"{where}: expected a row of distinct indices of outputs as references for each of the "
            f"classes, got {references!r}. One row for every target is given without classes=."
        )
    most = max(map(len, found))
    filled = torch.tensor([(*row, *[row[0]] * (most - len(row))) for row in found])
    counts = torch.arange(most) < torch.tensor([len(row) for row in found])[:, None]
    return rows_from(where, classes, len(found), filled, counts)


@declare(reads="logits")
def _contrast(
    output: Tensor,
    target: Tensor,
    *,
    gamma: float,
    references: int | tuple[int, ...] | None,
    rows: Rows | None = None,
) -> Tensor:
    one_axis("contrast", output)
    if rows is not None:
        target, chosen, counts = rows.at(target)
        _check_references(max(int(rows.data[0].max()), int(rows.classes.max())), output)
        return _less(output, target, chosen, counts, gamma)
    logit_of_target = logit(output, target)
    indices = torch.arange(len(output), device=output.device)
    if isinstance(references, int):
        if len(output) < 2:
            raise ValueError(
                f"ifa.score.contrast: expected at least 2 outputs, got {len(output)}. "
                "Take ifa.score.logit."
            )
        # infinitely far from itself; the sort keeps equal ones in order
        distance = (
            (output - logit_of_target).detach().abs().masked_fill(indices == target, torch.inf)
        )
        nearest = distance.argsort(stable=True)[: min(references, len(output) - 1)]
        return logit_of_target - gamma * output.gather(0, nearest).mean()
    assert references is not None  # because there are no rows
    _check_references(max(references), output)
    chosen = torch.tensor(references, device=output.device)
    return _less(output, target, chosen, torch.ones_like(chosen, dtype=torch.bool), gamma)


def _check_references(largest: int, output: Tensor) -> None:
    if largest >= len(output):
        raise ValueError(
            f"ifa.score.contrast: expected references in 0..{len(output) - 1}, the model's "
            f"{len(output)} outputs, got {largest}."
        )


def _less(output: Tensor, target: Tensor, chosen: Tensor, counts: Tensor, gamma: float) -> Tensor:
    weights = (counts & (chosen != target)).to(output.dtype)
    references = (output.index_select(0, chosen) * weights).sum() / weights.sum()
    return logit(output, target) - gamma * references
