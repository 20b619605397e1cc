"""Model and inputs to `Features`: trace, tap, cut, and how tokens become a grid."""

from ifa.network.sites import Site as Site
from ifa.network.sites import Sites as Sites
from ifa.network.sites import trace as trace
from ifa.taps.blocks import Block as Block
from ifa.taps.blocks import Blocks as Blocks
from ifa.taps.blocks import blocks as blocks
from ifa.taps.centers import EvenTiling as EvenTiling
from ifa.taps.centers import positions as positions
from ifa.taps.features import Observation as Observation
from ifa.taps.features import Tap as Tap
from ifa.taps.features import tap as tap
from ifa.taps.grids import channels_last as channels_last
from ifa.taps.grids import patches as patches
from ifa.taps.grids import tokens as tokens
from ifa.taps.heads import Cut as Cut
from ifa.taps.heads import Head as Head
from ifa.taps.heads import cut as cut

__all__ = [
    "Block",
    "Blocks",
    "Cut",
    "EvenTiling",
    "Head",
    "Observation",
    "Site",
    "Sites",
    "Tap",
    "blocks",
    "channels_last",
    "cut",
    "patches",
    "positions",
    "tap",
    "tokens",
    "trace",
]
