"""What every reduction is built from: a monoid, a fold, and combinators."""

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, ParamSpec

from torch import Tensor
from torch.func import vmap

from ifa.types import Reduction

P = ParamSpec("P")


class _Made(Reduction):
    """A reduction that pickles as the call that made it, because its closures do not."""

    call: Any

    def __reduce_ex__(self, protocol: Any) -> Any:
        call = vars(self).get("call")
        return super().__reduce_ex__(protocol) if call is None else (_again, call)


def picklable(factory: Callable[P, Reduction]) -> Callable[P, Reduction]:
    """Let the reductions that a function makes pickle when its arguments do."""

    @wraps(factory)
    def made(*args: P.args, **options: P.kwargs) -> Reduction:
        result = _Made(*factory(*args, **options))
        result.call = made, args, options
        return result

    return made


def _again(factory: Callable[..., Reduction], args: Any, options: Any) -> Reduction:
    return factory(*args, **options)


@picklable
def from_monoid(
    *,
    init: Callable[[Any], Any],
    lift: Callable[[Any], Any],
    merge: Callable[[Any, Any], Any],
    finalize: Callable[[Any], Any],
) -> Reduction:
    """Derive `update` from `merge`, so that streaming equals merging by construction.

    Parameters
    ----------
    init
        Example batch -> the empty state, the identity of `merge`.
    lift
        Batch -> the state of that batch alone.
    merge
        Associative, of two states.
    finalize
        State -> statistic.

    Examples
    --------
    >>> import torch
    >>> total = from_monoid(
    ...     init=lambda like: torch.zeros(()), lift=torch.sum, merge=torch.add, finalize=float
    ... )
    >>> total.finalize(fold(total, torch.arange(6.0).split(4)))
    15.0
    """

    def update(state: Any, batch: Any) -> Any:
        return merge(state, lift(batch))

    return Reduction(init, update, merge, finalize)


def fold(reduction: Reduction, batches: Iterable[Any], *, like: Any = None) -> Any:
    """Run a reduction over batches and return its state, not yet finalized.

    Parameters
    ----------
    reduction
        What to compute.
    batches
        Any iterable of batches, such as ``tensor.split(64)``.
    like
        Example batch for the empty state; the first batch if None.

    Raises
    ------
    ValueError
        If there is no batch and no `like`.
    """
    state = None if like is None else reduction.init(like)
    for batch in batches:
        state = reduction.update(reduction.init(batch) if state is None else state, batch)
    if state is None:
        raise ValueError(
            "ifa.reduce.fold: expected a batch, got none. Give like= an example batch."
        )
    return state


@picklable
def mapped(function: Callable[[Any], Any], reduction: Reduction) -> Reduction:
    """Apply a function to every batch before it is reduced.

    Parameters
    ----------
    function
        Of a batch, to what is reduced.
    reduction
        What runs over its results.

    Examples
    --------
    >>> import ifa, torch
    >>> mean_square = ifa.reduce.mapped(torch.square, ifa.reduce.moments())
    >>> mean_square.finalize(ifa.reduce.fold(mean_square, [torch.tensor([1.0, 3.0])])).mean
    tensor(5., dtype=torch.float64)
    """
    return Reduction(
        lambda like: reduction.init(function(like)),
        lambda state, batch: reduction.update(state, function(batch)),
        reduction.merge,
        reduction.finalize,
    )


@picklable
def zipped(**reductions: Reduction) -> Reduction:
    """Run several reductions over the same batches; states and statistics are dictionaries.

    Parameters
    ----------
    **reductions
        By name.

    Examples
    --------
    >>> import ifa, torch
    >>> both = ifa.reduce.zipped(moments=ifa.reduce.moments(), extrema=ifa.reduce.extrema())
    >>> both.finalize(ifa.reduce.fold(both, [torch.tensor([1.0, 3.0])]))["extrema"].maximum
    tensor(3., dtype=torch.float64)
    """
    parts = reductions.items()
    return Reduction(
        lambda like: {name: part.init(like) for name, part in parts},
        lambda state, batch: {name: part.update(state[name], batch) for name, part in parts},
        lambda a, b: {name: part.merge(a[name], b[name]) for name, part in parts},
        lambda state: {name: part.finalize(state[name]) for name, part in parts},
    )


@picklable
def grouped(reduction: Reduction, *, size: int) -> Reduction:
    """Run a reduction for each of `size` groups; states and statistics get a leading group axis.

    A batch is ``(values, group)`` with values (sample, ...), or a record of them, and group
    (sample,) int64 in 0 … size − 1. Groups without a sample keep the empty state.

    Parameters
    ----------
    reduction
        A reduction whose state is a record of tensors, with `merge` and `finalize` that `vmap` can
        lift: no decision in them depends on a value.
    size
        Number of groups.

    Raises
    ------
    IndexError
        If a group is out of range.

    Examples
    --------
    >>> import ifa, torch
    >>> by_class = ifa.reduce.grouped(ifa.reduce.moments(), size=2)
    >>> batch = torch.tensor([1.0, 3.0, 10.0]), torch.tensor([1, 1, 0])
    >>> by_class.finalize(ifa.reduce.fold(by_class, [batch])).mean
    tensor([10.,  2.], dtype=torch.float64)
    """

    def init(like: tuple[Any, Tensor]) -> Any:
        empty = reduction.init(like[0])
        return _record(empty, [field.expand(size, *field.shape) for field in empty])

    def update(state: Any, batch: tuple[Any, Tensor]) -> Any:
        values, group = batch
        if len(group) and not 0 <= int(group.min()) <= int(group.max()) < size:
            raise IndexError(
                f"ifa.reduce.grouped: expected groups in 0..{size - 1}, got "
                f"{int(group.min())}..{int(group.max())}."
            )
        fields = [field.clone() for field in state]
        for index in group.unique().tolist():
            old = _record(state, [field[index] for field in state])
            for field, new in zip(
                fields, reduction.update(old, _taken(values, group == index)), strict=True
            ):
                field[index] = new
        return _record(state, fields)

    return Reduction(init, update, vmap(reduction.merge), vmap(reduction.finalize))


def _taken(values: Any, mask: Tensor) -> Any:
    """Take the samples of a mask, from a tensor or from each field of a record."""
    return (
        values[mask] if isinstance(values, Tensor) else _record(values, [v[mask] for v in values])
    )


def _record(like: Any, fields: list[Tensor]) -> Any:
    return tuple(fields) if type(like) is tuple else type(like)(*fields)
