"""What options of an analysis can be, checked before anything is done."""

from collections.abc import Sequence
from typing import Any

from ifa.reduce.extras import EXTRAS
from ifa.weight import fullcam


def check_data(data: Any) -> None:
    """Raise unless data are sized, indexable and not empty."""
    if not hasattr(data, "__len__") or not hasattr(data, "__getitem__"):
        raise TypeError(
            "ifa.analyze: expected a sized, indexable data set of (input, label), got "
            f"{type(data).__name__}. For a DataLoader give its data set: loader.dataset."
        )
    if len(data) == 0:
        raise ValueError("ifa.analyze: expected at least one sample, got an empty data set.")


# Names in the tree that a layer's group cannot have.
_TAKEN = ("samples", "id", "label", "prediction", "score", "target", "target_name")


def check_names(layers: Sequence[str]) -> None:
    """Raise where a layer's name cannot be that of a group."""
    for name in layers:
        if name in _TAKEN or "/" in name:
            raise ValueError(
                f"ifa.analyze: expected a layer whose name can be that of a group, got {name!r}: "
                f"{', '.join(_TAKEN)} are taken, and '/' parts groups. Rename the module, or wrap "
                "the model in torch.nn.Sequential."
            )


def levels(quantiles: Any) -> tuple[float, ...]:
    """Return quantiles as distinct numbers in [0, 1]."""
    try:
        levels = tuple(float(level) for level in quantiles)
    except (TypeError, ValueError):
        levels = ()
    if not 0 < len(levels) == len(set(levels)) or not all(0 <= level <= 1 for level in levels):
        raise ValueError(
            "ifa.analyze: expected distinct quantiles in [0, 1], at least one, such as "
            f"(0.5, 0.9), got {quantiles!r}."
        )
    return levels


def check_options(
    targets: Any,
    keep_samples: str,
    task: str,
    reduction: str,
    shard: int,
    batch_size: int,
    workers: int | None,
) -> None:
    """Raise where an option is none of its choices."""
    choices: list[tuple[str, Any, tuple[str, ...]]] = [
        ("keep_samples", keep_samples, ("summary", "full", "none")),
        ("task", task, ("classification", "regression")),
        ("reduction", reduction, ("sum", "mean")),
    ]
    if isinstance(targets, str):
        choices.append(("targets", targets, ("predicted", "label")))
    for name, value, allowed in choices:
        if value not in allowed:
            raise ValueError(f"ifa.analyze: expected {name} to be one of {allowed}, got {value!r}.")
    if task == "regression" and targets == "label":
        raise ValueError(
            "ifa.analyze: expected targets='predicted' (every output) or a list of outputs for "
            "regression, got 'label': its labels are values, not outputs."
        )
    for name, value in (("shard", shard), ("batch_size", batch_size)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"ifa.analyze: expected a positive {name}, got {value!r}.")
    if workers is not None and (not isinstance(workers, int) or workers < 0):
        raise ValueError(f"ifa.analyze: expected workers to be None or 0 or more, got {workers!r}.")


def check_combination(task: str, weight: Any, perturb: Any, confidence: bool) -> None:
    """Raise where options do not go together."""
    if perturb is not None and not callable(perturb):
        raise TypeError(
            f"ifa.analyze: expected perturb to be a builder of ifa.perturb, got {perturb!r}."
        )
    if perturb is not None and weight is not fullcam:
        raise ValueError("ifa.analyze: expected weight= or perturb=, got both. Give one of them.")
    if confidence and task == "regression":
        raise ValueError(
            "ifa.analyze: expected confidence=True for classification only, got "
            "task='regression', whose outputs are no probabilities."
        )


def extra_names(reductions: Any) -> tuple[str, ...]:
    """Return the names of extra reductions, in their own order."""
    names = (reductions,) if isinstance(reductions, str) else tuple(reductions)
    unknown = [name for name in names if name not in EXTRAS]
    if unknown or len(set(names)) < len(names):
        raise ValueError(
            f"ifa.analyze: expected distinct reductions of {EXTRAS}, got {list(names)}."
        )
    return tuple(name for name in EXTRAS if name in names)
