"""Small networks that ship with the library, and the data they are trained on."""

from ifa.nets.densenet import densenet_decoder as densenet_decoder
from ifa.nets.densenet import densenet_fcn as densenet_fcn
from ifa.nets.detection import scenes as scenes
from ifa.nets.detection import scenes_detector as scenes_detector
from ifa.nets.detection import train_scenes as train_scenes
from ifa.nets.faces import faces as faces
from ifa.nets.faces import faces_cnn as faces_cnn
from ifa.nets.faces import train_faces as train_faces
from ifa.nets.handwriting import digits as digits
from ifa.nets.handwriting import digits_cnn as digits_cnn
from ifa.nets.handwriting import digits_vit as digits_vit
from ifa.nets.handwriting import train_digits as train_digits
from ifa.nets.pairs import enlarged as enlarged
from ifa.nets.pairs import strided_cnn as strided_cnn
from ifa.nets.pairs import train_pair as train_pair
from ifa.nets.planted import duplicated as duplicated
from ifa.nets.planted import marked as marked
from ifa.nets.planted import overexposed as overexposed
from ifa.nets.planted import simulated as simulated
from ifa.nets.planted import simulated_cnn as simulated_cnn
from ifa.nets.planted import stamped as stamped
from ifa.nets.training import train as train

__all__ = [
    "densenet_decoder",
    "densenet_fcn",
    "digits",
    "digits_cnn",
    "digits_vit",
    "duplicated",
    "enlarged",
    "faces",
    "faces_cnn",
    "marked",
    "overexposed",
    "scenes",
    "scenes_detector",
    "simulated",
    "simulated_cnn",
    "stamped",
    "strided_cnn",
    "train",
    "train_digits",
    "train_faces",
    "train_pair",
    "train_scenes",
]
