"""Hypothesis profiles, chosen by HYPOTHESIS_PROFILE; tests marked deep run only when named."""

import os

import pytest
import torch
from filelock import FileLock
from hypothesis import settings
from safetensors.torch import load_file, save_file

os.environ.setdefault("MPLBACKEND", "Agg")

# two processes of one thread each; the number of threads changes bits
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start

settings.register_profile(
    "ci", deadline=None, derandomize=True, print_blob=True, max_examples=30, database=None
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


@pytest.fixture(scope="session")
def trained(tmp_path_factory, worker_id):
    """Give the network of `ifa.nets.train_digits(epochs=...)`, trained once for all processes."""
    import ifa

    home = tmp_path_factory.getbasetemp()
    home = home if worker_id == "master" else home.parent

    def load(epochs=40):
        path = home / f"digits-{epochs}.safetensors"
        with FileLock(f"{path}.lock"):
            if not path.exists():
                save_file(ifa.nets.train_digits(epochs=epochs).state_dict(), path)
        net = ifa.nets.digits_cnn()
        net.load_state_dict(load_file(path))
        return net.eval().requires_grad_(False)

    return load
