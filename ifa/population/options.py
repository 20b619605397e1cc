"""Options of the drivers, each written once: its check, and what of it goes into a run's spec."""

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Annotated, Any, Literal, get_type_hints

import torch

from ifa.basis.projections import check_basis, digests, heed_basis
from ifa.chains import describe
from ifa.checks import check_choice, check_count, check_text
from ifa.declared import declared
from ifa.network.tokens import callable_token
from ifa.reduce.verdicts import FLAGS, TASKS, Task
from ifa.score.rows import rows_of, without_rows
from ifa.stages import check_method
from ifa.types import Grid, Method, Output, Score

Keep = Literal["summary", "full", "none"]

Check = Callable[[str, str, Any], None]  # (where, name of the option, value)


# Marks an option that results do not depend on, or that a spec has in another form.
FREE = "free"


def one_of(*choices: str) -> Check:
    """Make a check that an option is one of its choices."""
    return partial(_is_one_of, choices=choices)


def _is_one_of(where: str, name: str, value: Any, choices: Sequence[str]) -> None:
    check_choice(where, name, value, choices)


def whole_or_none(where: str, name: str, value: Any) -> None:
    """Check for None or a whole number from 0."""
    if value is not None and (not isinstance(value, int) or value < 0):
        raise ValueError(f"{where}: expected {name} to be None or 0 or more, got {value!r}.")


def count_or_none(where: str, name: str, value: Any) -> None:
    """Check for None or a whole number from 1."""
    if value is not None:
        check_count(where, name, value)


def above_zero(where: str, name: str, value: Any) -> None:
    """Check for a finite number above zero."""
    if not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"{where}: expected {name} to be finite, above 0, got {value!r}.")


def text_or_none(where: str, name: str, value: Any) -> None:
    """Check for None or text."""
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{where}: expected {name} to be None or text, got {value!r}.")
    if value == "":
        raise ValueError(f"{where}: expected {name} to be None or text, got none of it.")
    check_text(where, name, value or "")


def which_targets(where: str, name: str, value: Any) -> None:
    """Check for a way to choose targets by name."""
    if isinstance(value, str):
        check_choice(where, name, value, ("predicted", "label"))


