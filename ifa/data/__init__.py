r"""Data sets of ``(input, label, id)`` from folders, tables, volumes, arrays and other libraries.

They are lazy, sized and indexable, hold paths and not contents, pickle, and can be read by threads.

**What an input is.** One rule, for all of them:

* It is a float32 tensor (channel, \*space), space being ``t``, ``y x`` or ``z y x``.
* Pictures and arrays of uint8 and uint16 are divided by the largest number of their kind, 255 or
  65 535; booleans are 0 and 1; all other numbers, and the values of volumes, are kept.
* Pictures are turned upright as their EXIF mark says, and lose their transparency. Volumes are
  brought to RAS, and their file's ``x y z`` becomes ``z y x``.
* Where there is no channel axis, one is added (`arrays`, `signals`); files of arrays have one.

**prepare=** replaces the rule. It is given what was read: a PIL picture (upright, in the mode that
was asked for; pictures of 16 bits or of real numbers as they are), an array as it is stored, the
float32 tensor of a volume, or a column of an item. What it returns is the network's input: a tensor
or an array, or a tuple or mapping of these, of which only float64 changes, to float32; a picture,
to which the rule is applied; or what an image processor returns, ``{"pixel_values": …}`` of a
batch of one, whose axis is taken off, and the mapping where there is nothing else in it. So the
transforms of torchvision, timm and MONAI and the processors of transformers are taken as they are.

**Labels** that are text become indices by `names`: those given, or sorted. Whole numbers stay
classes; real numbers, and several columns, stay real.
"""

from ifa.data.dictionaries import huggingface as huggingface
from ifa.data.dictionaries import keyed as keyed
from ifa.data.folders import folder as folder
from ifa.data.in_memory import arrays as arrays
from ifa.data.in_memory import signals as signals
from ifa.data.listed import table as table
from ifa.data.reading import read_inputs as read_inputs
from ifa.data.samples import Samples as Samples
from ifa.data.volumetric import Geometry as Geometry
from ifa.data.volumetric import volumes as volumes

__all__ = [
    "Geometry",
    "Samples",
    "arrays",
    "folder",
    "huggingface",
    "keyed",
    "read_inputs",
    "signals",
    "table",
    "volumes",
]
