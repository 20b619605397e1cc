"""Many tests at once: p-values corrected so that a clean run stays quiet."""

import numpy as np


def corrected(p_values: np.ndarray, how: str, where: str) -> np.ndarray:
    r"""Correct p-values of any shape for their number; NaN are no tests and stay NaN.

    Holm's holds the chance of *any* false alarm, Benjamini and Hochberg's the share of false ones
    among the alarms. With nothing to be found both raise no alarm in 1 − alpha of the cases.
    """
    from scipy.stats import false_discovery_control

    if how not in ("holm", "benjamini-hochberg"):
        raise ValueError(f"{where}: expected adjust 'holm' or 'benjamini-hochberg', got {how!r}.")
    result = np.full(np.shape(p_values), np.nan)
    tested = np.isfinite(p_values)
    values = np.clip(np.asarray(p_values)[tested], 0, 1)
    if values.size and how == "holm":
        order = np.argsort(values, kind="stable")
        steps = np.maximum.accumulate(values[order] * np.arange(values.size, 0, -1))
        values = values.copy()
        values[order] = np.minimum(steps, 1.0)
        result[tested] = values
    elif values.size:
        result[tested] = false_discovery_control(values)
    return result


def check_alpha(alpha: float, where: str) -> None:
    """Refuse a level that is no probability."""
    if not 0 < alpha < 1:
        raise ValueError(f"{where}: expected alpha in (0, 1), such as 0.05, got {alpha!r}.")
