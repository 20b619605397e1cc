"""What every reduction is built from: a monoid, a fold, and combinators."""

from collections.abc import Callable, Iterable
from functools import partial, wraps
from typing import Any, ParamSpec

import torch
from torch import Tensor
from torch.func import vmap

from ifa.types import Reduction

P = ParamSpec("P")


class _Made(Reduction):
    """A reduction that pickles as the call that made it, because its closures do not.

    It may have more: ``absorb``, an update that may write to the state it is given, and
    ``lift_each``, (batch, slot, slots) -> the states of so many slots, each of the samples that
    have its number.
    """

    call: Any

    def __reduce_ex__(self, protocol: Any) -> Any:
        call = vars(self).get("call")
        return super().__reduce_ex__(protocol) if call is None else (_again, call)


def picklable(factory: Callable[P, Reduction]) -> Callable[P, Reduction]:
    """Let the reductions that a function makes pickle when its arguments do."""

    @wraps(factory)
    def made(*args: P.args, **options: P.kwargs) -> Reduction:
        return _with(factory(*args, **options), call=(made, args, options))

    return made


def _with(reduction: Reduction, **more: Any) -> Reduction:
    result = _Made(*reduction)
    vars(result).update(vars(reduction) if isinstance(reduction, _Made) else {}, **more)
    return result


def _again(factory: Callable[..., Reduction], args: Any, options: Any) -> Reduction:
    return factory(*args, **options)


def absorbing(reduction: Reduction) -> Callable[[Any, Any], Any]:
    """Return its update for a state of one's own, which may be written to and is not used again."""
    return getattr(reduction, "absorb", reduction.update)


def absorbed(reduction: Reduction, absorb: Callable[[Any, Any], Any]) -> Reduction:
    """Give a reduction an update that may write to the state: see `absorbing`."""
    return _with(reduction, absorb=absorb)


@picklable
def from_monoid(
    *,
    init: Callable[[Any], Any],
    lift: Callable[[Any], Any],
    merge: Callable[[Any, Any], Any],
    finalize: Callable[[Any], Any],
    lift_each: Callable[[Any, Tensor, int], Any] | None = None,
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
    lift_each
        ``(batch, slot, slots)`` -> the states of so many slots, with a leading axis for them: that
        of slot s is of the samples whose `slot`, (sample,), is s. Makes `grouped` faster.

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

    more = {} if lift_each is None else {"lift_each": lift_each}
    return _with(Reduction(init, update, merge, finalize), **more)


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
    state, update = None if like is None else reduction.init(like), reduction.update
    for batch in batches:
        state = update(reduction.init(batch) if state is None else state, batch)
        update = absorbing(reduction)  # from now on the state is ours
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
    made = Reduction(
        lambda like: reduction.init(function(like)),
        lambda state, batch: reduction.update(state, function(batch)),
        reduction.merge,
        reduction.finalize,
    )
    absorb = absorbing(reduction)
    return _with(made, absorb=lambda state, batch: absorb(state, function(batch)))


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
    (sample,) int64 in 0 … size − 1. Groups without a sample keep the empty state. A third part,
    `taken` (sample,) bool, leaves samples out; groups are then not checked.

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

    def init(like: tuple[Any, ...]) -> Any:
        empty = reduction.init(like[0])
        return _record(empty, [field.expand(size, *field.shape) for field in empty])

    merge, one_by_one = vmap(reduction.merge), partial(_one_by_one, reduction)
    each = getattr(reduction, "lift_each", None)
    add = one_by_one if each is None else partial(_all_at_once, each, merge, size)

    def absorb(state: Any, batch: tuple[Any, ...]) -> Any:
        if len(batch) == 2:
            _check_groups(batch[1], size)
        return add(state, *batch) if len(batch[1]) else state

    def update(state: Any, batch: tuple[Any, ...]) -> Any:
        return absorb(_record(state, [field.clone() for field in state]), batch)

    return _with(Reduction(init, update, merge, vmap(reduction.finalize)), absorb=absorb)


def _check_groups(group: Tensor, size: int) -> None:
    if len(group) and not 0 <= int(group.min()) <= int(group.max()) < size:
        raise IndexError(
            f"ifa.reduce.grouped: expected groups in 0..{size - 1}, got "
            f"{int(group.min())}..{int(group.max())}."
        )


def _one_by_one(
    reduction: Reduction, state: Any, values: Any, group: Tensor, taken: Tensor | None = None
) -> Any:
    """Add a batch to the states of groups, which are written to, one group after the other."""
    if taken is not None:
        values, group = _taken(values, taken), group[taken]
    for index in group.unique().tolist():
        old = _record(state, [field[index] for field in state])
        new = reduction.update(old, _taken(values, group == index))
        for field, one in zip(state, new, strict=True):
            field[index] = one
    return state


def _all_at_once(
    lift_each: Callable[[Any, Tensor, int], Any],
    merge: Callable[[Any, Any], Any],
    size: int,
    state: Any,
    values: Any,
    group: Tensor,
    taken: Tensor | None = None,
) -> Any:
    """Add a batch to the states of groups, of which those that it has are written to.

    Nothing depends on a value, so that a GPU is never waited for.
    """
    slot, slots = group, size
    if few := len(group) < size:  # the number of the first sample of its group
        order = torch.arange(len(group), device=group.device)
        first = group.new_full((size,), len(group))
        slot, slots = first.scatter_reduce(0, group, order, "amin")[group], len(group)
    used = slot if taken is None else torch.where(taken, slot, slots)
    new = lift_each(values, used, slots + 1)  # the last is of what is left out
    if not few:
        return merge(state, _record(new, [field[:slots] for field in new]))
    # samples of one group write the same
    old = _record(state, [field[group] for field in state])
    merged = merge(old, _record(new, [field[slot] for field in new]))
    for field, rows in zip(state, merged, strict=True):
        field.index_copy_(0, group, rows)
    return state


def sum_each(values: Tensor, slot: Tensor, slots: int) -> Tensor:
    """Sum over the samples of each slot, in their order: (sample, ...) to (slot, ...)."""
    total = values.new_zeros(slots, *values.shape[1:])
    if values.device.type == "cpu":
        return total.index_add_(0, slot, values)
    return total.index_put_((slot,), values, accumulate=True)  # sorted: the same bits every time


def _taken(values: Any, mask: Tensor) -> Any:
    """Take the samples of a mask, from a tensor or from each field of a record."""
    return (
        values[mask] if isinstance(values, Tensor) else _record(values, [v[mask] for v in values])
    )


def _record(like: Any, fields: list[Tensor]) -> Any:
    return tuple(fields) if type(like) is tuple else type(like)(*fields)
