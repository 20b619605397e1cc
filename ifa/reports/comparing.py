"""Two runs side by side: how often each is right, their scales, importances, and what shifted."""

from typing import Any

import numpy as np

from ifa.reports import overview
from ifa.reports.features import layer_part
from ifa.reports.packing import packed
from ifa.reports.sources import Source, rows_of, whole


def comparison(source: Source, other: Source) -> dict[str, Any]:
    """Describe another run, and what differs from the first; say what cannot be compared."""
    rows = rows_of(other)
    return {
        "name": other.name,
        "samples": None if rows is None else len(rows.id),
        "accuracy": None if rows is None else overview.accuracy(other, rows),
        "layers": [_layer(source, other, rows, layer) for layer in source.layers],
    }


def _layer(source: Source, other: Source, rows: Any, layer: str) -> dict[str, Any]:
    found: dict[str, Any] = {"name": layer, "sentences": [], "scale": None, "importance": None}
    if layer not in other.layers:
        return found | {"sentences": [[f"The other run has no layer {layer}."]]}
    one, two = (each.tree[layer].to_dataset() for each in (source, other))
    found["scale"] = overview.scale_part(other, layer, rows)
    theirs = _aligned(one, two)
    if theirs is None:
        said = f"Importances of {layer} are not compared: features or targets differ."
        return found | {"sentences": [[said]]}
    kept = layer_part(source, layer, len(source.layers)).kept
    found["importance"] = packed(theirs[kept])
    found["sentences"] = [*_sentences(source, other, layer)]
    return found


def _aligned(one: Any, two: Any) -> np.ndarray | None:
    """Return the other run's importances, by the targets of the first; None if they differ."""
    mine, theirs = one["importance"], whole(two, "importance")
    if mine.shape[-1] != theirs.shape[-1]:
        return None
    places = {int(target): row for row, target in enumerate(two["target"].values)}
    found = np.full((one.sizes["target"], theirs.shape[-1]), np.nan)
    for row, target in enumerate(one["target"].values):
        if int(target) in places:
            found[row] = theirs[places[int(target)]]
    return found


def _sentences(source: Source, other: Source, layer: str) -> Any:
    from ifa import diagnose

    for name in ("shift", "agreement"):
        try:
            found = getattr(diagnose, name)(source.tree, other.tree, layer)
            yield diagnose.summary(found).splitlines()
        except (ValueError, LookupError) as error:
            yield [f"{name} of layer {layer}: none. {error}"]
