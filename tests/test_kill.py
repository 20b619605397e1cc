"""`ifa analyze` killed with SIGKILL at random moments, again and again, loses nothing."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cheap_runs import results
from populations import contents
from slow_runs import Starter

import ifa

HERE = str(Path(ifa.__file__).parents[1])

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
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(home), HERE]),  # not what else is installed
        },
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


def test_two_kills_of_the_command_lose_nothing(tmp_path):
    kill_and_compare(tmp_path, 2)


@pytest.mark.deep
def test_ten_kills_of_the_command_lose_nothing(tmp_path):
    inside = kill_and_compare(tmp_path, 10)
    print(f"{inside} of 10 kills fell between the first and the last shard that was written")
    assert inside >= 4


# All drivers, readers and tables; processes that start at once

DRIVERS = {
    **{
        f"analyze, {keep}, workers {workers}": {
            "kind": "analyze",
            "keep_samples": keep,
            "workers": workers,
        }
        for keep in ("none", "summary", "full")
        for workers in (None, 0, 2)
    },
    **{f"maps, workers {n}": {"kind": "maps", "workers": n} for n in (None, 0, 2)},
    "table": {"kind": "table"},
}


@pytest.fixture(scope="module")
def starter():
    with Starter() as starter:
        yield starter


def done(starter, home, run, asked):
    """Do a run to its end."""
    errors = home / "errors"
    code = starter.run(store=str(run), errors=str(errors), **asked)
    assert code == 0, errors.read_text()


def killed(starter, home, asked, kills, seed):
    """Kill at random moments, continue each time; count the kills amid the work.

    That is, between the first shard and the commit. A run that came to its end is compared and
    begun anew.
    """
    whole, run, draw, inside = home / "whole", home / "run", random.Random(seed), 0
    begun = time.monotonic()
    done(starter, home, whole, asked)
    takes = time.monotonic() - begun
    for _ in range(kills):
        code = 0
        while not code:
            files = {"store": str(run), "errors": str(home / "errors")}
            code = starter.run(after=draw.uniform(0, takes), **files, **asked)
            assert code in (0, -signal.SIGKILL), (home / "errors").read_text()
            if not code:
                compare(run, whole)
                shutil.rmtree(run)
        inside += bool(shards(run)) and not (run / "COMMIT.json").exists()
    done(starter, home, run, asked)
    compare(run, whole)
    return inside


def compare(run, whole):
    assert results(run) == results(whole)
    ifa.verify(run)


@pytest.mark.parametrize("driver", ["analyze, full, workers 2", "maps, workers None", "table"])
def test_a_kill_loses_nothing(driver, starter, tmp_path):
    killed(starter, tmp_path, DRIVERS[driver], kills=2, seed=0)


@pytest.mark.deep
@pytest.mark.parametrize("driver", DRIVERS)
def test_sixteen_kills_lose_nothing(driver, starter, tmp_path):
    """Of each driver, reader and table: 208 together."""
    inside = killed(starter, tmp_path, DRIVERS[driver], kills=16, seed=0)
    print(f"{inside} of 16 kills of {driver} fell between the first shard and the commit")
    assert inside >= 4
