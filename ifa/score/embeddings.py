"""How like an embedding is to another."""

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from ifa.checks import check_choice
from ifa.declared import declare
from ifa.score.rows import Rows, rows_from
from ifa.types import Score


def similarity(
    *,
    reference: Tensor,
    classes: Any = None,
    how: Literal["cosine", "dot", "difference"] = "cosine",
) -> Score:
    r"""Take how like the output, an embedding, is to a reference.

    .. math:: y = \frac{z \cdot r}{\|z\| \, \|r\|}

    Parameters
    ----------
    reference : (feature,) or (row, feature)
        Embedding r to compare with, such as that of another image or of a text. Of several, the
        target is the number of a row: a reference for each sample, or some for all.
    classes : (row,), optional
        What each row is about, where rows are to be counted together in a population, such as 0 for
        all. None: every row is of its own.
    how
        ``"cosine"`` as above; ``"dot"`` the product :math:`z \cdot r`, to which long embeddings
        give more; ``"difference"`` one less the cosine: what speaks against the likeness.

    Returns
    -------
    callable
        ``(output, target) -> score``, the output being (feature,). A cosine in [-1, 1], without
        unit; NaN for an embedding of length 0, which has no direction. Of one reference the target
        is ignored: give 0.

    Raises
    ------
    ValueError
        If a reference is not a vector of finite length above 0, or the output not of its shape.

    Examples
    --------
    >>> import torch
    >>> like = similarity(reference=torch.tensor([0.0, 2.0]))
    >>> like(torch.tensor([0.0, 5.0]), torch.tensor(0))
    tensor(1.)
    >>> pairs = similarity(reference=torch.eye(2), how="dot")
    >>> pairs(torch.tensor([3.0, 5.0]), torch.tensor(1))
    tensor(5.)
    """
    where = "ifa.score.similarity"
    check_choice(where, "how", how, ("cosine", "dot", "difference"))
    sound = reference.ndim in (1, 2) and reference.numel() and reference.isfinite().all()
    if not sound or not reference.reshape(-1, reference.shape[-1]).any(1).all():
        raise ValueError(
            f"{where}: expected a reference (feature,), or (row, feature), of finite length above "
            f"0, got shape {tuple(reference.shape)}."
        )
    if reference.ndim == 1:
        if classes is not None:
            raise ValueError(
                f"{where}: expected a reference (row, feature) for classes, got one for all, of "
                f"shape {tuple(reference.shape)}. Leave classes out, or give reference[None]."
            )
        return partial(_similarity, reference=reference, how=how)
    count = len(reference)
    rows = rows_from(where, torch.arange(count) if classes is None else classes, count, reference)
    # with classes, references are data; without, they are what is measured
    own = reference if classes is None else None
    return partial(_similarity, reference=own, how=how, rows=rows)


@declare(exclusive=False)
def _similarity(
    output: Tensor,
    target: Tensor,
    *,
    reference: Tensor | None,
    how: str,
    rows: Rows | None = None,
) -> Tensor:
    if rows is not None:
        _, reference = rows.at(target)
    assert reference is not None  # because there are no rows
    if output.shape != reference.shape:
        raise ValueError(
            f"ifa.score.similarity: expected an output of shape {tuple(reference.shape)} for each "
            f"example, as the reference, got {tuple(output.shape)}. Pick the embedding with "
            "output=."
        )
    reference = reference.detach().to(output)
    if how == "dot":
        return output @ reference
    cosine = _direction(output) @ _direction(reference)
    return 1 - cosine if how == "difference" else cosine


def _direction(vector: Tensor) -> Tensor:
    # scaled first, so that squares neither overflow nor vanish
    scaled = vector / vector.detach().abs().amax()
    return scaled / scaled.square().sum().sqrt()
