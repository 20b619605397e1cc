"""Maps by a run: its layers, weighting, task, targets and common scale, over any population."""

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from ifa import select
from ifa.checks import check_choice
from ifa.contest.bases import digests_of
from ifa.contest.methods import WEIGHTINGS
from ifa.data.samples import label_names
from ifa.network.identity import read_origin
from ifa.network.tokens import callable_token
from ifa.population import maps
from ifa.reduce import difference
from ifa.store.datasets import MAPS
from ifa.store.references import ModelRef
from ifa.store.runs import Run
from ifa.store.runs import open as open_run

# Rules of `ifa.select` that take a ratio, and what each is of where nothing else is said.
RULES = {
    "largest": "importance",
    "largest_absolute": "difference",
    "smallest_absolute": "difference",
}


def maps_of_run(
    where: str,
    run: str,
    network: ModelRef,
    data: Any,
    *,
    layers: str | Sequence[str] | None = None,
    basis: Any = None,
    mask: str | None = None,
    ratio: float = 0.1,
    of: str | None = None,
    targets: Any = None,
    **options: Any,
) -> xr.DataTree:
    """Make the maps of a population as a run was made, on its scale; see `ifa maps`."""
    statistics = statistics_of(where, run)
    every = statistics.attrs["layers"]
    chosen = [layers] if isinstance(layers, str) else list(layers or every)
    for layer in chosen:
        if layer not in every:
            raise LookupError(
                f"{where}: expected --layer from the run's, {', '.join(every)}, got {layer!r}."
            )
    spec = Run.at(run, where).spec()
    masks = None
    if mask is not None:
        masks = {layer: _mask(where, mask, ratio, of, statistics[layer]) for layer in chosen}
    return maps(
        network,
        data,
        layer=chosen,
        weight=WEIGHTINGS[weighting_of(where, statistics, chosen[0])],
        basis=basis,
        mask=masks,
        scale=statistics,
        targets=spec["targets"] if targets is None else targets,
        task=spec["task"],
        **options,
    )


def statistics_of(where: str, run: str | os.PathLike[str]) -> Any:
    """Open a run of `ifa analyze`; refuse one that has no scale."""
    statistics = open_run(run)
    title = statistics.attrs.get("title", "something else")
    if "layers" not in statistics.attrs or title == MAPS:
        raise ValueError(
            f"{where}: expected a run of `ifa analyze`, got {title!r}, which has no scale."
        )
    return statistics


def names_of(statistics: Any) -> Sequence[str | None] | None:
    """Return the names of labels, where a run has those of outputs from the first on."""
    layer = statistics[statistics.attrs["layers"][0]]
    targets = layer["target"].values.tolist()
    if "target_name" not in layer.coords or targets != list(range(len(targets))):
        return None
    return label_names(spec_of(statistics)["task"], tuple(map(str, layer["target_name"].values)))


def spec_of(statistics: Any) -> dict[str, Any]:
    """Read what determined a run."""
    return json.loads(statistics.attrs["spec"])


def weighting_of(where: str, statistics: Any, layer: str) -> str:
    """Return the name of the weighting that a run is of, in a basis that of its kernel."""
    name, spec = read_origin(statistics[layer].attrs["origin"]).names[1], spec_of(statistics)
    if digests_of(spec):
        tokens = {known: callable_token(one) for known, one in WEIGHTINGS.items()}
        name = next((known for known, token in tokens.items() if token == spec["weight"]), name)
    if name not in WEIGHTINGS:
        raise ValueError(
            f"{where}: expected a run of a weighting that has a name, got {name}. Its maps are "
            "made in Python: ifa.explain(..., weight=..., scale=run), or ifa.maps."
        )
    return name


def _mask(where: str, name: str, ratio: float, of: str | None, layer: Any) -> Any:
    """Select channels of a layer by a rule's name."""
    check_choice(where, "--mask", name, tuple(RULES))
    of = RULES[name] if of is None else of
    check_choice(where, "--of", of, ("importance", "difference", "overall"))
    if of == "difference":
        values = difference(layer.to_dataset())
    else:
        values = layer["importance" if of == "importance" else "importance_overall"]
    if "group" in values.dims:
        raise ValueError(
            f"{where}: expected a run without groups for --mask, whose importances are of all "
            "samples, got one with groups. Choose a group in Python: ifa.maps(..., mask=...)."
        )
    without = np.isnan(values.values).reshape(-1, values.shape[-1]).any(1)
    if without.any() and of != "overall":
        rows = ", ".join(map(str, values["target"].values[without].tolist()))
        raise ValueError(
            f"{where}: expected samples of every target that are predicted rightly, got none of "
            f"{rows}, which have no importance to select by. Give --of overall: the same channels "
            "for all targets."
        )
    return getattr(select, name)(values, ratio=ratio)
