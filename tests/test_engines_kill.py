"""Workers and clients of a cluster killed at random moments: the same bits, or an error to resume.

All of it takes minutes: a worker that starts imports torch. `test_engines` has what is quick.
"""

import os
import random
import signal
import threading
import time
from contextlib import suppress

import pytest
from cheap_runs import results
from slow_runs import Starter, run_on
from slow_runs import run as run_here

import ifa

distributed = pytest.importorskip("distributed")
pytestmark = [pytest.mark.deep, pytest.mark.filterwarnings("default")]  # those of Dask's own

KINDS = ("analyze", "maps", "table")


def cluster_of(workers, threads=1):
    return distributed.LocalCluster(
        n_workers=workers, threads_per_worker=threads, dashboard_address=":0"
    )


@pytest.fixture(scope="module")
def cluster():
    with cluster_of(2) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Runs that nobody disturbed, in one process."""
    home = tmp_path_factory.mktemp("whole")
    for kind in KINDS:
        run_here(kind, home / kind)
    return {kind: results(home / kind) for kind in KINDS}


@pytest.mark.parametrize(("workers", "threads"), [(1, 1), (4, 1), (2, 2)])
def test_any_number_of_workers_gives_the_same_bits(workers, threads, whole, tmp_path):
    with cluster_of(workers, threads) as cluster, distributed.Client(cluster) as client:
        client.wait_for_workers(workers)
        for kind in KINDS:
            run_on(client, kind, tmp_path / kind)
            assert results(tmp_path / kind) == whole[kind]
            ifa.verify(tmp_path / kind)


class Killer:
    """Kills a worker every now and then, until it has killed so many amid a run."""

    def __init__(self, cluster, kills, seed):
        self.cluster, self.left, self.draw = cluster, kills, random.Random(seed)
        self.amid = threading.Event()
        self.thread = threading.Thread(target=self._work)

    def _work(self):
        while self.left:
            self.amid.wait()
            time.sleep(self.draw.uniform(0, 0.4))
            pids = [nanny.pid for nanny in self.cluster.workers.values() if nanny.pid]
            if not pids or not self.amid.is_set():
                continue
            with suppress(ProcessLookupError):
                os.kill(self.draw.choice(pids), signal.SIGKILL)
                self.left -= 1


@pytest.mark.parametrize("kind", KINDS)
def test_twenty_kills_of_workers_lose_nothing(kind, cluster, whole, tmp_path):
    killer, runs, refused = Killer(cluster, 20, seed=0), 0, 0
    killer.thread.start()
    with distributed.Client(cluster) as client:
        while killer.left:
            store, runs, done = tmp_path / str(runs), runs + 1, False
            client.wait_for_workers(1)
            while not done:
                killer.amid.set()
                try:
                    run_on(client, kind, store)
                    done = True
                except RuntimeError as error:
                    assert "What is done is kept: run again" in str(error)  # noqa: PT017
                    refused += 1
                finally:
                    killer.amid.clear()
            assert results(store) == whole[kind]
            ifa.verify(store)
    killer.amid.set()
    killer.thread.join()
    print(f"{kind}: 20 workers killed amid {runs} runs; {refused} errors, resumed")


@pytest.mark.parametrize("kind", KINDS)
def test_ten_kills_of_the_client_lose_nothing(kind, cluster, whole, tmp_path):
    run, errors, draw, ends = tmp_path / "run", tmp_path / "errors", random.Random(1), 0
    asked = {
        "kind": kind,
        "scheduler": cluster.scheduler_address,
        "store": str(run),
        "errors": str(errors),
    }
    with Starter() as starter, distributed.Client(cluster) as client:
        client.wait_for_workers(1)
        begun = time.monotonic()
        assert starter.run(**{**asked, "store": str(tmp_path / "first")}) == 0, errors.read_text()
        takes = time.monotonic() - begun
        for kill in range(10):
            code = starter.run(after=draw.uniform(0, takes), **asked)
            assert code in (0, -signal.SIGKILL), errors.read_text()
            if not code:
                assert results(run) == whole[kind]
                ends, run = ends + 1, tmp_path / f"run {kill}"
                asked["store"] = str(run)
        assert starter.run(**asked) == 0, errors.read_text()
    assert results(run) == whole[kind]
    ifa.verify(run)
    print(f"{kind}: 10 clients killed, {ends} of them after the end")


@pytest.mark.parametrize("kind", KINDS)
def test_a_shard_that_ends_its_workers_ends_the_call(kind, whole, tmp_path):
    """Dask counts those that waited too. Once the cause is gone the same call finishes."""
    (tmp_path / "ends").write_text("")
    with (
        cluster_of(1) as cluster,
        distributed.Client(cluster) as client,
    ):
        options = {"ends": str(tmp_path / "ends"), "retries": 0}
        with pytest.raises(RuntimeError, match=r"expected shard \d to be done, but 4 workers died"):
            run_on(client, kind, tmp_path / "run", **options)
        (tmp_path / "ends").unlink()
        run_on(client, kind, tmp_path / "run", **options)
    assert results(tmp_path / "run") == whole[kind]
    ifa.verify(tmp_path / "run")
