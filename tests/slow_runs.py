"""Slow runs in processes that start at once: forked from one that has imported everything."""

import json
import math
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import torch

import ifa

SAMPLES = 20
OPTIONS = {"layer": "1", "shard": 2, "batch_size": 2, "progress": False}
METHODS = ("gradcam", "noise")


class Slow(torch.utils.data.Dataset):
    """Items that take 20 ms each; while there is a file of that name, number 9 ends its process.

    It is not among those that the driver reads to identify the data.
    """

    def __init__(self, ends=None):
        self.ends = ends

    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        time.sleep(0.02)
        if index == 9 and self.ends and os.path.exists(self.ends):
            os._exit(1)
        values = torch.randn(2, 9, generator=torch.Generator().manual_seed(index))
        return values, index % 3, f"case {index}"


def network():
    """Make a small network, the same every time."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv1d(2, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(28, 3)
    ).eval()


def run(kind, store, scheduler=None, **options):
    """Do or continue a run, on the workers of a scheduler if one is given."""
    if scheduler is not None:
        from distributed import Client

        with Client(scheduler) as client:
            run_on(client, kind, store, **options)
        return
    _run(kind, network(), Slow(), store, **options)


def run_on(client, kind, store, **options):
    """Do or continue a run on the workers of a client."""
    data = ifa.DataRef("slow_runs:Slow", config={"ends": options.pop("ends", None)})
    options["map"] = ifa.engines.dask(client, retries=options.pop("retries", 5))
    _run(kind, ifa.ModelRef("slow_runs:network"), data, store, **options)


def _run(kind, model, data, store, **options):
    if kind == "table":
        methods = {
            name: cam for name, cam in ifa.contest.cam_methods("1").items() if name in METHODS
        }
        metrics = {"deletion": ifa.evaluate.deletion}
        options = {"shard": 2, "progress": False, "store": store, **options}
        ifa.contest.table(model, data, methods, metrics, **options)
        return
    if kind == "analyze" and options.get("keep_samples") != "none":
        options = {"cluster": [f"patient {sample // 3}" for sample in range(SAMPLES)], **options}
    driver = {"analyze": ifa.analyze, "maps": ifa.maps}[kind]
    driver(model, data, store=store, **OPTIONS, **options)


class Starter:
    """A process that forks others, which run as if they had been started anew."""

    def __enter__(self):
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": str(Path(ifa.__file__).parents[1]),  # not what else is installed
            },
        )
        assert self.process.stdout.readline() == "ready\n"
        return self

    def run(self, **asked):
        """Do a run, killed `after` some seconds; return its exit code, or minus the signal."""
        print(json.dumps(asked), file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())

    def __exit__(self, *error):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def main():
    torch.set_num_threads(1)
    for kind in ("analyze", "maps", "table"):
        run(kind, None)
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        after = asked.pop("after", None)
        child = os.fork()
        if not child:
            _child(asked)
        deadline = time.monotonic() + (math.inf if after is None else after)
        while not (ended := os.waitpid(child, os.WNOHANG))[0]:
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
                ended = os.waitpid(child, 0)
                break
            time.sleep(0.002)
        print(os.waitstatus_to_exitcode(ended[1]), flush=True)


def _child(asked):
    """Do a run and end this process; what goes wrong is written to a file."""
    errors = asked.pop("errors")
    try:
        run(**asked)
    except BaseException:
        with open(errors, "w") as file:
            traceback.print_exc(file=file)
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    # all that is loaded and made once, but for the thread that zarr writes in: that is not forked
    import zarr.codecs  # noqa: F401

    main()