def which_quantiles(where: str, name: str, value: Any) -> None:
    """Check for distinct numbers in [0, 1]."""
    try:
        found = [float(level) for level in value]
    except (TypeError, ValueError):
        found = []
    if not 0 < len(found) == len(set(found)) or not all(0 <= level <= 1 for level in found):
        raise ValueError(
            f"{where}: expected distinct {name} in [0, 1], at least one, such as (0.5, 0.9), got "
            f"{value!r}."
        )


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every driver takes; the defaults are those of its signature."""

    layer: Annotated[Any, FREE]  # a spec has the layers that were found
    weight: Annotated[Method, check_method]
    basis: Annotated[Any, FREE, check_basis]  # a spec has its digest
    score: Score
    grid: Grid | None
    output: Output
    grid_of: str | int | None
    targets: Annotated[Any, FREE, which_targets]  # a spec has the outputs meant
    task: Annotated[Task, one_of(*TASKS)]
    shard: Annotated[int, check_count]
    batch_size: Annotated[int, check_count]
    compile: bool
    workers: Annotated[int | None, FREE, whole_or_none]
    data_version: Annotated[str | None, FREE, text_or_none]  # a spec has it with the data

    def check(self, where: str) -> None:
        """Raise where an option is not as it should be."""
        for name, marks in self._marks().items():
            for check in filter(callable, marks):
                check(where, name, getattr(self, name))
        if self.task == "regression" and isinstance(self.targets, str) and self.targets == "label":
            raise ValueError(
                f"{where}: expected targets='predicted' (every output) or a list of outputs for "
                "regression, got 'label': its labels are values, not outputs."
            )
        self._check_rows(where)
        heed_basis(where, self.weight, self.basis)
        if self.task in FLAGS and declared(self.score, "exclusive", False):
            raise ValueError(
                f"{where}: expected a score of each output by itself for task={self.task!r}, got "
                f"{describe(self.score)}, the softmax over outputs of which one is right. Take "
                "ifa.score.logit, or ifa.score.sigmoid, the probability of one label."
            )

    def _check_rows(self, where: str) -> None:
        """Raise where labels are not what the score has to be asked about."""
        if self.task == "scored" and isinstance(self.targets, str) and self.targets != "label":
            raise ValueError(
                f"{where}: expected targets='label', or a list of classes, for task='scored', of "
                f"which nothing is predicted but a score, got {self.targets!r}."
            )
        if self.task != "scored" and rows_of(self.score) is not None:
            raise ValueError(
                f"{where}: expected task='scored' for the score {describe(self.score)}, got "
                f"{self.task!r}. It holds a table: labels are numbers of its rows."
            )

    def spec(self, where: str) -> dict[str, Any]:
        """Return what a result depends on, as canonical values."""
        kept = [name for name, marks in self._marks().items() if FREE not in marks]
        found = {name: callable_token(getattr(self, name), where) for name in kept}
        rows = rows_of(self.score)
        if rows is not None:  # by itself, as the data are
            found["score"] = callable_token(without_rows(self.score), where)
            found["rows"] = callable_token(rows, where)
        if self.basis is not None:
            found["basis"] = digests(self.basis)
        return {**found, "threads": torch.get_num_threads()}

    def _marks(self) -> dict[str, tuple[Any, ...]]:
        hints = get_type_hints(type(self), include_extras=True)
        return {each.name: getattr(hints[each.name], "__metadata__", ()) for each in fields(self)}


@dataclass(frozen=True, kw_only=True)
class Analysis(Options):
    """What `ifa.analyze` takes besides."""

    keep_samples: Annotated[Keep, one_of("summary", "full", "none")]
    reduction: Annotated[Literal["sum", "mean"], one_of("sum", "mean")]
    reductions: Annotated[Any, FREE]
    subsample_positions: Annotated[int | None, count_or_none]
    probability_weighted: bool
    quantiles: Annotated[Sequence[float], which_quantiles]
    target_names: Annotated[Sequence[str] | None, FREE]

    def check(self, where: str) -> None:
        """Raise where an option is not as it should be."""
        super().check(where)
        if self.probability_weighted and self.task in ("regression", "scored"):
            raise ValueError(
                f"{where}: expected probability_weighted=True for outputs that are probabilities "
                "or their logits, got task={self.task!r}. Leave it out."
            )


# Names in the tree, or in its folder, that a layer's group cannot have.
_TAKEN = ("samples", "id", "label", "prediction", "score", "target", "target_name", "zarr.json")


def check_layers(where: str, layers: Sequence[str]) -> None:
    """Raise where a layer's name cannot be that of a group."""
    for name in layers:
        if name in _TAKEN or "/" in name:
            raise ValueError(
                f"{where}: expected a layer whose name can be that of a group, got {name!r}: "
                f"{', '.join(_TAKEN)} are taken, and '/' parts groups. Rename the module, or wrap "
                "the model in torch.nn.Sequential."
            )


def check_task(where: str, task: Task, outputs: int) -> None:
    """Raise where a network has not the outputs of a task."""
    if task == "classification" and outputs == 1:
        raise ValueError(
            f"{where}: expected at least 2 outputs for task='classification', of which the largest "
            "is predicted, got a network with one output. If it is a logit, above 0 for label 1 "
            "and not for 0, say task='binary'; if it is a real value, task='regression'."
        )
    if task == "binary" and outputs != 1:
        raise ValueError(
            f"{where}: expected one output for task='binary', got {outputs}. Say "
            "task='classification' of classes of which one is right, task='multilabel' of labels "
            "that do not exclude each other, or pick one output with output=."
        )


def which_outputs(where: str, targets: Any, outputs: int) -> tuple[int, ...]:
    """Return the outputs that statistics have rows for."""
    try:
        listed = range(outputs) if isinstance(targets, str) else targets
        chosen = tuple(operator.index(target) for target in listed)
    except TypeError:
        raise TypeError(
            f"{where}: expected targets to be 'predicted', 'label' or a list of output indices, "
            f"got {targets!r}."
        ) from None
    distinct = len(set(chosen)) == len(chosen) > 0
    if not distinct or not 0 <= min(chosen) <= max(chosen) < outputs:
        raise ValueError(
            f"{where}: expected distinct targets in 0..{outputs - 1}, at least one, got "
            f"{list(chosen)}."
        )
    return chosen
