"""Engines: shards elsewhere have the same bits, and whoever cannot make them says so."""

import ast
import pickle
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter

import pytest
import torch
from cheap_runs import results
from populations import digits_like, net
from test_pages import ROOT, pieces

import ifa
from ifa.population.contract import Computing, Contract, Kept
from ifa.population.driver import Work
from ifa.store.specs import versions

distributed = pytest.importorskip("distributed")

OPTIONS = {"layer": "conv2", "shard": 3, "batch_size": 3, "progress": False}
MODEL = ifa.ModelRef("test_engines:network")
DATA = ifa.DataRef("test_engines:population", config={"samples": 23})
MADE: list[str] = []  # what the factories were called for, and in which thread
FAILS = {"left": 0}


made = net  # which is replaced


def network(seed=0):
    """Make a network by reference."""
    MADE.append("network")
    return net(seed=seed)


def population(samples):
    """Make data by reference."""
    MADE.append(f"data in {threading.current_thread().name}")
    return digits_like(net(), samples)


def table(model, data, **options):
    methods = {
        name: cam
        for name, cam in ifa.contest.cam_methods("conv2").items()
        if name in ("gradcam", "noise")
    }
    options = {"shard": 3, "progress": False, **options}
    return ifa.contest.table(model, data, methods, {"deletion": ifa.evaluate.deletion}, **options)


DRIVERS = {
    "analyze": lambda model, data, **options: ifa.analyze(model, data, **{**OPTIONS, **options}),
    "maps": lambda model, data, **options: ifa.maps(model, data, **{**OPTIONS, **options}),
    "table": table,
}


@pytest.fixture(scope="module")
def client():
    """Give a cluster of threads, which starts at once."""
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=2, processes=False, dashboard_address=":0"
    )
    with cluster, distributed.Client(cluster) as client:
        yield client


def sent(driver, model=MODEL, data=DATA, **options):
    """Return what a driver gives to map=, and would send to other processes."""
    held = []

    def hold(function, shards):
        held.append(function)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        DRIVERS[driver](model, data, map=hold, **options)
    return held[0]


# Dask


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_cluster_gives_the_same_bits(driver, client, tmp_path):
    run = DRIVERS[driver]
    run(net(), digits_like(net()), store=tmp_path / "here")
    reported = []
    options = {"map": ifa.engines.dask(client), "progress": lambda *now: reported.append(now)}
    run(MODEL, DATA, store=tmp_path / "there", **options)
    assert results(tmp_path / "there") == results(tmp_path / "here")
    assert reported == sorted(reported)
    assert reported[-1][0] == reported[-1][1]
    assert not client.futures  # all were released


def test_in_memory_too(client):
    here, there = (
        DRIVERS["analyze"](MODEL, DATA, map=mapper) for mapper in (map, ifa.engines.dask(client))
    )
    for name in ("conv2", "samples/conv2", "samples"):
        assert there[name].to_dataset().identical(here[name].to_dataset())


def test_what_lasts_is_said_at_once(client):
    calls = []

    def refused(shard):
        calls.append(shard)
        raise ValueError("expected a label")

    with pytest.raises(ValueError, match="expected a label") as caught:
        list(ifa.engines.dask(client)(refused, [4]))
    assert "of shard 4, in worker" in caught.value.__notes__[0]
    assert not client.futures


def flaky(shard):
    FAILS["left"] -= 1
    if FAILS["left"] >= 0:
        raise OSError("the disk is away")
    return (shard,)


def test_what_may_pass_is_tried_again(client):
    FAILS["left"] = 2
    assert list(ifa.engines.dask(client, retries=2)(flaky, [0])) == [(0,)]
    FAILS["left"] = 2
    with pytest.raises(OSError, match="the disk is away") as caught:
        list(ifa.engines.dask(client, retries=1)(flaky, range(1)))
    assert caught.value.__notes__ == ["ifa.engines.dask: of shard 0, after 1 retries."]


def test_more_shards_than_a_scheduler_has_at_once(client, monkeypatch):
    monkeypatch.setattr("ifa.engines._AHEAD", 3)
    assert sorted(ifa.engines.dask(client)(float, range(10))) == [float(n) for n in range(10)]


def test_wrong_engines_are_refused(client):
    with pytest.raises(TypeError, match=r"expected a dask\.distributed\.Client, got str"):
        ifa.engines.dask("tcp://somewhere")
    with pytest.raises(ValueError, match="expected retries to be 0 or more, got -1"):
        ifa.engines.dask(client, retries=-1)
    with pytest.raises(ValueError, match="expected a worker with resources GPU=1, got 2 without"):
        ifa.engines.dask(client, resources={"GPU": 1})


def test_a_job_that_holds_the_data_is_refused(client, monkeypatch):
    monkeypatch.setattr("ifa.engines._MOST_BYTES", 2**16)
    with pytest.raises(ValueError, match=r"got \d+ MiB: it holds .* Give ifa\.ModelRef"):
        DRIVERS["analyze"](net(), digits_like(net(), 200), map=ifa.engines.dask(client))


