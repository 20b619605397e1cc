"""Hypothesis profiles, chosen by HYPOTHESIS_PROFILE; tests marked deep run only when named."""

import os

import pytest
import torch
from hypothesis import settings

os.environ.setdefault("MPLBACKEND", "Agg")

settings.register_profile(
    "ci", deadline=None, derandomize=True, print_blob=True, max_examples=40, database=None
)
settings.register_profile("deep", deadline=None, max_examples=2000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_collection_modifyitems(config, items):
    if "deep" in config.option.markexpr:
        return
    skip = pytest.mark.skip(reason="deep: run with -m deep")
    for item in items:
        if item.get_closest_marker("deep"):
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random state, whichever ran before it."""
    torch.manual_seed(0)
