"""Other features than channels: concepts that several channels make up together."""

from ifa.basis.dictionaries import Dictionary as Dictionary
from ifa.basis.dictionaries import decode as decode
from ifa.basis.dictionaries import digest as digest
from ifa.basis.dictionaries import encode as encode
from ifa.basis.dictionaries import fill as fill
from ifa.basis.factorization import Factors as Factors
from ifa.basis.factorization import factorize as factorize
from ifa.basis.fits import from_overcomplete as from_overcomplete
from ifa.basis.fits import from_sklearn as from_sklearn
from ifa.basis.fits import nmf as nmf
from ifa.basis.fits import unexplained as unexplained
from ifa.basis.names import name_atoms as name_atoms
from ifa.basis.names import named as named
from ifa.basis.names import names as names
from ifa.basis.projections import project as project
from ifa.basis.sparse import sparse_autoencoder as sparse_autoencoder
from ifa.basis.spectra import balanced as balanced
from ifa.basis.spectra import gradient as gradient
from ifa.basis.spectra import identity as identity
from ifa.basis.spectra import pca as pca
from ifa.basis.spectra import rotation as rotation
from ifa.basis.stored import load as load
from ifa.basis.stored import save as save

__all__ = [
    "Dictionary",
    "Factors",
    "balanced",
    "decode",
    "digest",
    "encode",
    "factorize",
    "fill",
    "from_overcomplete",
    "from_sklearn",
    "gradient",
    "identity",
    "load",
    "name_atoms",
    "named",
    "names",
    "nmf",
    "pca",
    "project",
    "rotation",
    "save",
    "sparse_autoencoder",
    "unexplained",
]
