"""What is above a layer when one of its channels changes, not run again for each channel.

Pools, norms, activation functions and views treat each channel by itself: run once with every
channel changed they show what each change does. A linear map adds it up by the columns of one
channel, and from there on there is a row for each channel.
"""

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from ifa.network.outputs import every_tensor, first_tensor, map_tensors


def one_changed(
    head: Callable[[Tensor], Any], raw: Tensor, changed: Tensor, span: range
) -> Tensor | None:
    r"""Return the outputs of a head with one channel of a layer changed at a time.

    Parameters
    ----------
    head
        From the layer's output to the network's.
    raw, changed : (sample, channel, \*space)
        The layer's output, and what it is with every channel changed.
    span
        The channels.

    Returns
    -------
    (channel, sample, output) or None
        None where the head does other things than to treat channels by themselves, to map them
        linearly, and then to treat rows by themselves, or does them elsewhere than in torch.
    """
    if raw.ndim < 2 or not raw.is_floating_point():
        return None
    try:
        with torch.no_grad(), _Following(raw, changed, span) as following:
            output = head(raw)
    except _Other:
        return None
    found = following.rows.get(output) if isinstance(output, Tensor) else None
    return None if found is None else found.unflatten(0, (len(span), len(raw)))


class _Other(BaseException):
    """An operation is not known; no network's own `except Exception` should keep it."""


class _Following(TorchDispatchMode):
    """Runs every operation a second time, on what becomes of the change."""

    def __init__(self, raw: Tensor, changed: Tensor, span: range):
        super().__init__()
        self._samples, self._channels = raw.shape[:2]
        self._span = slice(span.start, span.stop)
        # of each (sample, channel · part, *space) the same with every channel changed
        self._changed: Any = WeakTensorKeyDictionary({raw: changed})
        # of each (sample, feature) the same with one channel changed, (channel · sample, feature)
        self.rows: Any = WeakTensorKeyDictionary()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        given = list(every_tensor((args, kwargs)))
        ours = [one for one in given if one in self._changed or one in self.rows]
        if not ours:
            return func(*args, **kwargs)
        if _name(func) in ("mm", "addmm"):
            return self._mapped(func, args, kwargs, ours)
        known = self.rows if ours[0] in self.rows else self._changed
        apart = _by_row if known is self.rows else _by_channel
        fixed = [one for one in given if one not in known]
        # nothing else may be written to, for it would be twice
        written = func._schema.is_mutable and (args[0] not in known or "out" in kwargs)
        mixed = any(one not in known for one in ours)
        if mixed or written or not apart(func, args, ours, fixed):
            raise _Other
        out = func(*args, **kwargs)
        others = map_tensors((args, kwargs), lambda one: known.get(one, one))
        here, there = first_tensor(out), first_tensor(func(*others[0], **others[1]))
        if here is None or there is None or not self._fits(here, known is self.rows):
            raise _Other
        known[here] = there
        return out

    def _mapped(self, func: Any, args: Any, kwargs: Any, ours: list[Tensor]) -> Tensor:
        *offset, inputs, matrix = args
        if kwargs or len(ours) > 1 or inputs is not ours[0] or any(one.ndim > 1 for one in offset):
            raise _Other
        out = func(*args)
        if inputs in self.rows:
            self.rows[out] = func(*offset, self.rows[inputs], matrix)
            return out
        change = (self._changed[inputs] - inputs).unflatten(1, (self._channels, -1))
        columns = matrix.unflatten(0, (self._channels, -1))[self._span]
        rows = out + torch.einsum("scp,cpo->cso", change[:, self._span], columns)
        self.rows[out] = rows.flatten(0, 1)
        return out

    def _fits(self, out: Tensor, rows: bool) -> bool:
        """Whether samples and channels, or rows, lie as before."""
        if out.ndim < 2 or len(out) != self._samples:
            return False
        return out.ndim == 2 if rows else out.shape[1] % self._channels == 0


_COPIES = {"clone", "_to_copy", "alias", "detach", "hardswish"}
_VIEWS = {"view", "_unsafe_view", "_reshape_alias", "squeeze", "unsqueeze"}
_NORMS = {"native_batch_norm", "cudnn_batch_norm", "_native_batch_norm_legit_no_training"}
_POOL = re.compile(r"(?:_adaptive_avg|adaptive_max|avg|max)_pool(\d)d")


def _by_channel(func: Any, args: Any, ours: list[Tensor], fixed: list[Tensor]) -> bool:
    """Whether an operation treats each channel by itself."""
    name, axes = _name(func), ours[0].ndim
    if name in _NORMS:
        return _is_fixed(name, args)
    if name in ("mean", "sum", "amax", "amin"):
        over = args[1] if len(args) > 1 else ()
        return bool(over) and all(axis % axes > 1 for axis in over)
    if pool := _POOL.match(name):
        return axes == 2 + int(pool[1])
    if name in _VIEWS | _COPIES:
        return True
    alike = all(one.ndim == axes for one in ours) and all(one.ndim <= axes for one in fixed)
    return alike and torch.Tag.pointwise in func.tags


def _by_row(func: Any, args: Any, ours: list[Tensor], fixed: list[Tensor]) -> bool:
    """Whether an operation treats each row by itself."""
    name = _name(func)
    if name in _NORMS:
        return _is_fixed(name, args)
    if name in ("_softmax", "_log_softmax"):
        return args[1] % 2 == 1
    apart = name in _COPIES or torch.Tag.pointwise in func.tags
    return apart and all(one.ndim < 2 or len(one) == 1 for one in fixed)


def _is_fixed(name: str, args: Any) -> bool:
    """Whether a norm uses what it has learned, not the batch."""
    return name.endswith("no_training") or args[5] is False


def _name(func: Any) -> str:
    return func.overloadpacket.__name__.rstrip("_")
