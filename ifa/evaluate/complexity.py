"""Complexity: over how many positions a map's evidence is spread."""

import torch
from torch import Tensor

from ifa.declared import declare
from ifa.evaluate.regions import unless_zero


@declare(takes="map")
def complexity(map: Tensor) -> Tensor:
    r"""Give the entropy of the shares of a map's absolute values.

    .. math:: H = -\sum_p a_p \ln a_p, \qquad a_p = \frac{|h_p|}{\sum_q |h_q|}

    Per example: lift it over a batch with `torch.func.vmap`.

    Parameters
    ----------
    map : (\*space) or (block, \*space)
        Any number of axes.

    Returns
    -------
    ()
        In nats, from 0, for a single position, to ln n, for a constant map; :math:`e^H` is an
        effective number of positions. NaN for a map that is zero everywhere or not finite.

    References
    ----------
    Bhatt, Weller & Moura 2020, "Evaluating and aggregating feature-based model explanations",
    definition 3. arXiv:2005.00631

    Examples
    --------
    >>> import torch
    >>> complexity(torch.tensor([0.0, 3.0, -3.0])).exp()
    tensor(2., dtype=torch.float64)
    """
    sizes = map.double().abs().flatten()
    return unless_zero(sizes, torch.special.entr(sizes / sizes.sum()).sum())
