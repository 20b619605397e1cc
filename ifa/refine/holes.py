"""Holes of a mask, filled on the host."""

import numpy as np
from torch import Tensor

from ifa.checks import check_count
from ifa.refine.given import back, parts_of, truths


def filled(mask: Tensor, *, size: int) -> Tensor:
    r"""Fill the holes of a mask that have fewer positions than a limit.

    A hole is a part of the background that is joined through faces; one at the border is a hole as
    well. Filling twice is filling once. Runs on the host, with `scipy.ndimage`, for one example; it
    can be neither differentiated nor lifted with `vmap`.

    Parameters
    ----------
    mask : (\*space)
        Boolean.
    size
        Holes of so many positions and more are left.

    Returns
    -------
    (\*space), bool

    Raises
    ------
    ValueError
        If the mask is not boolean and of one example, or the size is no positive whole number.

    Examples
    --------
    >>> import ifa, torch
    >>> ifa.refine.filled(torch.tensor([True, False, True, False, False]), size=2)
    tensor([ True,  True,  True, False, False])
    """
    where = "ifa.refine.filled"
    array = truths(where, "mask", mask)
    check_count(where, "size", size)
    holes = parts_of(~array)[0]
    small = np.bincount(holes.ravel()) < size
    small[0] = False  # the mask itself
    return back(array | small[holes], mask)