# Parts, without a scheduler


@pytest.mark.parametrize("driver", DRIVERS)
def test_parts_and_a_commit_give_the_same_bits(driver, tmp_path):
    run, made, done = DRIVERS[driver], net(), []
    data = digits_like(made)
    extra = {"cluster": [f"patient {n // 3}" for n in range(len(data))]}
    extra = {} if driver == "maps" else extra
    if driver == "analyze":
        extra |= {
            "reductions": ["histogram", "covariance"],
            "groups": ["a", "b", "a"] * 7 + ["b"] * 2,
        }
    whole = run(made, data, store=tmp_path / "whole", **extra)
    options = {**extra, "store": tmp_path / "run"}
    with pytest.raises(
        ValueError, match=r"ifa\.engines\.commit: expected a run at .*, got nothing"
    ):
        ifa.engines.commit(tmp_path / "run")
    for number in (3, 1):
        part = run(made, data, map=ifa.engines.shards(number, 3), **options)
        done.append(part.attrs["done"])
    assert done == [2, 5]
    assert part.attrs["shards"] == 8
    assert not part.variables
    with pytest.raises(ValueError, match=r"expected all 8 shards of .* got 3 missing: 1, 4, 7\."):
        ifa.engines.commit(tmp_path / "run")
    with ThreadPoolExecutor(2) as pool:
        run(made, data, map=ifa.engines.shards(2, 3, map=pool.map), **options)
    found = ifa.engines.commit(tmp_path / "run")
    assert results(tmp_path / "run") == results(tmp_path / "whole")
    assert found.attrs == whole.attrs
    ifa.verify(tmp_path / "run")
    again = run(made, data, map=ifa.engines.shards(1, 3), **options)
    assert again.attrs == whole.attrs  # a run that is finished is returned
    assert ifa.engines.commit(tmp_path / "run").identical(found)


def test_parts_at_once(tmp_path):
    made = net()
    data = digits_like(made)
    DRIVERS["analyze"](made, data, store=tmp_path / "whole")

    def part(number):
        DRIVERS["analyze"](made, data, store=tmp_path / "run", map=ifa.engines.shards(number, 6))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(part, range(1, 7)))
    ifa.engines.commit(tmp_path / "run")
    assert results(tmp_path / "run") == results(tmp_path / "whole")


def importances(batch):
    return batch.importance


def test_a_part_is_of_one_analysis(tmp_path):
    """A part that is of another does not take over what others may be about to do."""
    made = net()
    data = digits_like(made)
    run, options = DRIVERS["analyze"], {"store": tmp_path / "run"}
    run(made, data[:3], map=ifa.engines.shards(2, 2), **options)  # of one shard: nothing
    with pytest.raises(ValueError, match=r"got another: data\.samples"):
        run(made, data, map=ifa.engines.shards(1, 2), **options)
    own = {"mine": ifa.reduce.mapped(importances, ifa.reduce.moments())}
    options = {"store": tmp_path / "own", "reductions": own}
    run(made, data, map=ifa.engines.shards(1, 1), **options)
    with pytest.raises(ValueError, match="Repeat the call that made it, without map="):
        ifa.engines.commit(tmp_path / "own")
    assert "mine_mean" in run(made, data, **options)["conv2"]


def test_wrong_parts_are_refused(tmp_path):
    for number, of in ((0, 2), (3, 2), ("1", 2)):
        with pytest.raises(ValueError, match=rf"a part from 1 to 2, got {number!r} of 2\."):
            ifa.engines.shards(number, of)
    with pytest.raises(ValueError, match="expected of to be a whole number, at least 1, got 0"):
        ifa.engines.shards(1, 0)
    with pytest.raises(ValueError, match="expected store= with a part of the shards"):
        DRIVERS["analyze"](net(), digits_like(net()), map=ifa.engines.shards(1, 2))


def test_a_commit_is_of_the_versions_of_its_shards(tmp_path, monkeypatch):
    made = net()
    data = digits_like(made)
    DRIVERS["analyze"](made, data, store=tmp_path / "run", map=ifa.engines.shards(1, 1))
    now = {**versions(), "torch": "9.9"}
    monkeypatch.setattr("ifa.engines.versions_now", lambda: now)
    with pytest.raises(ValueError, match=r"versions\.torch: '2.*' in the run, '9\.9' now"):
        ifa.engines.commit(tmp_path / "run")
    ifa.engines.commit(tmp_path / "run", versions="any")
    ifa.verify(tmp_path / "run")


# What goes to workers


@pytest.mark.parametrize("driver", DRIVERS)
def test_of_references_less_than_50_kb_is_sent(driver):
    size = len(pickle.dumps(sent(driver)))
    print(f"{driver}: {size} bytes")
    assert size < 50_000


def test_data_by_reference_are_loaded_once_by_each_thread():
    packed = pickle.dumps(sent("analyze"))
    work = pickle.loads(packed)
    MADE.clear()
    assert pickle.loads(packed).job.cuts.data is work.job.cuts.data
    assert not MADE
    thread = threading.Thread(target=pickle.loads, args=(packed,), name="another")
    thread.start()
    thread.join()
    assert MADE == ["data in another"]
    assert len(ifa.DataRef("ifa.nets:digits").load()) == 899


