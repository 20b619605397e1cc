"""Composition: chain steps left to right, and lift a step from one example to a batch."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap
from torch.utils._pytree import tree_map

from ifa.markup import html_table
from ifa.types import Features, Step


@dataclass(frozen=True, repr=False)
class Chain:
    """Steps applied left to right. Build it with `chain`."""

    steps: tuple[Step, ...] = ()
    _ifa_facts = (None, {"kind": "step"})  # what `declared` reads
    __name__ = "chain"  # vmap asks for a name on every call; a repr would print our tensors

    def __call__(self, value: Any) -> Any:
        for step in self.steps:
            value = step(value)
        return value

    def __repr__(self) -> str:
        return describe(self)

    def _repr_html_(self) -> str:
        rows = [(number, describe(step)) for number, step in enumerate(self.steps, 1)]
        return html_table(["", "step"], rows, caption=f"chain of {len(rows)} steps")


def chain(*steps: Step) -> Chain:
    """Compose steps: the value flows through them left to right.

    `chain()` is the identity, chains inside chains are flattened, and so `chain` is associative.
    The result pickles when its steps do, compiles with ``torch.compile(fullgraph=True)``, and
    prints as the description of the experiment.

    Parameters
    ----------
    *steps
        Callables of one argument, such as those made by `ifa.weigh`, `ifa.keep` or `ifa.rescale`.

    Raises
    ------
    TypeError
        If a step cannot be called.

    Examples
    --------
    >>> import ifa
    >>> ifa.chain(ifa.weigh(ifa.weight.gradcam), ifa.combine, ifa.chain(ifa.relu, ifa.clip(0, 1)))
    chain(weigh(kernel=gradcam), combine, relu, clip(low=0, high=1))
    """
    flat: list[Step] = []
    for position, step in enumerate(steps):
        if not callable(step):
            raise TypeError(
                f"ifa.chain: expected steps that can be called, got {step!r} "
                f"({type(step).__name__}) at position {position}. "
                "A step is a function of one argument, e.g. ifa.weigh(ifa.weight.gradcam)."
            )
        flat.extend(step.steps if isinstance(step, Chain) else (step,))
    return Chain(tuple(flat))


def batched(step: Step) -> Step:
    """Lift a step from one example to a batch, and over the target axis where there is one.

    The step never sees its neighbours: a sample's result cannot depend on the batch it is in.

    Parameters
    ----------
    step
        A function of one record (`Features`, `Weighted` or `Map`) of one example, or of a tuple of
        records, such as the features of several layers, and of tensors after the first, such as
        the example's image.

    Returns
    -------
    callable
        The same over records with a leading sample axis, or, as a tap gives them for many targets
        (activations without, everything else with a target axis), leading target and sample axes.

    Raises
    ------
    TypeError
        If the step cannot be called, or the value given later is not a record with a target.

    Examples
    --------
    >>> import ifa, torch
    >>> maps = ifa.Map(torch.tensor([[-1.0, 2.0], [3.0, -4.0]]), torch.tensor([0, 1]))
    >>> ifa.batched(ifa.relu)(maps).values
    tensor([[0., 2.],
            [3., 0.]])
    """
    if not callable(step):
        raise TypeError(f"ifa.batched: expected a step that can be called, got {step!r}.")
    return partial(_batched, step=step)


def _batched(record: Any, *, step: Step) -> Any:
    several = type(record) is tuple and record
    target = getattr(record[0] if several else record, "target", None)
    if not isinstance(target, Tensor) or target.ndim not in (1, 2):
        shape = tuple(target.shape) if isinstance(target, Tensor) else None
        raise TypeError(
            "ifa.batched: expected a record (Features, Weighted or Map) whose target is (sample,) "
            f"or (target, sample), got {type(record).__name__} with target {shape}. "
            "For one example call the step itself."
        )
    over_samples = vmap(step) if target.shape[-1] > 1 else partial(_alone, step)
    if target.ndim == 1:
        return over_samples(record)
    in_dims = tuple(map(_target_dims, record)) if several else _target_dims(record)
    return vmap(over_samples, in_dims=(in_dims,))(record)


def _alone(step: Step, record: Any) -> Any:
    """Do what `vmap` does for a batch of one; its wrapping costs more than a small map."""
    found = step(tree_map(lambda field: field[0], record))
    return tree_map(lambda field: field[None], found)


def _target_dims(record: Any) -> Any:
    """Where each field of a record has its target axis: activations and images have none."""
    if isinstance(record, Tensor):
        return None
    if isinstance(record, Features) and record.gradients.ndim > record.activations.ndim:
        return Features(None, 0, 0)  # pyright: ignore[reportArgumentType]
    return type(record)(*(0 for _ in record))  # pyright: ignore[reportArgumentType]


def describe(value: Any) -> str:
    """Write a step, or an option of one, as a short line; tensors by dtype and shape."""
    if isinstance(value, Chain):
        return f"chain({', '.join(map(describe, value.steps))})"
    if isinstance(value, partial):
        options = [describe(v) for v in value.args]
        options += [f"{k}={describe(v)}" for k, v in value.keywords.items()]
        return f"{describe(value.func).lstrip('_')}({', '.join(options)})"
    if isinstance(value, Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        return f"{value.item():.6g}" if value.ndim == 0 else f"{dtype}{tuple(value.shape)}"
    if hasattr(value, "_fields"):
        fields = ", ".join(f"{k}={describe(v)}" for k, v in zip(value._fields, value, strict=True))
        return f"{type(value).__name__}({fields})"
    if type(value) is tuple and any(isinstance(part, Tensor) for part in value):
        return f"({', '.join(map(describe, value))},)"
    if isinstance(value, torch.nn.Module):
        return type(value).__name__
    return getattr(value, "__name__", None) or repr(value)
