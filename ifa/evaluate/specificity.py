"""Target specificity: whether a map changes with the question."""

import torch
from torch import Tensor

from ifa.evaluate.coefficients import correlation
from ifa.evaluate.similarity import map_ranks


def target_specificity(maps: Tensor) -> Tensor:
    r"""Correlate the map of each target with those of the other targets, by ranks.

    .. math:: \frac{1}{T - 1} \sum_{u \ne t} \rho(h_t, h_u)

    with Spearman's :math:`\rho` over positions. Low is specific: near 1, the map says what the
    network looks at, whatever it is asked. Per example: lift it over a batch with
    `torch.func.vmap`.

    Parameters
    ----------
    maps : (target, \*space)
        Maps of one example for at least two targets; any number of axes.

    Returns
    -------
    (target,)
        In [−1, 1]. NaN where the map of the target, or of one of the others, is constant or not
        finite.

    Raises
    ------
    ValueError
        If there are no two targets.

    References
    ----------
    Sixt, Granz & Landgraf 2020, "When explanations lie: why many modified BP attributions fail",
    which compares with one other target, at random, instead of all. arXiv:1912.09818

    Examples
    --------
    >>> import torch
    >>> target_specificity(torch.tensor([[1.0, 2.0, 3.0], [6.0, 5.0, 4.0]]))
    tensor([-1., -1.], dtype=torch.float64)
    """
    if maps.ndim < 2 or len(maps) < 2:
        raise ValueError(
            "ifa.evaluate.target_specificity: expected maps (target, *space) of one example for at "
            f"least two targets, got {tuple(maps.shape)}. Explain several targets: give "
            "target=(target, sample), and lift over samples with torch.func.vmap."
        )
    (ranked,) = map_ranks(maps.flatten(1))
    pairs = correlation(ranked[:, None], ranked[None])
    others = ~torch.eye(len(maps), dtype=torch.bool, device=maps.device)
    return torch.where(others, pairs, 0.0).sum(1) / (len(maps) - 1)