def test_threads_load_one_at_a_time():
    """Factories that seed the process's generator gave other networks where several did at once."""
    found = []

    def load():
        found.append((MODEL.load(), ifa.DataRef("test_engines:few").load()))

    threads = [threading.Thread(target=load) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    weights = [model.state_dict()["conv1.weight"] for model, _ in found]
    assert all(torch.equal(one, weights[0]) for one in weights)
    assert all(torch.equal(data[0][0], found[0][1][0][0]) for _, data in found)


def test_a_wrong_reference_is_named():
    with pytest.raises(LookupError, match=r"ifa\.DataRef: expected a module that can be imported"):
        DRIVERS["analyze"](MODEL, ifa.DataRef("nowhere:data"))


@pytest.mark.parametrize("driver", ["analyze", "table"])
def test_a_network_is_made_once_in_a_process(driver):
    packed = pickle.dumps(sent(driver))
    MADE.clear()
    for _ in range(2):
        pickle.loads(packed)(0)
    assert MADE.count("network") == 1


# The contract


def test_other_versions_are_named_before_the_job_is_read(monkeypatch):
    work = sent("analyze")
    monkeypatch.setattr(
        "ifa.population.driver.versions_now", lambda: {**versions(), "torch": "9.9"}
    )
    packed = pickle.dumps(Work(work.job, None))
    monkeypatch.setattr("ifa.population.passes.Engine.__init__", None)  # it is not made
    with pytest.raises(ValueError, match=r"expected torch 9\.9 in every worker.* got torch 2.*in"):
        pickle.loads(packed)
    with pytest.raises(ValueError, match="got numpy"):
        pickle.loads(pickle.dumps(Contract("ifa.maps", {**versions(), "numpy": "1"})))


def test_another_network_is_named(monkeypatch):
    packed = [pickle.dumps(sent(driver)) for driver in ("analyze", "table")]
    monkeypatch.setattr("test_engines.net", lambda seed=0: made(seed=1))
    for one in packed:
        with pytest.raises(
            ValueError, match="to give the same network in every process, got anoth"
        ):
            pickle.loads(one)


def test_another_device_is_named(monkeypatch):
    packed = [pickle.dumps(sent(driver)) for driver in ("analyze", "table")]
    monkeypatch.setattr("test_engines.net", lambda seed=0: made(seed=seed).to("meta"))
    monkeypatch.setattr("ifa.population.passes.Engine.__init__", _elsewhere)
    monkeypatch.setattr("ifa.population.passes.model_token", lambda *given: {})
    for one in packed:
        with pytest.raises(
            ValueError, match=r"every worker to compute on cpu, .* got meta in the pr"
        ):
            pickle.loads(one)


def _elsewhere(engine, recipe, model):
    engine.device = torch.device("meta")


def test_other_data_are_named(monkeypatch):
    packed = pickle.dumps(sent("analyze", data=ifa.DataRef("test_engines:few")))
    monkeypatch.setattr("test_engines.FEW", 8)
    vars(ifa.store.references._DATA).clear()
    with pytest.raises(ValueError, match=r"expected data of 9 samples in every worker.* got 8 in"):
        pickle.loads(packed)


FEW = 9


def few():
    return digits_like(net(), FEW)


def test_threads_are_put_back_by_the_last_of_several():
    """Who was done first put them back, and the others went on with other bits."""
    before, computing = torch.get_num_threads(), Computing()
    with computing("ifa", before + 1):
        with computing("ifa", before + 1):
            assert torch.get_num_threads() == before + 1
        assert torch.get_num_threads() == before + 1
        said = rf"expected work of {before + 1} threads .* got work of {before}\."
        with pytest.raises(ValueError, match=said), computing("ifa", before):
            pass
    assert torch.get_num_threads() == before


def test_each_is_made_once_and_nobody_waits_for_another():
    kept, made, waits = Kept(2), [], threading.Event()

    def slow():
        made.append("slow")
        assert waits.wait(20)
        return "slow"

    threads = [threading.Thread(target=kept.get, args=("slow", slow)) for _ in range(3)]
    for thread in threads:
        thread.start()
    while not made:
        time.sleep(0.001)
    assert kept.get("other", lambda: "at once") == "at once"
    waits.set()
    for thread in threads:
        thread.join()
    assert made == ["slow"]
    for key in ("a", "b", "slow"):
        kept.get(key, lambda key=key: made.append(key))
    assert made == ["slow", "a", "b", "slow"]  # of three the last two are kept


def test_what_the_page_calls_is_there():
    """Its blocks want a cluster, so that they are only read."""
    page = ROOT / "docs" / "how-to" / "cluster.md"
    for piece in pieces(page):
        ast.parse(piece)
    for name in re.findall(r"ifa((?:\.\w+)+)\(", page.read_text()):
        assert callable(attrgetter(name[1:])(ifa)), name
