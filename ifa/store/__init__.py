"""States, statistics and sample tables as labelled Zarr; models and data by reference."""

from ifa.store.references import ModelRef as ModelRef
from ifa.store.runs import Run as Run
from ifa.store.runs import open as open
from ifa.store.runs import verify as verify

__all__ = ["ModelRef", "Run", "open", "verify"]
