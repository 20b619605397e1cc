"""Names of cases that are the same in every process: pytest-xdist compares them."""

import re


def plain(value):
    """Say a value without the addresses of its functions and objects."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))
