"""Sparseness: how few positions hold a map's evidence."""

import torch
from torch import Tensor

from ifa.declared import declare
from ifa.evaluate.regions import unless_zero


@declare(takes="map")
def sparseness(map: Tensor) -> Tensor:
    r"""Give the Gini index of a map's absolute values.

    .. math:: G = \frac{\sum_{i=1}^{n} (2 i - n - 1) \, a_{(i)}}{n \sum_i a_{(i)}}, \qquad
              a_{(1)} \le \dots \le a_{(n)} \text{ the sorted } |h|

    Per example: lift it over a batch with `torch.func.vmap`.

    Parameters
    ----------
    map : (\*space) or (block, \*space)
        Any number of axes.

    Returns
    -------
    ()
        From 0, for a constant map, to 1 − 1/n, for a single position. NaN for a map that is zero
        everywhere or not finite.

    References
    ----------
    Chalasani et al. 2020, "Concise explanations of neural networks using adversarial training".
    arXiv:1810.06583

    Examples
    --------
    >>> import torch
    >>> sparseness(torch.tensor([[0.0, 0.0], [0.0, -2.0]])), sparseness(torch.ones(2, 2))
    (tensor(0.7500, dtype=torch.float64), tensor(0., dtype=torch.float64))
    """
    sizes = map.double().abs().flatten().sort().values
    count = len(sizes)
    place = torch.arange(1, count + 1, dtype=torch.float64, device=map.device)
    gini = ((2 * place - count - 1) * sizes).sum() / (count * sizes.sum())
    return unless_zero(sizes, gini)
