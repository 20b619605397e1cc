"""Which parameters and buffers two networks do not share, bit for bit."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ifa.refine.trunks import state_of

Tensors = Mapping[str, Tensor] | nn.Module


def differing(params: Tensors, other: Tensors) -> list[str]:
    r"""List the names whose tensors are not the same, bit for bit; buffers are looked at too.

    Parameters
    ----------
    params, other
        Parameters and buffers by name, or networks with them.

    Returns
    -------
    list of str
        In the order of `params`; then what only `other` has. Tensors of other shapes or dtypes
        differ; NaN with the same bits are the same.

    Examples
    --------
    >>> import ifa, torch
    >>> norm = torch.nn.BatchNorm1d(2)
    >>> before = {name: one.clone() for name, one in norm.state_dict().items()}
    >>> _ = norm(torch.tensor([[0.0, 1.0], [2.0, 3.0]]))
    >>> ifa.refine.differing(before, norm)
    ['running_mean', 'running_var', 'num_batches_tracked']
    """
    first, second = (
        state_of(one) if isinstance(one, nn.Module) else dict(one) for one in (params, other)
    )
    found = [name for name, one in first.items() if not _same(one, second.get(name))]
    return found + [name for name in second if name not in first]


def _same(one: Tensor, other: Tensor | None) -> bool:
    if other is one or other is None:
        return other is not None
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    first, second = (tensor.detach().cpu().contiguous().flatten() for tensor in (one, other))
    return torch.equal(first.view(torch.uint8), second.view(torch.uint8))
