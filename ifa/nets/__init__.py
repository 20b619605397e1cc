"""Small networks that ship with the library, and the data they are trained on."""

from ifa.nets.handwriting import digits as digits
from ifa.nets.handwriting import digits_cnn as digits_cnn
from ifa.nets.handwriting import digits_vit as digits_vit
from ifa.nets.handwriting import train_digits as train_digits

__all__ = ["digits", "digits_cnn", "digits_vit", "train_digits"]
