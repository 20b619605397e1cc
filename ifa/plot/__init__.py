"""Pictures: axes in, axes out."""

from ifa.plot.cards import channel_card as channel_card
from ifa.plot.cards import outliers as outliers
from ifa.plot.curves import kept as kept
from ifa.plot.curves import level as level
from ifa.plot.diagnoses import agreement as agreement
from ifa.plot.diagnoses import confounders as confounders
from ifa.plot.diagnoses import distributions as distributions
from ifa.plot.diagnoses import redundancy as redundancy
from ifa.plot.diagnoses import shift as shift
from ifa.plot.overlays import gallery as gallery
from ifa.plot.overlays import overlay as overlay
from ifa.plot.overlays import save_overlays as save_overlays
from ifa.plot.populations import extremes as extremes
from ifa.plot.populations import importance as importance

__all__ = [
    "agreement",
    "channel_card",
    "confounders",
    "distributions",
    "extremes",
    "gallery",
    "importance",
    "kept",
    "level",
    "outliers",
    "overlay",
    "redundancy",
    "save_overlays",
    "shift",
]
