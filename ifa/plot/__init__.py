"""Pictures: axes in, axes out."""

from ifa.plot.attributions import attribution as attribution
from ifa.plot.attributions import attributions as attributions
from ifa.plot.cards import channel_card as channel_card
from ifa.plot.cards import outliers as outliers
from ifa.plot.curves import claims as claims
from ifa.plot.curves import kept as kept
from ifa.plot.curves import level as level
from ifa.plot.diagnoses import agreement as agreement
from ifa.plot.diagnoses import confounders as confounders
from ifa.plot.diagnoses import diagnosis as diagnosis
from ifa.plot.diagnoses import distributions as distributions
from ifa.plot.diagnoses import redundancy as redundancy
from ifa.plot.diagnoses import shift as shift
from ifa.plot.differences import critical_differences as critical_differences
from ifa.plot.evaluations import methods as methods
from ifa.plot.evaluations import relevance_curves as relevance_curves
from ifa.plot.overlays import blend as blend
from ifa.plot.overlays import gallery as gallery
from ifa.plot.overlays import overlay as overlay
from ifa.plot.populations import extremes as extremes
from ifa.plot.populations import importance as importance
from ifa.plot.randomizations import randomization as randomization
from ifa.plot.refinements import refinement as refinement
from ifa.plot.saving import save as save
from ifa.plot.shades import bar as bar
from ifa.plot.sheets import write_overlays as write_overlays
from ifa.plot.signals import signal as signal
from ifa.plot.singles import features as features
from ifa.plot.summaries import summary as summary
from ifa.plot.volumes import planes as planes
from ifa.plot.volumes import slices as slices

__all__ = [
    "agreement",
    "attribution",
    "attributions",
    "bar",
    "blend",
    "channel_card",
    "claims",
    "confounders",
    "critical_differences",
    "diagnosis",
    "distributions",
    "extremes",
    "features",
    "gallery",
    "importance",
    "kept",
    "level",
    "methods",
    "outliers",
    "overlay",
    "planes",
    "randomization",
    "redundancy",
    "refinement",
    "relevance_curves",
    "save",
    "shift",
    "signal",
    "slices",
    "summary",
    "write_overlays",
]
