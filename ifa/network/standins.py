"""What a network's tensor stands in for while a function mode runs the network in another way.

Such a mode, as that of `ifa.dense`, may hold for a tensor another one, of which the network itself
knows nothing. Whoever observes a layer is to see that one. Without such a mode these do nothing.
"""

from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function


def behind(tensor: Tensor) -> Tensor:
    """Return what a tensor stands in for; the tensor itself where that is nothing else."""
    if has_torch_function((tensor,)):
        return handle_torch_function(behind, (tensor,), tensor)
    return tensor


def in_front(new: Tensor, tensor: Tensor) -> Tensor:
    """Return what stands in for `new` as `tensor` did for what was behind it."""
    if has_torch_function((new, tensor)):
        return handle_torch_function(in_front, (new, tensor), new, tensor)
    return new
