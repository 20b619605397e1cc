"""Exact quantiles, which do not merge: read from values that were kept."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


def quantiles(values: ArrayLike, levels: Sequence[float]) -> np.ndarray:
    r"""Exact quantiles by linear interpolation between order statistics.

    Parameters
    ----------
    values : (sample,)
        Finite numbers, any unit.
    levels : (quantile,)
        Numbers in [0, 1].

    Returns
    -------
    (quantile,)
        float64, in the unit of `values`; NaN without a sample.

    References
    ----------
    Hyndman & Fan 1996, "Sample quantiles in statistical packages", definition 7.
    doi:10.1080/00031305.1996.10473566

    Examples
    --------
    >>> quantiles([1.0, 2.0, 4.0], [0.5, 0.75]).tolist()
    [2.0, 3.0]
    """
    wanted = np.asarray(levels, dtype=np.float64)
    if wanted.ndim != 1 or not ((wanted >= 0) & (wanted <= 1)).all():
        raise ValueError(f"ifa.reduce.quantiles: expected levels in [0, 1], got {wanted.tolist()}.")
    kept = np.asarray(values, dtype=np.float64)
    if kept.size == 0:
        return np.full(wanted.shape, np.nan)
    return np.quantile(kept, wanted)
