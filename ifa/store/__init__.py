"""States, statistics and sample tables as labelled Zarr; models and data by reference."""

from ifa.store.maps import save_maps as save_maps
from ifa.store.masks import open_mask as open_mask
from ifa.store.masks import save_mask as save_mask
from ifa.store.nifti import write_nifti as write_nifti
from ifa.store.references import DataRef as DataRef
from ifa.store.references import ModelRef as ModelRef
from ifa.store.runs import Run as Run
from ifa.store.runs import open as open
from ifa.store.runs import verify as verify

__all__ = [
    "DataRef",
    "ModelRef",
    "Run",
    "open",
    "open_mask",
    "save_maps",
    "save_mask",
    "verify",
    "write_nifti",
]
