"""Integrated Feature Analysis: look into a trained network, over a whole population of samples."""

import importlib
from typing import TYPE_CHECKING, Any

from ifa import baseline, reduce, score, select, weight
from ifa.chains import Chain, batched, chain
from ifa.explanation import explain, fine
from ifa.fusion import augmented, cluster, combine_principal, fuse, saturate
from ifa.reduce.statistics import difference
from ifa.resizing import place, resize
from ifa.scaling import Scale, minmax, rescale, scale_from, unscale
from ifa.stages import builder, clip, combine, combine_blocks, keep, relu, step, weigh
from ifa.taps import EvenTiling, Site, channels_last, cut, patches, positions, tap, tokens, trace
from ifa.types import (
    BasisDependent,
    Cancellation,
    DependentSamples,
    Features,
    LoaderTaken,
    Map,
    Positions,
    ProbabilityOutput,
    Reduction,
    RunNote,
    Weighted,
    ZeroGradient,
)

if TYPE_CHECKING:
    from ifa import (
        attribute,
        basis,
        contest,
        data,
        dense,
        diagnose,
        engines,
        evaluate,
        evidence,
        interop,
        nets,
        perturb,
        plot,
        population,
        refine,
        reports,
        store,
        testing,
    )
    from ifa.basis import project
    from ifa.evidence import claims
    from ifa.population import analyze, compare, maps, merge
    from ifa.reports import report
    from ifa.store import DataRef, ModelRef, open, verify

# What needs xarray, zarr or matplotlib is imported when it is first used.
_LATER = {
    "DataRef": "ifa.store",
    "ModelRef": "ifa.store",
    "analyze": "ifa.population",
    "attribute": None,
    "basis": None,
    "claims": "ifa.evidence",
    "compare": "ifa.population",
    "contest": None,
    "data": None,
    "dense": None,
    "diagnose": None,
    "engines": None,
    "evaluate": None,
    "evidence": None,
    "interop": None,
    "maps": "ifa.population",
    "merge": "ifa.population",
    "nets": None,
    "open": "ifa.store",
    "perturb": None,
    "plot": None,
    "population": None,
    "project": "ifa.basis",
    "refine": None,
    "report": "ifa.reports",
    "reports": None,
    "store": None,
    "testing": None,
    "verify": "ifa.store",
}

__all__ = [
    "BasisDependent",
    "Cancellation",
    "Chain",
    "DataRef",
    "DependentSamples",
    "EvenTiling",
    "Features",
    "LoaderTaken",
    "Map",
    "ModelRef",
    "Positions",
    "ProbabilityOutput",
    "Reduction",
    "RunNote",
    "Scale",
    "Site",
    "Weighted",
    "ZeroGradient",
    "analyze",
    "attribute",
    "augmented",
    "baseline",
    "basis",
    "batched",
    "builder",
    "chain",
    "channels_last",
    "claims",
    "clip",
    "cluster",
    "combine",
    "combine_blocks",
    "combine_principal",
    "compare",
    "contest",
    "cut",
    "data",
    "dense",
    "diagnose",
    "difference",
    "engines",
    "evaluate",
    "evidence",
    "explain",
    "fine",
    "fuse",
    "interop",
    "keep",
    "maps",
    "merge",
    "minmax",
    "nets",
    "open",
    "patches",
    "perturb",
    "place",
    "plot",
    "population",
    "positions",
    "project",
    "reduce",
    "refine",
    "relu",
    "report",
    "reports",
    "rescale",
    "resize",
    "saturate",
    "scale_from",
    "score",
    "select",
    "step",
    "store",
    "tap",
    "testing",
    "tokens",
    "trace",
    "unscale",
    "verify",
    "weigh",
    "weight",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("ifa")
    if name not in _LATER:
        raise AttributeError(f"module 'ifa' has no attribute {name!r}")
    home = _LATER[name]
    value = importlib.import_module(f"ifa.{name}") if home is None else None
    value = value or getattr(importlib.import_module(str(home)), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
