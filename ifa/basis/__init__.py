"""Other features than channels: concepts that several channels make up together."""

from ifa.basis.factorization import Factors as Factors
from ifa.basis.factorization import factorize as factorize

__all__ = ["Factors", "factorize"]
