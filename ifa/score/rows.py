"""Data of each sample's own: a table that a score holds, of which its target is a row."""

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ifa.declared import declared
from ifa.types import Output


class Rows(NamedTuple):
    """A table that a score is asked about: its target is the number of a row."""

    classes: Tensor  # (row,), int64: the output that each row is about
    data: tuple[Tensor, ...]  # (row, *): what else there is of each row

    def at(self, row: Tensor) -> tuple[Tensor, ...]:
        """Return the class of a row, and what else there is of it."""
        place = row.reshape(1)
        tables = (self.classes, *self.data)
        return tuple(one.to(row.device).index_select(0, place).squeeze(0) for one in tables)

    def check_outputs(self, where: str, outputs: int) -> None:
        """Raise where a row is about a class that there is no output of."""
        largest = int(self.classes.max())
        if largest >= outputs:
            raise ValueError(
                f"{where}: expected classes in 0..{outputs - 1}, the model's {outputs} outputs, "
                f"got {largest} for row {int(self.classes.argmax())}."
            )


def rows_of(score: Any) -> Rows | None:
    """Return the table of a score; None of one whose target is an output."""
    rows = score.keywords.get("rows") if isinstance(score, partial) else None
    return rows if isinstance(rows, Rows) else None


def classes_at(score: Any, target: Tensor) -> Tensor:
    """Return the output that each target is about: that of its row, or the target itself."""
    rows = rows_of(score)
    if rows is None:
        return target
    return rows.classes.to(target.device).index_select(0, target.reshape(-1)).reshape(target.shape)


def output_of(score: Any, output: Output) -> Output:
    """Return what picks the output that a score reads, where nobody said."""
    return declared(score, "output") if output is None else output


def without_rows(score: Any) -> Any:
    """Return a score without its table: as what it is asked about, not what it measures."""
    if rows_of(score) is None:
        return score
    return partial(score.func, *score.args, **{**score.keywords, "rows": None})


def rows_from(where: str, classes: Any, count: int, *data: Tensor) -> Rows:
    """Make a table of so many rows; classes are one for each, or one for all."""
    listed = torch.as_tensor(classes)
    if listed.is_floating_point() or listed.is_complex() or listed.dtype == torch.bool:
        raise TypeError(f"{where}: expected classes as integers, got {listed.dtype}.")
    if listed.ndim > 1 or (listed.ndim == 1 and len(listed) != count) or bool((listed < 0).any()):
        raise ValueError(
            f"{where}: expected classes of 0 or more, one for each of {count} rows or one for all, "
            f"got {tuple(listed.shape)}{'' if listed.numel() == 0 else f' from {listed.min()}'}."
        )
    return Rows(listed.to(torch.int64).expand(count).clone(), data)
