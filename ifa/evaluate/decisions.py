"""Decisions: accuracy says whether a network is right, its maps' focus whether for good reason."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

# (accurate, focused) -> what to do
_DECISIONS = {
    (True, True): "trust",
    (True, False): "over-learned",
    (False, True): "find the error's source",
    (False, False): "insufficiently taught",
}


def decisions(
    accuracy: Mapping[str, float],
    focus: Mapping[str, float],
    *,
    accurate: float,
    focused: float,
) -> xr.Dataset:
    """Say what to make of networks, or targets, from their accuracy and where their maps look.

    Right and focused: trust it. Right without looking at what matters: it has learned something
    else as well, which may not hold elsewhere. Wrong though it looks at what matters: find the
    error's source. Neither: teach it more.

    Parameters
    ----------
    accuracy
        Name of each network or target -> its accuracy, or F1.
    focus
        The same names -> their mean hit rate, coverage, relevance mass or other localisation.
    accurate, focused
        From which value on a network counts as accurate, and as focused. They depend on the task
        and the metric, so there are no defaults.

    Returns
    -------
    xarray.Dataset
        `accuracy`, `focus` and `decision` (name), the latter ``"trust"``, ``"over-learned"``,
        ``"find the error's source"``, ``"insufficiently taught"``, or ``"unknown"`` where one of
        the two is NaN.

    Raises
    ------
    ValueError
        If the names of the two differ.

    References
    ----------
    Saliency maps of ultrasound of the skin, by the project SaliencyCNNAnalysis: decision schemes.

    Examples
    --------
    >>> table = decisions({"a": 0.95, "b": 0.96}, {"a": 2.1, "b": 0.3}, accurate=0.9, focused=1.0)
    >>> table["decision"].values.tolist()
    ['trust', 'over-learned']
    """
    if set(accuracy) != set(focus):
        raise ValueError(
            "ifa.evaluate.decisions: expected accuracy and focus of the same names, got "
            f"{sorted(accuracy)} and {sorted(focus)}."
        )
    pairs = [(float(value), float(focus[name])) for name, value in accuracy.items()]
    found = [
        "unknown" if np.isnan(pair).any() else _DECISIONS[pair[0] >= accurate, pair[1] >= focused]
        for pair in pairs
    ]
    columns = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    return xr.Dataset(
        {
            "accuracy": ("name", columns[0], {"units": "1"}),
            "focus": ("name", columns[1]),
            "decision": ("name", np.array(found, dtype=object)),
        },
        {"name": list(accuracy)},
        {"accurate": accurate, "focused": focused},
    )
