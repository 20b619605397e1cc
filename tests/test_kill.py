"""`ifa analyze` killed with SIGKILL at random moments, again and again, loses nothing."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from populations import contents

import ifa

# Deliberately slow: a sample takes 0.08 s, a shard has two.
MODULE = """
import time

import torch


class Slow(torch.utils.data.Dataset):
    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        time.sleep(0.08)
        values = torch.randn(2, 9, generator=torch.Generator().manual_seed(index))
        return values, index % 3, f"case {index}"


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv1d(2, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(28, 3)
    )
"""


def start(home, out):
    command = [sys.executable, "-c", "import sys; from ifa.cli import main; sys.exit(main())"]
    options = ["--layer", "1", "--shard", "2", "--batch-size", "2", "--keep-samples", "full"]
    return subprocess.Popen(
        [*command, "analyze", "slow:network", "slow:Slow", "--out", out, "--quiet", *options],
        cwd=home,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return output


def shards(run):
    return len(list(run.glob("shards/*.npz")))


def kill_and_compare(home, kills):
    total = 16 * kills // 10
    (home / "slow.py").write_text(MODULE.replace("SAMPLES", str(2 * total)))
    finish(start(home, "whole"))
    draw, run, inside = random.Random(0), home / "run", 0
    for number in range(kills):
        before = shards(run)
        process = start(home, "run")
        # one in five falls at any time from the start of the process; the others once it works
        if number % 5:
            while process.poll() is None and shards(run) == before < total:
                time.sleep(0.005)
            time.sleep(draw.uniform(0, 0.3))
        else:
            time.sleep(draw.uniform(0, 4))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        inside += shards(run) > before
    finish(start(home, "run"))
    for part in ("statistics.zarr", "samples.zarr", "shards"):
        assert contents(run / part) == contents(home / "whole" / part)
    ifa.verify(run)
    return inside


def test_ten_kills_lose_nothing(tmp_path):
    inside = kill_and_compare(tmp_path, 10)
    print(f"{inside} of 10 kills fell between the first and the last shard that was written")
    assert inside >= 4


@pytest.mark.deep
def test_thirty_kills_lose_nothing(tmp_path):
    inside = kill_and_compare(tmp_path, 30)
    print(f"{inside} of 30 kills fell between the first and the last shard that was written")
    assert inside >= 8
