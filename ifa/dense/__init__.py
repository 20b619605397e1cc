"""The same network on a finer grid: strides become dilation, or shifted inputs are explained."""

from ifa.dense.densified import Densified as Densified
from ifa.dense.densified import densify as densify
from ifa.dense.moving import shifted as shifted
from ifa.dense.moving import stitched as stitched
from ifa.dense.scales import scaled as scaled

__all__ = ["Densified", "densify", "scaled", "shifted", "stitched"]
