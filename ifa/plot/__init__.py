"""Pictures: axes in, axes out."""

from ifa.plot.curves import kept as kept
from ifa.plot.curves import level as level
from ifa.plot.overlays import gallery as gallery
from ifa.plot.overlays import overlay as overlay
from ifa.plot.overlays import save_overlays as save_overlays
from ifa.plot.populations import extremes as extremes
from ifa.plot.populations import importance as importance

__all__ = ["extremes", "gallery", "importance", "kept", "level", "overlay", "save_overlays"]
